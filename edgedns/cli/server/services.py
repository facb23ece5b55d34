"""What the admin side shows and does, from the control process' state."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from ipaddress import ip_address, ip_network
from itertools import chain
from math import isfinite, nan
from pathlib import Path
from typing import Any, Protocol, TypeVar

from edgedns import metrics
from edgedns.cli.server import trust
from edgedns.cli.server.learning import Learning
from edgedns.cli.server.turns import Turns
from edgedns.control import Control, planning
from edgedns.control.caps import Account
from edgedns.control.wishing import Wishing
from edgedns.dns import name as names
from edgedns.dns import types
from edgedns.engine import seen
from edgedns.engine.explain import Question, explain
from edgedns.engine.top import top
from edgedns.errors import EdgednsError, RuleErrors
from edgedns.metrics import Family
from edgedns.model import Override, Prefix
from edgedns.serve import admin
from edgedns.serve.loads import parse_loads
from edgedns.serve.senders import Sender
from edgedns.serve.workers import Workers
from edgedns.steer.table.rows import key_of, level_of
from edgedns.web.pages import Sources

T = TypeVar("T")
MANY = 1000  # samples: the first of so many tells when they begin


class Call(Protocol):
    """Runs a function of the control's in its turn."""

    async def __call__(self, function: Callable[..., T], *arguments: object) -> T: ...


class PlanError(EdgednsError):
    """The rules of a plan have mistakes."""


class QuestionError(EdgednsError):
    """An explain question that can't be understood."""


def make_services(
    control: Control,
    workers: Workers,
    turns: Turns,
    reload: Callable[[], Awaitable[dict[str, Any]]],
    learning: Learning,
    wishing: Wishing,
) -> admin.Services:
    """The callables that serve/admin.py is handed."""
    call = turns.call

    async def explained(question: admin.Question) -> dict[str, Any]:
        return await call(explain_now, control, question, time.time())

    async def samples(body: bytes, sender: Sender) -> dict[str, Any]:
        outcome = await call(control.ingest, body, time.time(), sender.vantage, sender.ahead)
        learning.answered.take(outcome)
        await call(wishing.after, outcome, time.time())
        return outcome.reply()

    async def wan(asn: int | None, limit: int) -> dict[str, Any]:
        return await call(wan_rows, control, asn, limit)

    async def uplift(limit: int) -> dict[str, Any]:
        return await call(control.uplift, limit, time.time())

    async def overrides() -> Sequence[Override]:
        return control.overrides

    async def add(order: Override) -> Override:
        return await add_override(control, turns, order)

    async def remove(number: str) -> bool:
        return await remove_override(control, turns, number)

    async def status() -> dict[str, Any]:
        return {**await call(status_now, control, workers, time.time()), "targets": learning.targets.told()}

    async def note(kind: str, text: str) -> dict[str, Any]:
        return await call(control.note, kind, text, time.time())

    async def load(body: object) -> dict[str, Any]:
        now = time.time()
        return await call(control.take_loads, parse_loads(body, now), now)

    return admin.Services(
        serial=lambda: min(workers.serials(), default=0),
        families=lambda: chain(families(control, workers, time.time()), wishing.wanted.families()),
        explain=explained,
        samples=samples,
        wan=wan,
        uplift=uplift,
        overrides=overrides,
        add_override=add,
        remove_override=remove,
        status=status,
        add_note=note,
        load=load,
        reload=reload,
    )


async def add_override(control: Control, turns: Turns, order: Override) -> Override:
    """Take an order. A pin is compiled beside the turns; a drain is not compiled, and waits for nothing."""
    order = await turns.call(control.completed_order, order, time.time())
    if order.kind == "drain":
        await turns.call(control.take_order, order, None, time.time())
        return order
    async with turns.changing:
        world = await turns.beside(control.worlds.with_orders, [*control.overrides, order], time.time())
        await turns.call(control.take_order, order, world, time.time())
    return order


async def remove_override(control: Control, turns: Turns, number: str) -> bool:
    """End an order; False when there is none of that id."""
    if not any(one.id == number and one.kind == "pin" for one in control.overrides):
        return await turns.call(control.drop_order, number, None, time.time())
    async with turns.changing:
        left = [one for one in control.overrides if one.id != number]
        world = await turns.beside(control.worlds.with_orders, left, time.time())
        return await turns.call(control.drop_order, number, world, time.time())


async def planned(control: Control, turns: Turns, files: Mapping[str, str]) -> Mapping[str, Any]:
    """What publishing these files as rules would change."""
    with tempfile.TemporaryDirectory(prefix="edgedns-plan-") as folder:
        _write(Path(folder), files)
        async with turns.changing:
            try:
                world = await turns.beside(planning.draft, control, Path(folder), time.time())
            except RuleErrors as errors:
                raise PlanError(str(errors).replace(f"{folder}/", "")) from None
            made = await turns.call(planning.plan, control, world, time.time())
        return await turns.beside(made.told)


def _write(folder: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        except OSError as error:
            raise PlanError(f"{name!r} can't be written: {error.strerror}") from None


async def most_asked(control: Control, seconds: int, limit: int) -> Mapping[str, Any]:
    """Who asks most; counted beside all else, since nothing of the control's changes by it."""
    return await asyncio.to_thread(_counted, control, seconds, limit)


def _counted(control: Control, seconds: int, limit: int) -> dict[str, Any]:
    """The sample of the last `seconds`, counted; of fewer where a worker's ring holds no more."""
    now = time.time()
    found = seen.read(control.run, now - seconds)
    span = now - found[0].at if len(found) > MANY else float(seconds)
    blocks = seen.chosen(control.registry.blocks(), found)
    return top(found, blocks, control.network_of, control.world.table.names, span, limit)


def make_sources(services: admin.Services, control: Control, call: Call) -> Sources:
    """The callables that the page is handed."""

    async def explained(query: Mapping[str, str]) -> Mapping[str, Any]:
        return await services.explain(admin.parse_question(query))

    async def answers() -> Mapping[str, float]:
        return await call(answers_by_provider, control)

    return Sources(services.status, explained, answers)


def answers_by_provider(control: Control) -> dict[str, float]:
    """How many answers gave each provider, since the counters began."""
    given = dict.fromkeys(control.world.rules.providers, 0.0)
    for family in metrics.families(control.registry, control.run):
        if family.name == "edgedns_dns_answers":
            at = family.labels.index("provider")
            for labels, count in family.samples:
                if labels[at] in given:
                    given[labels[at]] += count
    return given


def explain_now(control: Control, asked: admin.Question, now: float) -> dict[str, Any]:
    """Explain from the published snapshot that `control` made last."""
    told = explain(control.snapshot(), parse_question(control, asked), control.evidence(now), now)
    return {**told, "quarantined": control.measured.vantages.quarantined}


def parse_question(control: Control, asked: admin.Question) -> Question:
    try:
        name, rtype = names.from_text(asked.name), types.type_number(asked.type)
    except ValueError as error:
        raise QuestionError(f"{error}") from None
    client = ip_address(asked.client).packed if asked.client else None
    if client is None:
        client = control.world.table.first_address(asked.asn or 0)
    if client is None:
        raise QuestionError(f"AS{asked.asn} has no address in the ASN table")
    subnet = None
    if asked.subnet:
        network = ip_network(asked.subnet, strict=False)
        subnet = Prefix(4 if network.version == 4 else 6, network.network_address.packed, network.prefixlen)
    return Question(name, rtype, client, subnet)


def wan_rows(control: Control, asn: int | None, limit: int) -> dict[str, Any]:
    """The WAN table, its most sampled rows first."""
    table = control.force.table
    chosen = [i for i in range(len(table.keys)) if asn is None or table.rows["asn"][i] == asn]
    chosen.sort(key=lambda i: -float(table.samples[i].sum()))
    levels = level_of(table.rows)
    rows = [_wan_row(control, i, int(levels[i])) for i in chosen[:limit]]
    return {"serial": control.serial, "at": table.at, "rows": rows, "total": len(chosen)}


def _wan_row(control: Control, i: int, level: int) -> dict[str, Any]:
    table, key = control.force.table, key_of(control.force.table.rows[i])
    arms = []
    for f, family in enumerate((4, 6)):
        for p, provider in enumerate(table.providers):
            if table.samples[i, f, p] > 0:
                cells = {name: round(float(getattr(table, name)[i, f, p]), 3) for name in ("mean", "w50", "rtt", "samples")}
                arms.append({
                    "provider": provider, "family": family, "wan": cells["mean"], "w50": cells["w50"],
                    "rtt_ms": cells["rtt"], "samples": cells["samples"],
                })  # fmt: skip
    name = control.world.table.names.get(key.asn)
    return {"network": key.text, "asn": key.asn if key.asn > 0 else None, "as_name": name, "level": level, "arms": arms}


def status_now(control: Control, workers: Workers, now: float) -> dict[str, Any]:
    """For the page and the console: all of it comes from what is published."""
    root = control.publisher.root or {}
    states, health = control.states(now), control.measured.health
    totals = metrics.read_totals(control.run)
    return {
        "now": now,
        "started": workers.settled,
        "serial": root.get("serial", 0),
        "serials": sorted(workers.serials()),
        "published": root.get("published"),
        "fresh_until": root.get("fresh_until"),
        "sampled_at": control.measured.sampled_at or None,
        "zones": {name: serial.serial for name, serial in control.world.serials.items()},
        "names": [names.to_text(record.name) for zone in control.world.rules.zones.values() for record in zone.records],
        "failed_zones": sorted(control.world.loaded.failed_zones),
        "providers": [
            {
                "name": name,
                "addresses": [str(ip_address(one)) for one in (*provider.v4, *provider.v6)],
                "state": states[name],
                "down4": health.provider_down(name, 4),
                "down6": health.provider_down(name, 6),
                "checks": control.checks.told(name),
            }
            for name, provider in control.world.rules.providers.items()
        ],
        "queries": {"udp": totals[metrics.UDP_RECEIVED], "tcp": totals[metrics.TCP_RECEIVED]},
        "samples": dict(control.collector.counts),
        "elsewhere": len(control.measured.catchments),
        "rows": len(control.force.table.keys),
        "moves": list(control.recent),
        "vantages": control.measured.vantages.told(now)["vantages"],
        "capacity": control.caps.account.told(),
        "notes": list(control.notes),
        "overrides": len(control.overrides),
        "listen": [str(address) for address in workers.listen],
    }


def families(control: Control, workers: Workers, now: float) -> Iterable[Family]:
    """Everything at /metrics: the workers' counters and the control process' own."""
    counts, force = control.counts, control.force
    yield from metrics.families(control.registry, control.run)
    age = now - force.taken_at if force.taken_at else nan
    reloads = {"good": counts.reloads_good, "bad": counts.reloads_bad}
    yield from metrics.control_families(control.serial, age, reloads, control.collector.counts, workers.restarts)
    yield Family("edgedns_publishes", "Roots published.", "counter", (), [((), float(counts.publishes))])
    refused = "WAN tables refused as implausible; the last good one stands."
    yield Family("edgedns_publish_refused", refused, "counter", (), [((), float(counts.refused))])
    rows = float(len(force.table.keys))
    yield Family("edgedns_wan_rows", "Rows of the WAN table, levels included.", "gauge", (), [((), rows)])
    made = datetime.fromisoformat(control.world.table.date).replace(tzinfo=UTC).timestamp()
    yield Family("edgedns_asn_table_timestamp_seconds", "When the ASN table in force was made.", "gauge", (), [((), made)])
    up = [((name,), float(state == "up")) for name, state in control.states(now).items()]
    yield Family("edgedns_provider_up", "1 unless a provider is drained or declared down.", "gauge", ("provider",), up)
    yield from _capacity_families(control.caps.account)
    yield from control.passive.families()
    yield from trust.families(control)
    yield from control.measured.catchments.families()
    checked, failing = control.checks.checked, control.checks.failing
    good = [((name, "1" if family == 4 else "2"), float((name, family) not in failing)) for name, family in sorted(checked)]
    yield Family("edgedns_provider_check", "1 while a provider's check is good.", "gauge", ("provider", "family"), good)


def _capacity_families(account: Account) -> Iterable[Family]:
    """How caps stand; nothing where none is in force."""
    rows = list(zip(account.names, account.cap, account.load, account.price, strict=True))
    used = [((name,), load / cap) for name, cap, load, _ in rows if isfinite(cap)]
    yield Family("edgedns_capacity_used", "Expected load over its cap, by provider.", "gauge", ("provider",), used)
    price = [((name,), price) for name, cap, _, price in rows if isfinite(cap)]
    yield Family("edgedns_capacity_price_ms", "What a network must lose to be let in.", "gauge", ("provider",), price)
    unmet = [((), float(account.state == "unmet"))] if rows else []
    yield Family("edgedns_capacity_unmet", "1 while caps can't all be met.", "gauge", (), unmet)
