# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter printable: text of hosts made safe to show and to keep."""

from __future__ import annotations

from ansible_collections.ebpf.fleet.plugins.module_utils.base.printable import DEPTH_LIMIT, printable_document

# A record of the controller's own may have an entry for every check of every host: none is dropped.
ITEMS_LIMIT = 10_000_000


def printable(value, limit=4000):
    """Text, or a document of them, without anything that paints a terminal; see the filter's documentation."""
    return printable_document(value, limit, DEPTH_LIMIT, ITEMS_LIMIT)


class FilterModule:
    """The filter's name."""

    def filters(self):
        return {"printable": printable}
