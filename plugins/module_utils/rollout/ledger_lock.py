# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whose the fleet is: the lock by which one rollout runs at a time. Pure.

Ansible runs tasks in workers that come and go, so no descriptor of theirs can hold a lock for a whole play. The lock
names the ansible-playbook process instead, by its number and the tick in which it started, which no later process
has both of. Whether that one lives is asked when the next rollout wants the lock.
"""

from __future__ import annotations

import json
from typing import Any, Mapping, NamedTuple

from ansible_collections.ebpf.fleet.plugins.module_utils.base import strictjson
from ansible_collections.ebpf.fleet.plugins.module_utils.base.printable import printable

SCHEMA = "ebpf.fleet/rollout-lock/v1"
MINE, HELD, STALE = "mine", "held", "stale"


class Owner(NamedTuple):
    """A process that may hold the lock, on this machine or another.

    `start_ticks` is field 22 of /proc/PID/stat: clock ticks since boot. `pid_namespace` is what /proc/self/ns/pid
    names: a number means nothing in another one. `since` is RFC 3339; `rollout` is empty until it has begun.
    """

    user: str
    host: str
    boot_id: str
    pid_namespace: str
    pid: int
    start_ticks: int
    since: str
    rollout: str = ""

    def is_process(self, other: Owner) -> bool:
        """Whether both are one process."""
        return self[1:6] == other[1:6]


def render(owner: Owner) -> bytes:
    """The lock's file."""
    return (json.dumps({"schema": SCHEMA, **owner._asdict()}, sort_keys=True) + "\n").encode()


def parse(data: bytes) -> Owner | None:
    """Who holds it; None where that cannot be read: then no one can say that it is free."""
    try:
        document = strictjson.parse(data)
        if not isinstance(document, dict) or document.pop("schema") != SCHEMA:
            return None
        owner = Owner(**document)
    except (ValueError, TypeError, KeyError):
        return None
    numbers = (owner.pid, owner.start_ticks)
    if not all(isinstance(one, int) and not isinstance(one, bool) for one in numbers):
        return None
    texts = [value for value in owner if value not in numbers]
    return owner if all(isinstance(one, str) for one in texts) else None


def judge(lock: Owner, here: Owner, ticks_of_pid: int | None) -> str:
    """MINE, HELD or STALE. `here` is the process that asks, `ticks_of_pid` the start of the lock's process on this
    machine, None where there is no such process, or only a dead one.

    Of another machine, or another world of process numbers, it cannot be known here: then it is HELD.
    """
    if lock.is_process(here):
        # A worker that outlives its play has no say any more.
        return MINE if ticks_of_pid == lock.start_ticks else STALE
    if lock.host != here.host:
        return HELD
    if lock.boot_id != here.boot_id:
        return STALE
    if lock.pid_namespace != here.pid_namespace:
        return HELD
    return HELD if ticks_of_pid is not None and ticks_of_pid == lock.start_ticks else STALE


def who(owner: Owner) -> str:
    """The owner in words."""
    rollout = f"rollout {owner.rollout}" if owner.rollout else "a rollout that is being planned"
    return printable(f"{rollout} of {owner.user} on {owner.host} (process {owner.pid}), since {owner.since}")


def ticks_of(stat: str) -> int | None:
    """The start of a process by its /proc/PID/stat, in clock ticks since boot; None of a dead one."""
    fields = stat.rpartition(")")[2].split()
    if len(fields) < 20 or fields[0] in ("Z", "X"):
        return None
    return int(fields[19])


def person(environment: Mapping[str, Any], name: str) -> str:
    """Who started a rollout: the login name, with the one that sudo was called by."""
    before = str(environment.get("SUDO_USER") or "")
    return printable(f"{before} as {name}" if before and before != name else name, 100)
