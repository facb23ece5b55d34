"""What a question meets in a zone: RFC 1034 section 4.3.2, 4592, 6672, 8020, 8482."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgedns.dns import types
from edgedns.dns.name import from_text
from edgedns.dns.types import AAAA, ANY, CNAME, DNAME, DS, MX, NS, SOA, TXT, A
from edgedns.dns.zone import BadZone, Kind, Record, Zone, lookup

APEX = from_text("example.net")


def n(text: str) -> bytes:
    return from_text(f"{text}.example.net" if text else "example.net")


def rr(owner: str, type_: int, rdata: bytes = b"x", ttl: int = 60) -> Record:
    return n(owner), type_, ttl, rdata


RECORDS = [
    rr("", SOA),
    rr("", NS),
    rr("", MX),
    rr("host", A),
    rr("alias", CNAME),
    rr("deep.ent", TXT),
    rr("sub", NS),
    rr("sub", DS),
    rr("ns.sub", A),
    rr("old", DNAME),
    rr("old", TXT),
    # RFC 4592 section 2.2.1's example, and more.
    rr("*.wild", TXT),
    rr("*.wild", MX),
    rr("sub.*.wild", TXT),
    rr("host1.wild", A),
    rr("_ssh._tcp.host1.wild", TXT),
    rr("cut.wild", NS),
    rr("*.walias", CNAME),
    rr("*.wdname", DNAME),
    rr("*.wsteered", TXT),
]
DYNAMIC = {(n("www"), A): 1, (n("www"), AAAA): 2, (n("*.wsteered"), A): 3, (n(""), A): 4}
ZONE = Zone.build(APEX, RECORDS, DYNAMIC)


@pytest.mark.parametrize(
    ("qname", "qtype", "kind", "node", "wildcard", "encloser"),
    [
        ("", SOA, Kind.HIT, "", False, ""),
        ("", NS, Kind.HIT, "", False, ""),
        ("", TXT, Kind.NODATA, "", False, ""),
        ("", DS, Kind.NODATA, "", False, ""),
        ("", A, Kind.DYNAMIC, "", False, ""),
        ("host", A, Kind.HIT, "host", False, "host"),
        ("host", AAAA, Kind.NODATA, "host", False, "host"),
        ("host", 65535, Kind.NODATA, "host", False, "host"),
        ("www", A, Kind.DYNAMIC, "www", False, "www"),
        ("www", MX, Kind.NODATA, "www", False, "www"),
        ("alias", A, Kind.CNAME, "alias", False, "alias"),
        ("alias", CNAME, Kind.HIT, "alias", False, "alias"),
        ("alias", ANY, Kind.HIT, "alias", False, "alias"),
        ("alias", types.RRSIG, Kind.NODATA, "alias", False, "alias"),
        ("ent", A, Kind.NODATA, "ent", False, "ent"),
        ("ent", ANY, Kind.NODATA, "ent", False, "ent"),
        ("none", A, Kind.NXDOMAIN, None, False, ""),
        ("x.host", A, Kind.NXDOMAIN, None, False, "host"),
        ("x.ent", A, Kind.NXDOMAIN, None, False, "ent"),
        ("a.b.c.alias", A, Kind.NXDOMAIN, None, False, "alias"),
        # delegations
        ("sub", A, Kind.DELEGATION, "sub", False, "sub"),
        ("sub", NS, Kind.DELEGATION, "sub", False, "sub"),
        ("sub", ANY, Kind.DELEGATION, "sub", False, "sub"),
        ("sub", DS, Kind.HIT, "sub", False, "sub"),
        ("ns.sub", A, Kind.DELEGATION, "sub", False, "sub"),
        ("ns.sub", DS, Kind.DELEGATION, "sub", False, "sub"),
        ("a.b.sub", A, Kind.DELEGATION, "sub", False, "sub"),
        ("cut.wild", DS, Kind.NODATA, "cut.wild", False, "cut.wild"),
        # DNAME
        ("old", TXT, Kind.HIT, "old", False, "old"),
        ("old", A, Kind.NODATA, "old", False, "old"),
        ("old", DNAME, Kind.HIT, "old", False, "old"),
        ("x.old", A, Kind.DNAME, "old", False, "old"),
        ("x.old", DNAME, Kind.DNAME, "old", False, "old"),
        ("a.b.old", ANY, Kind.DNAME, "old", False, "old"),
        # RFC 4592 section 2.2.1, response by response
        ("host3.wild", MX, Kind.HIT, "*.wild", True, "wild"),
        ("host3.wild", A, Kind.NODATA, "*.wild", True, "wild"),
        ("foo.bar.wild", TXT, Kind.HIT, "*.wild", True, "wild"),
        ("host1.wild", MX, Kind.NODATA, "host1.wild", False, "host1.wild"),
        ("sub.*.wild", MX, Kind.NODATA, "sub.*.wild", False, "sub.*.wild"),
        ("_telnet._tcp.host1.wild", types.SRV, Kind.NXDOMAIN, None, False, "_tcp.host1.wild"),
        ("host.cut.wild", A, Kind.DELEGATION, "cut.wild", False, "cut.wild"),
        ("ghost.*.wild", MX, Kind.NXDOMAIN, None, False, "*.wild"),
        ("*.wild", MX, Kind.HIT, "*.wild", False, "*.wild"),
        ("wild", TXT, Kind.NODATA, "wild", False, "wild"),
        ("a.walias", A, Kind.CNAME, "*.walias", True, "walias"),
        ("a.wdname", A, Kind.NODATA, "*.wdname", True, "wdname"),
        ("a.wdname", DNAME, Kind.HIT, "*.wdname", True, "wdname"),
        ("a.b.wsteered", A, Kind.DYNAMIC, "*.wsteered", True, "wsteered"),
        ("a.b.wsteered", AAAA, Kind.NODATA, "*.wsteered", True, "wsteered"),
    ],
)
def test_lookup(qname: str, qtype: int, kind: Kind, node: str | None, wildcard: bool, encloser: str) -> None:
    found = lookup(ZONE.find, APEX, n(qname), qtype)
    assert found.kind is kind
    assert (found.node and found.node.name) == (None if node is None else n(node))
    assert found.wildcard is wildcard
    assert found.encloser == n(encloser)
    assert (found.rrset is not None) == (kind in (Kind.HIT, Kind.CNAME, Kind.DNAME, Kind.DELEGATION))
    assert (found.slot is not None) == (kind is Kind.DYNAMIC)


@pytest.mark.parametrize("qname", ["example.com", "net", ".", "xexample.net", r"x\007example.net"])
def test_names_of_others(qname: str) -> None:
    assert lookup(ZONE.find, APEX, from_text(qname), A).kind is Kind.NOT_OURS


@pytest.mark.parametrize(("qname", "type_"), [("", A), ("host", A), ("www", A), ("a.wild", MX), ("old", TXT)])
def test_any_gives_one_rrset_and_says_which(qname: str, type_: int) -> None:
    found = lookup(ZONE.find, APEX, n(qname), ANY)
    assert found.type == type_
    assert found.kind is (Kind.DYNAMIC if qname in ("", "www") else Kind.HIT)


def test_the_slot_is_given() -> None:
    assert lookup(ZONE.find, APEX, n("www"), AAAA).slot == 2
    assert lookup(ZONE.find, APEX, n("x.wsteered"), A).slot == 3


def test_the_root_zone() -> None:
    root = Zone.build(b"\0", [(b"\0", SOA, 1, b""), (from_text("*"), TXT, 1, b"")], {})
    assert lookup(root.find, b"\0", from_text("a.b"), TXT).kind is Kind.HIT
    assert lookup(root.find, b"\0", b"\0", TXT).kind is Kind.NODATA


def test_every_name_on_the_way_exists() -> None:
    assert n("_tcp.host1.wild") in ZONE.nodes
    assert ZONE.nodes[n("ent")].rrsets == {}
    assert ZONE.soa.type == SOA


def test_equal_records_count_once_and_the_lowest_ttl_holds() -> None:
    records = [rr("", SOA), rr("a", A, b"2", 60), rr("a", A, b"1", 30), rr("a", A, b"2", 90)]
    (rrset,) = Zone.build(APEX, records, {}).nodes[n("a")].rrsets.values()
    assert rrset == (A, 30, (b"2", b"1"))


@pytest.mark.parametrize(
    ("records", "dynamic", "why"),
    [
        ([], {}, "no SOA"),
        ([rr("", SOA), (from_text("example.com"), A, 1, b"")], {}, "example.com. is not in the zone example.net."),
        ([rr("", SOA), rr("a", SOA)], {}, "a.example.net. has a SOA but"),
        ([rr("", SOA), rr("a", CNAME), rr("a", TXT)], {}, "CNAME beside TXT"),
        ([rr("", SOA), rr("", CNAME)], {}, "CNAME beside SOA"),
        ([rr("", SOA), rr("a", CNAME)], {(n("a"), AAAA): 1}, "CNAME beside AAAA"),
        ([rr("", SOA), rr("a", CNAME, b"1"), rr("a", CNAME, b"2")], {}, "more than one CNAME"),
        ([rr("", SOA), rr("a", DNAME, b"1"), rr("a", DNAME, b"2")], {}, "more than one DNAME"),
        ([rr("", SOA, b"1"), rr("", SOA, b"2")], {}, "more than one SOA"),
        ([rr("", SOA), rr("a", A)], {(n("a"), A): 1}, "both steered and static"),
    ],
)
def test_what_makes_no_zone(records: list[Record], dynamic: Mapping[tuple[bytes, int], int], why: str) -> None:
    with pytest.raises(BadZone, match=why) as caught:
        Zone.build(APEX, records, dynamic)
    assert len(caught.value.conflicts) == 1


def test_all_conflicts_come_at_once() -> None:
    with pytest.raises(BadZone) as caught:
        Zone.build(APEX, [rr("a", CNAME), rr("a", TXT), rr("b", SOA)], {})
    assert [(owner, type_) for owner, type_, _ in caught.value.conflicts] == [
        (APEX, SOA),
        (n("a"), CNAME),
        (n("b"), SOA),
    ]


# A small alphabet makes names meet; the model below is a slow reading of RFC 4592 and 1034 over all names at once.
LABELS = st.sampled_from(["a", "b", "*"])
OWNERS = st.lists(LABELS, min_size=1, max_size=4).map(".".join)


@given(st.dictionaries(OWNERS, st.sampled_from([A, TXT, NS, DNAME, CNAME]), max_size=8), OWNERS, st.sampled_from([A, TXT, DS]))
def test_lookup_agrees_with_a_slow_model(owners: dict[str, int], qname: str, qtype: int) -> None:
    zone = Zone.build(APEX, [rr("", SOA), *(rr(owner, type_) for owner, type_ in owners.items())], {})
    assert lookup(zone.find, APEX, n(qname), qtype).kind is _model(owners, qname, qtype)


def _model(owners: dict[str, int], qname: str, qtype: int) -> Kind:
    exists = {"", *(".".join(owner.split(".")[at:]) for owner in owners for at in range(owner.count(".") + 1))}
    suffixes = [".".join(qname.split(".")[at:]) for at in range(qname.count(".") + 1)]
    for name in reversed(suffixes):
        if owners.get(name) == NS and not (name == qname and qtype == DS):
            return Kind.DELEGATION
        if owners.get(name) == DNAME and name != qname:
            return Kind.DNAME
        if name not in exists:
            break
    if qname in exists:
        return _model_match(owners.get(qname), qtype)
    encloser = next(name for name in [*suffixes, ""] if name in exists)
    source = f"*.{encloser}" if encloser else "*"
    return _model_match(owners.get(source), qtype) if source in exists else Kind.NXDOMAIN


def _model_match(held: int | None, qtype: int) -> Kind:
    if held == CNAME:
        return Kind.CNAME
    return Kind.HIT if held == qtype else Kind.NODATA
