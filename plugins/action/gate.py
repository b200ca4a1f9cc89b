# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
"""Collect observations on the controller, hand them to the pure gate and return its verdict."""

from __future__ import annotations

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.ebpf.fleet.plugins.module_utils import gate

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
}


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
            verdict = gate.judge(inputs_from(arguments, hostvars))
        except gate.GateInputError as error:
            raise AnsibleActionFail(str(error)) from error
        result.update(verdict, changed=False, failed=False)
        return result


def inputs_from(arguments, hostvars):
    """The gate's inputs of the task's arguments; GateInputError if one is wrong."""
    expressions = gate.check_expressions(plain(arguments["extra_checks"]))
    names = [one["name"] for one in expressions]
    return gate.Inputs(
        changed=observations(arguments, hostvars, "changed", "hosts"),
        controls=observations(arguments, hostvars, "controls", "control_hosts"),
        limits=gate.check_limits(plain(arguments["limits"])),
        contracts=gate.check_contracts(plain(arguments["contracts"])),
        expected=gate.check_expected(expected_profiles(arguments, hostvars)),
        digest=arguments["digest"],
        on_inconclusive=gate.check_policies(plain(arguments["on_inconclusive"]), names),
        expressions=expressions,
        search=compiled_search(expressions),
    )


def observations(arguments, hostvars, given, hosts):
    """{host: {"before", "after"}}, given as a whole or collected from the variables of the hosts."""
    pairs = plain(arguments[given])
    if pairs is None:
        names = ("before_var", "after_var")
        pairs = {
            host: dict(zip(("before", "after"), [variable(hostvars, host, arguments[one]) for one in names]))
            for host in arguments[hosts]
        }
    return {
        host: {end: bare(gate.get(pair, end)) for end in ("before", "after")} for host, pair in pairs.items()
    }


def variable(hostvars, host, name):
    """A host's variable by a dotted path; None where the host or a part of the path is missing."""
    if name is None or host not in hostvars:
        return None
    first, *rest = name.split(".")
    try:
        value = hostvars[host][first]
    except KeyError:
        return None
    return gate.get(plain(value), *rest)


def bare(value):
    """The observation itself, also out of what observation_info registered."""
    if gate.get(value, "failed") or gate.get(value, "unreachable") or gate.get(value, "skipped"):
        return None
    inner = gate.get(value, "observation")
    return value if inner is None else inner


def expected_profiles(arguments, hostvars):
    """{host: {feature: least profile or prediction}}, from wherever the task says."""
    given = plain(arguments["expected"])
    if given is not None:
        return given
    hosts = arguments["hosts"] or list(arguments["changed"] or {})
    path = arguments["expected_var"] or PREDICTIONS
    found = {host: variable(hostvars, host, path) for host in hosts}
    return {host: value for host, value in found.items() if value is not None}


def plain(value):
    """A copy without Ansible's lazy containers, so that nothing is templated behind our back."""
    if isinstance(value, dict):
        return {str(key): plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(one) for one in value]
    return value


def compiled_search(expressions):
    """A function that evaluates the user's expressions, each compiled once; None if there are none."""
    if not expressions:
        return None
    try:
        import jmespath
    except ImportError as error:
        remedy = "extra_checks: the controller's Python has no jmespath; install it there, or leave them out"
        raise gate.GateInputError(remedy) from error
    compiled = {one["expression"]: compiled_one(jmespath, one) for one in expressions}

    def search(expression, document):
        try:
            return compiled[expression].search(document)
        except jmespath.exceptions.JMESPathError as error:
            raise ValueError(str(error)) from error

    return search


def compiled_one(jmespath, one):
    """One compiled expression, or GateInputError."""
    try:
        return jmespath.compile(one["expression"])
    except jmespath.exceptions.JMESPathError as error:
        raise gate.GateInputError(
            f"extra_checks.{one['name']}.expression: is no JMESPath: {error}"
        ) from error
