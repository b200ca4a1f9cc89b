# SPDX-License-Identifier: GPL-3.0-or-later
"""The pure part of the benchmarks: no figure is invented, and none is lost on its way to the page."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import pytest

from tools.bench_machine import beyond_rings
from tools.bench_page import curves_table, picture
from tools.bench_report import Point, curve, lossless, measured, result, results_table, svg


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


def test_a_curve_is_the_median_of_each_step() -> None:
    rounds = [[point(100, 100), point(200, 150)], [point(100, 90), point(200, 100)], [point(100, 100), point(200, 200)]]
    steps = curve(rounds)
    assert [each["delivered_per_s"] for each in steps] == [100, 150]
    assert [each["dropped_ppm"] for each in steps] == [0, 250_000]
    assert steps[0]["consumer_millicores"] == 500
    assert curve([]) == []


def test_a_curve_of_rounds_that_were_not_counted_is_null() -> None:
    assert curve([[point(10, 0, None)]])[0]["bpf_ns_per_event"] is None
    assert curve([[point(10, 0, None)]])[0]["consumer_ns_per_event"] is None


def test_the_picture_is_svg_with_every_line_within_its_frame() -> None:
    text = picture({"ours <jsonl>": curve([[point(1000, 1000), point(450_321, 449_000)]])})
    root = ElementTree.fromstring(text)
    shapes = {each.tag.rsplit("}")[-1] for each in root.iter()}
    assert {"svg", "polyline", "circle", "text"} <= shapes
    assert "ours <jsonl>" in {each.text for each in root.iter()}
    for dot in (each for each in root.iter() if each.tag.endswith("circle")):
        assert 0 < float(dot.attrib["cx"]) < 720 and 0 < float(dot.attrib["cy"]) < 400


def test_higher_values_are_drawn_higher() -> None:
    root = ElementTree.fromstring(svg("t", ("x", "y"), {"a": [(1, 1), (2, 2), (3, 10)]}))
    heights = [float(each.attrib["cy"]) for each in root.iter() if each.tag.endswith("circle")]
    assert heights == sorted(heights, reverse=True) and len(set(heights)) == 3


def test_an_empty_picture_is_still_svg() -> None:
    assert ElementTree.fromstring(svg("t", ("x", "y"), {})).tag.endswith("svg")


def test_the_curves_table_has_a_row_for_each_step() -> None:
    steps = curve([[point(100, 100), point(200, 150)]])
    rows = curves_table({"ours": steps, "peer": steps}).splitlines()
    assert len(rows) == 2 + 4 and rows[3].startswith("| ours | 200 | 150 | 250,000 |")


def test_buffers_of_bpf_are_not_the_process_own_memory() -> None:
    text = (
        "00400000-00500000 r-xp 00000000 08:01 1 /usr/sbin/loader\nRss: 100 kB\nPss: 100 kB\n"
        "7f00-7f10 rw-s 00000000 00:0f 2 anon_inode:bpf-map\nRss: 256 kB\n"
        "7f20-7f30 rw-s 00000000 00:0f 3 anon_inode:[perf_event]\nRss: 64 kB\n"
        "7f40-7f50 rw-p 00000000 00:00 0\nRss: 8 kB\n"
    )
    assert beyond_rings(text) == 108 * 1024
