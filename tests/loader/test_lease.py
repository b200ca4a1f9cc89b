# SPDX-License-Identifier: GPL-3.0-or-later
"""A lease that runs out takes everything off by itself; so does a contract whose day has come."""

from __future__ import annotations

import datetime
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, Iterator

import pytest

from tests.loader.bundles import Trust, canonical
from tests.loader.service import (
    BOTH,
    Service,
    both_wanted,
    feature_of,
    links_in_kernel,
    make_service,
    ours_in_kernel,
    wait_for,
)
from tests.loader.test_held_up import hold_up, link_ids, own_disk, wait_detached

__all__ = ["own_disk"]

BOOT_ID = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
SECOND = 1_000_000_000


@pytest.fixture
def service(loader: Path, tmp_path: Path, trust: Trust, feature_objects: Path) -> Iterator[Service]:
    """A service with both features wanted, that looks by itself once an hour; not started."""
    yield from both_wanted(loader, tmp_path, trust, feature_objects)


def boottime_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def lease(service: Service, seconds: float, **changes: Any) -> dict[str, Any]:
    """A lease for the service's bundle on this boot."""
    document = {
        "schema": "ebpf.fleet/lease/v1",
        "bundle_digest": service.bundle.digest,
        "boot_id": BOOT_ID,
        "expires_boottime_ns": boottime_ns() + int(seconds * SECOND),
        "holder": "rollout 7",
    }
    return {**document, **changes}


def grant(service: Service, seconds: float = 600, **changes: Any) -> Path:
    """Write a lease as the controller does: a file beside, then a rename."""
    return write(service, canonical(lease(service, seconds, **changes)))


def write(service: Service, data: bytes) -> Path:
    part, path = service.etc / ".lease.part", service.etc / "lease.json"
    part.write_bytes(data)
    part.rename(path)
    return path


def wait_off(service: Service) -> dict[str, Any]:
    """The status once the lease keeps both features off; the kernel must agree."""
    wait_for(lambda: all(service.feature(name)["reason_code"] == "EF_LEASE_EXPIRED" for name in BOTH), "all is off")
    status = service.now()
    assert {status["features"][name]["state"] for name in BOTH} == {"off"}
    assert (status["state"], status["reason_code"]) == ("idle", "EF_LEASE_EXPIRED")
    return status


def test_a_lease_that_is_not_renewed_takes_everything_off(service: Service) -> None:
    grant(service, 3)
    status = service.start_settled()
    links = link_ids(status, *BOTH)
    ids = {one["id"] for name in BOTH for one in status["features"][name]["programs"]}
    assert status["lease"]["holder"] == "rollout 7" and status["lease"]["expired"] is False
    assert 0 < status["lease"]["left_ns"] <= 3 * SECOND
    expires = status["lease"]["expires_boottime_ns"]
    while links & {one["id"] for one in links_in_kernel()}:
        assert boottime_ns() < expires + 2 * SECOND, "it outlives its lease"
    assert boottime_ns() >= expires, "it was cut before its time"
    after = wait_off(service)
    assert after["lease"] == {
        "expires_boottime_ns": expires, "left_ns": 0, "holder": "rollout 7", "expired": True
    }  # fmt: skip
    assert "'rollout 7' ran out" in after["reason"]
    wait_for(lambda: not ids & {one["id"] for one in ours_in_kernel("prog")}, "the kernel frees the programs")
    for name in BOTH:
        counters = after["features"][name]["counters"]
        assert counters["produced"] == counters["delivered"] + counters["dropped"] + counters["sampled_out"]


def test_a_lease_that_is_renewed_or_confirmed_lets_it_run(service: Service) -> None:
    grant(service, 2)
    links = link_ids(service.start_settled(), *BOTH)
    renewed = lease(service, 600)
    path = write(service, canonical(renewed))
    wait_for(lambda: service.now()["lease"]["expires_boottime_ns"] == renewed["expires_boottime_ns"], "it is renewed")
    time.sleep(2.5)
    assert links <= {one["id"] for one in links_in_kernel()}
    path.unlink()
    wait_for(lambda: service.now()["lease"] is None, "it is confirmed")
    assert links <= {one["id"] for one in links_in_kernel()}, "nothing was attached again for it"


def test_after_expiry_a_new_lease_or_a_person_brings_it_back(service: Service) -> None:
    grant(service, 0)
    assert wait_off_from_start(service)["lease"]["expired"] is True
    path = grant(service, 600)
    service.wait_state("runqlat", "attached")
    grant(service, 0)
    wait_off(service)
    path.unlink()
    for name in BOTH:
        service.wait_state(name, "attached")


def wait_off_from_start(service: Service) -> dict[str, Any]:
    status = service.start_settled()
    assert "attached" not in service.journal()
    assert all(not status["features"][name]["programs"] for name in BOTH)
    return wait_off(service)


BAD = {
    "nothing in it": b"",
    "half of it": b'{"schema": "ebpf.fleet/lease/v1", "bundle_dig',
    "no object": b"[]\n",
    "not UTF-8": b"\xff\xfe",
    "longer than a lease may be": b" " * 5000,
}
CHANGES: dict[str, dict[str, Any]] = {
    "of another boot": {"boot_id": "00000000-0000-0000-0000-000000000000"},
    "of another schema": {"schema": "ebpf.fleet/lease/v2"},
    "with another key": {"forever": True},
    "until a text": {"expires_boottime_ns": "9"},
    "until before the boot": {"expires_boottime_ns": -1},
    "until a fraction": {"expires_boottime_ns": 1e30},
    "until true": {"expires_boottime_ns": True},
    "for no digest": {"bundle_digest": None},
    "of nobody": {"holder": ""},
    "of a holder that is too long": {"holder": "x" * 129},
}


@pytest.mark.parametrize("what", [*BAD, *CHANGES])
def test_what_is_no_lease_of_this_boot_has_run_out(service: Service, what: str) -> None:
    if what in BAD:
        write(service, BAD[what])
    else:
        write(service, json.dumps(lease(service, 600, **CHANGES[what])).encode())
    status = wait_off_from_start(service)
    assert status["lease"] == {"expires_boottime_ns": None, "left_ns": None, "holder": None, "expired": True}
    assert "lease.json" in status["reason"] and "roll out again" in status["reason"]


@pytest.mark.parametrize("kind", ["folder", "fifo", "symlink", "of another user and not to be read"])
def test_a_lease_that_is_no_plain_file_has_run_out(service: Service, kind: str) -> None:
    path = service.etc / "lease.json"
    if kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        grant(service, 600)
    if kind == "symlink":
        path.rename(service.etc / "elsewhere.json")
        path.symlink_to("elsewhere.json")
    if kind.startswith("of"):
        path.chmod(0)
        service.prefix = ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all",
                          "--reuid=0", "--")  # fmt: skip
        os.chown(path, 1, 1)
    assert wait_off_from_start(service)["lease"]["expired"] is True


def test_a_lease_for_another_bundle_is_of_no_concern(service: Service) -> None:
    grant(service, 0, bundle_digest="0" * 64)
    assert service.start_settled()["lease"] is None
    service.wait_state("runqlat", "attached")


def test_a_lease_that_becomes_malformed_while_it_runs_takes_it_off(service: Service) -> None:
    grant(service, 600)
    service.start_settled()
    write(service, b"{")
    wait_off(service)


def test_it_runs_out_while_the_disk_hangs(service: Service, own_disk: Path) -> None:
    """The loop hangs in a write; the guard looks at the lease."""
    links = link_ids(service.start_settled(), *BOTH)
    expires = boottime_ns() + 3 * SECOND
    grant(service, 3, expires_boottime_ns=expires)
    wait_for(lambda: service.now()["lease"], "the lease is seen")
    hold_up(service, own_disk)
    assert boottime_ns() < expires, "this machine was too slow: the disk hung only after the lease had run out"
    time.sleep(max(0.0, (expires - boottime_ns()) / SECOND))
    wait_detached(links, "the links go although the loader hangs")
    subprocess.run(["fsfreeze", "-u", str(own_disk)], check=True)
    wait_off(service)


def test_a_renewal_that_the_loop_cannot_see_is_seen_by_the_guard(service: Service, own_disk: Path) -> None:
    grant(service, 4)
    links = link_ids(service.start_settled(), *BOTH)
    hold_up(service, own_disk)
    grant(service, 600)
    time.sleep(4.5)
    assert links <= {one["id"] for one in links_in_kernel()}
    subprocess.run(["fsfreeze", "-u", str(own_disk)], check=True)
    wait_for(lambda: service.now()["lease"]["left_ns"] > 500 * SECOND, "the loop sees it too")
    assert links <= {one["id"] for one in links_in_kernel()}


def test_it_is_the_boots_clock_that_counts(service: Service) -> None:
    """As after a suspend of a day: in a time namespace CLOCK_BOOTTIME is a day ahead, other clocks are as they were."""
    if not shutil.which("unshare") or not Path("/proc/self/ns/time").exists():
        pytest.skip("no time namespaces here: neither CLOCK_BOOTTIME nor a suspend can be had")
    day = 86400
    service.prefix = ("unshare", "--kill-child", "--time", "--boottime", str(day), "--")
    grant(service, day + 600)
    status = service.start_settled()
    assert 0 < status["lease"]["left_ns"] <= 600 * SECOND, "the day has passed for it"
    assert status["features"]["runqlat"]["state"] == "attached"
    grant(service, day - 1)
    wait_off(service)


def test_a_kill_order_goes_before_the_lease(service: Service) -> None:
    grant(service, 0)
    service.order("global")
    status = service.start_settled()
    assert status["state"] == "killed"
    assert {status["features"][name]["reason_code"] for name in BOTH} == {"EF_KILLED_GLOBAL"}


def expiring(objects: Path, name: str, day: datetime.date) -> tuple[Any, dict[str, bytes]]:
    contract, variants = feature_of(objects, name)
    return {**contract, "lifetime": "temporary", "expires": day.isoformat()}, variants


def test_a_contract_that_has_expired_does_not_start_and_the_others_do(
    loader: Path, tmp_path: Path, trust: Trust, feature_objects: Path
) -> None:
    today = datetime.datetime.now(datetime.timezone.utc).date()
    features = {
        "runqlat": expiring(feature_objects, "runqlat", today),
        "exec_events": expiring(feature_objects, "exec_events", today + datetime.timedelta(days=2)),
    }
    service = make_service(loader, tmp_path, trust, features)
    service.want(*BOTH)
    try:
        found = service.start_settled()["features"]
        assert (found["runqlat"]["state"], found["runqlat"]["reason_code"]) == ("disabled", "EF_EXPIRED")
        assert found["exec_events"]["state"] == "attached"
    finally:
        service.stop(signal.SIGKILL)
