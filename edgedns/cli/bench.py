"""`edgedns bench`: load on a DNS server of one's own, and what came back."""

from __future__ import annotations

import json
import secrets
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from pathlib import Path
from random import Random
from typing import Any

import click
import dns.edns
import dns.exception
import dns.message
from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from edgedns import pictures
from edgedns.bench import picture, questions, subnets, volley
from edgedns.bench.questions import Mix, Question
from edgedns.bench.run import Plan, Result, Tick, first_reply, run
from edgedns.bench.volley import Cell, Magazine
from edgedns.cli.duration import Duration
from edgedns.dns import name
from edgedns.dns.types import type_number
from edgedns.errors import EdgednsError, SourceError

GENTLE = 1000  # queries a second that anybody may be asked
SOURCES = 256
BEHIND = 0.01  # of the queries: beyond it this machine was too slow for the rate
BLOCKS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True)
class Wanted:
    """The options that say what is asked."""

    queries: Path | None
    names: tuple[str, ...]
    rtype: str
    random_names: int | None
    under: str | None
    nxdomain: float
    ecs: str | None
    edns: int
    cookie: str | None
    seed: int


@click.command()
@click.argument("server", metavar="SERVER[:PORT]")
@click.option("--rate", type=click.FloatRange(0.1, 5e6), help="Queries a second, whatever comes back (open loop).")
@click.option("--outstanding", type=click.IntRange(1, 100_000), help="Queries always on their way (closed loop).  [100]")
@click.option("--burst", type=click.IntRange(1, 10_000), default=1, help="With --rate: so many leave together.  [1]")
@click.option("--duration", type=Duration(), default=10.0, help="How long.  [10s]")
@click.option("--warmup", type=Duration(), default=1.0, help="Before that, uncounted.  [1s]")
@click.option("--timeout", type=Duration(), default=1.0, help="After it a query is lost.  [1s]")
@click.option("--queries", type=click.Path(path_type=Path), metavar="FILE",
              help="What to ask, as for dnsperf: `name type` lines.")  # fmt: skip
@click.option("--name", "names", multiple=True, metavar="NAME", help="... or this name; may be given several times.")
@click.option("--type", "rtype", default="A", help="Of the names given or made here.  [A]")
@click.option("--names", "random_names", type=click.IntRange(1, 1_000_000), metavar="N",
              help="... or N random names, of the zone that --under tells.")  # fmt: skip
@click.option("--under", metavar="ZONE", help="Where --names are made.")
@click.option("--nxdomain", type=click.FloatRange(0, 1), default=0.0, metavar="SHARE",
              help="Share of queries under made-up names beside those asked.")  # fmt: skip
@click.option("--ecs", metavar="N|FILE", help="Client subnets: N random public /24s, or a file with a prefix a line.")
@click.option("--source", "sources", multiple=True, metavar="ADDR|PREFIX",
              help="Ask from these addresses, e.g. 127.0.1.0/26.")  # fmt: skip
@click.option("--sockets", type=click.IntRange(1, 1024), help="In all; each source has as many.  [8, or one a source]")
@click.option("--edns", "payload", type=click.IntRange(0, 4096), default=1232, help="UDP size offered; 0 for no EDNS.  [1232]")
@click.option("--cookie", type=click.Choice(["new", "kept"]), help="Send a cookie nobody has seen, or the one the server gave.")
@click.option("--seed", type=int, default=0, help="Of the dice.  [0]")
@click.option("--engine", type=click.Choice(["native", "python"]), help="The loop that asks.  [native where it was built]")
@click.option("--max-loss", type=click.FloatRange(0, 1), default=0.001, help="Share lost beyond which to exit with 1.  [0.001]")
@click.option("--i-own-this-server", "owned", is_flag=True,
              help=f"Allow over {GENTLE} queries a second to a public address.")  # fmt: skip
@click.option("--plot", "plot_to", type=click.Path(path_type=Path), metavar="FILE", help="Draw the latencies (.png, .svg).")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def bench(
    server: str, rate: float | None, outstanding: int | None, burst: int, duration: float, warmup: float, timeout: float,
    sources: tuple[str, ...], sockets: int | None, engine: str | None, max_loss: float, owned: bool, plot_to: Path | None,
    as_json: bool, payload: int, **asked: Any,
) -> None:  # fmt: skip
    """Put load on a DNS server of yours over UDP, and tell how soon it answers and how much it loses.

    Open loop (--rate): queries leave on schedule, and latency counts from when each was due. Closed loop (--outstanding): the
    next one leaves when one comes back. For a server on this machine its CPU per query is told too.

    Exit 0: all good. 1: more was lost than --max-loss, or replies were to another question. 2: could not run.
    """
    try:
        if rate and outstanding:
            raise EdgednsError("--rate is the open loop, --outstanding the closed one: give one of them")
        address, port = _server(server)
        places = _sources(sources, address)
        plan = Plan(
            address, port, rate or 0.0, outstanding or 100, burst, duration, warmup, timeout, places,
            _ports(sockets, len(places)), _native(engine),
        )  # fmt: skip
        _gentle(plan, owned)
        if plot_to is not None:
            pictures.require()
        result = _measure(plan, Wanted(edns=payload, **asked))
        if plot_to is not None:
            picture.draw(result, plot_to)
    except (EdgednsError, name.BadName) as error:
        click.echo(f"error: {error}", err=True)
        raise SystemExit(2) from None
    _report(result, as_json)
    _warn_when_behind(result)
    raise SystemExit(bool(_wrong(result, max_loss)))


def _measure(plan: Plan, wanted: Wanted) -> Result:
    magazine = _magazine(plan, wanted)
    first = magazine.packets[: magazine.rows[1]]
    reply = first_reply(plan, first)
    if wanted.cookie == "kept":
        magazine = _magazine(plan, wanted, _cookie_of(reply))
    with _live(plan) as tell:
        return run(plan, magazine, tell)


# -- whom


def _server(text: str) -> tuple[str, int]:
    """Address and port of `host`, `host:port`, `[v6]:port` or a bare v6 address."""
    host, port = text, "53"
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        port = rest.removeprefix(":") or port
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    if not host or not port.isascii() or not port.isdecimal() or not 0 < int(port) <= 65535:
        raise EdgednsError(f"{text!r} is no server: an address or a host's name, and if need be :PORT, e.g. 127.0.0.1:5300")
    try:
        found = socket.getaddrinfo(host, int(port), type=socket.SOCK_DGRAM)
    except (OSError, UnicodeError) as error:
        raise EdgednsError(f"{host!r} has no address: {getattr(error, 'strerror', error)}") from None
    return str(found[0][4][0]), int(port)


def _sources(texts: tuple[str, ...], address: str) -> tuple[str, ...]:
    """The addresses meant, those of prefixes one by one. EdgednsError for too many, or another family than the server's."""
    found: list[str] = []
    for text in texts:
        try:
            net = ip_network(text, strict=False)
        except ValueError:
            raise EdgednsError(f"--source {text} is neither an address nor a prefix") from None
        if net.version != ip_address(address).version:
            raise EdgednsError(f"--source {text} is no IPv{ip_address(address).version} address, as the server's {address} is")
        if net.num_addresses > SOURCES:
            raise EdgednsError(f"--source {text} has {net.num_addresses:,} addresses; {SOURCES} are the most")
        found += map(str, net)
    if len(found) > SOURCES:
        raise EdgednsError(f"{len(found)} sources; {SOURCES} are the most")
    return tuple(found)


def _ports(sockets: int | None, sources: int) -> int:
    """How many sockets each source gets."""
    return max(1, (sockets or 8) // max(1, sources))


def _native(engine: str | None) -> bool:
    if engine == "native" and not volley.NATIVE:
        raise EdgednsError("the native loop was not built: install gcc and Python's headers, then edgedns again")
    return volley.NATIVE and engine != "python"


def _gentle(plan: Plan, owned: bool) -> None:
    """Strangers' servers are not to be loaded."""
    where = ip_address(plan.address)
    ours = where.is_loopback or where.is_private or where.is_link_local
    if not ours and not owned and not 0 < plan.rate <= GENTLE:
        raise EdgednsError(
            f"{plan.address} is a public address: load on a server that is not yours is an attack. Up to --rate {GENTLE} is "
            "allowed; for more, if it is yours, add --i-own-this-server"
        )


# -- what


def _magazine(plan: Plan, wanted: Wanted, cookie: bytes | None = None) -> Magazine:
    dice = Random(wanted.seed)
    if wanted.cookie and cookie is None:
        cookie = secrets.token_bytes(8) if wanted.cookie == "kept" else dice.randbytes(8)
    if wanted.cookie == "kept" and len(plan.sources) > 1:
        raise EdgednsError("a server's cookie is for one address: --cookie kept needs a single --source")
    if not wanted.edns and (wanted.ecs or wanted.cookie):
        raise EdgednsError("client subnets and cookies are EDNS options: leave out --edns 0")
    mix = Mix(wanted.nxdomain, _subnets(wanted.ecs, dice), wanted.edns, cookie or b"")
    return questions.load(_questions(wanted, dice), mix, dice)


def _questions(wanted: Wanted, dice: Random) -> list[Question]:
    ways = [wanted.queries is not None, bool(wanted.names), wanted.random_names is not None]
    if sum(ways) != 1:
        raise EdgednsError("what is to be asked? Give one of --queries FILE, --name NAME, or --names N --under ZONE")
    if wanted.queries is not None:
        return questions.read(wanted.queries)
    try:
        rtype = type_number(wanted.rtype)
    except ValueError as error:
        raise EdgednsError(f"--type: {error}") from None
    if wanted.names:
        return [Question(name.from_text(each), rtype) for each in wanted.names]
    if wanted.under is None or wanted.random_names is None:
        raise EdgednsError("--names needs --under ZONE: the zone below which the names are made")
    return questions.random_names(name.from_text(wanted.under), wanted.random_names, rtype, dice)


def _subnets(ecs: str | None, dice: Random) -> list[subnets.Subnet]:
    if ecs is None:
        return []
    if not ecs.isdecimal():
        return subnets.read(Path(ecs))
    if not 0 < int(ecs) <= questions.MOST:
        raise SourceError(f"--ecs {ecs}: 1 to {questions.MOST:,} subnets can be made")
    return subnets.random_slash24s(int(ecs), dice)


def _cookie_of(reply: bytes) -> bytes:
    """The content of the reply's COOKIE option. EdgednsError where there is none."""
    try:
        options = dns.message.from_wire(reply).options
    except (dns.exception.DNSException, ValueError) as error:
        raise EdgednsError(f"the first reply can't be read: {error}") from None
    for option in options:
        if option.otype == dns.edns.OptionType.COOKIE:
            return option.to_wire() or b""
    raise EdgednsError("the server gives no cookie: leave out --cookie kept")


# -- what came of it


@contextmanager
def _live(plan: Plan) -> Iterator[Callable[[Tick], None]]:
    """A display on a terminal that follows the ticks."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda tick: None
        return
    ticks: list[Tick] = []
    with Live(_display(plan, ticks), console=console, transient=True, auto_refresh=False) as live:

        def tell(tick: Tick) -> None:
            ticks.append(tick)
            live.update(_display(plan, ticks), refresh=True)

        yield tell


def _display(plan: Plan, ticks: list[Tick]) -> Table:
    table = Table(title=f"{plan.address} port {plan.port}", title_justify="left", box=None, pad_edge=False)
    for heading in ("second", "answers/s", "lost", "p50 ms", "p99 ms", "p99.9 ms"):
        table.add_column(heading, justify="right")
    table.add_column("answers/s, p99 ms")
    if not ticks:
        table.add_row(f"0/{plan.duration:g}", "warming up")
        return table
    last = ticks[-1]
    curves = Text.assemble(
        (_sparks([tick.answered for tick in ticks]), "green"), " ", (_sparks([tick.latency["p99"] for tick in ticks]), "yellow")
    )
    table.add_row(
        f"{last.at:g}/{plan.duration:g}", f"{last.answered:,}", f"{sum(tick.lost for tick in ticks):,}",
        *(f"{last.latency[each] * 1e3:.3f}" for each in ("p50", "p99", "p99.9")), curves,
    )  # fmt: skip
    return table


def _sparks(values: Sequence[float], width: int = 20) -> str:
    shown = values[-width:]
    most = max(shown) or 1
    return "".join(BLOCKS[min(7, int(8 * each / most))] for each in shown)


def _report(result: Result, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(result.to_json(), indent=2))
        return
    plan, cells = result.plan, result.cells
    how = f"open loop at {plan.rate:,g} queries/s" if plan.rate else f"closed loop, {plan.outstanding:,} outstanding"
    places = f" from {len(plan.sources)} addresses" if plan.sources else ""
    click.echo(f"{plan.address} port {plan.port}, {how}{places}, {result.seconds:.1f} s, {_loop(plan)} loop")
    for title, text in {
        "sent": f"{cells[Cell.SENT]:,}",
        "answered": f"{cells[Cell.ANSWERED]:,}  ({cells[Cell.ANSWERED] / result.seconds:,.0f}/s)",
        "lost": f"{cells[Cell.LOST]:,}  ({result.lost_share:.3%}; {cells[Cell.LATE]:,} came after {plan.timeout:g} s)",
        "rcodes": ", ".join(f"{rcode} {count:,}" for rcode, count in result.rcodes.items()) or "none",
        "odd": _odd(cells) or "nothing",
        "latency ms": "  ".join(f"{each} {seconds * 1e3:.3f}" for each, seconds in result.latency.items()),
        "server CPU": _server_cpu(result),
        "own CPU": f"{result.own_cpu / max(1, cells[Cell.SENT]) * 1e6:.2f} us a query",
    }.items():
        click.echo(f"  {title:<11} {text}")


def _loop(plan: Plan) -> str:
    return "native" if plan.native else "plain Python"


def _odd(cells: Sequence[int]) -> str:
    found = {
        "truncated": Cell.TRUNCATED, "to another question": Cell.WRONG, "that nobody asked for": Cell.STRANGE,
        "network errors": Cell.REFUSED,
    }  # fmt: skip
    return ", ".join(f"{cells[cell]:,} {what}" for what, cell in found.items() if cells[cell])


def _server_cpu(result: Result) -> str:
    if result.server_us is not None and result.server_cpu is not None:
        pids = ", ".join(map(str, result.server_pids))
        return f"{result.server_us:.2f} us a query ({result.server_cpu / result.seconds:.0%} of a core; pid {pids})"
    return "not known: the server is elsewhere, or its /proc entry is not ours to read"


def _warn_when_behind(result: Result) -> None:
    if result.behind_share > BEHIND:
        more = "" if result.plan.native else "; the native loop can do more"
        click.echo(
            f"warning: {result.behind_share:.1%} of the queries left over 1 ms late or never, and latency counts from when "
            f"they were due: this machine can't keep --rate, or has other work{more}", err=True,
        )  # fmt: skip


def _wrong(result: Result, max_loss: float) -> list[str]:
    """What makes the exit code 1, told on standard error."""
    found = []
    if result.lost_share > max_loss:
        found.append(f"{result.lost_share:.3%} lost; --max-loss is {max_loss:.3%}")
    if result[Cell.WRONG]:
        found.append(f"{result[Cell.WRONG]:,} replies were to another question")
    for each in found:
        click.echo(f"warning: {each}", err=True)
    return found
