# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Records: their layout, and the ring buffer that they come through."""

from __future__ import annotations

import mmap
import re
import struct
import sys
from typing import Any, Iterator, NamedTuple

from ansible_collections.ebpf.fleet.collectors.fleet_bcc.basics import CannotRunError

TYPE_SIZES = {
    "char": (1, "int"), "s8": (1, "int"), "signed char": (1, "int"), "u8": (1, "uint"), "unsigned char": (1, "uint"),
    "bool": (1, "uint"), "_Bool": (1, "uint"), "short": (2, "int"), "s16": (2, "int"), "u16": (2, "uint"),
    "unsigned short": (2, "uint"), "int": (4, "int"), "s32": (4, "int"), "u32": (4, "uint"),
    "unsigned int": (4, "uint"), "long": (8, "int"), "s64": (8, "int"), "long long": (8, "int"),
    "u64": (8, "uint"), "unsigned long": (8, "uint"), "unsigned long long": (8, "uint"),
}  # fmt: skip


class Field(NamedTuple):
    """One field of a record; kind is uint, int, chars or bytes."""

    name: str
    kind: str
    offset: int
    size: int

    def read(self, record: bytes) -> Any:
        """Its value as JSON has it."""
        raw = record[self.offset : self.offset + self.size]
        if self.kind == "chars":
            return raw.split(b"\0")[0].decode("utf-8", "replace")
        if self.kind == "bytes":
            return raw.hex()
        return int.from_bytes(raw, sys.byteorder, signed=self.kind == "int")


def lay_out(declared: list[str]) -> list[Field]:
    """The fields of a record from BCC's `name#type`; raises CannotRunError for a type that is not known."""
    fields, offset = [], 0
    for text in declared:
        name, _hash, kind = text.partition("#")
        found = re.fullmatch(r"(.+?) ?(?:\[([0-9]+)\])?", kind)
        size, plain = TYPE_SIZES.get(found.group(1) if found else "", (0, ""))
        if not found or not size:
            raise CannotRunError("EF_LOAD_REJECTED", f"field {name} of the event has a type that is not known: {kind}")
        count = int(found.group(2) or 1)
        shown = plain if not found.group(2) else "chars" if found.group(1) == "char" else "bytes"
        offset = (offset + size - 1) // size * size
        fields.append(Field(name, shown, offset, size * count))
        offset += size * count
    return fields


class Ring:
    """The reader's side of a ring buffer. Owns its pages, not the map.

    A ring buffer and not perf's: that asks for CAP_SYS_ADMIN where kernel.perf_event_paranoid is 3.
    """

    HEADER_BYTES = 8
    BUSY, DISCARDED = 1 << 31, 1 << 30

    def __init__(self, fd: int, size: int) -> None:
        page = mmap.PAGESIZE
        self.size = size
        self.consumer = mmap.mmap(fd, page)
        try:
            # The kernel maps the data twice, one behind the other, so no record is ever cut in two.
            self.producer = mmap.mmap(fd, page + 2 * size, prot=mmap.PROT_READ, offset=page)
        except OSError:
            self.consumer.close()
            raise

    def _positions(self) -> tuple[int, int]:
        """What the kernel has written and what we have read, in bytes since the start."""
        read = struct.unpack_from("=Q", self.consumer)[0]
        return struct.unpack_from("=Q", self.producer)[0], read

    @property
    def lag_bytes(self) -> int:
        written, read = self._positions()
        return int(written - read)

    def records(self, limit: int) -> Iterator[bytes]:
        """At most `limit` records; each is given back to the kernel when the next is asked for."""
        written, read = self._positions()
        while read < written and limit > 0:
            at = mmap.PAGESIZE + read % self.size
            length = struct.unpack_from("=I", self.producer, at)[0]
            if length & self.BUSY:
                return  # its producer has not finished; neither have those behind it
            size = length & ~self.DISCARDED
            if not length & self.DISCARDED:
                yield self.producer[at + self.HEADER_BYTES : at + self.HEADER_BYTES + size]
            read += (size + self.HEADER_BYTES + 7) // 8 * 8
            limit -= 1
            struct.pack_into("=Q", self.consumer, 0, read)

    def close(self) -> None:
        self.consumer.close()
        self.producer.close()
