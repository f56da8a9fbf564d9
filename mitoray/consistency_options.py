"""Options of the job that makes labels consistent."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch

from mitoray.curation.cells import Classes
from mitoray.errors import BadOption


@dataclass(frozen=True)
class Where:
    """Where the results go.

    Args:
        output: folder for all of them. Belongs to one configuration of embed.
        mlflow: tracking server or database, such as sqlite:///mlruns.db; none records nothing.
        log_level: how much mitoray tells of what it does.
    """

    output: Path
    mlflow: str | None = None
    log_level: Literal["debug", "info", "warning", "error"] = "warning"


@dataclass(frozen=True)
class Embedding:
    """What makes what of the cells.

    Args:
        model: bundle of a single classifier.
        classes: what cells are told apart by: their kind; or the subtype of figures where known, and else the kind.
        margin_px: what crops keep beyond the patch, both sides together, px at the model's µm/px, for the map.
        device: cpu or cuda; none takes cuda where it is there.
    """

    model: str = "mitoray-c"
    classes: Classes = "kind"
    margin_px: int = 32
    device: str | None = None

    @property
    def place(self) -> str:
        """The device."""
        return self.device or ("cuda" if torch.cuda.is_available() else "cpu")


@dataclass(frozen=True)
class Ranking:
    """What is shown of the ranking.

    Args:
        top: cells on the contact sheet, the most inconsistent ones.
    """

    top: int = 60

    def __post_init__(self) -> None:
        if not 1 <= self.top <= 500:
            raise BadOption(f"top must lie between 1 and 500, not {self.top}.")


@dataclass(frozen=True)
class Picture:
    """How the map is drawn.

    Args:
        cell_px: side of a cell on the map, px.
        map_mpp: µm/px of the map, which its TIFF states.
        permutations: of the labels, for the p value of cells of a class lying together.
    """

    cell_px: int = 128
    map_mpp: float = 0.25
    permutations: int = 999

    def __post_init__(self) -> None:
        if not 16 <= self.cell_px <= 1024 or not 0.1 <= self.map_mpp <= 2 or self.permutations < 1:
            raise BadOption("cell_px must lie in 16 to 1024, map_mpp in 0.1 to 2 µm/px, permutations be 1 or more.")


@dataclass(frozen=True)
class Experts:
    """Who decided.

    Args:
        first: the map's SlideRunner database or QuPath file in which the first expert changed classes.
        second: the second expert's file or folder, on the changes.
        third: the third expert's, on what the two disagree about; needed where they do.
        names: of the experts, in this order; a SlideRunner database says its person's name itself.
        review_seed: of the random orders in which changes are shown.
        crop_px: side of the crops that experts are shown, px at 0.25 µm/px (128 in Aubreville et al. 2020).
    """

    first: Path
    second: Path | None = None
    third: Path | None = None
    names: list[str] = field(default_factory=list)
    review_seed: int = 0
    crop_px: int = 128

    def name(self, place: int) -> str | None:
        """The name of an expert, from 0."""
        return self.names[place] if place < len(self.names) else None


@dataclass(frozen=True)
class Versions:
    """The label tables.

    Args:
        labels: the label table that was embedded, of any dialect; it stays as it is.
        version: the new one, a .parquet file.
    """

    labels: Path
    version: Path
