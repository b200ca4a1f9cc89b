# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the inventory itself answers to a pattern, by Ansible's own reader of patterns."""

from __future__ import annotations

from ansible import constants
from ansible.errors import AnsibleError
from ansible.inventory.manager import InventoryManager, split_host_pattern
from ansible_collections.ebpf.fleet.plugins.module_utils.hosts import hostnames

SIGNS = "!&"


def texts_of(terms):
    """The texts of a lookup's terms, each of which is one or a list of them."""
    return [str(one) for term in terms for one in (term if isinstance(term, (list, tuple)) else [term])]


class NarrowManager(InventoryManager):
    """Patterns with signs do not mean the groups that every inventory has: of Ansible's own reader `a*` means `all`."""

    def _match_list(self, items, pattern_str):
        found = super()._match_list(items, pattern_str)
        return [one for one in found if one == pattern_str or one not in ("all", "ungrouped")]


class InventoryAnswer:
    """The hosts and groups of a run, and how `ebpf_fleet_hosts` and `--limit` choose among them.

    A `narrow` one knows no `--limit`, and `a*` means in it what begins with an a.
    """

    def __init__(self, loader, variables, narrow=False):
        self.manager = (NarrowManager if narrow else InventoryManager)(loader, parse=False)
        for group, members in variables["groups"].items():
            self.manager.add_group(group)
            for host in members:
                self.manager.add_host(host, group=group)
        self.limit = "" if narrow else variables.get("ansible_limit") or ""

    def patterns(self, asked):
        """What `hosts:` is to be: an exact name means that host, all else is handed on as it is."""
        return [self._pattern(one) for one in asked]

    def _pattern(self, text):
        if text in self.manager.hosts:
            survives = text[0] not in SIGNS and split_host_pattern(text) == [text]
            return text if survives else hostnames.exact_pattern(text)
        if text[:1] and text[:1] in SIGNS and text[1:] in self.manager.hosts:
            # Behind a sign Ansible reads every name as a pattern.
            return text[:1] + hostnames.exact_pattern(text[1:])
        return text

    def names(self, asked):
        """Every name that is meant, in the inventory's order; raises AnsibleError for a pattern that cannot be read."""
        self.manager.subset(self.limit or None)
        return [host.name for host in self.manager.get_hosts(pattern=self.patterns(asked))]

    def unmatched(self, asked, where="ebpf_fleet_hosts"):
        """Sentences on the terms of the variable `where`, and of `--limit`, that match nothing."""
        self.manager.subset(self.limit or None)
        texts = [(where, one, split_host_pattern(self._pattern(one))) for one in asked]
        texts.append(("--limit", self.limit, self.manager._subset or []))
        known = [*self.manager.hosts, *self.manager.groups]
        lost = [(where, text, list(filter(self._matches_nothing, terms))) for where, text, terms in texts]
        return [hostnames.unmatched(where, text, terms, known) for where, text, terms in lost if terms]

    def _matches_nothing(self, term):
        name = term[1:] if term[:1] in SIGNS else term
        if not name or term in self.manager.hosts or name in self.manager.hosts or name in self.manager.groups:
            return False
        # What is left out may be written for many inventories; a name that is only one host's is not.
        if term[:1] == "!" and any(sign in name for sign in "*?[~"):
            return False
        return name not in constants.LOCALHOST and not self._matches(name)

    def _matches(self, name):
        try:
            return bool(self.manager._match_one_pattern(name))
        except AnsibleError:
            return False
