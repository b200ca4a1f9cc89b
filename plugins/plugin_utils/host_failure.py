# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host's module said when it did not do its work: printable, of one line, with its reason code."""

from __future__ import annotations

from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.base.printable import printable
from ansible_collections.ebpf.fleet.plugins.module_utils.base.reasons.table import REASONS, remedy_of
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

MESSAGE_LIMIT = 1000


def failure_of(answer):
    """The failed, unreachable or skipped result that a module's answer is; None of an answer that did its work."""
    if is_old_python(answer):
        # The wrapper's own words are pages of encoded archive, which would bury the remedy.
        return failed(FleetError("EF_OLD_PYTHON", REMEDY))
    if answer.get("failed") or answer.get("unreachable"):
        kind = {"unreachable": True} if answer.get("unreachable") else {"failed": True}
        return {**kind, "changed": False, "msg": printable(failure_words(answer), MESSAGE_LIMIT), **coded(answer)}
    if answer.get("skipped"):
        return {"skipped": True, "changed": False, "msg": printable(answer.get("msg", ""), MESSAGE_LIMIT)}
    return None


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
