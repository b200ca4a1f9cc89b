# SPDX-License-Identifier: GPL-3.0-or-later
"""What an errno means to who asks: a refusal is a no only where the asker is trusted, unknown is never yes."""

from __future__ import annotations

import errno
import os
import platform
from types import SimpleNamespace

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.base.answers import ABSENT
from ansible_collections.ebpf.fleet.plugins.module_utils.kernel import bpfsys, kernelask, loaded
from ansible_collections.ebpf.fleet.plugins.module_utils.kernel.kernelask import Standing

TRUSTED, STRANGER, LOCKED = Standing(True, False), Standing(False, False), Standing(True, True)


@pytest.mark.parametrize(
    ("who", "number", "answer", "reason_code"),
    [
        (TRUSTED, 0, "yes", None),
        (STRANGER, 0, "yes", None),
        *((TRUSTED, number, "no", None) for number in ABSENT),
        *((STRANGER, number, "no", None) for number in ABSENT),
        (TRUSTED, errno.EPERM, "no", "EF_PERMISSION"),
        (TRUSTED, errno.EACCES, "no", "EF_PERMISSION"),
        (LOCKED, errno.EPERM, "no", "EF_LOCKDOWN"),
        (STRANGER, errno.EPERM, "unknown", None),
        (Standing(False, True), errno.EACCES, "unknown", None),
        (TRUSTED, errno.ENOMEM, "unknown", None),
        (TRUSTED, errno.EAGAIN, "unknown", None),
    ],
)
def test_what_an_errno_means(who: Standing, number: int, answer: str, reason_code: str | None) -> None:
    found = who.judge(number, "it")
    assert (found["answer"], found.get("reason_code")) == (answer, reason_code)
    assert found["evidence"].startswith("it: ")


def test_what_is_absent_can_be_narrowed() -> None:
    assert TRUSTED.judge(errno.EINVAL, "it", (errno.ENOENT,))["answer"] == "unknown"


def test_what_was_opened_to_ask_is_closed() -> None:
    opened: list[int] = []

    def ask() -> int:
        opened.append(os.open("/", os.O_RDONLY))
        return opened[0]

    assert TRUSTED.attempt(ask, "it")["answer"] == "yes"
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(opened[0])


@pytest.mark.parametrize(("number", "answer"), [(errno.ENOENT, "no"), (errno.EPERM, "unknown"), (errno.EIO, "unknown")])
def test_an_error_of_the_question_is_judged_by_its_number(number: int, answer: str) -> None:
    def ask() -> int:
        raise OSError(number, "x")

    assert STRANGER.attempt(ask, "it")["answer"] == answer


def test_on_a_machine_that_is_not_known_nothing_is_trusted_and_everything_unknown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "pdp11")
    assert kernelask.standing(False) == Standing(False, False)
    assert kernelask.standing(True) == Standing(False, True)
    spec = bpfsys.ProgramSpec(type=1, code=bpfsys.RETURN_ZERO)
    assert kernelask.ask_load(TRUSTED, spec, "it")["answer"] == "unknown"
    for name in ("xdp", *kernelask.NEEDS_MORE):
        found = kernelask.ask_program_type(TRUSTED, name)
        assert found["answer"] == "unknown" and "pdp11" in found["evidence"], name
    found = TRUSTED.attempt(lambda: bpfsys.bpf(bpfsys.PROG_GET_FD_BY_ID, bytes(4)), "it")
    assert found["answer"] == "unknown" and "pdp11" in found["evidence"]


def test_a_program_behind_the_lowest_descriptor_was_loaded_and_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Descriptor 0 is given to a process whose standard input is closed."""
    closed: list[int] = []
    monkeypatch.setattr(bpfsys, "_LIBC", SimpleNamespace(syscall=lambda *_: 0))
    monkeypatch.setattr(bpfsys.os, "close", closed.append)
    verdict = bpfsys.Trial(bpfsys.ProgramSpec(type=1, code=bpfsys.RETURN_ZERO)).run()
    monkeypatch.undo()
    assert (verdict, closed) == (bpfsys.Verdict(0, ""), [0])


def test_programs_of_ours_are_unknown_where_no_program_could_be_listed() -> None:
    refused = {"programs": None, "maps": [], "links": [], "evidence": "programs: EPERM from BPF_PROG_GET_NEXT_ID"}
    assert loaded.own_programs(refused) == {"programs": None, "evidence": "programs: EPERM from BPF_PROG_GET_NEXT_ID"}
