"""Mutated slides through open, plan and read, in processes of limited memory and time: what becomes of each.

    python tests/benchmarks/fuzz_slides.py --count 2000 --seed 1 --output fuzz.json

Bits flipped, ends cut off, tags and directories edited, in small real and drawn slides of every codec. Exit status 0
where every mutant was read or failed by a named error, 1 where one crashed, hung, took too much memory, or failed by an
error without a name; those are kept beside the output.
"""

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "security"))

import slide_mutants
from limited_process import LimitedProcess

from mitoray.scoring.manifest import ManifestRow
from mitoray.scoring.plan import plan_slide
from mitoray.slide import Rect, open_slide

MEMORY_BYTES = 2 << 30
WATCHDOG_S = 10.0


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=2000, help="mutants")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path, help="JSON file for the outcomes; bad mutants are kept beside it")
    options = parser.parse_args()
    started = time.perf_counter()
    outcomes, bad = Counter(), []
    with tempfile.TemporaryDirectory() as folder:
        sources = slide_mutants.sources(Path(folder))
        worker = LimitedProcess(look_at, MEMORY_BYTES, WATCHDOG_S)
        for name, data in sources:
            (Path(folder) / name).write_bytes(data)
            assert worker.outcome(str(Path(folder) / name))[0] == "fine", f"{name} cannot be read as it is"
        for number in range(options.count):
            name, data, how = slide_mutants.mutant(sources, options.seed, number)
            path = Path(folder) / f"mutant{Path(name).suffix}"
            path.write_bytes(data)
            outcome, told = worker.outcome(str(path))
            outcomes[outcome] += 1
            if outcome.startswith("!"):
                bad.append({"number": number, "source": name, "mutation": how, "outcome": outcome, "told": told})
                print(f"{number} {name} {how}: {outcome} {told}", file=sys.stderr)
                if options.output:
                    path.rename(options.output.with_suffix(f".{number}{path.suffix}"))
        worker.end()
    seconds = time.perf_counter() - started
    for outcome, times in outcomes.most_common():
        print(f"{times:6d}  {outcome}")
    print(f"{options.count} mutants of {len(sources)} slides in {seconds:.0f} s; most memory {worker.most_mb} MB")
    if options.output:
        record = {"count": options.count, "seed": options.seed, "seconds": round(seconds, 1), "outcomes": outcomes}
        options.output.write_text(json.dumps(record | {"most_mb": worker.most_mb, "bad": bad}, indent=2) + "\n")
    return 1 if bad else 0


def look_at(path):
    """ "fine" or an error's name, and what it told. Opens, plans and reads as a run does, at two resolutions."""
    plan = plan_slide(ManifestRow("mutant", path, mpp=None), region_um=512, halo_um=32)
    if plan["status"] != "planned":
        name, _, told = plan["error"].partition(": ")
        unforeseen = name.startswith("Unforeseen")
        if "MemoryError" in name:
            return "!memory", told
        if unforeseen or name != "UnknownResolution":
            return (f"!unnamed {name}" if unforeseen else name), told
    with open_slide(path, mpp=0.25 if plan["status"] != "planned" else None) as slide:
        cores = plan["cores"] or [{"x_px": 0, "y_px": 0, "width_px": 400, "height_px": 400}]
        for core in cores[:4]:
            rect = Rect(core["x_px"], core["y_px"], min(core["width_px"], 2048), min(core["height_px"], 2048))
            slide.decode_region(slide.fetch_region(rect.expanded(32), 0.5))
            slide.read_region(rect, slide.mpp)
        if plan["status"] != "planned":
            slide.thumbnail(16.0)
    return "fine", ""


if __name__ == "__main__":
    sys.exit(main())
