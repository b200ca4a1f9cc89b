# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""BPF programs at the interfaces of one network namespace: XDP, tc filters and actions, tcx, netkit."""

from __future__ import annotations

import errno
import socket
import struct
from typing import Any, Iterator, NamedTuple

from ansible_collections.ebpf.fleet.plugins.module_utils.base.answers import errno_name
from ansible_collections.ebpf.fleet.plugins.module_utils.kernel import bpfqueries, netlink
from ansible_collections.ebpf.fleet.plugins.module_utils.kernel.bpfnames import ATTACH_TYPES
from ansible_collections.ebpf.fleet.plugins.module_utils.kernel.netlink import attributes, number, text

_IFINFO = struct.Struct("=BBHiII")
_TCMSG = struct.Struct("=BBHiIII")
_SKIP_STATISTICS = 1 << 3  # RTEXT_FILTER_SKIP_STATS

# if_link.h
_IFLA_IFNAME, _IFLA_EXT_MASK, _IFLA_XDP = 3, 29, 43
# IFLA_XDP_DRV_PROG_ID, IFLA_XDP_SKB_PROG_ID, IFLA_XDP_HW_PROG_ID
_XDP_MODES = {5: "native", 6: "generic", 7: "offloaded"}
_XDP_ATTACHED, _XDP_PROGRAM = 2, 4
_XDP_BY_ATTACHED = {1: "native", 2: "generic", 3: "offloaded"}
# rtnetlink.h and pkt_cls.h
_TCA_KIND, _TCA_OPTIONS, _TCA_CHAIN, _TCA_INGRESS_BLOCK, _TCA_EGRESS_BLOCK = 1, 2, 11, 13, 14
_BPF_FLAGS, _BPF_ID, _DIRECT = 8, 11, 1
_ACT_KIND, _ACT_OPTIONS, _ACT_BPF_ID = 1, 2, 9
# Where a filter of a kind has its actions.
_ACTIONS_AT = {"bpf": 1, "matchall": 2, "flower": 3, "basic": 3, "u32": 7, "fw": 4, "cgroup": 1, "flow": 9, "route": 6}
_CLSACT_PARENT, _INGRESS, _EGRESS = 0xFFFF0000, 0xFFFFFFF2, 0xFFFFFFF3
_BLOCK = -1  # TCM_IFINDEX_MAGIC_BLOCK: the parent is a block's number
_QUERIED = ("tcx_ingress", "tcx_egress", "netkit_primary", "netkit_peer")


class Interface(NamedTuple):
    """An interface and its XDP programs as (mode, id)."""

    ifindex: int
    name: str
    xdp: list[tuple[str, int]]


class Qdisc(NamedTuple):
    """A queueing discipline; the blocks are numbers of filter blocks that it shares with others."""

    ifindex: int
    handle: int
    kind: str
    ingress_block: int | None
    egress_block: int | None


class TcProgram(NamedTuple):
    """A program of a filter: itself the filter, or one of its actions."""

    program_id: int
    mode: str
    direct: bool


class OfNamespace(NamedTuple):
    """What hangs on the interfaces of a namespace, their names, and what could not be asked."""

    attachments: list[dict[str, Any]]
    interfaces: dict[int, str]
    unknown: list[str]


def parse_interface(body: bytes) -> Interface | None:
    """An interface of a RTM_NEWLINK message."""
    if len(body) < _IFINFO.size:
        return None
    ifindex = _IFINFO.unpack_from(body)[3]
    found = attributes(body[_IFINFO.size :])
    return Interface(ifindex, text(found.get(_IFLA_IFNAME)) or f"ifindex {ifindex}", _xdp(found.get(_IFLA_XDP, b"")))


def _xdp(value: bytes) -> list[tuple[str, int]]:
    found = attributes(value)
    programs = [(mode, number(found[kind]) or 0) for kind, mode in _XDP_MODES.items() if kind in found]
    if not programs and number(found.get(_XDP_PROGRAM)):
        # Kernels before 5.0 have one id.
        mode = _XDP_BY_ATTACHED.get(number(found.get(_XDP_ATTACHED)) or 0, "unknown")
        programs = [(mode, number(found[_XDP_PROGRAM]) or 0)]
    return [one for one in programs if one[1]]


def parse_qdisc(body: bytes) -> Qdisc | None:
    """A queueing discipline of a RTM_NEWQDISC message."""
    if len(body) < _TCMSG.size:
        return None
    _family, _pad, _pad2, ifindex, handle, _parent, _info = _TCMSG.unpack_from(body)
    found = attributes(body[_TCMSG.size :])
    blocks = number(found.get(_TCA_INGRESS_BLOCK)), number(found.get(_TCA_EGRESS_BLOCK))
    return Qdisc(ifindex, handle, text(found.get(_TCA_KIND)) or "", *blocks)


def parse_filter(body: bytes) -> list[TcProgram]:
    """The programs of a filter of a RTM_NEWTFILTER message, in the order in which they run."""
    if len(body) < _TCMSG.size:
        return []
    info = _TCMSG.unpack_from(body)[6]
    found = attributes(body[_TCMSG.size :])
    kind, options = text(found.get(_TCA_KIND)) or "", attributes(found.get(_TCA_OPTIONS, b""))
    chain = number(found.get(_TCA_CHAIN)) or 0
    place = f"prio {info >> 16}" + (f" chain {chain}" if chain else "")
    programs = []
    if kind == "bpf" and number(options.get(_BPF_ID)):
        direct = bool((number(options.get(_BPF_FLAGS)) or 0) & _DIRECT)
        mode = f"{place} direct-action" if direct else place
        programs.append(TcProgram(number(options[_BPF_ID]) or 0, mode, direct))
    actions = attributes(options.get(_ACTIONS_AT.get(kind, 0), b""))
    for _order, action in sorted(actions.items()):
        one = attributes(action)
        program = number(attributes(one.get(_ACT_OPTIONS, b"")).get(_ACT_BPF_ID))
        if text(one.get(_ACT_KIND)) == "bpf" and program:
            programs.append(TcProgram(program, f"{place} action of {kind}", False))
    return programs


def ask_interfaces() -> OfNamespace:
    """Ask the network namespace that the calling thread is in. Raises OSError where it has no netlink for us."""
    unknown: list[str] = []
    with netlink.route_socket() as sock:
        payload = _IFINFO.pack(0, 0, 0, 0, 0, 0) + struct.pack("=HHI", 8, _IFLA_EXT_MASK, _SKIP_STATISTICS)
        parsed = map(parse_interface, netlink.dump(sock, netlink.GET_LINK, payload))
        interfaces = [one for one in parsed if one is not None]
        names = {one.ifindex: one.name for one in interfaces}
        attachments = [
            _attachment(program, "xdp", one.ifindex, one.name, mode) for one in interfaces for mode, program in one.xdp
        ]
        try:
            attachments += _tc(sock, names)
        except OSError as error:
            unknown.append(f"tc filters: {errno_name(error.errno)} from netlink")
    attachments += _queried(names, unknown)
    return OfNamespace(attachments, names, unknown)


def _attachment(program: int, hook: str, ifindex: int, name: str, mode: str, **more: Any) -> dict[str, Any]:
    found = {"program_id": program, "hook": hook, "target": name, "ifindex": ifindex, "mode": mode}
    return {**found, "link_id": None, "source": "netlink", **more}


def _tc(sock: socket.socket, names: dict[int, str]) -> Iterator[dict[str, Any]]:
    parsed = map(parse_qdisc, netlink.dump(sock, netlink.GET_QDISC, _TCMSG.pack(0, 0, 0, 0, 0, 0, 0)))
    for qdisc in [one for one in parsed if one is not None and one.ifindex in names]:
        for hook, ifindex, parent in places_of(qdisc):
            payload = _TCMSG.pack(0, 0, 0, ifindex, 0, parent & 0xFFFFFFFF, 0)
            for body in netlink.dump(sock, netlink.GET_FILTER, payload):
                for one in parse_filter(body):
                    index = qdisc.ifindex
                    yield _attachment(one.program_id, hook, index, names[index], one.mode, decides=one.direct)


def places_of(qdisc: Qdisc) -> Iterator[tuple[str, int, int]]:
    """(hook, ifindex, parent) of each list of filters of a discipline."""
    if qdisc.ingress_block:
        yield "tc_ingress", _BLOCK, qdisc.ingress_block
    elif qdisc.kind == "clsact":
        yield "tc_ingress", qdisc.ifindex, _INGRESS
    elif qdisc.kind == "ingress":
        yield "tc_ingress", qdisc.ifindex, _CLSACT_PARENT
    if qdisc.egress_block:
        yield "tc_egress", _BLOCK, qdisc.egress_block
    elif qdisc.kind == "clsact":
        yield "tc_egress", qdisc.ifindex, _EGRESS
    elif qdisc.kind != "ingress" and qdisc.handle:
        yield "tc_qdisc", qdisc.ifindex, qdisc.handle


def _queried(names: dict[int, str], unknown: list[str]) -> Iterator[dict[str, Any]]:
    """What is at hooks that the kernel tells by BPF_PROG_QUERY of an interface."""
    for hook in _QUERIED:
        for ifindex, name in names.items():
            try:
                found = bpfqueries.at_hook(ATTACH_TYPES.index(hook), ifindex, with_links=True)
            except OSError as error:
                if error.errno in (errno.EPERM, errno.EACCES):
                    unknown.append(f"{hook}: {errno_name(error.errno)} from BPF_PROG_QUERY")
                    break
                # Another kind of interface (netkit), one that has gone, or a kernel without the hook.
                if error.errno in (errno.EINVAL, errno.E2BIG):
                    break
                continue
            for program, link in zip(found.programs, found.links):
                yield _attachment(program, hook, ifindex, name, "", link_id=link or None, source="query")
