# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How a filter, lookup or action of ours says that it cannot: always the code and the sentence of a FleetError.

ansible-core wraps what is raised while a task's arguments are rendered in words of its own
("Finalization of task args …"), three times. A playbook that asks with `told=true` gets
``{"fault": line}`` and fails with the line alone.
"""

from __future__ import annotations

from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError


def attempt(wrap, call, told=False):
    """What `call()` returns; of a FleetError the line as data where it is told, else `wrap(line)` raised."""
    try:
        return call()
    except FleetError as error:
        if told:
            return {"fault": error.as_line()}
        raise wrap(error.as_line()) from error


def failed(error):
    """What an action returns of a FleetError: the keys that a module's failure has."""
    return {**error.as_result(), "failed": True, "changed": False}


def fault_of(value):
    """The fault that an earlier filter told instead of a value, or None."""
    return value["fault"] if isinstance(value, dict) and set(value) == {"fault"} else None
