"""A machine whose Internet the test plays: a namespace with TUN devices, and a thread that answers its packets. Needs root."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import NamedTuple

from edgedns.probe.wire import checksum
from tests.system.internet import run

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
ICMP, TCP, UDP, ICMP6 = 1, 6, 17, 58
NOBODY = 65534
ENVIRON = {**os.environ, "PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin"}


class Packet(NamedTuple):
    """An IP packet: addresses as text, protocol, and all behind the header (no extension headers)."""

    source: str
    target: str
    protocol: int
    payload: bytes

    def back(self, payload: bytes, protocol: int | None = None, source: str | None = None) -> Packet:
        """One the other way."""
        return Packet(source or self.target, self.source, self.protocol if protocol is None else protocol, payload)


def parse(octets: bytes) -> Packet:
    if octets[0] >> 4 == 4:
        ends = (str(ip_address(octets[12:16])), str(ip_address(octets[16:20])))
        return Packet(*ends, octets[9], octets[4 * (octets[0] & 15) :])
    return Packet(str(ip_address(octets[8:24])), str(ip_address(octets[24:40])), octets[6], octets[40:])


def packed(packet: Packet) -> bytes:
    """The packet with all its checksums right."""
    source, target = ip_address(packet.source).packed, ip_address(packet.target).packed
    payload = _summed(packet, source + target)
    if len(source) == 16:
        return struct.pack("!IHBB", 6 << 28, len(payload), packet.protocol, 64) + source + target + payload
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 0, 0, 64, packet.protocol, 0) + source + target
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + payload


def _summed(packet: Packet, ends: bytes) -> bytes:
    """RFC 792 and 4443, 768, 9293: the checksum lies elsewhere in each, and ICMP of IPv4 has no pseudo-header."""
    at = {ICMP: 2, ICMP6: 2, UDP: 6, TCP: 16}[packet.protocol]
    payload = packet.payload[:at] + bytes(2) + packet.payload[at + 2 :]
    pseudo = b"" if packet.protocol == ICMP else ends + struct.pack("!IHBB", len(payload), 0, 0, packet.protocol)
    return payload[:at] + struct.pack("!H", checksum(pseudo + payload)) + payload[at + 2 :]


Answer = Callable[[str, Packet], list[Packet]]


def echo(_: str, packet: Packet) -> list[Packet]:
    """A friendly host: echoes ICMP and UDP; answers TCP's SYN with RST, DNS queries with REFUSED."""
    payload = packet.payload
    if packet.protocol in (ICMP, ICMP6):
        reply = {(ICMP, 8): 0, (ICMP6, 128): 129}.get((packet.protocol, payload[0]))
        return [] if reply is None else [packet.back(bytes([reply]) + payload[1:])]
    if packet.protocol == UDP:
        asked = payload[2:4] == b"\0\x35"
        told = payload[8:10] + b"\x80\x05" + payload[12:] if asked else payload[8:]
        return [packet.back(payload[2:4] + payload[:2] + payload[4:8] + told)]
    if packet.protocol == TCP and payload[13] == 0x02:
        return [packet.back(payload[2:4] + payload[:2] + reset(payload))]
    return []


def reset(syn: bytes) -> bytes:
    """What follows the ports of a RST that answers a SYN."""
    return struct.pack("!IIBBHHH", 0, struct.unpack_from("!I", syn, 4)[0] + 1, 0x50, 0x14, 0, 0, 0)


@dataclass
class Tunnel:
    """The machine. `seen` holds (device, packet) of all that it sent; `answer` may be changed at any time."""

    namespace: str
    answer: Answer = echo
    devices: dict[int, str] = field(default_factory=dict)
    seen: list[tuple[str, Packet]] = field(default_factory=list)

    def open(self, device: str, addresses: Sequence[str]) -> None:
        """One more way out, a default route for those that ask for it."""
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        self.devices[fd] = device
        outside = f"t{os.getpid() % 100_000}-{device}"
        fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", outside.encode(), IFF_TUN | IFF_NO_PI))
        run("ip", "link", "set", outside, "netns", self.namespace, "name", device)
        for address in addresses:
            run("ip", "-n", self.namespace, "addr", "add", address, "dev", device, *(["nodad"] if ":" in address else []))
        run("ip", "-n", self.namespace, "link", "set", device, "up")
        for family in ("-4", "-6"):
            metric = str(100 * len(self.devices))
            run("ip", family, "-n", self.namespace, "route", "add", "default", "dev", device, "metric", metric)

    def ip(self, *words: str) -> None:
        run("ip", "-n", self.namespace, *words)

    def groups(self, groups: str) -> None:
        """Who may open unprivileged ICMP sockets."""
        run(*self.command("sysctl", "-qw", f"net.ipv4.ping_group_range={groups}"))

    def command(self, *words: str) -> list[str]:
        return ["nsenter", f"--net=/var/run/netns/{self.namespace}", "--", *words]

    def as_nobody(self, *words: str, capabilities: str = "") -> list[str]:
        """A command inside, as nobody, with these capabilities at most; the checkout may lie where only root can read."""
        only = ",".join(["-all", "+dac_read_search", *([capabilities] if capabilities else [])])
        drop = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", f"--bounding-set={only}"]
        return self.command(*drop, f"--inh-caps={only}", f"--ambient-caps={only}", *words)

    def run(self, *words: str, capabilities: str = "") -> subprocess.CompletedProcess[str]:
        """Run it to the end."""
        command = self.as_nobody(*words, capabilities=capabilities)
        return subprocess.run(command, capture_output=True, text=True, timeout=60, env=ENVIRON, check=False, cwd="/")

    def inject(self, packet: Packet) -> None:
        """A packet comes in, by the first device."""
        os.write(next(iter(self.devices)), packed(packet))

    def serve(self, ended: int) -> None:
        """Answer packets until something comes at `ended`."""
        while True:
            ready, _, _ = select.select([ended, *self.devices], [], [])
            if ended in ready:
                return
            for fd in ready:
                with contextlib.suppress(OSError):
                    self._answer(fd, os.read(fd, 4096))

    def _answer(self, fd: int, octets: bytes) -> None:
        packet, device = parse(octets), self.devices[fd]
        if ip_address(packet.target).is_multicast:  # the kernel's own, on a new device
            return
        self.seen.append((device, packet))
        for reply in self.answer(device, packet):
            os.write(fd, packed(reply))

    def close(self) -> None:
        for fd in self.devices:
            os.close(fd)


@contextlib.contextmanager
def tunnel(devices: Mapping[str, Sequence[str]], answer: Answer = echo, name: str = "tun") -> Iterator[Tunnel]:
    """A machine with these devices and their addresses, for the length of a `with`."""
    made = Tunnel(f"edgedns-{name}-{os.getpid()}", answer)
    run("ip", "netns", "add", made.namespace)
    stop, ended = os.pipe()
    try:
        run("ip", "-n", made.namespace, "link", "set", "lo", "up")
        run(*made.command("sysctl", "-qw", "net.ipv4.conf.all.rp_filter=0", "net.ipv4.conf.default.rp_filter=0"))
        for device, addresses in devices.items():
            made.open(device, addresses)
        thread = threading.Thread(target=made.serve, args=(stop,))
        thread.start()
        try:
            yield made
        finally:
            os.write(ended, b"x")
            thread.join()
    finally:
        made.close()
        run("ip", "netns", "del", made.namespace)
        os.close(stop)
        os.close(ended)
