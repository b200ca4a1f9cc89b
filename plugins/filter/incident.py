# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filters of incidents: forensics_script."""

from __future__ import annotations

import functools

from ansible.errors import AnsibleFilterError
from ansible_collections.ebpf.fleet.plugins.module_utils.incident import script
from ansible_collections.ebpf.fleet.plugins.plugin_utils.told import attempt


def forensics_script(check, file_bytes=script.FILE_BYTES[1], total_bytes=script.TOTAL_BYTES[1]):
    """One command that prints a host's evidence; see the filter's documentation."""
    return attempt(AnsibleFilterError, functools.partial(script.command, file_bytes, total_bytes, check))


class FilterModule:
    def filters(self):
        return {"forensics_script": forensics_script}
