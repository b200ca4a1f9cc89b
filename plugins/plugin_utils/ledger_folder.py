# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The folder of a fleet's ledger on the controller: its files, under one flock(2), each write on disk before it counts.

ledger.jsonl    the end of the chain; head.json how far it had come; torn.log what crashes left of lines
sealed/         the chain before that, a file of some SEAL_BYTES each, which nothing writes again
rollout.lock    who runs a rollout now; requests/ what people asked of it
quarantine.json releases that may not go to a kind of host
"""

from __future__ import annotations

import contextlib
import datetime
import errno
import fcntl
import getpass
import os
import platform
from pathlib import Path

from ansible_collections.ebpf.fleet.plugins.module_utils.base import atomic_files, strictjson
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.base.printable import printable
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout import ledger, ledger_lock, quarantine

BLOCK = 1 << 16
# A ledger of this size is sealed before the next rollout: every rollout reads the whole of its file some times.
SEAL_BYTES = 32 << 20
REQUESTS = ("pause", "abort", "promote")
# So that a sentence that a host told fills neither the ledger nor a screen.
TEXT_LIMIT = 2000


def default_folder(environment):
    """The one folder of this user for fleets that do not name theirs."""
    state = environment.get("XDG_STATE_HOME") or ""
    if not os.path.isabs(state):
        state = os.path.join(os.path.expanduser("~"), ".local", "state")
    return os.path.join(state, "ebpf-fleet")


def folder_of(given, environment):
    """The folder that a variable means: a relative path is meant from where the command was typed."""
    if not given:
        return Path(default_folder(environment))
    return Path(environment.get("PWD", os.getcwd())) / os.path.expanduser(given)


def now():
    """The time as entries have it."""
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def owner_of(pid, environment, since):
    """The process as an owner of the lock."""
    ticks = ticks_of(pid)
    if ticks is None:
        raise FleetError("EF_LEDGER", f"process {pid}, which runs this play, cannot be seen in /proc; mount it")
    name = ledger_lock.person(environment, getpass.getuser())
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return ledger_lock.Owner(name, platform.node(), boot, os.readlink("/proc/self/ns/pid"), pid, ticks, since)


def ticks_of(pid):
    """When a living process started, in clock ticks since boot; None without one."""
    try:
        return ledger_lock.ticks_of(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return None


class Folder:
    """Everything in the folder, while nothing else writes there. Use it as a context; FleetError says what is wrong.

    With `writes` false nothing is made there and no one is waited for: what is read may be a line behind.
    """

    def __init__(self, path, writes=True):
        self.path = Path(path)
        self.writes = writes
        self.ledger = self.path / "ledger.jsonl"
        self.sealed = self.path / "sealed"
        self.head = self.path / "head.json"
        self.torn = self.path / "torn.log"
        self.lock = self.path / "rollout.lock"
        self.requests = self.path / "requests"
        self.quarantine = self.path / "quarantine.json"
        self._guard = None

    def __enter__(self):
        if not self.writes:
            return self
        with refused(self.path):
            for folder in (self.path, self.requests):
                folder.mkdir(mode=0o750, parents=True, exist_ok=True)
            self._guard = os.open(self.path / ".guard", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
            fcntl.flock(self._guard, fcntl.LOCK_EX)
        return self

    def __exit__(self, *_error):
        if self.writes:
            os.close(self._guard)

    # --- the ledger ---

    def append(self, rollout, kind, data):
        """Write one entry, on disk when this returns. What a crash left of a line is kept aside first."""
        with refused(self.ledger):
            tail = self._tail()
            head = self._set_aside(tail) if tail.torn else tail.head
            return self._write(head, rollout, kind, data)

    def _write(self, head, rollout, kind, data):
        try:
            entry = ledger.next_entry(head, now(), rollout, kind, data)
            line = ledger.line_of(entry)
        except ValueError as error:
            raise FleetError("EF_LEDGER", f"an entry for the ledger: {printable(error)}") from error
        new = not self.ledger.exists()
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        fd = os.open(self.ledger, flags, 0o640)
        try:
            whole = os.fstat(fd).st_size
            written = os.write(fd, line)
            if written != len(line):
                # A full disk: half a line is worse than none.
                os.ftruncate(fd, whole)
                raise FleetError("EF_DISK_FULL", f"{self.ledger}: no space is left; make room on that file system")
            os.fsync(fd)
        finally:
            os.close(fd)
        if new:
            atomic_files.sync_folder(self.path)
        atomic_files.replace_file(
            self.head, ledger.render_head(ledger.Head(entry.sequence, ledger.digest_of(line))), 0o640, self.path
        )
        return entry

    def _set_aside(self, tail):
        """Keep the bytes of a torn line, take them off the ledger, and say so in it."""
        fd = os.open(self.torn, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
        try:
            os.write(fd, tail.torn + b"\n")
            os.fsync(fd)
        finally:
            os.close(fd)
        atomic_files.sync_folder(self.path)
        fd = os.open(self.ledger, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            os.ftruncate(fd, os.fstat(fd).st_size - len(tail.torn))
            os.fsync(fd)
        finally:
            os.close(fd)
        data = {"bytes": len(tail.torn), "digest": ledger.digest_of(tail.torn)}
        entry = self._write(tail.head, "", ledger.REPAIRED, data)
        return ledger.Head(entry.sequence, ledger.digest_of(ledger.line_of(entry)))

    def _tail(self):
        """The end of the ledger, read from its end: as much as holds one whole line and what comes after it."""
        head = self._head()
        data = last_bytes(self.ledger) if self.ledger.exists() else b""
        return ledger.tail_of(data, head, None if b"\n" in data else self._base(self._sealed_files()))

    def _head(self):
        return ledger.parse_head(self.head.read_bytes()) if self.head.exists() else None

    def read(self):
        """ledger.jsonl, verified behind what is sealed; a broken one is not an error here."""
        head, files, data = self._seen()
        return ledger.verify(data, head, self._base(files))

    def read_all(self):
        """What is sealed and ledger.jsonl, verified as one chain, from the oldest file that is still here."""
        head, files, data = self._seen()
        with refused(self.sealed):
            data = b"".join([*(path.read_bytes() for _range, path in files), data])
        # Who keeps old files elsewhere has taken the first ones out.
        return ledger.verify(data, head, ledger.before_first(data) if files else None)

    def _seen(self):
        """(the head, the sealed files, ledger.jsonl), of one moment as far as sealing goes."""
        with refused(self.ledger):
            while True:
                files = self._sealed_files()
                # First the head: a line that is written meanwhile is one more, not one too few.
                head = self._head()
                data = self.ledger.read_bytes() if self.ledger.exists() else b""
                # Who only reads is not locked out while a rollout seals; nothing is sealed twice in a moment.
                if files == self._sealed_files():
                    return head, files, data

    def entries(self, rollout=""):
        """Every entry of ledger.jsonl, or of all files where the rollout began in a sealed one.

        EF_LEDGER_BROKEN where the chain is.
        """
        found = self.read()
        begun = any(one.kind == ledger.STARTED and one.rollout == rollout for one in found.entries)
        if rollout and not begun and found.broken_line is None:
            found = self.read_all()
        if found.broken_line is not None:
            raise ledger.LedgerBrokenError(broken(self.ledger, found), str(self.ledger))
        return found.entries

    # --- sealed files ---

    def seal(self, least=SEAL_BYTES):
        """Put ledger.jsonl to the sealed files where it is so large; it must be sound. Returns the file's path or None.

        The rename is the one step: before it nothing has changed, and after it the chain goes on behind that file.
        """
        with refused(self.ledger):
            if not self.ledger.exists() or self.ledger.stat().st_size < max(1, least):
                return None
            tail = self._tail()
            if tail.torn:
                return None
            with open(self.ledger, "rb") as file:
                first = ledger.parse_line(file.readline().rstrip(b"\n")).sequence
            self.sealed.mkdir(mode=0o750, exist_ok=True)
            place = self.sealed / ledger.sealed_name(first, tail.head.sequence)
            os.rename(self.ledger, place)
            os.chmod(place, 0o440)
            atomic_files.sync_folder(self.sealed)
            atomic_files.sync_folder(self.path)
            return place

    def _sealed_files(self):
        """[((first, last), path)] in the sequence of their lines."""
        if not self.sealed.is_dir():
            return []
        named = ((ledger.sealed_range(path.name), path) for path in self.sealed.iterdir())
        return sorted(one for one in named if one[0] is not None)

    def _base(self, files):
        """The last line of the sealed files; None where there are none."""
        if not files:
            return None
        (_first, last), path = files[-1]
        with refused(path):
            try:
                return ledger.base_of(last_bytes(path).rstrip(b"\n").rpartition(b"\n")[2], last)
            except ledger.LedgerBrokenError as error:
                problem = f"{path}: {error}; find out who wrote there, keep {self.sealed}, ledger.jsonl and head.json"
                raise ledger.LedgerBrokenError(
                    f"{problem}, and put them elsewhere: the next rollout begins a new ledger", str(path)
                ) from error

    # --- the lock ---

    def owner(self):
        """Who holds the lock; None where it is free."""
        with refused(self.lock):
            if not self.lock.exists():
                return None
            found = ledger_lock.parse(self.lock.read_bytes())
        if found is None:
            problem = f"{self.lock}: is not a lock, so no one knows whether a rollout runs; remove it when you know"
            raise FleetError("EF_ROLLOUT_RUNNING", problem, str(self.lock))
        return found

    def held_by(self, here):
        """(the owner or None, MINE, HELD, STALE or an empty text where the lock is free)."""
        found = self.owner()
        return (None, "") if found is None else (found, ledger_lock.judge(found, here, ticks_of(found.pid)))

    def runs(self, here, rollout):
        """Whether the process that holds the lock for this rollout lives, as far as can be known here."""
        found, state = self.held_by(here)
        return found is not None and state != ledger_lock.STALE and found.rollout == rollout

    def take(self, here):
        """Take the lock for a process; returns the owner whose lock was stale, or None.

        FleetError EF_ROLLOUT_RUNNING names who holds it.
        """
        found, state = self.held_by(here)
        if state == ledger_lock.HELD:
            raise FleetError("EF_ROLLOUT_RUNNING", running(found, here, self.lock), str(self.lock))
        self._put(here)
        return found if state == ledger_lock.STALE else None

    def name(self, here, rollout):
        """Write into one's own lock which rollout it is for."""
        self._put(here._replace(rollout=rollout))

    def _put(self, owner):
        with refused(self.lock):
            atomic_files.replace_file(self.lock, ledger_lock.render(owner), 0o640, self.path)

    def release(self, here):
        """Give one's own lock back; that of another stays."""
        if self.held_by(here)[1] == ledger_lock.MINE:
            with refused(self.lock):
                self.lock.unlink()
                atomic_files.sync_folder(self.path)

    # --- requests ---

    def ask(self, rollout, request, document):
        """Leave a person's wish for a rollout; it is honoured at the rollout's next step."""
        data = ledger.render_document(document)
        with refused(self.requests):
            atomic_files.replace_file(self.requests / f"{rollout}.{request}", data, 0o640, self.requests)

    def asked(self, rollout, request):
        """What a person asked for, or None."""
        path = self.requests / f"{rollout}.{request}"
        with refused(path):
            if not path.exists():
                return None
            try:
                found = strictjson.parse(path.read_bytes())
            except ValueError:
                found = None
        # A file that someone made by hand is a wish too.
        return found if isinstance(found, dict) else {}

    def forget(self, rollout, *requests):
        """Take wishes back that were honoured, or that no longer mean anything."""
        with refused(self.requests):
            for one in requests or REQUESTS:
                (self.requests / f"{rollout}.{one}").unlink(missing_ok=True)

    # --- the quarantine ---

    def quarantined(self):
        """The entries of the quarantine."""
        with refused(self.quarantine):
            return quarantine.parse(self.quarantine.read_bytes()) if self.quarantine.exists() else []

    def put_quarantine(self, entries):
        """Replace the quarantine."""
        with refused(self.quarantine):
            atomic_files.replace_file(self.quarantine, quarantine.render(entries), 0o644, self.path)


def last_bytes(path):
    """The end of a file from the begin of a line on: its last whole line at least, and what comes after it."""
    with open(path, "rb") as file:
        at, data = file.seek(0, os.SEEK_END), b""
        while at > 0 and data.count(b"\n") < 2:
            step = min(BLOCK, at)
            at -= step
            file.seek(at)
            data = file.read(step) + data
    return data


def running(owner, here, path):
    """The sentence on a lock that another holds."""
    who = f"{ledger_lock.who(owner)}; wait for its end, or ask it to end with ebpf.fleet.pause or ebpf.fleet.abort"
    if (owner.host, owner.pid_namespace) != (here.host, here.pid_namespace):
        who += f". Whether it lives cannot be seen from here: if it does not, remove {path}"
    return f"one rollout at a time: {who}"


def broken(path, found):
    """The sentence on a ledger whose chain is broken."""
    return (
        f"{path}: {ledger.sentence_of(found)}; find out who wrote there, keep the file, "
        "and put it and head.json elsewhere: the next rollout begins a new ledger"
    )


@contextlib.contextmanager
def refused(path):
    """An OSError within is told as one of ours, with the path."""
    try:
        yield
    except FleetError:
        raise
    except OSError as error:
        where = error.filename or path
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise FleetError("EF_DISK_FULL", f"{where}: no space is left; make room on that file system") from error
        problem = f"{where}: {error.strerror or error}; correct it, or name another folder with ebpf_fleet_ledger"
        raise FleetError("EF_LEDGER", problem, str(where)) from error
