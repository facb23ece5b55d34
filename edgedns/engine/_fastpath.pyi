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
    def limit(self, packet: Buffer, reply: Buffer, client: Buffer, now: float, secrets: Buffer, /) -> int:
        """As limit.limit: a limit.Verdict. `secrets` one behind the other."""

def serve(
    fd: int,
    wildcard: bool,
    look: Callable[[], tuple[Native | None, float] | None],
    respond: Callable[[bytes, bytes], bytes | None],
    limiter: Limiter | None,
    bell: Buffer,
    /,
) -> None:
    """Answer a UDP socket until it is shut down, without the GIL. OSError when receiving fails.

    Before the first packet, when the number in `bell` (u64) has changed and twice a second, `look()` gives what to answer from
    and the time; or None, and this returns when what it has received is answered. What Native hands back is given to
    `respond(packet, client)`, which counts silence itself. Counts are kept every 100 ms.
    """

def streams(
    epoll: int, patience: int, clients: Buffer, native: Native, now: float, bell: Buffer, rung: int, /
) -> tuple[list[int], list[tuple[int, int, bytes, bytes, int]]]:
    """Wait for events, at most `patience` ms, and answer the connections that `clients` has an address for; none where the
    number in `bell` is not `rung` any more: `native` may be of the past.

    `clients`: by descriptor 17 octets, the address's size (0: Python's) and the address. (Those that asked something; what is
    Python's: descriptor, events, octets read and not answered, replies' octets not sent, how many replies those end.)
    """
