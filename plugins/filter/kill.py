# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filters kill_script and kill_result."""

from __future__ import annotations

from ansible.errors import AnsibleFilterError
from ansible_collections.ebpf.fleet.plugins.module_utils.kill import answer as kill_answer
from ansible_collections.ebpf.fleet.plugins.module_utils.kill import script as killscript
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout import variables
from ansible_collections.ebpf.fleet.plugins.plugin_utils.told import attempt


def kill_script(scopes, state="engaged", persistent=True, grace_seconds=2, deadline_seconds=10, login_seconds=None):
    """One command for ansible.builtin.raw; see the filter's documentation."""

    def render():
        deadline = deadline_seconds
        if login_seconds is not None:
            deadline = killscript.deadline_within(variables.read("ebpf_fleet_kill_timeout", login_seconds))
        return killscript.render(scopes, state, persistent, grace_seconds, deadline)

    return killscript.command(attempt(AnsibleFilterError, render))


def kill_result(result):
    """What a host answered; anything but a clear yes is not ok."""
    return kill_answer.parse_answer(result)


class FilterModule:
    def filters(self):
        return {"kill_script": kill_script, "kill_result": kill_result}
