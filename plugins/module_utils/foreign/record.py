# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The record of what is taken off a host: what will be done, what was, and what puts it back. Pure.

The format is in docs/formats/takeoff-record.md. It is written before anything is changed, and again at every step.
"""

from __future__ import annotations

import json
from typing import Any, Dict, Mapping, NamedTuple, Sequence

from ansible_collections.ebpf.fleet.plugins.module_utils.base import bounded
from ansible_collections.ebpf.fleet.plugins.module_utils.base import host_document as doc
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.foreign import target as targets

Json = Mapping[str, Any]
Step = Dict[str, Any]

SCHEMA = "ebpf.fleet/takeoff-record/v1"
# planned: not yet; begun: it may have been done; gone: it had ended by itself; undone: put back again.
PLANNED, BEGUN, DONE, GONE, FAILED, UNDONE = "planned", "begun", "done", "gone", "failed", "undone"
# Of what is put back: it can never be, so it is told once and not tried again.
LOST = "lost"
STATUSES = (PLANNED, BEGUN, DONE, GONE, FAILED, UNDONE)
DOES = ("keep", "stop", "mask", "kill", "detach", "unpin")
BYTES_LIMIT = 4 * 1024 * 1024

_ID = doc.whole(0, 2**32 - 1)
_STEP = doc.record(
    {"do": doc.word(*DOES), "key": doc.text(1024), "status": doc.word(*STATUSES), "why": doc.text(), "program_id": _ID,
     "pid": _ID, "unit": doc.text(256, null=True), "path": doc.text(4096)},
    ("do", "key", "status", "why"),
)  # fmt: skip
_PROGRAM = doc.record(
    {"id": _ID, "tag": doc.text(16, r"[0-9a-f]{16}"), "name": doc.text(64), "type": doc.text(64)},
    ("id", "tag", "name", "type"),
)
_RULE = doc.record(
    {
        "schema": doc.word(SCHEMA),
        "target": doc.text(300, r"(?:unit|program)=.+"),
        "reason": doc.text(400),
        "boot_id": doc.text(64, null=True),
        "begun": doc.text(32),
        "changed": doc.text(32),
        "remove_pins": doc.truth(),
        "programs": doc.many(_PROGRAM, 4096),
        "steps": doc.many(_STEP, 20_000),
    },
    ("schema", "target", "reason", "boot_id", "begun", "changed", "remove_pins", "programs", "steps"),
)


class Record(NamedTuple):
    """`programs` are those that were of the target when it was found, by id, tag, name and type."""

    target: targets.Target
    reason: str
    boot_id: str | None
    begun: str
    changed: str
    remove_pins: bool
    programs: list[Json]
    steps: list[Step]

    def known(self, boot_id: str | None) -> set[tuple[int, str]]:
        """(id, tag) of its programs, which mean nothing after a boot."""
        if boot_id is None or boot_id != self.boot_id:
            return set()
        return {(one["id"], one["tag"]) for one in self.programs}


def parse(data: bytes, file: str) -> Record:
    """A record that was written by `render`; FleetError EF_TAKEOFF_RECORD for anything else."""
    try:
        found = bounded.parse_json(data)
    except ValueError as error:
        raise _unusable(file, str(error)) from error
    # Names in file systems are bytes, so the document is taken as it is and not made printable.
    faults = list(doc.misshapen(found)) or list(_RULE("", found))
    if faults:
        raise _unusable(file, doc.told(faults[: doc.FAULTS_TOLD]))
    target = targets.parse(found["target"])
    return Record(target, *(found[name] for name in Record._fields[1:]))


def _unusable(file: str, why: str) -> FleetError:
    problem = (
        f"{file}: cannot be used: {why}; nothing was changed. It says what was taken off this host: put it right, or"
        " move it away and put things back by hand"
    )
    return FleetError("EF_TAKEOFF_RECORD", problem, file)


def render(record: Record) -> bytes:
    """The bytes of the file."""
    document = {"schema": SCHEMA, **record._asdict(), "target": record.target.text}
    return (json.dumps(document, indent=1, sort_keys=True) + "\n").encode()


def merged(old: Record | None, new: Record) -> Record:
    """The record of a run that goes on where an earlier one ended.

    What the earlier one did stays, to be put back; what it did not do is planned by what is there now.
    """
    fresh = [{**step, "status": PLANNED, "why": ""} for step in new.steps]
    if old is None:
        return new._replace(steps=fresh)
    keys = {step["key"] for step in fresh}
    kept = [_gone_on_with(step) for step in old.steps if step["key"] not in keys and _counts(step)]
    same_boot = new.boot_id is not None and old.boot_id == new.boot_id
    if not same_boot:
        # What was attached ended with the boot; units stay masked, and are started again.
        kept = [step for step in kept if step["do"] in ("stop", "mask")]
    known = {(one["id"], one["tag"]) for one in new.programs}
    programs = [one for one in old.programs if same_boot and (one["id"], one["tag"]) not in known]
    return new._replace(begun=old.begun, programs=programs + new.programs, steps=kept + fresh)


def _counts(step: Step) -> bool:
    """Is it to be put back, or to be done still? What else was planned is planned by what is there now."""
    return step["status"] in (BEGUN, DONE) or (step["do"] in ("stop", "mask") and step["status"] in (PLANNED, FAILED))


def _gone_on_with(step: Step) -> Step:
    """A unit whose stop or mask was interrupted holds nothing any more, and must not be started again all the same."""
    unfinished = step["do"] in ("stop", "mask") and step["status"] != DONE
    return {**step, "status": PLANNED, "why": ""} if unfinished else step


def with_step(record: Record, key: str, status: str, why: str, changed: str) -> Record:
    """The record with what became of one step."""
    steps = [{**step, "status": status, "why": why} if step["key"] == key else step for step in record.steps]
    return record._replace(steps=steps, changed=changed)


def shown(programs: Sequence[Json]) -> list[Json]:
    """What a record keeps of programs."""
    return [{name: one[name] for name in ("id", "tag", "name", "type")} for one in programs]
