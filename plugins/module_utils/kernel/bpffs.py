# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A place in a bpffs for pins of ours. They end with the boot, as the programs do."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from ansible_collections.ebpf.fleet.plugins.module_utils.kernel.bpfpins import parse_mounts
from ansible_collections.ebpf.fleet.plugins.module_utils.kernel.hostfiles import read_text

USUAL, OWN = "/sys/fs/bpf", "/run/ebpf-fleet-bpffs"
# A bpffs takes no dots in names.
FOLDER = "ebpf-fleet"


def is_mounted(place: str, proc: Path = Path("/proc")) -> bool:
    """Whether what is seen at that path is a bpffs, not what was mounted over one."""
    try:
        found = os.stat(place).st_dev
    except OSError:
        return False
    device = f"{os.major(found)}:{os.minor(found)}"
    return (device, place) in parse_mounts(read_text(proc / "self/mountinfo") or "")


def place() -> Path:
    """The folder for our pins, made if need be: in the usual bpffs, else in one that is mounted for it.

    Raises OSError where the host can have none.
    """
    top = next((one for one in (USUAL, OWN) if is_mounted(one)), None)
    if top is None:
        top = OWN
        os.makedirs(top, mode=0o700, exist_ok=True)
        _mount(top)
    folder = Path(top) / FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def _mount(top: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"bpf", top.encode(), b"bpf", ctypes.c_ulong(2 | 4 | 8), b"mode=700"):  # nosuid, nodev, noexec
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), top)
