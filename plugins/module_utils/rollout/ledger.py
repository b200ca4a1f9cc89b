# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The ledger of rollouts: lines of canonical JSON, each of which names the SHA-256 of the line before it. Pure.

A line that was changed, taken out, put in or moved breaks the chain at that place. The head, a document of its own,
says how far the ledger had come when a line was last written whole: with it a cut end is seen, and a line that a
crash tore while it was written is told apart from one that was spoiled later. Who can write both files can forge
both: what must be proof against the controller's own root goes through a hook to another place.
"""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any, Iterator, Mapping, NamedTuple

from ansible_collections.ebpf.fleet.plugins.module_utils.base import strictjson
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import OneCodeError
from ansible_collections.ebpf.fleet.plugins.module_utils.base.printable import printable

SCHEMA = "ebpf.fleet/ledger/v1"
HEAD_SCHEMA = "ebpf.fleet/ledger-head/v1"
# What the first line names as the line before it.
GENESIS = "0" * 64

STARTED, BATCH_BEGUN, OBSERVED, VERDICT, ACTION = "started", "batch_begun", "observed", "verdict", "action"
PAUSED, RESUMED, ABORTED, ENDED = "paused", "resumed", "aborted", "ended"
HOOK_FAILED, REPAIRED = "hook_failed", "repaired"
PROMOTED, ROLLED_BACK, HELD, CONFIRMED, QUARANTINED, LIFTED = (
    "promoted", "rolled_back", "held", "confirmed", "quarantined", "lifted",
)  # fmt: skip

# {kind: what its data has, whatever else it has}.
KINDS: Mapping[str, tuple[str, ...]] = {
    STARTED: ("who", "bundle", "bundle_digest", "plan", "plan_digest"),
    BATCH_BEGUN: ("number", "stage", "hosts"),
    OBSERVED: ("number", "when", "digests", "running"),
    VERDICT: ("number", "verdict", "sentence", "checks_digest", "reasons"),
    ACTION: ("action",),
    PAUSED: ("who", "before_batch"),
    RESUMED: ("who", "done", "remaining"),
    ABORTED: ("who",),
    ENDED: ("outcome", "sentence"),
    HOOK_FAILED: ("hook", "kind", "why"),
    REPAIRED: ("bytes", "digest"),
}
ACTIONS = (PROMOTED, ROLLED_BACK, HELD, CONFIRMED, QUARANTINED, LIFTED)
# What hooks may ask for: a kind, or one kind of action. The others are of the ledger itself.
TOLD = tuple(one for one in (*KINDS, *ACTIONS) if one not in (HOOK_FAILED, REPAIRED, LIFTED))

_FIELDS = {"schema", "sequence", "previous", "time", "rollout", "kind", "data"}
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", re.ASCII)
_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)


class LedgerBrokenError(OneCodeError):
    """The ledger is not what was written; the message says where that shows first."""

    code = "EF_LEDGER_BROKEN"


class Entry(NamedTuple):
    """One line: `sequence` counts from 1 over the whole file, `time` is RFC 3339 in UTC with microseconds."""

    sequence: int
    previous: str
    time: str
    rollout: str
    kind: str
    data: Mapping[str, Any]


class Head(NamedTuple):
    """The last line that is known to have been written whole."""

    sequence: int
    digest: str


class Verified(NamedTuple):
    """What a ledger holds up to the first fault.

    `broken_line` counts from 1 and is None of a sound ledger; `fault` says what is wrong there. `torn` are the bytes
    of a last line that a crash cut short; they break nothing.
    """

    entries: list[Entry]
    broken_line: int | None
    fault: str
    torn: bytes


def line_of(entry: Entry) -> bytes:
    """The line with its end: ASCII, sorted keys, no white space, integers only."""
    document = {"schema": SCHEMA, **entry._asdict()}
    _refuse_floats(document["data"])
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return text.encode("ascii") + b"\n"


def digest_of(line: bytes) -> str:
    """SHA-256 of a line without its end, in hex: what the next line names."""
    return hashlib.sha256(line.rstrip(b"\n")).hexdigest()


def digest_of_document(value: Any) -> str:
    """SHA-256 of any JSON value, sorted keys and no white space; fractions are as Python writes them."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, default=str)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def render_document(document: Mapping[str, Any]) -> bytes:
    """A small document of the ledger's folder, one line."""
    return (json.dumps(dict(document), sort_keys=True, separators=(",", ":"), ensure_ascii=True) + "\n").encode("ascii")


def next_entry(head: Head | None, time: str, rollout: str, kind: str, data: Mapping[str, Any]) -> Entry:
    """The entry that comes after the head; raises ValueError for one that is not of its kind."""
    fault = fault_of(kind, data)
    if fault:
        raise ValueError(fault)
    if not _TIME.fullmatch(time):
        raise ValueError(f"time {time!r} is not RFC 3339 in UTC with microseconds")
    sequence, previous = (head.sequence, head.digest) if head else (0, GENESIS)
    return Entry(sequence + 1, previous, time, rollout, kind, data)


def fault_of(kind: str, data: Mapping[str, Any]) -> str:
    """What speaks against such an entry; empty where nothing does."""
    if kind not in KINDS:
        return f"kind {kind!r} is not known"
    missing = [name for name in KINDS[kind] if name not in data]
    if missing:
        return f"{kind} lacks {', '.join(missing)}"
    if kind == ACTION and data["action"] not in ACTIONS:
        return f"action {data['action']!r} is not known"
    return ""


def _refuse_floats(value: Any) -> None:
    if isinstance(value, float):
        raise ValueError(f"holds the number {value}, but only integers are allowed")
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, (list, tuple)) else ():
        _refuse_floats(inner)


# --- reading -----------------------------------------------------------------------------------


def parse_line(line: bytes) -> Entry:
    """The entry of a line without its end; ValueError with the fault for what is not one in its one form."""
    document = strictjson.parse(line)
    if not isinstance(document, dict) or set(document) != _FIELDS:
        raise ValueError("has not the fields of an entry")
    if document.pop("schema") != SCHEMA:
        raise ValueError(f"is not of schema {SCHEMA}")
    entry = Entry(**document)
    for name, kind in (("sequence", int), ("rollout", str), ("kind", str), ("data", dict)):
        value = getattr(entry, name)
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ValueError(f"{name} is not what it must be")
    if not isinstance(entry.previous, str) or not _DIGEST.fullmatch(entry.previous):
        raise ValueError("previous is not a SHA-256")
    if not isinstance(entry.time, str) or not _TIME.fullmatch(entry.time):
        raise ValueError("time is not RFC 3339 in UTC with microseconds")
    fault = fault_of(entry.kind, entry.data)
    if fault:
        raise ValueError(fault)
    if line_of(entry) != line + b"\n":
        raise ValueError("is not in canonical form")
    return entry


def verify(data: bytes, head: Head | None = None, base: Head | None = None) -> Verified:
    """Read a ledger and hold each line against the one before it, and the last ones against the head.

    Without a head, which a ledger of one torn line has not yet, a cut end cannot be seen. `base` is the line before
    the first one, where older lines are in sealed files and `data` has none of them.
    """
    lines = data.split(b"\n")
    torn = lines.pop()
    entries: list[Entry] = []
    last = base
    for number, line in enumerate(lines, 1):
        try:
            entry = parse_line(line)
            _refuse_wrong_place(entry, last)
            last = Head(entry.sequence, digest_of(line))
            _refuse_other_than(head, last)
        except ValueError as error:
            return Verified(entries, number, printable(error), b"")
        entries.append(entry)
    written, found = head.sequence if head else 0, last.sequence if last else 0
    if written > found:
        fault = f"the head says that line {written} was written, and the ledger ends before this one"
        return Verified(entries, len(entries) + 1, fault, b"")
    return Verified(entries, None, "", torn)


def _refuse_wrong_place(entry: Entry, last: Head | None) -> None:
    sequence, previous = (last.sequence, last.digest) if last else (0, GENESIS)
    if entry.sequence != sequence + 1:
        raise ValueError(f"has sequence {entry.sequence} where {sequence + 1} belongs")
    if entry.previous != previous:
        raise ValueError("does not name the line before it")


def _refuse_other_than(head: Head | None, last: Head) -> None:
    if head and head.sequence == last.sequence and head.digest != last.digest:
        raise ValueError("is another line than the head says was written")


def sentence_of(found: Verified) -> str:
    """What verifying found, for a person."""
    if found.broken_line is not None:
        return f"the chain is broken at line {found.broken_line}: {found.fault}"
    torn = f"; the last line was torn by a crash ({len(found.torn)} bytes) and counts for nothing" if found.torn else ""
    return f"the chain of {len(found.entries)} lines is sound{torn}"


# --- the end of the file, for the next line ------------------------------------------------------


class Tail(NamedTuple):
    """What the next line comes after: the last whole line's place in the chain, and bytes that a crash left."""

    head: Head | None
    torn: bytes


def tail_of(data: bytes, head: Head | None, base: Head | None = None) -> Tail:
    """The end of a ledger; `data` are its last bytes from the begin of a line on, one whole line at least.

    `base` is the last line of the sealed files before it. Raises LedgerBrokenError where the last line, or a line
    that the head knows, is not there as it was written.
    """
    whole, _end, torn = data.rpartition(b"\n")
    line = whole.rpartition(b"\n")[2]
    if not line:
        if head is not None and head != base:
            raise LedgerBrokenError(f"the ledger has no line, and its head says that line {head.sequence} was written")
        return Tail(base, torn)
    try:
        entry = parse_line(line)
        last = Head(entry.sequence, digest_of(line))
        _refuse_other_than(head, last)
    except ValueError as error:
        raise LedgerBrokenError(f"the ledger's last line: {printable(error)}") from error
    if head is not None and head.sequence > last.sequence:
        problem = f"the ledger ends with line {last.sequence}, and its head says that line {head.sequence} was written"
        raise LedgerBrokenError(problem)
    return Tail(last, torn)


# --- sealed files ------------------------------------------------------------------------------

_SEALED = re.compile(r"(\d{9,})-(\d{9,})\.jsonl", re.ASCII)


def sealed_name(first: int, last: int) -> str:
    """The name of a file with the lines of these sequences; names sort as the lines do."""
    return f"{first:09}-{last:09}.jsonl"


def sealed_range(name: str) -> tuple[int, int] | None:
    """(first, last) sequence of a sealed file by its name; None for another file."""
    found = _SEALED.fullmatch(name)
    return (int(found[1]), int(found[2])) if found else None


def base_of(line: bytes, last: int) -> Head:
    """The place in the chain of a sealed file's last line, which must be of the sequence that its name says."""
    try:
        entry = parse_line(line)
        if entry.sequence != last:
            raise ValueError(f"has sequence {entry.sequence} where its name says {last}")
    except ValueError as error:
        raise LedgerBrokenError(f"the last line of a sealed ledger: {printable(error)}") from error
    return Head(entry.sequence, digest_of(line))


def before_first(data: bytes) -> Head | None:
    """The line before a ledger's first one, as that names it; None where that is the first of all, or is not one."""
    try:
        entry = parse_line(data.partition(b"\n")[0])
    except ValueError:
        return None
    return Head(entry.sequence - 1, entry.previous) if entry.sequence > 1 else None


# --- the head ----------------------------------------------------------------------------------


def render_head(head: Head) -> bytes:
    """The head's document, one line."""
    return render_document({"schema": HEAD_SCHEMA, **head._asdict()})


def parse_head(data: bytes) -> Head:
    """The head of its document; LedgerBrokenError for anything else."""
    try:
        document = strictjson.parse(data)
        good = set(document) == {"schema", "sequence", "digest"} and document["schema"] == HEAD_SCHEMA
        head = Head(document["sequence"], document["digest"])
        good = good and isinstance(head.sequence, int) and head.sequence > 0 and bool(_DIGEST.fullmatch(head.digest))
    except (ValueError, TypeError, KeyError) as error:
        raise LedgerBrokenError(f"the head of the ledger: {printable(error)}") from error
    if not good:
        raise LedgerBrokenError("the head of the ledger is not one")
    return head


def of_rollout(entries: list[Entry], rollout: str) -> Iterator[Entry]:
    """The entries of one rollout, in their sequence."""
    return (one for one in entries if one.rollout == rollout)
