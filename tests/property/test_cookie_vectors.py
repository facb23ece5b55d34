"""RFC 9018 appendix A through each engine: a query with that cookie, from that address, at that time, is given that cookie."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address

import dns.edns
import dns.message
import pytest

from edgedns.engine import answer, fastpath, native
from edgedns.engine.answer import Secrets
from tests.conftest import Example

ENGINES: dict[str, Callable[..., bytes | None]] = {"reference": answer.respond, "python": fastpath.reply}
ENGINES |= {"native": native.reply} if native.AVAILABLE else {}
SECRET, OLD, NEW = "e5e973e5a6b2a43f48e7dc849e37bfcf", "dd3bdf9344b678b185a6f5cb60fca715", "445536bcd2513298075a5d379663c962"
V4, OTHER, V6 = "198.51.100.100", "203.0.113.203", "2001:db8:220:1:59de:d0f4:8769:82b8"
A1 = "2464c4abcf10c957010000005cf79f111f8130c3eee29480"
A3 = "fc93fc62807ddb8601abcdef5cf78f71a314227b6679ebf5"
A4 = "22681ab97d52c298010000005cf7c57926556bd0934c72f8"
# address, secrets (the active one first), time, cookie sent, cookie that comes back
VECTORS = {
    "A.1": (V4, (SECRET,), 1559731985, "2464c4abcf10c957", A1),
    "A.2": (V4, (SECRET,), 1559734385, A1, "2464c4abcf10c957010000005cf7a871d4a564a1442aca77"),
    "A.3": (OTHER, (SECRET,), 1559734700, A3, "fc93fc62807ddb86010000005cf7a9acf73a7810aca2381e"),
    "A.4": (V6, (NEW, OLD), 1559741961, A4, "22681ab97d52c298010000005cf7c609a6bb79d16625507a"),
    "A.4, the old one still active": (V6, (OLD, NEW), 1559741961, A4, A4),
    "A.1, sent again": (V4, (NEW, SECRET), 1559731985, A1, None),
    "A.1, within the half hour": (V4, (SECRET, NEW), 1559731985 + 1800, A1, A1),
}


def exchanged(example: Example, engine: str, vector: str, name: str | None) -> dns.message.Message:
    """The reply to a query for a name, or for nothing but a cookie."""
    address, secrets, now, sent, _ = VECTORS[vector]
    option = dns.edns.GenericOption(dns.edns.OptionType.COOKIE, bytes.fromhex(sent))
    query = dns.message.make_query(name or ".", "A", use_edns=0, options=[option])
    if name is None:
        query.question = []
    keys = Secrets(tuple(map(bytes.fromhex, secrets)))
    client = ip_address(address).packed
    reply = ENGINES[engine](example.nominal, query.to_wire(), client, "udp", float(now), keys, example.tally())
    assert reply
    return dns.message.from_wire(reply)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("vector", VECTORS)
@pytest.mark.parametrize("name", ["www.cdn.example.net", "nowhere.cdn.example.net", "www.example.com", None])
def test_the_vectors_of_rfc9018(example: Example, engine: str, vector: str, name: str | None) -> None:
    sent, wanted = VECTORS[vector][3:]
    (option,) = (each for each in exchanged(example, engine, vector, name).options if each.otype == 10)
    given = (option.to_wire() or b"").hex()
    assert given == wanted if wanted else given[:16] == sent[:16] and given != sent


@pytest.mark.parametrize("engine", ENGINES)
def test_old_and_new_secrets_are_believed_and_no_others(example: Example, engine: str) -> None:
    """RFC 7873 section 5.4: BADCOOKIE where a cookie alone is asked about, and it is not good. A.3's is too old by then."""
    said = {vector: exchanged(example, engine, vector, None).rcode().name for vector in VECTORS}
    assert {vector for vector, rcode in said.items() if rcode == "BADCOOKIE"} == {"A.3"}
    assert set(said.values()) == {"NOERROR", "BADCOOKIE"}
