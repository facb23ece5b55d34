"""What is asked, read back by dnspython."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path
from random import Random

import dns.edns
import dns.message
import dns.rcode
import pytest

from edgedns.bench import questions, subnets
from edgedns.bench.questions import Mix
from edgedns.bench.volley import Magazine
from edgedns.errors import SourceError


def messages(magazine: Magazine) -> list[dns.message.Message]:
    rows = zip(magazine.rows[::3], magazine.rows[1::3], strict=True)
    return [dns.message.from_wire(magazine.packets[at : at + size]) for at, size in rows]


def test_a_file_as_dnsperf_has_it() -> None:
    text = ["; a comment", "", "www.example.net A", "Mail.example.net. mx", "odd.example.net TYPE65280", "x.example.net"]
    found = questions.parse(text, "q")
    assert [(each.name, each.type) for each in found] == [
        (b"\3www\7example\3net\0", 1), (b"\4Mail\7example\3net\0", 15), (b"\3odd\7example\3net\0", 65280),
        (b"\1x\7example\3net\0", 1),
    ]  # fmt: skip


def test_bad_lines_are_named() -> None:
    lines = ["good.example A", "a..b A", "c.example ADDRESS", "d.example A IN", *["caf\u00e9.example A"] * 4]
    with pytest.raises(SourceError) as caught:
        questions.parse(lines, "q.txt")
    told = str(caught.value).splitlines()
    assert [line.split(":")[:2] for line in told[:5]] == [["q.txt", str(n)] for n in (2, 3, 4, 5, 6)]
    assert told[5] == "... and 2 more"


@pytest.mark.parametrize(("lines", "words"), [([], "no questions"), (["# nothing"], "no questions")])
def test_an_empty_file(lines: list[str], words: str) -> None:
    with pytest.raises(SourceError, match=words):
        questions.parse(lines, "q")


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes(b"caf\xe9.example A\n")
    for path in (tmp_path / "none", tmp_path / "latin", tmp_path):
        for read in (questions.read, subnets.read):
            with pytest.raises(SourceError, match="can't be read"):
                read(path)


def test_packets_say_what_was_wanted() -> None:
    dice = Random(5)
    mix = Mix(subnets=subnets.parse(["192.0.2.0/24", "2001:db8::/48", "198.51.100.128/25"], "s"), cookie=b"\7" * 24)
    made = messages(questions.load(questions.parse(["a.example A", "b.example AAAA"], "q"), mix, dice, 12))
    assert len(made) == 3
    for message in made:
        options = {option.otype: option for option in message.options}
        assert message.payload == 1232
        assert options[dns.edns.OptionType.COOKIE].to_wire() == b"\7" * 24
        assert options[dns.edns.OptionType.ECS].to_text() in (
            "ECS 192.0.2.0/24 scope/0", "ECS 2001:db8::/48 scope/0", "ECS 198.51.100.128/25 scope/0"
        )  # fmt: skip
    assert len({option.to_text() for message in made for option in message.options}) == 4


def test_without_edns() -> None:
    (message,) = messages(questions.load(questions.parse(["a.example A"], "q"), Mix(payload=0), Random(0)))
    assert message.edns == -1
    assert message.flags == 0


def test_a_share_of_made_up_names() -> None:
    made = messages(questions.load(questions.parse(["a.example.net A"], "q"), Mix(nxdomain=0.1), Random(0)))
    names = [message.question[0].name.to_text() for message in made]
    assert len(made) == 1000
    assert len({name for name in names if name.startswith("nx-") and name.endswith(".example.net.")}) == 100
    assert names.count("a.example.net.") == 900


def test_a_name_with_no_room_is_asked_as_it_is() -> None:
    long = ".".join(["l" * 9, "m" * 60, "n" * 60, "o" * 60, "p" * 60])
    made = messages(questions.load(questions.parse([f"{long} A"], "q"), Mix(nxdomain=1.0), Random(0)))
    assert {message.question[0].name.to_text() for message in made} == {long + "."}


def test_random_names_differ_and_are_below_the_zone() -> None:
    found = questions.random_names(b"\7example\3net\0", 500, 28, Random(1))
    assert len({each.name for each in found}) == 500
    assert all(each.name.endswith(b"\7example\3net\0") and each.type == 28 for each in found)


def test_the_same_dice_throw_the_same() -> None:
    def once() -> Magazine:
        dice = Random(9)
        mix = Mix(0.2, subnets.random_slash24s(50, dice))
        return questions.load(questions.random_names(b"\7example\0", 20, 1, dice), mix, dice)

    assert once() == once()


def test_random_slash24s_are_public_and_differ() -> None:
    found = subnets.random_slash24s(3000, Random(2))
    nets = [ip_network((each.address, each.length)) for each in found]
    assert len(set(nets)) == 3000
    assert all(net.is_global and not net.is_multicast for net in nets)


def test_prefixes_of_a_file_that_are_none() -> None:
    with pytest.raises(SourceError, match=r"s:2: .*host bits"):
        subnets.parse(["192.0.2.0/24  # good", "192.0.2.1/24"], "s")
    with pytest.raises(SourceError, match="no prefixes"):
        subnets.parse(["# none"], "s")
