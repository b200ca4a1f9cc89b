# SPDX-License-Identifier: GPL-3.0-or-later
"""kill -9 at random moments of the loader's life: nothing of ours stays in the kernel, no file is half written, and
the next start is clean. EBPF_FLEET_SEED repeats a run, EBPF_FLEET_DEATHS is how many times it dies."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest

from tests.loader.bundles import Trust, canonical
from tests.loader.exposition import parse
from tests.loader.foreign import Caller, compile_ours, fixture_contract
from tests.loader.kernel_ids import all_ids, orphans
from tests.loader.service import ROOMY_POLICY, Service, feature_of, make_service, wait_for
from tests.loader.test_counters import GETPPID

DEATHS = int(os.environ.get("EBPF_FLEET_DEATHS", "15" if os.environ.get("EBPF_FLEET_QUICK") == "1" else "200"))
SEED = int(os.environ.get("EBPF_FLEET_SEED", str(time.time_ns() % 1_000_000)))
FEATURES = ("exec_events", "runqlat", "soak_calls")
FILE_LIMIT = 16 << 20
OLD_LINE = b'{"feature": "old", "pad": "' + b"x" * 4000 + b'"}\n'
STATE_FILES = {"status.json", "metrics.prom", "programs"}
LOG_FILES = ("events.jsonl*", "audit.jsonl*")
FREED_SECONDS = 5.0  # the kernel frees programs a grace period after the last descriptor is closed


@dataclass
class Seen:
    """How far a file was read, and the broken lines in it so far."""

    offset: int = 0
    lines: list[bytes] = field(default_factory=list)
    broken: int = 0

    def read(self, path: Path) -> list[bytes]:
        """All broken lines, the last piece without its line feed included; only what is new is read."""
        with path.open("rb") as file:
            file.seek(self.offset)
            data = file.read()
        whole = data.rfind(b"\n") + 1
        self.offset += whole
        self.lines += _broken_lines(data[:whole])
        return self.lines + _broken_lines(data[whole:])


class Mortal:
    """A service that dies and is started again, and what is known of it between two lives."""

    def __init__(self, service: Service, caller: Caller, drawn: random.Random) -> None:
        self.service, self.caller, self.drawn = service, caller, drawn
        self.start_seconds = 0.3
        self.seen: dict[bytes, Seen] = {}
        self.fillings = 0

    # ---- the phases: each brings the loader to where it shall die, and returns ----

    def during_start(self) -> None:
        """Anywhere between fork and the last attach: trust, verify, load, attach, the first status."""
        self.service.start()
        time.sleep(self.drawn.uniform(0, 1.1 * self.start_seconds))

    def during_attach(self) -> None:
        """Behind the first attach that was said; the others follow."""
        size = len(self.service.journal())
        self.service.start()
        wait_for(lambda: ": attached" in self.service.journal()[size:], "a first attach")
        time.sleep(self.drawn.uniform(0, 0.3 * self.start_seconds))

    def during_rotation(self) -> None:
        """In a flood of events that passes the limit of the file."""
        self.fillings += 1
        first = b'{"feature": "old", "serial": %d}\n' % self.fillings
        self.service.events_path.write_bytes(first + OLD_LINE * ((FILE_LIMIT - 20_000) // len(OLD_LINE)))
        self.live()
        self.caller.begin(3000)
        time.sleep(self.drawn.uniform(0, 0.15))
        if self.drawn.random() < 0.5:
            _spin(self.rotated, 0.1)

    def rotated(self) -> bool:
        """Is the full file renamed; the new one may not be there yet."""
        path = self.service.events_path
        try:
            return path.stat().st_size < FILE_LIMIT // 2
        except FileNotFoundError:
            return True

    def during_flood(self) -> None:
        self.live()
        self.caller.begin(20_000)
        time.sleep(self.drawn.uniform(0, 0.2))

    def during_reload(self) -> None:
        """desired.json is rewritten, and perhaps a SIGHUP comes with it."""
        self.live()
        self.service.want(*self.drawn.sample(FEATURES, 2), soak_calls=self.drawn.randint(1, 9))
        if self.drawn.random() < 0.5:
            self.service.send(signal.SIGHUP)
        time.sleep(self.drawn.uniform(0, 0.04))

    def during_kill_order(self) -> None:
        """An order comes, and perhaps goes."""
        self.live()
        path = self.service.order(self.drawn.choice(("global", "feature.runqlat")))
        time.sleep(self.drawn.uniform(0, 0.04))
        path.unlink()
        time.sleep(self.drawn.choice((0, self.drawn.uniform(0, 0.05))))

    def during_status(self) -> None:
        """The temporary file of a status or of the metrics is there."""
        self.live()
        self.service.want(*FEATURES, soak_calls=self.drawn.randint(2, 9))
        name = self.drawn.choice(sorted(STATE_FILES))
        _spin((self.service.state / f".{name}.tmp").exists, 0.2)

    def during_degrade(self) -> None:
        """A budget is exceeded: the loader thins, reduces and sheds."""
        limits = {"features": {"soak_calls": {"event_rate_per_second": 1}}}
        policy = self.service.etc / "policy.json"
        policy.write_bytes(canonical({"schema": "ebpf.fleet/policy/v1", **limits}))
        self.live()
        self.caller.begin(50_000)
        time.sleep(self.drawn.uniform(0.9, 2.4))
        self.service.allow(ROOMY_POLICY)

    def during_stop(self) -> None:
        """It was told to end and detaches."""
        self.live()
        self.service.send(signal.SIGTERM)
        time.sleep(self.drawn.uniform(0, 0.03))

    # ---- life and death ----

    def live(self) -> None:
        """Start as after any death, until all is attached: a clean start."""
        began = time.monotonic()
        status = self.service.start_settled()
        self.start_seconds = 0.8 * self.start_seconds + 0.2 * (time.monotonic() - began)
        states = {name: status["features"][name]["state"] for name in FEATURES}
        assert set(states.values()) == {"attached"}, f"{states}: {self.service.journal()[-1500:]}"
        assert not status["desired_error"] and not status["kills"]
        self.check_next_life()

    def die(self, before: dict[str, set[int]]) -> None:
        """kill -9, and hold that nothing is left."""
        code = self.service.stop(signal.SIGKILL)
        assert code in (-signal.SIGKILL, 0), f"it had ended with {code}: {self.service.journal()[-1500:]}"
        limit = time.monotonic() + FREED_SECONDS
        while left := orphans(before):
            assert time.monotonic() < limit, f"left in the kernel: {left}"
            time.sleep(0.01)
        self.check_state_files()
        self.check_log_files()

    def restore(self) -> None:
        """What a person wants stands again; what the loader left is as it left it."""
        for folder in (self.service.etc, self.service.run):
            for order in (folder / "kill.d").glob("*"):
                order.unlink()
        self.service.want(*FEATURES)

    # ---- files ----

    def check_state_files(self) -> None:
        """Each file is whole; a temporary one may be there beside them, until the next life."""
        state = self.service.state
        if not state.exists():
            return
        for path in state.iterdir():
            assert path.name in STATE_FILES or path.name[1:-4] in STATE_FILES, f"a strange file: {path.name}"
        if (state / "status.json").exists():
            assert json.loads((state / "status.json").read_bytes())["schema"] == "ebpf.fleet/status/v1"
        if (state / "metrics.prom").exists():
            assert parse((state / "metrics.prom").read_text()).samples, "metrics.prom is empty"
        if (state / "programs").exists():
            text = (state / "programs").read_text()
            assert not text or text.endswith("\n")
            assert all(len(line.split(" ")) == 4 for line in text.splitlines()), text

    def check_next_life(self) -> None:
        """What the last life left half done is gone; a temporary file of this life is there for a moment only."""
        state = self.service.state
        seen = {path.name for path in state.iterdir()} - STATE_FILES
        if seen:
            wait_for(lambda: not seen & {path.name for path in state.iterdir()}, f"{sorted(seen)} are left for ever", 5)

    def check_log_files(self) -> None:
        """One life may leave one torn line a file, which stands alone from the next life on."""
        for path in (path for name in LOG_FILES for path in sorted(self.service.log.glob(name))):
            seen = self.seen_of(path)
            broken = seen.read(path)
            glued = [line for line in broken if line.endswith(b"}")]
            assert not glued, f"{path.name}: a record was glued to a torn line: {glued[0][-300:]!r}"
            assert len(broken) <= seen.broken + 1, f"{path.name}: more than one torn line by one death: {broken}"
            seen.broken = len(broken)

    def seen_of(self, path: Path) -> Seen:
        """What was read of this file in an earlier life; files are known by their first line, as they are renamed."""
        with path.open("rb") as file:
            first = file.readline()
        return self.seen.setdefault(first, Seen()) if first.endswith(b"\n") else Seen()


def _broken_lines(data: bytes) -> list[bytes]:
    """What is no JSON; not the lines that the test made."""
    found = []
    for line in data.split(b"\n"):
        if line and not line.startswith(b'{"feature": "old"'):
            try:
                json.loads(line)
            except ValueError:
                found.append(line)
    return found


def _spin(condition: Callable[[], bool], seconds: float) -> None:
    """Wait without sleeping, to hit a short moment; it may be missed."""
    limit = time.monotonic() + seconds
    while time.monotonic() < limit:
        if condition():
            return


@pytest.fixture
def caller() -> Iterator[Caller]:
    made = Caller("mortal")
    yield made
    made.end()


@pytest.fixture
def mortal(loader: Path, tmp_path: Path, trust: Trust, feature_objects: Path, caller: Caller) -> Iterator[Mortal]:
    made: dict[str, Any] = {name: feature_of(feature_objects, name) for name in FEATURES[:2]}
    options = (f"-DEF_SOAK_PID={caller.pid}", f"-DEF_SOAK_NR={GETPPID}")
    made["soak_calls"] = (
        fixture_contract("soak_calls"),
        {"full": compile_ours("soak_calls", "full", tmp_path / "s.o", *options)},
    )
    service = make_service(loader, tmp_path, trust, made)
    service.want(*FEATURES)
    yield Mortal(service, caller, random.Random(SEED))
    if service.process is not None:
        service.stop(signal.SIGKILL)


PHASES: tuple[Callable[[Mortal], None], ...] = (
    *(Mortal.during_start, Mortal.during_start, Mortal.during_attach, Mortal.during_rotation, Mortal.during_flood),
    *(Mortal.during_reload, Mortal.during_kill_order, Mortal.during_status, Mortal.during_stop),
)


def test_it_dies_at_any_moment_and_leaves_nothing(mortal: Mortal) -> None:
    mortal.live()
    status = mortal.service.now()
    mortal.service.stop(signal.SIGKILL)
    phases = [*PHASES * 3, Mortal.during_degrade] if "budget" in status else list(PHASES)
    print(f"{DEATHS} deaths, EBPF_FLEET_SEED={SEED}; degrade: {'budget' in status or 'this loader knows no budgets'}")
    for death in range(DEATHS):
        phase = mortal.drawn.choice(phases)
        before = all_ids()
        try:
            phase(mortal)
            mortal.die(before)
        except AssertionError as error:
            raise AssertionError(f"death {death} {phase.__name__}, EBPF_FLEET_SEED={SEED}: {error}") from error
        mortal.restore()
    mortal.live()
    assert mortal.service.stop(signal.SIGTERM) == 0


def test_the_oracle_sees_an_orphan(tmp_path: Path) -> None:
    """A pinned map is held by no process; one that a process holds is somebody's, and no orphan."""
    before = all_ids()
    subprocess.run(["mount", "-t", "bpf", "none", str(tmp_path)], check=True)
    try:
        kind = ["type", "array", "key", "4", "value", "4", "entries", "1", "name", "ef_orphan"]
        subprocess.run(["bpftool", "map", "create", str(tmp_path / "orphan"), *kind], check=True)
        assert len(orphans(before)["map"]) == 1
        (tmp_path / "orphan").unlink()
        wait_for(lambda: not orphans(before), "it is freed", FREED_SECONDS)
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
