from __future__ import annotations

from edgedns.serve.complaints import Complaints


def test_one_line_a_second_and_the_rest_is_counted() -> None:
    lines: list[str] = []
    now = [0.0]
    complain = Complaints("worker 1", lines.append, lambda: now[0])
    for _ in range(1000):
        complain("answering", ValueError("bad"))
    now[0] = 1.0
    complain("answering", ValueError("worse"))
    assert lines == [
        "worker 1: answering: ValueError: bad\n",
        "worker 1: answering: ValueError: worse (and 999 more since the last line)\n",
    ]


def test_the_line_says_where_it_was_raised() -> None:
    lines: list[str] = []
    complain = Complaints("worker 1", lines.append)
    try:
        raise KeyError("x")
    except KeyError as error:
        complain("answering", error)
    assert f" at {__file__}:" in lines[0]


def test_many_lines_in_the_text_stay_one() -> None:
    lines: list[str] = []
    Complaints("worker 1", lines.append)("answering", ValueError("a\nb"))
    assert lines[0].count("\n") == 1
