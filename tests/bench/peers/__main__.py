"""`make bench`: the servers installed, ten minutes. The table goes to standard output; to --out also a chart and each round."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import click

from tests.bench.peers import bind, echo, gdnsd, knot, nsd, ours, powerdns, served, table, tcp
from tests.bench.peers.contest import contest, loads, started, tell
from tests.bench.peers.peer import Peer
from tests.conformance.peers import free_port

KINDS: dict[str, type[Peer]] = {
    kind.name: kind
    for kind in (
        echo.CEcho, ours.Native, gdnsd.Gdnsd, nsd.Nsd, knot.Knot, knot.KnotGeoip, echo.PythonEcho, ours.Python, bind.Bind,
        powerdns.PowerDnsGeoip, powerdns.PowerDnsLua,
    )
}  # fmt: skip


@click.command()
@click.option("--rounds", default=7, show_default=True)
@click.option("--seconds", default=1.0, show_default=True, help="Of each server, mix and round.")
@click.option("--only", default="", help="Some of them, names with commas.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("build/bench"), show_default=True)
def main(rounds: int, seconds: float, only: str, out: Path) -> None:
    """Measure CPU per query of edgedns beside other servers."""
    wanted = only.split(",") if only else list(KINDS)
    missing = [KINDS[each].title for each in wanted if KINDS[each].missing()]
    if missing:
        tell(f"not installed, left out: {', '.join(missing)} (see tools/packages --bench)")
    kinds = [KINDS[each] for each in wanted if not KINDS[each].missing()]
    everything = served.whole()
    mixes = loads(everything)
    with (
        tempfile.TemporaryDirectory() as folder,
        started(everything, kinds, Path(folder), [free_port() for _ in kinds]) as scores,
    ):
        contest(scores, mixes, rounds, seconds)
        text = table.markdown(scores, mixes, rounds, seconds, everything.count)
        peers = [score.peer for score in scores if score.peer.answers]
        if peers:
            text += "\n" + tcp.markdown(peers, tcp.contest(peers, [mixes[0], mixes[2]], rounds))
        out.mkdir(parents=True, exist_ok=True)
        (out / "peers.md").write_text(text)
        (out / "peers.json").write_text(table.raw(scores))
        table.chart(scores, mixes, out / "peers.svg")
    sys.stdout.write(text)
    tell(f"written: {out / 'peers.md'} and {out / 'peers.svg'}")


if __name__ == "__main__":
    main()
