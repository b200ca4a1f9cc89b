# SPDX-License-Identifier: GPL-3.0-or-later
"""Measuring: the parsers on real formats, and what was not measured staying null."""

from __future__ import annotations

import errno
import json
import os
import struct
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout import observation as obs
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout import witness

from tests.unit.test_gate import status as status_of
from tests.unit.test_status_values import STATUS

STAT = "cpu  100 10 50 800 20 5 15 30 0 0\ncpu0 50 5 25 400 10 2 8 15 0 0\ncpu1 50 5 25 400 10 3 7 15 0 0\nintr 1\n"


def test_idle_iowait_and_steal_are_not_busy() -> None:
    found = obs.parse_cpu(STAT, 100)
    assert found == {"cpus": 2, "cpu_busy_ns": 180 * 10**7, "cpu_total_ns": 1030 * 10**7}


@pytest.mark.parametrize("text", ["", "cpu 1 2 3\n", "nothing\n"])
def test_a_stat_that_cannot_be_read_is_null_not_zero(text: str) -> None:
    assert obs.parse_cpu(text, 100) == {"cpus": None, "cpu_busy_ns": None, "cpu_total_ns": None}


def test_memory_in_bytes() -> None:
    text = "MemTotal:        1000 kB\nMemFree: 1 kB\nMemAvailable:     400 kB\n"
    assert obs.parse_memory(text) == {"memory_total_bytes": 1024000, "memory_available_bytes": 409600}
    assert obs.parse_memory("") == {"memory_total_bytes": None, "memory_available_bytes": None}


def test_pressure_and_load() -> None:
    text = "some avg10=0.00 avg60=0.00 avg300=0.00 total=1234\nfull avg10=0.00 total=9\n"
    assert obs.parse_pressure(text) == 1234
    assert obs.parse_pressure("") is None
    assert obs.parse_load("2.36 1.00 0.50 1/100 200\n") == 2360
    assert obs.parse_load("") is None


def test_unit_states() -> None:
    text = "LoadState=loaded\nActiveState=active\nNRestarts=2\nMainPID=7\nExecMainStatus=0\nControlGroup=/a/b\n"
    known = {"active_state": "active", "n_restarts": 2, "main_pid": 7, "exit_status": 0, "control_group": "/a/b"}
    assert obs.parse_unit(text) == known
    assert obs.parse_unit("LoadState=not-found\nActiveState=inactive\n") is None
    partial = obs.parse_unit("LoadState=loaded\nActiveState=failed\nNRestarts=\n")
    assert partial is not None
    assert (partial["active_state"], partial["n_restarts"]) == ("failed", None)


class TestStatus:
    def test_absent_is_null_without_complaint(self, tmp_path: Path) -> None:
        assert obs.read_status(tmp_path) == (None, None)

    def test_read(self, tmp_path: Path) -> None:
        status = status_of(5)
        (tmp_path / "status.json").write_text(json.dumps(status))
        assert obs.read_status(tmp_path) == (status, None)

    @pytest.mark.parametrize("text", ["{", "[]", '{"schema": "other"}', "\udcff"])
    def test_what_is_no_status_is_null_and_said(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "status.json").write_text(text, errors="surrogateescape")
        status, wrong = obs.read_status(tmp_path)
        assert status is None
        assert wrong is not None
        assert "status.json" in wrong

    def test_a_status_that_is_too_large_is_not_read(self, tmp_path: Path) -> None:
        (tmp_path / "status.json").write_bytes(b" " * (obs.STATUS_LIMIT_BYTES + 1))
        status, wrong = obs.read_status(tmp_path)
        assert status is None
        assert wrong is not None
        assert "larger than" in wrong

    def test_a_status_of_four_mib_is_read_and_one_byte_more_is_not(self, tmp_path: Path) -> None:
        data = json.dumps(status_of(5)).encode()
        for more, good in ((0, True), (1, False)):
            (tmp_path / "status.json").write_bytes(data.ljust((4 << 20) + more))
            assert (obs.read_status(tmp_path)[0] is not None) is good

    @pytest.mark.parametrize(
        ("status", "age"),
        [
            ({"boot_id": "now", "boottime_ns": 70}, 30),
            ({"boot_id": "now", "boottime_ns": 200}, 0),
            ({"boot_id": "earlier", "boottime_ns": 70}, None),
            ({"boot_id": "now"}, None),
            (None, None),
        ],
    )
    def test_age(self, status: dict | None, age: int | None) -> None:
        assert obs.status_age(status, "now", 100) == age


class TestApplication:
    @pytest.mark.parametrize(
        ("text", "read"),
        [
            ('{"p95_ns": 100, "p99_ns": 200}', (100, 200)),
            ('{"p95_ns": 1.0, "p99_ns": 1.5}', (1, 2)),
            ('{"p95_ns": 1.25e6, "p99_ns": 2e6}', (1_250_000, 2_000_000)),
            ('{"p95_ns": "1", "p99_ns": "1.5"}', (1, 2)),
            ('{"p95_ms": 0.1, "p99_us": 200, "requests": 12.5}', (100_000, 200_000)),
        ],
    )
    def test_whole_numbers_and_fractions_are_nanoseconds(self, tmp_path: Path, text: str, read: Any) -> None:
        path = tmp_path / "latency.json"
        path.write_text(text)
        assert obs.read_application(path) == (dict(zip(("p95_ns", "p99_ns"), read)), None)

    @pytest.mark.parametrize(
        ("text", "named"),
        [
            ('{"p95_ns": "fast"}', "p95_ns: is 'fast' (text)"),
            ('{"p95_ns": 1, "p99_ns": -1}', "p99_ns: is -1 (a number)"),
            ('{"p95_ns": true}', "p95_ns: is True (a truth value)"),
            ('{"p95_ns": [1]}', "p95_ns: is [1] (a list)"),
            ('{"p95_ns": {"value": 1}}', "p95_ns: is {'value': 1} (a mapping)"),
            ('{"p95_ns": 1, "p99_ns": 1e300}', "p99_ns: is 1e+300 (a number)"),
            ('{"p95_ns": 0, "p99_ns": 1}', "p95_ns: is 0 (a number); as a latency"),
            ('{"p95_ns": 1, "p99_ns": null}', "p99_ns: is nothing"),
            ('{"p99_ns": 7}', "p95: is not there; give one of p95_ns"),
            ('{"p95_min": 1, "p99_ns": 7}', "p95: is p95_min; give one of p95_ns"),
            ("{}", "p95: is not there"),
            ('{"p99_ns": NaN}', "NaN"),
            ("[1]", "the document: is [1] (a list)"),
            ("null", "the document: is nothing"),
            ("12.5", "the document: is 12.5 (a number)"),
            ("no json", "is not JSON"),
            ("", "is not JSON"),
        ],
    )
    def test_another_shape_is_an_error_that_names_file_and_field(self, tmp_path: Path, text: str, named: str) -> None:
        path = tmp_path / "latency.json"
        path.write_text(text)
        found, wrong = obs.read_application(path)
        assert found is None and wrong is not None and wrong.startswith(str(path)) and named in wrong

    def test_no_file_is_null(self, tmp_path: Path) -> None:
        assert obs.read_application(None) == (None, None)
        assert obs.read_application(tmp_path / "none") == (None, None)


def test_two_snapshots_of_this_machine_make_rates(tmp_path: Path) -> None:
    found = obs.observe(obs.Places(state_dir=tmp_path), "here", 0.3, time.sleep)
    assert found["schema"] == "ebpf.fleet/observation/v1"
    assert 0.3e9 <= found["window_ns"] < 5e9
    start, end = found["start"]["host"], found["end"]["host"]
    assert end["cpu_total_ns"] - start["cpu_total_ns"] > 0
    assert end["cpu_busy_ns"] >= start["cpu_busy_ns"]
    assert 0 < end["memory_available_bytes"] <= end["memory_total_bytes"]
    assert found["end"]["status"] is None


def test_no_window_is_one_snapshot(tmp_path: Path) -> None:
    found = obs.observe(obs.Places(state_dir=tmp_path), "here", 0, time.sleep)
    assert found["window_ns"] == 0
    assert found["start"] == found["end"]


def test_a_host_without_proc_is_all_null(tmp_path: Path) -> None:
    assert set(obs.read_host(tmp_path).values()) == {None}
    assert obs.read_boot_id(tmp_path) is None


def a_status(state: str, code: str, digest: str = "d", **cost: int | None) -> dict[str, object]:
    feature = {"state": state, "reason_code": code}
    loader = {"cpu_ns": 5, "rss_bytes": 7, "map_memory_bytes": 0, **cost}
    return {"boot_id": "b", "bundle": {"digest": digest}, "features": {"runqlat": feature}, "loader": loader}


def test_a_collector_speaks_while_it_lives_and_not_after(tmp_path: Path) -> None:
    """Its file stays when it dies; what it last told is then no account of anything."""
    places = obs.Places(collector_dir=tmp_path)
    assert obs.read_collector(places) is None
    child = subprocess.Popen(["sleep", "60"])
    document = {**STATUS, "pid": child.pid}
    (tmp_path / "status.json").write_text(json.dumps(document))
    assert obs.read_collector(places) == document
    child.kill()
    child.wait()
    assert obs.read_status(tmp_path) == (document, None)
    assert obs.read_collector(places) is None


@pytest.mark.parametrize("pid", [None, "1", True, 0, 1.0])
def test_a_status_without_the_number_of_a_process_is_of_none(pid: Any) -> None:
    assert obs.is_fresh({"pid": 1}, Path("/")) is True
    assert obs.is_fresh({"pid": pid}, Path("/")) is False
    assert obs.is_fresh(None, Path("/")) is False and obs.is_fresh({}, Path("/")) is False


def test_what_bcc_runs_stands_in_the_place_of_what_the_loader_could_not() -> None:
    merged = obs.merge_collector(a_status("disabled", "EF_NO_BTF"), a_status("attached", "EF_NO_BTF", cpu_ns=10))
    assert merged is not None
    assert merged["features"]["runqlat"]["state"] == "attached"
    assert merged["loader"] == {"cpu_ns": 15, "rss_bytes": 14, "map_memory_bytes": 0}
    assert merged["collector"]["engine"] is None


@pytest.mark.parametrize(
    ("loader", "collector"), [("attached", "attached"), ("killed", "disabled"), ("disabled", "off")]
)
def test_the_loaders_word_stands_where_bcc_was_not_asked(loader: str, collector: str) -> None:
    merged = obs.merge_collector(a_status(loader, "EF_X"), a_status(collector, "EF_Y"))
    assert merged is not None and merged["features"]["runqlat"]["state"] == loader


def test_a_collector_of_another_bundle_or_boot_has_no_say() -> None:
    status = a_status("disabled", "EF_NO_BTF")
    for other in (a_status("attached", "EF_OK", "other"), dict(a_status("attached", "EF_OK"), boot_id="x"), None):
        assert obs.merge_collector(status, other) == status
    assert obs.merge_collector(None, status) is None


@pytest.mark.parametrize(
    "broken", [{"features": None}, {"features": []}, {"bundle": None}, {"bundle": {"digest": None}}]
)
@pytest.mark.parametrize("whose", ["loader", "collector", "both"])
def test_a_collector_is_not_merged_where_it_is_not_known_what_belongs_together(
    broken: dict[str, Any], whose: str
) -> None:
    status, collector = a_status("disabled", "EF_NO_BTF"), a_status("attached", "EF_OK")
    status.update(broken if whose != "collector" else {})
    collector.update(broken if whose != "loader" else {})
    assert obs._belongs(status, collector) is False
    assert obs.merge_collector(status, collector) is status
    assert obs._belongs(a_status("disabled", "EF_NO_BTF"), a_status("attached", "EF_OK")) is True


def test_a_cost_that_was_not_measured_makes_no_sum() -> None:
    merged = obs.merge_collector(a_status("disabled", "EF_NO_BTF"), a_status("attached", "EF_OK", rss_bytes=None))
    assert merged is not None and merged["loader"]["rss_bytes"] is None


# --- a collector counts only while its process is there ---------------------------------------------


def test_a_dead_collectors_status_is_no_collector(tmp_path: Path) -> None:
    """A real process and its real end: what it wrote last is still there, and no longer counts."""
    process = subprocess.Popen(["sleep", "60"])
    places = obs.Places(collector_dir=tmp_path)
    (tmp_path / "status.json").write_text(json.dumps({**status_of(5), "pid": process.pid}))
    try:
        found = obs.read_collector(places)
        assert found is not None and found["pid"] == process.pid
    finally:
        process.kill()
        process.wait()
    assert obs.read_collector(places) is None
    assert obs.read_status(tmp_path)[0] is not None, "the file itself can be read"


@pytest.mark.parametrize("status", [None, {}, {"pid": None}, {"pid": True}, {"pid": -1}, {"pid": "1"}, {"pid": 0}])
def test_a_status_without_a_process_is_not_fresh(status: Any) -> None:
    assert not obs.is_fresh(status, Path("/"))
    assert obs.is_fresh({"pid": os.getpid()}, Path("/"))


class TestWitnessed:
    """What root sees beside what is told."""

    @pytest.mark.parametrize(("told", "pid"), [(None, None), ({}, None), ({"main_pid": 0, "control_group": "/c"}, None),
                                               ({"main_pid": 7, "control_group": "/c"}, 7)])  # fmt: skip
    def test_the_collectors_unit_where_it_runs(self, tmp_path: Path, told: Any, pid: int | None) -> None:
        unit = obs.collector_unit(obs.Places(root=tmp_path), told)
        assert (None if unit is None else unit.main_pid) == pid
        if unit is not None:
            assert (unit.name, unit.cgroup, unit.exe) == (obs.COLLECTOR_UNIT, "/c", tmp_path / obs.COLLECTOR_EXE)

    @pytest.mark.parametrize(
        ("told", "seen", "agrees"),
        [
            (None, {"main_pid": 7, "programs": []}, True),
            ({"pid": 7}, None, True),
            ({"pid": 7}, {"main_pid": 7, "programs": [{"id": 1}]}, True),
            ({"pid": 8}, {"main_pid": 7, "programs": [{"id": 1}]}, False),
            ({"pid": 7}, {"main_pid": 7, "programs": []}, False),
            ({"pid": 7}, {"main_pid": 7, "programs": [{"id": 1}, {"id": 2}]}, False),
            ({"pid": 7}, {"main_pid": 7, "programs": None}, False),
        ],
    )
    def test_told_and_seen_agree_or_there_is_nothing_to_compare(self, told: Any, seen: Any, agrees: bool) -> None:
        meeting = obs.Meeting(obs.Told(told, None, {1}, 0), None, {"loader": seen, "collector": None})
        assert meeting.agrees is agrees

    def test_a_program_is_described_by_what_the_kernel_says_of_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Its bytes are those of struct bpf_prog_info; the real question needs a program in the kernel."""
        info = bytearray(256)
        struct.pack_into("=II8s", info, 0, 17, 42, bytes.fromhex("0102030405060708"))
        info[64:80] = b"ef_exec".ljust(16, b"\0")
        asked: list[int] = []
        monkeypatch.setattr(
            witness.bpfsys, "bpf", lambda _command, data: asked.append(data) or os.open("/", os.O_RDONLY)
        )
        monkeypatch.setattr(witness.bpfsys, "object_info", lambda _fd: bytes(info))
        monkeypatch.setattr(witness.loaded, "run_statistics", lambda _info: (1000, 7))
        found = witness.describe_program(42, {9, 3})
        assert found == {"id": 42, "name": "ef_exec", "tag": "0102030405060708", "links": [3, 9], "run_cnt": 7,
                         "type": "raw_tracepoint", "run_time_ns": 1000}  # fmt: skip
        assert asked == [struct.pack("=I", 42)]

    @pytest.mark.parametrize(("number", "gone"), [(errno.ENOENT, True), (errno.EPERM, False)])
    def test_a_program_that_is_gone_is_none_and_one_that_may_not_be_seen_is_not(
        self, monkeypatch: pytest.MonkeyPatch, number: int, gone: bool
    ) -> None:
        def refuse(_command: int, _data: bytes) -> int:
            raise OSError(number, "no")

        monkeypatch.setattr(witness.bpfsys, "bpf", refuse)
        if gone:
            assert witness.describe_program(42, set()) is None
        else:
            with pytest.raises(witness.UnseenError, match="program 42: EPERM from BPF_PROG_GET_FD_BY_ID"):
                witness.describe_program(42, set())
