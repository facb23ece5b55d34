"""Whether `edgedns serve` could start with what is on disk: asked in a process of its own, before anything that serves ends."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from importlib import import_module

from edgedns.config import Address, Settings
from edgedns.control.caps import read_demand
from edgedns.control.cookies import read_secrets
from edgedns.engine.load import load_rules
from edgedns.serve import admin, worker
from edgedns.serve.systemd import Passed
from edgedns.serve.workers import check_free
from edgedns.steer.space import asn

NICE = 10


def rehearse(settings: Settings, listen: Sequence[Address], passed: Passed) -> None:
    """An EdgednsError says what would fail. Nothing is published, and no socket, lock or file of the state is touched."""
    os.nice(NICE)
    import_module("edgedns.cli.server.server")  # and with it whatever it needs
    assert settings.rules is not None
    load_rules(settings.rules, time.time()).refuse_errors()
    if settings.asn:
        asn.load(settings.asn)
    if settings.demand:
        read_demand(settings.demand)
    if settings.cookie_secret_file:
        read_secrets(settings.cookie_secret_file)
    _check_addresses(settings, listen, passed)
    worker.rehearse(settings.state)


def _check_addresses(settings: Settings, listen: Sequence[Address], passed: Passed) -> None:
    held = {one.place.address for one in passed.sockets}
    for address in listen:
        if address.port and address not in held:
            check_free(address)
    ours = passed.admin.getsockname()[:2] if passed.admin else None
    if settings.admin and settings.admin.port and tuple(settings.admin) != ours:
        admin.listen(settings.admin, settings.token).close()
