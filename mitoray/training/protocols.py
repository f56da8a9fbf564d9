"""Which slides each model of an experiment is trained and validated on (Aubreville et al. 2023, Technical Validation).

Every domain has fixed test cases. The others are cut into folds; each fold validates once a model that the other folds
train. `single` trains one row of models per domain, `leave-one-out` one per domain that is left out, `all` one row.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Final, Literal

import numpy as np
import pyarrow as pa

from mitoray.errors import BadLabels, BadOption
from mitoray.evaluation.trials import Protocol as Protocol
from mitoray.labels.cases import refuse_strangers
from mitoray.labels.splits import published_split, stratified_folds
from mitoray.labels.statistics import COUNTS

ALL: Final = "all"

_NAME_CHARACTERS: Final = 60


@dataclass(frozen=True, slots=True)
class LabelledSlide:
    """A slide that an experiment may use. `split`: "train", "test", or None where cases were not yet held out.

    n_figures: its labelled mitotic figures.
    """

    slide_id: str
    case_id: str
    domain: str
    split: str | None
    n_figures: int


@dataclass(frozen=True, slots=True)
class Trial:
    """One model to train. `domain`: the trained one (single), the left-out one (leave-one-out), or "all".

    train, validation: slide ids; no case is in both. The threshold is sought on the validation slides.
    """

    protocol: Protocol
    domain: str
    fold: int
    train: frozenset[str]
    validation: frozenset[str]

    @property
    def name(self) -> str:
        """A file name, unique among trials: lower case, digits and hyphens, whatever the domain is called.

        A domain that is not written so itself is made so, cut to 60 characters, and told apart by six hexadecimal
        digits of its SHA-256.
        """
        plain = re.sub(r"[^a-z0-9]+", "-", self.domain.lower()).strip("-")[:_NAME_CHARACTERS].rstrip("-")
        if plain != self.domain:
            plain = f"{plain}-{hashlib.sha256(self.domain.encode('utf-8', 'surrogatepass')).hexdigest()[:6]}".strip("-")
        return f"{self.protocol}-{plain}-fold-{self.fold}"


def labelled_slides(
    labels: pa.Table, cases: pa.Table, domain: Literal["domain", "tumor"] = "domain"
) -> list[LabelledSlide]:
    """The slides of a case table with their numbers of mitotic figures.

    labels: schema `LABELS`; cases: schema `CASES`. domain: the column of `cases` that names the domain; "tumor" joins
    the scanners and laboratories of one tumour type, as MIDOG++ does (subsets 1a–c, 6a–b). Raises BadLabels for a
    labelled slide that is no case and for a slide without domain.
    """
    rows = cases.to_pylist()
    figures = dict.fromkeys((row["slide_id"] for row in rows), 0)
    refuse_strangers(labels["slide_id"].to_pylist(), {**figures})
    for slide_id, kind in zip(labels["slide_id"].to_pylist(), labels["kind"].to_pylist(), strict=True):
        figures[slide_id] += kind == "mitotic_figure"
    for row in rows:
        if not row[domain]:
            raise BadLabels(f"Slide {row['slide_id']!r} has no {domain} in the case table. Fill the column {domain}.")
    return [
        LabelledSlide(row["slide_id"], row["case_id"], row[domain], row["split"], figures[row["slide_id"]])
        for row in rows
    ]


def hold_out_test(slides: Sequence[LabelledSlide], share: float = 0.2, seed: int = 0) -> list[LabelledSlide]:
    """The slides with `split` filled in: of each domain a share of its cases, one or more, is for the test.

    A domain's cases are ranked by their mitotic figures and cut into as many runs as are to be held out; one case is
    drawn from each, so that train and test have alike distributions. The draw of a domain depends on its own cases and
    the seed only. Raises BadOption for a share outside 0 to 1 or slides that have a split; BadLabels for a domain with
    too few cases to train and test, a case of two domains, and a slide_id that occurs twice.
    """
    if not 0 < share < 1:
        raise BadOption(f"The share of test cases is {share}. Give a number between 0 and 1, such as 0.2.")
    if given := sorted(slide.slide_id for slide in slides if slide.split is not None):
        raise BadOption(f"{len(given)} slides have a split already, as {given[0]!r}. Use it, or clear the column.")
    cases = _cases(slides)
    held_out: set[str] = set()
    for domain in _domains(slides):
        own = [row for row in cases if row["domain"] == domain]
        ranked = [row["case_id"] for row in sorted(own, key=lambda row: (row["mitotic_figure"], row["case_id"]))]
        n_test = max(1, round(share * len(ranked)))
        if n_test >= len(ranked):
            raise BadLabels(
                f"The domain {domain!r} has {len(ranked)} cases; {n_test} for the test leave none to train. "
                "Add cases, or hold out a smaller share."
            )
        rng = np.random.default_rng([seed, *domain.encode("utf-8", "surrogatepass")])
        ends = np.linspace(0, len(ranked), n_test + 1).round().astype(int)
        held_out |= {ranked[rng.integers(start, end)] for start, end in pairwise(ends)}
    return [replace(slide, split="test" if slide.case_id in held_out else "train") for slide in slides]


def plan_trials(
    slides: Sequence[LabelledSlide],
    protocol: Protocol,
    folds: int = 5,
    seed: int = 0,
    *,
    only: Sequence[str] | None = None,
) -> list[Trial]:
    """Every model of one protocol: domains sorted by name, then folds from 0.

    Cases stay whole; every training case of a row's domains validates exactly once; test slides are in no trial. The
    plan depends on the slides, not on their order, and on the seed. only: plan the models of these domains alone, of
    those trained (single) or left out (leave-one-out). Defaults: the folds of MIDOG++.

    Raises BadOption for an unknown protocol or domain, fewer than two domains to train on one or leave one out, and too
    few folds; BadLabels for slides without split, a case in two parts or domains, a domain without cases or mitotic
    figures to train or to test, and a fold whose validation or training has no mitotic figure.
    """
    if protocol not in ("single", "leave-one-out", ALL):
        raise BadOption(f"The protocol {protocol!r} is unknown. Choose single, leave-one-out or all.")
    domains = _domains(slides)
    if protocol != ALL and len(domains) < 2:
        raise BadOption(f"{protocol} needs two domains or more; there is {', '.join(domains) or 'none'}. Add another.")
    parts = _parts(slides)
    for domain in domains:
        for part in ("train", "test"):
            _need_figures([s for s in parts[part] if s.domain == domain], f"The domain {domain!r}", part)
    if protocol == ALL:
        if only:
            raise BadOption("The protocol all has one row of models, for all domains. Name no domain.")
        rows = [ALL]
    else:
        rows = _known(only, domains)
    return [trial for row in rows for trial in _row_of_trials(parts["train"], protocol, row, folds, seed)]


def _row_of_trials(
    slides: Sequence[LabelledSlide], protocol: Protocol, domain: str, folds: int, seed: int
) -> list[Trial]:
    """The trials of one row, over the training slides that its domains have."""
    if protocol != ALL:
        slides = [slide for slide in slides if (slide.domain == domain) == (protocol == "single")]
    cases = _cases(slides)
    held = stratified_folds(pa.Table.from_pylist(cases, schema=COUNTS), folds, seed)
    fold_of = dict(zip((row["case_id"] for row in cases), held.tolist(), strict=True))
    trials = []
    for fold in range(folds):
        validation = [slide for slide in slides if fold_of[slide.case_id] == fold]
        train = [slide for slide in slides if fold_of[slide.case_id] != fold]
        for part, chosen in (("validate", validation), ("train", train)):
            _need_figures(chosen, f"Fold {fold} of {folds} of {protocol} {domain!r}", part)
        ids = [frozenset(slide.slide_id for slide in chosen) for chosen in (train, validation)]
        trials.append(Trial(protocol, domain, fold, *ids))
    return trials


def _cases(slides: Sequence[LabelledSlide]) -> list[dict[str, object]]:
    """One row per case, sorted by its id: `case_id, domain, mitotic_figure`."""
    domain_of: dict[str, str] = {}
    figures: dict[str, int] = {}
    if len({slide.slide_id for slide in slides}) < len(slides):
        raise BadLabels("A slide_id occurs more than once among the slides of the experiment. Keep one row per slide.")
    for slide in slides:
        if domain_of.setdefault(slide.case_id, slide.domain) != slide.domain:
            raise BadLabels(f"Case {slide.case_id!r} has slides of two domains. State one domain per case.")
        figures[slide.case_id] = figures.get(slide.case_id, 0) + slide.n_figures
    return [{"case_id": c, "domain": domain_of[c], "mitotic_figure": figures[c]} for c in sorted(domain_of)]


def _domains(slides: Sequence[LabelledSlide]) -> list[str]:
    domains = sorted({slide.domain for slide in slides})
    if ALL in domains:
        raise BadLabels(f"A domain is called {ALL!r}, which stands for all domains. Give it another name.")
    return domains


def _parts(slides: Sequence[LabelledSlide]) -> dict[str, list[LabelledSlide]]:
    """The slides to train and to test."""
    if not slides:
        raise BadLabels("There are no slides to plan an experiment with. Give labelled slides.")
    _cases(slides)
    if undecided := sorted(slide.slide_id for slide in slides if slide.split is None):
        raise BadLabels(
            f"{len(undecided)} slides have no split, as {undecided[0]!r}. Fill the column split with train or test, or "
            "hold cases out for the test."
        )
    found = published_split(pa.Table.from_pylist([asdict(slide) for slide in slides]))
    if others := sorted(found.keys() - {"train", "test"}):
        raise BadLabels(f"The split has a part {others[0]!r}. Call the parts train and test.")
    return {part: [s for s in slides if s.slide_id in found.get(part, ())] for part in ("train", "test")}


def _need_figures(slides: Sequence[LabelledSlide], what: str, purpose: str) -> None:
    """Raises BadLabels unless there are slides, and mitotic figures on them."""
    if sum(slide.n_figures for slide in slides) == 0:
        has = f"{len(slides)} slides to {purpose}, none with a mitotic figure" if slides else f"no slide to {purpose}"
        raise BadLabels(f"{what} has {has}. Add labelled cases, use fewer folds, or leave the domain out.")


def _known(only: Sequence[str] | None, domains: Sequence[str]) -> list[str]:
    if only is None:
        return list(domains)
    if unknown := sorted(set(only) - set(domains)):
        raise BadOption(f"The domain {unknown[0]!r} is unknown. There are {', '.join(domains)}.")
    return sorted(set(only))
