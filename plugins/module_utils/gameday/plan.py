# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which drills are injected on which hosts, and what is refused before any host is asked. Pure. Closed by default."""

from __future__ import annotations

from typing import Any, Mapping, Sequence

from ansible_collections.ebpf.fleet.plugins.module_utils.base import values
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.base.printable import printable
from ansible_collections.ebpf.fleet.plugins.module_utils.gameday import drills
from ansible_collections.ebpf.fleet.plugins.module_utils.kill import scope
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout import omissions

Json = Mapping[str, Any]
BEGUN, ENDED = "begun", "ended"
MARK = "ebpf_fleet_gameday"
REASON_OF_ORDERS = "game day"


def confirmation(names: Sequence[str]) -> str:
    """What a person types to say that exactly these are meant."""
    return f"inject-{','.join(names)}"


def refusal(names: Sequence[str], state: object, confirm: object, reason: object, check: bool) -> str:
    """One sentence on what cannot be meant or was not confirmed, with what to type; empty for what can be done."""
    if state not in (BEGUN, ENDED):
        return (
            f"state '{printable(state, 60)}' is not one: leave it out to begin, or write ended to take everything back."
        )
    if state == ENDED:
        return ""
    try:
        found = drills.chosen(list(names))
    except FleetError as error:
        return f"{error.message.rstrip('.')}."
    if check:
        return ""
    word = confirmation(found)
    said, why = str(confirm or "").strip(), scope.cleaned(reason)
    lacking = [name for name, good in (("confirm", said == word), ("reason", bool(why))) if not good]
    if not lacking:
        return ""
    wrong = f"confirm '{printable(said, 120)}' is not {word}. " if said and said != word else ""
    what = "; ".join(f"{name}: {drills.drill(name).injects}" for name in found)
    return (
        f"{wrong}This injects faults on hosts ({what}), so {' and '.join(lacking)} must be given; no host was asked."
        f" To see which hosts add --check; to do it write: {command(found)}"
    )


def command(names: Sequence[str]) -> str:
    """What does it, as it is typed."""
    listed = ",".join(names)
    return (
        f"ansible-playbook ebpf.fleet.gameday -e ebpf_fleet_gameday_drills={listed}"
        f""" -e confirm={confirmation(names)} -e 'reason="WHY"'"""
    )


def plan(hosts: Sequence[Json], names: Sequence[str], rollouts: Sequence[Json]) -> dict[str, Any]:
    """Who takes part: hosts are their variables, `rollouts` what ledger_info lists. FleetError where no host does."""
    running = [str(one.get("id", "")) for one in rollouts if one.get("state") == "running"]
    if running:
        raise FleetError("EF_ROLLOUT_RUNNING", f"rollout {', '.join(running)} runs: wait for its end, or pause it")
    chosen: list[str] = []
    left_out: list[dict[str, str]] = []
    for host in hosts:
        why = _why_not(host)
        if why:
            left_out.append({"host": str(host["inventory_hostname"]), "why": why})
        else:
            chosen.append(str(host["inventory_hostname"]))
    if not chosen:
        raise FleetError(
            "EF_HOSTS", f"no host takes part: set {MARK}: true in the inventory of hosts that may be broken on purpose"
        )
    return {"drills": drills.chosen(list(names)), "hosts": chosen, "left_out": left_out}


def _why_not(host: Json) -> str:
    try:
        marked = values.truth(MARK, host.get(MARK, False))
    except values.RefusedValueError as error:
        return str(error)
    if not marked:
        return f"{MARK} is not true for it"
    resting = omissions.read_maintenance("ebpf_fleet_maintenance", host.get("ebpf_fleet_maintenance"))
    return f"it is in maintenance: {printable(resting, 200)}" if resting else ""


def meets_lines(found: Json, answers: Mapping[str, Any]) -> list[str]:
    """What each host would meet: `answers` are (what it told or None, why it told nothing)."""
    said = []
    for host in found["hosts"]:
        told, why = answers.get(host, (None, "no answer"))
        for name in found["drills"]:
            refused = (told or {}).get("meets", {}).get(name, why or "no answer")
            said.append(f"{host}: {name}: " + (f"not possible: {refused}" if refused else drills.drill(name).injects))
    return said + [f"{one['host']}: left out: {one['why']}" for one in found["left_out"]]


def kills(drill: drills.Drill, watched: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The feature of each kill order that the drill gives, with its hosts; none for a drill without one."""
    found: dict[str, list[str]] = {}
    for host, answer in watched.items():
        if drill.kill and answer is not None and answer["feature"]:
            found.setdefault(answer["feature"], []).append(host)
    return [{"feature": feature, "hosts": hosts} for feature, hosts in sorted(found.items())]
