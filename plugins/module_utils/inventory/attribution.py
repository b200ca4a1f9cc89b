# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whose a program is: by who holds it, which is a fact, else by a guess that says so and why. Pure."""

from __future__ import annotations

import re
from typing import Any, Mapping, NamedTuple, Sequence

Json = Mapping[str, Any]

_UNIT = re.compile(r"[^/]{1,240}\.(service|scope|socket|mount|swap)")
# What container engines call the last parts of a container's cgroup; the group is the container.
_CONTAINERS = (
    re.compile(r"(?:docker|cri-containerd|crio|libpod|containerd|nerdctl)-([0-9a-f]{12,64})\.scope"),
    re.compile(r"[^:/]+:cri-containerd:([0-9a-f]{12,64})"),
    re.compile(r"([0-9a-f]{64})"),
    re.compile(r"lxc\.payload\.([^/]+)"),
    re.compile(r"machine-(?:qemu|lxc|libvirt)[^/]*?([A-Za-z0-9][^/]*)\.scope"),
)
_NO_CONTAINER = re.compile(r"(conmon|crio-conmon|libpod-conmon)-")
# Names that projects give to their programs, and folders of a bpffs that they pin to.
_NAMES = (("sd_", "systemd"), ("ef_", "ebpf.fleet"), ("cil_", "Cilium"), ("calico_", "Calico"), ("cali_", "Calico"))
_FOLDERS = (("/tc/globals", "iproute2"), ("/cilium", "Cilium"), ("/calico", "Calico"), ("/tetragon", "Tetragon"),
            ("/snap", "snapd"))  # fmt: skip


_CONTAINER_SHOWN = 12


class Owner(NamedTuple):
    """Kind (unit, container, process, software, unknown), name, whether it is a guess, and why it is said."""

    kind: str
    name: str | None
    guess: bool
    why: str


UNKNOWN = Owner("unknown", None, False, "no process holds it, and nothing tells whose it is")


def unit_of(cgroup: str | None) -> str | None:
    """The systemd unit of a cgroup: its deepest part that is named as one; None where no part is."""
    parts = (cgroup or "").split("/")
    return next((part for part in reversed(parts) if _UNIT.fullmatch(part)), None)


def container_of(cgroup: str | None) -> str | None:
    """The container of a cgroup, as the engines name them; None where none is named."""
    for part in reversed((cgroup or "").split("/")):
        if _NO_CONTAINER.match(part):
            continue
        match = next((found for found in (form.fullmatch(part) for form in _CONTAINERS) if found), None)
        if match:
            return match.group(1)
    return None


def of_process(process: Json) -> Owner:
    """The unit or container of a holder; of one that is in neither, its name."""
    who = f"process {process['pid']} ({process['comm'] or 'unknown'})"
    if process.get("container"):
        name = f"{process['comm'] or 'unknown'} in container {process['container'][:_CONTAINER_SHOWN]}"
        return Owner("container", name, False, f"{who} of the container holds it")
    if process.get("unit"):
        return Owner("unit", process["unit"], False, f"{who} of the unit holds it")
    return Owner("process", process["comm"], False, f"{who} holds it, which is in no unit")


def owner_of(program: Json, holders: Sequence[Json], by_map: Sequence[Json], pins: Sequence[str]) -> Owner:
    """Whose a program is.

    `holders`: processes that hold it or its link; `by_map`: processes that hold a map that it uses; `pins`: paths of
    pins of it, its links and maps.
    """
    found = sorted({of_process(one)[:2] for one in holders}, key=str)
    if len(found) == 1:
        return of_process(holders[0])
    if found:
        pids = ", ".join(str(one["pid"]) for one in holders[:5])
        names = ", ".join(str(name) for _kind, name in found[:5])
        return Owner("several", names, False, f"processes {pids} hold it")
    return _guessed(program, by_map, pins)


def _guessed(program: Json, by_map: Sequence[Json], pins: Sequence[str]) -> Owner:
    sharing = sorted({of_process(one)[:2] for one in by_map}, key=str)
    if len(sharing) == 1:
        one = by_map[0]
        why = f"no process holds it; process {one['pid']} ({one['comm'] or 'unknown'}) holds a map that it uses"
        return Owner(*sharing[0], True, why)
    for path in pins:
        for folder, software in _FOLDERS:
            if f"{folder}/" in path:
                return Owner("software", software, True, f"no process holds it; it is pinned as {path}")
    for prefix, software in _NAMES:
        if program["name"].startswith(prefix):
            return Owner("software", software, True, f"no process holds it; {software} names its programs {prefix}…")
    if pins:
        return UNKNOWN._replace(why=f"no process holds it; it is pinned as {pins[0]}, which does not tell whose it is")
    return UNKNOWN
