"""One file over HTTPS, whole or not at all: bounded in size and time, by verified TLS alone, also where it is sent on.

And what comes packed, unpacked under a bound: gzip, and the one MMDB of a tar file.
"""

from __future__ import annotations

import asyncio
import base64
import email.utils
import gzip
import hashlib
import re
import ssl
import tarfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, cast
from urllib.parse import urljoin, urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
from yarl import URL

from edgedns import __version__
from edgedns.errors import SourceError
from edgedns.store.aside import opened_anew
from edgedns.store.sources import Key

DOWNLOAD_LIMIT = 64 << 20
EXPANDED_LIMIT = 128 << 20
CHECKSUM_LIMIT = 4096
SILENCE = 30.0  # seconds without an octet
DEADLINE = 600.0
REDIRECTS = 5
MEMBERS_LIMIT = 1000
CHUNK = 1 << 16
_SHA256 = re.compile(rb"\s*([0-9A-Fa-f]{64})\b")

Announce = Callable[[int, int | None], None]


class Refused(SourceError):
    """What was downloaded can't be taken, and what to do."""


class Missing(SourceError):
    """There is no such file (404)."""


def _silent(_done: int, _whole: int | None) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Terms:
    """How to download: `ca` replaces the system's certificates, `deadline` is in seconds for each file.

    `progress` is told the octets so far, and how many there will be where that is known.
    """

    ca: Path | None = None
    key: Key | None = field(default=None, repr=False)
    deadline: float = DEADLINE
    download_limit: int = DOWNLOAD_LIMIT
    expanded_limit: int = EXPANDED_LIMIT
    progress: Announce = _silent


@dataclass(frozen=True, slots=True)
class Fetched:
    """What came: validators as the server gave them ("" for none), its time of last change in Unix seconds."""

    etag: str
    modified: float | None
    sha256: str


def fetch(url: str, into: Path, terms: Terms, etags: Sequence[str] = ()) -> Fetched | None:
    """Write the file to `into`; None where the server says that it is one of `etags`.

    Refused when it is cut off, too large or sent on to plain HTTP; SourceError when there was no (good) answer.
    """
    return asyncio.run(_fetch(url, into, terms, etags))


def fetch_checksum(url: str, into: Path, terms: Terms) -> str:
    """The SHA-256 (hex, lower case) that a file of one line holds."""
    small = Terms(terms.ca, terms.key, terms.deadline, CHECKSUM_LIMIT)
    fetch(url, into, small)
    found = _SHA256.match(into.read_bytes())
    if found is None:
        raise Refused(f"{shown(url)} holds no SHA-256")
    return found[1].decode().lower()


def shown(url: str) -> str:
    """A URL without what may be secret: no user, no query."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


async def _fetch(url: str, into: Path, terms: Terms, etags: Sequence[str]) -> Fetched | None:
    timeout = aiohttp.ClientTimeout(total=terms.deadline, sock_read=SILENCE, connect=SILENCE)
    connector = aiohttp.TCPConnector(ssl=_tls(terms.ca), force_close=True)
    try:
        async with aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False) as session:
            return await _follow(session, url, into, terms, etags)
    except TimeoutError:
        limits = f"{terms.deadline:g} s, or {SILENCE:g} s of silence"
        raise SourceError(f"{shown(url)}: too slow, given up after {limits}: try again later") from None
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise SourceError(f"{shown(url)}: {_reason(error)}") from None


def _tls(ca: Path | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca)
    except (OSError, ssl.SSLError) as error:
        raise SourceError(f"{ca} can't be used as certificates of authorities: {error}") from None


def _reason(error: Exception) -> str:
    """Without URLs in it: those that a server sends on to may carry a signature."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return f"its certificate is not trusted ({error.certificate_error}); --ca FILE names other authorities"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"no connection ({error.os_error})"
    if isinstance(error, aiohttp.ClientResponseError):
        return f"no HTTP ({error.message})"
    return type(error).__name__ if isinstance(error, ValueError) else str(error)


async def _follow(session: aiohttp.ClientSession, url: str, into: Path, terms: Terms, etags: Sequence[str]) -> Fetched | None:
    """Redirects by hand: each step by HTTPS, and the key only to the host it was given for."""
    first = _host(url)
    for _ in range(REDIRECTS + 1):
        headers = _headers(terms.key if _host(url) == first else None, etags)
        asked = URL(url, encoded=True)  # as it came: requoting could break a signature
        async with session.get(asked, headers=headers, allow_redirects=False, proxy=_proxy(url)) as reply:
            try:
                if reply.status in (301, 302, 303, 307, 308):
                    url = urljoin(url, reply.headers.get("Location", ""))
                    continue
                if reply.status == 304 and etags:
                    return None
                _check_status(reply.status, url)
                return await _save(reply, url, into, terms)
            finally:
                _hang_up(reply)
    raise SourceError(f"{shown(url)}: sent on more than {REDIRECTS} times")


def _hang_up(reply: aiohttp.ClientResponse) -> None:
    """At once, where there is more to come: a goodbye over TLS would outlast the event loop."""
    if reply.connection is not None and reply.connection.transport is not None:
        reply.connection.transport.abort()


def _host(url: str) -> tuple[str, int]:
    """Host and port; Refused where it is not HTTPS, or carries a password that logs would show."""
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname:
        raise Refused(f"{shown(url)} is not https://: what comes unprotected is not taken")
    if not re.fullmatch(r"[!-~]+", url):
        raise Refused(f"{shown(url)!r} is no URL: it holds other characters than printable ASCII")
    if parts.username is not None:
        raise Refused(f"{shown(url)}: a name and a password don't belong in a URL, where logs show them")
    return parts.hostname, parts.port or 443


def _proxy(url: str) -> str | None:
    """As https_proxy and no_proxy in the environment say."""
    host = urlsplit(url).hostname or ""
    return None if proxy_bypass(host) else getproxies().get("https")


def _headers(key: Key | None, etags: Sequence[str]) -> dict[str, str]:
    headers = {"User-Agent": f"edgedns/{__version__}", "Accept-Encoding": "identity"}
    if etags:
        headers["If-None-Match"] = ", ".join(etags)
    if key is not None:
        headers["Authorization"] = "Basic " + base64.b64encode(f"{key.account}:{key.secret}".encode()).decode()
    return headers


def _check_status(status: int, url: str) -> None:
    if status == 404:
        raise Missing(f"{shown(url)}: there is no such file (404)")
    if status in (401, 403):
        raise SourceError(f"{shown(url)}: not allowed ({status}): check the account ID and the licence key")
    if status != 200:
        raise SourceError(f"{shown(url)}: the server says {status}: try again later")


async def _save(reply: aiohttp.ClientResponse, url: str, into: Path, terms: Terms) -> Fetched:
    whole, done, digest = reply.content_length, 0, hashlib.sha256()
    if whole is None and reply.headers.get("Transfer-Encoding", "").lower() != "chunked":
        raise Refused(f"{shown(url)}: the server doesn't say how long it is, so nobody can tell whether it came whole")
    too_large = f"{shown(url)}: larger than {terms.download_limit} octets: no table is"
    if (whole or 0) > terms.download_limit:
        raise Refused(too_large)
    with opened_anew(into) as file:
        try:
            async for chunk in reply.content.iter_chunked(CHUNK):
                done += len(chunk)
                if done > terms.download_limit:
                    raise Refused(too_large)
                digest.update(chunk)
                file.write(chunk)
                terms.progress(done, whole)
        except aiohttp.ClientPayloadError:
            of = f" of {whole}" if whole else ""
            raise Refused(f"{shown(url)}: cut off after {done}{of} octets: try again") from None
    return Fetched(_validator(reply.headers.get("ETag", "")), _when(reply.headers.get("Last-Modified", "")), digest.hexdigest())


def _validator(text: str) -> str:
    """RFC 9110 section 8.8.3, or nothing."""
    return text if re.fullmatch(r'(W/)?"[\x21\x23-\x7e]{0,200}"', text) else ""


def _when(text: str) -> float | None:
    try:
        return email.utils.parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError, TypeError):
        return None


# -- packed files


def unpacked(path: Path, limit: int = EXPANDED_LIMIT) -> Path:
    """The file itself, or what lies in it, written beside it. Refused when that is broken or larger than `limit` octets."""
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        if packed:
            with gzip.open(path) as stream:
                path = _copied(cast(IO[bytes], stream), path.with_suffix(".expanded"), limit)
        if tarfile.is_tarfile(path):
            with tarfile.open(path, "r:") as archive:
                path = _member(archive, path.with_suffix(".member"), limit)
    except (EOFError, zlib.error, gzip.BadGzipFile, tarfile.TarError, UnicodeError) as error:
        raise Refused(f"a broken archive ({error}): try again") from None
    return path


def _member(archive: tarfile.TarFile, into: Path, limit: int) -> Path:
    for number, member in enumerate(archive):
        if number >= MEMBERS_LIMIT:
            break
        if member.isreg() and member.name.endswith(".mmdb") and (stream := archive.extractfile(member)) is not None:
            return _copied(stream, into, limit)
    raise Refused("a tar file without an MMDB in it")


def _copied(stream: IO[bytes], into: Path, limit: int) -> Path:
    done = 0
    with opened_anew(into) as file:
        while chunk := stream.read(CHUNK):
            done += len(chunk)
            if done > limit:
                raise Refused(f"it expands to more than {limit} octets: no table does")
            file.write(chunk)
    return into
