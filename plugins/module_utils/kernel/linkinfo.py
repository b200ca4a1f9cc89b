# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the kernel says of one BPF link: its hook and what it is attached to (struct bpf_link_info)."""

from __future__ import annotations

import ctypes
import struct
from typing import Any, Callable, Mapping

from ansible_collections.ebpf.fleet.plugins.module_utils.kernel import bpfsys
from ansible_collections.ebpf.fleet.plugins.module_utils.kernel.bpfnames import ATTACH_TYPES, LINK_TYPES, name_of

_TEXT_BYTES = 4096
# Where a link's text goes: offsets of its address and its length in bpf_link_info.
_TEXT_AT = {
    "raw_tracepoint": (16, 24),
    "iter": (16, 24),
    "perf_event": (24, 32),
    "uprobe_multi": (16, 48),
}
# enum bpf_perf_event_type
_PERF_KINDS = ("", "uprobe", "uretprobe", "kprobe", "kretprobe", "tracepoint", "perf_event")
# The hook of a tracing link by what its program was loaded for.
TRACING_HOOKS = {
    "trace_raw_tp": "tp_btf",
    "trace_fentry": "fentry",
    "trace_fexit": "fexit",
    "modify_return": "fmod_ret",
    "lsm_mac": "lsm",
    "trace_iter": "iter",
}


def read_link(fd: int) -> dict[str, Any]:
    """Id, type and program of a link, and by its type: hook, target, mode, ifindex, cgroup_id, netns, btf.

    `attached` is false where what it was attached to has gone, null where the kernel does not say.
    """
    info = bpfsys.object_info(fd)
    kind, number, program = struct.unpack_from("=III", info)
    name = name_of(LINK_TYPES, kind)
    text = ""
    if name in _TEXT_AT:
        info, text = _with_text(fd, *_TEXT_AT[name])
    known: dict[str, Any] = {"hook": name, "target": None, "mode": None, "attached": None}
    known.update(_READERS[name](info, text) if name in _READERS else {})
    return {"id": number, "type": name, "program_id": program, **known}


def _with_text(fd: int, address_at: int, length_at: int) -> tuple[bytes, str]:
    text = ctypes.create_string_buffer(_TEXT_BYTES)
    given = bytearray(bpfsys.INFO_BYTES)
    struct.pack_into("=Q", given, address_at, ctypes.addressof(text))
    struct.pack_into("=I", given, length_at, _TEXT_BYTES)
    info = bpfsys.object_info(fd, bytes(given[:-1]))
    return info, text.value.decode("utf-8", "replace")


def _word(info: bytes, at: int) -> int:
    return int(struct.unpack_from("=I", info, at)[0])


def _long(info: bytes, at: int) -> int:
    return int(struct.unpack_from("=Q", info, at)[0])


def _raw_tracepoint(_info: bytes, text: str) -> dict[str, Any]:
    return {"hook": "raw_tp", "target": text or None, "attached": True}


def _tracing(info: bytes, _text: str) -> dict[str, Any]:
    kind = name_of(ATTACH_TYPES, _word(info, 16))
    btf = (_word(info, 20), _word(info, 24))
    return {"hook": TRACING_HOOKS.get(kind, "freplace"), "btf": btf if btf[1] else None, "attached": True}


def _cgroup(info: bytes, _text: str) -> dict[str, Any]:
    cgroup = _long(info, 16)
    return {"hook": name_of(ATTACH_TYPES, _word(info, 24)), "cgroup_id": cgroup, "attached": cgroup != 0}


def _iter(_info: bytes, text: str) -> dict[str, Any]:
    return {"hook": "iter", "target": text or None, "attached": True}


def _netns(info: bytes, _text: str) -> dict[str, Any]:
    netns = _word(info, 16)
    return {"hook": name_of(ATTACH_TYPES, _word(info, 20)), "netns": netns, "attached": netns != 0}


def _xdp(info: bytes, _text: str) -> dict[str, Any]:
    ifindex = _word(info, 16)
    return {"hook": "xdp", "ifindex": ifindex, "attached": ifindex != 0}


def _interface(info: bytes, _text: str) -> dict[str, Any]:
    ifindex = _word(info, 16)
    return {"hook": name_of(ATTACH_TYPES, _word(info, 20)), "ifindex": ifindex, "attached": ifindex != 0}


def _perf_event(info: bytes, text: str) -> dict[str, Any]:
    number = _word(info, 16)
    kind = _PERF_KINDS[number] if number < len(_PERF_KINDS) else ""
    if not kind:
        # Kernels before 6.6 do not say.
        return {"hook": "perf_event", "attached": True}
    if kind == "perf_event":
        return {"hook": kind, "target": f"type {_word(info, 32)} config {_long(info, 24)}", "attached": True}
    target = text or None
    if kind.endswith(("kprobe", "uprobe")) or kind == "uretprobe" or kind == "kretprobe":
        target = with_offset(text, _word(info, 36), kind.startswith("u"))
    return {"hook": kind, "target": target, "attached": True}


def with_offset(name: str, offset: int, always: bool = False) -> str | None:
    """`name+0x10` of a probe; the begin of a function is its name alone."""
    if not name:
        return None
    return f"{name}+0x{offset:x}" if offset or always else name


def _kprobe_multi(info: bytes, _text: str) -> dict[str, Any]:
    hook = "kretprobe_multi" if _word(info, 28) & 1 else "kprobe_multi"
    return {"hook": hook, "mode": f"{_word(info, 24)} functions", "attached": True}


def _uprobe_multi(info: bytes, text: str) -> dict[str, Any]:
    hook = "uretprobe_multi" if _word(info, 56) & 1 else "uprobe_multi"
    return {"hook": hook, "target": text or None, "mode": f"{_word(info, 52)} places", "attached": True}


def _struct_ops(info: bytes, _text: str) -> dict[str, Any]:
    return {"hook": "struct_ops", "map_id": _word(info, 16), "attached": True}


def _netfilter(info: bytes, _text: str) -> dict[str, Any]:
    family, hook, priority = struct.unpack_from("=IIi", info, 16)
    # enum nf_inet_hooks; 2 is NFPROTO_IPV4, 10 NFPROTO_IPV6
    names = ("prerouting", "input", "forward", "output", "postrouting")
    where = names[hook] if hook < len(names) else f"hook {hook}"
    kind = {2: "ipv4", 10: "ipv6"}.get(family, f"family {family}")
    return {"hook": "netfilter", "target": f"{kind} {where}", "mode": f"priority {priority}", "attached": True}


def _sockmap(info: bytes, _text: str) -> dict[str, Any]:
    number = _word(info, 16)
    return {"hook": name_of(ATTACH_TYPES, _word(info, 20)), "map_id": number, "attached": number != 0}


_READERS: Mapping[str, Callable[[bytes, str], dict[str, Any]]] = {
    "raw_tracepoint": _raw_tracepoint,
    "tracing": _tracing,
    "cgroup": _cgroup,
    "iter": _iter,
    "netns": _netns,
    "xdp": _xdp,
    "perf_event": _perf_event,
    "kprobe_multi": _kprobe_multi,
    "struct_ops": _struct_ops,
    "netfilter": _netfilter,
    "tcx": _interface,
    "uprobe_multi": _uprobe_multi,
    "netkit": _interface,
    "sockmap": _sockmap,
}
