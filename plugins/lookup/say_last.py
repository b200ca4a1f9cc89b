# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Say something when everything else has been said."""

from __future__ import annotations

DOCUMENTATION = r"""
name: say_last
short_description: Print lines on standard error when the playbook has ended, below the recap
version_added: 0.1.0
author: The ebpf.fleet authors (@ebpf-fleet)
description:
  - Keeps the lines until Ansible's process ends and prints them then, so that they are the last on the screen however
    many hosts the recap has. They go to standard error, so that what a callback prints as a document stays one.
  - Works in keywords of a play, as C(hosts), which Ansible reads in its own process; elsewhere it does nothing.
  - Returns nothing. Lines that are given again replace those before.
options:
  _terms:
    description: The lines.
    required: true
"""

EXAMPLES = r"""
- name: Hosts that have not confirmed
  hosts: "{{ ['all:!all'] + query('ebpf.fleet.say_last', 'All is off.') }}"
  tasks: []
"""

RETURN = r"""
_raw:
  description: An empty list.
  type: list
  elements: str
"""

import atexit
import multiprocessing
import sys

from ansible.plugins.lookup import LookupBase
from ansible_collections.ebpf.fleet.plugins.module_utils.base.printable import printable

LINE_LIMIT = 500
KEPT = []


def say():
    """Print what was kept; a standard error that is closed is not an error."""
    try:
        sys.stderr.write("".join(f"{line}\n" for line in KEPT))
        sys.stderr.flush()
    except (OSError, ValueError):
        return


class LookupModule(LookupBase):
    """Keeps the lines."""

    def run(self, terms, variables=None, **kwargs):
        if multiprocessing.parent_process() is None:
            KEPT[:] = [
                printable(line, LINE_LIMIT) for term in terms for line in (term if isinstance(term, list) else [term])
            ]
            atexit.unregister(say)
            atexit.register(say)
        return []
