# SPDX-License-Identifier: GPL-3.0-or-later
"""What the controller believes of a host's capabilities, by the very words that a host may answer."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.ebpf.fleet.plugins.action import capability_facts as action
from ansible_collections.ebpf.fleet.plugins.module_utils.base.reasons.table import remedy_of
from ansible_collections.ebpf.fleet.plugins.plugin_utils import host_failure


def believed(answer: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = action.believed("h", answer, [])
    return found


def test_a_module_that_failed_is_told_in_one_line_and_changes_nothing() -> None:
    answer = {"failed": True, "changed": True, "msg": "no\nway", "module_stderr": " \n", "module_stdout": "x\ty",
              "ansible_facts": {"evil": 1}, "warnings": ["evil"]}  # fmt: skip
    assert believed(answer) == {"failed": True, "changed": False, "msg": "no way: x y"}
    assert believed({"unreachable": True, "failed": True, "msg": "gone"}) == {
        "unreachable": True, "changed": False, "msg": "gone"
    }  # fmt: skip
    long = believed({"failed": True, "msg": "a" * 3000 + "END"})["msg"]
    assert len(long) <= 1000 and long.endswith("END")


def test_a_code_of_ours_comes_with_its_remedy_and_another_word_does_not() -> None:
    assert believed({"failed": True, "msg": "m", "reason_code": "EF_NO_BTF"}) == {
        "failed": True, "changed": False, "msg": "m", "reason_code": "EF_NO_BTF", "remedy": remedy_of("EF_NO_BTF")
    }  # fmt: skip
    for code in ("EF_NONSENSE", 7, None, ["EF_NO_BTF"]):
        assert believed({"failed": True, "msg": "m", "reason_code": code}) == {
            "failed": True, "changed": False, "msg": "m"
        }  # fmt: skip


@pytest.mark.parametrize("key", ["msg", "module_stderr", "module_stdout"])
@pytest.mark.parametrize("words", host_failure.OLD_PYTHON_WORDS)
def test_an_interpreter_that_is_too_old_is_told_with_what_to_do(key: str, words: str) -> None:
    found = believed({"failed": True, key: f"pages of archive {words} and more"})
    assert (found["failed"], found["changed"], found["reason_code"]) == (True, False, "EF_OLD_PYTHON")
    assert "older than 3.8" in found["msg"] and "pages of archive" not in found["msg"]


def test_one_that_did_not_fail_is_not_too_old_whatever_it_says() -> None:
    found = believed({"failed": False, "msg": "SyntaxError"})
    assert found["reason_code"] == "EF_NO_ANSWER"


def test_a_skip_and_an_answer_without_capabilities() -> None:
    assert believed({"skipped": True, "changed": True, "msg": "not now"}) == {
        "skipped": True, "changed": False, "msg": "not now"
    }  # fmt: skip
    found = believed({"changed": True})
    assert (found["failed"], found["changed"], found["reason_code"]) == (True, False, "EF_NO_ANSWER")
    assert "h" in found["msg"] and "capabilities" in found["msg"]


def test_which_features_were_asked_about() -> None:
    given = [{"feature": "a"}, {"feature": 1}, "b", {}, {"feature": "c"}]
    assert action.asked_about(given) == action.asked_about(tuple(given)) == ["a", "c"]
    for other in (None, "a", {"feature": "a"}, 7):
        assert action.asked_about(other) == []
