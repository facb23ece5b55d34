"""The targets file: whom to probe. JSON lines, or YAML (a list, or a mapping with `targets:`).

    {"address": "203.0.113.7"}                                        probed itself, by the agent's own method
    {"address": "203.0.113.7", "endpoint": "127.80.0.1:5301"}         speaks for 203.0.113.7, packets go elsewhere
    {"asn": 64496, "endpoint": "[::1]:53", "method": "dns"}           speaks for an AS
    {"address": "2001:db8::7", "method": "tcp", "port": 443, "name": "cdn.example.net"}
    {"address": "203.0.113.7", "method": "https", "server": "www.example.com"}      whose certificate is held to that name
"""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from edgedns.errors import SourceError
from edgedns.model import METHODS, Family, Method
from edgedns.probe.measure import Endpoint

SIZE_LIMIT = 64 << 20
TARGETS_LIMIT = 1_000_000
MISTAKES_SHOWN = 20
YAML_DEPTH = 8
PORTS: dict[Method, int] = {"udp": 7, "tcp": 443, "dns": 53, "icmp": 0, "http": 80, "https": 443}
KEYS = frozenset({"address", "asn", "family", "endpoint", "method", "port", "server", "name"})

_BRACKETED = re.compile(r"\[([^\]]*)\](?::(\d{1,5}))?")
_SERVER = re.compile(r"(?=.{1,253}$)[A-Za-z0-9_-]{1,63}(?:\.[A-Za-z0-9_-]{1,63})*")
_PLAIN = re.compile(r"([^:]+)(?::(\d{1,5}))?")


@dataclass(frozen=True, slots=True)
class Target:
    """Somebody to probe, whose network is that of `address`, or else `asn`.

    `family` is that of what it speaks for; the packets' own is that of `endpoint.host`.
    """

    address: str
    asn: int | None
    family: Family
    endpoint: Endpoint
    method: Method
    zone: str = ""
    label: str = ""

    @property
    def whom(self) -> str:
        """Whom it speaks for, as a collector knows it: an address, or an AS and family."""
        return self.address or f"AS{self.asn}/{self.family}"

    @property
    def network(self) -> str:
        """A label shared by the targets of one network: as labelled (`labelled`), else its AS, or its /24 (v4) or /48 (v6)."""
        if self.label:
            return self.label
        if self.asn is not None:
            return self.whom
        packed = ipaddress.ip_address(self.address).packed
        return packed[: 3 if self.family == 4 else 6].hex()


def labelled(targets: Sequence[Target], lookup: Callable[[bytes], tuple[int, str]]) -> tuple[Target, ...]:
    """The targets with the labels of their networks: (ASN, country) by an ASN table's `lookup`, inside one /16 or /32."""
    return tuple(replace(target, label=_label(target, lookup)) if target.address else target for target in targets)


def _label(target: Target, lookup: Callable[[bytes], tuple[int, str]]) -> str:
    packed = ipaddress.ip_address(target.address).packed
    asn, country = lookup(packed)
    return f"AS{asn}/{country}/{packed[: 2 if target.family == 4 else 4].hex()}" if asn else ""


class _Wrong(ValueError):
    """One entry can't be used; its text is the sentence about it."""


def load(path: Path, method: Method = "udp") -> tuple[Target, ...]:
    """The targets in a file, `method` for those that name none. SourceError names the first MISTAKES_SHOWN mistakes."""
    targets: list[Target] = []
    mistakes: list[str] = []
    for where, entry in _entries(path, _text(path)):
        try:
            targets.append(target_of(entry, method))
        except _Wrong as wrong:
            mistakes.append(f"{path}:{where}: {wrong}")
        if len(targets) > TARGETS_LIMIT:
            raise SourceError(f"{path}: more than {TARGETS_LIMIT} targets")
        if len(mistakes) == MISTAKES_SHOWN:
            break
    if mistakes:
        raise SourceError("\n".join(mistakes))
    if not targets:
        raise SourceError(f"{path}: no targets in it")
    return tuple(targets)


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(SIZE_LIMIT + 1)
    except OSError as error:
        raise SourceError(f"{path}: {error.strerror}") from None
    if len(raw) > SIZE_LIMIT:
        raise SourceError(f"{path}: over {SIZE_LIMIT >> 20} MiB")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise SourceError(f"{path}: not UTF-8 at byte {error.start + 1}") from None


def _entries(path: Path, text: str) -> Iterator[tuple[str, Any]]:
    """(where, entry) for each; JSON lines are told by the brace they begin with."""
    if text.lstrip().startswith("{"):
        return _json_lines(text)
    return _yaml_list(path, text)


def _json_lines(text: str) -> Iterator[tuple[str, Any]]:
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                yield str(number), json.loads(line)
            except (ValueError, RecursionError) as error:
                yield str(number), _Wrong(f"not JSON: {error}")


def _yaml_list(path: Path, text: str) -> Iterator[tuple[str, Any]]:
    try:
        _refuse_deep(path, text)
        tree = yaml.load(text, Loader=yaml.CSafeLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise SourceError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if isinstance(tree, dict):
        tree = tree.get("targets")
    if not isinstance(tree, list):
        raise SourceError(f"{path}: give a list of targets, or `targets:` with one")
    return ((f"target {number}", entry) for number, entry in enumerate(tree, 1))


def _refuse_deep(path: Path, text: str) -> None:
    """libyaml's loader recurses in C: enough brackets would end the process. Its parser doesn't."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > YAML_DEPTH:
            raise SourceError(f"{path}: nested deeper than {YAML_DEPTH} levels")


def target_of(entry: Any, method: Method = "udp") -> Target:
    """One entry as read from JSON or YAML; ValueError names what is wrong with it."""
    if isinstance(entry, _Wrong):
        raise entry
    if not isinstance(entry, dict):
        raise _Wrong("a target is a mapping with `address` or `asn`")
    unknown = sorted(str(key) for key in entry.keys() - KEYS)
    if unknown:
        raise _Wrong(f"unknown key {unknown[0]!r}")
    address, asn, family = _speaks_for(entry)
    chosen = _method(entry.get("method", method))
    endpoint = _endpoint(entry, chosen, address)
    zone = entry.get("name", "")
    if not isinstance(zone, str):
        raise _Wrong(f"name is not the name of a zone: {zone!r}")
    return Target(address, asn, family, endpoint, chosen, zone)


def _speaks_for(entry: dict[str, Any]) -> tuple[str, int | None, Family]:
    address, asn, family = entry.get("address"), entry.get("asn"), entry.get("family")
    if family not in (None, 4, 6):
        raise _Wrong(f"family is not 4 or 6: {family!r}")
    if address is not None:
        known = _ip(address, "address")
        if family not in (None, known.version):
            raise _Wrong(f"family is {family}, but the address is IPv{known.version}")
        # Where both are given the address says more; the sample will carry that.
        return str(known), None, 4 if known.version == 4 else 6
    if type(asn) is not int or not 0 < asn < 2**32:
        raise _Wrong("a target needs an `address`, or an `asn` that is an AS number")
    if "endpoint" not in entry:
        raise _Wrong("a target with only an `asn` needs an `endpoint`")
    return "", asn, 6 if family == 6 else 4


def _method(value: Any) -> Method:
    for method in METHODS:
        if value == method:
            return method
    raise _Wrong(f"unknown method {value!r}, it is one of {', '.join(METHODS)}")


def _endpoint(entry: dict[str, Any], method: Method, address: str) -> Endpoint:
    host, port = address, entry.get("port")
    if "endpoint" in entry:
        host, given = _split(entry["endpoint"])
        if given is not None and port is not None:
            raise _Wrong("the port is given twice, in `endpoint` and in `port`")
        port = given if given is not None else port
    if port is None:
        port = PORTS[method]
    if method == "icmp":
        port = 0
    elif type(port) is not int or not 0 < port < 65536:
        raise _Wrong(f"port is not within 1 to 65535: {port!r}")
    return Endpoint(str(_reachable(host)), port, _server(entry, method))


def _server(entry: dict[str, Any], method: Method) -> str:
    server = entry.get("server", "")
    if not isinstance(server, str) or (server and not _SERVER.fullmatch(server)):
        raise _Wrong(f"server is not the name of a host: {server!r}")
    if server and method not in ("http", "https"):
        raise _Wrong("`server` is only for `http` and `https`")
    return server


def _split(value: Any) -> tuple[str, int | None]:
    """`1.2.3.4`, `1.2.3.4:5`, `2001:db8::1`, `[2001:db8::1]:5` -> (host, port or None)."""
    if not isinstance(value, str):
        raise _Wrong(f"endpoint is not an address with a port: {value!r}")
    if value.count(":") > 1 and not value.startswith("["):
        return value, None
    found = _BRACKETED.fullmatch(value) or _PLAIN.fullmatch(value)
    if found is None:
        raise _Wrong(f"endpoint is not an address with a port: {value!r}")
    return found[1], None if found[2] is None else int(found[2])


def _reachable(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    address = _ip(host, "endpoint")
    if address.is_multicast or address.is_unspecified or str(address) == "255.255.255.255":
        raise _Wrong(f"{address} is not the address of one host")
    return address


def _ip(value: Any, key: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """IPv4-mapped addresses become IPv4; scoped ones are refused."""
    try:
        if not isinstance(value, str) or "%" in value:
            raise ValueError
        address = ipaddress.ip_address(value)
    except ValueError:
        raise _Wrong(f"{key} is not an IP address: {value!r}") from None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address
