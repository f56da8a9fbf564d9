"""What decides a run's results, and what only decides how fast they come."""

import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Literal, get_args

from mitoray.errors import BadOption
from mitoray.scoring.manifest import ManifestRow
from mitoray.scoring.readers import Place, Reader, place_of_reading
from mitoray.slide import redact

GeojsonShape = Literal["points", "circles"]

MOST_READ_THREADS: Final = 16
MOST_PER_GPU: Final = 8
"""Processes that share a GPU. One alone decodes no more than three cores' worth, however many threads it has: for each
tile they wait for each other's turn at the interpreter. On an H200 beside 16 CPUs, JPEG phantoms took 36 ms/mm² with
one, 8.1 with 4, 7.0 with 8, 5.7 with 16."""
LIGHT_CPUS: Final = 0.1
"""What tasks reserve that only wait, or read and write small tables."""


@dataclass(frozen=True)
class Method:
    """Settings that change results. An output folder belongs to one Method, one model and one manifest.

    Args:
        threshold: score from which a detection counts, 0 to 1; None takes that of the model, or of the classifier where
            one is given, by domain if it has one.
        candidate_threshold: lowest score written to `detections/`, for later threshold searches; None: the threshold.
            With a classifier, this and the threshold are of the final score.
        detector_threshold: detector score from which a candidate is classified, 0 to 1; None takes the classifier's own
            candidate_threshold, or 0.1.
        subtypes: require atypical_probability: a classifier without a subtype head is refused.
        region_um: largest side of a region's core, µm; 2,048 µm are 4,096 px of a model at 0.5 µm/px. Along the
            tissue's outline regions are smaller. Larger ones overlap less, and take more memory.
        reduced_decode: let JPEG and JPEG2000 give tiles at a half, a quarter or an eighth of their side where the model
            looks at no more and no level of the slide is that coarse: faster, and as good (README); else tiles are
            decoded whole, and averaged.
        nms_radius_um: of detections closer than this only the best stays, µm. 6.25 µm are 25 px at 0.25 µm/px
            (Aubreville 2020). Mitoray's own detectors keep points 9 µm apart by themselves.
        hotspot_mm2: area of the circular field of view, mm² (Fick 2024).
        hotspot_hpf_mm2: area of the 4:3 rectangular field of view, mm²; 2.37 mm² are 10 HPF (Aubreville 2020).
        hotspot_tissue_share: least share of either field that is tissue, 0 to 1; centres are then those of the tissue
            mask's px. 0 takes the densest field wherever it lies.
    """

    threshold: float | None = None
    candidate_threshold: float | None = None
    detector_threshold: float | None = None
    subtypes: bool = False
    region_um: float = 2048.0
    reduced_decode: bool = True
    nms_radius_um: float = 6.25
    hotspot_mm2: float = 2.0
    hotspot_hpf_mm2: float = 2.37
    hotspot_tissue_share: float = 0.0

    def __post_init__(self) -> None:
        for name in ("threshold", "candidate_threshold", "detector_threshold"):
            value = getattr(self, name)
            if value is not None and not 0 < value < 1:
                raise BadOption(f"{name} must lie between 0 and 1, not {value}.")
        if self.threshold and self.candidate_threshold and self.candidate_threshold > self.threshold:
            raise BadOption(
                f"candidate_threshold ({self.candidate_threshold}) must not be above threshold ({self.threshold})."
            )
        for name, low, high in (
            ("region_um", 64, 4096),
            ("nms_radius_um", 1, 25),
            ("hotspot_mm2", 0.01, 100),
            ("hotspot_hpf_mm2", 0.01, 100),
            ("hotspot_tissue_share", 0, 1),
        ):
            if not low <= getattr(self, name) <= high:
                raise BadOption(f"{name} must lie between {low} and {high}, not {getattr(self, name)}.")

    def threshold_for(self, domain: str | None, default: float, by_domain: Mapping[str, float]) -> float:
        """The score from which detections count in a domain; `default` and `by_domain`: of the model that decides."""
        if self.threshold is not None:
            return self.threshold
        return by_domain.get(domain, default) if domain else default

    def lowest_threshold(self, default: float, by_domain: Mapping[str, float]) -> float:
        """The score from which candidates are kept at all; `default` and `by_domain`: of the model that decides."""
        counting = [default, *by_domain.values()] if self.threshold is None else [self.threshold]
        return min(counting) if self.candidate_threshold is None else min(self.candidate_threshold, *counting)


@dataclass(frozen=True)
class Resources:
    """Settings that change speed only.

    Args:
        num_actors: processes that hold the model; None takes as many as `num_gpus` allows, or else one per CPU.
        num_gpus: GPUs per actor, fractions allowed: a quarter lets four actors share one. None takes 0 without GPUs,
            else what lets an actor for every two CPUs share a GPU, at most 8: one alone cannot decode fast enough for
            it. Take 1 for models so large that a GPU holds one.
        cpus_per_actor: threads of the network in each actor; None takes 1 on CPU, up to 4 beside a GPU.
        read_threads: threads per actor that fetch regions ahead of the network, and decode them, 50 MB each at
            0.5 µm/px; a single one on a CPU only fetches, since decoding would take the network's core. None takes 1 on
            CPU, and beside a GPU its share of the CPUs, up to 16.
        reader: where compressed tiles are fetched: inline, in the actor that scores them; staged, in CPU tasks of their
            own, which pays where GPU nodes are short of CPUs and others have them; auto decides by the cluster's nodes,
            and says why. Decoded pixels never leave the actor.
        tile_cache_mb: decoded tiles kept per open slide, MB, so that neighbouring regions decode shared tiles once.
        region_timeout_s: a region that takes longer fails, and with it its slide in part; storage that does not answer
            is given up long before.
    """

    num_actors: int | None = None
    num_gpus: float | None = None
    cpus_per_actor: int | None = None
    read_threads: int | None = None
    reader: Reader = "auto"
    tile_cache_mb: int = 128
    region_timeout_s: float = 900.0

    def __post_init__(self) -> None:
        for name in ("num_actors", "cpus_per_actor", "read_threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise BadOption(f"{name} must be at least 1, not {value}.")
        if self.num_gpus is not None and self.num_gpus < 0:
            raise BadOption(f"num_gpus must not be negative, not {self.num_gpus}.")
        if not self.region_timeout_s > 0:
            raise BadOption(f"region_timeout_s must be above 0, not {self.region_timeout_s}.")
        if self.tile_cache_mb < 0:
            raise BadOption(f"tile_cache_mb must not be negative, not {self.tile_cache_mb}.")

    def placed(self, nodes: Sequence[tuple[float, float]]) -> "Placement":
        """What each actor asks for on a cluster. nodes: CPUs and GPUs of each node."""
        cpus, gpus = sum(node_cpus for node_cpus, _ in nodes), sum(node_gpus for _, node_gpus in nodes)
        reader, why = place_of_reading(self.reader, nodes)
        per_gpu = max(1, int(cpus / max(gpus, 1)))
        num_gpus = self.num_gpus
        if num_gpus is None:
            num_gpus = 1 / max(1, min(MOST_PER_GPU, per_gpu // 2)) if gpus else 0.0
        threads = self.cpus_per_actor or (min(4, per_gpu) if num_gpus else 1)
        num_actors = self.num_actors or max(1, int(gpus / num_gpus if num_gpus else cpus / threads))
        read_threads = self.read_threads or (min(MOST_READ_THREADS, max(1, int(cpus / num_actors))) if num_gpus else 1)
        # The threads may use every core, but the reservation leaves room for what runs around the actors: Ray Data's
        # repartitioning and its checkpoint's filter ask for a whole CPU each, one after the other, light tasks for a
        # little. Without it a small cluster would wait for itself forever.
        around = 1.0 + 2 * LIGHT_CPUS + (num_actors * LIGHT_CPUS if reader == "staged" else 0.0)
        share = min(1.0, (cpus - around) / (num_actors * threads))
        num_cpus = max(0.1, round(threads * share, 2))
        return Placement(num_actors, num_gpus, threads, num_cpus, read_threads, reader, why)


@dataclass(frozen=True)
class Files:
    """Settings that change the form of files only. Those of slides already counted are written anew when a run resumes.

    Args:
        geojson_shape: figures in the GeoJSON files as points, or as circles of 6.25 µm radius, whose size tells the
            scale; the files are twice as large.
        geojson_figures: most figures in one GeoJSON file; the rest follow in geojson/<slide>.parts/.
    """

    geojson_shape: GeojsonShape = "points"
    geojson_figures: int = 50_000

    def __post_init__(self) -> None:
        if self.geojson_shape not in get_args(GeojsonShape):
            raise BadOption(f"geojson_shape must be points or circles, not {self.geojson_shape!r}.")
        if self.geojson_figures < 1:
            raise BadOption(f"geojson_figures must be at least 1, not {self.geojson_figures}.")


@dataclass(frozen=True)
class Placement:
    """Scoring actors as placed on a cluster: `num_cpus` is what each reserves, `threads` what its network uses.

    `reader`: where tiles are fetched, and `why` there.
    """

    num_actors: int
    num_gpus: float
    threads: int
    num_cpus: float
    read_threads: int
    reader: Place
    why: str


@dataclass(frozen=True)
class Cohort:
    """What to score, with which model, classifier of its candidates and method, where to, and as what files."""

    rows: Sequence[ManifestRow]
    model: str
    output: str
    method: Method = field(default_factory=Method)
    storage_options: Mapping[str, Any] | None = field(default=None, repr=False)
    classifier: str | None = None
    files: Files = field(default_factory=Files)

    @property
    def name(self) -> str:
        """What metrics and logs call the cohort: the last part of its output."""
        return posixpath.basename(redact(self.output).rstrip("/")) or "cohort"


@dataclass(frozen=True)
class Identity:
    """Everything that a run's results follow from. Equal identities may share an output folder, others may not."""

    model: str
    model_digest: str
    manifest_digest: str
    n_slides: int
    method: Method = field(default_factory=Method)
    classifier: str | None = None
    classifier_digest: str | None = None

    def record(self) -> dict[str, Any]:
        """As `run.json` holds it."""
        return asdict(self)

    def difference(self, recorded: Mapping[str, Any]) -> list[str]:
        """One line for each setting in which a recorded identity differs from this one; empty if they are the same."""
        # Settings younger than the record had their defaults' effect, or that of what they replaced.
        younger = {**asdict(Method()), "reduced_decode": False}
        mine, theirs = _flat(self.record()), {**_flat({"method": younger}), **_flat(recorded)}
        # The models' names may differ for the same weights (an alias, a copy): their digests decide.
        keys = [key for key in dict.fromkeys([*mine, *theirs]) if key not in ("model", "classifier")]
        return [
            f"{key}: was {theirs.get(key, 'not set')}, is {mine.get(key, 'not set')}"
            for key in keys
            if mine.get(key) != theirs.get(key)
        ]


def _flat(record: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in record.items():
        if isinstance(value, Mapping):
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat
