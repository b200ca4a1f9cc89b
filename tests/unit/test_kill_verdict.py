# SPDX-License-Identifier: GPL-3.0-or-later
"""The verdict on an order: three numbers, the reason of each, the nearest name, in bounded lines."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.kill import scope as scopes
from ansible_collections.ebpf.fleet.plugins.module_utils.kill.answer import summary
from ansible_collections.ebpf.fleet.plugins.module_utils.kill.script import MARK
from ansible_collections.ebpf.fleet.plugins.module_utils.kill.verdict import Order

FEATURE = Order(["feature=exec_event"])


def host(**more: Any) -> dict[str, Any]:
    answer = {"ok": True, "host_ms": 40, "placed": True, "concerned": True, "detail": "off", **more}
    return {"stdout": f"\n{MARK}{json.dumps(answer)}\n", "stderr": "", "rc": 0 if answer["ok"] else 1}


def closed(words: str) -> dict[str, Any]:
    return {"stdout": words, "stderr": "", "rc": 1, "msg": "non-zero return code"}


def fleet() -> dict[str, Any]:
    """Two hundred hosts, most of which will not do."""
    found = {f"off{number:03}": host() for number in range(30)}
    found |= {f"not{number:03}": host(concerned=False, detail="other family") for number in range(20)}
    found |= {f"no{number:03}": closed("This account is currently not available.\r\n") for number in range(100)}
    found |= {f"left{number:03}": host(ok=False, detail=f"held by process {number} of uid 7") for number in range(20)}
    for number in range(30):
        msg = (
            f"Failed to connect to the host via ssh: ssh: connect to host 192.0.2.{number} port 22: Connection refused"
        )
        found[f"gone{number:03}"] = {"unreachable": True, "msg": msg}
    return found


def test_three_numbers_and_every_host_in_one_of_them() -> None:
    made = summary(fleet(), order=Order(["feature=exec_events"]))
    assert made["numbers"] == {
        "placed": 70, "concerned": 50, "off": 30, "not_concerned": 20, "unknown": 0, "unconfirmed": 150,
    }  # fmt: skip
    assert made["failed"] == made["missing"] and len(made["missing"]) == 150
    assert made["verdict"][0].endswith("200 hosts addressed, placed on 70, concerned 50, proved off 30.")


def test_two_hundred_hosts_are_a_few_short_lines_with_each_reason() -> None:
    lines = summary(fleet(), order=Order(["feature=exec_events"]))["verdict"]
    text = "\n".join(lines)
    assert len(lines) <= 20 and max(map(len, lines)) <= 110, text
    assert "NOT CONFIRMED: 150" in text and lines[-2].startswith("Next: ")
    for words in ("This account is currently not available.", "and 94", "ssh: Connection refused", "held by process 0"):
        assert words in " ".join(text.split()), words
    assert text.count("Connection refused") == text.count("held by process") == 1


def test_a_fleet_of_different_reasons_stays_bounded() -> None:
    words = "abcdefghijklmnopqrstuvwxyz"
    answers = {f"h{number}": closed(f"{'x' * 900} {words[number % 26]} {words[number // 26]}") for number in range(400)}
    made = summary(answers, order=FEATURE)
    assert len(made["verdict"]) < 50 and "more hosts for" in "\n".join(made["verdict"])
    assert len(made["sentence"]) < 1500


@pytest.mark.parametrize(
    ("order", "known", "words"),
    [
        (
            FEATURE,
            {"features": ["exec_events", "runqlat"]},
            "No host has a feature exec_event; did you mean 'exec_events'?",
        ),
        (FEATURE, {"features": []}, "no host told a feature that it has"),
        (FEATURE, {}, "no host told a feature that it has"),
        (Order(["kernel_family=6.81"]), {"family": "6.18"}, "did you mean '6.18'?"),
        (Order(["kernel_family=debain-6.18"]), {"family": "debian-6.18"}, "did you mean 'debian-6.18'?"),
        (Order(["kernel_family=6.81"]), {"family": "debian-6.18"}, "did you mean '6.18'?"),
        (
            Order(["feature=a"], "released"),
            {"orders": ["feature.b"]},
            "had the order feature=a; did you mean 'feature=b'?",
        ),
        (Order(["global"], "released"), {"orders": ["family.6.1"]}, "choose one of: kernel_family=6.1"),
    ],
)
def test_an_order_that_concerns_no_host_is_no_success_and_names_the_nearest(
    order: Order, known: dict[str, Any], words: str
) -> None:
    answers = {name: host(concerned=False, detail="not here", **known) for name in ("a", "b")}
    made = summary(answers, order=order)
    assert words in " ".join(made["verdict"]) and words in made["sentence"]
    assert made["failed"] == ["a", "b"] and made["confirmed"] == ["a", "b"] and made["missing"] == []
    assert summary(answers, order=order._replace(allow_unconcerned=True))["failed"] == []


def test_one_host_that_is_concerned_is_enough_and_one_that_is_unknown_is_not() -> None:
    answers = {"a": host(concerned=False), "b": host()}
    assert summary(answers, order=FEATURE)["failed"] == []
    assert summary({"a": host(concerned=False), "b": host(concerned=None)}, order=FEATURE)["failed"] == ["a", "b"]


def test_who_did_not_confirm_may_be_the_one_that_is_concerned() -> None:
    answers = {"a": host(concerned=False, features=["x"]), "b": closed("gone")}
    made = summary(answers, order=FEATURE)
    assert made["failed"] == ["b"] and "what did not confirm counts as ON" in " ".join(made["verdict"])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("globl", "did you mean global?"),
        ("Feature=exec_events", "did you mean feature=exec_events?"),
        ("featur=exec_events", "did you mean feature=exec_events?"),
        ("kernelfamily=6.1", "did you mean kernel_family=6.1?"),
        ("family=debian-6.1", "did you mean kernel_family=debian-6.1?"),
        ("6.1", "did you mean kernel_family=6.1?"),
        ("kernel_family=6.1.0-31-amd64", "did you mean kernel_family=6.1?"),
        ("\x1b[2J", "scope '\\x1b[2J' is not one: write global"),
        ("", "Say what to turn off"),
        (None, "Say what to turn off"),
        (["globl"], "is not one"),
    ],
)
def test_a_scope_that_is_none_is_one_sentence(text: Any, words: str) -> None:
    sentence = scopes.refusal(text, "engaged")
    assert words in sentence and sentence.isprintable() and len(sentence) < 250


def test_what_can_be_ordered_is_not_refused() -> None:
    for scope in ("global", "feature=a", "kernel_family=6.1", "kernel_family=debian-6.1", ["global"]):
        assert scopes.refusal(scope, "engaged") == scopes.refusal(scope, "released", "release", "fixed") == ""
    assert scopes.refusal("previous", "engaged") == "" and "roll the release out again" in scopes.refusal(
        "previous", "released", "release", "fixed"
    )
