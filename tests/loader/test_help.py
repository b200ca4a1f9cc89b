# SPDX-License-Identifier: GPL-3.0-or-later
"""The loader's help, its options and the page agree: an option that help hides is one that no one finds."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.apart

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted(path for path in (ROOT / "bpf/loader/cmd").glob("*.c") if path.stem != "main")
COMMANDS = [path.stem for path in SOURCES]
PAGE = (ROOT / "docs" / "formats" / "loader.md").read_text(encoding="utf-8")
OPTION = re.compile(r"--[a-z][a-z-]*")


@pytest.fixture(scope="module")
def usages(loader: Path) -> dict[str, str]:
    """{command: what follows it} as --help says."""
    done = subprocess.run([str(loader), "--help"], check=True, capture_output=True, text=True)
    lines = re.findall(r"^(?:usage:|      ) ebpf-loader (\w+)(?: (\S.*))?$", done.stdout, re.M)
    return dict(lines)


def parsed(source: Path) -> set[str]:
    """The options that a command's source takes: of getopt's table, or compared with as they stand."""
    text = source.read_text(encoding="utf-8")
    table = {f"--{name}" for name in re.findall(r'\{"([a-z-]+)", (?:required|no|optional)_argument', text)}
    return table | set(re.findall(r'!strcmp\(argv\[\d\], "(--[a-z-]+)"\)', text))


def test_help_has_every_command(usages: dict[str, str]) -> None:
    assert sorted(usages) == sorted(COMMANDS)


@pytest.mark.parametrize("source", SOURCES, ids=COMMANDS)
def test_help_has_the_options_that_are_taken_and_no_other(usages: dict[str, str], source: Path) -> None:
    said = usages[source.stem.removeprefix("cmd_")]
    assert set(OPTION.findall(said)) == parsed(source)
    takes = dict(re.findall(r'\{"([a-z-]+)", (required|no)_argument', source.read_text(encoding="utf-8")))
    for name, kind in takes.items():
        assert (re.search(rf"--{name} [A-Z]", said) is not None) == (kind == "required"), name


@pytest.mark.parametrize("command", COMMANDS)
def test_the_page_has_what_help_says(usages: dict[str, str], command: str) -> None:
    rows = [row.strip() for row in re.findall(rf"^\| `{command}\b([^`]*)` \|", PAGE, re.M)]
    assert rows == [usages[command]]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_wrong_option_is_answered_with_the_same_words(loader: Path, usages: dict[str, str], command: str) -> None:
    done = subprocess.run([str(loader), command, "--no-such-option"], check=False, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"usage: ebpf-loader {command} {usages[command]}".strip() in done.stderr
