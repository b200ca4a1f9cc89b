# SPDX-License-Identifier: GPL-3.0-or-later
"""A loader that has nothing to run: how it waits, what it says and what it believes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Iterator

import pytest

from tests.loader.bundles import Trust, canonical
from tests.loader.drivers import build
from tests.loader.service import Service, feature_of, make_service, wait_for


@pytest.fixture
def service(loader: Path, tmp_path: Path, trust: Trust, feature_objects: Path) -> Iterator[Service]:
    """Its bundle has runqlat; nobody wants it. It looks by itself once an hour."""
    made = make_service(loader, tmp_path, trust, {"runqlat": feature_of(feature_objects, "runqlat")})
    made.interval = 3600
    made.want()
    yield made
    if made.process is not None:
        made.stop(signal.SIGKILL)


def timers(service: Service) -> dict[str, tuple[int, int]]:
    """{clock: interval in (seconds, nanoseconds)} of the timers that go off again and again."""
    found = {}
    for path in Path(f"/proc/{service.pid}/fdinfo").iterdir():
        text = path.read_text(encoding="utf-8")
        clock = re.search(r"^clockid: (\d+)$", text, re.M)
        again = re.search(r"^it_interval: \((\d+), (\d+)\)$", text, re.M)
        if clock and again and again.groups() != ("0", "0"):
            found[clock[1]] = (int(again[1]), int(again[2]))
    return found


MONOTONIC = str(1)


@pytest.mark.parametrize(
    ("interval", "watchdog_s", "tick"),
    [
        (5, None, (5, 0)),
        (5, 18, (5, 0)),
        (5, 15, (5, 0)),
        (5, 12, (4, 0)),
        (3600, 1.5, (0, 500_000_000)),
        (1, 60, (1, 0)),
    ],
)
def test_it_wakes_as_often_as_asked_and_three_times_in_the_watchdogs_time(
    service: Service, interval: int, watchdog_s: float | None, tick: tuple[int, int]
) -> None:
    service.interval = interval
    if watchdog_s:
        service.environment = {"WATCHDOG_USEC": str(int(watchdog_s * 1_000_000))}
    service.start_settled()
    # With a watch and no ring to read nothing else wakes it.
    assert timers(service) == {MONOTONIC: tick}


def test_what_it_says_at_its_start_and_end(service: Service) -> None:
    service.start_settled()
    assert service.stop() == 0
    records = [json.loads(line) for line in (service.log / "audit.jsonl").read_text(encoding="utf-8").splitlines()]
    start, stop = records[0], records[-1]
    release = os.uname().release
    assert (start["event"], start["reason_code"]) == ("start", "EF_OK")
    assert re.fullmatch(rf"loader [\w.-]+ starts on {re.escape(release)}.*", start["reason"])
    assert stop["event"] == "stop"


def test_a_wish_that_nobody_shipped_is_told_and_one_that_was_is_told_once(service: Service) -> None:
    wishes = {"runqlat": {"enabled": False}, "none": {"enabled": True, "sample_every": 7}, "off": {"enabled": False}}
    service.write_desired(canonical({"schema": "ebpf.fleet/desired/v1", "bundle_digest": None, "features": wishes}))
    features = service.start_settled()["features"]
    assert sorted(features) == ["none", "runqlat"]
    assert (features["none"]["reason_code"], features["none"]["sample_every"]) == ("EF_NOT_IN_BUNDLE", 7)
    assert (features["runqlat"]["reason_code"], features["runqlat"]["state"]) == ("EF_NOT_WANTED", "off")


def records(service: Service, event: str) -> list[dict[str, Any]]:
    lines = (service.log / "audit.jsonl").read_text(encoding="utf-8").splitlines()
    return [one for one in map(json.loads, lines) if one["event"] == event]


def test_who_took_the_trust_away_is_the_file_that_says_so(service: Service, other_key: Path) -> None:
    service.start_settled()
    service.trust.allow(other_key)
    wait_for(lambda: service.now()["reason_code"] == "EF_TRUST_WITHDRAWN", "the trust is gone")
    service.trust.allow(service.trust.key)
    wait_for(lambda: service.now()["reason_code"] == "EF_NOT_WANTED", "the trust is there again")
    service.trust.revoke(service.trust.key)
    wait_for(lambda: service.now()["reason_code"] == "EF_TRUST_WITHDRAWN", "the key is revoked")
    signers, revoked = str(service.trust.signers), str(service.trust.revoked)
    found = [(one["reason_code"], one["who"]["source"], one["who"]["path"], one["who"]["uid"])
             for one in records(service, "trust")]  # fmt: skip
    assert found == [("EF_TRUST_WITHDRAWN", "trust", signers, 0), ("EF_OK", "trust", signers, 0),
                     ("EF_TRUST_WITHDRAWN", "trust", revoked, 0)]  # fmt: skip


def test_each_new_wish_is_recorded_once(service: Service) -> None:
    def wish(**features: Any) -> None:
        document = {"schema": "ebpf.fleet/desired/v1", "bundle_digest": None, "features": features}
        service.write_desired(canonical(document))

    off = {"enabled": False}
    service.start_settled()
    for number, features in enumerate(
        ({"a": off}, {"a": off, "b": off}, {"a": off, "c": off}, {"a": off, "c": {"enabled": True}},
         {"a": off, "c": {"enabled": True, "sample_every": 5}}, {"c": {"enabled": True, "sample_every": 5}}), 2,
    ):  # fmt: skip
        wish(**features)
        wait_for(lambda number=number: len(records(service, "desired")) >= number, "the wish is recorded")
        assert len(records(service, "desired")) == number
    wish(c={"enabled": True, "sample_every": 5})
    service.order("x")
    wait_for(lambda: service.now()["kill_unknown"], "the last change is seen")
    assert len(records(service, "desired")) == 7


def reasons(status: dict[str, Any]) -> tuple[str, str, bool]:
    return status["state"], status["reason_code"], status["desired_error"] is None


def test_a_desired_state_that_is_bad_at_start_is_why_nothing_runs(service: Service) -> None:
    service.write_desired(b"{")
    assert reasons(service.start_settled()) == ("idle", "EF_DESIRED_MALFORMED", False)
    service.want()
    wait_for(lambda: reasons(service.now()) == ("idle", "EF_NOT_WANTED", True), "the good one is in force")


def without_watch(service: Service) -> None:
    """No inotify is left to its user."""
    limit = Path("/proc/sys/user/max_inotify_instances")
    probe = ["unshare", "--user", "--map-root-user", "true"]
    if not limit.exists():
        pytest.skip("this kernel has no limit of inotify instances per namespace to run out of")
    if subprocess.run(probe, stderr=subprocess.DEVNULL, check=False).returncode:
        pytest.skip("no user namespace is to be had here (as in a chroot), so no limit can be spent without harm")
    spoil = f'echo 0 > {limit} && exec "$@"'
    service.prefix = ("unshare", "--user", "--map-root-user", "sh", "-c", spoil, "sh")
    service.start_settled()


def test_without_a_watch_it_looks_by_itself_and_says_so_once(service: Service) -> None:
    without_watch(service)
    order = service.order("global")
    wait_for(lambda: service.now()["state"] == "killed", "the order is found")
    order.unlink()
    wait_for(lambda: service.now()["state"] == "idle", "its end is found")
    assert service.journal().count("cannot be watched for") == 1


def test_without_a_watch_a_bad_desired_state_later_leaves_in_force_what_was(service: Service) -> None:
    without_watch(service)
    service.write_desired(b"{")
    wait_for(lambda: service.now()["desired_error"], "it is said")
    assert reasons(service.now()) == ("idle", "EF_NOT_WANTED", False)


def test_a_bad_desired_state_later_leaves_in_force_what_was(service: Service) -> None:
    service.start_settled()
    service.write_desired(b"{")
    wait_for(lambda: service.now()["desired_error"], "it is said")
    assert reasons(service.now()) == ("idle", "EF_NOT_WANTED", False)


def test_each_reread_that_changes_nothing_says_nothing_again(service: Service) -> None:
    service.start_settled()
    before = service.journal()
    for _ in range(3):
        service.send(signal.SIGHUP)
    service.order("x")
    wait_for(lambda: service.now()["kill_unknown"], "the last change is seen")
    assert [line for line in service.journal()[len(before) :].splitlines() if "kill.d/x" not in line] == []


@pytest.mark.parametrize(
    "call",
    ["epoll_create1", "signalfd4", "timerfd_create", "epoll_ctl", "timerfd_settime", "eventfd2", "inotify_init1"],
)
def test_what_it_cannot_wait_on_ends_it_with_the_kernels_word_or_is_said(service: Service, call: str) -> None:
    """Without a guard and without a watch it goes on."""
    under = Path(__file__).with_name("under_filter.py")
    service.prefix = (sys.executable, str(under), f"!{call}")
    service.start()
    assert service.process is not None
    if call in ("eventfd2", "inotify_init1"):
        service.settled()
        said = "no thread for the guard: " if call == "eventfd2" else "orders cannot be watched for: "
        assert service.journal().count(f"{said}Operation not permitted; ") == 1
    else:
        assert service.process.wait(timeout=20) == 1
        assert "the loader stops: Operation not permitted" in service.journal()
        last = (service.log / "audit.jsonl").read_text(encoding="utf-8").splitlines()[-1]
        assert json.loads(last)["event"] == "stop"


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole loader under ASan, UBSan and LSan, without a filter of system calls."""
    return build(tmp_path_factory.mktemp("whole"), "whole", ["*/*.c"])


@pytest.mark.parametrize("watch", [True, False])
def test_no_byte_is_touched_that_is_not_its_own(service: Service, watched: Path, watch: bool) -> None:
    """From the start over orders, wishes, rings that are looked for and odd files to the end."""
    service.binary, service.interval = watched, 1
    if watch:
        service.start_settled()
    else:
        without_watch(service)
    for name in ("global", "feature.runqlat", "x"):
        service.order(name)
    wait_for(lambda: service.now()["state"] == "killed" and service.now()["kill_unknown"], "the orders are found")
    for name in ("global", "feature.runqlat", "x"):
        (service.run / "kill.d" / name).unlink()
    service.allow(b"{")
    service.write_desired(b"[")
    wait_for(lambda: service.now()["policy_error"] and service.now()["desired_error"], "both are said")
    service.allow({"schema": "ebpf.fleet/policy/v1", "features": {"runqlat": {"cpu_millicores": 5}}})
    service.want("none")
    wait_for(lambda: "none" in service.now()["features"] and not service.now()["policy_error"], "both are in force")
    assert service.stop() == 0, service.journal()
