"""A worker that may open few files: connections take what others can spare, and what is published is still followed."""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgedns.engine import native
from tests.conformance.client import Client, question, receive
from tests.small import write_rules, write_table, write_zone
from tests.system.serving import SLACK, Server, wait_until

pytestmark = [
    pytest.mark.xdist_group("tcp-crowded"),
    pytest.mark.skipif(shutil.which("prlimit") is None, reason="needs prlimit"),
]
DESCRIPTORS = 160


@pytest.fixture(params=["native", "python"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Server]:
    if request.param == "native" and not native.LOOPS:
        pytest.skip("the native engine was not built")
    made = Server(tmp_path, write_rules(tmp_path / "rules"), write_table(tmp_path / "table.tsv"))
    try:
        yield made.start(environ={"EDGEDNS_ENGINE": request.param}, under=["prlimit", f"--nofile={DESCRIPTORS}:{DESCRIPTORS}"])
    finally:
        made.clean_up()


def test_more_connections_than_descriptors(server: Server) -> None:
    """The newest are served, all else goes on: UDP, the admin side, a rules file that is saved."""
    (pid,) = server.worker_pids()
    wire = question("www.example.net.", "A").to_wire()
    client = Client("127.0.0.1", server.port)
    with contextlib.ExitStack() as held:
        crowd = [held.enter_context(client.stream()) for _ in range(3 * DESCRIPTORS)]
        for sock in crowd[-20:]:
            sock.sendall(len(wire).to_bytes(2, "big") + wire)
            assert receive(sock)[:2] == wire[:2]
        assert client.exchange(wire) == client.over("tcp").exchange(wire)
        assert len(list(Path(f"/proc/{pid}/fd").iterdir())) < DESCRIPTORS - 16
        write_zone(server.rules, plain="192.0.2.99")
        wait_until(lambda: server.addresses("plain.example.net") == ["192.0.2.99"], 5 * SLACK)
    assert "accepting" not in server.said()
    assert "descriptors" not in server.said()
    assert not re.search("Errno|Too many", server.said())
