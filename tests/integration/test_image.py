"""The container image: what is pinned fits what pyproject.toml asks for, and what is copied exists."""

import fnmatch
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "infra/docker"
PINS = [Requirement(line) for line in (DOCKER / "constraints.txt").read_text().splitlines()]
IMAGE = default_environment() | {"python_version": "3.11", "python_full_version": "3.11.9", "sys_platform": "linux"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def pinned():
    """What the image installs: version by name."""
    versions = {}
    for pin in PINS:
        if pin.marker is None or pin.marker.evaluate(IMAGE):
            assert canonicalize_name(pin.name) not in versions, f"{pin.name} is pinned twice"
            versions[canonicalize_name(pin.name)] = next(iter(pin.specifier)).version
    return versions


def test_each_constraint_is_one_exact_version_without_a_host():
    for line, pin in zip((DOCKER / "constraints.txt").read_text().splitlines(), PINS, strict=True):
        assert re.fullmatch(r"[a-z0-9-]+==[\w.+]+( ; .+)?", line), line
        assert pin.url is None
        assert [part.operator for part in pin.specifier] == ["=="]


def test_the_constraints_satisfy_the_lower_bounds_of_the_project():
    versions = pinned()
    extras = PROJECT["optional-dependencies"]
    wanted = [*PROJECT["dependencies"], *extras["onnx"], *extras["server"]]
    assert len(wanted) > 30
    for requirement in map(Requirement, wanted):
        name = canonicalize_name(requirement.name)
        assert name in versions, f"{name} is not pinned: make infra/docker/constraints.txt anew (infra/README.md)"
        assert versions[name] in requirement.specifier, f"{name} {versions[name]} is not {requirement.specifier}"


def instructions(name):
    """The arguments of one kind of the Dockerfile's instructions, continued lines joined."""
    text = re.sub(r"\\\n", " ", (DOCKER / "Dockerfile").read_text())
    return [line.split()[1:] for line in text.splitlines() if line.startswith(f"{name} ")]


def test_everything_the_dockerfile_copies_exists_and_is_sent_to_the_builder():
    ignore = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]

    def is_sent(path):
        sent = True
        for rule in ignore:
            if any(fnmatch.fnmatch(str(part), rule.lstrip("!")) for part in (path, *path.parents)):
                sent = rule.startswith("!")
        return sent

    copied = [source for words in instructions("COPY") if "--from=package" not in words for source in words[:-1]]
    assert {"mitoray", "jobs", "pyproject.toml", "infra/docker/constraints.txt"} <= set(copied)
    for source in copied:
        assert (ROOT / source).exists(), source
        assert is_sent(Path(source)), source
    for source in ("tests", ".git", "uv.lock", "infra/README.md", ".venv"):
        assert not is_sent(Path(source)), source


def test_the_image_does_not_run_as_root():
    user, _, group = instructions("USER")[-1][0].partition(":")
    assert int(user) > 0
    assert int(group) > 0
    assert any(f"--uid {user} " in " ".join(words) for words in instructions("RUN"))


@pytest.mark.slow
def test_the_package_carries_the_weights_and_all_else_that_is_no_code(tmp_path):
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)]
    if subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True, check=False).returncode:
        build = ["uv", "build", "--wheel", "--out-dir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("mitoray-*.whl")
    held = set(zipfile.ZipFile(wheel).namelist())
    tracked = subprocess.run(["git", "ls-files", "mitoray"], cwd=ROOT, capture_output=True, text=True, check=True)
    wanted = set(tracked.stdout.split())
    assert "mitoray/models/bundles/mitoray-s/weights.safetensors" in wanted
    assert wanted <= held
