# SPDX-License-Identifier: GPL-3.0-or-later
"""The service's life: start, faults, end, and what it writes."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any, Iterator

import pytest

from tests.loader.bundles import Trust
from tests.loader.service import (
    Service,
    feature_of,
    links_in_kernel,
    make_service,
    ours_in_kernel,
    total,
    wait_for,
)

BOTH = ("exec_events", "runqlat")
HIDE_BTF = ("unshare", "-m", "sh", "-c", 'mount -t tmpfs none /sys/kernel/btf && exec "$@"', "sh")
NO_CAPABILITIES = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")
AS_THE_UNIT = (
    *("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all,+bpf,+perfmon"),
    *("--ambient-caps=-all,+bpf,+perfmon", "--bounding-set=-all,+bpf,+perfmon"),
)


@pytest.fixture
def service(loader: Path, tmp_path: Path, trust: Trust, feature_objects: Path) -> Iterator[Service]:
    """A service with both features wanted; not started."""
    made = make_service(loader, tmp_path, trust, {name: feature_of(feature_objects, name) for name in BOTH})
    made.want(*BOTH)
    yield made
    if made.process is not None:
        made.stop(signal.SIGKILL)


def ids(status: dict[str, Any], kind: str) -> set[int]:
    """Ids of all "programs", "maps" or "links" of a status."""
    found = [each for feature in status["features"].values() for each in feature[kind]]
    return {int(each) if kind == "links" else int(each["id"]) for each in found}


def gone(status: dict[str, Any]) -> bool:
    """By bpftool, is nothing of what the status names left in the kernel?"""
    return not (
        ids(status, "programs") & {each["id"] for each in ours_in_kernel("prog")}
        or ids(status, "maps") & {each["id"] for each in ours_in_kernel("map")}
        or ids(status, "links") & {each["id"] for each in links_in_kernel()}
    )


# ---- end ----


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_detaches_and_says_so(service: Service, number: int) -> None:
    before = service.start_settled()
    assert not gone(before)
    subprocess.run(["true"], check=True)
    assert service.stop(number) == 0
    wait_for(lambda: gone(before), "programs, maps and links go", 5)
    status = json.loads((service.state / "status.json").read_bytes())
    assert status["state"] == "idle" and not ids(status, "programs") and not ids(status, "links")
    assert (service.state / "programs").read_text() == ""
    for feature in status["features"].values():
        assert feature["state"] == "off"
        assert feature["counters"]["produced"] == total(feature["counters"]) > 0
    assert status["features"]["exec_events"]["counters"]["delivered"] == len(service.events())


def test_a_kill_dash_nine_leaves_nothing_in_the_kernel(service: Service) -> None:
    before = service.start_settled()
    assert not gone(before)
    assert service.stop(signal.SIGKILL) == -signal.SIGKILL
    wait_for(lambda: gone(before), "programs, maps and links go", 5)


def test_a_restart_after_a_crash_attaches_again(service: Service) -> None:
    service.start_settled()
    service.stop(signal.SIGKILL)
    with service.events_path.open("ab") as torn:
        torn.write(b'{"half": ')
    service.start_settled()
    subprocess.run(["true"], check=True)
    service.order("global")
    service.wait_state("exec_events", "killed")
    lines = service.events_path.read_bytes().splitlines()
    broken = [line for line in lines if not line.endswith(b"}")]
    assert broken == [b'{"half": '], "the torn line stands alone"
    assert [json.loads(line) for line in lines if line not in broken]


def run_status(service: Service, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(service.binary), "status", "--state", str(folder or service.state)],
        check=False,
        capture_output=True,
        text=True,
    )


def test_the_status_command_knows_the_living_from_the_dead(service: Service) -> None:
    service.start_settled()
    done = run_status(service)
    assert done.returncode == 0 and json.loads(done.stdout)["pid"] == service.pid
    service.stop(signal.SIGKILL)
    done = run_status(service)
    assert done.returncode == 1 and "gone" in done.stderr
    assert json.loads(done.stdout)["state"] == "running", "what it said last is still shown"
    document = json.loads((service.state / "status.json").read_bytes())
    document["pid"] = os.getpid()  # alive, but not the process that wrote it
    (service.state / "status.json").write_text(json.dumps(document))
    assert run_status(service).returncode == 1
    assert run_status(service, service.folder / "nowhere").returncode == 1


# ---- start ----


def test_the_status_is_what_the_contract_says(service: Service) -> None:
    status = service.start_settled()
    assert set(status) == {
        "schema", "time_unix_ns", "boottime_ns", "boot_id", "pid", "started_boottime_ns",
        "loader_version", "bundle", "kernel", "state", "reason_code", "reason", "kills",
        "kill_unknown", "desired_error", "policy_error", "budget", "lease", "audit_lost",
        "stats_enabled", "privileges", "loader", "features", "compatibility", "shipping", "trust",
        "clock_known",
    }  # fmt: skip
    assert status["boot_id"] == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    assert abs(status["time_unix_ns"] - time.time_ns()) < 10e9
    assert 0 < status["started_boottime_ns"] <= status["boottime_ns"]
    assert status["bundle"]["digest"] == service.bundle.digest
    assert status["kernel"]["release"] == os.uname().release
    assert status["stats_enabled"] and status["loader"]["rss_bytes"] > 0
    memory = [each["memory_bytes"] for name in BOTH for each in status["features"][name]["maps"]]
    assert status["loader"]["map_memory_bytes"] == sum(memory) > 0
    assert ids(status, "links") <= {each["id"] for each in links_in_kernel()}
    assert b" " not in (service.state / "status.json").read_bytes().replace(b'": "', b"")[:20]


def test_the_programs_file_is_for_a_shell(service: Service) -> None:
    status = service.start_settled()
    lines = [line.split(" ") for line in (service.state / "programs").read_text().splitlines()]
    expected = [
        [str(each["id"]), each["tag"], name, each["name"]]
        for name in sorted(BOTH)
        for each in status["features"][name]["programs"]
    ]
    assert lines == expected
    service.order("feature.runqlat")
    service.wait_state("runqlat", "killed")
    lines = [line.split(" ") for line in (service.state / "programs").read_text().splitlines()]
    assert [line[2] for line in lines] == ["exec_events"]


def test_a_refused_bundle_loads_nothing_and_says_why(service: Service) -> None:
    path = service.bundle.root / "features/runqlat/full.bpf.o"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    service.order("global")
    service.start()
    assert service.process is not None and service.process.wait(timeout=20) == 3
    status = service.now()
    assert (status["state"], status["reason_code"]) == ("refused", "EF_FILE_DIGEST")
    assert status["features"] is None and status["bundle"] is None
    assert [each["scope"] for each in status["kills"]] == ["global"]
    assert "features/runqlat/full.bpf.o" in status["reason"]


def test_what_was_verified_is_what_is_loaded(service: Service) -> None:
    """Changing the folder after the start changes nothing: the bytes are in memory."""
    service.order("global")
    service.start_settled()
    for path in service.bundle.root.rglob("*.bpf.o"):
        path.write_bytes(b"something else")
    (service.run / "kill.d" / "global").unlink()
    assert service.wait_state("runqlat", "attached")["profile"] == "full"


def test_without_btf_all_is_disabled_and_the_service_lives(service: Service) -> None:
    service.prefix = HIDE_BTF
    status = service.start_settled()
    assert status["kernel"]["btf"] == "missing" and status["state"] == "idle"
    for name in BOTH:
        found = status["features"][name]
        assert (found["state"], found["reason_code"]) == ("disabled", "EF_NO_BTF")
        assert found["profile"] == "disabled" and found["variant"] is None
    time.sleep(1.5)
    assert service.alive()


def test_without_capabilities_permission_is_the_reason(service: Service) -> None:
    service.prefix = NO_CAPABILITIES
    status = service.start_settled()
    for name in BOTH:
        found = status["features"][name]
        assert (found["state"], found["reason_code"]) == ("disabled", "EF_PERMISSION")
        assert "CAP_BPF" in found["reason"]
    assert not status["stats_enabled"] and service.alive()


def test_as_the_unit_runs_it_without_root(service: Service) -> None:
    """Another user, CAP_BPF and CAP_PERFMON only: it works, and runs are not counted."""
    service.state.mkdir()
    for folder in (service.state, service.log):
        os.chown(folder, 65534, 65534)
    for folder in [service.folder, *service.folder.parents]:
        if not os.stat(folder).st_mode & 0o001:
            folder.chmod(0o711)
    service.prefix = AS_THE_UNIT
    status = service.start_settled()
    assert {status["features"][name]["profile"] for name in BOTH} == {"full"}
    assert not status["stats_enabled"]
    for name in BOTH:
        for program in status["features"][name]["programs"]:
            assert program["run_cnt"] is None and program["run_time_ns"] is None
    assert "program_runs_total{" not in (service.state / "metrics.prom").read_text()


def capabilities(pid: int, kind: str) -> int:
    text = Path(f"/proc/{pid}/status").read_text()
    match = re.search(rf"^{kind}:\s*([0-9a-f]+)$", text, re.M)
    assert match, text
    return int(match.group(1), 16)


def test_all_but_two_capabilities_are_given_up(service: Service) -> None:
    service.start_settled()
    two = 1 << 38 | 1 << 39  # CAP_PERFMON, CAP_BPF
    for kind in ("CapPrm", "CapEff"):
        assert capabilities(service.pid, kind) == two
    assert capabilities(service.pid, "CapBnd") & ~two == 0
    assert capabilities(service.pid, "CapInh") == 0
    assert service.fresh_status()["stats_enabled"], "opened before they were given up"


def test_run_counts_are_those_of_the_kernel(service: Service) -> None:
    service.start_settled()
    for _ in range(20):
        subprocess.run(["true"], check=True)
    program = service.fresh_status()["features"]["exec_events"]["programs"][0]
    assert program["run_cnt"] >= 20 and program["run_time_ns"] > 0
    kernel = next(each for each in ours_in_kernel("prog") if each["id"] == program["id"])
    assert kernel["run_cnt"] >= program["run_cnt"]


def test_a_distro_whose_name_is_no_name_has_no_family(service: Service) -> None:
    """os-release is not ours: what it says must not break the status, nor end the loader."""
    odd = service.folder / "os-release"
    odd.write_bytes(b'ID="caf\xe9 1"\n')
    service.prefix = ("unshare", "-m", "sh", "-c", f'mount --bind {odd} /etc/os-release && exec "$@"', "sh")
    status = service.start_settled()
    assert status["kernel"]["family"] and status["kernel"]["distro_family"] is None
    assert status["state"] == "running"


def test_usage_errors_are_told_apart(loader: Path) -> None:
    for arguments in (["run"], ["run", "--bundle", "x", "--interval", "0"], ["run", "--nonsense"], ["left", "x"]):
        done = subprocess.run([str(loader), *arguments], check=False, capture_output=True, text=True)
        assert done.returncode == 2 and done.stderr and not done.stdout


# ---- systemd ----


@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_is_told(service: Service, abstract: bool) -> None:
    name = f"ef-test-{os.getpid()}" if abstract else str(service.folder / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as inbox:
        inbox.bind("\0" + name if abstract else name)
        inbox.settimeout(10)
        service.environment = {
            "NOTIFY_SOCKET": "@" + name if abstract else name,
            "WATCHDOG_USEC": "1500000",
        }
        service.interval = 60
        service.start()
        first = inbox.recv(4096)
        assert first.startswith(b"READY=1\nSTATUS=running")
        assert service.now()["state"] == "running", "ready after the status is out"
        began = time.monotonic()
        assert inbox.recv(4096) == b"WATCHDOG=1" and inbox.recv(4096) == b"WATCHDOG=1"
        assert time.monotonic() - began < 1.5, "in time for the watchdog, whatever the interval"
        service.stop()
        assert b"STOPPING=1" in [inbox.recv(4096) for _ in range(1)]


# ---- metrics ----

SAMPLE = re.compile(r"^([a-z_]+)(\{[a-z_]+=\"[^\"]*\"(?:,[a-z_]+=\"[^\"]*\")*\})? (-?[0-9.]+|\+Inf|NaN)$")


def parse_metrics(text: str) -> dict[str, list[tuple[str, float]]]:
    """Samples by family. Fails on anything that Prometheus' text format does not allow."""
    families: dict[str, list[tuple[str, float]]] = {}
    types: dict[str, str] = {}
    seen = set()
    assert text.endswith("\n")
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name not in types and kind in ("counter", "gauge", "histogram"), line
            types[name] = kind
            continue
        if line.startswith("# HELP "):
            assert len(line.split(" ", 3)) == 4
            continue
        match = SAMPLE.match(line)
        assert match, line
        name, labels, value = match.groups()
        family = re.sub(r"_(bucket|sum|count)$", "", name)
        family = family if types.get(family) == "histogram" else name
        assert family in types and list(types)[-1] == family, f"{line}: behind its TYPE and together"
        assert (types[family] == "counter") == name.endswith("_total"), line
        assert (name, labels) not in seen, f"{line}: twice"
        seen.add((name, labels))
        families.setdefault(family, []).append((labels or "", float(value)))
    return families


def test_metrics_are_good_and_agree_with_the_status(service: Service) -> None:
    service.start_settled()
    subprocess.run(["true"], check=True)
    service.order("global")
    service.wait_state("exec_events", "killed")
    status = service.fresh_status()
    found = parse_metrics((service.state / "metrics.prom").read_text())
    for key in ("produced", "delivered", "dropped", "sampled_out"):
        for labels, value in found[f"ebpf_fleet_events_{key}_total"]:
            name = labels.split('"')[1]
            assert value == status["features"][name]["counters"][key]
    assert found["ebpf_fleet_kill_engaged"] == [('{scope="global"}', 1.0)]
    profiles = dict(found["ebpf_fleet_feature_profile"])
    assert profiles['{feature="runqlat",profile="disabled"}'] == 1
    assert profiles['{feature="runqlat",profile="full"}'] == 0


def test_metrics_while_it_runs_name_every_map_and_program(service: Service) -> None:
    status = service.start_settled()
    found = parse_metrics((service.state / "metrics.prom").read_text())
    maps = sum(len(status["features"][name]["maps"]) for name in BOTH)
    assert len(found["ebpf_fleet_map_memory_bytes"]) == maps
    assert len(found["ebpf_fleet_program_runs_total"]) == len(ids(status, "programs"))
    assert sorted(labels for labels, _ in found["ebpf_fleet_map_entries"]) == [
        '{feature="exec_events",map="ef_fair"}',
        '{feature="runqlat",map="ef_rql_start"}',
    ]


# ---- the events file ----


@pytest.fixture
def small_disk(service: Service) -> Iterator[Path]:
    """The log folder is a file system of 64 KiB."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", str(service.log)], check=True)
    yield service.log
    if service.process is not None:
        service.stop(signal.SIGKILL)
    subprocess.run(["umount", str(service.log)], check=True)


def test_a_full_disk_drops_counts_and_recovers(service: Service, small_disk: Path) -> None:
    service.start_settled()
    subprocess.run(["sh", "-c", "i=0; while [ $i -lt 600 ]; do /bin/true; i=$((i+1)); done"], check=True)

    wait_for(lambda: service.feature("exec_events")["counters"]["dropped"], "drops are counted")
    path = service.order("feature.exec_events")
    counters = service.wait_state("exec_events", "killed")["counters"]
    assert counters["produced"] == total(counters) >= 600 and counters["in_flight"] == 0
    assert counters["delivered"] == len(service.events()) > 0
    assert service.events_path.read_bytes().endswith(b"}\n"), "no torn line"
    said = service.journal().count("cannot write")
    assert 1 <= said <= counters["dropped"] / 10, "said once, not for each record"
    path.unlink()
    service.wait_state("exec_events", "attached")
    (small_disk / "events.jsonl").unlink()
    subprocess.run(["true"], check=True)
    wait_for(lambda: "can be written again" in service.journal(), "it recovers")
    wait_for(lambda: service.events_path.exists() and service.events(), "events again")


def test_a_log_folder_that_is_missing_is_no_reason_to_stop(service: Service) -> None:
    service.log.rmdir()
    service.start_settled()
    subprocess.run(["true"], check=True)
    wait_for(lambda: service.feature("exec_events")["counters"]["dropped"], "drops are counted")
    assert service.feature("exec_events")["state"] == "attached"
    service.log.mkdir()
    subprocess.run(["true"], check=True)
    wait_for(service.events, "events as soon as the folder is there")


def test_the_events_file_is_bounded(service: Service) -> None:
    with service.events_path.open("wb") as old:
        line = b'{"comm": "old", "pad": "' + b"x" * 1000 + b'"}\n'
        old.write(line * (16 * 1024 * 1024 // len(line)))
    service.start_settled()
    subprocess.run(["sh", "-c", "i=0; while [ $i -lt 100 ]; do /bin/true; i=$((i+1)); done"], check=True)
    rotated = service.log / "events.jsonl.1"
    wait_for(rotated.exists, "it is rotated")
    for path in (rotated, service.events_path):
        assert path.stat().st_size <= 16 * 1024 * 1024
        assert all(json.loads(line) for line in path.read_bytes().splitlines())
    service.order("global")
    counters = service.wait_state("exec_events", "killed")["counters"]
    new = [each for each in service.events() if each["comm"] != "old"]
    assert counters["delivered"] == len(new) and counters["dropped"] == 0


def test_a_symlink_is_not_written_through(service: Service) -> None:
    target = service.folder / "precious"
    target.write_text("mine")
    service.events_path.symlink_to(target)
    service.start_settled()
    subprocess.run(["true"], check=True)
    wait_for(lambda: service.feature("exec_events")["counters"]["dropped"], "drops are counted")
    assert target.read_text() == "mine"
