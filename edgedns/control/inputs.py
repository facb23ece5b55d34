"""Rules and ASN table as they are read: whole, completed by what was good before, or as they last were good (law 4)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from edgedns.engine.load import Loaded, load_rules, with_last_good
from edgedns.errors import EdgednsError, Problem, RuleErrors, SourceError
from edgedns.steer.space import asn
from edgedns.steer.space.asn import AsnTable
from edgedns.store.local import LocalStore
from edgedns.store.tables import Tables

Log = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Paths:
    """Where inputs lie: the rules directory, the ASN table (None: what `edgedns data` keeps), demand if a file gives it."""

    state: Path
    rules: Path
    asn: Path | None = None
    demand: Path | None = None


class Reader:
    """Reads the inputs. What is read without errors is kept in the state directory, for the next start."""

    def __init__(self, paths: Paths, store: LocalStore, log: Log) -> None:
        self._paths = paths
        self._store = store
        self._log = log
        self.refused: list[Problem] = []
        self._table_read = False
        self._kept = Tables(paths.state)

    def rules(self, now: float, good: Loaded | None) -> Loaded:
        """The rules directory, its zones with errors as they were in `good`. RuleErrors, SourceError: nothing can be used."""
        try:
            loaded = load_rules(self._paths.rules, now)
        except RuleErrors as error:
            self.refused = error.problems
            raise
        whole = _completed(loaded, good)
        if not whole.rules.zones:
            self.refused = whole.problems
            raise RuleErrors(whole.problems)
        self.refused = []
        return whole

    def first_rules(self, now: float) -> tuple[Loaded, Loaded | None]:
        """The rules to begin with, and the last good ones that were kept."""
        good = self._good_rules(now)
        try:
            return self.rules(now, good), good
        except EdgednsError as error:
            if good is None:
                raise
            self._log(f"{error}\nthe rules can't be used; the last good ones are served")
            return good, good

    def _good_rules(self, now: float) -> Loaded | None:
        if not self._store.good_rules.is_dir():
            return None
        try:
            return load_rules(self._store.good_rules, now)
        except EdgednsError as error:
            self._log(f"{error}\nthe rules that were kept can't be used")
            return None

    def table(self) -> AsnTable:
        """The ASN table; SourceError when it can't be used."""
        table = asn.load(self._paths.asn) if self._paths.asn else self._kept.in_use()
        self._table_read = True
        return table

    def first_table(self) -> AsnTable:
        """The ASN table to begin with: where it can't be used, the last good one that was kept."""
        try:
            return self.table()
        except SourceError as error:
            if self._paths.asn is not None and not self._store.good_table.exists():
                raise
            table = asn.load(self._store.good_table) if self._paths.asn else self._kept.good_one()
            self._table_read = False
            self._log(f"{error}\nthe ASN table can't be used; the last good one is, dated {table.date}")
            return table

    def keep(self, loaded: Loaded) -> None:
        """Keep what was read for the next start, if it is the rules directory as it is, without an error."""
        whole = not loaded.failed_zones and not self.refused
        own = all(Path(zone.where.file).parent == self._paths.rules for zone in loaded.rules.zones.values())
        try:
            if whole and own:
                self._store.keep_rules(self._paths.rules)
            if self._paths.asn is not None and self._table_read:
                self._store.keep_table(self._paths.asn)
        except SourceError as error:
            self._log(str(error))


def _completed(loaded: Loaded, good: Loaded | None) -> Loaded:
    """With each zone that has errors as it was in `good`, whether that was read from the rules directory or from the copy."""
    if good is None:
        return loaded
    names = {Path(file).name for file in loaded.failed_files}
    files = {zone.where.file for zone in good.rules.zones.values() if Path(zone.where.file).name in names}
    whole = with_last_good(replace(loaded, failed_files=loaded.failed_files | files), good)
    return replace(whole, failed_files=loaded.failed_files)
