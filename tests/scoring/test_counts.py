"""What one slide's detections are counted to: intervals, atypical figures, fields that hold tissue. Without Ray."""

import numpy as np
import pyarrow as pa
import pytest

from mitoray.counting.cases import count_cases
from mitoray.counting.hotspot import densest_circle
from mitoray.counting.intervals import calibrated_interval, sampling_interval
from mitoray.errors import BadOption
from mitoray.scoring.config import Identity, Method
from mitoray.scoring.counts import count_slide
from mitoray.scoring.manifest import ManifestRow
from mitoray.scoring.reduce import reduce_slide
from mitoray.scoring.results import write_cohort
from mitoray.scoring.schema import DETECTIONS, SCORES, SLIDES, conformed
from mitoray.slide import Tissue
from mitoray.storage import Folder

MPP = 0.25
SIDE_PX = 16_000


def tissue_of(mask=None, mpp=MPP, side_px=SIDE_PX):
    return Tissue(np.ones((250, 250), bool) if mask is None else mask, side_px, side_px, mpp)


def detections_of(points_um, scores, atypical=None, mpp=MPP):
    rows = [
        dict.fromkeys(DETECTIONS.names)
        | {
            "slide_id": "s",
            "x_px": x / mpp,
            "y_px": y / mpp,
            "score": score,
            "detector_score": score,
            "atypical_probability": None if atypical is None else atypical[i],
        }
        for i, ((x, y), score) in enumerate(zip(points_um, scores, strict=True))
    ]
    return pa.Table.from_pylist(rows, schema=DETECTIONS)


@pytest.fixture(scope="module")
def crowd():
    """200 candidates in a 4 mm square, denser in its first quarter, and a score each."""
    rng = np.random.default_rng(4)
    points = np.concatenate([rng.random((120, 2)) * 1500 + 200, rng.random((80, 2)) * 4000])
    return points, rng.random(200).astype(np.float32), rng.random(200).astype(np.float32)


def test_intervals_are_of_the_hotspots_candidates_those_below_the_threshold_included(crowd):
    points, scores, _ = crowd
    found = count_slide(detections_of(points, scores), tissue_of(), Method(), 0.5, calibrated=True).columns
    hotspot = densest_circle(points[scores >= 0.5])
    expected = calibrated_interval(scores[hotspot.contains(points)])
    assert (found["count_low"], found["count_high"]) == (expected.low, expected.high)
    assert found["mitotic_count"] == hotspot.count
    sampling = sampling_interval(hotspot.count)
    assert (found["sampling_low"], found["sampling_high"]) == (sampling.low, sampling.high)


def test_scores_that_are_no_probabilities_give_no_interval_but_that_of_sampling(crowd):
    found = count_slide(detections_of(*crowd[:2]), tissue_of(), Method(), 0.5, calibrated=False).columns
    assert "count_low" not in found
    assert found["sampling_low"] < found["mitotic_count"] < found["sampling_high"]


def test_atypical_figures_are_told_of_the_slide_and_of_the_hotspot_and_only_of_what_counts(crowd):
    points, scores, atypical = crowd
    found = count_slide(detections_of(points, scores, atypical), tissue_of(), Method(), 0.5, False).columns
    counts = scores >= 0.5
    inside = counts & densest_circle(points[counts]).contains(points)
    for prefix, figures in (("", counts), ("hotspot_", inside)):
        n_atypical, n_normal = (atypical[figures] > 0.9).sum(), (atypical[figures] < 0.1).sum()
        assert found[f"{prefix}n_atypical"] == n_atypical
        assert found[f"{prefix}n_normal"] == n_normal
        assert found[f"{prefix}atypical_ratio"] == pytest.approx(n_atypical / n_normal)
    assert "n_atypical" not in count_slide(detections_of(points, scores), tissue_of(), Method(), 0.5, False).columns


def test_no_detections_count_zero_with_the_interval_of_none_and_one_counts_one():
    none = count_slide(detections_of([], []), tissue_of(), Method(), 0.5, calibrated=True)
    assert (none.columns["mitotic_count"], none.columns["sampling_low"], none.fields_of_view) == (0, 0.0, ())
    assert none.columns["sampling_high"] == pytest.approx(2.9957, abs=1e-4)  # -ln 0.05
    one = count_slide(detections_of([(900.0, 900.0)], [0.75]), tissue_of(), Method(), 0.5, calibrated=True).columns
    assert (one["mitotic_count"], one["count_low"], one["count_high"]) == (1, 0, 1)


def test_a_share_of_tissue_moves_the_hotspot_into_the_tissue_and_is_told(crowd):
    points, scores, _ = crowd
    mask = np.zeros((250, 250), bool)
    mask[:, 125:] = True  # the right half: the crowd stands on glass
    found = count_slide(detections_of(points, scores), tissue_of(mask), Method(hotspot_tissue_share=0.8), 0.5, True)
    free = count_slide(detections_of(points, scores), tissue_of(mask), Method(), 0.5, True).columns
    assert found.columns["hotspot_x_px"] * MPP > 2000
    assert 0.8 <= found.columns["hotspot_tissue_share"] <= 1
    assert found.columns["mitotic_count"] < free["mitotic_count"]
    assert free["hotspot_tissue_share"] is None
    assert (found.columns["note"], len(found.fields_of_view)) == (None, 2)


def test_where_no_field_holds_enough_tissue_there_is_no_count_and_the_note_says_why(crowd):
    mask = np.zeros((250, 250), bool)
    mask[:20, :20] = True
    method = Method(hotspot_tissue_share=0.5)
    found = count_slide(detections_of(*crowd[:2]), tissue_of(mask), method, 0.5, calibrated=True)
    assert found.columns["mitotic_count"] is None
    assert found.columns["mitotic_count_10hpf"] is None
    assert found.columns["n_detections"] > 0
    assert found.columns["note"] == (
        "No circle of 2 mm² and no rectangle of 2.37 mm² holds 50% of tissue: no count of it."
    )
    assert "sampling_low" not in found.columns
    assert found.fields_of_view == ()


def test_one_case_on_two_scanners_counts_as_the_same_tissue_at_one_resolution(crowd, tmp_path):
    points, scores, _ = crowd
    rows = []
    for name, mpp in (("fine", 0.25), ("coarse", 0.5)):
        side_px = round(4000 / mpp)
        candidates = detections_of(points, scores, mpp=mpp).drop(["slide_id"]).to_pylist()
        region = {"x_px": 0, "y_px": 0, "width_px": side_px, "height_px": side_px}
        plan = {
            **{"mpp": mpp, "mpp_source": "given", "width_px": side_px, "height_px": side_px, "tissue_mm2": 16.0},
            **{"tissue_png": tissue_of(mpp=mpp, side_px=side_px).to_png(), "cores": [region]},
        }
        scored = {"region_id": f"{name}/0", "slide_id": name, **region, "status": "scored", "candidates": candidates}
        table = pa.Table.from_pylist([scored], schema=SCORES)
        source = ManifestRow(name, f"{name}.svs", case_id="dog")
        rows.append(reduce_slide(source, plan, table, Method(candidate_threshold=0.1), 0.5, calibrated=True).row)
    same = ("n_detections", "mitotic_count", "mitotic_count_10hpf", "count_low", "count_high", "sampling_low")
    assert [rows[0][name] for name in same] == [rows[1][name] for name in same]
    assert rows[0]["hotspot_x_px"] == pytest.approx(2 * rows[1]["hotspot_x_px"])
    slides = pa.Table.from_pylist(rows, schema=SLIDES)
    (case,) = count_cases(slides).to_pylist()
    assert (case["n_slides"], case["mitotic_count"]) == (2, rows[0]["mitotic_count"])
    assert case["figures_per_mm2"] == pytest.approx(rows[0]["n_detections"] / 16)
    folder = Folder.at(str(tmp_path))
    write_cohort(folder, slides)
    assert folder.read_table("cases/cases.parquet").to_pylist() == [case]
    header, line = folder.read_bytes("cases.csv").decode().splitlines()
    assert header.startswith('"case_id"')
    assert line.startswith('"dog",')


def test_a_table_of_an_earlier_version_has_nulls_for_what_it_lacks():
    older = [*SLIDES.names[:15], "detections_file"]
    row = dict.fromkeys(older) | {"slide_id": "a", "status": "scored", "mitotic_count": 7}
    found = conformed(pa.table({name: pa.array([row[name]], SLIDES.field(name).type) for name in older}), SLIDES)
    assert found.schema == SLIDES
    assert found.to_pylist() == [dict.fromkeys(SLIDES.names) | row]


def test_the_share_of_tissue_belongs_to_the_run_and_older_records_had_none():
    record = Identity("mitoray-s", "aa", "bb", 1).record()
    del record["method"]["hotspot_tissue_share"]
    assert Identity("mitoray-s", "aa", "bb", 1).difference(record) == []
    assert Identity("mitoray-s", "aa", "bb", 1, Method(hotspot_tissue_share=0.5)).difference(record) == [
        "method.hotspot_tissue_share: was 0.0, is 0.5"
    ]
    with pytest.raises(BadOption, match="hotspot_tissue_share"):
        Method(hotspot_tissue_share=1.5)
