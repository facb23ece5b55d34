"""The container of published files: sections come back, and whatever is not whole is refused with its reason."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgedns.engine.flat import ALIGN, HEADER, VERSION, pack, unpack
from edgedns.errors import SourceError

SIZES = {"B": 1, "H": 2, "I": 4, "i": 4, "Q": 8}
NAMES = st.text("abcdefghijklmnopqrstuvwxyz_0123456789", min_size=1, max_size=20)
COLUMN = st.sampled_from(sorted(SIZES)).flatmap(
    lambda code: st.tuples(st.just(code), st.binary(max_size=200).map(lambda raw: raw[: len(raw) // SIZES[code] * SIZES[code]]))
)
FILE = pack({"meta": ("B", b"{}"), "column": ("I", bytes(range(40))), "empty": ("Q", b"")})


@given(st.dictionaries(NAMES, COLUMN, max_size=8))
def test_sections_come_back(sections: dict[str, tuple[str, bytes]]) -> None:
    content = pack(sections)
    found = unpack(content, "x")
    assert list(found) == list(sections)
    for name, (code, raw) in sections.items():
        assert bytes(found[name]) == raw
        assert found[name].format == code
        assert found[name].readonly
    assert pack(sections) == content  # the same octets for the same content: files are named by it


def test_sections_are_aligned_and_little_endian() -> None:
    content = pack({"a": ("B", b"x"), "b": ("I", (258).to_bytes(4, "little"))})
    assert content.index(b"\x02\x01\0\0") % ALIGN == 0
    assert unpack(content, "x")["b"][0] == 258


@given(st.integers(0, len(FILE) - 1))
def test_whatever_was_cut_off_is_refused(size: int) -> None:
    with pytest.raises(SourceError, match=r"too few|truncated"):
        unpack(FILE[:size], "x")


@given(st.integers(0, len(FILE) - 1), st.integers(1, 255))
def test_a_changed_octet_is_refused(at: int, change: int) -> None:
    damaged = bytearray(FILE)
    damaged[at] ^= change
    with pytest.raises(SourceError):
        unpack(damaged, "x")


@given(st.binary(max_size=400))
def test_foreign_octets_are_refused(content: bytes) -> None:
    with pytest.raises(SourceError):
        unpack(content, "x")


@pytest.mark.parametrize(
    ("at", "value", "message"),
    [
        (0, b"NOTEDNS\0", "x: not a published file of edgedns"),
        (8, b"\x63\0", f"x: layout version 99, this edgedns reads {VERSION}; publish again"),
        (16, b"\xff", "x: truncated"),
        (HEADER.size + 1, b"!", "x: damaged, its checksum does not match"),
    ],
)
def test_the_reason_is_told(at: int, value: bytes, message: str) -> None:
    damaged = bytearray(FILE)
    damaged[at : at + len(value)] = value
    with pytest.raises(SourceError, match=message):
        unpack(damaged, "x")


def test_more_than_was_written_is_refused() -> None:
    with pytest.raises(SourceError, match="truncated"):
        unpack(FILE + b"more", "x")


@pytest.mark.parametrize("count", [0, 1, 2, 4, 400, 65535])
def test_another_number_of_sections_is_refused(count: int) -> None:
    damaged = bytearray(FILE)
    damaged[10:12] = count.to_bytes(2, "little")
    with pytest.raises(SourceError):
        unpack(damaged, "x")
