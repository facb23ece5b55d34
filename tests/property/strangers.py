"""Packets as a stranger may send them: well-formed and asking for the odd, half-formed, broken, and none at all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

from edgedns.dns import cookie
from tests.conftest import NOW, SECRETS

TYPES = (*range(70), 99, *range(126, 132), *range(248, 258), 65280, 65281)
CLASSES = (1, 1, 1, 1, 1, 3, 3, 4, 254, 255, 255, 0, 2, 65535)
CHAOS = (b"\2id\6server\0", b"\7version\4bind\0", b"\7VERSION\6server\0", b"\x08hostname\4bind\0", b"\4what\4bind\0")
OPTION_CODES = (0, 3, 3, 5, 8, 8, 8, 8, 10, 10, 10, 11, 12, 15, 65001)
IXFR = 251


def packet(dice: Random, names: Sequence[bytes], clients: Callable[[], bytes], client: bytes) -> bytes:
    """One packet for `client`. Most have one mistake or oddity at most, so that each is seen alone."""
    made = _message(dice, names, clients, client)
    if dice.random() < 0.25:
        made = mangled(dice, made)
    return made


def always(client: bytes) -> Callable[[], bytes]:
    """`clients` of `packet`, where all are the same."""
    return lambda: client


def mangled(dice: Random, made: bytes) -> bytes:
    octets = bytearray(made)
    for _ in range(dice.choice((1, 1, 2, 3))):
        octets[dice.randrange(len(octets))] = dice.choice((0, 1, 0x29, 0x3F, 0x40, 0xC0, 0xFF, dice.randrange(256)))
    cut = octets[: dice.randrange(len(octets) + 1)] if dice.random() < 0.3 else octets
    return bytes(cut) + (dice.randbytes(dice.randrange(5)) if dice.random() < 0.2 else b"")


def _message(dice: Random, names: Sequence[bytes], clients: Callable[[], bytes], client: bytes) -> bytes:
    opcode = dice.choice((0, 0, 0, 0, 0, 0, 0, 1, 2, 4, 5, 6, 15))
    flags = dice.choice((0, 0x100, 0x110, 0x20, 0x7F0, 0x8000 if dice.random() < 0.1 else 0)) | opcode << 11
    questions = dice.choice((1, 1, 1, 1, 1, 1, 1, 1, 0, 2))
    qtype = dice.choice((1, 1, 28, 15, 2, dice.choice(TYPES)))
    question = b"".join(_question(dice, names, qtype) for _ in range(questions))
    authorities = [_record(dice) for _ in range(dice.choice((0, 0, 0, 1)) if qtype == IXFR or dice.random() < 0.05 else 0)]
    answers = [_record(dice)] if dice.random() < 0.03 else []
    additionals = [_record(dice) for _ in range(dice.choice((1, 3)) if dice.random() < 0.1 else 0)]
    for _ in range(dice.choice((0, 1, 1, 1, 1, 1, 1, 1, 1, 2 if dice.random() < 0.2 else 1))):
        additionals.insert(dice.randrange(len(additionals) + 1), _opt(dice, clients, client))
    if dice.random() < 0.08:
        additionals.insert(len(additionals) - (dice.random() < 0.1), _tsig(dice))
    if dice.random() < 0.02:
        authorities.append(_opt(dice, clients, client))
    counts = (questions, len(answers), len(authorities), len(additionals))
    head = dice.randbytes(2) + flags.to_bytes(2, "big") + b"".join(count.to_bytes(2, "big") for count in counts)
    return head + question + b"".join((*answers, *authorities, *additionals))


def _question(dice: Random, names: Sequence[bytes], qtype: int) -> bytes:
    qclass = dice.choice(CLASSES)
    name = dice.choice(CHAOS) if qclass == 3 and dice.random() < 0.7 else _name(dice, names)
    if qclass == 3 and dice.random() < 0.7:
        qtype = dice.choice((16, 255))
    return name + qtype.to_bytes(2, "big") + qclass.to_bytes(2, "big")


def _name(dice: Random, names: Sequence[bytes]) -> bytes:
    name, kind = dice.choice(names), dice.randrange(12)
    if kind == 0:
        name = b"\3no\0" + name  # a zero octet inside a label
    elif kind == 1:
        name = b"\1*" + name
    elif kind == 2:
        name = dice.choice((b"\0", b"\3net\0", b"\7example\3org\0", name[1 + name[0] :] or b"\0"))
    elif kind == 3:
        name = b"\1a" * ((255 - len(name)) // 2) + name
    elif kind == 4:
        size = min(255 - len(name) - 1, 63)
        name = (bytes((size,)) + dice.randbytes(size) if size > 0 else b"") + name
    elif kind == 5:
        name = b"\4some" + b"\4deep" * dice.randrange(3) + name
    if dice.random() < 0.4:
        name = bytes(octet ^ 0x20 if chr(octet).isalpha() and octet < 128 and dice.random() < 0.5 else octet for octet in name)
    return name


def _record(dice: Random) -> bytes:
    owner = dice.choice((b"\0", b"\xc0\x0c", b"\1x\0", b"\1x\xc0\x0c", b"\x40x\0", b"\3abc"))
    size = dice.choice((0, 4, 4, 20))
    fields = dice.choice((1, 6, 250, 41)).to_bytes(2, "big") + b"\0\1\0\0\0\0" + size.to_bytes(2, "big")
    return owner + fields + dice.randbytes(size)


def _tsig(dice: Random) -> bytes:
    """With one mistake or none."""
    long = (b"\x3f" + bytes(63)) * 3
    pointed = b"\xc0" + bytes((dice.randrange(10, 60),)), long[: 64 * dice.randrange(4)] + b"\xc0\x0c"
    owner = dice.choice((b"\0", b"\3key\0", b"\3key\xc0\x0c", *pointed))
    algorithms = (b"\x0bhmac-sha256\0",) * 6 + (b"\0", b"\xc0\x0c", b"\x40", b"\3abc", long + b"\x3e" + bytes(63), long + b"\0")
    mac, other = dice.choice((0, 16, 32)), dice.choice((0, 0, 6))
    content = dice.choice(algorithms) + dice.randbytes(8) + mac.to_bytes(2, "big") + dice.randbytes(mac + 4)
    content += other.to_bytes(2, "big") + dice.randbytes(other + (dice.random() < 0.1))
    content = content[: dice.randrange(len(content)) if dice.random() < 0.1 else None]
    fields = dice.choice((b"\0\xff\0\0\0\0",) * 9 + (b"\0\1\0\0\0\0", b"\0\xff\0\0\0\1"))
    return owner + b"\0\xfa" + fields + len(content).to_bytes(2, "big") + content


def _opt(dice: Random, clients: Callable[[], bytes], client: bytes) -> bytes:
    owner = dice.choice((b"\0",) * 20 + (b"\1x\0", b"\xc0\x0c"))
    payload = dice.choice((0, 511, 512, 513, 600, 800, 1232, 4096, 65535))
    version = dice.choice((0,) * 12 + (1, 255))
    flags = dice.choice((0, 0x8000, 0xFFFF, 0x4000))
    options = b"".join(_option(dice, clients, client) for _ in range(dice.choice((0, 0, 1, 1, 1, 2, 3, 5))))
    if dice.random() < 0.03:
        options += dice.randbytes(dice.randrange(1, 5))
    fields = payload.to_bytes(2, "big") + bytes((dice.choice((0, 0, 1)), version)) + flags.to_bytes(2, "big")
    return owner + b"\0\x29" + fields + len(options).to_bytes(2, "big") + options


def _option(dice: Random, clients: Callable[[], bytes], client: bytes) -> bytes:
    code = dice.choice(OPTION_CODES)
    if code == 8:
        content = _subnet(dice, clients())
    elif code == 10:
        content = _cookie(dice, client)
    else:
        content = dice.randbytes(dice.choice((0, 0, 0, 2, 9)))
    return code.to_bytes(2, "big") + len(content).to_bytes(2, "big") + content


def _subnet(dice: Random, address: bytes) -> bytes:
    family, bits = (1, 32) if len(address) == 4 else (2, 128)
    source = dice.choice((0, 1, 8, 17, 20, 24, 24, 24, 25, 32, 48, 56, 56, 96, 104, 112, 128))
    source = min(source, bits)
    value = int.from_bytes(address, "big") >> bits - source << bits - source
    octets = value.to_bytes(bits // 8, "big")[: source + 7 >> 3]
    scope = 0
    mistake = dice.randrange(40)
    if mistake == 0:
        scope = 24
    elif mistake == 1:
        family = dice.choice((0, 3, 256, 257))
    elif mistake == 2:
        octets += b"\0"
    elif mistake == 3:
        octets = octets[:-1]
    elif mistake == 4:
        source = dice.randrange(256)
    elif mistake == 5:
        octets = octets[:-1] + b"\xff"
    elif mistake == 6:
        return b"\0\0\0\0"
    elif mistake == 7:
        return b"\0\1\0"
    return family.to_bytes(2, "big") + bytes((source, scope)) + octets


def _cookie(dice: Random, client: bytes) -> bytes:
    kind = dice.randrange(6)
    if kind == 0:
        return dice.randbytes(dice.choice((0, 7, 8, 9, 15, 16, 24, 32, 40, 41)))
    if kind == 1:
        return dice.randbytes(8)
    age = dice.choice((0, 5, 1799, 1800, 1801, 3600, 3601, -299, -300, -301, 2**31))
    secret = dice.choice((*SECRETS.cookies, bytes(16)))
    made = cookie.make(dice.randbytes(8), client, secret, NOW - age)
    return mangled(dice, made)[:24].ljust(24, b"\0") if kind == 2 else made
