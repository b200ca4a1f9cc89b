# SPDX-License-Identifier: GPL-3.0-or-later
"""From one loader to the next: no event is missed or counted twice, and whatever goes wrong leaves one that counts."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, Iterator

import pytest

from tests.load.execs import Execs, copy_as
from tests.loader.bundles import Trust
from tests.loader.service import BOTH, Service, feature_of, make_service, ours_in_kernel, total, until_end, wait_for

UID = 61235
HANDOVERS = 10


class Adopted:
    """A loader that is not our child, as a process of the tests."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def poll(self) -> int | None:
        try:
            state = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return 0
        return 0 if state in "ZX" else None

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self, timeout: float) -> int:
        wait_for(lambda: self.poll() is not None, "the loader ends", timeout)
        return 0


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """Short: the path of a socket has 107 bytes at most."""
    made = Path(tempfile.mkdtemp(prefix="ef-h-", dir="/tmp"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture
def load_binary(tmp_path: Path) -> Path:
    """Where any user may execute it."""
    return copy_as(tmp_path, "handed")


@pytest.fixture
def service(loader: Path, tmp_path: Path, trust: Trust, feature_objects: Path) -> Iterator[Service]:
    made = make_service(loader, tmp_path, trust, {name: feature_of(feature_objects, name) for name in BOTH})
    made.want(*BOTH)
    yield from until_end(made)


def next_one(service: Service) -> subprocess.CompletedProcess[str]:
    """The next loader beside the running one; its first process has ended."""
    with service.journal_path.open("ab") as journal:
        return subprocess.run([*service.command(), "--handover"], stderr=journal, text=True, timeout=60, check=False)


def adopt(service: Service) -> int:
    """The loader that took over is the service's process now; its number."""
    pid = int(json.loads((service.state / "status.json").read_bytes())["pid"])
    service.process = Adopted(pid)  # type: ignore[assignment]
    return pid


def hand_over(service: Service) -> None:
    before = service.process
    assert before is not None
    done = next_one(service)
    assert done.returncode == 0, service.journal()
    wait_for(
        lambda: json.loads((service.state / "status.json").read_bytes())["pid"] != before.pid, "the next publishes"
    )
    assert before.wait(timeout=20) == 0
    assert adopt(service) != before.pid
    service.settled()


def of_load(service: Service) -> list[int]:
    """By which process each of the load's executions was: it starts a new one for each."""
    return [each["pid"] for each in service.events() if each["feature"] == "exec_events" and each["uid"] == UID]


@pytest.mark.slow
def test_ten_upgrades_under_a_steady_load_miss_nothing_and_count_nothing_twice(
    service: Service, load_binary: Path, loader: Path, tmp_path: Path, trust: Trust, feature_objects: Path
) -> None:
    features = {name: feature_of(feature_objects, name) for name in BOTH}
    changed = {**features, "runqlat": feature_of(feature_objects, "runqlat", ("reduced",))}
    other = make_service(loader, tmp_path / "other", trust, changed)
    bundles = [service.bundle, other.bundle]
    service.start_settled()
    load = Execs(load_binary, [UID], seconds=25, interval=0.001)
    runs = []
    for number in range(HANDOVERS):
        service.bundle = bundles[(number + 1) % 2]
        hand_over(service)
        counters = service.now()["features"]["runqlat"]["counters"]
        assert total(counters) == counters["produced"]
        runs.append(counters["produced"])
    truth = load.wait()
    service.fresh_status()
    wait_for(lambda: not service.feature("exec_events")["consumer"]["lag_bytes"], "the ring is read")
    time.sleep(0.5)
    status = service.fresh_status()["features"]
    found = Counter(of_load(service))
    twice = [pid for pid, times in found.items() if times > 1]
    counters = status["exec_events"]["counters"]
    assert total(counters) == counters["produced"] and counters["dropped"] == counters["sampled_out"] == 0
    assert truth > 3000 and not twice, twice
    # The load may be ended between an execution and its own count of it.
    assert truth <= sum(found.values()) <= truth + 1
    assert runs == sorted(runs), "counters go on where the loader before ended"
    for name in BOTH:
        unobserved = status[name]["unobserved_ns"]
        assert unobserved["handover"] == unobserved["down"] == 0, name
    assert counters["produced"] >= truth
    assert service.stop() == 0
    wait_for(lambda: not ours_in_kernel("prog"), "nothing is left in the kernel")


def test_without_a_running_loader_there_is_no_handover(service: Service) -> None:
    assert next_one(service).returncode == 1
    assert "no loader runs by" in service.journal()
    wait_for(lambda: not ours_in_kernel("prog"), "nothing is loaded; the kernel frees what a test before had")
    service.start_settled()
    service.stop(signal.SIGKILL)
    assert next_one(service).returncode == 1
    assert service.journal().count("no loader runs by") == 2


def test_a_next_loader_that_is_refused_changes_nothing(service: Service) -> None:
    features = service.start_settled()["features"].values()
    pid, programs = service.pid, {int(one["id"]) for each in features for one in each["programs"]}
    manifest = service.bundle.root / "manifest.json"
    good = manifest.read_bytes()
    manifest.write_bytes(good.replace(b'"', b"'", 1))
    assert next_one(service).returncode == 3
    manifest.write_bytes(good)
    wait_for(lambda: "the next loader is gone" in service.journal(), "the running one sees it")
    assert service.fresh_status()["pid"] == pid
    # What a test before had goes a moment later, and another worker's is not known as its own at once.
    wait_for(lambda: {each["id"] for each in ours_in_kernel("prog")} == programs, "its programs and no others")
    hand_over(service)


def test_a_loader_that_does_not_answer_is_left_alone(service: Service) -> None:
    service.start_settled()
    service.send(signal.SIGSTOP)
    begun = time.monotonic()
    assert next_one(service).returncode == 1 and time.monotonic() - begun < 10
    assert "does not answer" in service.journal()
    service.send(signal.SIGCONT)
    assert service.fresh_status()["features"]["exec_events"]["state"] == "attached"


def test_an_order_holds_over_a_handover(service: Service) -> None:
    service.start_settled()
    order = service.order("feature.runqlat")
    service.wait_state("runqlat", "killed")
    hand_over(service)
    assert service.feature("runqlat")["state"] == "killed" and service.feature("exec_events")["state"] == "attached"
    order.unlink()
    service.wait_state("runqlat", "attached")
    before = service.fresh_status()["features"]["runqlat"]["counters"]["produced"]
    wait_for(lambda: service.feature("runqlat")["counters"]["produced"] > before, "it counts")


def test_what_the_loader_before_could_not_share_has_a_gap_that_is_measured(service: Service) -> None:
    """The running one is told nothing of one feature's moments: as one of before would have none."""
    service.want("exec_events")
    service.start_settled()
    service.want(*BOTH)
    service.wait_state("runqlat", "attached")
    hand_over(service)
    assert service.fresh_status()["features"]["runqlat"]["unobserved_ns"]["handover"] == 0


def test_a_call_that_leads_nowhere_is_said_and_changes_nothing(service: Service) -> None:
    """A socket that no one listens at, one of another kind, and who listens there and says nothing."""
    service.start_settled()
    path = service.state / "handover.sock"
    for number, kind in enumerate((socket.SOCK_SEQPACKET, socket.SOCK_DGRAM), 1):
        with socket.socket(socket.AF_UNIX, kind) as wrong:
            wrong.bind(str(path))
            service.send(signal.SIGHUP)
            wait_for(lambda number=number: service.journal().count("no handover") == number, "it says so")
        path.unlink()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as mute:
        mute.bind(str(path))
        mute.listen(1)
        service.send(signal.SIGHUP)
        heard, _ = mute.accept()
        heard.recv(65536)
        heard.send(b"nonsense")
        wait_for(lambda: "the next loader is gone" in service.journal(), "it says so")
        heard.close()
    path.unlink()
    found: dict[str, Any] = service.fresh_status()["features"]
    assert all(found[name]["state"] == "attached" and not found[name]["unobserved_ns"]["handover"] for name in BOTH)
    hand_over(service)


def test_only_a_process_of_its_own_user_is_answered(service: Service) -> None:
    """Another user's process listens in its folder, as only root could have it."""
    service.start_settled()
    path = service.state / "handover.sock"
    code = (
        "import os, socket, sys\nfd = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\nfd.bind(sys.argv[1])\n"
        "os.setuid(65534)\nfd.listen(1)\nprint('ready', flush=True)\nfd.accept()[0].recv(9)\nprint('told', flush=True)"
    )
    other = subprocess.Popen(["python3", "-c", code, str(path)], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None and other.stdout.readline() == "ready\n"
    service.send(signal.SIGHUP)
    wait_for(lambda: "is not of this user" in service.journal(), "it says so")
    assert other.communicate(timeout=10)[0] == "told\n", "its connection was closed, nothing was sent"
    path.unlink()
    assert service.fresh_status()["features"]["exec_events"]["state"] == "attached"
