# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whose programs are meant, and what is never touched. Pure."""

from __future__ import annotations

import re
from typing import NamedTuple

from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.base.printable import printable
from ansible_collections.ebpf.fleet.plugins.module_utils.inventory.host import OWN_UNITS
from ansible_collections.ebpf.fleet.plugins.module_utils.kill import scope

REMEDY = "write unit=NAME of a systemd unit or program=TAG, as inventory tells them, and join it with cell= and host="
ENGAGED, RELEASED = "engaged", "released"
# Without these a host cannot be reached, or not kept up any more.
_NEVER = re.compile(
    r"(?:init\.scope|systemd-[^/]*|user@.*|dbus(?:-broker)?\.service|(?:ssh|sshd)(?:@.*)?\.(?:service|scope)|-\.slice)"
)
_NEVER_PROCESSES = ("systemd", "init", "sshd", "sshd-session", "dbus-daemon", "dbus-broker")


class Target(NamedTuple):
    """`unit` and a systemd unit's name, or `program` and a tag."""

    kind: str
    name: str

    @property
    def text(self) -> str:
        """As a person writes it."""
        return f"{self.kind}={self.name}"

    @property
    def confirmation(self) -> str:
        """What a person types to say that exactly this is meant."""
        return f"takeoff-{self.text}"

    @property
    def id(self) -> str:
        """The name of its record."""
        return f"{self.kind}.{self.name}"


def parse(text: object) -> Target:
    """The target of one host's scope; FleetError EF_ARGUMENT for anything else."""
    return of_scope(scope.read_foreign(text))


def of_scope(wanted: scope.Wanted) -> Target:
    """The target of a scope that `scope.read_foreign` read."""
    return Target("unit", wanted.unit) if wanted.unit else Target("program", wanted.program)


def unit_refusal(unit: str, own_unit: str | None) -> str:
    """Why a unit is never stopped, as a sentence; empty of one that may be."""
    if unit in OWN_UNITS:
        return (
            f"{unit} is of ebpf.fleet: turn its programs off with ansible-playbook ebpf.fleet.rollback -e scope=global"
        )
    if _NEVER.fullmatch(unit):
        return f"{unit} is what keeps the host up or reachable: it is never stopped; name a program by its tag"
    if own_unit is not None and unit == own_unit:
        return f"{unit} is the unit in which this very command runs on the host: reach the host another way"
    return ""


def process_refusal(pid: int, comm: str | None, own_pids: tuple[int, ...]) -> str:
    """Why a process is never ended; empty of one that may be."""
    if pid == 1 or comm in _NEVER_PROCESSES:
        return f"process {pid} ({comm or 'unknown'}) keeps the host up or reachable: it is never ended"
    if pid in own_pids:
        return f"process {pid} ({comm or 'unknown'}) runs this very command: it is never ended"
    return ""


def refusal(given: object, state: object, confirm: object, reason: object, check: bool) -> str:
    """One sentence on what cannot be meant or was not confirmed, with what to type; empty for what can be done."""
    if state not in (ENGAGED, RELEASED):
        shown = printable(state, 60)
        return f"state '{shown}' is not one: write engaged, or released to put back what was taken off."
    if given is None or not str(given).strip():
        return f"Say what to take off with -e scope=: {REMEDY}."
    try:
        wanted = scope.read_foreign(given)
    except FleetError as error:
        return f"{error.message.rstrip('.')}."
    if check:
        return ""
    word = scope.CONFIRM if state == RELEASED else of_scope(wanted).confirmation
    said, why = str(confirm or "").strip(), scope.cleaned(reason)
    lacking = [name for name, good in (("confirm", said == word), ("reason", bool(why))) if not good]
    if not lacking:
        return ""
    wrong = f"confirm '{printable(said, 80)}' is not {word}. " if said and said != word else ""
    what = (
        "This puts back what was taken off" if state == RELEASED
        else "This stops and masks units, ends processes and detaches programs of others"
    )  # fmt: skip
    return (
        f"{wrong}{what}, so {' and '.join(lacking)} must be given; no host was asked. To see what it does add --check"
        f" --diff; to do it write: {command(wanted, str(state))}"
    )


def command(wanted: scope.Wanted, state: str) -> str:
    """What does it, as it is typed."""
    if state == RELEASED:
        return f"{scope.takeoff_command(wanted)} {scope.RELEASE_ARGUMENTS}"
    word = of_scope(wanted).confirmation
    return f"""{scope.takeoff_command(wanted)} {scope.typed("confirm", word)} -e 'reason="WHY"'"""
