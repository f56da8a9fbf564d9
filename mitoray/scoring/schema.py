"""The tables that travel through a scoring run, as Arrow schemas.

Positions are level-0 px of the slide, origin top-left.
"""

from typing import Final

import pyarrow as pa

RECT: Final = pa.struct([(name, pa.int64()) for name in ("x_px", "y_px", "width_px", "height_px")])

PLAN: Final = pa.schema(
    [
        pa.field("slide_id", pa.string(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field("error", pa.string()),
        pa.field("mpp", pa.float64()),
        pa.field("mpp_source", pa.string()),
        pa.field("width_px", pa.int64()),
        pa.field("height_px", pa.int64()),
        pa.field("bounds_x_px", pa.int64()),
        pa.field("bounds_y_px", pa.int64()),
        pa.field("tissue_mm2", pa.float64()),
        pa.field("tissue_png", pa.binary()),
        pa.field("cores", pa.list_(RECT)),
    ]
)
"""One row per slide: what opening it told, its tissue, and the core rectangles that tile the tissue."""

REGIONS: Final = pa.schema(
    [
        pa.field("region_id", pa.string(), nullable=False),
        pa.field("slide_id", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("x_px", pa.int64(), nullable=False),
        pa.field("y_px", pa.int64(), nullable=False),
        pa.field("width_px", pa.int64(), nullable=False),
        pa.field("height_px", pa.int64(), nullable=False),
        pa.field("halo_px", pa.int64(), nullable=False),
        pa.field("mpp", pa.float64(), nullable=False),
    ]
)
"""One row per region: its core and halo in level-0 px, and the slide's µm/px. `uri` is stripped of credentials."""

CANDIDATE: Final = pa.struct(
    [
        ("x_px", pa.float64()),
        ("y_px", pa.float64()),
        ("detector_score", pa.float32()),
        ("classifier_score", pa.float32()),
        ("score", pa.float32()),
        ("atypical_probability", pa.float32()),
        ("member_scores", pa.list_(pa.float32())),
    ]
)

SCORES: Final = pa.schema(
    [
        pa.field("region_id", pa.string(), nullable=False),
        pa.field("slide_id", pa.string(), nullable=False),
        pa.field("x_px", pa.int64(), nullable=False),
        pa.field("y_px", pa.int64(), nullable=False),
        pa.field("width_px", pa.int64(), nullable=False),
        pa.field("height_px", pa.int64(), nullable=False),
        pa.field("status", pa.string(), nullable=False),
        pa.field("error", pa.string()),
        pa.field("candidates", pa.list_(CANDIDATE)),
    ]
)
"""Exactly one row per region, since Ray Data's checkpoint goes by rows. `status` is scored or failed."""

DETECTIONS: Final = pa.schema([pa.field("slide_id", pa.string(), nullable=False), *CANDIDATE])
"""One row per detection, best score first. A single-stage run leaves what a classifier would say null.

`member_scores`: each classifier's own, in the order of the ensemble. `classifier_score`: their weighted mean.
`atypical_probability`: null where no classifier tells subtypes. With a low `candidate_threshold` this is the cache in
which weights and thresholds are searched.
"""

SLIDES: Final = pa.schema(
    [
        pa.field("slide_id", pa.string(), nullable=False),
        pa.field("case_id", pa.string()),
        pa.field("domain", pa.string()),
        pa.field("uri", pa.string()),
        pa.field("status", pa.string(), nullable=False),
        pa.field("error", pa.string()),
        pa.field("mpp", pa.float64()),
        pa.field("mpp_source", pa.string()),
        pa.field("tissue_mm2", pa.float64()),
        pa.field("unscored_mm2", pa.float64()),
        pa.field("n_regions", pa.int64()),
        pa.field("n_failed_regions", pa.int64()),
        pa.field("threshold", pa.float64()),
        pa.field("n_detections", pa.int64()),
        pa.field("mitotic_count", pa.int64()),
        pa.field("hotspot_x_px", pa.float64()),
        pa.field("hotspot_y_px", pa.float64()),
        pa.field("hotspot_area_mm2", pa.float64()),
        pa.field("hotspot_tissue_share", pa.float64()),
        pa.field("count_low", pa.int64()),
        pa.field("count_high", pa.int64()),
        pa.field("sampling_low", pa.float64()),
        pa.field("sampling_high", pa.float64()),
        pa.field("mitotic_count_10hpf", pa.int64()),
        pa.field("hotspot_10hpf_x_px", pa.float64()),
        pa.field("hotspot_10hpf_y_px", pa.float64()),
        pa.field("n_atypical", pa.int64()),
        pa.field("n_normal", pa.int64()),
        pa.field("atypical_ratio", pa.float64()),
        pa.field("hotspot_n_atypical", pa.int64()),
        pa.field("hotspot_n_normal", pa.int64()),
        pa.field("hotspot_atypical_ratio", pa.float64()),
        pa.field("note", pa.string()),
        pa.field("detections_file", pa.string()),
        pa.field("geojson_file", pa.string()),
    ]
)
"""One row per manifest row. `status`: scored, partial (some tissue unscored, see `unscored_mm2`), or failed.

`mitotic_count` is that of the densest 2 mm² circle, `mitotic_count_10hpf` of the densest 2.37 mm² rectangle of 4:3;
the hotspot's x and y are its centre. Both counts are null where tissue is asked of a field and none holds enough, which
`note` says; `hotspot_tissue_share` is that of the circle, where asked for. File names are relative to the run's folder.

Two intervals of `mitotic_count`, 90 % each, say different things. `count_low` to `count_high`: how many candidates of
the hotspot are figures, given calibrated scores; null where the deciding model is not calibrated, or there is no
hotspot. It knows only of candidates that were kept, those from `candidate_threshold` on, or else from the threshold, so
that without the former it reaches no higher than the count. `sampling_low` to `sampling_high`: the mean count of which
one such field may hold so many by chance.

`n_atypical` and `n_normal`: figures that count and whose subtype is clear (above 0.9), on the slide and in the hotspot.
Their ratio is null without normal ones, and all are null where nothing told subtypes, or there are no figures.
"""


def conformed(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """A table of an earlier version in the present columns: those that it lacks are null, others are left out."""
    columns = [
        table[field.name].cast(field.type) if field.name in table.column_names else pa.nulls(len(table), field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)
