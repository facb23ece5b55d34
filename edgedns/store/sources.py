"""Where ASN tables are published: addresses, checksums, licences, and how often each is made anew (as of November 2026)."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from edgedns.errors import SourceError

KEY_VARIABLE = "EDGEDNS_MAXMIND"
_MONTH = "{month}"


@dataclass(frozen=True, slots=True)
class Part:
    """One file: its URL, and the URL of its SHA-256 where the publisher gives one.

    `{month}` in a URL is the month as YYYY-MM: this one, or the one before while this one's file is not there.
    """

    url: str
    checksum: str = ""

    def urls(self, now: float) -> tuple[str, ...]:
        """What to ask for in turn; `now` in Unix seconds."""
        if _MONTH not in self.url:
            return (self.url,)
        first = datetime.fromtimestamp(now, UTC).replace(day=1)
        months = first, first - timedelta(days=1)
        return tuple(self.url.replace(_MONTH, f"{month:%Y-%m}") for month in months)


@dataclass(frozen=True, slots=True)
class Source:
    """A publisher of ASNs; `countries` is where those come from, None where the table itself has them."""

    name: str
    asns: Part
    countries: Part | None
    every: str
    credit: str
    needs_key: bool = False

    def elsewhere(self, url: str = "", checksum: str = "", countries: str = "") -> Source:
        """The same by other URLs, such as a mirror's. Checksums are those given: others are of other files."""
        asns = Part(url, checksum) if url else replace(self.asns, checksum=checksum or self.asns.checksum)
        by_default = None if url else self.countries
        return replace(self, asns=asns, countries=Part(countries) if countries else by_default)


def _release(name: str) -> Part:
    base = "https://github.com/sapics/ip-location-db/releases/download"
    return Part(f"{base}/latest/{name}", f"{base}/checksum/{name}.sha256")


def _maxmind(edition: str) -> Part:
    base = f"https://download.maxmind.com/geoip/databases/{edition}/download"
    return Part(f"{base}?suffix=tar.gz", f"{base}?suffix=tar.gz.sha256")


def _dbip(kind: str) -> Part:
    return Part(f"https://download.db-ip.com/free/dbip-{kind}-lite-{_MONTH}.mmdb.gz")


_ALL = (
    Source(
        "origin-asn", _release("origin-asn.mmdb"), _release("user-country.mmdb"), "daily",
        "ip-location-db origin-asn and user-country: PDDL 1.0, no attribution needed",
    ),
    Source(
        "iptoasn", Part("https://iptoasn.com/data/ip2asn-combined.tsv.gz"), None, "hourly",
        "IPtoASN, https://iptoasn.com/: PDDL 1.0, no attribution needed",
    ),
    Source(
        "dbip", _dbip("asn"), _dbip("country"), "monthly",
        "IP Geolocation by DB-IP, https://db-ip.com/: CC BY 4.0, name them where you show the data",
    ),
    Source(
        "maxmind", _maxmind("GeoLite2-ASN"), _maxmind("GeoLite2-Country"), "a few times a week, 30 downloads a day at most",
        "GeoLite2 by MaxMind, https://www.maxmind.com/: their EULA, old copies to be replaced within 30 days", needs_key=True,
    ),
)  # fmt: skip
SOURCES: Mapping[str, Source] = {source.name: source for source in _ALL}


@dataclass(frozen=True, slots=True, repr=False)
class Key:
    """An account ID and its licence key; never shown, not even by repr."""

    account: str
    secret: str


def read_key(path: Path | None, environ: Mapping[str, str] = os.environ) -> Key | None:
    """`ACCOUNT_ID:LICENSE_KEY` from a file or else from EDGEDNS_MAXMIND; None where neither is.

    SourceError shows no part of it.
    """
    where, text = f"the variable {KEY_VARIABLE}", environ.get(KEY_VARIABLE, "")
    if path is not None:
        where = f"the key file {path}"
        try:
            text = path.read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError) as error:
            said = "it is not ASCII" if isinstance(error, UnicodeDecodeError) else error.strerror
            raise SourceError(f"{where} can't be read: {said}") from None
    account, colon, secret = text.strip().partition(":")
    if path is None and not text:
        return None
    if not (colon and account.isdigit() and secret and all("!" <= char <= "~" for char in secret)):
        raise SourceError(f"{where} doesn't hold ACCOUNT_ID:LICENSE_KEY, a number and a word, in one line")
    return Key(account, secret)
