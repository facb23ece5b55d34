"""What a reload tries out before anything that serves ends: the files that options name, beside rules and addresses."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

RULES = Path(__file__).parents[2] / "rules"


@pytest.mark.parametrize(
    ("option", "content", "said"),
    [
        ("--cookie-secret-file", "not a secret\n", "line 1 is not a secret of 32 hexadecimal digits"),
        ("--cookie-secret-file", None, "No such file"),
        ("--demand", "network,queries\nGermany,1\n", "'Germany' is no ASN"),
    ],
)
def test_files_that_can_t_be_used_are_found_before_the_restart(
    tmp_path: Path, option: str, content: str | None, said: str
) -> None:
    file = tmp_path / "file"
    if content is not None:
        file.write_text(content, encoding="utf-8")
    command = [sys.executable, "-m", "edgedns", "serve", "--rules", str(RULES), "--state", str(tmp_path / "state")]
    options = ["--listen", "127.0.0.1:0", "--admin", "off", option, str(file), "--rehearse"]
    tried = subprocess.run([*command, *options], capture_output=True, text=True, timeout=60)
    assert tried.returncode == 1
    assert said in tried.stderr
