"""In a process of its own: the signal ends one that does not wait for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import pathlib, shutil, signal, sys
from edgedns.serve.notice import SIGNAL, Notices

signal.pthread_sigmask(signal.SIG_BLOCK, {SIGNAL})
top = pathlib.Path(sys.argv[1])
folder = top / "published"
folder.mkdir()
notices = Notices([folder, top])

def told(within=0.2):
    return signal.sigtimedwait({SIGNAL}, within) is not None

def save(name="root.json"):
    (folder / ".aside").write_text("x")
    (folder / ".aside").rename(folder / name)

for _ in range(3):
    assert notices.stand()
    assert not told(0)
    save()
    assert told()
folder.rename(top / "gone")  # told by the directory above
assert told()
assert not notices.stand()
folder.mkdir()
save()
assert not told(0.05)  # the new one is not followed yet
assert notices.stand()
save()
assert told()
shutil.rmtree(folder)
folder.mkdir()
assert notices.stand()
save()
assert told()
print(len(list(pathlib.Path("/proc/self/fd").iterdir())))
assert notices.stand()
print(len(list(pathlib.Path("/proc/self/fd").iterdir())))
"""


def test_replaced_files_are_told_also_when_their_directory_was_replaced(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    one, other = done.stdout.split()
    assert one == other  # nothing is left open
