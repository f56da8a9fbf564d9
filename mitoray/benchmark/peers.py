"""TIAToolbox and WSInfer beside mitoray: the same network, slide and cores, in turn.

    python -m mitoray.benchmark.peers --folder peers --slide mine.svs
    python -m mitoray.benchmark.peers --folder peers --draw JPEG

Each tool plans, reads windows of 512 px at the model's µm/px without overlap, and runs the network over them; both
peers run it as plain float32, as they take networks. mitoray runs twice: as it is, and with that plain network, so that
what reading gains and what the forward pass gains can be told apart. Starting, loading and a warm-up, in which the
peers choose their batch size and number of reading processes, are not counted.
"""

import argparse
import json
import os
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from mitoray.benchmark.material import CODECS, SEED
from mitoray.benchmark.runner_environment import Peer, PeerFailed, environment
from mitoray.benchmark.runner_network import WINDOW_PX, write_traced
from mitoray.benchmark.runner_process import Runner, together
from mitoray.models import load_bundle
from mitoray.models.placement import KEEP_MEMORY
from mitoray.phantom import draw_cohort
from mitoray.scoring.manifest import read_manifest
from mitoray.slide import open_slide

PEERS: Final = (
    Peer("tiatoolbox", ("tiatoolbox>=2.1", "openslide-bin>=4.0")),
    # Its tiffslide knows zarr 2, and the tifffile of that time: three times as fast here as its OpenSlide would be.
    Peer("wsinfer", ("wsinfer>=0.6.1", "zarr<3", "tifffile<2025")),
)
BATCHES: Final = (8, 32)
LIMIT_S: Final = 1800.0
SIDE_PX: Final = 12_288
"""Of a phantom drawn for this: twelve windows of 512 px at 0.5 µm/px, so that no window is partly outside."""


def peers(
    slide: str,
    folder: Path,
    *,
    model: str = "mitoray-s",
    cores: int | None = None,
    device: str = "cpu",
    rounds: int = 3,
    tools: Sequence[Peer] = PEERS,
    index: str | None = None,
    limit_s: float = LIMIT_S,
) -> list[dict[str, Any]]:
    """Rows by tool: name, version, mm2 (of tissue as the tool finds it), seconds (median), windows_per_s, note.

    windows_per_s: what `mm2` holds of windows of 512 px, by the seconds. A peer that cannot be installed or run has
    None for numbers, and the reason as its note. slide: a file on disk. folder: for environments, which are used again,
    and logs. model: a bundle that draws heat-maps. cores: None for all; the peers get as many threads, mitoray as many
    actors of one thread (on a GPU one actor). index: of packages, None for the usual one. limit_s: for an answer.
    """
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    settings = _settings(slide, folder, model, cores or len(os.sched_getaffinity(0)), device)
    contest = _Contest(settings, folder, limit_s)
    try:
        contest.enter_mitoray("mitoray", traced=False)
        contest.enter_mitoray("mitoray, the same float32 network", traced=True)
        for peer in tools:
            contest.enter_peer(peer, index)
        for _ in range(rounds):
            contest.round()
        return contest.rows()
    finally:
        contest.close()


def _settings(slide: str, folder: Path, model: str, cores: int, device: str) -> dict[str, Any]:
    """What all runners are told."""
    bundle = load_bundle(model)
    network = folder / "network.pt"
    write_traced(bundle, network)
    with open_slide(slide) as opened:
        size_px, slide_mpp = (opened.width_px, opened.height_px), opened.mpp
    return {
        "slide": str(Path(slide).resolve()),
        "size_px": size_px,
        "slide_mpp": slide_mpp,
        "network": str(network),
        "model": model,
        "mpp": bundle.mpp,
        "mean": bundle.normalisation.mean,
        "std": bundle.normalisation.std,
        "window_px": WINDOW_PX,
        "cores": cores,
        "device": device,
        "folder": str(folder),
    }


class _Contest:
    """Tools that are ready, what they took, and why others are not."""

    def __init__(self, settings: Mapping[str, Any], folder: Path, limit_s: float) -> None:
        self._settings, self._folder, self._limit_s = settings, folder, limit_s
        self._runners: dict[str, list[Runner]] = {}
        self._about: dict[str, dict[str, Any]] = {}
        self._seconds: dict[str, list[float]] = {}
        self._answers: dict[str, list[dict[str, Any]]] = {}
        self._failed: dict[str, str] = {}

    def enter_mitoray(self, name: str, *, traced: bool) -> None:
        """As many actors as cores, each with one thread and one that reads ahead; on a GPU one that has them all."""
        cores = self._settings["cores"]
        on_cpu = self._settings["device"] == "cpu"
        actors, threads, read_threads = (cores, 1, 1) if on_cpu else (1, min(4, cores), min(16, cores))
        own: dict[str, Any] = {
            "traced": traced,
            "actors": actors,
            "threads": threads,
            "read_threads": read_threads,
            "tries": [{}],
        }
        runner = Path(__file__).with_name("runner_mitoray.py")
        file = "mitoray-traced" if traced else "mitoray"
        environment = {**KEEP_MEMORY, "OMP_NUM_THREADS": str(threads)}
        settings = [{**self._settings, **own, "actor": actor} for actor in range(actors)]
        self._enter(
            name,
            [
                Runner(f"{file}-{one['actor']}", sys.executable, runner, one, self._folder, environment, self._limit_s)
                for one in settings
            ],
        )

    def enter_peer(self, peer: Peer, index: str | None) -> None:
        """One process, whose network has all cores, and which may start processes that read."""
        cores = self._settings["cores"]
        tries = [{"batch": batch, "workers": workers} for workers in sorted({0, 1, cores}) for batch in BATCHES]
        home = self._folder / "home"
        home.mkdir(exist_ok=True)
        own = {
            **KEEP_MEMORY,
            "OMP_NUM_THREADS": str(cores),
            "HOME": str(home),  # both leave files there
            "HF_HUB_OFFLINE": "1",
            **({"WSINFER_FORCE_CPU": "1"} if self._settings["device"] == "cpu" else {}),
        }
        runner = Path(__file__).with_name(f"runner_{peer.name}.py")
        try:
            python = environment(peer, self._folder, index)
        except PeerFailed as error:
            self._failed[peer.name] = str(error)
            return
        settings = {**self._settings, "tries": tries}
        self._enter(peer.name, [Runner(peer.name, python, runner, settings, self._folder, own, self._limit_s)])

    def _enter(self, name: str, runners: list[Runner]) -> None:
        self._runners[name] = runners
        try:
            # All must have warmed up before another tool is measured.
            self._about[name], *_ = [runner.answer() for runner in runners]
        except PeerFailed as error:
            self._out(name, error)

    def round(self) -> None:
        """Each tool over the slide once."""
        for name, runners in list(self._runners.items()):
            try:
                seconds, self._answers[name] = together(runners)
            except PeerFailed as error:
                self._out(name, error)
            else:
                self._seconds.setdefault(name, []).append(seconds)

    def _out(self, name: str, error: PeerFailed) -> None:
        self._failed[name] = str(error)
        for runner in self._runners.pop(name):
            runner.close()

    def rows(self) -> list[dict[str, Any]]:
        """See `peers`."""
        return [self._row(name) for name in self._runners] + [
            {"name": name, "version": None, "mm2": None, "seconds": None, "windows_per_s": None, "note": why}
            for name, why in self._failed.items()
        ]

    def _row(self, name: str) -> dict[str, Any]:
        about, answers = self._about[name], self._answers[name]
        seconds, mm2 = statistics.median(self._seconds[name]), sum(answer["mm2"] for answer in answers)
        window_mm2 = (WINDOW_PX * self._settings["mpp"]) ** 2 / 1e6
        return {
            "name": name,
            "version": about["version"],
            "mm2": mm2,
            "seconds": seconds,
            "windows_per_s": mm2 / window_mm2 / seconds,
            "note": _note(about, answers, self._seconds[name]),
        }

    def close(self) -> None:
        """End all runners."""
        for runners in self._runners.values():
            for runner in runners:
                runner.close()


def _note(about: Mapping[str, Any], answers: Sequence[Mapping[str, Any]], seconds: Sequence[float]) -> str:
    cpu_s = sum(answer["cpu_s"] for answer in answers)
    parts = [
        f"rounds {min(seconds):.2f} to {max(seconds):.2f} s",
        f"{cpu_s:.2f} s of CPU in the last",
        f"torch {about['torch']}",
    ]
    if best := about["best"]:
        parts.append(f"batch {best['batch']}, {best['workers']} reading processes")
    if "region_um" in about:
        parts.append(f"{len(answers)} actors, regions of {about['region_um']:g} µm")
        stages = sorted({stage for answer in answers for stage in answer["stages"]})
        took = (f"{stage} {sum(answer['stages'].get(stage, 0.0) for answer in answers):.2f}" for stage in stages)
        parts.append(f"core-seconds: {', '.join(took)}")
    else:
        parts += [f"{answers[0]['windows']} windows", f"mean score {answers[0]['scores']:.4f}"]
    return "; ".join(parts)


def drawn(folder: Path, codec: str, side_px: int = SIDE_PX) -> str:
    """The path of a phantom slide of a codec in `CODECS`, drawn unless it is there."""
    folder = folder / f"slide-{codec.lower()}-{side_px}"
    manifest = folder / "manifest.csv"
    if not manifest.exists():
        sides = {"width_px": side_px, "height_px": side_px}
        draw_cohort(folder, n_slides=1, seed=SEED, domains=[CODECS[codec]], **sides)
    return read_manifest(str(manifest))[0].uri


def main(argv: Sequence[str] | None = None) -> None:
    """Print a row for each tool, and write them as JSON where asked to."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path, required=True, help="for environments (10 GB), phantoms and logs; kept")
    slides = parser.add_mutually_exclusive_group(required=True)
    slides.add_argument("--slide", help="a slide that OpenSlide and tiffslide read, on disk")
    slides.add_argument("--draw", choices=CODECS, help="draw a phantom whose tiles are of this codec")
    parser.add_argument("--side-px", type=int, default=SIDE_PX, help=f"side of a phantom, px (default: {SIDE_PX})")
    parser.add_argument("--model", default="mitoray-s", help="bundle that draws heat-maps (default: mitoray-s)")
    parser.add_argument("--cores", type=int, help="CPU cores for each tool (default: all)")
    parser.add_argument("--device", default="cpu", help="torch device: cpu or cuda (default: cpu)")
    parser.add_argument("--rounds", type=int, default=3, help="times that each tool is measured, in turn (default: 3)")
    parser.add_argument("--output", type=Path, help="JSON file for the rows")
    given = parser.parse_args(argv)
    slide = given.slide or drawn(given.folder, given.draw, given.side_px)
    options = {name: getattr(given, name) for name in ("model", "cores", "device", "rounds")}
    rows = peers(slide, given.folder, **options)
    for row in rows:
        numbers = "not measured"
        if row["seconds"] is not None:
            numbers = (
                f"{row['version']}: {row['seconds']:.2f} s, {row['mm2']:.2f} mm², "
                f"{row['seconds'] / row['mm2']:.3f} s/mm², {row['windows_per_s']:.1f} windows/s"
            )
        print(f"{row['name']} {numbers}. {row['note']}")
    if given.output:
        given.output.write_text(json.dumps({"slide": Path(slide).name, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
