"""What a zone's plain records must and should be, as Problems with places.

Errors are what can't be served (two meanings for one name); warnings are what resolvers will stumble over.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from edgedns.dns import types
from edgedns.dns.name import WILDCARD, is_subdomain, suffixes, to_text
from edgedns.dns.zonetext import StaticRR
from edgedns.errors import Problem, problem

MAX_RRSET = 65_000  # a set has to fit one message (65,535 octets) with its header, question and OPT
_TARGET_AT = {types.NS: 0, types.MX: 2, types.SRV: 6}
# Types whose data ends in a name: what stands before it.
_NAME_AT = {**_TARGET_AT, types.CNAME: 0, types.DNAME: 0, types.PTR: 0}
_ADDRESS = frozenset({types.A, types.AAAA})
_SINGLE = (types.CNAME, types.DNAME)

Sets = Mapping[bytes, Mapping[int, list[StaticRR]]]


def tidy(records: Iterable[StaticRR]) -> tuple[list[StaticRR], list[Problem]]:
    """Equal records once, one TTL a set (RFC 2181 sections 5 and 5.2), and a warning for each that was changed."""
    found: list[Problem] = []
    kept: dict[tuple[bytes, int, bytes], StaticRR] = {}
    lowest: dict[tuple[bytes, int], int] = {}
    for rr in records:
        first = kept.setdefault((rr.owner, rr.type, _folded(rr)), rr)
        if first is not rr:
            found.append(problem(rr.where, "W610", f"this record is already in {_place(first, rr)}"))
        lowest[rr.owner, rr.type] = min(rr.ttl, lowest.get((rr.owner, rr.type), rr.ttl))
    told: set[tuple[bytes, int]] = set()
    for rr in kept.values():
        key = rr.owner, rr.type
        if rr.ttl != lowest[key] and key not in told:
            told.add(key)
            said = f"the {types.type_name(rr.type)} records of {_text(rr.owner)} have several TTLs: all get {lowest[key]}"
            found.append(problem(rr.where, "W609", said))
    return [rr._replace(ttl=lowest[rr.owner, rr.type]) for rr in kept.values()], found


def _folded(rr: StaticRR) -> bytes:
    """The data as it is compared: names in it without case (RFC 4343 section 3)."""
    start = _NAME_AT.get(rr.type)
    return rr.rdata if start is None else rr.rdata[:start] + rr.rdata[start:].lower()


def check(apex: bytes, records: Iterable[StaticRR], steered: Collection[bytes]) -> list[Problem]:
    """What is wrong with tidy records beside the steered names of the same zone, in no order."""
    return list(_Zone(apex, _grouped(records), frozenset(steered)).problems())


def _grouped(records: Iterable[StaticRR]) -> dict[bytes, dict[int, list[StaticRR]]]:
    sets: dict[bytes, dict[int, list[StaticRR]]] = {}
    for rr in records:
        sets.setdefault(rr.owner, {}).setdefault(rr.type, []).append(rr)
    return sets


def _text(name: bytes) -> str:
    text = to_text(name).removesuffix(".") or "."
    return text if len(text) <= 80 else text[:77] + "..."


def _place(first: StaticRR, here: StaticRR) -> str:
    line = f"line {first.where.line}"
    return line if first.where.file == here.where.file else f"{first.where.file}, {line}"


@dataclass(frozen=True)
class _Zone:
    apex: bytes
    sets: Sets
    steered: frozenset[bytes]

    def problems(self) -> Iterator[Problem]:
        for owner, of_owner in self.sets.items():
            yield from self._at(owner, of_owner)
            for rrset in of_owner.values():
                yield from self._sized(rrset)
                for rr in rrset:
                    yield from self._target(rr)
        for owner in sorted(self.steered):
            yield from self._steered_below(owner)

    def _at(self, owner: bytes, of_owner: Mapping[int, list[StaticRR]]) -> Iterator[Problem]:
        yield from self._aliases(owner, of_owner)
        yield from self._beside_steering(owner, of_owner)
        yield from self._hidden(owner, of_owner)
        yield from self._soa_below(owner, of_owner)
        if types.DS in of_owner and types.NS not in of_owner:
            yield problem(of_owner[types.DS][0].where, "W614", f"{_text(owner)} has a DS but no NS: it is not delegated")

    def _aliases(self, owner: bytes, of_owner: Mapping[int, list[StaticRR]]) -> Iterator[Problem]:
        """RFC 1034 section 3.6.2: "If a CNAME RR is present at a node, no other data should be present"."""
        if types.CNAME in of_owner and len(of_owner) > 1:
            other = next(kind for kind in of_owner if kind != types.CNAME)
            said = f"{_text(owner)} has a CNAME and so nothing else, but {types.type_name(other)} is in "
            alias = of_owner[types.CNAME][0]
            yield problem(alias.where, "E405", said + _place(of_owner[other][0], alias))
        for kind in _SINGLE:
            if len(of_owner.get(kind, ())) > 1:
                first, second, *_ = of_owner[kind]
                said = f"{_text(owner)} has more than one {types.type_name(kind)}, the first in {_place(first, second)}"
                yield problem(second.where, "E405", said)

    def _beside_steering(self, owner: bytes, of_owner: Mapping[int, list[StaticRR]]) -> Iterator[Problem]:
        if owner in self.steered:
            for kind in sorted({types.A, types.AAAA, types.CNAME} & of_owner.keys()):
                said = f"{_text(owner)} is steered: its addresses come from its rules, so no static {types.type_name(kind)}"
                yield problem(of_owner[kind][0].where, "E406", said)

    def _soa_below(self, owner: bytes, of_owner: Mapping[int, list[StaticRR]]) -> Iterator[Problem]:
        if types.SOA in of_owner and owner != self.apex:
            yield problem(of_owner[types.SOA][0].where, "E408", f"a SOA belongs to the zone's own name, not to {_text(owner)}")

    def _sized(self, rrset: list[StaticRR]) -> Iterator[Problem]:
        size = sum(len(rr.rdata) + 12 for rr in rrset)
        if size > MAX_RRSET:
            kind = types.type_name(rrset[0].type)
            said = f"the {kind} records of {_text(rrset[0].owner)} have {size} octets together, the most is {MAX_RRSET}"
            yield problem(rrset[0].where, "E415", said)

    # delegations and DNAME

    def _cut_above(self, name: bytes, itself: bool) -> bytes | None:
        """The delegation that hides `name`: one above it, or `itself` at it."""
        for each in suffixes(name):
            if len(each) <= len(self.apex):
                return None
            if types.NS in self.sets.get(each, {}) and (itself or each != name):
                return each
        return None

    def _redirect_above(self, name: bytes) -> bytes | None:
        above = (each for each in suffixes(name) if len(self.apex) <= len(each) < len(name))
        return next((each for each in above if types.DNAME in self.sets.get(each, {})), None)

    @cached_property
    def _glue(self) -> frozenset[bytes]:
        """The names that delegations need addresses of."""
        cuts = (of_owner for owner, of_owner in self.sets.items() if owner != self.apex)
        return frozenset(rr.rdata.lower() for of_owner in cuts for rr in of_owner.get(types.NS, ()))

    def _hidden(self, owner: bytes, of_owner: Mapping[int, list[StaticRR]]) -> Iterator[Problem]:
        redirect = self._redirect_above(owner)
        first = next(iter(of_owner.values()))[0]
        if redirect is not None:
            # RFC 6672 section 2.4: "Resource records MUST NOT exist at any subdomain of the owner of a DNAME RR."
            yield problem(first.where, "E412", f"{_text(owner)} lies below the DNAME at {_text(redirect)}: nothing may")
        cut = self._cut_above(owner, itself=False)
        if cut is not None and not (owner in self._glue and of_owner.keys() <= _ADDRESS):
            said = f"{_text(owner)} lies below the delegation of {_text(cut)}: only its servers' addresses are given out"
            yield problem(first.where, "W608", said)
        if owner != self.apex and types.NS in of_owner:
            beside = sorted(of_owner.keys() - {types.NS, types.DS} - (_ADDRESS if owner in self._glue else frozenset()))
            for kind in beside:
                said = f"{_text(owner)} is delegated: its {types.type_name(kind)} is hidden"
                yield problem(of_owner[kind][0].where, "W608", said)

    def _steered_below(self, owner: bytes) -> Iterator[Problem]:
        cut = self._cut_above(owner, itself=True)
        if cut is not None:
            delegation = self.sets[cut][types.NS][0]
            yield problem(delegation.where, "E411", f"this delegation hides the steered name {_text(owner)}")
        redirect = self._redirect_above(owner)
        if redirect is not None:
            alias = self.sets[redirect][types.DNAME][0]
            yield problem(alias.where, "E411", f"this DNAME hides the steered name {_text(owner)}")

    # targets

    def _target(self, rr: StaticRR) -> Iterator[Problem]:
        """RFC 2181 section 10.3: the name that an NS or MX (RFC 2782: SRV) gives has addresses and is no alias."""
        start = _TARGET_AT.get(rr.type)
        if start is None:
            return
        target = rr.rdata[start:].lower()
        if not is_subdomain(target, self.apex) or target in self.steered:
            return
        kind = types.type_name(rr.type)
        of_target = self._found(target)
        if types.CNAME in of_target:
            yield problem(rr.where, "W612", f"this {kind} names {_text(target)}, which is an alias (CNAME)")
        elif not _ADDRESS & of_target.keys():
            yield from self._without_address(rr, target, kind)

    def _without_address(self, rr: StaticRR, target: bytes, kind: str) -> Iterator[Problem]:
        cut = self._cut_above(target, itself=True)
        if cut is None:
            yield problem(rr.where, "W613", f"this {kind} names {_text(target)}, which has no address in this zone")
        elif rr.type == types.NS and cut == rr.owner:
            yield problem(rr.where, "W611", f"{_text(target)} lies in what it serves: give its address here as glue")

    def _found(self, name: bytes) -> Mapping[int, list[StaticRR]]:
        """The records of a name, or those of the wildcard that covers it (RFC 4592)."""
        for each in suffixes(name):
            source = each if each == name else WILDCARD + each
            if source in self.sets:
                return self.sets[source]
            if source in self.steered:
                return {types.A: []}
            if len(each) <= len(self.apex):
                break
        return {}
