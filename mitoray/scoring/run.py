"""A run's folder: whose it is, what of it is done, and its record."""

import platform
import subprocess
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

import mitoray
from mitoray.errors import OutputBelongsToAnotherRun
from mitoray.models import Bundle, Model, load_bundle, load_model
from mitoray.models.bundle import CARD_FILE, WEIGHTS_FILE
from mitoray.models.sources import REGISTERED, bundle_files
from mitoray.scoring.config import Cohort, Identity
from mitoray.scoring.manifest import manifest_digest
from mitoray.scoring.results import SLIDES_TABLE
from mitoray.scoring.schema import SLIDES, conformed
from mitoray.scoring.stages import Levels, check_stages, second_halo_um
from mitoray.scoring.work import Work
from mitoray.slide import redact
from mitoray.storage import Folder

RECORD: Final = "run.json"
ATTEMPTS: Final = "work/attempts"
MODELS: Final = "work/models"

_TOTALS: Final = ("n_regions", "n_failed_regions", "n_detections", "tissue_mm2", "unscored_mm2")


class Run:
    """One run configuration in its folder. Each start of the job on it is an attempt, numbered from 1."""

    def __init__(
        self,
        cohort: Cohort,
        bundle: Model,
        classifier: Bundle | None,
        folder: Folder,
        identity: Identity,
        previous: Mapping[str, Any] | None,
        registry: str | None = None,
    ) -> None:
        self.cohort = cohort
        self.bundle = bundle
        self.classifier = classifier
        self.folder = folder
        self.work = Work(folder)
        self.identity = identity
        self.attempt = len(folder.names(ATTEMPTS, ".json")) + 1
        self._previous = previous
        self._registry = registry
        self._started = datetime.now(UTC).isoformat(timespec="seconds")

    @classmethod
    def claim(cls, cohort: Cohort, registry: str | None = None) -> "Run":
        """Take the cohort's output folder for it, or up again where an attempt on the same configuration stopped.

        registry: MLflow server or database that models:/ addresses are of; None takes MLFLOW_TRACKING_URI. Starts
        nothing. Raises BadModel, BadOption, OutputUnreachable, and OutputBelongsToAnotherRun, with the settings that
        differ, where the folder holds anything else.
        """
        bundle = load_model(cohort.model, cohort.storage_options, registry=registry)
        classifier = (
            load_bundle(cohort.classifier, cohort.storage_options, registry=registry) if cohort.classifier else None
        )
        check_stages(bundle, classifier, cohort.method)
        folder = Folder.at(cohort.output, cohort.storage_options)
        folder.check()
        identity = Identity(
            model=redact(cohort.model),
            model_digest=bundle.digest,
            manifest_digest=manifest_digest(cohort.rows),
            n_slides=len(cohort.rows),
            method=cohort.method,
            classifier=redact(cohort.classifier) if cohort.classifier else None,
            classifier_digest=classifier.digest if classifier else None,
        )
        try:
            previous = folder.read_json(RECORD)
        except FileNotFoundError:
            if folder.exists("slides") or folder.exists("work"):
                raise OutputBelongsToAnotherRun(
                    f"{folder.shown} holds results without a {RECORD}. Choose another --output, or remove the folder."
                ) from None
            return cls(cohort, bundle, classifier, folder, identity, None, registry)
        difference = identity.difference(previous["identity"])
        if difference:
            listed = "\n  ".join(difference)
            raise OutputBelongsToAnotherRun(
                f"{folder.shown} holds a run with other settings:\n  {listed}\n"
                "Give back the old settings to resume that run, or choose another --output."
            )
        return cls(cohort, bundle, classifier, folder, identity, previous, registry)

    # ---- the models

    def carried(self) -> Cohort:
        """The cohort with addresses of models that every node can read: of registered ones, copies in this folder.

        Other nodes may know neither the registry nor its credentials, and an alias may move while the run goes on.
        """
        model = self._carried(self.cohort.model, self.identity.model_digest)
        classifier, digest = self.cohort.classifier, self.identity.classifier_digest
        if classifier and digest:
            classifier = self._carried(classifier, digest)
        return replace(self.cohort, model=model, classifier=classifier)

    def _carried(self, uri: str, digest: str) -> str:
        if not uri.startswith(REGISTERED):
            return uri
        name = f"{MODELS}/{digest}"
        files = bundle_files(uri, self.cohort.storage_options, digest, self._registry)
        for file, content in zip((WEIGHTS_FILE, CARD_FILE), files, strict=True):
            self.folder.write_bytes(f"{name}/{file}", content)
        return f"{self.folder.uri}/{name}"

    @property
    def deciding(self) -> Model:
        """The model whose thresholds say what counts: the classifier where there is one."""
        return self.classifier or self.bundle

    @property
    def calibrated(self) -> bool:
        """Whether scores are probabilities: the classifier's bundle holds a calibration. A detector has none."""
        return self.classifier is not None and self.classifier.combining.calibration is not None

    @property
    def levels(self) -> Levels:
        """The scores that the detector's points and the candidates must reach."""
        return Levels.of(self.cohort.method, self.bundle, self.classifier)

    def halo_um(self) -> float:
        """Context that regions need around their cores, µm."""
        second = second_halo_um(self.classifier) if self.classifier else 0.0
        return max(self.bundle.detector().halo_um, second)

    # ---- the record

    @property
    def status(self) -> str:
        """What the last attempt left: new, running (it was killed), stopped, incomplete (slides failed), complete."""
        return self._previous["status"] if self._previous else "new"

    def write_record(self, status: str, **parts: Any) -> None:
        """Write `run.json`."""
        record = {
            "status": status,
            "started": self._previous["started"] if self._previous else self._started,
            "updated": datetime.now(UTC).isoformat(timespec="seconds"),
            "attempts": self.attempt,
            "identity": self.identity.record(),
            "code": code_version(),
            "model": {"name": self.bundle.name, "mpp": self.bundle.mpp},
            **parts,
        }
        if self.classifier:
            record["classifier"] = {
                "name": self.classifier.name,
                "mpp": self.classifier.mpp,
                "uri": self.identity.classifier,
                "digest": self.identity.classifier_digest,
                "members": [member.name for member in self.classifier.members],
            }
        self.folder.write_json(RECORD, record)

    def finish(self, slides: pa.Table, **parts: Any) -> None:
        """Write the final record: counts, and the actors' seconds by stage summed over all attempts."""
        statuses = Counter(slides["status"].to_pylist())
        totals = {name: pc.sum(slides[name]).as_py() or 0 for name in _TOTALS}
        seconds: Counter[str] = Counter()
        for name in self.folder.names(ATTEMPTS, ".json"):
            seconds.update(self.folder.read_json(name)["seconds"])
        self.write_record(
            "complete" if set(statuses) <= {"scored"} else "incomplete",
            counts={"slides": dict(statuses), **totals},
            actor_seconds={stage: round(value, 2) for stage, value in sorted(seconds.items())},
            **parts,
        )

    def write_attempt(self, tallied: Mapping[str, Any]) -> None:
        """Keep what this attempt has done so far; one that is killed leaves its last writing."""
        self.folder.write_json(f"{ATTEMPTS}/{self.attempt:04d}.json", {"started": self._started, **tallied})

    def slides(self) -> pa.Table:
        """The SLIDES table of a run that went to its end."""
        return conformed(self.folder.read_table(SLIDES_TABLE), SLIDES)


def code_version() -> dict[str, str | None]:
    """Versions of mitoray (with its git commit where it runs from a checkout), Python and what decides the numbers."""
    packages = ("torch", "ray", "tiffslide", "imagecodecs", "numpy")
    return {
        "mitoray": mitoray.__version__,
        "git_commit": _git_commit(),
        "python": platform.python_version(),
        **{package: version(package) for package in packages},
    }


def _git_commit() -> str | None:
    # The last commit to this package: empty where it is installed and not checked out, even inside another checkout.
    package = str(Path(mitoray.__file__).parent)
    command = ["git", "-C", package, "log", "-1", "--format=%H", "--", package]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() or None
