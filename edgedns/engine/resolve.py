"""The walk through a zone that any question takes, up to the point where steering has to decide (RFC 1034 section 4.3.2).

Compile walks it once per name and type to prebuild static answers; the reference path walks it per query.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from edgedns.dns import types
from edgedns.dns.message import RR, Response
from edgedns.dns.name import ROOT, WILDCARD, is_subdomain, scan
from edgedns.dns.zone import Found, Kind, Node, RRset, lookup

Find = Callable[[bytes], Node | None]
# Types whose records name a host -> the octets before that name.
TARGET_AFTER = {types.NS: 0, types.MX: 2, types.SRV: 6, types.SVCB: 2, types.HTTPS: 2}
ALIAS_MODE = b"\0\0"
ITSELF = b""  # no name: the record's own owner
CHAIN_LIMIT = 16
NAME_MAX = 255


class Walk(NamedTuple):
    """Where a walk ended: a whole Response, and, when a steered name was met, its slot and owner.

    With a slot, `response.answer` holds the CNAME chain that led to `owner`; the steered RRset is to be appended.
    """

    response: Response
    kind: Kind
    slot: int | None = None
    owner: bytes = b""


def rr_of(owner: bytes, rrset: RRset) -> tuple[RR, ...]:
    return tuple(RR(owner, rrset.type, rrset.ttl, rdata) for rdata in rrset.rdatas)


def walk(find: Find, apex: bytes, qname: bytes, qtype: int) -> Walk:
    """Answer `qname`/`qtype` from one zone; `qname` is folded and lies at or below `apex`."""
    answer: tuple[RR, ...] = ()
    owner = qname
    seen = {qname}
    while True:
        found = lookup(find, apex, owner, qtype)
        target, answer = follow(found, owner, answer)
        ends = target is None or target in seen or len(seen) > CHAIN_LIMIT or not is_subdomain(target, apex)
        if target is None or ends or _is_last(found, target, qtype):
            ended = _end(find, apex, found, owner, answer, followed=target is not None)
            return _with_hosts(find, apex, ended, found, owner) if qtype in TARGET_AFTER else ended
        seen.add(target)
        owner = target


def _is_last(found: Found, target: bytes, qtype: int) -> bool:
    """Whether a DNAME's link, to a name of the zone, ends the chain."""
    if found.kind is not Kind.DNAME:
        return False
    # RFC 1034 section 3.6.2: queries "which match the CNAME type are not restarted": one that a DNAME makes, too. A DNAME to
    # a name below its own owner would be met again and again, by ever longer names.
    return qtype in (types.CNAME, types.ANY) or is_subdomain(target, found.encloser)


def follow(found: Found, owner: bytes, answer: tuple[RR, ...]) -> tuple[bytes | None, tuple[RR, ...]]:
    """The next name of a CNAME chain, and the answer so far with that CNAME in it."""
    if found.rrset is None or found.kind not in (Kind.CNAME, Kind.DNAME):
        return None, answer
    if found.kind is Kind.CNAME:
        return found.rrset.rdatas[0].lower(), answer + rr_of(owner, found.rrset)
    # A chain may come to the same DNAME twice. RFC 2181 section 5: "servers should suppress such duplicates if encountered".
    answer += tuple(rr for rr in rr_of(found.encloser, found.rrset) if rr not in answer)
    target = owner[: -len(found.encloser)] + found.rrset.rdatas[0]
    if len(target) > NAME_MAX:
        return None, answer
    # RFC 6672 section 3.1: the synthesised CNAME carries the TTL of the DNAME.
    return target.lower(), (*answer, RR(owner, types.CNAME, found.rrset.ttl, target))


def _end(find: Find, apex: bytes, found: Found, owner: bytes, answer: tuple[RR, ...], followed: bool) -> Walk:
    """The Response for the last link: a set, a hole, a referral, or a chain that leaves the zone or loops."""
    kind = found.kind
    if followed:
        return Walk(Response(types.NOERROR, True, answer, (), (), apex), kind)
    if kind is Kind.DYNAMIC:
        return Walk(Response(types.NOERROR, True, answer, (), (), apex), kind, found.slot, owner)
    if kind is Kind.HIT and found.rrset is not None:
        return Walk(Response(types.NOERROR, True, answer + rr_of(owner, found.rrset), (), (), apex), kind)
    if kind is Kind.DELEGATION and found.rrset is not None:
        # RFC 1034 section 4.3.2 step 3b: a referral is not authoritative unless a CNAME of ours led to it.
        ns = rr_of(found.encloser, found.rrset)
        required, other = glue_of(find, apex, found.encloser, found.rrset)
        return Walk(Response(types.NOERROR, bool(answer), answer, ns, required + other, apex, len(required)), kind)
    if kind is Kind.DNAME:
        # RFC 6672 section 2.2: a name too long to be formed by substitution is answered YXDOMAIN.
        return Walk(Response(types.YXDOMAIN, True, answer, (), (), apex), kind)
    # RFC 2308 section 2.1: the rcode of a chain is that of its last name.
    rcode = types.NXDOMAIN if kind is Kind.NXDOMAIN else types.NOERROR
    return Walk(Response(rcode, True, answer, negative(find, apex), (), apex), kind)


def _with_hosts(find: Find, apex: bytes, ended: Walk, found: Found, owner: bytes) -> Walk:
    """The same, with what the zone itself knows of the hosts that the answer names (RFC 1034 section 4.3.2 step 6).

    RFC 9460 section 4.1: "authoritative DNS servers SHOULD return A, AAAA, and SVCB records in the Additional section for
    any TargetNames that are in the zone." Steered addresses are left out: they have a scope, and this answer has none.
    """
    if ended.kind is not Kind.HIT or found.rrset is None:
        return ended
    service = found.type in (types.SVCB, types.HTTPS)
    hosts: tuple[RR, ...] = ()
    for named in dict.fromkeys(_named(found.rrset.type, rdata) for rdata in found.rrset.rdatas):
        target = owner if named == ITSELF else named
        for rtype in (types.A, types.AAAA, found.type) if service and target != owner else (types.A, types.AAAA):
            met = lookup(find, apex, target, rtype)
            if met.kind is Kind.HIT and met.rrset is not None and not _may_be_asked(found, owner, named, met):
                hosts += rr_of(target, met.rrset)
    return ended._replace(response=ended.response._replace(additional=hosts))


def _may_be_asked(found: Found, owner: bytes, named: bytes, met: Found) -> bool:
    """Whether a record of a wildcard names what the same wildcard, or the question, may itself be about.

    Its answer is prebuilt once for all names, and would have to be another for that one: it goes without.
    """
    made_up = found.wildcard or owner.startswith(WILDCARD)
    return made_up and named != ITSELF and (met.wildcard or named.startswith(WILDCARD))


def _named(rtype: int, rdata: bytes) -> bytes:
    """The folded name of the host that a record names, or ITSELF; the root where it names none."""
    start = TARGET_AFTER[rtype]
    target = rdata[start : scan(rdata, start)].lower()
    # RFC 9460 section 2.5.2: "For ServiceMode SVCB RRs, if TargetName has the value ".", then the owner name of this record
    # MUST be used as the effective TargetName." In AliasMode (priority 0) it says that there is no service.
    service = rtype in (types.SVCB, types.HTTPS) and rdata[:2] != ALIAS_MODE
    return ITSELF if target == ROOT and service else target


def negative(find: Find, apex: bytes) -> tuple[RR, ...]:
    """The SOA that goes with a negative answer.

    RFC 2308 section 3: the TTL is the minimum of the MINIMUM field of the SOA record and the TTL of the SOA itself.
    """
    node = find(apex)
    soa = node.rrsets[types.SOA] if node else None
    if soa is None:
        return ()
    minimum = int.from_bytes(soa.rdatas[0][-4:], "big")
    return (RR(apex, types.SOA, min(soa.ttl, minimum), soa.rdatas[0]),)


def glue_of(find: Find, apex: bytes, cut: bytes, ns: RRset) -> tuple[tuple[RR, ...], tuple[RR, ...]]:
    """The addresses that go with a referral: those that must, and those that may be left out where room is short.

    RFC 9471 section 3.1: "all available glue records for in-domain name servers" are needed; section 3.2: those of other
    names of the zone (sibling glue, RFC 1034 section 4.3.2 step 3b) SHOULD be there.
    """
    required: tuple[RR, ...] = ()
    other: tuple[RR, ...] = ()
    for target in (rdata.lower() for rdata in ns.rdatas):
        node = find(target) if is_subdomain(target, apex) else None
        sets = [node.rrsets[rtype] for rtype in (types.A, types.AAAA) if rtype in node.rrsets] if node else []
        found = tuple(rr for rrset in sets for rr in rr_of(target, rrset))
        if is_subdomain(target, cut):
            required += found
        else:
            other += found
    return required, other
