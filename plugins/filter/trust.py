# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters of trust: the text of a trust file, and hosts whose variables would refuse a bundle."""

from __future__ import annotations

import time

from ansible.errors import AnsibleFilterError
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle import trust_change
from ansible_collections.ebpf.fleet.plugins.plugin_utils.told import attempt


def trust_text(value, name="the variable"):
    """Return the text of a trust file; a value of another kind is an error with the variable's name."""
    return attempt(AnsibleFilterError, lambda: trust_change.trust_text(value, name))


def trust_refusals(hostvars, key):
    """Return host and sentence of each host whose trust variables do not allow the key that signed the bundle."""
    return attempt(AnsibleFilterError, lambda: trust_change.host_refusals(list(hostvars), key, time.time()))


class FilterModule:
    """The filters' names."""

    def filters(self):
        return {"trust_text": trust_text, "trust_refusals": trust_refusals}
