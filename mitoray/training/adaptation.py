"""Brings source models to a target domain: which models, on which slides, judged once each; and what trains them on."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from mitoray.errors import BadLabels, BadModel, BadOption
from mitoray.evaluation.adaptation import Choice, SelectBy, adaptation_row, best_choice, selected, tuned_rows
from mitoray.evaluation.cohort import MatchedCohort
from mitoray.models import Bundle, load_bundle
from mitoray.models import Training as Origin
from mitoray.models.architectures import ARCHITECTURES, built
from mitoray.models.sources import without_secrets
from mitoray.storage import Folder
from mitoray.training.augment import Augmentation
from mitoray.training.corpus import Corpus, parted
from mitoray.training.experiments import Experiment
from mitoray.training.feed import Sampling
from mitoray.training.fit import Network, Placement, Scaling, Training
from mitoray.training.fit_judge import Data, Detected, detect_slides
from mitoray.training.fit_stream import SlideFeed
from mitoray.training.fitting import Fitting
from mitoray.training.protocols import hold_out_test
from mitoray.training.slides import TrainingSlide, labels_within
from mitoray.training.source_runs import SOURCE, Run

Part = Literal["train", "test"]
"""Of a target's slides: those that may be adapted on, and those that judge."""


@dataclass(frozen=True, eq=False)
class Target:
    """The slides of a target domain: what may be adapted on, and what judges.

    labels: schema `LABELS`; validation: ids of training slides that the manifest names for that, if any.
    """

    domain: str
    train: tuple[TrainingSlide, ...]
    test: tuple[TrainingSlide, ...]
    labels: pa.Table
    validation: frozenset[str] = frozenset()


def target_of(
    corpus: Corpus, splits: Mapping[str, str | None], *, domain: str | None = None, test_share: float = 0.2
) -> Target:
    """The slides of a domain, or of all, parted by the split of the manifest.

    Where no slide has a split, a share of each domain's cases is held out as test. Raises BadOption for an unknown
    domain, BadLabels for a training or test part without slides or mitotic figures.
    """
    slides = corpus.labelled(splits)
    known = sorted({slide.domain for slide in slides})
    if domain is not None:
        if domain not in known:
            raise BadOption(f"The domain {domain!r} is unknown. There are {', '.join(known)}.")
        slides = [slide for slide in slides if slide.domain == domain]
    name = domain or (known[0] if len(known) == 1 else "all")
    if not any(slide.split for slide in slides):
        slides = hold_out_test(slides, test_share)
    for part, held in (
        ("training", [slide for slide in slides if slide.split != "test"]),
        ("test", [slide for slide in slides if slide.split == "test"]),
    ):
        if not sum(slide.n_figures for slide in held):
            raise BadLabels(
                f"The target domain {name!r} has {len(held)} slides in its {part} part, with no mitotic figure. Label "
                "some there, move cases in the column split of the manifest, or choose another domain."
            )
    train, test = (corpus.of(s.slide_id for s in slides if (s.split == "test") == held) for held in (False, True))
    validation = frozenset(slide.slide_id for slide in slides if slide.split == "validation")
    return Target(name, train, test, labels_within((*train, *test), corpus.labels), validation)


def network_of(bundle: Bundle) -> Network:
    """A detector's bundle as what is detected with, or trained on. Raises BadModel for other bundles."""
    if bundle.architecture not in ARCHITECTURES:
        raise BadModel(
            f"{bundle.name}: {bundle.architecture!r} is no detector. Give one of {', '.join(ARCHITECTURES)}."
        )
    return Network(bundle.architecture, bundle.mpp, bundle.normalisation, dict(bundle.settings), bundle.weights)


@dataclass(eq=False)
class Judge:
    """Detects with bundles on the target's slides, once each: detections are kept in `folder` by the bundle's digest.

    failed: slides that could not be read, and why; what misses a slide is not kept.
    """

    folder: Folder
    target: Target
    placement: Placement
    storage_options: Mapping[str, Any] | None = None
    failed: dict[str, str] = field(default_factory=dict)

    def on(self, bundle: Bundle, *parts: Part) -> list[MatchedCohort]:
        """Matched detections on the parts; those of several parts are found in one go."""
        slides = {"train": self.target.train, "test": self.target.test}
        files = {part: f"detections/{bundle.digest[:16]}-{part}.parquet" for part in parts}
        found: dict[Part, Detected] = {}
        for part in parts:
            with suppress(FileNotFoundError):
                found[part] = Detected(slides[part], self.folder.read_table(files[part]), {})
        if missing := [part for part in parts if part not in found]:
            wanted = [slide for part in missing for slide in slides[part]]
            network = network_of(bundle)
            new = detect_slides(network, bundle.weights, wanted, self.placement, self.storage_options)
            self.failed |= new.failed
            for part in missing:
                own = tuple(slide for slide in slides[part] if slide.slide_id not in new.failed)
                ids = pa.array([slide.slide_id for slide in own], pa.string())
                found[part] = Detected(
                    own, new.detections.filter(pc.is_in(new.detections["slide_id"], value_set=ids)), {}
                )
                if len(own) == len(slides[part]):
                    self.folder.write_table(files[part], found[part].detections)
        return [found[part].matched(self.target.labels) for part in parts]


def untuned_rows(run: Run, judge: Judge) -> Iterator[dict[str, Any]]:
    """The rows "source only" and "TO" of a run.

    Source only takes the bundle's one threshold, whatever it says of the target domain; scores at it count.
    """
    bundle = load_bundle(run.source, judge.storage_options)
    which: dict[str, Any] = {"run": run.name, "model": without_secrets(run.source), "domain": judge.target.domain}
    training, test = judge.on(bundle, "train", "test")
    row = adaptation_row(test, method="source only", threshold=float(np.nextafter(bundle.threshold, -1)), **which)
    yield {**row, "threshold": bundle.threshold}
    choice = best_choice(training)
    yield adaptation_row(test, method="TO", threshold=choice.threshold, f1_chosen=choice.f1, **which)


def selected_row(run: Run, judge: Judge, by: SelectBy = "f1") -> dict[str, Any]:
    """The row "TO+MS": of the run's candidates the one that is best on the training part, with its threshold there."""
    choices: dict[str, Choice] = {}
    for uri in run.candidates:
        (training,) = judge.on(load_bundle(uri, judge.storage_options), "train")
        choices[uri] = best_choice(training)
    uri = selected(choices, by)
    (test,) = judge.on(load_bundle(uri, judge.storage_options), "test")
    return adaptation_row(
        test,
        run=run.name,
        method="TO+MS",
        model=without_secrets(uri),
        domain=judge.target.domain,
        threshold=choices[uri].threshold,
        f1_chosen=choices[uri].f1,
    )


@dataclass(frozen=True, eq=False)
class FineTuning:
    """How models are trained on. validation_share: of the training cases, where the manifest names none to validate.

    augmentation: none leaves patches be.
    """

    sampling: Sampling
    fitting: Fitting
    augmentation: Augmentation | None
    scaling: Scaling
    validation_share: float = 0.2

    def parts(self, target: Target) -> tuple[tuple[TrainingSlide, ...], tuple[TrainingSlide, ...]]:
        """The slides that train and those that validate; the same for every run. Raises BadLabels."""
        splits = {s.slide_id: "validation" if s.slide_id in target.validation else "train" for s in target.train}
        own = Corpus(target.train, labels_within(target.train, target.labels), {})
        return parted(own, "cases", splits, self.validation_share, self.fitting.seed)


def fine_tunings(
    runs: Iterable[Run],
    target: Target,
    how: FineTuning,
    origin: Origin,
    data: Data,
    storage_options: Mapping[str, Any] | None = None,
) -> list[Experiment]:
    """For each run its transfer learning: from the source's weights, with colours normalised as they were.

    Run i is trained with the seed + i, in the order of names. Raises BadLabels, BadOption, and BadModel for a network
    that cannot be trained.
    """
    train, validate = how.parts(target)
    how.sampling.check_mining(how.fitting.mine_at)
    made = []
    for place, run in enumerate(sorted(runs, key=lambda run: run.name)):
        bundle = load_bundle(run.source, storage_options)
        network, seed = network_of(bundle), how.fitting.seed + place
        if not hasattr(built(network.architecture, network.settings), "loss"):
            raise BadModel(f"{bundle.name}: {network.architecture!r} cannot be trained here. Use to or ms for it.")
        labels, batch = target.labels, how.fitting.batch_size
        readers = how.scaling.readers
        feed = SlideFeed(
            train, validate, labels, network.mpp, how.sampling, batch, seed, readers, storage_options=storage_options
        )
        feed.steps_per_epoch(how.scaling.workers or 1)
        name = run.name
        notes = (f"Trained on from {bundle.name} ({bundle.digest[:16]}) for the domain {target.domain!r}.",)
        made.append(
            Experiment(
                name,
                Training(network, feed, replace(how.fitting, seed=seed), how.augmentation),
                labels,
                validate,
                target.test,
                partial(tuned_rows, run=name, model=f"tl/{name}/{SOURCE}", domain=target.domain),
                Origin(
                    data=tuple(dict.fromkeys((*bundle.training.data, *origin.data))),
                    licence="; ".join(dict.fromkeys((bundle.training.licence, origin.licence))),
                    notes=(*origin.notes, *notes),
                ),
                data,
                {"run": name, "method": "TL", "seed": seed, "source": bundle.digest},
            )
        )
    return made
