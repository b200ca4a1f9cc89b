# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a compiled BPF object asks of BTF, read from its bytes. Pure."""

from __future__ import annotations

import struct
from typing import Iterator

from ansible_collections.ebpf.fleet.plugins.module_utils.kernel.bpfnames import HELPERS, KERNEL_READERS

BTF_MAGIC = 0xEB9F
ELF_64_LITTLE = b"\x7fELF\x02\x01"
SECTION_HEADER = struct.Struct("<IIQQQQIIQQ")
INSTRUCTION = struct.Struct("<BBhi")
EXECUTABLE = 4  # SHF_EXECINSTR
CALL = 0x85  # BPF_JMP | BPF_CALL; a helper's where the source register is 0
READS_KERNEL = frozenset(HELPERS.index(name) for name in KERNEL_READERS)
# magic, version, flags, hdr_len, func_info off and len, line_info off and len, core_relo off and len
EXT_HEADER = struct.Struct("<HBBI6I")


def has_core_relocations(data: bytes) -> bool:
    """Whether libbpf needs the kernel's or a given BTF to load it.

    Raises ValueError for anything but a 64-bit little-endian ELF file.
    """
    for name, content in sections(data):
        if name == ".BTF.ext" and len(content) >= EXT_HEADER.size:
            fields = EXT_HEADER.unpack_from(content)
            # A header of a compiler that knew no relocations is shorter.
            return bool(fields[0] == BTF_MAGIC and fields[3] >= EXT_HEADER.size and fields[9])
    return False


def optional_sections(data: bytes) -> list[str]:
    """The sections whose programs libbpf loads only when it is told to; their names begin with '?'."""
    return [name for name, _content in sections(data) if name.startswith("?")]


def reads_kernel(data: bytes) -> bool:
    """Whether a program calls a helper that reads the kernel's memory, all of BPF_CORE_READ among them."""
    codes = (code for flags, code in _programs(data) if flags & EXECUTABLE)
    return any(insn in READS_KERNEL for code in codes for insn in _called(code))


def _programs(data: bytes) -> Iterator[tuple[int, bytes]]:
    for header in _headers(data):
        yield header[2], _content(data, header)


def _called(code: bytes) -> Iterator[int]:
    """The ids of the helpers called; an instruction has 8 bytes: code, registers, offset, immediate."""
    for op, registers, _offset, immediate in INSTRUCTION.iter_unpack(code[: len(code) // 8 * 8]):
        if op == CALL and registers >> 4 == 0:
            yield immediate


def _headers(data: bytes) -> list[tuple[int, ...]]:
    """The section headers; raises ValueError where it is not such an ELF file."""
    if data[:6] != ELF_64_LITTLE or len(data) < 64:
        raise ValueError("is not a 64-bit little-endian ELF file")
    (start,) = struct.unpack_from("<Q", data, 40)
    size, count, names_index = struct.unpack_from("<HHH", data, 58)
    if size != SECTION_HEADER.size or start + size * count > len(data) or names_index >= count:
        raise ValueError("has a damaged section table")
    return [SECTION_HEADER.unpack_from(data, start + size * index) for index in range(count)]


def sections(data: bytes) -> Iterator[tuple[str, bytes]]:
    """The sections of an object, name and content; raises ValueError where it is not such an ELF file."""
    headers = _headers(data)
    (names_index,) = struct.unpack_from("<H", data, 62)
    names = _content(data, headers[names_index])
    for header in headers:
        yield names[header[0] :].split(b"\0", 1)[0].decode("ascii", "replace"), _content(data, header)


def _content(data: bytes, header: tuple[int, ...]) -> bytes:
    """The bytes of a section; one without bytes in the file (NOBITS) is empty."""
    kind, offset, size = header[1], header[4], header[5]
    return b"" if kind == 8 else data[offset : offset + size]
