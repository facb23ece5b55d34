"""What new rules would change in the answers that clients get: two snapshots are asked the same questions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any, NamedTuple

from edgedns.dns import name as names
from edgedns.dns import types
from edgedns.dns.zonetext import rdata_text
from edgedns.engine.answer import answer
from edgedns.engine.explain import Question, prefix_text, query_of
from edgedns.engine.snapshot import Snapshot


class Asked(NamedTuple):
    """A question, and how much it weighs beside the others."""

    question: Question
    weight: float = 1.0


@dataclass(slots=True)
class Move:
    """Questions for one name and type that are answered otherwise in one way; `example` is the heaviest of them."""

    name: str
    type: str
    before: str
    after: str
    weight: float = 0.0
    questions: int = 0
    example: str = ""
    heaviest: float = field(default=-1.0, repr=False)


@dataclass(frozen=True, slots=True)
class Compared:
    """What became of `questions` of a `weight`; the moves are sorted by weight."""

    questions: int
    weight: float
    moves: Sequence[Move]

    def told(self) -> dict[str, Any]:
        """As JSON, weights as shares of all that was asked."""
        whole = self.weight or 1.0
        moves = [
            {"name": one.name, "type": one.type, "before": one.before, "after": one.after,
             "share": round(one.weight / whole, 6), "questions": one.questions, "example": one.example}
            for one in self.moves
        ]  # fmt: skip
        return {"questions": self.questions, "changed": round(sum(one.weight for one in self.moves) / whole, 6), "moves": moves}


def compare(before: Snapshot, after: Snapshot, asked: Iterable[Asked], now: float) -> Compared:
    """Ask both snapshots the same questions, by the reference path."""
    moves: dict[tuple[str, str, str, str], Move] = {}
    count, weight = 0, 0.0
    for question, share in asked:
        count, weight = count + 1, weight + share
        was, will = _given(before, question, now), _given(after, question, now)
        if was == will:
            continue
        told = _told_apart(was, will)
        key = names.to_text(names.fold(question.name)), types.type_name(question.qtype), *told
        move = moves.setdefault(key, Move(*key))
        move.weight += share
        move.questions += 1
        if share > move.heaviest:
            move.heaviest, move.example = share, _client(question)
    return Compared(count, weight, sorted(moves.values(), key=lambda move: (-move.weight, move.name, move.type)))


class _Given(NamedTuple):
    """What an answer gives, TTLs aside."""

    provider: str
    rcode: int
    records: frozenset[tuple[bytes, int, bytes]]

    @property
    def text(self) -> str:
        if self.provider or self.rcode:
            return self.provider or types.rcode_name(self.rcode)
        return "plain records" if self.records else "NODATA"


def _given(snapshot: Snapshot, question: Question, now: float) -> _Given:
    given, choice = answer(snapshot, query_of(question), question.client, now)
    records = frozenset((rr.owner, rr.type, rr.rdata) for rr in given.response.answer if rr.type != types.SOA)
    return _Given(choice.provider, given.response.rcode, records)


def _told_apart(was: _Given, will: _Given) -> tuple[str, str]:
    """Both in words; where these are alike, the records differ."""
    if was.text != will.text:
        return was.text, will.text
    return _with_records(was, will), _with_records(will, was)


def _with_records(one: _Given, other: _Given) -> str:
    own = sorted(_text_of(owner, rtype, rdata) for owner, rtype, rdata in one.records - other.records)
    return f"{one.text} ({', '.join(own) or 'fewer records'})"


def _text_of(owner: bytes, rtype: int, rdata: bytes) -> str:
    if rtype in (types.A, types.AAAA):
        return str(ip_address(rdata))
    return f"{names.to_text(owner)} {types.type_name(rtype)} {rdata_text(rtype, rdata)}"


def _client(question: Question) -> str:
    return prefix_text(question.subnet) if question.subnet else str(ip_address(question.client))
