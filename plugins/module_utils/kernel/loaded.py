# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What BPF is loaded on this host, by whomever, and what it costs.

Bounded: after LISTED objects of a kind or BUDGET_NS in all, what is left is only counted or
not looked at, and the evidence says so. Needs CAP_SYS_ADMIN; without it the lists are None.
"""

from __future__ import annotations

import errno
import os
import struct
import time
from typing import Any, Callable, NamedTuple

from ansible_collections.ebpf.fleet.plugins.module_utils.base.answers import errno_name
from ansible_collections.ebpf.fleet.plugins.module_utils.kernel import bpfsys
from ansible_collections.ebpf.fleet.plugins.module_utils.kernel.bpfnames import (
    LINK_TYPES,
    MAP_TYPES,
    PROGRAM_TYPES,
    name_of,
)

LISTED = 512
BUDGET_NS = 500_000_000
_MAP_IDS = 64

# Offsets in struct bpf_prog_info.
_NR_MAP_IDS, _RUN_TIME_NS = 52, 192

Reader = Callable[[int], "dict[str, Any]"]


class Listing(NamedTuple):
    """One kind of object: what was listed (None: not permitted), and what is to be said of it."""

    found: list[dict[str, Any]] | None
    remark: str


def read_loaded(stats_on: bool) -> dict[str, Any]:
    """Programs, maps and links of everybody; `stats_on`: does the kernel count run time for all?"""
    end = time.monotonic_ns() + BUDGET_NS
    programs = list_objects(
        "program", bpfsys.PROG_GET_NEXT_ID, bpfsys.PROG_GET_FD_BY_ID, lambda fd: read_program(fd, stats_on), end
    )
    maps = list_objects("map", bpfsys.MAP_GET_NEXT_ID, bpfsys.MAP_GET_FD_BY_ID, read_map, end)
    links = list_objects("link", bpfsys.LINK_GET_NEXT_ID, bpfsys.LINK_GET_FD_BY_ID, _link, end)
    return {
        "programs": programs.found,
        "maps": maps.found,
        "links": links.found,
        "evidence": "; ".join((programs.remark, maps.remark, links.remark)),
    }


def own_programs(loaded: dict[str, Any]) -> dict[str, Any]:
    """Programs of ours; from what was listed where that is all, else listed by themselves."""
    programs = loaded["programs"]
    if programs is None:
        return {"programs": None, "evidence": loaded["evidence"]}
    if len(programs) < LISTED and "stopped" not in loaded["evidence"]:
        found = [{key: one[key] for key in ("id", "name", "tag", "type")} for one in programs if one["ours"]]
    else:
        found = [
            {"id": one.id, "name": one.name, "tag": one.tag, "type": name_of(PROGRAM_TYPES, one.type)}
            for one in bpfsys.own_programs()
        ]
    return {"programs": found, "evidence": "of all program ids, names that start with ef_"}


def list_objects(kind: str, next_id: int, by_id: int, read: Reader, end: int, limit: int | None = None) -> Listing:
    """All objects of a kind until the clock's `end` (ns, monotonic); at most `limit`, or LISTED, are read."""
    most = LISTED if limit is None else limit
    found: list[dict[str, Any]] = []
    seen = refused = 0
    try:
        for number in bpfsys.object_ids(next_id):
            seen += 1
            if time.monotonic_ns() > end:
                return Listing(found, f"{kind}s: stopped after {seen - 1} for want of time")
            if len(found) >= most:
                continue
            one = _read(by_id, number, read)
            if one is None:
                refused += 1
            else:
                found.append(one)
    except OSError as error:
        return Listing(None, f"{kind}s: {errno_name(error.errno)} from BPF_*_GET_NEXT_ID")
    except bpfsys.UnsupportedMachineError as error:
        return Listing(None, str(error))
    more = f", {seen - len(found) - refused} more are not listed" if seen - refused > len(found) else ""
    kept = f", {refused} could not be opened" if refused else ""
    return Listing(found, f"{kind}s: {len(found)} listed{more}{kept}")


def _read(by_id: int, number: int, read: Reader) -> dict[str, Any] | None:
    """One object, or None where it has gone or is kept from us."""
    try:
        fd = bpfsys.bpf(by_id, struct.pack("=I", number))
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EPERM, errno.EACCES, errno.EAGAIN):
            return None
        raise
    try:
        return read(fd)
    finally:
        os.close(fd)


def run_statistics(info: bytes) -> tuple[int, int]:
    """(run time in ns, number of runs) out of struct bpf_prog_info; zero also where the kernel does not count."""
    run_time, run_count = struct.unpack_from("=QQ", info, _RUN_TIME_NS)
    return run_time, run_count


def program_type_name(number: int) -> str:
    """The kernel's number of a program type as a name."""
    return name_of(PROGRAM_TYPES, number)


def read_program(fd: int, stats_on: bool) -> dict[str, Any]:
    """A program, its maps' ids, its cost where that is counted, and the memory that the kernel accounts to it."""
    ids = bpfsys.id_buffer(_MAP_IDS)
    info = bpfsys.object_info(fd, bpfsys.map_ids_request(ids))
    one = bpfsys.program_from(info)
    run_time, run_count = run_statistics(info)
    # Zero may mean that nothing counts; only with statistics on is it a measured zero.
    measured = stats_on or run_count > 0
    count = min(struct.unpack_from("=I", info, _NR_MAP_IDS)[0], _MAP_IDS)
    return {
        "id": one.id,
        "name": one.name,
        "tag": one.tag,
        "type": name_of(PROGRAM_TYPES, one.type),
        "ours": one.name.startswith(bpfsys.OWN_PREFIX),
        "run_time_ns": run_time if measured else None,
        "run_cnt": run_count if measured else None,
        "memory_bytes": memory_of(fd),
        "map_ids": list(ids[:count]),
    }


def read_map(fd: int) -> dict[str, Any]:
    """A map, and the memory that the kernel accounts to it."""
    info = bpfsys.object_info(fd)
    kind, number, _key, _value, entries = struct.unpack_from("=IIIII", info)
    return {
        "id": number,
        "name": info[24:40].split(b"\0")[0].decode("ascii", "replace"),
        "type": name_of(MAP_TYPES, kind),
        "max_entries": entries,
        "memory_bytes": memory_of(fd),
    }


def _link(fd: int) -> dict[str, Any]:
    kind, number, program = struct.unpack_from("=III", bpfsys.object_info(fd))
    return {"id": number, "type": name_of(LINK_TYPES, kind), "program_id": program}


def memory_of(fd: int) -> int | None:
    """Bytes that the kernel accounts to the object: `memlock` in its fdinfo."""
    try:
        with open(f"/proc/self/fdinfo/{fd}", encoding="ascii", errors="replace") as file:
            text = file.read()
    except OSError:
        return None
    value = text.partition("memlock:")[2].split("\n", 1)[0].strip()
    return int(value) if value.isdigit() else None
