# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask this host's kernel for every BPF program, link, map and pin, and for what they are attached to."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import struct
import time
from pathlib import Path
from typing import Any, NamedTuple

from ansible_collections.ebpf.fleet.plugins.module_utils.base.answers import Answer, answered, errno_name
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.kernel import (
    bpfholders,
    bpfpins,
    bpfqueries,
    bpfsys,
    btf,
    cgroupattach,
    hostfiles,
    linkinfo,
    loaded,
    netattach,
    netns,
)
from ansible_collections.ebpf.fleet.plugins.module_utils.kernel.bpfnames import ATTACH_TYPES

# What is beyond these is counted, and told as unknown.
PROGRAMS, MAPS, LINKS, PINS, CGROUPS, NAMESPACES = 2048, 2048, 1024, 1024, 20_000, 256
TAIL_CALLS = 1024
BUDGET_NS = 30_000_000_000

# Offsets in struct bpf_prog_info.
_JITED_LEN, _LOAD_TIME, _UID = 16, 40, 48
_MAP_LOOKUP_ELEM = 1
_SOCKMAP_HOOKS = ("sk_skb_stream_parser", "sk_skb_stream_verdict", "sk_msg_verdict", "sk_skb_verdict")
_NETNS_HOOKS = ("flow_dissector", "sk_lookup")


class Namespace(NamedTuple):
    """A network namespace and what hangs on its interfaces; None where it could not be asked."""

    place: netns.Namespace
    found: netattach.OfNamespace | None


class Raw(NamedTuple):
    """All that the kernel said, before it is put together by `host.assemble`."""

    kernel: str
    boot_id: str | None
    time_unix_ns: int
    booted_unix_ns: int
    privileged: bool
    stats: Answer
    programs: loaded.Listing
    maps: loaded.Listing
    links: loaded.Listing
    held: bpfholders.Held
    pins: bpfpins.Pins
    namespaces: list[Namespace]
    cgroups: cgroupattach.OfCgroups
    by_map: list[dict[str, Any]]
    btf_names: dict[tuple[int, int], str]
    users: dict[int, str]
    unknown: list[str]


def ask(root: Path = Path("/")) -> Raw:
    """Ask everything; what is refused is told, and never an error."""
    end = time.monotonic_ns() + BUDGET_NS
    unknown: list[str] = []
    # First of all, so that no descriptor of this very process is told as a holder.
    held = bpfholders.ask_processes(root, end)
    stats = _stats(root, held)
    programs = loaded.list_objects(
        "program", bpfsys.PROG_GET_NEXT_ID, bpfsys.PROG_GET_FD_BY_ID,
        lambda fd: _program(fd, stats["answer"]), end, PROGRAMS,
    )  # fmt: skip
    maps = loaded.list_objects("map", bpfsys.MAP_GET_NEXT_ID, bpfsys.MAP_GET_FD_BY_ID, _map, end, MAPS)
    links = loaded.list_objects(
        "link", bpfsys.LINK_GET_NEXT_ID, bpfsys.LINK_GET_FD_BY_ID, linkinfo.read_link, end, LINKS
    )
    wanted = {tuple(one["btf"]) for one in links.found or [] if one.get("btf")}
    now, since_boot = time.time_ns(), time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    return Raw(
        platform.release(), _boot_id(root), now, now - since_boot, programs.found is not None, stats,
        programs, maps, links, held, bpfpins.read_pins(root, PINS, end), _namespaces(root, end, unknown),
        cgroupattach.ask_cgroups(root, CGROUPS, end), list(_by_map(maps.found or [], unknown)),
        _btf_names(wanted, unknown), _users(root), unknown,
    )  # fmt: skip


def _boot_id(root: Path) -> str | None:
    text = hostfiles.read_text(root / "proc/sys/kernel/random/boot_id")
    return text.strip() if text is not None else None


def _stats(root: Path, held: bpfholders.Held) -> Answer:
    value = hostfiles.read_int(root / "proc/sys/kernel/bpf_stats_enabled")
    if value == 1:
        return answered("yes", "kernel.bpf_stats_enabled is 1")
    if held.counts_run_time:
        return answered("yes", "a process holds BPF_ENABLE_STATS; it counts since that began")
    if value is None:
        return answered("unknown", "kernel.bpf_stats_enabled cannot be read")
    if held.unknown:
        return answered("unknown", f"kernel.bpf_stats_enabled is {value}; not every process could be asked")
    return answered("no", f"kernel.bpf_stats_enabled is {value}, and no process holds BPF_ENABLE_STATS")


def _program(fd: int, counts: str) -> dict[str, Any]:
    found = loaded.read_program(fd, counts == "yes")
    if counts == "no":
        # What was counted while somebody counted is not what it costs.
        found = {**found, "run_time_ns": None, "run_cnt": None}
    info = bpfsys.object_info(fd)
    jited, uid = struct.unpack_from("=I", info, _JITED_LEN)[0], struct.unpack_from("=I", info, _UID)[0]
    load_time = struct.unpack_from("=Q", info, _LOAD_TIME)[0]
    return {**found, "uid": uid, "load_time_ns": load_time or None, "jited": jited > 0}


def _map(fd: int) -> dict[str, Any]:
    info = bpfsys.object_info(fd)
    key_bytes, value_bytes = struct.unpack_from("=II", info, 8)
    return {**loaded.read_map(fd), "key_bytes": key_bytes, "value_bytes": value_bytes}


def _namespaces(root: Path, end: int, unknown: list[str]) -> list[Namespace]:
    places, more = netns.namespaces(root, NAMESPACES)
    if more:
        unknown.append(f"network namespaces: {more} more were not asked")
    found: list[Namespace] = []
    for place in places:
        if time.monotonic_ns() > end:
            unknown.append(f"network namespaces: stopped after {len(found)} for want of time")
            break
        try:
            found.append(Namespace(place, _in_namespace(place)))
        except OSError as error:
            unknown.append(f"network namespace {place.name or place.inode}: {errno_name(error.errno)}")
            found.append(Namespace(place, None))
    return found


def _in_namespace(place: netns.Namespace) -> netattach.OfNamespace:
    own = place.inode == netns.own_inode()
    found = netattach.ask_interfaces() if own else netns.inside(place, netattach.ask_interfaces)
    with open(place.path, "rb") as file:
        for hook in _NETNS_HOOKS:
            # Kernels before 4.20 and 5.9 do not have the hook.
            with contextlib.suppress(OSError):
                for program in bpfqueries.at_hook(ATTACH_TYPES.index(hook), file.fileno()).programs:
                    found.attachments.append(
                        {"program_id": program, "hook": hook, "target": None, "mode": None, "link_id": None,
                         "source": "query"}
                    )  # fmt: skip
    return found


def _by_map(maps: list[dict[str, Any]], unknown: list[str]) -> list[dict[str, Any]]:
    """Programs that a map runs: on its sockets, or by a tail call."""
    found: list[dict[str, Any]] = []
    for one in maps:
        if one["type"] not in ("prog_array", "sockmap", "sockhash"):
            continue
        try:
            fd = bpfsys.bpf(bpfsys.MAP_GET_FD_BY_ID, struct.pack("=I", one["id"]))
        except OSError as error:
            unknown.append(f"programs in map {one['id']}: {errno_name(error.errno)}")
            continue
        try:
            pairs = _tail_calls(fd, one, unknown) if one["type"] == "prog_array" else _sockmap(fd)
        finally:
            os.close(fd)
        target = f"map {one['name'] or one['id']}"
        found += [
            {"program_id": program, "hook": hook, "target": target, "mode": None, "link_id": None, "map_id": one["id"],
             "source": "map"}
            for hook, program in pairs
        ]  # fmt: skip
    return found


def _sockmap(fd: int) -> list[tuple[str, int]]:
    pairs = []
    for hook in _SOCKMAP_HOOKS:
        # Kernels before 5.18 do not tell.
        with contextlib.suppress(OSError):
            pairs += [(hook, program) for program in bpfqueries.at_hook(ATTACH_TYPES.index(hook), fd).programs]
    return pairs


def _tail_calls(fd: int, one: dict[str, Any], unknown: list[str]) -> list[tuple[str, int]]:
    if one["max_entries"] > TAIL_CALLS:
        unknown.append(f"programs in map {one['id']}: only the first {TAIL_CALLS} of {one['max_entries']} were read")
    key, value = ctypes.c_uint32(), ctypes.c_uint32()
    attr = struct.pack("=IIQQQ", fd, 0, ctypes.addressof(key), ctypes.addressof(value), 0)
    programs = set()
    for index in range(min(one["max_entries"], TAIL_CALLS)):
        key.value = index
        with contextlib.suppress(FileNotFoundError):
            bpfsys.bpf(_MAP_LOOKUP_ELEM, attr)
            programs.add(value.value)
    return [("tail_call", program) for program in sorted(programs)]


def _btf_names(wanted: set[Any], unknown: list[str]) -> dict[tuple[int, int], str]:
    """Names of the functions and tracepoints that tracing links are at, by (id of the BTF, id of the type)."""
    names = {}
    for number in sorted({number for number, _type in wanted}):
        types = [kind for of, kind in wanted if of == number]
        try:
            found = bpfqueries.btf_object(number)
            # Only the kernel's own begins with its empty string; a module's builds on it.
            module = found.of_kernel and found.name != "vmlinux"
            base = Path("/sys/kernel/btf/vmlinux").read_bytes() if module else b""
            names.update({(number, kind): name for kind, name in btf.type_names(found.blob, types, base).items()})
        except (OSError, FleetError) as error:
            words = errno_name(error.errno) if isinstance(error, OSError) else error.message
            unknown.append(f"names in BTF {number}: {words}")
    return names


def _users(root: Path) -> dict[int, str]:
    """Names of this host's own users; those of a directory are not asked for, which may hang."""
    lines = (hostfiles.read_text(root / "etc/passwd") or "").splitlines()
    fields = [line.split(":") for line in lines]
    return {int(one[2]): one[0] for one in reversed(fields) if len(one) > 2 and one[2].isascii() and one[2].isdigit()}
