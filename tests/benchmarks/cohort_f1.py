"""F1 per domain on a cohort of phantom slides that no training saw, through the whole of score_cohort. Phantoms only.

    python tests/benchmarks/cohort_f1.py --folder /tmp/f1

Prints the exit statuses, then the table of jobs/evaluate.py at the bundle's one threshold.
"""

import argparse
import subprocess
import sys
from pathlib import Path

import ray

from mitoray.models import load_bundle
from mitoray.phantom import draw_slide, plan_cohort
from mitoray.scoring.manifest import slide_id_of

JOBS = Path(__file__).parents[2] / "jobs"

parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
parser.add_argument("--folder", type=Path, required=True, help="for slides and results; slides there are used again")
parser.add_argument("--n-slides", type=int, default=20, help="slides, the domains in turn (default: 20)")
parser.add_argument("--seed", type=int, default=700_000, help="of the first slide (default: 700000)")
parser.add_argument("--side-um", type=float, default=1000, help="side of a slide, µm (default: 1000)")
arguments = parser.parse_args()


@ray.remote
def draw(row: dict, index: int) -> None:
    import pyarrow.parquet as pq

    labels = Path(row["uri"]).with_suffix(".labels.parquet")
    if not labels.exists():
        side_px = round(arguments.side_um / row["mpp"])
        pq.write_table(draw_slide(row, seed=arguments.seed + index, width_px=side_px, height_px=side_px), labels)


if __name__ == "__main__":
    import pyarrow as pa
    import pyarrow.csv as pacsv
    import pyarrow.parquet as pq

    slides = arguments.folder / "slides"
    slides.mkdir(parents=True, exist_ok=True)
    manifest = plan_cohort(slides.resolve(), n_slides=arguments.n_slides, seed=arguments.seed)
    ray.init("local", include_dashboard=False)
    ray.get([draw.remote(row, index) for index, row in enumerate(manifest.to_pylist())])
    ray.shutdown()
    pacsv.write_csv(manifest, arguments.folder / "manifest.csv")
    labels = pa.concat_tables(pq.read_table(path) for path in sorted(slides.glob("*.labels.parquet")))
    assert set(labels["slide_id"].to_pylist()) <= {slide_id_of(uri) for uri in manifest["uri"].to_pylist()}
    pq.write_table(labels, arguments.folder / "labels.parquet")

    run = arguments.folder / "run"
    score = ["--manifest", str(arguments.folder / "manifest.csv"), "--output", str(run)]
    print("score_cohort:", subprocess.run([sys.executable, JOBS / "score_cohort.py", *score], check=False).returncode)
    evaluate = [
        *("--detections", run / "detections", "--labels", arguments.folder / "labels.parquet"),
        *("--manifest", run / "slides/slides.parquet", "--output", arguments.folder / "report"),
        # The cohort counts what reaches the threshold, this job what lies above its own.
        *("--threshold", str(load_bundle("mitoray-s").threshold - 1e-6)),
    ]
    command = [sys.executable, JOBS / "evaluate.py", *evaluate]
    print("evaluate:", subprocess.run([str(word) for word in command], check=False).returncode)
