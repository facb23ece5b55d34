"""A zone without steering and questions for it, made by dice; and what two servers' replies differ in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from random import Random

import dns.flags
import dns.message
import dns.name
import dns.query
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset

APEX = "differ.example."
TYPES = ["A", "AAAA", "MX", "TXT", "SRV", "CAA", "NAPTR", "HTTPS", "SVCB", "TLSA", "SSHFP", "LOC"]
TYPES += ["TYPE65280", "PTR", "HINFO", "URI"]
ASKED = [*TYPES, "A", "AAAA", "A", "NS", "SOA", "CNAME", "DS", "DNAME", "ANY", "DNSKEY", "RRSIG", "NSEC", "TYPE65535", "NULL"]
ODD = ["MAILA", "MAILB", "TYPE0", "TYPE128", "AXFR", "IXFR", "OPT", "TSIG", "TKEY", "TYPE200"]
WORDS = ["a", "b", "www", "mail", "x-1", "_sip", "_tcp", "deep", "tree", "Case", "l" * 63]
WORDS += [r"\000\255", r"do\.t", r"\*", r"caf\195\169"]
SOA = f"@ 3600 SOA ns1 hostmaster.{APEX} 2026112201 3600 900 1209600 300"


def zone(seed: int, size: int) -> list[str]:
    """Zone file lines: `size` names and the corners below, of every kind."""
    dice = Random(seed)
    made = [f"$ORIGIN {APEX}", "$TTL 1800", SOA, "@ 3600 NS ns1", "@ 3600 NS ns2.sub", "@ 3600 NS ns.elsewhere.example."]
    made += ["ns1 A 192.0.2.53", "ns1 AAAA 2001:db8::53", "sub 600 MX 5 www.sub", "ns2.sub A 192.0.2.54"]
    made.append("www.sub A 192.0.2.55")
    owners = {_owner(dice) for _ in range(size)} - {"@", "ns1", "sub", "ns2.sub", "www.sub"}
    for owner in sorted(owners):
        kind = dice.random()
        if kind < 0.1:
            made.append(f"{owner} {_ttl(dice)} CNAME {_target(dice, sorted(owners))}")
        else:
            ttls = {rtype: _ttl(dice) for rtype in dice.sample(TYPES, dice.choice((1, 1, 2, 3, 5)))}
            for rtype, ttl in ttls.items():
                made += {f"{owner} {ttl} {rtype} {_rdata(rtype, dice, number)}" for number in range(dice.choice((1, 1, 2, 4)))}
    return made + list(corners())


def corners() -> Iterator[str]:
    """What dice would not hit on."""
    yield from ("*.wild 60 A 192.0.2.80", "*.wild 60 TXT any", "fixed.wild A 192.0.2.81", "x.below.wild A 192.0.2.82")
    yield from ("*.alias 60 CNAME www.sub", "*.nowhere 60 CNAME missing", "*.out 60 CNAME www.example.com.")
    yield from ("*.mx 60 MX 10 ns1", "*.self 60 CNAME y.self", "*.ent.wild2 60 A 192.0.2.83", "wild2 60 TXT top")
    yield from ("cut 900 NS ns1.cut", "cut 900 NS ns.sibling", "ns1.cut A 192.0.2.90", "ns1.cut AAAA 2001:db8::90")
    yield from ("hidden.cut A 192.0.2.91", "sibling 900 NS ns.sibling", "ns.sibling A 192.0.2.92")
    yield from ("away 900 NS ns.elsewhere.example.", "signed 900 NS ns1.cut")
    yield "signed 900 DS 60485 13 2 D4B7D520E7BB5F0F67674A0CCEB1E3E0614B93C4F9E99B8383F6A1E4469DA50A"
    yield from ("to-cut CNAME x.cut", "to-away CNAME away", "to-mx CNAME some.mx", "to-ent CNAME ent.wild2")
    yield "ns1.wide A 192.0.2.93"
    yield from (f"wide 900 NS ns{number}.wide" for number in range(1, 14))
    yield from (f"ns{number}.wide AAAA 2001:db8:1::{number}" for number in range(1, 14))
    yield from ("chain0 CNAME chain1", *(f"chain{n} 30 CNAME chain{n + 1}" for n in range(1, 9)), "chain9 A 192.0.2.94")
    yield from ("loop1 CNAME loop2", "loop2 CNAME loop1", "own CNAME own", "gone CNAME really.gone")
    yield "abroad CNAME www.example.com."
    yield from ("here 60 DNAME there", "www.there A 192.0.2.95", "*.any.there A 192.0.2.96", "outer 60 DNAME example.com.")
    yield from (f"long 60 DNAME {'l' * 63}.{'m' * 63}.{'n' * 63}", "to-dname CNAME www.here", "round 60 DNAME deeper.round2")
    yield from (f"big 60 TXT {number} {'t' * 250}" for number in range(1, 20))
    yield from (f"mid 60 AAAA 2001:db8:2::{number}" for number in range(1, 25))
    yield from (f"huge 60 TXT {number} {'u' * 250} {'v' * 250} {'w' * 200}" for number in range(1, 80))
    yield from (f"many 60 MX {number} h{number % 40}.hosts" for number in range(1, 40))
    yield from (f"h{number}.hosts 60 A 192.0.2.{number}" for number in range(1, 40))
    yield from ("zero 0 A 192.0.2.1", f"{'o' * 63}.{'p' * 63}.{'q' * 63}.{'r' * 40} A 192.0.2.97")
    yield from ("mixed.CaSe MX 10 NS1", "xn--caf-dma TXT a")
    yield from deeper()


def deeper() -> Iterator[str]:
    """Shapes that lead through each other: aliases into aliases, into wildcards and over cuts, some many labels down."""
    yield from (
        "*.two.one.ent3 60 A 192.0.2.84",
        "*.in.*.ent4 60 TXT below",
        "*.ent4 60 MX 5 q.wild",
        "under.*.ent4 60 TXT star",
    )
    yield from ("far.away.down.here5 900 NS ns.far.away.down.here5", "ns.far.away.down.here5 A 192.0.2.85")
    yield from ("beside.down.here5 A 192.0.2.86", "over.far5 900 NS ns.in.over.far5", "ns.in.over.far5 AAAA 2001:db8::86")
    yield from (
        "d1 60 DNAME d2",
        "d2 60 DNAME d3",
        "x.d3 A 192.0.2.87",
        "www.d3 CNAME x.d1",
        "y.d3 CNAME y.d1",
        "*.d3 TXT made",
    )
    yield from (
        "dcut 60 DNAME cut",
        "dwild 60 DNAME wild",
        "dent 60 DNAME ent.wild2",
        "dup 60 DNAME @",
        "ddeep 60 DNAME a.b.d1",
    )
    yield from ("*.dstar 60 CNAME x.dwild", "*.dloop 60 CNAME y.dloop.d1", "to-d1 CNAME www.d1", "to-dcut CNAME a.dcut")
    yield from (f"link{n} 60 CNAME link{n + 1}" for n in range(20))
    yield from ("link20 60 CNAME q.dwild", "to-link CNAME link18")
    yield from ("svc0 60 HTTPS 0 svc1", "svc1 60 HTTPS 0 svc2", "svc2 60 HTTPS 1 . alpn=h2,h3 port=8443 ipv4hint=192.0.2.88")
    yield from (
        "svc2 60 A 192.0.2.88",
        "svc2 60 AAAA 2001:db8::88",
        "svcwild 60 SVCB 0 any.wild",
        "svccut 60 SVCB 1 x.cut alpn=dot",
    )
    yield from ("svcd 60 HTTPS 1 www.here", "svcalias 60 HTTPS 1 to-mx", "_dns.svc2 60 SVCB 1 svc2 alpn=dot key65333=ex1")
    yield from (
        "*.svc 60 HTTPS 1 . no-default-alpn alpn=h2",
        "_sip._udp.srvwild 60 SRV 1 5 5060 made.wild",
        "srv6 60 SRV 0 0 0 .",
    )


def _owner(dice: Random) -> str:
    labels = range(dice.choice((1, 1, 2, 3)))
    return ".".join(dice.choice(WORDS) if dice.random() < 0.5 else f"n{dice.randrange(400)}" for _ in labels)


def _ttl(dice: Random) -> int:
    return dice.choice((0, 1, 30, 60, 300, 3600, 86400))


def _target(dice: Random, owners: list[str]) -> str:
    return dice.choice((dice.choice(owners), "ns1", "missing", "x.cut", "any.wild", "www.example.com.", "www.here"))


def _rdata(rtype: str, dice: Random, number: int) -> str:
    host = dice.choice(("ns1", "www.sub", "fixed.wild", "x.wild", "hidden.cut", "mail.example.com.", "missing", "loop1"))
    made = {
        "A": f"192.0.2.{1 + dice.randrange(250)}",
        "AAAA": f"2001:db8::{dice.randrange(1, 9999):x}",
        "MX": f"{number} {host}",
        "TXT": f'"text {dice.randrange(99)}" "and more"',
        "SRV": f"{number} 5 5060 {host}",
        "CAA": f'0 issue "ca{number}.example.net"',
        "NAPTR": f'{number} 10 "u" "E2U+sip" "!^.*$!sip:a@example.net!" .',
        "HTTPS": f"{number + 1} {dice.choice(('.', host))} alpn=h2 port={443 + number}",
        "SVCB": f"{number + 1} {host} alpn=dot",
        "TLSA": f"3 1 {number % 2} {dice.randbytes(32).hex()}",
        "SSHFP": f"4 2 {dice.randbytes(32).hex()}",
        "LOC": f"51 30 {number}.748 N 0 7 39.612 W 0.00m 10.00m 10000.00m 10.00m",
        "TYPE65280": f"\\# 4 0a0000{number:02x}",
        "PTR": host,
        "HINFO": f'"cpu{number}" "os"',
        "URI": f'10 {number} "https://example.net/{number}"',
    }
    return made[rtype]


@dataclass(frozen=True)
class Question:
    """One message and the way it goes."""

    message: dns.message.Message
    tcp: bool

    @property
    def name(self) -> dns.name.Name:
        return self.message.question[0].name

    @property
    def rtype(self) -> str:
        return dns.rdatatype.to_text(self.message.question[0].rdtype)

    def __str__(self) -> str:
        edns = f"edns {self.message.payload}{' do' if self.message.ednsflags else ''}" if self.message.edns >= 0 else "plain"
        return f"{self.name} {self.rtype} {'tcp' if self.tcp else 'udp'} {edns}"


def questions(seed: int, lines: list[str], count: int) -> list[Question]:
    """`count` questions about the zone's names, names near them, and a few elsewhere; all well-formed."""
    dice = Random(seed)
    origin = dns.name.from_text(APEX)
    owners = sorted({dns.name.from_text(line.split()[0], origin) for line in lines if not line.startswith("$")})
    return [_question(dice, _near(dice, owners, origin)) for _ in range(count)]


def _question(dice: Random, name: dns.name.Name) -> Question:
    rtype = dice.choice(ODD) if dice.random() < 0.02 else dice.choice(ASKED)
    rclass = "ANY" if dice.random() < 0.01 else "CH" if dice.random() < 0.01 else "IN"
    message = dns.message.make_query(name, rtype, rclass, use_edns=False)
    message.id = dice.getrandbits(16)
    message.flags = dice.choice((0, dns.flags.RD, dns.flags.CD, dns.flags.AD | dns.flags.RD))
    if dice.random() < 0.6:
        message.use_edns(0, dice.choice((0, dns.flags.DO)), dice.choice((512, 1232, 1232, 4096)))
    return Question(message, dice.random() < 0.3)


def _near(dice: Random, owners: list[dns.name.Name], origin: dns.name.Name) -> dns.name.Name:
    name = dice.choice(owners)
    kind = dice.random()
    if kind < 0.25:
        name = _below(dice.choice(("x", "nope", "*", "www", "a.b", "ns1", "x" * 63)), name)
    elif kind < 0.35:
        name = name.parent() if len(name) > len(origin) else name
    elif kind < 0.4:
        name = _below(dice.choice(("nothing", "here", "wild")), origin)
    elif kind < 0.42:
        name = dns.name.from_text(dice.choice(("example.", ".", "www.example.com.", "xdiffer.example.")))
    if dice.random() < 0.3:
        name = dns.name.Name([bytes(_either_case(dice, octet) for octet in label) for label in name.labels])
    return name


def _either_case(dice: Random, octet: int) -> int:
    return octet ^ 0x20 if chr(octet).isascii() and chr(octet).isalpha() and dice.random() < 0.5 else octet


def _below(label: str, name: dns.name.Name) -> dns.name.Name:
    try:
        return dns.name.from_text(label, name)
    except dns.name.NameTooLong:
        return name


Section = Mapping[tuple[str, str], tuple[int, frozenset[str]]]


@dataclass(frozen=True)
class Said:
    """A reply without its id: what can be compared."""

    rcode: str
    flags: frozenset[str]
    answer: Section
    authority: Section
    additional: Section
    edns: bool
    size: int

    @classmethod
    def of(cls, wire: bytes) -> Said:
        reply = dns.message.from_wire(wire, ignore_trailing=False)
        names = frozenset(dns.flags.to_text(reply.flags).split())
        answer, authority, additional = map(_section, (reply.answer, reply.authority, reply.additional))
        return cls(dns.rcode.to_text(reply.rcode()), names, answer, authority, additional, reply.edns >= 0, len(wire))

    def parts(self) -> dict[str, object]:
        return {part: getattr(self, part) for part in ("rcode", "flags", "answer", "authority", "additional", "edns")}


def _section(rrsets: list[dns.rrset.RRset]) -> Section:
    found: dict[tuple[str, str], tuple[int, frozenset[str]]] = {}
    for rrset in rrsets:
        key = rrset.name.to_text().lower(), dns.rdatatype.to_text(rrset.rdtype)
        found[key] = rrset.ttl, frozenset(rr.to_text().lower() for rr in rrset)
    return found


def differences(ours: Said, theirs: Said) -> dict[str, tuple[object, object]]:
    """Part -> (ours, theirs) where they differ."""
    mine, other = ours.parts(), theirs.parts()
    return {part: (mine[part], other[part]) for part in mine if mine[part] != other[part]}


@dataclass(frozen=True)
class Case:
    """One question and what two servers said; `other` is the name of the second."""

    question: Question
    other: str
    ours: Said
    theirs: Said

    @property
    def is_referral(self) -> bool:
        return not self.ours.answer and "AA" not in self.ours.flags and self.ours.rcode == "NOERROR"


SECTIONS = {"answer", "authority", "additional"}
META = {"MAILA", "MAILB", "TYPE0", "NXNAME", "AXFR", "IXFR"}
OUR_LINKS = 17  # the alias that was asked for, and sixteen that are followed


def _any(case: Case) -> set[str]:
    """Another set of the same name, and what belongs to it."""
    both = len(case.ours.answer) and len(case.theirs.answer)
    return {*SECTIONS, "rcode"} if case.question.rtype == "ANY" and both else set()


def _cut(case: Case) -> set[str]:
    return SECTIONS if {"TC"} <= case.ours.flags & case.theirs.flags else set()


def _optional(case: Case) -> set[str]:
    """Addresses beside an answer; those of a referral, which are needed, are not among them."""
    known = {key: value for key, value in case.ours.additional.items() if key in case.theirs.additional}
    same = all(case.theirs.additional[key] == value for key, value in known.items())
    return {"additional"} if case.ours.answer and "TC" not in case.ours.flags and same else set()


def _nsd_apex_ns(case: Case) -> set[str]:
    apex = case.other == "nsd" and set(case.theirs.authority) == {(APEX, "NS")}
    return {"authority", "additional"} if apex and case.ours.answer and not case.ours.authority else set()


def _nsd_glue(case: Case) -> set[str]:
    cut = case.other == "nsd" and "TC" in case.ours.flags and case.theirs.authority and not case.theirs.answer
    return {"flags", *SECTIONS} if cut and len(case.theirs.additional) < 14 else set()


def _no_room_for_soa(case: Case) -> set[str]:
    cut = "TC" in case.ours.flags and case.theirs.answer and not case.theirs.authority
    return {"flags", "answer", "authority"} if cut else set()


def _any_class(case: Case) -> set[str]:
    if case.question.message.question[0].rdclass != dns.rdataclass.ANY:
        return set()
    return {"flags"} if case.other == "knot" else {"flags", "authority", "additional"}


def _meta(case: Case) -> set[str]:
    return {"rcode", "flags", *SECTIONS} if case.question.rtype in META else set()


def _knot_chain(case: Case) -> set[str]:
    links = [key for key in case.theirs.answer if key[1] == "CNAME"]
    stopped = case.other == "knot" and len(links) == 5 and set(links) < set(case.ours.answer)
    return {"answer", "authority", "additional", "rcode"} if stopped else set()


def _smaller(case: Case) -> set[str]:
    fits = "TC" in case.theirs.flags - case.ours.flags and set(case.theirs.answer) <= set(case.ours.answer)
    return {"flags", *SECTIONS} if fits else set()


def _our_chain(case: Case) -> set[str]:
    links = sum(key[1] == "CNAME" for key in case.ours.answer)
    goes_on = "TC" in case.theirs.flags or set(case.ours.answer) <= set(case.theirs.answer)
    return {"flags", "rcode", *SECTIONS} if case.other == "nsd" and links == OUR_LINKS and goes_on else set()


def _knot_too_long(case: Case) -> set[str]:
    return SECTIONS if case.other == "knot" and case.ours.rcode == case.theirs.rcode == "YXDOMAIN" else set()


def _nsd_signatures(case: Case) -> set[str]:
    asked = case.other == "nsd" and case.question.rtype in ("RRSIG", "NSEC")
    return SECTIONS | {"rcode", "flags"} if asked and any(key[1] == "CNAME" for key in case.theirs.answer) else set()


def _knot_wildcard_cut(case: Case) -> set[str]:
    cuts = {key for key in case.theirs.authority if key[1] == "NS" and key[0].startswith("*.")}
    made_up = case.other == "knot" and cuts and not cuts & case.ours.authority.keys()
    return {"rcode", "flags", *SECTIONS} if made_up else set()


def _knot_wildcard_dname(case: Case) -> set[str]:
    below = any(key[1] == "DNAME" and key[0].startswith("*.") for key in case.ours.answer)
    return {"answer"} if case.other == "knot" and below else set()


# What may differ and why: the names are those of the table in docs/conformance.md.
EXPLAINED: Mapping[str, Callable[[Case], set[str]]] = {
    "any-picks": _any,
    "tc-is-empty": _cut,
    "extra-addresses": _optional,
    "nsd-apex-ns": _nsd_apex_ns,
    "nsd-glue-without-tc": _nsd_glue,
    "soa-or-tc": _no_room_for_soa,
    "any-class": _any_class,
    "meta-types": _meta,
    "knot-five-links": _knot_chain,
    "ours-fits": _smaller,
    "our-sixteen-links": _our_chain,
    "knot-yxdomain": _knot_too_long,
    "nsd-rrsig-of-alias": _nsd_signatures,
    "knot-wildcard-cut": _knot_wildcard_cut,
    "knot-wildcard-dname": _knot_wildcard_dname,
}


def explain(case: Case) -> tuple[set[str], dict[str, tuple[object, object]]]:
    """(names of the explanations that apply, the differences that none of them covers)."""
    left, used = differences(case.ours, case.theirs), set()
    for name, covers in EXPLAINED.items():
        covered = covers(case) & left.keys()
        if covered:
            used.add(name)
            left = {part: both for part, both in left.items() if part not in covered}
    return used, left
