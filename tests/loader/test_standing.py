# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host no longer trusts does not run on; what ran is not undercut; a clock that is wrong decides nothing."""

from __future__ import annotations

import datetime
import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest

from tests.loader.bundles import Trust, canonical, make_key, public_key, write
from tests.loader.service import BOTH, Service, both_wanted, feature_of, links_in_kernel, make_service, wait_for
from tests.loader.test_audit import one, records
from tests.loader.test_held_up import hold_up, link_ids, own_disk, wait_detached
from tests.loader.test_lease import expiring, grant

__all__ = ["own_disk"]

FUTURE = "2999-01-01T00:00:00Z"
NOBODY = 65534


@pytest.fixture
def service(loader: Path, tmp_path: Path, trust: Trust, feature_objects: Path) -> Iterator[Service]:
    """A service with both features wanted, that looks by itself once an hour; not started."""
    yield from both_wanted(loader, tmp_path, trust, feature_objects)


def replace(path: Path, data: bytes, mode: int = 0o644) -> None:
    """As the role does: a file beside, then a rename."""
    write(path.with_name(".part"), data, mode).rename(path)


def metric(service: Service, name: str) -> str:
    lines = (service.state / "metrics.prom").read_text().splitlines()
    return next(line.split()[1] for line in lines if line.startswith(f"ebpf_fleet_{name} "))


def wait_withdrawn(service: Service, code: str = "EF_TRUST_WITHDRAWN") -> dict[str, Any]:
    """The status once nothing runs for want of trust; the kernel must agree."""
    wait_for(lambda: all(service.feature(name)["reason_code"] == code for name in BOTH), f"all is off by {code}")
    status = service.now()
    assert {status["features"][name]["state"] for name in BOTH} == {"off"}
    assert (status["state"], status["reason_code"]) == ("idle", code)
    assert status["trust"]["ok"] is False and status["trust"]["reason_code"] == code
    wait_for(lambda: metric(service, "trust_withdrawn") == "1", "the metric says it")
    return status


def other_key(service: Service) -> Path:
    folder = service.folder / "other"
    return folder / "release" if folder.exists() else make_key(folder)


WITHDRAWN: dict[str, tuple[Callable[[Service], None], str]] = {
    "revoked": (lambda s: replace(s.trust.revoked, f"{public_key(s.trust.key)}\n".encode()), "EF_SIG_REVOKED"),
    "another signer": (lambda s: s.trust.allow(other_key(s)), "EF_SIG_UNKNOWN_SIGNER"),
    "another namespace": (lambda s: s.trust.allow(s.trust.key, 'namespaces="git"'), "EF_SIG_NAMESPACE"),
    "an end that is over": (lambda s: s.trust.allow(s.trust.key, 'valid-before="20200101Z"'), "EF_SIG_EXPIRED"),
    "emptied": (lambda s: replace(s.trust.signers, b""), "EF_TRUST_MALFORMED"),
    "garbage": (lambda s: replace(s.trust.signers, b"\x7fELF\n"), "EF_TRUST_MALFORMED"),
    "gone": (lambda s: s.trust.signers.unlink(), "EF_TRUST_MISSING"),
    "a folder": (lambda s: (s.trust.signers.unlink(), s.trust.signers.mkdir())[0], "EF_TRUST_MALFORMED"),
    "writable by others": (lambda s: s.trust.signers.chmod(0o666), "EF_TRUST_MALFORMED"),
    "of a stranger": (lambda s: os.chown(s.trust.signers, NOBODY, NOBODY), "EF_TRUST_MALFORMED"),
    "a list that is none": (lambda s: replace(s.trust.revoked, b"two words\n"), "EF_TRUST_MALFORMED"),
    "a list that is gone": (lambda s: s.trust.revoked.unlink(), "EF_TRUST_MISSING"),
}


@pytest.mark.parametrize("what", WITHDRAWN)
def test_trust_that_is_withdrawn_takes_everything_off(service: Service, what: str) -> None:
    links = link_ids(service.start_settled(), *BOTH)
    assert service.now()["trust"] == {"ok": True, "reason_code": "EF_OK", "reason": "its signer is trusted"}
    assert metric(service, "trust_withdrawn") == "0"
    withdraw, code = WITHDRAWN[what]
    withdraw(service)
    status = wait_withdrawn(service)
    assert not links & {each["id"] for each in links_in_kernel()}
    assert f"({code})" in status["reason"] and "no longer trusts" in status["reason"]
    for name in BOTH:
        counters = status["features"][name]["counters"]
        assert counters["produced"] == counters["delivered"] + counters["dropped"] + counters["sampled_out"]


def test_it_is_found_within_an_interval_where_nothing_can_be_watched(service: Service) -> None:
    """A mount over the file gives no event: only reading it again finds it."""
    service.interval = 1
    service.start_settled()
    other = service.folder / "elsewhere"
    write(other, b"")
    done = subprocess.run(["mount", "--bind", str(other), str(service.trust.signers)], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"nothing can be mounted here: {done.stderr!r}")
    try:
        wait_withdrawn(service)
    finally:
        subprocess.run(["umount", str(service.trust.signers)], check=True)
    for name in BOTH:
        service.wait_state(name, "attached")


def test_it_is_recorded_and_comes_back_with_the_trust(service: Service) -> None:
    service.start_settled()
    revoked = service.trust.revoked.read_bytes()
    service.trust.revoke(service.trust.key)
    wait_withdrawn(service)
    said = one(service, "trust")
    assert said["reason_code"] == "EF_TRUST_WITHDRAWN" and "EF_SIG_REVOKED" in said["reason"]
    assert said["who"] == {"source": "trust", "path": str(service.trust.revoked), "uid": 0}
    for name in BOTH:
        detached = one(service, "detach", name)
        assert detached["reason_code"] == "EF_TRUST_WITHDRAWN" and detached["who"]["source"] == "trust"
        assert detached["programs"], "the record names what was taken off"
    assert "EF_TRUST_WITHDRAWN" in service.journal()
    replace(service.trust.revoked, revoked)
    for name in BOTH:
        service.wait_state(name, "attached")
    assert [each["reason_code"] for each in records(service, "trust")] == ["EF_TRUST_WITHDRAWN", "EF_OK"]
    assert service.now()["trust"]["ok"] is True and service.now()["state"] == "running"


def test_a_line_that_is_added_or_odd_withdraws_nothing(service: Service) -> None:
    links = link_ids(service.start_settled(), *BOTH)
    text = service.trust.signers.read_bytes()
    replace(service.trust.signers, b"odd\n" + text + f"x@y {public_key(other_key(service))}\n".encode())
    replace(service.trust.revoked, f"{public_key(other_key(service))}\n".encode())
    service.send(signal.SIGHUP)
    service.order("feature.runqlat").unlink()
    time.sleep(0.5)
    assert link_ids(service.now(), "exec_events") <= links and service.now()["trust"]["ok"] is True
    assert not records(service, "trust")


def test_a_kill_order_and_a_lease_go_before_it(service: Service) -> None:
    service.start_settled()
    service.trust.revoke(service.trust.key)
    wait_withdrawn(service)
    path = service.order("global")
    wait_for(lambda: service.now()["reason_code"] == "EF_KILLED_GLOBAL", "the order is named first")
    path.unlink()
    grant(service, 0)
    wait_for(lambda: service.now()["reason_code"] == "EF_LEASE_EXPIRED", "then the lease")


def test_it_is_obeyed_while_the_disk_hangs(service: Service, own_disk: Path) -> None:
    links = link_ids(service.start_settled(), *BOTH)
    hold_up(service, own_disk)
    service.trust.revoke(service.trust.key)
    wait_detached(links, "the links go although the loader hangs")
    subprocess.run(["fsfreeze", "-u", str(own_disk)], check=True)
    wait_withdrawn(service)


# The high-water mark


def mark(service: Service, reached: int, holder: str = "a" * 64, **changes: Any) -> None:
    document = {"schema": "ebpf.fleet/mark/v1", "sequence": reached, "digest": holder, "below": [], "seen_unix": 0,
                "lowered": None}  # fmt: skip
    write(service.etc / "mark.json", canonical({**document, **changes}))


def refused(service: Service) -> str:
    service.start()
    assert service.process is not None and service.process.wait(timeout=20) == 3, service.journal()
    code: str = service.now()["reason_code"]
    assert service.now()["state"] == "refused" and code in service.journal()
    return code


def runs(service: Service) -> bool:
    return service.start_settled()["state"] == "running"


def test_a_bundle_below_the_mark_is_refused_by_the_loader(service: Service) -> None:
    mark(service, 8)
    assert refused(service) == "EF_SEQUENCE_DOWNGRADE"


def test_another_bundle_of_the_marks_sequence_is_refused(service: Service) -> None:
    mark(service, 7)
    assert refused(service) == "EF_SEQUENCE_DOWNGRADE"


@pytest.mark.parametrize("how", ["above", "reached it", "the way back", "no mark", "lowered"])
def test_what_the_mark_allows_runs(service: Service, how: str) -> None:
    digest, lowered = service.bundle.digest, {"from": 9, "to": 6, "digest": "b" * 64, "at_unix": 1}
    if how == "above":
        mark(service, 6)
    elif how == "reached it":
        mark(service, 7, digest)
    elif how == "the way back":
        mark(service, 99, below=["c" * 64, digest])
    elif how == "lowered":
        mark(service, 6, lowered=lowered)
    assert runs(service)
    said = one(service, "start")["reason"]
    assert ("mark" in said) is (how != "no mark") and ("lowered from 9" in said) is (how == "lowered")


MALFORMED: dict[str, dict[str, Any]] = {
    "of another schema": {"schema": "ebpf.fleet/mark/v2"},
    "with another key": {"more": 1},
    "of no sequence": {"sequence": 0},
    "of a text": {"sequence": "7"},
    "of no digest": {"digest": "x"},
    "with a way back that is none": {"below": ["x"]},
    "with too long a way back": {"below": ["a" * 64] * 9},
    "seen before 1970": {"seen_unix": -1},
    "lowered by a text": {"lowered": "yes"},
}


@pytest.mark.parametrize("what", [*MALFORMED, "empty", "half", "a folder", "a symlink", "writable by others"])
def test_a_mark_that_cannot_be_used_is_no_permission(service: Service, what: str) -> None:
    path = service.etc / "mark.json"
    if what in MALFORMED:
        mark(service, 1, **MALFORMED[what])
    elif what in ("empty", "half"):
        write(path, b"" if what == "empty" else b'{"schema": "ebpf.fl')
    elif what == "a folder":
        path.mkdir()
    else:
        mark(service, 1)
    if what == "a symlink":
        path.rename(service.etc / "elsewhere")
        path.symlink_to("elsewhere")
    if what == "writable by others":
        path.chmod(0o666)
    assert refused(service) == "EF_MARK_MALFORMED"


# The clock


def made_in_the_future(service: Service) -> None:
    """As on a host whose clock stands at 1970: before the release was made."""
    document = service.bundle.manifest
    document["bundle"]["created"] = FUTURE
    service.bundle.write_manifest(document)


@pytest.mark.parametrize("floor", ["created", "seen"])
@pytest.mark.parametrize("limit", ['valid-before="29980101Z"', 'valid-after="20200101Z"', 'valid-before="20200101Z"'])
def test_a_key_that_is_limited_in_time_waits_for_the_clock(service: Service, floor: str, limit: str) -> None:
    if floor == "created":
        made_in_the_future(service)
    else:
        mark(service, 1, seen_unix=32_472_144_000)
    service.trust.allow(service.trust.key, limit)
    status = service.start_settled()
    assert all(not status["features"][name]["programs"] for name in BOTH)
    wait_withdrawn(service, "EF_CLOCK_UNKNOWN")
    assert service.now()["clock_known"] is False and metric(service, "clock_unknown") == "1"
    assert "clock" in service.journal()
    service.trust.allow(service.trust.key)
    for name in BOTH:
        service.wait_state(name, "attached")


def test_a_feature_that_is_limited_in_time_waits_for_the_clock_and_others_run(
    loader: Path, tmp_path: Path, trust: Trust, feature_objects: Path
) -> None:
    features = {
        "runqlat": expiring(feature_objects, "runqlat", datetime.date(2998, 1, 1)),
        "exec_events": feature_of(feature_objects, "exec_events"),
    }
    service = make_service(loader, tmp_path, trust, features)
    service.want(*BOTH)
    made_in_the_future(service)
    try:
        found = service.start_settled()["features"]
        assert (found["runqlat"]["state"], found["runqlat"]["reason_code"]) == ("off", "EF_CLOCK_UNKNOWN")
        assert found["exec_events"]["state"] == "attached"
        service.want("runqlat")
        wait_for(lambda: service.now()["reason_code"] == "EF_CLOCK_UNKNOWN", "the host's state says it too")
        assert service.now()["state"] == "idle"
    finally:
        service.stop(signal.SIGKILL)


def test_a_clock_that_can_be_right_is_no_word(service: Service) -> None:
    mark(service, 1, seen_unix=int(time.time()) + 60)
    service.trust.allow(service.trust.key, 'valid-before="29980101Z"')
    assert runs(service) and service.now()["clock_known"] is True and metric(service, "clock_unknown") == "0"
    assert json.loads((service.etc / "mark.json").read_text())["seen_unix"]
