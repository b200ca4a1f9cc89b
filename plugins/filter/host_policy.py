# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filter of the prepare role: a host's limits as the text of their control file, policy.json."""

from __future__ import annotations

from ansible.errors import AnsibleFilterError
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.release.policy import render_policy
from ansible_collections.ebpf.fleet.plugins.plugin_utils.told import attempt


def _plain(value):
    """Return the value without the templating engine's own types, which JSON does not know."""
    if isinstance(value, dict):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, int) and not isinstance(value, bool):
        return int(value)
    return str(value) if isinstance(value, str) else value


def _render(policy):
    try:
        return render_policy(_plain(policy))
    except FleetError as error:
        raise FleetError(error.code, f"ebpf_fleet_policy: {error.message}", error.file) from error


def host_policy(policy, told=False):
    """Return the text of policy.json; a bad value is an error of the filter that names it."""
    return attempt(AnsibleFilterError, lambda: _render(policy), told)


class FilterModule:
    """The filter's name."""

    def filters(self):
        return {"host_policy": host_policy}
