"""What scoring needs of a model, be it a bundle or a plug-in."""

from collections.abc import Mapping
from typing import Any, Protocol

from mitoray.models.detector import Detector
from mitoray.models.plugin import SCHEME, load_plugin
from mitoray.models.sources import load_bundle


class Model(Protocol):
    """A detector that can be had on any device, and what is known of it."""

    @property
    def name(self) -> str:
        """What the run's record calls it."""
        ...

    @property
    def mpp(self) -> float:
        """µm per pixel of its images."""
        ...

    @property
    def threshold(self) -> float:
        """Score from which a detection counts."""
        ...

    @property
    def thresholds(self) -> Mapping[str, float]:
        """The same by domain."""
        ...

    @property
    def digest(self) -> str:
        """sha256, hex, of everything that its answers follow from: equal digests, equal answers."""
        ...

    def detector(self, device: str = "cpu", threads: int | None = None) -> Detector:
        """The model, ready to detect, on a torch device ("cpu", "cuda", "cuda:1").

        threads: CPU threads, for the whole process; None leaves it. Raises BadOption for a device that is not there.
        """
        ...


def load_model(
    uri: str,
    storage_options: Mapping[str, Any] | None = None,
    expected_digest: str | None = None,
    registry: str | None = None,
) -> Model:
    """A bundle, from where `load_bundle` takes them, or a plug-in, "python:package.module:attribute": see `plugin`.

    For URIs that a person gave. What reads a URI from a file takes `load_bundle`, which runs no code of others.
    Raises BadModel, BadOption.
    """
    if uri.startswith(SCHEME):
        return load_plugin(uri, expected_digest)
    return load_bundle(uri, storage_options, expected_digest, registry)
