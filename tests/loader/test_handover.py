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
def load_binary() -> Iterator[Path]:
    """Where any user may execute it."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))
    folder.chmod(0o755)
    yield copy_as(folder, "handed")
    shutil.rmtree(folder)


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


def of_load(service: Service) -> list[tuple[int, int]]:
    """When and by which process the load's executions were."""
    found = [each for each in service.events() if each["feature"] == "exec_events" and each["uid"] == UID]
    return [(each["ktime_ns"], each["pid"]) for each in found]


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
    status = service.fresh_status()["features"]
    found = Counter(of_load(service))
    twice = [event for event, times in found.items() if times > 1]
    assert truth > 3000 and not twice and sum(found.values()) == truth, (truth, sum(found.values()), service.journal())
    assert runs == sorted(runs), "counters go on where the loader before ended"
    for name in BOTH:
        unobserved = status[name]["unobserved_ns"]
        assert unobserved["handover"] == unobserved["down"] == 0, name
    counters = status["exec_events"]["counters"]
    assert total(counters) == counters["produced"] >= truth and counters["dropped"] == 0
    assert service.stop() == 0
    wait_for(lambda: not ours_in_kernel("prog"), "nothing is left in the kernel")


def test_without_a_running_loader_there_is_no_handover(service: Service) -> None:
    assert next_one(service).returncode == 1
    assert "no loader runs by" in service.journal() and not ours_in_kernel("prog")
    service.start_settled()
    service.stop(signal.SIGKILL)
    assert next_one(service).returncode == 1
    assert service.journal().count("no loader runs by") == 2


def test_a_next_loader_that_is_refused_changes_nothing(service: Service) -> None:
    service.start_settled()
    pid, programs = service.pid, {each["id"] for each in ours_in_kernel("prog")}
    manifest = service.bundle.root / "manifest.json"
    good = manifest.read_bytes()
    manifest.write_bytes(good.replace(b'"', b"'", 1))
    assert next_one(service).returncode == 3
    manifest.write_bytes(good)
    wait_for(lambda: "the next loader is gone" in service.journal(), "the running one sees it")
    assert service.fresh_status()["pid"] == pid
    assert {each["id"] for each in ours_in_kernel("prog")} == programs
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


def test_only_a_process_of_its_user_is_answered(service: Service) -> None:
    """Somebody else's socket in the place of the next loader's."""
    service.start_settled()
    path = service.state / "handover.sock"
    asked = subprocess.Popen(
        ["python3", "-c", "import os, socket, sys, time\nfd = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n"
         "fd.bind(sys.argv[1]); fd.listen(1)\nos.setuid(65534) if os.fork() else None\nprint('ready', flush=True)\n"
         "time.sleep(8)", str(path)], stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert asked.stdout is not None and asked.stdout.readline() == "ready\n"
    asked.kill()
    asked.wait()
    service.send(signal.SIGHUP)
    time.sleep(0.5)
    assert service.fresh_status()["features"]["exec_events"]["state"] == "attached"
    path.unlink()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as wrong:
        wrong.bind(str(path))
        service.send(signal.SIGHUP)
        wait_for(lambda: "no handover" in service.journal(), "it says so")
    path.unlink()
    hand_over(service)
    found: dict[str, Any] = service.fresh_status()["features"]
    assert found["exec_events"]["state"] == "attached"
