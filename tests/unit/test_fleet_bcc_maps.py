# SPDX-License-Identifier: GPL-3.0-or-later
"""The BCC collector's maps: what it asks of the kernel byte by byte, and what it makes of the answers.

A table of values stands for the kernel; that the numbers are the kernel's is held by test_kernel_tables.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from typing import Any

import pytest
from ansible_collections.ebpf.fleet.collectors.fleet_bcc import kernel, maps
from ansible_collections.ebpf.fleet.plugins.module_utils.kernel import bpfnames, bpfsys

HASH, ARRAY, PERCPU_HASH, PERCPU_ARRAY, LRU_HASH, LRU_PERCPU_HASH, RINGBUF = 1, 2, 5, 6, 9, 10, 27
CPUS = 3
FD = 77


class Kernel:
    """A map in the kernel: `slots` are its elements, `batches` how many entries each further batch brings."""

    def __init__(self, kind: int, value_size: int = 8, key_size: int = 4, name: bytes = b"ef_counters") -> None:
        self.info = struct.pack("=IIIIII", kind, 42, key_size, value_size, 1000, 0xFFFFFFFF) + name.ljust(16, b"\0")
        self.info = (self.info + b"\xff" * 256)[:256]
        self.slots: dict[int, bytes] = {}
        self.written: dict[int, bytes] = {}
        self.batches: list[int] = []
        self.starts: list[tuple[int, int]] = []
        self.refuses = errno.ENOENT
        self.memlock = "memlock:\t4096\n"
        self.asked: list[int] = []

    def info_by_fd(self, fd: int) -> bytes:
        self.asked.append(fd)
        return self.info

    def bpf(self, command: int, attributes: bytes) -> int:
        fd, nothing, key, value, flags = struct.unpack("=IIQQQ", attributes)
        assert (fd, nothing, flags) == (FD, 0, 0)
        slot = struct.unpack("=I", ctypes.string_at(key, 4))[0]
        if command == kernel.MAP_UPDATE:
            self.written[slot] = ctypes.string_at(value, len(self.slots[slot]))
            return 0
        assert command == kernel.MAP_LOOKUP
        if slot not in self.slots:
            raise OSError(errno.ENOENT, "no such slot")
        ctypes.memmove(value, self.slots[slot], len(self.slots[slot]))
        return 0

    def bpf_in_place(self, command: int, block: Any) -> int:
        assert command == kernel.MAP_LOOKUP_BATCH and len(block) == bpfsys.ATTR_BYTES
        start, position, _keys, _values, room, fd, *flags = struct.unpack_from("=QQQQIIQQ", block)
        assert (room, fd, flags) == (1024, FD, [0, 0])
        self.starts.append((start, position))
        struct.pack_into("=I", block, 32, self.batches.pop(0))
        if not self.batches:
            raise OSError(self.refuses, "the end")
        return 0

    def read_small(self, path: str) -> str:
        assert path == f"/proc/self/fdinfo/{FD}"
        return f"pos:\t0\nmap_type:\t1\n{self.memlock}map_id:\t42\n"


def map_in(monkeypatch: pytest.MonkeyPatch, made: Kernel) -> maps.Map:
    for name in ("info_by_fd", "bpf", "bpf_in_place", "read_small"):
        monkeypatch.setattr(maps, name, getattr(made, name))
    monkeypatch.setattr(maps, "possible_cpus", lambda: CPUS)
    return maps.Map(FD)


# ---- tables ----


def test_the_types_of_maps_have_the_kernels_numbers() -> None:
    kernels = dict(enumerate(bpfnames.MAP_TYPES))
    assert len(maps.MAP_TYPES) > 7
    assert {number: kernels[number] for number in maps.MAP_TYPES} == maps.MAP_TYPES


def test_what_is_said_of_a_type_is_said_of_one_that_is_known() -> None:
    known = set(maps.MAP_TYPES.values())
    assert set(maps.PER_CPU_TYPES) == {name for name in known if "percpu" in name}
    assert set(maps.HASH_TYPES) == {name for name in known if name.endswith("hash")}


def test_the_commands_have_the_kernels_numbers() -> None:
    assert (kernel.MAP_LOOKUP, kernel.MAP_UPDATE, kernel.MAP_LOOKUP_BATCH) == (1, 2, 24)


# ---- a map ----


@pytest.mark.parametrize(("number", "name"), [*maps.MAP_TYPES.items(), (3, "3"), (28, "28")])
def test_a_map_is_read_from_what_the_kernel_says_of_it(monkeypatch: pytest.MonkeyPatch, number: int, name: str) -> None:
    there = Kernel(number, value_size=24, key_size=16)
    found = map_in(monkeypatch, there)
    assert (found.fd, found.id, found.name, found.type) == (FD, 42, "ef_counters", name)
    assert (found.key_size, found.value_size, found.max_entries) == (16, 24, 1000)
    assert there.asked == [FD]


@pytest.mark.parametrize(
    ("name", "shown"), [(b"", ""), (b"0123456789abcdef", "0123456789abcdef"), (b"ef\xff", "ef\ufffd"), (b"a\0b", "a")]
)
def test_a_name_has_up_to_sixteen_letters(monkeypatch: pytest.MonkeyPatch, name: bytes, shown: str) -> None:
    assert map_in(monkeypatch, Kernel(ARRAY, name=name)).name == shown


def words(*numbers: int) -> bytes:
    return struct.pack(f"={len(numbers)}Q", *numbers)


@pytest.mark.parametrize(
    ("kind", "value_size", "element", "sums"),
    [
        (PERCPU_ARRAY, 8, words(1, 20, 300), [321]),
        (PERCPU_ARRAY, 16, words(1, 4, 20, 50, 300, 600), [321, 654]),
        (PERCPU_ARRAY, 12, words(1, 4, 20, 50, 300, 600), [321, 654]),
        (PERCPU_ARRAY, 4, words(1, 20, 300), [321]),
        (PERCPU_ARRAY, 1, words(1, 20, 300), [321]),
        (ARRAY, 8, words(7), [7]),
        (ARRAY, 16, words(7, 9), [7, 9]),
        (PERCPU_ARRAY, 8, words(2**64 - 1, 0, 0), [2**64 - 1]),
    ],
)
def test_a_slot_is_added_up_over_all_processors(
    monkeypatch: pytest.MonkeyPatch, kind: int, value_size: int, element: bytes, sums: list[int]
) -> None:
    there = Kernel(kind, value_size)
    found = map_in(monkeypatch, there)
    there.slots = {5: element}
    assert found.sum_slot(5) == sums[0]
    assert [found.sum_slot(5, word) for word in range(len(sums))] == sums
    with pytest.raises(OSError, match="no such slot"):
        found.sum_slot(4)


@pytest.mark.parametrize(("value_size", "words_each"), [(1, 1), (7, 1), (8, 1), (9, 2), (15, 2), (16, 2), (17, 3)])
@pytest.mark.parametrize("kind", [PERCPU_ARRAY, PERCPU_HASH, LRU_PERCPU_HASH])
def test_of_each_processor_there_is_room_in_whole_words(
    monkeypatch: pytest.MonkeyPatch, kind: int, value_size: int, words_each: int
) -> None:
    """Too little room is memory that the kernel writes over."""
    found = map_in(monkeypatch, Kernel(kind, value_size))
    assert ctypes.sizeof(found._value) == found._room == words_each * 8 * CPUS


@pytest.mark.parametrize("kind", [HASH, LRU_HASH, ARRAY, RINGBUF])
def test_of_other_maps_there_is_room_for_one_value_and_a_key(monkeypatch: pytest.MonkeyPatch, kind: int) -> None:
    found = map_in(monkeypatch, Kernel(kind, value_size=9, key_size=2))
    assert ctypes.sizeof(found._value) == found._room == 9
    assert ctypes.sizeof(found._key) == 4
    assert ctypes.sizeof(map_in(monkeypatch, Kernel(kind, key_size=5))._key) == 5


def test_a_slot_is_written_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    there = Kernel(ARRAY)
    found = map_in(monkeypatch, there)
    there.slots = {0: bytes(8), 3: bytes(8)}
    found.put(3, b"12345678")
    found.put(0, b"ab")
    assert there.written == {3: b"12345678", 0: b"ab\0\0\0\0\0\0"}
    found.put(0, b"123456789")
    assert there.written[0] == b"12345678"


# ---- how full it is ----


@pytest.mark.parametrize("kind", [HASH, PERCPU_HASH, LRU_HASH, LRU_PERCPU_HASH])
@pytest.mark.parametrize(("batches", "entries"), [([0], 0), ([5], 5), ([1024, 5], 1029), ([100, 20, 3], 123)])
def test_the_entries_of_a_hash_are_counted_batch_by_batch(
    monkeypatch: pytest.MonkeyPatch, kind: int, batches: list[int], entries: int
) -> None:
    there = Kernel(kind)
    there.batches = list(batches)
    assert map_in(monkeypatch, there).entries() == entries
    first, *others = there.starts
    assert first[0] == 0 and first[1] != 0, "the first batch begins at the beginning"
    assert others == [(first[1], first[1])] * (len(batches) - 1), "the next where the one before ended"


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EPERM, errno.ENOSPC])
def test_what_cannot_be_counted_is_not_known(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    """An old kernel knows no batches; half of a count is not a count."""
    there = Kernel(HASH)
    there.batches, there.refuses = [7, 3], number
    assert map_in(monkeypatch, there).entries() is None


@pytest.mark.parametrize("kind", [ARRAY, PERCPU_ARRAY, RINGBUF, 4])
def test_only_a_hash_fills_up(monkeypatch: pytest.MonkeyPatch, kind: int) -> None:
    there = Kernel(kind)
    assert map_in(monkeypatch, there).entries() is None
    assert there.starts == []


def test_the_kernel_has_room_for_all_that_a_batch_brings(monkeypatch: pytest.MonkeyPatch) -> None:
    """The addresses are of buffers that hold 1024 keys and values, and a position of up to 256 bytes."""
    made: list[int] = []
    there = Kernel(HASH, value_size=48, key_size=20)
    there.batches = [1]
    found = map_in(monkeypatch, there)
    original = ctypes.create_string_buffer

    def create(what: Any, size: int | None = None) -> Any:
        buffer = original(what) if size is None else original(what, size)
        made.append(ctypes.sizeof(buffer))
        return buffer

    monkeypatch.setattr(maps.ctypes, "create_string_buffer", create)
    assert found.entries() == 1
    assert made == [256, 1024 * 20, 1024 * 48, bpfsys.ATTR_BYTES]


# ---- how much memory it takes ----


@pytest.mark.parametrize(
    ("kind", "memlock", "memory"),
    [
        (HASH, "memlock:\t4096\n", 4096),
        (HASH, "memlock:\t0\n", 0),
        (HASH, "", None),
        (RINGBUF, "memlock:\t0\n", 1000),
        (RINGBUF, "memlock:\t1\n", 1),
        (RINGBUF, "memlock:\t77824\n", 77824),
        (RINGBUF, "", None),
        (ARRAY, "not_memlock:\t4096\n", None),
        (ARRAY, "memlock:4096\n", 4096),
    ],
)
def test_memory_is_what_the_kernel_says_or_the_rings_data(
    monkeypatch: pytest.MonkeyPatch, kind: int, memlock: str, memory: int | None
) -> None:
    there = Kernel(kind)
    there.memlock = memlock
    assert map_in(monkeypatch, there).memory_bytes() == memory


def test_a_map_is_described(monkeypatch: pytest.MonkeyPatch) -> None:
    there = Kernel(HASH, name=b"ef_open")
    there.batches = [6]
    assert map_in(monkeypatch, there).describe() == {
        "name": "ef_open", "id": 42, "type": "hash", "max_entries": 1000, "entries": 6, "memory_bytes": 4096,
    }  # fmt: skip


# ---- programs and links ----


def program_info(verified: int = 9, **places: int) -> bytes:
    """struct bpf_prog_info: 0xff wherever there is nothing of ours."""
    info = bytearray(b"\xff" * 256)
    info[:16] = struct.pack("=II", 26, 17) + bytes.fromhex("0123456789abcdef")
    struct.pack_into("=QQ", info, 192, 5000, 4)
    struct.pack_into("=I", info, 216, verified)
    return bytes(info)


@pytest.mark.parametrize(
    ("with_stats", "verified", "told"),
    [(True, 9, (4, 5000, 9)), (False, 9, (None, None, 9)), (True, 1, (4, 5000, 1)), (True, 0, (4, 5000, None))],
)
def test_a_program_is_described(
    monkeypatch: pytest.MonkeyPatch, with_stats: bool, verified: int, told: tuple[int | None, ...]
) -> None:
    monkeypatch.setattr(maps, "info_by_fd", lambda fd: program_info(verified) if fd == FD else b"")
    assert maps.describe_program("ef_switch", FD, with_stats) == {
        "name": "ef_switch", "id": 17, "tag": "0123456789abcdef",
        "run_cnt": told[0], "run_time_ns": told[1], "verified_insns": told[2],
    }  # fmt: skip


def test_a_program_that_never_ran_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maps, "info_by_fd", lambda _fd: bytes(256))
    found = maps.describe_program("ef_switch", FD, True)
    assert (found["run_cnt"], found["run_time_ns"]) == (0, 0), "zero is measured"


def test_a_link_has_the_second_number_and_a_perf_event_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maps, "info_by_fd", lambda fd: struct.pack("=III", 1, 70 + fd, 3).ljust(256, b"\0"))
    assert maps.link_id(5) == 75

    def refuse(_fd: int) -> bytes:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(maps, "info_by_fd", refuse)
    assert maps.link_id(5) is None
