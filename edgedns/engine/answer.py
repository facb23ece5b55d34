"""The reference path: one query, one snapshot, one answer, and why.

Slow and plain on purpose: every fast path is measured against it, byte for byte (law 1), and `explain` calls it (law 3).
"""

from __future__ import annotations

from typing import NamedTuple

from edgedns.dns import cookie, types
from edgedns.dns.edns import (
    COOKIE,
    GROWTH,
    INVALID_QUERY_TYPE,
    NOT_AUTHORITATIVE,
    NOT_SUPPORTED,
    NSID,
    OVERHEAD,
    PROHIBITED,
    ClientSubnet,
    extended_error,
    keepalive_option,
    modest,
    subnet_option,
)
from edgedns.dns.message import HEADER, RR, Malformed, Query, Response, encode, parse
from edgedns.engine import lookup
from edgedns.engine.explain_name import asked_about, told
from edgedns.engine.identity import chaos
from edgedns.engine.resolve import negative, walk
from edgedns.engine.seen import NOT_STEERED, Ring, Seen, due, note
from edgedns.engine.snapshot import NONE, UNIT_BITS, Ranking, Rule, Slot, Snapshot, View, Zone
from edgedns.engine.tally import WRAP, Tally, request_cell
from edgedns.model import Choice, Reason

UDP_PAYLOAD = 1232
UDP_PLAIN = 512
TCP_LIMIT = 65535
EDNS_MINIMUM = 512
TCP_IDLE = 10.0
TRANSFERS = frozenset({types.AXFR, types.IXFR})


class Secrets(NamedTuple):
    """Keys that answers need and no snapshot holds: server cookie secrets, the current one first (16 octets each)."""

    cookies: tuple[bytes, ...]

    def __repr__(self) -> str:
        """Nothing of them: what fails with them at hand may be logged."""
        return f"Secrets({len(self.cookies)})"


class Steered(NamedTuple):
    """One steering decision. `provider` is an index, or NONE; `scope` counts bits of the address that was looked up."""

    rule: Rule
    column: int
    ranking: Ranking
    provider: int
    scope: int
    atom: int
    network: int
    unit: int

    @property
    def reason(self) -> int:
        return self.ranking.reasons.get(self.provider, self.ranking.reason)


class Answer(NamedTuple):
    """What goes out, as a value; `scope` is the SCOPE PREFIX-LENGTH of RFC 7871."""

    response: Response
    scope: int
    zone: Zone | None = None
    steered: Steered | None = None


def answer(snapshot: Snapshot, query: Query, client: bytes, now: float) -> tuple[Answer, Choice]:
    """The answer to a well-formed query from `client` (packed address), and the reason for it."""
    view = snapshot.at(now)
    zone = view.base.zone_of(query.folded, parent_side=query.qtype == types.DS)
    refusal = _by_form(view, query, zone)
    if refusal is not None or zone is None:
        return Answer(refusal or Response(types.REFUSED), 0), Choice(serial=view.serial)
    subject = asked_about(zone, query, client) if zone.explain else None
    if subject is not None:
        return _explained(view, zone, query, subject, client)
    found = walk(lambda name: view.base.find(zone.number, name), zone.apex, query.folded, query.qtype)
    if found.slot is None:
        return Answer(found.response, 0, zone), Choice(zone.name, query.folded, serial=view.serial)
    subnet = query.edns.subnet if query.edns else None
    if found.response.answer and subnet is not None:
        # RFC 7871 section 7.2.1: an answer that mixes scopes would be cached under the wrong one, so only the first
        # link of the chain is given, with its own scope; the resolver asks for the rest.
        first = next(i for i, rr in enumerate(found.response.answer) if rr.type == types.CNAME) + 1
        response = found.response._replace(answer=found.response.answer[:first])
        return Answer(response, 0, zone), Choice(zone.name, query.folded, serial=view.serial)
    slot = view.base.slot_at(found.slot)
    steered = steer(view, slot, subnet, client)
    response = _steered_response(view, zone, found.response, found.owner, slot, steered)
    # RFC 7871 section 7.2.1: with SOURCE PREFIX-LENGTH 0 the answer's SCOPE PREFIX-LENGTH must be 0 too.
    scope = 0 if subnet is None or subnet.source == 0 else steered.scope
    return Answer(response, scope, zone, steered), _choice(view, zone, slot, subnet, client, steered)


def _explained(view: View, zone: Zone, query: Query, subject: bytes, client: bytes) -> tuple[Answer, Choice]:
    """TXT of NAME._explain.ZONE: what was decided for `subject`, for each family that is steered."""
    subnet = query.edns.subnet if query.edns else None
    choices, scope = [], 0
    for rtype in (types.A, types.AAAA):
        found = walk(lambda name: view.base.find(zone.number, name), zone.apex, subject, rtype)
        if found.slot is not None:
            slot = view.base.slot_at(found.slot)
            steered = steer(view, slot, subnet, client)
            choice = _choice(view, zone, slot, subnet, client, steered)
            choices.append((types.type_name(rtype), choice, steered.scope))
            scope = max(scope, steered.scope if subnet is not None and subnet.source else 0)
    made = told(query.folded, choices)._replace(apex=zone.apex)
    if not choices:
        soa = negative(lambda name: view.base.find(zone.number, name), zone.apex)
        made = made._replace(rcode=types.NXDOMAIN, authority=soa)
    return Answer(made, scope, zone), Choice(zone.name, query.folded, serial=view.serial)


def _by_form(view: View, query: Query, zone: Zone | None) -> Response | None:
    """What is answered by its form alone: another class, a zone that isn't ours, a transfer, a type nobody may ask for."""
    if query.qclass == types.CH:
        return chaos(view.node, query.folded, query.qtype)
    if query.qclass not in (types.IN, types.ANY_CLASS):
        return Response(types.REFUSED, error=NOT_AUTHORITATIVE)
    if query.qtype in TRANSFERS:
        # RFC 5936 section 2.2.1: "If a server is not authoritative for the queried zone, the server SHOULD set the value to
        # NotAuth(9)."
        ours = query.folded in view.base.apexes
        return Response(types.REFUSED, error=PROHIBITED) if ours else Response(types.NOTAUTH, error=NOT_AUTHORITATIVE)
    if zone is None:
        return Response(types.REFUSED, error=NOT_AUTHORITATIVE)
    # RFC 9824 section 3.5: a question for the NXNAME meta-type is answered FORMERR.
    if query.qtype == types.NXNAME:
        return Response(types.FORMERR, error=INVALID_QUERY_TYPE)
    # RFC 6895 section 3.1: MAILB and MAILA are obsolete; a server that doesn't know them says so.
    obsolete = query.qtype in (types.MAILA, types.MAILB)
    return Response(types.NOTIMP, error=NOT_SUPPORTED) if obsolete else None


def steer(view: View, slot: Slot, subnet: ClientSubnet | None, client: bytes) -> Steered:
    """Which provider suits the network of the client subnet, or of the resolver where there is none."""
    forwarded = subnet is not None and subnet.source > 0
    asked = subnet.address if subnet is not None and forwarded else client
    family, value, offset = lookup.client_key(asked, not forwarded)
    atom = lookup.walk(view.index4, view.index6, family, value)
    if atom < view.public_atoms and not forwarded:
        atom += view.public_atoms
    place, scope = view.cell(slot.policy, atom)
    rule = view.base.policies[slot.policy][place]
    network = view.network[atom]
    column = rule.columns[slot.family == 6]
    ranking = view.ranking_at(column, network)
    bits = 32 if family == 4 else 128
    unit = value >> (bits - UNIT_BITS[family])
    if ranking.split:
        scope = max(scope, UNIT_BITS[family])
    if offset:
        scope = offset + scope if scope else _outer_scope(view, slot, asked)
    provider = view.pick(ranking, unit) if not ranking.down else NONE
    return Steered(rule, column, ranking, provider, scope, atom, network, unit)


def _outer_scope(view: View, slot: Slot, asked: bytes) -> int:
    """The scope of an IPv4 client written as IPv6 where all of IPv4 is treated alike: that of the IPv6 space around it."""
    atom = lookup.walk(view.index4, view.index6, 6, int.from_bytes(asked, "big"))
    return view.cell(slot.policy, atom)[1]


def _steered_response(view: View, zone: Zone, chain: Response, owner: bytes, slot: Slot, steered: Steered) -> Response:
    if steered.ranking.down == 2:
        return Response(types.SERVFAIL)
    if steered.provider == NONE:
        soa = negative(lambda name: view.base.find(zone.number, name), zone.apex)
        return chain._replace(authority=soa)
    addresses = view.base.addresses[steered.provider][slot.family == 6]
    rtype = types.A if slot.family == 4 else types.AAAA
    return chain._replace(answer=chain.answer + tuple(RR(owner, rtype, slot.ttl, rdata) for rdata in addresses))


def _choice(view: View, zone: Zone, slot: Slot, subnet: ClientSubnet | None, client: bytes, steered: Steered) -> Choice:
    base = view.base
    return Choice(
        zone=zone.name,
        name=slot.name,
        rule=steered.rule.name,
        provider="" if steered.provider == NONE else base.providers[steered.provider],
        reason=Reason(steered.reason),
        network=view.network_key(steered.network),
        prefix=view.leaf(steered.atom),
        ranking=tuple(base.providers[target] for target in steered.ranking.targets),
        unit=steered.unit if steered.ranking.split else None,
        serial=view.serial,
    )


def respond(
    snapshot: Snapshot, packet: bytes, client: bytes, transport: str, now: float, secrets: Secrets, tally: Tally
) -> bytes | None:
    """The whole reference path, packet to packet. None is silence."""
    query = parse(packet)
    if query is None:
        return None
    if isinstance(query, Malformed):
        return _refuse(snapshot.at(now), query, packet, client, transport, now, secrets, tally)
    given, _ = answer(snapshot, query, client, now)
    view = snapshot.at(now)
    response = given.response
    options = reply_options(view, query, response.error, given.scope, client, now, secrets, transport)
    if not (response.answer or response.authority) and transport == "udp":
        options = modest(options, _growth(query, packet))
    _count(view, query.qtype, client, transport, given, tally)
    if tally.ring is not None and due(tally.ring):
        _note(tally.ring, query, response.rcode, _cell(view, given.steered), client, transport, now, secrets)
    # RFC 1035 section 6.2: to QCLASS=* "the response should never be authoritative unless the server can guarantee that
    # the response covers all classes."
    if query.qclass == types.ANY_CLASS:
        response = response._replace(aa=False)
    return encode(query, response, reply_limit(query, transport), options)


def reply_limit(query: Query | Malformed, transport: str) -> int:
    """How large a reply may be, in octets."""
    if transport == "tcp":
        return TCP_LIMIT
    if query.edns is None:
        return UDP_PLAIN
    # RFC 6891 section 6.2.3: "Values lower than 512 MUST be treated as equal to 512."
    return min(max(query.edns.payload, EDNS_MINIMUM), UDP_PAYLOAD)


def _growth(query: Query | Malformed, packet: bytes) -> int:
    """What is left for the options of a reply to `packet` that holds no record."""
    signed = len(query.tsig) if isinstance(query, Malformed) else 0
    return len(packet) + GROWTH - HEADER - len(query.question) - OVERHEAD - signed


def reply_options(
    view: View,
    query: Query | Malformed,
    error: int | None,
    scope: int | None,
    client: bytes,
    now: float,
    secrets: Secrets,
    transport: str,
) -> list[tuple[int, bytes]]:
    """The EDNS options of a reply, always in this order: NSID, client subnet, extended error, cookie, keepalive."""
    edns = query.edns
    if edns is None:
        return []
    options = [(NSID, view.nsid)] if edns.nsid and view.nsid else []
    if edns.subnet is not None and scope is not None:
        options.append(subnet_option(edns.subnet, scope))
    if error is not None:
        options.append(extended_error(error))
    if edns.cookie is not None:
        options.append((COOKIE, cookie.renew(edns.cookie, client, secrets.cookies, now)[1]))
    # RFC 7828 section 3.3.1: "A DNS server that receives a query using UDP transport that includes the edns-tcp-keepalive
    # option MUST ignore the option."
    if edns.keepalive and transport == "tcp":
        options.append(keepalive_option(TCP_IDLE))
    return options


def _refuse(
    view: View,
    query: Malformed,
    packet: bytes,
    client: bytes,
    transport: str,
    now: float,
    secrets: Secrets,
    tally: Tally,
) -> bytes:
    response = Response(_verdict(query, client, now, secrets))
    elsewhere = view.base.elsewhere
    tally.cells[elsewhere.requests + request_cell(transport, client, 0)] += 1
    tally.cells[elsewhere.responses + response.rcode] += 1
    if tally.ring is not None and due(tally.ring):
        _note(tally.ring, query, response.rcode, NOT_STEERED, client, transport, now, secrets)
    error = NOT_SUPPORTED if response.rcode == types.NOTIMP else None
    options = reply_options(view, query, error, None, client, now, secrets, transport)
    if transport == "udp":
        options = modest(options, _growth(query, packet))
    return encode(query, response, reply_limit(query, transport), options)


def _verdict(query: Malformed, client: bytes, now: float, secrets: Secrets) -> int:
    """The rcode of a query without a question, or one that can't be read."""
    asked = query.edns.cookie if query.edns else None
    if query.rcode != types.NOERROR or asked is None or len(asked) == cookie.CLIENT:
        return query.rcode
    # RFC 7873 section 5.4: a query for a cookie alone, whose server cookie is not valid, is answered BADCOOKIE.
    return types.NOERROR if cookie.check(asked, client, secrets.cookies, now) else types.BADCOOKIE


def _count(view: View, qtype: int, client: bytes, transport: str, given: Answer, tally: Tally) -> None:
    zone, steered = given.zone or view.base.elsewhere, given.steered
    tally.cells[zone.requests + request_cell(transport, client, qtype)] += 1
    tally.cells[zone.responses + given.response.rcode] += 1
    if steered is None:
        return
    tally.cells[_cell(view, steered)] += 1
    if tally.networks is not None:
        tally.networks[steered.network] = tally.networks[steered.network] + 1 & WRAP


def _cell(view: View, steered: Steered | None) -> int:
    """Where a steered answer is counted."""
    if steered is None:
        return NOT_STEERED
    provider = steered.provider if steered.provider != NONE else len(view.base.providers)
    return steered.rule.answers[provider] + steered.reason


def _note(
    ring: Ring, query: Query | Malformed, rcode: int, cell: int, client: bytes, transport: str, now: float, secrets: Secrets
) -> None:
    """Write a query of the sample."""
    edns, tcp = query.edns, transport == "tcp"
    given = edns.cookie if edns else None
    proven = tcp or bool(given and cookie.check(given, client, secrets.cookies, now))
    name, qtype, subnet, source = b"", 0, b"", 0
    if isinstance(query, Query):
        name, qtype = query.folded, query.qtype
        if edns and edns.subnet and edns.subnet.source:
            subnet, source = edns.subnet.address, edns.subnet.source
    note(ring, Seen(now, client, subnet, source, name, qtype, rcode, cell, proven, tcp))
