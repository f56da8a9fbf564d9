"""What tests of several rooms share: one Ray, one S3 endpoint, one set of phantom slides."""

import importlib.util
import os
import sys
from pathlib import Path

import pytest

os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def ray_session():
    """A real Ray on two CPUs, started once, with the dashboard that trainings need: see `connected`."""
    import ray

    ray.init("local", num_cpus=2, include_dashboard=True, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def job():
    """The `main` of a job, by the job's name."""

    def main_of(name: str):
        spec = importlib.util.spec_from_file_location(name, ROOT / "jobs" / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # where the option parser looks up a dataclass' types
        spec.loader.exec_module(module)
        return module.main

    return main_of


@pytest.fixture(scope="session")
def s3():
    """A real S3 endpoint over HTTP with an empty bucket "slides"; gives the storage options to reach it."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
    client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", **keys)
    client.create_bucket(Bucket="slides")
    yield {"key": "test", "secret": "test", "endpoint_url": endpoint, "client_kwargs": {"region_name": "us-east-1"}}
    server.stop()
