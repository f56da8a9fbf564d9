"""Masks, label files and bundles that ask for more than any machine has, or run in circles, and the error of each."""

import json
import sqlite3
import struct
from contextlib import closing

from hostile_slides import png
from hostile_tiffs import HostileTiff, image

from mitoray.models.sources import SHIPPED

DEEP = b"[" * 100_000 + b"]" * 100_000
LONG_NUMBER = b"9" * 4000
COCO = (
    b'{"images": [{"id": 1, "file_name": "a.svs"}], "categories": [{"id": 1, "name": "mitotic figure"}], '
    b'"annotations": [%s]}'
)
MORE = b'{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5], "area": 1, %s}'
BOX = b'{"id": 1, "image_id": 1, "category_id": 1, "bbox": [%s, 1, 50, 50], "area": 1}'
POINT = (
    b'{"type": "Feature", "geometry": {"type": "Point", "coordinates": %s}, '
    b'"properties": {"classification": {"name": "mitotic figure"}, "metadata": {"votes": %s}}}'
)


def database(path, *statements):
    """A SlideRunner database, which statements then change."""
    with closing(sqlite3.connect(path)) as made:
        made.executescript(
            "CREATE TABLE Slides (uid INTEGER, filename TEXT); CREATE TABLE Classes (uid INTEGER, name TEXT);"
            "CREATE TABLE Persons (uid INTEGER, name TEXT);"
            "CREATE TABLE Annotations (uid INTEGER, slide INTEGER, type INTEGER, agreedClass INTEGER);"
            "CREATE TABLE Annotations_coordinates (uid INTEGER, annoId INTEGER, coordinateX, coordinateY, orderIdx);"
            "CREATE TABLE Annotations_label (uid INTEGER, annoId INTEGER, person INTEGER, class INTEGER);"
            "INSERT INTO Slides VALUES (1, 'a.svs'); INSERT INTO Classes VALUES (1, 'mitotic figure');"
            "INSERT INTO Annotations VALUES (1, 1, 1, 1); INSERT INTO Annotations_coordinates VALUES (1, 1, 5, 5, 1);"
        )
        for statement in statements:
            made.executescript(statement)
    return path.read_bytes()


def of_statements(*statements):
    return lambda path: database(path, *statements)


MASKS = {
    "a PNG of 10^10 px": png(100_000, 100_000),
    "a BigTIFF of a billion px": HostileTiff([image(32_000, 32_000)]).to_bytes(),
    "a BigTIFF of 2^62 px": HostileTiff([image(2**31, 2**31, tiles=1)]).to_bytes(),
    "a program in PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) (r) file\n",
    "no image": b"mask" * 99,
}
LABELS = {
    "JSON nested 100,000 deep": DEEP,
    "JSON nested within a COCO file": COCO % (BOX % DEEP),
    "a number of 4,000 digits": COCO % (BOX % LONG_NUMBER),
    "a number of 5,000 digits": COCO % (BOX % (LONG_NUMBER + b"9" * 1000)),
    "a point at 10^4000": POINT % (b"[%s, 1]" % LONG_NUMBER, b'"[]"'),
    "a point nested 900 deep": POINT % (b"[" * 900 + b"]" * 900, b'"[]"'),
    "votes nested 100,000 deep": POINT % (b"[1, 2]", b'"' + DEEP + b'"'),
    "text that is none": COCO % (MORE % b'"domain": "\\ud800"'),
    "raters by number": COCO % (MORE % b'"raters": 5'),
    "classes without end": of_statements(
        "DROP TABLE Classes",
        "CREATE VIEW Classes AS WITH RECURSIVE c(uid) AS (SELECT 1 UNION ALL SELECT uid + 1 FROM c) "
        "SELECT uid, 'mitotic figure' AS name FROM c",
    ),
    "a column of 2 GB": of_statements("ALTER TABLE Persons ADD COLUMN more AS (zeroblob(2000000000))"),
    "a table in a program": of_statements("CREATE VIRTUAL TABLE more USING fts5(words)"),
    "a text of 64 MB": of_statements("UPDATE Classes SET name = hex(zeroblob(32000000))"),
    "a coordinate without end": of_statements("UPDATE Annotations_coordinates SET coordinateX = 9e999"),
}


def card(**changes):
    return json.dumps(json.loads((SHIPPED / "mitoray-s" / "bundle.json").read_bytes()) | changes).encode()


def weights(header, size=None):
    packed = json.dumps(header).encode() if isinstance(header, dict) else header
    return struct.pack("<Q", len(packed) if size is None else size) + packed


TENSOR = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
BUNDLES = {
    "a header of 2^63 bytes": (weights(b"{}", 2**63), card()),
    "a header nested 100,000 deep": (weights(DEEP), card()),
    "a tensor of 2^62 numbers": (weights({"a": TENSOR | {"shape": [2**31, 2**31]}}), card()),
    "tensors that overlap": (weights({"a": TENSOR, "b": TENSOR}) + bytes(4), card()),
    "100,000 tensors": (
        weights({str(n): TENSOR | {"data_offsets": [4 * n, 4 * n + 4]} for n in range(100_000)}) + bytes(400_000),
        card()),
    "more weights than the network has": (weights({"a": TENSOR}) + bytes(40 << 20), card()),
    "a network of 10^9 channels": (
        weights({"a": TENSOR}) + bytes(4), card(architecture="retinanet", settings={"channels": 32 * 10**9})),
    "a network a million wide": (weights({"a": TENSOR}) + bytes(4), card(settings={"width": 1e6})),
    "an ONNX file of 10^18 bytes": (
        weights({"a": TENSOR}) + bytes(4), card(architecture="onnx-yolo", settings={"size_bytes": 10**18})),
    "10,000 members": (
        weights({"a": TENSOR}) + bytes(4),
        card(
            architecture="ensemble",
            settings={},
            members=[
                {"name": "a", "architecture": "resnet18", "normalisation": {"mean": [0.0] * 3, "std": [1.0] * 3}}
            ] * 10_000,
        )),
    "a card nested 100,000 deep": (weights({"a": TENSOR}) + bytes(4), DEEP),
    "a card of 20 MB": (weights({"a": TENSOR}) + bytes(4), card(name="a" * (20 << 20))),
    "a number of 5,000 digits in the card": (
        weights({"a": TENSOR}) + bytes(4), card().replace(b'"schema_version": 1', b'"schema_version": ' + LONG_NUMBER)),
}  # fmt: skip
"""By name: the two files."""
