# SPDX-License-Identifier: GPL-3.0-or-later
"""The BCC collector's service as it runs: when it wakes, reads and tells, and how it begins and ends.

Compiler, programs and clock are stood in for; the files that it reads are files.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Callable

import pytest
from ansible_collections.ebpf.fleet.collectors.fleet_bcc import service as service_file
from ansible_collections.ebpf.fleet.collectors.fleet_bcc.basics import (
    EXIT_FAILED,
    EXIT_REFUSED,
    EXIT_USAGE,
    Reason,
    RefusedError,
)
from ansible_collections.ebpf.fleet.collectors.fleet_bcc.desired import Desired
from ansible_collections.ebpf.fleet.collectors.fleet_bcc.feature import READ_LIMIT
from ansible_collections.ebpf.fleet.collectors.fleet_bcc.service import Service

from tests.support.bcc_service import DIGEST, Live, listener, make_service, told_by


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    return told_by(monkeypatch)


@pytest.fixture
def service(tmp_path: Path, told: list[str]) -> Service:
    return make_service(tmp_path)


# ---- waiting ----


def test_it_wakes_for_what_asks_and_not_for_time(service: Service) -> None:
    assert service.wait(0) is False
    service.wake()
    service.wake()
    assert service.wait(10) is True
    assert service.wait(0) is False, "both were taken"


@pytest.mark.parametrize(("count", "again"), [(4096, False), (4097, True)])
def test_what_woke_it_is_taken_in_pieces_of_a_page(service: Service, count: int, again: bool) -> None:
    assert service.wake_out.send(b"!" * count) == count
    assert [service.wait(0) for _ in range(3)] == [True, again, False]


def test_it_wakes_for_a_compiler_that_is_ready(service: Service) -> None:
    ready_in, ready_out = os.pipe()
    with os.fdopen(ready_in) as reader, os.fdopen(ready_out, "w") as writer:
        service.features[1].job = SimpleNamespace(socket=reader)  # type: ignore[assignment]
        assert service.wait(0) is False
        writer.write("x")
        writer.flush()
        assert service.wait(10) is True


@pytest.mark.parametrize(("seconds", "milliseconds"), [(1.0019, 1001), (0.5, 500), (0, 0), (-1, 0), (0.0009, 0)])
def test_it_waits_for_so_long(
    service: Service, monkeypatch: pytest.MonkeyPatch, seconds: float, milliseconds: int
) -> None:
    asked: list[int] = []

    class Poller:
        def register(self, _what: Any, _events: int) -> None: ...

        def poll(self, given: int) -> list[tuple[int, int]]:
            asked.append(given)
            return []

    monkeypatch.setattr(service_file.select, "poll", Poller)
    assert service.wait(seconds) is False
    assert asked == [milliseconds]


@pytest.mark.parametrize(
    ("tick", "reads", "seconds"),
    [(105.0, False, 5.001), (100.0, False, 0.001), (90.0, False, 0.001), (100.25, False, 0.251), (105.0, True, 0.1),
     (100.0625, True, 0.0635), (90.0, True, 0.001)],
)  # fmt: skip
def test_it_waits_for_the_next_tick_and_for_rings_no_longer_than_a_check(
    service: Service, monkeypatch: pytest.MonkeyPatch, tick: float, reads: bool, seconds: float
) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 100.0)
    service.features[0].live = Live()  # type: ignore[assignment]
    service.features[1].live = Live(feed="a ring" if reads else None)  # type: ignore[assignment]
    assert service.patience(tick) == pytest.approx(seconds)
    service.features[1].live = None
    assert service.patience(105.0) == pytest.approx(5.001)


def test_every_ring_is_read_once_and_what_was_read_is_written(service: Service) -> None:
    done: list[str] = []

    def feed(name: str, more: bool) -> Any:
        return SimpleNamespace(read=lambda limit: bool(done.append(f"{name} {limit}")) or more)

    service.sink.flush = lambda: done.append("flush")  # type: ignore[method-assign]
    assert service.read_feeds() is False
    for first, second in ((False, False), (True, False), (False, True), (True, True)):
        done.clear()
        service.features[0].live = Live(feed=feed("probe", first))  # type: ignore[assignment]
        service.features[1].live = Live(feed=feed("other", second))  # type: ignore[assignment]
        assert service.read_feeds() is (first or second)
        assert done == [f"probe {READ_LIMIT}", f"other {READ_LIMIT}", "flush"]


# ---- the loop ----


class Turns:
    """The loop's clock and what it does: each wait() takes from `waits` (seconds that pass, whether it was woken)."""

    def __init__(self, service: Service, monkeypatch: pytest.MonkeyPatch, *waits: tuple[float, bool]) -> None:
        self.service, self.waits, self.now = service, list(waits), 100.0
        self.done: list[str] = []
        self.changed: list[bool] = []
        self.more: list[bool] = []
        service.rescan = self.rescan  # type: ignore[method-assign, assignment]
        service.read_feeds = self.read_feeds  # type: ignore[method-assign]
        service.publish = lambda: self.done.append("publish")  # type: ignore[method-assign]
        service.retires = lambda: False  # type: ignore[method-assign]
        service.wait = self.wait  # type: ignore[method-assign]
        monkeypatch.setattr(service_file, "notify", self.done.append)
        monkeypatch.setattr(time, "monotonic", lambda: self.now)

    def rescan(self, _loader: Any) -> bool:
        self.done.append("rescan")
        return self.changed.pop(0) if self.changed else False

    def read_feeds(self) -> bool:
        return self.more.pop(0) if self.more else False

    def wait(self, seconds: float) -> bool:
        self.done.append(f"wait {round(seconds, 3)}")
        passed, woken = self.waits.pop(0)
        self.now += passed
        self.service.stopping = not self.waits
        return woken

    def run(self) -> str:
        self.service.loop(None)  # type: ignore[arg-type]
        return ", ".join(self.done).replace("publish, WATCHDOG=1", "tell")


def turns(service: Service, monkeypatch: pytest.MonkeyPatch, *waits: tuple[float, bool], **facts: Any) -> str:
    made = Turns(service, monkeypatch, *waits)
    made.changed, made.more = facts.get("changed", []), facts.get("more", [])
    return made.run()


def test_the_first_turn_reads_everything_and_tells(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    assert turns(service, monkeypatch, (0, False)) == "rescan, tell, wait 5.001"


def test_time_alone_brings_the_next_publication_after_the_interval(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert turns(service, monkeypatch, (4.9, False), (0.1, False), (0, False)) == (
        "rescan, tell, wait 5.001, wait 0.101, rescan, tell, wait 5.001"
    )


def test_whoever_wakes_it_has_everything_read_but_nothing_told_that_did_not_change(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert turns(service, monkeypatch, (1, True), (1, False)) == "rescan, tell, wait 5.001, rescan, wait 4.001"


def test_a_change_is_told_at_once_and_leads_to_another_reading(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A compiler that is ready makes room for the next."""
    found = turns(service, monkeypatch, (1, True), (0, False), (1, False), changed=[False, True, False])
    assert found == "rescan, tell, wait 5.001, rescan, tell, wait 0, rescan, wait 5.001"


def test_more_to_be_read_waits_for_nothing(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    found = turns(service, monkeypatch, (0, False), (0, False), (0, False), more=[True, True, False])
    assert found == "rescan, tell, wait 0, wait 0, wait 5.001"


def test_it_ends_when_bcc_is_not_opted_into_any_more(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Turns(service, monkeypatch, (0, False))
    service.retires = lambda: True  # type: ignore[method-assign]
    assert made.run() == "rescan, tell"


def test_a_loop_that_was_stopped_does_nothing(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Turns(service, monkeypatch)
    service.stopping = True
    service.loop(None)  # type: ignore[arg-type]
    assert made.done == []


@pytest.mark.parametrize(
    ("bcc", "code", "retires"),
    [(True, None, False), (True, "EF_DESIRED_MALFORMED", False), (False, "EF_DESIRED_MALFORMED", False),
     (False, None, True), (False, "EF_NO_DESIRED", True)],
)  # fmt: skip
def test_without_the_opt_in_there_is_nothing_to_stay_for(
    service: Service, told: list[str], bcc: bool, code: str | None, retires: bool
) -> None:
    service.desired = Desired({}, bcc, Reason(code, "why") if code else None)
    assert service.retires() is retires
    assert told == ["<5>desired.json has no fallback 'bcc': the collector ends"] * retires


# ---- how it ends ----


def test_a_signal_stops_it_and_wakes_it(service: Service) -> None:
    service.on_signal(signal.SIGTERM, None)
    assert service.stopping is True and service.wait(0) is True


def test_it_detaches_all_before_it_tells(service: Service, monkeypatch: pytest.MonkeyPatch, told: list[str]) -> None:
    def cut(name: str) -> Callable[[], None]:
        return lambda: done.append(f"cut {name} {service.lock.locked()}")

    done = listener(service)
    monkeypatch.setattr(service_file, "notify", done.append)
    for feature in service.features:
        feature.live = SimpleNamespace(cut=cut(feature.name), ran=False, close=lambda: done.append("close"))  # type: ignore[assignment]
    service.stop()
    assert done[:3] == ["cut probe True", "cut other True", "STOPPING=1"]
    assert done[-1] == "publish" and done.count("publish") == 1 and done.count("close") == 2
    assert service.stopping is True
    for feature in service.features:
        assert (feature.state, feature.live) == ("off", None)
        assert feature.reason == Reason("EF_NOT_WANTED", "the collector was stopped")


def running(service: Service, monkeypatch: pytest.MonkeyPatch, result: Any) -> tuple[int, list[Any]]:
    """run() with what verifies the bundle and with signals noted; the exit status."""
    noted: list[Any] = []
    monkeypatch.setattr(service_file.signal, "signal", lambda number, handler: noted.append((number, handler)))

    def opened(*given: Any) -> Any:
        noted.append(given)
        if isinstance(result, Exception):
            raise result
        return result

    monkeypatch.setattr(service_file, "open_bundle", opened)
    service.serve = lambda: 77  # type: ignore[method-assign]
    return service.run(), noted


def test_it_makes_its_folder_verifies_and_serves(
    service: Service, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "state").rmdir()
    before = os.umask(0)
    try:
        code, noted = running(service, monkeypatch, "a bundle")
    finally:
        os.umask(before)
    assert code == 77 and service.bundle == "a bundle"
    assert noted == [
        (signal.SIGTERM, service.on_signal), (signal.SIGINT, service.on_signal), (service.options, service.entry),
    ]  # fmt: skip
    assert (tmp_path / "state").stat().st_mode & 0o7777 == 0o755
    assert running(service, monkeypatch, "a bundle")[0] == 77, "the folder may be there"


def test_without_its_folder_it_ends(
    service: Service, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, told: list[str]
) -> None:
    (tmp_path / "state").rmdir()
    (tmp_path / "state").touch()
    code, noted = running(service, monkeypatch, "a bundle")
    assert code == EXIT_FAILED == 1
    assert told == [f"<3>cannot make {tmp_path / 'state'}: File exists; make it, or give --state"]
    assert len(noted) == 2, "no bundle is opened"


def test_a_bundle_that_is_refused_is_told_with_the_orders(
    service: Service, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, told: list[str]
) -> None:
    done = listener(service)
    (tmp_path / "run/kill.d/global").touch()
    service.bundle = None
    code, _noted = running(service, monkeypatch, RefusedError("EF_FILE_DIGEST", "not what was signed"))
    assert code == EXIT_REFUSED == 3 and EXIT_USAGE == 2
    assert service.refusal == Reason("EF_FILE_DIGEST", "not what was signed")
    assert told == ["<3>refused: not what was signed (EF_FILE_DIGEST)", "STATUS=refused: see the journal"]
    assert [order.scope for order in service.orders.orders] == ["global"] and done == ["publish"]


def test_it_stops_and_ends_its_guard_even_where_the_loop_fails(
    service: Service, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    done: list[Any] = []
    begun = threading.Event()

    def guard() -> None:
        begun.set()
        while not service.ending:
            time.sleep(0.005)
        done.append((threading.current_thread().name, threading.current_thread().daemon))

    def loop(loader: Any) -> None:
        assert begun.wait(10)
        done.append((loader.path, loader.digest))
        raise RuntimeError("odd")

    service.guard, service.loop = guard, loop  # type: ignore[method-assign, assignment]
    service.stop = lambda: done.append("stop")  # type: ignore[method-assign]
    service.features = []
    listener(service)
    with pytest.raises(RuntimeError, match="odd"):
        service.serve()
    assert done == [(tmp_path / "loader.json", DIGEST), "stop", ("guard", True)]
    assert [feature.name for feature in service.features] == ["probe", "other"]


def test_systemd_is_told_in_two_hundred_letters_of_one_line(
    service: Service, monkeypatch: pytest.MonkeyPatch, told: list[str]
) -> None:
    service.guard, service.loop = lambda: None, lambda _loader: None  # type: ignore[method-assign, assignment]
    service.stop = lambda: None  # type: ignore[method-assign]
    listener(service)
    monkeypatch.setattr(service_file, "overall", lambda _present: ("idle", Reason("EF_OK", "a\nb" + "x" * 300)))
    assert service.serve() == 0
    assert told == ["READY=1\nSTATUS=a b" + "x" * 197]
