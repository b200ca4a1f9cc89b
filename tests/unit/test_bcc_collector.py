# SPDX-License-Identifier: GPL-3.0-or-later
"""The BCC collector's decisions: hooks, orders, wishes, the loader's word, layouts and metrics."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ebpf.fleet.collectors.fleet_bcc import (
    basics,
    bundle,
    compiler,
    desired,
    events,
    kernel,
    loader_status,
    metrics,
    orders,
    records,
)

ROOT = Path(__file__).resolve().parents[2]
DIGEST = "a" * 64


def test_programs_belong_to_the_attach_points_in_their_order() -> None:
    requires = ["prog_type:raw_tracepoint", "attach:raw_tp:sched_switch", "attach:kprobe:do_exit"]
    hooks = bundle.read_hooks("runqlat", {"programs": ["ef_a", "ef_b"], "requires": requires})
    assert hooks == {"ef_a": ("raw_tp", "sched_switch"), "ef_b": ("kprobe", "do_exit")}


@pytest.mark.parametrize(
    "doc",
    [
        {},
        {"programs": [], "requires": []},
        {"programs": ["ef_a"], "requires": []},
        {"programs": ["other"], "requires": ["attach:raw_tp:sched_switch"]},
        {"programs": ["ef_a"], "requires": ["attach:tracepoint:sched/sched_switch"]},
        {"programs": ["ef_a"], "requires": ["attach:raw_tp:a", "attach:raw_tp:b"]},
    ],
)
def test_a_bcc_key_that_does_not_say_where_is_refused(doc: dict[str, Any]) -> None:
    with pytest.raises(basics.RefusedError) as refused:
        bundle.read_hooks("runqlat", doc)
    assert refused.value.code == "EF_CONTRACT_MALFORMED"


@pytest.mark.parametrize(
    ("name", "held"),
    [
        ("global", True),
        ("feature.runqlat", True),
        ("feature.typo", None),
        ("feature.", None),
        ("family.6.1", True),
        ("family.debian-6.1", True),
        ("family.5.10", False),
        ("family.six", None),
        ("globl", None),
    ],
)
def test_orders_are_judged_as_the_loader_judges_them(name: str, held: bool | None) -> None:
    assert orders.judge_order(name, ["6.1", "debian-6.1"], ["runqlat"]) is held


def test_a_folder_of_orders_that_cannot_be_read_is_an_order_global(tmp_path: Path) -> None:
    file = tmp_path / "kill.d"
    file.write_text("")  # no folder: ENOTDIR, for root too
    assert orders.read_orders([file], ["6.1"], []).everything().code == "EF_KILLED_GLOBAL"
    assert orders.read_orders([tmp_path / "absent"], ["6.1"], []) == ([], [])


def test_a_feature_order_holds_for_its_feature_only(tmp_path: Path) -> None:
    (tmp_path / "feature.runqlat").touch()
    (tmp_path / ".feature.exec_events").touch()
    found = orders.read_orders([tmp_path], ["6.1"], ["runqlat", "exec_events"])
    assert found.of_feature("runqlat").code == "EF_KILLED_FEATURE"
    assert found.of_feature("exec_events") is None


def wish(**changes: Any) -> dict[str, Any]:
    doc = {"schema": "ebpf.fleet/desired/v1", "bundle_digest": DIGEST, "features": {"runqlat": {"enabled": True}}}
    return {**doc, **changes}


def test_bcc_is_wanted_only_where_it_was_opted_into() -> None:
    assert not desired.check_desired(wish(), DIGEST).bcc
    assert not desired.check_desired(wish(fallbacks=[]), DIGEST).bcc
    assert desired.check_desired(wish(fallbacks=["bcc"]), DIGEST).bcc


@pytest.mark.parametrize(
    ("doc", "field"),
    [
        (wish(fallbacks=["ebpf"]), "fallbacks"),
        (wish(fallbacks="bcc"), "fallbacks"),
        (wish(bundle_digest="b" * 64), "bundle_digest"),
        (wish(extra=1), "extra"),
        (wish(features={"runqlat": {"enabled": 1}}), "runqlat"),
        (wish(features={"runqlat": {"enabled": True, "sample_every": 0}}), "runqlat"),
        ([], "schema"),
    ],
)
def test_a_wish_that_is_none_names_its_field(doc: Any, field: str) -> None:
    with pytest.raises(ValueError, match=field):
        desired.check_desired(doc, DIGEST)


def test_the_absence_of_a_wish_is_told_from_a_broken_one(tmp_path: Path) -> None:
    path = tmp_path / "desired.json"
    assert desired.read_desired(path, DIGEST).error.code == "EF_NO_DESIRED"
    path.write_text("{")
    assert desired.read_desired(path, DIGEST).error.code == "EF_DESIRED_MALFORMED"


def status_of_loader(state: str, code: str, **changes: Any) -> dict[str, Any]:
    status = {
        "boot_id": kernel.boot_id(),
        "pid": os.getpid(),
        "started_boottime_ns": kernel.process_start_ns(os.getpid()),
        "bundle": {"digest": DIGEST},
        "stats_enabled": True,
        "features": {"runqlat": {"state": state, "reason_code": code, "reason": "because", "variant": "full"}},
    }
    return {**status, **changes}


def heard(path: Path, status: Any) -> Any:
    path.write_text(json.dumps(status))
    word = loader_status.LoaderStatus(path, DIGEST)
    word.listen()
    return word


@pytest.mark.parametrize(
    ("state", "code", "runs"),
    [
        ("disabled", "EF_NO_BTF", True),
        ("disabled", "EF_LOAD_REJECTED", True),
        ("disabled", "EF_EXPIRED", False),
        ("killed", "EF_KILLED_GLOBAL", False),
        ("attached", "EF_OK", False),
        ("off", "EF_UNKNOWN", False),
    ],
)
def test_bcc_runs_what_the_loader_tried_in_vain_and_nothing_else(
    tmp_path: Path, state: str, code: str, runs: bool
) -> None:
    why, _instead = heard(tmp_path / "status.json", status_of_loader(state, code)).could_not("runqlat")
    assert (why is not None) is runs
    assert why is None or why == (code, "because")


@pytest.mark.parametrize(
    "changes", [{"boot_id": "other"}, {"pid": 2**22 + 1}, {"bundle": {"digest": "b" * 64}}, {"features": None}]
)
def test_a_loader_of_another_boot_life_or_bundle_has_no_say(tmp_path: Path, changes: dict[str, Any]) -> None:
    word = heard(tmp_path / "status.json", status_of_loader("disabled", "EF_NO_BTF", **changes))
    why, instead = word.could_not("runqlat")
    assert why is None
    assert instead.code == "EF_UNKNOWN"


def test_the_loaders_word_stands_while_it_restarts_and_not_longer(tmp_path: Path) -> None:
    word = heard(tmp_path / "status.json", status_of_loader("disabled", "EF_NO_BTF"))
    (tmp_path / "status.json").unlink()
    word.listen()
    assert word.could_not("runqlat")[0] is not None
    word.heard = time.monotonic() - loader_status.LOADER_GRACE_SECONDS - 1
    word.listen()
    assert word.could_not("runqlat")[0] is None


def test_a_record_is_laid_out_as_the_compiler_lays_it_out() -> None:
    fields = records.lay_out(["ktime_ns#u64", "kind#u8", "pid#u32", "delta#s64", "comm#char [16]", "raw#u8[4]"])
    assert [(field.name, field.offset, field.kind) for field in fields] == [
        ("ktime_ns", 0, "uint"),
        ("kind", 8, "uint"),
        ("pid", 12, "uint"),
        ("delta", 16, "int"),
        ("comm", 24, "chars"),
        ("raw", 40, "bytes"),
    ]
    record = (1).to_bytes(8, "little") + b"\x02\0\0\0" + (3).to_bytes(4, "little") + b"\xff" * 8
    record += b"caf\xe9\0junk".ljust(16, b"\0") + b"\1\2\3\4"
    assert [field.read(record) for field in fields] == [1, 2, 3, -1, "caf\ufffd", "01020304"]


def test_a_type_that_is_not_known_is_said() -> None:
    with pytest.raises(basics.CannotRunError, match="struct thing"):
        records.lay_out(["a#struct thing"])


def sink_in(folder: Path) -> tuple[Any, Any]:
    return events.Sink(folder), events.Tally()


def test_events_are_written_whole_rotated_once_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "EVENTS_LIMIT_BYTES", 1000)
    sink, tally = sink_in(tmp_path)
    sink.path.write_bytes(b'{"torn')
    for _ in range(30):
        sink.add(b"x" * 99 + b"\n", tally)
        sink.flush()
    assert (tally.written, tally.dropped) == (30, 0)
    sizes = sorted(path.stat().st_size for path in tmp_path.iterdir())
    assert len(sizes) == 2 and sizes[-1] <= 1000
    assert {len(line) for path in tmp_path.iterdir() for line in path.read_bytes().splitlines()} <= {99, 6}


def test_the_weights_of_what_is_written_are_added_up(tmp_path: Path) -> None:
    sink, tally = sink_in(tmp_path)
    sink.add(b"x\n", tally, 3)
    sink.add(b"y\n", tally, 4)
    sink.flush()
    assert (tally.written, tally.weighted) == (2, 7)
    lost_sink, lost = sink_in(tmp_path / "absent")
    lost_sink.add(b"x\n", lost, 3)
    lost_sink.flush()
    assert (lost.dropped, lost.weighted) == (1, 0)


def test_events_that_cannot_be_written_are_dropped_and_counted(tmp_path: Path) -> None:
    sink, tally = sink_in(tmp_path / "absent")
    sink.add(b"x\n", tally)
    sink.flush()
    assert (tally.written, tally.dropped, sink.failing) == (0, 1, True)


def test_metrics_have_the_loaders_names_and_a_label_of_their_own() -> None:
    out = metrics.Metrics()
    hist = [0] * 65
    hist[10], hist[63], hist[64] = 3, 1, 1_500_000_000
    out.histogram({"name": "run_queue_latency_seconds", "scale": "nanoseconds", "help": "Waits."}, hist)
    lines = out.text().splitlines()
    assert lines[1] == "# TYPE ebpf_fleet_run_queue_latency_seconds histogram"
    bucket = 'ebpf_fleet_run_queue_latency_seconds_bucket{engine="bcc",le="%s"} %d'
    assert bucket % ("0.000002047", 3) in lines
    assert bucket % ("0.000001023", 0) in lines
    assert bucket % ("+Inf", 4) in lines
    assert 'ebpf_fleet_run_queue_latency_seconds_sum{engine="bcc"} 1.5' in lines
    # The loader's own text names the same metrics.
    loader = (ROOT / "bpf/loader/tell/metrics.c").read_text()
    source = (ROOT / "collectors/fleet_bcc/metrics.py").read_text()
    for name in ("build_info", "feature_profile", "events_produced_total", "map_memory_bytes", "kill_engaged"):
        assert f'"{name}"' in loader and f'"{name}"' in source


def test_missing_headers_name_their_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler.os.path, "isdir", lambda _path: False)
    monkeypatch.setattr(compiler.os.path, "exists", lambda _path: False)
    with pytest.raises(basics.CannotRunError, match=f"linux-headers-{os.uname().release}") as error:
        compiler.need_headers()
    assert error.value.code == "EF_NO_HEADERS"
