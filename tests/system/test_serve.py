"""`edgedns serve` as operators meet it: reloads, orders, restarts, samples, counters, and what is refused at the start."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dns.exception import DNSException

from tests.small import ADDRESS, NETWORKS, samples, write_rules, write_table, write_zone
from tests.small import replace as save
from tests.system.serving import SLACK, Server, serving, wait_until

ALDER, BIRCH, CEDAR = (ADDRESS[name] for name in ("alder", "birch", "cedar"))
RULES = Path(__file__).parents[2] / "rules"
DRAIN = {"kind": "drain", "provider": "alder", "owner": "noc", "reason": "test"}
PIN = {"kind": "pin", "name": "www.example.net", "provider": "cedar", "owner": "noc", "reason": "test"}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("shared")) as running:
        yield running


@pytest.fixture
def server(shared: Server) -> Server:
    """A running server with its inputs as they were at first; not to be ended."""
    for path in shared.rules.iterdir():
        path.unlink()
    write_rules(shared.rules)
    assert shared.table is not None
    write_table(shared.table)
    for one in shared.http("/v1/overrides")[1]["overrides"]:
        shared.http(f"/v1/overrides/{one['id']}", method="DELETE")
    wait_until(lambda: shared.http("/v1/status")[1]["failed_zones"] == [] and shared.addresses() == [ALDER], 3 * SLACK)
    shared.mark()
    return shared


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Server]:
    """A server of the test's own."""
    with serving(tmp_path) as running:
        yield running


def run(*arguments: object, timeout: float = 30, **environ: str) -> subprocess.CompletedProcess[str]:
    """`edgedns serve` to its end."""
    command = [sys.executable, "-m", "edgedns", "serve", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, env={**os.environ, **environ})


# -- rules and tables


def test_a_good_file_changes_answers_within_two_seconds(server: Server) -> None:
    good = 'edgedns_reloads_total{result="good"}'
    before = server.counters()[good]
    write_zone(server.rules, nominal=["cedar", "alder", "birch"])
    server.until_answered([CEDAR], 2 * SLACK)
    wait_until(lambda: server.counters()[good] == before + 1, SLACK)


def test_a_bad_file_changes_nothing_and_says_so(server: Server) -> None:
    counter = 'edgedns_reloads_total{result="bad"}'
    before = server.counters()[counter]
    path = server.rules / "example.net.yaml"
    good = path.read_text()
    path.write_text(good.replace("records:", "recods:"))
    server.wait_for(
        r"example\.net\.yaml:\d+:\d+: error: unknown key 'recods', did you mean 'records'\? \[E103\]", within=2 * SLACK
    )
    server.wait_for("zone example.net has errors and stays as it was")
    assert server.addresses() == [ALDER]
    assert server.http("/v1/status")[1]["failed_zones"] == ["example.net"]
    assert server.counters()[counter] == before + 1
    path.write_text(good.replace("nominal: [alder, birch, cedar]", "nominal: [birch, alder, cedar]"))
    server.until_answered([BIRCH], 2 * SLACK)
    assert server.http("/v1/status")[1]["failed_zones"] == []


def test_a_bad_zone_holds_back_only_itself(server: Server) -> None:
    write_zone(server.rules, "example.org")
    server.until_answered([ALDER], 2 * SLACK, name="www.example.org")
    (server.rules / "example.net.yaml").write_text("zone: [")
    write_zone(server.rules, "example.org", nominal=["birch", "alder", "cedar"])
    server.until_answered([BIRCH], 2 * SLACK, name="www.example.org")
    assert server.addresses() == [ALDER]


def test_providers_yaml_with_errors_changes_nothing(server: Server) -> None:
    save(server.rules / "providers.yaml", "version: 1\nproviders: {alder: {v4: [300.1.2.3]}}\n")
    write_zone(server.rules, nominal=["birch"])
    server.wait_for("the rules stay as they were", within=2 * SLACK)
    assert server.addresses() == [ALDER]


def test_a_replaced_table_is_followed_and_a_broken_one_is_not(server: Server) -> None:
    assert server.table is not None
    text = server.table.read_text()
    save(server.table, text.replace("\t64519\t", "\t64999\t"))  # AS 64999 is pinned to cedar
    server.until_answered([CEDAR], 2 * SLACK)
    for broken in ("<html>502 Bad Gateway</html>", text[:-30], ""):
        server.mark()
        save(server.table, broken)
        server.wait_for("the ASN table stays as it was", within=2 * SLACK)
        assert server.addresses() == [CEDAR]
    server.mark()
    server.table.unlink()
    server.wait_for("the ASN table stays as it was", within=2 * SLACK)
    assert server.addresses() == [CEDAR]
    save(server.table, text)
    server.until_answered([ALDER], 2 * SLACK)


def test_a_config_map_and_a_replaced_directory_are_followed(tmp_path: Path) -> None:
    real = write_rules(tmp_path / "..1")
    write_rules(tmp_path / "..2", nominal=["birch", "alder", "cedar"])
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules/..data").symlink_to(real)
    for name in ("providers.yaml", "example.net.yaml"):
        (tmp_path / "rules" / name).symlink_to(f"..data/{name}")
    server = Server(tmp_path, tmp_path / "rules", write_table(tmp_path / "table.tsv"))
    try:
        server.start()
        assert server.addresses() == [ALDER]
        (tmp_path / "rules/..new").symlink_to(tmp_path / "..2")
        (tmp_path / "rules/..new").replace(tmp_path / "rules/..data")
        server.until_answered([BIRCH], 2 * SLACK)
        write_rules(tmp_path / "other", nominal=["cedar", "alder", "birch"])
        (tmp_path / "rules").rename(tmp_path / "old")
        (tmp_path / "other").rename(tmp_path / "rules")
        server.until_answered([CEDAR], 2 * SLACK)
    finally:
        server.clean_up()


# -- samples


def test_samples_move_answers_and_a_restart_without_any_gives_the_same(tmp_path: Path) -> None:
    with serving(tmp_path, period="500ms") as server:
        rtts: dict[str, float | None] = {"alder": 30.0, "birch": 20.0, "cedar": 40.0}
        for _ in range(8):
            status, reply = server.http("/v1/samples", samples(time.time(), rtts))
            assert (status, reply) == (200, {"accepted": 3 * NETWORKS, "rejected": []})
            time.sleep(0.2)
        server.until_answered([BIRCH], 4 * SLACK)
        before = [server.addresses(of=of) for of in range(NETWORKS)]
        split = [server.addresses("split.example.net", of=of) for of in range(NETWORKS)]
        _, wan = server.http("/v1/wan", asn="64519")
        assert {arm["provider"] for row in wan["rows"] for arm in row["arms"]} == set(rtts)
        for number in (signal.SIGTERM, signal.SIGKILL):
            server.end(number)
            server.start()
            assert [server.addresses(of=of) for of in range(NETWORKS)] == before
            assert [server.addresses("split.example.net", of=of) for of in range(NETWORKS)] == split
            assert server.http("/v1/wan", asn="64519")[1]["rows"]


def test_bad_lines_are_named_and_the_others_count(server: Server) -> None:
    body = samples(time.time(), {"alder": 10.0}, [1, 2]) + b"\nnonsense\n"
    assert server.http("/v1/samples", body) == (
        200,
        {"accepted": 2, "rejected": [{"line": 3, "error": "not JSON: Expecting value: line 1 column 1 (char 0)"}]},
    )


# -- orders


def test_a_drain_and_a_pin_hold_until_they_end(server: Server) -> None:
    until = time.time() + 3
    status, drain = server.http("/v1/overrides", {**DRAIN, "until": until})
    assert status == 201
    server.until_answered([BIRCH], 1 * SLACK)
    status, pin = server.http("/v1/overrides", {**PIN, "until": until})
    assert status == 201
    server.until_answered([CEDAR], 2 * SLACK)
    assert [one["id"] for one in server.http("/v1/overrides")[1]["overrides"]] == [drain["id"], pin["id"]]
    assert time.time() < until, "too slow to tell"
    server.until_answered([ALDER], 3 + SLACK)
    wait_until(lambda: server.http("/v1/overrides")[1]["overrides"] == [], SLACK)


def test_orders_are_taken_back(server: Server) -> None:
    for order, given in ((PIN, CEDAR), (DRAIN, BIRCH)):
        _, made = server.http("/v1/overrides", order)
        server.until_answered([given], 2 * SLACK)
        assert server.http(f"/v1/overrides/{made['id']}", method="DELETE") == (200, {"removed": made["id"]})
        server.until_answered([ALDER], 2 * SLACK)
    assert server.http("/v1/overrides/nope", method="DELETE")[0] == 404
    assert server.http("/v1/overrides", {**DRAIN, "provider": "elm"})[0] == 400


def test_orders_survive_a_restart_and_end_without_the_control_process(fresh: Server) -> None:
    until = time.time() + 8
    fresh.http("/v1/overrides", {**DRAIN, "until": until})
    fresh.http("/v1/overrides", {**PIN, "name": "one.example.net", "until": until})
    fresh.until_answered([BIRCH], 2 * SLACK)
    fresh.end(signal.SIGKILL)
    fresh.start()
    assert fresh.addresses() == [BIRCH]
    assert fresh.addresses("one.example.net") == [CEDAR]
    fresh.end(signal.SIGKILL)
    assert time.time() < until, "too slow to tell"
    assert fresh.addresses() == [BIRCH]
    time.sleep(max(0.0, until - time.time()))
    fresh.until_answered([ALDER], SLACK)
    assert fresh.addresses("one.example.net") == [BIRCH]


# -- starting and ending


@pytest.mark.serial
def test_a_restart_answers_from_what_was_published_while_inputs_are_read(tmp_path: Path) -> None:
    """With the real table and rules: the first answer within a second of the start, the same as before."""
    server = Server(tmp_path, RULES, workers=2)
    try:
        server.start()  # it makes the published files; on an idle machine within 5 s
        before = server.addresses("www.cdn.example.net", of="8.8.8.0/24")
        server.end()
        server.mark()
        begun = time.monotonic()
        server.start(ready=False)
        while True:
            try:
                assert server.addresses("www.cdn.example.net", of="8.8.8.0/24", timeout=0.1) == before
                break
            except (OSError, DNSException):  # nobody listens yet
                time.sleep(0.01)
        assert time.monotonic() - begun < 1 * SLACK
        server.wait_for("serving 127")
        for pid in server.worker_pids():
            assert own_memory(pid) <= 10_000, "a further worker costs 10 MB at most: the tables are shared"
    finally:
        server.clean_up()


def own_memory(pid: int) -> int:
    """Kilobytes that no other process shares."""
    rows = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(row.split()[1]) for row in rows if row.startswith("Private_"))


def test_an_end_by_signal_ends_the_workers_too(fresh: Server) -> None:
    assert fresh.worker_pids()
    begun = time.monotonic()
    assert fresh.end(signal.SIGINT) == 0
    assert time.monotonic() - begun < 2 * SLACK
    assert fresh.worker_pids() == []
    assert "Traceback" not in fresh.said()


def test_a_second_serve_on_the_same_state_is_refused(server: Server) -> None:
    done = run("--rules", server.rules, "--state", server.state, "--listen", "127.0.0.1:0", "--admin", "off", "--workers", 1)
    assert done.returncode == 1
    assert done.stderr == (
        f"Error: another edgedns serves from the state directory {server.state}; stop it, or choose another with --state DIR\n"
    )
    assert server.addresses() == [ALDER]


def test_a_port_in_use_is_one_sentence(tmp_path: Path, server: Server) -> None:
    inputs = ["--rules", server.rules, "--asn", server.table, "--state", tmp_path / "other", "--workers", "1"]
    done = run(*inputs, "--listen", f"127.0.0.1:{server.port}", "--admin", "off")
    assert done.returncode == 1
    assert done.stderr == (
        f"Error: can't listen on 127.0.0.1:{server.port}: another program uses this address; stop it, or choose another with"
        " --listen ADDR:PORT\n"
    )


def test_an_admin_port_in_use_is_one_sentence_and_leaves_nothing_running(tmp_path: Path, server: Server) -> None:
    other = Server(tmp_path / "other", server.rules, server.table)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        inputs = ["--rules", server.rules, "--asn", server.table, "--state", other.state, "--workers", "1"]
        done = run(*inputs, "--listen", "127.0.0.1:0", "--admin", where)
    assert done.returncode == 1
    assert done.stderr.startswith(f"Error: can't listen on {where}: another program uses this address;")
    assert other.worker_pids() == []


@pytest.mark.parametrize("more", [[], ["--rate-limit", "50"]])
def test_a_start_that_fails_leaves_workers_that_were_there(fresh: Server, more: list[str]) -> None:
    """Also where others were to take their places, and answered already."""
    fresh.end(signal.SIGKILL)
    pids = fresh.worker_pids()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        where = f"127.0.0.1:{taken.getsockname()[1]}"
        inputs = ["--rules", fresh.rules, "--asn", fresh.table, "--state", fresh.state, "--workers", "2", *more]
        done = run(*inputs, "--listen", f"127.0.0.1:{fresh.port}", "--admin", where)
    assert done.returncode == 1
    assert fresh.worker_pids() == pids
    assert fresh.addresses() == [ALDER]


def test_what_cannot_be_served_is_told_with_every_mistake(tmp_path: Path) -> None:
    rules = write_rules(tmp_path / "rules")
    (rules / "example.net.yaml").write_text("version: 1\nzone: example.net\nrecods: {}\nn: 1\n")
    done = run("--rules", rules, "--asn", write_table(tmp_path / "t"), "--state", tmp_path / "state", "--listen", "127.0.0.1:0")
    assert done.returncode == 1
    assert "example.net.yaml:3:1: error: unknown key 'recods', did you mean 'records'? [E103]" in done.stderr
    assert "example.net.yaml:4:1: error: unknown key 'n'" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "state/run").glob("worker-*.json"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--asn", "/nowhere/table.dat"], "Error: /nowhere/table.dat: "),
        (["--state", "/dev/null/state"], "Error: can't write to the state directory /dev/null/state: Not a directory; choose"),
        (["--rules", "/nowhere"], "Error: can't read the rules directory /nowhere: No such file or directory"),
        (["--listen", "192.0.2.77:5300"], "Error: can't listen on 192.0.2.77:5300: no interface of this machine has this"),
    ],
)
def test_what_is_wrong_at_the_start_is_one_sentence(tmp_path: Path, arguments: list[str], said: str) -> None:
    rules, table = write_rules(tmp_path / "rules"), write_table(tmp_path / "table.tsv")
    given = ["--rules", rules, "--asn", table, "--state", tmp_path / "state", "--workers", "1", "--admin", "off"]
    given += [] if "--listen" in arguments else ["--listen", "127.0.0.1:0"]
    done = run(*given, *arguments)
    assert done.returncode == 1
    assert done.stderr.startswith(said)
    assert done.stderr.count("\n") == 1


def test_an_engine_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    done = run("--rules", write_rules(tmp_path / "rules"), "--state", tmp_path / "state", EDGEDNS_ENGINE="warp")
    assert done.returncode == 1
    assert done.stderr.startswith("Error: EDGEDNS_ENGINE is 'warp', and this build has ")
    assert done.stderr.count("\n") == 1


def test_the_reference_path_can_be_forced(tmp_path: Path) -> None:
    server = Server(tmp_path, write_rules(tmp_path / "rules"), write_table(tmp_path / "table.tsv"))
    try:
        server.start(environ={"EDGEDNS_ENGINE": "reference"})
        assert "1 workers; engine: reference" in server.said()
        assert server.addresses() == [ALDER]
    finally:
        server.clean_up()


# -- counters


def total(counters: dict[str, float], name: str, **labels: str) -> float:
    wanted = [f'{key}="{value}"' for key, value in labels.items()]
    return sum(v for k, v in counters.items() if k.split("{")[0] == name and all(one in k for one in wanted))


def test_counters_partition_what_was_asked(tmp_path: Path) -> None:
    with serving(tmp_path, workers=2) as server:
        asked: list[tuple[str, str, Any]] = [
            ("www.example.net", "A", 7), ("www.example.net", "AAAA", 7), ("split.example.net", "A", 9),
            ("one.example.net", "A", None), ("plain.example.net", "A", None), ("alias.example.net", "A", 3),
            ("alias.example.net", "A", None), ("nowhere.example.net", "A", None), ("example.net", "SOA", None),
            ("www.example.net", "MX", None), ("elsewhere.example", "A", None), ("www.example.net", "TYPE65280", 7),
        ]  # fmt: skip
        steered = 0
        for tcp in (False, True):
            for name, rtype, of in asked * 3:
                reply = server.query(name, rtype, of, tcp=tcp)
                given = [rr.address for rrset in reply.answer if rrset.rdtype in (1, 28) for rr in rrset]
                steered += bool(given) and given != ["192.0.2.80"]
        raw = [b"", b"\0", b"\0\1\1", bytes(12), b"\0\1\x80\0" + bytes(8), b"\0\1\x28\0" + bytes(8), b"\0\1\0\0\0\1" + bytes(6)]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(0.3)
            for packet in raw:
                sock.sendto(packet, ("127.0.0.1", server.port))
            replies = 0
            try:
                while sock.recv(2000):
                    replies += 1
            except TimeoutError:
                pass
        counters = server.counters()
        queries = 2 * 3 * len(asked)
        assert total(counters, "edgedns_udp_received_total") == queries / 2 + len(raw)
        assert total(counters, "edgedns_tcp_received_total") == queries / 2
        for proto in ("udp", "tcp"):
            outcomes = total(counters, f"edgedns_{proto}_outcomes_total")
            assert outcomes == total(counters, f"edgedns_{proto}_received_total")
        replied = sum(total(counters, f"edgedns_{proto}_outcomes_total", outcome="replied") for proto in ("udp", "tcp"))
        assert replied == queries + replies
        assert total(counters, "edgedns_dns_requests_total") == total(counters, "edgedns_dns_responses_total") == replied
        for zone in ("example.net", ""):
            requests = total(counters, "edgedns_dns_requests_total", zone=zone)
            assert requests == total(counters, "edgedns_dns_responses_total", zone=zone)
        assert total(counters, "edgedns_dns_requests_total", zone="") == 2 * 3 + replies
        assert total(counters, "edgedns_dns_answers_total") == steered
        assert total(counters, "edgedns_dns_answers_total", rule="fixed", provider="birch", reason="ORDERED") == 6


def test_the_log_is_one_line_each_and_ready_means_answering(fresh: Server) -> None:
    assert fresh.http("/readyz") == (200, {"status": "ready", "serial": 1})
    assert fresh.http("/healthz") == (200, {"status": "ok"})
    lines = fresh.said().splitlines()
    assert all(line[:5].startswith("20") and line[19] == "Z" for line in lines)
    assert any(line.endswith(("with 1 workers; engine: python", "with 1 workers; engine: native")) for line in lines)


def test_everything_deleted_from_the_state_directory_comes_back(tmp_path: Path) -> None:
    with serving(tmp_path, period="500ms") as server:
        while (server.state / "published/root.json").exists():  # the server may be writing there at that moment
            shutil.rmtree(server.state / "published", ignore_errors=True)
        server.wait_for("are written again", within=2 * SLACK)
        wait_until(lambda: (server.state / "published/root.json").exists(), SLACK)
        (pid,) = server.worker_pids()
        os.kill(pid, signal.SIGKILL)  # the next one needs all files
        wait_until(lambda: server.worker_pids() not in ([pid], []), 3 * SLACK)

        def answered() -> bool:
            try:
                return server.addresses(timeout=0.5) == [ALDER]
            except (OSError, DNSException):
                return False

        wait_until(answered, 3 * SLACK)
