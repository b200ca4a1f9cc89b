# SPDX-License-Identifier: GPL-3.0-or-later
"""The features' programs on this machine's kernel: what they hold, load, measure and count."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, Callable

import pytest

from tests.loader.bundles import Trust, make_bundle
from tests.loader.service import (
    FEATURES,
    VARIANTS,
    Service,
    compile_feature,
    contract_of,
    dump_map,
    feature_of,
    make_service,
    map_id,
    ours_in_kernel,
    total,
    wait_for,
)

NAMES = sorted(path.parent.name for path in FEATURES.glob("*/contract.yml"))
# They need no more than tracepoints, which every kernel has.
ALWAYS_FULL = {"exec_events", "runqlat"}
PAIRS = [(name, entry["name"]) for name in NAMES for entry in contract_of(name)["variants"]]

# Reads through a number that is no pointer: every verifier refuses it.
REJECTED = """
#include "ef.h"
SEC("tp_btf/sched_switch") int ef_rql_switch(__u64 *ctx) { return *(volatile int *)ctx[0]; }
SEC("tp_btf/sched_wakeup") int ef_rql_wakeup(__u64 *ctx) { return 0; }
SEC("tp_btf/sched_wakeup_new") int ef_rql_wake_new(__u64 *ctx) { return 0; }
char LICENSE[] SEC("license") = "GPL";
"""


@pytest.fixture
def start(loader: Path, tmp_path: Path, trust: Trust, feature_objects: Path) -> Any:
    """Start a service with features (all variants of ALWAYS_FULL unless given); stops it at the end."""
    started: list[Service] = []

    def make(features: dict[str, Any] | None = None, **sampling: int) -> Service:
        chosen = features or {name: feature_of(feature_objects, name) for name in sorted(ALWAYS_FULL)}
        service = make_service(loader, tmp_path, trust, chosen)
        service.want(*chosen, digest=None, **sampling)
        started.append(service)
        service.start_settled()
        return service

    yield make
    for service in started:
        service.stop(signal.SIGKILL)


def run_loader(loader: Path, *arguments: object) -> tuple[int, dict[str, Any]]:
    """Run a command of the loader; its exit status and its document."""
    done = subprocess.run([str(loader), *map(str, arguments)], check=False, capture_output=True, text=True)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


def own_true(folder: Path, name: str = "ef_test_exec") -> Path:
    """A program under a name that nothing else on this machine has."""
    path = folder / name
    shutil.copy("/bin/true", path)
    return path


def run_times(program: Path, times: int) -> None:
    for _ in range(times):
        subprocess.run([str(program)], check=True)


# ---- what the objects hold ----


@pytest.mark.parametrize(("name", "variant"), PAIRS)
def test_object_holds_what_the_contract_says(loader: Path, feature_objects: Path, name: str, variant: str) -> None:
    contract = contract_of(name)
    code, found = run_loader(loader, "inspect", feature_objects / name / f"{variant}.bpf.o")
    said = next(entry for entry in contract["variants"] if entry["name"] == variant)
    assert code == 0 and found["license"] == "GPL"
    assert sorted(each["name"] for each in found["programs"]) == sorted(said["programs"])
    maps = {(each["name"], each["type"], each["max_entries"]) for each in found["maps"]}
    here = [each for each in contract["maps"] if variant in each.get("variants", [variant])]
    assert maps == {(each["name"], each["type"], each["max_entries"]) for each in here}
    for each in [*found["programs"], *found["maps"]]:
        assert each["name"].startswith("ef_") and len(each["name"]) <= 15


@pytest.mark.parametrize("variant", [*VARIANTS, "perf"])
def test_event_struct_is_in_the_object(loader: Path, feature_objects: Path, variant: str) -> None:
    _, found = run_loader(loader, "inspect", feature_objects / "exec_events" / f"{variant}.bpf.o")
    fields = {each["name"]: each["kind"] for each in found["structs"]["ef_exec_event"]}
    assert list(fields)[0] == "ktime_ns"
    assert {"pid": "uint", "uid": "uint", "comm": "chars"}.items() <= fields.items()
    assert ("ppid" in fields and "filename" in fields) == (variant == "full")


def test_inspect_refuses_what_is_no_object(loader: Path, tmp_path: Path) -> None:
    path = tmp_path / "text.o"
    path.write_text("no object")
    done = subprocess.run([str(loader), "inspect", str(path)], check=False, capture_output=True, text=True)
    assert done.returncode == 1 and str(path) in done.stderr and not done.stdout


# ---- check ----


def test_check_loads_every_variant_and_attaches_none(
    loader: Path, tmp_path: Path, trust: Trust, feature_objects: Path
) -> None:
    features = {name: feature_of(feature_objects, name) for name in NAMES}
    bundle = make_bundle(tmp_path / "bundle", trust.key, features)
    code, found = run_loader(loader, "check", bundle.root, *trust.arguments)
    assert code == 0 and found["schema"] == "ebpf.fleet/check/v1"
    assert found["bundle"]["digest"] == bundle.digest
    assert all(found["features"][name]["profile"] == "full" for name in ALWAYS_FULL)
    tried = [(name, each) for name in NAMES for each in found["features"][name]["variants"].values()]
    for name, result in tried:
        if not result["loads"]:
            # This kernel may lack kprobes, and refuse fentry and LSM.
            assert name not in ALWAYS_FULL
            assert result["reason_code"] in ("EF_NO_ATTACH_POINT", "EF_PERMISSION"), result
            continue
        assert result["reason_code"] == "EF_OK" and result["errno"] == 0
        assert all(each["insns"] > 0 and each["verified_insns"] > 0 for each in result["programs"])


def rejected_object(tmp_path: Path) -> bytes:
    source, target = tmp_path / "rejected.bpf.c", tmp_path / "rejected.o"
    source.write_text(REJECTED)
    command = ["clang-14", "-target", "bpf", "-std=gnu11", "-g", "-O2", f"-I{FEATURES.parent / 'include'}"]
    subprocess.run([*command, "-c", str(source), "-o", str(target)], check=True)
    return target.read_bytes()


def test_check_shows_why_the_verifier_refused(
    loader: Path, tmp_path: Path, trust: Trust, feature_objects: Path
) -> None:
    contract, objects = feature_of(feature_objects, "runqlat")
    features = {"runqlat": (contract, {**objects, "full": rejected_object(tmp_path)})}
    bundle = make_bundle(tmp_path / "bundle", trust.key, features)
    done = subprocess.run(
        [str(loader), "check", str(bundle.root), *trust.arguments], check=True, capture_output=True, text=True
    )
    found = json.loads(done.stdout)["features"]["runqlat"]
    full = found["variants"]["full"]
    assert (found["profile"], found["variant"]) == ("reduced", "reduced")
    assert not full["loads"] and full["reason_code"] == "EF_LOAD_REJECTED"
    assert full["errno_name"] == "EACCES" and "invalid mem access" in full["log_tail"]
    assert len(full["log_tail"]) <= 2048
    assert not done.stderr, "libbpf's messages belong into the document"


def test_check_refuses_a_bundle_that_is_not_signed(
    loader: Path, tmp_path: Path, trust: Trust, feature_objects: Path
) -> None:
    bundle = make_bundle(tmp_path / "bundle", trust.key, {"runqlat": feature_of(feature_objects, "runqlat")})
    bundle.signature_path.unlink()
    code, found = run_loader(loader, "check", bundle.root, *trust.arguments)
    assert code == 3 and found["reason_code"] == "EF_SIG_MISSING"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"schema": "ebpf.fleet/contract/v9"}, "schema"),
        ({"feature": "other"}, "feature"),
        ({"lifetime": "temporary"}, "expires"),
        ({"signals": []}, "signals"),
        # It is held against the manifest before its rules are.
        ({"variants": []}, "other variants than the manifest"),
    ],
)
def test_a_malformed_contract_refuses_the_bundle(
    loader: Path, tmp_path: Path, trust: Trust, feature_objects: Path, change: dict[str, Any], field: str
) -> None:
    contract, objects = feature_of(feature_objects, "runqlat")
    bundle = make_bundle(tmp_path / "bundle", trust.key, {"runqlat": ({**contract, **change}, objects)})
    code, found = run_loader(loader, "check", bundle.root, *trust.arguments)
    assert code == 3 and found["reason_code"] == "EF_CONTRACT_MALFORMED"
    assert (field if " " in field else f"'{field}'") in found["reason"]
    assert found["file"] == "features/runqlat/contract.json"


# ---- exec_events ----


def delivered_from(service: Service, program: Path, count: int) -> list[dict[str, Any]]:
    """The events of our own program, once there are `count`."""

    def mine() -> list[dict[str, Any]] | None:
        found = [each for each in service.events() if each["comm"] == program.name[:15]]
        return found if len(found) >= count else None

    found: list[dict[str, Any]] = wait_for(mine, f"{count} events of {program.name}")
    return found


@pytest.mark.parametrize(("variant", "profile"), [("full", "full"), ("reduced", "reduced"), ("perf", "reduced")])
def test_exec_event_tells_what_happened(
    start: Callable[..., Service], tmp_path: Path, feature_objects: Path, variant: str, profile: str
) -> None:
    service = start({"exec_events": feature_of(feature_objects, "exec_events", (variant,))})
    program = own_true(tmp_path)
    before = time.time()
    child = subprocess.Popen(["setpriv", "--reuid", "12345", "--clear-groups", str(program)])
    child.wait()
    event = delivered_from(service, program, 1)[0]
    assert service.feature("exec_events")["profile"] == profile
    assert (event["feature"], event["event"]) == ("exec_events", "exec")
    assert (event["pid"], event["uid"], event["comm"]) == (child.pid, 12345, program.name)
    seconds = time.mktime(time.strptime(event["time"][:19], "%Y-%m-%dT%H:%M:%S")) - time.timezone
    assert before - 1.5 <= seconds <= time.time() + 1.5
    if profile == "full":
        assert (event["ppid"], event["filename"]) == (os.getpid(), str(program))
        assert event["filename_truncated"] == 0
    else:
        assert set(event) == {"time", "feature", "event", "ktime_ns", "weight", "pid", "uid", "comm"}


def test_a_long_filename_is_cut_and_says_so(start: Callable[..., Service], tmp_path: Path) -> None:
    service = start()
    exact, longer = tmp_path / "exact", tmp_path / "longer"
    for folder in (exact, longer):
        folder.mkdir()
    fits = own_true(exact, "a" * (127 - len(str(exact)) - 1))
    cut = own_true(longer, "b" * (200 - len(str(longer)) - 1))
    run_times(fits, 1)
    run_times(cut, 1)
    first, second = delivered_from(service, fits, 1)[0], delivered_from(service, cut, 1)[0]
    assert (first["filename"], first["filename_truncated"]) == (str(fits), 0)
    assert (second["filename"], second["filename_truncated"]) == (str(cut)[:127], 1)


def test_a_name_that_is_no_text_still_gives_json(start: Callable[..., Service], tmp_path: Path) -> None:
    service = start()
    name = b'a"\\\n\xff\xc3\xa9'
    path = os.path.join(os.fsencode(tmp_path), name)
    shutil.copy(b"/bin/true", path)
    subprocess.run([path], check=True)

    def mine() -> list[str]:
        return [each["comm"] for each in service.events() if each["comm"].startswith('a"\\\n')]

    assert wait_for(mine, "the event")[0] == 'a"\\\n\ufffd\u00e9'


def test_a_name_cannot_act_on_the_terminal_that_shows_the_file(start: Callable[..., Service], tmp_path: Path) -> None:
    """Escape sequences of both kinds, directions of text and what cannot be seen are written as escapes."""
    service = start()
    name = "ef\x1b[2J\x7f\u009b\u202e\U000e0041"
    path = os.path.join(os.fsencode(tmp_path), name.encode())
    shutil.copy(b"/bin/true", path)
    subprocess.run([path], check=True)
    wait_for(lambda: [each for each in service.events() if each["filename"].endswith(name)], "the event")
    assert all(byte == 0x0A or 0x20 <= byte < 0x7F for byte in service.events_path.read_bytes())


def test_every_exec_of_a_storm_is_delivered_and_counted(start: Callable[..., Service], tmp_path: Path) -> None:
    service = start()
    program = own_true(tmp_path)
    script = f"i=0; while [ $i -lt 1000 ]; do {program}; i=$((i+1)); done"
    storms = [subprocess.Popen(["sh", "-c", script]) for _ in range(2)]
    for storm in storms:
        assert storm.wait() == 0
    delivered_from(service, program, 2000)
    service.order("feature.exec_events")
    counters = service.wait_state("exec_events", "killed")["counters"]
    assert counters["produced"] == total(counters) and counters["in_flight"] == 0
    assert counters["dropped"] == 0
    assert counters["delivered"] == len(service.events()) >= 2000


def tiny_ring(tmp_path: Path) -> tuple[Any, dict[str, bytes]]:
    """exec_events with a ring of one page."""
    contract = contract_of("exec_events")
    for each in contract["maps"]:
        if each["name"] == "ef_events":
            each["max_entries"] = 4096
    contract["variants"] = contract["variants"][:1]
    return contract, {"full": compile_feature("exec_events", "full", tmp_path / "t.o", "-DEF_RING_BYTES=4096")}


def test_a_full_ring_drops_and_counts_each_drop(start: Callable[..., Service], tmp_path: Path) -> None:
    service = start({"exec_events": tiny_ring(tmp_path)})
    program = own_true(tmp_path)
    counters_map = map_id(service.feature("exec_events"), "ef_counters")
    service.send(signal.SIGSTOP)  # no one reads the ring
    run_times(program, 200)
    produced, submitted, dropped, sampled_out = dump_map(counters_map)
    service.send(signal.SIGCONT)
    assert produced >= 200 and dropped > 100 and submitted > 0
    assert produced == submitted + dropped + sampled_out
    service.order("feature.exec_events")
    counters = service.wait_state("exec_events", "killed")["counters"]
    assert counters["produced"] == total(counters) >= produced
    assert counters["dropped"] >= dropped and counters["in_flight"] == 0
    assert counters["delivered"] == len(service.events()) >= submitted


def test_sampling_is_counted_and_can_be_changed_while_it_runs(start: Callable[..., Service], tmp_path: Path) -> None:
    service = start(None, exec_events=4)
    program = own_true(tmp_path)
    run_times(program, 400)
    counters = service.fresh_status()["features"]["exec_events"]["counters"]
    assert counters["sampled_out"] > 0.6 * 400, counters
    assert counters["delivered"] > 0 and counters["produced"] == total(counters)
    service.want("exec_events", "runqlat")
    wait_for(lambda: service.feature("exec_events")["sample_every"] == 1, "the new sampling")
    links = service.feature("exec_events")["links"]
    seen = len(delivered_from(service, program, 1))
    run_times(program, 100)
    delivered_from(service, program, seen + 100)
    assert service.feature("exec_events")["links"] == links, "changed without attaching again"


# ---- runqlat ----


def metrics(service: Service) -> dict[str, float]:
    """The samples of metrics.prom by name and labels."""
    lines = (service.state / "metrics.prom").read_text().splitlines()
    samples = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name: float(value) for name, value in samples}


def buckets(service: Service) -> list[tuple[float, float]]:
    """(upper bound in seconds, cumulative count) of the histogram."""
    prefix = 'ebpf_fleet_run_queue_latency_seconds_bucket{le="'
    found = metrics(service).items()
    return [(float(key[len(prefix) : -2].replace("+", "")), n) for key, n in found if key.startswith(prefix)]


@pytest.mark.parametrize("variant", VARIANTS)
def test_run_queue_histogram_counts_what_was_produced(
    start: Callable[..., Service], feature_objects: Path, variant: str
) -> None:
    service = start({"runqlat": feature_of(feature_objects, "runqlat", (variant,))})
    assert service.feature("runqlat")["profile"] == variant
    first = service.fresh_status()["features"]["runqlat"]["counters"]["delivered"]
    wait_for(lambda: service.feature("runqlat")["counters"]["delivered"] > first + 50, "it counts")
    hist_map = map_id(service.feature("runqlat"), "ef_hist")
    assert sum(dump_map(hist_map)[:64]) > first
    service.order("feature.runqlat")
    counters = service.wait_state("runqlat", "killed")["counters"]
    assert counters["produced"] == total(counters) and counters["in_flight"] == 0
    service.fresh_status()
    found = buckets(service)
    assert found[-1][0] == float("inf") and [n for _, n in found] == sorted(n for _, n in found)
    assert [le for le, _ in found] == sorted(le for le, _ in found)
    samples = metrics(service)
    assert samples["ebpf_fleet_run_queue_latency_seconds_count"] == found[-1][1] == counters["delivered"]
    assert samples["ebpf_fleet_run_queue_latency_seconds_sum"] > 0


def waited_ns(hogs: list[subprocess.Popen[bytes]], began: float) -> int:
    """How long processes that never sleep were kept from a CPU: wall clock less their CPU time."""
    waited = 0.0
    for hog in hogs:
        _, status, usage = os.wait4(hog.pid, 0)
        hog.returncode = os.waitstatus_to_exitcode(status)
        assert hog.returncode == 0
        waited += time.monotonic() - began - usage.ru_utime - usage.ru_stime
    return int(waited * 1e9)


def test_run_queue_latency_agrees_with_the_time_that_hogs_lost(start: Callable[..., Service]) -> None:
    service = start()
    hist_map = map_id(service.feature("runqlat"), "ef_hist")
    cpu = str(min(os.sched_getaffinity(0)))
    spin = "import time; end = time.monotonic() + 3\nwhile time.monotonic() < end: pass"
    before, began = dump_map(hist_map), time.monotonic()
    hogs = [subprocess.Popen(["taskset", "-c", cpu, "python3", "-c", spin]) for _ in range(3)]
    lost = waited_ns(hogs, began)
    after = dump_map(hist_map)
    ours = after[64] - before[64]
    print(f"run queue wait: ours {ours / 1e9:.3f} s, lost by the hogs {lost / 1e9:.3f} s")
    assert lost > 3e9, "three hogs on one CPU lose about six seconds"
    assert ours > 0.9 * lost, "what the hogs lost was waited for (others may have waited too)"
    assert sum(after[20:64]) - sum(before[20:64]) > 100, "waits of more than a millisecond"


def test_a_full_table_of_waits_drops_and_counts(start: Callable[..., Service], tmp_path: Path) -> None:
    contract = contract_of("runqlat")
    for each in contract["maps"]:
        if each["name"] == "ef_rql_start":
            each["max_entries"] = 1
    contract["variants"] = contract["variants"][:1]
    tiny = compile_feature("runqlat", "full", tmp_path / "t.o", "-DEF_RQL_WAITS=1")
    service = start({"runqlat": (contract, {"full": tiny})})
    spin = "import time; end = time.monotonic() + 2\nwhile time.monotonic() < end: time.sleep(0)"
    hogs = [subprocess.Popen(["python3", "-c", spin]) for _ in range(6)]
    for hog in hogs:
        assert hog.wait() == 0
    service.order("feature.runqlat")
    counters = service.wait_state("runqlat", "killed")["counters"]
    assert counters["dropped"] > 100 and counters["delivered"] > 100
    assert counters["produced"] == total(counters)


# ---- choosing ----


def test_a_variant_that_is_refused_gives_way_to_the_next(
    start: Callable[..., Service], tmp_path: Path, feature_objects: Path
) -> None:
    contract, objects = feature_of(feature_objects, "runqlat")
    service = start({"runqlat": (contract, {**objects, "full": rejected_object(tmp_path)})})
    found = service.feature("runqlat")
    assert (found["state"], found["profile"], found["variant"]) == ("attached", "reduced", "reduced")
    assert found["reason_code"] == "EF_LOAD_REJECTED" and "variant full" in found["reason"]
    told = service.now()["compatibility"]["features"]["runqlat"]
    assert (told["profile"], told["reason_code"]) == ("reduced", "EF_LOAD_REJECTED")


def test_a_feature_that_fails_leaves_the_others_alone(
    start: Callable[..., Service], tmp_path: Path, feature_objects: Path
) -> None:
    contract, _ = feature_of(feature_objects, "runqlat", ("full",))
    service = start(
        {
            "exec_events": feature_of(feature_objects, "exec_events"),
            "runqlat": (contract, {"full": rejected_object(tmp_path)}),
        }
    )
    assert service.feature("runqlat")["state"] == "disabled"
    assert service.feature("runqlat")["reason_code"] == "EF_LOAD_REJECTED"
    assert service.feature("exec_events")["state"] == "attached"
    assert service.now()["state"] == "running"


@pytest.mark.parametrize(
    ("requirement", "code"),
    [
        ("kernel:999.0", "EF_KERNEL_TOO_OLD"),
        ("attach:tp_btf:no_such_tracepoint", "EF_NO_ATTACH_POINT"),
        ("btf:vmlinux", "EF_OK"),
    ],
)
def test_a_requirement_that_is_not_met_is_named(
    start: Callable[..., Service], feature_objects: Path, requirement: str, code: str
) -> None:
    contract, objects = feature_of(feature_objects, "runqlat")
    contract["variants"][0]["requires"] = [requirement]
    service = start({"runqlat": (contract, objects)})
    found = service.feature("runqlat")
    assert found["state"] == "attached" and found["reason_code"] == code
    assert found["variant"] == ("full" if code == "EF_OK" else "reduced")


def test_a_program_that_the_contract_does_not_name_disables_the_feature(
    start: Callable[..., Service], feature_objects: Path
) -> None:
    contract, objects = feature_of(feature_objects, "runqlat", ("full",))
    contract["variants"][0]["programs"] = ["ef_rql_switch"]
    service = start({"runqlat": (contract, objects)})
    found = service.feature("runqlat")
    assert (found["state"], found["reason_code"]) == ("disabled", "EF_CONTRACT_MALFORMED")


@pytest.mark.parametrize(("expires", "state"), [("2020-01-01", "disabled"), ("2999-01-01", "attached")])
def test_a_temporary_feature_does_not_outlive_its_date(
    start: Callable[..., Service], feature_objects: Path, expires: str, state: str
) -> None:
    contract, objects = feature_of(feature_objects, "runqlat")
    contract.update(lifetime="temporary", expires=expires)
    service = start({"runqlat": (contract, objects)})
    found = service.feature("runqlat")
    assert found["state"] == state
    assert (found["reason_code"] == "EF_EXPIRED") == (state == "disabled")


def test_a_wish_for_a_feature_that_was_not_shipped_is_said(
    start: Callable[..., Service], feature_objects: Path
) -> None:
    service = start({"runqlat": feature_of(feature_objects, "runqlat")})
    service.want("runqlat", "tcp_rtt")
    wait_for(lambda: "tcp_rtt" in service.now()["features"], "the wish shows")
    found = service.feature("tcp_rtt")
    assert (found["state"], found["reason_code"]) == ("disabled", "EF_NOT_IN_BUNDLE")
    assert service.feature("runqlat")["state"] == "attached"


def test_the_kernel_and_the_status_name_the_same_programs_and_maps(
    start: Callable[..., Service], feature_objects: Path
) -> None:
    service = start({name: feature_of(feature_objects, name) for name in NAMES})
    status = service.now()
    features = status["features"].values()
    in_kernel = {each["id"]: each["tag"] for each in ours_in_kernel("prog")}
    for feature in features:
        for program in feature["programs"]:
            assert in_kernel[program["id"]] == program["tag"]
    maps = {each["id"]: each for each in ours_in_kernel("map")}
    for feature in features:
        for each in feature["maps"]:
            assert maps[each["id"]]["bytes_memlock"] == each["memory_bytes"]
            assert maps[each["id"]]["max_entries"] == each["max_entries"]
