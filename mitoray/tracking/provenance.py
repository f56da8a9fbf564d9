"""Which code made a run, as tags."""

import subprocess
from functools import cache
from pathlib import Path
from types import MappingProxyType

import mitoray


@cache
def code_tags() -> MappingProxyType[str, str]:
    """Versions and git state as tags: code.mitoray, code.git_commit, code.git_dirty, code.torch and the like.

    Without the two of git where mitoray is installed and not checked out.
    """
    # Not at the top: it imports the models, which import this room for models:/ addresses.
    from mitoray.scoring.run import code_version

    tags = {f"code.{name}": value for name, value in code_version().items() if value is not None}
    if "code.git_commit" in tags:
        tags["mlflow.source.git.commit"] = tags["code.git_commit"]  # the column that MLflow's pages show
        dirty = has_uncommitted_changes(Path(mitoray.__file__).parent)
        tags["code.git_dirty"] = {True: "true", False: "false", None: "unknown"}[dirty]
    return MappingProxyType(tags)


def has_uncommitted_changes(folder: Path) -> bool | None:
    """Whether a folder of a git checkout holds anything that its last commit does not; None where git cannot tell."""
    # Without optional locks: git would refresh its index, in the way of someone who is about to commit.
    command = ["git", "--no-optional-locks", "-C", str(folder), "status", "--porcelain", "--", "."]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return bool(found.stdout.strip()) if found.returncode == 0 else None
