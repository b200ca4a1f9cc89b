# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Route netlink with Python's standard library: dumps, changes, and what stands in their messages
(rtnetlink(7)).

What a message says is read by pure functions; only `dump` and `change` have a socket.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from typing import Iterator

GET_LINK, GET_QDISC, GET_FILTER = 18, 38, 46  # RTM_GETLINK, RTM_GETQDISC, RTM_GETTFILTER
SET_LINK, NEW_FILTER, DELETE_FILTER = 19, 44, 45  # RTM_SETLINK, RTM_NEWTFILTER, RTM_DELTFILTER
EXCLUSIVE, CREATE = 0x200, 0x400  # NLM_F_EXCL, NLM_F_CREATE

_NETLINK_ROUTE = 0
_REQUEST_ACK = 0x5  # NLM_F_REQUEST | NLM_F_ACK
_REQUEST_DUMP = 0x301  # NLM_F_REQUEST | NLM_F_ROOT | NLM_F_MATCH
_INTERRUPTED = 0x10  # NLM_F_DUMP_INTR: what was listed changed meanwhile
_ERROR, _DONE = 2, 3
_HEADER = struct.Struct("=IHHII")
_TRIES = 3
_SECONDS = 5.0
_RECEIVE_BYTES = 1 << 18


def route_socket() -> socket.socket:
    """A socket of the network namespace that the calling thread is in; the caller closes it."""
    found = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_ROUTE)
    found.settimeout(_SECONDS)
    found.bind((0, 0))
    return found


def dump(sock: socket.socket, kind: int, payload: bytes) -> list[bytes]:
    """The bodies of all messages of a dump. Raises OSError: the kernel's, or EAGAIN where it changed all the while."""
    for number in range(1, _TRIES + 1):
        bodies, interrupted = _dump(sock, kind, payload, number)
        if not interrupted:
            return bodies
    raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))


def _dump(sock: socket.socket, kind: int, payload: bytes, number: int) -> tuple[list[bytes], bool]:
    sock.send(_HEADER.pack(_HEADER.size + len(payload), kind, _REQUEST_DUMP, number, 0) + payload)
    bodies: list[bytes] = []
    interrupted = False
    while True:
        for what, flags, sequence, body in messages(_receive(sock)):
            if sequence != number:
                continue
            interrupted = interrupted or bool(flags & _INTERRUPTED)
            if what in (_ERROR, _DONE):
                error = -struct.unpack_from("=i", body)[0] if len(body) >= 4 else 0
                if error:
                    raise OSError(error, os.strerror(error))
                return bodies, interrupted
            bodies.append(body)


def change(sock: socket.socket, kind: int, payload: bytes, flags: int = 0) -> None:
    """Ask for one change and wait for the kernel's word on it. Raises OSError with the kernel's errno."""
    sock.send(_HEADER.pack(_HEADER.size + len(payload), kind, _REQUEST_ACK | flags, 1, 0) + payload)
    while True:
        for what, _flags, sequence, body in messages(_receive(sock)):
            if sequence == 1 and what == _ERROR and len(body) >= 4:
                error = -struct.unpack_from("=i", body)[0]
                if error:
                    raise OSError(error, os.strerror(error))
                return


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute (struct nlattr) with what fills it up to four bytes."""
    return struct.pack("=HH", 4 + len(value), kind) + value + b"\0" * (-len(value) % 4)


def nested(kind: int, *inner: bytes) -> bytes:
    """An attribute that holds others."""
    return attribute(kind | 0x8000, b"".join(inner))  # NLA_F_NESTED


def _receive(sock: socket.socket) -> bytes:
    try:
        return sock.recv(_RECEIVE_BYTES)
    except socket.timeout as error:  # which has no errno
        raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)) from error


def messages(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """(type, flags, sequence, body) of each message of one datagram."""
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, flags, sequence, _port = _HEADER.unpack_from(data, at)
        if length < _HEADER.size or at + length > len(data):
            return
        yield kind, flags, sequence, data[at + _HEADER.size : at + length]
        at += (length + 3) & ~3


def attributes(data: bytes) -> dict[int, bytes]:
    """{type: value} of a row of attributes (struct nlattr), without the flags of nesting and byte order."""
    found = {}
    at = 0
    while at + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, at)
        if length < 4 or at + length > len(data):
            break
        found[kind & 0x3FFF] = data[at + 4 : at + length]
        at += (length + 3) & ~3
    return found


def number(value: bytes | None) -> int | None:
    """An attribute of 1, 2, 4 or 8 bytes as a number; None where it is absent."""
    return int.from_bytes(value, sys.byteorder) if value is not None and len(value) in (1, 2, 4, 8) else None


def text(value: bytes | None) -> str | None:
    """An attribute that is a C string; None where it is absent."""
    return None if value is None else value.split(b"\0")[0].decode("utf-8", "replace")
