# SPDX-License-Identifier: GPL-3.0-or-later
"""The gate against a loader that lies: a real one on this kernel, whose status.json is forged.

Root's view is taken by the module's own code; only the unit's cgroup is named by the test, as
systemd does not run here. With systemd: tests/host/test_witness.py.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Iterator

import pytest

from tests.loader.bundles import Trust
from tests.loader.service import Service, feature_of, make_service
from tests.loader.test_lease import BOTH
from tests.loader.test_privilege import give_to_the_unit
from tests.loader.witnessed import Forger, Json, Witnessed, failures, held, own_cgroup

THREE = "-all,+bpf,+perfmon,+sys_admin"
AS_THE_UNIT = (
    *("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", f"--inh-caps={THREE}"),
    *(f"--ambient-caps={THREE}", f"--bounding-set={THREE}", "--no-new-privs"),
)

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="loads BPF and makes cgroups: needs root")


@pytest.fixture
def folder() -> Iterator[Path]:
    """Outside pytest's own folder: each session that starts on this machine closes that to other users again."""
    made = Path(tempfile.mkdtemp(prefix="ef-witness-"))
    yield made
    shutil.rmtree(made)


@pytest.fixture
def host(loader: Path, folder: Path, signing_key: Path, feature_objects: Path) -> Iterator[Witnessed]:
    """A loader that runs as the unit's user, with two features attached."""
    trust = Trust(folder / "trust", signing_key)
    service = make_service(loader, folder, trust, {name: feature_of(feature_objects, name) for name in BOTH})
    give_to_the_unit(service)
    service.prefix = AS_THE_UNIT
    service.want(*BOTH)
    cgroup = own_cgroup(f"ef-witness-{os.getpid()}")
    if cgroup is None:
        pytest.skip("this machine has no cgroup 2 hierarchy")
    try:
        service.start_settled()
        yield Witnessed(service, folder / "root", cgroup)
    finally:
        end(service)
        cgroup.rmdir()


def end(service: Service) -> None:
    if service.process is not None:
        service.send(signal.SIGCONT)
        service.stop(signal.SIGKILL)


def busy() -> None:
    """Some executions and some switches, so that every feature has something to count."""
    for _turn in range(20):
        subprocess.run(["true"], check=True)


def forged(host: Witnessed, change: Any, frozen: bool, seconds: float = 4) -> Json:
    """The verdict over a window in which a forger writes the status."""
    time.sleep(1.5)
    host.service.send(signal.SIGSTOP)
    try:
        with Forger(host, change):
            if not frozen:
                host.service.send(signal.SIGCONT)
            busy()
            return host.judge(host.observe(seconds))
    finally:
        host.service.send(signal.SIGCONT)


def grow(status: Json, seconds: float) -> None:
    """What an honest loader's counters would do: all go on."""
    status["loader"]["cpu_ns"] += int(seconds * 1e6)
    for feature in status["features"].values():
        for program in feature["programs"]:
            program["run_cnt"] = (program["run_cnt"] or 0) + int(seconds * 100)
            program["run_time_ns"] = (program["run_time_ns"] or 0) + int(seconds * 1e4)
        counters = feature["counters"]
        counters["produced"] += int(seconds * 100)
        counters["delivered"] = (
            counters["produced"] - counters["dropped"] - counters["sampled_out"] - counters["in_flight"]
        )


def test_an_honest_loader_agrees_with_the_kernel_in_every_check(host: Witnessed) -> None:
    busy()
    after = host.observe(5)
    verdict = host.judge(after)
    # What runqlat costs is what this machine switches, which is busy with other tests.
    assert failures(verdict).keys() <= {"feature_cpu", "bpf_cpu", "total_cpu"}, verdict["sentence"]
    passed = {one["check"] for one in verdict["checks"] if one["verdict"] == "pass"}
    assert passed >= {
        "witness_boot", "witness_process", "witness_pid", "witness_user", "witness_exe", "witness_release",
        "witness_advance", "witness_cpu", "witness_memory", "witness_programs", "witness_runs",
    }  # fmt: skip
    seen = after["end"]["witness"]["loader"]
    assert seen["pids"] == [host.service.pid] and seen["cpu_source"] == "cgroup"
    assert {one["type"] for one in seen["programs"]} and all(one["links"] for one in seen["programs"])
    assert seen["why"].keys() <= {"memory_bytes"}


@pytest.mark.slow
def test_features_that_come_and_go_are_no_disagreement(host: Witnessed) -> None:
    """A kill order, its release and a changed wish while observations are taken."""
    for turn in range(3):
        order = host.service.order("feature.exec_events")
        after = host.observe(4)
        found = host.judge(after)
        order.unlink()
        disagree = {name: said for name, said in failures(found).items() if name.startswith("witness")}
        assert not disagree, (turn, disagree, after["end"]["witness"], host.service.journal()[-2000:])
    host.service.want("runqlat")
    after = host.observe(4)
    found = host.judge(after)
    assert not failures(found), (failures(found), after["end"]["witness"], host.service.journal()[-2000:])


@pytest.mark.slow
def test_nothing_attached_is_judged_too(host: Witnessed) -> None:
    host.service.want()
    host.service.wait_state("runqlat", "off")
    verdict = host.judge(host.observe(4))
    programs = next(one for one in verdict["checks"] if one["check"] == "witness_programs")
    assert programs["verdict"] == "pass" and "0 programs" in programs["sentence"]
    assert not failures(verdict), failures(verdict)


def test_a_frozen_loader_with_a_forged_status_fails_with_both_values(host: Witnessed) -> None:
    verdict = forged(host, grow, frozen=True)
    assert verdict["verdict"] == "fail"
    found = failures(verdict)
    assert f"process {host.service.pid} of the loader is stopped (state T)" in found["witness_process"]
    assert "its unit got 0 ns of CPU" in found["witness_advance"]


@pytest.mark.slow
def test_a_forged_lower_cost_fails_and_the_kernels_is_judged(host: Witnessed) -> None:
    """The loader works, its status says that it costs nothing."""
    burn = subprocess.Popen(["sh", "-c", "while :; do :; done"])
    (host.cgroup / "cgroup.procs").write_text(str(burn.pid))
    try:

        def cheap(status: Json, seconds: float) -> None:
            grow(status, seconds)
            status["loader"]["cpu_ns"] = int(seconds * 1e6)

        busy()
        verdict = forged(host, cheap, frozen=False)
    finally:
        burn.kill()
        burn.wait()
    loader = next(one for one in verdict["checks"] if one["check"] == "loader_cpu")
    assert loader["measured"] > 100, "the kernel's count of the unit's CPU time was not judged"
    assert "witness_programs" not in failures(verdict), failures(verdict)


@pytest.mark.slow
def test_a_loader_that_tells_less_cpu_than_the_kernel_counted_fails(host: Witnessed) -> None:
    for _turn in range(3):
        busy()
        time.sleep(1)
    real = host.service.now()["loader"]["cpu_ns"]

    def cheap(status: Json, seconds: float) -> None:
        status["loader"]["cpu_ns"] = int(seconds * 1000)

    verdict = forged(host, cheap, frozen=True)
    cpu = next(one for one in verdict["checks"] if one["check"] == "witness_cpu")
    if real > 70_000_000:
        assert cpu["verdict"] == "fail", cpu
        assert "is told as" in cpu["sentence"] and "the kernel had counted" in cpu["sentence"]
    more = forged(host, lambda status, _s: status["loader"].update(cpu_ns=real + 10**9), frozen=True)
    assert "the kernel counted" in failures(more)["witness_cpu"]


@pytest.mark.slow
def test_a_program_that_is_detached_and_told_as_attached_fails(host: Witnessed) -> None:
    time.sleep(1.5)
    attached = json.loads(host.status_path.read_bytes())["features"]["exec_events"]
    host.service.want("runqlat")
    host.service.wait_state("exec_events", "off")

    def still(status: Json, seconds: float) -> None:
        status["features"]["exec_events"] = attached

    verdict = forged(host, still, frozen=True)
    said = failures(verdict)["witness_programs"]
    number = attached["programs"][0]["id"]
    assert f"exec_events is told as attached with program {number}" in said
    assert "the kernel lists" in said


@pytest.mark.slow
def test_a_program_that_is_held_and_not_told_fails(host: Witnessed) -> None:
    def hide(status: Json, seconds: float) -> None:
        status["features"]["exec_events"].update(state="off", profile="disabled", programs=[], links=[], wanted=False)

    said = failures(forged(host, hide, frozen=True))["witness_programs"]
    assert "holds programs in the kernel that it does not tell" in said and "ef_" in said


@pytest.mark.slow
def test_events_that_are_told_without_a_run_fail(host: Witnessed) -> None:
    def claim(status: Json, seconds: float) -> None:
        feature = status["features"]["exec_events"]
        feature["counters"]["produced"] += int(seconds * 100)
        feature["programs"][0]["run_cnt"] += 10**6
        feature["programs"][0]["run_time_ns"] += 10**9

    said = failures(forged(host, claim, frozen=True))["witness_runs"]
    assert "exec_events: run time of its programs is told as" in said and "the kernel counted" in said


@pytest.mark.sample(1)
@pytest.mark.parametrize(
    ("change", "check", "words"),
    [
        ({"boot_id": "11111111-2222-3333-4444-555555555555"}, "witness_boot", "is of boot 11111111"),
        ({"pid": 1}, "witness_pid", "status is of process 1, systemd's main process is"),
        ({"started_boottime_ns": 5}, "witness_pid", "says that it started at 5 ns"),
        ({"bundle": {"digest": "e" * 64}}, "witness_release", "the status tells bundle eeeeeeeeeee"),
    ],
)
def test_another_life_or_release_fails(host: Witnessed, change: Json, check: str, words: str) -> None:
    verdict = forged(host, lambda status, seconds: status.update(change), frozen=True, seconds=3)
    assert words in failures(verdict)[check]


@pytest.mark.slow
def test_an_old_status_does_not_pass(host: Witnessed) -> None:
    old = json.loads(host.status_path.read_bytes())["boottime_ns"] - 60 * 10**9
    verdict = forged(host, lambda status, seconds: status.update(boottime_ns=old), frozen=True, seconds=3)
    assert verdict["verdict"] == "fail"
    assert "status_fresh" in held(verdict) and "did not advance" in held(verdict)["witness_advance"]


@pytest.mark.slow
def test_another_binary_than_the_installed_one_fails(host: Witnessed, tmp_path: Path) -> None:
    installed = host.places.root / "var/lib/ebpf-fleet/current/ebpf-loader"
    installed.unlink()
    installed.write_bytes(b"another")
    said = failures(host.judge(host.observe(3)))["witness_exe"]
    assert "which is not the file that is installed" in said


@pytest.mark.slow
def test_root_is_refused_as_the_loaders_user(loader: Path, tmp_path: Path, trust: Trust, feature_objects: Path) -> None:
    service = make_service(loader, tmp_path, trust, {"runqlat": feature_of(feature_objects, "runqlat")})
    service.want("runqlat")
    cgroup = own_cgroup(f"ef-witness-root-{os.getpid()}")
    if cgroup is None:
        pytest.skip("this machine has no cgroup 2 hierarchy")
    try:
        service.start_settled()
        host = Witnessed(service, tmp_path / "root", cgroup)
        assert "user ids [0, 0, 0, 0]" in failures(host.judge(host.observe(3)))["witness_user"]
    finally:
        end(service)
        cgroup.rmdir()


def fifo(path: Path) -> None:
    os.mkfifo(path)


def zero(path: Path) -> None:
    path.symlink_to("/dev/zero")


def directory(path: Path) -> None:
    path.mkdir()


def giant(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1 << 36)


def deep(path: Path) -> None:
    path.write_text("[" * 1_000_000 + "]" * 1_000_000)


def not_a_number(path: Path) -> None:
    path.write_text('{"schema": "ebpf.fleet/status/v1", "loader": {"cpu_ns": NaN}}')


def negative(path: Path) -> None:
    path.write_text(json.dumps({"schema": "ebpf.fleet/status/v1", "boottime_ns": -5}))


LAID = [fifo, zero, directory, giant, deep, not_a_number, negative]


@pytest.mark.parametrize("lay", LAID, ids=lambda lay: lay.__name__)
def test_what_lies_in_the_place_of_the_status_neither_hangs_nor_feeds_the_module(tmp_path: Path, lay: Any) -> None:
    """In a process of its own with little memory and a time limit, as a hang cannot be caught from within."""
    state = tmp_path / "state"
    state.mkdir()
    lay(state / "status.json")
    script = (
        "import json, resource, sys, time; from pathlib import Path; "
        "resource.setrlimit(resource.RLIMIT_AS, (400 << 20, 400 << 20)); "
        "from ansible_collections.ebpf.fleet.plugins.module_utils.rollout import observation as obs; "
        "state = Path(sys.argv[1]); "
        "places = obs.Places(state_dir=state, collector_dir=state, application_file=state / 'status.json'); "
        "print(json.dumps(obs.observe(places, 'here', 0.1, time.sleep)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(state)],
        capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    end_ = json.loads(done.stdout)["end"]
    assert end_["status"] is None and "status.json" in end_["status_error"]
    assert end_["application"] is None or set(end_["application"].values()) == {None}
