# SPDX-License-Identifier: GPL-3.0-or-later
"""Game days: the table of drills, what is a sign and what is not, the score, the record, the plan and the report."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.base.reasons.table import REASONS
from ansible_collections.ebpf.fleet.plugins.module_utils.gameday import (
    answer,
    drills,
    facts,
    fit,
    judge,
    plan,
    record,
    report,
    score,
    scripts,
)

ROOT = Path(__file__).resolve().parents[2]
HOST = scripts.Host("/usr/bin/python3", "/var/lib/ebpf-fleet/releases/1/bundle/features/a/full.bpf.o", 990, 991)
S = 1_000_000_000


def feature(**changed: Any) -> dict[str, Any]:
    return {"state": "attached", "profile": "full", "variant": "full", "reason_code": "EF_OK", "sample_every": 1,
            "step": None, "why": None, "measured": None, "limit": None, "dropped": 0, "thinned": 0, "fair": False,
            "sources": 0, "unwritten": 0, "behind": False, **changed}  # fmt: skip


def host(features: dict[str, Any] | None = None, **changed: Any) -> dict[str, Any]:
    return {"boottime_ns": 100 * S, "boot_id": "b", "active_state": "active", "n_restarts": 0, "main_pid": 7,
            "exit_status": 0, "state": "running", "reason_code": "EF_OK", "btf": "vmlinux", "lease": None, "kills": [],
            "held": 3, "ended_by": None, "codes": {},
            "features": {"exec_events": feature(), "runqlat": feature()} if features is None else features,
            **changed}  # fmt: skip


def asked(sign: str, drill: str = "event_flood", now: Any = None, before: Any = None, of: str = "exec_events") -> Any:
    return judge.ask(sign, judge.Moment(drills.drill(drill), of, before or host(), now or host()))


def one(**changed: Any) -> dict[str, Any]:
    """A host whose exec_events differs."""
    return host({"exec_events": feature(**changed), "runqlat": feature()})


# --- the table ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", drills.DRILLS)
def test_every_sign_of_a_drill_is_known_and_every_page_says_what_is_quoted(name: str) -> None:
    drill = drills.drill(name)
    for sign in [*drill.detected, *drill.degraded, *(step.sign for step in drill.runbook)]:
        assert sign in judge.SIGNS and sign in judge.SAYS
    assert (ROOT / drill.documented.partition("#")[0]).exists()
    assert drill.runbook
    for step in drill.runbook:
        page = (ROOT / step.page).read_text(encoding="utf-8")
        _before, heading, after = page.partition(f"# {step.section}\n")
        assert heading, f"{step.page}: no section {step.section}"
        section = re.split(r"\n#+ ", after)[0]
        assert " ".join(step.says.split()) in " ".join(section.split()), f"{step.page}: does not say {step.says!r}"
        assert step.when in ("during", "after")
    assert set(drill.codes) <= set(REASONS) and all(code.startswith("EF_BUDGET_") for code in drill.codes)
    for one_feature in drill.features:
        contract = yaml.safe_load((ROOT / f"bpf/features/{one_feature}/contract.yml").read_text())
        assert contract["feature"] == one_feature
    assert not drill.kill or drill.features


def test_signs_and_their_words_are_the_same_names() -> None:
    assert set(judge.SIGNS) == set(judge.SAYS)


def test_drills_are_chosen_in_the_order_of_the_table_and_an_unknown_one_is_refused() -> None:
    assert drills.chosen(["all"]) == list(drills.DRILLS)
    assert drills.chosen(["crash_loop", "event_flood"]) == ["event_flood", "crash_loop"]
    with pytest.raises(FleetError, match="did you mean 'crash_loop'"):
        drills.chosen(["crash_lop"])
    with pytest.raises(FleetError, match="name drills, or all"):
        drills.chosen([])


# --- signs -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sign", "drill", "now", "wanted"),
    [
        ("thinned", "event_flood", one(thinned=1), True),
        ("thinned", "event_flood", one(thinned=0), False),
        ("thinned", "event_flood", one(thinned=None), None),
        ("dropped", "event_flood", one(dropped=1), True),
        ("unwritten", "sink_stall", one(unwritten=None), None),
        ("over", "sink_stall", one(why="EF_BUDGET_DROPS"), True),
        ("over", "sink_stall", one(why="EF_BUDGET_CPU"), False),
        ("over", "sink_stall", host(codes={"degrade EF_BUDGET_DROPS": 1}), True),
        ("over", "sink_stall", host({}, codes={}), None),
        ("step", "cpu_burn", one(step="shed"), True),
        ("step", "cpu_burn", one(step=None), False),
        ("step", "cpu_burn", host({}), None),
        ("how_far", "cpu_burn", one(measured=6, limit=5), True),
        ("how_far", "cpu_burn", one(measured=5, limit=5), False),
        ("how_far", "cpu_burn", one(measured=5, limit=None), None),
        ("restarted", "crash_loop", host(n_restarts=1), True),
        ("restarted", "crash_loop", host(n_restarts=0), False),
        ("restarted", "crash_loop", host(n_restarts=0, active_state="failed"), True),
        ("restarted", "crash_loop", host(n_restarts=None), None),
        ("given_up", "crash_loop", host(active_state="failed"), True),
        ("given_up", "crash_loop", host(active_state="activating"), False),
        ("given_up", "crash_loop", host(active_state=None), None),
        ("nothing_held", "crash_loop", host(held=0), True),
        ("nothing_held", "crash_loop", host(held=1), False),
        ("nothing_held", "crash_loop", host(held=None), None),
        ("tamper_refused", "tampered_bundle", host(codes={"refuse EF_FILE_DIGEST": 1}), True),
        ("tamper_refused", "tampered_bundle", host(reason_code="EF_FILE_DIGEST"), True),
        ("tamper_refused", "tampered_bundle", host(codes={"refuse EF_FILE_SIZE": 1}), False),
        ("exit_refused", "tampered_bundle", host(active_state="failed", exit_status=3), True),
        ("exit_refused", "tampered_bundle", host(active_state="failed", exit_status=2), False),
        ("exit_refused", "tampered_bundle", host(active_state="active", exit_status=3), False),
        ("exit_refused", "tampered_bundle", host(exit_status=None), None),
        ("btf_gone", "missing_btf", host(btf="missing"), True),
        ("btf_gone", "missing_btf", host(btf="bundled"), True),
        ("btf_gone", "missing_btf", host(), False),
        ("btf_gone", "missing_btf", host(btf=None), None),
        ("quiet", "event_flood", one(fair=True), False),
        ("quiet", "event_flood", one(fair=None), None),
        ("source_named", "event_flood", one(sources=0), False),
        ("source_named", "event_flood", one(sources=1), True),
        ("source_named", "event_flood", one(sources=None), None),
        ("emptied", "map_flood", host(main_pid=8), True),
        ("emptied", "map_flood", host(), False),
        ("emptied", "map_flood", host({}, main_pid=8), None),
        ("ended_by_host", "controller_loss", host(ended_by="timeout"), True),
        ("ended_by_host", "controller_loss", host(ended_by="success"), False),
        ("ended_by_host", "controller_loss", host(), False),
    ],
)
def test_a_sign_is_yes_no_or_unknown(sign: str, drill: str, now: Any, wanted: bool | None) -> None:
    assert asked(sign, drill, now) is wanted


def test_a_counter_of_a_loader_that_began_again_counts_from_0() -> None:
    assert asked("dropped", now=one(dropped=5), before=one(dropped=5)) is False
    assert asked("dropped", now={**one(dropped=5), "main_pid": 8}, before=one(dropped=5)) is True
    assert asked("dropped", now={**one(dropped=0), "main_pid": 8}, before=one(dropped=5)) is False


@pytest.mark.parametrize(
    ("changed", "wanted"),
    [
        ({"state": "disabled", "reason_code": "EF_NO_BTF"}, True),
        ({"profile": "reduced", "variant": "reduced"}, True),
        ({"state": "disabled", "reason_code": "EF_LOAD_REJECTED"}, False),
        ({}, False),
    ],
)
def test_without_btf_each_feature_is_reduced_or_off_with_the_reason(changed: Any, wanted: bool) -> None:
    now = host({"exec_events": feature(**changed), "runqlat": feature(state="disabled", reason_code="EF_NO_BTF")},
               btf="missing")  # fmt: skip
    assert asked("without_vmlinux", "missing_btf", now) is wanted
    assert asked("without_vmlinux", "missing_btf", {**now, "btf": None}) is None
    assert asked("without_vmlinux", "missing_btf", {**now, "features": {}}) is None
    del now["features"]["runqlat"]
    assert asked("without_vmlinux", "missing_btf", now) is None


@pytest.mark.parametrize(
    ("now", "wanted"),
    [
        (host(), True),
        (host(main_pid=8, n_restarts=3), True),
        (host(active_state="failed"), False),
        (host(active_state=None), None),
        (host(btf="missing"), False),
        (host(state=None), False),
        (host({"exec_events": feature()}), False),
        (one(state="shed"), False),
        (one(variant="reduced"), False),
        (one(step="sampling"), False),
    ],
)
def test_as_before_is_the_unit_and_each_features_state_variant_and_step(now: Any, wanted: bool | None) -> None:
    assert asked("as_before", now=now) is wanted


def test_a_loader_that_is_to_be_started_again_is_as_before_only_then() -> None:
    assert asked("as_before", "crash_loop", host()) is False
    assert asked("as_before", "crash_loop", host(main_pid=8)) is True


def test_of_a_hosts_limit_the_feature_that_steps_down_is_the_one_that_is_watched() -> None:
    drill = drills.drill("cpu_burn")
    down = host({"runqlat": feature(), "syscall_errors": feature(why="EF_BUDGET_HOST_CPU")})
    assert judge.watched(drill, "runqlat", down) == "syscall_errors"
    both = host({"runqlat": feature(why="EF_BUDGET_CPU"), "syscall_errors": feature(why="EF_BUDGET_HOST_CPU")})
    assert judge.watched(drill, "runqlat", both) == "runqlat"
    assert judge.watched(drill, "runqlat", host()) == "runqlat"
    other = host({"syscall_errors": feature(why="EF_BUDGET_MAP_FILL")})
    assert judge.watched(drill, "runqlat", other) == "runqlat"


def test_enough_is_one_sign_of_detection_each_of_degradation_and_each_step_during() -> None:
    drill = drills.drill("crash_loop")
    assert judge.wanted(drill) == ["restarted", "given_up", "nothing_held"]
    assert judge.wanted(drills.drill("event_flood")) == ["thinned", "over", "dropped", "source_named"]
    assert judge.enough(drill, {"restarted": 1, "given_up": 1, "nothing_held": 1})
    assert not judge.enough(drill, {"restarted": 1, "given_up": 1})
    assert not judge.enough(drill, {"given_up": 1, "nothing_held": 1})
    flood = drills.drill("event_flood")
    assert not judge.enough(flood, {"thinned": 1}) and judge.enough(flood, {"thinned": 1, "source_named": 1})


# --- facts -------------------------------------------------------------------------------------


def page(name: str) -> Any:
    text = (ROOT / f"docs/formats/{name}.md").read_text(encoding="utf-8")
    return json.loads(re.findall(r"```json\n(.*?)^```$", text, re.M | re.S)[0])


def test_facts_are_of_the_unit_the_status_and_the_kernel() -> None:
    end = page("observation")["end"]
    found = facts.facts(5, end["unit"], page("status"), end["witness"], {"degrade EF_BUDGET_CPU": 2}, None)
    assert not list(facts.RULE("", found))
    assert (found["active_state"], found["main_pid"], found["held"], found["btf"]) == ("active", 712, 4, "vmlinux")
    assert found["features"]["exec_events"] == feature(sources=0)
    assert found["features"]["runqlat"] == feature(thinned=None, fair=None, sources=None, unwritten=None, behind=None)
    assert found["codes"] == {"degrade EF_BUDGET_CPU": 2} and found["lease"] is None and found["kills"] == []


def test_a_status_that_another_process_left_says_nothing() -> None:
    end = page("observation")["end"]
    found = facts.facts(5, {**end["unit"], "main_pid": 713}, page("status"), end["witness"], {}, None)
    assert found["state"] is None and found["features"] == {} and found["main_pid"] == 713


def test_of_a_host_without_a_loader_nothing_is_known_and_nothing_is_0() -> None:
    found = facts.facts(5, None, None, {"loader": None}, {}, None)
    assert not list(facts.RULE("", found))
    assert found["held"] is None and found["active_state"] is None and found["features"] == {}


@pytest.mark.parametrize(
    ("unit", "loader", "held"),
    [
        ({"active_state": "failed", "main_pid": 0}, {"programs": None, "pids": []}, 0),
        ({"active_state": "failed", "main_pid": 0}, {"programs": None, "pids": [9]}, None),
        ({"active_state": "active", "main_pid": 9}, {"programs": None, "pids": []}, None),
        ({"active_state": "failed", "main_pid": 0}, {"programs": [1, 2], "pids": [9]}, 2),
        ({"active_state": "inactive", "main_pid": 0}, {"programs": None, "pids": None}, 0),
    ],
)
def test_a_unit_without_a_process_holds_nothing_and_one_that_is_not_told_is_unknown(
    unit: Any, loader: Any, held: int | None
) -> None:
    assert facts.facts(5, unit, None, {"loader": loader}, {}, None)["held"] == held


def test_codes_are_of_this_boot_and_since_the_begin_and_whatever_else_stands_there_counts_for_nothing() -> None:
    good = {"boot_id": "b", "boottime_ns": 10, "event": "refuse", "reason_code": "EF_FILE_DIGEST"}
    lines = [good, good, {**good, "boottime_ns": 9}, {**good, "boot_id": "c"}, {**good, "event": 3},
             {**good, "boottime_ns": "10"}, {**good, "reason_code": None}, [1]]  # fmt: skip
    text = "\n".join([json.dumps(line) for line in lines] + ["{torn", "[" * 5000, ""])
    assert facts.codes_since(text, 10, "b") == {"refuse EF_FILE_DIGEST": 2}
    assert facts.codes_since("", 0, "b") == {}


# --- who may -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("drill", "now", "leased", "running", "words"),
    [
        ("crash_loop", host(), False, True, "another injection runs"),
        ("crash_loop", host(active_state="failed"), False, False, "does not run here as it should"),
        ("crash_loop", host(active_state=None), False, False, "unit unknown"),
        ("crash_loop", host(state="killed"), False, False, "state killed"),
        ("crash_loop", host(kills=["feature.runqlat"]), False, False, "kill orders stand here (feature.runqlat)"),
        ("crash_loop", host(), True, False, "on probation"),
        ("crash_loop", host(lease=False), False, False, "on probation"),
        ("crash_loop", host(held=None), False, False, "nothing could be judged"),
        ("crash_loop", host(n_restarts=None), False, False, "nothing could be judged"),
        ("map_flood", host(), False, False, "it runs none of syscall_errors"),
        ("crash_loop", one(step="sampling"), False, False, "exec_events is degraded already"),
        ("missing_btf", host(btf="bundled"), False, False, "no BTF of the kernel's"),
        ("crash_loop", host({"exec_events": feature(state="off")}), False, False, "no feature is attached"),
    ],
)
def test_a_host_that_is_not_as_it_should_be_is_refused(
    drill: str, now: Any, leased: bool, running: bool, words: str
) -> None:
    assert words in fit.refusal(drills.drill(drill), now, leased, running)


@pytest.mark.parametrize("name", [name for name in drills.DRILLS if name != "map_flood"])
def test_a_host_that_is_as_it_should_be_may_meet_a_drill(name: str) -> None:
    assert fit.refusal(drills.drill(name), host(), False, False) == ""


def test_the_feature_is_the_first_that_is_attached() -> None:
    drill = drills.drill("cpu_burn")
    assert fit.feature_of(drill, host({"runqlat": feature(), "syscall_errors": feature()})) == "runqlat"
    second = host({"runqlat": feature(state="disabled"), "syscall_errors": feature()})
    assert fit.feature_of(drill, second) == "syscall_errors"
    assert fit.feature_of(drill, host({})) == "" and fit.feature_of(drills.drill("crash_loop"), host()) == ""


# --- what is asked -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"state": "over"}, "state 'over' is not one"),
        ({"names": []}, "name drills, or all"),
        ({"names": ["x"]}, "drill 'x' is not one"),
        ({}, "so confirm and reason must be given; no host was asked"),
        ({"confirm": "inject-crash_loop"}, "so reason must be given"),
        ({"reason": "practice"}, "so confirm must be given"),
        ({"confirm": "inject-event_flood", "reason": "x"}, "confirm 'inject-event_flood' is not inject-crash_loop"),
        ({"confirm": "yes", "reason": "x"}, "confirm 'yes' is not inject-crash_loop"),
    ],
)
def test_what_is_not_confirmed_in_words_that_name_it_is_refused(given: Any, words: str) -> None:
    asked_for = {"names": ["crash_loop"], "state": "begun", "confirm": "", "reason": "", "check": False, **given}
    assert words in plan.refusal(**asked_for)


def test_what_is_confirmed_is_not_refused_and_neither_is_the_end_or_check_mode() -> None:
    assert plan.refusal(["crash_loop"], "begun", "inject-crash_loop", "practice", False) == ""
    assert plan.refusal(["crash_loop"], "begun", "", "", True) == ""
    assert plan.refusal([], "ended", "", "", False) == ""
    refused = plan.refusal(["crash_loop", "event_flood"], "begun", "", "", False)
    assert plan.command(["event_flood", "crash_loop"]) in refused and "SIGKILL of the loader" in refused


def inventory(**marks: Any) -> list[dict[str, Any]]:
    return [{"inventory_hostname": name, **({} if mark is None else mark)} for name, mark in marks.items()]


def test_only_hosts_that_the_inventory_marks_take_part() -> None:
    on, mark = "ebpf_fleet_maintenance", "ebpf_fleet_gameday"
    hosts = inventory(a={mark: True}, b=None, c={mark: "no"}, d={mark: "maybe"}, e={mark: "yes", on: True},
                      f={mark: "true", on: False})  # fmt: skip
    found = plan.plan(hosts, ["crash_loop"], [{"id": "r", "state": "complete"}])
    assert found["hosts"] == ["a", "f"] and found["drills"] == ["crash_loop"]
    why = {one["host"]: one["why"] for one in found["left_out"]}
    assert set(why) == set("bcde") and "not true for it" in why["b"] and "maintenance" in why["e"]


def test_no_host_and_a_rollout_that_runs_are_refused() -> None:
    with pytest.raises(FleetError) as found:
        plan.plan(inventory(a=None), ["all"], [])
    assert found.value.code == "EF_HOSTS"
    with pytest.raises(FleetError) as found:
        plan.plan(inventory(a={"ebpf_fleet_gameday": True}), ["all"], [{"id": "r-1", "state": "running"}])
    assert found.value.code == "EF_ROLLOUT_RUNNING" and "r-1" in found.value.message


def test_what_each_host_would_meet_is_told_with_why_not() -> None:
    chosen = {"drills": ["crash_loop"], "hosts": ["a", "b", "c"], "left_out": [{"host": "d", "why": "not marked"}]}
    answers = {
        "a": ({"meets": {"crash_loop": ""}}, ""),
        "b": ({"meets": {"crash_loop": "a lease"}}, ""),
        "c": (None, "gone"),
    }
    assert plan.meets_lines(chosen, answers) == [
        f"a: crash_loop: {drills.drill('crash_loop').injects}", "b: crash_loop: not possible: a lease",
        "c: crash_loop: not possible: gone", "d: left out: not marked",
    ]  # fmt: skip


def test_kill_orders_are_of_the_features_that_are_watched() -> None:
    watched = {"a": {"feature": "runqlat"}, "b": {"feature": "syscall_errors"}, "c": {"feature": "runqlat"}, "d": None}
    assert plan.kills(drills.drill("cpu_burn"), watched) == [
        {"feature": "runqlat", "hosts": ["a", "c"]}, {"feature": "syscall_errors", "hosts": ["b"]},
    ]  # fmt: skip
    assert plan.kills(drills.drill("crash_loop"), watched) == []


# --- scripts -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", drills.DRILLS)
def test_what_a_drill_runs_is_in_run_and_its_unit_is_bounded(name: str) -> None:
    unit = scripts.unit(name, 45)
    assert "\nRuntimeMaxSec=45\n" in unit and f"\nExecStopPost=/bin/sh {scripts.FOLDER}/undo.sh\n" in unit
    made = "\n".join(
        (scripts.inject(name, HOST), scripts.undo(drills.drill(name).restarts), scripts.drop_in(name, HOST))
    )
    written = re.findall(r"(?:> ?|cp \S+ |mkdir -p |mv \S+ )(/\S+)", made)
    assert written and all(path.startswith(("/run/", "/dev/")) for path in written)
    assert bool(scripts.drop_in(name, HOST)) == ("/drop-in" in scripts.inject(name, HOST))
    assert (f"restart {scripts.LOADER}" in scripts.undo(drills.drill(name).restarts)) is drills.drill(name).restarts
    assert bool(scripts.work(name)) == ("work.py" in scripts.inject(name, HOST))
    # What has a drop-in, or ends the loader, must start it again at its end.
    assert drills.drill(name).restarts or not scripts.drop_in(name, HOST)


def test_one_bit_of_an_object_is_another_and_an_empty_one_is_refused() -> None:
    data = bytes(range(9))
    changed = scripts.flipped(data)
    assert len(changed) == 9 and [at for at in range(9) if changed[at] != data[at]] == [4]
    assert scripts.flipped(b"a") == b"`"
    with pytest.raises(FleetError, match="is empty"):
        scripts.flipped(b"")


# --- the record --------------------------------------------------------------------------------

RECORD = record.Record("crash_loop", "may-1", 60, 5 * S, "", host())


def test_a_record_that_was_written_is_read_again() -> None:
    assert record.parse(record.render(RECORD), "f") == RECORD


@pytest.mark.parametrize(
    ("name", "value"),
    [("drill", "x"), ("id", ""), ("id", "a b"), ("seconds", 29), ("seconds", 601), ("feature", "a b"), ("before", None),
     ("begun_boottime_ns", -1), ("schema", "ebpf.fleet/gameday-record/v2")],
)  # fmt: skip
def test_a_record_that_is_not_what_was_written_is_refused(name: str, value: Any) -> None:
    document = json.loads(record.render(RECORD))
    with pytest.raises(FleetError) as found:
        record.parse(json.dumps({**document, name: value}).encode(), "f")
    assert found.value.code == "EF_GAMEDAY_RECORD" and "state=ended" in found.value.message
    with pytest.raises(FleetError):
        record.parse(b"{", "f")


@pytest.mark.parametrize("seconds", [30, 600])
def test_the_bounds_of_a_records_seconds_are_in_it(seconds: int) -> None:
    assert record.parse(record.render(RECORD._replace(seconds=seconds)), "f").seconds == seconds


# --- the answer --------------------------------------------------------------------------------


def told(**changed: Any) -> dict[str, Any]:
    return {"schema": answer.SCHEMA, "drill": "crash_loop", "id": "may-1", "seconds": 60, "begun_boottime_ns": 100 * S,
            "ended_boottime_ns": None, "feature": "", "before": host(), "facts": host(), "seen": {}, "meets": {},
            **changed}  # fmt: skip


def test_an_answer_is_believed_as_far_as_its_format_goes() -> None:
    document, problem = answer.read("h", {**told(), "changed": True, "invocation": {}})
    assert problem == "" and set(document) == set(told())
    for name, value in (("seen", {"x": -1}), ("facts", {}), ("drill", "y"), ("before", 3), ("seconds", 601)):
        document, problem = answer.read("h", told(**{name: value}))
        assert document is None and "no usable answer from h" in problem and name in problem
    document, problem = answer.read("h", {name: one for name, one in told().items() if name != "seen"})
    assert document is None and "seen: is missing" in problem


# --- the score ---------------------------------------------------------------------------------

SEEN = {"restarted": 103 * S, "given_up": 120 * S, "nothing_held": 110 * S}
DEAD = host(active_state="failed", n_restarts=5, held=0, features={}, state=None)


def met(**changed: Any) -> score.Met:
    full = {
        "begun": told(),
        "watched": told(seen=SEEN, facts=DEAD),
        "ended": told(seen={"as_before": 204 * S}, ended_boottime_ns=200 * S, facts=host(ended_by="success")),
    }
    return score.Met(**{**full, **changed})


def scored(name: str = "crash_loop", **changed: Any) -> dict[str, Any]:
    return score.score(drills.drill(name), "h", met(**changed), 2000)


def test_what_was_all_seen_passes_with_its_times() -> None:
    found = scored()
    assert found["verdict"] == score.PASS and found["off"] is None
    assert (found["detected"]["answer"], found["detected"]["after_ms"]) == ("yes", 3000)
    assert (found["degraded"]["answer"], found["degraded"]["after_ms"]) == ("yes", 20000)
    assert found["recovered"] == {"answer": "yes", "after_ms": 4000, "ended_by": "success"}
    assert [one["answer"] for one in found["runbook"]] == ["yes", "yes"]


@pytest.mark.parametrize(
    ("changed", "part", "wanted", "verdict"),
    [
        ({"watched": told(seen={}, facts=host())}, "detected", "no", "fail"),
        ({"watched": told(seen={}, facts=host(n_restarts=None))}, "detected", "unknown", "fail"),
        ({"watched": None, "why": {"watch": "gone"}}, "detected", "unknown", "inconclusive"),
        ({"watched": told(seen={"restarted": 1}, facts=host(held=3))}, "degraded", "no", "fail"),
        ({"watched": told(seen={"restarted": 1, "given_up": 1}, facts=host(held=None))}, "degraded", "unknown",
         "inconclusive"),
        ({"ended": None}, "recovered", "unknown", "inconclusive"),
        ({"ended": told(seen={}, facts=host(active_state="failed"))}, "recovered", "no", "fail"),
    ],
)  # fmt: skip
def test_what_was_not_seen_is_no_and_what_was_not_measured_is_unknown(
    changed: Any, part: str, wanted: str, verdict: str
) -> None:
    found = scored(**changed)
    assert (found[part]["answer"], found["verdict"]) == (wanted, verdict)


def test_a_host_on_which_nothing_was_injected_is_refused_and_never_a_pass() -> None:
    found = scored(begun=None, why={"begin": "EF_GAMEDAY_UNFIT: a lease"})
    assert (found["verdict"], found["why"], found["detected"]) == (score.REFUSED, "EF_GAMEDAY_UNFIT: a lease", None)


KILLED = {"ok": True, "concerned": True, "host_ms": 2000, "detail": "off"}


@pytest.mark.parametrize(
    ("killed", "wanted"),
    [
        (KILLED, "yes"),
        ({**KILLED, "host_ms": 2001}, "no"),
        ({**KILLED, "host_ms": None}, "unknown"),
        ({**KILLED, "ok": False}, "no"),
        ({**KILLED, "concerned": False}, "unknown"),
        ({**KILLED, "concerned": None}, "no"),
        (None, "unknown"),
    ],
)
def test_the_time_to_off_is_the_hosts_own_against_the_limit(killed: Any, wanted: str) -> None:
    flood = told(
        drill="event_flood", seen={"thinned": 101 * S, "source_named": 101 * S}, facts=one(sources=1, thinned=3)
    )
    ended = told(seen={"as_before": 204 * S, "quiet": 204 * S}, ended_boottime_ns=200 * S)
    found = scored("event_flood", watched=flood, killed=killed, ended=ended)
    assert found["off"]["answer"] == wanted
    assert found["verdict"] == {"yes": "pass", "no": "fail", "unknown": "inconclusive"}[wanted], found


def test_an_order_that_came_after_the_fault_had_ended_by_itself_measures_nothing() -> None:
    flood = told(drill="event_flood", seen={"thinned": 101 * S}, facts=one(sources=1, thinned=3))
    ended = told(seen={"as_before": 204 * S}, ended_boottime_ns=200 * S, facts=host(ended_by="timeout"))
    found = scored("event_flood", watched=flood, killed=KILLED, ended=ended)
    assert found["off"]["answer"] == "unknown" and "larger bound" in found["off"]["why"]


def test_a_page_that_was_not_right_fails_the_drill() -> None:
    found = scored(ended=told(seen={}, ended_boottime_ns=200 * S, facts=one(step="sampling")))
    assert [step["answer"] for step in found["runbook"]] == ["yes", "no"] and found["verdict"] == score.FAIL


# --- the report --------------------------------------------------------------------------------


def test_the_report_counts_verdicts_and_names_what_was_not_done() -> None:
    chosen = {"drills": ["crash_loop", "missing_btf"], "hosts": ["h"], "left_out": [{"host": "i", "why": "not marked"}]}
    found = report.report([scored()], chosen, "2026-11-28T18:00:00Z", "2026-11-28T18:10:00Z", "practice")
    assert found["counts"] == {"pass": 1, "fail": 0, "inconclusive": 0, "refused": 0}
    assert found["not_done"] == ["missing_btf on h"] and json.loads(json.dumps(found)) == found
    said = "\n".join(report.lines(found))
    for words in ("1 pass, 0 fail", "crash_loop on h: pass", "detected: yes after 3.0 s", "ended by the playbook",
                  "left out: i: not marked", "not done: missing_btf on h"):  # fmt: skip
        assert words in said
    assert score.failed(found["scores"]) == []
    bad = copy.deepcopy(found["scores"])
    bad[0]["verdict"] = "inconclusive"
    assert score.failed(bad) == ["crash_loop on h: inconclusive"]


@pytest.mark.parametrize(
    ("word", "said"),
    [("timeout", "its own bound on the host"), ("again", "as its unit had not"), (None, "no one that is known"),
     ("signal", "systemd (signal)")],
)  # fmt: skip
def test_who_ended_a_fault_is_said(word: str | None, said: str) -> None:
    ended = told(seen={"as_before": 204 * S}, ended_boottime_ns=200 * S, facts=host(ended_by=word))
    chosen = {"drills": ["crash_loop"], "hosts": ["h"], "left_out": []}
    found = report.report([scored(ended=ended)], chosen, "a", "b", "c")
    assert said in "\n".join(report.lines(found))


def test_the_time_to_off_and_what_was_missing_stand_in_the_lines() -> None:
    watched = told(drill="event_flood", seen={"thinned": 101 * S}, facts=one(thinned=3))
    found = scored("event_flood", watched=watched, killed={**KILLED, "host_ms": 2001, "detail": "slow"})
    said = "\n".join(report.lines(report.report([found], {"drills": [], "hosts": [], "left_out": []}, "a", "b", "c")))
    assert "off by a kill order: no in 2001 ms of at most 2000 ms: slow" in said
    refused = scored(begun=None, why={"begin": "why"})
    said = report.lines(report.report([refused], {"drills": [], "hosts": [], "left_out": []}, "a", "b", "c"))
    assert "crash_loop on h: refused: why" in said and not any(line.startswith("  ") for line in said)
