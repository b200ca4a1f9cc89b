# SPDX-License-Identifier: GPL-3.0-or-later
"""Rollouts whose cells have controllers of their own: real jobs of ansible-runner, and hosts with a state.

The workers are real processes, here or behind a real sshd; what they are made to do wrong is done to them.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout import ledger

from tests.integration import events
from tests.integration.fake_hosts import FakeHosts
from tests.integration.scripted import ROOT, inventory
from tests.integration.test_rollout_scripted import ASK, CAPABILITY, JUDGE, PASS, digest_of, given
from tests.support import sshhosts

pytestmark = pytest.mark.apart

CELLS = {"a": ["a1", "a2"], "b": ["b1", "b2"]}
RUNNER = [sys.executable, "-m", "ansible_runner"]
# One batch of the first cell, then one of all the others.
TWO_WAVES = [{"stage": "cell"}, {"stage": "fleet"}]
ONE_WAVE = [{"stage": "fleet"}]
DONE, BEFORE_IT = (True, False), (False, False)
LOST, ANSWER = "EF_CELL_LOST", "EF_CELL_ANSWER"
# A worker that does as it should but for one thing, in one step: shell, with the real worker as "$@".
WRAPPER = """#!/bin/sh
PATH={beside}:$PATH
export PATH
# Every job is read whole first, as its step and its order decide what is done.
job=$(mktemp "$HOME/job.XXXXXX")
cat >"$job"
step=$({python} {reads} "$job")
if [ "$step" = {step} ]; then
{wrong}
fi
exec {runner} "$@" <"$job"
"""
READS = """
import base64, io, json, sys, zipfile
lines = open(sys.argv[1], "rb")
lines.readline()
size = json.loads(lines.readline())["zipfile"]
data = base64.b64decode(lines.read((size + 2) // 3 * 4))
print(json.loads(zipfile.ZipFile(io.BytesIO(data)).read("env/extravars"))["cell_step"])
"""


class Fleet:
    """Two cells of two hosts each, every one with a controller; `controllers` are those that are not plain."""

    def __init__(self, folder: Path, bundle: Path, **controllers: Any) -> None:
        self.folder, self.bundle, self.digest = folder, bundle, digest_of(bundle)
        # A machine that is busy with other tests may start a worker late.
        self.silence = 120
        self.controllers = {cell: controllers.get(cell, {"local": True, "runner": RUNNER}) for cell in CELLS}

    def wrong(self, cell: str, step: str, wrong: str) -> None:
        """Have the controller of a cell do something else in a step; `wrong` is shell, "$@" the worker's arguments."""
        reads = self.folder / "reads.py"
        reads.write_text(READS)
        path = self.folder / f"runner-{cell}"
        beside = Path(sys.executable).parent
        text = WRAPPER.format(
            python=sys.executable, beside=beside, reads=reads, step=step, wrong=wrong, runner=shlex.join(RUNNER)
        )
        path.write_text(text)
        path.chmod(0o755)
        self.controllers[cell] = {**self.controllers[cell], "runner": ["env", f"HOME={self.folder}", str(path)]}

    def hosts(self) -> dict[str, Any]:
        found: dict[str, Any] = inventory([])
        for cell, names in CELLS.items():
            one = inventory(names, ebpf_fleet_cell_controllers=self.controllers, ebpf_fleet_control_hosts=0,
                            ebpf_fleet_cell_silence=self.silence)  # fmt: skip
            for name, variables in one["all"]["hosts"].items():
                found["all"]["hosts"][name] = {**variables, "ebpf_fleet_cell": cell}
        return found

    def roll_out(self, stages: list[dict[str, Any]], options: str = "", **more: Any) -> events.Run:
        script = {ASK: {"*": CAPABILITY}, JUDGE: {"*": PASS}, "fake_hosts": self.digest}
        variables = given(self.bundle, ebpf_fleet_window_after=0, ebpf_fleet_stages=stages, **more)
        return events.run(self.folder, "rollout", self.hosts(), script, options=options, **variables)

    def runs(self) -> dict[str, Any]:
        """{host: (whether it runs the release, whether it is on probation)}."""
        fake = FakeHosts(self.folder / "scripted", self.digest)
        names = [name for names in CELLS.values() for name in names]
        return {one: (fake.state(one)["current"] == self.digest, fake.state(one)["lease"]) for one in names}

    def kinds(self) -> list[str]:
        return [str(one.data.get("action", one.kind)) for one in self.entries() if one.kind != ledger.OBSERVED]

    def entries(self) -> list[ledger.Entry]:
        found = ledger.verify((self.folder / "state/ebpf-fleet/ledger.jsonl").read_bytes())
        assert found.broken_line is None, found.fault
        return found.entries


@pytest.fixture
def fleet(tmp_path: Path, bundle: Path) -> Fleet:
    return Fleet(tmp_path, bundle)


@pytest.fixture
def behind_ssh(fleet: Fleet) -> Iterator[Fleet]:
    """The same, with both controllers behind an sshd of their own, which knows nothing of this run's settings."""
    reason = sshhosts.why_not()
    if reason:
        # Of the machine, such as a container that forbids namespaces: tests/holes.yml has each with its why.
        pytest.skip(reason)
    keys = fleet.folder / "keys"
    keys.mkdir()
    machines = sshhosts.Hosts(keys, first=90)
    try:
        # Where scripted hosts are, which a job of real hosts need not know.
        known = {"EBPF_FLEET_SCRIPT": fleet.folder / "scripted", "PYTHONPATH": f"{ROOT}:{ROOT}/collections"}
        config = "SetEnv " + " ".join(f"{name}={value}" for name, value in known.items())
        for cell in CELLS:
            machines.add("good", f"controller-{cell}", config=(config,))
        machines.wait()
        machines.inventory()
        for cell in CELLS:
            at = machines.variables[f"controller-{cell}"]
            options = ["-F", "none", "-i", at["ansible_ssh_private_key_file"], "-p", str(at["ansible_port"]),
                       "-o", f"UserKnownHostsFile={keys}/known_hosts"]  # fmt: skip
            fleet.controllers[cell] = {"ssh": f"root@{at['ansible_host']}", "options": options, "runner": RUNNER}
        yield fleet
    finally:
        machines.stop()


def lost(run: events.Run, fleet: Fleet, code: str, cell: str, why: str) -> None:
    """The rollout stopped for that cell, said so here and in the ledger, and put nothing into quarantine."""
    assert run.status == 2, run.said
    assert f"{code}: cell {cell}: its controller" in run.said and why in run.said, run.said
    ended = fleet.entries()[-1]
    assert (ended.kind, ended.data["outcome"]) == ("ended", "stopped") and f"{code}: cell {cell}" in ended.data[
        "sentence"
    ]
    assert "quarantined" not in fleet.kinds()


@pytest.mark.slow
def test_a_good_rollout_over_two_cells_behind_ssh_ends_everywhere(behind_ssh: Fleet) -> None:
    run = behind_ssh.roll_out(TWO_WAVES)
    assert run.status == 0, run.said
    assert behind_ssh.runs() == dict.fromkeys(behind_ssh.runs(), DONE)
    assert behind_ssh.kinds() == ["started", *["batch_begun", "verdict", "confirmed", "promoted"] * 2, "ended"]
    # Both cells at once, and what each job took.
    asked = run.results("Have cell controllers ask what their hosts can run")["a1"][0][1]
    assert {cell: one["hosts"] for cell, one in asked["cells"].items()} == {"a": 2, "b": 2}


@pytest.mark.slow
def test_a_cell_without_a_controller_is_driven_from_here_beside_one_that_has_one(fleet: Fleet) -> None:
    del fleet.controllers["b"]
    run = fleet.roll_out(ONE_WAVE)
    assert run.status == 0, run.said
    assert fleet.runs() == dict.fromkeys(fleet.runs(), DONE)
    changed = run.results("Have cell controllers deploy the release")["a1"][0][1]
    assert list(changed["cells"]) == ["a"] and sorted(changed["by_cell"]) == ["a1", "a2"]


@pytest.mark.slow
def test_a_controller_that_is_killed_holds_its_wave_and_nothing_before_it(behind_ssh: Fleet) -> None:
    """kill -9 in the middle of the change of the second wave: the worker has done a part of it."""
    behind_ssh.wrong(
        "b",
        "deploy",
        f"""{shlex.join(RUNNER)} "$@" <"$job" | while read -r line; do
    printf '%s\\n' "$line"
    case $line in *'"task": "Deploy the release"'*) kill -9 0 ;; esac
done""",
    )
    run = behind_ssh.roll_out(TWO_WAVES)
    lost(run, behind_ssh, LOST, "b", "before its answer was whole")
    assert behind_ssh.runs() == {"a1": DONE, "a2": DONE, "b1": BEFORE_IT, "b2": BEFORE_IT}
    assert behind_ssh.kinds() == ["started", "batch_begun", "verdict", "confirmed", "promoted", "batch_begun",
                                  "rolled_back", "ended"]  # fmt: skip


@pytest.mark.slow
def test_a_controller_that_hangs_is_told_by_its_silence(fleet: Fleet) -> None:
    """A worker that is stopped (SIGSTOP) in a wave of both cells: what the other cell changed goes back with it."""
    fleet.wrong("b", "deploy", "kill -STOP $$")
    fleet.silence = 30
    run = fleet.roll_out(ONE_WAVE)
    lost(run, fleet, LOST, "b", "said nothing for 30 s in the step deploy")
    assert fleet.runs() == dict.fromkeys(fleet.runs(), BEFORE_IT)


ONE_ANSWER = f"""{shlex.join(RUNNER)} "$@" <"$job" >"$HOME/answer"
"""
WRONG = {
    "twice": (ONE_ANSWER + 'cat "$HOME/answer" "$HOME/answer"; exit 0', ANSWER, "it answered twice"),
    "cut": (ONE_ANSWER + 'head -c 5000 "$HOME/answer"; exit 0', LOST, "before its answer was whole"),
    "flood": ('yes \'{"status": "running"}\'; exit 0', ANSWER, "it sent more than"),
    "noise": ("echo Welcome to the cell; exit 0", ANSWER, "is not JSON: Welcome to the cell"),
    "refused": ("echo no room >&2; exit 3", LOST, "ended with status 3 before its answer was whole: no room"),
}


@pytest.mark.parametrize("kind", WRONG)
@pytest.mark.sample(1)
def test_what_is_not_one_whole_answer_is_not_believed(fleet: Fleet, kind: str) -> None:
    wrong, code, why = WRONG[kind]
    fleet.wrong("b", "measure", wrong)
    run = fleet.roll_out(ONE_WAVE)
    lost(run, fleet, code, "b", why)
    # It was lost before the change: there is nothing to send back.
    assert fleet.runs() == dict.fromkeys(fleet.runs(), BEFORE_IT)
    assert "Deploy the release" not in run.tasks()


@pytest.mark.slow
def test_an_old_answer_that_is_sent_again_is_of_another_job(fleet: Fleet) -> None:
    """What the first wave measured, whole and good, comes as the answer of the second."""
    fleet.wrong(
        "b",
        "measure",
        f"""if [ -e "$HOME/answer" ]; then cat "$HOME/answer"; exit 0; fi
{ONE_ANSWER} cat "$HOME/answer"; exit 0""",
    )
    run = fleet.roll_out(ONE_WAVE)
    lost(run, fleet, ANSWER, "b", "an event is of the job")
    # The answer before the change was its own, that after it was not: all of the wave goes back.
    assert fleet.runs() == dict.fromkeys(fleet.runs(), BEFORE_IT)


@pytest.mark.slow
def test_check_mode_plans_by_jobs_and_changes_nothing(fleet: Fleet) -> None:
    run = fleet.roll_out(ONE_WAVE, options="--check")
    assert run.status == 0, run.said
    assert fleet.runs() == dict.fromkeys(fleet.runs(), BEFORE_IT)
    assert not (fleet.folder / "state/ebpf-fleet/ledger.jsonl").exists()


@pytest.mark.slow
def test_a_rollout_that_a_lost_cell_stopped_is_resumed_when_it_is_back(fleet: Fleet) -> None:
    good = dict(fleet.controllers["b"])
    fleet.wrong("b", "deploy", "exit 1")
    assert fleet.roll_out(TWO_WAVES).status == 2
    fleet.controllers["b"] = good
    run = fleet.roll_out(TWO_WAVES, ebpf_fleet_resume=fleet.entries()[0].rollout)
    assert run.status == 0, run.said
    assert fleet.runs() == dict.fromkeys(fleet.runs(), DONE)


def test_two_controllers_of_one_cell_are_refused(fleet: Fleet) -> None:
    hosts = fleet.hosts()
    hosts["all"]["hosts"]["a2"]["ebpf_fleet_cell_controllers"] = {"a": {"ssh": "elsewhere"}}
    fleet.hosts = lambda: hosts  # type: ignore[method-assign]
    run = fleet.roll_out(ONE_WAVE)
    assert run.status == 2 and "cell a has two controllers, of a1 this machine, of a2 elsewhere" in run.said, run.said
