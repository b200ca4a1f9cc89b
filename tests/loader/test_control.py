# SPDX-License-Identifier: GPL-3.0-or-later
"""Control is files: kill orders and desired.json, at start and while the service runs."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, Iterator

import pytest

from tests.loader.bundles import Trust
from tests.loader.service import Service, feature_of, make_service, ours_in_kernel, wait_for

BOTH = ("exec_events", "runqlat")
NOISY_OFF_SECONDS = 2.0  # outer bound on a busy machine: pytest, bpftool and the kernel's grace period


@pytest.fixture
def service(loader: Path, tmp_path: Path, trust: Trust, feature_objects: Path) -> Iterator[Service]:
    """A service with both features wanted; not started."""
    made = make_service(loader, tmp_path, trust, {name: feature_of(feature_objects, name) for name in BOTH})
    made.interval = 3600  # what happens is the watch's doing, not the interval's
    made.want(*BOTH)
    yield made
    if made.process is not None:
        made.stop(signal.SIGKILL)


def program_ids(feature: dict[str, Any]) -> set[int]:
    return {int(each["id"]) for each in feature["programs"]}


def in_kernel(kind: str, ids: set[int]) -> set[int]:
    """Those of our ids that the kernel still has, by bpftool."""
    return ids & {int(each["id"]) for each in ours_in_kernel(kind)}


def remaining(service: Service) -> set[int]:
    """What `ebpf-loader left` finds; its exit status must agree."""
    done = subprocess.run([str(service.binary), "left"], check=False, capture_output=True, text=True)
    found = {int(each["id"]) for each in json.loads(done.stdout)["programs"]}
    assert done.returncode == (4 if found else 0)
    return found


def family() -> str:
    return ".".join(os.uname().release.split(".")[:2])


def distro() -> str:
    lines = Path("/etc/os-release").read_text().splitlines()
    return next(line[3:].strip('"') for line in lines if line.startswith("ID="))


SCOPES = [
    ("global", set(BOTH), "EF_KILLED_GLOBAL"),
    (f"family.{family()}", set(BOTH), "EF_KILLED_FAMILY"),
    (f"family.{distro()}-{family()}", set(BOTH), "EF_KILLED_FAMILY"),
    ("feature.runqlat", {"runqlat"}, "EF_KILLED_FEATURE"),
]


@pytest.mark.parametrize("where", ["run", "etc"])
@pytest.mark.parametrize(("name", "killed", "code"), SCOPES)
def test_an_order_while_it_runs_takes_programs_and_maps_away(
    service: Service, name: str, killed: set[str], code: str, where: str
) -> None:
    features = service.start_settled()["features"]
    programs = set().union(*(program_ids(features[each]) for each in killed))
    maps = {int(each["id"]) for name in killed for each in features[name]["maps"]}
    assert in_kernel("prog", programs) == programs and remaining(service) >= programs
    began = time.monotonic()
    path = service.order(name, where)
    wait_for(lambda: not in_kernel("prog", programs), "the programs go", NOISY_OFF_SECONDS)
    took = time.monotonic() - began
    wait_for(lambda: not in_kernel("map", maps), "the maps go", NOISY_OFF_SECONDS)
    assert not remaining(service) & programs
    for each in BOTH:
        found = service.wait_state(each, "killed" if each in killed else "attached")
        assert (found["reason_code"] == code) == (each in killed)
    status = service.now()
    assert status["kills"] == [{"scope": name, "path": str(path)}]
    assert status["state"] == ("killed" if killed == set(BOTH) else "running")
    wait_for(service.kill_times_us, "the time in the journal")
    print(f"{name}: off {service.kill_times_us()[-1]} us after the loader saw it, {took * 1e3:.1f} ms by bpftool")


@pytest.mark.parametrize(("name", "killed", "code"), SCOPES)
def test_an_order_at_start_holds_before_anything_is_loaded(
    service: Service, name: str, killed: set[str], code: str
) -> None:
    service.order(name, "etc")
    features = service.start_settled()["features"]
    for each in killed:
        assert (features[each]["state"], features[each]["reason_code"]) == ("killed", code)
        assert features[each]["counters"]["produced"] == 0 and not features[each]["programs"]
        assert f"feature {each}: attached" not in service.journal()


def test_order_after_order_is_obeyed_under_load_and_its_time_is_told(service: Service) -> None:
    """How long each takes is measured by `make bench` (kill), not here."""
    service.start_settled()
    storms = [subprocess.Popen(["sh", "-c", "while :; do /bin/true; done"]) for _ in range(3)]
    try:
        for _ in range(10):
            programs = program_ids(service.wait_state("runqlat", "attached"))
            path = service.order("global")
            service.wait_state("runqlat", "killed")
            wait_for(lambda gone=programs: not in_kernel("prog", gone), "the programs go")
            path.unlink()
        wait_for(lambda: len(service.kill_times_us()) == 10, "each of the ten kills is told with its time")
        assert all(each.poll() is None for each in storms), "the workload is unharmed"
    finally:
        for each in storms:
            each.kill()
            each.wait()


def test_a_released_order_attaches_again_and_counters_go_on(service: Service) -> None:
    service.start_settled()
    wait_for(lambda: subprocess.run(["true"], check=True), "something to count")
    path = service.order("global")
    before = service.wait_state("exec_events", "killed")["counters"]
    path.unlink()
    service.wait_state("exec_events", "attached")
    subprocess.run(["true"], check=True)
    service.order("global")
    after = service.wait_state("exec_events", "killed")["counters"]
    assert after["produced"] > before["produced"] > 0
    assert all(after[key] >= before[key] for key in ("delivered", "dropped", "sampled_out"))


def test_an_order_that_flickers_never_leaves_a_feature_half(service: Service) -> None:
    """Given and released faster than the loader can follow: at the end it runs, with all programs."""
    service.start_settled()
    path = service.order("global")
    for _ in range(3000):
        path.unlink()
        path.touch()
    path.unlink()
    wait_for(lambda: not service.now()["kills"], "no order is left")
    for name, programs in (("exec_events", 1), ("runqlat", 3)):
        # A status of a moment in between may say "attached" of programs that are gone by now.
        wait_for(lambda name=name: in_kernel("prog", program_ids(service.feature(name))), f"{name} runs in the end")
        found = service.wait_state(name, "attached")
        assert len(found["programs"]) == len(found["links"]) == programs
        assert in_kernel("prog", program_ids(found)) == program_ids(found)


def test_two_orders_hold_until_both_are_gone(service: Service) -> None:
    service.start_settled()
    first, second = service.order("global", "run"), service.order("global", "etc")
    service.wait_state("runqlat", "killed")
    first.unlink()
    wait_for(lambda: len(service.now()["kills"]) == 1, "one order left")
    assert service.feature("runqlat")["state"] == "killed"
    second.unlink()
    service.wait_state("runqlat", "attached")


@pytest.mark.parametrize("name", ["globl", "feature.runqlatt", "feature.", "family.debian", "GLOBAL", "x y"])
def test_a_mistyped_order_is_reported_and_kills_nothing(service: Service, name: str) -> None:
    service.start_settled()
    path = service.order(name)
    wait_for(lambda: service.now()["kill_unknown"] == [str(path)], "the order is reported")
    assert {service.feature(each)["state"] for each in BOTH} == {"attached"}
    assert str(path) in service.journal()


@pytest.mark.parametrize("name", [".global", ".global.swp", "family.3.10", "family.other-6.1"])
def test_what_is_no_order_for_this_host_is_no_order(service: Service, name: str) -> None:
    service.order(name)
    status = service.start_settled()
    assert status["state"] == "running" and not status["kills"] and not status["kill_unknown"]


def test_the_folder_may_come_go_and_come_again(service: Service) -> None:
    service.start_settled()
    folder = service.run / "kill.d"
    for _ in range(3):
        service.order("global")
        service.wait_state("runqlat", "killed")
        shutil.rmtree(folder)
        service.wait_state("runqlat", "attached")


def test_a_folder_that_is_moved_into_place_counts(service: Service) -> None:
    service.start_settled()
    ready = service.folder / "ready"
    ready.mkdir()
    (ready / "global").touch()
    ready.rename(service.run / "kill.d")
    service.wait_state("runqlat", "killed")


def test_the_run_folder_itself_may_come_later(service: Service) -> None:
    service.run.rmdir()
    service.start_settled()
    service.run.mkdir()
    service.order("global")
    service.wait_state("runqlat", "killed")


@pytest.mark.parametrize("spoil", ["a file", "no permission"])
def test_a_folder_that_cannot_be_read_is_a_global_order(service: Service, spoil: str) -> None:
    service.start_settled()
    folder = service.run / "kill.d"
    if spoil == "a file":
        folder.write_text("not a folder")
    else:
        folder.mkdir()
        folder.chmod(0)
    found = service.wait_state("runqlat", "killed")
    assert found["reason_code"] == "EF_KILLED_GLOBAL" and str(folder) in found["reason"]


@pytest.mark.slow
def test_orders_are_obeyed_in_a_flood_of_files(service: Service) -> None:
    service.start_settled()
    folder = service.run / "kill.d"
    folder.mkdir()
    for i in range(20_000):  # more than inotify's queue holds
        (folder / f".{i}").touch()
    service.order("global")
    service.wait_state("runqlat", "killed")


def test_the_interval_finds_an_order_without_a_watch(service: Service) -> None:
    """With no inotify left to the user, orders are looked for ten times a second."""
    limit = Path("/proc/sys/user/max_inotify_instances")
    if not limit.exists():
        pytest.skip("this kernel has no limit of inotify instances per namespace to run out of")
    probe = ["unshare", "--user", "--map-root-user", "true"]
    if subprocess.run(probe, stderr=subprocess.DEVNULL, check=False).returncode:
        pytest.skip("no user namespace is to be had here (as in a chroot), so no limit can be spent without harm")
    spoil = f'echo 0 > {limit} && exec "$@"'
    service.prefix = ("unshare", "--user", "--map-root-user", "sh", "-c", spoil, "sh")
    service.start()
    wait_for(lambda: "cannot be watched for" in service.journal(), "the loader says so")
    service.order("global")
    wait_for(lambda: (service.status() or {}).get("state") == "killed", "the order is found")


# ---- desired.json ----


def test_desired_state_is_followed_while_it_runs(service: Service) -> None:
    service.want("runqlat")
    features = service.start_settled()["features"]
    assert features["exec_events"]["state"] == "off"
    assert features["exec_events"]["reason_code"] == "EF_NOT_WANTED"
    links = features["runqlat"]["links"]
    service.want(*BOTH)
    service.wait_state("exec_events", "attached")
    assert service.feature("runqlat")["links"] == links, "what ran goes on untouched"
    service.want()
    service.wait_state("runqlat", "off")
    wait_for(lambda: service.now()["state"] == "idle", "nothing runs")


def test_without_a_desired_state_nothing_runs(service: Service) -> None:
    (service.etc / "desired.json").unlink()
    status = service.start_settled()
    assert (status["state"], status["reason_code"]) == ("idle", "EF_NO_DESIRED")
    assert status["desired_error"] is None
    service.want("runqlat")
    service.wait_state("runqlat", "attached")
    (service.etc / "desired.json").unlink()
    assert service.wait_state("runqlat", "off")["reason_code"] == "EF_NO_DESIRED"


BAD = {
    "no JSON": (b"{", "desired.json"),
    "empty": (b"", "desired.json"),
    "another schema": (b'{"schema":"x","bundle_digest":null,"features":{}}', "'schema'"),
    "unknown key": (
        b'{"schema":"ebpf.fleet/desired/v1","bundle_digest":null,"features":{},"extra":1}',
        "'extra'",
    ),
    "duplicate key": (b'{"schema":"ebpf.fleet/desired/v1","schema":"ebpf.fleet/desired/v1"}', "uplicate"),
    "sampling of none": (
        b'{"schema":"ebpf.fleet/desired/v1","bundle_digest":null,'
        b'"features":{"runqlat":{"enabled":true,"sample_every":0}}}',
        "'sample_every'",
    ),
    "enabled is text": (
        b'{"schema":"ebpf.fleet/desired/v1","bundle_digest":null,"features":{"runqlat":{"enabled":"yes"}}}',
        "'runqlat'",
    ),
    "no feature's name": (
        b'{"schema":"ebpf.fleet/desired/v1","bundle_digest":null,"features":{"a\\"} 1\\n\xc3\xa9":{"enabled":true}}}',
        "must be a feature's name",
    ),
    "another bundle's": (
        b'{"schema":"ebpf.fleet/desired/v1","bundle_digest":"' + b"0" * 64 + b'","features":{}}',
        "'bundle_digest'",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_desired_state_at_start_runs_nothing(service: Service, case: str) -> None:
    data, named = BAD[case]
    service.write_desired(data)
    status = service.start_settled()
    assert (status["state"], status["reason_code"]) == ("idle", "EF_DESIRED_MALFORMED")
    assert named in status["desired_error"] and "desired.json" in status["desired_error"]
    service.want(*BOTH)
    service.wait_state("runqlat", "attached")
    assert service.now()["desired_error"] is None


@pytest.mark.parametrize("case", BAD)
def test_a_bad_desired_state_later_changes_nothing_that_runs(service: Service, case: str) -> None:
    links = service.start_settled()["features"]["runqlat"]["links"]
    data, named = BAD[case]
    service.write_desired(data)
    wait_for(lambda: named in (service.now()["desired_error"] or ""), "the error shows")
    found = service.feature("runqlat")
    assert (found["state"], found["links"]) == ("attached", links)
    service.order("global")
    service.wait_state("runqlat", "killed")


def test_the_digest_of_the_running_bundle_is_accepted(service: Service) -> None:
    service.want("runqlat", digest=service.bundle.digest)
    assert service.start_settled()["features"]["runqlat"]["state"] == "attached"


def test_a_switched_symlink_takes_effect(service: Service) -> None:
    """As on a managed host: ETC/desired.json -> STATE/current/desired.json, `current` is switched."""
    library = service.folder / "lib"
    for release in ("one", "two"):
        (library / release).mkdir(parents=True)
        wanted = BOTH if release == "two" else ("runqlat",)
        service.want(*wanted)
        (service.etc / "desired.json").rename(library / release / "desired.json")
    (library / "current").symlink_to("one")
    (service.etc / "desired.json").symlink_to(library / "current" / "desired.json")
    assert service.start_settled()["features"]["exec_events"]["state"] == "off"
    (library / "next").symlink_to("two")
    (library / "next").rename(library / "current")
    service.wait_state("exec_events", "attached")


def test_a_hangup_rereads(service: Service) -> None:
    service.start_settled()
    service.send(signal.SIGHUP)
    time.sleep(0.2)
    assert service.alive() and service.feature("runqlat")["state"] == "attached"
