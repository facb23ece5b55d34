"""Options of `edgedns probe` about how packets look and where they leave from."""

from __future__ import annotations

import re
import secrets
from pathlib import Path

import click

from edgedns.cli import sending
from edgedns.plainfile import OTHERS_MAY
from edgedns.probe.http import HTTP_TIMES, HttpTime
from edgedns.probe.methods import Voice
from edgedns.probe.source import Source

PORT = 33053
SOURCE = "PROVIDER=ADDRESS[,interface=NAME][,mark=N]"
_KEY = re.compile(r"(?:[0-9A-Fa-f]{2}){16,64}")
_INTERFACE = re.compile(r"[!-.0-~]{1,15}")  # as the kernel has it: no slash, no blank
_MARK = re.compile(r"0x[0-9A-Fa-f]{1,8}|[1-9][0-9]{0,9}")

port_option = click.option(
    "--port", type=click.IntRange(1, 65534), metavar="N",
    help=f"The fleet's UDP source port, one below that of DNS, and ICMP identifier.  [{PORT} with --key-file]",
)  # fmt: skip
key_option = click.option(
    "--key-file", type=click.Path(path_type=Path),
    help="The fleet's secret: agents that share it tell of each other's replies which anycast takes to them.",
)  # fmt: skip
http_option = click.option(
    "--http-time", type=click.Choice(HTTP_TIMES), default="connect", show_default=True,
    help="What http and https time: the TCP handshake, or a HEAD on a kept connection.",
)  # fmt: skip


def source(text: str) -> Source:
    """One --source: as other senders of samples have it, and where packets leave."""
    place, *words = text.split(",")
    found = sending.source(place)
    for word in words:
        key, _, value = word.partition("=")
        if key == "interface" and _INTERFACE.fullmatch(value):
            found = found._replace(interface=value)
        elif key == "mark" and _MARK.fullmatch(value) and 0 < int(value, 0) < 2**32:
            found = found._replace(mark=int(value, 0))
        else:
            raise click.BadParameter(f"{word!r} is neither interface=NAME nor mark=N", param_hint="--source")
    return found


def voice(key_file: Path | None, port: int | None, http_time: HttpTime, about: str = "") -> Voice:
    """As the options have it; an agent alone makes a key of its own, which nobody else ever sees. `about`: whom to turn to."""
    agent = f"edgedns-probe (+{about})" if about else "edgedns-probe"
    if key_file is None:
        if port is not None:
            raise click.BadParameter("a port is what a fleet shares, together with --key-file", param_hint="--port")
        return Voice(secrets.token_bytes(32), user_agent=agent, http_time=http_time, about=about)
    return Voice(_key(key_file), port or PORT, user_agent=agent, http_time=http_time, about=about)


def _key(file: Path) -> bytes:
    try:
        text = file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise click.BadParameter(f"can't read {file}: {error}", param_hint="--key-file") from None
    if not _KEY.fullmatch(text):
        raise click.BadParameter(f"{file} does not hold 32 to 128 hexadecimal digits", param_hint="--key-file")
    if file.stat().st_mode & OTHERS_MAY:
        click.echo(f"{file}: everybody can read or write the fleet's key: chmod o-rwx", err=True)
    return bytes.fromhex(text)
