# SPDX-License-Identifier: GPL-3.0-or-later
"""Which orders are the pull channel's and which a person's, on real files, with the real kill script's own words."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.kill import orders
from ansible_collections.ebpf.fleet.plugins.module_utils.pull import places

PARTS = Path(__file__).resolve().parents[2] / "plugins/module_utils/kill/parts"
SECOND = 1_795_716_110


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    return tmp_path / "run/kill.d", tmp_path / "etc/kill.d"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def claim_by_script(path: Path) -> None:
    """What the kill script does to an order that is there already."""
    text = (PARTS / "engage.sh").read_text(encoding="utf-8").partition("\n# The order comes first")[0]
    subprocess.run(["sh", "-c", f"set -u\norders={path.name}\nchanged=false\n{text}\nplace {path.parent}"], check=True)


def test_orders_are_placed_in_both_folders_whole_and_with_nothing_beside_them(folders: tuple[Path, Path]) -> None:
    done = places.place_all(folders, {"global": "INC-1", "feature.a": ""}, SECOND)
    assert (done.placed, done.taken, done.problems) == (["feature.a", "global"], [], [])
    for folder in folders:
        assert names(folder) == ["feature.a", "global"]
        assert (folder / "global").read_bytes() == f"ebpf.fleet pull {SECOND}\nINC-1\n".encode()
        assert (folder / "global").stat().st_mode & 0o777 == 0o644
        assert places.is_ours(folder / "global")
    assert places.held(folders) == (["feature.a", "global"], [])
    assert places.place_all(folders, {"global": "INC-2"}, SECOND + 1).placed == []
    assert b"INC-1" in (folders[0] / "global").read_bytes()


def test_only_what_is_not_wanted_any_more_is_taken_from_both(folders: tuple[Path, Path]) -> None:
    places.place_all(folders, {"global": "", "feature.a": "", "feature.b": ""}, SECOND)
    done = places.take_all(folders, {"feature.a": ""})
    assert (done.placed, done.taken, done.problems) == ([], ["feature.b", "global"], [])
    assert [names(folder) for folder in folders] == [["feature.a"]] * 2
    assert places.take_all(folders, {"feature.a": ""}).taken == []


def test_an_order_that_a_person_placed_first_is_never_ours(folders: tuple[Path, Path]) -> None:
    folders[0].mkdir(parents=True)
    (folders[0] / "global").touch()
    places.place_all(folders, {"global": ""}, SECOND)
    assert (folders[0] / "global").read_bytes() == b""
    assert places.held(folders) == (["global"], ["global"])
    was = (folders[0] / "global").stat()
    assert places.take_all(folders, {}).taken == ["global"]
    assert (names(folders[0]), names(folders[1])) == (["global"], [])
    # Not for a moment was it taken away: a rename would show.
    assert (folders[0] / "global").stat().st_ctime_ns == was.st_ctime_ns


@pytest.mark.parametrize(
    "act",
    [
        lambda path: path.touch(),
        lambda path: path.write_text("mine\n"),
        lambda path: path.write_text(f"ebpf.fleet pull {SECOND}\n"),
        claim_by_script,
        lambda path: orders.place(path.parent, [orders.parse_scope("global")]),
        lambda path: (path.unlink(), path.touch()),
        lambda path: os.utime(path, ns=(0, SECOND * 10**9 + 1)),
        lambda path: os.utime(path, ns=(0, (SECOND - 1) * 10**9)),
    ],
    ids=["touch", "rewrite", "forge", "script", "module", "again", "later", "earlier"],
)
def test_what_a_person_touches_is_a_persons_and_stays(folders: tuple[Path, Path], act) -> None:  # type: ignore[no-untyped-def]
    places.place_all(folders, {"global": ""}, SECOND)
    for folder in folders:
        act(folder / "global")
        assert not places.is_ours(folder / "global")
    assert places.take_all(folders, {}).taken == []
    assert [names(folder) for folder in folders] == [["global"]] * 2


def test_the_kill_script_empties_nothing_but_a_plain_file(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.write_text("precious")
    link = tmp_path / "kill.d/global"
    link.parent.mkdir()
    link.symlink_to(kept)
    claim_by_script(link)
    orders.place(link.parent, [orders.parse_scope("global")])
    assert link.is_symlink() and kept.read_text() == "precious"


def test_what_is_no_plain_marked_file_is_not_ours(tmp_path: Path) -> None:
    places.place_all([tmp_path / "a"], {"global": ""}, SECOND)
    (tmp_path / "b").mkdir()
    link, fifo, folder, large = (tmp_path / "b" / name for name in ("feature.a", "feature.b", "feature.c", "feature.d"))
    link.symlink_to(tmp_path / "a/global")
    os.mkfifo(fifo)
    folder.mkdir()
    large.write_bytes(places.content_of(SECOND, "x" * places.MAX_MARKED))
    os.utime(large, ns=(SECOND * 10**9,) * 2)
    assert [places.is_ours(path) for path in (link, fifo, folder, large, tmp_path / "none")] == [False] * 5
    assert places.take_all([tmp_path / "b"], {}).taken == []
    assert len(names(tmp_path / "b")) == 4


def test_a_mark_at_its_longest_is_ours(tmp_path: Path) -> None:
    overhead = len(places.content_of(SECOND, ""))
    places.place_all([tmp_path], {"global": "x" * (places.MAX_MARKED - overhead)}, SECOND)
    assert (tmp_path / "global").stat().st_size == places.MAX_MARKED and places.is_ours(tmp_path / "global")


def test_a_folder_that_cannot_be_made_keeps_no_order_from_the_other(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    bad, good = tmp_path / "file/kill.d", tmp_path / "etc/kill.d"
    done = places.place_all([bad, good], {"global": ""}, SECOND)
    assert (done.placed, names(good)) == (["global"], ["global"])
    assert [one.code for one in done.problems] == ["EF_NOT_WRITTEN"] and str(bad) in done.problems[0].message
    assert [one.code for one in places.take_all([bad, good], {}).problems] == ["EF_NOT_WRITTEN"]
    assert names(good) == []


def test_what_an_interrupted_visit_left_is_no_order_and_in_no_ones_way(folders: tuple[Path, Path]) -> None:
    folders[0].mkdir(parents=True)
    left = folders[0] / f"{places.TEMPORARY}{os.getpid()}"
    left.write_text("half")
    places.place_all(folders, {"global": ""}, SECOND)
    assert names(folders[0]) == ["global"] and places.held(folders) == (["global"], [])
