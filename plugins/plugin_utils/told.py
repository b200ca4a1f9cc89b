# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a filter or lookup of ours says that it cannot: by an error, or as data that a playbook tells.

ansible-core wraps what is raised while a task's arguments are rendered in words of its own
("Finalization of task args …"), three times. A playbook that asks with `told=true` gets
``{"fault": sentence}`` and fails with the sentence alone.
"""

from __future__ import annotations


def attempt(told, wrap, call, errors):
    """What `call()` returns; of one of `errors` the fault as data where it is told, else `wrap(sentence)` raised."""
    try:
        return call()
    except errors as error:
        if told:
            return {"fault": str(error)}
        raise wrap(str(error)) from error


def fault_of(value):
    """The fault that an earlier filter told instead of a value, or None."""
    return value["fault"] if isinstance(value, dict) and set(value) == {"fault"} else None
