# SPDX-License-Identifier: GPL-3.0-or-later
"""The BCC collector's service without a kernel: what it takes, counts, attaches to and does in which order.

What BCC and the kernel do is stood in for; test_bcc_start and the lab's tests run the whole.
"""

from __future__ import annotations

import argparse
import datetime
import errno
import fcntl
import os
import struct
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.ebpf.fleet.collectors.fleet_bcc import (
    attach,
    bundle,
    command,
    desired,
    journal,
    kernel,
    loader_status,
)
from ansible_collections.ebpf.fleet.collectors.fleet_bcc import service as bcc_service
from ansible_collections.ebpf.fleet.collectors.fleet_bcc.basics import CannotRunError, Reason, RefusedError
from ansible_collections.ebpf.fleet.collectors.fleet_bcc.decide import Verdict
from ansible_collections.ebpf.fleet.collectors.fleet_bcc.events import Tally
from ansible_collections.ebpf.fleet.collectors.fleet_bcc.live import COUNTERS, Live
from ansible_collections.ebpf.fleet.collectors.fleet_bcc.service import Service

DIGEST = "a" * 64


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1", 1), ("3600", 3600), ("0010", 10), ("0", None), ("3601", None), ("-1", None), ("1.5", None), ("", None),
     ("00001", None), ("1\n", None)],
)  # fmt: skip
def test_the_interval_at_both_ends(text: str, seconds: int | None) -> None:
    if seconds is not None:
        assert command.interval(text) == seconds
        return
    with pytest.raises(argparse.ArgumentTypeError, match="must be a number of seconds from 1 to 3600"):
        command.interval(text)


def test_a_contract_expires_on_its_day() -> None:
    today = datetime.datetime.now(datetime.timezone.utc).date()
    yesterday, tomorrow = today - datetime.timedelta(days=1), today + datetime.timedelta(days=1)
    for day, expired in ((None, False), (yesterday, True), (today, True), (tomorrow, False)):
        contract = {"signals": []} if day is None else {"signals": [], "expires": str(day)}
        found = bundle.Source("probe", contract, {}, b"").expired()
        assert found == (str(day) if expired else None)


def own_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, Path]:
    """A signed bundle's files, with the collector laid out beside its entry."""
    signed = {f"{bundle.FOLDER}bcc.py": b"entry", f"{bundle.FOLDER}lib/a.py": b"a", "features/x/contract.json": b"{}"}
    for path, data in signed.items():
        if path.startswith(bundle.FOLDER):
            place = folder / path[len(bundle.FOLDER) :]
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(data)
    for name in [name for name in sys.modules if name.startswith(bundle.OWN_MODULES)]:
        monkeypatch.delitem(sys.modules, name)
    files = SimpleNamespace(manifest={"files": dict.fromkeys(signed)}, read=signed.__getitem__)
    return files, folder / "bcc.py"


def test_only_the_collector_that_was_signed_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, entry = own_files(tmp_path, monkeypatch)
    bundle.check_own(files, entry)
    (tmp_path / "lib/a.py").write_bytes(b"b")
    with pytest.raises(RefusedError, match=r"lib/a.py: is not the bundle's collector") as refused:
        bundle.check_own(files, entry)
    assert refused.value.code == "EF_LOADER_SELF"
    (tmp_path / "lib/a.py").unlink()
    with pytest.raises(RefusedError, match=r"lib/a.py: is not"):
        bundle.check_own(files, entry)


@pytest.mark.parametrize("elsewhere", [True, False])
def test_a_module_or_entry_from_elsewhere_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, elsewhere: bool
) -> None:
    files, entry = own_files(tmp_path, monkeypatch)
    if elsewhere:
        own = bundle.OWN_MODULES if isinstance(bundle.OWN_MODULES, str) else bundle.OWN_MODULES[0]
        monkeypatch.setitem(sys.modules, f"{own}.odd", SimpleNamespace(__file__="/x/odd.py"))  # type: ignore[arg-type]
    with pytest.raises(RefusedError, match="odd.py: is not the bundle's collector"):
        bundle.check_own(files, entry if elsewhere else tmp_path / "odd.py")


def test_what_cannot_be_read_of_the_desired_state_opts_into_nothing(tmp_path: Path) -> None:
    path = tmp_path / "desired.json"
    for make, code in ((None, "EF_NO_DESIRED"), (lambda: path.write_text("{"), "EF_DESIRED_MALFORMED"),
                       (lambda: (path.unlink(), path.mkdir()), "EF_DESIRED_MALFORMED")):  # fmt: skip
        if make is not None:
            make()
        found = desired.read_desired(path, DIGEST)
        assert (found.features, found.bcc) == ({}, False)
        assert found.error is not None and found.error.code == code and str(path) in found.error.text


@pytest.mark.parametrize(("since", "features"), [(29.0, {"f": {}}), (30.0, {"f": {}}), (30.1, {}), (None, {})])
def test_what_the_loader_said_last_stands_for_thirty_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, since: float | None, features: dict[str, Any]
) -> None:
    told = loader_status.LoaderStatus(tmp_path / "status.json", DIGEST)
    told.features, told.stats_enabled = {"f": {}}, True
    told.heard = None if since is None else 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: 1000.0 + (since or 0.0))
    told.listen()
    assert (told.features, told.stats_enabled) == (features, bool(features))


def test_a_line_for_the_journal_is_printable_and_bounded(capfd: pytest.CaptureFixture[str]) -> None:
    journal.say(5, "a\x1b[2Jé")
    journal.say(3, "x" * 5000, before="")
    first, second = capfd.readouterr().err.splitlines()
    assert first == "ebpf-fleet-bcc: a?[2J?" and second == "x" * 3900


def test_the_journal_is_told_how_grave_a_line_is(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOURNAL_STREAM", "1:2")
    journal.say(4, "text", before="")
    assert capfd.readouterr().err == "<4>text\n"


def test_a_refused_system_call_is_told_with_its_number() -> None:
    with pytest.raises(OSError) as refused:  # noqa: PT011
        kernel.bpf(9999, b"")
    assert refused.value.errno in (errno.EINVAL, errno.EPERM)


@pytest.mark.parametrize(("is_return", "config"), [(False, 0), (True, 1)])
def test_a_kprobe_gets_its_program_before_it_is_switched_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_return: bool, config: int
) -> None:
    """The block by its fields (linux/perf_event.h), on a machine whose kernel may have no kprobes."""
    done: list[Any] = []
    fd = os.open("/dev/null", os.O_RDONLY)
    monkeypatch.setattr(Path, "read_text", lambda _path: "9\n")
    monkeypatch.setattr(attach, "open_perf_event", lambda block, pid, cpu: done.append((block, pid, cpu)) or fd)
    monkeypatch.setattr(fcntl, "ioctl", lambda given, request, argument: done.append((given, request, argument)))
    assert attach.Hook("kretprobe" if is_return else "kprobe", "do_exit").attach(77) == fd
    os.close(fd)
    (block, pid, cpu), *calls = done
    kind, size, found, period = struct.unpack_from("=IIQQ", block)
    assert (kind, size, found, period, pid, cpu) == (9, 112, config, 1, -1, 0)
    assert calls == [(fd, 0x40042408, 77), (fd, 0x2400, 0)]


def test_a_kprobe_that_cannot_be_switched_on_leaves_no_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    fd = os.open("/dev/null", os.O_RDONLY)

    def refuse(*_arguments: Any) -> None:
        raise OSError(errno.EINVAL, "no")

    monkeypatch.setattr(Path, "read_text", lambda _path: "9\n")
    monkeypatch.setattr(attach, "open_perf_event", lambda _block, _pid, _cpu: fd)
    monkeypatch.setattr(fcntl, "ioctl", refuse)
    with pytest.raises(OSError, match="no"):
        attach.open_kprobe("do_exit", False, 77)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


# --- a feature that is in the kernel -------------------------------------------------------------


class Slots:
    """A map of counters, and what was put into it."""

    def __init__(self, *values: int) -> None:
        self.values, self.put_bytes = values, b""

    def sum_slot(self, slot: int) -> int:
        return self.values[slot]

    def put(self, key: int, data: bytes) -> None:
        assert key == 0
        self.put_bytes = data


def live(with_feed: bool = True, **maps: Any) -> Live:
    made = Live.__new__(Live)
    made.maps = maps
    made.tally = Tally()
    made.feed = SimpleNamespace() if with_feed else None  # type: ignore[assignment]
    made.links = []
    made.ran = False
    return made


@pytest.mark.parametrize(("with_feed", "delivered", "dropped"), [(True, 40, 5 + 2), (False, 50, 5)])
def test_what_was_lost_on_the_way_to_the_file_is_dropped_too(with_feed: bool, delivered: int, dropped: int) -> None:
    made = live(with_feed, ef_counters=Slots(100, 50, 5, 20))
    made.tally.written, made.tally.dropped = 40, 2
    counts = made.read_counts()
    assert counts.values == dict(zip(COUNTERS, (100, delivered, dropped, 20)))
    assert counts.in_flight == 100 - delivered - dropped - 20


def test_the_sampling_is_written_as_two_numbers() -> None:
    made = live(ef_config=Slots())
    made.sample(7)
    assert made.maps["ef_config"].put_bytes == struct.pack("=II", 7, 0)  # type: ignore[attr-defined]


class Hooks:
    def __init__(self, *results: Any) -> None:
        self.results = list(results)

    def attach(self, _fd: int) -> int:
        found = self.results.pop(0)
        if isinstance(found, OSError):
            raise found
        return int(found)

    kind, target = "raw_tp", "sched_switch"


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (errno.ENOENT, "EF_NO_ATTACH_POINT"),
        (errno.EPERM, "EF_PERMISSION"),
        (errno.EACCES, "EF_PERMISSION"),
        (errno.EBUSY, "EF_ATTACH_FAILED"),
    ],
)
def test_all_programs_are_attached_or_none(number: int, code: str) -> None:
    first = os.open("/dev/null", os.O_RDONLY)
    made = live()
    hooks = Hooks(first, OSError(number, "no"))
    made.source = SimpleNamespace(programs={"ef_a": hooks, "ef_b": hooks})  # type: ignore[assignment]
    made.compiled = SimpleNamespace(programs={"ef_a": 1, "ef_b": 2})  # type: ignore[assignment]
    with pytest.raises(CannotRunError, match="program ef_b: cannot be attached to raw_tp sched_switch") as failed:
        made.attach()
    assert failed.value.code == code and made.links == [] and not made.cut()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(first)


# --- the service ---------------------------------------------------------------------------------


class Scripted(Service):
    """The service with its outer acts noted and not done."""

    def __init__(self, **fields: Any) -> None:
        self.done: list[str] = []
        self.features, self.ending = [], False
        self.__dict__.update(fields)

    def bring_up(self, feature: Any, why: Reason) -> bool:
        self.done.append(f"bring up {feature.name} for {why.code}")
        return True

    def take_down(self, feature: Any, state: str, reason: Reason) -> bool:
        self.done.append(f"take down {feature.name} to {state} for {reason.code}")
        return False

    def publish(self) -> None:
        self.done.append("publish")

    def attach(self, feature: Any, compiled: Any) -> None:
        self.done.append(f"attach {compiled}")
        feature.live = None if compiled == "in vain" else SimpleNamespace(links=[1, 2])

    def fail(self, feature: Any, error: CannotRunError, why: Reason) -> None:
        self.done.append(f"fail {feature.name} with {error.code} for {why.code}")


LOADER = SimpleNamespace(could_not=lambda _name: (Reason("EF_NO_BTF", "no BTF"), Reason("EF_OK", "")))


@pytest.mark.parametrize(
    ("state", "tried", "done", "changed"),
    [
        ("attached", True, "bring up probe for EF_NO_BTF", True),
        ("disabled", True, "take down probe to disabled for EF_NO_BTF", False),
        ("off", False, "take down probe to off for EF_NO_BTF", False),
        ("killed", False, "take down probe to killed for EF_NO_BTF", False),
    ],
)
def test_what_is_decided_of_a_feature_is_done(
    monkeypatch: pytest.MonkeyPatch, state: str, tried: bool, done: str, changed: bool
) -> None:
    monkeypatch.setattr(bcc_service, "decide", lambda _asked: Verdict(state, Reason("EF_NO_BTF", "no BTF"), True))
    source = SimpleNamespace(expired=lambda: None)
    feature = SimpleNamespace(name="probe", source=source, wanted=False, tried=True)
    made = Scripted(orders=SimpleNamespace(of_feature=lambda _name: None), desired=None)
    assert made.settle(feature, LOADER) is changed  # type: ignore[arg-type]
    assert (made.done, feature.wanted, feature.tried) == ([done], True, tried)


@pytest.mark.parametrize(
    ("compiled", "done", "state", "changed"),
    [
        (None, [], "off", False),
        ("it", ["closed", "attach it", "publish"], "attached", True),
        ("in vain", ["closed", "attach in vain"], "off", True),
        (CannotRunError("EF_BCC_COMPILE", "no"), ["fail probe with EF_BCC_COMPILE for EF_NO_BTF"], "off", True),
    ],
)
def test_what_the_compiler_made_is_attached_and_published_before_it_is_told(
    compiled: Any, done: list[str], state: str, changed: bool
) -> None:
    made = Scripted()

    def poll() -> Any:
        if isinstance(compiled, CannotRunError):
            raise compiled
        return compiled

    job = SimpleNamespace(poll=poll, close=lambda: made.done.append("closed"))
    feature = SimpleNamespace(name="probe", job=job, live=None, state="off", reason=None)
    assert made.harvest(feature, LOADER) is changed  # type: ignore[arg-type]
    assert (made.done, feature.state) == (done, state)
    assert state == "off" or (feature.reason.code, feature.job) == ("EF_NO_BTF", None)
    assert made.harvest(SimpleNamespace(job=None), LOADER) is False  # type: ignore[arg-type]


def test_the_service_begins_tells_that_it_is_ready_loops_and_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    class Served(Scripted):
        def rescan(self, loader: Any, at_start: bool = False) -> bool:
            self.done.append(f"rescan {at_start}")
            return True

        def loop(self, loader: Any) -> None:
            assert not self.ending
            self.done.append("loop")

        def stop(self) -> None:
            self.done.append("stop")

        def present(self) -> Any:
            return None

        def guard(self) -> None:
            while not self.ending:
                time.sleep(0.01)

    options = SimpleNamespace(loader_status="/none")
    made = Served(options=options, bundle=SimpleNamespace(digest=DIGEST, sources=[]))
    monkeypatch.setattr(bcc_service, "overall", lambda _present: ("running", Reason("EF_OK", "well\nand good")))
    monkeypatch.setattr(bcc_service, "notify", made.done.append)
    assert made.serve() == 0 and made.ending
    assert made.done == ["rescan True", "publish", "READY=1\nSTATUS=well and good", "loop", "stop"]
