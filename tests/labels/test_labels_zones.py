import json
import re
import sqlite3
from collections import defaultdict
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from mitoray.errors import BadLabels
from mitoray.labels import read_labels, read_zones

DATA = Path(__file__).parents[2] / "../shared/data"
PAPERS = Path(__file__).parents[2] / "../shared/papers"

SQUARE = [[0, 0], [10, 0], [10, 10], [0, 10], [0, 0]]
HOLE = [[4, 4], [6, 4], [6, 6], [4, 4]]


def feature(geometry, name="Tumour"):
    properties = {"classification": {"name": name}} if name else {}
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def write(path, *features):
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


def points(ring):
    return [(point["x_px"], point["y_px"]) for point in ring]


def test_an_outline_with_a_hole_is_one_zone_of_two_rings(tmp_path):
    path = write(tmp_path / "a.geojson", feature({"type": "Polygon", "coordinates": [SQUARE, HOLE]}))
    (zone,) = read_zones(path).to_pylist()
    assert (zone["slide_id"], zone["kind"]) == ("a", "Tumour")
    assert [points(ring) for ring in zone["rings"]] == [
        [(0, 0), (10, 0), (10, 10), (0, 10)],
        [(4, 4), (6, 4), (6, 6)],
    ]


def test_each_part_of_a_multipolygon_is_a_zone_and_points_are_none(tmp_path):
    both = feature({"type": "MultiPolygon", "coordinates": [[SQUARE], [HOLE]]})
    path = write(tmp_path / "a.geojson", both, feature({"type": "Point", "coordinates": [1, 2]}))
    assert [len(zone["rings"][0]) for zone in read_zones(path).to_pylist()] == [4, 3]


def test_an_outline_of_two_points_is_left_out_and_counted(tmp_path, caplog):
    path = write(tmp_path / "a.geojson", feature({"type": "Polygon", "coordinates": [SQUARE[:2]]}))
    assert len(read_zones(path)) == 0
    assert "left out 1 outlines" in caplog.text


def test_a_zone_without_a_class_is_refused(tmp_path):
    path = write(tmp_path / "a.geojson", feature({"type": "Polygon", "coordinates": [SQUARE]}, name=None))
    with pytest.raises(BadLabels, match="zone 1 has no class"):
        read_zones(path)


def test_zones_are_no_labels(tmp_path, caplog):
    path = write(tmp_path / "a.geojson", feature({"type": "Polygon", "coordinates": [SQUARE]}))
    assert len(read_labels(path)) == 0
    assert "left out 1 zones" in caplog.text


needs_ccmct = pytest.mark.skipif(not (DATA / "ccmct").is_dir(), reason="needs the CCMCT tumour zones of shared/data")


@needs_ccmct
def test_every_ccmct_slide_has_a_tumour_zone_and_each_polygon_keeps_its_points():
    zones = read_zones(DATA / "ccmct/tumor_zones.sqlite")
    with_tumour = {zone["slide_id"] for zone in zones.to_pylist() if zone["kind"] == "Tumorzone"}
    assert (len(zones), len(with_tumour)) == (113, 32)
    with closing(sqlite3.connect(f"file:{DATA / 'ccmct/tumor_zones.sqlite'}?mode=ro&immutable=1", uri=True)) as db:
        (stored,) = db.execute(
            "SELECT count(*) FROM Annotations_coordinates WHERE annoId IN (SELECT uid FROM Annotations WHERE type = 3)"
        ).fetchone()
    assert sum(len(zone["rings"][0]) for zone in zones.to_pylist()) == stored


@needs_ccmct
@pytest.mark.skipif(not PAPERS.is_dir(), reason="needs the text of Bertram et al. 2019")
def test_tumour_areas_are_those_of_table_1_of_bertram_at_one_resolution():
    # Table 1 gives mm², the database px: their ratio is the area of a pixel, one for all slides of one scanner.
    area_px = defaultdict(float)
    for zone in read_zones(DATA / "ccmct/tumor_zones.sqlite").to_pylist():
        x, y = np.array(points(zone["rings"][0])).T
        area = abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2
        area_px[zone["slide_id"]] += area if zone["kind"] == "Tumorzone" else -area
    text = (PAPERS / "ccmct-bertram-2019.txt").read_text()
    published_mm2 = {slide_id: float(mm2) for slide_id, mm2 in re.findall(r"(\w{20})\.svs ([\d.]+) mm2", text)}
    assert published_mm2.keys() == area_px.keys()
    mpp = {slide_id: 1000 * (mm2 / area_px[slide_id]) ** 0.5 for slide_id, mm2 in published_mm2.items()}
    assert max(mpp.values()) - min(mpp.values()) < 0.001
    assert np.median(list(mpp.values())) == pytest.approx(0.2535, abs=0.0002)
