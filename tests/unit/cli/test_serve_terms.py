"""What `edgedns serve` makes of --rate-limit before it hands it to the workers."""

from __future__ import annotations

import pytest

from edgedns.cli.serve import _terms
from edgedns.config import Settings, SettingsError, load
from edgedns.engine.limit import SURPLUS, Terms, parse_terms


def test_surplus_is_limited_unless_it_is_said_otherwise() -> None:
    """No server on the open Internet is to be an amplifier because nobody thought of it; loopback is like any other."""
    assert Settings().rate_limit == ""
    assert parse_terms(_terms(Settings().rate_limit)) == Terms(surplus=SURPLUS)
    assert not parse_terms(_terms(load({"rate-limit": "off"}, {"HOME": "/"}, root=False).rate_limit)).limits


def test_what_is_wrong_is_told_before_anything_starts() -> None:
    with pytest.raises(SettingsError, match="--rate-limit 5,often: 'often' is none of off, a rate, surplus=OCTETS"):
        _terms("5,often")
