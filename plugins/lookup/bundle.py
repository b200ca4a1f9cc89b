# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Look into a bundle on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
name: bundle
short_description: Read what a bundle holds
version_added: 0.1.0
author: The ebpf.fleet authors (@ebpf-fleet)
description:
  - Reads a bundle on the controller, checks every file against its manifest, and returns what a plan needs.
  - The signature is judged on each host, by that host's own trust file, never here.
options:
  _terms:
    description: Paths of bundles, each a tar or a folder.
    required: true
  told:
    description: Whether what is wrong is returned as a mapping with C(fault), instead of an error.
    type: bool
    default: false
"""

EXAMPLES = r"""
- name: Which release is this?
  ansible.builtin.debug:
    msg: "{{ lookup('ebpf.fleet.bundle', 'build/release/ebpf-fleet-1.0.0.tar').bundle.version }}"
"""

RETURN = r"""
_raw:
  description: >-
    One dictionary for each bundle: C(bundle) (name, version, sequence, created), C(digest) (what M(ebpf.fleet.release)
    takes as its option C(digest), so that no other bundle is installed), C(contracts) (a list),
    C(key) (the public key that signed it; whether it may is each host's to judge), C(btf_index) (the entries of its
    C(btf/index.json), empty where it carries no BTF) and C(path).
  type: list
  elements: dict
"""

import os

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle.files import load_bundle
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle.trust_change import key_of, spell_key
from ansible_collections.ebpf.fleet.plugins.plugin_utils.told import attempt


class LookupModule(LookupBase):
    """Returns one description for each path."""

    def run(self, terms, variables=None, told=False, **kwargs):
        return [
            attempt(AnsibleLookupError, lambda term=term: describe(os.path.expanduser(term)), told) for term in terms
        ]


def describe(path):
    """Return what a plan needs to know of the bundle at ``path``."""
    try:
        found = load_bundle(path)
    except FleetError as error:
        raise FleetError(error.code, f"bundle {path}: {error.message}", error.file) from error
    return {
        "path": path,
        "bundle": dict(found.manifest.doc["bundle"]),
        "digest": found.manifest.digest,
        "key": spell_key(key_of(found.signature)),
        "contracts": [found.contracts[name] for name in sorted(found.contracts)],
        "btf_index": found.btf_index,
    }
