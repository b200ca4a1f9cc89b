# SPDX-License-Identifier: GPL-3.0-or-later
"""Rollouts by the real playbooks with hosts that have a state: their ledger, and what people do with them by their id.

The controller's process is really killed, the lock is really another process's, hooks are really run and posted to.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout import ledger

from tests.integration.fake_hosts import OLD, FakeHosts
from tests.integration.scripted import Ended, begun, inventory, outcome, played
from tests.integration.test_rollout_scripted import (
    AFTER,
    ASK,
    BACK,
    CAPABILITY,
    CONFIRM,
    DEPLOY,
    FAIL,
    JUDGE,
    PASS,
    STOP,
    digest_of,
    given,
)
from tests.support.httpserver import respond, serving

pytestmark = pytest.mark.apart

OPEN = {**FAIL, "verdict": "inconclusive", "sentence": "not measured"}
# Three hosts, one after the other.
ONE_BY_ONE = {"ebpf_fleet_stages": [{"stage": "fleet"}], "ebpf_fleet_max_batch": 1}
HOSTS = ["w1", "w2", "w3"]


class Fleet(NamedTuple):
    """A folder in which playbooks are started, its hosts, and the bundle that goes to them."""

    folder: Path
    bundle: Path
    digest: str

    @property
    def ledger(self) -> Path:
        return self.folder / "state/ebpf-fleet/ledger.jsonl"

    @property
    def lock(self) -> Path:
        return self.folder / "state/ebpf-fleet/rollout.lock"

    def script(self, **more: Any) -> dict[str, Any]:
        return {ASK: {"*": CAPABILITY}, JUDGE: {"*": PASS}, "fake_hosts": self.digest, **more}

    def begin(self, script: dict[str, Any], **variables: Any) -> subprocess.Popen[str]:
        return begun(self.folder, "rollout", inventory(HOSTS), script, **given(self.bundle, **ONE_BY_ONE, **variables))

    def play(self, script: dict[str, Any], **variables: Any) -> Ended:
        return outcome(self.folder, self.begin(script, **variables))

    def ask(self, playbook: str, **variables: Any) -> Ended:
        """One of the playbooks for people, from another folder, as its calls are not the rollout's."""
        place = self.folder / "person"
        place.mkdir(exist_ok=True)
        return played(place, playbook, inventory(HOSTS), {}, **self.where(), **variables)

    def where(self) -> dict[str, str]:
        return {"ebpf_fleet_ledger": str(self.ledger.parent)}

    def reach(self, name: str) -> None:
        """Wait until a call that holds is reached."""
        until(lambda: (self.folder / f"scripted/at-{name}").exists())

    def go(self, name: str) -> None:
        (self.folder / f"scripted/go-{name}").touch()

    def entries(self) -> list[ledger.Entry]:
        # First the head: the rollout may write meanwhile.
        head = ledger.parse_head((self.ledger.parent / "head.json").read_bytes())
        found = ledger.verify(self.ledger.read_bytes(), head)
        assert found.broken_line is None, found.fault
        return found.entries

    def kinds(self) -> list[str]:
        """Every entry's kind, of an action what it was; what was measured is left out."""
        return [str(one.data.get("action", one.kind)) for one in self.entries() if one.kind != ledger.OBSERVED]

    def id(self) -> str:
        return self.entries()[0].rollout

    def runs(self) -> dict[str, Any]:
        """{host: (whether it runs the release, whether it is on probation)}."""
        fake = FakeHosts(self.folder / "scripted", self.digest)
        return {host: (fake.state(host)["current"] == self.digest, fake.state(host)["lease"]) for host in HOSTS}


def until(true: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.fixture
def fleet(tmp_path: Path, bundle: Path) -> Fleet:
    return Fleet(tmp_path, bundle, digest_of(bundle))


DONE, BEFORE_IT, PROBATION = (True, False), (False, False), (True, True)
BATCH = ["batch_begun", "verdict", "confirmed", "promoted"]


def kill(process: subprocess.Popen[str]) -> None:
    """kill -9 of the ansible-playbook process; its workers are ended too, as when a machine dies."""
    children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=False).stdout
    process.kill()
    process.wait(30)
    for child in children.split():
        try:
            os.kill(int(child), signal.SIGKILL)
        except ProcessLookupError:
            continue


def test_a_rollout_is_recorded_from_its_begin_to_its_end_and_gives_the_lock_back(fleet: Fleet) -> None:
    ended = fleet.play(fleet.script())
    assert ended.status == 0, ended.said
    assert fleet.runs() == dict.fromkeys(HOSTS, DONE)
    assert fleet.kinds() == ["started", *BATCH * 3, "ended"]
    started = fleet.entries()[0].data
    assert started["bundle_digest"] == fleet.digest and started["plan"]["hosts"] == HOSTS
    assert not fleet.lock.exists() and list((fleet.ledger.parent / "requests").iterdir()) == []
    before = [one.data for one in fleet.entries() if one.kind == ledger.OBSERVED and one.data["when"] == "before"]
    assert before[0]["running"] == {"w1": {"digest": OLD, "lease": False}}
    assert all(len(one["digests"][host]) == 64 for one, host in zip(before, HOSTS))
    told = fleet.ask("history")
    assert told.status == 0 and f"{fleet.id()}" in told.said and "complete 3 of 3 batches promoted" in told.said
    assert f"the chain of {len(fleet.entries())} lines is sound" in told.said
    told = fleet.ask("history", ebpf_fleet_rollout_id=fleet.id())
    for sentence in ("stage fleet, batch 2 begins: w2", "batch 3 is judged pass: all well", "now: complete."):
        assert sentence in told.said, told.said


@pytest.mark.slow
def test_two_rollouts_at_once(fleet: Fleet, tmp_path: Path) -> None:
    first = fleet.begin(fleet.script(**{JUDGE: {"w1": {**PASS, "hold": "judge"}, "*": PASS}}))
    fleet.reach("judge")
    other = tmp_path / "other"
    other.mkdir()
    second = played(other, "rollout", inventory(HOSTS), fleet.script(), **given(fleet.bundle, **fleet.where()))
    assert second.status == 2
    lock = json.loads(fleet.lock.read_text())
    assert "EF_ROLLOUT_RUNNING: one rollout at a time: rollout " + fleet.id() in second.said
    assert f"(process {lock['pid']}), since {lock['since']}" in second.said and lock["pid"] == first.pid
    assert second.calls == [] or not any(call.task == ASK for call in second.calls)
    fleet.go("judge")
    ended = outcome(fleet.folder, first)
    assert ended.status == 0 and fleet.runs() == dict.fromkeys(HOSTS, DONE)


@pytest.mark.slow
def test_a_pause_is_honoured_before_the_next_batch_and_can_be_resumed(fleet: Fleet) -> None:
    process = fleet.begin(fleet.script(**{JUDGE: {"w1": {**PASS, "hold": "judge"}, "*": PASS}}))
    fleet.reach("judge")
    asked = fleet.ask("pause")
    assert asked.status == 0 and f"rollout {fleet.id()} pauses before its next batch" in asked.said
    fleet.go("judge")
    ended = outcome(fleet.folder, process)
    assert ended.status == 2
    assert f"EF_ROLLOUT_PAUSED: rollout {fleet.id()} pauses before batch 2 (stage fleet), as root asked" in ended.said
    assert not ended.asked(BACK) and STOP not in ended.said, "nothing goes back"
    assert fleet.runs() == {"w1": DONE, "w2": BEFORE_IT, "w3": BEFORE_IT} and not fleet.lock.exists()
    ended = fleet.play(fleet.script(), ebpf_fleet_resume=fleet.id())
    assert ended.status == 0, ended.said
    assert [call.host for call in ended.asked(DEPLOY)] == ["w2", "w3"]
    assert fleet.runs() == dict.fromkeys(HOSTS, DONE)
    assert fleet.kinds() == ["started", *BATCH, "paused", "resumed", *BATCH * 2, "ended"]
    assert "1 of 3 hosts are done" in ended.part("Print the plan")


@pytest.mark.slow
def test_a_rollout_that_runs_is_ended_and_its_batch_goes_back(fleet: Fleet) -> None:
    process = fleet.begin(fleet.script(**{JUDGE: {"w2": {**PASS, "hold": "judge"}, "*": PASS}}))
    fleet.reach("judge")
    threading.Timer(12, fleet.go, ["judge"]).start()
    asked = fleet.ask("abort", ebpf_fleet_abort_wait=120)
    ended = outcome(fleet.folder, process)
    assert asked.status == 0, asked.said
    assert ended.status == 2 and f"EF_ROLLOUT_ABORTED: rollout {fleet.id()} ends, as root asked: batch 2" in ended.said
    assert "Why: a person asked it to end." in ended.part(STOP)
    assert fleet.runs() == {"w1": DONE, "w2": BEFORE_IT, "w3": BEFORE_IT}
    assert fleet.kinds()[-4:] == ["verdict", "aborted", "rolled_back", "ended"]
    assert fleet.entries()[-1].data["outcome"] == "aborted" and not fleet.lock.exists()
    assert not (fleet.ledger.parent / "quarantine.json").exists(), "the release has no fault"


@pytest.mark.slow
def test_what_could_not_be_judged_is_watched_longer(fleet: Fleet) -> None:
    ended = fleet.play(fleet.script(**{JUDGE: {"w1": [OPEN, PASS], "*": PASS}}))
    assert ended.status == 0, ended.said
    # Each reading of a batch spends its own part of the error rate, and is compared with hosts of the same moments.
    readings = [(call.host, call.arguments["readings"], call.arguments["reading"]) for call in ended.asked(JUDGE)]
    assert readings == [("w1", 2, 1), ("w1", 2, 2), ("w2", 2, 1), ("w3", 2, 1)]
    first, second = ended.asked("Begin to measure the controls after")[:2]
    assert first.arguments["hosts"] == second.arguments["hosts"] != []
    assert [call.host for call in ended.asked(AFTER)] == ["w1", "w1", "w2", "w3"]
    assert [call.arguments["holder"] for call in ended.asked("Renew the lease")] == ["rollout of 1.0.0"]
    verdicts = [one.data["verdict"] for one in fleet.entries() if one.kind == ledger.VERDICT]
    assert verdicts == ["inconclusive", "pass", "pass", "pass"]


@pytest.mark.slow
def test_a_held_batch_is_promoted_by_a_person(fleet: Fleet) -> None:
    script = fleet.script(**{JUDGE: {"w2": OPEN, "*": PASS}})
    process = fleet.begin(script, ebpf_fleet_hold_seconds=100, ebpf_fleet_bake_extensions=2)
    until(lambda: (fleet.ledger.parent / "head.json").exists() and "held" in fleet.kinds())
    asked = fleet.ask("promote", ebpf_fleet_rollout_id=fleet.id())
    assert asked.status == 0, asked.said
    ended = outcome(fleet.folder, process)
    assert ended.status == 0, ended.said
    assert [call.host for call in ended.asked(JUDGE)].count("w2") == 3 and len(ended.asked("Renew the lease")) == 3
    assert fleet.runs() == dict.fromkeys(HOSTS, DONE)
    (held,) = [one.data for one in fleet.entries() if one.data.get("action") == ledger.HELD]
    assert held == {"action": "held", "number": 2, "seconds": 100}
    promoted = [one.data.get("who") for one in fleet.entries() if one.data.get("action") == ledger.PROMOTED]
    assert promoted == [None, "root", None]
    told = fleet.ask("history", ebpf_fleet_rollout_id=fleet.id())
    assert "batch 2 is held for a person" in told.said and "batch 2 is promoted, by root" in told.said


@pytest.mark.slow
def test_a_hold_that_no_one_answers_goes_back_and_a_batch_that_is_not_held_cannot_be_promoted(fleet: Fleet) -> None:
    script = fleet.script(**{JUDGE: {"*": OPEN}})
    ended = fleet.play(script, ebpf_fleet_hold_seconds=3, ebpf_fleet_rollout_renew_seconds=2)
    assert ended.status == 2 and "EF_GATE_INCONCLUSIVE: Stage fleet: not measured" in ended.said
    # One look longer, and the hold in slices of 2 s and 1 s, each with a lease.
    assert len(ended.asked("Renew the lease")) == 3
    assert fleet.runs() == dict.fromkeys(HOSTS, BEFORE_IT)
    assert fleet.kinds() == ["started", "batch_begun", "verdict", "verdict", "held", "rolled_back", "ended"]
    assert not (fleet.ledger.parent / "quarantine.json").exists(), "what was not measured is no fault"
    refused = fleet.ask("promote", ebpf_fleet_rollout_id=fleet.id())
    assert refused.status == 2 and f"EF_ROLLOUT_STATE: rollout {fleet.id()} is stopped" in refused.said


@pytest.mark.slow
def test_a_failed_batch_quarantines_the_release_and_all_of_it_may_go_back(fleet: Fleet) -> None:
    script = fleet.script(**{JUDGE: {"w2": FAIL, "*": PASS}})
    ended = fleet.play(script, ebpf_fleet_rollback_all=True)
    assert ended.status == 2, ended.said
    assert fleet.runs() == dict.fromkeys(HOSTS, BEFORE_IT)
    everything = ended.asked("Return every host to the release that it ran before")
    assert [call.arguments["hosts"] for call in everything] == [["w1"]]
    assert fleet.kinds()[-4:] == ["rolled_back", "rolled_back", "quarantined", "ended"]
    document = json.loads((fleet.ledger.parent / "quarantine.json").read_text())
    (entry,) = document["entries"]
    assert document["schema"] == "ebpf.fleet/quarantine/v1" and entry["rollout"] == fleet.id()
    assert (entry["digest"], entry["stratum"], entry["why"]) == (fleet.digest, "6.1/unknown/debian", "2 checks fail")
    assert (
        f"lift the quarantine (ebpf.fleet.quarantine -e ebpf_fleet_lift_quarantine={fleet.digest[:12]})" in ended.said
    )
    kept = fleet.play(fleet.script())
    assert kept.status == 2 and "quarantined" in kept.said and not kept.asked(DEPLOY), kept.said
    told = fleet.ask("quarantine")
    assert told.status == 0 and f"{fleet.digest[:12]} may not go to 6.1/unknown/debian since" in told.said
    assert told.screen == [
        "PLAY Quarantine of releases",
        "Refuse values that cannot be used: ok w1>localhost",
        "Lift the quarantine of a release: skipping w1",
        "Read the quarantine: ok w1",
        "Print what is quarantined: ok w1",
    ], told.said
    wrong = fleet.ask("quarantine", ebpf_fleet_lift_quarantine="abcdef")
    assert wrong.status == 2 and "EF_ARGUMENT: ebpf_fleet_lift_quarantine: abcdef is not quarantined" in wrong.said
    lifted = fleet.ask("quarantine", ebpf_fleet_lift_quarantine=f"{fleet.digest[:8]}@6.1/unknown/debian")
    assert lifted.status == 0 and "nothing is quarantined" in lifted.said
    assert (
        fleet.kinds()[-1] == "lifted"
        and json.loads((fleet.ledger.parent / "quarantine.json").read_text())["entries"] == []
    )
    assert fleet.play(fleet.script()).status == 0 and fleet.runs() == dict.fromkeys(HOSTS, DONE)


# --- kill -9 of the controller -------------------------------------------------------------------

POINTS = {
    # where it dies: what the hosts are then
    "before deploy": ({DEPLOY: {"w2": {"hold": "here"}}}, BEFORE_IT),
    "deployed": ({AFTER: {"w2": {"hold": "here"}}}, PROBATION),
    "judged": ({JUDGE: {"w2": {**PASS, "hold": "here"}, "*": PASS}}, PROBATION),
    "before confirm": ({CONFIRM: {"w2": {"hold": "here"}}}, PROBATION),
}


@pytest.mark.parametrize("point", POINTS)
@pytest.mark.sample(1)
def test_a_controller_that_is_killed_is_resumed_from_the_truth_on_the_hosts(fleet: Fleet, point: str) -> None:
    script, state = POINTS[point]
    process = fleet.begin(fleet.script(**script))
    fleet.reach("here")
    kill(process)
    assert fleet.runs() == {"w1": DONE, "w2": state, "w3": BEFORE_IT}
    # As a crash in the middle of a write leaves it.
    with fleet.ledger.open("ab") as file:
        file.write(b'{"data":{"number":2,"sta')
    told = fleet.ask("history", ebpf_fleet_rollout_id=fleet.id())
    assert told.status == 0 and "now: interrupted. Its process is gone." in told.said
    assert "the last line was torn by a crash (24 bytes)" in told.said
    ended = fleet.play(fleet.script(), ebpf_fleet_resume=fleet.id())
    assert ended.status == 0, ended.said
    assert f"the lock of rollout {fleet.id()} of root" in ended.said and "that process has ended" in ended.said
    assert [call.host for call in ended.asked(CONFIRM)] == ["w2", "w3"]
    assert fleet.runs() == dict.fromkeys(HOSTS, DONE)
    kinds = fleet.kinds()
    assert kinds[kinds.index("repaired") : kinds.index("repaired") + 2] == ["repaired", "resumed"]
    assert kinds[-1] == "ended" and kinds.count("promoted") == 3
    assert (fleet.ledger.parent / "torn.log").read_bytes() == b'{"data":{"number":2,"sta\n'


@pytest.mark.slow
def test_check_mode_shows_what_a_resumed_rollout_would_do_and_writes_nothing(fleet: Fleet) -> None:
    process = fleet.begin(fleet.script(**{AFTER: {"w2": {"hold": "here"}}}))
    fleet.reach("here")
    kill(process)
    before = {path.name: path.read_bytes() for path in fleet.ledger.parent.iterdir() if path.is_file()}
    again = begun(fleet.folder, "rollout", inventory(HOSTS), fleet.script(), "--check",
                  **given(fleet.bundle, **ONE_BY_ONE, ebpf_fleet_resume=fleet.id()))  # fmt: skip
    ended = outcome(fleet.folder, again)
    assert ended.status == 0, ended.said
    # What is done is done: the first batch is not planned again.
    assert sorted({call.host for call in ended.asked(DEPLOY)}) == ["w2", "w3"]
    assert all(call.check for call in ended.calls if call.module in ("release", "host_prepare", "lease"))
    assert {path.name: path.read_bytes() for path in fleet.ledger.parent.iterdir() if path.is_file()} == before
    assert fleet.runs() == {"w1": DONE, "w2": PROBATION, "w3": BEFORE_IT}


@pytest.mark.slow
def test_a_resumed_batch_that_fails_goes_back_although_it_ran_the_release_before(fleet: Fleet) -> None:
    """The killed run had put it there: on probation, and never judged."""
    process = fleet.begin(fleet.script(**{AFTER: {"w2": {"hold": "here"}}}))
    fleet.reach("here")
    kill(process)
    ended = fleet.play(fleet.script(**{JUDGE: {"*": FAIL}}), ebpf_fleet_resume=fleet.id())
    assert ended.status == 2, ended.said
    assert fleet.runs() == {"w1": DONE, "w2": BEFORE_IT, "w3": BEFORE_IT}


@pytest.mark.slow
def test_a_killed_rollout_is_ended_from_another_process(fleet: Fleet) -> None:
    process = fleet.begin(fleet.script(**{AFTER: {"w2": {"hold": "here"}}}))
    fleet.reach("here")
    kill(process)
    place = fleet.folder
    ended = played(place, "abort", inventory(HOSTS), fleet.script(), **fleet.where(), ebpf_fleet_rollout_id=fleet.id())
    assert ended.status == 0, ended.said
    assert fleet.runs() == {"w1": DONE, "w2": BEFORE_IT, "w3": BEFORE_IT}
    assert fleet.kinds()[-3:] == ["aborted", "rolled_back", "ended"] and not fleet.lock.exists()


@pytest.mark.slow
def test_a_confirmed_host_that_the_ledger_does_not_know_is_done_and_one_that_was_changed_since_is_not(
    fleet: Fleet,
) -> None:
    process = fleet.begin(fleet.script(**{CONFIRM: {"w2": {"hold": "here"}}}))
    fleet.reach("here")
    kill(process)
    fake = FakeHosts(fleet.folder / "scripted", fleet.digest)
    fake.put("w1", current=OLD)
    fake.put("w2", lease=False)
    ended = fleet.play(fleet.script(), ebpf_fleet_resume=fleet.id())
    assert ended.status == 0, ended.said
    assert [call.host for call in ended.asked(DEPLOY)] == ["w1", "w3"]
    plan = ended.part("Print the plan")
    assert "w1: the ledger says promoted, and the host does not show it: they go again" in plan
    assert "w2: done, though the ledger does not say that their batch was promoted" in plan
    assert fleet.runs() == dict.fromkeys(HOSTS, DONE)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("Ask every host what it runs", {}),
        ("Ask every host whether it is on probation", {}),
        ("Ask every host whether it is on probation", {"unreachable": True}),
    ],
)
def test_a_host_that_does_not_tell_is_not_done_and_goes_with_its_batch(
    fleet: Fleet, question: str, answer: dict[str, Any]
) -> None:
    process = fleet.begin(fleet.script(**{AFTER: {"w2": {"hold": "here"}}}))
    fleet.reach("here")
    kill(process)
    silent = {question: {"w1": {"failed": True, "msg": "no python", **answer, "told": False}}}
    ended = fleet.play(fleet.script(**silent), ebpf_fleet_resume=fleet.id())
    assert ended.status == 0, ended.said
    assert [call.host for call in ended.asked(DEPLOY)] == HOSTS
    assert fleet.runs() == dict.fromkeys(HOSTS, DONE)


@pytest.mark.slow
def test_a_rollout_of_which_nothing_remains_ends_without_a_batch(fleet: Fleet) -> None:
    process = fleet.begin(fleet.script(**{CONFIRM: {"w2": {"hold": "here"}}}))
    fleet.reach("here")
    kill(process)
    fake = FakeHosts(fleet.folder / "scripted", fleet.digest)
    for host in HOSTS:
        fake.put(host, current=fleet.digest, lease=False)
    ended = fleet.play(fleet.script(), ebpf_fleet_resume=fleet.id())
    assert ended.status == 0, ended.said
    assert not ended.asked(DEPLOY) and fleet.kinds()[-2:] == ["resumed", "ended"]
    assert fleet.entries()[-1].data == {"outcome": "complete", "sentence": "every host was done"}
    assert not fleet.lock.exists()


@pytest.mark.parametrize(
    ("wanted", "sentence"),
    [
        ("none", "EF_ROLLOUT_UNKNOWN: rollout 'none' is not in the ledger"),
        ("", "is complete: only one that has ended early"),
    ],
)
@pytest.mark.sample(1)
@pytest.mark.slow
def test_what_cannot_be_resumed_is_refused_before_any_host_is_changed(fleet: Fleet, wanted: str, sentence: str) -> None:
    assert fleet.play(fleet.script()).status == 0
    ended = fleet.play(fleet.script(), ebpf_fleet_resume=wanted or fleet.id())
    assert ended.status == 2 and sentence in ended.said and not ended.asked(DEPLOY)


@pytest.mark.slow
def test_a_changed_ledger_is_told_and_no_rollout_begins(fleet: Fleet) -> None:
    assert fleet.play(fleet.script()).status == 0
    lines = fleet.ledger.read_bytes().splitlines(keepends=True)
    fleet.ledger.write_bytes(b"".join([*lines[:2], lines[2].replace(b'"w1"', b'"w9"'), *lines[3:]]))
    told = fleet.ask("history")
    assert told.status == 2 and "EF_LEDGER_BROKEN" in told.said and "the chain is broken at line 4" in told.said
    ended = fleet.play(fleet.script())
    assert ended.status == 2 and "EF_LEDGER_BROKEN" in ended.part("Take the fleet's lock") and not ended.calls[1:]


# --- hooks ---------------------------------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    got: list[dict[str, Any]] = []

    def answer(request: BaseHTTPRequestHandler) -> None:
        got.append(json.loads(request.rfile.read(int(request.headers["Content-Length"]))))
        respond(request, 500 if request.path.startswith("/bad") else 204)

    with serving(answer) as url:
        yield url, got


@pytest.mark.slow
def test_hooks_get_entries_and_decide_nothing(fleet: Fleet, server: tuple[str, list[dict[str, Any]]]) -> None:
    url, got = server
    told = fleet.folder / "told.jsonl"
    hooks = [
        {"command": ["/bin/sh", "-c", f"cat >> {told}"]},
        {"url": f"{url}/good?key=secret", "on": ["started", "promoted", "ended"]},
        {"url": f"{url}/bad?key=secret", "on": ["ended"]},
        {"command": ["/bin/sh", "-c", "echo no room >&2; exit 3"], "on": ["verdict"]},
        {"command": ["/bin/sleep", "60"], "on": ["confirmed"], "timeout": 0.2},
        {"command": ["/nowhere/program"], "on": ["started"]},
    ]
    ended = fleet.play(fleet.script(), ebpf_fleet_hooks=hooks, ebpf_fleet_hosts="w1")
    assert ended.status == 0, ended.said
    assert fleet.runs()["w1"] == DONE
    written = {one.sequence: one for one in fleet.entries()}
    lines = [json.loads(line) for line in told.read_text().splitlines()]
    assert [one["sequence"] for one in lines] == [one for one in written if written[one].kind != ledger.HOOK_FAILED]
    assert [one["data"].get("action", one["kind"]) for one in got] == ["started", "promoted", "ended", "ended"]
    failed = {
        (one.data["kind"], one.data["hook"]): one.data["why"] for one in written.values() if one.kind == "hook_failed"
    }
    assert failed == {
        ("ended", "http://127.0.0.1"): "answered with 500",
        ("verdict", "/bin/sh"): "ended with 3: no room",
        ("confirmed", "/bin/sleep"): "was ended after 0.2 s",
        ("started", "/nowhere/program"): "cannot be run: No such file or directory",
    }
    assert "hook /bin/sh failed on verdict" in ended.said and "secret" not in ended.said
    assert b"secret" not in fleet.ledger.read_bytes()


@pytest.mark.slow
def test_a_host_that_names_hooks_runs_nothing_here(fleet: Fleet) -> None:
    """With facts as variables, as ansible-core has it without our ansible.cfg."""
    proof = fleet.folder / "proof"
    hooks = [{"command": ["/bin/touch", str(proof)]}]
    lie = {"ebpf_fleet_hooks": hooks, "ebpf_fleet_ledger": str(fleet.folder / "elsewhere"),
           "ebpf_fleet_promoted_by": "the host", "ebpf_fleet_hold_seconds": 600}  # fmt: skip
    script = fleet.script(**{ASK: {"*": {**CAPABILITY, "ansible_facts": lie}}, AFTER: {"*": {"ansible_facts": lie}}})
    process = begun(fleet.folder, "rollout", inventory(["w1"]), {**script, JUDGE: {"*": OPEN}},
                    environment={"ANSIBLE_INJECT_FACT_VARS": "true"}, **given(fleet.bundle))  # fmt: skip
    ended = outcome(fleet.folder, process)
    assert ended.status == 2, "what could not be judged was promoted by its own word"
    assert not proof.exists() and not (fleet.folder / "elsewhere").exists() and fleet.kinds()[-1] == "ended"


@pytest.mark.slow
def test_check_mode_takes_no_lock_and_writes_no_ledger(fleet: Fleet) -> None:
    process = begun(fleet.folder, "rollout", inventory(["w1"]), fleet.script(), "--check", **given(fleet.bundle))
    ended = outcome(fleet.folder, process)
    assert ended.status == 0, ended.said
    assert "Take the fleet's lock: skipping w1" in ended.screen
    assert not fleet.ledger.parent.exists()
