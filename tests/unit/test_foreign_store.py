# SPDX-License-Identifier: GPL-3.0-or-later
"""Records on a disk, one run at a time; and what is asked of netlink and read from it to change tc filters."""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.foreign import store
from ansible_collections.ebpf.fleet.plugins.module_utils.foreign.record import Record
from ansible_collections.ebpf.fleet.plugins.module_utils.foreign.target import Target
from ansible_collections.ebpf.fleet.plugins.module_utils.kernel import bpffs, netchange, netlink, processes

UNIT = Target("unit", r"a\x2db@1:2.service")
RECORD = Record(UNIT, "why", "b", "t0", "t1", False, [], [])


# ---- records ----


def test_a_record_is_for_root_alone_and_what_is_put_back_is_kept_aside(tmp_path: Path) -> None:
    kept = store.Store(tmp_path / "foreign")
    assert kept.read(UNIT) is None and not kept.folder.exists()
    kept.write(RECORD)
    assert kept.path(UNIT).stat().st_mode & 0o777 == 0o600 and kept.folder.stat().st_mode & 0o777 == 0o700
    assert kept.read(UNIT) == RECORD
    kept.write(RECORD._replace(reason="again"))
    assert [one.name for one in kept.folder.iterdir()] == [r"unit.a\x2db@1:2.service.json"]
    kept.archive(RECORD)
    assert kept.read(UNIT) is None and (kept.folder / "released" / kept.path(UNIT).name).exists()


def test_the_longest_name_of_a_unit_has_a_record(tmp_path: Path) -> None:
    longest = Target("unit", "a" * 230 + ".service")
    kept = store.Store(tmp_path)
    kept.write(RECORD._replace(target=longest))
    assert kept.read(longest) is not None


@pytest.mark.parametrize("what", ["link", "folder", "fifo", "large"])
def test_what_is_in_a_records_place_and_is_not_a_record_is_refused(tmp_path: Path, what: str) -> None:
    kept = store.Store(tmp_path)
    path = kept.path(UNIT)
    if what == "link":
        path.symlink_to("/etc/passwd")
    elif what == "folder":
        path.mkdir()
    elif what == "fifo":
        os.mkfifo(path)
    else:
        path.write_bytes(b" " * (store.records.BYTES_LIMIT + 1))
    with pytest.raises(FleetError) as caught:
        kept.read(UNIT)
    assert caught.value.code == "EF_TAKEOFF_RECORD" and str(path) in caught.value.message


def test_a_record_that_is_too_large_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store.records, "BYTES_LIMIT", 10)
    with pytest.raises(FleetError, match="is larger than 10 bytes"):
        store.Store(tmp_path).write(RECORD)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_written_is_an_error_before_anything_is_done(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    kept = store.Store(tmp_path / "file")
    for call in (lambda: kept.write(RECORD), kept.locked().__enter__):
        with pytest.raises(FleetError) as caught:
            call()
        assert caught.value.code == "EF_TAKEOFF_RECORD"


def test_one_run_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "_SECONDS_FOR_LOCK", 0)
    kept = store.Store(tmp_path)
    with kept.locked(), pytest.raises(FleetError, match="another run takes programs off this host still"):
        kept.locked().__enter__()
    with kept.locked():
        fd = os.open(tmp_path / ".lock", os.O_RDWR)
        with pytest.raises(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(fd)


# ---- processes ----


def proc(folder: Path, pid: int, state: str, parent: int, start: int) -> None:
    (folder / str(pid)).mkdir(parents=True)
    words = [state, str(parent), *["0"] * 17, str(start), "0"]
    (folder / str(pid) / "stat").write_text(f"{pid} (a) S (b) {' '.join(words)}\n")


def test_a_start_is_read_behind_any_name_and_one_that_has_ended_has_none(tmp_path: Path) -> None:
    proc(tmp_path, 7, "S", 3, 4711)
    proc(tmp_path, 3, "S", 1, 1)
    proc(tmp_path, 1, "S", 0, 0)
    proc(tmp_path, 8, "Z", 3, 5)
    assert processes.start_ticks(7, tmp_path) == 4711
    assert processes.start_ticks(8, tmp_path) is None and processes.start_ticks(9, tmp_path) is None
    assert processes.ancestors(7, tmp_path) == [7, 3, 1] and processes.ancestors(9, tmp_path) == [9]


# ---- netlink ----


def filter_message(kind: bytes = b"bpf\0", **options: Any) -> bytes:
    found = {11: struct.pack("=I", 57), 8: struct.pack("=I", 1), 7: b"x.o:[tc]\0", **options.get("inner", {})}
    inner = [netlink.attribute(key, value) for key, value in found.items()]
    head = struct.pack("=BBHiIII", 0, 0, 0, 3, 5, 0xFFFFFFF2, 7 << 16 | 3)
    chain = netlink.attribute(11, struct.pack("=I", 4)) if options.get("chain") else b""
    return head + netlink.attribute(1, kind) + chain + netlink.nested(2, *inner)


def test_a_filter_is_read_with_all_that_names_it() -> None:
    found = netchange.parse_filter(filter_message(chain=True))
    assert found == netchange.Filter(3, 0xFFFFFFF2, 7 << 16 | 3, 5, 4, 57, "x.o:[tc]", 1, 0, 0, False)
    assert found is not None and found.prio == 7
    assert netchange.parse_filter(filter_message(b"u32\0")) is None
    assert netchange.parse_filter(b"short") is None
    classic = filter_message(inner={11: struct.pack("=I", 0)})
    assert netchange.parse_filter(classic) is None


@pytest.mark.parametrize(
    ("inner", "flags_gen", "class_id", "more"),
    [
        # TCA_CLS_FLAGS_NOT_IN_HW is the kernel's own word.
        ({9: struct.pack("=I", 8 | 1)}, 1, 0, False),
        ({3: struct.pack("=I", 0x10001)}, 0, 0x10001, False),
        ({1: netlink.attribute(1, b"gact")}, 0, 0, True),
        ({1: b""}, 0, 0, False),
        ({2: b"\0" * 4}, 0, 0, True),
    ],
)
def test_what_a_filter_has_beside_its_program(inner: Any, flags_gen: int, class_id: int, more: bool) -> None:
    found = netchange.parse_filter(filter_message(inner=inner))
    assert found is not None and (found.flags_gen, found.class_id, found.more) == (flags_gen, class_id, more)


def test_an_attribute_is_filled_up_to_four_bytes_and_read_again() -> None:
    data = netlink.attribute(7, b"abcde") + netlink.nested(3, netlink.attribute(1, b"x"))
    assert len(data) % 4 == 0 and struct.unpack_from("=H", data)[0] == 9
    found = netlink.attributes(data)
    assert found[7] == b"abcde" and netlink.attributes(found[3]) == {1: b"x"}


def test_a_bpffs_is_one_only_where_its_device_is_what_is_seen_there(tmp_path: Path) -> None:
    place, device = tmp_path / "bpf", os.stat(tmp_path).st_dev
    place.mkdir()
    (tmp_path / "self").mkdir()
    for number, there in ((device, True), (device + 1, False)):
        line = f"1 2 {os.major(number)}:{os.minor(number)} / {place} rw - bpf bpf rw\n"
        (tmp_path / "self/mountinfo").write_text(line)
        assert bpffs.is_mounted(str(place), tmp_path) is there
    assert not bpffs.is_mounted(str(tmp_path / "nowhere"), tmp_path)
