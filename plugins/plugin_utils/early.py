# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Load once, in the process that all of a play's workers are forked from, what each would load again."""

from __future__ import annotations

from ansible.plugins.loader import filter_loader


def load_filters() -> None:
    """Load the collection's filters.

    ansible-core forks a process for each task of each host, and a process that meets the first filter of a collection
    loads all of its files of filters, from their sources: some 0.25 s, which is most of what a short task takes.
    """
    filter_loader.get("ebpf.fleet.value")
