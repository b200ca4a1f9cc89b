# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
"""Run the module capability_facts, and say it clearly when the host's Python is too old to start it."""

from __future__ import annotations

from ansible.plugins.action import ActionBase

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


class ActionModule(ActionBase):
    """Passes everything through; only the message of one failure is its own."""

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        result.update(self._execute_module(task_vars=task_vars, wrap_async=self._task.async_val))
        if is_old_python(result):
            # The wrapper's own words are pages of encoded archive, which would bury the remedy.
            return {"failed": True, "changed": False, "msg": REMEDY}
        return result


def is_old_python(result):
    """Did the module fail before its first line because of the interpreter's age?"""
    if not result.get("failed"):
        return False
    said = " ".join(str(result.get(key, "")) for key in ("msg", "module_stderr", "module_stdout"))
    return any(words in said for words in OLD_PYTHON_WORDS)
