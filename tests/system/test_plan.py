"""`edgedns plan`: told before it is published, and true once it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.small import ADDRESS, NETWORKS, write_rules
from tests.system.serving import SLACK, TOKEN, Server, serving, wait_until

NAMES = ("www", "split", "one")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("plan")) as running:
        yield running


@pytest.fixture
def other(server: Server, tmp_path: Path) -> Path:
    """Other rules: AS64520 gets cedar, birch no longer serves `one`, `www` lost its canary, a record went."""
    directory = write_rules(tmp_path / "other")
    path = directory / "example.net.yaml"
    text = path.read_text().replace("asn: 64999", "asn: 64520").replace("failover: [birch]", "failover: [alder]")
    path.write_text(text.replace('  - "plain A 192.0.2.80"\n', ""))
    return directory


def plan(server: Server, directory: Path, *more: str, token: str = TOKEN) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edgedns", "plan", str(directory), "--server", server.admin, *more]
    environ = {**os.environ, "EDGEDNS_TOKEN": token, "COLUMNS": "160"}
    return subprocess.run(command, capture_output=True, text=True, timeout=60 * SLACK, env=environ)


def told(server: Server, directory: Path) -> dict[str, Any]:
    done = plan(server, directory, "--json")
    assert done.returncode == 0, done.stderr
    content: dict[str, Any] = json.loads(done.stdout)
    return content


def moves(content: dict[str, Any]) -> dict[tuple[str, str], tuple[str, str, float]]:
    return {
        (one["name"].partition(".")[0], one["type"]): (one["before"], one["after"], one["share"])
        for one in content["answers"]["moves"]
    }


def test_the_rules_that_are_served_change_nothing(server: Server) -> None:
    content = told(server, server.rules)
    assert content["differences"] == [] == content["answers"]["moves"]
    assert content["answers"]["questions"] == content["networks"] * len(NAMES) * 2
    assert "nothing would change" in plan(server, server.rules).stdout


def test_what_would_change_is_told_and_nothing_is_published(server: Server, other: Path) -> None:
    serial = server.http("/v1/status")[1]["serial"]
    content = told(server, other)
    assert [(one["change"], one["what"]) for one in content["differences"]] == [
        ("changed", "www: rule lab"), ("changed", "one: rule fixed"), ("removed", "plain.example.net. 5 A 192.0.2.80")
    ]  # fmt: skip
    found = moves(content)
    assert found["one", "A"][:2] == found["one", "AAAA"][:2] == ("birch", "alder")
    assert found["www", "A"][:2] == ("alder", "cedar")
    assert found["www", "AAAA"][:2] == ("alder", "NODATA"), "cedar has no IPv6 address"
    assert not any(name == "split" for name, _ in found)
    assert server.http("/v1/status")[1]["serial"] == serial
    assert not list((server.state / "published").glob("*.tmp"))
    text = plan(server, other).stdout
    assert "~ example.net  www: rule lab" in text
    assert "- example.net  plain.example.net. 5 A 192.0.2.80" in text
    assert "10.8.0.0" in text, "AS64520's first address is an example"


def test_queries_weigh(server: Server, other: Path) -> None:
    """As the heaviest of the networks that ask, AS64520 is most of what would change."""
    for _ in range(90):
        server.query("www.example.net", of=8)
    for number in range(10):
        server.query("www.example.net", of=10 + number)
    wait_until(lambda: told(server, other)["queries"] == 100, 3 * SLACK)
    assert moves(told(server, other))["www", "A"][2] == pytest.approx(0.9 / len(NAMES) / 2)


def test_it_comes_true(server: Server, other: Path) -> None:
    """What is answered after the rules were saved is what the plan said."""
    for path in other.iterdir():
        os.replace(path, server.rules / path.name)
    server.until_answered([ADDRESS["alder"]], 5 * SLACK, name="one.example.net")
    given = {number: server.addresses(of=number) for number in range(NETWORKS)}
    assert {number for number, one in given.items() if one == [ADDRESS["cedar"]]} == {8}
    assert {number for number, one in given.items() if one == [ADDRESS["alder"]]} == {*range(NETWORKS)} - {8}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("version: 1\nzone: example.net\nrecords: {www: {rulez: []}}\n", "example.net.yaml:3:17: error: unknown key 'rulez'"),
        ("version: [", "example.net.yaml:"),
        ("", "example.net.yaml"),
    ],
)
def test_rules_with_mistakes_are_refused_with_their_places(server: Server, other: Path, content: str, said: str) -> None:
    write_rules(other)
    (other / "example.net.yaml").write_text(content)
    done = plan(server, other)
    assert (done.returncode, done.stdout) == (1, "")
    assert said in done.stderr
    assert "edgedns-plan-" not in done.stderr, "no path of the server's"


def test_tests_that_fail_are_told(server: Server, other: Path) -> None:
    write_rules(other)
    with (other / "example.net.yaml").open("a") as file:
        file.write("tests: [{name: one, type: A, from: 10.1.0.0, expect: cedar}]\n")
    done = plan(server, other)
    assert done.returncode == 1
    assert "test failed: one.example.net. A gives birch, expected cedar" in done.stderr


def test_what_is_no_rules_directory_is_refused(server: Server, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "'files' must be an object of 1 to 10000 texts by path" in plan(server, empty).stderr
    (empty / "x.yaml").write_bytes(b"\xff\xfe")
    assert "x.yaml" in plan(server, empty).stderr
    assert "needs the token" in plan(server, server.rules, token="wrong").stderr


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", "", "a//b", "./x", "x\0", "a\nb", "x" * 201])
def test_paths_that_lead_outside_are_refused(server: Server, name: str) -> None:
    status, body = server.http("/v1/plan", {"files": {name: "version: 1"}})
    assert (status, body["error"].endswith("is not a path inside a rules directory")) == (400, True)


@pytest.mark.parametrize("files", [None, [], {}, {"a.yaml": 1}, {"a.yaml": "\ud800"}, {"a": "", "a/b.yaml": ""}])
def test_bodies_of_another_form_are_refused(server: Server, files: object) -> None:
    status, body = server.http("/v1/plan", {"files": files})
    assert status == 400
    assert body["error"]
