# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Filters of the pull channel: the files of its program, and its settings for a host."""

from __future__ import annotations

from ansible.errors import AnsibleFilterError
from ansible_collections.ebpf.fleet.plugins.module_utils.base.values import plain
from ansible_collections.ebpf.fleet.plugins.module_utils.pull import program
from ansible_collections.ebpf.fleet.plugins.plugin_utils.told import attempt


def pull_program(folder):
    """Return the files of the host's program below that folder; see the filter's documentation."""
    return [{"path": path, "content": text} for path, text in program.files(str(folder))]


def pull_settings(location, **more):
    """Return the text of a host's pull.json; see the filter's documentation."""
    told = more.pop("told", False)
    return attempt(AnsibleFilterError, lambda: program.settings(plain({"location": location, **more})), told=told)


class FilterModule:
    """The filters' names."""

    def filters(self):
        return {"pull_program": pull_program, "pull_settings": pull_settings}
