# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host's inventory must be before it is counted or kept; and a fleet's, before it is compared with. Pure.

The formats are in docs/formats/bpf-inventory.md and docs/formats/inventory.md.
"""

from __future__ import annotations

from typing import Any, Mapping, NamedTuple

from ansible_collections.ebpf.fleet.plugins.module_utils.base import host_document as doc
from ansible_collections.ebpf.fleet.plugins.module_utils.base.printable import printable
from ansible_collections.ebpf.fleet.plugins.module_utils.inventory.host import SCHEMA

Json = Mapping[str, Any]

FLEET_SCHEMA = "ebpf.fleet/inventory/v1"
OWNER_KINDS = ("unit", "container", "process", "several", "software", "unknown")
SOURCES = ("link", "netlink", "query", "perf_event", "map", "guess")
_REASON_LIMIT = 300

_TIME = doc.text(32, r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}Z")
_TIME_OR_NULL = doc.text(32, r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}Z", null=True)
_ID = doc.whole(0, 2**32 - 1)
_ID_OR_NULL = doc.whole(0, 2**32 - 1, null=True)
_NAME = doc.text(256)
_NAME_OR_NULL = doc.text(4096, null=True)
_COUNT_OR_NULL = doc.whole(null=True)
_OWNER_FIELDS = {"kind": doc.word(*OWNER_KINDS), "name": doc.text(1024, null=True), "guess": doc.truth(),
                 "why": doc.text()}  # fmt: skip
OWNER = doc.record(_OWNER_FIELDS, tuple(_OWNER_FIELDS))


def _whole_record(fields: Mapping[str, doc.Rule]) -> doc.Rule:
    """A record whose every field must be there."""
    return doc.record(fields, tuple(fields))


_PROGRAM = _whole_record(
    {
        "id": _ID,
        "name": doc.text(64),
        "tag": doc.text(16, r"[0-9a-f]{16}"),
        "type": doc.text(64),
        "ours": doc.truth(),
        "run_time_ns": _COUNT_OR_NULL,
        "run_cnt": _COUNT_OR_NULL,
        "memory_bytes": _COUNT_OR_NULL,
        "map_ids": doc.many(_ID, 256),
        "uid": _ID,
        "user": _NAME_OR_NULL,
        "load_time_ns": _COUNT_OR_NULL,
        "loaded_at": _TIME_OR_NULL,
        "jited": doc.truth(),
        "points": doc.many(doc.text(4096), 4096),
        "holders": doc.many(_whole_record({"pid": _ID, "by": doc.many(_NAME, 8)}), 4096),
        "pins": doc.many(doc.text(4096), 4096),
        "owner": OWNER,
    }
)
_MAP = _whole_record(
    {"id": _ID, "name": doc.text(64), "type": doc.text(64), "max_entries": _ID, "memory_bytes": _COUNT_OR_NULL,
     "key_bytes": _ID, "value_bytes": _ID, "pids": doc.many(_ID, 4096)}
)  # fmt: skip
_LINK = _whole_record(
    {"id": _ID, "type": doc.text(64), "program_id": _ID, "hook": doc.text(64), "target": _NAME_OR_NULL,
     "mode": _NAME_OR_NULL, "attached": doc.truth(null=True)}
)  # fmt: skip
_PIN = _whole_record(
    {"path": doc.text(4096), "kind": doc.word("program", "map", "link"), "id": _ID, "uid": _ID,
     "time_unix_ns": doc.whole(), "time": _TIME}
)  # fmt: skip
_ATTACHMENT = _whole_record(
    {"program_id": _ID, "hook": doc.text(64), "target": _NAME_OR_NULL, "point": doc.text(4096), "mode": _NAME_OR_NULL,
     "decides": doc.truth(), "netns": doc.whole(null=True), "link_id": _ID_OR_NULL, "map_id": _ID_OR_NULL,
     "source": doc.word(*SOURCES)}
)  # fmt: skip
_PROCESS = _whole_record(
    {"pid": _ID, "comm": _NAME_OR_NULL, "exe": _NAME_OR_NULL, "uid": _ID_OR_NULL, "cgroup": _NAME_OR_NULL,
     "unit": _NAME_OR_NULL, "container": _NAME_OR_NULL}
)  # fmt: skip
_NAMESPACE = _whole_record(
    {"inode": doc.whole(), "name": _NAME_OR_NULL, "pid": _ID_OR_NULL, "own": doc.truth(), "asked": doc.truth()}
)
HOST = _whole_record(
    {
        "schema": doc.word(SCHEMA),
        "time": _TIME,
        "kernel": doc.text(65),
        "boot_id": doc.text(64, null=True),
        "privileged": doc.truth(),
        "stats": doc.record({"answer": doc.word("yes", "no", "unknown"), "evidence": doc.text()}, ("answer",)),
        "programs": doc.many(_PROGRAM, null=True),
        "maps": doc.many(_MAP, null=True),
        "links": doc.many(_LINK, null=True),
        "pins": doc.many(_PIN),
        "attachments": doc.many(_ATTACHMENT),
        "processes": doc.table(_PROCESS, r"[0-9]{1,10}"),
        "network_namespaces": doc.many(_NAMESPACE),
        "evidence": doc.text(),
        "unknown": doc.many(doc.text()),
    }
)
_RESULT = doc.record({"inventory": HOST}, ("inventory",))
_HOSTS = doc.many(doc.text(300), 100_000)
_WORDS = doc.many(_NAME_OR_NULL)
_GROUP = _whole_record(
    {"owner_kind": doc.word(*OWNER_KINDS), "owner": _NAME_OR_NULL, "guess": doc.truth(), "ours": doc.truth(),
     "point": doc.text(4096), "hosts": _HOSTS, "programs": doc.whole(), "names": _WORDS, "types": _WORDS,
     "tags": _WORDS, "run_time_ns": _COUNT_OR_NULL, "run_cnt": _COUNT_OR_NULL, "memory_bytes": _COUNT_OR_NULL,
     "unmeasured": doc.whole()}
)  # fmt: skip
_CONFLICT = _whole_record(
    {
        "kind": doc.text(64),
        "point": doc.text(4096),
        "sentence": doc.text(100_000),
        "guess": doc.truth(),
        "hosts": _HOSTS,
    }
)
_CHANGED = _whole_record(
    {"owner_kind": doc.word(*OWNER_KINDS), "owner": _NAME_OR_NULL, "name": doc.text(64), "type": doc.text(64),
     "tag": doc.text(16), "points": _WORDS, "programs": doc.whole(), "hosts": _HOSTS}
)  # fmt: skip
_REASONS = doc.table(doc.text(null=True), limit=100_000)
_CHANGES = _whole_record(
    {
        "since": _TIME_OR_NULL,
        "new": doc.many(_CHANGED),
        "gone": doc.many(_CHANGED),
        "replaced_xdp": doc.many(_whole_record({"sentence": doc.text(100_000), "hosts": _HOSTS})),
        "not_compared": _REASONS,
        "unsure": _REASONS,
    }
)
_FLEET = _whole_record(
    {
        "schema": doc.word(FLEET_SCHEMA),
        "time": _TIME_OR_NULL,
        "groups": doc.many(_GROUP, 1_000_000),
        "conflicts": doc.many(_CONFLICT, 1_000_000),
        "changes": _CHANGES,
        "incomplete": doc.table(doc.many(doc.text(100_000)), limit=100_000),
        "silent": _HOSTS,
        "silent_reasons": _REASONS,
    }
)


class Answer(NamedTuple):
    """A host's inventory, printable, or None and the sentence why there is none."""

    inventory: dict[str, Any] | None
    problem: str | None


def read(host: str, result: Any) -> Answer:
    """What the result of `bpf_inventory_info` on `host` is worth; raises for nothing that a host can say."""
    if not isinstance(result, Mapping):
        return Answer(None, doc.no_usable_answer(host, [doc.Fault("the answer", "is not a mapping")]))
    if not result.get("inventory"):
        return Answer(None, _silence(result))
    judged = doc.usable({"inventory": result["inventory"]}, _RESULT)
    if judged.faults:
        return Answer(None, doc.no_usable_answer(host, judged.faults))
    return Answer(judged.document["inventory"], None)


def _silence(result: Json) -> str | None:
    """What Ansible reported of a host that gave no answer, in one line; None where it reported nothing."""
    told = result.get("msg")
    words = " ".join(told.split()) if isinstance(told, str) else ""
    kind = "unreachable" if result.get("unreachable") else "failed" if result.get("failed") else None
    # ssh says what went wrong last, after its warnings.
    shown = printable(words if len(words) <= _REASON_LIMIT else f"… {words[-_REASON_LIMIT:]}", _REASON_LIMIT + 10)
    return ": ".join(one for one in (kind, shown) if one) or None


def fleet_faults(document: Any) -> str | None:
    """Why a fleet's inventory cannot be compared with, in one line that names host and field; None if it can."""
    if not isinstance(document, Mapping) or not isinstance(document.get("hosts"), Mapping):
        return "it has no hosts"
    for name, host in document["hosts"].items():
        judged = doc.usable(host, HOST)
        if judged.faults:
            return f"host {printable(name, 100)}: {doc.told(judged.faults)}"
    faults = [one for _turn, one in zip(range(doc.FAULTS_TOLD), _FLEET("", document))]
    return doc.told(faults) if faults else None
