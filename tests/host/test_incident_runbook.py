# SPDX-License-Identifier: GPL-3.0-or-later
"""Every command of the runbook of incidents, as written and in the order of the page: it prints what the page says."""

from __future__ import annotations

import re
import subprocess
import time
from pathlib import Path

import pytest

from tests.support.play import environment
from tests.support.runbooks import INCIDENT, typed
from tests.support.sysfleet import Release, SysFleet, our_programs, status
from tests.support.syshost import SysHost

PLAYS = [one.text for one in typed("play", INCIDENT)]
SHELL = [one.text for one in typed("shell", INCIDENT)]
RELEASE = " -e state=released -e confirm=release -e reason=over"
# What each prints, on a host where all is well, and how it ends.
WANTED = {
    "rollback -e state=list": (0, "no order stands"),
    "rollback -e scope=global": (0, "All 1 hosts confirmed"),
    "triage --limit HOST --check": (0, "of 1 hosts over a limit in every window"),
    "forensics": (0, "evidence of 1 of 1 host in"),
    "triage -e ebpf_fleet_triage_yes=true": (0, "blast radius: "),
    "prepare": (0, "PLAY RECAP"),
}


@pytest.fixture(scope="module")
def ready(deployed: SysHost, sysfleet: SysFleet, first: Release) -> SysHost:
    """A host whose inventory has what the page's commands need: who may sign, and limits that it keeps."""
    generous = {"loader_cpu_millicores": 2000, "bpf_cpu_millicores": 2000, "total_cpu_millicores": 4000,
                "event_rate_per_second": 10**9, "drop_ratio_ppm": 1000000, "map_memory_bytes": 1 << 40}  # fmt: skip
    sysfleet.own[deployed.name] = {
        "ebpf_fleet_gate_limits": generous, "ebpf_fleet_triage_window": 4, "ebpf_fleet_allowed_signers": sysfleet.trust,
        # This machine is shared: what its load makes of a feature's budget is not judged here.
        "ebpf_fleet_bundle": "",
    }  # fmt: skip
    return deployed


def typed_by_a_person(fleet: SysFleet, text: str) -> tuple[int, str]:
    """A command of the page by the real ansible-playbook; how it ended and what it printed."""
    text = text.replace("INVENTORY", str(fleet.inventory())).replace("HOST", fleet.hosts[0].name)
    done = subprocess.run(
        text.split(), cwd=fleet.folder, env={**environment(), "PWD": str(fleet.folder)}, capture_output=True, text=True,
        check=False, timeout=300, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return done.returncode, " ".join((done.stdout + done.stderr).split())


def wanted_of(text: str) -> tuple[int, str]:
    (found,) = [answer for key, answer in WANTED.items() if f"ebpf.fleet.{key}" in text]
    return found


def test_an_answer_is_known_for_every_command_and_every_answer_is_of_one() -> None:
    assert len(PLAYS) == len(WANTED) and [wanted_of(text) for text in PLAYS] and len(SHELL) == 1
    page = (Path(__file__).resolve().parents[2] / "docs/runbooks" / INCIDENT).read_text(encoding="utf-8")
    assert re.findall(r"^(\d)\. ", page, re.M) == [str(number) for number in range(1, 8)], "numbered steps"


@pytest.mark.slow
def test_each_command_does_what_the_page_says(ready: SysHost, sysfleet: SysFleet) -> None:
    for text in PLAYS:
        code, said = typed_by_a_person(sysfleet, text)
        assert (code, wanted_of(text)[1] in said) == (wanted_of(text)[0], True), said
        if "scope=global" in text:
            assert our_programs() == []
            code, said = typed_by_a_person(sysfleet, text + RELEASE)
            assert code == 0, said
            deadline = time.monotonic() + 60
            while {one["state"] for one in status(ready)["features"].values()} != {"attached"}:
                assert time.monotonic() < deadline, said
                time.sleep(0.2)
    (evidence,) = sysfleet.folder.glob("forensics-*")
    done = subprocess.run(SHELL[0].split(), cwd=evidence / ready.name, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and set(re.findall(r": (\w+)$", done.stdout, re.M)) == {"OK"}, done.stdout
