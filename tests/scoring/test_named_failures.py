"""What stops a whole run has a name and a remedy, however Ray wraps it."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mitoray.errors import BadModel, OutputFull, OutputUnreachable
from mitoray.scoring.failures import causes, named_failure, naming_failures
from mitoray.storage import Folder


def written_to_a_full_disk():
    with Path("/dev/full").open("wb", buffering=0) as full:
        full.write(b"x")


def test_a_full_disk_is_named():
    with pytest.raises(OutputFull, match=r"s3://bucket/out.*Make room") as caught, naming_failures("s3://bucket/out"):
        written_to_a_full_disk()
    assert isinstance(caught.value.__cause__, OSError)


def test_a_quota_is_a_full_disk():
    error = OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
    assert isinstance(named_failure(error, "out"), OutputFull)


def test_a_full_disk_is_named_in_a_task_of_a_real_cluster(ray_session):
    import ray

    def writes():
        with open("/dev/full", "wb", buffering=0) as full:
            full.write(b"x")

    with pytest.raises(OutputFull, match="Make room"), naming_failures("out"):
        ray.get(ray.remote(writes).remote())


def test_a_node_without_credentials_is_named(ray_session, s3):
    import ray

    nobody = {"AWS_SHARED_CREDENTIALS_FILE": "/none", "AWS_CONFIG_FILE": "/none", "AWS_EC2_METADATA_DISABLED": "true"}
    options = {name: value for name, value in s3.items() if name not in ("key", "secret")}

    def writes():
        Folder.at("s3://slides/out", options).write_bytes("a.txt", b"a")

    task = ray.remote(writes).options(runtime_env={"env_vars": nobody})
    with (
        pytest.raises(OutputUnreachable, match="no credentials for s3://slides/out"),
        naming_failures("s3://slides/out"),
    ):
        ray.get(task.remote())


def test_an_error_of_ours_in_a_task_comes_out_as_itself(ray_session):
    import ray

    def fails():
        raise BadModel("the digest differs")

    with pytest.raises(BadModel, match="the digest differs"), naming_failures("out"):
        ray.get(ray.remote(fails).remote())


def test_other_errors_stay_what_they_are():
    with pytest.raises(ZeroDivisionError), naming_failures("out"):
        1 / 0  # noqa: B018


def test_causes_end_where_errors_cause_each_other():
    one, other = ValueError("one"), KeyError("other")
    one.__cause__, other.__context__ = other, one
    assert list(causes(one)) == [one, other]


FILL = """
import sys

import numpy, ray
from mitoray.errors import ObjectStoreFull
from mitoray.scoring.failures import naming_failures
ray.init("local", num_cpus=1, object_store_memory=80 << 20, object_spilling_directory=sys.argv[1],
         include_dashboard=False, log_to_driver=False, logging_level="ERROR")
try:
    with naming_failures("out"):
        held = [ray.put(numpy.random.bytes(20 << 20)) for _ in range(20)]
except ObjectStoreFull as error:
    print("named:", error)
"""


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="a small file system is mounted by root")
def test_a_full_object_store_is_named(tmp_path):
    spill = tmp_path / "spill"
    spill.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(spill)], check=True)
    try:
        done = subprocess.run([sys.executable, "-c", FILL, str(spill)], capture_output=True, text=True, timeout=300)
    finally:
        subprocess.run(["umount", "-l", str(spill)], check=True)
    assert "named: Ray's object store is full" in done.stdout, done.stdout + done.stderr
