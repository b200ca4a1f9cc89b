# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the module lease on the host, or take what the host's cell controller has of it."""

from __future__ import annotations

from ansible_collections.ebpf.fleet.plugins.plugin_utils.cell_answers import CellAction


class ActionModule(CellAction):
    """Nothing beyond that."""
