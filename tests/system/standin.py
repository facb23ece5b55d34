"""What answers in place of the engine: an echo with a few words that it obeys. Workers find it by PYTHONPATH."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from edgedns import metrics


class Echo:
    """Replies with the packet, unless it is a word below. `serial` is what `<state>/serial` says, 1 without it."""

    def __init__(self, state: str, tag: bytes = b"") -> None:
        self._serial_file = Path(state) / "serial"
        self._tag = tag
        self.places = (Path(state),)
        self.serial = 0

    def refresh(self, now: float) -> None:
        self.serial = int(self._serial_file.read_text()) if self._serial_file.exists() else 1

    def respond(self, packet: bytes, client: bytes, transport: str, now: float) -> bytes | None:
        if packet == b"silence":
            return None
        if packet == b"raise":
            raise ValueError("as asked")
        if packet == b"modules":
            return ",".join(sorted(sys.modules)).encode()
        if packet == b"pid":
            return str(os.getpid()).encode()
        if packet == b"client":
            return transport.encode() + b" " + client
        if packet == b"large":
            return bytes(65535)
        if packet == b"too large":
            return bytes(65536)
        if packet.startswith(b"work"):
            time.sleep(0.005)
        if packet == b"truncated":
            return b"\x00\x00\x82\x00"
        if packet == b"die":
            os._exit(7)
        return self._tag + (packet or b"empty")


def open_echo(state: str, counters: metrics.Counters) -> Echo:
    return Echo(state)


def open_tagged(state: str, counters: metrics.Counters) -> Echo:
    return Echo(state, b"new ")


def open_broken(state: str, counters: metrics.Counters) -> Echo:
    raise ValueError("this responder never opens")
