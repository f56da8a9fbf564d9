"""The MLflow side: runs and what is recorded of them, bundles into the model registry and out of it.

The only room that imports mlflow, and only inside functions, since that takes seconds.
"""

from mitoray.tracking.registry import download_bundle, register_bundle, set_alias, version_of
from mitoray.tracking.runs import RunRef, TrackedRun, record_run
from mitoray.tracking.store import DEFAULT_URI, prepare

__all__ = [
    "DEFAULT_URI",
    "RunRef",
    "TrackedRun",
    "download_bundle",
    "prepare",
    "record_run",
    "register_bundle",
    "set_alias",
    "version_of",
]
