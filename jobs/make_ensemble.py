"""Make one bundle, an ensemble, of several classifiers' bundles.

    python jobs/make_ensemble.py --members models/a models/b models/c --name three --output models/three
    python jobs/score_cohort.py --classifier models/three --candidate-threshold 0.01 --manifest slides.csv --output run
    python jobs/search_thresholds.py --model models/three --detections run/detections --labels labels.csv \
        --manifest slides.csv --output search

Its weights are equal unless given; search_thresholds finds better ones. Exit status: 0 made, 2 bad arguments or models.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mitoray.commandline import DONE, JobParser, run_job
from mitoray.errors import BadOption, MitorayError
from mitoray.models import load_bundle, save_bundle
from mitoray.models.combination import Combination
from mitoray.models.ensemble import ensemble_of


@dataclass(frozen=True)
class Make:
    """What the ensemble is made of.

    Args:
        name: of the ensemble: letters, digits, and . - _
        output: folder for weights.safetensors and bundle.json.
        members: bundles of single classifiers, as score_cohort takes them; all of one µm/px and patch size.
        weights: of the members, in their order, 0 or more; only their ratios count. None weighs all alike.
        threshold: final score from which a detection counts, 0 to 1, until a search finds a better one.
        storage_options: of the object storage as fsspec takes them, JSON or YAML.
    """

    name: str
    output: Path
    members: list[str] = field(default_factory=list)
    weights: list[float] | None = None
    threshold: float = 0.5
    storage_options: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        if not self.members:
            raise BadOption("Give --members, the classifiers' bundles.")
        if not 0 <= self.threshold <= 1:
            raise BadOption(f"--threshold must lie between 0 and 1, not {self.threshold}.")
        if self.weights is not None and (min(self.weights, default=0) < 0 or not sum(self.weights) > 0):
            raise BadOption(f"--weights must be 0 or more, and one of them above 0, not {self.weights}.")


def main(argv: Sequence[str] | None = None) -> int:
    return run_job(lambda: run(argv), bad_input=(MitorayError,))


def run(argv: Sequence[str] | None) -> int:
    parser = JobParser("make_ensemble", __doc__.partition("\n")[0])
    parser.add_argument("--members", nargs="+", metavar="BUNDLE", help="bundles of the classifiers", default=[])
    parser.add_class_arguments(Make, skip={"members"})
    (given,) = parser.parsed(argv, Make)
    bundles = [load_bundle(uri, given.storage_options) for uri in given.members]
    combination = None if given.weights is None else Combination(weights=tuple(map(float, given.weights)))
    bundle, weights = ensemble_of(bundles, combination, name=given.name, threshold=given.threshold)
    digest = save_bundle(bundle, weights, given.output)
    shown = ", ".join(f"{m.name} {w:g}" for m, w in zip(bundle.members, bundle.combining.weights, strict=True))
    print(f"{given.output}: {bundle.name} of {shown}")
    print(f"sha256 {digest}")
    return DONE


if __name__ == "__main__":
    sys.exit(main())
