import socket

from mitoray.ray_address import ray_address


def test_a_cluster_that_has_ended_is_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert ray_address() is None
    note = tmp_path / "ray/ray_current_cluster"
    note.parent.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as cluster:
        note.write_text(f"127.0.0.1:{cluster.getsockname()[1]}")
        assert ray_address() is None
    assert ray_address() == "local"
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert ray_address() is None
