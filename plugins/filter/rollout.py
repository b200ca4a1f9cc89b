# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters of a rollout: the times of a batch, and where its records go."""

from __future__ import annotations

import os

from ansible.errors import AnsibleFilterError
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout import timing
from ansible_collections.ebpf.fleet.plugins.plugin_utils.told import attempt


def rollout_timing(given, hosts=0, changed=True):
    """Return the times of a batch; see the filter's documentation."""
    return attempt(AnsibleFilterError, lambda: timing.timing(given, hosts, changed))


def report_folder(given, typed_in):
    """Return the folder of the records; see the filter's documentation."""
    return timing.report_folder(os.path.expanduser(given), typed_in)


class FilterModule:
    """The filters' names."""

    def filters(self):
        return {"rollout_timing": rollout_timing, "report_folder": report_folder}
