"""How well classifiers tell atypical from normal figures on real crops, with intervals over slides.

python tests/benchmarks/atypical_quality.py --data-dir data --models mitoray-c run/bundle

The crops, AMi-Br of MIDOG 2021, are for evaluation only: human breast, three scanners, none trained on.
"""

import argparse
from pathlib import Path

from mitoray.models import load_bundle
from mitoray.training.mitoray_c import judged_on_crops

parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
parser.add_argument("--data-dir", type=Path, required=True, help="folder with crops/")
parser.add_argument("--models", nargs="+", required=True, help="bundles with a subtype head")
parser.add_argument("--repeats", type=int, default=1000, help="bootstrap draws of slides")
arguments = parser.parse_args()

for uri in arguments.models:
    bundle = load_bundle(uri)
    print(f"{bundle.name}, real crops:")
    for name, found in judged_on_crops(bundle.classifier(), arguments.data_dir, arguments.repeats).items():
        by_scanner = ", ".join(f"{scanner} {value:.3f}" for scanner, value in found.by_group.items())
        print(f"  {name}: {found.value:.3f} (95 % {found.low:.3f} to {found.high:.3f}); {by_scanner}")
