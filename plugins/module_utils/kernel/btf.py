# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Find named types in a BTF blob.

Only what our questions need: the id of a typedef or a function by its name, and the names of some ids.
The search by name does one dictionary lookup per type, because emulated and small hosts read it too.
"""

from __future__ import annotations

import struct
from typing import Iterable, Iterator

from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import OneCodeError

MAGIC = 0xEB9F
FUNC = 12
TYPEDEF = 8

# Words behind the three of every type, by kind: (fixed, per member).
_EXTRA_WORDS = {
    1: (1, 0),  # int
    3: (3, 0),  # array
    4: (0, 3),  # struct
    5: (0, 3),  # union
    6: (0, 2),  # enum
    13: (0, 2),  # func_proto
    14: (1, 0),  # var
    15: (0, 3),  # datasec
    17: (1, 0),  # decl_tag
    19: (0, 3),  # enum64
}
_LAST_KNOWN_KIND = 19


class BtfError(OneCodeError):
    """The blob is not BTF that this parser can read to its end."""

    code = "EF_BTF_UNREADABLE"


def type_ids(blob: bytes, wanted: Iterable[tuple[int, str]]) -> dict[tuple[int, str], int]:
    """Ids of the wanted (kind, name) pairs that are there; the others are absent from the answer."""
    pairs = set(wanted)
    types, strings = _sections(blob)
    by_offset = _name_offsets(strings, {name for _kind, name in pairs})
    found: dict[tuple[int, str], int] = {}
    for number, kind, name_offset in _find(types, by_offset):
        key = (kind, by_offset[name_offset])
        if key in pairs:
            found.setdefault(key, number)
    return found


def type_names(blob: bytes, wanted: Iterable[int], base: bytes = b"") -> dict[int, str]:
    """Names of the types with these ids; what has no name is absent. `base`: what a module's BTF builds on."""
    ids = set(wanted)
    types, strings = _sections(blob, bool(base))
    first, before = 1, b""
    if base:
        base_types, before = _sections(base)
        first = 1 + sum(1 for _one in _each(base_types))
    every = before + strings
    named = ((first + at, offset) for at, offset in enumerate(_each(types)) if first + at in ids)
    texts = ((number, every[offset : every.find(b"\0", offset)]) for number, offset in named if offset < len(every))
    return {number: text.decode("ascii", "replace") for number, text in texts if text}


def _each(words: memoryview) -> Iterator[int]:
    """The name offset of each type in the order of their ids."""
    steps: dict[int, int] = {}
    position, end = 0, len(words)
    while position + 3 <= end:
        info = words[position + 1]
        if info not in steps:
            steps[info] = _step(info)
        yield words[position]
        position += steps[info]


def _sections(blob: bytes, split: bool = False) -> tuple[memoryview, bytes]:
    if len(blob) < 24 or struct.unpack_from("=H", blob)[0] != MAGIC:
        raise BtfError("no BTF header")
    header, type_at, type_len, string_at, string_len = struct.unpack_from("=IIIII", blob, 4)
    if header < 24 or type_at % 4 or type_at + type_len > string_at:
        raise BtfError("BTF header whose sections do not follow each other")
    types = blob[header + type_at : header + type_at + type_len]
    strings = blob[header + string_at : header + string_at + string_len]
    if len(types) != type_len or len(strings) != string_len or type_len % 4:
        raise BtfError("BTF is cut off")
    # A module's strings follow those of the kernel, so they do not begin with the empty one.
    if not (split or strings.startswith(b"\0")) or not strings.endswith(b"\0"):
        raise BtfError("BTF strings that do not begin and end with a zero")
    return memoryview(types).cast("I"), strings


def _name_offsets(strings: bytes, names: Iterable[str]) -> dict[int, str]:
    """Where each name stands; a kernel's BTF is deduplicated, so it stands there once."""
    offsets: dict[int, str] = {}
    for name in names:
        at = strings.find(b"\0" + name.encode("ascii") + b"\0")
        if at >= 0:
            offsets[at + 1] = name
    return offsets


def _find(words: memoryview, wanted: dict[int, str]) -> list[tuple[int, int, int]]:
    """(id, kind, name offset) of each type whose name offset is wanted."""
    found = []
    steps: dict[int, int] = {}
    position, number, end = 0, 1, len(words)
    while position < end:
        if position + 3 > end:
            raise BtfError("a BTF type that is cut off")
        info = words[position + 1]
        if words[position] in wanted:
            found.append((number, info >> 24 & 0x1F, words[position]))
        if info not in steps:
            steps[info] = _step(info)
        position += steps[info]
        number += 1
    if position != end:
        raise BtfError("a BTF type that is cut off")
    return found


def _step(info: int) -> int:
    kind = info >> 24 & 0x1F
    if kind == 0 or kind > _LAST_KNOWN_KIND:
        raise BtfError(f"BTF kind {kind} is not known here")
    fixed, per_member = _EXTRA_WORDS.get(kind, (0, 0))
    return 3 + fixed + per_member * (info & 0xFFFF)
