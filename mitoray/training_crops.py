"""What a classifier of candidates is trained from: labelled slides and crops, and what of them validates."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import PurePosixPath
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from mitoray.errors import BadOption
from mitoray.models import Training as Origin
from mitoray.models import load_bundle
from mitoray.slide import redact
from mitoray.training.corpus import Corpus, parted
from mitoray.training.crop_extraction import Extraction
from mitoray.training.crop_feed import FACTS, facts_of, validation_cases
from mitoray.training.crop_sampling import CropSampling, check_crops
from mitoray.training.crops import CROPS
from mitoray.training.slides import TrainingSlide
from mitoray.training_jobs import Material, Prepared, prepare


@dataclass(frozen=True)
class CropMaterial:
    """What to train from: labelled slides, ready-made crops, or both.

    Args:
        manifest: CSV or Parquet with slide_id, uri and, where known, case_id, domain, mpp (µm/px), split (train,
            validation or test).
        labels: annotation file of any dialect that mitoray reads.
        crops: Parquet tables with crop_id, image and, where known, kind, subtype, phase, slide_id, case_id, domain, mpp
            (µm/px); else figures at 0.25 µm/px, each crop a case of its own.
        licence: of the labels, slides and crops, for the bundle.
        storage_options: of the object storage as fsspec takes them, JSON or YAML. Credentials are better left to the
            environment or ~/.aws.
    """

    manifest: str | None = None
    labels: str | None = None
    crops: list[str] = field(default_factory=list)
    licence: str = "not stated"
    storage_options: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        if bool(self.manifest) != bool(self.labels):
            raise BadOption("manifest and labels belong together: give both, or crops alone.")
        if not self.manifest and not self.crops:
            raise BadOption("There is nothing to train from: give manifest and labels, crops, or all three.")


@dataclass(frozen=True, eq=False)
class CropPlan:
    """What is to be trained on, before any crop is cut.

    slides: to cut crops from; validate: cases that do not train, but validate. prepared: None without slides.
    """

    material: CropMaterial
    prepared: Prepared | None
    slides: tuple[TrainingSlide, ...]
    validate: frozenset[str]
    digests: Mapping[str, str]

    @property
    def failed(self) -> dict[str, str]:
        """Slides that could not be opened, and why."""
        return dict(self.prepared.corpus.failed) if self.prepared else {}

    @property
    def data(self) -> Literal["phantom", "real crops"]:
        """Whether drawn or real images are trained on."""
        drawn = self.prepared is not None and self.prepared.data == "phantom" and not self.material.crops
        return "phantom" if drawn else "real crops"

    def origin(self, notes: Sequence[str]) -> Origin:
        """What a bundle says of the material."""
        names = [PurePosixPath(redact(uri)).stem for uri in self.material.crops]
        if self.prepared:
            of_slides = self.prepared.origin(Material("", ""), ()).data
            names = [*of_slides, *names]
        return Origin(data=tuple(names), licence=self.material.licence, notes=tuple(notes))


def planned(
    material: CropMaterial, extraction: Extraction, sampling: CropSampling, share: float, seed: int
) -> CropPlan:
    """Open the material and choose what validates it: cases of the split "validation", or else a share of the cases.

    Raises BadLabels, BadManifest where there would be nothing to train or to validate on, BadModel.
    """
    options = material.storage_options
    ready_made = facts_of(material.crops, options)
    validate = validation_cases(ready_made, share)
    expected, digests = [ready_made], {"crops": _digest(ready_made)} if material.crops else {}
    prepared: Prepared | None = None
    slides: tuple[TrainingSlide, ...] = ()
    if material.manifest and material.labels:
        prepared = prepare(Material(material.manifest, material.labels, material.licence, options))
        digests |= prepared.digests
        corpus, splits = prepared.corpus, prepared.splits
        slides = corpus.of(s.slide_id for s in corpus.slides if splits.get(s.slide_id) != "test")
        validate |= _validating(corpus, splits, slides, share, seed)
        expected.append(_expected(slides, corpus.labels, extraction))
    if extraction.detector:
        if not slides:
            raise BadOption("detector finds false positives on slides: give manifest and labels too.")
        digests["detector"] = load_bundle(extraction.detector, options).digest
    check_parts(pa.concat_tables(expected), validate, sampling)
    return CropPlan(material, prepared, slides, validate, digests)


def check_parts(facts: pa.Table, validate: frozenset[str], sampling: CropSampling) -> None:
    """Raises BadLabels where crops, without images, leave nothing to train or to validate on."""
    validates = np.array([case in validate for case in facts["case_id"].to_pylist()], bool)
    check_crops(facts.filter(pa.array(~validates)), sampling, "train on")
    in_all_domains = replace(sampling, ambiguous="masked", domain_weights=None)
    check_crops(facts.filter(pa.array(validates)), in_all_domains, "validate on")


def _validating(
    corpus: Corpus, splits: Mapping[str, str | None], slides: Sequence[TrainingSlide], share: float, seed: int
) -> frozenset[str]:
    """The cases of the slides that validate. Slides without any figure go by their cases' names."""
    if not sum(corpus.figures().values()):
        chosen = frozenset(s.case_id for s in slides if splits.get(s.slide_id) == "validation")
        names = pa.table({"case_id": [s.case_id for s in slides]})
        return chosen or validation_cases(names, share)
    _, validating = parted(corpus, "cases", splits, share, seed)
    return frozenset(slide.case_id for slide in validating)


def _expected(slides: Sequence[TrainingSlide], labels: pa.Table, extraction: Extraction) -> pa.Table:
    """What crops of the slides will be known, so that a lack is told before any is cut; mined ones are hoped for."""
    cases = {slide.slide_id: (slide.case_id, slide.domain) for slide in slides}
    known = [r for r in labels.to_pylist() if r["slide_id"] in cases and r["kind"] in ("mitotic_figure", "imposter")]
    rows = [(row["slide_id"], row["kind"], row["subtype"]) for row in known]
    if extraction.detector or extraction.random_negatives:
        rows += [(slide_id, "random", None) for slide_id in cases]
    named = [
        {
            "crop_id": f"{slide_id}/{i}",
            "slide_id": slide_id,
            "case_id": cases[slide_id][0],
            "domain": cases[slide_id][1],
            "kind": kind,
            "subtype": subtype,
            "mpp": 0.25,
        }
        for i, (slide_id, kind, subtype) in enumerate(rows)
    ]
    return pa.Table.from_pylist(named, schema=pa.schema([CROPS.field(name) for name in FACTS]))


def _digest(facts: pa.Table) -> str:
    """SHA-256 of what is known of crops, in any order."""
    rows = sorted(map(repr, zip(*(facts[name].to_pylist() for name in FACTS), strict=True)))
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()
