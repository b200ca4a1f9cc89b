# SPDX-License-Identifier: GPL-3.0-or-later
"""What the gate's task makes of its arguments and of the hosts' variables, before anything is judged."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any, Mapping

import pytest
from ansible.errors import AnsibleError
from ansible.parsing.dataloader import DataLoader
from ansible.playbook.task import Task
from ansible.template import Templar
from ansible_collections.ebpf.fleet.plugins.action import gate
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate.arguments import GateInputError
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate.base import Expectation

from tests.unit.test_gate import observation

GIVEN = {name: one.get("default") for name, one in gate.ARGUMENTS.items()}
DEEP = "a value is nested deeper than 64; make it flatter"


def nested(depth: int, kind: type = list) -> Any:
    """So many containers within one another."""
    value: Any = 7
    for _level in range(depth):
        value = {"k": value} if kind is dict else kind([value])
    return value


class Lazy(dict):  # type: ignore[type-arg]
    """As Ansible's own: a kind of mapping that is not to reach the gate."""


# --- plain values ---------------------------------------------------------------------------------


def test_a_copy_is_of_plain_containers() -> None:
    given = Lazy({1: (1, Lazy(a=None)), "t": "text", "f": 0.5, "yes": True})
    found = gate.plain(given)
    assert found == {"1": [1, {"a": None}], "t": "text", "f": 0.5, "yes": True} and found is not given
    assert type(found) is dict and type(found["1"]) is list and type(found["1"][1]) is dict
    assert gate.plain([]) == [] and gate.plain(None) is None


@pytest.mark.parametrize("kind", [list, tuple, dict])
def test_what_is_nested_64_deep_is_taken_and_no_deeper(kind: type) -> None:
    as_list = dict if kind is dict else list
    assert gate.plain(nested(64, kind)) == gate.plain_answer(nested(64, kind)) == nested(64, as_list)
    with pytest.raises(GateInputError, match=DEEP):
        gate.plain(nested(65, kind))
    assert gate.plain_answer(nested(65, kind)) == {gate.MALFORMED: DEEP}
    with pytest.raises(GateInputError, match=DEEP):
        gate.plain({"k": nested(2)}, 2)
    assert gate.plain({"k": nested(2)}, 3) == {"k": nested(2)}


# --- variables of hosts ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "name", "found"),
    [
        ("w1", "a", {"b": {"c": 0}}),
        ("w1", "a.b.c", 0),
        ("w1", "a.b.x", None),
        ("w1", "a.b.c.d", None),
        ("w1", "x", None),
        ("w2", "a", None),
        ("w1", None, None),
        ("w1", "deep", {gate.MALFORMED: DEEP}),
        ("w1", "deep.k", None),
    ],
)
def test_a_variable_of_a_host_by_its_path(host: str, name: str | None, found: Any) -> None:
    hostvars = {"w1": Lazy(a=Lazy(b=Lazy(c=0)), deep=nested(65, dict))}
    assert gate.variable(hostvars, host, name) == found


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ({"observation": {"end": 1}, "changed": False}, {"end": 1}),
        ({"observation": {"end": 1}, "failed": False, "unreachable": False, "skipped": False}, {"end": 1}),
        ({"end": 1}, {"end": 1}),
        ({"observation": {"end": 1}, "failed": True}, None),
        ({"observation": {"end": 1}, "unreachable": True}, None),
        ({"observation": {"end": 1}, "skipped": True}, None),
        ({"end": 1, "failed": True}, None),
        (None, None),
        ("text", "text"),
    ],
)
def test_an_observation_as_it_is_or_as_it_was_registered(value: Any, found: Any) -> None:
    assert gate.bare(value) == found


@pytest.mark.parametrize(
    ("told", "application"),
    [
        ({"application": {"p95_ns": 1}, "application_error": None}, ({"p95_ns": 1}, None)),
        ({"application": None, "application_error": "gone"}, (None, "gone")),
        ({"application": {"p95_ns": 1}}, ({"p95_ns": 1}, None)),
        ({"more": 1}, (None, "latency_info gave neither a latency nor a reason")),
        ({}, (None, "latency_info gave neither a latency nor a reason")),
        (None, ("own", "own error")),
        ("text", ("own", "own error")),
    ],
)
def test_the_latency_of_another_task_stands_in_the_place_of_the_observations(told: Any, application: Any) -> None:
    own = {"start": 1, "end": {"application": "own", "application_error": "own error", "more": 2}}
    found = gate.with_application(own, told)
    assert (found["start"], found["end"]["more"]) == (1, 2)
    assert (found["end"]["application"], found["end"]["application_error"]) == application
    assert own["end"] == {"application": "own", "application_error": "own error", "more": 2}, "it is a copy"
    for broken in (None, "text", {"end": None}, {"start": 1}):
        assert gate.with_application(broken, told) == broken


def test_observations_given_as_a_whole_are_made_plain_host_by_host() -> None:
    assert gate.given_pairs(None) is None and gate.given_pairs({}) == {}
    pairs = {7: Lazy(before=None, after=(1,)), "w2": nested(65)}
    assert gate.given_pairs(pairs) == {"7": {"before": None, "after": [1]}, "w2": {gate.MALFORMED: DEEP}}


END = {"end": {"application": None}}


@pytest.mark.parametrize("before_var", [None, "b"])
def test_observations_of_the_hosts_variables(before_var: str | None) -> None:
    hostvars = {"w1": {"b": {"observation": {"end": 1}}, "a": {"observation": END}},
                "w2": {"b": {"observation": {"end": 2}}, "a": {"observation": {"end": 4}, "failed": True}}}  # fmt: skip
    arguments = {**GIVEN, "hosts": ["w1", "w2", "w3"], "control_hosts": ["w2"], "before_var": before_var,
                 "after_var": "a", "after_applications": {"w1": {"application": 9}}}  # fmt: skip
    before = [{"end": 1}, {"end": 2}] if before_var else [None, None]
    found = gate.observations(arguments, hostvars, "changed", "hosts")
    assert found == {
        "w1": {"before": before[0], "after": {"end": {"application": 9, "application_error": None}}},
        "w2": {"before": before[1], "after": None},
        "w3": {"before": None, "after": None},
    }
    assert list(gate.observations(arguments, hostvars, "controls", "control_hosts")) == ["w2"]
    given = {**arguments, "changed": {"x": {"before": END, "after": {"end": {}}}},
             "before_applications": {"x": {"application": 8}}}  # fmt: skip
    assert gate.observations(given, hostvars, "changed", "hosts") == {
        "x": {"before": {"end": {"application": 8, "application_error": None}}, "after": {"end": {}}}
    }


# --- what is expected of hosts --------------------------------------------------------------------


def test_what_the_task_expects_is_taken_or_refused() -> None:
    arguments = {**GIVEN, "expected": Lazy({"*": Lazy(f="full")}), "hosts": ["w1"]}
    assert gate.expected_profiles(arguments, {}) == ({"*": {"f": Expectation("full", True)}}, {})
    with pytest.raises(GateInputError, match="unknown name 'ful'; did you mean full"):
        gate.expected_profiles({**arguments, "expected": {"*": {"f": "ful"}}}, {})


@pytest.mark.parametrize(
    "asked", [{"hosts": ["w1", "w2", "w3"]}, {"hosts": None, "changed": {"w1": 1, "w2": 1, "w3": 1}}]
)
@pytest.mark.parametrize("path", [None, "mine.of"])
def test_what_hosts_predicted_is_read_and_a_bad_one_told_of_that_host(asked: Any, path: str | None) -> None:
    predictions = {"w1": {"f": {"profile": "reduced"}}, "w2": {"f": {"profile": "odd"}}}
    first, last = ("mine", "of") if path else ("ansible_facts", "ebpf_fleet_capabilities")
    hostvars = {host: {first: {last: one if path else {"profiles": one}}} for host, one in predictions.items()}
    found, faults = gate.expected_profiles({**GIVEN, **asked, "expected_var": path}, {**hostvars, "w3": {}})
    assert found == {"w1": {"f": Expectation("reduced", False)}}
    assert list(faults) == ["w2"] and faults["w2"].startswith("expected.w2.f: unknown name 'odd'; ")


def test_a_task_about_no_host_expects_nothing() -> None:
    assert gate.expected_profiles({**GIVEN, "hosts": None}, {}) == ({}, {})


def test_all_that_the_task_gives_reaches_the_gate() -> None:
    own = [{"name": "mine", "expression": "a", "max": 1}]
    predicted = {"ansible_facts": {"ebpf_fleet_capabilities": {"profiles": {"f": {"profile": "odd"}}}}}
    hostvars = {"w1": {"a": {"observation": END}, "b": END}, "w2": {"a": END, **predicted}, "c1": {"a": END, "b": END}}
    arguments = {
        **GIVEN, "hosts": ["w1", "w2"], "control_hosts": ["c1"], "before_var": "b", "after_var": "a", "digest": "d",
        "limits": {"status_age_ns": 5}, "contracts": [{"feature": "f", "budget": {}}], "early": True,
        "on_inconclusive": {"mine": "pass"}, "dry_run": ["mine", "release"], "error_rate": 0.1, "batches": 2,
        "readings": 4, "reading": 3,
    }  # fmt: skip
    evaluator = SimpleNamespace(search=len)
    found = gate.inputs_from(arguments, hostvars, own, evaluator)
    why = "expected.w2.f: unknown name 'odd'; "
    (told,) = found.changed["w2"]["after"].values()
    assert told.startswith(why) and found.changed["w2"] == {"before": None, "after": {gate.MALFORMED: told}}
    assert found.changed["w1"] == {"before": END, "after": END} and list(found.changed) == ["w1", "w2"]
    assert found.controls == {"c1": {"before": END, "after": END}}
    assert (found.limits["status_age_ns"], found.contracts) == (5, {"f": {"feature": "f", "budget": {}}})
    assert (found.expected, found.digest, found.early) == ({}, "d", True)
    assert (found.on_inconclusive, found.dry_run) == ({"mine": "pass"}, {"mine", "release"})
    assert found.budget._asdict() == {"error_rate": 0.1, "batches": 2, "readings": 4, "reading": 3}
    assert (found.expressions, found.search) == (own, len)
    assert gate.inputs_from(GIVEN | {"changed": {}}, {}, [], None).search is None


# --- expressions ----------------------------------------------------------------------------------


def test_an_expression_is_refused_by_its_checks_name() -> None:
    assert gate.bounded_evaluator([]) is None
    good = {"name": "mine", "expression": "rates.window_ns", "max": 1}
    assert gate.bounded_evaluator([good]) is not None
    for expression, words in (
        ("rates.[", "extra_checks.bad.expression: is not JMESPath: "),
        ("a" * 1001, "extra_checks.bad.expression: has 1001 characters; at most 1000 are allowed"),
    ):
        with pytest.raises(GateInputError) as refused:
            gate.bounded_evaluator([good, {"name": "bad", "expression": expression, "max": 1}])
        assert words in refused.value.message


def test_without_jmespath_own_checks_are_refused_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jmespath", None)
    assert gate.bounded_evaluator([]) is None
    with pytest.raises(
        GateInputError, match="^extra_checks: the controller's Python has no jmespath; install it there"
    ):
        gate.bounded_evaluator([{"name": "mine", "expression": "a", "max": 1}])


# --- the task -------------------------------------------------------------------------------------


def act(hostvars: Mapping[str, Any] | None = None, **arguments: Any) -> dict[str, Any]:
    task = Task()
    task.action, task.args, task.async_val, task.check_mode = "ebpf.fleet.gate", arguments, 0, False
    connection = SimpleNamespace(_shell=SimpleNamespace(tmpdir="/nowhere"))
    loader = DataLoader()
    plugin = gate.ActionModule(task, connection, None, loader, Templar(loader=loader), None)
    return dict(plugin.run(task_vars=None if hostvars is None else {"hostvars": hostvars}))


def test_hosts_are_judged_by_their_variables_with_all_that_the_task_gives() -> None:
    own = {"name": "window", "expression": "rates.window_ns", "max": 1, "unit": "ns"}
    after, before = observation(), observation(50 * 10**9)
    hostvars = {"w1": {"a": after, "b": before}, "w2": {"a": None, "b": before}}
    found = act(
        hostvars, hosts=["w1", "w2"], control_hosts=["w1"], before_var="b", after_var="a", expected={"*": {}},
        extra_checks=[own], on_inconclusive={"window": "pass"}, dry_run=["window"], limits={"status_age_ns": 5},
        digest="e" * 64,
    )  # fmt: skip
    assert (found["failed"], found["changed"], found["verdict"]) == (False, False, "fail")
    by_name = {(one["host"], one["check"]): one for one in found["checks"]}
    window = by_name["w1", "window"]
    assert (window["verdict"], window["measured"], window["limit"]) == ("fail", after["window_ns"], 1)
    assert by_name["w1", "status_fresh"]["limit"] == 5 and by_name["w1", "release"]["limit"] == "e" * 64
    assert by_name["w1", "features_attached"]["sentence"] == "w1: nothing is expected to run, and exec_events does"
    assert by_name["w2", "observation"]["verdict"] == "inconclusive"
    assert [one["check"] for one in found["dry_run"]] == ["window"]
    assert "window" not in [one["check"] for one in found["reasons"]]
    assert (found["hosts"], list(found["before_after"]["controls"])) == (["w1", "w2"], ["w1"])


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ({"limits": {"status_age": 1}}, "limits: unknown name 'status_age'; did you mean status_age_ns?"),
        ({"on_inconclusive": {"accountin": "pass"}},
         "on_inconclusive: unknown name 'accountin'; did you mean accounting?"),
        ({"dry_run": ["accountin"]}, "dry_run: unknown name 'accountin'; did you mean accounting?"),
        ({"contracts": [{}]}, "contracts: each needs `feature` and `budget`; pass contract.json as built"),
        ({"error_rate": 0.6}, "error_rate: is 0.6 (a number); give a number"),
        ({"reading": 2}, "reading: is 2 of 1; give at most as many as are planned"),
        ({"extra_checks": [{"name": "x"}]}, "extra_checks: each needs `name`, `expression` and one of"),
        ({"limits": nested(65, dict)}, DEEP),
    ],
)  # fmt: skip
def test_a_wrong_argument_fails_the_task_with_its_name(arguments: dict[str, Any], line: str) -> None:
    found = act({}, changed={}, **arguments)
    assert found["failed"] is True and found["msg"].startswith(f"EF_ARGUMENT: {line}"), found["msg"]
    assert found["reason_code"] == "EF_ARGUMENT" and found["changed"] is False


def test_without_variables_of_hosts_what_the_task_gives_is_judged() -> None:
    assert act(None, changed={})["verdict"] == "inconclusive"
    found = act(None, changed={"w1": {"before": None, "after": observation()}}, batches=2, readings=2, reading=2)
    assert found["hosts"] == ["w1"]


VARS = {"before_var": "b", "after_var": "a"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "^one of the following is required: changed, hosts$"),
        ({"hosts": ["w1"]}, "^missing parameter.s. required by 'hosts': after_var$"),
        ({"hosts": ["w1"], "changed": {}, **VARS}, r"^parameters are mutually exclusive: changed\|hosts$"),
        ({"hosts": ["w1"], "after_var": "a"}, "^parameters are required together: before_var, after_var$"),
        ({"changed": {}, "before_var": "b"}, "^parameters are required together: before_var, after_var$"),
        ({"changed": {}, "expected": {}, "expected_var": "e"},
         r"^parameters are mutually exclusive: expected\|expected_var$"),
        ({"changed": {}, "changes": {}}, "Unsupported parameters .*: changes. Supported parameters include: "),
    ],
)  # fmt: skip
def test_arguments_that_need_or_exclude_one_another(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(AnsibleError, match=words):
        act({}, **arguments)


def test_the_task_goes_to_no_host() -> None:
    action = gate.ActionModule
    assert (action.TRANSFERS_FILES, action._requires_connection, action._supports_check_mode) == (False, False, True)
