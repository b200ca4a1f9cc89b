# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Publish a kill list: read the one that is there, sign the next, put it in its place. On the controller."""

from __future__ import annotations

import contextlib
import fcntl
from pathlib import Path
from typing import Iterator

from ansible_collections.ebpf.fleet.plugins.module_utils.base.atomic_files import replace_file
from ansible_collections.ebpf.fleet.plugins.module_utils.base.bounded import read_bytes
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle import signature, signing
from ansible_collections.ebpf.fleet.plugins.module_utils.kill import killlist
from ansible_collections.ebpf.fleet.plugins.module_utils.pull import sealed


@contextlib.contextmanager
def locked(path: Path, nothing_written: bool) -> Iterator[None]:
    """One publisher at a time, so that no sequence is given twice; raises FleetError (EF_LOCKED), OSError.

    The lock is a file beside the list. Where nothing is to be written, none is taken and none is made.
    """
    if nothing_written:
        yield
        return
    lock = path.with_name(f".{path.name}.lock")
    with lock.open("wb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise FleetError(
                "EF_LOCKED", f"{lock}: another run publishes this list; wait for its end", str(lock)
            ) from error
        yield


def read_published(path: Path) -> killlist.KillList | None:
    """The list that is there, None where there is no file. Whose signature it has is for the hosts to judge.

    Raises FleetError (EF_KILL_LIST, EF_SIG_*) for a file that is not a kill list: its sequence is not known, so none
    can be said to be higher.
    """
    data = read_bytes(path, killlist.MAX_BYTES)
    if data is None:
        return None
    try:
        signed, seal = sealed.split(data)
        signature.open_seal(signed, seal, sealed.KILL)
        return sealed.load(signed)
    except FleetError as error:
        problem = f"{path}: is there and is not a kill list ({error.message}); it was left as it is: name another file"
        raise FleetError(error.code, problem, str(path)) from error


def seal(found: killlist.KillList, key: Path) -> bytes:
    """The whole file of a list; raises FleetError (EF_KEY, EF_NO_TOOL, EF_KILL_LIST)."""
    signing.check_key(key)
    signed = sealed.render(found)
    data = bytes(signed + signing.sign(signed, key, sealed.KILL))
    sealed.load(sealed.split(data)[0])
    return data


def write(path: Path, data: bytes) -> None:
    """Replace the file so that a reader, and a web server, sees the old one or the new one."""
    replace_file(path, data, 0o644, path.parent)
