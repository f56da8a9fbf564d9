"""What one trained model scores on every domain: the rows that domain matrices are made of."""

import io
import logging
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any, Final, Literal

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv

from mitoray.errors import BadTrialScores, RefusedUri
from mitoray.evaluation.cohort import MatchedCohort
from mitoray.evaluation.curves import sweep
from mitoray.evaluation.matching import FloatArray
from mitoray.evaluation.tables import ALL, domain_table
from mitoray.evaluation.thresholds import best_threshold
from mitoray.uris import read_file, redact

log = logging.getLogger(__name__)

Protocol = Literal["single", "leave-one-out", "all"]
"""Trained on one domain, on all domains but one, or on all (Aubreville et al. 2023, Technical Validation)."""

TRIAL_SCORES: Final = pa.schema(
    [
        pa.field("protocol", pa.string(), nullable=False),
        pa.field("domain", pa.string(), nullable=False),
        pa.field("fold", pa.int64(), nullable=False),
        pa.field("test_domain", pa.string(), nullable=False),
        pa.field("f1_pooled", pa.float64()),
        pa.field("f1_image_mean", pa.float64()),
        pa.field("ap", pa.float64()),
        pa.field("threshold", pa.float64()),
        pa.field("n_slides", pa.int64()),
        pa.field("n_figures", pa.int64()),
    ]
)
"""Columns of trial scores, one row per trained model and test domain.

`domain`: the trained one (single), the left-out one (leave-one-out), or "all". `f1_pooled`, `f1_image_mean`, `ap` as in
`DomainScores`, null where undefined. `threshold`: the model's one threshold, null where validation had no detection.
`n_slides`, `n_figures`: slides and labelled mitotic figures of the test domain.
"""


def score_trial(
    validation: MatchedCohort,
    test: MatchedCohort,
    *,
    protocol: Protocol,
    domain: str,
    fold: int,
    test_domains: Sequence[str] | None = None,
    grid: FloatArray | None = None,
) -> pa.Table:
    """Scores of one trained model on each test domain, schema `TRIAL_SCORES`, sorted by test domain.

    The threshold is the one with the highest pooled F1 on the validation slides; with `grid` the best of those (the
    code published with MIDOG++ tries `np.arange(0.5, 1, 0.01)`). If nothing was detected on them there is none: nothing
    is then called on the test slides either, their F1 is 0, and a warning says so; AP needs no threshold and stays.
    test_domains: domains that must be scored; by default those of the test slides. Raises BadTrialScores for a test
    domain or a validation without slides, a test slide without domain, and a validation without mitotic figures.
    """
    name = f"{protocol} {domain!r}, fold {fold}"
    expected = _expected_domains(test, test_domains, name)
    counts = sweep(validation.matchings)
    if counts.n_labels == 0:
        raise BadTrialScores(
            f"{name}: the {len(validation.slides)} validation slides hold no mitotic figure, so that no threshold can "
            "be found on them. Validate on slides that do."
        )
    best = best_threshold(counts, grid)
    if best is None:
        log.warning("%s: nothing was detected on the validation slides; without a threshold F1 is 0.", name)
    rows = domain_table(test, np.inf if best is None else best.threshold, repeats=0)[:-1]  # the last is of all slides
    return pa.Table.from_pylist(
        [
            {
                "protocol": protocol,
                "domain": domain,
                "fold": fold,
                "test_domain": row.domain,
                "f1_pooled": _defined(row.f1_pooled),
                "f1_image_mean": _defined(row.f1_image_mean),
                "ap": _defined(row.average_precision),
                "threshold": None if best is None else best.threshold,
                "n_slides": row.n_slides,
                "n_figures": row.n_labels,
            }
            for row in rows
            if row.domain in expected
        ],
        schema=TRIAL_SCORES,
    )


def read_trial_scores(uri: str) -> pa.Table:
    """Trial scores from a CSV file, a path or fsspec URI, schema `TRIAL_SCORES`; other columns are left out.

    Raises BadTrialScores for a file that is missing or not such a table, and as `checked_trial_scores`.
    """
    name = PurePosixPath(redact(uri)).name
    convert = pacsv.ConvertOptions(
        column_types=dict(zip(TRIAL_SCORES.names, TRIAL_SCORES.types, strict=True)),
        include_columns=TRIAL_SCORES.names,
        null_values=["", "nan"],
    )
    try:
        content = io.BytesIO(read_file(uri))
        return checked_trial_scores(pacsv.read_csv(content, convert_options=convert), name)
    except RefusedUri:
        raise
    except FileNotFoundError:
        raise BadTrialScores(f"There are no trial scores at {name}. Check the path.") from None
    except (OSError, pa.ArrowException, KeyError) as error:
        raise BadTrialScores(
            f"{name} cannot be read as a CSV file of trial scores: {error}. Write it again."
        ) from error


def checked_trial_scores(rows: pa.Table, source: str = "The table of trial scores") -> pa.Table:
    """The columns of `TRIAL_SCORES`. `source` names the table in messages.

    Raises BadTrialScores for no rows, a missing column, a null name, an unknown protocol, a score outside 0 to 1, and
    for a model scored twice on one domain.
    """
    if missing := [name for name in TRIAL_SCORES.names if name not in rows.column_names]:
        raise BadTrialScores(f"{source} lacks the columns {', '.join(missing)}. Write them all.")
    if len(rows) == 0:
        raise BadTrialScores(f"{source} has no rows. Score at least one trial.")
    try:
        rows = pa.table([rows[field.name].cast(field.type) for field in TRIAL_SCORES], names=TRIAL_SCORES.names)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise BadTrialScores(f"{source} holds a value of the wrong type: {error}. Correct it.") from error
    seen = set()
    for number, row in enumerate(rows.to_pylist(), start=1):
        key = tuple(row[name] for name in TRIAL_SCORES.names[:4])
        if situation := _wrong(row) or ("a model and test domain that an earlier row has" if key in seen else None):
            raise BadTrialScores(f"{source}: row {number} has {situation}. Correct or remove it.")
        seen.add(key)
    return rows.cast(TRIAL_SCORES)


def _wrong(row: dict[str, Any]) -> str | None:
    if any(row[name] is None for name in TRIAL_SCORES.names[:4]):
        return "no protocol, domain, fold or test_domain"
    if row["protocol"] not in ("single", "leave-one-out", ALL):
        return f"the unknown protocol {row['protocol']!r}"
    if (row["protocol"] == ALL) != (row["domain"] == ALL) or row["test_domain"] == ALL:
        return f"the name {ALL!r} elsewhere than as protocol and domain both"
    for name in ("f1_pooled", "f1_image_mean", "ap"):
        if (value := row[name]) is not None and not (np.isnan(value) or 0 <= value <= 1):
            return f"{name} {value}, outside 0 to 1"
    return None


def _expected_domains(test: MatchedCohort, domains: Sequence[str] | None, name: str) -> set[str]:
    """The domains to score, all of which have slides."""
    if homeless := [slide.slide_id for slide in test.slides if slide.domain is None]:
        raise BadTrialScores(f"{name}: {len(homeless)} test slides have no domain, as {homeless[0]!r}. State it.")
    expected = set(test.domains if domains is None else domains)
    if empty := sorted(expected - set(test.domains)):
        raise BadTrialScores(f"{name}: there is no test slide of {', '.join(map(repr, empty))}. Score some first.")
    if not expected:
        raise BadTrialScores(f"{name}: there are no test slides. Score some first.")
    return expected


def _defined(value: float) -> float | None:
    return None if np.isnan(value) else value
