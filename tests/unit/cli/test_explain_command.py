"""`edgedns explain` without a server, and what it looks like."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from rich.console import Console

from edgedns.cli import main
from edgedns.cli.explain import show

RULES = str(Path(__file__).parents[3] / "rules")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["explain", *arguments])


def test_rules_are_explained_without_a_server() -> None:
    client = ("--from", "192.0.2.1", "--subnet", "198.51.100.77/24")
    result = run("www.cdn.example.net", "aaaa", *client, "--rules", RULES, "--json")
    assert result.exit_code == 0, result.output
    told = json.loads(result.output)
    assert told["rule"] == "office-canary"
    assert told["answer"] == ["2001:db8:c1::10", "2001:db8:c1::11"]
    assert (told["scope"], told["subnet"], told["reason"]) == (24, "198.51.100.0/24", "PINNED")


@pytest.mark.parametrize(
    ("arguments", "code", "wanted"),
    [
        (("www.cdn.example.net",), 2, "who asks? give --from ADDR or --asn N"),
        (("www.cdn.example.net", "--from", "x", "--rules", RULES), 1, "'x' does not appear to be an IPv4 or IPv6 address"),
        (("www.cdn.example.net", "--asn", "ASx", "--rules", RULES), 2, "'ASx' is not an AS number"),
        (("www.cdn.example.net", "--from", "192.0.2.1", "--server", "nowhere"), 2, "is not http://HOST:PORT"),
        (("www.cdn.example.net", "--from", "192.0.2.1", "--rules", "/nonexistent"), 1, "/nonexistent"),
    ],
)
def test_what_is_wrong_is_said(arguments: tuple[str, ...], code: int, wanted: str) -> None:
    result = run(*arguments)
    assert result.exit_code == code, result.output
    assert wanted in result.output


def test_eighty_columns_are_enough() -> None:
    candidate = {"state": "up", "health": "suspect", "wan": -0.4, "w50": 0.5, "low": -0.51, "high": -0.21, "score": -0.3,
                 "rtt_ms": 128.6, "samples": 104.2, "age": 12.0, "level": "network"}  # fmt: skip
    told = {
        "serial": 7, "name": "www.cdn.example.net.", "type": "A", "client": "198.51.100.9", "subnet": None,
        "zone": "cdn.example.net", "rcode": "NOERROR", "answer": ["192.0.2.10"], "scope": None, "ttl": 30, "steered": True,
        "rule": "everyone-else", "kind": "wan", "reason": "FAILED_OVER", "provider": "alder", "prefix": "198.51.0.0/16",
        "network": {"text": "AS64500/NO", "asn": 64500, "country": "NO", "as_name": "Example Access"}, "unit": None,
        "candidates": [
            {**candidate, "provider": "alder", "lost_because": ""},
            {**candidate, "provider": "dogwood", "lost_because": "its probes of this network are lost"},
            {"provider": "cedar", "state": "drain", "health": "up", "lost_because": "drained"},
        ],
    }  # fmt: skip
    console = Console(width=80, record=True, file=StringIO())
    show(told, console)
    lines = [line.rstrip() for line in console.export_text().splitlines()]
    assert "answer    192.0.2.10   alder, failed over" in lines
    assert "dogwood   -0.40  -0.51 … -0.21  0.50   128.6    104.2     12  suspect" in lines
    assert "dogwood  lost: its probes of this network are lost" in lines
    assert "cedar         –              –     –       –        –      –  drain" in lines
