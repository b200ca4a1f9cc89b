# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What puts back exactly what was taken off, by the record alone. Pure."""

from __future__ import annotations

from typing import Any, Dict, Mapping, NamedTuple

from ansible_collections.ebpf.fleet.plugins.module_utils.foreign import record as records
from ansible_collections.ebpf.fleet.plugins.module_utils.foreign.record import Record

Json = Mapping[str, Any]
Step = Dict[str, Any]

_RAN = ("active", "activating", "reloading")


class Undo(NamedTuple):
    """Steps to be put back, in their order, and what cannot be, each with what a person can do."""

    steps: list[Step]
    told: list[str]


def undo(record: Record, boot_id: str | None) -> Undo:
    """The last step first: pins and attachments, then units; programs that were kept are let go at the end."""
    found = Undo([], [])
    booted = boot_id is None or boot_id != record.boot_id
    done = [step for step in record.steps if step["status"] in (records.BEGUN, records.DONE)]
    for step in reversed(done):
        why = _impossible(step, booted)
        if why is None:
            found.steps.append(step)
        elif why:
            found.told.append(why)
    return found


def _impossible(step: Json, booted: bool) -> str | None:
    """Null where it can be put back; why not; empty where there is nothing to put back."""
    if step["do"] == "kill":
        return f"process {step['pid']} ({step['comm']}, {step['exe']}) cannot be started by this: start it yourself"
    if step["do"] == "stop":
        if step["active"] not in _RAN:
            return ""
        if step["transient"]:
            return f"unit {step['unit']} was made at run time and ended with its stop: start it as it was started"
        return None
    if step["do"] == "mask":
        return None
    if step["do"] == "keep":
        return "" if booted else None
    if not step["back"]:
        ends_with_holder = step.get("how") == "link" and not step["pins"]
        return "" if ends_with_holder else f"{step['at']} cannot be put back by this: start what attached it again"
    if booted:
        return f"{step['at']} cannot be put back, the host has booted since: start what attached it again"
    return None


def line(step: Json) -> str:
    """A step as a person reads it before it is put back."""
    if step["do"] == "stop":
        return f"start unit {step['unit']}"
    if step["do"] == "mask":
        return f"unmask unit {step['unit']} ({step['path']})"
    if step["do"] == "keep":
        return f"let program {step['program_id']} go, which was kept"
    if step["do"] == "unpin":
        return f"pin {step['at']} at {step['path']} again"
    return f"attach {step['at']} again, if the place is free"


def lines(found: Undo) -> list[str]:
    """What is put back, as a person reads it."""
    return [line(step) for step in found.steps] + [f"NOT PUT BACK: {one}" for one in found.told]
