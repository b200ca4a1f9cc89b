# SPDX-License-Identifier: GPL-3.0-or-later
"""The evidence of a real loader under real systemd: healthy, stopped, dead, on a full disk, and without Python."""

from __future__ import annotations

import hashlib
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.sysfleet import Release, SysFleet, status
from tests.support.syshost import SysHost

# What every host with a release has, and what is only there while the loader lives.
ALWAYS = {"host.txt", "status.json", "capability.txt", "unit.txt", "disks.txt", "audit.jsonl", "journal.txt"}
HELD = {"programs.txt", "maps.txt"}
PASSWORD, PERSON, PROCESS = "hunter2-of-the-test", "person-of-the-test", "process-of-the-test"


@pytest.fixture(scope="module")
def first(sysfleet: SysFleet) -> Release:
    return sysfleet.release("1.0.0", 1, ["runqlat"])


class Collected:
    """A run of the playbook: how it ended, its record, and the files of the one host."""

    def __init__(self, fleet: SysFleet, folder: Path, **variables: Any) -> None:
        folder.mkdir(parents=True)
        given = {"ebpf_fleet_forensics_dir": str(folder), **variables}
        self.played = fleet.play("forensics", given)
        (self.folder,) = folder.iterdir()
        self.record = json.loads((self.folder / "forensics.json").read_text())
        self.host = self.record["hosts"][fleet.hosts[0].name]
        self.files = {path.name: path.read_text() for path in sorted((self.folder / self.host["folder"]).iterdir())}

    def complete(self) -> None:
        """It ended well, nothing is missing, and the checksums hold by a tool that is not ours."""
        assert self.played.rc == 0, self.played.text
        assert self.host["complete"] and self.host["faults"] == [], self.host
        place = self.folder / self.host["folder"]
        done = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=place, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout
        kept = {name for name in self.files if name != "SHA256SUMS"}
        assert kept == {line.split()[1] for line in self.files["SHA256SUMS"].splitlines()}
        for name in kept:
            assert hashlib.sha256(self.files[name].encode()).hexdigest() == self.host["files"][name]["sha256"]
            assert all(line.isprintable() for line in self.files[name].replace("\t", "").splitlines())


@pytest.fixture
def whole(deployed: SysHost) -> Iterator[SysHost]:
    """The host with its loader running, before and after the test."""
    yield deployed
    deployed.must("systemctl kill -s CONT ebpf-fleet-loader; systemctl reset-failed ebpf-fleet-loader")
    deployed.must("systemctl restart ebpf-fleet-loader")
    await_that(lambda: status(deployed)["state"] == "running")


def await_that(holds: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def pid_of(host: SysHost) -> int:
    return int(host.must("systemctl show -P MainPID ebpf-fleet-loader"))


def state_of(host: SysHost, pid: int) -> str:
    return host.must(f"cut -d ' ' -f 3 /proc/{pid}/stat").strip()


def test_a_healthy_host_gives_all_of_it(whole: SysHost, sysfleet: SysFleet, tmp_path: Path) -> None:
    await_that(lambda: bool(status(whole)["features"]["runqlat"]["programs"][0]["run_cnt"]))
    found = Collected(sysfleet, tmp_path / "out")
    found.complete()
    assert set(found.files) >= ALWAYS | HELD | {"listed.txt", "metrics.prom", "bpf.jsonl"}, found.host
    (seen,) = [one for one in json.loads(found.files["status.json"])["features"].values() if one["wanted"]]
    listed = [json.loads(line) for line in found.files["bpf.jsonl"].splitlines()]
    ours = {one["program"]: one for one in listed if str(one.get("name", "")).startswith("ef_rql") and "program" in one}

    def programs() -> list[dict[str, Any]]:
        return list(status(whole)["features"]["runqlat"]["programs"])

    # The loader writes its status once an interval: the first one after the evidence is at or above it.
    await_that(lambda: all(one["run_cnt"] >= ours[one["id"]]["run_cnt"] for one in programs()))
    told = status(whole)["features"]["runqlat"]
    assert [one["id"] for one in seen["programs"]] == [one["id"] for one in told["programs"]]
    for one in told["programs"]:
        assert ours[one["id"]]["tag"] == one["tag"] and 0 < ours[one["id"]]["run_cnt"] <= one["run_cnt"]
        assert f"prog_id: {one['id']} " in found.files["programs.txt"].replace("  ", " ")
    for one in told["maps"]:
        assert f"map_id: {one['id']} " in found.files["maps.txt"].replace("  ", " ")
    assert '"event":"attach"' in found.files["audit.jsonl"] and "attached: variant" in found.files["journal.txt"]
    assert "ActiveState=active" in found.files["unit.txt"] and "State:\tS" in found.files["unit.txt"]
    assert found.host["python"] is True and found.host["family"] == status(whole)["kernel"]["family"]


def test_a_loader_that_is_stopped_hides_nothing(whole: SysHost, sysfleet: SysFleet, tmp_path: Path) -> None:
    pid = pid_of(whole)
    whole.must(f"kill -STOP {pid}")
    await_that(lambda: state_of(whole, pid) == "T")
    found = Collected(sysfleet, tmp_path / "out")
    found.complete()
    assert set(found.files) >= ALWAYS | HELD
    assert "State:\tT (stopped)" in found.files["unit.txt"]
    # What it holds is told by the kernel while it can say nothing itself.
    assert f"pid {pid} fd " in found.files["programs.txt"] and "map_id:" in found.files["maps.txt"]


def test_a_loader_that_is_dead_leaves_its_last_words(whole: SysHost, sysfleet: SysFleet, tmp_path: Path) -> None:
    pid = pid_of(whole)
    whole.must("mkdir -p /run/systemd/system/ebpf-fleet-loader.service.d")
    whole.must("printf '[Service]\\nRestart=no\\n' > /run/systemd/system/ebpf-fleet-loader.service.d/dead.conf")
    whole.must("systemctl daemon-reload")
    try:
        whole.must(f"kill -KILL {pid}")
        await_that(lambda: "failed" in whole.run("systemctl is-active ebpf-fleet-loader").stdout)
        found = Collected(sysfleet, tmp_path / "out")
    finally:
        whole.must("rm -r /run/systemd/system/ebpf-fleet-loader.service.d; systemctl daemon-reload")
    found.complete()
    assert "ActiveState=failed" in found.files["unit.txt"] and "Result=signal" in found.files["unit.txt"]
    assert not HELD & set(found.files) and found.host["files"]["maps.txt"]["why"] == "it is not there"
    assert '"event":"attach"' in found.files["audit.jsonl"] and "bpf.jsonl" in found.files
    assert "status=9/KILL" in found.files["journal.txt"]


def test_a_full_disk_costs_nothing_of_it_and_nothing_is_written(
    whole: SysHost, sysfleet: SysFleet, tmp_path: Path
) -> None:
    # All that is written lies in the memory of one file system, as on a host with one disk.
    places = "/var/log/ebpf-fleet /tmp /root /var/tmp"
    whole.must("mount -t tmpfs -o size=64k,nr_inodes=4 none /tmp; mount -t tmpfs -o size=64k,nr_inodes=4 none /var/tmp")
    try:
        for place in ("/tmp", "/var/tmp"):
            assert whole.run(f"dd if=/dev/zero of={place}/full bs=64k count=4").rc
            assert whole.run(f"echo more >{place}/more").rc
        before = whole.must(f"find {places} -newer /proc/1/stat; ls -la /tmp /var/tmp")
        found = Collected(sysfleet, tmp_path / "out")
        assert (
            whole.must(f"find {places} -newer /proc/1/stat; ls -la /tmp /var/tmp").split("/tmp:")[1:]
            == (before.split("/tmp:")[1:])
        )
    finally:
        whole.must("umount /tmp /var/tmp")
    found.complete()
    assert set(found.files) >= ALWAYS | HELD and "100%" in found.files["disks.txt"]


def test_without_python_only_its_own_file_is_missing(whole: SysHost, sysfleet: SysFleet, tmp_path: Path) -> None:
    whole.must("mount --bind /dev/null $(readlink -f /usr/bin/python3)")
    try:
        assert whole.run("python3 -c pass").rc
        found = Collected(sysfleet, tmp_path / "out")
    finally:
        whole.must("umount $(readlink -f /usr/bin/python3)")
    found.complete()
    assert found.host["python"] is False and "bpf.jsonl" not in found.files
    assert set(found.files) >= ALWAYS | HELD and "run_cnt:" in found.files["programs.txt"]


def test_what_the_loaders_user_puts_there_leads_nowhere_and_no_secret_leaves(
    whole: SysHost, sysfleet: SysFleet, tmp_path: Path
) -> None:
    """A link to what only root may read, a FIFO that hangs who opens it, secrets and escapes in its own words."""
    whole.must("systemctl stop ebpf-fleet-loader; mkdir -p /run/ebpf-fleet-loader")
    words = "\n".join((
        f'x\x1b[2Jx password={PASSWORD} "api_key": "{PASSWORD}" https://me:{PASSWORD}@host/',
        f"Authorization: Bearer {PASSWORD}", f"/home/{PERSON}/x {PERSON}@example.org uid=1000({PERSON})",
        f"comm={PROCESS} Comm: {PROCESS}",
    ))  # fmt: skip
    whole.must("ln -s /etc/shadow /run/ebpf-fleet-loader/status.json; mkfifo /run/ebpf-fleet-loader/metrics.prom")
    whole.path("/run/ebpf-fleet-loader/programs").write_text(words + "\n")
    try:
        found = Collected(sysfleet, tmp_path / "out", ebpf_fleet_forensics_check="never")
    finally:
        whole.must("rm -r /run/ebpf-fleet-loader")
    found.complete()
    for name in ("status.json", "metrics.prom"):
        assert name not in found.files and "not a regular file" in found.host["files"][name]["why"]
    text = "".join(found.files.values())
    assert "root:" not in found.files.get("status.json", "") and PASSWORD not in text and "\x1b" not in text
    assert PERSON not in text and PROCESS not in text and "uid=1000([user])" in found.files["listed.txt"]


def test_a_bundle_keeps_to_its_limits_and_says_what_was_cut(whole: SysHost, sysfleet: SysFleet, tmp_path: Path) -> None:
    found = Collected(
        sysfleet, tmp_path / "out", ebpf_fleet_forensics_file_bytes=4096, ebpf_fleet_forensics_bytes=12288
    )
    sizes = {name: len(text) for name, text in found.files.items() if name != "SHA256SUMS"}
    assert max(sizes.values()) <= 4096 and sum(sizes.values()) <= 12288
    cut = {name for name, one in found.host["files"].items() if one["cut"]}
    # The first to exceed its own limit, and one for which nothing was left.
    assert {"bpf.jsonl", "check.json"} <= cut and "unit.txt" not in cut
    assert "cut to its limit on some host: " in found.played.text
    assert "no room is left" in found.host["files"]["check.json"]["why"]
    found.complete()


def test_the_verifiers_log_is_had_by_the_loaders_own_trial(whole: SysHost, sysfleet: SysFleet, tmp_path: Path) -> None:
    found = Collected(
        sysfleet, tmp_path / "out", ebpf_fleet_forensics_check="always", ebpf_fleet_forensics_file_bytes=1048576
    )
    found.complete()
    trial = json.loads(found.files["check.json"])
    assert trial["schema"] == "ebpf.fleet/check/v1" and trial["features"]["runqlat"]["profile"] == "full"
    whole.must("mkdir -p /run/ebpf-fleet/kill.d && touch /run/ebpf-fleet/kill.d/feature.nothing")
    try:
        again = Collected(sysfleet, tmp_path / "again", ebpf_fleet_forensics_check="always")
    finally:
        whole.must("rm /run/ebpf-fleet/kill.d/feature.nothing")
    assert "check.json" not in again.files and "an order stands" in again.host["files"]["check.json"]["why"]
