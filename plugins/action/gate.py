# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Collect observations on the controller, hand them to the pure gate and return its verdict."""

from __future__ import annotations

import contextlib

from ansible.plugins.action import ActionBase
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.base.expressions import (
    Evaluator,
    ExpressionError,
    refuse_expensive,
)
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate import arguments as gate_arguments
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate import base as gate_base
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate import judge as gate
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate import spending
from ansible_collections.ebpf.fleet.plugins.plugin_utils.told import failed

ARGUMENTS = {
    "changed": {"type": "dict"},
    "controls": {"type": "dict"},
    "hosts": {"type": "list", "elements": "str"},
    "control_hosts": {"type": "list", "elements": "str", "default": []},
    "before_var": {"type": "str"},
    "after_var": {"type": "str"},
    "expected": {"type": "dict"},
    "expected_var": {"type": "str"},
    "contracts": {"type": "list", "elements": "dict", "default": []},
    "digest": {"type": "str"},
    "limits": {"type": "dict", "default": {}},
    "on_inconclusive": {"type": "dict", "default": {}},
    "extra_checks": {"type": "list", "elements": "dict", "default": []},
    "before_applications": {"type": "dict", "default": {}},
    "after_applications": {"type": "dict", "default": {}},
    "early": {"type": "bool", "default": False},
    "dry_run": {"type": "list", "elements": "str", "default": []},
    "error_rate": {"type": "raw", "default": spending.DEFAULT_ERROR_RATE},
    "batches": {"type": "raw", "default": spending.DEFAULT_BATCHES},
    "readings": {"type": "raw", "default": spending.DEFAULT_READINGS},
    "reading": {"type": "raw", "default": 1},
}

BUDGET = ("error_rate", "batches", "readings", "reading")

# Deeper than any observation, far less than Python's stack.
DEPTH_LIMIT = 64

MALFORMED = gate.MALFORMED

# Where capability_facts leaves its predictions.
PREDICTIONS = "ansible_facts.ebpf_fleet_capabilities.profiles"


class ActionModule(ActionBase):
    """Runs on the controller without a connection; fails only on bad arguments."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _requires_connection = False

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        _spec, arguments = self.validate_argument_spec(
            argument_spec=ARGUMENTS,
            mutually_exclusive=[("changed", "hosts"), ("expected", "expected_var")],
            required_one_of=[("changed", "hosts")],
            required_together=[("before_var", "after_var")],
            required_by={"hosts": ("after_var",)},
        )
        hostvars = (task_vars or {}).get("hostvars", {})
        try:
            verdict = judge(arguments, hostvars)
        except FleetError as error:
            return {**result, **failed(error)}
        result.update(verdict, changed=False, failed=False)
        return result


def judge(arguments, hostvars):
    """The verdict of the task's arguments."""
    expressions = gate_arguments.check_expressions(plain(arguments["extra_checks"]))
    evaluator = bounded_evaluator(expressions)
    with evaluator or contextlib.nullcontext():
        return gate.judge(inputs_from(arguments, hostvars, expressions, evaluator))


def inputs_from(arguments, hostvars, expressions, evaluator):
    """The gate's inputs of the task's arguments; GateInputError if one is wrong."""
    names = [one["name"] for one in expressions]
    expected, faults = expected_profiles(arguments, hostvars)
    changed = observations(arguments, hostvars, "changed", "hosts")
    changed.update({host: {"before": None, "after": {MALFORMED: wrong}} for host, wrong in faults.items()})
    return gate_base.Inputs(
        changed=changed,
        controls=observations(arguments, hostvars, "controls", "control_hosts"),
        limits=gate_arguments.check_limits(plain(arguments["limits"])),
        contracts=gate_arguments.check_contracts(plain(arguments["contracts"])),
        expected=expected,
        digest=arguments["digest"],
        on_inconclusive=gate_arguments.check_policies(plain(arguments["on_inconclusive"]), names),
        expressions=expressions,
        search=None if evaluator is None else evaluator.search,
        budget=gate_arguments.check_budget(*(arguments[one] for one in BUDGET)),
        dry_run=gate_arguments.check_dry_run(arguments["dry_run"], names),
        early=arguments["early"],
    )


def observations(arguments, hostvars, given, hosts):
    """{host: {"before", "after"}}, given as a whole or collected from the variables of the hosts."""
    pairs = given_pairs(arguments[given])
    if pairs is None:
        names = ("before_var", "after_var")
        pairs = {
            host: dict(zip(("before", "after"), [variable(hostvars, host, arguments[one]) for one in names]))
            for host in arguments[hosts]
        }
    told = {end: plain_answer(arguments[f"{end}_applications"]) for end in ("before", "after")}
    return {
        host: {
            end: with_application(bare(gate_base.get(pair, end)), gate_base.get(told[end], host))
            for end in ("before", "after")
        }
        for host, pair in pairs.items()
    }


def with_application(observation, told):
    """The observation with the latency that latency_info has of its host; that is then the application's own word."""
    end = gate_base.get(observation, "end")
    if not isinstance(told, dict) or not isinstance(end, dict):
        return observation
    latency = {name: told.get(name) for name in ("application", "application_error")}
    if latency == {"application": None, "application_error": None}:
        latency["application_error"] = "latency_info gave neither a latency nor a reason"
    return {**observation, "end": {**end, **latency}}


def given_pairs(given):
    """{host: observations} of the task itself, each host's made plain by itself; None where none are given."""
    return None if given is None else {str(host): plain_answer(pair) for host, pair in given.items()}


def variable(hostvars, host, name):
    """A host's variable by a dotted path; None where the host or a part of the path is missing."""
    if name is None or host not in hostvars:
        return None
    first, *rest = name.split(".")
    try:
        value = hostvars[host][first]
    except KeyError:
        return None
    return gate_base.get(plain_answer(value), *rest)


def bare(value):
    """The observation itself, also out of what observation_info registered."""
    if gate_base.get(value, "failed") or gate_base.get(value, "unreachable") or gate_base.get(value, "skipped"):
        return None
    inner = gate_base.get(value, "observation")
    return value if inner is None else inner


def expected_profiles(arguments, hostvars):
    """({host: {feature: expectation}}, {host: why what it predicts cannot be used}).

    What the task itself says must be right. What stands in a host's variables may be the host's own
    answer: a bad one is told of that host and does not stop the others' judgement.
    """
    given = plain(arguments["expected"])
    if given is not None:
        return gate_arguments.check_expected(given), {}
    hosts = arguments["hosts"] or list(arguments["changed"] or {})
    path = arguments["expected_var"] or PREDICTIONS
    found = {host: variable(hostvars, host, path) for host in hosts}
    expected, faults = {}, {}
    for host, value in found.items():
        try:
            expected.update(gate_arguments.check_predictions({} if value is None else {host: value}))
        except gate_arguments.GateInputError as error:
            faults[host] = str(error)
    return expected, faults


def plain(value, depth=DEPTH_LIMIT):
    """A copy without Ansible's lazy containers, so that nothing is templated behind our back."""
    if isinstance(value, (dict, list, tuple)) and depth == 0:
        raise gate_arguments.GateInputError(f"a value is nested deeper than {DEPTH_LIMIT}; make it flatter")
    if isinstance(value, dict):
        return {str(key): plain(one, depth - 1) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one, depth - 1) for one in value]
    return value


def plain_answer(value):
    """As `plain`, of what a host answered: one that is too deep is said by the gate, of that host alone."""
    try:
        return plain(value)
    except gate_arguments.GateInputError as error:
        return {MALFORMED: str(error)}


def bounded_evaluator(expressions):
    """What evaluates the user's expressions, each of which is refused here if it may cost too much."""
    if not expressions:
        return None
    try:
        import jmespath
    except ImportError as error:
        remedy = "extra_checks: the controller's Python has no jmespath; install it there, or leave them out"
        raise gate_arguments.GateInputError(remedy) from error
    for one in expressions:
        refuse_expression(jmespath, one)
    return Evaluator()


def refuse_expression(jmespath, one):
    """GateInputError with the check's name for what is not JMESPath or may cost too much."""
    where = f"extra_checks.{one['name']}.expression"
    try:
        refuse_expensive(one["expression"], lambda text: jmespath.compile(text).parsed)
    except jmespath.exceptions.JMESPathError as error:
        raise gate_arguments.GateInputError(f"{where}: is not JMESPath: {error}; correct it") from error
    except ExpressionError as error:
        raise gate_arguments.GateInputError(f"{where}: {error}") from error
