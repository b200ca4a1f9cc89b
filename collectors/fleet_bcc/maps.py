# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Maps, programs and links that are in the kernel: what is in them, and their entries in status.json."""

from __future__ import annotations

import ctypes
import errno
import re
import struct
from typing import Any

from ansible_collections.ebpf.fleet.collectors.fleet_bcc.files import read_small
from ansible_collections.ebpf.fleet.collectors.fleet_bcc.kernel import (
    MAP_LOOKUP,
    MAP_LOOKUP_BATCH,
    MAP_UPDATE,
    bpf,
    bpf_in_place,
    info_by_fd,
    possible_cpus,
)
from ansible_collections.ebpf.fleet.plugins.module_utils.kernel import bpfsys

MAP_TYPES = {
    1: "hash", 2: "array", 4: "perf_event_array", 5: "percpu_hash", 6: "percpu_array",
    9: "lru_hash", 10: "lru_percpu_hash", 27: "ringbuf",
}  # fmt: skip
PER_CPU_TYPES = ("percpu_hash", "percpu_array", "lru_percpu_hash")
HASH_TYPES = ("hash", "percpu_hash", "lru_hash", "lru_percpu_hash")


class Map:
    """A map that we hold. Owns its descriptor."""

    def __init__(self, fd: int) -> None:
        info = info_by_fd(fd)
        kind, self.id, self.key_size, self.value_size, self.max_entries = struct.unpack_from("=IIIII", info)
        self.fd = fd
        self.name = info[24:40].split(b"\0")[0].decode("ascii", "replace")
        self.type = MAP_TYPES.get(kind, str(kind))
        copies = possible_cpus() if self.type in PER_CPU_TYPES else 1
        size = (self.value_size + 7) // 8 * 8 if self.type in PER_CPU_TYPES else self.value_size
        self._room = size * copies
        self._value = ctypes.create_string_buffer(self._room)
        self._key = ctypes.create_string_buffer(max(self.key_size, 4))

    def _element(self, flags: int = 0) -> bytes:
        addresses = (ctypes.addressof(self._key), ctypes.addressof(self._value))
        return struct.pack("=IIQQQ", self.fd, 0, addresses[0], addresses[1], flags)

    def sum_slot(self, slot: int, word: int = 0) -> int:
        """One slot of a per-CPU array, over all CPUs: of its value the u64 number `word`. Raises OSError."""
        struct.pack_into("=I", self._key, 0, slot)
        bpf(MAP_LOOKUP, self._element())
        words = struct.unpack(f"={self._room // 8}Q", self._value.raw[: self._room])
        return sum(words[word :: (self.value_size + 7) // 8])

    def put(self, slot: int, value: bytes) -> None:
        """Write one slot of an array. Raises OSError."""
        struct.pack_into("=I", self._key, 0, slot)
        self._value.raw = value.ljust(self._room, b"\0")[: self._room]
        bpf(MAP_UPDATE, self._element())

    def entries(self) -> int | None:
        """How many a hash holds; None for other types and where batches are not known (before 5.6)."""
        if self.type not in HASH_TYPES:
            return None
        room = 1024  # more than any bucket holds
        position, keys = ctypes.create_string_buffer(256), ctypes.create_string_buffer(room * self.key_size)
        values = ctypes.create_string_buffer(room * self._room)
        found, start = 0, 0
        while True:
            addresses = (start, ctypes.addressof(position), ctypes.addressof(keys), ctypes.addressof(values))
            block = ctypes.create_string_buffer(
                struct.pack("=QQQQIIQQ", *addresses, room, self.fd, 0, 0), bpfsys.ATTR_BYTES
            )
            try:
                bpf_in_place(MAP_LOOKUP_BATCH, block)
            except OSError as error:
                return found + struct.unpack_from("=I", block, 32)[0] if error.errno == errno.ENOENT else None
            found += struct.unpack_from("=I", block, 32)[0]
            start = addresses[1]

    def memory_bytes(self) -> int | None:
        """Kernel memory; before 6.4 the kernel says 0 of a ring buffer, then it is the ring's data."""
        found = re.search(r"^memlock:\s*([0-9]+)", read_small(f"/proc/self/fdinfo/{self.fd}"), re.MULTILINE)
        if found and self.type == "ringbuf":
            return int(found.group(1)) or self.max_entries
        return int(found.group(1)) if found else None

    def describe(self) -> dict[str, Any]:
        """Its entry in status.json."""
        return {
            "name": self.name, "id": self.id, "type": self.type, "max_entries": self.max_entries,
            "entries": self.entries(), "memory_bytes": self.memory_bytes(),
        }  # fmt: skip


def describe_program(name: str, fd: int, with_stats: bool) -> dict[str, Any]:
    """A program's entry in status.json; what the kernel does not count is null."""
    info = info_by_fd(fd)
    _kind, number = struct.unpack_from("=II", info)
    run_time_ns, runs = struct.unpack_from("=QQ", info, 192)
    return {
        "name": name,
        "id": number,
        "tag": info[8:16].hex(),
        "run_cnt": runs if with_stats else None,
        "run_time_ns": run_time_ns if with_stats else None,
        "verified_insns": struct.unpack_from("=I", info, 216)[0] or None,
    }


def link_id(fd: int) -> int | None:
    """The id of a link; None for a perf event, or before 5.8."""
    try:
        return int(struct.unpack_from("=II", info_by_fd(fd))[1])
    except OSError:
        return None
