# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter exact_pattern."""

from __future__ import annotations

from ansible_collections.ebpf.fleet.plugins.module_utils.hosts import hostnames


def exact_pattern(name):
    """Return a pattern that matches this host and no other."""
    return hostnames.exact_pattern(str(name))


class FilterModule:
    """The filters' names."""

    def filters(self):
        return {"exact_pattern": exact_pattern}
