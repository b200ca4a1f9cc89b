# SPDX-License-Identifier: GPL-3.0-or-later
"""A rollout in lines for a terminal or a log: what is folded, what is told in full, and how long is still to wait."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.report import stage_lines as lines
from ansible_collections.ebpf.fleet.plugins.module_utils.report.figures import amount
from ansible_collections.ebpf.fleet.plugins.module_utils.report.stage_lines import Line, Wait
from ansible_collections.ebpf.fleet.plugins.module_utils.report.stage_view import Task, View

EVIL = "\x1b[2J\x1b]0;mine\x07 \u202e\r\x9b31m"
PLAN = {
    "hosts": ["a", "b", "c"], "batch_of": {"a": 1, "b": 2, "c": 2},
    "stages": [{"name": "canary", "hosts": ["a"], "batches": [["a"]], "bake": 120},
               {"name": "cell", "hosts": ["b", "c"], "batches": [["b", "c"]], "bake": 60}],
    "batches": [{"number": 1, "stage": "canary", "hosts": ["a"], "last": True},
                {"number": 2, "stage": "cell", "hosts": ["b", "c"], "last": True}],
}  # fmt: skip


def check(name: str, verdict: str, measured: Any, limit: Any, unit: str | None = "millicores") -> dict[str, Any]:
    return {"host": "a", "feature": None, "check": name, "verdict": verdict, "measured": measured, "limit": limit,
            "unit": unit, "sentence": f"a: {name} is {verdict}"}  # fmt: skip


def texts(found: list[Line]) -> list[str]:
    return [one.text for one in found]


def test_numbers_are_in_the_unit_of_a_person() -> None:
    asked = [(12_345, "ppm"), (1, "ppm"), (0, "ppm"), (1023, "bytes"), (1024, "bytes"), (-(3 << 20), "bytes"),
             (999, "ns"), (1000, "ns"), (3_140_000, "ns"), (12, "millicores"), (7, None)]  # fmt: skip
    assert [amount(*one) for one in asked] == [
        "1.23 %", "0.0001 %", "0 %", "1023 bytes", "1 KiB", "-3 MiB", "999 ns", "1 µs", "3.14 ms", "12 millicores", "7",
    ]  # fmt: skip


def test_seconds_are_as_a_person_says_them() -> None:
    asked = [-1, 0, 119.9, 120, 125, 7199, 7200, 12_000]
    found = ["0 s", "0 s", "119 s", "2 min", "2 min 5 s", "119 min 59 s", "2 h", "3 h 20 min"]
    assert [lines.duration(one) for one in asked] == found


def test_the_bar_is_full_only_where_all_are_done() -> None:
    assert lines.bar(0, 0) == lines.bar(0, 9) == "[" + "." * 20 + "]"
    assert lines.bar(999, 1000) == "[" + "#" * 19 + ".]"
    assert lines.bar(5, 5) == "[" + "#" * 20 + "]"


def test_a_wait_tells_how_long_it_still_is() -> None:
    wait = Wait(bake=60, window=30)
    assert lines.wait_text(wait, 0) == "bakes, 60 s left, then 30 s of measuring"
    assert lines.wait_text(wait, 59) == "bakes, 1 s left, then 30 s of measuring"
    assert lines.wait_text(wait, 60) == "measures, 30 s left"
    assert lines.wait_text(wait, 90) == "awaits answers, 0 s beyond the time that was asked for"
    assert lines.wait_text(None, 7) == "since 7 s"
    assert lines.wait_text(Wait(person=100), 40).startswith("waits for a person, 60 s left of this part")


def test_what_a_host_says_paints_nothing() -> None:
    told = lines.failure_lines(EVIL, "failed", {EVIL: {"msg": EVIL, "stderr": EVIL + "\n" + EVIL, EVIL: [EVIL]}})
    bad = {**check("x", "fail", EVIL, EVIL), "sentence": EVIL}
    checks = [{**check(EVIL, "pass", 1, 2), "host": EVIL}]
    told += lines.verdict_lines({"verdict": EVIL, "checks": checks, "reasons": [bad], "next": [EVIL]}, 80)
    told += [Line(one) for one in lines.message_lines([EVIL, {EVIL: EVIL}])]
    assert len(told) > 8
    assert all(one.text.isprintable() for one in told), told
    assert "\\x1b[2J" in told[0].text


def test_a_failure_is_told_in_full_and_equal_ones_once() -> None:
    result = {"msg": "boom\nand more", "rc": 7, "stdout": "", "stderr": "one\ntwo", "failed": True, "x": {"deep": None}}
    found = texts(lines.failure_lines("Deploy", "failed", {"a": result, "b": dict(result), "c": {"msg": "else"}}))
    assert found == ["FAILED: Deploy on a, b", "    boom", "    and more", "    rc: 7", "    stderr: one", "      two",
                     '    x: {"deep": null}', "FAILED: Deploy on c", "    else"]  # fmt: skip
    (one, *_more) = texts(lines.failure_lines("Ask", "unreachable", {"a": {"msg": "no route"}}, ignored=True))
    assert one == "UNREACHABLE (ignored): Ask on a"
    assert texts(lines.failure_lines("Ask", "failed", {"a": {}}))[1] == "    no message came with it"
    every = [f"h{number}" for number in range(100)]
    assert all(host in texts(lines.failure_lines("Ask", "failed", {one: {} for one in every}))[0] for host in every)


def test_a_known_code_comes_with_its_remedy_and_an_unknown_one_with_all_fields() -> None:
    known = texts(lines.failure_lines("Ask", "failed", {"a": {"msg": "EF_NO_ANSWER: a is silent", "rc": 1}}))
    assert known[1] == "    EF_NO_ANSWER: a is silent" and known[2].startswith("    remedy: ") and len(known) == 3
    other = texts(lines.failure_lines("Ask", "failed", {"a": {"msg": "EF_NEWER_LOADER_SAYS: a", "rc": 1}}))
    assert other[1:] == ["    EF_NEWER_LOADER_SAYS: a", "    rc: 1"]


def test_the_end_of_a_rollout_tells_what_hosts_share_once() -> None:
    def stop(own: str) -> dict[str, str]:
        return {"msg": f"EF_ROLLOUT_STOPPED: it stopped. Why: checks. On this host: {own}. It now: runs.\n Next: fix."}

    found = texts(lines.failure_lines("Stop", "failed", {"a": stop("slow"), "b": stop("none"), "c": stop("none")}))
    assert found == ["FAILED: Stop on a, b, c", "    EF_ROLLOUT_STOPPED: it stopped.", "    Why: checks.",
                     "    Next: fix.", "    a", "      On this host: slow.", "      It now: runs.",
                     "    b, c", "      On this host: none.", "      It now: runs."]  # fmt: skip


def test_a_verdict_names_what_stands_in_the_way_and_what_is_nearest_to_its_limit() -> None:
    bad, open_ = check("loader_cpu", "fail", 60, 50), check("host_cpu", "inconclusive", None, 50_000, "ppm")
    checks = [bad, open_, check("total_cpu", "pass", 9, 90), check("bpf_cpu", "pass", 40, 50),
              check("restarts", "pass", 0, 0, "restarts"), check("witness_pid", "pass", 7, 7, "x"),
              check("own", "pass", True, 1)]  # fmt: skip
    found = lines.verdict_lines({"verdict": "fail", "checks": checks, "reasons": [bad, open_], "next": ["wait"]}, 400)
    assert texts(found) == [
        "  checks: fail (5 pass, 1 fail, 1 could not be judged, 0 not exercised)",
        "    x loader_cpu: a: loader_cpu is fail [measured 60 millicores, limit 50 millicores]",
        "    ? host_cpu: a: host_cpu is inconclusive [measured not measured, limit 5 %]",
        "      next: wait",
        "    measured of limit, nearest first: loader_cpu 60 of 50 millicores (a) | bpf_cpu 40 of 50 millicores (a) | "
        "total_cpu 9 of 90 millicores (a) | restarts 0 of 0 restarts (a)",
    ]
    assert [one.tone for one in found[:3]] == [lines.BAD, lines.BAD, lines.NOTE]
    assert texts(lines.verdict_lines({"verdict": "pass", "checks": []}, 80)) == [
        "  checks: pass (0 pass, 0 fail, 0 could not be judged, 0 not exercised)"
    ]


def planned() -> View:
    view = View()
    view.play_begins("Plan", 0)
    for number in range(20):
        view.task_begins(Task(f"Refuse {number}", number / 10))
        view.host_ends("a", "ok", {})
    view.planned(PLAN)
    return view


def test_what_passed_on_the_way_to_the_plan_is_one_line() -> None:
    assert texts(planned().play_begins("Roll out", 4)) == ["  20 checks and steps passed in 4 s", "Roll out"]


def test_a_plan_that_is_refused_shows_what_passed_before_it_and_the_refusal() -> None:
    view = planned()
    view.task_begins(Task("Refuse the last", 3))
    view.host_ends("a", "failed", {"msg": "no"})
    assert texts(view.ends(5)) == ["  20 checks and steps passed in 3 s", "FAILED: Refuse the last on a", "    no",
                                   "Stopped after 5 s: [....................] 0 of 3 hosts done; "
                                   "it began with: Refuse the last on a"]  # fmt: skip


def test_stages_and_batches_as_they_come() -> None:
    view = planned()
    view.play_begins("Roll out", 4)
    view.task_begins(Task("Begin", 4))
    assert texts(view.host_begins("a", 4)) == [
        "Stage canary: 1 host in 1 batch, bake 2 min",
        "  batch 1 of 2  [....................] 0 of 3 hosts done  now 1 host: a",
    ]
    assert view.host_begins("a", 5) == []
    view.task_begins(Task("Deploy", 5))
    view.host_ends("a", "changed", {})
    assert texts(view.task_begins(Task("Bake", 7, wait=Wait(bake=120)))) == ["  Deploy: 1 changed (a) after 2 s"]
    assert view.status(17) == "canary 1/2, 0 of 3 hosts done: Bake: bakes, 110 s left"
    view.host_ends("a", "ok", {})
    assert texts(view.promoted(130)) == ["  promoted: [######..............] 1 of 3 hosts done",
                                         "Stage canary passed in 2 min 6 s"]  # fmt: skip
    assert texts(view.play_begins("Roll out", 131)) == ["  Bake: 1 ok after 2 min 4 s"]
    view.task_begins(Task("Measure", 131))
    view.host_begins("b", 131)
    view.host_ends("b", "ok", {})
    assert view.status(141) == "cell 2/2, 1 of 3 hosts done: Measure: since 10 s, 1 of 2 answered"
    view.report = "/x/rollout.html"
    view.promoted(150)
    assert texts(view.ends(200))[-2:] == ["Ended after 3 min 20 s: [####################] 3 of 3 hosts done",
                                          "Report: /x/rollout.html"]  # fmt: skip


@pytest.mark.parametrize("state", ["failed", "unreachable"])
def test_what_failed_and_is_ignored_is_told_all_the_same(state: str) -> None:
    view = planned()
    view.task_begins(Task("Ask", 1))
    view.host_ends("b", state, {"msg": "gone"}, ignored=True)
    found = texts(view.task_begins(Task("next", 2)))
    assert f"{state.upper()} (ignored): Ask on b" in found and "    gone" in found
    assert view.stopped == []


def test_a_lost_host_that_is_ignored_makes_no_failure_of_another_one_ignored() -> None:
    view = planned()
    view.task_begins(Task("Deploy", 1))
    view.host_ends("b", "failed", {"msg": "boom"})
    view.host_ends("c", "unreachable", {"msg": "gone"}, ignored=True)
    found = texts(view.task_begins(Task("next", 2)))
    assert "FAILED: Deploy on b" in found and "UNREACHABLE (ignored): Deploy on c" in found
    assert view.stopped == ["Deploy on b"]


def test_messages_that_differ_are_told_with_their_hosts() -> None:
    view = planned()
    view.task_begins(Task("Print", 1))
    view.message("a", ["same"])
    view.message("b", ["same"])
    assert texts(view.task_begins(Task("Print", 2))) == ["  same"]
    view.message("a", ["one"])
    view.message("b", ["two"])
    assert texts(view.task_begins(Task("next", 3))) == ["  on a:", "  one", "  on b:", "  two"]


def test_a_bake_that_goes_in_slices_tells_only_what_is_left_of_it() -> None:
    view = planned()
    view.planned({**PLAN, "batches": [{**PLAN["batches"][0], "bake": 60}]})  # type: ignore[dict-item]
    view.play_begins("Roll out", 4)
    view.task_begins(Task("Deploy", 4))
    view.host_begins("a", 4)
    view.released(10)
    assert (view.bake_remains(10), view.bake_remains(69), view.bake_remains(70), view.bake_remains(99)) == (60, 1, 0, 0)
    view.task_begins(Task("Measure", 10, wait=Wait(window=10)))
    view.host_ends("a", "ok", {})
    assert view.status(14).endswith("Measure: measures, 6 s left, 56 s of the bake left")
    # The slice that ends with the bake tells nothing twice, and neither does what has no bake beside it.
    view.task_begins(Task("Measure", 60, wait=Wait(window=10)))
    assert view.status(64).endswith("Measure: measures, 6 s left")
    assert view.judged({"verdict": "pass", "checks": [], "hosts": ["a"]}) == []
    assert view.task_begins(Task("Measure", 20, wait=Wait(window=10))) == []
    view.host_ends("a", "ok", {})
    assert texts(view.task_begins(Task("next", 75))) == ["  Measure: 1 ok after 55 s"]
    assert texts(view.judged({"verdict": "fail", "checks": [check("x", "fail", 1, 0)]}))[0].startswith("  checks: fail")


def test_a_resumed_rollout_counts_what_was_done_before() -> None:
    view = View()
    view.play_begins("Plan", 0)
    view.planned({**PLAN, "hosts": ["b", "c"], "resumed": {"done": ["a"], "remaining": ["b", "c"]}})
    view.play_begins("Roll out", 1)
    view.task_begins(Task("Begin", 1))
    assert texts(view.host_begins("b", 1))[1].split("  ")[2] == "[######..............] 1 of 3 hosts done"


@pytest.mark.parametrize(("many", "more"), [(7, ""), (8, ""), (9, " | 1 more checks are further from it")])
def test_eight_checks_are_told_by_how_near_they_are(many: int, more: str) -> None:
    checks = [check(f"c{at}", "pass", 100 - at, 100) for at in range(many)]
    told = " | ".join(f"c{at} {100 - at} of 100 millicores (a)" for at in range(min(many, 8)))
    assert lines.nearest(checks) == f"measured of limit, nearest first: {told}{more}"


def test_of_equally_near_hosts_the_first_is_named() -> None:
    same = [{**check("c", "pass", 5, 10), "host": host} for host in ("a", "b")]
    assert lines.nearest(same) == "measured of limit, nearest first: c 5 of 10 millicores (a)"
    assert lines.nearest([*same, {**same[1], "measured": 6}]).endswith("c 6 of 10 millicores (b)")
