# SPDX-License-Identifier: GPL-3.0-or-later
"""A program of ours that somebody pinned is told with what removes it, and what removes it works."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any, Iterator

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.kernel import bpfsys

from tests.integration.killplace import SHELLS, KillPlace, cgroup2

BPFTOOL = shutil.which("bpftool")
pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or cgroup2() is None or BPFTOOL is None,
    reason="needs root, cgroup v2 and bpftool",
)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[KillPlace]:
    made = KillPlace(tmp_path)
    try:
        yield made
    finally:
        made.clear()


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A bpffs of the test's own, at a short path."""
    path = tmp_path_factory.mktemp("pins")
    subprocess.run(["mount", "-t", "bpf", "bpf", str(path)], check=True)
    try:
        yield path
    finally:
        subprocess.run(["umount", str(path)], check=True)


def pin(place: KillPlace, *paths: Path) -> int:
    """Pin the program and end who held it; the program's id."""
    holder = place.hold("pinner")
    for path in paths:
        subprocess.run([str(BPFTOOL), "prog", "pin", "id", str(holder.program), str(path)], check=True)
    holder.process.kill()
    holder.process.wait()
    return holder.program


def pin_link(place: KillPlace, path: Path) -> int:
    """Attach the program, pin only the link, and end who held it; the program's id."""
    holder = place.hold("pinner")
    name, target = ctypes.create_string_buffer(b"sched_process_exit"), ctypes.create_string_buffer(bytes(path))
    program = bpfsys.bpf(13, struct.pack("=III", holder.program, 0, 0))
    link = bpfsys.bpf(17, struct.pack("=QII", ctypes.addressof(name), program, 0))
    bpfsys.bpf(6, struct.pack("=QII", ctypes.addressof(target), link, 0))
    for descriptor in (program, link):
        os.close(descriptor)
    holder.process.kill()
    holder.process.wait()
    return holder.program


def hidden(*programs: str) -> str:
    """A command that makes these programs fail."""
    found = [os.path.realpath(path) for path in map(shutil.which, programs) if path]
    hide = " && ".join(f"mount --bind /bin/false {path}" for path in found)
    return f"{hide} && export PATH=/usr/sbin:/usr/bin:/sbin:/bin"


@pytest.mark.sample(1)
@pytest.mark.parametrize("shell", SHELLS)
def test_a_pinned_program_is_told_with_id_tag_name_and_what_removes_it(
    place: KillPlace, folder: Path, shell: str
) -> None:
    if shutil.which(SHELLS[shell][0]) is None:
        pytest.skip(f"{shell} is not installed here")
    number = pin(place, folder / "kept")
    answer = place.switch(shell=shell, deadline_seconds=6)
    assert (answer["ok"], answer["left"]) == (False, 1), answer
    (told,) = answer["pins"]
    assert (told["id"], told["name"], told["path"]) == (number, place.name[:15], f"{folder}/kept")
    assert place.name[:15] in answer["detail"] and f"program {number} (" in answer["detail"]
    assert f"tag {told['tag']}" in answer["detail"] and answer["holders"] == []
    remedy = re.search(r"rm (\S+)", answer["detail"])
    assert remedy is not None
    subprocess.run(["sh", "-c", remedy.group()], check=True)
    assert place.switch(shell=shell, deadline_seconds=6)["ok"]


@pytest.mark.sample(2)
@pytest.mark.parametrize("name", ["with space", "semi;colon", "star*", "quote'", "dollar$x"])
@pytest.mark.slow
def test_what_removes_it_works_for_any_name(place: KillPlace, folder: Path, name: str) -> None:
    pin(place, folder / name)
    answer = place.switch(deadline_seconds=6)
    remedy = re.search(r"rm (\S+)", answer["detail"])
    assert remedy is not None, answer
    subprocess.run(["sh", "-c", remedy.group()], check=True)
    assert not (folder / name).exists()


@pytest.mark.parametrize("before", ["", "without python3"])
@pytest.mark.slow
def test_a_pinned_link_is_told_too(place: KillPlace, folder: Path, before: str) -> None:
    number = pin_link(place, folder / "link")
    answer = place.switch(deadline_seconds=6, before=hidden("/usr/bin/python3") if before else "")
    assert [(one["id"], one["path"]) for one in answer["pins"]] == [(number, f"{folder}/link")], answer
    subprocess.run(["sh", "-c", str(re.findall(r"rm \S+", answer["detail"])[0])], check=True)
    assert place.switch(deadline_seconds=6)["ok"]


@pytest.mark.slow
def test_several_pins_in_folders_are_told_within_bounds(place: KillPlace, folder: Path) -> None:
    (folder / "deep/er").mkdir(parents=True)
    pin(place, *[folder / f"deep/er/pin{number}" for number in range(14)])
    answer = place.switch(deadline_seconds=6)
    assert len(answer["pins"]) == 10 and "and 12 more pinned files" in answer["detail"]


def test_bpftool_tells_it_where_there_is_no_python(place: KillPlace, folder: Path) -> None:
    number = pin(place, folder / "kept")
    answer = place.switch(deadline_seconds=6, before=hidden("/usr/bin/python3"))
    assert [(one["id"], one["path"]) for one in answer["pins"]] == [(number, f"{folder}/kept")], answer


@pytest.mark.slow
def test_without_both_it_is_said_what_is_missing(place: KillPlace, folder: Path) -> None:
    pin(place, folder / "kept")
    answer = place.switch(deadline_seconds=6, before=hidden("/usr/bin/python3", str(BPFTOOL)))
    assert not answer["ok"] and "python3" in answer["detail"] and place.name[:15] in answer["detail"], answer


@pytest.mark.slow
def test_a_pin_of_another_program_is_not_told(place: KillPlace, folder: Path) -> None:
    other: Any = KillPlace(place.root / "other")
    try:
        pin(other, folder / "of-others")
        pin(place, folder / "ours")
        answer = place.switch(deadline_seconds=6)
        assert {one["path"] for one in answer["pins"]} >= {f"{folder}/ours"}
    finally:
        other.clear()
