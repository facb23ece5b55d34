"""Updates of the ASN table: a good one is taken; whatever is wrong with a download, all stays as it was."""

from __future__ import annotations

import base64
import errno
import gzip
import hashlib
import io
import os
import shutil
import signal
import socket
import sys
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from mmdb_writer import MMDBWriter
from netaddr import IPSet

from edgedns.errors import SourceError
from edgedns.steer.space import asn
from edgedns.store.download import Missing, Refused, Terms, fetch, shown
from edgedns.store.sources import SOURCES, Key, Part, read_key
from edgedns.store.tables import Index, Locked, Tables
from edgedns.store.update import Limits, Result, Update, known, rollback, update
from tests import publisher as site
from tests.publisher import DAY, NOW, Publisher

STRICT = Limits()
ANYTHING = Limits(moved=1.0, loss=True)
SMALL = 1 << 20


@pytest.fixture(scope="module")
def publisher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Publisher]:
    with Publisher(tmp_path_factory.mktemp("publisher")) as running:
        yield running


@pytest.fixture(autouse=True)
def fresh(publisher: Publisher, monkeypatch: pytest.MonkeyPatch) -> None:
    publisher.plays.clear()
    publisher.asked.clear()
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


class Place:
    """A state directory and the publisher, as one operator has them."""

    def __init__(self, state: Path, publisher: Publisher) -> None:
        self.tables, self.publisher = Tables(state), publisher
        self.terms = Terms(ca=publisher.ca, deadline=20.0, download_limit=SMALL, expanded_limit=SMALL)
        self.said: list[str] = []

    def update(self, url: str, limits: Limits = STRICT, now: float = NOW, **more: str) -> Result:
        wanted = Update(SOURCES["iptoasn"].elsewhere(url, **more), self.terms, limits)
        return update(self.tables, wanted, now, self.said.append)

    def asn_of(self, address: str) -> int:
        return self.tables.in_use().lookup(ip_address(address).packed)[0]

    def picture(self) -> dict[str, bytes]:
        """All that there is, but what the last run came to."""
        return {path.name: path.read_bytes() for path in self.tables.folder.iterdir() if path.name != "last.json"}


@pytest.fixture
def empty(tmp_path: Path, publisher: Publisher) -> Place:
    return Place(tmp_path, publisher)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, publisher: Publisher) -> Path:
    """A first table, a day old: the embedded one is far larger, so the guards are told to let it in."""
    made = Place(tmp_path_factory.mktemp("first"), publisher)
    assert made.update(publisher.publish(site.table(), at=NOW - DAY, etag='"first"'), ANYTHING).changed
    return made.tables.folder


@pytest.fixture
def place(empty: Place, first: Path) -> Place:
    shutil.copytree(first, empty.tables.folder)
    return empty


# -- what is taken


def test_a_newer_table_is_taken_and_the_one_before_is_kept(place: Place, publisher: Publisher) -> None:
    result = place.update(publisher.publish(site.changed(2), etag='W/"second"'))
    assert result == Result(True, "in use now: iptoasn, dated 2026-11-22")
    index = place.tables.index()
    assert index.current is not None
    assert index.previous is not None
    assert (index.current.etag, index.current.url) == ('W/"second"', publisher.url("/table"))
    assert index.current.sha256 == hashlib.sha256(site.changed(2)).hexdigest()
    assert (index.current.fetched, index.current.modified, index.previous.date) == (NOW, NOW, "2026-11-21")
    assert (place.asn_of("10.1.2.3"), place.asn_of("10.7.2.3")) == (65001, 64519)
    assert place.tables.load(index.previous).lookup(bytes([10, 1, 2, 3])) == (64513, "DE")
    assert place.said == [
        "IPv4: 76 ranges of one ASN (76 before), 3.33% of the addresses have another ASN",
        "IPv6: 75 ranges of one ASN (75 before), 3.33% of the addresses have another ASN",
    ]
    assert place.tables.last() == (NOW, result.said)


def test_a_table_without_a_date_is_of_today(place: Place, publisher: Publisher) -> None:
    assert place.update(publisher.publish(site.changed(1), at=None)).changed
    assert place.tables.in_use().date == "2026-11-22"


def test_a_date_in_the_future_is_today(place: Place, publisher: Publisher) -> None:
    assert place.update(publisher.publish(site.changed(1), at=NOW + 9 * DAY)).changed
    assert place.tables.in_use().date == "2026-11-22"


def test_only_two_tables_are_kept(place: Place, publisher: Publisher) -> None:
    for number in range(4):
        assert place.update(publisher.publish(site.changed(number % 3 + 1), at=NOW + number), ANYTHING).changed
    assert len(list(place.tables.folder.glob("asn-*.xz"))) == 2


def test_packed_by_gzip(place: Place, publisher: Publisher) -> None:
    assert place.update(publisher.publish(gzip.compress(site.changed(1)))).changed
    assert place.asn_of("10.0.0.1") == 65000


def test_sent_on_by_https(place: Place, publisher: Publisher) -> None:
    publisher.publish(site.changed(1), "/elsewhere")
    assert place.update(publisher.play(site.reply(302, Location="/elsewhere"))).changed


def test_what_is_signed_is_asked_for_as_it_came(place: Place, publisher: Publisher) -> None:
    signed = "/elsewhere?sig=a%2Fb%2Bc%3D%7e&x=%20"
    publisher.publish(site.changed(1), signed)
    assert place.update(publisher.play(site.reply(307, Location=publisher.url(signed)))).changed
    assert publisher.asked[-1][0] == signed


def test_judged_only(place: Place, publisher: Publisher) -> None:
    before = place.picture()
    source = SOURCES["iptoasn"].elsewhere(publisher.publish(site.changed(1)))
    result = update(place.tables, Update(source, place.terms, only_judge=True), NOW, print)
    assert (result.changed, result.said) == (True, "it would be taken: iptoasn, dated 2026-11-22")
    assert place.picture() == before


# -- nothing new


def test_the_server_says_that_nothing_changed(place: Place, publisher: Publisher) -> None:
    before = place.picture()
    result = place.update(publisher.publish(site.table(), etag='"first"'))
    assert result == Result(False, "nothing new: the server has no other table than before")
    assert publisher.asked[0][1]["If-None-Match"] == '"first"'
    assert place.picture() == before


def test_another_url_is_asked_without_the_etag(place: Place, publisher: Publisher) -> None:
    assert not place.update(publisher.publish(site.table(), "/mirror", etag='"first"')).changed
    assert "If-None-Match" not in publisher.asked[0][1]


def test_the_same_octets_are_nothing_new(place: Place, publisher: Publisher) -> None:
    result = place.update(publisher.publish(site.table(), at=NOW))
    assert result == Result(False, "nothing new: the table is the one in use")


def test_a_stale_table_is_told_and_left_alone(place: Place, publisher: Publisher) -> None:
    before, url = place.picture(), publisher.publish(site.changed(1), at=NOW - 9 * DAY)
    said = "nothing new: it is dated 2026-11-13, the table in use 2026-11-21; --allow-older takes it"
    assert place.update(url) == Result(False, said)
    assert place.picture() == before
    assert place.update(url, Limits(older=True)).changed


# -- what is refused, or can't be had


def bomb() -> bytes:
    return gzip.compress(bytes(64 * SMALL))


def tar(**members: bytes) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as archive:
        for name, body in members.items():
            about = tarfile.TarInfo(f"GeoLite2-ASN_20261120/{name.replace('_', '.')}")
            about.size = len(body)
            archive.addfile(about, io.BytesIO(body))
    return content.getvalue()


TENTH = site.table(range(6))
ELSEWHERE = b"".join(line for line in site.table().splitlines(keepends=True) if b"known" not in line)
BAD: dict[str, tuple[site.Play, type[SourceError], str]] = {
    "truncated": (site.truncated(site.changed(1)), Refused, r"cut off after \d+ of \d+ octets: try again"),
    "90 % lost": (site.good(TENTH, NOW), Refused, r"IPv4: 29% of the ranges in use: something is missing; --allow-loss"),
    "endless": (site.endless, Refused, r"larger than 1048576 octets"),
    "too long": (site.good(bytes(SMALL + 1)), Refused, r"larger than 1048576 octets"),
    "of no length": (site.without_length(site.changed(1)), Refused, r"doesn't say how long it is"),
    "sent on to http": (site.reply(302, Location="http://127.0.0.1:9/x"), Refused, r"http://127.0.0.1:9/x is not https://"),
    "sent on to a file": (site.reply(302, Location="file:///etc/passwd"), Refused, r"file:///etc/passwd is not https://"),
    "sent on for ever": (site.reply(302, Location="/table"), SourceError, r"sent on more than 5 times"),
    "gzip bomb": (site.good(bomb()), Refused, r"expands to more than 1048576 octets"),
    "bomb in a tar": (site.good(tar(a_mmdb=bytes(SMALL - 2000), b_mmdb=bytes(SMALL))), Refused, r"expands to more than"),
    "tar of nothing": (site.good(tar(a_txt=b"x")), Refused, r"a tar file without an MMDB in it"),
    "broken gzip": (site.good(gzip.compress(site.changed(1))[:-9]), Refused, r"a broken archive"),
    "garbage": (site.good(b"<html>sorry</html>\n"), Refused, r"/table: its first line is of no form known here"),
    "binary garbage": (site.good(os.urandom(3000) + b"\0"), Refused, r"/table: binary, and no MMDB"),
    "empty": (site.good(b""), Refused, r"/table: the file is empty"),
    "500": (site.reply(500), SourceError, r"the server says 500: try again later"),
    "404": (site.reply(404), Missing, r"there is no such file"),
    "401": (site.reply(401), SourceError, r"not allowed \(401\): check the account ID and the licence key"),
    "another Internet": (site.good(ELSEWHERE, NOW), Refused, r"31 of 31 well-known addresses lie elsewhere"),
    "moved": (site.good(site.changed(4), NOW), Refused, r"6.7% of the addresses have another ASN, and 5.1% may: look"),
    "no countries": (site.good(site.table(country="None"), NOW), Refused, r"100% of the addresses would lose their country"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_changes_nothing(place: Place, publisher: Publisher, case: str) -> None:
    play, kind, words = BAD[case]
    before = place.picture()
    with pytest.raises(SourceError, match=words) as caught:
        place.update(publisher.play(play))
    assert type(caught.value) is kind
    assert place.picture() == before
    last = place.tables.last()
    assert last is not None
    assert last[1].startswith("refused: " if kind is Refused else "could not run: ")


def test_all_objections_at_once(place: Place, publisher: Publisher) -> None:
    with pytest.raises(Refused) as caught:
        place.update(publisher.publish(ELSEWHERE[: len(ELSEWHERE) // 3].rpartition(b"\n")[0] + b"\n"))
    lines = str(caught.value).splitlines()
    assert [line.split(":")[0] for line in lines[1:3]] == ["IPv4", "IPv4"]
    assert lines[-1] == "nothing was changed"


def test_slow(place: Place, publisher: Publisher) -> None:
    before, place.terms = place.picture(), replace(place.terms, deadline=0.4)
    with pytest.raises(SourceError, match=r"too slow, given up after 0\.4 s, or 30 s of silence") as caught:
        place.update(publisher.play(site.slow))
    assert not isinstance(caught.value, Refused)
    assert place.picture() == before


def test_nobody_there(place: Place) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        with pytest.raises(SourceError, match="no connection") as caught:
            place.update(f"https://127.0.0.1:{bound.getsockname()[1]}/table")
    assert not isinstance(caught.value, Refused)


def test_a_certificate_of_nobody(place: Place, publisher: Publisher) -> None:
    place.terms = replace(place.terms, ca=None)
    with pytest.raises(SourceError, match=r"certificate is not trusted .* --ca FILE"):
        place.update(publisher.publish(site.changed(1)))
    assert publisher.asked == []


def test_authorities_that_are_none(place: Place, tmp_path: Path) -> None:
    for ca in (tmp_path / "nowhere", Path(__file__)):
        place.terms = replace(place.terms, ca=ca)
        with pytest.raises(SourceError, match="can't be used as certificates"):
            place.update("https://127.0.0.1:9/table")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://192.0.2.1/x", "is not https"),
        ("https://192.0.2.1/a b", "is no URL"),
        ("https://me:word@192.0.2.1/x", "don't belong in a URL"),
    ],
)
def test_urls_that_are_not_asked(place: Place, url: str, words: str) -> None:
    with pytest.raises(Refused, match=words) as caught:
        place.update(url)
    assert "word" not in str(caught.value).replace("password", "")


def test_a_wrong_checksum(place: Place, publisher: Publisher) -> None:
    before, url = place.picture(), publisher.publish(site.changed(1))
    checksum = publisher.publish(hashlib.sha256(b"another").hexdigest().encode() + b"  table\n", "/sum")
    with pytest.raises(Refused, match="one of them may just have been replaced, try again in a while"):
        place.update(url, checksum=checksum)
    publisher.publish(b"no sum here\n", "/sum")
    with pytest.raises(Refused, match="/sum holds no SHA-256"):
        place.update(url, checksum=checksum)
    assert place.picture() == before
    publisher.publish(hashlib.sha256(site.changed(1)).hexdigest().upper().encode() + b"  table\n", "/sum")
    assert place.update(url, checksum=checksum).changed


# -- the limits


def test_an_operator_lets_through_what_the_guards_refused(place: Place, publisher: Publisher) -> None:
    with pytest.raises(Refused, match=r"--max-moved 6.8% takes it"):
        place.update(publisher.publish(site.changed(4)))
    assert place.update(publisher.url("/table"), Limits(moved=0.068)).changed
    assert place.update(publisher.publish(TENTH), ANYTHING).changed


def test_what_may_move_grows_with_the_days_between(place: Place, publisher: Publisher) -> None:
    """6.7 % in 1 day is too much, in 17 it is not."""
    assert place.update(publisher.publish(site.changed(4), at=NOW + 16 * DAY), now=NOW + 16 * DAY).changed


def test_the_embedded_table_stands_at_first(empty: Place, publisher: Publisher) -> None:
    with pytest.raises(Refused, match=r"IPv4: 0% of the ranges in use"):
        empty.update(publisher.publish(site.table()))
    assert empty.tables.index() == Index()
    assert empty.tables.in_use() is asn.embedded()


def test_the_wellknown_addresses_are_those_of_the_embedded_table() -> None:
    table = asn.embedded()
    assert len(known()) > 25
    assert all(table.lookup(ip_address(address).packed)[0] == right for address, right in known())


# -- countries, archives, months, keys


def mmdb(records: Mapping[str, Any]) -> bytes:
    writer = MMDBWriter(ip_version=6, ipv4_compatible=True, database_type="Test")
    for prefix, record in records.items():
        writer.insert_network(IPSet([prefix]), record)
    content = io.BytesIO()
    path = Path(f"/proc/self/fd/{os.memfd_create('mmdb')}")
    writer.to_db_file(str(path))
    content.write(path.read_bytes())
    os.close(int(path.name))
    return content.getvalue()


COUNTRIES = {"10.0.0.0/9": {"country_code": "NO"}, "2001:db8::/32": {"country": {"iso_code": "FR"}}}


def test_countries_come_from_a_file_of_their_own(place: Place, publisher: Publisher) -> None:
    url = publisher.publish(site.table(country="None"))
    countries = publisher.publish(gzip.compress(mmdb(COUNTRIES)), "/countries")
    assert place.update(url, countries=countries).changed
    table = place.tables.in_use()
    assert table.lookup(bytes([10, 7, 0, 1])) == (64519, "NO")
    assert table.lookup(ip_address("2001:db8:7::1").packed) == (64519, "FR")
    assert table.lookup(ip_address("1.1.1.1").packed) == (13335, "")


@pytest.mark.parametrize(
    "content",
    [mmdb({"10.0.0.0/8": {"city": "Oslo"}}), mmdb(COUNTRIES)[:-200], b"", b"<html>"],
    ids=["cities", "cut", "empty", "page"],  # not by content: an MMDB says when it was made
)
def test_countries_that_are_none(place: Place, publisher: Publisher, content: bytes) -> None:
    before, countries = place.picture(), publisher.publish(content, "/countries")
    with pytest.raises(Refused, match="/countries: "):
        place.update(publisher.publish(site.table(country="None")), countries=countries)
    assert place.picture() == before


def asn_mmdb() -> bytes:
    rows = {f"10.{n}.0.0/16": 64512 + n for n in range(60)} | {f"2001:db8:{n:x}::/48": 64512 + n for n in range(60)}
    return mmdb({prefix: {"autonomous_system_number": number} for prefix, number in (rows | dict(known())).items()})


def test_origin_asn_with_its_countries_and_checksums(place: Place, publisher: Publisher) -> None:
    """Two files as ip-location-db releases them, each with a checksum beside it."""
    parts, contents = {}, {"origin-asn": asn_mmdb(), "user-country": mmdb(COUNTRIES)}
    for name, content in contents.items():
        line = f"{hashlib.sha256(content).hexdigest()}  {name}.mmdb\n".encode()
        parts[name] = Part(publisher.publish(content, f"/latest/{name}.mmdb"), publisher.publish(line, f"/checksum/{name}"))
    source = replace(SOURCES["origin-asn"], asns=parts["origin-asn"], countries=parts["user-country"])
    before = place.picture()
    publisher.publish(mmdb({"10.0.0.0/8": {"country_code": "SE"}}), "/latest/user-country.mmdb")
    with pytest.raises(Refused, match=r"/latest/user-country.mmdb: its SHA-256 is"):
        update(place.tables, Update(source, place.terms, ANYTHING), NOW + DAY, print)
    assert place.picture() == before
    publisher.publish(contents["user-country"], "/latest/user-country.mmdb")
    assert update(place.tables, Update(source, place.terms, ANYTHING), NOW + DAY, print).changed
    assert place.tables.in_use().lookup(ip_address("2001:db8:7::1").packed) == (64519, "FR")
    assert place.tables.in_use().source == "origin-asn"


def test_maxmind_by_the_operators_key(place: Place, publisher: Publisher) -> None:
    """A tar.gz behind basic authorisation, sent on to a host that must not see the key."""
    content = tar(README_txt=b"x", GeoLite2_mmdb=asn_mmdb())
    publisher.plays["/asn"] = site.reply(302, Location=publisher.url("/signed?secret=1", host="localhost"))
    publisher.publish(content, "/signed?secret=1")
    publisher.publish(hashlib.sha256(content).hexdigest().encode() + b"  GeoLite2-ASN_20261120.tar.gz\n", "/sum")
    publisher.publish(tar(c_mmdb=mmdb(COUNTRIES)), "/countries")
    source = SOURCES["maxmind"].elsewhere(publisher.url("/asn"), publisher.url("/sum"), publisher.url("/countries"))
    terms = replace(place.terms, key=Key("12345", "sesame"))
    assert update(place.tables, Update(source, terms, ANYTHING), NOW + DAY, print).changed
    assert place.tables.in_use().lookup(bytes([10, 7, 0, 1])) == (64519, "NO")
    sent = {path: headers.get("Authorization") for path, headers in publisher.asked}
    basic = "Basic " + base64.b64encode(b"12345:sesame").decode()
    assert sent == {"/asn": basic, "/signed?secret=1": None, "/sum": basic, "/countries": basic}
    assert b"secret" not in b"".join(place.picture().values())


def test_the_key_is_shown_nowhere(place: Place, publisher: Publisher) -> None:
    terms = replace(place.terms, key=Key("12345", "sesame"))
    for play in (site.reply(401), site.reply(500), site.reply(302, Location="http://192.0.2.1/"), site.good(b"x")):
        source = SOURCES["maxmind"].elsewhere(publisher.play(play))
        with pytest.raises(SourceError) as caught:
            update(place.tables, Update(source, terms), NOW, print)
        assert "sesame" not in str(caught.value)
    assert "sesame" not in repr(Update(source, terms))
    assert all(b"sesame" not in path.read_bytes() for path in place.tables.folder.iterdir())


def test_keys_are_read_from_a_file_or_the_environment(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("12345:se:same\n")
    assert read_key(path, {}) is not None
    assert (read_key(path, {}) or Key("", "")).secret == "se:same"
    assert (read_key(None, {"EDGEDNS_MAXMIND": "1:x"}) or Key("", "")).account == "1"
    assert read_key(None, {}) is None
    for text in ("sesame", "me:sesame", "1:", "1:a b", "1:a\n2:b"):
        path.write_text(text)
        with pytest.raises(SourceError, match="doesn't hold ACCOUNT_ID:LICENSE_KEY") as caught:
            read_key(path, {})
        assert "sesame" not in str(caught.value)
    with pytest.raises(SourceError, match="No such file"):
        read_key(tmp_path / "nowhere", {})


def test_the_month_before_while_this_months_file_is_not_there(place: Place, publisher: Publisher) -> None:
    source = replace(SOURCES["iptoasn"], asns=Part(publisher.url("/table-{month}")))
    publisher.publish(site.changed(1), "/table-2026-10", at=NOW)
    assert update(place.tables, Update(source, place.terms), NOW, print).changed
    assert [path for path, _ in publisher.asked] == ["/table-2026-11", "/table-2026-10"]
    assert Part("{month}").urls(1_798_761_600.0) == ("2027-01", "2026-12")


def test_sources_are_https_and_give_credit() -> None:
    for source in SOURCES.values():
        for part in (source.asns, source.countries):
            assert part is None or all(url.startswith("https://") for url in (*part.urls(NOW), part.checksum or "https://"))
        assert source.credit
    assert shown("https://me:word@192.0.2.1:8443/x?key=1") == "https://192.0.2.1:8443/x"


# -- rollback


def test_a_rollback_and_back_again(place: Place, publisher: Publisher) -> None:
    first = place.tables.index().current
    place.update(publisher.publish(site.changed(2), etag='"bad"'))
    assert rollback(place.tables, NOW).said == "in use again: iptoasn, dated 2026-11-21"
    assert place.tables.index().current == first
    assert place.asn_of("10.1.0.1") == 64513
    rollback(place.tables, NOW)
    assert (place.asn_of("10.1.0.1"), place.tables.index().rolled_back) == (65001, False)


def test_what_was_rolled_back_is_not_installed_again(place: Place, publisher: Publisher) -> None:
    place.update(publisher.publish(site.changed(2), etag='"bad"'))
    rollback(place.tables, NOW)
    assert "no other table" in place.update(publisher.url("/table")).said  # by its ETag
    assert "rolled back" in place.update(publisher.publish(site.changed(2))).said  # by its content
    assert place.asn_of("10.1.0.1") == 64513
    assert place.update(publisher.publish(site.changed(1))).changed
    index = place.tables.index()
    assert (index.rolled_back, index.previous and index.previous.date) == (False, "2026-11-21")


def test_back_to_the_embedded_table(place: Place, empty: Place) -> None:
    assert "@ip-location-db/asn" in rollback(place.tables, NOW).said
    assert place.tables.in_use() is asn.embedded()
    rollback(place.tables, NOW)
    assert place.asn_of("10.1.0.1") == 64513


def test_nothing_to_go_back_to(empty: Place) -> None:
    with pytest.raises(Refused, match="nothing to go back to"):
        rollback(empty.tables, NOW)


def test_a_previous_table_that_is_damaged_is_not_gone_back_to(place: Place, publisher: Publisher) -> None:
    place.update(publisher.publish(site.changed(2)))
    previous = place.tables.index().previous
    assert previous is not None
    (place.tables.folder / previous.file).write_bytes(b"\xfd7zXZ\x00 rotten")
    before = place.picture()
    with pytest.raises(SourceError, match="broken xz"):
        rollback(place.tables, NOW)
    assert place.picture() == before


# -- damage, locks, crashes


def test_a_damaged_table_in_use_is_downloaded_again(place: Place, publisher: Publisher) -> None:
    current = place.tables.index().current
    assert current is not None
    (place.tables.folder / current.file).write_bytes(b"rotten")
    assert place.tables.good_one() is asn.embedded()
    assert place.update(publisher.publish(site.table(), at=NOW, etag='"first"'), ANYTHING).changed
    assert place.asn_of("10.1.0.1") == 64513
    assert "the table in use is damaged" in place.said[0]


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"current": {"file": "../x"}, "previous": null, "rolled_back": 0}'])
def test_a_damaged_index_is_told(place: Place, publisher: Publisher, content: bytes) -> None:
    place.tables.swapped_by.write_bytes(content)
    with pytest.raises(SourceError, match="delete it to begin anew"):
        place.update(publisher.publish(site.changed(1)))
    assert place.tables.good_one() is asn.embedded()
    place.tables.swapped_by.unlink()
    assert place.update(publisher.url("/table"), ANYTHING).changed


def test_the_previous_table_stands_in_for_a_damaged_one(place: Place, publisher: Publisher) -> None:
    place.update(publisher.publish(site.changed(2)))
    current = place.tables.index().current
    assert current is not None
    (place.tables.folder / current.file).unlink()
    assert place.tables.good_one().lookup(bytes([10, 1, 0, 1]))[0] == 64513


def test_a_damaged_table_gives_way_to_the_one_before_even_if_there_is_nothing_new(place: Place, publisher: Publisher) -> None:
    place.update(publisher.publish(site.changed(2)))
    current, url = place.tables.index().current, publisher.publish(site.table(), etag='"first"')
    assert current is not None
    (place.tables.folder / current.file).unlink()
    assert not place.update(url).changed
    assert place.tables.in_use().lookup(bytes([10, 1, 0, 1]))[0] == 64513


def test_what_was_rolled_back_stands_in_for_nothing(place: Place, publisher: Publisher) -> None:
    place.update(publisher.publish(site.changed(2)))
    rollback(place.tables, NOW)
    current = place.tables.index().current
    assert current is not None
    (place.tables.folder / current.file).unlink()
    assert place.tables.good_one() is asn.embedded()


def test_a_full_disk(place: Place, publisher: Publisher, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    before, url = place.picture(), publisher.publish(site.changed(2))
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SourceError, match="No space left on device"):
        place.update(url)
    assert place.picture() == before
    assert place.asn_of("10.1.0.1") == 64513
    with pytest.raises(SourceError, match="No space left on device"):
        rollback(place.tables, NOW)
    assert place.asn_of("10.1.0.1") == 64513


def test_a_table_of_the_future(place: Place, publisher: Publisher) -> None:
    """Taken, it would make every later one stale."""
    later = asn.packed(replace(place.tables.in_use(), date="2026-11-24"))
    with pytest.raises(Refused, match="it is dated 2026-11-24, in the future"):
        place.update(publisher.publish(later))
    assert place.update(publisher.url("/table"), now=NOW + DAY).changed


def test_one_at_a_time(place: Place, publisher: Publisher) -> None:
    url = publisher.publish(site.changed(1))
    with place.tables.locked():
        acts: list[Callable[[], object]] = [lambda: place.update(url), lambda: rollback(place.tables, NOW)]
        for act in acts:
            with pytest.raises(Locked, match="another update or rollback is at work"):
                act()
    assert place.update(url).changed


def test_a_folder_that_is_none(publisher: Publisher, tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    with pytest.raises(SourceError, match="choose another with --state DIR"):
        Place(tmp_path / "state", publisher).update(publisher.publish(site.table()))


def killed_at(step: int, act: Callable[[], object]) -> bool:
    """Run `act` in a process that is killed before its step-th writing, renaming or deleting; False if it came to its end."""
    pid = os.fork()
    if pid == 0:
        left = step

        def count(event: str, arguments: tuple[Any, ...]) -> None:
            nonlocal left
            writes = event == "open" and arguments[2] & (os.O_WRONLY | os.O_RDWR)
            if (writes or event in ("os.rename", "os.remove")) and "/tables/" in str(arguments[0]):
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        try:
            sys.addaudithook(count)
            act()
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(pid, 0)[1])


@pytest.mark.parametrize("what", ["update", "rollback"])
def test_a_crash_before_any_step_leaves_a_valid_table(place: Place, publisher: Publisher, what: str, tmp_path: Path) -> None:
    """Either the old one or the new one, whole, and the next update or rollback goes through."""
    third = publisher.publish(site.changed(3), "/third")
    second = publisher.publish(site.changed(2))
    place.update(second)
    kept, found, step = shutil.copytree(place.tables.folder, tmp_path / "kept"), [], 0
    act = {"update": lambda: place.update(third), "rollback": lambda: rollback(place.tables, NOW)}[what]
    while killed_at(step := step + 1, act):
        found.append(place.asn_of("10.2.0.1"))
        assert place.tables.load(place.tables.index().previous).asn_count() > 60
        if what == "rollback":
            rollback(place.tables, NOW)
        elif found[-1] == 64514:
            assert place.update(third).changed
            assert place.asn_of("10.2.0.1") == 65002
        shutil.rmtree(place.tables.folder)
        shutil.copytree(kept, place.tables.folder)
    assert len(found) >= 4
    assert found == sorted(found)  # once the new one is in use it stays so
    assert not list(place.tables.folder.glob(".new-*"))


def test_what_is_fetched_is_bounded_by_itself(tmp_path: Path, publisher: Publisher) -> None:
    terms = Terms(publisher.ca, download_limit=100)
    found = fetch(publisher.publish(b"x" * 100, etag="not an etag"), tmp_path / "file", terms)
    assert found is not None
    assert (found.etag, found.modified, found.sha256) == ("", NOW, hashlib.sha256(b"x" * 100).hexdigest())
    with pytest.raises(Refused, match="larger than 100 octets"):
        fetch(publisher.publish(b"x" * 101), tmp_path / "file", terms)
