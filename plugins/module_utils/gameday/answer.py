# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the module gameday_drill of a host may answer; nothing else of it is believed. Pure."""

from __future__ import annotations

from typing import Any, Mapping

from ansible_collections.ebpf.fleet.plugins.module_utils.base import host_document as doc
from ansible_collections.ebpf.fleet.plugins.module_utils.gameday import drills, facts, judge

SCHEMA = "ebpf.fleet/gameday-drill/v1"
_TIME = doc.whole(null=True)
_RULE = doc.record(
    {
        "schema": doc.word(SCHEMA),
        "drill": doc.word("", *drills.DRILLS),
        "id": doc.text(64, r"[A-Za-z0-9._-]*"),
        "seconds": doc.whole(0, 600),
        "begun_boottime_ns": _TIME,
        "ended_boottime_ns": _TIME,
        "feature": doc.text(128, r"[A-Za-z0-9_.-]*"),
        "before": lambda field, value: iter(()) if value is None else facts.RULE(field, value),
        "facts": facts.RULE,
        "seen": doc.table(doc.whole(), r"[a-z_]{1,40}", len(judge.SIGNS)),
        "meets": doc.table(doc.text(1000), r"[a-z_]{1,40}", len(drills.DRILLS)),
    },
    ("schema", "drill", "id", "seconds", "begun_boottime_ns", "ended_boottime_ns", "feature", "before", "facts", "seen",
     "meets"),
)  # fmt: skip


def read(host: str, answer: Mapping[str, Any]) -> tuple[Any, str]:
    """(the document or None, why it is not believed or an empty text)."""
    judged = doc.usable({name: one for name, one in answer.items() if name in _NAMES}, _RULE)
    if judged.document is None:
        return None, doc.no_usable_answer(host, judged.faults)
    return judged.document, ""


_NAMES = ("schema", "drill", "id", "seconds", "begun_boottime_ns", "ended_boottime_ns", "feature", "before", "facts",
          "seen", "meets")  # fmt: skip
