# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The record of an injection on a host: written before anything is injected, and what `ended` goes by. Pure.

The format is in docs/formats/gameday-record.md.
"""

from __future__ import annotations

import json
from typing import Any, Mapping, NamedTuple

from ansible_collections.ebpf.fleet.plugins.module_utils.base import bounded
from ansible_collections.ebpf.fleet.plugins.module_utils.base import host_document as doc
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.gameday import drills, facts

SCHEMA = "ebpf.fleet/gameday-record/v1"
BYTES_LIMIT = 256 * 1024
LEAST_SECONDS, MOST_SECONDS = 30, 600

_RULE = doc.record(
    {
        "schema": doc.word(SCHEMA),
        "drill": doc.word(*drills.DRILLS),
        "id": doc.text(64, r"[A-Za-z0-9._-]{1,64}"),
        "seconds": doc.whole(LEAST_SECONDS, MOST_SECONDS),
        "begun_boottime_ns": doc.whole(),
        "feature": doc.text(128, r"[A-Za-z0-9_.-]*"),
        "before": facts.RULE,
    },
    ("schema", "drill", "id", "seconds", "begun_boottime_ns", "feature", "before"),
)


class Record(NamedTuple):
    """`before` are the host's facts as they were; `feature` is the one that is watched, or empty."""

    drill: str
    id: str
    seconds: int
    begun_boottime_ns: int
    feature: str
    before: Mapping[str, Any]


def render(record: Record) -> bytes:
    """The bytes of the file."""
    return (json.dumps({"schema": SCHEMA, **record._asdict()}, sort_keys=True) + "\n").encode()


def parse(data: bytes, file: str) -> Record:
    """A record that `render` wrote; FleetError EF_GAMEDAY_RECORD for anything else."""
    try:
        found = bounded.parse_json(data)
    except ValueError as error:
        raise _unusable(file, str(error)) from error
    faults = list(doc.misshapen(found)) or list(_RULE("", found))
    if faults:
        raise _unusable(file, doc.told(faults[: doc.FAULTS_TOLD]))
    return Record(*(found[name] for name in Record._fields))


def _unusable(file: str, why: str) -> FleetError:
    problem = f"{file}: cannot be used: {why}; run gameday with state=ended, which takes back whatever it was of"
    return FleetError("EF_GAMEDAY_RECORD", problem, file)
