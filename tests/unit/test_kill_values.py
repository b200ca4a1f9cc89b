# SPDX-License-Identifier: GPL-3.0-or-later
"""Answers to an order by their values: both ends of each number, each field alone, and the lines of a verdict."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.kill import answer as kill_answer
from ansible_collections.ebpf.fleet.plugins.module_utils.kill import verdict
from ansible_collections.ebpf.fleet.plugins.module_utils.kill.answer import parse_answer, summary
from ansible_collections.ebpf.fleet.plugins.module_utils.kill.script import MARK
from ansible_collections.ebpf.fleet.plugins.module_utils.kill.verdict import Order

ID, DAY_MS = 2**32 - 1, 86_400_000
PIN = {"id": 1, "tag": "ab12", "name": "n", "path": "/sys/fs/bpf/x"}
ENGAGED = Order(["feature=probe"])


def parsed(rc: int = 0, **fields: Any) -> dict[str, Any]:
    return parse_answer({"stdout": MARK + json.dumps({"ok": True, **fields}), "stderr": "", "rc": rc})


@pytest.mark.parametrize(
    ("field", "good", "bad"),
    [
        ("changed", [True, False, None], [0, "yes"]),
        ("host_ms", [0, DAY_MS, None], [-1, DAY_MS + 1, 1.5]),
        ("left", [0, 1_000_000, None], [-1, 1_000_001]),
        ("persisted", [True, False, None], [1]),
        ("escalated", [True, False, None], [1]),
        ("placed", [True, False, None], [1]),
        ("concerned", [True, False, None], [1]),
        ("witness", ["", "kallsyms", "python3", "bpftool", "descriptors", None], ["other", "Kallsyms"]),
        ("holders", [[], [{"pid": 0, "uid": ID}], [{"pid": ID, "uid": 0}] * 100, None],
         [[{"pid": 1}], [{"uid": 1}], [{"pid": -1, "uid": 0}], [{"pid": ID + 1, "uid": 0}],
          [{"pid": 1, "uid": ID + 1}], [{"pid": 1, "uid": 1}] * 101]),
        ("pins", [[], [PIN], [PIN] * 10, None],
         [[PIN] * 11, [{**PIN, "id": ID + 1}], [{**PIN, "tag": "xyz"}], [{**PIN, "tag": "a" * 17}],
          [{**PIN, "name": "n" * 129}], [{**PIN, "path": "p" * 301}], [{"id": 1}]]),
        ("family", ["6.1", "debian-6.1", "", "f" * 64, None], ["6 1", "f" * 65, "6/1"]),
        ("features", [[], ["a_1"], ["f" * 32], ["f"] * 40, None], [["A"], ["f" * 33], ["f"] * 41, ["1f"]]),
        ("orders", [[], ["feature.a"], ["o" * 64], ["o"] * 20, None], [["a b"], ["o" * 65], ["o"] * 21, [""]]),
        ("digest", ["", "ab" * 32, None], ["ab" * 31, "AB" * 32, "g" * 64]),
    ],
)  # fmt: skip
def test_each_field_has_its_values_and_no_others(field: str, good: list[Any], bad: list[Any]) -> None:
    for value in good:
        found = parsed(**{field: value})
        assert (found["ok"], found[field]) == (True, value), (field, value)
    for value in bad:
        found = parsed(**{field: value})
        assert (found["ok"], found[field]) == (False, None), (field, value)


def test_a_field_that_was_not_said_is_null_and_the_detail_is_never_empty() -> None:
    assert parsed() == {**kill_answer._NOTHING, "ok": True, "detail": "the host confirmed"}
    assert parsed(ok=False)["detail"] == "the host did not confirm"
    assert parsed(detail="")["detail"] == "the host confirmed"
    assert parsed(detail="off")["detail"] == "off"
    assert len(parsed(detail="x" * 301)["detail"]) <= kill_answer.DETAIL_LIMIT == 300


@pytest.mark.parametrize("ok", [True, False])
def test_a_line_may_have_4096_characters_and_no_more(ok: bool) -> None:
    empty = len(json.dumps({"ok": ok, "detail": ""}))
    assert parsed(ok=ok, detail="x" * (4096 - empty))["detail"].startswith("xxx")
    longer = parsed(ok=ok, detail="x" * (4097 - empty))
    assert longer["ok"] is False and "has 4097 characters; at most 4096 are read" in longer["detail"]


@pytest.mark.parametrize(
    ("result", "detail"),
    [
        ({"unreachable": True, "msg": " no route "}, "unreachable: no route"),
        ({"unreachable": True, "msg": ""}, "unreachable: no answer"),
        ({"unreachable": True}, "unreachable: no answer"),
        ({"skipped": True}, "was not asked, as check mode asks nothing; run it without --check"),
        ({"stdout": "", "stderr": "a\nb\r\nc\nd\n", "rc": 1}, "no usable answer: it said: b / c / d (exit status 1)"),
        ({"stdout": "out", "stderr": "", "rc": 2}, "no usable answer: it said: out (exit status 2)"),
        ({"stdout": "", "msg": "non-zero return code", "stderr": "why", "rc": 1},
         "no usable answer: it said: why (exit status 1)"),
        ({"stdout": "", "msg": "timed out", "stderr": "why", "rc": 1}, "no usable answer: timed out"),
    ],
)  # fmt: skip
def test_what_came_instead_of_an_answer_is_told(result: dict[str, Any], detail: str) -> None:
    found = parse_answer(result)
    assert (found["ok"], found["detail"]) == (False, detail)


def host(**more: Any) -> dict[str, Any]:
    answer = {"ok": True, "host_ms": 40, "placed": True, "concerned": True, "persisted": True, "detail": "off",
              **more}  # fmt: skip
    return {"stdout": MARK + json.dumps(answer), "stderr": "", "rc": 0 if answer["ok"] else 1}


def test_a_host_is_in_one_group_and_null_is_in_none() -> None:
    hosts = {
        "off": parsed(placed=True, concerned=True),
        "other": parsed(placed=True, concerned=False),
        "silent": parsed(),
        "on": parsed(ok=False, placed=True, concerned=True),
    }
    found = verdict.told(hosts)
    assert found == verdict.Told(
        placed=["off", "on", "other"], concerned=["off", "on"], off=["off"], unconcerned=["other"], unknown=["silent"],
        missing=["on"],
    )  # fmt: skip
    assert verdict.failed(found, ENGAGED, hosts) == ["on"]


def test_the_slowest_is_of_those_that_confirmed_and_null_where_none_told() -> None:
    assert summary({"a": host(host_ms=5), "b": host(host_ms=9), "c": host(ok=False, host_ms=99)})["slowest_ms"] == 9
    assert summary({"a": host(host_ms=None)})["slowest_ms"] is None
    assert summary({"a": host(ok=False)})["slowest_ms"] is None
    assert summary({"a": host(host_ms=0)})["slowest_ms"] == 0


@pytest.mark.parametrize(
    ("order", "answers", "lines"),
    [
        (ENGAGED, {}, ["NO HOST was addressed: check the inventory and the pattern."]),
        (ENGAGED, {"a": host(), "b": host(host_ms=70)},
         ["scope=feature=probe, engaged: 2 hosts addressed, placed on 2, concerned 2, proved off 2.",
          "off: 2; the slowest took 70 ms on its host",
          "Next: it stays off, also after a reboot, until the order is taken back with -e state=released -e",
          '''  confirm=release -e 'reason="WHY"'.''']),
        (ENGAGED._replace(state="released"), {"a": host(), "b": host(concerned=False, detail="none")},
         ["scope=feature=probe, released: 2 hosts addressed, 1 of them had the order.",
          "order taken back: 1", "had no such order: 1", "  'b': none", "Next: nothing is left to do here."]),
        (ENGAGED, {"a": host(), "b": host(concerned=None)},
         ["scope=feature=probe, engaged: 2 hosts addressed, placed on 2, concerned 1, proved off 1.",
          "off: 1; the slowest took 40 ms on its host",
          "nothing of it is left, but not known whether it was there: 1",
          "Next: it stays off, also after a reboot, until the order is taken back with -e state=released -e",
          '''  confirm=release -e 'reason="WHY"'.''']),
        (ENGAGED, {"a": host(persisted=False), "b": host(), "c": host(persisted=None)},
         ["scope=feature=probe, engaged: 3 hosts addressed, placed on 3, concerned 3, proved off 3.",
          "off: 3; the slowest took 40 ms on its host", "off until a reboot only, as the order is not on disk: 2",
          "  'a', 'c'",
          "Next: it stays off until the order is taken back with -e state=released -e confirm=release -e",
          '''  'reason="WHY"'. Where it is not on disk a reboot ends it: make room there and run this again.''']),
        (Order(), {"a": host()}, ["the way back: 1 host addressed.", "back or nothing to do: 1",
                                  "Next: nothing is left to do here."]),
        (ENGAGED, {"a": host(ok=False, detail="still there")},
         ["scope=feature=probe, engaged: 1 host addressed, placed on 1, concerned 1, proved off 0.",
          "NOT CONFIRMED: 1", "  'a': still there",
          "Next: what did not confirm counts as ON. Run the same command again until it exits with 0, or reach",
          "  these hosts another way. ebpf_fleet_report=PATH keeps every answer."]),
    ],
)  # fmt: skip
def test_the_verdict_line_by_line(order: Order, answers: dict[str, Any], lines: list[str]) -> None:
    assert summary(answers, order=order)["verdict"] == lines


@pytest.mark.parametrize(
    ("order", "answers", "sentence"),
    [
        (Order(), {}, "No host was addressed: check the inventory and the pattern."),
        (Order(), {"a": host(host_ms=None)}, "All 1 hosts confirmed."),
        (Order(), {"a": host()}, "All 1 hosts confirmed; the slowest took 40 ms on the host."),
        (ENGAGED, {"a": host(), "b": host()},
         "All 2 hosts confirmed: placed on 2, concerned 2, proved off 2; the slowest took 40 ms on the host."),
        (Order(), {name: host(ok=False, detail="on") for name in "abc"},
         "0 of 3 hosts confirmed. NOT confirmed: a (on); b (on); c (on). Run this playbook again until all have."),
        (Order(), {name: host(ok=False, detail="on") for name in "abcd"},
         "0 of 4 hosts confirmed. NOT confirmed: a (on); b (on); c (on) and 1 more. Run this playbook again until all "
         "have."),
        (ENGAGED, {"a": host(concerned=False, features=["probe"])},
         "All 1 hosts confirmed: placed on 1, concerned 0, proved off 0; the slowest took 40 ms on the host. "
         "No host has a feature probe; a host that did not confirm has it."),
        (Order(["global"]), {"a": host(concerned=False)},
         "All 1 hosts confirmed: placed on 1, concerned 0, proved off 0; the slowest took 40 ms on the host. "
         "No host said that the order concerns it."),
    ],
)  # fmt: skip
def test_the_sentence_word_for_word(order: Order, answers: dict[str, Any], sentence: str) -> None:
    assert summary(answers, order=order)["sentence"] == sentence


def test_reasons_that_differ_in_numbers_are_one_and_twelve_are_told() -> None:
    some = {f"h{at}": host(ok=False, detail=f"held by process {at}") for at in range(3)}
    assert "  'h0', 'h1', 'h2': held by process 0" in summary(some)["verdict"]
    words = [chr(ord("a") + at) * 3 for at in range(14)]
    many = summary({word: host(ok=False, detail=word) for word in words})["verdict"]
    assert "  and 2 more hosts for 2 more reasons" in many
    assert len([line for line in many if line.startswith("  ") and ": " in line]) == 12
    twelve = summary({word: host(ok=False, detail=word) for word in words[:12]})["verdict"]
    assert not [line for line in twelve if "more reasons" in line]
