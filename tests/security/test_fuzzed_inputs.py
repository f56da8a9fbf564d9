"""Label files, manifests and bundles of any content: read, or refused by name. FUZZ_EXAMPLES asks for more of them."""

import contextlib
import json
import os
import tempfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hostile_files import TENSOR, card, database, weights
from hypothesis import example, given, settings
from hypothesis import strategies as st

from mitoray.errors import BadLabels, BadManifest, BadModel
from mitoray.labels import read_labels
from mitoray.models import load_bundle
from mitoray.models.sources import SHIPPED
from mitoray.scoring.manifest import read_manifest

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "40"))
some = settings(max_examples=EXAMPLES, deadline=None)

NAMES = [
    "images",
    "annotations",
    "categories",
    "id",
    "name",
    "file_name",
    "bbox",
    "image_id",
    "category_id",
    "labels",
    "raters",
    "subtype",
    "domain",
    "width",
    "area",
    "type",
    "features",
    "geometry",
    "coordinates",
    "properties",
    "classification",
    "metadata",
    "votes",
    "Feature",
    "Point",
    "Polygon",
    "MultiPolygon",
    "schema_version",
    "settings",
    "members",
    "dtype",
    "shape",
    "data_offsets",
    "__metadata__",
    "F32",
]
leaves = st.one_of(
    st.none(), st.booleans(), st.integers(), st.just(10**400), st.floats(), st.text(max_size=4), st.sampled_from(NAMES)
)
documents = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=6),
    max_leaves=25,
)


def edited(draw, document):
    """The document with one of its values, however deep, replaced."""
    place = document
    while isinstance(place, dict | list) and place:
        key = draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
        if not isinstance(place[key], dict | list) or not place[key] or draw(st.booleans()):
            place[key] = draw(documents)
            return document
        place = place[key]
    return document


COCO = {
    "images": [{"id": 1, "file_name": "a.svs", "width": 99, "height": 99}],
    "categories": [{"id": 1, "name": "mitotic figure"}],
    "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 50, 50], "labels": [1], "raters": ["a"]}],
}
GEOJSON = {
    "features": [
        {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": [[[1, 2], [3, 4], [5, 6], [1, 2]]]},
            "properties": {"classification": {"name": "mitotic figure"}, "metadata": {"votes": "[]", "slide_id": "a"}},
        }
    ]
}


@st.composite
def nearly(draw, document):
    return edited(draw, json.loads(json.dumps(document)))


def damaged(content):
    """The bytes with some replaced, and perhaps an end that is cut off."""
    edits = st.lists(st.tuples(st.integers(0, len(content) - 1), st.integers(0, 255)), max_size=6)

    def made(edits, kept):
        changed = bytearray(content)
        for at, value in edits:
            changed[at] = value
        return bytes(changed[:kept])

    return st.builds(made, edits, st.one_of(st.just(len(content)), st.integers(0, len(content))))


def refused_or_read(error, name, content, read):
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / name).write_bytes(content)
        with contextlib.suppress(error):
            read(f"{folder}/{name}")


@some
@given(st.one_of(documents, nearly(COCO), nearly(GEOJSON)))
def test_any_json_is_read_as_labels_or_refused(document):
    refused_or_read(BadLabels, "labels.json", json.dumps(document).encode(), read_labels)


@pytest.fixture(scope="module")
def sliderunner(tmp_path_factory):
    return database(tmp_path_factory.mktemp("database") / "a.sqlite")


@some
@given(st.data())
def test_any_damage_to_a_database_is_read_or_refused(sliderunner, data):
    refused_or_read(BadLabels, "labels.sqlite", data.draw(damaged(sliderunner)), read_labels)


CSV = (
    b"slide_id,uri,case_id,domain,mpp,x_px,y_px,kind\n"
    b"a,a.svs,1,breast,0.25,1,2,mitotic_figure\nb,b.svs,,,,3,4,imposter\n"
)


@some
@example(b"\x80\r")
@given(st.one_of(damaged(CSV), st.text(",;\n\"'ab1\0é", max_size=60).map(str.encode), st.binary(max_size=60)))
def test_any_csv_is_a_manifest_and_a_label_table_or_refused(content):
    refused_or_read(BadManifest, "a.csv", content, read_manifest)
    refused_or_read(BadLabels, "a.csv", content, read_labels)


@some
@given(st.data())
def test_any_parquet_is_a_manifest_and_a_label_table_or_refused(data):
    kinds = st.sampled_from([pa.string(), pa.int64(), pa.float32(), pa.list_(pa.string()), pa.binary(), pa.null()])
    names = st.sampled_from(["slide_id", "uri", "mpp", "x_px", "y_px", "kind", "votes", "domain", "more"])
    columns = data.draw(st.lists(st.tuples(names, kinds), max_size=6))
    table = pa.table([pa.nulls(2, kind) for _, kind in columns], names=[name for name, _ in columns])
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer)
    content = data.draw(damaged(buffer.getvalue().to_pybytes()))
    refused_or_read(BadManifest, "a.parquet", content, read_manifest)
    refused_or_read(BadLabels, "a.parquet", content, read_labels)


@some
@given(st.one_of(nearly(json.loads(card())), documents).map(lambda one: json.dumps(one).encode()), st.data())
def test_any_bundle_is_loaded_or_refused(content, data):
    whole = (SHIPPED / "mitoray-s" / "weights.safetensors").read_bytes()
    size = int.from_bytes(whole[:8], "little") + 8
    header = data.draw(damaged(whole[:size])) + whole[size:]
    for made in (whole, header, weights(data.draw(nearly({"a": TENSOR}))) + bytes(8)):
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "weights.safetensors").write_bytes(made)
            (Path(folder) / "bundle.json").write_bytes(content)
            with contextlib.suppress(BadModel):
                load_bundle(folder)
