# SPDX-License-Identifier: GPL-3.0-or-later
"""What a bundle's loader says is data; its codes are those of its sources."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle.loader_verdict import REFUSALS, judge_verdict

ROOT = Path(__file__).resolve().parents[2]
DIGEST = "3f" * 32
YES = {"ok": True, "digest": DIGEST, "signer": "a@b", "features": ["f"], "bundle": {"name": "b"}}


def judge(
    verdict: object, status: int | None = 0, stderr: bytes = b"", ended: str = "exit status 0"
) -> tuple[str, str]:
    data = verdict if isinstance(verdict, bytes) else json.dumps(verdict).encode()
    refused = judge_verdict(data, stderr, ended, status, DIGEST)
    return ("", "") if refused is None else (refused.code, refused.message)


def test_a_plain_yes_of_the_right_digest_is_the_only_yes() -> None:
    assert judge(YES) == ("", "")
    for wrong in ({**YES, "digest": "0" * 64}, {**YES, "digest": None}, {**YES, "ok": 1}, {**YES, "ok": "true"}, [YES],
                  None, "yes"):  # fmt: skip
        assert judge(wrong)[0] == "EF_UNKNOWN"
    assert judge(YES, status=3)[0] == judge(YES, status=None)[0] == "EF_UNKNOWN"


@pytest.mark.parametrize(
    "data", [b"", b"\xff", b"[" * 50000, b'{"ok": true', b'{"ok": NaN}', json.dumps(YES).encode() * 2]
)
def test_only_a_document_is_a_verdict(data: bytes) -> None:
    code, message = judge(data, stderr=b"boom\x1b[2J", ended="killed by signal 9", status=None)
    assert code == "EF_UNKNOWN" and "killed by signal 9" in message and "boom" in message
    assert message.isprintable()


def test_an_answer_of_four_levels_is_read_and_one_of_five_is_not() -> None:
    assert judge({**YES, "more": [[[]]]}) == ("", "")
    code, message = judge({**YES, "more": [[[[]]]]})
    assert code == "EF_UNKNOWN" and "gave no verdict" in message


def test_a_refusal_keeps_its_code_and_sentence() -> None:
    code, message = judge({"ok": False, "reason_code": "EF_SIG_REVOKED", "reason": "the key\x1b[31m is revoked"}, 3)
    assert code == "EF_SIG_REVOKED" and "the key\\x1b[31m is revoked" in message


@pytest.mark.parametrize("code", ["EF_OK", "EF_NO_PREVIOUS", "", None, ["EF_SIG_BAD"], {"a": 1}, "EF_SIG_BAD\n", 7])
def test_a_code_of_its_own_is_not_taken_over(code: object) -> None:
    found, message = judge({"ok": False, "reason_code": code, "reason": "x"}, 3)
    assert found == "EF_UNKNOWN" and message.isprintable()


def test_a_refusal_that_ends_like_a_yes_counts_as_no_verdict() -> None:
    assert judge({"ok": False, "reason_code": "EF_SIG_BAD", "reason": "x"}, 0)[0] == "EF_UNKNOWN"


def test_the_codes_are_those_that_the_loader_refuses_with() -> None:
    calls = "".join(
        "".join(re.findall(r"\b(?:ef_refuse|refuse_open)\((.*?);", path.read_text(), re.DOTALL))
        for path in (ROOT / "bpf/loader").glob("*/*.c")
    )
    # These are of `run` alone.
    of_run = {"EF_PATH_UNSAFE", "EF_MARK_MALFORMED", "EF_SEQUENCE_DOWNGRADE"}
    assert set(re.findall(r'"(EF_[A-Z_]+)"', calls)) - of_run == REFUSALS
