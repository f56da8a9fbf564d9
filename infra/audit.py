"""Audit what the image pins: lower bounds, known-bad versions, and with a network pip-audit; write the SBOM.

    python infra/audit.py                        (offline: bounds and infra/advisories.txt)
    python infra/audit.py --sbom sbom.cdx.json   (CycloneDX, for a release)
    python infra/audit.py --online               (also pip-audit, by uvx)

Exit status 0 if nothing was found, 1 otherwise.
"""

import argparse
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
CONSTRAINTS = ROOT / "infra/docker/constraints.txt"
ADVISORIES = ROOT / "infra/advisories.txt"


def main() -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sbom", type=Path, help="CycloneDX JSON file to write")
    parser.add_argument("--online", action="store_true", help="ask the vulnerability databases as well, by pip-audit")
    options = parser.parse_args()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    found = [
        *unbounded(line for group in groups for line in group),
        *known_bad(lines(CONSTRAINTS), lines(ADVISORIES)),
    ]
    for finding in found:
        print(finding, file=sys.stderr)
    status = 1 if found else 0
    if options.sbom:
        write_sbom(options.sbom)
    if options.online:
        command = ["uvx", "pip-audit", "--requirement", str(CONSTRAINTS), "--no-deps", "--disable-pip"]
        status |= subprocess.run(command, check=False).returncode
    print(f"{len(lines(CONSTRAINTS))} packages pinned, {len(found)} findings")
    return status


def lines(file: Path) -> list[str]:
    """The lines of a requirements file without comments."""
    stripped = (line.partition("#")[0].strip() for line in file.read_text().splitlines())
    return [line for line in stripped if line]


def unbounded(requirements: Iterator[str]) -> list[str]:
    """Dependencies that would take a version of any age."""
    parsed = map(Requirement, requirements)
    return [f"{one.name} has no lower bound" for one in parsed if not any(p.operator == ">=" for p in one.specifier)]


def known_bad(pins: list[str], advisories: list[str]) -> list[str]:
    """Pinned versions that an advisory names."""
    pinned = {canonicalize_name(pin.name): next(iter(pin.specifier)).version for pin in map(Requirement, pins)}
    bad = [(bad, pinned.get(canonicalize_name(bad.name))) for bad in map(Requirement, advisories)]
    return [
        f"{one.name} {version} is pinned, and {one} are known to be bad"
        for one, version in bad
        if version and one.specifier.contains(version, prereleases=True)
    ]


def write_sbom(path: Path) -> None:
    """What the image holds, as CycloneDX 1.6 JSON, the same bytes for the same constraints."""
    command = ["cyclonedx-py", "requirements", str(CONSTRAINTS), "--pyproject", str(ROOT / "pyproject.toml")]
    form = ["--mc-type", "application", "--output-reproducible", "--spec-version", "1.6", "--output-format", "JSON"]
    subprocess.run([*command, *form, "--output-file", str(path)], check=True)


if __name__ == "__main__":
    sys.exit(main())
