# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the module host_prepare on the host, or take what the host's cell controller has of it."""

from __future__ import annotations

from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.plugin_utils import order_work
from ansible_collections.ebpf.fleet.plugins.plugin_utils.cell_answers import CellAction
from ansible_collections.ebpf.fleet.plugins.plugin_utils.told import failed


class ActionModule(CellAction):
    """Beside that, a host that misses a kill order gets it before anything else."""

    def on_host(self, task_vars):
        try:
            # It enables and starts the unit: a host that was off when an order came gets it now.
            order_work.refuse_without_orders(self, task_vars)
        except FleetError as error:
            return failed(error)
        return super().on_host(task_vars)
