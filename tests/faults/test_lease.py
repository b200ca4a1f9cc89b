# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts that nobody reaches any more, and clocks that are set: what must go goes by itself."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults.conftest import QUICK, Fleet, Release, programs, recap, running, shell, until
from tests.support.play import ROOT, lab, on_host, play

PAIR = ("k61a", "k61b")
# From one renewal to the next two emulated hosts may take more than a minute, where others want the processors.
LEASE_SECONDS = 120
PLAN = {
    "ebpf_fleet_stages": [{"stage": "fleet"}],
    "ebpf_fleet_activation_timeout": 40,
    "ebpf_fleet_rollout_lease_seconds": LEASE_SECONDS,
    "ebpf_fleet_bake": 9,
    "ebpf_fleet_rollout_renew_seconds": 4,
}
SECOND = 1_000_000_000


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Two of the fleet's hosts, as after their first boot: these tests need no more."""
    assert lab("up", *PAIR).returncode == 0, "the two hosts did not come up; see above"
    assert lab("reset", *PAIR).returncode == 0
    made = Fleet(tmp_path_factory.mktemp("pair"))
    made.hosts = list(PAIR)
    yield made
    lab("reset", *PAIR)


@pytest.fixture(scope="module")
def first(pair: Fleet) -> Release:
    release = pair.release("1.0.0", 1)
    done = pair.roll_out(release, "--limit", ",".join(PAIR), **PLAN)
    assert done.rc == 0, done.text
    return release


@pytest.fixture(scope="module")
def second(pair: Fleet) -> Release:
    return pair.release("2.0.0", 2)


def status(host: str) -> dict[str, Any]:
    return dict(json.loads(shell(host, "cat /run/ebpf-fleet-loader/status.json")))


def lease(host: str) -> dict[str, Any] | None:
    done = on_host(host, "cat /etc/ebpf-fleet/lease.json")
    return json.loads(done.stdout) if done.returncode == 0 else None


def audit(host: str, event: str) -> list[dict[str, Any]]:
    lines = shell(host, "cat /var/log/ebpf-fleet/audit.jsonl").splitlines()
    return [one for one in map(json.loads, lines) if one["event"] == event]


def test_a_rollout_that_passes_renews_its_lease_and_leaves_none(pair: Fleet, first: Release) -> None:
    for host in PAIR:
        assert lease(host) is None and status(host)["lease"] is None
        told = [one["reason"].split(" ", 1)[0] for one in audit(host, "lease")]
        assert told == ["granted", "renewed", "renewed", "removed:"], told
        assert audit(host, "lease")[0]["who"] == {"source": "lease", "path": "/etc/ebpf-fleet/lease.json", "uid": 0}
        assert programs(host)
    again = pair.roll_out(first, "--limit", ",".join(PAIR), **PLAN)
    assert again.rc == 0, again.text
    assert {host: row["changed"] for host, row in recap(again).items()} == dict.fromkeys(PAIR, 0)


@pytest.fixture
def cut_off(second: Release) -> Iterator[threading.Thread]:
    """Cuts k61a off from the network as soon as it runs the second release."""

    def watch() -> None:
        if until(lambda: running("k61a"), second.version, 240) == second.version:
            lab("unplug", "k61a")

    watcher = threading.Thread(target=watch)
    watcher.start()
    yield watcher
    watcher.join()
    lab("plug", "k61a")


def test_a_host_cut_off_after_its_deployment_detaches_by_itself(
    pair: Fleet, first: Release, second: Release, cut_off: threading.Thread
) -> None:
    done = pair.roll_out(second, "--limit", ",".join(PAIR), **PLAN)
    cut_off.join()
    assert done.rc != 0 and "no later batch was started" in done.text
    assert running("k61b") == first.version and programs("k61b"), "its neighbour went back"
    assert lease("k61b") is None
    time.sleep(LEASE_SECONDS)  # nobody talks to k61a: what happens there is its own doing
    lab("plug", "k61a")
    assert until(lambda: on_host("k61a", "true").returncode, 0, 60) == 0
    found = status("k61a")
    assert programs("k61a") == []
    assert found["bundle"]["version"] == second.version
    assert (found["state"], found["reason_code"]) == ("idle", "EF_LEASE_EXPIRED")
    assert found["lease"]["expired"] is True and "rollout of 2.0.0" in found["lease"]["holder"]
    (expired,) = audit("k61a", "expire")
    late_ns = expired["boottime_ns"] - found["lease"]["expires_boottime_ns"]
    print(f"k61a detached {late_ns / 1e6:.1f} ms after its lease had run out")
    assert 0 <= late_ns < 10 * SECOND
    gone = [one for one in audit("k61a", "detach") if one["reason_code"] == "EF_LEASE_EXPIRED"]
    assert {one["feature"] for one in gone} == {"exec_events", "runqlat"}
    assert all(one["programs"] and one["links"] for one in gone)


def test_the_same_rollout_can_be_finished_and_brings_the_host_back(
    pair: Fleet, first: Release, second: Release
) -> None:
    assert status("k61a")["reason_code"] == "EF_LEASE_EXPIRED", "the host of the test before is needed"
    done = pair.roll_out(second, "--limit", "k61a", **PLAN)
    assert done.rc == 0, done.text
    assert lease("k61a") is None and running("k61a") == second.version
    assert programs("k61a")


def expiring_features(folder: Path) -> Path:
    """The features runqlat and exec_events, of which the second is temporary."""
    for name in ("runqlat", "exec_events"):
        shutil.copytree(ROOT / "bpf/features" / name, folder / name)
    contract = folder / "exec_events/contract.yml"
    text = contract.read_text()
    assert "lifetime: permanent" in text
    contract.write_text(text.replace("lifetime: permanent", "lifetime: temporary\nexpires: 2099-01-01"))
    return folder


def test_a_contract_that_expires_while_it_runs_is_detached_and_a_clock_set_back_does_not_revive_it(
    pair: Fleet, first: Release, tmp_path: Path
) -> None:
    """The guest's clock goes over midnight into the day, and is set back; the lease takes no notice."""
    bundle = pair.folder / "expiring.tar"
    built = play("release", {
        "ebpf_fleet_release_version": "3.0.0", "ebpf_fleet_release_sequence": 3,
        "ebpf_fleet_release_signing_key": str(pair.key), "ebpf_fleet_release_output": str(bundle),
        "ebpf_fleet_release_features_dirs": [str(expiring_features(tmp_path))],
        "ebpf_fleet_release_features": ["exec_events", "runqlat"],
    })  # fmt: skip
    assert built.rc == 0, built.text
    plan = {**QUICK, **PLAN, "ebpf_fleet_rollout_lease_seconds": 0, "ebpf_fleet_bundle": str(bundle),
            "ebpf_fleet_allowed_signers": pair.trust}  # fmt: skip
    done = play("rollout", plan, arguments=("--limit", "k61b"))
    assert done.rc == 0, done.text
    put_lease("k61b", 3000)
    before = status("k61b")
    assert before["features"]["exec_events"]["state"] == "attached"
    left = before["lease"]["left_ns"]
    try:
        shell("k61b", "date -u -s '2098-12-31 23:59:50'")
        assert status("k61b")["features"]["exec_events"]["state"] == "attached"
        expired = until(lambda: status("k61b")["features"]["exec_events"]["state"], "disabled", 20)
        assert expired == "disabled"
        shell("k61b", f"date -u -s @{int(time.time())}")
        time.sleep(5)
        after = status("k61b")
    finally:
        shell("k61b", f"date -u -s @{int(time.time())}")
    found = after["features"]["exec_events"]
    assert (found["state"], found["reason_code"], found["programs"]) == ("disabled", "EF_EXPIRED", [])
    assert after["features"]["runqlat"]["state"] == "attached"
    assert after["pid"] == before["pid"], "it is the same loader"
    assert 0 < left - after["lease"]["left_ns"] < 120 * SECOND, "75 years are nothing to the lease"
    (told,) = audit("k61b", "expire")
    assert (told["feature"], told["who"]["source"]) == ("exec_events", "contract")


def put_lease(host: str, seconds: int) -> None:
    """A lease for what the host runs now, as a person would write it."""
    digest = status(host)["bundle"]["digest"]
    boot = shell(host, "cat /proc/sys/kernel/random/boot_id").strip()
    up_ns = int(float(shell(host, "cut -d' ' -f1 /proc/uptime")) * SECOND)
    document = {"schema": "ebpf.fleet/lease/v1", "bundle_digest": digest, "boot_id": boot,
                "expires_boottime_ns": up_ns + seconds * SECOND, "holder": "a person"}  # fmt: skip
    text = json.dumps(document)
    place = Path("/etc/ebpf-fleet/lease.json")
    shell(host, f"echo '{text}' >{place}.new && mv {place}.new {place}")
    assert until(lambda: (status(host)["lease"] or {}).get("holder"), "a person", 20) == "a person"
