"""Measure mitoray on this machine: reading, the pipeline, scaling, planning, and others' tools beside it.

    python jobs/benchmark.py                                       (all but the peers, on phantoms)
    python jobs/benchmark.py --parts reading --slides mine.svs
    python jobs/benchmark.py --parts peers --output benchmark.json (installs TIAToolbox and WSInfer for themselves)

Prints a table of things measured in turn, with their ratios, and writes it as JSON. Machines are noisy: look at ratios,
and let nothing else run. Exit status: 0 done, 2 bad arguments, 3 some parts failed (each is named), 1 anything else.
"""

import json
import logging
import os
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, get_args

os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")

import torch

from mitoray.benchmark.material import Material
from mitoray.benchmark.parts import PARTS, Settings
from mitoray.benchmark.rows import Row, as_text
from mitoray.commandline import DONE, PARTLY_FAILED, JobParser, run_job
from mitoray.errors import BadModel, BadOption
from mitoray.scoring.run import code_version

Part = Literal["reading", "remote", "pipeline", "scaling", "planning", "peers"]
USUAL: Sequence[Part] = ("reading", "remote", "pipeline", "scaling", "planning")

PARTS_HELP: Final = (
    "reading: Mpx/s of one core, by reader. remote: tiles/s over HTTP with 20 ms a request. pipeline: score_cohort "
    "beside bare decoding and the bare network, stages, cost. scaling: 1 to 8 simulated nodes. planning: up to 100,000 "
    "regions. peers: TIAToolbox and WSInfer on the same slide, in environments of their own, which are installed "
    "(10 GB). Usually all but the peers"
)
SLIDES_HELP: Final = (
    "TIFF-based slides on disk to read and score; none: phantoms are drawn, whose files are JPEG and JPEG2000"
)


@dataclass(frozen=True)
class Options:
    """What to measure, and where to.

    Args:
        parts: see PARTS_HELP.
        slides: see SLIDES_HELP.
        model: of the pipeline: mitoray-s, or a bundle's folder or URI.
        folder: for phantoms, runs and environments; phantoms and environments there are used again.
        output: JSON file for the table.
        rounds: times that things are measured in turn.
        hourly_price: of this machine, in any unit; adds the cost of a slide.
        quick: smaller phantoms and fewer rounds, to see that everything works; figures mean little.
    """

    parts: list[Part] | None = None
    slides: list[str] | None = None
    model: str = "mitoray-s"
    folder: Path = Path("mitoray-benchmark")
    output: Path = Path("benchmark.json")
    rounds: int = 5
    hourly_price: float | None = None
    quick: bool = False

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise BadOption(f"rounds must be at least 1, not {self.rounds}.")
        if missing := [path for path in self.slides or [] if not Path(path).is_file()]:
            raise BadOption(f"slides: {missing[0]} is no file on this machine.")


def main(argv: Sequence[str] | None = None) -> int:
    return run_job(lambda: run(argv), bad_input=(BadModel, BadOption))


def run(argv: Sequence[str] | None) -> int:
    parser = JobParser("benchmark", __doc__.partition("\n")[0])
    parser.add_argument("--slides", nargs="+", metavar="FILE", help=SLIDES_HELP)
    parser.add_argument("--parts", nargs="+", choices=get_args(Part), help=PARTS_HELP)
    parser.add_class_arguments(Options, skip={"slides", "parts"})
    (options,) = parser.parsed(argv, Options)
    material = Material(options.folder, options.slides, options.quick)
    settings = Settings(options.model, 1 if options.quick else options.rounds, options.hourly_price, options.quick)
    machine = f"{os.cpu_count()} CPUs, {_processor()}, {torch.cuda.device_count()} GPUs, torch {torch.__version__}"
    print(f"{machine}. {material.about}.")
    rows: list[Row] = []
    failed: dict[str, str] = {}
    for part in options.parts or USUAL:
        print(f"\n{part} …", file=sys.stderr)
        found = _measured(part, PARTS[part], material, settings, failed)
        print("\n" + as_text(found), flush=True)
        rows += found
        record = {"machine": machine, "material": material.about, "version": code_version(), "failed": failed}
        options.output.write_text(json.dumps(record | {"rows": [row.record() for row in rows]}, indent=1))
    for part, error in failed.items():
        print(f"failed: {part}: {error}", file=sys.stderr)
    print(f"\nTable: {options.output}")
    return PARTLY_FAILED if failed else DONE


def _measured(
    part: str,
    measure: Callable[[Material, Settings], list[Row]],
    material: Material,
    settings: Settings,
    failed: dict[str, str],
) -> list[Row]:
    """A part's rows; one that fails is told at the end, and the others go on."""
    try:
        return measure(material, settings)
    except Exception as error:
        logging.getLogger("mitoray").debug("A part failed", exc_info=error)
        failed[part] = f"{type(error).__name__}: {error}"
        return []


def _processor() -> str:
    """The processor's name, where Linux tells it."""
    info = Path("/proc/cpuinfo")
    names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return names[0] if names else platform.machine()


if __name__ == "__main__":
    sys.exit(main())
