"""Process settings, frozen: what the command line, `--config FILE` and the environment say together."""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from edgedns.errors import EdgednsError

MAX_WORKERS = 64
MAX_LISTEN = 126  # two sockets each; workers are passed theirs in one message, of 253 descriptors at most (SCM_MAX_FD)
MAX_IDENTITY = 63
TOKEN_VARIABLE = "EDGEDNS_TOKEN"
OPTIONS = (
    *("rules", "listen", "admin", "asn", "demand", "identity", "state", "workers"),
    *("rate-limit", "cookie-secret-file", "token-file", "vantage-tokens"),
    *("targets-list", "targets-method", "opt-out"),
)
LISTS = ("listen", "targets-list")  # those that may be given several times
TARGETS_METHODS = ("icmp", "dns", "tcp")


class SettingsError(EdgednsError):
    """An option, a --config file or the environment says something that can't be done; one sentence."""


class Address(NamedTuple):
    """Where to listen: an IP address in text and a port; port 0 asks for a free one."""

    host: str
    port: int

    @property
    def family(self) -> socket.AddressFamily:
        return socket.AF_INET6 if ":" in self.host else socket.AF_INET

    @property
    def is_loopback(self) -> bool:
        return ipaddress.ip_address(self.host).is_loopback

    @property
    def is_wildcard(self) -> bool:
        return ipaddress.ip_address(self.host).is_unspecified

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


DEFAULT_LISTEN = (Address("127.0.0.1", 5300),)
DEFAULT_ADMIN = Address("127.0.0.1", 8053)


def parse_address(text: str) -> Address:
    """ADDR:PORT, an IPv6 address in brackets. SettingsError says what is wrong with it."""
    host, colon, port = text.strip().rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    if not colon or not host or (":" in host and not bracketed):
        raise SettingsError(f"'{text}' is not ADDR:PORT, such as 127.0.0.1:5300 or [::1]:5300")
    host = host[1:-1] if bracketed else host
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        raise SettingsError(f"'{host}' in '{text}' is not an IP address") from None
    if bracketed != (address.version == 6):
        raise SettingsError(f"'{text}': brackets are for IPv6 addresses")
    if not (port.isascii() and port.isdigit() and int(port) < 65536):
        raise SettingsError(f"'{port}' in '{text}' is not a port (0 to 65535)")
    return Address(str(address), int(port))


def default_state(environ: Mapping[str, str], root: bool) -> Path:
    """/var/lib/edgedns as root, else `edgedns` in the XDG state folder."""
    if root:
        return Path("/var/lib/edgedns")
    named = environ.get("XDG_STATE_HOME", "")
    # The XDG base directory specification: relative paths are to be ignored.
    base = Path(named) if named.startswith("/") else Path(environ.get("HOME", "/")) / ".local" / "state"
    return base / "edgedns"


def default_workers() -> int:
    """One for each CPU that this process may use."""
    return min(len(os.sched_getaffinity(0)), MAX_WORKERS)


@dataclass(frozen=True, slots=True)
class Settings:
    """What `edgedns serve` runs with. Without a token the admin side is on loopback only, or off (None).

    `identity` is what NSID and CHAOS queries are told; empty for nothing.
    """

    rules: Path | None = None
    listen: tuple[Address, ...] = DEFAULT_LISTEN
    admin: Address | None = DEFAULT_ADMIN
    asn: Path | None = None
    demand: Path | None = None
    identity: str = field(default_factory=socket.gethostname)
    state: Path = field(default_factory=lambda: default_state(os.environ, os.geteuid() == 0))
    workers: int = field(default_factory=default_workers)
    rate_limit: str = ""  # as engine.limit reads it, empty for its default
    cookie_secret_file: Path | None = None
    targets_list: tuple[str, ...] = ()  # FILE or FILE:COLUMN
    targets_method: str = TARGETS_METHODS[0]
    opt_out: Path | None = None
    token: str = field(default="", repr=False)
    vantage_tokens: Path | None = None

    def __post_init__(self) -> None:
        if not self.listen:
            raise SettingsError("there is no address to listen on: give --listen ADDR:PORT")
        if len(self.listen) > MAX_LISTEN:
            raise SettingsError(
                f"{len(self.listen)} --listen addresses, and at most {MAX_LISTEN} are possible: 0.0.0.0 and [::] are all"
            )
        if len(set(self.listen)) != len(self.listen):
            raise SettingsError("the same --listen address is given twice")
        if not 1 <= self.workers <= MAX_WORKERS:
            raise SettingsError(f"--workers is {self.workers}, and 1 to {MAX_WORKERS} are possible")
        if self.targets_method not in TARGETS_METHODS:
            raise SettingsError(f"--targets-method is {self.targets_method!r}, and {', '.join(TARGETS_METHODS)} are possible")
        if self.admin and not self.token and not self.admin.is_loopback:
            raise SettingsError(
                f"--admin {self.admin} can be reached from outside: give a token (--token-file or {TOKEN_VARIABLE}),"
                " or listen on 127.0.0.1"
            )


Value = str | Sequence[str]


def load(
    options: Mapping[str, object],
    environ: Mapping[str, str] = os.environ,
    config: Path | None = None,
    *,
    root: bool | None = None,
) -> Settings:
    """Settings from `options` (long names, with or without dashes, None = not given), over `config`, over `environ`.

    SettingsError names the option or the file and line.
    """
    given: dict[str, Value] = {"state": str(default_state(environ, os.geteuid() == 0 if root is None else root))}
    if config:
        given.update(read_config(config))
    for name, value in options.items():
        if value is not None and value != () and value != []:
            given[name.replace("_", "-")] = [str(item) for item in value] if isinstance(value, list | tuple) else str(value)
    return _settings(given, environ)


def _settings(given: Mapping[str, Value], environ: Mapping[str, str]) -> Settings:
    admin = _one(given, "admin")
    workers, token_file = _one(given, "workers"), _one(given, "token-file")
    return Settings(
        rules=_path(given, "rules"),
        listen=tuple(parse_address(text) for text in _several(given, "listen")) or DEFAULT_LISTEN,
        admin=None if admin == "off" else parse_address(admin) if admin else DEFAULT_ADMIN,
        asn=_path(given, "asn"),
        demand=_path(given, "demand"),
        identity=_identity(_one(given, "identity")),
        state=_path(given, "state") or Path("."),
        workers=_count(workers) if workers else default_workers(),
        rate_limit=_one(given, "rate-limit"),
        cookie_secret_file=_path(given, "cookie-secret-file"),
        targets_list=tuple(_several(given, "targets-list")),
        targets_method=_one(given, "targets-method") or TARGETS_METHODS[0],
        opt_out=_path(given, "opt-out"),
        vantage_tokens=_path(given, "vantage-tokens"),
        token=read_token(Path(token_file) if token_file else None, environ),
    )


def _one(given: Mapping[str, Value], name: str) -> str:
    value = given.get(name, "")
    if not isinstance(value, str):
        raise SettingsError(f"{name} takes one value, not a list")
    return value


def _several(given: Mapping[str, Value], name: str) -> list[str]:
    value = given.get(name, "")
    return [text for text in ([value] if isinstance(value, str) else value) if text]


def _path(given: Mapping[str, Value], name: str) -> Path | None:
    value = _one(given, name)
    return Path(value).absolute() if value else None


def _identity(text: str) -> str:
    """What the node is called by those who ask over DNS (RFC 4892, 5001): empty where it is to stay unnamed."""
    if len(text) > MAX_IDENTITY or not all("!" <= char <= "~" for char in text):
        raise SettingsError(f"--identity takes one word of at most {MAX_IDENTITY} printable ASCII characters, or off")
    return "" if text == "off" else text or socket.gethostname()


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise SettingsError(f"--workers takes a whole number, not '{text}'")
    return int(text)


def read_token(path: Path | None, environ: Mapping[str, str] = os.environ) -> str:
    """The token that a file holds, else the environment; empty where neither is. SettingsError never shows what is there.

    RFC 6750 section 2.1 lets a bearer token have no spaces and no controls.
    """
    where, text = TOKEN_VARIABLE, environ.get(TOKEN_VARIABLE, "")
    if path is not None:
        where = f"the token file {path}"
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            raise SettingsError(f"{where} can't be read: {error.strerror}") from None
        if not text.strip():
            raise SettingsError(f"{where} is empty")
    text = text.strip()
    if not all("!" <= char <= "~" for char in text):
        raise SettingsError(f"{where} holds something else than one word of printable ASCII")
    return text


def read_config(path: Path) -> dict[str, Value]:
    """The long options' names and their values, all text. SettingsError as `file:line: what`.

    Scalars are read as text, so that no YAML 1.1 rule turns 010 or a port into something else.
    """
    import yaml  # not at the top: serving processes import this module for Address

    try:
        node = yaml.compose(path.read_text(encoding="utf-8"), Loader=yaml.CBaseLoader)
    except OSError as error:
        raise SettingsError(f"{path} can't be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path} is not YAML: {' '.join(str(error).split())}") from None
    if node is None:
        return {}
    if not isinstance(node, yaml.MappingNode):
        raise SettingsError(f"{path}: expected options, such as `workers: 2`")
    found: dict[str, Value] = {}
    for key, value in node.value:
        where = f"{path}:{key.start_mark.line + 1}"
        name = _known_option(str(key.value), where)
        if name in found:
            raise SettingsError(f"{where}: '{name}' is given twice")
        found[name] = _config_value(value, name, where)
    return found


def _config_value(node: object, name: str, where: str) -> Value:
    import yaml

    if isinstance(node, yaml.ScalarNode):
        return str(node.value)
    if name in LISTS and isinstance(node, yaml.SequenceNode) and all(isinstance(i, yaml.ScalarNode) for i in node.value):
        return [str(item.value) for item in node.value]
    raise SettingsError(f"{where}: '{name}' takes {'text or a list of it' if name in LISTS else 'one value'}")


def _known_option(name: str, where: str) -> str:
    if name in OPTIONS:
        return name
    import difflib  # not at the top, as above

    near = difflib.get_close_matches(name, OPTIONS, 1)
    hint = f", did you mean '{near[0]}'?" if near else f"; known are {', '.join(OPTIONS)}"
    raise SettingsError(f"{where}: unknown option '{name}'{hint}")
