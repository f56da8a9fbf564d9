"""Detectors that are Python code of the user's own: a module on the path, named on the command line.

A plug-in is a callable that takes a torch device and gives a `Detector`. The module `my_lab/detectors.py` may hold:

    class Darkest:
        mpp, halo_um = 0.25, 16.0

        def __init__(self, device):
            self.device = device

        def detect(self, images, threshold):
            cells = 1 - torch.nn.functional.avg_pool2d(images.to(self.device) / 255.0, 25).mean(1)
            places = [(cell >= threshold).nonzero() for cell in cells]
            xy_px = [place.flip(1).cpu().numpy().astype(np.float32) * 25 + 12 for place in places]
            return [suppress(xy, c[tuple(p.T)].cpu().numpy(), 25) for xy, c, p in zip(xy_px, cells, places)]

It is used as `--model python:my_lab.detectors:Darkest`, or with another threshold as
`--model "python:my_lab.detectors:Darkest?threshold=0.4"`. Attributes of the callable that may be there: `name`,
`threshold` (0.5 where none is given), `thresholds` (by domain). It must also run on the CPU: there it is tried out.

Only a person's own command names code: a bundle cannot, wherever it comes from.
"""

import hashlib
import importlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any, Final
from urllib.parse import parse_qsl

import numpy as np
import torch

from mitoray.errors import BadModel, MitorayError
from mitoray.models.detector import Detector, Points
from mitoray.models.placement import placed

SCHEME: Final = "python:"

DEFAULT_THRESHOLD: Final = 0.5

_ADDRESS: Final = re.compile(r"python:(?P<module>\w+(?:\.\w+)*):(?P<attribute>\w+(?:\.\w+)*)(?:\?(?P<query>.*))?")
_NAME: Final = re.compile(r"[\w.-]+")
_TRIAL_PX: Final = 64


@dataclass(frozen=True)
class Plugin:
    """A plug-in with the face of a bundle: see `Model`."""

    name: str
    threshold: float
    thresholds: Mapping[str, float]
    digest: str
    uri: str
    build: Callable[[torch.device], Detector] = field(repr=False)

    def detector(self, device: str = "cpu", threads: int | None = None) -> Detector:
        """Tried out on a blank image before it is given: see `Model.detector`. Raises BadModel, BadOption."""
        place = placed(device, threads)
        return self._on_cpu if place.type == "cpu" else self._tried(place)

    @property
    def mpp(self) -> float:
        """µm per pixel of its images, as its detector says."""
        return self._on_cpu.mpp

    @cached_property
    def _on_cpu(self) -> Detector:
        return self._tried(torch.device("cpu"))

    def _tried(self, device: torch.device) -> Detector:
        where = f"model {self.uri} on {device}"
        try:
            detector = self.build(device)
        except MitorayError:
            raise
        except Exception as error:
            raise BadModel(f"{where}: cannot be built ({_told(error)}); correct the plug-in") from error
        _check_face(detector, where)
        blank = torch.full((1, 3, _TRIAL_PX, _TRIAL_PX), 255, dtype=torch.uint8)
        try:
            found = detector.detect(blank, self.threshold)
        except Exception as error:
            raise BadModel(f"{where}: fails on a blank image ({_told(error)}); correct the plug-in") from error
        _check_points(found, where)
        return detector


def load_plugin(uri: str, expected_digest: str | None = None) -> Plugin:
    """Import a plug-in, build its detector on the CPU, and try it on a blank image.

    uri: "python:package.module:attribute", then "?threshold=0.4" to take the place of the plug-in's own.

    The digest is the sha256 over the URI, the version of the distribution that the module came in, if any, and the
    bytes of the module's file. Weights or modules that the plug-in reads besides are not in it: give those a new
    file, or the distribution a new version, when they change.

    Raises BadModel where the plug-in is missing, no detector, or has another digest than `expected_digest`.
    """
    where = f"model {uri}"
    module_name, attribute, given = _parsed(uri)
    module = _imported(module_name, where)
    build: Any = module
    for name in attribute.split("."):
        if not hasattr(build, name):
            raise BadModel(f"{where}: module {module_name} has no {attribute}; correct the name after the second colon")
        build = getattr(build, name)
    if not callable(build):
        raise BadModel(f"{where}: {attribute} is {type(build).__name__}, not callable; name what builds a detector")
    thresholds = getattr(build, "thresholds", {})
    if not isinstance(thresholds, Mapping):
        raise BadModel(f"{where}: its thresholds are {type(thresholds).__name__}; give a dict of domain to score")
    name = getattr(build, "name", f"{module_name}.{attribute}")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise BadModel(f"{where}: its name {name!r} must be of letters, digits and . - _")
    threshold = getattr(build, "threshold", DEFAULT_THRESHOLD) if given is None else given
    plugin = Plugin(
        name=name,
        threshold=_score(threshold, where),
        thresholds={str(domain): _score(value, where) for domain, value in thresholds.items()},
        digest=_digest(uri, module, where),
        uri=uri,
        build=build,
    )
    if expected_digest is not None and plugin.digest != expected_digest:
        raise BadModel(
            f"{where}: digest {plugin.digest} is not the expected {expected_digest}; the module, or the version of its "
            "package, is another here: install the same on every machine, or give the new digest if it was on purpose"
        )
    plugin.detector()
    return plugin


def _parsed(uri: str) -> tuple[str, str, str | None]:
    """Module, attribute, and the threshold if there is one."""
    parts = _ADDRESS.fullmatch(uri)
    if not parts:
        raise BadModel(f"model {uri}: is no plug-in's address; write python:package.module:attribute")
    query = dict(parse_qsl(parts["query"] or "", keep_blank_values=True))
    unknown = sorted(query.keys() - {"threshold"})
    if unknown or (parts["query"] is not None and not query):
        raise BadModel(f"model {uri}: {', '.join(unknown) or 'what follows ?'} is no option; write ?threshold=0.4")
    return parts["module"], parts["attribute"], query.get("threshold")


def _imported(name: str, where: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except Exception as error:  # a module may raise anything while it is read
        if isinstance(error, ModuleNotFoundError) and error.name and f"{name}.".startswith(f"{error.name}."):
            raise BadModel(
                f"{where}: there is no module {error.name} here; install it, or put its folder on PYTHONPATH, on every "
                "machine that scores: ray job submit --working-dir FOLDER copies it to all workers"
            ) from error
        raise BadModel(f"{where}: module {name} cannot be imported ({_told(error)}); correct it") from error


def _score(value: Any, where: str) -> float:
    try:
        score = float(value)
    except (TypeError, ValueError):
        score = float("nan")
    if not 0 <= score <= 1:
        raise BadModel(f"{where}: threshold {value!r} is no number from 0 to 1")
    return score


def _digest(uri: str, module: ModuleType, where: str) -> str:
    file = getattr(module, "__file__", None)
    if file is None:
        raise BadModel(f"{where}: {module.__name__} has no file; name the module that holds the detector")
    parts = (uri.encode(), _version(module.__name__, Path(file)).encode(), Path(file).read_bytes())
    return hashlib.sha256(b"".join(len(part).to_bytes(8, "big") + part for part in parts)).hexdigest()


def _version(module: str, file: Path) -> str:
    """Name and version of the distribution that was installed beside the module and lists it; "" for none."""
    package, *below = module.split(".")
    folder = file.parents[len(below) + (file.stem == "__init__")]
    found = [
        f"{distribution.metadata['Name']} {distribution.version}"
        for distribution in metadata.distributions(path=[str(folder)])
        if re.search(rf"^{package}(/|\.py,)", distribution.read_text("RECORD") or "", re.MULTILINE)
    ]
    return ", ".join(sorted(found))


def _check_face(detector: Any, where: str) -> None:
    missing = [name for name in ("mpp", "halo_um", "device", "detect") if not hasattr(detector, name)]
    if missing:
        raise BadModel(f"{where}: gives {type(detector).__name__} without {', '.join(missing)}: no Detector")
    for name, low, high in (("mpp", 0.1, 2), ("halo_um", 0, 1000)):
        value = getattr(detector, name)
        if not isinstance(value, int | float) or not low <= value <= high:
            raise BadModel(f"{where}: its {name} {value!r} is no number from {low} to {high}")
    if not isinstance(detector.device, torch.device) or not callable(detector.detect):
        raise BadModel(f"{where}: its device must be a torch.device and its detect callable: no Detector")


def _check_points(found: Any, where: str) -> None:
    remedy = "its detect must give a list of Points, one for each image"
    if not isinstance(found, list) or [type(points) for points in found] != [Points]:
        raise BadModel(f"{where}: gives {type(found).__name__} for a blank image; {remedy}")
    (points,) = found
    if np.shape(points.scores) != (len(points.scores),) or np.shape(points.xy_px) != (len(points.scores), 2):
        raise BadModel(f"{where}: gives points of shape {np.shape(points.xy_px)} for a blank image; {remedy}")


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip()[:200]}"
