"""The tables and figures that an analysis of survival leaves, and its part of the HTML report."""

import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import pyarrow as pa
from matplotlib.figure import Figure

from mitoray.report.cut_point_figure import cut_point_figure
from mitoray.report.hazard_figures import forest_figure, hazard_curve_figure
from mitoray.report.kaplan_meier_figure import comparison_figure
from mitoray.report.pictures import data_uri
from mitoray.report.survival_style import Cohort, p_text
from mitoray.storage import Folder
from mitoray.survival.analysis import GroupComparison, ValueAnalysis
from mitoray.survival.cox import CoxModel
from mitoray.survival.followed import label_of
from mitoray.survival.joining import JoinedCohort

_DPI: Final = 200


def figures_of(analysis: ValueAnalysis, *, cohort: Cohort, endpoint: str) -> dict[str, Figure]:
    """The figures of one value, by file name without ending; those that are undefined are left out."""
    label = label_of(analysis.patients.name)
    figures: dict[str, Figure] = {}
    published, best = analysis.published, analysis.best
    mark = published.cut if published else None
    if published:
        figures["published_cut"] = comparison_figure(
            published, value=label, cohort=cohort, endpoint=endpoint, title=f"Cut set beforehand: {published.cut:.4g}"
        )
    if best:
        honest = [
            f"honest {p_text(best.search.permutation_p)} (permutation)"
            if len(best.search.maxima)
            else f"honest {p_text(best.search.p_1994)} (Lausen–Schumacher)"
        ]
        figures["best_cut"] = comparison_figure(
            best.comparison, value=label, cohort=cohort, endpoint=endpoint, notes=honest,
            title=f"Best of {len(best.search.cuts)} cuts: {best.search.cut:.4g}",
        )  # fmt: skip
        figures["cut_search"] = cut_point_figure(
            best.search, best.bootstrap, value=label, cohort=cohort, published=mark, title="Search for the best cut"
        )
    if curve := analysis.continuous.curve:
        figures["hazard_curve"] = hazard_curve_figure(
            curve, analysis.patients.value, value=label, cohort=cohort, published=mark, title="Hazard without a cut"
        )
    if models := list(_models(analysis)):
        figures["hazard_ratios"] = forest_figure(models, cohort=cohort, title=f"Hazard ratios: {endpoint}")
    return figures


def told(analysis: ValueAnalysis, name: str) -> str:
    """What a figure of `figures_of` shows, in words: for those who cannot see it. Empty where it is undefined."""
    label, best, published = label_of(analysis.patients.name), analysis.best, analysis.published
    if name == "published_cut" and published:
        return f"Kaplan–Meier curves by {label}, cut at {published.cut:.4g}. {_comparison_told(published)}"
    if name == "best_cut" and best:
        return f"Kaplan–Meier curves by {label} at its best cut, {best.search.cut:.4g}. " + _comparison_told(
            best.comparison
        )
    if name == "cut_search" and best:
        search = best.search
        return (
            f"p of every cut of {label}: smallest at {search.cut:.4g}, {p_text(search.best_naive_p, 'naive p')}, "
            f"{p_text(search.p_1994, 'Lausen–Schumacher p')}, {p_text(search.permutation_p, 'permutation p')}; best "
            f"cut in bootstrap samples {best.bootstrap.low:.4g} to {best.bootstrap.high:.4g}."
        )
    if name == "hazard_curve" and analysis.continuous.curve:
        return f"Relative hazard as a curve of {label}: {p_text(analysis.continuous.curve.p)} for any effect."
    ratios = [
        f"{model_name}: " + ", ".join(f"{r.name} {r.ratio:.2f} ({r.low:.2f} to {r.high:.2f})" for r in model.ratios)
        for model_name, model in _models(analysis)
    ]
    return f"Hazard ratios with 95 % intervals: {'; '.join(ratios)}." if ratios and name == "hazard_ratios" else ""


def write_survival(
    folder: Folder,
    joined: JoinedCohort,
    analyses: Sequence[ValueAnalysis],
    *,
    cohort: Cohort,
) -> list[str]:
    """Write the joined patients, those left out, the analyses' tables and figures; returns the files' names.

    patients.csv, excluded_patients.csv, patients_without_slides.csv, slides_without_patients.csv; hazard_ratios.csv,
    kaplan_meier.csv (steps), numbers_at_risk.csv, cut_points.csv; and one PNG per value and figure.
    """
    tables = {
        "patients": joined.patients,
        "excluded_patients": joined.clinical.excluded,
        "patients_without_slides": joined.patients_without_slides,
        "slides_without_patients": joined.slides_without_patients,
    } | {name: pa.Table.from_pylist(rows) for name, rows in _rows_of(analyses).items() if rows}
    names = []
    for name, table in tables.items():
        folder.write_csv(f"{name}.csv", table)
        names.append(f"{name}.csv")
    for analysis in analyses:
        for name, figure in figures_of(analysis, cohort=cohort, endpoint=joined.clinical.columns.endpoint).items():
            file = f"{analysis.patients.name}_{name}.png"
            folder.write_bytes(file, _png(figure, _DPI))
            names.append(file)
    return names


def report_part(joined: JoinedCohort, analyses: Sequence[ValueAnalysis], *, cohort: Cohort) -> dict[str, Any]:
    """What `write_report` takes as `survival`: notes, and figures as data URIs with what they show in words."""
    reasons = {"patients excluded": joined.clinical.reasons, **joined.reasons}
    notes = [
        f"{joined.patients.num_rows:,} patients with a scored slide, "
        f"{joined.patients['event'].to_pylist().count(True):,} with the event: {joined.clinical.columns.endpoint}.",
        *(f"Left out, {side}: {_counted(found)}." for side, found in reasons.items() if found),
        *(
            f"{label_of(analysis.patients.name)}, {name}: {why}"
            for analysis in analyses
            for name, why in analysis.all_undefined.items()
        ),
    ]
    endpoint = joined.clinical.columns.endpoint
    figures = [
        {"src": data_uri(_png(figure, 110), "png"), "told": told(analysis, name)}
        for analysis in analyses
        for name, figure in figures_of(analysis, cohort=cohort, endpoint=endpoint).items()
    ]
    return {"notes": notes, "figures": figures}


def _models(analysis: ValueAnalysis) -> Iterator[tuple[str, CoxModel]]:
    """The defined models of a value, by name."""
    published, best, uncut = analysis.published, analysis.best, analysis.continuous
    named = [
        ("cut set beforehand", published.univariable if published else None),
        ("cut set beforehand, adjusted", published.adjusted if published else None),
        ("best cut, which flatters", best.comparison.univariable if best else None),
        ("uncut", uncut.alone),
        ("uncut, adjusted", uncut.adjusted),
    ]
    yield from ((name, model) for name, model in named if model is not None)


def _rows_of(analyses: Sequence[ValueAnalysis]) -> dict[str, list[dict[str, Any]]]:
    rows: dict[str, list[dict[str, Any]]] = {
        name: [] for name in ("hazard_ratios", "kaplan_meier", "numbers_at_risk", "cut_points")
    }
    for analysis in analyses:
        value = {"value": analysis.patients.name}
        for name, model in _models(analysis):
            about = {"model": name, "n": model.n, "n_events": model.n_events, "c_index": model.c_index}
            for r in model.ratios:
                numbers = {"hazard_ratio": r.ratio, "low": r.low, "high": r.high, "p": r.p}
                proportional = {"proportional_hazards_p": r.proportional_p}
                rows["hazard_ratios"].append(value | about | {"covariate": r.name} | numbers | proportional)
        for comparison in filter(None, (analysis.published, analysis.best.comparison if analysis.best else None)):
            _add_curves(rows, value | {"cut": comparison.cut}, comparison)
        if analysis.best:
            search = analysis.best.search
            columns = (search.cuts, search.n_high, search.z, search.naive_p, search.honest_p)
            names = ("cut", "n_high", "z", "naive_p", "honest_p")
            rows["cut_points"] += [
                value | dict(zip(names, row, strict=True))
                for row in zip(*(column.tolist() for column in columns), strict=True)
            ]
    return rows


def _add_curves(rows: Mapping[str, list[dict[str, Any]]], about: dict[str, Any], comparison: GroupComparison) -> None:
    for curve in comparison.curves:
        own = about | {"group": curve.group}
        names = ("time_years", "survival", "low", "high")
        steps = zip(*(c.tolist() for c in (curve.time, curve.survival, curve.low, curve.high)), strict=True)
        rows["kaplan_meier"] += [own | dict(zip(names, step, strict=True)) for step in steps]
        counts = zip(comparison.at_risk_years.tolist(), comparison.at_risk[curve.group], strict=True)
        rows["numbers_at_risk"] += [own | {"time_years": year, "n_at_risk": n} for year, n in counts]


def _comparison_told(comparison: GroupComparison) -> str:
    groups = "; ".join(f"{c.group}: {c.n_events} events in {c.n}" for c in comparison.curves)
    return groups + (f"; log-rank {p_text(comparison.log_rank.p)}." if comparison.log_rank else ".")


def _counted(reasons: Mapping[str, int]) -> str:
    return "; ".join(f"{reason}: {n:,}" for reason, n in reasons.items())


def _png(figure: Figure, dpi: int) -> bytes:
    content = io.BytesIO()
    figure.savefig(content, dpi=dpi, format="png")
    return content.getvalue()
