"""SECURITY.md names what is there."""

import re
from pathlib import Path

import mitoray.errors

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "SECURITY.md").read_text()


def test_every_test_file_and_script_that_it_names_exists():
    named = set(re.findall(r"(?:tests|infra)/[\w/.-]*\w", PAGE))
    assert len(named) > 10
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_every_error_that_it_names_exists():
    table = [line for line in PAGE.partition("## Hostile inputs")[2].splitlines() if line.startswith("| ")]
    rows = [line.rsplit("|", 2)[-2] for line in table]
    errors = {name for row in rows[1:] for name in re.findall(r"`(\w+)`", row)}
    assert len(errors) >= 8
    assert [name for name in errors if not hasattr(mitoray.errors, name)] == []
