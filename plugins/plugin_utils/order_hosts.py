# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which hosts of a play get an order: those of its cell and its host pattern, by the inventory's own answer."""

from __future__ import annotations

from typing import NamedTuple

from ansible.errors import AnsibleError
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.base.printable import printable
from ansible_collections.ebpf.fleet.plugins.module_utils.hosts import hostnames
from ansible_collections.ebpf.fleet.plugins.plugin_utils.inventory_answer import InventoryAnswer

CELL = "ebpf_fleet_cell"


class Chosen(NamedTuple):
    """`hosts` in the order of the play, and a sentence for each thing that was named and is not there."""

    hosts: list
    lost: list


def choose(wanted, play_hosts, variables, loader, standing=()):
    """The hosts that the scope means, of those of the play. `standing` are those that have this order already.

    FleetError EF_HOSTS where the scope means no host; the sentence names near ones.
    """
    lost = []
    found = set(play_hosts)
    if wanted.hosts:
        found &= _of_patterns(wanted.hosts, variables, loader, lost)
    if wanted.cell:
        found &= _of_cell(wanted.cell, play_hosts, variables["hostvars"], lost)
    hosts = [host for host in play_hosts if host in found or host in standing]
    if not hosts:
        why = " ".join(lost) or "each of its terms means hosts, but all together, with --limit, mean none"
        raise FleetError("EF_HOSTS", f"scope={wanted.text} means no host of this play, so no host was asked: {why}")
    return Chosen(hosts, lost)


def inventory_names(variables):
    """Every name of the inventory."""
    return [str(one) for one in variables.get("groups", {}).get("all", [])]


def cell_of(hostvars, host):
    """(the host's cell or None, why it cannot be read or an empty text)."""
    try:
        value = hostvars[host].get(CELL)
    except (AnsibleError, KeyError, ValueError, TypeError) as error:
        return None, printable(error, 200)
    return (None if value is None else str(value).strip()), ""


def _of_patterns(patterns, variables, loader, lost):
    # The hosts of the play are limited already.
    answer = InventoryAnswer(loader, variables, narrow=True)
    try:
        names = set(answer.names(list(patterns)))
        lost += answer.unmatched(list(patterns), "host=")
    except AnsibleError as error:
        raise FleetError("EF_HOSTS", f"host=: the pattern cannot be read, so no host was asked: {error}") from error
    return names


def _of_cell(cell, play_hosts, hostvars, lost):
    cells = {host: cell_of(hostvars, host) for host in play_hosts}
    unread = {host: why for host, (_cell, why) in cells.items() if why}
    if unread:
        first = next(iter(unread.values()))
        lost.append(f"The cell of {hostnames.some_of(unread)} cannot be read, so it got no order: {first}.")
    found = {host for host, (own, _why) in cells.items() if own == cell}
    if not found:
        known = {own for own, _why in cells.values() if own}
        hint = hostnames.nearest(cell, known) if known else f"no host of this play has {CELL}"
        lost.append(f"cell={printable(cell, 80)} is the cell of no host; {hint}")
    return found
