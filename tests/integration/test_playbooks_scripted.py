# SPDX-License-Identifier: GPL-3.0-or-later
"""prepare, release, capabilities and rollback by the real playbooks, with hosts that answer by a script."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.kill import rollback, script

from tests.integration.scripted import ROOT, Ended, collection, inventory, played
from tests.integration.test_rollout_scripted import CAPABILITY, PREPARE

pytestmark = pytest.mark.apart

HOSTS = inventory(["w1", "w2", "w3"])
LEFT_OUT = {"ebpf_fleet_hosts": "w1,w2,nobody"}
TOLD = "ebpf_fleet_hosts: 'nobody' matches no host and no group; choose one of: all, ungrouped, w1, w2"


def shown(text: str) -> list[str]:
    return text.strip().splitlines()


# --- prepare -------------------------------------------------------------------------------------

SIGNERS = {"ebpf_fleet_allowed_signers": "release@example.org ssh-ed25519 AAAA"}


def test_every_host_is_prepared_and_what_is_for_all_is_asked_once(tmp_path: Path) -> None:
    ended = played(tmp_path, "prepare", HOSTS, {PREPARE: {"*": {"changed": True}}}, **SIGNERS)
    assert ended.status == 0, ended.said
    assert ended.screen == shown("""
PLAY Prepare hosts
Refuse names that mean no host, and a play that leaves one out: ok w1>localhost
Refuse values that cannot be used: ok w1>localhost
ebpf.fleet.prepare : Validating arguments against arg spec 'main': ok w1, ok w2, ok w3
ebpf.fleet.prepare : Refuse a host without trust: ok w1, ok w2, ok w3
ebpf.fleet.prepare : Refuse host limits that cannot be used: ok w1, ok w2, ok w3
ebpf.fleet.prepare : Refuse settings of the kill list that cannot be used: skipping w1, skipping w2, skipping w3
ebpf.fleet.prepare : Ask for the running kernel: skipping w1, skipping w2, skipping w3
ebpf.fleet.prepare : Install BCC and the kernel's headers: skipping w1, skipping w2, skipping w3
ebpf.fleet.prepare : Prepare user, directories, trust and unit: changed w1, changed w2, changed w3
""")
    assert "All assertions passed" not in ended.said


WITNESS = """
import os

class FilterModule:
    def filters(self):
        return {}

with open(os.environ["LOADED_BY"], "a") as file:
    file.write(f"{os.getpid()}\\n")
"""


def test_filters_are_loaded_once_and_not_by_each_worker(tmp_path: Path) -> None:
    """ansible-core forks for each task of each host, and a fork without them compiles all of them again."""
    place = collection(tmp_path / "scripted") / "ansible_collections/ebpf/fleet/plugins/filter"
    real = place.resolve()
    place.unlink()
    place.mkdir()
    for one in real.iterdir():
        (place / one.name).symlink_to(one)
    (place / "witness.py").write_text(WITNESS)
    loaded_by = tmp_path / "loaded_by"
    ended = played(tmp_path, "prepare", HOSTS, {PREPARE: {"*": {"changed": True}}}, **SIGNERS,
                   environment={"LOADED_BY": str(loaded_by)})  # fmt: skip
    assert ended.status == 0, ended.said
    assert len(loaded_by.read_text().splitlines()) == 1


@pytest.mark.parametrize(("variables", "task", "sentence"), [
    (LEFT_OUT, "Refuse names that mean no host, and a play that leaves one out", TOLD),
    ({"ebpf_fleet_loader_interval": 0}, "Refuse values that cannot be used",
     "EF_ARGUMENT: ebpf_fleet_loader_interval: is 0"),
])  # fmt: skip
def test_no_host_is_prepared_with_what_cannot_be_used(
    tmp_path: Path, variables: dict[str, Any], task: str, sentence: str
) -> None:
    hosts = inventory(["w1", "w2"], **variables)
    given = {name: value for name, value in variables.items() if name == "ebpf_fleet_hosts"}
    ended = played(tmp_path, "prepare", hosts, {}, **SIGNERS, **given)
    assert ended.status == 2 and ended.calls == [] and ended.screen[-1] == f"{task}: FAILED w1>localhost"
    assert sentence in ended.said, ended.said


# --- release -------------------------------------------------------------------------------------

SIGN = "Compile, check and sign"
BUILT = {
    "output": "/out.tar", "digest": "d" * 64, "bundle": {"version": "1.2.0", "sequence": 7}, "btf": [],
    "compatibility": {"summary": []}, "features": {"runqlat": {}, "exec_events": {}},
}  # fmt: skip
WANTED = {
    "ebpf_fleet_release_version": "1.2.0",
    "ebpf_fleet_release_sequence": 7,
    "ebpf_fleet_release_signing_key": "key",
}


def released(folder: Path, built: dict[str, Any] | None = None, **variables: Any) -> Ended:
    return played(folder, "release", {"all": {"hosts": {}}}, {SIGN: {"*": {**BUILT, **(built or {})}}}, **variables)


@pytest.mark.slow
def test_a_release_of_which_only_what_is_needed_was_said(tmp_path: Path) -> None:
    ended = released(tmp_path, **WANTED)
    assert ended.status == 0, ended.said
    assert ended.screen == shown("""
PLAY Build and sign a release
Refuse values that cannot be used: ok localhost
Refuse a release without a version, a sequence or a key: ok localhost
Compile, check and sign: ok localhost
Print where the bundle is: ok localhost
""")
    (call,) = ended.calls
    places = {name: os.path.realpath(call.arguments.pop(name)) for name in ("source", "build_dir", "output")}
    assert call.arguments == {"version": "1.2.0", "sequence": 7, "signing_key": f"{tmp_path}/key"}
    root = os.path.realpath(tmp_path / "scripted/ansible_collections/ebpf/fleet/playbooks/..")
    assert root == str(ROOT)
    assert places == {"source": f"{root}/bpf", "build_dir": f"{root}/build",
                      "output": f"{root}/build/release/ebpf-fleet-1.2.0.tar"}  # fmt: skip
    lines = ["bundle: /out.tar", f"digest: {'d' * 64}", "version: 1.2.0, sequence 7",
             "kernels: not measured; give ebpf_fleet_release_matrix",
             "BTF for: no kernel; hosts without BTF need ebpf_fleet_release_btf_dirs",
             "features: exec_events, runqlat"]  # fmt: skip
    for line in lines:
        assert f"'{line}'" in ended.said, ended.said
    assert "All assertions passed" not in ended.said


@pytest.mark.parametrize("as_text", [False, True])
@pytest.mark.slow
def test_a_release_of_which_everything_was_said(tmp_path: Path, as_text: bool) -> None:
    values = {
        **WANTED, "ebpf_fleet_release_features": ["runqlat"], "ebpf_fleet_release_features_dirs": ["mine", "/own"],
        "ebpf_fleet_release_btf_dirs": ["btf"], "ebpf_fleet_release_matrix": "m.json",
        "ebpf_fleet_release_output": "o.tar",
        "ebpf_fleet_release_signing_key": "~/key",
    }  # fmt: skip
    if as_text:
        values = {name: one if isinstance(one, str) else json.dumps(one) for name, one in values.items()}
    built = {"btf": [{"release": "6.2"}, {"release": "6.1"}], "compatibility": {"summary": ["6.1: full", "4.19: none"]}}
    ended = released(tmp_path, built, **values)
    assert ended.status == 0, ended.said
    (call,) = ended.calls
    assert {name: one for name, one in call.arguments.items() if name not in ("source", "build_dir")} == {
        "version": "1.2.0", "sequence": 7, "signing_key": os.path.expanduser("~/key"), "features": ["runqlat"],
        "features_dirs": [f"{tmp_path}/mine", "/own"], "btf_dirs": [f"{tmp_path}/btf"], "matrix": f"{tmp_path}/m.json",
        "output": f"{tmp_path}/o.tar",
    }  # fmt: skip
    assert "kernels: 6.1: full; 4.19: none" in ended.said and "BTF for: 6.1, 6.2" in ended.said


@pytest.mark.sample(1)
@pytest.mark.parametrize(("variables", "refused"), [
    ({"ebpf_fleet_release_version": ""}, True),
    ({"ebpf_fleet_release_version": None}, True),
    ({"ebpf_fleet_release_sequence": 0}, True),
    ({"ebpf_fleet_release_sequence": None}, True),
    ({"ebpf_fleet_release_sequence": 1}, False),
    ({"ebpf_fleet_release_signing_key": ""}, True),
    ({"ebpf_fleet_release_signing_key": None}, True),
    ({"ebpf_fleet_release_version": "1"}, False),
])  # fmt: skip
def test_a_release_needs_a_version_a_sequence_and_a_key(
    tmp_path: Path, variables: dict[str, Any], refused: bool
) -> None:
    """None: was not said at all."""
    given = {name: value for name, value in {**WANTED, **variables}.items() if value is not None}
    ended = released(tmp_path, **given)
    assert (ended.status != 0) is refused and len(ended.calls) == (0 if refused else 1), ended.said
    assert not refused or "EF_ARGUMENT: " in ended.said
    assert not refused or ended.screen[-1].startswith("Refuse ") and ended.screen[-1].endswith(": FAILED localhost")


# --- capabilities --------------------------------------------------------------------------------

ASK_ONLY = "Ask for capabilities"


def test_the_fleet_is_asked_and_each_page_is_written_once(tmp_path: Path, bundle: Path) -> None:
    before = time.time()
    answers = {ASK_ONLY: {"*": CAPABILITY}}
    variables = {"ebpf_fleet_report": "fleet", "bundle": str(bundle)}
    ended = played(tmp_path, "capabilities", HOSTS, answers, environment={"TZ": "Asia/Tokyo"}, **variables)
    assert ended.status == 0, ended.said
    names = [f"{tmp_path}/fleet.{end}" for end in ("json", "md", "html")]
    assert ended.screen == shown(f"""
PLAY Ask every host what it can run
Refuse values that cannot be used: ok w1>localhost
Refuse a report path that cannot be written: ok w1>localhost
Read the bundle: ok w1>localhost
Refuse a bundle that cannot be used: skipping w1
Ask for capabilities: ok w1, ok w2, ok w3
Sum up what the fleet can run: ok w1>localhost
Write the answers: {", ".join(sorted(f"ok w1>localhost ({name})" for name in names))}
Print what the fleet can run: ok w1>localhost
Fail when a host did not answer: ok w1>localhost
Fail when a name means no host, or a host was left out: ok w1>localhost
""")
    assert "All assertions passed" not in ended.said
    for call in ended.asked(ASK_ONLY):
        features = [contract["feature"] for contract in call.arguments.pop("contracts")]
        assert features == ["exec_events", "runqlat"]
        assert call.arguments == {"btf_index": [], "fallbacks": []}
    assert [os.stat(name).st_mode & 0o777 for name in names] == [0o644] * 3
    census = json.loads((tmp_path / "fleet.json").read_text())
    assert sorted(census["hosts"]) == ["w1", "w2", "w3"] and census["silent"] == []
    assert census["features"]["runqlat"]["hosts"]["full"] == 3 and census["bundle"]["version"] == "1.0.0"
    # In UTC, whatever the controller's zone is.
    when = time.strptime(census["time"], "%Y-%m-%dT%H:%M:%SZ")
    assert -1 <= time.mktime((*when[:8], 0)) - time.timezone - before <= 300
    assert "3 of 3 hosts" in ended.part("Print what the fleet can run") or "3 hosts" in ended.said


@pytest.mark.slow
def test_without_bundle_and_report_only_the_kernels_are_told(tmp_path: Path) -> None:
    ended = played(tmp_path, "capabilities", inventory(["w1"]), {ASK_ONLY: {"*": {**CAPABILITY, "profiles": {}}}})
    assert ended.status == 0, ended.said
    (call,) = ended.calls
    assert call.arguments == {"contracts": [], "fallbacks": []}
    for line in ("Refuse a report path that cannot be written: skipping w1", "Read the bundle: skipping w1",
                 "Refuse a bundle that cannot be used: skipping w1"):  # fmt: skip
        assert line in ended.screen
    assert [path.name for path in tmp_path.iterdir() if path.name not in ("scripted", "hosts.json")] == []


@pytest.mark.sample(1)
@pytest.mark.parametrize(("variables", "expected"), [
    ({"ebpf_fleet_bcc_fallback": True}, {"fallbacks": ["bcc"]}),
    ({"ebpf_fleet_bcc_fallback": "no"}, {"fallbacks": []}),
    ({"ebpf_fleet_fallbacks": []}, {"fallbacks": []}),
    ({"ebpf_fleet_fallbacks": [], "ebpf_fleet_bcc_fallback": True}, {"fallbacks": []}),
    ({"ebpf_fleet_next_kernel": "auto"}, {"fallbacks": [], "next_kernel": "auto"}),
    ({"ebpf_fleet_next_kernel": ""}, {"fallbacks": []}),
])  # fmt: skip
@pytest.mark.slow
def test_what_a_host_is_asked(tmp_path: Path, variables: dict[str, Any], expected: dict[str, Any]) -> None:
    ended = played(tmp_path, "capabilities", inventory(["w1"]), {ASK_ONLY: {"*": CAPABILITY}}, **variables)
    (call,) = ended.calls
    assert call.arguments == {"contracts": [], **expected}


@pytest.mark.slow
def test_the_bundle_that_is_asked_about_goes_before_the_inventorys(tmp_path: Path, bundle: Path) -> None:
    for variables in ({"bundle": str(bundle), "ebpf_fleet_bundle": "none.tar"},
                      {"bundle": "", "ebpf_fleet_bundle": str(bundle)}):  # fmt: skip
        ended = played(tmp_path, "capabilities", inventory(["w1"]), {ASK_ONLY: {"*": CAPABILITY}}, **variables)
        assert ended.status == 0 and len(ended.calls[0].arguments["contracts"]) == 2, ended.said


@pytest.mark.slow
def test_who_does_not_answer_fails_the_run_after_the_report_is_written(tmp_path: Path, bundle: Path) -> None:
    answers = {ASK_ONLY: {"w2": {"unreachable": True, "msg": "no route"}, "w3": {"failed": True, "msg": "no python"},
                          "*": CAPABILITY}}  # fmt: skip
    policy = {"ebpf_fleet_features": {"exec_policy": {}}, "ebpf_fleet_report": "fleet.json", "bundle": str(bundle)}
    ended = played(tmp_path, "capabilities", HOSTS, answers, **policy)
    assert ended.status == 2
    assert f"{ASK_ONLY}: FAILED w3, UNREACHABLE w2, ok w1" in ended.screen
    assert ended.screen[-1] == "Fail when a host did not answer: FAILED w1>localhost"
    assert "EF_NO_ANSWER: No answer from w2, w3; nothing is known of what they can run. Why: " in ended.said
    census = json.loads((tmp_path / "fleet.json").read_text())
    assert (census["silent"], sorted(census["hosts"])) == (["w2", "w3"], ["w1"])
    assert "no route" in ended.part("Fail when a host did not answer") and "no python" in census["silence"]


@pytest.mark.sample(1)
@pytest.mark.parametrize(("variables", "task", "sentence", "asked"), [
    ({"ebpf_fleet_bcc_fallback": "perhaps"}, "Refuse values that cannot be used", "EF_ARGUMENT: ", False),
    ({"ebpf_fleet_report": "nowhere/fleet"}, "Refuse a report path that cannot be written", "nowhere is not a folder",
     False),
    ({"bundle": "none.tar"}, "Refuse a bundle that cannot be used", "EF_MANIFEST_MISSING: bundle none.tar", False),
    (LEFT_OUT, "Fail when a name means no host, or a host was left out", TOLD, True),
])  # fmt: skip
def test_what_cannot_be_asked_is_refused(
    tmp_path: Path, variables: dict[str, Any], task: str, sentence: str, asked: bool
) -> None:
    ended = played(tmp_path, "capabilities", inventory(["w1", "w2"]), {ASK_ONLY: {"*": CAPABILITY}}, **variables)
    assert ended.status == 2 and ended.screen[-1] == f"{task}: FAILED w1>localhost", ended.screen
    assert sentence in ended.said and (ended.calls != []) is asked


# --- rollback ------------------------------------------------------------------------------------

ORDER, UNCONFIRMED = (
    "Engage or release the kill order, or go back, and confirm",
    "Fail every host that has not confirmed",
)


def off(mark: str = script.MARK, **more: Any) -> dict[str, Any]:
    answer = {"ok": True, "changed": True, "host_ms": 40, "placed": True, "concerned": True, "persisted": True,
              "detail": "off", **more}  # fmt: skip
    return {"stdout": f"{mark}{json.dumps(answer)}\n", "rc": 0 if answer["ok"] else 1, "seconds": 1.5}


def ordered(folder: Path, answers: dict[str, Any], *options: str, hosts: Any = HOSTS, **variables: Any) -> Ended:
    return played(folder, "rollback", hosts, {ORDER: {"*": answers}}, *options, **variables)


def test_an_order_that_every_host_confirms(tmp_path: Path) -> None:
    ended = ordered(tmp_path, {"hosts": {"w1": off(), "w2": off(changed=False), "w3": off()}},
                    scope="global", ebpf_fleet_report="record.json")  # fmt: skip
    assert ended.status == 0, ended.said
    assert ended.screen == shown("""
PLAY Kill switch
Refuse an order that is not clear: skipping w1
Read the orders that stand: skipping w1
Print the orders that stand: skipping w1
End here where orders were only listed: skipping w1
Choose the hosts, and keep the order on the controller before any of them is asked: ok w1>localhost
Make the script that every host runs: ok w1>localhost
Engage or release the kill order, or go back, and confirm: changed w1>localhost
Judge what each host answered: ok w1>localhost
Keep on the controller who confirmed: ok w1>localhost
Write the record on the controller: ok w1>localhost
Remember the verdict to print last and the hosts that fail: ok w1>localhost
Print the verdict: ok w1
Fail when a host was left out, or an order still stands: ok w1>localhost
PLAY Hosts that have not confirmed
""")
    assert "All assertions passed" not in ended.said
    (call,) = ended.calls
    assert call.arguments == {
        "command": script.command(script.render(["global"], "engaged", True, 2, script.deadline_within(20))),
        "hosts": ["w1", "w2", "w3"], "timeout": 20, "logins": 0, "kex_algorithms": "^curve25519-sha256",
    }  # fmt: skip
    assert "All 3 hosts confirmed: placed on 3, concerned 3, proved off 3" in ended.part("Print the verdict")
    assert ended.said.endswith("Next: it stays off, also after a reboot, until the order is taken back with -e "
                               "state=released -e confirm=release -e 'reason=\"WHY\"'.")  # fmt: skip
    record = json.loads((tmp_path / "record.json").read_text())
    assert (tmp_path / "record.json").stat().st_mode & 0o777 == 0o644
    assert (record["confirmed"], record["left_out"]) == (["w1", "w2", "w3"], [])
    assert record["seconds"] == {"w1": 1.5, "w2": 1.5, "w3": 1.5}


def test_what_is_given_reaches_the_order(tmp_path: Path) -> None:
    """As text, as the command line has it; an answer that changed nothing is no change."""
    ended = ordered(tmp_path, {"hosts": {"w1": off(changed=False)}}, hosts=inventory(["w1"]), scope="feature=runqlat",
                    state="released", confirm="release", reason="tested", ebpf_fleet_kill_timeout="33",
                    ebpf_fleet_logins="4", ebpf_fleet_kex_algorithms="+x")  # fmt: skip
    assert ended.status == 0, ended.said
    (call,) = ended.calls
    assert call.arguments == {
        "command": script.command(script.render(["feature=runqlat"], "released", True, 2, script.deadline_within(33))),
        "hosts": ["w1"], "timeout": "33", "logins": "4", "kex_algorithms": "+x",
    }  # fmt: skip
    assert "Engage or release the kill order, or go back, and confirm: ok w1>localhost" in ended.screen
    assert "Write the record on the controller: skipping w1" in ended.screen


@pytest.mark.parametrize(("given", "seconds"), [({}, 180), ({"ebpf_fleet_return_timeout": 99}, 99)])
@pytest.mark.sample(1)
def test_the_way_back_to_the_previous_release(tmp_path: Path, given: dict[str, Any], seconds: int) -> None:
    answers = {"hosts": {"w1": off(rollback.MARK, detail="back")}}
    ended = ordered(tmp_path, answers, hosts=inventory(["w1"]), scope="previous", ebpf_fleet_kill_timeout=7, **given)
    assert ended.status == 0, ended.said
    (call,) = ended.calls
    assert call.arguments["command"] == script.command(rollback.render_rollback(None, wait_seconds=30))
    assert call.arguments["timeout"] == seconds
    assert "All 1 hosts confirmed; the slowest took 40 ms on the host." in ended.part("Print the verdict")


@pytest.mark.slow
def test_only_hosts_that_did_not_confirm_fail_each_with_its_reason(tmp_path: Path) -> None:
    answers = {
        "w1": off(),
        "w2": off(ok=False, detail="held by process 7"),
        "w3": {"unreachable": True, "msg": "no route", "seconds": 10.1},
    }
    ended = ordered(tmp_path, {"hosts": answers}, scope="global", ebpf_fleet_report="r.json")
    assert ended.status == 2
    # The names are told as not confirmed; a host that was left out would be told beside, and only where all confirmed.
    assert ended.screen[-3:] == ["Fail when a host was left out, or an order still stands: skipping w1",
                                 "PLAY Hosts that have not confirmed",
                                 f"{UNCONFIRMED}: FAILED w2, FAILED w3"]  # fmt: skip
    said = ended.part(UNCONFIRMED)
    assert "EF_KILL_UNCONFIRMED: held by process 7" in said and "EF_KILL_UNCONFIRMED: unreachable: no route" in said
    record = json.loads((tmp_path / "r.json").read_text())
    assert record["failed"] == ["w2", "w3"] and record["seconds"] == {"w1": 1.5, "w2": 1.5, "w3": 10.1}


@pytest.mark.sample(1)
@pytest.mark.parametrize(("given", "failed"), [({}, True), ({"allow_unconcerned": "true"}, False),
                                               ({"allow_unconcerned": "no"}, True)])  # fmt: skip
@pytest.mark.slow
def test_an_order_that_concerns_no_host_fails_unless_that_is_allowed(
    tmp_path: Path, given: dict[str, Any], failed: bool
) -> None:
    answers = {"hosts": {host: off(concerned=False) for host in ("w1", "w2", "w3")}}
    ended = ordered(tmp_path, answers, scope="feature=nope", **given)
    assert (ended.status != 0) is failed, ended.said
    assert (ended.screen[-1] == f"{UNCONFIRMED}: FAILED w1, FAILED w2, FAILED w3") is failed


@pytest.mark.slow
def test_an_order_goes_out_though_a_name_means_no_host_and_says_so_last(tmp_path: Path) -> None:
    ended = ordered(
        tmp_path, {"hosts": {"w1": off(), "w2": off()}}, scope="global", ebpf_fleet_report="r.json", **LEFT_OUT
    )
    assert ended.status == 2 and ended.calls[0].arguments["hosts"] == ["w1", "w2"]
    assert ended.screen[-1] == "Fail when a host was left out, or an order still stands: FAILED w1>localhost"
    (left_out,) = json.loads((tmp_path / "r.json").read_text())["left_out"]
    assert left_out.startswith(TOLD) and f"EF_HOSTS: {left_out}" in ended.said


def test_a_fan_out_that_fails_as_a_whole_fails_the_order(tmp_path: Path) -> None:
    ended = ordered(tmp_path, {"failed": True, "msg": "no more processes"}, scope="global")
    assert ended.status == 2 and ended.screen[-1] == f"{ORDER}: FAILED w1>localhost"


@pytest.mark.sample(1)
@pytest.mark.parametrize(("variables", "sentence"), [
    ({}, "EF_ARGUMENT: Say what to turn off with -e scope=: write global or previous, or join"),
    ({"scope": "globl"}, "EF_ARGUMENT: scope 'globl' is not one: did you mean global?"),
    ({"scope": "global", "state": "of"}, "EF_ARGUMENT: state"),
    ({"scope": "global", "ebpf_fleet_kill_timeout": 0}, "EF_ARGUMENT: ebpf_fleet_kill_timeout"),
    ({"scope": "previous", "ebpf_fleet_return_timeout": 3601}, "EF_ARGUMENT: ebpf_fleet_return_timeout"),
    ({"scope": "global", "ebpf_fleet_logins": -1}, "EF_ARGUMENT: ebpf_fleet_logins"),
])  # fmt: skip
def test_an_order_that_is_not_clear_goes_to_no_host(tmp_path: Path, variables: dict[str, Any], sentence: str) -> None:
    ended = ordered(tmp_path, {"hosts": {}}, **variables)
    assert ended.status == 2 and ended.calls == []
    assert ended.screen[-1] == "Refuse an order that is not clear: FAILED w1>localhost" and sentence in ended.said


@pytest.mark.slow
def test_a_bad_value_that_an_order_does_not_take_keeps_nothing_on(tmp_path: Path) -> None:
    hosts = inventory(["w1"], ebpf_fleet_bake="soon", ebpf_fleet_loader_interval=-1)
    ended = ordered(tmp_path, {"hosts": {"w1": off()}}, hosts=hosts, scope="global")
    assert ended.status == 0 and len(ended.calls) == 1
