# SPDX-License-Identifier: GPL-3.0-or-later
"""The pure part of the benchmarks: no figure is invented, and none is lost on its way to the page."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from tests.lab.errors import LabError
from tools.bench import bcc, fleet, page, plan
from tools.bench import run as bench
from tools.bench.against import compared
from tools.bench.cost import Cost
from tools.bench.machine import beyond_rings
from tools.bench.page import curves_table
from tools.bench.plot import decades, even, picture, short
from tools.bench.report import Point, curve, lossless, measured, result, results_table, rows
from tools.bench.runqlat import costs


def point(offered: int, delivered: int, bpf_ns: int | None = 1000) -> Point:
    return Point(offered, delivered, 1.0, 500_000_000, bpf_ns)


def test_a_result_is_the_ratio_of_the_medians() -> None:
    one = result("x", "ns", [1, 2, 9], "peer", [4, 4, 5])
    assert (one["ours"], one["peer_value"], one["ratio"]) == (2, 4, 0.5)
    assert one["ours_spread"] == [1, 9] and one["peer_spread"] == [4, 5]


@pytest.mark.parametrize(("ours", "theirs"), [([], [1.0]), ([1.0], []), ([1.0], [0.0])])
def test_what_was_not_measured_has_no_ratio(ours: list[float], theirs: list[float]) -> None:
    one = result("x", "ns", ours, "peer", theirs)
    assert one["ratio"] is None
    assert (one["ours"] is None) == (not ours) and (one["peer_value"] is None) == (not theirs)
    assert ("not measured" in results_table([one])) is True


def test_the_document_has_these_keys_and_no_others() -> None:
    one = result("x", "ns", [1, 2, 9], "peer", [4, 4, 5])
    assert rows([one]) == [{"name": "x", "unit": "ns", "ours": 2, "peer": "peer", "peer_value": 4, "ratio": 0.5}]
    assert list(rows([one])[0]) == ["name", "unit", "ours", "peer", "peer_value", "ratio"]


def test_measured_keeps_zero_and_leaves_out_null() -> None:
    assert measured([0.0, None, 2.0]) == [0.0, 2.0]


def test_a_point_counts_per_event_of_what_arrived_and_of_what_was_offered() -> None:
    one = point(1000, 500)
    assert one.dropped == 500 and one.rate == 1000 and one.delivered_rate == 500
    assert one.cpu_per_event == 1_000_000 and one.bpf_per_event == 1
    assert point(10, 0).cpu_per_event is None, "nothing arrived: no cost per event, not a free one"
    assert point(10, 10, None).bpf_per_event is None


def test_lossless_is_the_last_rate_before_the_first_loss() -> None:
    points = [point(300, 300), point(100, 100), point(200, 199)]
    assert lossless([points]) == [100], "what is lossless beyond a loss was luck"
    assert lossless([[point(5, 4)]]) == [0], "not even the first step"


def test_more_than_was_offered_is_not_lossless() -> None:
    assert lossless([[point(100, 100), point(200, 201)]]) == [100], "whose events are these?"


def test_the_lossless_rate_is_the_one_that_was_reached() -> None:
    assert lossless([[Point(1000, 1000, 2.0, 1, 1)]]) == [500]


def test_a_curve_is_the_median_of_each_step() -> None:
    rounds = [[point(100, 100), point(200, 150)], [point(100, 90), point(200, 100)], [point(100, 100), point(200, 200)]]
    steps = curve(rounds)
    assert [each["delivered_per_s"] for each in steps] == [100, 150]
    assert [each["dropped_ppm"] for each in steps] == [0, 250_000]
    assert [each["lossy_rounds"] for each in steps] == [1, 2], "a median of 0 is no proof"
    assert steps[0]["consumer_millicores"] == 500
    assert curve([]) == []


def test_a_curve_of_rounds_that_were_not_counted_is_null() -> None:
    assert curve([[point(10, 0, None)]])[0]["bpf_ns_per_event"] is None
    assert curve([[point(10, 0, None)]])[0]["consumer_ns_per_event"] is None


CURVES = {
    "ours <jsonl>": curve([[point(1000, 1000), point(450_321, 449_000), point(9_000_000, 0)]]),
    "peer": curve([[point(900, 900)]]),
}


def tagged(root: ElementTree.Element, tag: str) -> list[ElementTree.Element]:
    return [each for each in root.iter() if each.tag.rsplit("}")[-1] == tag]


def test_the_picture_is_svg_with_every_dot_within_its_frame() -> None:
    root = ElementTree.fromstring(picture("t", CURVES))
    assert {"ours <jsonl>", "peer", "all that is offered"} <= {each.text for each in tagged(root, "text")}
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    for dot in tagged(root, "circle"):
        assert 0 < float(dot.attrib["cx"]) < width and 0 < float(dot.attrib["cy"]) < height
    assert len(tagged(root, "polyline")) == 3 * len(CURVES), "delivered, dropped, CPU"


def test_each_curve_has_a_colour_of_its_own() -> None:
    many = {str(number): curve([[point(100, 100)]]) for number in range(8)}
    assert len({each.attrib["stroke"] for each in tagged(ElementTree.fromstring(picture("t", many)), "polyline")}) == 8


def test_a_step_that_lost_events_is_a_hollow_dot() -> None:
    root = ElementTree.fromstring(picture("t", {"a": curve([[point(100, 100), point(1000, 999)]])}))
    filled = [each.attrib["fill"] != "#fff" for each in tagged(root, "circle")]
    assert filled == [True, False] * 3 + [True, False], "three plots, then the legend's and the key's"


def test_more_that_is_delivered_is_drawn_higher_and_more_that_is_offered_further_right() -> None:
    root = ElementTree.fromstring(picture("t", {"a": curve([[point(n, n) for n in (10, 3000, 200)]])}))
    dots = tagged(root, "circle")[:3]
    assert [float(each.attrib["cx"]) for each in dots] == sorted(float(each.attrib["cx"]) for each in dots)
    heights = [float(each.attrib["cy"]) for each in dots]
    assert heights == sorted(heights, reverse=True) and len(set(heights)) == 3


def test_an_empty_picture_is_still_svg() -> None:
    assert ElementTree.fromstring(picture("t", {})).tag.endswith("svg")


def test_ticks_enclose_the_values() -> None:
    assert decades([9989, 5_900_000]) == [1e3, 1e4, 1e5, 1e6, 1e7]
    assert decades([]) == [1, 10] and decades([100]) == [100, 1000]
    assert even(100) == [0, 20, 40, 60, 80, 100] and even(0) == [0, 1]
    assert even(98.58)[-1] >= 98.58 and even(3.1) == [0, 1, 2, 3, 4]


def test_ticks_are_short() -> None:
    assert [short(each) for each in (0, 20, 1e3, 1e5, 1e7)] == ["0", "20", "1 k", "100 k", "10 M"]


def test_the_page_has_the_machine_the_notes_and_the_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page, "versions", lambda: "peer 1")
    one = result("x", "ns", [1, 2, 9], "peer", [4, 4, 5])
    page.write(tmp_path, "2 cores", [one], CURVES, ["a note"])
    text = (tmp_path / "README.md").read_text()
    assert "on: 2 cores. Peers: peer 1." in text and "\n- a note\n" in text and "](saturation.svg)" in text
    assert "| x | ns | 2 (1 to 9) | peer | 4 (4 to 5) | 0.5 |" in text
    assert json.loads((tmp_path / "results.json").read_text()) == rows([one])
    assert ElementTree.fromstring((tmp_path / "saturation.svg").read_text()).tag.endswith("svg")


def test_a_tracer_whose_runs_were_not_counted_has_no_cost_per_run() -> None:
    ours, peer = Cost(100.0, 210.0, 0.5, 10 << 20, 5e6), Cost(None, None, 40.0, 200 << 20, 8e6)
    found = {each["name"]: each for each in costs("runqlat in a VM", [ours], "BCC runqlat", [peer])}
    per_run = found["runqlat in a VM: BPF run time per program run"]
    assert (per_run["ours"], per_run["peer_value"], per_run["ratio"]) == (100, None, None)
    assert found["runqlat in a VM: peak resident memory"]["ratio"] == 0.05
    assert found["runqlat in a VM: CPU of the process"]["ours"] == 5


def test_the_guests_rounds_come_back_as_they_were() -> None:
    one = Cost(1.5, None, 0.5, 7, 8.0)
    assert bcc.read(json.loads(json.dumps([one._asdict()]))) == [one]


def test_what_the_guest_runs_is_carried_there() -> None:
    """Each module of ours that a carried one imports is carried too, and none needs what a guest lacks."""
    for name in bcc.MODULES:
        for line in (bench.ROOT / f"{name}.py").read_text().splitlines():
            if line.startswith(("from tools.", "from tests.", "import yaml")):
                assert line.split()[1].replace(".", "/") in bcc.MODULES, f"{name}: {line}"


@pytest.mark.parametrize("error", [bcc.NoVMError("k61bcc does not come up"), LabError("no QEMU:\nat all")])
def test_without_a_vm_there_are_no_rows_and_it_is_said(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_vm() -> None:
        raise error

    monkeypatch.setattr(bcc, "vm", no_vm)
    monkeypatch.setattr(bcc, "NOTES", [])
    assert list(bcc.bcc()) == []
    first = str(error).partition("\n")[0].rstrip(":.")
    assert [f"Not measured: BCC's runqlat, as there was no VM for it: {first}."] == bcc.NOTES
    assert "LEFT OUT" in capsys.readouterr().err


def test_a_vm_that_ran_is_left_running(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(bcc.guest, "state", lambda _name: "running")
    monkeypatch.setattr(bcc.guest, "record", lambda _name: "a record")
    monkeypatch.setattr(bcc, "lab", lambda *words, **_options: said.extend(words))
    with bcc.vm() as found:
        assert found == "a record"
    assert said == []


def test_a_vm_that_a_test_has_paused_is_not_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bcc.guest, "state", lambda _name: "paused")
    monkeypatch.setattr(bcc.guest, "record", lambda _name: "a record")
    monkeypatch.setattr(bcc, "lab", lambda *_words, **_options: pytest.fail("the lab was told something"))
    with pytest.raises(bcc.NoVMError, match="is paused"), bcc.vm():
        pass


def test_an_unknown_benchmark_is_refused() -> None:
    assert bench.chosen([]) == list(bench.BENCHES) and "bcc" in bench.BENCHES
    with pytest.raises(SystemExit, match="no benchmark nosuch"):
        bench.chosen(["idle", "nosuch"])


def test_the_curves_table_has_a_row_for_each_step() -> None:
    steps = curve([[point(100, 100), point(200, 150)]])
    rows = curves_table({"ours": steps, "peer": steps}).splitlines()
    assert len(rows) == 2 + 4 and rows[3].startswith("| ours | 200 | 150 | 250,000 | 1 |")


def test_buffers_of_bpf_are_not_the_process_own_memory() -> None:
    text = (
        "00400000-00500000 r-xp 00000000 08:01 1 /usr/sbin/loader\nRss: 100 kB\nPss: 100 kB\n"
        "7f00-7f10 rw-s 00000000 00:0f 2 anon_inode:bpf-map\nRss: 256 kB\n"
        "7f20-7f30 rw-s 00000000 00:0f 3 anon_inode:[perf_event]\nRss: 64 kB\n"
        "7f40-7f50 rw-p 00000000 00:00 0\nRss: 8 kB\n"
    )
    assert beyond_rings(text) == 108 * 1024


def row(name: str, ours: float | None, ratio: float | None) -> dict[str, object]:
    return {"name": name, "unit": "ms", "ours": ours, "peer": "p", "peer_value": None, "ratio": ratio}


def test_an_old_commit_and_a_new_one_are_compared_row_by_row() -> None:
    old = [row("start", 10, 1.0), row("start", 20, 2.0), row("gone", 1, 1.0), row("nothing", None, None)]
    new = [row("start", 30, 1.2), row("nothing", 5, None), row("fresh", 7, 0.5)]
    assert compared(old, new) == [
        {"name": "start", "unit": "ms", "old": 15.0, "new": 30, "ratio": 2.0, "against_peer": 0.8},
        {"name": "nothing", "unit": "ms", "old": None, "new": 5, "ratio": None, "against_peer": None},
        {"name": "fresh", "unit": "ms", "old": None, "new": 7, "ratio": None, "against_peer": None},
        {"name": "gone", "unit": "ms", "old": 1, "new": None, "ratio": None, "against_peer": None},
    ]


def test_the_plan_of_a_fleet_is_measured_in_a_process_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "HOSTS", 200)
    monkeypatch.setattr(plan, "ROUNDS", 1)
    seconds, memory = plan.plan()
    assert (seconds["unit"], seconds["peer_value"], memory["unit"], memory["peer_value"]) == ("s", 5, "MB", 500)
    assert seconds["ours"] > 0 and 5 < memory["ours"] < 500


PRINTED = """
PLAY [Plan] ****

TASK [Ask] ****
ok: [w1]
ok: [w2]

TASK [Say] ****
ok: [w1] => {"msg": "ok: [w2]"}

PLAY [Roll out] ****

TASK [Begin] ****
ok: [w1]

PLAY [Roll out] ****

TASK [Begin] ****
ok: [w2 -> localhost]

TASK [Deploy] ****
changed: [w2]
skipping: [w3]

TASK [Record] ****
included: record.yml for w2, w3

TASK [Write] ****
ok: [w2] => (item=w2)
ok: [w2] => (item=w3)
"""


def test_tasks_are_counted_in_what_a_rollout_printed() -> None:
    assert fleet.tasks_of(PRINTED, "Plan") == (1, 1)
    assert fleet.tasks_of(PRINTED, "Roll out") == (2, 2)
    with pytest.raises(ValueError, match="no play Other"):
        fleet.tasks_of(PRINTED, "Other")
    made = fleet.no_ops(fleet.Tasks(3, 2), 1)
    assert [("ansible.builtin.ping" in one, one.get("run_once", False)) for one in made] == [
        (True, False), (False, False), (False, False), (False, True), (False, True)
    ]  # fmt: skip


def test_the_coordinators_work_is_not_shared_out_among_cells() -> None:
    row = fleet.extrapolated(alone=2.0, coordinator=0.5, cell=1.0)
    hours = fleet.LARGE / fleet.CORES / 3600
    assert row["ours"] == pytest.approx(hours * (0.5 + 1.0 / fleet.CELLS), abs=0.01)
    assert row["peer_value"] == pytest.approx(hours * 2.0, abs=0.01)
