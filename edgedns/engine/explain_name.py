"""The decision behind a steered name, told over DNS: TXT of NAME._explain.ZONE, to those whom the zone's `explain:` allows.

It is told to the asker about the asker: as any answer it goes by the client subnet, or by the resolver's address.
"""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address
from typing import TYPE_CHECKING

from edgedns.dns import types
from edgedns.dns.message import RR, Query, Response
from edgedns.dns.name import is_subdomain
from edgedns.engine.lookup import lies_in
from edgedns.engine.snapshot import EXPLAIN, Zone

if TYPE_CHECKING:
    from edgedns.model import Choice

STRING = 255


def asked_about(zone: Zone, query: Query, client: bytes) -> bytes | None:
    """The name that a question asks the decision of; None where it does not, or must not."""
    suffix = EXPLAIN + zone.apex
    name = query.folded
    if query.qtype not in (types.TXT, types.ANY) or name == suffix or not is_subdomain(name, suffix):
        return None
    return name[: -len(suffix)] + zone.apex if lies_in(client, zone.explain) else None


def told(owner: bytes, choices: Sequence[tuple[str, Choice, int]]) -> Response:
    """One TXT record for each (type, its choice, its scope); TTL 0, since the next round may decide otherwise."""
    records = tuple(RR(owner, types.TXT, 0, _strings(_fields(*choice))) for choice in choices)
    return Response(types.NOERROR, True, records)


def _fields(rtype: str, choice: Choice, scope: int) -> list[str]:
    network = choice.network.text if choice.network else ""
    reason = choice.reason.name if choice.reason is not None else ""
    fields = {
        "type": rtype,
        "provider": choice.provider or "none",
        "rule": choice.rule,
        "reason": reason,
        "network": network,
        "prefix": f"{ip_address(choice.prefix.address)}/{choice.prefix.length}" if choice.prefix else "",
        "scope": str(scope),
        "ranking": ",".join(choice.ranking),
        "unit": "" if choice.unit is None else str(choice.unit),
        "serial": str(choice.serial),
    }
    return [f"{name}={value}" for name, value in fields.items() if value]


def _strings(fields: Sequence[str]) -> bytes:
    """RFC 1035 section 3.3.14: character-strings, each a length octet and up to 255 octets."""
    octets = [field.encode()[:STRING] for field in fields]
    return b"".join(bytes((len(each),)) + each for each in octets)
