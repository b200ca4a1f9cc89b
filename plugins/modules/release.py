#!/usr/bin/python
# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: release
short_description: Install, activate, roll back or remove a signed bundle of eBPF programs
version_added: 0.1.0
description:
  - Verifies a bundle's signature with the trust files of the host, every file against the manifest, and the whole by
    the bundle's own loader, which runs confined, an unprivileged process that sees nothing but the bundle. Installs it
    beside the others and activates it by one C(rename(2)).
  - Restarts the loader and waits until it confirms the release. If it does not, the former release is
    activated again and the module fails with the loader's reason.
  - Asks the host first and sends the bundle only to a host that lacks it.
  - Whatever interrupts it, the old release is current or the new one is. The next run removes leftovers.
author:
  - The ebpf.fleet authors (@ebpf-fleet)
options:
  state:
    description:
      - V(present) means installed, active and confirmed by the loader.
      - V(rolled_back) activates the release that was current before. Without one it fails, unless
        O(from_digest) names the first release of the host, before which nothing ran; then nothing runs afterwards.
      - V(absent) stops the loader and removes every release, but not the mark (see O(allow_downgrade)).
    type: str
    choices: [present, rolled_back, absent]
    default: present
  bundle:
    description: Path on the controller of the bundle, a tar or a folder. Required if O(state=present).
    type: str
  digest:
    description:
      - The digest of the bundle that was planned, as the lookup P(ebpf.fleet.bundle#lookup) returns it. Another bundle
        at that path is refused (C(EF_NOT_PLANNED)), on the controller before anything is sent and on the host before
        anything is unpacked.
      - Left out, whatever bundle is at the path is taken.
    type: str
  features:
    description:
      - What shall run, a mapping of feature names to C(enabled) (default V(true)) and C(sample_every)
        (1 = every event; default is the contract's). A feature that is not named does not run.
      - Left out, every feature of the bundle but those on the policy data path runs, as its contract says. One on
        the policy data path must be named.
    type: dict
  fallbacks:
    description:
      - Collectors that may run what the loader cannot, of which V(bcc) is the only one. It needs a host that was
        prepared with C(ebpf_fleet_bcc_fallback=true), and runs only if the bundle holds it.
      - The collector's unit is C(ebpf-fleet-bcc.service); it is started, restarted and stopped with the release.
    type: list
    elements: str
    default: []
  keep:
    description:
      - How many releases stay on the host, 1 to 100. The current and the previous one always stay.
    type: int
    default: 3
  allow_downgrade:
    description:
      - Also activate a bundle whose sequence is not higher than the highest that ever ran on the host. That one is
        kept as a mark, which neither a rollback nor O(state=absent) lowers.
      - This lowers the mark to that bundle; the mark records it, and the host's log.
    type: bool
    default: false
  from_digest:
    description:
      - With O(state=rolled_back), the digest of the release to leave. A host on which another release is
        current is left as it is, so that a second run changes nothing.
    type: str
  lease:
    description:
      - Puts the host on probation with a release that it did not run before. It detaches all of its programs by itself
        unless M(ebpf.fleet.lease) confirms the release in time, so no lost host keeps a bad release.
      - A lease that an earlier run left for this very release is renewed. Left out, such a lease ends.
    type: dict
    suboptions:
      seconds:
        description: How long the host may go on without another word, 1 to 604800.
        type: int
        required: true
      holder:
        description: Who will confirm it, up to 128 bytes.
        type: str
        required: true
  service:
    description: The loader's unit. Empty manages no unit, and the loader's confirmation is not waited for.
    type: str
    default: ebpf-fleet-loader.service
  wait:
    description: Seconds for the loader to confirm a release; V(0) does not wait.
    type: int
    default: 30
  root:
    description: Folder before every path on the host, for an image or a test. Needs O(service) to be empty.
    type: path
    default: /
  manifest:
    description: The bundle's manifest. Set by the action plugin, never by hand.
    type: str
  signature:
    description: The bundle's signature. Set by the action plugin, never by hand.
    type: str
  archive:
    description: The bundle's tar on the host. Set by the action plugin, never by hand.
    type: path
attributes:
  check_mode:
    support: full
    description: Verifies the signature on the host and says what would change; sends and changes nothing.
  diff_mode:
    support: full
    description: Shows the current release, its features and the releases kept, before and after.
  idempotent:
    support: full
    description: >-
      A second run changes nothing. O(state=rolled_back) needs O(from_digest) for that; without it a second run fails.
  platform:
    support: full
    platforms: linux
    description: Linux with systemd, OpenSSH's ssh-keygen 8.4 (the oldest that is tested) and Python 3.8 or later.
requirements:
  - ssh-keygen on the host
"""

EXAMPLES = r"""
- name: Deploy a release with all of its features
  ebpf.fleet.release:
    bundle: build/release/ebpf-fleet-1.0.0.tar
  become: true

- name: Deploy the release that was planned, or nothing
  ebpf.fleet.release:
    bundle: build/release/ebpf-fleet-1.0.0.tar
    digest: 3f1c2a9b8d7e6f504132a3b4c5d6e7f8091a2b3c4d5e6f708192a3b4c5d6e7f8
  become: true

- name: Deploy it with one feature, sampled
  ebpf.fleet.release:
    bundle: build/release/ebpf-fleet-1.0.0.tar
    features:
      exec_events:
        sample_every: 10
  become: true

- name: Deploy it for ten minutes, unless somebody confirms it
  ebpf.fleet.release:
    bundle: build/release/ebpf-fleet-1.0.0.tar
    lease:
      seconds: 600
      holder: rollout of 1.0.0
  become: true

- name: Leave a bad release, on the hosts that run it
  ebpf.fleet.release:
    state: rolled_back
    from_digest: "{{ bad_release_digest }}"
  become: true

- name: Remove everything that releases put on the host
  ebpf.fleet.release:
    state: absent
  become: true
"""

RETURN = r"""
release:
  description: The current release, as C(VERSION-DIGEST12), or null.
  returned: success
  type: str
  sample: 1.0.0-3f1c2a9b8d7e
previous:
  description: The release that a rollback would activate, or null.
  returned: success
  type: str
digest:
  description: SHA-256 of the current release's manifest, or null.
  returned: success
  type: str
signer:
  description: The principal that signed the bundle, null where nothing was to be verified.
  returned: success
  type: str
  sample: release@example.org
handover:
  description:
    - How the loader came to run the release, null where it was not restarted.
    - C(used) is true where the next loader took over from the running one without a gap. Else C(why) says why it was
      restarted, which is a gap that the loader counts.
  returned: success
  type: dict
  sample: {used: true, why: ""}
features:
  description: What is desired of the current release.
  returned: success
  type: dict
fallbacks:
  description: The collectors that the current release may use.
  returned: success
  type: list
  elements: str
lease:
  description: The lease that holds, or null. In check mode the one that holds before.
  returned: success
  type: dict
  sample: {bundle_digest: 3f1c…, boot_id: 5a0e…, expires_boottime_ns: 90000000000, holder: rollout of 1.2.0}
mark:
  description:
    - The high-water mark of the host, or null. C(sequence) is the highest that ran, by the release of C(digest); the
      releases of C(below) may run all the same. C(lowered) is when it was lowered last.
  returned: success
  type: dict
  sample: {sequence: 7, digest: 3f1c…, below: [9a0b…], seen_unix: 1795716000, lowered: null}
releases:
  description: The releases on the host.
  returned: success
  type: list
  elements: str
steps:
  description: What was done, or would be in check mode, in order.
  returned: success
  type: list
  elements: dict
  sample: [{"act": "install", "release": "1.0.0-3f1c2a9b8d7e"}]
reason_code:
  description: Why it was refused or failed, a code of docs/reason-codes.md.
  returned: failure
  type: str
  sample: EF_SIG_UNKNOWN_SIGNER
remedy:
  description: What docs/reason-codes.md says to do.
  returned: failure
  type: str
file:
  description: The file that the reason is about, or null.
  returned: failure
  type: str
"""

import os
import platform
import time
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError, explain
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle.files import check_planned
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle.manifest import SHA256, digest_of, load_manifest
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle.signature import (
    judge_release,
    read_trust,
    unusable_lines,
)
from ansible_collections.ebpf.fleet.plugins.module_utils.release.apply import Host, apply_plan
from ansible_collections.ebpf.fleet.plugins.module_utils.release.desired import (
    check_fallbacks,
    check_resolved,
    render_desired,
)
from ansible_collections.ebpf.fleet.plugins.module_utils.release.lease import check_grant
from ansible_collections.ebpf.fleet.plugins.module_utils.release.plan import Request, plan_release
from ansible_collections.ebpf.fleet.plugins.module_utils.release.service import (
    collecting_digest,
    need_collector_unit,
    need_unit,
    running_digest,
    unit_known,
)
from ansible_collections.ebpf.fleet.plugins.module_utils.release.store import (
    Incoming,
    Layout,
    locked,
    needs_collector,
    read_state,
)
from ansible_collections.ebpf.fleet.plugins.module_utils.release.trust_kept import read_mark

ARGUMENTS = {
    "state": {"type": "str", "choices": ["present", "rolled_back", "absent"], "default": "present"},
    "bundle": {"type": "str"},
    "digest": {"type": "str"},
    "features": {"type": "dict"},
    "fallbacks": {"type": "list", "elements": "str", "default": []},
    "keep": {"type": "int", "default": 3},
    "allow_downgrade": {"type": "bool", "default": False},
    "from_digest": {"type": "str"},
    "lease": {
        "type": "dict",
        "options": {"seconds": {"type": "int", "required": True}, "holder": {"type": "str", "required": True}},
    },
    "service": {"type": "str", "default": "ebpf-fleet-loader.service"},
    "wait": {"type": "int", "default": 30},
    "root": {"type": "path", "default": "/"},
    "manifest": {"type": "str"},
    "signature": {"type": "str"},
    "archive": {"type": "path"},
}

# Each is a loader and its objects, some megabytes: more is a mistake, not a wish.
KEEP_MOST = 100


def check_arguments(params):
    """Refuse argument values that can do no good."""
    wrong = []
    if not 1 <= params["keep"] <= KEEP_MOST:
        wrong.append(f"keep: is {params['keep']}; give 1 to {KEEP_MOST} releases")
    if params["wait"] < 0:
        wrong.append(f"wait: is {params['wait']}; give 0 or more seconds")
    if params["service"] and params["root"] != "/":
        wrong.append("service: the running systemd knows nothing of another root; set it to an empty string")
    if params["from_digest"] is not None and not SHA256.match(params["from_digest"]):
        wrong.append("from_digest: is not a SHA-256 in hex; give the digest that a deployment returned")
    if params["digest"] is not None and not SHA256.match(params["digest"]):
        wrong.append("digest: is not a SHA-256 in hex; give the digest that the lookup ebpf.fleet.bundle returned")
    if params["digest"] is not None and params["state"] != "present":
        wrong.append("digest: belongs to 'state: present'; remove it")
    if params["from_digest"] is not None and params["state"] != "rolled_back":
        wrong.append("from_digest: belongs to 'state: rolled_back'; remove it")
    if params["lease"] is not None and params["state"] != "present":
        wrong.append("lease: belongs to 'state: present'; remove it")
    if wrong:
        raise FleetError("EF_ARGUMENT", "; ".join(wrong))


def check_host():
    """Refuse a host or a user that cannot do this."""
    if platform.system() != "Linux":
        raise FleetError("EF_UNSUPPORTED_HOST", "this is %s, eBPF needs Linux; leave the host out" % platform.system())
    if os.geteuid() != 0:
        raise FleetError("EF_PERMISSION", "releases belong to root; set 'become: true'")


def judge_bundle(module, layout):
    """Return the bundle as signed and its signer.

    In check mode on a host that was never prepared the signer is None, with a
    warning: its trust files would only come with the preparation.
    """
    params = module.params
    if params["manifest"] is None or params["signature"] is None:
        raise FleetError("EF_ARGUMENT", "bundle: is missing; give the path of a bundle on the controller")
    data = params["manifest"].encode("utf-8")
    signature = params["signature"].encode("utf-8")
    check_planned(digest_of(data), params["digest"], params["bundle"] or "the bundle")
    signer = None
    if module.check_mode and not layout.etc.exists():
        module.warn(f"{layout.etc} does not exist: the signature can be verified once the host is prepared")
    else:
        trust = read_trust(str(layout.signers), str(layout.revoked))
        for note in unusable_lines(trust)[:10]:
            module.warn(note)
        mark = read_mark(layout.mark)
        judged = judge_release(data, signature, trust, time.time(), mark.seen_unix if mark else 0)
        signer = judged.signer
        if not judged.clock_known:
            module.warn(
                "EF_CLOCK_UNKNOWN: this host's clock stands before what has happened already (the release was made, or "
                "the last deployment); nothing that is limited in time runs here until it is set"
            )
    manifest = load_manifest(data)
    manifest.loader_path(platform.machine())
    features = check_resolved(params["features"], manifest.features)
    desired = render_desired(manifest.digest, features, check_fallbacks(params["fallbacks"]))
    return Incoming(manifest, signature, params["archive"], desired), signer


def make_request(params, incoming):
    """Return what is wanted, as the planner takes it."""
    manifest = incoming.manifest if incoming else None
    fallbacks = check_fallbacks(params["fallbacks"])
    return Request(
        state=params["state"],
        release=manifest.release_id if manifest else None,
        digest=manifest.digest if manifest else None,
        sequence=manifest.sequence if manifest else None,
        features=params["features"],
        signature=incoming.signature if incoming else None,
        keep=params["keep"],
        allow_downgrade=params["allow_downgrade"],
        from_digest=params["from_digest"],
        manage_service=bool(params["service"]),
        fallbacks=tuple(fallbacks),
        collector=bool(manifest and needs_collector(manifest, fallbacks)),
        lease=check_grant(**params["lease"]) if params["lease"] else None,
        now=int(time.time()),
    )


def check_service(module, layout):
    """Refuse a host without the loader's unit, before anything changes; return the unit to manage."""
    unit = module.params["service"]
    if not unit:
        return ""
    if module.check_mode and not layout.etc.exists():
        module.warn(f"{layout.etc} does not exist: whether {unit} is there was not looked at")
        return unit
    if module.params["state"] == "absent":
        return unit if Path("/run/systemd/system").is_dir() and unit_known(unit) else ""
    need_unit(unit)
    return unit


def run(module):
    """Judge, plan and, unless in check mode, act. Return the module's result."""
    check_arguments(module.params)
    check_host()
    layout = Layout(Path(module.params["root"]))
    incoming, signer = judge_bundle(module, layout) if module.params["state"] == "present" else (None, None)
    unit = check_service(module, layout)
    request = make_request(dict(module.params, service=unit), incoming)
    if unit and request.collector and not (module.check_mode and not layout.etc.exists()):
        need_collector_unit()
    host = Host(layout, platform.machine(), unit, module.params["wait"], request.lease)
    if module.check_mode or not needs_disk(layout, request):
        state = read_host(host)
        plan = plan_release(state, request)
        say_lowering(module, state, plan)
        return dict(result(plan, state, request), signer=signer, handover=None)
    with locked(layout):
        state = read_host(host)
        plan = plan_release(state, request)
        if request.state == "present":
            host = host._replace(mark=plan.mark)
        if plan.needs_archive and incoming.archive is None:
            return {"changed": False, "needs_archive": True}
        say_lowering(module, state, plan)
        handover = apply_plan(plan, state, host, incoming)
        return dict(
            result(plan, read_host(host), request), signer=signer, handover=handover._asdict() if handover else None
        )


def say_lowering(module, state, plan):
    """That allow_downgrade lowers the mark is told, and stands in the host's own log."""
    lowered = plan.mark.lowered if plan.mark and any(step.act == "set_mark" for step in plan.steps) else None
    if lowered is None or (state.mark and state.mark.lowered == lowered):
        return
    sentence = (
        f"allow_downgrade: the mark goes from sequence {lowered['from']} to {lowered['to']}: "
        f"release {lowered['digest'][:12]}, and whatever is above it, may be deployed here again"
    )
    module.warn(sentence)
    if not module.check_mode:
        module.log(f"ebpf.fleet: {sentence}")


def needs_disk(layout, request):
    """Whether the lock may be taken: leaving a host that never had a release touches nothing."""
    return request.state == "present" or layout.base.exists()


def read_host(host):
    """Return the state of the host, with the loader's word only where its unit is managed."""
    running = running_digest(host.layout) if host.unit else None
    collecting = collecting_digest(host.layout) if host.unit else None
    return read_state(host.layout, host.machine, running, collecting)


def result(plan, state, request):
    """Return the result; ``state`` is the host as it is, in check mode before the change."""
    current = state.releases.get(state.current)
    return {
        "changed": plan.changed,
        "release": state.current,
        "previous": state.previous,
        "digest": current.digest if current else None,
        "features": current.features if current else None,
        "fallbacks": list(current.fallbacks) if current else [],
        "lease": state.lease._asdict() if state.lease else None,
        "mark": state.mark._asdict() if state.mark else None,
        "releases": sorted(state.releases),
        "steps": [{"act": step.act, "release": step.release} for step in plan.steps],
        "diff": {
            "before_header": "release (before)",
            "after_header": f"release ({request.state})",
            "before": plan.before,
            "after": plan.after,
        },
    }


def main():
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    try:
        found = run(module)
    except (OSError, FleetError) as error:
        module.fail_json(**explain(error).as_result())
    module.exit_json(**found)


if __name__ == "__main__":
    main()
