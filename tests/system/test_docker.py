"""docker/: what can be said of an image without building one."""

from __future__ import annotations

import fnmatch
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from edgedns import config
from edgedns.cli.serve import serve

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
INSTRUCTIONS = {"FROM", "COPY", "RUN", "ENV", "VOLUME", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT", "CMD"}


def instructions() -> list[tuple[str, str]]:
    """(INSTRUCTION, the rest) of the Dockerfile, continued lines joined."""
    text = re.sub(r"^#.*\n", "", (DOCKER / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = [line for line in re.sub(r"\\\n\s*", "", text).splitlines() if line]
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines)]


def service() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DOCKER / "compose.yaml").read_text())["services"]["edgedns"]
    return found


def ignored(path: str) -> bool:
    """Whether the build's context leaves this file out: the last pattern that matches decides."""
    out = False
    for line in (DOCKER / "Dockerfile.dockerignore").read_text().splitlines():
        pattern = line.lstrip("!")
        whole = fnmatch.fnmatch(path, pattern) or path.startswith(f"{pattern}/")
        within = pattern.startswith("**/") and fnmatch.fnmatch(f"/{path}", f"*{pattern[2:]}*")
        if line and not line.startswith("#") and (whole or within):
            out = not line.startswith("!")
    return out


def test_only_known_instructions_in_two_stages() -> None:
    found = instructions()
    assert {word for word, _ in found} <= INSTRUCTIONS
    stages = [rest.split() for word, rest in found if word == "FROM"]
    assert [stage[0] for stage in stages] == ["python:3.11-slim-bookworm"] * 2
    assert stages[0][1:] == ["AS", "build"]


def test_what_is_copied_exists_and_is_in_the_context() -> None:
    for word, rest in instructions():
        if word == "COPY" and not rest.startswith("--from=build"):
            source = rest.split()[0]
            assert (ROOT / source).exists()
    installed = ("edgedns/cli/serve.py", "edgedns/engine/_fastpath.c", "edgedns/data/asn.xz", "rules/providers.yaml")
    for needed in ("pyproject.toml", "setup.py", "README.md", "LICENSE", "NOTICE", *installed):
        assert (ROOT / needed).exists()
        assert not ignored(needed)
    for unneeded in (".git/config", ".venv/bin/python", "tests/conftest.py", "edgedns/__pycache__/x.pyc"):
        assert ignored(unneeded)


def test_what_is_run_is_the_document_s_first_step() -> None:
    run = " ".join(rest for word, rest in instructions() if word == "RUN")
    assert "-m venv /opt/edgedns" in run
    assert re.search(r"/opt/edgedns/bin/pip install .*/usr/src/edgedns$", run)


def test_the_native_engine_is_built() -> None:
    """Before it is installed a compiler is, in the stage that does not become the image."""
    words = [rest for word, rest in instructions() if word in ("FROM", "RUN")]
    compiler, install = (next(i for i, rest in enumerate(words) if what in rest) for what in (" gcc ", "bin/pip install"))
    assert 0 < compiler < install < len(words) - 1


def test_the_image_s_command_is_one_that_serve_takes() -> None:
    by_word = dict(instructions())
    assert json.loads(by_word["ENTRYPOINT"]) == ["/opt/edgedns/bin/edgedns"]
    command, *options = json.loads(by_word["CMD"])
    assert command == "serve"
    known = {name for option in serve.params for name in option.opts}
    assert {option for option in options if option.startswith("--")} <= known
    listen = [options[i + 1] for i, option in enumerate(options) if option == "--listen"]
    assert [config.parse_address(text).port for text in listen] == [53, 53]
    assert by_word["EXPOSE"].split() == ["53/udp", "53/tcp"]


def test_the_health_check_asks_what_is_served_by_default() -> None:
    check = next(rest for word, rest in instructions() if word == "HEALTHCHECK")
    command = json.loads(check[check.index("[") :])
    assert command[0] == "/opt/edgedns/bin/python"
    assert f"http://{config.DEFAULT_ADMIN}/readyz" in command[2]
    compile(command[2], "HEALTHCHECK", "exec")


def test_compose_builds_this_file_with_settings_that_load() -> None:
    found = service()
    build = found["build"]
    assert isinstance(build, dict)
    assert (DOCKER / str(build["context"]) / str(build["dockerfile"])).samefile(DOCKER / "Dockerfile")
    assert found["command"] == ["serve", "--config", "/etc/edgedns/edgedns.yaml"]
    mounts = {inside: outside for outside, inside, *_ in (volume.split(":") for volume in found["volumes"])}
    settings = config.load({}, {}, DOCKER / mounts["/etc/edgedns/edgedns.yaml"])
    assert (DOCKER / mounts[str(settings.rules)]).samefile(ROOT / "rules")
    assert mounts[str(settings.state)] in yaml.safe_load((DOCKER / "compose.yaml").read_text())["volumes"]


def test_compose_gives_no_more_than_port_53() -> None:
    found = service()
    assert (found["cap_drop"], found["cap_add"], found["read_only"]) == (["ALL"], ["NET_BIND_SERVICE"], True)
    assert found["security_opt"] == ["no-new-privileges:true"]
    assert found["network_mode"] == "host"


def test_the_document_s_command_names_the_file() -> None:
    text = (ROOT / "docs" / "deploying.md").read_text()
    (line,) = re.findall(r"^docker compose .*$", text, flags=re.MULTILINE)
    words = shlex.split(line)
    assert (ROOT / words[words.index("-f") + 1].removeprefix("/usr/src/edgedns/")).samefile(DOCKER / "compose.yaml")


@pytest.mark.parametrize("name", ["--rules", "--state", "--listen", "--config"])
def test_serve_tells_of_the_options(name: str) -> None:
    assert name in CliRunner().invoke(serve, ["--help"]).output
