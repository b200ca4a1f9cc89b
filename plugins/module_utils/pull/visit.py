# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One visit to the kill list's location: fetch, judge, place, remember, take back, tell. What the timer runs.

Nothing is changed by a list that is refused. Orders are placed before anything is written to a disk, and taken back
only by a list that was remembered, so that no older one can do it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

from ansible_collections.ebpf.fleet.plugins.module_utils.base import atomic_files
from ansible_collections.ebpf.fleet.plugins.module_utils.base.bounded import read_bytes
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError, explain
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle.trustfiles import read_trust
from ansible_collections.ebpf.fleet.plugins.module_utils.kill import killlist
from ansible_collections.ebpf.fleet.plugins.module_utils.pull import documents, places, sealed
from ansible_collections.ebpf.fleet.plugins.module_utils.pull.fetch import UNREACHABLE, fetch
from ansible_collections.ebpf.fleet.plugins.module_utils.pull.metrics import render_metrics

LEASE_OVER = "EF_PULL_LEASE"
CLOCK_UNKNOWN = "EF_CLOCK_UNKNOWN"
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
# Between two attempts of the first visit of a boot.
NAP_SECONDS = 1.0
FOLLOWED, NOT_FOLLOWED, UNUSABLE = 0, 1, 2
USAGE = "usage: ebpf-fleet-pull [--root FOLDER]"


class Paths(NamedTuple):
    """Where things are on a host; ``kill`` has the folder that needs no disk first."""

    settings: Path
    signers: Path
    revoked: Path
    mark: Path
    state: Path
    kill: tuple[Path, Path]


def paths_below(root: str) -> Paths:
    """The places below a root: the empty text for the host's own."""
    etc, var, run = (Path(f"{root}/{name}") for name in ("etc/ebpf-fleet", "var/lib/ebpf-fleet/pull", "run"))
    return Paths(
        etc / "pull.json", etc / "trust/allowed_signers", etc / "trust/revoked_keys", var / "mark.json",
        run / "ebpf-fleet-pull", (run / "ebpf-fleet/kill.d", etc / "kill.d"),
    )  # fmt: skip


class Visit:
    """One visit; its fields are what the status tells."""

    def __init__(self, paths: Paths, settings: documents.Settings) -> None:
        self.paths = paths
        self.settings = settings
        self.boot_id = BOOT_ID.read_text(encoding="ascii").strip()
        self.problems: list[FleetError] = []
        self.judged: sealed.Judged | None = None
        self.seen: killlist.Seen | None = None
        self.contact: documents.Contact | None = None
        self.wanted: dict[str, str] = {}
        self.placed: list[str] = []
        self.taken: list[str] = []
        self.detached = False

    def make(self) -> int:
        """All of it; returns the exit status."""
        before = self._read_status()
        self.contact = documents.parse_contact(before)
        try:
            self.seen = documents.parse_mark(read_bytes(self.paths.mark, documents.MAX_BYTES), str(self.paths.mark))
            self.judged = self._have_list(first=before is None)
        except (OSError, FleetError) as error:
            self.problems.append(explain(error, places.NOT_WRITTEN))
        if self.judged is None:
            self._follow_policy()
        else:
            self._follow(self.judged)
        self._tell()
        return NOT_FOLLOWED if self.problems else FOLLOWED

    def _read_status(self) -> bytes | None:
        """The status of the last visit; None of the first one of a boot, as it lies in memory."""
        try:
            return read_bytes(self.paths.state / "status.json", documents.MAX_BYTES)
        except FleetError:
            return b""

    def _have_list(self, first: bool) -> sealed.Judged:
        """A list that may be followed. At boot the network may come late: it is asked for some time."""
        deadline = time.monotonic() + (self.settings.wait_s if first else 0)
        while True:
            try:
                data = fetch(self.settings.location, self.settings.timeout_s)
                break
            except FleetError as error:
                if error.code != UNREACHABLE or time.monotonic() + NAP_SECONDS >= deadline:
                    raise
            time.sleep(NAP_SECONDS)
        trust = read_trust(str(self.paths.signers), str(self.paths.revoked))
        return sealed.judge(data, trust, time.time(), self.seen)

    # -- a list that may be followed --------------------------------------------------------------

    def _follow(self, judged: sealed.Judged) -> None:
        self.wanted = killlist.wanted(judged.found.orders, self.settings.host)
        self._place(self.wanted)
        remembered = self._remember(killlist.Seen(judged.found.sequence, judged.digest, judged.found.issued))
        if not judged.clock_known:
            problem = (
                "this host's clock stands before what has happened already, so whether the kill list is too old is not "
                "known: its orders are placed, none is taken back, and it does not count as had; set the clock"
            )
            self.problems.append(FleetError(CLOCK_UNKNOWN, problem))
            self._follow_policy()
            return
        self.contact = documents.Contact(self.boot_id, time.clock_gettime_ns(time.CLOCK_BOOTTIME))
        if remembered:
            changed = places.take_all(self.paths.kill, self.wanted)
            self.taken = changed.taken
            self.problems += changed.problems

    def _place(self, orders: dict[str, str]) -> None:
        changed = places.place_all(self.paths.kill, orders, int(time.time()))
        self.placed = sorted({*self.placed, *changed.placed})
        self.problems += changed.problems

    def _remember(self, seen: killlist.Seen) -> bool:
        """Write the mark where it is another one; whether it stands on the disk."""
        if seen == self.seen:
            return True
        try:
            atomic_files.make_folder(self.paths.mark.parent)
            atomic_files.replace_file(self.paths.mark, documents.render_mark(seen), 0o644, self.paths.mark.parent)
        except OSError as error:
            self.problems.append(explain(error, places.NOT_WRITTEN))
            return False
        self.seen = seen
        return True

    # -- no such list -----------------------------------------------------------------------------

    @property
    def lease_seconds(self) -> int:
        now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        return documents.lease_seconds(self.contact, self.boot_id, now, self.settings.lease_s)

    def _follow_policy(self) -> None:
        """Keep what holds, or turn everything off once the lease is over. Nothing is taken back."""
        if self.settings.policy != documents.DETACH or self.lease_seconds:
            return
        problem = f"no fresh kill list was had for {self.settings.lease_s} s in this boot, so everything is turned off"
        why = FleetError(LEASE_OVER, f"{problem}; it comes back with the next list that is good")
        self.detached = True
        self._place({"global": why.as_line()})
        self.problems.append(why)

    # -- tell -------------------------------------------------------------------------------------

    def _fields(self) -> dict[str, Any]:
        first = self.problems[0] if self.problems else None
        ours, theirs = places.held(self.paths.kill)
        found = self.judged.found if self.judged else None
        here = self.contact is not None and self.contact.boot_id == self.boot_id
        return {
            "ok": first is None, "code": first.code if first else None,
            "problems": [one.as_line() for one in self.problems], "location": self.settings.location,
            "time_unix_ns": time.time_ns(), "boot_id": self.boot_id,
            "contact_boottime_ns": self.contact.boottime_ns if here and self.contact else None,
            "policy": self.settings.policy, "lease_left_s": self.lease_seconds, "detached": self.detached,
            "sequence": self.seen.sequence if self.seen else None,
            "expires": found.expires if found else None, "signer": self.judged.signer if self.judged else None,
            "wanted": sorted(self.wanted) if found else None, "placed": self.placed, "taken": self.taken,
            "pulled": ours, "of_people": theirs,
        }  # fmt: skip

    def _tell(self) -> None:
        fields = self._fields()
        try:
            atomic_files.make_folder(self.paths.state)
            for name, data in (
                ("status.json", documents.render_status(fields)),
                ("metrics.prom", render_metrics(fields)),
            ):
                atomic_files.replace_file(self.paths.state / name, data, 0o644, self.paths.state)
        except OSError as error:
            self.problems.append(explain(error, places.NOT_WRITTEN))
        for name in self.placed:
            say(4, f"placed the order {name}: {self.wanted.get(name, '')}".rstrip(": "))
        for name in self.taken:
            say(5, f"took the order {name} back")
        for problem in self.problems:
            say(3, problem.as_line())


def say(level: int, text: str) -> None:
    """One line for the journal, of that priority; elsewhere without it."""
    prefix = f"<{level}>" if "JOURNAL_STREAM" in os.environ else ""
    print(f"{prefix}{text}", file=sys.stderr, flush=True)


def main(arguments: list[str]) -> int:
    """0: a fresh list was had and is followed. 1: it was not, for the reason that is told. 2: wrong settings or use."""
    if arguments and (len(arguments) != 2 or arguments[0] != "--root"):
        say(3, USAGE)
        return UNUSABLE
    paths = paths_below(arguments[1] if arguments else "")
    try:
        data = read_bytes(paths.settings, documents.MAX_BYTES)
        if data is None:
            raise FleetError("EF_ARGUMENT", f"{paths.settings}: is not there; set ebpf_fleet_pull_location and prepare")
        settings = documents.parse_settings(data, str(paths.settings))
    except FleetError as error:
        say(3, error.as_line())
        return UNUSABLE
    try:
        lock = _lock(paths.state)
    except BlockingIOError:
        say(3, f"EF_LOCKED: {paths.state}/lock: another visit goes on; wait for its end")
        return NOT_FOLLOWED
    with lock:
        return Visit(paths, settings).make()


def _lock(state: Path) -> contextlib.AbstractContextManager[object]:
    """One visit at a time, so that the mark never goes back. Raises BlockingIOError where one goes on.

    A place that takes no lock keeps no kill from this host.
    """
    try:
        atomic_files.make_folder(state)
        file = (state / "lock").open("wb")
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError:
        return contextlib.nullcontext()
    return file
