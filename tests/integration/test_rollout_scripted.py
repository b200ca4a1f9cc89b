# SPDX-License-Identifier: GPL-3.0-or-later
"""A whole rollout by the real playbook, with hosts that answer by a script: each task, for whom, with which values."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle import files as bd
from ansible_collections.ebpf.fleet.plugins.module_utils.kill import rollback, script
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout import controls

from tests.integration.release_host import make_key, public_key
from tests.integration.scripted import ROOT, Call, Ended, inventory, played

pytestmark = pytest.mark.apart

PREPARE = "Prepare user, directories, trust and unit"
ASK, BEFORE, DEPLOY = "Ask every host what it can run", "Measure before", "Deploy the release"
AFTER, JUDGE, CONFIRM = (
    "Let it bake, then measure after",
    "Judge the batch",
    "Confirm the release and end its probation",
)
BACK, TRUST, STOP = (
    "Return the host to the release that it ran before",
    "Restore the signers where the release stays",
    "Stop the rollout",
)
PROFILE = {"profile": "full", "variant": "full", "reason_code": "EF_OK", "reason": "fits"}
CAPABILITY = {
    "capabilities": {"kernel": {"family": "6.1", "release": "6.1.0-1"}, "machine": "x86_64", "distro": {"id": "debian"},
                     "btf": {"state": "vmlinux"}},
    "profiles": {"exec_events": PROFILE, "runqlat": PROFILE},
}  # fmt: skip
# Each is of two halves, as each batch's measurement has a beginning and an end.
CONTROLS = [("Begin to measure", " before"), ("End", "' measurement before"), ("Begin to measure", " after"),
            ("End", "' measurement after")]  # fmt: skip
BUDGET = {"dry_run": [], "error_rate": 0.05}
PASS = {"verdict": "pass", "sentence": "all well", "checks": [], "reasons": [], "next": []}
FAIL = {
    "verdict": "fail", "sentence": "2 checks fail", "checks": [{"name": "one"}, {"name": "two"}, {"name": "three"}],
    "reasons": [{"host": "w2", "sentence": "w2 is slow"}, {"host": None, "sentence": "all are slow"}],
    "next": ["raise the limit", "or wait"],
}  # fmt: skip


def changed(seconds: int = 400) -> dict[str, Any]:
    return {"changed": True, "lease": {"holder": "rollout of 1.0.0", "seconds": seconds}}


GOOD: dict[str, Any] = {ASK: {"*": CAPABILITY}, DEPLOY: {"*": changed()}, JUDGE: {"*": PASS},
                        "Judge what fails plainly": {"*": PASS}}  # fmt: skip


def given(bundle: Path, **more: Any) -> dict[str, Any]:
    signers = f'release@example.org namespaces="ebpf-fleet-release" {public_key(make_key())}'
    return {"ebpf_fleet_bundle": str(bundle), "ebpf_fleet_allowed_signers": signers, "ebpf_fleet_bake": 0, **more}


def answered(**fields: Any) -> dict[str, Any]:
    """What fan_out has of a host that answered the script of the way back."""
    return {"rc": 0, "stdout": rollback.MARK + json.dumps({"ok": True, "changed": True, **fields}) + "\n"}


def way_back(digest: str | None, trust_only: bool = False) -> str:
    return script.command(rollback.render_rollback(digest, wait_seconds=30, trust_only=trust_only))


# --- what an operator sees -----------------------------------------------------------------------

PLANNED = """
PLAY Plan the rollout
Refuse names that mean no host, and a play that leaves one out: ok w1>localhost
Refuse a rollout that is not complete: ok w1>localhost
Refuse values that cannot be used: ok w1>localhost
Refuse a folder for records that cannot be used: ok w1>localhost
Read the bundle: ok w1>localhost
Refuse a bundle that cannot be used: skipping w1
Refuse trust that would not take this bundle: ok w1>localhost
Refuse features that the bundle does not hold: ok w1>localhost
Refuse limits and checks that the gate does not know: ok w1
Refuse a lease that would run out while its batch is watched: ok w1>localhost
Remember how to judge and where to record: ok w1, ok w2, ok w3
Take the fleet's lock: ok w1
Give hosts the kill orders that stand: ok w1>localhost
Have cell controllers ask what their hosts can run: ok w1
Ask every host what it can run: ok w1, ok w2, ok w3
Find the hosts that take part, and why the others do not: ok w1>localhost
Refuse a quarantine that cannot be used: skipping w1
Hold unless every host answered: ok w1>localhost
Refuse policy features where no healthy release observes the host: ok w1>localhost
Find kill orders that would keep the release off: ok w1>localhost
Sort hosts into stages and batches: ok w1>localhost
Refuse a plan that cannot be carried out: skipping w1
Ask whether a batch may start now: ok w1>localhost
Go on with a rollout that was begun: skipping w1, skipping w2, skipping w3
Choose the hosts that each batch is compared with: ok w1>localhost
Print the plan: ok w1>localhost
Refuse a rollout that a kill order keeps off: ok w1>localhost
Refuse a rollout in a freeze window or in blocked hours: ok w1>localhost
Begin the rollout in the ledger: ok w1
Queue the hosts batch by batch: ok w1 (w1), ok w1 (w2), ok w1 (w3)
""".strip().splitlines()
CHANGED = """
PLAY Roll out
Begin the batch in the ledger, unless a freeze or a person holds it: ok FIRST
Begin to measure the controls before: COMPARED
Have cell controllers measure before: skipping FIRST
Measure before: ok HOST
Ask for the applications' latency before: skipping FIRST
End the controls' measurement before: COMPARED
Record in the ledger what ran before: ok FIRST
Hold where a cell controller did not measure before: skipping FIRST
Give hosts of cell controllers the kill orders that stand: skipping FIRST
Have cell controllers prepare their hosts: skipping FIRST
ebpf.fleet.prepare : Validating arguments against arg spec 'main': ok HOST
ebpf.fleet.prepare : Refuse a host without trust: ok HOST
ebpf.fleet.prepare : Refuse host limits that cannot be used: ok HOST
ebpf.fleet.prepare : Refuse settings of the kill list that cannot be used: skipping HOST
ebpf.fleet.prepare : Ask for the running kernel: skipping HOST
ebpf.fleet.prepare : Install BCC and the kernel's headers: skipping HOST
ebpf.fleet.prepare : Prepare user, directories, trust and unit: ok HOST
Hold where a cell controller did not prepare its hosts: skipping FIRST
Have cell controllers deploy the release: skipping FIRST
ebpf.fleet.deploy : Validating arguments against arg spec 'main': ok HOST
ebpf.fleet.deploy : Refuse a deployment without a bundle: ok HOST
ebpf.fleet.deploy : Deploy the release: changed HOST
Hold where a cell controller did not deploy the release: skipping FIRST
Bake in slices where it takes long: skipping HOST
Let it bake before the controls are measured: skipping FIRST
Begin to measure the controls after: COMPARED
Have cell controllers let it bake, then measure after: skipping FIRST
Let it bake, then measure after: ok HOST
Hold where a cell controller did not measure after: skipping FIRST
Ask for the applications' latency after: skipping FIRST
End the controls' measurement after: COMPARED
Judge the batch: ok FIRST
Record the verdict in the ledger: ok FIRST
Watch longer, or hold for a person, what could not be judged: skipping HOST
""".strip().splitlines()
PROMOTED = """
Promote only on a pass: ok HOST
Have cell controllers confirm: skipping FIRST
Confirm the release and end its probation: ok HOST
Hold unless every host has confirmed: ok HOST
Record the promotion in the ledger: ok FIRST
""".strip().splitlines()
RECORDED = """
Record the batch: includes record_batch.yml for HOSTS
Write the batch's record, and the report of the rollout so far: ok FIRST
""".strip().splitlines()
RETURNED = """
Promote only on a pass: FAILED HOST
Print every check that stands in the way: ok FIRST
Choose the hosts that go back: ok HOST
Give the hosts that go back the kill orders that stand: ok FIRST>localhost
Return the host to the release that it ran before: changed FIRST>localhost
Restore the signers where the release stays: skipping FIRST
Remember what became of this host's trust: skipping HOST
Remember what this host answered: ok HOST
Return everything that this rollout changed: skipping HOST
Record the way back in the ledger: ok FIRST
""".strip().splitlines()
STOPPED = ["Stop the rollout: FAILED HOST"]


def lines(part: list[str], *hosts: str, compared: bool = False) -> list[str]:
    """The lines of a batch's tasks: HOST is each of them, FIRST the first; `compared` is whether it has controls."""
    found = []
    for line in part:
        line = line.replace("COMPARED", "ok FIRST>localhost" if compared else "skipping FIRST")
        line = line.replace("HOSTS", " ".join(hosts)).replace("FIRST", hosts[0])
        name, _colon, state = line.rpartition(": ")
        found.append(f"{name}: {', '.join(state.replace('HOST', host) for host in hosts)}" if "HOST" in state else line)
    return found


def test_a_good_rollout_does_each_task_once_for_whom_it_is(tmp_path: Path, bundle: Path) -> None:
    (tmp_path / "records").mkdir()
    ended = played(tmp_path, "rollout", inventory(["w1", "w2", "w3"]), GOOD,
                   **given(bundle, ebpf_fleet_report_dir="records"))  # fmt: skip
    assert ended.status == 0, ended.said
    batch = [*CHANGED, *PROMOTED, *RECORDED]
    assert ended.screen == [*PLANNED, *lines(batch, "w1", compared=True), *lines(batch, "w2", "w3")]
    assert ended.part("Print the plan").endswith(
        "ok: [w1 -> localhost] => msg: "
        "- '3 hosts in 2 batches, 2 at once at most; shares: 100 % of the fleet and 100 % of each cell' "
        "- 'canary: 1 host in batches of 1: w1; 0 s of bake' - 'cell: 2 hosts in batches of 2: w2, w3; 0 s of bake' "
        "- 'stage region is dropped: no host is left for it' - 'stage fleet is dropped: no host is left for it'"
    )
    assert "msg: 'Stage canary: all well'" in ended.said and ended.said.count("msg: 'Stage cell: all well'") == 2
    # No "All assertions passed" beside each refusal that did not refuse.
    assert "All assertions passed" not in ended.said and "invocation" not in ended.said
    expected_values(ended, bundle)
    record = json.loads((tmp_path / "records/batch-02.json").read_text())
    assert (tmp_path / "records/batch-02.json").stat().st_mode & 0o777 == 0o644
    digest = ended.asked(CONFIRM)[0].arguments["digest"]
    assert record.pop("bundle")["version"] == "1.0.0" and len(digest) == 64
    assert re.fullmatch(r"\d{8}-\d{6}-[0-9a-f]{6}", record.pop("rollout"))
    assert len(list((tmp_path / "records").glob("rollout-*.html"))) == 1
    assert record == {"stage": "cell", "number": 2, "hosts": ["w2", "w3"], "outcome": "promoted", "digest": digest,
                      "verdict": "pass", "sentence": "all well", "checks": [], "reasons": [], "next": [],
                      "before_after": {}, "returned": {}}  # fmt: skip
    assert json.loads((tmp_path / "records/batch-01.json").read_text())["hosts"] == ["w1"]


def expected_values(ended: Ended, path: Path) -> None:
    """What every module got in a rollout of which nothing was said but bundle, signers and bake."""
    digest = ended.asked(CONFIRM)[0].arguments["digest"]
    in_order = [call.task for call in ended.calls if call.host == "w2"]
    assert in_order == [ASK, BEFORE, PREPARE, DEPLOY, AFTER, JUDGE, CONFIRM]
    features = ["exec_events", "runqlat"]
    for call in ended.asked(ASK):
        assert (names(call), call.arguments["btf_index"], call.arguments["fallbacks"]) == (features, [], [])
        assert set(call.arguments) == {"contracts", "btf_index", "fallbacks"}
    for call in ended.asked(BEFORE):
        assert call.arguments == {"window": 10}
    for call in ended.asked(AFTER):
        assert call.arguments == {"bake": 0, "window": 30}
    for call in ended.asked(CONFIRM):
        assert call.arguments == {"state": "confirmed", "digest": digest}
    for call in ended.asked(DEPLOY):
        lease = {"seconds": 400 if call.host == "w1" else 410, "holder": "rollout of 1.0.0"}
        assert call.arguments == {"allow_downgrade": False, "bundle": str(path), "digest": digest, "fallbacks": [],
                                  "keep": 3, "lease": lease, "wait": 60}  # fmt: skip
    asked = [ended.asked(f"{when} the controls{what}") for when, what in CONTROLS]
    assert [[sorted(call.arguments["hosts"]) for call in calls] for calls in asked] == [[["w2", "w3"]]] * 4
    assert all("@psi_io" in calls[0].arguments["command"] for calls in asked)
    first, second = ended.asked(JUDGE)
    assert (first.arguments["hosts"], second.arguments["hosts"], names(first)) == (["w1"], ["w2", "w3"], features)
    rest = {name: value for name, value in second.arguments.items() if name not in ("hosts", "contracts")}
    assert rest == {"before_var": "ebpf_fleet_before", "after_var": "ebpf_fleet_after", "digest": digest,
                    "expected_var": "ebpf_fleet_capability.profiles", "limits": {}, "on_inconclusive": {},
                    "extra_checks": [], **BUDGET, "controls": {}, "before_applications": {},
                    "after_applications": {}, "batches": 1, "readings": 2, "reading": 1}  # fmt: skip
    (checked,) = ended.asked("Refuse limits and checks that the gate does not know")
    assert checked.arguments.pop("contracts") == first.arguments["contracts"]
    assert checked.arguments == {"changed": {}, "limits": {}, "on_inconclusive": {}, "extra_checks": [], **BUDGET}
    assert not any(call.check for call in ended.calls)


def names(call: Call) -> list[str]:
    return [contract["feature"] for contract in call.arguments["contracts"]]


@pytest.mark.parametrize("as_text", [False, True])
@pytest.mark.sample(1)
@pytest.mark.slow
def test_what_is_given_reaches_the_modules_as_what_it_means(tmp_path: Path, bundle: Path, as_text: bool) -> None:
    check = {"name": "mine", "expression": "a", "max": 1}
    values = {
        "ebpf_fleet_window_before": 3.5, "ebpf_fleet_window_after": 4.5, "ebpf_fleet_bake": 3,
        "ebpf_fleet_rollout_renew_seconds": 1, "ebpf_fleet_activation_timeout": 20, "ebpf_fleet_keep_releases": 5,
        "ebpf_fleet_allow_downgrade": True, "ebpf_fleet_bcc_fallback": True, "ebpf_fleet_max_batch": 1,
        "ebpf_fleet_rollout_lease_seconds": 300, "ebpf_fleet_gate_limits": {"loader_cpu_millicores": 80},
        "ebpf_fleet_on_inconclusive": {"application_p99": "pass"}, "ebpf_fleet_gate_checks": [check],
        "ebpf_fleet_features": {"runqlat": {"enabled": True}}, "ebpf_fleet_stages": [{"stage": "fleet"}],
        "ebpf_fleet_application_file": "/run/app.json", "ebpf_fleet_control_hosts": 0,
        "ebpf_fleet_gate_dry_run": ["mine", "host_cpu_shift"], "ebpf_fleet_gate_error_rate": 0.01,
    }  # fmt: skip
    if as_text:
        values = {name: one if isinstance(one, str) else json.dumps(one) for name, one in values.items()}
    answers = {**GOOD, DEPLOY: {"*": changed(300)}}
    ended = played(tmp_path, "rollout", inventory(["w1", "w2"]), answers, **given(bundle, **values))
    assert ended.status == 0, ended.said
    # Two slices of the bake, with a lease anew in each, and the third second with the measurement.
    slices = ["Renew the lease", "Measure while it bakes", "Judge what fails plainly"] * 2
    one = [BEFORE, PREPARE, DEPLOY, *slices, AFTER, JUDGE, CONFIRM]
    assert [call.task for call in ended.calls if call.host == "w2"] == [ASK, *one]
    assert {json.dumps(call.arguments) for call in ended.asked("Measure while it bakes")} == {
        json.dumps({"bake": 0, "window": 4.5})}  # fmt: skip
    digest = ended.asked(CONFIRM)[0].arguments["digest"]
    # The names of checks of one's own mean nothing while it bakes.
    assert all(call.arguments["dry_run"] == ["host_cpu_shift"] for call in ended.asked("Judge what fails plainly"))
    for call in ended.asked("Renew the lease"):
        assert call.arguments == {"seconds": 300, "holder": "rollout of 1.0.0", "digest": digest}
    assert ended.asked(ASK)[0].arguments["fallbacks"] == ["bcc"]
    assert ended.asked(BEFORE)[0].arguments == {"window": 3.5, "application_file": "/run/app.json"}
    assert ended.asked(AFTER)[0].arguments == {"bake": 1, "window": 4.5, "application_file": "/run/app.json"}
    assert ended.asked(DEPLOY)[0].arguments == {
        "allow_downgrade": True, "bundle": str(bundle), "digest": digest, "fallbacks": ["bcc"], "keep": 5, "wait": 20,
        "features": {"runqlat": {"enabled": True}}, "lease": {"seconds": 300, "holder": "rollout of 1.0.0"},
    }  # fmt: skip
    for call in (ended.asked("Refuse limits and checks that the gate does not know")[0], ended.asked(JUDGE)[0]):
        judged = [call.arguments[name] for name in ("limits", "on_inconclusive", "extra_checks")]
        assert judged == [{"loader_cpu_millicores": 80}, {"application_p99": "pass"}, [check]]
        assert (call.arguments["dry_run"], call.arguments["error_rate"]) == (["mine", "host_cpu_shift"], 0.01)
    assert not [call for call in ended.calls if call.module == "fan_out"], "no controls were wanted"


@pytest.mark.slow
def test_fallbacks_of_the_inventory_and_no_lease(tmp_path: Path, bundle: Path) -> None:
    """Without a lease nothing is renewed and nothing confirmed; a host that lost its fallbacks keeps none."""
    answers = {**GOOD, DEPLOY: {"*": {"changed": True, "lease": None}}}
    ended = played(tmp_path, "rollout", inventory(["w1"], ebpf_fleet_fallbacks=["bcc"]), answers, **given(
        bundle, ebpf_fleet_bake=2, ebpf_fleet_rollout_renew_seconds=1, ebpf_fleet_rollout_lease_seconds=0))  # fmt: skip
    assert ended.status == 0, ended.said
    assert [call.task for call in ended.calls][1:] == [ASK, BEFORE, PREPARE, DEPLOY, "Measure while it bakes",
                                                       "Judge what fails plainly", AFTER, JUDGE]  # fmt: skip
    assert ended.asked(ASK)[0].arguments["fallbacks"] == ["bcc"]
    assert "lease" not in ended.asked(DEPLOY)[0].arguments
    assert (
        "Renew the lease: skipping w1" in ended.screen
        and "Confirm the release and end its probation: skipping w1" in ended.screen
    )
    assert not [line for line in ended.screen if line.startswith("Record the batch: includes")]


@pytest.mark.slow
def test_what_a_host_answers_does_not_judge_the_host(tmp_path: Path, bundle: Path) -> None:
    """With facts as variables, as ansible-core has it without our ansible.cfg: the inventory's word is kept before."""
    lie = {"ebpf_fleet_gate_limits": {"status_age_ns": 9**9}, "ebpf_fleet_on_inconclusive": {"application_p99": "pass"},
           "ebpf_fleet_gate_checks": [{"name": "x"}], "ebpf_fleet_report_dir": "elsewhere"}  # fmt: skip
    answers = {**GOOD, ASK: {"*": {**CAPABILITY, "ansible_facts": lie}}}
    (tmp_path / "elsewhere").mkdir()
    ended = played(tmp_path, "rollout", inventory(["w1"], ebpf_fleet_gate_limits={"loader_cpu_millicores": 7}), answers,
                   environment={"ANSIBLE_INJECT_FACT_VARS": "true"}, **given(bundle))  # fmt: skip
    assert ended.status == 0, ended.said
    judged = ended.asked(JUDGE)[0].arguments
    assert (judged["limits"], judged["on_inconclusive"], judged["extra_checks"]) == (
        {"loader_cpu_millicores": 7}, {}, [])  # fmt: skip
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_check_mode_asks_and_plans_and_neither_measures_judges_nor_bakes(tmp_path: Path, bundle: Path) -> None:
    ended = played(tmp_path, "rollout", inventory(["w1"]), {**GOOD, DEPLOY: {"*": {"changed": True}}}, "--check",
                   **given(bundle, ebpf_fleet_bake=2, ebpf_fleet_rollout_renew_seconds=1))  # fmt: skip
    assert ended.status == 0, ended.said
    assert [call.task for call in ended.calls][1:] == [ASK, PREPARE, DEPLOY] and all(call.check for call in ended.calls)
    assert "Bake in slices where it takes long: skipping w1, skipping w1 (0)" in ended.screen
    for task in (BEFORE, AFTER, JUDGE, "Promote only on a pass", CONFIRM):
        assert f"{task}: skipping w1" in ended.screen


# --- a batch that goes back ----------------------------------------------------------------------


def test_a_batch_that_fails_goes_back_and_says_why_to_each_host(tmp_path: Path, bundle: Path) -> None:
    returns = {"hosts": {"w2": answered(detail="runs 0.9.0 again"), "w3": answered(ok=False, detail="does not start")}}
    answers = {**GOOD, JUDGE: {"w1": PASS, "*": FAIL}, BACK: {"*": returns}}
    hosts = inventory(["w1", "w2", "w3", "w4"])
    hosts["all"]["hosts"]["w4"] = {**hosts["all"]["hosts"]["w4"], "ebpf_fleet_cell": "d"}
    stages = [{"stage": one} for one in ("canary", "cell", "fleet")]
    ended = played(tmp_path, "rollout", hosts, answers,
                   **given(bundle, ebpf_fleet_report_dir=".", ebpf_fleet_stages=stages))  # fmt: skip
    assert ended.status == 2, ended.said
    at = ended.screen.index("PLAY Roll out")
    good, bad = [*CHANGED, *PROMOTED, *RECORDED], [*CHANGED, *RETURNED, *RECORDED, *STOPPED]
    assert ended.screen[at:] == [*lines(good, "w1", compared=True), *lines(bad, "w2", "w3", compared=True)]
    assert not [call for call in ended.calls if call.host == "w4" and call.task != ASK], "a later batch"
    assert "EF_GATE_FAILED: Stage cell: 2 checks fail" in ended.said
    assert "ok: [w2] => msg: - w2 is slow - all are slow - raise the limit - or wait" in ended.said
    (back,) = ended.asked(BACK)
    digest = ended.asked(CONFIRM)[0].arguments["digest"]
    assert back.arguments == {"command": way_back(digest), "hosts": ["w2", "w3"], "timeout": 180, "logins": 0,
                              "kex_algorithms": "^curve25519-sha256", "by_cell": True}  # fmt: skip
    stopped = "EF_ROLLOUT_STOPPED: The rollout of 1.0.0 stopped in stage cell; no later batch was started. " \
              "Why: 2 of 3 checks of this batch stand in the way, each named above. On this host: "  # fmt: skip
    end = "Next: raise the limit; or wait; then lift the quarantine (ebpf.fleet.quarantine -e " \
          f"ebpf_fleet_lift_quarantine={digest[:12]}) and run the same rollout again."  # fmt: skip
    said = ended.part(STOP)
    assert f"{stopped}w2 is slow; all are slow. It now: runs 0.9.0 again. {end}" in said
    assert f"{stopped}all are slow. It now: does not start. {end}" in said
    record = json.loads((tmp_path / "batch-02.json").read_text())
    assert {host: (one["ok"], one["detail"]) for host, one in record["returned"].items()} == {
        "w2": (True, "runs 0.9.0 again"), "w3": (False, "does not start")}  # fmt: skip
    assert record["outcome"] == "rolled_back" and record["verdict"] == "fail" and record["checks"] == FAIL["checks"]
    assert json.loads((tmp_path / "batch-01.json").read_text())["outcome"] == "promoted"


@pytest.mark.slow
def test_an_inconclusive_batch_is_not_promoted(tmp_path: Path, bundle: Path) -> None:
    """Nor is anything recorded where no folder was named; values of the way back are taken as they are given."""
    verdict = {**FAIL, "verdict": "inconclusive", "sentence": "not measured", "reasons": [], "next": []}
    answers = {**GOOD, JUDGE: {"*": verdict}, BACK: {"*": {"hosts": {"w1": answered(changed=False)}}}}
    ended = played(tmp_path, "rollout", inventory(["w1"]), answers, **given(
        bundle, ebpf_fleet_return_timeout=77, ebpf_fleet_logins=3, ebpf_fleet_kex_algorithms="+x"))  # fmt: skip
    assert ended.status == 2
    assert "EF_GATE_INCONCLUSIVE: Stage alone: not measured" in ended.said
    (back,) = ended.asked(BACK)
    assert (back.arguments["timeout"], back.arguments["logins"], back.arguments["kex_algorithms"]) == (77, 3, "+x")
    at = ended.screen.index("Promote only on a pass: FAILED w1")
    assert ended.screen[at + 1 :] == [
        "Print every check that stands in the way: skipping w1", "Choose the hosts that go back: ok w1",
        "Give the hosts that go back the kill orders that stand: ok w1>localhost",
        "Return the host to the release that it ran before: ok w1>localhost",
        "Restore the signers where the release stays: skipping w1",
        "Remember what became of this host's trust: skipping w1", "Remember what this host answered: ok w1",
        "Return everything that this rollout changed: skipping w1", "Record the way back in the ledger: ok w1",
        "Record the batch: skipping w1", "Stop the rollout: FAILED w1",
    ]  # fmt: skip
    said = ended.part(STOP)
    assert "Why: not measured. On this host: no check stands in the way. It now: " in said
    assert "Next: fix what the failed task names; then run the same rollout again." in said
    assert list(tmp_path.glob("**/batch-*")) == []


WHOLE = {"ebpf_fleet_stages": [{"stage": "fleet", "growth": 2}], "ebpf_fleet_max_batch": 9}


def observed(digest: str) -> dict[str, Any]:
    return {"observation": {"end": {"status": {"bundle": {"digest": digest}}}}}


def digest_of(path: Path) -> str:
    return bd.load_bundle(str(path)).manifest.digest


@pytest.mark.slow
def test_who_goes_back_is_who_was_changed_or_may_have_been(tmp_path: Path, bundle: Path) -> None:
    """Hosts of one batch: w1 changed, w2 failed, w3 lost while it was changed, w4 ran this release already and is
    changed, w5 was not changed, w6 neither; of w4 and w5 the trust was changed."""
    digest = digest_of(bundle)
    answers = {
        **GOOD,
        BEFORE: {"w4": observed(digest), "*": observed("0" * 64)},
        PREPARE: {"w4": {"changed": True, "trust_changed": True}, "w5": {"changed": True, "trust_changed": True},
                  "w6": {"changed": True, "trust_changed": False}, "w1": {"trust_changed": True}},
        DEPLOY: {"w1": changed(), "w2": {"failed": True, "msg": "no room"}, "w3": {"unreachable": True, "msg": "gone"},
                 "w4": changed(), "*": {"changed": False, "lease": None}},
        BACK: {"*": {"hosts": {"w1": answered(detail="went back"), "w2": {"unreachable": True, "msg": "no route"}}}},
        TRUST: {"*": {"hosts": {"w4": answered(detail="signers are back"),
                                "w5": answered(ok=False, detail="no signers")}}},
    }  # fmt: skip
    hosts = [f"w{number}" for number in range(1, 7)]
    ended = played(tmp_path, "rollout", inventory(hosts), answers,
                   **given(bundle, ebpf_fleet_report_dir=".", **WHOLE))  # fmt: skip
    assert ended.status != 0
    assert [call.task for call in ended.calls if call.host == "w6"] == [ASK, BEFORE, PREPARE, DEPLOY], ended.screen
    (back,), (trust,) = ended.asked(BACK), ended.asked(TRUST)
    assert back.arguments["hosts"] == ["w1", "w2", "w3"] and trust.arguments["hosts"] == ["w4", "w5"]
    assert (trust.arguments["timeout"], trust.arguments["logins"]) == (180, 0)
    assert trust.arguments["kex_algorithms"] == "^curve25519-sha256"
    assert back.arguments["command"] == way_back(digest)
    assert trust.arguments["command"] == way_back(None, trust_only=True) != way_back(None)
    for line in ("Return the host to the release that it ran before: changed w1>localhost",
              f"{TRUST}: changed w1>localhost",
                 "Choose the hosts that go back: ok w1, ok w2, ok w3, skipping w4, skipping w5, skipping w6",
                 "Remember what this host answered: ok w1, ok w2, ok w3, skipping w4, skipping w5, skipping w6",
                 "Print every check that stands in the way: skipping w1"):  # fmt: skip
        assert line in ended.screen, ended.screen
    said = ended.part(STOP)
    for now in ("went back", "unreachable: no route", "unreachable: was not asked to go back",
                "its release was not changed by this run; signers are back",
                "its release was not changed by this run; no signers",
                "was not changed by this run, so it was not asked to go back"):  # fmt: skip
        assert said.count(f"It now: {now}. Next: fix what the failed task names; then") == 2, said
    assert "Why: a task of this batch failed or a host was lost; see above." in said
    record = json.loads((tmp_path / "batch-01.json").read_text())
    assert (record["verdict"], record["sentence"], record["checks"]) == (None, None, [])
    assert {host: one["detail"] for host, one in record["returned"].items()} == {
        "w1": "went back", "w2": "unreachable: no route", "w3": "unreachable: was not asked to go back",
        **dict.fromkeys(["w4", "w5", "w6"], "was not changed by this run, so it was not asked to go back"),
    }  # fmt: skip


@pytest.mark.slow
def test_a_way_back_that_fails_as_a_whole_is_told_of_each_host(tmp_path: Path, bundle: Path) -> None:
    answers = {**GOOD, JUDGE: {"*": FAIL}, BACK: {"*": {"failed": True, "msg": "no more processes"}},
              DEPLOY: {"w2": {"changed": False}, "*": changed()}, PREPARE: {"*": {"trust_changed": True}},
              TRUST: {"*": {"failed": True, "msg": "none at all"}}}  # fmt: skip
    ended = played(tmp_path, "rollout", inventory(["w1", "w2"]), answers, **given(bundle,
        ebpf_fleet_return_timeout=66, ebpf_fleet_logins=2, ebpf_fleet_kex_algorithms="+y",
        **WHOLE))  # fmt: skip
    assert ended.status == 2
    at = ended.screen.index("Return the host to the release that it ran before: ok w1>localhost")
    assert ended.screen[at:] == [
        "Return the host to the release that it ran before: ok w1>localhost", f"{TRUST}: ok w1>localhost",
        "Remember what became of this host's trust: skipping w1, skipping w2",
        "Remember what this host answered: ok w1, skipping w2",
        "Return everything that this rollout changed: skipping w1, skipping w2",
        "Record the way back in the ledger: ok w1", "Record the batch: skipping w1, skipping w2",
        "Stop the rollout: FAILED w1, FAILED w2",
    ]  # fmt: skip
    (trust,) = ended.asked(TRUST)
    assert (trust.arguments["timeout"], trust.arguments["logins"], trust.arguments["kex_algorithms"]) == (66, 2, "+y")
    said = ended.part(STOP)
    assert "It now: unreachable: no more processes." in said
    assert "It now: was not changed by this run, so it was not asked to go back." in said


@pytest.mark.slow
def test_a_host_that_answers_nonsense_goes_back_with_the_others(tmp_path: Path, bundle: Path) -> None:
    answers = {**GOOD, DEPLOY: {"w2": {"changed": "perhaps", "unreachable": "perhaps", "msg": "gone"}, "*": changed()},
               BACK: {"*": {"hosts": {"w1": answered(detail="went back")}}}}  # fmt: skip
    ended = played(tmp_path, "rollout", inventory(["w1", "w2"]), answers, **given(bundle, **WHOLE))
    assert ended.status != 0 and ended.screen[-1] == "Stop the rollout: FAILED w1, FAILED w2"
    assert ended.asked(BACK)[0].arguments["hosts"] == ["w1", "w2"]
    assert "It now: went back." in ended.part(STOP)


@pytest.mark.slow
def test_in_check_mode_no_host_goes_back(tmp_path: Path, bundle: Path) -> None:
    answers = {**GOOD, DEPLOY: {"w1": {"failed": True, "changed": True, "msg": "would not fit"}, "*": changed()},
              PREPARE: {"*": {"trust_changed": True}}}  # fmt: skip
    ended = played(tmp_path, "rollout", inventory(["w1", "w2"]), answers, "--check", **given(bundle, **WHOLE))
    assert ended.status == 2
    assert ended.asked(BACK) == ended.asked(TRUST) == []
    assert "Choose the hosts that go back: skipping w1, skipping w2" in ended.screen
    assert "Stop the rollout: FAILED w1, FAILED w2" in ended.screen


@pytest.mark.sample(1)
@pytest.mark.parametrize(("task", "asked"), [(CONFIRM, ["w1", "w2", "w3"]), (BEFORE, []), (AFTER, ["w1", "w2", "w3"])])
@pytest.mark.slow
def test_a_lost_host_stays_in_its_batch_and_sends_it_back(
    tmp_path: Path,
    bundle: Path,
    task: str,
    asked: list[str],
) -> None:
    """It is not left out of the judgement, which would be one of fewer hosts; nothing is judged or changed further."""
    gone = {"unreachable": True, "msg": "gone"}
    answers = {**GOOD, task: {"w2": gone}, BACK: {"*": {"hosts": {host: answered() for host in asked}}}}
    ended = played(tmp_path, "rollout", inventory(["w1", "w2", "w3"]), answers, **given(bundle, **WHOLE))
    assert ended.status != 0
    last = ended.screen.index(f"{task}: UNREACHABLE w2, ok w1, ok w3")
    assert ended.screen[last + 1] == "Print every check that stands in the way: skipping w1"
    assert ended.screen[-1] == "Stop the rollout: FAILED w1, FAILED w2, FAILED w3"
    assert [call.arguments["hosts"] for call in ended.asked(BACK)] == ([asked] if asked else [])


# --- what holds a rollout before its first host is changed ---------------------------------------


def held(ended: Ended, task: str, *sentences: str) -> None:
    """The task stopped the rollout, once and with these words, and no host was changed."""
    assert ended.status != 0
    assert ended.screen[-1] == f"{task}: FAILED w1>localhost", ended.screen
    for sentence in sentences:
        assert sentence in ended.part(task), ended.said
    assert {call.task for call in ended.calls} <= {ASK, "Refuse limits and checks that the gate does not know"}


@pytest.mark.slow
def test_a_host_that_does_not_answer_holds_the_rollout(tmp_path: Path, bundle: Path) -> None:
    gone = {"unreachable": True, "msg": "no route to host"}
    ended = played(tmp_path, "rollout", inventory(["w1", "w2", "w3"]), {**GOOD, ASK: {"w2": gone, "*": CAPABILITY}},
                   **given(bundle))  # fmt: skip
    held(ended, "Hold unless every host answered",
         "EF_NO_ANSWER: No rollout begins while hosts do not answer: w2. Bring them back",
         "no route to host")  # fmt: skip


@pytest.mark.slow
def test_an_order_that_stands_holds_the_rollout_after_the_plan_was_said(tmp_path: Path, bundle: Path) -> None:
    standing = {**CAPABILITY, "capabilities": {**CAPABILITY["capabilities"], "kill_orders": ["global"]}}
    ended = played(tmp_path, "rollout", inventory(["w1", "w2"]), {**GOOD, ASK: {"w2": standing, "*": CAPABILITY}},
                   **given(bundle))  # fmt: skip
    held(ended, "Refuse a rollout that a kill order keeps off", "EF_ORDER_STANDS: a kill order stands on w2 (global)")
    assert "a kill order stands on w2 (global)" in ended.part("Print the plan")


@pytest.mark.sample(1)
@pytest.mark.parametrize(("task", "variables", "sentence"), [
    ("Refuse a plan that cannot be carried out",
     {"ebpf_fleet_until": "regoin"}, "until: unknown 'regoin'; did you mean region?"),
    ("Refuse a plan that cannot be carried out",
     {"ebpf_fleet_last_census": "none.json"}, "none.json: No such file or directory"),
    ("Refuse a bundle that cannot be used", {"ebpf_fleet_bundle": "none.tar"}, "EF_MANIFEST_MISSING: bundle none.tar"),
    ("Refuse a rollout that is not complete", {"ebpf_fleet_bundle": ""}, "A rollout needs ebpf_fleet_bundle"),
    ("Refuse a rollout that is not complete", {"ebpf_fleet_allowed_signers": ""}, "A rollout needs ebpf_fleet_bundle"),
    ("Refuse trust that would not take this bundle",
     {"ebpf_fleet_allowed_signers": f"x@example.org {public_key(make_key('stranger'))}"},
     "EF_BUNDLE_NOT_TRUSTED: Nothing was changed. w1, w2: manifest.json.sig: its key is not in"),
    ("Refuse features that the bundle does not hold", {"ebpf_fleet_features": {"nope": {}}},
     "EF_NOT_IN_BUNDLE: ebpf_fleet_features names nope, which the bundle does not hold; it holds exec_events, runqlat"),
    ("Refuse a lease that would run out while its batch is watched", {"ebpf_fleet_rollout_lease_seconds": 1},
     "EF_ARGUMENT: ebpf_fleet_rollout_lease_seconds is 1: a host needs 90 s"),
    ("Refuse values that cannot be used", {"ebpf_fleet_bake": -1}, "EF_ARGUMENT: "),
    ("Refuse a folder for records that cannot be used", {"ebpf_fleet_report_dir": "nowhere"},
     "nowhere is not a folder on the controller; make it first."),
    ("Refuse names that mean no host, and a play that leaves one out", {"ebpf_fleet_hosts": "w1,nobody"}, "EF_HOSTS: "),
])  # fmt: skip
def test_what_cannot_be_rolled_out_is_refused(
    tmp_path: Path,
    bundle: Path,
    task: str,
    variables: dict[str, Any],
    sentence: str,
) -> None:
    ended = played(tmp_path, "rollout", inventory(["w1", "w2"]), GOOD, **{**given(bundle), **variables})
    held(ended, task, sentence)


@pytest.mark.slow
def test_the_words_of_the_gate_that_refuses_limits(tmp_path: Path, bundle: Path) -> None:
    task = "Refuse limits and checks that the gate does not know"
    ended = played(tmp_path, "rollout", inventory(["w1", "w2"]), {**GOOD, task: {"*": {"failed": True, "msg": "no"}}},
                   **given(bundle))  # fmt: skip
    assert ended.status == 2 and ended.screen[-1] == f"{task}: FAILED w1" and len(ended.calls) == 1


def test_without_a_plan_hosts_would_be_taken_one_by_one(tmp_path: Path) -> None:
    """As in a syntax check, where no host was queued: the very text of the second play, rendered by Ansible."""
    play = yaml.safe_load((ROOT / "playbooks/rollout.yml").read_text())[1]
    task = {"ansible.builtin.debug": {"msg": "serial <{{ serial }}>"}, "vars": {"serial": play["serial"]}}
    plays = [{"hosts": "all", "gather_facts": False, "tasks": [task]}]
    (tmp_path / "own.yml").write_text(json.dumps(plays))
    plan = {"serial": [1, 2]}
    for groups, serial in (({}, "1"), ({"ebpf_fleet_rollout": {"hosts": {"w1": {}}}}, "[1, 2]")):
        hosts = inventory(["w1"], ebpf_fleet_plan=plan)
        hosts["all"]["children"] = groups
        ended = played(tmp_path, "own.yml", hosts, {})
        assert f"serial <{serial}>" in ended.said, ended.said


# --- what a batch is compared with -----------------------------------------------------------------


def control(at: int, busy: int) -> dict[str, Any]:
    """What fan_out has of a control at a moment, in seconds since its boot."""
    text = f"""{controls.MARK}
@uptime
{at}.00 1.00
@stat
cpu  {busy} 0 0 {at * 100 - busy} 0 0 0 0 0 0
@meminfo
MemTotal:       4000000 kB
MemAvailable:   2000000 kB
@psi_cpu
some avg10=0.00 avg60=0.00 avg300=0.00 total={at}
@psi_memory
@psi_io
@end
"""
    return {"rc": 0, "stdout": text}


@pytest.mark.slow
def test_controls_are_measured_beside_the_batch_and_a_lost_one_is_one_less(tmp_path: Path, bundle: Path) -> None:
    hosts = [f"w{at}" for at in range(1, 5)]
    moments = [(100, 1000), (110, 1100), (200, 2000), (230, 2600)]
    tasks = [f"{when} the controls{what}" for when, what in CONTROLS]
    script: dict[str, Any] = {}
    for task, (at, busy) in zip(tasks, moments):
        lost = {"w4": {"unreachable": True, "msg": "no route"}} if task == tasks[3] else {"w4": control(at, busy)}
        answers = {"w2": control(at, busy), "w3": {"rc": 0, "stdout": "nonsense"}, **lost}
        script[task] = {"*": {"changed": True, "hosts": answers}}
    ended = played(tmp_path, "rollout", inventory(hosts), {**GOOD, **script},
                   **given(bundle, ebpf_fleet_bake=1, ebpf_fleet_application_file="/run/app.json"))  # fmt: skip
    assert ended.status == 0, ended.said
    found = ended.asked(JUDGE)[0].arguments["controls"]
    assert list(found) == ["w2"] and found["w2"]["before"]["window_ns"] == 10 * 10**9
    assert found["w2"]["after"]["start"]["host"]["cpu_busy_ns"] == 20 * 10**9
    assert ended.asked(JUDGE)[-1].arguments["controls"] == {}, "no host is left to compare the last batch with"
    measured = [line for line in ended.screen if line.split(":")[0] in tasks]
    assert len(measured) == 12 and "changed" not in "".join(measured), "to measure changes no host"
    # The bake is over before the controls' second measurement begins, and the module does not bake again.
    order = [line.split(":")[0] for line in ended.screen]
    assert order.index("Let it bake before the controls are measured") < order.index(tasks[2]) < order.index(AFTER)
    assert [call.arguments["bake"] for call in ended.asked(AFTER)] == [0, 0, 0, 1]
    first, second = ended.asked(tasks[0])
    assert second.arguments["hosts"] == ["w4"]
    assert sorted(first.arguments["hosts"]) == ["w2", "w3", "w4"] and "/run/app.json" in first.arguments["command"]


@pytest.mark.slow
def test_prometheus_is_asked_once_for_all_hosts_from_the_controller(tmp_path: Path, bundle: Path) -> None:
    queries = {one: f'{one}{{instance="{{{{ inventory_hostname }}}}"}}' for one in ("p95", "p99")}
    shop = {"source": "prometheus", "url": "http://p:9090", "unit": "s", "queries": queries}
    hosts = inventory(["w1", "w2"], ebpf_fleet_application_latency=shop)
    seen = {"hosts": {"w1": {"application": {"p95_ns": 1, "p99_ns": 2}, "application_error": None}}}
    tasks = ["Ask for the applications' latency before", "Ask for the applications' latency after"]
    ended = played(tmp_path, "rollout", hosts, {**GOOD, **{task: {"*": seen} for task in tasks}}, **given(bundle))
    assert ended.status == 0, ended.said
    for task in tasks:
        first, second = ended.asked(task)
        # The canary's, with its control's; then that of the last batch alone.
        assert (sorted(first.arguments["sources"]), sorted(second.arguments["sources"])) == (["w1", "w2"], ["w2"])
        assert first.arguments["sources"]["w2"]["queries"]["p99"] == 'p99{instance="w2"}'
    judged = ended.asked(JUDGE)[0].arguments
    assert judged["before_applications"] == judged["after_applications"] == seen["hosts"]
    assert ended.asked(BEFORE)[0].arguments["latency"]["source"] == "prometheus"


@pytest.mark.slow
def test_a_source_that_cannot_be_is_refused_before_anything_is_asked(tmp_path: Path, bundle: Path) -> None:
    hosts = inventory(["w1", "w2"], ebpf_fleet_application_latency={"source": "file", "path": "latency.json"})
    ended = played(tmp_path, "rollout", hosts, GOOD, **given(bundle))
    assert ended.status == 2 and ended.calls == []
    assert "EF_ARGUMENT: ebpf_fleet_application_latency.path: is 'latency.json' (text); give an absolute" in ended.said


def test_a_batch_that_is_plainly_bad_goes_back_while_it_bakes(tmp_path: Path, bundle: Path) -> None:
    answers = {**GOOD, "Judge what fails plainly": {"*": [PASS, FAIL]},
               BACK: {"*": {"hosts": {"w1": answered(detail="runs 0.9.0 again")}}}}  # fmt: skip
    ended = played(tmp_path, "rollout", inventory(["w1", "w2"]), answers,
                   **given(bundle, ebpf_fleet_bake=9, ebpf_fleet_rollout_renew_seconds=1))  # fmt: skip
    assert ended.status == 2, ended.said
    early = ended.asked("Judge what fails plainly")
    assert len(early) == 2 and early[0].arguments["early"] is True and early[0].arguments["hosts"] == ["w1"]
    assert ended.asked("Measure while it bakes")[0].arguments == {"bake": 0, "window": 10}
    assert ended.asked(AFTER) == ended.asked(JUDGE) == [] and len(ended.asked(BACK)) == 1
    told = [line for line in ended.screen if line.startswith("Record what failed plainly in the ledger: ")]
    assert told == ["Record what failed plainly in the ledger: skipping w1",
                    "Record what failed plainly in the ledger: ok w1"]  # fmt: skip
    assert "EF_GATE_FAILED: Stage canary, while it baked: 2 checks fail" in ended.said
    assert not [call for call in ended.calls if call.host == "w2" and call.task != ASK], "a later batch"
