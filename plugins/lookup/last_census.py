# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read the census that capabilities.yml wrote."""

from __future__ import annotations

DOCUMENTATION = r"""
name: last_census
short_description: Read the census that capabilities wrote
version_added: 0.1.0
author: The ebpf.fleet authors (@ebpf-fleet)
description:
  - Reads C(census.json) on the controller. A relative path is meant from where the command was typed.
options:
  _terms:
    description: Path of the file; empty gives an empty mapping.
    required: true
  told:
    description: Whether a file that cannot be used is returned as a mapping with C(fault), instead of an error.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: The last census
  ansible.builtin.set_fact:
    last: "{{ lookup('ebpf.fleet.last_census', 'census.json') }}"
"""

RETURN = r"""
_raw:
  description: The census, one for each path.
  type: list
  elements: dict
"""

import json
import os
from pathlib import Path

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase
from ansible_collections.ebpf.fleet.plugins.module_utils.base.bounded import refuse_irregular
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.plugin_utils.told import attempt


class LookupModule(LookupBase):
    """Returns one document for each path."""

    def run(self, terms, variables=None, told=False, **kwargs):
        return [attempt(AnsibleLookupError, lambda term=term: read(term), told) for term in terms]


def read(path):
    """Return the document at ``path``; FleetError names the file and the remedy."""
    if not path:
        return {}
    full = os.path.join(os.environ.get("PWD", os.getcwd()), os.path.expanduser(path))
    try:
        refuse_irregular(Path(full))
        with open(full, encoding="utf-8") as file:
            found = json.load(file)
    except OSError as error:
        problem = f"the last census {full}: {error.strerror}; write it with capabilities.yml"
        raise FleetError("EF_CENSUS", problem, full) from error
    except (ValueError, RecursionError) as error:
        problem = f"the last census {full}: is not JSON; write it again with capabilities.yml"
        raise FleetError("EF_CENSUS", problem, full) from error
    if not isinstance(found, dict):
        problem = f"the last census {full}: is not a census; write it again with capabilities.yml"
        raise FleetError("EF_CENSUS", problem, full)
    return found
