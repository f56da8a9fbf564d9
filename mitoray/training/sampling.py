"""Where patches are taken from: the published ways to sample slides whose figures are rare.

Every sampler has the arguments `slides, labels, n, patch_um, rng` and gives a table of schema `PLACES` with `n` rows in
random order; the same arguments and generator state give the same rows. A label counts where its centre lies in the
part of its slide that may be sampled. Patches stay within that part; where it is smaller than a patch they start at its
corner and reach past. All raise BadOption for no slides, fewer than one patch or shares outside 0 to 1, and BadLabels
where no mitotic figure may be sampled.
"""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from mitoray.errors import BadOption
from mitoray.training.placing import FIGURE, IMPOSTER, PLACES, RANDOM, REASONS, Ground, allotted, without_figures
from mitoray.training.slides import TrainingSlide, centres_px, kind_is, slide_numbers

__all__ = ["PATCHES", "PLACES", "REASONS", "sample_ccmct", "sample_fick", "sample_midog", "with_figures"]

FIGURE_REACH_UM: Final = 8.0
"""Figures this near outside a patch are listed with it: what is painted around them reaches into the patch."""
MASK_REACH_UM: Final = 16.0
"""The same for what is to be masked, and so the largest mask."""

_POINTS: Final = pa.list_(pa.list_(pa.float32(), 2))
PATCHES: Final = pa.schema([*PLACES, pa.field("figures_px", _POINTS), pa.field("masks_px", _POINTS)])
"""Places and what is known there: centres (x, y) in px of the patch's image, origin top-left, naming pixel centres."""


def sample_midog(
    slides: Sequence[TrainingSlide],
    labels: pa.Table,
    n: int,
    patch_um: float,
    rng: np.random.Generator,
    *,
    guided_share: float = 0.5,
    hard_share: float = 0.0,
) -> pa.Table:
    """MIDOG++ (Aubreville et al. 2023, Technical Validation): as many patches from each slide, half of them guided.

    Guided patches hold a randomly chosen mitotic figure of their slide, anywhere in them: with the published patches
    of 512 px, these are the places within 512 px of it. The others, and all on slides without figures, lie anywhere.
    hard_share: of the patches on slides with imposters, the share that holds one; 0 there, since hard negatives were
    disregarded. False positives of an earlier model enter as labels of that kind.
    """
    _refuse_shares(guided_share=guided_share, hard_share=hard_share)
    ground = Ground.of(slides, labels, n, patch_um)
    slide = allotted(np.ones(len(slides)), n, rng)
    hard = (rng.random(n) < hard_share) & (ground.counts(IMPOSTER)[slide] > 0)
    guided = (rng.random(n) < guided_share) & (ground.counts(FIGURE)[slide] > 0)
    return ground.places(slide, np.where(hard, IMPOSTER, np.where(guided, FIGURE, RANDOM)), rng)


def sample_ccmct(
    slides: Sequence[TrainingSlide],
    labels: pa.Table,
    n: int,
    patch_um: float,
    rng: np.random.Generator,
    *,
    figure_share: float = 0.5,
    imposter_share: float = 0.4,
) -> pa.Table:
    """CCMCT (Bertram et al. 2019, Technical Validation): 50 % with a figure, 40 % with an imposter, 10 % random.

    The label stands anywhere in its patch. Each slide that has such a label is equally likely, and on it each label;
    random patches come from all slides alike (the paper leaves the choice of slides open). Without any imposter, their
    share goes to random patches.
    """
    _refuse_shares(figure_share=figure_share, imposter_share=imposter_share)
    _refuse_shares(**{"figure_share + imposter_share": figure_share + imposter_share})
    ground = Ground.of(slides, labels, n, patch_um)
    shares = np.array([max(1 - figure_share - imposter_share, 0.0), figure_share, imposter_share])
    reason = allotted(shares, n, rng)
    if not ground.counts(IMPOSTER).any():
        reason[reason == IMPOSTER] = RANDOM
    slide = np.empty(n, np.int64)
    for kind in (RANDOM, FIGURE, IMPOSTER):
        rows, eligible = np.flatnonzero(reason == kind), np.flatnonzero(ground.counts(kind))
        if len(rows):
            slide[rows] = eligible[allotted(np.ones(len(eligible)), len(rows), rng)]
    return ground.places(slide, reason, rng)


def sample_fick(
    slides: Sequence[TrainingSlide],
    labels: pa.Table,
    n: int,
    patch_um: float,
    rng: np.random.Generator,
    *,
    weights: Mapping[str, float] | None = None,
    groups: Mapping[str, Sequence[str]] | None = None,
    figure_share: float = 0.5,
    random_share: float = 0.5,
) -> pa.Table:
    """Fick et al. 2024, §2.3: stated shares of domains, and in each of them half figures, half negatives.

    weights: shares of domains or groups, in any unit (there 50 for CMC, 25 for its rescans, 25 for other organs);
    None for all domains alike. groups: the domains of each group, equally likely within it. Slides of other domains
    are not sampled. In a domain each figure is equally likely, so atypical ones come at their natural share; a domain
    without figures gives negatives only. random_share: of the negatives, those that lie anywhere on any slide of the
    domain; the others hold one of its imposters, if it has any (the paper says "negative annotations", for which 0
    stands; half keeps stroma and glass in view). Raises BadOption for weights of unknown domains.
    """
    _refuse_shares(figure_share=figure_share, random_share=random_share)
    ground = Ground.of(slides, labels, n, patch_um)
    shares = _domain_shares([slide.domain for slide in slides], weights, groups or {})
    sampled = np.flatnonzero([slide.domain in shares for slide in slides])
    if not ground.counts(FIGURE)[sampled].any():
        raise without_figures([slide for slide in slides if slide.domain in shares])
    domain = allotted(np.array(list(shares.values())), n, rng)
    slide, reason = np.empty(n, np.int64), np.empty(n, np.int64)
    for number, name in enumerate(shares):
        members = np.flatnonzero([s.domain == name for s in slides])
        rows = np.flatnonzero(domain == number)
        negative = 1 - figure_share
        wanted = np.array([negative * random_share, figure_share, negative * (1 - random_share)])
        kinds = allotted(wanted, len(rows), rng)
        for kind, instead in ((FIGURE, IMPOSTER), (IMPOSTER, RANDOM)):
            if not ground.counts(kind)[members].any():
                kinds[kinds == kind] = instead
        for kind in (RANDOM, FIGURE, IMPOSTER):
            chosen = rows[kinds == kind]
            if len(chosen):
                numbers = ground.counts(kind)[members]
                slide[chosen] = rng.choice(members, len(chosen), p=numbers / numbers.sum())
        reason[rows] = kinds
    return ground.places(slide, reason, rng)


def with_figures(
    places: pa.Table,
    slides: Sequence[TrainingSlide],
    labels: pa.Table,
    mpp: float,
    *,
    masked_kinds: Sequence[str] = ("uncertain",),
) -> pa.Table:
    """The places (`PLACES`), each with the mitotic figures, and the labels to mask, in or near it: schema `PATCHES`.

    mpp: µm/px of the images to read. Give all labels of the slides: what may not be sampled may still be in sight.
    masked_kinds: labels that are neither figure nor background, hidden from the training (Fick et al. 2024, §2.2).
    Raises BadOption for a place on none of the slides.
    """
    if not mpp > 0:
        raise BadOption(f"mpp is {mpp}; give the µm/px of the images to read")
    on, number, xy_px = slide_numbers(slides, places), slide_numbers(slides, labels), centres_px(labels)
    if (on < 0).any():
        stranger = places["slide_id"][int(np.argmin(on))].as_py()
        raise BadOption(f"no slide is called {stranger!r}; give all slides that were sampled")
    corner, side = np.column_stack([places["x_px"], places["y_px"]]), places["side_px"].to_numpy()
    slide_mpp = np.array([slide.mpp for slide in slides])[on]
    columns = [places[name] for name in PLACES.names]
    for kinds, reach_um in ((("mitotic_figure",), FIGURE_REACH_UM), (masked_kinds, MASK_REACH_UM)):
        row, label = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        shown = np.flatnonzero(kind_is(labels, kinds))
        for slide in np.unique(on):
            rows, of_slide = np.flatnonzero(on == slide), shown[number[shown] == slide]
            if not len(of_slide):
                continue
            middle, reach = corner[rows] + (side[rows, None] - 1) / 2, side[rows] / 2 + reach_um / slide_mpp[rows]
            near = cKDTree(xy_px[of_slide]).query_ball_point(middle, reach, p=np.inf, return_sorted=True)
            row.append(np.repeat(rows, [len(found) for found in near]))
            label.append(of_slide[np.concatenate(near).astype(np.int64)])
        in_patch, centre = np.concatenate(row), xy_px[np.concatenate(label)]
        points = (centre - corner[in_patch] + 0.5) * (slide_mpp[in_patch] / mpp)[:, None] - 0.5
        columns.append(_point_lists(points, in_patch, len(places)))
    return pa.table(columns, schema=PATCHES)


def _point_lists(points: NDArray[np.float64], row: NDArray[np.int64], n: int) -> pa.Array:
    """Points (k, 2), by the row (k,) that each belongs to."""
    ends = np.cumsum(np.bincount(row, minlength=n))
    values = points[np.argsort(row, kind="stable")].astype(np.float32).ravel()
    pairs = pa.FixedSizeListArray.from_arrays(pa.array(values), 2)
    return pa.ListArray.from_arrays(pa.array(np.concatenate([[0], ends]), pa.int32()), pairs)


def _domain_shares(
    domains: Sequence[str | None], weights: Mapping[str, float] | None, groups: Mapping[str, Sequence[str]]
) -> dict[str | None, float]:
    """The positive share of each domain, in order."""
    known = dict.fromkeys(domains)
    if weights is None:
        return dict.fromkeys(known, 1 / len(known))
    shares: dict[str | None, float] = {}
    for name, weight in weights.items():
        members = groups.get(name, (name,))
        if unknown := [domain for domain in members if domain not in known]:
            raise BadOption(
                f"weights: no slide is of the domain {', '.join(map(repr, unknown))}; there are "
                f"{', '.join(sorted(map(repr, known)))}. Name these, or groups of them."
            )
        if not (np.isfinite(weight) and weight >= 0) or not members:
            raise BadOption(f"weights: {name!r} has the weight {weight} and {len(members)} domains; give 0 or more")
        for domain in members:
            shares[domain] = shares.get(domain, 0.0) + weight / len(members)
    shares = {domain: share for domain, share in shares.items() if share > 0}
    if not shares:
        raise BadOption("weights: no domain has a weight above 0; give one")
    return shares


def _refuse_shares(**shares: float) -> None:
    for name, share in shares.items():
        if not 0 <= share <= 1 + 1e-9:
            raise BadOption(f"{name} is {share}; give a share from 0 to 1")
