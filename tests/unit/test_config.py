"""Settings: where each value comes from, and one sentence for each thing that is wrong."""

from __future__ import annotations

import socket
from dataclasses import FrozenInstanceError
from pathlib import Path

import pytest

from edgedns.config import (
    MAX_LISTEN,
    MAX_WORKERS,
    Address,
    Settings,
    SettingsError,
    default_state,
    default_workers,
    load,
    parse_address,
)
from edgedns.serve import handover

HOME = {"HOME": "/home/noc"}


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:5300", "127.0.0.1", 5300),
        ("[::1]:5300", "::1", 5300),
        ("[2001:DB8:0::1]:53", "2001:db8::1", 53),
        ("0.0.0.0:0", "0.0.0.0", 0),
        ("[::]:65535", "::", 65535),
    ],
)
def test_addresses(text: str, host: str, port: int) -> None:
    address = parse_address(text)
    assert address == (host, port)
    assert address.family == (socket.AF_INET6 if ":" in host else socket.AF_INET)
    assert parse_address(str(address)) == address


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("127.0.0.1", "is not ADDR:PORT"),
        (":53", "is not ADDR:PORT"),
        ("5300", "is not ADDR:PORT"),
        ("::1:53", "is not ADDR:PORT"),
        ("[::1]", "is not ADDR:PORT"),
        ("localhost:53", "'localhost' in 'localhost:53' is not an IP address"),
        ("[127.0.0.1]:53", "brackets are for IPv6"),
        ("127.0.0.1:65536", "'65536' in '127.0.0.1:65536' is not a port"),
        ("127.0.0.1:-1", "is not a port"),
        ("127.0.0.1:٣", "is not a port"),
        ("127.0.0.1:", "is not a port"),
        ("010.0.0.1:53", "is not an IP address"),
    ],
)
def test_wrong_addresses(text: str, message: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_address(text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_an_address_is() -> None:
    assert Address("127.0.0.9", 1).is_loopback
    assert Address("::1", 1).is_loopback
    assert not Address("192.0.2.1", 1).is_loopback
    assert Address("::", 1).is_wildcard
    assert not Address("::1", 1).is_wildcard


def test_defaults() -> None:
    settings = load({}, HOME, root=False)
    assert settings.listen == (("127.0.0.1", 5300),)
    assert settings.admin == ("127.0.0.1", 8053)
    assert settings.state == Path("/home/noc/.local/state/edgedns")
    assert settings.workers == default_workers() >= 1
    assert settings.token == ""
    with pytest.raises(FrozenInstanceError):
        settings.workers = 2  # type: ignore[misc]


def test_state_folder() -> None:
    assert default_state({}, True) == Path("/var/lib/edgedns")
    assert default_state({"XDG_STATE_HOME": "/srv/state", **HOME}, False) == Path("/srv/state/edgedns")
    assert default_state({"XDG_STATE_HOME": "relative", **HOME}, False) == Path("/home/noc/.local/state/edgedns")


def test_options_go_over_the_file_and_the_file_over_defaults(tmp_path: Path) -> None:
    config = tmp_path / "edgedns.yaml"
    config.write_text('workers: 2\nlisten: ["127.0.0.1:53", "[::1]:53"]\nadmin: off\nrules: /etc/edgedns\n')
    settings = load({"workers": 3, "listen": (), "asn": None}, HOME, config, root=False)
    assert settings.workers == 3
    assert settings.listen == (("127.0.0.1", 53), ("::1", 53))
    assert settings.admin is None
    assert settings.rules == Path("/etc/edgedns")
    assert load({"listen": ("127.0.0.1:54",), "admin": "127.0.0.1:1"}, HOME, config, root=False).listen == (("127.0.0.1", 54),)


def test_one_listen_address_needs_no_list(tmp_path: Path) -> None:
    config = tmp_path / "edgedns.yaml"
    config.write_text("listen: 127.0.0.1:53\n")
    assert load({}, HOME, config, root=False).listen == (("127.0.0.1", 53),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("worker: 2\n", "edgedns.yaml:1: unknown option 'worker', did you mean 'workers'?"),
        ("state: /a\n\nxyzzy: 1\n", "edgedns.yaml:3: unknown option 'xyzzy'; known are rules, listen,"),
        ("workers: 2\nworkers: 3\n", "edgedns.yaml:2: 'workers' is given twice"),
        ("workers: [2]\n", "edgedns.yaml:1: 'workers' takes one value"),
        ("listen: {a: b}\n", "edgedns.yaml:1: 'listen' takes text or a list of it"),
        ("workers: many\n", "--workers takes a whole number, not 'many'"),
        ("workers: 0\n", "--workers is 0, and 1 to 64 are possible"),
        ("- workers\n", "expected options"),
        ("workers: [\n", "is not YAML"),
        ("listen: ['127.0.0.1:53', '127.0.0.1:53']\n", "the same --listen address is given twice"),
        ("admin: 192.0.2.1:8053\n", "can be reached from outside: give a token"),
    ],
)
def test_wrong_config_files(tmp_path: Path, text: str, message: str) -> None:
    config = tmp_path / "edgedns.yaml"
    config.write_text(text)
    with pytest.raises(SettingsError) as caught:
        load({}, HOME, config, root=False)
    assert message in str(caught.value)


def test_yaml_turns_no_value_into_another(tmp_path: Path) -> None:
    config = tmp_path / "edgedns.yaml"
    config.write_text("workers: 010\nstate: 1:30\n")
    settings = load({}, HOME, config, root=False)
    assert settings.workers == 10
    assert settings.state.name == "1:30"


def test_where_targets_come_from(tmp_path: Path) -> None:
    config = tmp_path / "edgedns.yaml"
    config.write_text("targets-list: [hitlist.csv:addr, anchors.json]\nopt-out: /etc/edgedns/opt-out\n")
    settings = load({"targets-method": "dns"}, HOME, config, root=False)
    assert settings.targets_list == ("hitlist.csv:addr", "anchors.json")
    assert (settings.targets_method, settings.opt_out) == ("dns", Path("/etc/edgedns/opt-out"))
    assert load({"targets-list": ("one",)}, HOME, config, root=False).targets_list == ("one",)
    unset = load({}, HOME, root=False)
    assert (unset.targets_list, unset.targets_method, unset.opt_out) == ((), "icmp", None)
    with pytest.raises(SettingsError, match="--targets-method is 'smtp', and icmp, dns, tcp are possible"):
        load({"targets-method": "smtp"}, HOME, root=False)


def test_missing_config_file(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="can't be read: No such file"):
        load({}, HOME, tmp_path / "none.yaml")


def test_token_comes_from_a_file_or_the_environment_and_is_never_shown(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("secret-1\n")
    named = load({"token-file": file, "admin": "0.0.0.0:8053"}, {"EDGEDNS_TOKEN": "secret-2", **HOME}, root=False)
    assert named.token == "secret-1"
    settings = load({}, {"EDGEDNS_TOKEN": "secret-2", **HOME}, root=False)
    assert settings.token == "secret-2"
    assert "secret-" not in repr(settings)


def test_a_token_of_the_environment_is_held_to_the_same() -> None:
    assert load({}, {"EDGEDNS_TOKEN": "secret-2\n", **HOME}).token == "secret-2"
    with pytest.raises(SettingsError, match=r"^EDGEDNS_TOKEN holds something else than one word"):
        load({}, {"EDGEDNS_TOKEN": "two words", **HOME})


@pytest.mark.parametrize("content", [b"", b"\n", b"two words", b"caf\xc3\xa9", b"a\x00b"])
def test_tokens_that_cannot_be_sent_are_refused_without_showing_them(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "token"
    file.write_bytes(content)
    with pytest.raises(SettingsError) as caught:
        load({"token_file": str(file)}, HOME)
    assert str(file) in str(caught.value)
    assert "two words" not in str(caught.value)


def test_settings_check_themselves() -> None:
    with pytest.raises(SettingsError, match="no address to listen on"):
        Settings(listen=())
    with pytest.raises(SettingsError, match="--workers"):
        Settings(workers=MAX_WORKERS + 1)


def test_workers_can_be_passed_the_sockets_of_all_addresses() -> None:
    many = tuple(Address("192.0.2.1", port) for port in range(1, MAX_LISTEN + 2))
    assert 2 * len(Settings(listen=many[:-1]).listen) <= handover.MOST
    with pytest.raises(SettingsError, match="127 --listen addresses, and at most 126 are possible"):
        Settings(listen=many)
