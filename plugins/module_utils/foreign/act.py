# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Do one step of a plan on this host, and put one back. Each is safe to do twice."""

from __future__ import annotations

import errno
import hashlib
import os
import time
from pathlib import Path
from typing import Any, Callable, Mapping, NamedTuple

from ansible_collections.ebpf.fleet.plugins.module_utils.base.answers import errno_name
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.foreign import units
from ansible_collections.ebpf.fleet.plugins.module_utils.foreign.record import DONE, FAILED, GONE, LOST, UNDONE
from ansible_collections.ebpf.fleet.plugins.module_utils.foreign.target import Target
from ansible_collections.ebpf.fleet.plugins.module_utils.kernel import (
    bpfchange,
    bpffs,
    bpfpins,
    bpfqueries,
    bpfsys,
    cgroupattach,
    linkinfo,
    netchange,
    netns,
    processes,
)
from ansible_collections.ebpf.fleet.plugins.module_utils.kernel.bpfholders import KINDS, id_in
from ansible_collections.ebpf.fleet.plugins.module_utils.kernel.bpfnames import ATTACH_TYPES
from ansible_collections.ebpf.fleet.plugins.module_utils.kernel.hostfiles import read_text

Json = Mapping[str, Any]

NAMESPACES = 256
SECONDS_OF_GRACE, SECONDS_TO_DIE, SECONDS_FOR_LINK = 5, 5, 2
_SECONDS_BETWEEN = 0.05
_FORGOTTEN = "the program is kept no more: start what attached it again"
# The place is another's, or not there any more.
_AWAY = (errno.ENOENT, errno.EEXIST, errno.ESTALE, errno.ENODEV, errno.ENXIO)


class Came(NamedTuple):
    """What became of a step, a status of `record` (or LOST), and why."""

    status: str
    why: str = ""


class Actor:
    """Does steps for one target; `root` is the host's file system."""

    def __init__(self, target: Target, root: Path = Path("/")) -> None:
        self._root = root
        self._folder = f"foreign-{hashlib.sha256(target.id.encode()).hexdigest()[:16]}"

    # --- take off ---

    def do(self, step: Json) -> Came:
        """Do a step; raises nothing that a host can say."""
        actions: dict[str, Callable[[Json], Came]] = {
            "keep": self._keep, "stop": _stop, "mask": _mask, "kill": _kill, "detach": self._detach,
            "unpin": self._unpin,
        }  # fmt: skip
        return _told(lambda: actions[step["do"]](step), FAILED)

    def _keep(self, step: Json) -> Came:
        with _program(step) as fd:
            path = self._kept(step["program_id"])
            path.parent.mkdir(mode=0o700, exist_ok=True)
            try:
                bpfchange.pin(fd, str(path))
            except FileExistsError:
                if _pinned(str(path)) != ("program", step["program_id"]):
                    # Of an earlier boot of a bpffs there is nothing; of an earlier target of that name there may be.
                    os.unlink(path)
                    bpfchange.pin(fd, str(path))
        return Came(DONE)

    def _kept(self, program_id: int) -> Path:
        return bpffs.place() / self._folder / f"program-{program_id}"

    def _detach(self, step: Json) -> Came:
        ways: dict[str, Callable[[Json], None]] = {
            "xdp": self._detach_xdp, "tc": self._detach_filter, "hook": self._detach_hook, "cgroup": _detach_cgroup,
            "link": _detach_link,
        }  # fmt: skip
        try:
            ways[step["how"]](step)
        except OSError as error:
            if error.errno in _AWAY:
                return Came(GONE, f"it was there no more ({errno_name(error.errno)})")
            raise
        return Came(DONE)

    def _detach_xdp(self, step: Json) -> None:
        with _program(step) as fd:
            number = step["program_id"]
            self._within(step, lambda: netchange.detach_xdp(step["ifindex"], step["mode"], number, fd))

    def _detach_filter(self, step: Json) -> None:
        self._within(step, lambda: netchange.delete_filter(netchange.Filter(**step["filter"])))

    def _detach_hook(self, step: Json) -> None:
        with _program(step) as fd:
            kind = ATTACH_TYPES.index(step["hook"])
            self._within(step, lambda: bpfchange.detach(step["ifindex"], fd, kind))

    def _within(self, step: Json, call: Callable[[], Any]) -> Any:
        """Call it in the step's network namespace; ENXIO where that has gone."""
        if step["netns"] is None or step["netns"] == netns.own_inode(self._root / "proc"):
            return call()
        places, _more = netns.namespaces(self._root, NAMESPACES)
        place = next((one for one in places if one.inode == step["netns"]), None)
        if place is None:
            raise OSError(errno.ENXIO, "the network namespace has gone")
        return netns.inside(place, call)

    def _unpin(self, step: Json) -> Came:
        path = self._reached(step["path"])
        if path is None or _pinned(path) != (step["kind"], step["id"]):
            return Came(GONE, "it is not pinned there any more")
        os.unlink(path)
        return Came(DONE)

    def _reached(self, shown: str) -> str | None:
        """By which path we reach what a mount namespace shows there; None where its bpffs is mounted no more."""
        mounts = [one for one in bpfpins.mounts(self._root) if shown.startswith(one.shown.rstrip("/") + "/")]
        best = max(mounts, key=lambda one: len(one.shown), default=None)
        return None if best is None else best.path + shown[len(best.shown) :]

    # --- put back ---

    def undo(self, step: Json) -> Came:
        """Put a step back; FAILED leaves it to a later run, LOST says that none can."""
        actions: dict[str, Callable[[Json], Came]] = {
            "keep": self._let_go, "stop": _start, "mask": _unmask, "detach": self._attach, "unpin": self._pin,
        }  # fmt: skip
        return _told(lambda: actions[step["do"]](step), FAILED)

    def _let_go(self, step: Json) -> Came:
        path = self._kept(step["program_id"])
        if os.path.lexists(path):
            os.unlink(path)
        if not any(path.parent.iterdir() if path.parent.is_dir() else ()):
            path.parent.rmdir() if path.parent.is_dir() else None
        return Came(UNDONE)

    def _attach(self, step: Json) -> Came:
        back, program = step["back"], self._opened(step)
        if program is None:
            return Came(LOST, _FORGOTTEN)
        ways: dict[str, Callable[[Json, Json, int], None]] = {
            "xdp": self._attach_xdp, "tc": self._attach_filter, "hook": self._attach_hook, "cgroup": _attach_cgroup,
            "link": self._attach_link,
        }  # fmt: skip
        try:
            ifindex = back.get("ifindex") or back.get("filter", {}).get("ifindex", 0)
            if ifindex > 0:
                self._within(step, lambda: _must_be(step["target"], ifindex))
            ways[back["how"]](step, back, program)
        except OSError as error:
            if error.errno in (errno.ENXIO, errno.ENODEV):
                return Came(LOST, "its interface or network namespace has gone")
            if error.errno not in (errno.EBUSY, errno.EEXIST):
                raise
            return Came(FAILED, "the place is taken: nothing was forced; free it, and run this again")
        finally:
            os.close(program)
        return Came(UNDONE)

    def _opened(self, step: Json) -> int | None:
        """A descriptor of the program that was kept, which the caller closes; None where it is kept no more."""
        try:
            return bpfqueries.open_pin(str(self._kept(step["program_id"])))
        except FileNotFoundError:
            return None

    def _attach_xdp(self, step: Json, back: Json, program: int) -> None:
        def attach() -> None:
            if netchange.xdp_of(back["ifindex"]).get(back["mode"]) != step["program_id"]:
                netchange.attach_xdp(back["ifindex"], back["mode"], program)

        self._within(step, attach)

    def _attach_filter(self, step: Json, back: Json, program: int) -> None:
        one = netchange.Filter(**back["filter"])

        def attach() -> None:
            if one not in netchange.filters():
                netchange.add_filter(one, program)

        try:
            self._within(step, attach)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.EINVAL):
                raise
            problem = "its queueing discipline has gone: make it (tc qdisc add dev NAME clsact), and run this again"
            raise FleetError("EF_TAKEOFF_UNCONFIRMED", problem) from error

    def _attach_hook(self, step: Json, back: Json, program: int) -> None:
        kind = ATTACH_TYPES.index(back["hook"])

        def attach() -> None:
            if step["program_id"] not in bpfqueries.at_hook(kind, back["ifindex"], with_links=True).programs:
                bpfchange.attach(back["ifindex"], program, kind)

        self._within(step, attach)

    def _attach_link(self, step: Json, back: Json, program: int) -> None:
        """A new link in the place of the one that was pinned; the pins that keep the old one are moved to it."""
        kind = ATTACH_TYPES.index(back["hook"])
        paths = [(one, self._reached(one)) for one in back["pins"]]
        if paths and all(path is not None and _is_made_again(path, step) for _shown, path in paths):
            return  # by a run that was interrupted
        for shown, path in paths:
            if path is None or _pinned(path) not in (None, ("link", step["link_id"])):
                raise FleetError("EF_TAKEOFF_UNCONFIRMED", f"{shown} is taken or not reached any more: free it")
        if "path" in back:
            group = _open_cgroup(back["path"])
            try:
                fd = bpfchange.create_link(program, group, kind)
            finally:
                os.close(group)
        else:
            flags = netchange.XDP_MODES[back["mode"]] if back["mode"] else 0
            fd = self._within(step, lambda: bpfchange.create_link(program, back["ifindex"], kind, flags))
        try:
            for _shown, path in paths:
                if path is not None:
                    if os.path.lexists(path):
                        os.unlink(path)
                    bpfchange.pin(fd, path)
        finally:
            os.close(fd)

    def _pin(self, step: Json) -> Came:
        path = self._reached(step["path"])
        if path is None:
            return Came(FAILED, "its bpffs is mounted no more: mount it, and run this again")
        if _pinned(path) == (step["kind"], step["id"]):
            return Came(UNDONE)
        program = self._opened(step)
        if program is None:
            return Came(LOST, _FORGOTTEN)
        try:
            bpfchange.pin(program, path)
        except FileExistsError:
            return Came(FAILED, "something else is pinned there: nothing was forced; free it, and run this again")
        finally:
            os.close(program)
        return Came(UNDONE)


def _told(action: Callable[[], Came], status: str) -> Came:
    """What an action came to; an error is a status with its words."""
    try:
        return action()
    except FleetError as error:
        return Came(status, error.message)
    except OSError as error:
        return Came(status, f"{errno_name(error.errno)}: {error.strerror or error}")


def _must_be(name: str, ifindex: int) -> None:
    """ENODEV where another interface has that index by now, as after a reboot of its driver."""
    if netchange.name_of(ifindex) != name:
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV))


def _program(step: Json) -> Any:
    return bpfchange.program(step["program_id"])


def _pinned(path: str) -> tuple[str, int] | None:
    """(kind, id) of what is pinned there; None where nothing is."""
    try:
        fd = bpfqueries.open_pin(path)
    except FileNotFoundError:
        return None
    try:
        kind = KINDS.get(os.readlink(f"/proc/self/fd/{fd}"), "")
        number = id_in(read_text(Path(f"/proc/self/fdinfo/{fd}")) or "", kind) if kind else None
        return kind, number or 0
    finally:
        os.close(fd)


def _is_made_again(path: str, step: Json) -> bool:
    """Whether another link of the step's program is pinned there than the one that was detached."""
    try:
        fd = bpfqueries.open_pin(path)
    except OSError:
        return False
    try:
        if KINDS.get(os.readlink(f"/proc/self/fd/{fd}")) != "link":
            return False
        found = linkinfo.read_link(fd)
        return bool(found["id"] != step["link_id"] and found["program_id"] == step["program_id"])
    finally:
        os.close(fd)


def _stop(step: Json) -> Came:
    units.stop(step["unit"])
    return Came(DONE)


def _start(step: Json) -> Came:
    units.start(step["unit"])
    return Came(UNDONE)


def _mask(step: Json) -> Came:
    units.mask(step["unit"], step["path"])
    # A timer, a socket or a Restart= may have started it between its stop and its mask.
    units.stop(step["unit"])
    return Came(DONE)


def _unmask(step: Json) -> Came:
    there = units.unmask(step["unit"], step["path"])
    return Came(UNDONE, "" if there else f"{step['path']} had been taken away already")


def _kill(step: Json) -> Came:
    if processes.start_ticks(step["pid"]) != step["start_ticks"]:
        return Came(GONE, "it had ended already")
    if processes.end(step["pid"], step["start_ticks"], SECONDS_OF_GRACE, SECONDS_TO_DIE):
        return Came(DONE)
    return Came(FAILED, f"process {step['pid']} does not end: see what it waits for in /proc/{step['pid']}/stack")


def _open_cgroup(shown: str) -> int:
    top = cgroupattach.mounted(Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace"))
    if top is None:
        raise FileNotFoundError(errno.ENOENT, "no cgroup2 hierarchy is mounted here")
    return os.open(top.rstrip("/") + shown, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def _detach_cgroup(step: Json) -> None:
    with _program(step) as fd:
        group = _open_cgroup(step["path"])
        try:
            bpfchange.detach(group, fd, ATTACH_TYPES.index(step["hook"]))
        finally:
            os.close(group)


def _attach_cgroup(step: Json, back: Json, program: int) -> None:
    group, kind = _open_cgroup(back["path"]), ATTACH_TYPES.index(back["hook"])
    try:
        there = bpfqueries.at_hook(kind, group).programs
        if step["program_id"] in there:
            return
        if there and back["flags"] != 2:  # not BPF_F_ALLOW_MULTI: the kernel would replace what is there
            raise OSError(errno.EEXIST, os.strerror(errno.EEXIST))
        bpfchange.attach(group, program, kind, back["flags"])
    finally:
        os.close(group)


def _detach_link(step: Json) -> None:
    until = time.monotonic() + (0 if step["pins"] else SECONDS_FOR_LINK)
    while True:
        with bpfchange.opened(bpfsys.LINK_GET_FD_BY_ID, step["link_id"]) as fd:
            # What its holder alone kept ends some moments after it.
            if time.monotonic() >= until:
                bpfchange.detach_link(fd)
                return
        time.sleep(_SECONDS_BETWEEN)
