# SPDX-License-Identifier: GPL-3.0-or-later
"""docs/third-party.md by its own words: its files are written and its commands run, on this machine's kernel."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from tests.integration.release_host import REPO, environment

PAGE = REPO / "docs/third-party.md"
FENCE = re.compile(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A fenced block: its language, the word behind it (a file's name, or ``deploy``), its text."""

    language: str
    word: str
    text: str


def blocks() -> list[Block]:
    return [Block(found[1], found[2] or "", found[3]) for found in FENCE.finditer(PAGE.read_text())]


def write_files(folder: Path) -> None:
    for block in blocks():
        if block.language in ("c", "yaml"):
            path = folder / block.word
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text)


def reader_of_the_page(folder: Path) -> dict[str, str]:
    """What a reader has: the collection, a compiler, a shell of his own."""
    return environment(
        EBPF_FLEET=str(REPO),
        CLANG="clang-14",
        PWD=str(folder),
        ANSIBLE_COLLECTIONS_PATH=str(REPO / "collections"),
        PATH=f"{environment()['PATH']}{os.pathsep}/usr/sbin",
    )


def commands() -> str:
    return "".join(f"echo block-{number}\n{text}" for number, text in enumerate(_shell_blocks()))


def _shell_blocks() -> list[str]:
    return [block.text for block in blocks() if (block.language, block.word) == ("sh", "")]


def expected() -> dict[int, list[str]]:
    """For each shell block by number, the lines that the page promises."""
    found: dict[int, list[str]] = {}
    number = -1
    for block in blocks():
        if (block.language, block.word) == ("sh", ""):
            number += 1
        if block.language == "text":
            found[number] = block.text.splitlines()
    return found


def as_pattern(line: str) -> re.Pattern[str]:
    """A promised line: ``…`` stands for anything."""
    return re.compile(".*".join(re.escape(part) for part in line.split("…")))


@pytest.mark.skipif(os.geteuid() != 0, reason="loading BPF needs root")
@pytest.mark.slow
def test_the_page_leads_to_records_of_a_running_third_party_feature(tmp_path: Path) -> None:
    if platform.machine() != "x86_64":
        pytest.skip("the page's compile command names x86 as its target")
    write_files(tmp_path)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands()],
        cwd=tmp_path,
        env=reader_of_the_page(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout
    outputs = re.split(r"^block-\d+\n", done.stdout, flags=re.MULTILINE)[1:]
    assert len(outputs) == len(_shell_blocks())
    promised = expected()
    assert sorted(promised) == [1, 2, 3], "the page promises what the blocks inspect, build and run print"
    for number, lines in promised.items():
        for line in lines:
            assert any(as_pattern(line).search(said) for said in outputs[number].splitlines()), (line, outputs[number])


def test_the_page_deploys_with_what_the_rollout_takes() -> None:
    [deploy] = [block.text for block in blocks() if block.word == "deploy"]
    play = (REPO / "playbooks/rollout.yml").read_text()
    names = re.findall(r"ebpf_fleet_\w+", deploy)
    assert "ebpf.fleet.rollout" in deploy and names
    for name in names:
        assert name in play, f"{name} is no variable of rollout.yml"


def test_the_pages_contract_is_plain_yaml_and_third_party() -> None:
    [text] = [block.text for block in blocks() if block.language == "yaml"]
    assert yaml.safe_load(text)["origin"] == "third_party"
