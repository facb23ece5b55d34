"""RFC 7873 section 5.2.5, RFC 9018 section 4.3: who shows his address by a cookie is not limited, by any engine."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import dns.edns
import dns.message
import pytest

from edgedns.dns.cookie import make
from edgedns.engine import native
from tests.small import write_rules, write_table
from tests.system.serving import SLACK, Server

pytestmark = pytest.mark.xdist_group("cookies")
FIRST, SECOND = bytes(range(16)), bytes(range(16, 32))
HOST = bytes((127, 0, 0, 1))
MINUTE = 60
COUNT = 20


@pytest.fixture(scope="module", params=["native", "python", "reference"])
def limited(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that answers a question once a second."""
    if request.param == "native" and not native.LOOPS:
        pytest.skip("_fastpath was not built")
    top = tmp_path_factory.mktemp("limited")
    (top / "secrets").write_text(f"{FIRST.hex()}\n{SECOND.hex()}\n")
    (top / "secrets").chmod(0o600)
    made = Server(top, write_rules(top / "rules"), write_table(top / "table.tsv"))
    options = "--rate-limit", "1,slip=0", "--cookie-secret-file", str(top / "secrets")
    try:
        yield made.start(*options, environ={"EDGEDNS_ENGINE": request.param})
    finally:
        made.clean_up()


def wire(cookie: bytes) -> bytes:
    option = dns.edns.GenericOption(dns.edns.OptionType.COOKIE, cookie)
    return dns.message.make_query("plain.example.net", "A", use_edns=0, options=[option]).to_wire()


def answered(server: Server, cookie: bytes) -> int:
    """How many of COUNT questions that come at once; one with a fresh cookie, which is always answered, comes last."""
    last = wire(make(b"the last", HOST, FIRST, time.time()))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(3 * SLACK)
        sock.connect(("127.0.0.1", server.port))
        for packet in [wire(cookie)] * COUNT + [last]:
            sock.send(packet)
        replies = 0
        while b"the last" not in sock.recv(4096):
            replies += 1
        return replies


@pytest.mark.parametrize("age", [0, 31 * MINUTE, 59 * MINUTE])
@pytest.mark.parametrize("secret", [FIRST, SECOND], ids=["first", "second"])
def test_a_valid_cookie_is_not_limited(limited: Server, age: int, secret: bytes) -> None:
    """Fresh, due for renewal, or made by a secret that is on its way out: valid is valid."""
    assert answered(limited, make(b"by heart", HOST, secret, time.time() - age)) == COUNT


@pytest.mark.parametrize("age", [61 * MINUTE, -6 * MINUTE])
def test_one_that_is_too_old_or_of_the_future_is(limited: Server, age: int) -> None:
    assert answered(limited, make(b"by heart", HOST, FIRST, time.time() - age)) < COUNT / 2


def test_those_that_nobody_made_are(limited: Server) -> None:
    for cookie in (b"by heart", bytes(24), make(b"by heart", HOST, bytes(16), time.time())):
        assert answered(limited, cookie) < COUNT / 2
