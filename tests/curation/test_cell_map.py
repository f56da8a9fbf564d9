"""The map of cells: a slide like any other, with a rectangle per cell that an expert can give another class."""

import json
import sqlite3
from contextlib import closing

import numpy as np
import pytest
from panel import classify_in_qupath, label_in_sliderunner
from tiffslide import TiffSlide

from mitoray.curation.cell_grid import Grid
from mitoray.curation.map_files import read_changes, write_geojson, write_sliderunner
from mitoray.curation.map_image import CellStore, write_map
from mitoray.curation.map_layout import CellMap, read_cell_map, write_cell_map
from mitoray.errors import BadDecisions, BadLabels
from mitoray.labels import read_labels
from mitoray.labels.sliderunner import AREA

SIDE = 48
FIGURE, IMPOSTER = "mitotic_figure", "imposter"


def a_map(seed=0, n=7):
    places = np.random.default_rng(seed).permutation([(x, y) for x in range(4) for y in range(3)])[:n]
    names = tuple(FIGURE if i % 2 else IMPOSTER for i in range(n))
    return CellMap(Grid(4, 3, places), tuple(f"{i:020x}" for i in range(n)), names, (FIGURE, IMPOSTER), SIDE)


@pytest.fixture(params=["sliderunner", "qupath"])
def written(request, tmp_path):
    """A map's file, and how an expert changes classes in it."""
    made = a_map()
    if request.param == "sliderunner":
        path = tmp_path / "cells.sqlite"
        write_sliderunner(made, path, "cells.tif")
        return made, path, lambda kinds: label_in_sliderunner(path, "Ada", kinds)
    path = tmp_path / "cells.geojson"
    write_geojson(made, path)
    return made, path, lambda kinds: classify_in_qupath(tmp_path, kinds)


@pytest.mark.parametrize(("columns", "rows"), [(3, 2), (90, 41)])
def test_the_map_is_a_pyramid_that_states_its_resolution_and_shows_each_cell_at_its_place(tmp_path, columns, rows):
    rng = np.random.default_rng(0)
    places = rng.permutation([(x, y) for x in range(columns) for y in range(rows)])[: columns * rows // 2]
    grid = Grid(columns, rows, places)
    # Of one hue, for JPEG halves the resolution of colour.
    colours = (rng.integers(40, 200, (len(places), 1)) + np.array([30, 0, 15])).astype(np.uint8)
    with CellStore(SIDE, tmp_path) as cells:
        cells.add(np.broadcast_to(colours[:, None, None], (len(places), SIDE, SIDE, 3)))
        assert write_map(tmp_path / "map.tif", grid, cells, 0.5) == (columns * SIDE, rows * SIDE)
    assert [path.name for path in tmp_path.iterdir()] == ["map.tif"]
    with TiffSlide(tmp_path / "map.tif") as slide:
        assert slide.dimensions == (columns * SIDE, rows * SIDE)
        assert slide.properties["tiffslide.mpp-x"] == slide.properties["tiffslide.mpp-y"] == 0.5
        downsamples = [round(d) for d in slide.level_downsamples]
        assert downsamples == [4**n for n in range(len(downsamples))]
        assert max(slide.level_dimensions[-1]) <= 1152
        image = np.asarray(slide.read_region((0, 0), 0, slide.dimensions).convert("RGB")).astype(int)
        level = len(downsamples) - 1
        small = np.asarray(slide.read_region((0, 0), level, slide.level_dimensions[-1]).convert("RGB")).astype(int)
    expected = np.full((rows, columns, 3), 255)
    expected[places[:, 1], places[:, 0]] = colours
    middles = image[SIDE // 2 :: SIDE, SIDE // 2 :: SIDE]
    assert np.abs(middles - expected).max() < 12  # what JPEG loses
    step = downsamples[-1]
    if step > 1:
        whole = image[: small.shape[0] * step, : small.shape[1] * step]
        blocks = whole.reshape(small.shape[0], step, small.shape[1], step, 3).mean((1, 3))
        assert np.abs(blocks - small).mean() < 4


def test_every_cell_is_a_rectangle_of_its_class_in_sliderunner(tmp_path):
    made = a_map()
    write_sliderunner(made, tmp_path / "cells.sqlite", "cells.tif")
    with closing(sqlite3.connect(tmp_path / "cells.sqlite")) as database:
        rows = database.execute(
            "SELECT a.guid, a.type, c.name, min(x.coordinateX), min(x.coordinateY), max(x.coordinateX), "
            "max(x.coordinateY), count(*) FROM Annotations a JOIN Classes c ON c.uid = a.agreedClass "
            "JOIN Annotations_coordinates x ON x.annoId = a.uid GROUP BY a.uid"
        ).fetchall()
        assert database.execute("SELECT filename FROM Slides").fetchall() == [("cells.tif",)]
    assert rows == [
        (one, AREA, name, x, y, x + SIDE - 1, y + SIDE - 1, 2)
        for one, name, (x, y) in zip(made.ids, made.names, made.corners, strict=True)
    ]


def test_other_readers_find_a_label_of_its_class_in_the_middle_of_every_cell(written):
    made, path, _ = written
    labels = read_labels(path)
    assert labels["kind"].to_pylist() == list(made.names)
    middles = np.array(made.corners) + SIDE / 2
    assert np.abs(np.stack([labels["x_px"], labels["y_px"]], axis=1) - middles).max() <= 0.5


def test_an_expert_s_changes_come_back_and_what_was_confirmed_is_none(written):
    made, path, give = written
    give({made.ids[0]: FIGURE, made.ids[1]: FIGURE, made.ids[5]: IMPOSTER})
    changes = read_changes(path, made, "Ada")
    assert changes.rater == "Ada"
    assert changes.classes == {made.ids[0]: FIGURE, made.ids[5]: IMPOSTER}


def test_the_file_of_another_map_is_refused(written):
    _, path, give = written
    give({})
    with pytest.raises(BadDecisions, match="belongs to the map"):
        read_changes(path, a_map(seed=1), "Ada")


def test_an_annotation_that_is_no_cell_of_the_map_is_refused_and_named(tmp_path):
    made = a_map()
    write_geojson(made, tmp_path / "cells.geojson")
    document = json.loads((tmp_path / "cells.geojson").read_text())
    document["features"][2]["properties"]["metadata"]["cell_id"] = "stranger"
    (tmp_path / "cells.geojson").write_text(json.dumps(document))
    with pytest.raises(BadDecisions, match="feature 3 is 'stranger'"):
        read_changes(tmp_path / "cells.geojson", made, "Ada")


def test_a_class_that_the_map_does_not_know_is_refused(tmp_path):
    made = a_map()
    write_geojson(made, tmp_path / "cells.geojson")
    classify_in_qupath(tmp_path, {made.ids[0]: "lymphocyte"})
    with pytest.raises(BadDecisions, match="'lymphocyte', which the map does not know"):
        read_changes(tmp_path / "cells.geojson", made, "Ada")


def test_a_qupath_file_needs_the_expert_s_name_and_a_database_with_two_persons_too(tmp_path):
    made = a_map()
    write_geojson(made, tmp_path / "cells.geojson")
    with pytest.raises(BadDecisions, match="Give the expert's name"):
        read_changes(tmp_path / "cells.geojson", made)
    write_sliderunner(made, tmp_path / "cells.sqlite", "cells.tif")
    label_in_sliderunner(tmp_path / "cells.sqlite", "Ada", {made.ids[0]: FIGURE})
    label_in_sliderunner(tmp_path / "cells.sqlite", "Bo", {made.ids[2]: FIGURE})
    with pytest.raises(BadDecisions, match="one of Ada, Bo"):
        read_changes(tmp_path / "cells.sqlite", made)
    assert read_changes(tmp_path / "cells.sqlite", made, "Bo").classes == {made.ids[2]: FIGURE}


def test_a_kept_map_that_was_changed_is_refused(tmp_path):
    made = a_map()
    write_cell_map(made, tmp_path / "cells.parquet")
    again = read_cell_map(tmp_path / "cells.parquet")
    assert again.digest == made.digest
    assert (again.grid.places == made.grid.places).all()
    (tmp_path / "cells.parquet").write_bytes((tmp_path / "cells.parquet").read_bytes()[:-20])
    with pytest.raises(BadLabels, match="holds no map of cells"):
        read_cell_map(tmp_path / "cells.parquet")
