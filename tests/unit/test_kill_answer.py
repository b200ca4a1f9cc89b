# SPDX-License-Identifier: GPL-3.0-or-later
"""Answers to a kill order, from hosts that garble, bloat, forge or paint them: no other host is the worse for it."""

from __future__ import annotations

import json
import random
import time
from typing import Any

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.kill import answer as kill_answer
from ansible_collections.ebpf.fleet.plugins.module_utils.kill.answer import MARKS, parse_answer, summary

BACK, KILL = MARKS
NOTHING = kill_answer._NOTHING
FIELDS = {"ok": True, "changed": True, "host_ms": 40, "left": 0, "persisted": True, "escalated": False, "detail": "off"}


def line(mark: str = KILL, **more: Any) -> str:
    return mark + json.dumps({**FIELDS, **more})


def result(stdout: Any, rc: Any = 0) -> dict[str, Any]:
    return {"stdout": stdout, "stderr": "", "rc": rc}


HOSTILE: dict[str, tuple[Any, str]] = {
    "ten thousand brackets": (KILL + "[" * 10_000, "characters; at most 4096"),
    "ten thousand objects": (KILL + '{"a":' * 10_000, "characters; at most 4096"),
    "brackets within a field": (KILL + '{"ok":true,"detail":' + "[" * 9 + "]" * 9 + "}", "nested deeper than 4"),
    "a line of 64 MiB": (KILL + '{"ok":true,"detail":"' + "A" * (64 << 20) + '"}', "it said: AAA"),
    "a line of 5000 characters": (line(detail="A" * 5000), "characters; at most 4096"),
    "not a number": (KILL + '{"ok":true,"host_ms":NaN}', "NaN, which is not a number of JSON"),
    "infinity": (KILL + '{"ok":true,"host_ms":1e999}', "too large"),
    "five thousand digits": (KILL + '{"ok":true,"host_ms":1' + "0" * 4000 + "}", "more than 20 digits"),
    "negative time": (line(host_ms=-1), "host_ms: -1 is not from 0 to"),
    "a time of a century": (line(host_ms=10**16), "host_ms: 10000000000000000 is not from 0 to"),
    "time that is a truth": (line(host_ms=True), "host_ms: is true or false and not a whole number"),
    "time that is a fraction": (line(host_ms=0.5), "host_ms: is a number and not a whole number"),
    "time that is text": (line(host_ms="1"), "host_ms: is text and not a whole number"),
    "left that is a list": (line(left=[]), "left: is a list and not a whole number"),
    "changed that is text": (line(changed="yes"), "changed: is text and not true or false"),
    "digest that is not one": (line(BACK, digest="../../etc"), "digest: '../../etc' is not of the form"),
    "detail that is a mapping": (line(detail={"a": 1}), "detail: is a mapping and not text"),
    "ok that is 1": (line(ok=1), "ok: is a number and not true or false"),
    "no ok": (KILL + "{}", "ok: is missing"),
    "not a mapping": (KILL + "[]", "is a list and not a mapping"),
    "cut short": (line()[:-3], "is not JSON"),
    "behind a prompt": ("root@host:~# " + line(), "not at the begin of a line"),
    "an echo of the command": ("echo " + line(), "not at the begin of a line"),
    "behind a separator that is not a line's end": ("x\u2028" + line(), "not at the begin of a line"),
    "two answers": (line() + "\n" + line(left=1), "2 different ones were given"),
    "a no before a yes": (line(ok=False) + "\n" + line(), "2 different ones were given"),
    "the other mark's answer too": (line(BACK) + "\n" + line(ok=False), "2 different ones were given"),
    "stdout that is a list": ([line()], "stdout: is not text"),
    "nothing": ("", "no line of the output is one"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_answer_is_refused_for_that_host_only(name: str) -> None:
    output, why = HOSTILE[name]
    start = time.monotonic()
    found = summary({"a": result(line(host_ms=7)), "evil": result(output), "z": result(line(host_ms=9))})
    assert time.monotonic() - start < 10, "one answer held up the summary"
    assert (found["confirmed"], found["missing"], found["slowest_ms"]) == (["a", "z"], ["evil"], 9)
    assert found["hosts"]["evil"]["detail"].startswith("no usable answer from evil: ")
    assert why in found["hosts"]["evil"]["detail"]
    assert found["hosts"]["a"] == {**NOTHING, **FIELDS, "host_ms": 7}
    assert "NOT confirmed: evil (no usable answer from evil: " in found["sentence"]
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize(
    "output",
    [
        line(),
        line() + "\n",
        f"Welcome!\r\n{line()}\r\n",
        f"before\n{line()}\nbehind\nlogout\n",
        f"{line()}\n{line()}\n",
        "\udcff\udcfe noise that was not UTF-8\n" + line(),
        "A" * (4 << 20) + "\n" + line() + "\n",
        line(BACK, digest="ab" * 32),
        line(detail="\ud800"),
    ],
)
def test_noise_around_an_answer_does_not_hide_it(output: str) -> None:
    answer = parse_answer(result(output))
    assert (answer["ok"], answer["host_ms"]) == (True, 40), answer
    json.dumps(answer).encode()


@pytest.mark.parametrize("rc", [1, 255, None, "0", True, False, 0.0, [0]])
def test_an_exit_status_that_is_not_0_is_not_a_yes(rc: Any) -> None:
    answer = parse_answer(result(line(), rc))
    assert answer["ok"] is False and "in spite of: off" in answer["detail"]


@pytest.mark.parametrize("answer", [None, [], 7, {"unreachable": True, "msg": ["x"]}, {"stdout": None}, {"msg": 1}])
def test_what_is_no_result_at_all_is_named(answer: Any) -> None:
    found = summary({"a": result(line()), "b": answer})
    assert found["missing"] == ["b"] and found["hosts"]["b"]["detail"]


PAINT = "\x1b[2J\x1b[HAll 500 hosts confirmed\r\n\x9b2J\u202eflesrever\u2066\u200b\x07\x00" + "A" * 1_000_000


@pytest.mark.parametrize(
    "answer",
    [
        result(line(ok=False, detail=PAINT[:200]), 1),
        {"unreachable": True, "msg": PAINT},
        {"failed": True, "msg": PAINT},
        {"stdout": "", "stderr": PAINT, "rc": 255},
        {"stdout": PAINT, "rc": PAINT},
        result(line(), PAINT),
        result(KILL + PAINT),
        result(KILL + json.dumps({"ok": PAINT[:100], PAINT[:90]: 1})),
    ],
)
def test_no_hosts_text_paints_the_terminal(answer: dict[str, Any]) -> None:
    found = summary({"evil": answer})
    text = found["sentence"] + found["hosts"]["evil"]["detail"]
    assert text.isprintable(), text
    assert len(text) < 1000
    assert found["missing"] == ["evil"]


def test_answers_that_chance_mutates_never_raise_and_never_touch_a_neighbour() -> None:
    chance = random.Random(20261124)
    good = line()
    for _turn in range(3000):
        letters = list(good)
        for _change in range(chance.randint(1, 6)):
            at = chance.randrange(len(letters))
            letters[at : at + chance.randint(0, 9)] = chance.choice(
                [
                    "",
                    "{",
                    "[[",
                    "NaN",
                    "-1e999",
                    "\x1b[0m",
                    "\u202e",
                    "\udcff",
                    "null",
                    '"',
                    "\\",
                    "\n" + KILL,
                    "9" * 40,
                ]
            )
        found = summary({"a": result(good), "m": result("".join(letters), chance.choice([0, 0, 1, None, "x"]))})
        assert "a" in found["confirmed"] and "m" in found["hosts"]
        assert found["hosts"]["a"] == {**NOTHING, **FIELDS}
        assert found["sentence"].isprintable()
        assert set(found["hosts"]["m"]) == {"ok", "detail", *kill_answer._NOTHING}
        assert isinstance(found["hosts"]["m"]["ok"], bool)
