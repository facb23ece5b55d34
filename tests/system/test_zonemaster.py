"""Zonemaster looks at the delegated example zone, from a root of the tests' own: no warning but those listed here."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.system import internet, resolvers
from tests.system.test_resolvers import DELEGATED, PARENTS, ROOT, ZONE

# What documentation addresses cause: they are nobody's, and nobody delegates their reverse zones.
EXPECTED = {"NAMESERVER_IP_PRIVATE_NETWORK", "NAMESERVER_IP_WITHOUT_REVERSE"}
BAD = {"WARNING", "ERROR", "CRITICAL"}
LACKING = [*internet.missing_tools(), *([] if shutil.which("zonemaster-cli") else ["zonemaster-cli"])]
pytestmark = [pytest.mark.root, pytest.mark.xdist_group("resolvers"), pytest.mark.timeout(360)]


@pytest.mark.skipif(bool(LACKING), reason=f"needs {', '.join(LACKING)}")
def test_nothing_to_warn_of(tmp_path: Path) -> None:
    with internet.internet(tmp_path) as net:
        resolvers.build(net, ROOT / "rules", ZONE, PARENTS, DELEGATED)
        client = net.host("client", "203.0.113.7", "2001:db8:0:7::1")
        (client.folder / "hints").write_text(resolvers.HINTS)
        command = ["zonemaster-cli", "--hints", f"{client.folder}/hints", "--json", "--level", "INFO", ZONE]
        found = json.loads(client.run(*command, timeout=200))
    lines = found if isinstance(found, list) else found["results"]
    assert len(lines) > 50
    bad = [line for line in lines if line["level"] in BAD and line["tag"] not in EXPECTED]
    assert not bad, "\n".join(f"{line['level']} {line['tag']} {line['args']}" for line in bad)
