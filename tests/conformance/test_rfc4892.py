"""RFC 4892: who a server is, asked in class CHAOS."""

from __future__ import annotations

import pytest

from edgedns import __version__
from tests.conformance.client import Client, rcode, texts


@pytest.mark.parametrize("name", ["id.server.", "hostname.bind.", "ID.Server."])
def test_2_the_node_s_identifier(either: Client, name: str) -> None:
    """Section 2: the convention of HOSTNAME.BIND, and that of ID.SERVER, which no implementation owns: TXT in class CHAOS."""
    reply = either(name, "TXT", rclass="CH")
    (record,) = reply.answer
    assert rcode(reply) == "NOERROR"
    assert record.name.to_text().lower() == name.lower()
    assert (record.rdclass.name, record.ttl) == ("CH", 0)
    assert len(record[0].strings[0]) > 0


@pytest.mark.ours
@pytest.mark.parametrize("name", ["version.server.", "version.bind."])
def test_the_version(either: Client, name: str) -> None:
    (record,) = either(name, "TXT", rclass="CH").answer
    assert record[0].to_text() == f'"edgedns {__version__}"'


@pytest.mark.parametrize(("name", "rtype"), [("authors.bind.", "TXT"), ("zero", "A"), ("x.id.server.", "TXT")])
def test_nothing_else_is_in_that_class(either: Client, name: str, rtype: str) -> None:
    reply = either(name, rtype, rclass="CH")
    assert (rcode(reply), reply.answer) == ("REFUSED", [])


def test_nor_are_those_names_in_class_in(either: Client) -> None:
    assert rcode(either("id.server.", "TXT")) == "REFUSED"


@pytest.mark.parametrize("name", ["zero", "pool", "nowhere", "host.child"])
def test_rfc1035_6_2_any_class_is_answered_without_authority(either: Client, name: str) -> None:
    """RFC 1035 section 6.2: "When processing queries with QCLASS=*, or some other QCLASS which matches multiple classes, the
    response should never be authoritative unless the server can guarantee that the response covers all classes."."""
    reply, plain = either(name, rclass="ANY"), either(name)
    assert rcode(reply) == rcode(plain)
    assert texts(reply.answer) == texts(plain.answer)
    assert not reply.flags & 0x0400
