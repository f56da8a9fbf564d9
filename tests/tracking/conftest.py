"""One database for the tests of this room: to make its tables takes MLflow seconds."""

import socket

import pytest

from mitoray.tracking import prepare


@pytest.fixture(scope="session")
def database(tmp_path_factory):
    """The address of a prepared MLflow database in a file."""
    address = f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlruns.db"
    prepare(address)
    return address


@pytest.fixture(scope="session")
def free_port():
    """Gives a port of this machine on which nothing listens."""

    def choose() -> int:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return probe.getsockname()[1]

    return choose
