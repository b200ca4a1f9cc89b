# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Take one XDP program or tc filter off an interface, and put it back, in the namespace that the calling thread is in.

Every function either did it or raises OSError with the kernel's errno. What is there by then is another's program is
left: EEXIST of the XDP functions, ESTALE of those for tc.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from typing import NamedTuple

from ansible_collections.ebpf.fleet.plugins.module_utils.kernel import netattach, netlink
from ansible_collections.ebpf.fleet.plugins.module_utils.kernel.netlink import attribute, attributes, nested, number

_IFINFO = struct.Struct("=BBHiII")
_TCMSG = struct.Struct("=BBHiIII")
# if_link.h
_IFLA_XDP, _XDP_FD, _XDP_FLAGS, _XDP_EXPECTED_FD = 43, 1, 3, 8
_ONLY_IF_FREE, _REPLACE = 1 << 0, 1 << 4  # XDP_FLAGS_UPDATE_IF_NOEXIST, XDP_FLAGS_REPLACE
XDP_MODES = {"generic": 1 << 1, "native": 1 << 2, "offloaded": 1 << 3}
# rtnetlink.h and pkt_cls.h
_KIND, _OPTIONS, _CHAIN = 1, 2, 11
_ACT, _POLICE, _CLASS, _FD, _NAME, _FLAGS, _FLAGS_GEN, _ID = 1, 2, 3, 6, 7, 8, 9, 11


class Filter(NamedTuple):
    """A tc filter of kind bpf. `ifindex` -1: `parent` is the number of a block that interfaces share.

    `info` is priority and protocol as the kernel has them; `more`: it has actions of its own, which are not kept here.
    """

    ifindex: int
    parent: int
    info: int
    handle: int
    chain: int
    program_id: int
    name: str
    flags: int
    flags_gen: int
    class_id: int
    more: bool

    @property
    def prio(self) -> int:
        """The priority, by which filters of a place are asked in turn."""
        return self.info >> 16


def _set_xdp(ifindex: int, fd: int, flags: int, expected: int | None = None) -> None:
    inner = [attribute(_XDP_FD, struct.pack("=i", fd)), attribute(_XDP_FLAGS, struct.pack("=I", flags))]
    if expected is not None:
        inner.append(attribute(_XDP_EXPECTED_FD, struct.pack("=i", expected)))
    with netlink.route_socket() as sock:
        payload = _IFINFO.pack(0, 0, 0, ifindex, 0, 0) + nested(_IFLA_XDP, *inner)
        netlink.change(sock, netlink.SET_LINK, payload)


def xdp_of(ifindex: int) -> dict[str, int]:
    """{mode: id} of the XDP programs of an interface; ENODEV where there is no such interface."""
    with netlink.route_socket() as sock:
        bodies = netlink.dump(sock, netlink.GET_LINK, _IFINFO.pack(0, 0, 0, 0, 0, 0))
    for one in map(netattach.parse_interface, bodies):
        if one is not None and one.ifindex == ifindex:
            return dict(one.xdp)
    raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))


def name_of(ifindex: int) -> str:
    """The name of an interface; ENODEV where there is no such interface."""
    with netlink.route_socket() as sock:
        for one in map(netattach.parse_interface, netlink.dump(sock, netlink.GET_LINK, _IFINFO.pack(0, 0, 0, 0, 0, 0))):
            if one is not None and one.ifindex == ifindex:
                return one.name
    raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))


def detach_xdp(ifindex: int, mode: str, program_id: int, program_fd: int) -> None:
    """Take that very program off. Before 5.7 the kernel cannot compare, so it is asked just before."""
    try:
        _set_xdp(ifindex, -1, XDP_MODES[mode] | _REPLACE, program_fd)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        if xdp_of(ifindex).get(mode) != program_id:
            raise OSError(errno.EEXIST, os.strerror(errno.EEXIST)) from error
        _set_xdp(ifindex, -1, XDP_MODES[mode])


def attach_xdp(ifindex: int, mode: str, program_fd: int) -> None:
    """Put a program there in that mode, only if the place is free."""
    _set_xdp(ifindex, program_fd, XDP_MODES[mode] | _ONLY_IF_FREE)


def parse_filter(body: bytes) -> Filter | None:
    """The filter of a RTM_NEWTFILTER message; None where it runs no program."""
    if len(body) < _TCMSG.size:
        return None
    _family, _pad, _pad2, ifindex, handle, parent, info = _TCMSG.unpack_from(body)
    found = attributes(body[_TCMSG.size :])
    options = attributes(found.get(_OPTIONS, b""))
    program = number(options.get(_ID))
    if netlink.text(found.get(_KIND)) != "bpf" or not program:
        return None
    flags, gen, of_class = (number(options.get(one)) or 0 for one in (_FLAGS, _FLAGS_GEN, _CLASS))
    more = bool(attributes(options.get(_ACT, b""))) or _POLICE in options
    chain = number(found.get(_CHAIN)) or 0
    name = netlink.text(options.get(_NAME)) or ""
    # The kernel adds that it is not in hardware (TCA_CLS_FLAGS_IN_HW, _NOT_IN_HW), and does not take that back.
    return Filter(ifindex, parent, info, handle, chain, program, name, flags, gen & 3, of_class, more)


def filters() -> list[Filter]:
    """Every filter of this network namespace that is a program, each once."""
    found: dict[tuple[int, ...], Filter] = {}
    with netlink.route_socket() as sock:
        bodies = netlink.dump(sock, netlink.GET_QDISC, _TCMSG.pack(0, 0, 0, 0, 0, 0, 0))
        for qdisc in filter(None, map(netattach.parse_qdisc, bodies)):
            for _hook, ifindex, parent in netattach.places_of(qdisc):
                for one in _at(sock, ifindex, parent):
                    found[one.ifindex, one.parent, one.info, one.handle, one.chain] = one
    return list(found.values())


def _at(sock: socket.socket, ifindex: int, parent: int) -> list[Filter]:
    payload = _TCMSG.pack(0, 0, 0, ifindex, 0, parent & 0xFFFFFFFF, 0)
    parsed = map(parse_filter, netlink.dump(sock, netlink.GET_FILTER, payload))
    return [one for one in parsed if one is not None]


def _named(one: Filter) -> bytes:
    head = _TCMSG.pack(0, 0, 0, one.ifindex, one.handle, one.parent & 0xFFFFFFFF, one.info)
    chain = attribute(_CHAIN, struct.pack("=I", one.chain)) if one.chain else b""
    return head + attribute(_KIND, b"bpf\0") + chain


def delete_filter(one: Filter) -> None:
    """Delete that filter if it still is that program; ENOENT where it has gone.

    The kernel cannot compare, so it is asked just before; who changes filters in that very moment may lose one.
    """
    with netlink.route_socket() as sock:
        there = [other for other in _at(sock, one.ifindex, one.parent)
                 if (other.info, other.handle, other.chain) == (one.info, one.handle, one.chain)]  # fmt: skip
        if not there:
            raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))
        if there[0].program_id != one.program_id:
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        netlink.change(sock, netlink.DELETE_FILTER, _named(one))


def add_filter(one: Filter, program_fd: int) -> None:
    """Put a filter back with its handle, priority and flags; EEXIST where one is there."""
    options = [attribute(_FD, struct.pack("=I", program_fd)), attribute(_FLAGS, struct.pack("=I", one.flags))]
    options += [attribute(_NAME, one.name.encode() + b"\0")] if one.name else []
    options += [attribute(_FLAGS_GEN, struct.pack("=I", one.flags_gen))] if one.flags_gen else []
    options += [attribute(_CLASS, struct.pack("=I", one.class_id))] if one.class_id else []
    with netlink.route_socket() as sock:
        payload = _named(one) + nested(_OPTIONS, *options)
        netlink.change(sock, netlink.NEW_FILTER, payload, netlink.CREATE | netlink.EXCLUSIVE)
