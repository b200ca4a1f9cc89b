#!/usr/bin/python
# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: lease
short_description: Put a host on probation, renew it, or confirm that it has passed
version_added: 0.1.0
description:
  - A host with a lease detaches all of its eBPF programs by itself when the lease runs out. No one has to reach it.
  - M(ebpf.fleet.release) grants a lease together with a release. This module renews it while the release is watched,
    and confirms it when the release has proven itself.
  - Time is the host's boot-time clock. Suspend counts, a clock that is set does not, and a reboot ends every lease.
author:
  - The ebpf.fleet authors (@ebpf-fleet)
options:
  state:
    description:
      - V(present) grants a lease of O(seconds) from now, or renews the one that is there.
      - V(confirmed) ends the probation. It fails if the lease has run out, as the host has detached by then.
      - V(absent) ends it whatever became of it. What is wanted is attached again.
    type: str
    choices: [present, confirmed, absent]
    default: present
  seconds:
    description: How long the host may go on without another word, 1 to 604800. Required if O(state=present).
    type: int
  holder:
    description: Who will renew or confirm it, up to 128 bytes. Required if O(state=present).
    type: str
  digest:
    description:
      - The release that is on probation, by the SHA-256 of its manifest. A lease of another release is left alone.
      - Left out, it is the current release with O(state=present), and any with the other states.
    type: str
  root:
    description: Folder before every path on the host, for an image or a test.
    type: path
    default: /
attributes:
  check_mode:
    support: full
    description: Says what would change and changes nothing.
  diff_mode:
    support: full
    description: Shows the lease before and after.
  idempotent:
    support: partial
    description: A renewal is a change each time. Confirming or removing what is gone is not a change.
  platform:
    support: full
    platforms: linux
    description: Linux with Python 3.8 or later.
seealso:
  - module: ebpf.fleet.release
"""

EXAMPLES = r"""
- name: Ten minutes more for the release that is watched
  ebpf.fleet.lease:
    seconds: 600
    holder: rollout of 1.2.0
  become: true

- name: The release has proven itself
  ebpf.fleet.lease:
    state: confirmed
    digest: "{{ release_digest }}"
  become: true
"""

RETURN = r"""
lease:
  description: The lease that holds after the task, or null. In check mode the one that would hold.
  returned: success
  type: dict
  sample: {bundle_digest: 3f1c…, boot_id: 5a0e…, expires_boottime_ns: 90000000000, holder: rollout of 1.2.0}
left_seconds:
  description: What was left of the lease when the task began, 0 for one that had run out, null without one.
  returned: success
  type: int
reason_code:
  description: Why it was refused or failed, a code of docs/reason-codes.md.
  returned: failure
  type: str
  sample: EF_LEASE_EXPIRED
remedy:
  description: What docs/reason-codes.md says to do.
  returned: failure
  type: str
file:
  description: The file that the reason is about, or null.
  returned: failure
  type: str
"""

import hashlib
import os
import platform
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError, explain
from ansible_collections.ebpf.fleet.plugins.module_utils.release.lease import (
    DIGEST,
    SECOND_NS,
    check_grant,
    grant_lease,
    may_confirm,
    render_lease,
)
from ansible_collections.ebpf.fleet.plugins.module_utils.release.service import boot_id, boottime_ns
from ansible_collections.ebpf.fleet.plugins.module_utils.release.store import Layout, read_lease, write_lease

ARGUMENTS = {
    "state": {"type": "str", "choices": ["present", "confirmed", "absent"], "default": "present"},
    "seconds": {"type": "int"},
    "holder": {"type": "str"},
    "digest": {"type": "str"},
    "root": {"type": "path", "default": "/"},
}


def check_host(params):
    """Refuse a host, a user or a value that cannot do this."""
    if platform.system() != "Linux":
        raise FleetError("EF_UNSUPPORTED_HOST", "this is %s, eBPF needs Linux; leave the host out" % platform.system())
    if os.geteuid() != 0:
        raise FleetError("EF_PERMISSION", "the lease belongs to root; set 'become: true'")
    if params["digest"] is not None and not DIGEST.match(params["digest"]):
        raise FleetError("EF_ARGUMENT", "digest: is not a SHA-256 in hex; give the digest that a deployment returned")


def current_digest(layout):
    """The digest of the current release; a host without one has nothing to be on probation with."""
    manifest = layout.base / "current/bundle/manifest.json"
    try:
        return hashlib.sha256(manifest.read_bytes()).hexdigest()
    except FileNotFoundError as error:
        raise FleetError("EF_ARGUMENT", "digest: no release is current here; deploy one or give its digest") from error


def wanted(params, layout, found, now_ns):
    """The lease that shall hold; raises FleetError where the probation cannot end well."""
    if params["state"] == "present":
        grant = check_grant(params["seconds"], params["holder"])
        return grant_lease(grant, params["digest"] or current_digest(layout), boot_id(), now_ns)
    if found is None or (params["digest"] and not found.concerns(params["digest"])):
        return found
    if params["state"] == "confirmed":
        may_confirm(found, boot_id(), now_ns)
    return None


def run(module):
    """Look, judge and, unless in check mode, write. Return the module's result."""
    check_host(module.params)
    layout = Layout(Path(module.params["root"]))
    now_ns = boottime_ns()
    found = read_lease(layout)
    lease = wanted(module.params, layout, found, now_ns)
    if lease != found and not module.check_mode:
        write_lease(layout, lease)
    return {
        "changed": lease != found,
        "lease": shown(lease),
        "left_seconds": None if found is None else found.remaining_ns(boot_id(), now_ns) // SECOND_NS,
        "diff": {
            "before_header": f"{layout.lease} (before)",
            "after_header": f"{layout.lease} (after)",
            "before": text_of(found),
            "after": text_of(lease),
        },
    }


def shown(lease):
    return lease._asdict() if lease else None


def text_of(lease):
    if lease is None:
        return ""
    return render_lease(lease) if lease.usable else "not a lease\n"


def main():
    module = AnsibleModule(
        argument_spec=ARGUMENTS,
        required_if=[("state", "present", ("seconds", "holder"))],
        supports_check_mode=True,
    )
    try:
        found = run(module)
    except (OSError, FleetError) as error:
        module.fail_json(**explain(error).as_result())
    module.exit_json(**found)


if __name__ == "__main__":
    main()
