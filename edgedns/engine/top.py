"""Who asks most, for what, and what they are told: a sample of the queries, counted by name, network, client and answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from ipaddress import ip_address
from typing import Any, TypeVar

from edgedns.dns import name as names
from edgedns.dns import types
from edgedns.engine.seen import STEP, Chosen, Seen
from edgedns.model import NetworkKey

Key = TypeVar("Key", bound=Hashable)
NetworkOf = Callable[[bytes], NetworkKey | None]


def top(
    found: Sequence[Seen],
    chosen: Sequence[Chosen | None],
    network_of: NetworkOf,
    as_names: Mapping[int, str],
    seconds: float,
    limit: int,
) -> dict[str, Any]:
    """The first `limit` of each kind as JSON (its form: edgedns/web/openapi.json); `found` are samples of `seconds`.

    A network is that of the client subnet, or of the client where it forwarded none.
    """
    networks = (network_of(one.subnet or one.client) or NetworkKey(0) for one in found)
    return {
        "seconds": round(seconds, 1),
        "samples": len(found),
        "rate": round(len(found) * STEP / seconds, 1) if seconds else 0.0,
        "names": _first(Counter((one.name, one.qtype) for one in found), limit, _name),
        "networks": _first(Counter(networks), limit, lambda key: _network(key, as_names)),
        "clients": _first(Counter(one.client for one in found), limit, lambda key: {"client": str(ip_address(key))}),
        "answers": _first(Counter(one for one in chosen if one is not None), limit, lambda one: dict(one._asdict())),
        "rcodes": _first(Counter(one.rcode for one in found), limit, lambda key: {"rcode": types.rcode_name(key)}),
        "forwarded": sum(1 for one in found if one.subnet),
        "proven": sum(one.proven for one in found),
        "tcp": sum(one.tcp for one in found),
    }


def _first(counted: Counter[Key], limit: int, told: Callable[[Key], dict[str, Any]]) -> list[dict[str, Any]]:
    return [{**told(key), "samples": count} for key, count in counted.most_common(limit)]


def _name(key: tuple[bytes, int]) -> dict[str, Any]:
    """What was asked; a packet that was refused by its form has neither."""
    name, qtype = key
    return {"name": names.to_text(name) if name else "", "type": types.type_name(qtype) if qtype else ""}


def _network(key: NetworkKey, as_names: Mapping[int, str]) -> dict[str, Any]:
    return {"network": key.text, "asn": key.asn or None, "as_name": as_names.get(key.asn)}
