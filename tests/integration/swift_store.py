"""OpenStack Swift on one machine, with its S3 interface: a real object store, whose data lie in files of a folder."""

import getpass
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import requests

USER, KEY = "lab:reader", "a-key-of-the-lab"
START_S = 60
BIN = Path(sys.executable).parent

SWIFT_CONF = """
[swift-hash]
swift_hash_path_suffix = suffix
swift_hash_path_prefix = prefix

[storage-policy:0]
name = whole
default = yes
"""

BACKEND = """
[DEFAULT]
swift_dir = {folder}
devices = {folder}/devices
mount_check = false
bind_ip = 127.0.0.1
bind_port = {port}
workers = 0
user = {user}

[pipeline:main]
pipeline = {kind}-server

[app:{kind}-server]
use = egg:swift#{kind}

[{kind}-replicator]
[{kind}-updater]
[{kind}-auditor]
"""

PROXY = """
[DEFAULT]
swift_dir = {folder}
bind_ip = 127.0.0.1
bind_port = {port}
workers = 0
user = {user}

[pipeline:main]
pipeline = catch_errors healthcheck cache listing_formats s3api tempauth bulk slo proxy-server

[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true

[filter:catch_errors]
use = egg:swift#catch_errors

[filter:healthcheck]
use = egg:swift#healthcheck

[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:9

[filter:listing_formats]
use = egg:swift#listing_formats

[filter:s3api]
use = egg:swift#s3api
location = us-east-1
s3_acl = false

[filter:tempauth]
use = egg:swift#tempauth
user_{account}_{name} = {key} .admin

[filter:bulk]
use = egg:swift#bulk

[filter:slo]
use = egg:swift#slo
minimum_segment_size = 1
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def can_keep_metadata(folder: Path) -> bool:
    """Whether the file system takes the extended attributes in which Swift keeps what it knows of an object."""
    probe = folder / "probe"
    probe.touch()
    with suppress(OSError):
        os.setxattr(probe, "user.swift.probe", b"x")
        return True
    return False


@contextmanager
def swift(folder: Path) -> Iterator[dict[str, Any]]:
    """The store while the block runs; gives the storage options to reach it."""
    (folder / "devices" / "disk").mkdir(parents=True)
    (folder / "swift.conf").write_text(SWIFT_CONF)
    account, name = USER.split(":")
    facts = {"folder": folder, "user": getpass.getuser(), "account": account, "name": name, "key": KEY}
    with ExitStack() as servers:
        for kind in ("account", "container", "object"):
            port = free_port()
            ring = str(folder / f"{kind}.builder")
            device = f"r1z1-127.0.0.1:{port}/disk"
            for words in (["create", "4", "1", "0"], ["add", device, "1"], ["rebalance"]):
                program(folder, "swift-ring-builder", ring, *words)
            configuration = folder / f"{kind}.conf"
            configuration.write_text(BACKEND.format(kind=kind, port=port, **facts))
            servers.enter_context(server(folder, f"swift-{kind}-server", str(configuration), "--verbose"))
        port = free_port()
        (folder / "proxy.conf").write_text(PROXY.format(port=port, **facts))
        servers.enter_context(server(folder, "swift-proxy-server", str(folder / "proxy.conf"), "--verbose"))
        wait_for(f"http://127.0.0.1:{port}/healthcheck", folder)
        yield {
            "key": USER,
            "secret": KEY,
            "endpoint_url": f"http://127.0.0.1:{port}",
            "client_kwargs": {"region_name": "us-east-1"},
        }


def program(folder: Path, name: str, *words: str) -> None:
    ended = subprocess.run([BIN / name, *words], cwd=folder, capture_output=True, text=True, check=False)
    assert ended.returncode in (0, 1), ended.stdout + ended.stderr  # 1 is a warning of swift-ring-builder


@contextmanager
def server(folder: Path, name: str, *words: str) -> Iterator[None]:
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen([BIN / name, *words], cwd=folder, stdout=log, stderr=log)
        try:
            yield
        finally:
            process.terminate()
            process.wait(timeout=30)


def wait_for(url: str, folder: Path) -> None:
    until = time.monotonic() + START_S
    while True:
        with suppress(requests.RequestException):
            if requests.get(url, timeout=5).ok:
                return
        assert time.monotonic() < until, "\n".join(path.read_text() for path in folder.glob("*.log"))
        time.sleep(0.2)
