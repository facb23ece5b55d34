"""Messages: bytes -> Query, and (Query, Response) -> bytes. The only module that imports dnslib.

dnslib keeps the header, the question and the records; names are read and written here, because dnslib takes only
UTF-8 in labels and its compression has no fixed rule. OPT is `edns`'s: dnslib drops an empty option that comes last.

Compression rule, the same for every question so that a reply's body can be prebuilt (`Tail`). A name points to
 (a) the question's name at offset 12, only where it is an owner equal to it;
 (b) the zone apex inside the question's name, after its own labels;
 (c) a name or suffix written earlier in the body, unless that takes a reader through too many pointers;
and never to another suffix of the question's name.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import dnslib
from dnslib import RD, DNSHeader, DNSLabel, DNSQuestion
from dnslib.buffer import BufferError as DnslibBufferError
from dnslib.dns import DNSError
from dnslib.label import DNSBuffer

from edgedns.dns import edns, tsig, types
from edgedns.dns.edns import BadOption, Edns, Option
from edgedns.dns.name import BadName, fold, is_subdomain, labels, scan

HEADER = 12
_FIXED = 10  # octets of a record between its owner and its RDATA
# A pointer has 14 bits; what lies beyond for the longest question (255 + 4 octets) is never pointed to.
_REACH = 0x3FFF - HEADER - 255 - 4
_POINTER = 0xC000
_AT_QNAME = _POINTER | HEADER
# Of pointers to pointers the least patient readers of names take ten: an owner takes one more than these.
_HOPS = 8

# RFC 3597 section 4: only names in the RDATA of the types of RFC 1035 are compressed: type -> octets before the names.
_NAMES_AFTER = {types.NS: 0, types.CNAME: 0, types.PTR: 0, types.SOA: 0, types.MX: 2}
_NAME_COUNT = {types.SOA: 2}


class Query(NamedTuple):
    """A question to be answered. `qname` is as sent, `folded` in lower-case, `question` the section as sent."""

    id: int
    opcode: int
    rd: bool
    cd: bool
    qname: bytes
    folded: bytes
    qtype: int
    qclass: int
    edns: Edns | None
    question: bytes


class Malformed(NamedTuple):
    """A message that is answered with `rcode` and no records, whatever the zones say.

    `rcode` is FORMERR, NOTIMP, BADVERS or NOTAUTH; NOERROR where nothing was asked but a cookie (RFC 7873 section 5.4).
    `question` is empty where it could not be read or the opcode is not QUERY. `why` is for logs. `tsig` is the TSIG record
    that a reply of NOTAUTH has, if there is room for it.
    """

    id: int
    opcode: int
    rd: bool
    rcode: int
    edns: Edns | None
    question: bytes
    why: str
    tsig: bytes = b""


class RR(NamedTuple):
    """A record of its Response's class. `owner` is folded; `rdata` uncompressed wire form."""

    owner: bytes
    type: int
    ttl: int
    rdata: bytes


class Response(NamedTuple):
    """What is answered, as a value. The first `required` additional records are glue that must not be left out.

    `rcode` may be an extended one (only for a query with EDNS); `apex` is the zone's, empty where there is none.
    `klass` is that of all records; `error` the code of an extended error (RFC 8914) that tells more than the rcode.
    """

    rcode: int = types.NOERROR
    aa: bool = False
    answer: tuple[RR, ...] = ()
    authority: tuple[RR, ...] = ()
    additional: tuple[RR, ...] = ()
    apex: bytes = b""
    required: int = 0
    klass: int = types.IN
    error: int | None = None


class _Reader(DNSBuffer):  # type: ignore[misc]
    """dnslib's buffer over a query, reading names by our rules."""

    data: bytearray
    offset: int

    def decode_name(self, last: int = -1) -> DNSLabel:
        """The uncompressed name here. A query has nothing its name could point to. Raises BadName."""
        start = self.offset
        self.offset = scan(self.data, start)
        return DNSLabel(labels(bytes(self.data[start : self.offset])))

    def skip_name(self) -> bool:
        """Go past a record's owner, compressed or not; was it the root, written out?"""
        start = self.offset
        while (length := self.unpack("!B")[0]) and length < 0xC0:
            if length > 63:
                raise BadName("a reserved label type")
            self.get(length)
        if length:
            self.get(1)
        return not length and self.offset == start + 1


def parse(packet: bytes) -> Query | Malformed | None:
    """What `packet` asks; None means silence. Never raises, whatever the bytes.

    RFC 8906 is about what must not go unanswered: only what has no header, or is no query (QR set, and replying to
    that could make two servers answer each other for ever), gets silence.
    """
    if len(packet) < HEADER:
        return None
    reader = _Reader(packet)
    header = DNSHeader.parse(reader)
    if header.qr:
        return None
    found = _Parts()
    try:
        _read(reader, header, found)
    except (BadName, DNSError, DnslibBufferError) as mistake:
        found.blame(str(mistake))
    rcode = _verdict(header, found)
    if rcode is None and found.asked is not None:
        qname, qtype, qclass = found.asked
        flags = bool(header.rd), bool(header.cd)
        return Query(header.id, header.opcode, *flags, qname, fold(qname), qtype, qclass, found.edns, found.question)
    # Only of QUERY is it known that what follows the header is a question that can be given back (RFC 8906 section 8.1.4).
    question = found.question if header.opcode == types.QUERY else b""
    signed = found.tsig if rcode == types.NOTAUTH else b""
    return Malformed(header.id, header.opcode, bool(header.rd), rcode or 0, found.edns, question, found.why, signed)


class _Parts:
    """What has been read of a message so far, kept when the rest turns out to be broken; `why` it is, if it is."""

    __slots__ = ("asked", "edns", "question", "tsig", "why")

    def __init__(self) -> None:
        self.asked: tuple[bytes, int, int] | None = None
        self.question = b""
        self.edns: Edns | None = None
        self.tsig = b""
        self.why = ""

    def blame(self, why: str) -> None:
        """Note a mistake that earns a FORMERR; the first one is kept."""
        self.why = self.why or why


def _verdict(header: DNSHeader, found: _Parts) -> int | None:
    """The rcode that this message earns by its form alone, or None: look the question up."""
    # RFC 8906 section 8.1.4: "there is only one possible rcode that makes sense to return to a request with an unknown
    # opcode, and that is NOTIMP", whatever follows the header.
    if header.opcode != types.QUERY:
        return types.NOTIMP
    if found.why:
        return types.FORMERR
    # RFC 6891 section 6.1.3: "If a responder does not implement the VERSION level of the request, then it MUST
    # respond with RCODE=BADVERS."
    if found.edns is not None and found.edns.version != edns.VERSION:
        return types.BADVERS
    # RFC 8945 section 5.2.1: "If a non-forwarding server does not recognize the key or algorithm used by the client [...] the
    # server MUST generate an error response with RCODE 9 (NOTAUTH) and TSIG ERROR 17 (BADKEY)." We know none.
    if found.tsig:
        return types.NOTAUTH
    return None if found.asked is not None else types.NOERROR


def _read(reader: _Reader, header: DNSHeader, found: _Parts) -> None:
    """Read the whole message into `found`. Raises where it can't go on: BadName or what dnslib raises.

    RFC 6891 section 6.1.1: "If an OPT record is present in a received request, compliant responders MUST include an OPT
    record in their respective responses": so a mistake that can be read past doesn't end the reading.
    """
    # RFC 9619 section 4: "A DNS message with OPCODE = 0 and QDCOUNT > 1 MUST be treated as an incorrectly formatted
    # message." Its questions are not read: thousands fit in one.
    if header.q > 1:
        found.blame("more than one question")
        return
    if header.q:
        _read_question(reader, found)
    qtype = found.asked[1] if found.asked else 0
    # RFC 1995 section 3: an IXFR query has the client's SOA in its authority section; no other query has anything there.
    if header.a or (header.auth and qtype != types.IXFR):
        found.blame("records in the answer or authority section of a query")
    for _ in range(header.a + header.auth):
        if _read_record(reader)[1] in (types.OPT, types.TSIG):
            found.blame("an OPT or TSIG record outside the additional section")
    for left in reversed(range(header.ar)):
        _read_additional(reader, found, not left)
    if reader.remaining():
        found.blame("octets after the end of the message")
    if not header.q:
        _check_no_question(found)


def _read_question(reader: _Reader, found: _Parts) -> None:
    question = DNSQuestion.parse(reader)
    found.question = bytes(reader.data[HEADER : reader.offset])
    found.asked = found.question[:-4], question.qtype, question.qclass


def _check_no_question(found: _Parts) -> None:
    # RFC 7873 section 5.4: "the QUERY opcode behavior is extended to support queries with an empty Question Section
    # (a QDCOUNT of zero (0)), provided that an OPT record is present with a COOKIE option."
    if found.edns is None or (found.edns.cookie is None and found.edns.version == edns.VERSION):
        found.blame("no question")


def _read_record(reader: _Reader) -> tuple[bool, int, int, int, bytes]:
    """One record as (owner is the root, type, class, TTL, RDATA)."""
    at_root = reader.skip_name()
    type_, class_, ttl, size = reader.unpack("!HHIH")
    return at_root, type_, class_, ttl, reader.get(size)


def _read_additional(reader: _Reader, found: _Parts, last: bool) -> None:
    """One additional record: OPT and TSIG are kept, any other passed over."""
    start = reader.offset
    at_root, type_, class_, ttl, rdata = _read_record(reader)
    if type_ == types.TSIG:
        _read_tsig(reader, found, start, reader.offset - len(rdata) - _FIXED, last)
    if type_ != types.OPT:
        return
    # RFC 6891 section 6.1.1: "If a query message with more than one OPT RR is received, a FORMERR (RCODE=1) MUST be
    # returned."
    if found.edns is not None:
        found.blame("two OPT records")
        return
    # Section 6.1.2: its NAME "MUST be 0 (root domain)".
    if not at_root:
        found.blame("an OPT record that is not at the root")
    # First without its options: where those are broken the reply has an OPT none the less.
    found.edns = edns.parse(class_, ttl, b"")
    try:
        found.edns = edns.parse(class_, ttl, rdata)
    except BadOption as mistake:
        found.blame(str(mistake))


def _read_tsig(reader: _Reader, found: _Parts, start: int, field: int, last: bool) -> None:
    # RFC 8945 section 5.1: "If multiple TSIG records are detected or a TSIG record is present in any other position, the DNS
    # message is dropped and a response with RCODE 1 (FORMERR) MUST be returned."
    made = tsig.refusal(bytes(reader.data), start, field, HEADER + len(found.question)) if last else None
    if made is None:
        found.blame("a TSIG record that can't be read, or is not the last")
    found.tsig = made or b""


class Tail(NamedTuple):
    """A reply's octets between its question and its OPT record, as they are for one length of question.

    `counts` are those of the answer, authority and additional sections (without OPT). `pointers` are the offsets,
    within `body`, of compression pointers that move with the question's length; those to the question's own name
    don't. `cuts` are the (octets, additional records) at which `body` may end, ascending, the whole last.
    """

    counts: tuple[int, int, int]
    body: bytes
    pointers: tuple[int, ...]
    cuts: tuple[tuple[int, int], ...]

    def shifted(self, by: int) -> bytes:
        """`body` as it is for a question that is `by` octets longer (or, if negative, shorter)."""
        if not by:
            return self.body
        moved = bytearray(self.body)
        for at in self.pointers:
            moved[at : at + 2] = (int.from_bytes(moved[at : at + 2], "big") + by).to_bytes(2, "big")
        return bytes(moved)


TRUNCATED = Tail((0, 0, 0), b"", (), ((0, 0),))


def fit(tail: Tail, room: int) -> Tail:
    """As much of `tail` as `room` octets can hold, or TRUNCATED, which asks for TC.

    Additional records that are not required go first, whole RRsets from the end; what is required stays, or nothing
    does. RFC 9471 section 3.1: "when a name server generates a referral response, it MUST include all available glue
    records for in-domain name servers in the additional section", or it "MUST set TC=1 if constrained by message size".
    """
    if len(tail.body) <= room:
        return tail
    for size, additional in reversed(tail.cuts):
        if size <= room:
            counts = (*tail.counts[:2], additional)
            cuts = tuple(cut for cut in tail.cuts if cut[0] <= size)
            return Tail(counts, tail.body[:size], tuple(at for at in tail.pointers if at < size), cuts)
    return TRUNCATED


class _Writer(DNSBuffer):  # type: ignore[misc]
    """dnslib's buffer for a reply's body, compressing names by this module's rule.

    Offsets inside are of the body; `base` is where it begins in the message.
    """

    def __init__(self, qname: bytes, apex: bytes) -> None:
        super().__init__()
        self.base = HEADER + len(qname) + 4
        self.pointers: list[int] = []
        self.qname = tuple(labels(fold(qname)))
        # Names written so far: where, and how many pointers a reader follows from there.
        self.known: dict[tuple[bytes, ...], tuple[int, int]] = {}
        if len(apex) > 1 and is_subdomain(fold(qname), apex):
            self.known[tuple(labels(apex))] = HEADER + len(qname) - len(apex), 0

    def encode_name(self, name: DNSLabel) -> None:
        """Write the owner of a record (dnslib calls it for nothing else here)."""
        if tuple(fold(label) for label in name.label) == self.qname:
            self.pack("!H", _AT_QNAME)
        else:
            self.encode_target(name.label, _HOPS)

    def encode_target(self, parts: Sequence[bytes], most: int = _HOPS - 1) -> None:
        """Write a name by rules (b) and (c); where it points to at most `most` pointers follow."""
        folded = tuple(fold(label) for label in parts)
        places, hops = [], 0
        for at, label in enumerate(parts):
            target, further = self.known.get(folded[at:], (0, most + 1))
            if further <= most:
                self.pointers.append(self.offset)
                self.pack("!H", _POINTER | target)
                hops = further + 1
                break
            places.append(self.offset)
            self.append(bytes((len(label),)) + label)
        else:
            self.append(b"\0")
        for at, place in enumerate(places):
            if place <= _REACH:
                self.known[folded[at:]] = self.base + place, hops


class _WireRD(RD):  # type: ignore[misc]
    """RDATA in uncompressed wire form, whose names are compressed where RFC 3597 allows it."""

    def __init__(self, type_: int, rdata: bytes) -> None:
        super().__init__(rdata)
        self.type = type_

    def pack(self, buffer: _Writer) -> None:
        at = 0
        for start, end in name_spans(self.type, self.data):
            buffer.append(self.data[at:start])
            buffer.encode_target(labels(self.data[start:end]))
            at = end
        buffer.append(self.data[at:])


def name_spans(type_: int, rdata: bytes) -> list[tuple[int, int]]:
    """Where the compressible names of this RDATA begin and end; none if it is not well-formed."""
    if type_ not in _NAMES_AFTER:
        return []
    spans = []
    at = _NAMES_AFTER[type_]
    try:
        for _ in range(_NAME_COUNT.get(type_, 1)):
            end = scan(rdata, at)
            spans.append((at, end))
            at = end
    except BadName:
        return []
    return spans


def encode_tail(qname: bytes, response: Response) -> Tail:
    """The body of `response` to a question for `qname` (any case).

    For another `qname` that meets the same response (a wildcard's owners differ, NXDOMAIN has none) `Tail.shifted`
    by the difference in length gives the octets that this function would.
    """
    writer = _Writer(qname, response.apex)
    for record in (*response.answer, *response.authority):
        _write(writer, record, response.klass)
    cuts = [(writer.offset, 0)] if not response.required else []
    for count, (record, last) in enumerate(_with_last(response.additional), 1):
        _write(writer, record, response.klass)
        if last and count >= response.required:
            cuts.append((writer.offset, count))
    counts = len(response.answer), len(response.authority), len(response.additional)
    return Tail(counts, bytes(writer.data), tuple(writer.pointers), tuple(cuts))


def _with_last(records: Sequence[RR]) -> Iterator[tuple[RR, bool]]:
    """Each record, and whether its RRset ends there."""
    for at, record in enumerate(records):
        yield record, at + 1 == len(records) or records[at + 1][:2] != record[:2]


def _write(writer: _Writer, record: RR, klass: int) -> None:
    rdata = _WireRD(record.type, record.rdata)
    dnslib.RR(DNSLabel(labels(record.owner)), record.type, klass, record.ttl, rdata).pack(writer)


def encode(query: Query | Malformed, response: Response, limit: int, options: Sequence[Option] = ()) -> bytes:
    """The reply's octets, at most `limit` of them, OPT included (present if the query had one).

    What doesn't fit is dropped or truncated as `fit` says; a header, question and OPT beyond `limit` are not cut.
    """
    tail = TRUNCATED
    if response.answer or response.authority or response.additional:
        tail = encode_tail(query.question[:-4], response)
    return assemble(query, response.rcode, response.aa, tail, limit, options)


def assemble(
    query: Query | Malformed, rcode: int, aa: bool, full: Tail, limit: int, options: Sequence[Option] = ()
) -> bytes:
    """`encode` for a body that is already made for this question's length."""
    opt = b"" if query.edns is None else edns.encode(query.edns.do, rcode, options)
    tail = fit(full, limit - HEADER - len(query.question) - len(opt))
    truncated = tail is TRUNCATED and full is not TRUNCATED
    signed = query.tsig if isinstance(query, Malformed) else b""
    if HEADER + len(query.question) + len(opt) + len(signed) > limit:
        signed = b""
    header = _header(query, rcode, aa, truncated, tail.counts, bool(opt) + bool(signed))
    return header + query.question + tail.body + opt + signed


def _header(
    query: Query | Malformed, rcode: int, aa: bool, tc: bool, counts: tuple[int, int, int], more: int
) -> bytes:
    """The reply's header, with so many `more` additional records. Of the query's flags only RD comes back.

    RFC 1035 section 4.1.1: RD "is copied into the response"; Z "Must be zero in all queries and responses".
    RFC 4035 section 3.1.6: "A security-aware name server SHOULD clear the CD bit when composing an authoritative
    response", and AD is not ours to set.
    """
    out = DNSBuffer()
    answers, authorities, additionals = counts
    header = DNSHeader(query.id, 0, bool(query.question), answers, authorities, additionals + more)
    header.qr, header.opcode, header.aa, header.tc, header.rd = 1, query.opcode, aa, tc, query.rd
    header.rcode = rcode & 0xF
    header.pack(out)
    return bytes(out.data)
