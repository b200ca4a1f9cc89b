# SPDX-License-Identifier: GPL-3.0-or-later
"""How long a feature saw nothing: counted by why, over kill orders, stops, crashes and a boot."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from typing import Any, Iterator

import pytest

from tests.loader.bundles import Trust
from tests.loader.service import BOTH, Service, feature_of, make_service, until_end

MS, SECOND = 10**6, 10**9


@pytest.fixture
def service(loader: Path, tmp_path: Path, trust: Trust, feature_objects: Path) -> Iterator[Service]:
    made = make_service(loader, tmp_path, trust, {name: feature_of(feature_objects, name) for name in BOTH})
    made.want(*BOTH)
    yield from until_end(made)


def unobserved(service: Service, name: str = "exec_events") -> dict[str, int]:
    found: dict[str, int] = service.fresh_status()["features"][name]["unobserved_ns"]
    return found


def clock() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def test_a_kill_order_is_time_in_which_nothing_is_seen(service: Service) -> None:
    before = clock()
    service.start_settled()
    started = unobserved(service)
    assert 0 < started["attaching"] < clock() - before
    assert sum(started.values()) == started["attaching"] == unobserved(service)["attaching"], "attached, it stands"
    begun = clock()
    order = service.order("feature.exec_events")
    service.wait_state("exec_events", "killed")
    held = clock()
    time.sleep(1)
    let = clock()
    order.unlink()
    service.wait_state("exec_events", "attached")
    ended, found = clock(), unobserved(service)
    assert let - held <= found["kill"] <= ended - begun
    assert unobserved(service, "runqlat")["kill"] == 0, "another feature went on"
    service.want("runqlat")
    service.wait_state("exec_events", "off")
    time.sleep(0.3)
    assert unobserved(service) == found, "what is not wanted lacks nothing"


def test_a_stop_is_known_to_the_millisecond_and_a_crash_to_an_interval(service: Service) -> None:
    service.start_settled()
    begun = clock()
    service.stop()
    stopped = clock()
    time.sleep(0.5)
    restarted = clock()
    service.start_settled()
    found, ended = unobserved(service), clock()
    assert restarted - stopped <= found["down"] + 20 * MS and found["down"] <= ended - begun
    time.sleep(1.5)
    begun = clock()
    service.stop(signal.SIGKILL)
    time.sleep(0.5)
    service.start_settled()
    ended = clock()
    down = unobserved(service)["down"] - found["down"]
    assert SECOND // 2 <= down <= ended - begun + service.interval * SECOND + 100 * MS


def rewrite(service: Service, **changes: Any) -> None:
    path = service.log / "unobserved.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_boot_is_known_by_the_wall_clock(service: Service) -> None:
    """The file is made to be of another boot, an hour and more before the machine's own boot."""
    service.start_settled()
    before = unobserved(service)
    service.stop()
    away = clock() + 3600 * SECOND
    rewrite(service, boot_id="0c5a4b1e-6d0e-4f0c-9d0a-1f6c1c0d2e3f", time_unix_ns=time.time_ns() - away)
    service.start_settled()
    found = unobserved(service)
    assert found["down"] == before["down"] and away <= found["reboot"] <= away + 30 * SECOND


@pytest.mark.parametrize("content", [b"", b"{", b'{"schema": "other"}', b"[]", b"\0" * 100])
def test_a_file_that_says_nothing_begins_again_from_zero(service: Service, content: bytes) -> None:
    service.start_settled()
    service.stop()
    (service.log / "unobserved.json").write_bytes(content)
    service.start_settled()
    found = unobserved(service)
    assert sum(found.values()) == found["attaching"]
    assert "what earlier loaders did not see is not known" in service.journal()


def test_a_feature_that_was_not_wanted_lacks_nothing_for_the_time_between(service: Service) -> None:
    service.want("runqlat")
    service.start_settled()
    service.stop()
    time.sleep(0.3)
    service.want(*BOTH)
    service.start_settled()
    assert unobserved(service)["down"] == 0 and unobserved(service, "runqlat")["down"] >= 300 * MS
