"""What the tests of survival share: one simulated cohort on disk, and the benchmarks' functions."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from mitoray.survival.simulated import Effect, simulate_patients, write_simulated_cohort

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="session")
def simulated_folder(tmp_path_factory):
    """slides.csv and clinical.csv of 500 invented patients, hazard ratio 3 at 11."""
    folder = tmp_path_factory.mktemp("simulated")
    write_simulated_cohort(folder, 500, Effect(hazard_ratio=3.0, hazard_per_year=0.04))
    return folder


@pytest.fixture(scope="session")
def patients():
    """300 invented patients with tied counts, about half of them with the event."""
    effect = Effect(hazard_ratio=2.0, hazard_per_year=0.12, with_age_and_stage=False)
    return simulate_patients(300, effect, np.random.default_rng(4))


@pytest.fixture(scope="session")
def benchmark_of():
    """A benchmark as a module, by its name."""

    def load(name):
        spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
        return module

    return load
