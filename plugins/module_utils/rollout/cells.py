# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Cells as units of work: who controls a cell, what a job binds, and how long it may take. Pure.

A job is one step of a rollout on the hosts of one cell. Waves, ledger and gate stay with the coordinator.
"""

from __future__ import annotations

from typing import Any, Mapping, NamedTuple, Sequence

from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout import ledger
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.cell_controllers import (
    CONTROLLERS,
    Controller,
    read_controllers,
)
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.timing import BATCH_SECONDS, HOST_SECONDS

# A worker says that it is there this often, in seconds; several words may be lost before silence is an end.
KEEPALIVE_SECONDS = 3
# {step: modules that answer for each host}.
STEPS: Mapping[str, tuple[str, ...]] = {
    "ask": ("capability_facts",),
    "measure": ("observation_info",),
    "prepare": ("host_prepare",),
    "deploy": ("release",),
    "lease": ("lease",),
    "command": (),
}
# The hosts' own waiting, seconds: how long a step may take by what it is asked to do.
_WAITS = {"measure": ("bake", "window"), "command": ("timeout", "connect_timeout")}


class Binding(NamedTuple):
    """What a job is for, and what its answer must name again; `ident` is of this one job and never used twice."""

    ident: str
    rollout: str
    cell: str
    batch: int
    step: str
    plan_digest: str
    bundle_digest: str
    hosts: tuple[str, ...]

    def document(self) -> dict[str, Any]:
        """As it goes with the job."""
        return {**self._asdict(), "hosts": list(self.hosts)}

    def digest(self) -> str:
        """SHA-256 over all of it, in hex."""
        return ledger.digest_of_document(self.document())


def by_cell(hosts: Sequence[Mapping[str, Any]]) -> dict[str, tuple[Controller, list[str]]]:
    """{cell: (its controller, its hosts)} of those hosts, by their variables, whose cell has one.

    Two hosts of one cell that name different controllers are refused: one cell is one job.
    """
    found: dict[str, tuple[Controller, list[str]]] = {}
    for host in hosts:
        given = host.get(CONTROLLERS)
        cell = "" if host.get("ebpf_fleet_cell") is None else str(host["ebpf_fleet_cell"])
        controllers = read_controllers(CONTROLLERS, given) if given else {}
        if cell not in controllers:
            continue
        first, names = found.setdefault(cell, (controllers[cell], []))
        if first != controllers[cell]:
            problem = f"{CONTROLLERS}: cell {cell} has two controllers, of {names[0]} {first.where}, of"
            name = host["inventory_hostname"]
            raise FleetError("EF_ARGUMENT", f"{problem} {name} {controllers[cell].where}; set it for the whole fleet")
        names.append(str(host["inventory_hostname"]))
    return found


def seconds_of(step: str, arguments: Mapping[str, Any], hosts: int, activation: int) -> int:
    """Most seconds of a job: what its hosts wait for by themselves, and what tasks over SSH take beyond it."""
    own = sum(float(arguments.get(name) or 0) for name in _WAITS.get(step, ()))
    return int(own) + (activation if step == "deploy" else 0) + BATCH_SECONDS + HOST_SECONDS * hosts


def lost(cell: str, controller: Controller, why: str) -> str:
    """The sentence on a cell whose controller did not end its job."""
    return (
        f"EF_CELL_LOST: cell {cell}: its controller ({controller.where}) {why}; "
        "what its hosts did is unknown, and a release that is new there goes off by itself when its lease runs out"
    )


def refused(cell: str, controller: Controller, why: str) -> str:
    """The sentence on a cell whose controller answered with what is not the answer to its job."""
    return (
        f"EF_CELL_ANSWER: cell {cell}: its controller ({controller.where}) answered with what is not believed: {why}; "
        "what its hosts did is unknown, and a release that is new there goes off by itself when its lease runs out"
    )
