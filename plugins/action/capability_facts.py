# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the module capability_facts, and hand on only what its format knows.

What a host returns is judged before Ansible stores it: a document that is not one never becomes a
variable, and neither do facts, hosts or warnings that a hostile host adds to its result.
"""

from __future__ import annotations

from ansible.errors import AnsibleConnectionFailure
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.base.printable import printable
from ansible_collections.ebpf.fleet.plugins.module_utils.base.reasons.table import REASONS, remedy_of
from ansible_collections.ebpf.fleet.plugins.module_utils.facts import capability_document
from ansible_collections.ebpf.fleet.plugins.plugin_utils.cell_answers import taken
from ansible_collections.ebpf.fleet.plugins.plugin_utils.guarded import GuardedAction
from ansible_collections.ebpf.fleet.plugins.plugin_utils.told import failed

# What an interpreter before 3.8 says when it meets ansible-core's own wrapper.
OLD_PYTHON_WORDS = (
    "future feature annotations is not defined",
    "requires a minimum of Python",
    "SyntaxError",
)

REMEDY = (
    "the host's Python is older than 3.8, in which no module of this collection can start; "
    "install a newer one and name it in ansible_python_interpreter. The kill switch needs no Python."
)

UNPRIVILEGED = "Not privileged: the kernel answers few questions; use become to have them all answered"

MESSAGE_LIMIT = 1000


class ActionModule(GuardedAction):
    """Thin: the module's result goes through `believed`."""

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        host = (task_vars or {}).get("inventory_hostname", "this host")
        features = asked_about(self._task.args.get("contracts"))
        answer = taken(task_vars, "capability_facts")
        if answer is not None:
            # Of a cell controller it is still what a host said.
            return {**result, **believed(host, answer, features)}
        try:
            answer = self._execute_module(task_vars=task_vars, wrap_async=self._task.async_val)
        except AnsibleConnectionFailure as error:
            return {"unreachable": True, "changed": False, "msg": printable(one_line(str(error)), MESSAGE_LIMIT)}
        except RecursionError:
            # ansible-core's own reader of a module's JSON, on a document of thousands of levels.
            return no_answer(f"no usable answer from {host}: the answer: is nested too deep")
        if self._task.async_val:
            return {**result, **answer}
        return {**result, **believed(host, answer, features)}


def asked_about(contracts):
    """Names of the features that were asked about; none where the argument is not a list of contracts."""
    if not isinstance(contracts, (list, tuple)):
        return []
    return [one["feature"] for one in contracts if isinstance(one, dict) and isinstance(one.get("feature"), str)]


def believed(host, answer, features):
    """The part of a module's result that its format knows, or a failure that says why it is not believed."""
    if is_old_python(answer):
        # The wrapper's own words are pages of encoded archive, which would bury the remedy.
        return failed(FleetError("EF_OLD_PYTHON", REMEDY))
    if answer.get("failed") or answer.get("unreachable"):
        kind = {"unreachable": True} if answer.get("unreachable") else {"failed": True}
        return {**kind, "changed": False, "msg": printable(failure_words(answer), MESSAGE_LIMIT), **coded(answer)}
    if answer.get("skipped"):
        return {"skipped": True, "changed": False, "msg": printable(answer.get("msg", ""), MESSAGE_LIMIT)}
    read = capability_document.read(host, answer, features)
    if read.capabilities is None:
        return no_answer(read.problem or f"no usable answer from {host}: capabilities: is missing")
    return {
        "changed": False,
        "capabilities": read.capabilities,
        "profiles": read.profiles,
        "ansible_facts": {"ebpf_fleet_capabilities": read.capabilities},
        **({"warnings": [UNPRIVILEGED]} if read.capabilities.get("privileged") is False else {}),
    }


def no_answer(message):
    """A failed result; the message is printable."""
    return failed(FleetError("EF_NO_ANSWER", message))


def coded(answer):
    """The reason code of the host's module with its remedy, where it is one of the list."""
    code = answer.get("reason_code")
    return {"reason_code": code, "remedy": remedy_of(code)} if isinstance(code, str) and code in REASONS else {}


def failure_words(answer):
    """What a failed module said, in one line: its message, then the end of what it wrote."""
    words = [answer.get(key) for key in ("msg", "module_stderr", "module_stdout")]
    return ": ".join(one_line(one)[-MESSAGE_LIMIT:] for one in words if isinstance(one, str) and one.strip())


def one_line(words):
    """Lines joined, as the printable form would show each break as an escape."""
    return " ".join(words.split())


def is_old_python(result):
    """Did the module fail before its first line because of the interpreter's age?"""
    if not result.get("failed"):
        return False
    said = " ".join(str(result.get(key, ""))[-100_000:] for key in ("msg", "module_stderr", "module_stdout"))
    return any(words in said for words in OLD_PYTHON_WORDS)
