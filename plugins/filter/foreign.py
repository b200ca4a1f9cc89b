# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters of the playbook takeoff: what is refused before a host is asked, and the one verdict over all hosts."""

from __future__ import annotations

from ansible.errors import AnsibleFilterError
from ansible_collections.ebpf.fleet.plugins.module_utils.base.values import plain
from ansible_collections.ebpf.fleet.plugins.module_utils.foreign import answer, target
from ansible_collections.ebpf.fleet.plugins.plugin_utils.told import attempt


def takeoff_refusal(given, state="engaged", confirm="", reason="", check=False):
    """Return one sentence on what cannot be meant or was not confirmed; see the filter's documentation."""
    return target.refusal(plain(given), str(state), confirm, reason, bool(check))


def takeoff_summary(results, given, state="engaged", check=False, allow_unconcerned=False):
    """Return the verdict on ``{host: result}``; see the filter's documentation."""
    asked = plain(results), plain(given), str(state), bool(check), bool(allow_unconcerned)
    return attempt(AnsibleFilterError, lambda: answer.summary(*asked))


class FilterModule:
    """The filters' names."""

    def filters(self):
        return {"takeoff_refusal": takeoff_refusal, "takeoff_summary": takeoff_summary}
