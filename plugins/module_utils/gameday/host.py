# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Begin, watch and end one injection on this host.

Everything that is injected is done by the unit of `scripts`: what is killed here, at whatever moment, leaves a record
and perhaps a unit, and the unit ends by itself.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import sys
import time
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, Mapping, NamedTuple

from ansible_collections.ebpf.fleet.plugins.module_utils.base import atomic_files, bounded, waitlock
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError, explain
from ansible_collections.ebpf.fleet.plugins.module_utils.gameday import act, drills, facts, fit, judge, scripts
from ansible_collections.ebpf.fleet.plugins.module_utils.gameday import record as records
from ansible_collections.ebpf.fleet.plugins.module_utils.gameday.record import Record
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout import observation

Json = Mapping[str, Any]
Answer = Dict[str, Any]

LOCK = Path("/run/ebpf-fleet-gameday.lock")
AUDIT = Path("/var/log/ebpf-fleet/audit.jsonl")
AUDIT_BYTES = 8 << 20
CURRENT = Path("/var/lib/ebpf-fleet/current")
LEASE = Path("/etc/ebpf-fleet/lease.json")
USER = "ebpf-fleet"
OBJECT_BYTES = 16 << 20
SECONDS_FOR_LOCK = 30
SECONDS_BETWEEN = 0.5
SCHEMA = "ebpf.fleet/gameday-drill/v1"


class Wish(NamedTuple):
    """What is wanted of this host."""

    drill: str
    id: str
    seconds: int
    check: bool
    folder: Path = Path(scripts.FOLDER)


def read_facts(record: Record | None = None) -> facts.Facts:
    """The host's facts now; with a record, what the audit has since its begin."""
    found = observation.meet_once(observation.Places())
    boot_id = found.seen.get("boot_id") or ""
    codes = facts.codes_since(_audit(), record.begun_boottime_ns, boot_id) if record else {}
    return facts.facts(
        observation.boottime_ns(), found.unit, found.told.status, found.seen, codes, _ended(Path(scripts.FOLDER))
    )


def _audit() -> str:
    """The audit and the file before it, as the loader may have begun a new one; unreadable is nothing told."""
    texts = []
    for path in (AUDIT.with_name(AUDIT.name + ".1"), AUDIT):
        with contextlib.suppress(bounded.BoundedReadError):
            texts.append(bounded.read_text(path, AUDIT_BYTES) or "")
    return "\n".join(texts)


def _ended(folder: Path) -> str | None:
    try:
        found = bounded.read_text(folder / "ended", 64)
    except bounded.BoundedReadError:
        return None
    return None if found is None else found.strip()


def read_record(folder: Path) -> Record | None:
    """The record of this host, or None; FleetError EF_GAMEDAY_RECORD for one that cannot be used."""
    path = folder / "record.json"
    try:
        data = bounded.read_bytes(path, records.BYTES_LIMIT)
    except bounded.BoundedReadError as error:
        raise FleetError("EF_GAMEDAY_RECORD", error.message, str(path)) from error
    return None if data is None else records.parse(data, str(path))


def tell(wish: Wish) -> Answer:
    """Which drills this host may meet, and what of one is there; reads only."""
    record = read_record(wish.folder)
    now = read_facts(record)
    leased, running = LEASE.exists() or LEASE.is_symlink(), act.is_there()
    meets = {name: fit.refusal(one, now, leased, running) for name, one in drills.DRILLS.items()}
    return {**_answer(False, wish, record, now, {}), "meets": meets}


# --- begin -------------------------------------------------------------------------------------


def begin(wish: Wish) -> Answer:
    """Inject it; the same that was begun already is gone on with. FleetError where this host may not take part."""
    drill = drills.drill(wish.drill)
    if wish.check:
        _may(drill, read_record(wish.folder), wish)
        return _answer(True, wish, None, read_facts(), {})
    with _locked():
        old = read_record(wish.folder)
        if old is not None and (old.drill, old.id) == (wish.drill, wish.id):
            return _gone_on_with(wish, old)
        before = _may(drill, old, wish)
        feature = fit.feature_of(drill, before)
        record = Record(wish.drill, wish.id, wish.seconds, observation.boottime_ns(), feature, before)
        _prepare(wish, drill, record)
        act.start()
        return _answer(True, wish, record, before, {})


def _gone_on_with(wish: Wish, old: Record) -> Answer:
    """A begin that was interrupted: the unit is started if it was not, and never a second time."""
    started = act.is_there() or _ended(wish.folder) is not None
    if not started:
        _prepare(wish, drills.drill(old.drill), old)
        act.start()
    return _answer(not started, wish, old, read_facts(old), {})


def _may(drill: drills.Drill, old: Record | None, wish: Wish) -> facts.Facts:
    before = read_facts()
    refused = fit.refusal(drill, before, LEASE.exists() or LEASE.is_symlink(), act.is_there())
    if old is not None and not refused:
        refused = f"the record of {old.drill} ({old.id}) is there still: run gameday with state=ended first"
    if refused:
        raise FleetError("EF_GAMEDAY_UNFIT", f"{wish.drill}: {refused}")
    return before


def _prepare(wish: Wish, drill: drills.Drill, record: Record) -> None:
    """The record first, then what the unit runs; nothing is injected yet."""
    folder = wish.folder
    try:
        atomic_files.make_folder(folder)
        folder.chmod(0o700)
        _write(folder / "record.json", records.render(record))
        host = _host(drill, record)
        if drill.name == "tampered_bundle":
            data = bounded.read_bytes(Path(host.object_path), OBJECT_BYTES) or b""
            _write(folder / "object", scripts.flipped(data), 0o644)
        texts = {"inject.sh": scripts.inject(drill.name, host), "undo.sh": scripts.undo(drill.restarts),
                 "drop-in": scripts.drop_in(drill.name, host), "work.py": scripts.work(drill.name)}  # fmt: skip
        for name, text in texts.items():
            if text:
                _write(folder / name, text.encode(), 0o644)
        _write(Path(scripts.UNIT_FILE), scripts.unit(drill.name, record.seconds).encode(), 0o644)
    except OSError as error:
        raise explain(error, "EF_GAMEDAY_RECORD") from error


def _write(path: Path, data: bytes, mode: int = 0o600) -> None:
    atomic_files.replace_file(path, data, mode, path.parent)


def _host(drill: drills.Drill, record: Record) -> scripts.Host:
    try:
        user = pwd.getpwnam(USER)
    except KeyError as error:
        raise FleetError("EF_GAMEDAY_UNFIT", f"there is no user {USER}; run ebpf.fleet.prepare") from error
    return scripts.Host(sys.executable or scripts.PYTHON, _object(), user.pw_uid, user.pw_gid)


def _object() -> str:
    """The first object of the installed bundle, by its real path."""
    found = sorted(CURRENT.resolve().glob("bundle/**/*.bpf.o"))
    if not found:
        raise FleetError("EF_GAMEDAY_UNFIT", f"{CURRENT}: no object is installed; deploy a release")
    return str(found[0])


# --- watch -------------------------------------------------------------------------------------


def watch(wish: Wish, seconds: float, sleep: Callable[[float], None] = time.sleep) -> Answer:
    """Until all that the drill must show was seen, or for so long; when each sign was first seen is told."""
    record = _needed(wish)
    drill = drills.drill(record.drill)
    signs, seen = judge.wanted(drill), {}
    until = time.monotonic() + seconds
    while True:
        now = read_facts(record)
        feature = judge.watched(drill, record.feature, now)
        at = judge.Moment(drill, feature, record.before, now)
        for sign in signs:
            if sign not in seen and judge.ask(sign, at):
                seen[sign] = now["boottime_ns"]
        if judge.enough(drill, seen) or time.monotonic() >= until:
            return _answer(False, wish, record._replace(feature=feature), now, seen)
        sleep(SECONDS_BETWEEN)


def await_recovery(wish: Wish, record: Record, seconds: float, sleep: Callable[[float], None] = time.sleep) -> Answer:
    """Until everything is as it was before, or for so long."""
    drill = drills.drill(record.drill)
    signs = ["as_before", *(step.sign for step in drill.runbook if step.when == "after")]
    until, seen = time.monotonic() + seconds, {}
    while True:
        now = read_facts(record)
        at = judge.Moment(drill, record.feature, record.before, now)
        seen = {sign: now["boottime_ns"] for sign in signs if judge.ask(sign, at)}
        if len(seen) == len(set(signs)) or time.monotonic() >= until:
            return _answer(False, wish, record, now, seen)
        sleep(SECONDS_BETWEEN)


def _needed(wish: Wish) -> Record:
    record = read_record(wish.folder)
    if record is None or record.id != wish.id:
        raise FleetError("EF_GAMEDAY_RECORD", f"{wish.folder}: there is no record of {wish.drill} ({wish.id})")
    return record


# --- end ---------------------------------------------------------------------------------------


def end(wish: Wish, seconds: float) -> Answer:
    """Take it back, without an id whatever is there, and wait until everything is as before."""
    if not _anything(wish.folder):
        return _answer(False, wish, None, read_facts(), {})
    try:
        record = read_record(wish.folder)
    except FleetError:
        record = None
    if wish.id and (record is None or record.id != wish.id):
        return _answer(False, wish, None, read_facts(), {})
    if wish.check:
        return _answer(True, wish, record, read_facts(record), {})
    with _locked():
        act.stop()
        if _ended(wish.folder) is None:
            act.undo(wish.folder)
        ended = read_facts(record)
        _clean(wish.folder)
    if record is None:
        return _answer(True, wish, None, ended, {})
    after = await_recovery(wish, record, seconds)
    # Who ended it is told by what was there before it was cleaned.
    after["facts"]["ended_by"] = ended["ended_by"]
    return {**after, "changed": True, "ended_boottime_ns": ended["boottime_ns"]}


def _anything(folder: Path) -> bool:
    return folder.exists() or Path(scripts.UNIT_FILE).exists() or Path(scripts.DROP_IN).exists()


def _clean(folder: Path) -> None:
    """The record goes last: whatever is interrupted here is done again."""
    try:
        for path in (Path(scripts.DROP_IN), Path(scripts.UNIT_FILE)):
            atomic_files.remove_tree(path)
        act.reload()
        for path in sorted(folder.glob("*")):
            if path.name != "record.json":
                atomic_files.remove_tree(path)
        shutil.rmtree(folder, ignore_errors=False) if folder.exists() else None
    except OSError as error:
        raise explain(error, "EF_GAMEDAY_RECORD") from error


@contextlib.contextmanager
def _locked() -> Iterator[None]:
    try:
        fd = os.open(LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise explain(error, "EF_GAMEDAY_RECORD") from error
    try:
        if not waitlock.took(fd, SECONDS_FOR_LOCK):
            raise FleetError("EF_GAMEDAY_UNFIT", f"{LOCK}: another run injects on this host; wait for its end")
        yield
    finally:
        os.close(fd)


def _answer(changed: bool, wish: Wish, record: Record | None, now: facts.Facts, seen: Json) -> Answer:
    return {
        "changed": changed,
        "schema": SCHEMA,
        "drill": record.drill if record else wish.drill,
        "id": record.id if record else wish.id,
        "seconds": record.seconds if record else wish.seconds,
        "begun_boottime_ns": record.begun_boottime_ns if record else None,
        "feature": record.feature if record else "",
        "ended_boottime_ns": None,
        "before": dict(record.before) if record else None,
        "facts": now,
        "seen": dict(seen),
        "meets": {},
    }


__all__: list[str] = ["Wish", "begin", "end", "read_facts", "watch"]
