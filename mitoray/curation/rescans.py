"""Labels carried over from slides to their rescans, and figures masked that the rescan does not show (Fick 2024, §2.2).

A rescan is a row of the manifest whose column `original_id` names the slide that was scanned first and is labelled.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from mitoray.curation.registration import Registration
from mitoray.errors import BadLabels, BadManifest, BadOption
from mitoray.labels.cases import read_columns
from mitoray.labels.schema import KINDS
from mitoray.training.slides import TrainingSlide

KEPT: Final = "kept"
MASKED: Final = "masked"
OUTSIDE: Final = "outside"
NOT_SCORED: Final = "not scored"
MASKED_KIND: Final = "uncertain"
"""Kind of the labels that training paints over (`Sampling.masked_kinds`)."""
FIGURE: Final = KINDS[0]

CARRIED: Final = pa.schema(
    [
        pa.field("slide_id", pa.string(), nullable=False),
        pa.field("original_id", pa.string(), nullable=False),
        pa.field("label", pa.int64(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("subtype", pa.string()),
        pa.field("original_x_px", pa.float64(), nullable=False),
        pa.field("original_y_px", pa.float64(), nullable=False),
        pa.field("x_px", pa.float64(), nullable=False),
        pa.field("y_px", pa.float64(), nullable=False),
        pa.field("quality", pa.float64()),
        pa.field("on_rescan", pa.bool_(), nullable=False),
    ]
)
"""One row per label and rescan. label: row of the label table; `x_px, y_px`: level-0 px of the rescan; quality: of the
registration there, 0 to 1, null where nothing could be compared.
"""


def read_originals(manifest: str | Path) -> dict[str, str]:
    """The original's slide_id by that of its rescan. Raises BadManifest where the manifest does not say it."""
    table, source = read_columns(manifest)
    if missing := {"slide_id", "original_id"} - set(table.column_names):
        raise BadManifest(
            f"{source} lacks the column {' and '.join(sorted(missing))}. For each rescan, name in original_id the "
            "slide whose labels it takes; leave it empty for originals."
        )
    pairs = zip(table["slide_id"].to_pylist(), table["original_id"].to_pylist(), strict=True)
    found = {str(rescan): str(original) for rescan, original in pairs if original not in (None, "")}
    if not found:
        raise BadManifest(f"{source} names no rescan: original_id is empty in all its rows.")
    return found


def check_pairs(originals: Mapping[str, str], cases: Mapping[str, str | None], labelled: Iterable[str]) -> None:
    """That originals are slides of the same case, and no rescans themselves; and that rescans have no labels yet.

    originals: as `read_originals`; cases: case_id by slide_id, of the whole manifest; labelled: slide_ids with labels.
    Raises BadManifest, BadLabels.
    """
    for rescan, original in originals.items():
        if original not in cases:
            raise BadManifest(f"Slide {rescan!r} is a rescan of {original!r}, which the manifest does not list.")
        if original in originals:
            raise BadManifest(
                f"Slide {rescan!r} is a rescan of {original!r}, which is a rescan itself. Name the first."
            )
        if cases[rescan] != cases[original]:
            raise BadManifest(
                f"Slide {rescan!r} is of the case {cases[rescan]!r}, its original {original!r} of {cases[original]!r}. "
                "Give both the same case_id: one in training and the other in a test would tell the answer."
            )
    if twice := sorted(set(originals) & set(labelled)):
        raise BadLabels(f"Rescan {twice[0]!r} has labels already. Give the labels from before they were carried over.")


def labels_of(labels: pa.Table, slide_id: str) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Rows of a slide's labels (n,), and their places (n, 2), level-0 px."""
    rows = np.flatnonzero(pc.equal(labels["slide_id"], slide_id).to_numpy(zero_copy_only=False))
    places = np.column_stack([labels["x_px"].to_numpy(), labels["y_px"].to_numpy()])
    return rows, np.asarray(places[rows], np.float64).reshape(-1, 2)


def carried(labels: pa.Table, original: str, rescan: str, registration: Registration) -> pa.Table:
    """The labels (schema `LABELS`) of an original, on a rescan of it: schema `CARRIED`."""
    rows, places = labels_of(labels, original)
    there, quality = registration.to_rescan(places), registration.quality_at(places)
    taken = labels.take(pa.array(rows))
    columns = {
        "slide_id": pa.array([rescan] * len(rows), pa.string()),
        "original_id": pa.array([original] * len(rows), pa.string()),
        "label": pa.array(rows),
        "kind": taken["kind"],
        "subtype": taken["subtype"],
        "original_x_px": places[:, 0],
        "original_y_px": places[:, 1],
        "x_px": there[:, 0],
        "y_px": there[:, 1],
        "quality": pa.array(quality, from_pandas=True),
        "on_rescan": registration.on_rescan(places),
    }
    return pa.table([columns[name] for name in CARRIED.names], schema=CARRIED)


def figures_there(table: pa.Table) -> pa.Table:
    """The figures among `CARRIED` that lie on their rescan: what the classifiers look at."""
    return table.filter(pc.and_(pc.equal(table["kind"], FIGURE), table["on_rescan"]))


def threshold_keeping(scores: NDArray[np.float64], share: float) -> float:
    """The highest threshold that keeps at least this share (0 to 1) of scores (n,). Raises BadLabels, BadOption.

    Of the originals' own figures, which experts saw in focus: what an ensemble gives to all but the least of them is
    what a figure looks like. Fick et al. 2024, §2.2 name no number for their conservative threshold.
    """
    if not 0 < share <= 1:
        raise BadOption(f"The share of the originals' figures to keep is {share}; give more than 0, at most 1.")
    if not len(scores):
        raise BadLabels("No figure of the originals could be scored to set a threshold by. Give one.")
    ordered = np.sort(scores)[::-1]
    return float(ordered[int(np.ceil(share * len(ordered) - 1e-9)) - 1])


def with_states(table: pa.Table, scores: Mapping[tuple[str, int], float], threshold: float) -> pa.Table:
    """`CARRIED` with `score` (null where none) and `state`.

    scores: the ensemble's, by rescan and label. state: outside the rescan; kept, or masked, as figures from the
    threshold up or under it are; not scored, of figures whose rescan could not be read again. Labels that are no
    figures are kept where they lie on the rescan.
    """
    found: list[float | None] = []
    states = []
    for row in table.select(["slide_id", "label", "kind", "on_rescan"]).to_pylist():
        score = scores.get((row["slide_id"], row["label"]))
        found.append(score)
        if not row["on_rescan"]:
            states.append(OUTSIDE)
        elif row["kind"] != FIGURE:
            states.append(KEPT)
        elif score is None:
            states.append(NOT_SCORED)
        else:
            states.append(KEPT if score >= threshold else MASKED)
    table = table.append_column("score", pa.array(found, pa.float64()))
    return table.append_column("state", pa.array(states, pa.string()))


def rescan_labels(
    labels: pa.Table, table: pa.Table, domains: Mapping[str, str | None], rater: str
) -> list[dict[str, Any]]:
    """The labels (columns of `LABELS`) of the rescans: those kept as they were, those masked as uncertain.

    table: as `with_states`; domains: of the rescans, by slide_id. A masked label has the vote of the `rater` beside the
    experts'. Figures that could not be scored are masked: nobody saw them there.
    """
    rows = labels.to_pylist()
    made = []
    for row in table.to_pylist():
        if row["state"] == OUTSIDE:
            continue
        label = {**rows[row["label"]], "slide_id": row["slide_id"], "x_px": row["x_px"], "y_px": row["y_px"]}
        label["domain"] = domains.get(row["slide_id"])
        if row["state"] in (MASKED, NOT_SCORED):
            vote = {"rater": rater, "kind": MASKED_KIND}
            label |= {"kind": MASKED_KIND, "subtype": None, "votes": [*(label["votes"] or []), vote]}
        made.append(label)
    return made


def kept_table(
    table: pa.Table, labels: pa.Table, originals: Sequence[str], domains: Mapping[str, str | None]
) -> list[dict[str, Any]]:
    """Figures kept of those on the originals, by scanner (domain), all and atypical, as Table 1 of Fick et al. 2024.

    table: as `with_states`; originals: slide_ids; domains: by slide_id. The first rows are the originals' own.
    """
    rows: dict[tuple[str, str], Counter[str]] = {}
    slides: dict[tuple[str, str], set[str]] = {}

    def counted(key: tuple[str, str], slide_id: str, subtype: str | None, *what: str) -> None:
        slides.setdefault(key, set()).add(slide_id)
        for part in ("figures", *(["atypical"] if subtype == "atypical" else [])):
            rows.setdefault(key, Counter()).update(f"{part}_{name}" for name in what)

    own = set(originals)
    for row in labels.select(["slide_id", "kind", "subtype"]).to_pylist():
        if row["slide_id"] in own and row["kind"] == FIGURE:
            key = ("original", domains.get(row["slide_id"]) or "unknown")
            counted(key, row["slide_id"], row["subtype"], "kept", "of")
    for row in table.to_pylist():
        if row["kind"] == FIGURE:
            key = ("rescan", domains.get(row["slide_id"]) or "unknown")
            what = ["of", {NOT_SCORED: MASKED}.get(row["state"], row["state"])]
            counted(key, row["slide_id"], row["subtype"], *what)
    names = ("figures_kept", "figures_of", "figures_masked", "figures_outside", "atypical_kept", "atypical_of")
    return [
        {
            "scan": scan,
            "domain": domain,
            "slides": len(slides[scan, domain]),
            **{name: rows[scan, domain][name] for name in names},
            "kept_percent": round(100 * rows[scan, domain]["figures_kept"] / rows[scan, domain]["figures_of"], 1),
        }
        for scan, domain in sorted(rows)
    ]


def domains_of(slides: Iterable[TrainingSlide]) -> dict[str, str | None]:
    """The domain of each slide, by slide_id."""
    return {slide.slide_id: slide.domain for slide in slides}
