# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask many hosts at once from one process, so that no host waits for another that hangs.

One loop starts a process for each host, reads what comes, and ends each at its own bound. A login
costs the controller CPU, so only so many are under way at once; one that has hung for a few seconds
gives its place to the next, and a command that merely runs takes no place at all.
"""

from __future__ import annotations

import json
import os
import random
import selectors
import time
from collections import deque
from typing import Any, Callable, Dict, Mapping, NamedTuple, Protocol, Sequence

from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.base.printable import printable
from ansible_collections.ebpf.fleet.plugins.module_utils.hosts import output

# After so long a login counts as hung and no longer keeps the next host from its turn.
HUNG_SECONDS = 2.0
TICK_SECONDS = 0.2
CHUNK_BYTES = 64 * 1024
# Logins that are cut off at once are tried again, with growing pauses: so much and no more.
TRIES = 4
STARTS_BETWEEN_READS = 4
REAP_SECONDS = 2.0

# {rc, stdout, stderr, unreachable, failed, msg, seconds, logged_in}
Result = Dict[str, Any]


class Process(Protocol):
    """A process that was started for one host."""

    stdin: int | None
    stdout: int
    stderr: int

    def poll(self) -> int | None:
        """The exit status, or None while it runs."""

    def kill(self) -> None:
        """End it and everything that it started; returns at once."""

    def reap(self) -> bool:
        """Take its end from the kernel, after which its number may be another's; has it ended?"""


class Launch(NamedTuple):
    """How one host is asked.

    `start` gives a process for an attempt; the argument tells whether our own preference for the
    key exchange may be used. `sees_login` is whether the process says when the login succeeded,
    `is_document` whether it prints one JSON document instead of the command's own output. Of each stream
    the first `head_bytes` are kept, and its end.
    """

    start: Callable[[bool], Process]
    connect_seconds: float
    run_seconds: float
    sees_login: bool = True
    is_document: bool = False
    escalation: Callable[[], output.Escalation] | None = None
    head_bytes: int = output.HEAD_BYTES


class Counts(NamedTuple):
    """How far a run is: hosts that ended well, that did not, that are still asked; seconds so far."""

    answered: int
    failed: int
    outstanding: int
    seconds: float


class Session:
    """One host, from its turn to its result."""

    def __init__(self, host: str, launch: Launch, now: float) -> None:
        self.host = host
        self.launch = launch
        self.turn = now
        self.tries = 0
        self.our_kex = True

    def start(self, now: float) -> None:
        """Begin an attempt; raises OSError where no process can be started."""
        self.process = self.launch.start(self.our_kex)
        self.tries += 1
        self.begun = now
        self.logged_in_at: float | None = None
        head = output.document_bytes(self.launch.head_bytes) if self.launch.is_document else self.launch.head_bytes
        self.captures = {"stdout": output.Capture(head), "stderr": output.Capture()}
        self.open = {"stdout", "stderr"}
        self.escalation = self.launch.escalation() if self.launch.escalation else None

    def feed(self, stream: str, data: bytes, now: float) -> bytes:
        """Take in what came; returns what to send to the host."""
        send = b""
        if self.escalation is not None and not self.escalation.done:
            data, send = self.escalation.feed(stream, data)
        self.captures[stream].add(data)
        # ssh itself prints nothing on standard output: whatever is there came after the login.
        if self.logged_in_at is None and self.launch.sees_login:
            told = stream == "stderr" and output.is_logged_in(self.captures["stderr"].head)
            if told or stream == "stdout" or send:
                self.logged_in_at = now
        return send

    @property
    def total(self) -> int:
        return sum(capture.total for capture in self.captures.values())

    def is_logging_in(self, now: float) -> bool:
        """Does it take the place of a login?"""
        return self.logged_in_at is None and now - self.begun < HUNG_SECONDS

    def deadline(self) -> float:
        """The moment at which it is given up; the bound of the login covers all its attempts."""
        if not self.launch.sees_login:
            return self.turn + self.launch.connect_seconds + self.launch.run_seconds
        if self.logged_in_at is None:
            return self.turn + self.launch.connect_seconds
        return self.logged_in_at + self.launch.run_seconds

    def texts(self) -> tuple[str, str]:
        """(stdout, stderr) as far as they came."""
        if self.escalation is not None:
            for stream, capture in self.captures.items():
                capture.add(self.escalation.flush(stream))
        return self.captures["stdout"].text(), output.without_chatter(self.captures["stderr"].text())

    def overdue(self, now: float) -> Result:
        """The result of a host that did not answer in its time."""
        stdout, stderr = self.texts()
        words = f"last output: {output.last_words(stdout, stderr)}"
        if not self.launch.sees_login:
            bound = self.launch.connect_seconds + self.launch.run_seconds
            why = f"did not answer within {bound:g} s (logged in: unknown; {words})"
            return self.result(now, None, stdout, stderr, why)
        if self.logged_in_at is None:
            why = f"did not answer within {self.launch.connect_seconds:g} s (logged in: no; {words})"
            return self.result(now, None, stdout, stderr, why, unreachable=True)
        hangs = ""
        if self.escalation is not None and not self.escalation.done:
            hangs = f" become {self.escalation.waits_for};"
        why = f"did not answer within {self.launch.run_seconds:g} s (logged in: yes;{hangs} {words})"
        return self.result(now, None, stdout, stderr, why)

    def ended(self, now: float, rc: int) -> Result:
        """The result of a process that ended by itself."""
        stdout, stderr = self.texts()
        if self.launch.is_document:
            return self._of_document(now, rc, stdout, stderr)
        words = output.last_words(stdout, stderr)
        if rc == 0:
            return self.result(now, 0, stdout, stderr)
        if rc == 255 and self.logged_in_at is None:
            why = f"Failed to connect to the host via ssh: {words}"
            return self.result(now, rc, stdout, stderr, why, unreachable=True)
        if rc == 255:
            why = f"the link was lost after the login: {words}"
            return self.result(now, rc, stdout, stderr, why, unreachable=True)
        return self.result(now, rc, stdout, stderr, f"ended with status {rc}: {words}")

    def result(
        self, now: float, rc: int | None, stdout: str, stderr: str, why: str = "", unreachable: bool = False
    ) -> Result:
        found: dict[str, Any] = {"rc": rc, "stdout": stdout, "stderr": stderr, "unreachable": unreachable}
        found.update(failed=rc != 0, msg=why, seconds=round(now - self.turn, 3))
        found["logged_in"] = self.logged_in_at is not None if self.launch.sees_login else None
        return found

    def _of_document(self, now: float, rc: int, text: str, stderr: str) -> Result:
        try:
            told = json.loads(text)
            why = str(told["msg"])
            return self.result(now, told["rc"], told["stdout"], told["stderr"], why, bool(told["unreachable"]))
        except (ValueError, TypeError, KeyError):
            why = f"the connection plugin's process ended with status {rc}: {output.last_words(text, stderr)}"
            return self.result(now, None, text, stderr, why)


class FanOut:
    """Asks every host of a list, each once, and gives one result for each.

    `prepare` says how a host is asked; what it raises is that host's result. At most `logins` logins
    are under way and at most `most` processes run at once; `tell` is called about once a second. A host's
    result becomes what `keep` makes of it as soon as it is there, so that not all of them need be in memory.
    """

    def __init__(
        self,
        hosts: Sequence[str],
        prepare: Callable[[str], Launch],
        logins: int,
        most: int,
        tell: Callable[[Counts], None] = lambda counts: None,
        keep: Callable[[str, Result], Result] = lambda host, result: result,
    ) -> None:
        self.results: dict[str, Result] = {}
        self.running: set[Session] = set()
        self._hosts = list(dict.fromkeys(hosts))
        self._waiting = deque(self._hosts)
        self._again: list[tuple[float, Session]] = []
        self._killed: list[Process] = []
        self._prepare, self._logins, self._most, self._tell, self._keep = prepare, logins, most, tell, keep
        self._selector = selectors.DefaultSelector()

    def run(self) -> dict[str, Result]:
        """{host: result} for exactly the hosts that were given, in their order."""
        self._begun = told = ticked = time.monotonic()
        try:
            while self._waiting or self._again or self.running:
                self._start_some()
                for key, _events in self._selector.select(self._pause()):
                    self._read(*key.data)
                now = time.monotonic()
                if now - ticked >= TICK_SECONDS or self._has_ended():
                    ticked = now
                    self._tick(now)
                if now - told >= 1:
                    told = now
                    self._tell(self.counts(now))
        finally:
            self.stop()
        return {host: self.results[host] for host in self._hosts}

    def counts(self, now: float) -> Counts:
        good = sum(1 for result in self.results.values() if not result["failed"])
        done = len(self.results)
        return Counts(good, done - good, len(self._hosts) - done, now - self._begun)

    def stop(self) -> None:
        """End every process that still runs."""
        for session in list(self.running):
            self._let_go(session)
            self._kill(session.process)
        end = time.monotonic() + REAP_SECONDS
        while self._reap() and time.monotonic() < end:
            time.sleep(0.01)
        self._selector.close()

    def kill_all(self) -> None:
        """Only kill, for a signal handler: the processes are in sessions of their own and would live on."""
        for session in list(self.running):
            session.process.kill()

    def _pause(self) -> float:
        if self._waiting and self._has_room(time.monotonic()):
            return 0
        return 0.005 if self._has_ended() else TICK_SECONDS

    def _has_ended(self) -> bool:
        return any(not session.open for session in self.running)

    def _has_room(self, now: float) -> bool:
        if len(self.running) >= self._most:
            return False
        return sum(session.is_logging_in(now) for session in self.running) < self._logins

    def _start_some(self) -> None:
        now = time.monotonic()
        for due, session in [one for one in self._again if one[0] <= now]:
            self._again.remove((due, session))
            self._start(session)
        for _ in range(STARTS_BETWEEN_READS):
            if not self._waiting or not self._has_room(time.monotonic()):
                return
            self._begin(self._waiting.popleft())

    def _begin(self, host: str) -> None:
        turn = time.monotonic()
        try:
            session = Session(host, self._prepare(host), turn)
        except Exception as error:  # one host's variables must not take the others down
            said = error.as_line() if isinstance(error, FleetError) else error
            why = f"its connection settings cannot be used: {printable(said)}"
            self.results[host] = {
                "rc": None, "stdout": "", "stderr": "", "unreachable": True, "failed": True,
                "msg": why, "seconds": round(time.monotonic() - turn, 3), "logged_in": False,
            }  # fmt: skip
            return
        # The time that our own preparation took is not the host's.
        session.turn = time.monotonic()
        self._start(session)

    def _start(self, session: Session) -> None:
        now = time.monotonic()
        try:
            session.start(now)
        except OSError as error:
            if self.running:
                # No more processes or descriptors are to be had: this one waits until another has ended.
                self._most = min(self._most, len(self.running))
                self._waiting.appendleft(session.host)
                return
            why = f"no process can be started for it on the controller: {error}"
            session.logged_in_at = None
            self.results[session.host] = session.result(now, None, "", "", why, unreachable=True)
            return
        self.running.add(session)
        for stream in ("stdout", "stderr"):
            descriptor = getattr(session.process, stream)
            os.set_blocking(descriptor, False)
            self._selector.register(descriptor, selectors.EVENT_READ, (session, stream))

    def _read(self, session: Session, stream: str) -> bool:
        """One chunk, so that a host which floods gets no more of our time than another; was there any?"""
        if stream not in session.open:
            return False
        try:
            data = os.read(getattr(session.process, stream), CHUNK_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self._close(session, stream)
            return False
        now = time.monotonic()
        send = session.feed(stream, data, now)
        if send:
            self._send(session, send)
        if session.escalation is not None and session.escalation.error:
            self._give_up(session, now, session.escalation.error)
        elif session.total > output.FLOOD_BYTES:
            self._give_up(session, now, f"was cut off: it sent more than {output.FLOOD_BYTES >> 20} MiB of output")
        return True

    def _send(self, session: Session, data: bytes) -> None:
        try:
            if session.process.stdin is not None:
                os.write(session.process.stdin, data)
        except OSError:
            return  # it has ended; its end says why

    def _give_up(self, session: Session, now: float, why: str) -> None:
        stdout, stderr = session.texts()
        self._finish(session, session.result(now, None, stdout, stderr, why))

    def _tick(self, now: float) -> None:
        for session in list(self.running):
            rc = session.process.poll()
            if rc is not None:
                self._drain(session)
                if session in self.running:
                    self._at_end(session, rc, now)
            elif now >= session.deadline():
                self._finish(session, session.overdue(now))
        self._reap()

    def _drain(self, session: Session) -> None:
        """What is still in the pipes of a process that has ended; others may hold their ends open."""
        for stream in ("stdout", "stderr"):
            while session in self.running and self._read(session, stream):
                pass

    def _at_end(self, session: Session, rc: int, now: float) -> None:
        pause = self._pause_before_another_try(session, rc)
        result = session.ended(now, rc)
        if pause is None or now + pause >= session.turn + session.launch.connect_seconds:
            self._finish(session, result)
            return
        self._let_go(session)
        self._kill(session.process)
        self._again.append((now + pause, session))

    def _pause_before_another_try(self, session: Session, rc: int) -> float | None:
        if rc != 255 or session.logged_in_at is not None or not session.launch.sees_login or session.tries >= TRIES:
            return None
        stderr = session.captures["stderr"].text()
        if session.our_kex and output.refuses_our_kex(stderr):
            session.our_kex = False
            return 0.0
        if output.is_worth_another_try(stderr):
            return random.uniform(0.5, 1.0) * float(2 ** (session.tries - 1))
        return None

    def _finish(self, session: Session, result: Result) -> None:
        self.results[session.host] = self._keep(session.host, result)
        self._let_go(session)
        # Also after its end: what it left behind in its session would hold our pipes.
        self._kill(session.process)

    def _let_go(self, session: Session) -> None:
        self.running.discard(session)
        for stream in list(session.open):
            self._close(session, stream)
        if session.process.stdin is not None:
            os.close(session.process.stdin)
            session.process.stdin = None

    def _close(self, session: Session, stream: str) -> None:
        descriptor = getattr(session.process, stream)
        session.open.discard(stream)
        self._selector.unregister(descriptor)
        os.close(descriptor)

    def _kill(self, process: Process) -> None:
        process.kill()
        self._killed.append(process)

    def _reap(self) -> int:
        """How many of the processes that were ended are still there."""
        self._killed = [process for process in self._killed if not process.reap()]
        return len(self._killed)


def limits(environment: Mapping[str, int]) -> tuple[int, int]:
    """(logins at once, processes at once) for a controller with these `cpus`, `files` and `free_bytes`.

    A login takes 15 to 130 ms of CPU, by its key exchange. More of them at once than the CPUs can serve
    would only make each slower, and its bound runs from its start. A process takes three descriptors and
    some 8 MiB. Both are at least 8.
    """
    logins = 16 * environment["cpus"]
    by_files = (environment["files"] - 128) // 4
    by_memory = environment["free_bytes"] // 2 // (8 << 20)
    return max(8, logins), max(8, min(by_files, by_memory, 4096))
