from collections.abc import Callable

from typing_extensions import Buffer

FORM: int

class Native:
    """One View, one worker's counters and its secrets, to answer from; ValueError for sections of another form."""

    def __init__(self, sections: dict[str, Buffer], /) -> None: ...
    def reply(self, packet: Buffer, client: Buffer, transport: str, now: float, /) -> bytes | None:
        """As fastpath.reply."""

class Limiter:
    """The terms of response rate limiting and a limit.State's own arrays. `exempt`: rows of family, length, address (16)."""

    def __init__(
        self, rate: int, surplus: int, slip: int, dry_run: bool, due: Buffer, over: Buffer, exempt: Buffer, /
    ) -> None: ...
    def limit(self, packet: Buffer, reply: Buffer, client: Buffer, now: float, /) -> int:
        """As limit.limit: a limit.Verdict."""

def serve(
    fd: int,
    wildcard: bool,
    look: Callable[[], tuple[Native | None, float]],
    respond: Callable[[bytes, bytes], bytes | None],
    limiter: Limiter | None,
    /,
) -> None:
    """Answer a UDP socket until it is shut down, without the GIL. OSError when receiving fails.

    Every 100 ms `look()` gives what to answer from and the time. What Native hands back is given to `respond(packet, client)`,
    which counts silence itself.
    """
