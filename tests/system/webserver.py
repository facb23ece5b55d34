"""A real nginx over a folder of its own, with the log format and the objects that the docs show."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

NGINX = shutil.which("nginx", path="/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin")
DOCS = Path(__file__).parents[2] / "docs" / "measuring.md"
PAGE = f'location / {{ return 200 "{"x" * 4000}"; }}'
CONFIG = """\
{user}
daemon off;
worker_processes 2;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
events {{ worker_connections 1024; }}
http {{
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    access_log off;
    {format}
    server {{
        {listen}
        access_log {folder}/rtt.log edgedns;
        {object}
        {site}
    }}
}}
"""


def shown(begin: str) -> str:
    """The directive of the docs that begins so, as far as it goes."""
    blocks: list[str] = re.findall(r"```nginx\n(.*?)```", DOCS.read_text(), re.S)
    (block,) = [text for text in blocks if begin in text]
    end = "}\n" if begin.startswith("location") else ";\n"
    return block[block.index(begin) : block.index(end, block.index(begin)) + len(end)]


class Nginx:
    """One nginx; `folder/rtt.log` is its log."""

    def __init__(self, folder: Path, listen: Sequence[str], under: Sequence[str], site: str) -> None:
        """`listen`: ADDR:PORT. `under`: a command that runs another, to be put before it. `site`: the location of /."""
        assert NGINX
        folder.mkdir()
        self.folder, self.log = folder, folder / "rtt.log"
        config = CONFIG.format(
            user="user root;" if folder.owner() == "root" else "", folder=folder, site=site,
            format=shown("log_format"), object=shown("location = /1x1"), listen="\n".join(f"listen {one};" for one in listen),
        )  # fmt: skip
        (folder / "nginx.conf").write_text(config)
        self.command = [NGINX, "-p", str(folder), "-e", str(folder / "error.log"), "-c", str(folder / "nginx.conf")]
        self.process = subprocess.Popen([*under, *self.command])
        until = time.monotonic() + 20
        while not (folder / "nginx.pid").exists() or not (folder / "nginx.pid").read_text().strip():
            assert self.process.poll() is None, self.errors()
            assert time.monotonic() < until, self.errors()
            time.sleep(0.02)

    def errors(self) -> str:
        found = self.folder / "error.log"
        return found.read_text() if found.exists() else ""

    def rotate(self, number: int) -> None:
        """As logrotate does: renamed, and then its writers told."""
        self.log.rename(self.folder / f"rtt.log.{number}")
        self.tell("reopen")

    def tell(self, signal: str) -> None:
        subprocess.run([*self.command, "-s", signal], check=True)

    def quit(self) -> None:
        """When all requests are answered and logged."""
        if self.process.poll() is None:
            self.tell("quit")
            self.process.wait(20)


@contextlib.contextmanager
def nginx(folder: Path, listen: Sequence[str], under: Sequence[str] = (), site: str = PAGE) -> Iterator[Nginx]:
    started = Nginx(folder, listen, under, site)
    try:
        yield started
    finally:
        if started.process.poll() is None:
            started.process.terminate()
        started.process.wait(20)
