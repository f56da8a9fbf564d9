"""Which Ray a process is to connect to. Imports no ray."""

import os
import socket
from pathlib import Path


def ray_address() -> str | None:
    """For ray.init: None leaves the choice to Ray; "local" starts one, where a cluster ended and left its note behind.

    Ray would wait half a minute for that cluster, and then fail.
    """
    note = Path(os.environ.get("RAY_TMPDIR", "/tmp")) / "ray/ray_current_cluster"  # nosec B108 # where Ray puts it
    if "RAY_ADDRESS" in os.environ or not note.exists():
        return None
    host, _, port = note.read_text().strip().rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=3).close()
    except (OSError, ValueError):
        return "local"
    return None
