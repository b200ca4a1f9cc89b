# SPDX-License-Identifier: GPL-3.0-or-later
"""What a person types, and what no one types: triage asks before a step, over real SSH and a real terminal.

The host has no loader, so nothing of it was measured, and its evidence is all there is to ask for.
"""

from __future__ import annotations

import json
import os
import pty
import select
import time
from pathlib import Path

import pytest

from tests.support import sshhosts
from tests.support.play import ROOT, VENV, environment, play

# Of the machine, such as a container that forbids namespaces: tests/holes.yml has each with its why.
pytestmark = [
    pytest.mark.apart,
    pytest.mark.skipif(bool(sshhosts.why_not()), reason=sshhosts.why_not() or "can be made"),
]
GIVEN = {"ebpf_fleet_triage_window": 1, "ebpf_fleet_connect_timeout": 5}
QUESTION = "all else stops here"


def at_a_terminal(inventory: Path, variables: dict[str, object], answer: str) -> tuple[int, str]:
    """Exit status and screen of a triage whose question gets this answer."""
    command = [str(VENV / "ansible-playbook"), str(ROOT / "playbooks/triage.yml"), "-i", str(inventory),
               "-e", json.dumps(variables)]  # fmt: skip
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(ROOT)
        os.execve(command[0], command, environment())
    screen, typed, end = b"", False, time.monotonic() + 120
    while True:
        assert time.monotonic() < end, screen.decode(errors="replace")
        if not select.select([terminal], [], [], 2)[0]:
            # Ansible throws away what was typed before it reads: nothing happens then, and a person types again.
            if QUESTION.encode() in b" ".join(screen.split()):
                os.write(terminal, answer.encode() + b"\r")
                typed = True
            continue
        try:
            data = os.read(terminal, 65536)
        except OSError:  # the other end is closed
            data = b""
        if not data:
            break
        screen += data
    assert typed, screen.decode(errors="replace")
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), " ".join(screen.decode(errors="replace").split())


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory):
    with sshhosts.hosts(tmp_path_factory.mktemp("hosts"), "good", first=760) as found:
        yield found


@pytest.mark.parametrize(
    ("answer", "kept", "words"),
    [
        ("yes", True, "evidence of 1 of 1 host"),
        pytest.param("skip", False, "blast radius: 0 of 1 hosts", marks=pytest.mark.slow),
        ("no", False, "EF_NOT_ALLOWED: Collect evidence of 1 hosts?"),
        pytest.param("", False, "EF_NOT_ALLOWED: Collect evidence of 1 hosts?", marks=pytest.mark.slow),
    ],
)
def test_a_step_is_done_for_a_yes_alone(
    hosts: sshhosts.Hosts, tmp_path: Path, answer: str, kept: bool, words: str
) -> None:
    code, screen = at_a_terminal(hosts.inventory(), {**GIVEN, "ebpf_fleet_forensics_dir": str(tmp_path)}, answer)
    assert words in screen and bool(list(tmp_path.iterdir())) is kept, screen
    # A host that was not measured is not a success, whatever was answered.
    assert code == 2 and ("EF_TRIAGE: not measured: good-760" in screen) == (answer in ("yes", "skip")), screen


@pytest.mark.slow
def test_without_a_terminal_the_command_is_said_and_with_the_yes_it_is_done(
    hosts: sshhosts.Hosts, tmp_path: Path
) -> None:
    given = {**GIVEN, "ebpf_fleet_forensics_dir": str(tmp_path)}
    played = play("triage", given, inventory=hosts.inventory(), timeout=200)
    said = " ".join(played.text.split())
    assert played.rc == 2 and "EF_NOT_ALLOWED" in said and list(tmp_path.iterdir()) == [], said
    assert "By hand: ansible-playbook ebpf.fleet.forensics --limit HOSTS" in said
    assert "not measured: 'good-760': " in said.replace("''", "'") and "no status" in said, said
    played = play("triage", {**given, "ebpf_fleet_triage_yes": True}, inventory=hosts.inventory(), timeout=200)
    assert len(list(tmp_path.iterdir())) == 1 and played.rc == 2, played.text


def test_check_mode_measures_and_acts_on_nothing(hosts: sshhosts.Hosts, tmp_path: Path) -> None:
    given = {**GIVEN, "ebpf_fleet_forensics_dir": str(tmp_path), "ebpf_fleet_triage_yes": True}
    played = play("triage", given, inventory=hosts.inventory(), arguments=("--check",), timeout=200)
    assert "EF_TRIAGE: not measured: good-760" in " ".join(played.text.split()) and not list(tmp_path.iterdir())


def test_a_bundle_that_is_not_there_is_refused_before_anything_is_measured(hosts: sshhosts.Hosts) -> None:
    """A path may be one letter."""
    played = play("triage", {**GIVEN, "ebpf_fleet_bundle": "b"}, inventory=hosts.inventory(), timeout=200)
    assert (
        played.rc == 2
        and "EF_MANIFEST_MISSING: bundle b" in played.text
        and "Measure a first window" not in played.text
    ), played.text
