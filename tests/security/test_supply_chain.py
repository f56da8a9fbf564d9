"""What mitoray depends on: bounded, audited without a network, listed; its own code looked through."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def audit():
    spec = importlib.util.spec_from_file_location("audit", ROOT / "infra/audit.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_audit_finds_nothing_and_writes_what_the_image_holds(tmp_path):
    sbom = tmp_path / "sbom.json"
    command = [sys.executable, "infra/audit.py", "--sbom", str(sbom)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "0 findings" in done.stdout
    written = json.loads(sbom.read_text())
    assert written["bomFormat"] == "CycloneDX"
    listed = {(one["name"], one["version"]) for one in written["components"]}
    pins = map(Requirement, (ROOT / "infra/docker/constraints.txt").read_text().splitlines())
    assert {(pin.name, next(iter(pin.specifier)).version) for pin in pins} == listed
    assert written["metadata"]["component"]["name"] == "mitoray"


def test_the_audit_would_find_versions_without_a_bound_and_known_bad_ones(audit):
    assert audit.unbounded(["numpy>=2", "scipy", "torch==2.1"]) == [
        "scipy has no lower bound",
        "torch has no lower bound",
    ]
    (found,) = audit.known_bad(["Jinja2==3.1.2", "tqdm==4.67"], audit.lines(ROOT / "infra/advisories.txt"))
    assert found == "jinja2 3.1.2 is pinned, and jinja2<3.1.6 are known to be bad"


def test_bandit_finds_nothing():
    command = ["bandit", "-q", "-c", "pyproject.toml", "-r", "mitoray", "jobs", "infra"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_bandit_would_find_a_pickle(tmp_path):
    (tmp_path / "a.py").write_text("import pickle\npickle.loads(open('a').read())\n")
    command = ["bandit", "-q", "-c", "pyproject.toml", "-r", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "B301" in done.stdout
