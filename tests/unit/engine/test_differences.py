"""What differs between two readings of rules, in words."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgedns.engine.differences import differences
from edgedns.engine.load import Loaded, load_rules
from tests.small import write_rules

SPLIT = (
    "example.net|changed|split: rule halves|"
    "action: weighted (shares alder 1, birch 1) -> weighted (shares alder 3, birch 1)"
)


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return write_rules(tmp_path / "old")


def changed(old: Path, file: str, before: str, after: str) -> list[str]:
    """The differences when one text is replaced, or appended where `before` is empty."""
    new = write_rules(old.parent / "new")
    path = new / file
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after, 1) if before else text + after)
    return [" | ".join((one.zone, one.kind, one.what, *one.fields)) for one in differences(load_rules(old), load_rules(new))]


def test_the_same_rules_elsewhere_and_at_other_lines_differ_in_nothing(old: Path) -> None:
    assert changed(old, "example.net.yaml", "version: 1", "# a comment\n\nversion: 1") == []


@pytest.mark.parametrize(
    ("file", "before", "after", "told"),
    [
        ("providers.yaml", "192.0.2.10", "192.0.2.11", ["|changed|provider alder|v4: 192.0.2.10 -> 192.0.2.11"]),
        ("providers.yaml", "round: 10s", "round: 20s", ["|changed|settings|round: 10 -> 20"]),
        ("providers.yaml", "\n", "\nnetworks: {lab: {prefix: 198.51.100.0/24}}\n", ["|added|network lab"]),
        ("example.net.yaml", "pin: cedar", "pin: birch",
         ["example.net|changed|www: rule lab|action: pin (provider cedar) -> pin (provider birch)"]),
        ("example.net.yaml", "halves, weighted: {alder: 1", "halves, weighted: {alder: 3", [SPLIT]),
        ("example.net.yaml", '"plain A 192.0.2.80"', '"plain 6 A 192.0.2.81"', [
            "example.net|removed|plain.example.net. 5 A 192.0.2.80", "example.net|added|plain.example.net. 6 A 192.0.2.81"]),
        ("example.net.yaml", "  one: {rules: [{name: fixed, failover: [birch]}]}\n", "  two: {like: www}\n",
         ["example.net|removed|name one", "example.net|added|name two"]),
        ("example.net.yaml", "pin: cedar}\n", "pin: cedar, until: 2036-12-05}\n      - {name: x, pin: alder}\n", [
            "example.net|added|www: rule x", "example.net|changed|www: rule lab|until: none -> 2036-12-05T00:00:00+00:00"]),
        ("example.net.yaml", "", '  - "@ MX 10 mail.example.net."\n',
         ["example.net|added|example.net. 5 MX 10 mail.example.net."]),
        ("example.net.yaml", "zone: example.net", "zone: example.org",
         ["example.net|removed|the zone", "example.org|added|the zone"]),
    ],
)  # fmt: skip
def test_each_change_is_told(old: Path, file: str, before: str, after: str, told: list[str]) -> None:
    found = [one.replace(" | ", "|").lstrip() for one in changed(old, file, before, after)]
    if "the zone" in told[0] and "removed" in told[0]:
        found = [one for one in found if one.endswith("the zone")]
    assert sorted(found) == sorted(told)


def test_rules_in_another_order_are_told(old: Path) -> None:
    lab = "      - {name: lab, match: {asn: 64999}, pin: cedar}\n"
    other = "      - {name: us, match: {country: US}, pin: alder}\n"
    path = old / "example.net.yaml"
    path.write_text(path.read_text().replace(lab, lab + other))
    first: Loaded = load_rules(old)
    path.write_text(path.read_text().replace(lab + other, other + lab))
    assert [one.what for one in differences(first, load_rules(old))] == ["www: the order of its rules"]
