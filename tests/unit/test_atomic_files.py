# SPDX-License-Identifier: GPL-3.0-or-later
"""Files, links and folders that are whole or not there: what each step leaves behind, and nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.base import atomic_files as files


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_no_step_keeps_a_descriptor_open(tmp_path: Path) -> None:
    before = descriptors()
    files.sync_folder(tmp_path)
    files.write_file(tmp_path / "a", b"1", 0o640)
    files.replace_file(tmp_path / "a", b"2", 0o600, tmp_path)
    files.replace_link(tmp_path / "link", "a")
    assert descriptors() == before


def test_a_folder_is_made_readable_with_its_parents_whatever_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o077)
    try:
        files.make_folder(tmp_path / "one/two")
    finally:
        os.umask(old)
    assert [(tmp_path / one).stat().st_mode & 0o777 for one in ("one", "one/two")] == [0o755, 0o755]
    (tmp_path / "one").chmod(0o700)
    files.make_folder(tmp_path / "one/two")
    assert (tmp_path / "one").stat().st_mode & 0o777 == 0o700, "what is there stays as it is"


def test_a_new_file_has_its_bytes_and_mode_and_never_takes_anothers_place(tmp_path: Path) -> None:
    files.write_file(tmp_path / "a", b"\x00\xff", 0o640)
    assert (tmp_path / "a").read_bytes() == b"\x00\xff" and (tmp_path / "a").stat().st_mode & 0o777 == 0o640
    (tmp_path / "link").symlink_to("elsewhere")
    for name in ("a", "link"):
        with pytest.raises(FileExistsError):
            files.write_file(tmp_path / name, b"x", 0o600)
    assert names(tmp_path) == ["a", "link"] and (tmp_path / "a").read_bytes() == b"\x00\xff"


def test_a_file_is_replaced_as_a_whole_or_left_with_no_temporary(tmp_path: Path) -> None:
    beside = tmp_path / "beside"
    beside.mkdir()
    path = tmp_path / "a"
    path.write_bytes(b"old")
    files.replace_file(path, b"new", 0o604, beside)
    assert path.read_bytes() == b"new" and path.stat().st_mode & 0o777 == 0o604
    (tmp_path / "folder/full").mkdir(parents=True)
    with pytest.raises(OSError, match="directory"):
        files.replace_file(tmp_path / "folder", b"new", 0o600, beside)
    assert names(beside) == [] and names(tmp_path / "folder") == ["full"]


def test_a_link_is_pointed_elsewhere_or_left_with_no_temporary(tmp_path: Path) -> None:
    link = tmp_path / "new/link"
    files.replace_link(link, "one")
    files.replace_link(link, "two")
    assert os.readlink(link) == "two" and names(link.parent) == ["link"]
    (tmp_path / "folder/full").mkdir(parents=True)
    with pytest.raises(OSError, match="directory"):
        files.replace_link(tmp_path / "folder", "one")
    assert names(tmp_path) == ["folder", "new"]


def test_what_is_removed_is_gone_and_what_a_link_leads_to_stays(tmp_path: Path) -> None:
    (tmp_path / "folder/deep").mkdir(parents=True)
    (tmp_path / "file").write_text("x")
    (tmp_path / "link").symlink_to("folder")
    (tmp_path / "broken").symlink_to("nowhere")
    files.remove_tree(tmp_path / "link")
    files.remove_tree(tmp_path / "broken")
    files.remove_tree(tmp_path / "nothing")
    assert names(tmp_path) == ["file", "folder"] and names(tmp_path / "folder") == ["deep"]
    files.remove_tree(tmp_path / "folder")
    files.remove_tree(tmp_path / "file")
    assert names(tmp_path) == []


@pytest.mark.parametrize("exchanges", [True, False])
def test_a_finished_folder_takes_its_place_and_the_former_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchanges: bool
) -> None:
    """Also where the file system cannot swap two names."""
    if not exchanges:
        monkeypatch.setattr(files, "_exchange", lambda one, other: False)
    final = tmp_path / "final"
    for turn in ("one", "two"):
        made = tmp_path / f"made-{turn}"
        made.mkdir()
        (made / turn).touch()
        former = files.put_folder(made, final)
        assert names(final) == [turn]
        assert (former is None) is (turn == "one")
    assert former is not None and names(former) == ["one"] and len(names(tmp_path)) == 2


@pytest.mark.parametrize("kind", ["file", "link", "nothing"])
def test_what_is_remembered_comes_back_with_its_mode_and_times(tmp_path: Path, kind: str) -> None:
    folder, beside = tmp_path / "in", tmp_path / "beside"
    folder.mkdir()
    beside.mkdir()
    path = folder / "a"
    if kind == "file":
        path.write_bytes(b"old")
        path.chmod(0o606)
    elif kind == "link":
        path.symlink_to("target")
    if kind != "nothing":
        os.utime(path, ns=(10**18 + 1, 10**18 + 2), follow_symlinks=False)
    os.utime(folder, ns=(10**18 + 3, 10**18 + 4))
    former = files.remember(path)
    files.remove_tree(path)
    path.write_bytes(b"new")
    files.bring_back(former, beside)
    assert folder.stat().st_mtime_ns == 10**18 + 4
    if kind == "nothing":
        assert names(folder) == []
    else:
        assert path.lstat().st_mtime_ns == 10**18 + 2
        assert os.readlink(path) == "target" if kind == "link" else path.read_bytes() == b"old"
        assert kind == "link" or path.stat().st_mode & 0o777 == 0o606


def test_without_an_exchange_of_names_a_folder_takes_its_place_by_two_renames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Library:
        """A C library that does not know renameat2."""

        def __init__(self, name: object, use_errno: bool) -> None:
            assert name is None and use_errno

    monkeypatch.setattr(files.ctypes, "CDLL", Library)
    for name in ("new", "final"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "said").write_text(name)
    former = files.put_folder(tmp_path / "new", tmp_path / "final")
    assert former == tmp_path / "new-old" and names(tmp_path) == ["final", "new-old"]
    assert (tmp_path / "final/said").read_text() == "new" and (former / "said").read_text() == "final"
