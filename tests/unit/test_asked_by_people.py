"""A person's question: one packet a second to the address, cell by cell; refusals; what is kept."""

from __future__ import annotations

from collections import Counter

import pytest

from edgedns.control.questions import AT_ONCE, KEPT, PACE, PATIENCE, QuestionRefused, Questions
from edgedns.model import Family

NOW = 1000.0
BOTH: frozenset[tuple[str, Family]] = frozenset({("alder", 4), ("birch", 4)})
SOURCES = {"fra1": BOTH, "sin1": BOTH}
ABOUT = {"name": None, "provider": None, "reason": None}


def asked(questions: Questions, address: str = "203.0.113.7", rounds: int = 2, now: float = NOW) -> str:
    number = questions.ask(address, "icmp", rounds, SOURCES, ABOUT, now)["id"]
    assert isinstance(number, str)
    return number


def drive(questions: Questions, seconds: float, there: tuple[str, ...] = ("fra1", "sin1"), answer: bool = True) -> list[float]:
    """Each vantage comes ten times a second; when packets went."""
    times = []
    for tick in range(int(seconds * 10)):
        now = NOW + tick / 10
        for vantage in there:
            for entry in questions.take(vantage, now):
                times.append(now)
                if answer:
                    questions.result(vantage, entry["id"], entry["provider"], 12.5, "")
    return times


def test_every_path_gets_its_packets_one_a_second_in_all() -> None:
    questions = Questions()
    number = asked(questions)
    times = drive(questions, 20.0)
    told = questions.told(number, NOW + 20.0)
    assert told is not None
    assert told["done"]
    assert [(cell["vantage"], cell["provider"], cell["rtts"]) for cell in told["cells"]] == [
        (vantage, provider, [12.5, 12.5]) for vantage in ("fra1", "sin1") for provider in ("alder", "birch")
    ]
    assert len(times) == 8
    assert all(sum(at <= one < at + 10.0 for one in times) <= 10.0 / PACE for at in times)
    assert times[-1] - times[0] == pytest.approx(7 * PACE, abs=1.0)


def test_a_vantage_that_went_away_is_passed_over() -> None:
    questions = Questions()
    number = asked(questions, rounds=1)
    drive(questions, 3 * PATIENCE + 6.0, there=("fra1",))
    told = questions.told(number, NOW + 3 * PATIENCE + 6.0)
    assert told is not None
    assert told["done"]
    assert Counter((cell["vantage"], cell["refused"], len(cell["rtts"])) for cell in told["cells"]) == {
        ("fra1", 0, 1): 2, ("sin1", 1, 0): 2,
    }  # fmt: skip


def test_results_that_never_come_end_it_all_the_same() -> None:
    questions = Questions()
    number = asked(questions, rounds=1)
    drive(questions, 5.0, answer=False)
    told = [questions.told(number, NOW + at) for at in (5.0, 3.0 + 2 * PATIENCE)]
    assert [one["done"] for one in told if one] == [False, True]


def test_a_result_that_nobody_asked_for_is_nothing() -> None:
    questions = Questions()
    number = asked(questions)
    assert not questions.result("fra1", number, "alder", 1.0, "")
    questions.take("fra1", NOW)
    assert not questions.result("sin1", number, "alder", 1.0, "")
    assert not questions.result("fra1", "a-9", "alder", 1.0, "")
    assert questions.result("fra1", number, "alder", None, "")
    assert not questions.result("fra1", number, "alder", None, ""), "once"


def test_what_is_refused() -> None:
    questions = Questions()
    asked(questions)
    with pytest.raises(QuestionRefused, match=r"203\.0\.113\.7 is being asked for already"):
        asked(questions)
    with pytest.raises(QuestionRefused, match="no vantage has an IPv6 source: fra1, sin1"):
        asked(questions, "2001:db8::7")
    for k in range(1, AT_ONCE):
        asked(questions, f"203.0.113.{100 + k}")
    with pytest.raises(QuestionRefused, match="4 addresses are being asked for already"):
        asked(questions, "203.0.113.8")


def test_old_questions_are_forgotten() -> None:
    questions = Questions()
    numbers = []
    for k in range(KEPT + 3):
        numbers.append(asked(questions, f"203.0.113.{k}", rounds=1, now=NOW + 1000.0 * k))
        for step in range(4):
            for vantage in SOURCES:
                for entry in questions.take(vantage, NOW + 1000.0 * k + 10.0 * step):
                    questions.result(vantage, entry["id"], entry["provider"], 1.0, "")
    assert [questions.told(number, NOW) is None for number in numbers[:4]] == [True, True, True, False]
