"""The page that says who probes, asked by all kinds of visitors."""

from __future__ import annotations

import asyncio

from edgedns.probe import about
from edgedns.probe.about import Page, page
from edgedns.probe.layout import Plan
from edgedns.probe.source import Source

SOURCES = [Source("alder", "192.0.2.10"), Source("birch", "2001:db8::10")]
TEXT = page(Plan("fra1", ceiling=250), SOURCES, "mailto:noc@example.net", 1_800_000_000.5)


async def ask(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    try:
        return await reader.read()
    except ConnectionError:  # closed before all was read
        return b""
    finally:
        writer.close()


def test_it_says_who_how_often_and_how_to_opt_out() -> None:
    for said in ("vantage fra1", "192.0.2.10, 2001:db8::10", "at most 1 packets a second", "5 to one network", "250 in all",
                 "never probed again"):  # fmt: skip
        assert said in TEXT


def test_it_is_a_probe_description_file() -> None:
    """RFC 9511 section 2.2: the form of RFC 9116, which has comments and one field a line."""
    fields = dict(line.split(": ", 1) for line in TEXT.splitlines() if not line.startswith("#"))
    assert set(fields) == {"Contact", "Expires", "Preferred-Languages", "Description"}
    assert (fields["Contact"], fields["Expires"]) == ("mailto:noc@example.net", "2027-02-14T08:00:00+00:00")
    url = "https://probing.example.net/.well-known/probing.txt"
    assert f"\nCanonical: {url}\nContact: {url}\n" in page(Plan("fra1"), SOURCES, url, 0.0)


def test_any_path_gets_the_page_and_head_its_head() -> None:
    async def main() -> None:
        served = Page(lambda: TEXT)
        port = await served.listen("127.0.0.1", 0)
        got = await ask(port, b"GET /whatever HTTP/1.1\r\nHost: x\r\n\r\n")
        head, _, body = got.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain")
        assert body.decode() == TEXT
        assert await ask(port, b"HEAD / HTTP/1.0\r\n\r\n") == head + b"\r\n\r\n"
        served.close()

    asyncio.run(main())


def test_who_sends_too_much_or_nothing_takes_nobodys_place_for_long() -> None:
    async def main() -> None:
        served = Page(lambda: TEXT)
        port = await served.listen("127.0.0.1", 0)
        assert await ask(port, b"A" * (about.REQUEST_LIMIT * 2)) == b""
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(about.AT_ONCE)]
        await asyncio.sleep(0.05)
        assert await ask(port, b"GET / HTTP/1.1\r\n\r\n") == b"", "no more at once"
        for _, writer in silent:
            writer.close()
            await writer.wait_closed()
        await asyncio.sleep(0.05)
        assert TEXT.encode() in await ask(port, b"GET / HTTP/1.1\r\n\r\n")
        served.close()

    asyncio.run(main())
