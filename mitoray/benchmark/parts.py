"""The parts of the benchmark, each a list of rows."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from mitoray.benchmark.efficiency import efficiency
from mitoray.benchmark.material import Material
from mitoray.benchmark.peers import drawn, peers
from mitoray.benchmark.planning import planning
from mitoray.benchmark.reading import reading
from mitoray.benchmark.remote import remote
from mitoray.benchmark.rows import Row
from mitoray.benchmark.scaling import scaling
from mitoray.scoring.tasks import ray_for_job

TIMES: Final = 12
"""Times that each slide goes through the pipeline."""


@dataclass(frozen=True)
class Settings:
    """How to measure. `hourly_price`: of the machine, None if not known. `quick`: little work, figures mean little."""

    model: str
    rounds: int
    hourly_price: float | None
    quick: bool


def _reading(material: Material, settings: Settings) -> list[Row]:
    return [row for rows in material.cohorts.values() for row in reading(rows[0].uri, settings.rounds)]


def _remote(material: Material, settings: Settings) -> list[Row]:
    return [row for rows in material.cohorts.values() for row in remote(rows[0].uri, settings.rounds)]


def _pipeline(material: Material, settings: Settings) -> list[Row]:
    with ray_for_job():
        return [
            row
            for name, manifest in material.cohorts.items()
            for row in efficiency(
                manifest, settings.model, material.folder, name, settings.hourly_price, 1 if settings.quick else TIMES
            )
        ]


def _scaling(material: Material, settings: Settings) -> list[Row]:
    nodes = (1, 2) if settings.quick else (1, 2, 4, 8)
    return scaling(next(iter(material.cohorts.values())), material.folder, nodes)


def _planning(material: Material, settings: Settings) -> list[Row]:
    return planning(material.folder, settings.quick)


def _peers(material: Material, settings: Settings) -> list[Row]:
    """mm² per second of tissue, as each tool finds it; a tool that could not run is a row of 0 with the reason."""
    rows = []
    for name, manifest in material.cohorts.items():
        folder = material.folder / "peers"
        slide = manifest[0].uri if material.slides or settings.quick else drawn(folder, name)
        found = peers(slide, folder, model=settings.model, rounds=min(3, settings.rounds))
        speeds = {one["name"]: one["mm2"] / one["seconds"] if one["seconds"] else 0.0 for one in found}
        for one in found:
            speed, ours = speeds[one["name"]], speeds["mitoray"]
            note = f"{one['version']} {one['note']}".strip()
            ratio = speed / ours if ours else None
            rows.append(Row(f"peers, {name}", one["name"], speed, "mm²/s", ratio, "mitoray", note))
    return rows


PARTS: Final[dict[str, Callable[[Material, Settings], list[Row]]]] = {
    "reading": _reading,
    "remote": _remote,
    "pipeline": _pipeline,
    "scaling": _scaling,
    "planning": _planning,
    "peers": _peers,
}
