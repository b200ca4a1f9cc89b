# SPDX-License-Identifier: GPL-3.0-or-later
"""The program that prepare brings to hosts is whole, and needs nothing but the standard library."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.ebpf.fleet.plugins.filter import pull as pull_filter
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.pull import documents, program

ROOT = Path(__file__).resolve().parents[2]
UTILS = ROOT / program.ROOM
PREFIX = "ansible_collections.ebpf.fleet.plugins.module_utils."
# The oldest Python of a host.
OLDEST = (3, 8)
GIVEN = {
    "host": "web1",
    "cell": None,
    "policy": "keep",
    "interval_s": 60,
    "lease_s": 3600,
    "timeout_s": 10,
    "wait_s": 30,
}


def imported(path: Path) -> set[str]:
    """Every module that a file imports, by its full name; `from a import b` gives a and a.b."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), feature_version=OLDEST)):
        if isinstance(node, ast.Import):
            found |= {one.name for one in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {str(node.module), *(f"{node.module}.{one.name}" for one in node.names)}
    return found


def needed(path: Path, found: set[str]) -> set[str]:
    """The files of ours that a file needs, and those that these need."""
    for name in imported(path):
        file = name[len(PREFIX) :].replace(".", "/") + ".py"
        if name.startswith(PREFIX) and file not in found and (UTILS / file).is_file():
            needed(UTILS / file, found | {file})
            found.add(file)
            found |= needed(UTILS / file, found)
    return found


def test_the_files_are_all_that_the_entry_needs_and_no_other() -> None:
    entry = ROOT / "roles/prepare/files/ebpf-fleet-pull"
    assert needed(entry, set()) == set(program.FILES)
    assert list(program.FILES) == sorted(program.FILES)


@pytest.mark.parametrize("name", program.FILES)
def test_a_file_needs_the_standard_library_and_files_of_the_program(name: str) -> None:
    for module in imported(UTILS / name):
        if not module.startswith("ansible_collections."):
            assert module.partition(".")[0] in sys.stdlib_module_names, module


def test_the_program_runs_where_nothing_else_of_the_collection_is(tmp_path: Path) -> None:
    for path, text in program.files(str(tmp_path)):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(text)
    (tmp_path / "pull").write_bytes((ROOT / "roles/prepare/files/ebpf-fleet-pull").read_bytes())
    for arguments, said in (
        (["--root", str(tmp_path)], f"EF_ARGUMENT: {tmp_path}/etc/ebpf-fleet/pull.json: is not there"),
        (["--help"], "usage: ebpf-fleet-pull"),
        (["--root"], "usage: "),
    ):
        done = subprocess.run(
            [sys.executable, "-I", str(tmp_path / "pull"), *arguments],
            cwd="/",
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stdout) == (2, "") and done.stderr.startswith(said), done.stderr
    assert not list(tmp_path.rglob("__pycache__"))


def test_the_filters_give_files_and_settings(tmp_path: Path) -> None:
    filters = pull_filter.FilterModule().filters()
    files = filters["pull_program"]("/x")
    assert len(files) == len(program.FILES) and all(one["path"].startswith("/x/ansible_collections/") for one in files)
    text = filters["pull_settings"]("https://h/x", **GIVEN)
    assert documents.parse_settings(text.encode(), "pull.json").host.name == "web1"
    assert json.loads(text)["cell"] is None
    with pytest.raises(FleetError, match=r"pull\.json: policy is x") as caught:
        program.settings({"location": "https://h/x", **GIVEN, "policy": "x"})
    assert caught.value.code == "EF_ARGUMENT"
    told = filters["pull_settings"]("ftp://h/x", told=True, **GIVEN)
    assert set(told) == {"fault"} and told["fault"].startswith("EF_ARGUMENT: pull.json: location is not one of")
