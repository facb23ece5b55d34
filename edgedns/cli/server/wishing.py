"""What the admin side calls to tell agents what to probe, and to ask them for a person."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any

from edgedns.cli.server.services import explain_now
from edgedns.cli.server.turns import Turns
from edgedns.control import Control
from edgedns.control.questions import QuestionRefused
from edgedns.control.wishing import Wishing
from edgedns.dns import name as names
from edgedns.errors import EdgednsError
from edgedns.model import Family
from edgedns.serve import admin, wanted
from edgedns.serve.guard import Refused

LOOK = 0.1


def make_calls(control: Control, wishing: Wishing, turns: Turns, bars: Callable[[bytes], bool]) -> wanted.Calls:
    """The callables that serve/wanted.py is handed. `bars`: whether nobody may probe a packed address."""

    async def hand_out(asking: wanted.Asking) -> Mapping[str, Any]:
        sources: list[tuple[str, Family]] = [(name, 6 if family == 6 else 4) for name, family in asking.sources]
        if not wishing.wanted.arrive(asking.vantage, asking.room, sources, time.time()):
            raise Refused(429, "too many vantages")
        for result in asking.results:
            wishing.questions.result(asking.vantage, result.id, result.provider, result.rtt_ms, result.why)
        until = time.monotonic() + asking.wait
        while not (entries := wishing.take(asking.vantage, time.time())) and time.monotonic() < until:
            await asyncio.sleep(LOOK)
            wishing.wanted.arrive(asking.vantage, asking.room, sources, time.time())
        return {"wanted": entries, "together": wishing.together}

    async def ask(asked: wanted.Asked) -> Mapping[str, Any]:
        now = time.time()
        about = await turns.call(_about, control, asked, now)
        try:
            return wishing.ask(asked.address, asked.method, asked.rounds, about, bars, now)
        except QuestionRefused as error:
            raise Refused(409, str(error)) from None

    async def look(number: str) -> Mapping[str, Any] | None:
        return wishing.questions.told(number, time.time())

    return wanted.Calls(hand_out, ask, look)


def _about(control: Control, asked: wanted.Asked, now: float) -> dict[str, Any]:
    """Whose network an address is, and which provider it is given for a name; the first that is steered, if none is given."""
    name = asked.name or _first_name(control)
    if not name:
        return {"name": None, "provider": None, "reason": None}
    kind = "AAAA" if ":" in asked.address else "A"
    try:
        found = explain_now(control, admin.Question(name, kind, asked.address, None, None), now)
    except EdgednsError:
        if asked.name:
            raise
        return {"name": name, "provider": None, "reason": None}
    told = {key: found.get(key) for key in ("name", "provider", "reason")}
    return told | ({"network": found["network"]} if found.get("network") else {})


def _first_name(control: Control) -> str:
    records = (record for zone in control.world.rules.zones.values() for record in zone.records)
    return next((names.to_text(record.name) for record in records), "")
