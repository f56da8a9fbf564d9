"""What is known of the public datasets, read from `catalogue.yaml`."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final, Literal

import yaml

from mitoray.errors import BadOption

_FILE: Final = Path(__file__).with_name("catalogue.yaml")

Api = Literal["figshare", "zenodo", "gdc", "github"]


@dataclass(frozen=True, slots=True)
class Domain:
    """Slides of one tumour type, scanner, laboratory and species; None for what was not published.

    mpp: µm per pixel as published; None where only the files say it. numbers: first and last number at the start of the
    file names, None for all slides of the dataset.
    """

    tumor: str
    scanner: str | None
    laboratory: str | None
    species: str
    mpp: float | None
    numbers: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.mpp is not None and not 0.1 <= self.mpp <= 2:
            raise ValueError(f"{self.name}: {self.mpp} µm/px is implausible.")

    @property
    def name(self) -> str:
        """What is known of tumour, scanner, laboratory and species, joined by commas, as `mitoray.labels` does it."""
        return ", ".join(part for part in (self.tumor, self.scanner, self.laboratory, self.species) if part)

    def holds(self, slide_id: str) -> bool:
        """Whether the slide belongs to this domain, by the number its id starts with."""
        if self.numbers is None:
            return True
        number = re.match(r"\d+", slide_id)
        return number is not None and self.numbers[0] <= int(number[0]) <= self.numbers[1]


@dataclass(frozen=True, slots=True)
class Source:
    """Where files are: a service, the id of the collection, record, project or folder there, and globs of file
    names."""

    api: Api
    id: str
    slides: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LabelSet:
    """One published set of labels: its file (or a glob that only this file matches) and how many labels it holds.

    form: how to read it: `any` of the forms that `mitoray.labels` tells apart by itself, or the table of `ami-br`.
    """

    file: str
    mitotic_figures: int
    imposters: int
    form: Literal["any", "ami-br"] = "any"


@dataclass(frozen=True, slots=True)
class Dataset:
    """One public dataset. `labels` starts with the most curated set; `gigabytes` are 10^9 bytes of slides, rounded."""

    name: str
    title: str
    citation: str
    doi: str
    licence: str | None
    domains: tuple[Domain, ...]
    sources: tuple[Source, ...]
    slides: int
    gigabytes: float | None
    labels: Mapping[str, LabelSet]
    test: frozenset[str]
    note: str

    def domain_of(self, slide_id: str) -> Domain | None:
        """The slide's domain; None for a slide the catalogue cannot place."""
        return next((domain for domain in self.domains if domain.holds(slide_id)), None)

    def split_of(self, slide_id: str) -> str | None:
        """`test` or `train` by the published split; None where none was published."""
        if not self.test:
            return None
        return "test" if slide_id in self.test else "train"

    def label_set(self, name: str | None = None) -> LabelSet | None:
        """The label set of that name, by default the most curated; None for a dataset without. Raises BadOption."""
        if name is None:
            return next(iter(self.labels.values()), None)
        if name not in self.labels:
            known = ", ".join(self.labels) or "none"
            raise BadOption(f"{self.name} has no labels called {name!r}. It has: {known}.")
        return self.labels[name]


@cache
def catalogue() -> Mapping[str, Dataset]:
    """All datasets by name, in the catalogue's order."""
    entries: dict[str, Any] = yaml.safe_load(_FILE.read_text(encoding="utf-8"))
    return {name: _dataset(name, entry) for name, entry in entries.items()}


def dataset_named(name: str) -> Dataset:
    """The dataset of that name, in any case. Raises BadOption, which lists the names."""
    try:
        return catalogue()[name.lower()]
    except KeyError:
        raise BadOption(f"No dataset is called {name!r}. The catalogue has: {', '.join(catalogue())}.") from None


def _dataset(name: str, entry: dict[str, Any]) -> Dataset:
    return Dataset(
        **entry
        | {
            "name": name,
            "domains": tuple(_domain(**domain) for domain in entry["domains"]),
            "sources": tuple(_source(**source) for source in entry["sources"]),
            "labels": {key: LabelSet(**labels) for key, labels in entry["labels"].items()},
            "test": frozenset(entry["test"]),
        }
    )


def _domain(numbers: list[int] | None = None, **fields: Any) -> Domain:
    return Domain(**fields, numbers=(numbers[0], numbers[1]) if numbers else None)


def _source(slides: tuple[str, ...] = (), labels: tuple[str, ...] = (), **fields: Any) -> Source:
    return Source(**fields, slides=tuple(slides), labels=tuple(labels))
