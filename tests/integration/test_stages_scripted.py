# SPDX-License-Identifier: GPL-3.0-or-later
"""What people see of real playbooks through the callback stages: on a terminal, in a pipe, and in the report."""

from __future__ import annotations

import os
import pty
import re
import threading
import time
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.integration.scripted import begun, inventory, outcome
from tests.integration.test_rollout_scripted import (
    ASK,
    BACK,
    CAPABILITY,
    DEPLOY,
    FAIL,
    GOOD,
    JUDGE,
    PASS,
    answered,
    changed,
    given,
)

pytestmark = pytest.mark.apart

CALLBACK = {"ANSIBLE_STDOUT_CALLBACK": "ebpf.fleet.stages"}
TERMINAL = {**CALLBACK, "TERM": "xterm", "ANSIBLE_NOCOLOR": "", "COLUMNS": "120"}
EVIL = "\x1b[2J\x1b]0;mine\x07"
BAD = {"host": "w2", "feature": None, "check": "loader_cpu", "verdict": "fail", "measured": 394, "limit": 50,
       "unit": "millicores", "sentence": f"w2: loader CPU 394 millicores, over the limit of 50{EVIL}"}  # fmt: skip
SIZES = {"changed": {"w2": {"host_cpu_ppm": [10_000, 90_000]}}, "controls": {"w9": {"host_cpu_ppm": [10_000, 11_000]}}}
CPU = {**BAD, "check": "host_cpu_delta", "measured": 80_000, "limit": 50_000, "unit": "ppm", "sentence": "w2: busier"}
FAILED = {**FAIL, "checks": [BAD, CPU], "reasons": [BAD], "before_after": SIZES}
# Ten seconds, and what a busy test machine takes.
SILENCE_SECONDS = 13


class Seen(NamedTuple):
    """What was printed, how it ended, and the longest time in which nothing came after the first."""

    text: str
    status: int
    silence: float

    @property
    def lines(self) -> list[str]:
        return self.text.replace("\r\n", "\n").splitlines()


def seen(folder: Path, script: Any, terminal: bool, playbook: str = "rollout", **variables: Any) -> Seen:
    """A playbook of three hosts, its standard output a terminal or a pipe."""
    ours, theirs = pty.openpty() if terminal else os.pipe()
    environment = TERMINAL if terminal else CALLBACK
    hosts = inventory(["w1", "w2", "w3"])
    process = begun(folder, playbook, hosts, script, environment=environment, screen_fd=theirs, **variables)
    os.close(theirs)
    found, last, silence = b"", None, 0.0
    while True:
        try:
            data = os.read(ours, 65536)
        except OSError:  # A terminal whose other end is closed.
            break
        if not data:
            break
        now = time.monotonic()
        silence = max(silence, 0.0 if last is None else now - last)
        found, last = found + data, now
    os.close(ours)
    ended = outcome(folder, process)
    return Seen(found.decode(), ended.status, silence)


def go_on(folder: Path, name: str, seconds: float) -> None:
    """Let a call that holds go on, so many seconds after it was reached."""
    until = time.monotonic() + 120
    while not (folder / f"at-{name}").exists() and time.monotonic() < until:
        time.sleep(0.1)
    time.sleep(seconds)
    (folder / f"go-{name}").touch()


class Text(HTMLParser):
    """The text of a page, and whether it asks for anything outside of itself."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.outside: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.outside += [tag] if tag in ("script", "img", "link", "iframe") else []
        self.outside += [name for name, _value in attrs if name in ("src", "href") or name.startswith("on")]

    def handle_data(self, data: str) -> None:
        self.words += data.split()


def report_of(folder: Path) -> str:
    (path,) = folder.glob("rollout-*.html")
    found = Text(path.read_text(encoding="utf-8"))
    assert found.outside == []
    return " ".join(found.words)


@pytest.mark.slow
def test_a_failed_rollout_in_a_pipe_is_plain_never_silent_and_tells_all(tmp_path: Path, bundle: Path) -> None:
    went = {host: answered(detail="the previous release runs") for host in ("w2", "w3")}
    slow = {"*": changed(), "w1": {**changed(), "hold": "deploy"}}
    script = {**GOOD, DEPLOY: slow, JUDGE: {"*": PASS, "w2": FAILED}, BACK: {"*": {"changed": True, "hosts": went}}}
    threading.Thread(target=go_on, args=(tmp_path / "scripted", "deploy", 12), daemon=True).start()
    shown = seen(tmp_path, script, False, **given(bundle, ebpf_fleet_report_dir=".", ebpf_fleet_bake=2))
    assert shown.status == 2
    assert "\x1b" not in shown.text and "\r" not in shown.text and "\x07" not in shown.text
    assert shown.silence < SILENCE_SECONDS
    assert re.search(r"^  \.\.\. canary 1/2, 0 of 3 hosts done: .*Deploy the release: since \d+ s$", shown.text, re.M)
    # All that passes on the way to the plan is one line, and nothing of it is told beside that.
    told = "\n".join(line for line in shown.lines if not line.startswith("  ... "))
    before = told.split("Stage canary: 1 host in 1 batch", 1)[0]
    assert len(re.findall(r"^  \d+ checks and steps passed, \d did not apply in \d+ s$", before, re.M)) == 1
    assert "Refuse" not in before and "ok:" not in shown.text and "canary: 1 host in batches of 1: w1" in before
    assert "  batch 1 of 2  [....................] 0 of 3 hosts done  now 1 host: w1" in shown.lines
    assert "  promoted: [######..............] 1 of 3 hosts done" in shown.lines
    assert (
        "    x loader_cpu: w2: loader CPU 394 millicores, over the limit of 50\\x1b[2J\\x1b]0;mine\\x07" in shown.text
    )
    assert (
        "FAILED: Promote only on a pass on w2, w3" in shown.lines
        or "FAILED: Promote only on a pass on w3, w2" in shown.lines
    )
    assert "    EF_GATE_FAILED: Stage cell: 2 checks fail" in shown.lines
    assert any(line.startswith("    remedy: ") for line in shown.lines)
    assert any(line.startswith("Stopped after ") and "1 of 3 hosts done" in line for line in shown.lines)
    assert re.search(r"^Report: .*/rollout-[0-9a-f-]+\.html$", shown.lines[-1])
    page = report_of(tmp_path)
    assert "Stopped in stage cell: 2 checks fail; 2 hosts went back; 1 of 3 hosts run 1.0.0 and passed." in page
    assert "394 millicores" in page and "w2 changed, over the limit" in page and "raise the limit" in page
    # The same page of the ledger and the records, by history.
    (path,) = tmp_path.glob("rollout-*.html")
    path.unlink()
    rollout = path.stem.removeprefix("rollout-")
    where = {"ebpf_fleet_rollout_id": rollout, "ebpf_fleet_report_dir": "."}
    told = seen(tmp_path, {}, False, "history", **where)
    assert told.status == 0, told.text
    assert report_of(tmp_path).partition("page written")[0] == page.partition("page written")[0]


def test_a_terminal_counts_down_and_a_failure_is_told_in_full(tmp_path: Path, bundle: Path) -> None:
    broken = {"w2": {"failed": True, "msg": f"boom{EVIL}", "rc": 7, "stderr": f"one\ntwo{EVIL}"},
              "w3": {"unreachable": True, "msg": "no route to host"}}  # fmt: skip
    script = {**GOOD, DEPLOY: {**GOOD[DEPLOY], **broken}}
    shown = seen(tmp_path, script, True, **given(bundle, ebpf_fleet_bake=4))
    assert shown.status != 0
    assert re.search(r"0 of 3 hosts done: [^\r\n]+: bakes, \d s left\r\x1b\[K", shown.text), shown.text[-3000:]
    assert set(re.findall(r"\x1b[^m\x1b]*?[A-Za-z]", shown.text)) <= {
        "\x1b[K",
        *re.findall(r"\x1b\[[0-9;]*m", shown.text),
    }
    assert "\x07" not in shown.text and "\x1b[2J" not in shown.text and "\x1b]" not in shown.text
    plain = re.sub(r"\x1b\[[0-9;]*[mK]|\r", "", shown.text)
    task = "ebpf.fleet.deploy : Deploy the release"
    for wanted in (f"FAILED: {task} on w2", "    boom\\x1b[2J", "    rc: 7", "    stderr: one",
                   f"UNREACHABLE (ignored): {task} on w3", "    no route to host"):  # fmt: skip
        assert wanted in plain, wanted
    assert "EF_ROLLOUT_STOPPED: The rollout of 1.0.0 stopped in stage cell" in plain


def test_a_refusal_and_a_host_that_does_not_answer_are_told_in_full(tmp_path: Path, bundle: Path) -> None:
    script = {**GOOD, ASK: {"*": CAPABILITY, "w2": {"unreachable": True, "msg": f"no route{EVIL}"}}}
    shown = seen(tmp_path, script, False, **given(bundle))
    assert shown.status != 0
    assert "UNREACHABLE (ignored): Ask every host what it can run on w2" in shown.lines
    assert "    no route\\x1b[2J\\x1b]0;mine\\x07" in shown.lines
    assert any(
        line.startswith("    EF_NO_ANSWER: No rollout begins while hosts do not answer: w2.") for line in shown.lines
    )
    assert any("before there was a plan" in line for line in shown.lines)


def test_other_playbooks_are_shown_as_ansible_does(tmp_path: Path) -> None:
    shown = seen(tmp_path, {}, False, "history", ebpf_fleet_ledger=str(tmp_path / "ledger"))
    assert "TASK [Read and verify the ledger]" in shown.text and "PLAY RECAP" in shown.text
    assert "no rollout is in" in shown.text
