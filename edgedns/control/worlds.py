"""Worlds made of what is on disk and of operators' pins. That takes seconds, so it is done beside the turns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from edgedns.control.inputs import Log, Paths, Reader
from edgedns.control.orders import Orders
from edgedns.engine.load import Loaded
from edgedns.engine.world import Ground, Held, Inputs, Serial, World, held_to_tests, make_world
from edgedns.errors import EdgednsError, Problem
from edgedns.model import Override, RuleSet
from edgedns.steer.space.asn import AsnTable
from edgedns.store.local import LocalStore

Gathered = Callable[[AsnTable, Sequence[Override], int], Inputs]


class Worlds:
    """Makes worlds to go on with from the one in force, which stays where none can be made: then why is told.

    `read_rules`, `read_table` and `with_orders` may run beside the turns, one at a time until their result is taken: failures
    must not wait for them. `gathered` makes inputs of a table, pins and a salt; `current` gives the world in force.
    """

    def __init__(
        self, paths: Paths, store: LocalStore, orders: Orders, gathered: Gathered, current: Callable[[], World], log: Log
    ) -> None:
        self._reader = Reader(paths, store, log)
        self._store = store
        self._orders = orders
        self._gathered = gathered
        self._current = current
        self._log = log
        self._salt = 0

    @property
    def problems(self) -> list[Problem]:
        """What was wrong with the rules that were read last."""
        return self._reader.refused or self._current().loaded.problems

    def first(self, serials: Mapping[str, Serial], now: float) -> World:
        """The world to begin with; RuleErrors or SourceError where there is nothing to serve."""
        self._salt = self._store.ensure_salt()
        table = self._reader.first_table()
        read, good = self._reader.first_rules(now)
        return self._made(read, good, table, serials, None, now)

    def read_rules(self, now: float) -> World | None:
        """The rules directory as it is now, compiled; None, and it is told, when nothing in it can be used."""
        world = self._current()
        try:
            read = self._reader.rules(now, world.loaded)
            return self._made(read, world.loaded, world.table, world.serials, world.ground, now)
        except (EdgednsError, OSError) as error:
            self._log(f"{error}\nthe rules stay as they were")
            return None

    def read_table(self, now: float) -> World | None:
        """The same rules over the ASN table as it is now; None, and it is told, when that can't be used."""
        world = self._current()
        try:
            inputs = self.inputs(self._reader.table(), world.rules)
            return make_world(Held(world.loaded), inputs, world.serials, now, world.ground)
        except (EdgednsError, OSError) as error:
            self._log(f"{error}\nthe ASN table stays as it was")
            return None

    def with_orders(self, orders: Sequence[Override], now: float) -> World:
        """The world under these orders: pins are compiled as rules, drains are not in it."""
        world = self._current()
        inputs = self.inputs(world.table, world.rules, orders)
        if inputs.pins == self._orders.pins(world.rules):
            return world
        return make_world(Held(world.loaded), inputs, world.serials, now, world.ground)

    def inputs(self, table: AsnTable, rules: RuleSet, orders: Sequence[Override] | None = None) -> Inputs:
        """What a world of these rules is made from, under these orders or those that there are."""
        return self._gathered(table, self._orders.pins(rules, orders), self._salt)

    def tell(self) -> None:
        """Say what is wrong with the rules in force."""
        loaded = self._current().loaded
        for error in loaded.errors:
            self._log(str(error))
        for name in sorted(loaded.failed_zones):
            served = "stays as it was" if name in loaded.rules.zones else "is not served"
            self._log(f"zone {name} has errors and {served}")

    def keep(self) -> None:
        """Keep what is in force for the next start, if it is what was read and good."""
        self._reader.keep(self._current().loaded)

    def _made(
        self,
        read: Loaded,
        good: Loaded | None,
        table: AsnTable,
        serials: Mapping[str, Serial],
        ground: Ground | None,
        now: float,
    ) -> World:
        """Each zone of what was read whose tests fail is as it was in `good`."""
        rules = held_to_tests(read, self.inputs(table, read.rules), serials, now, ground, good)
        return make_world(rules, self.inputs(table, rules.loaded.rules), serials, now, ground)
