# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What bpf(2) changes: attachments, links and pins.

Every function either did it or raises OSError with the kernel's errno. Descriptors that are returned are the caller's.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
from typing import Iterator

from ansible_collections.ebpf.fleet.plugins.module_utils.kernel import bpfsys

_OBJ_PIN, _PROG_ATTACH, _PROG_DETACH, _LINK_DETACH = 6, 8, 9, 34


@contextlib.contextmanager
def opened(command: int, number: int) -> Iterator[int]:
    """A descriptor of the object of that id, by its BPF_*_GET_FD_BY_ID; closed again."""
    fd = bpfsys.bpf(command, struct.pack("=I", number))
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def program(number: int) -> Iterator[int]:
    """A descriptor of the program of that id."""
    with opened(bpfsys.PROG_GET_FD_BY_ID, number) as fd:
        yield fd


def attach(target: int, program_fd: int, attach_type: int, flags: int = 0) -> None:
    """BPF_PROG_ATTACH to a cgroup (a descriptor) or an interface (its index)."""
    bpfsys.bpf(_PROG_ATTACH, struct.pack("=IIII", target, program_fd, attach_type, flags))


def detach(target: int, program_fd: int, attach_type: int) -> None:
    """BPF_PROG_DETACH of exactly that program; ENOENT where it is not there."""
    bpfsys.bpf(_PROG_DETACH, struct.pack("=IIII", target, program_fd, attach_type, 0))


def detach_link(link_fd: int) -> None:
    """BPF_LINK_DETACH (5.9 on); EOPNOTSUPP for kinds of links that cannot be detached while someone holds them."""
    bpfsys.bpf(_LINK_DETACH, struct.pack("=I", link_fd))


def create_link(program_fd: int, target: int, attach_type: int, flags: int = 0) -> int:
    """BPF_LINK_CREATE: a descriptor of the new link."""
    return bpfsys.bpf(bpfsys.LINK_CREATE, struct.pack("=IIII", program_fd, target, attach_type, flags))


def pin(fd: int, path: str) -> None:
    """BPF_OBJ_PIN: keep what the descriptor is of at that path of a bpffs; EEXIST where something is there."""
    text = ctypes.create_string_buffer(os.fsencode(path))
    bpfsys.bpf(_OBJ_PIN, struct.pack("=QII", ctypes.addressof(text), fd, 0))
