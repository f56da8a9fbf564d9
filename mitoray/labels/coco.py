"""COCO label files, and the MIDOG family that differs from COCO in its boxes and its votes."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import pyarrow as pa

from mitoray.errors import BadLabels
from mitoray.labels.kinds import kind_of
from mitoray.labels.schema import KINDS
from mitoray.labels.source import replacing
from mitoray.labels.table import label_table, slide_id_of, vote_list

BoxDialect = Literal["midog", "coco"]

BOX_PX: Final = 50.0
"""Side of a written box, px: the boxes of MIDOG++ (Aubreville et al. 2023)."""

LARGEST_PX: Final = 1e12
OUTSIDE_PX: Final = 64.0
"""A centre farther outside of its image shows that its box was read wrongly. In MIDOG++ it is at most 5 px."""


def read(document: object, source: str, dialect: BoxDialect, classes: Mapping[str, str] | None) -> pa.Table:
    """Labels of a parsed COCO document.

    Beyond COCO it takes what MIDOG++ adds (`labels`, the experts' category ids in order, and an image's `tumor_type`
    as domain), and what `write` adds (`raters`, `subtype`, `dataset`, `domain`). Raises BadLabels.
    """
    images, kinds = _images(document, source), _kinds(document, source, classes)
    annotations, boxes = _boxes(document, source)
    _refuse_impossible(_impossible(boxes, _image_sizes(annotations, images), dialect), annotations, dialect, source)
    centres = _centres(boxes, dialect)
    rows = []
    for record, (annotation, centre) in enumerate(zip(annotations, centres.tolist(), strict=True), start=1):
        try:
            image = images[annotation["image_id"]]
            kind = kinds[annotation["category_id"]]
            voted = [kinds[category] for category in annotation.get("labels") or ()]
        except (KeyError, TypeError) as error:
            raise BadLabels(
                f"{source}: annotation record {record} (id {annotation.get('id')}) refers to an image or category "
                f"that the file does not list ({error}). Correct the record."
            ) from error
        raters = annotation.get("raters") or [f"expert_{n}" for n in range(1, len(voted) + 1)]
        if len(raters) != len(voted):
            raise BadLabels(f"{source}: annotation record {record} has {len(voted)} votes of {len(raters)} raters.")
        rows.append(
            {
                "dataset": annotation.get("dataset"),
                "slide_id": image["slide_id"],
                "x_px": centre[0],
                "y_px": centre[1],
                "kind": kind,
                "subtype": annotation.get("subtype"),
                "votes": vote_list(zip(raters, voted, strict=True)),
                "domain": annotation.get("domain", image.get("tumor_type")),
            }
        )
    return label_table(rows, source)


def write(table: pa.Table, path: Path, dialect: BoxDialect, slide_suffix: str) -> None:
    """Boxes of `BOX_PX` around each label; votes, subtype, dataset and domain as extra fields of the annotations."""
    rows = table.to_pylist()
    slides = {slide_id: n for n, slide_id in enumerate(dict.fromkeys(row["slide_id"] for row in rows), start=1)}
    voted = (vote["kind"] for row in rows for vote in row["votes"] or ())
    kinds = {kind: n for n, kind in enumerate(dict.fromkeys([*KINDS, *(row["kind"] for row in rows), *voted]), start=1)}
    annotations = []
    for record, row in enumerate(rows, start=1):
        left, top = row["x_px"] - BOX_PX / 2, row["y_px"] - BOX_PX / 2
        far = [left + BOX_PX, top + BOX_PX] if dialect == "midog" else [BOX_PX, BOX_PX]
        annotation = {
            "id": record,
            "image_id": slides[row["slide_id"]],
            "category_id": kinds[row["kind"]],
            "bbox": [left, top, *far],
        }
        if dialect == "coco":
            annotation |= {"area": BOX_PX * BOX_PX, "iscrowd": 0}
        if row["votes"]:
            annotation["labels"] = [kinds[vote["kind"]] for vote in row["votes"]]
            annotation["raters"] = [vote["rater"] for vote in row["votes"]]
        annotation |= {name: row[name] for name in ("subtype", "dataset", "domain") if row[name] is not None}
        annotations.append(annotation)
    document = {
        "info": {"description": "Mitotic figure labels"},
        "images": [{"id": n, "file_name": f"{slide_id}{slide_suffix}"} for slide_id, n in slides.items()],
        "categories": [{"id": n, "name": kind} for kind, n in kinds.items()],
        "annotations": annotations,
    }
    with replacing(path) as part:
        part.write_text(json.dumps(document), encoding="utf-8")


def box_dialect(document: object, source: str) -> BoxDialect:
    """Whether boxes are `[x1, y1, x2, y2]` ("midog") or `[x, y, width, height]` ("coco").

    A file has one dialect. Told, in this order, by COCO's `area`; by boxes that one reading makes impossible (no
    extent, or a centre more than `OUTSIDE_PX` outside of the image); by all boxes having one size in one reading only.
    Raises BadLabels with the record's number for a box that no reading allows, and where nothing tells them apart.
    """
    annotations, boxes = _boxes(document, source)
    sizes = _image_sizes(annotations, _images(document, source))
    if not annotations or all(_is_number(annotation.get("area")) for annotation in annotations):
        return "coco"
    wrong: dict[BoxDialect, np.ndarray] = {dialect: _impossible(boxes, sizes, dialect) for dialect in ("midog", "coco")}
    _refuse_impossible(wrong["midog"] & wrong["coco"], annotations, "midog or coco", source)
    if wrong["midog"].any() and wrong["coco"].any():
        _refuse_mixture(wrong, annotations, source)
    if wrong["midog"].any() or wrong["coco"].any():
        return "coco" if wrong["midog"].any() else "midog"
    one_size = {"midog": np.ptp(boxes[:, 2:] - boxes[:, :2], axis=0).max() == 0, "coco": np.ptp(boxes[:, 2:]) == 0}
    if len(boxes) > 1 and one_size["midog"] != one_size["coco"]:
        return "midog" if one_size["midog"] else "coco"
    raise BadLabels(f"The boxes of {source} can be [x1, y1, x2, y2] or [x, y, width, height]. State midog or coco.")


def _images(document: object, source: str) -> dict[Any, dict[str, Any]]:
    images: dict[Any, dict[str, Any]] = {}
    used: set[str] = set()
    for image in _records(document, "images", ("id", "file_name"), source):
        slide_id = slide_id_of(str(image["file_name"]))
        if image["id"] in images or slide_id in used:
            raise BadLabels(
                f"{source} lists the image {image['id']} or slide {slide_id!r} twice. Give each its own name."
            )
        images[image["id"]] = image | {"slide_id": slide_id}
        used.add(slide_id)
    return images


def _kinds(document: object, source: str, classes: Mapping[str, str] | None) -> dict[Any, str]:
    records = _records(document, "categories", ("id", "name"), source)
    return {category["id"]: kind_of(str(category["name"]), classes) for category in records}


def _records(document: object, name: str, keys: tuple[str, ...], source: str) -> list[dict[str, Any]]:
    records = document.get(name) if isinstance(document, dict) else None
    if not isinstance(records, list):
        raise BadLabels(f"{source} has no list called {name!r}: it is no COCO file. State its dialect.")
    for n, record in enumerate(records, start=1):
        if not isinstance(record, dict) or not all(isinstance(record.get(key), int | str) for key in keys):
            raise BadLabels(f"{source}: record {n} of {name!r} lacks one of {', '.join(keys)}. Correct the record.")
    return records


def _boxes(document: object, source: str) -> tuple[list[dict[str, Any]], np.ndarray]:
    """The annotations and their boxes, (n, 4) float64, finite."""
    annotations = _records(document, "annotations", ("image_id", "category_id"), source)
    for record, annotation in enumerate(annotations, start=1):
        box = annotation.get("bbox")
        if not isinstance(box, list) or len(box) != 4 or not all(map(_is_number, box)):
            raise BadLabels(f"{source}: annotation record {record} has the box {box}, not four finite numbers.")
    return annotations, np.array([annotation["bbox"] for annotation in annotations], np.float64).reshape(-1, 4)


def _is_number(value: object) -> bool:
    # Python's integers may be too large for math.isfinite.
    return isinstance(value, int | float) and -LARGEST_PX <= value <= LARGEST_PX


def _image_sizes(annotations: list[dict[str, Any]], images: dict[Any, dict[str, Any]]) -> np.ndarray:
    """Width and height of each annotation's image, (n, 2) float64 px, infinite if unknown."""
    sides = [images.get(annotation["image_id"], {}) for annotation in annotations]
    sizes = [
        [side if _is_number(side := image.get(key)) else math.inf for key in ("width", "height")] for image in sides
    ]
    return np.array(sizes, np.float64).reshape(-1, 2)


def _centres(boxes: np.ndarray, dialect: BoxDialect) -> np.ndarray:
    return (boxes[:, :2] + boxes[:, 2:]) / 2 if dialect == "midog" else boxes[:, :2] + boxes[:, 2:] / 2


def _impossible(boxes: np.ndarray, sizes: np.ndarray, dialect: BoxDialect) -> np.ndarray:
    extent = boxes[:, 2:] - boxes[:, :2] if dialect == "midog" else boxes[:, 2:]
    centres = _centres(boxes, dialect)
    outside = (centres < -OUTSIDE_PX) | (centres > sizes + OUTSIDE_PX)
    return np.asarray(((extent <= 0) | outside).any(axis=1))


def _refuse_impossible(wrong: np.ndarray, annotations: list[dict[str, Any]], dialect: str, source: str) -> None:
    if wrong.any():
        record = int(wrong.argmax())
        raise BadLabels(
            f"{source}: annotation record {record + 1} (id {annotations[record].get('id')}) has the box "
            f"{annotations[record]['bbox']}, which cannot be a {dialect} box: it has no extent, or lies outside of its "
            f"image. {int(wrong.sum())} of {len(wrong)} records are like this. Correct them or state another dialect."
        )


def _refuse_mixture(wrong: dict[BoxDialect, np.ndarray], annotations: list[dict[str, Any]], source: str) -> None:
    midog, coco = (int(wrong[dialect].argmax()) for dialect in ("coco", "midog"))
    raise BadLabels(
        f"{source} mixes boxes: record {midog + 1} can only be [x1, y1, x2, y2] ({annotations[midog]['bbox']}), "
        f"record {coco + 1} only [x, y, width, height] ({annotations[coco]['bbox']}). Correct one of them."
    )
