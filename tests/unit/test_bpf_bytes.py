# SPDX-License-Identifier: GPL-3.0-or-later
"""What the kernel and the compiler write as bytes: a program's info, the sections of an object, each field by value."""

from __future__ import annotations

import struct
from typing import Sequence

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.kernel import bpfobject, bpfsys
from ansible_collections.ebpf.fleet.plugins.module_utils.kernel.bpfnames import HELPERS

RELOCATIONS = struct.pack("<HBBI6I", 0xEB9F, 1, 0, 32, 0, 0, 0, 0, 0, 16)


def elf(sections: Sequence[tuple[str, bytes, int, int]]) -> bytes:
    """An object of these sections (name, bytes, kind, flags) with the names' table last; its headers are at its end."""
    every = [("", b"", 0, 0), *sections, (".shstrtab", b"", 3, 0)]
    names = b"\0".join(name.encode() for name, *_rest in every) + b"\0"
    headers, content, at = [], b"", 64
    for name, data, kind, flags in every:
        data = names if name == ".shstrtab" else data
        place = names.index(name.encode() + b"\0")
        headers.append(struct.pack("<IIQQQQIIQQ", place, kind, flags, 0, at, len(data), 0, 0, 1, 0))
        content, at = content + data, at + len(data)
    head = b"\x7fELF\x02\x01\x01" + bytes(33) + struct.pack("<Q", at) + bytes(10)
    return head + struct.pack("<HHH", 64, len(every), len(every) - 1) + content + b"".join(headers)


CALL, PSEUDO_CALL = 0x85, 1 << 4


def code(*called: str, registers: int = 0) -> bytes:
    return b"".join(struct.pack("<BBhi", CALL, registers, 0, HELPERS.index(name)) for name in called)


def test_a_program_by_each_field_of_its_info() -> None:
    info = struct.pack("=II", 6, 77) + bytes(range(1, 9)) + b"\xaa" * 48 + b"ef_exec\0rubbish!" + b"\xbb" * 100
    assert bpfsys.program_from(info) == bpfsys.Program(77, 6, "ef_exec", "0102030405060708")
    assert bpfsys.program_from(info[:64] + b"n" * 16 + info[80:]).name == "n" * 16


def test_the_sections_of_an_object_by_name_and_bytes() -> None:
    data = elf([("one", b"1", 1, 0), ("?two", b"22", 1, 0), ("?", b"", 1, 0), ("none", b"not there", 8, 0)])
    found = dict(bpfobject.sections(data))
    assert (found["one"], found["?two"], found["none"]) == (b"1", b"22", b"")
    assert bpfobject.optional_sections(data) == ["?two", "?"]
    assert bpfobject.optional_sections(elf([("one", b"1", 1, 0)])) == []


@pytest.mark.parametrize(
    "damaged",
    [
        lambda data: data[:-1],
        lambda data: data[:40] + struct.pack("<Q", len(data)) + data[48:],
        lambda data: data[:58] + struct.pack("<H", 63) + data[60:],
        lambda data: data[:62] + struct.pack("<H", 3) + data[64:],
        lambda data: data[:60] + struct.pack("<H", 4) + data[62:],
    ],
)
def test_a_damaged_section_table_is_told(damaged: object) -> None:
    data = elf([("one", b"1", 1, 0)])
    assert len(list(bpfobject.sections(data))) == 3
    assert callable(damaged)
    with pytest.raises(ValueError, match="has a damaged section table"):
        list(bpfobject.sections(damaged(data)))


@pytest.mark.parametrize("data", [b"", b"\x7fELF\x02\x01" + bytes(57), b"\x7fELF\x01\x01" + bytes(100),
                                  b"\x7fELF\x02\x02" + bytes(100)])  # fmt: skip
def test_what_is_no_such_object_is_told(data: bytes) -> None:
    with pytest.raises(ValueError, match="is not a 64-bit little-endian ELF file"):
        list(bpfobject.sections(data))


@pytest.mark.parametrize(
    ("extension", "relocated"),
    [
        (RELOCATIONS, True),
        (RELOCATIONS + b"more", True),
        (RELOCATIONS[:-1], False),
        (RELOCATIONS[:-4] + bytes(4), False),
        (b"\x9e" + RELOCATIONS[1:], False),
        (struct.pack("<HBBI6I", 0xEB9F, 1, 0, 31, 0, 0, 0, 0, 0, 16), False),
    ],
)
def test_relocations_are_there_when_the_header_is_whole_and_says_so(extension: bytes, relocated: bool) -> None:
    assert bpfobject.has_core_relocations(elf([(".BTF.ext", extension, 1, 0)])) is relocated
    assert not bpfobject.has_core_relocations(elf([("other", extension, 1, 0)]))


def test_only_code_that_calls_a_reader_reads_the_kernel() -> None:
    reader = next(name for name in HELPERS if name == "probe_read_kernel")
    for flags, content, reads in (
        (4, code("map_lookup_elem", reader), True),
        (4, code("map_lookup_elem"), False),
        (0, code(reader), False),
        (4, code(reader, registers=PSEUDO_CALL), False),
        (4, code(reader)[:7], False),
        (4, code(reader) + b"rest", True),
    ):
        assert bpfobject.reads_kernel(elf([("code", content, 1, flags)])) is reads, (flags, content)
