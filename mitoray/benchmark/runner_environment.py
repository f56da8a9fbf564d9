"""Environments of their own for others' tools, installed by uv when they are first asked for."""

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

INSTALL_LIMIT_S = 3600


class PeerFailed(Exception):
    """A tool that could not be installed, or not be run. It costs its row only."""


@dataclass(frozen=True)
class Peer:
    """Another's tool: what to install, and the Python that its packages are made for."""

    name: str
    packages: tuple[str, ...]
    python: str = "3.11"


def environment(peer: Peer, folder: Path, index: str | None = None) -> Path:
    """The interpreter of the peer's environment in `folder`, installed unless it is there.

    index: URL of the package index, None for the usual one. Raises PeerFailed.
    """
    place = folder / f"env-{peer.name}"
    interpreter, installed = place / "bin" / "python", place / "installed.txt"
    wanted = "\n".join([peer.python, *peer.packages])
    if installed.is_file() and installed.read_text() == wanted:
        return interpreter
    uv = shutil.which("uv")
    if uv is None:
        raise PeerFailed("could not be installed: uv is not on the PATH")
    from_index = ["--default-index", index] if index else []
    _run([uv, "venv", "--quiet", "--clear", "--python", peer.python, str(place)])
    _run([uv, "pip", "install", "--quiet", "--python", str(interpreter), *from_index, *peer.packages])
    installed.write_text(wanted)
    return interpreter


def _run(command: Sequence[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_LIMIT_S)
    except subprocess.TimeoutExpired:
        raise PeerFailed(f"could not be installed within {INSTALL_LIMIT_S} s") from None
    if done.returncode:
        raise PeerFailed(f"could not be installed: {' '.join(done.stderr.split())[:500]}")
