#!/usr/bin/python
# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: host_prepare
short_description: Put the loader's control files on a host and let systemd apply them
version_added: 0.1.0
description:
  - Writes a set of text files atomically, then applies C(sysusers.d) and C(tmpfiles.d), reloads systemd
    and enables the unit, each only when something calls for it.
  - All in one execution, because on a large fleet a task costs more than what it does.
  - Trust files (C(allowed_signers) and C(revoked_keys) in C(/etc/ebpf-fleet/trust)) are judged by both verifiers before
    anything is written. A change that would refuse the release that runs, that takes a signer away or that
    takes a revocation back is refused, with each of them named, unless O(trust_overrule) is set.
  - Starts and restarts nothing but timers.
author:
  - The ebpf.fleet authors
options:
  files:
    description: The files, all owned by root.
    type: list
    elements: dict
    required: true
    suboptions:
      path:
        description: Absolute path. Missing parent directories are made with mode C(0755).
        type: path
        required: true
      content:
        description: The whole text.
        type: str
        required: true
      mode:
        description: Permission bits, in octal.
        type: str
        default: "0644"
  sysusers:
    description: Name of a C(sysusers.d) file to apply; its user is made when it is missing.
    type: str
  tmpfiles:
    description: Name of a C(tmpfiles.d) file to apply when a directory of it is missing or the file is new.
    type: str
  enable:
    description:
      - Units to enable at boot, or with the unit that wants them.
      - A timer is started too, and started again where its file changed: it loads nothing itself.
    type: list
    elements: str
    default: []
  remove_units:
    description: Units below C(/etc/systemd/system) that shall not be there. One that is there is stopped and removed.
    type: list
    elements: str
    default: []
  trust_overrule:
    description:
      - Orders a change of trust that is refused otherwise. Each problem that it overrules is a warning.
      - A rollback does not take such a change back.
    type: bool
    default: false
attributes:
  check_mode:
    support: full
    description: Says what would change and changes nothing.
  diff_mode:
    support: full
    description: Shows each file's text before and after.
  idempotent:
    support: full
    description: A second run changes nothing.
  platform:
    support: full
    platforms: linux
    description: Linux with systemd.
"""

EXAMPLES = r"""
- name: Put the trust file on the host
  ebpf.fleet.host_prepare:
    files:
      - path: /etc/ebpf-fleet/trust/allowed_signers
        content: |
          release@example.org namespaces="ebpf-fleet-release" ssh-ed25519 AAAA...
"""

RETURN = r"""
files:
  description: Paths that were (or would be) written.
  type: list
  elements: str
  returned: success
trust_changed:
  description: Whether trust files were (or would be) written.
  type: bool
  returned: success
trust_overruled:
  description: The problems that O(trust_overrule) overruled.
  type: list
  elements: str
  returned: success
actions:
  description: Commands that were (or would be) run, as text.
  type: list
  elements: str
  returned: success
reason_code:
  description: Why it was refused or failed, a code of docs/reason-codes.md.
  returned: failure
  type: str
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
import pwd
import re

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.ebpf.fleet.plugins.module_utils.base import filesteps
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError, explain
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle import trust_change

SPEC = {
    "files": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "path": {"type": "path", "required": True},
            "content": {"type": "str", "required": True},
            "mode": {"type": "str", "default": "0644"},
        },
    },
    "sysusers": {"type": "str"},
    "tmpfiles": {"type": "str"},
    "enable": {"type": "list", "elements": "str", "default": []},
    "remove_units": {"type": "list", "elements": "str", "default": []},
    "trust_overrule": {"type": "bool", "default": False},
}

# A full disk has a code of its own.
NOT_WRITTEN = "EF_NOT_WRITTEN"
UNITS = "/etc/systemd/system"
UNIT = re.compile(r"\A[A-Za-z0-9@_-]+\.(service|timer)\Z")
TIMER = ".timer"
OCTAL = re.compile(r"\A0?[0-7]{1,3}\Z")


def require_systemd():
    """Raise unless this is Linux with systemd as its first process."""
    if platform.system() != "Linux":
        raise FleetError(
            "EF_UNSUPPORTED_HOST",
            f"this host runs {platform.system()}; ebpf.fleet needs Linux. Take it out of the inventory pattern",
        )
    if not os.path.isdir("/run/systemd/system"):
        raise FleetError(
            "EF_NO_SYSTEMD",
            "this host was not booted with systemd (/run/systemd/system is missing); the loader "
            "runs as a systemd service. Take the host out of the inventory pattern",
        )


def wanted_files(items):
    """Return the files with their modes as numbers; raise on a path or mode that makes no sense."""
    wanted = []
    for item in items:
        if not os.path.isabs(item["path"]):
            raise FleetError("EF_ARGUMENT", "files: path '{}' is not absolute; write it from /".format(item["path"]))
        if not OCTAL.match(item["mode"]):
            raise FleetError(
                "EF_ARGUMENT",
                f"files: mode '{item['mode']}' of {item['path']} is not octal from 0 to 0777; write it like '0644'",
            )
        wanted.append({"path": item["path"], "content": item["content"], "mode": int(item["mode"], 8)})
    return wanted


def missing_users(text):
    """Return the users of a sysusers.d text (lines ``u NAME …``) that this host does not have."""
    names = [line.split()[1] for line in text.splitlines() if line.startswith("u ")]
    known = {entry.pw_name for entry in pwd.getpwall()}
    return [name for name in names if name not in known]


def missing_directories(text):
    """Return the directories of a tmpfiles.d text (lines ``d PATH …``) that are not there."""
    paths = [line.split()[1] for line in text.splitlines() if line.startswith("d ")]
    return [path for path in paths if not os.path.isdir(path)]


def text_of(wanted, name):
    """Return the content of the wanted file called ``name``; raise when none is."""
    for item in wanted:
        if os.path.basename(item["path"]) == name:
            return item["content"]
    raise FleetError("EF_ARGUMENT", f"'{name}' is to be applied but is not among files; add it")


def plan_actions(module, wanted, steps):
    """Return the commands that the host still needs, in order."""
    params = module.params
    changed = {os.path.basename(step.path) for step in steps}
    actions = []
    if params["sysusers"] and missing_users(text_of(wanted, params["sysusers"])):
        actions.append(["systemd-sysusers", params["sysusers"]])
    if params["tmpfiles"] and (
        params["tmpfiles"] in changed or missing_directories(text_of(wanted, params["tmpfiles"]))
    ):
        actions.append(["systemd-tmpfiles", "--create", params["tmpfiles"]])
    if any(step.path.startswith(("/etc/systemd/", "/lib/systemd/", "/usr/lib/systemd/")) for step in steps):
        actions.append(["systemctl", "daemon-reload"])
    actions += [["systemctl", "enable", unit] for unit in params["enable"] if not is_enabled(module, unit)]
    timers = [unit for unit in params["enable"] if unit.endswith(TIMER)]
    actions += [["systemctl", "restart", unit] for unit in timers if unit in changed or not is_active(module, unit)]
    return actions


def plan_removals(units):
    """Return the files of the units that shall not be there but are."""
    for unit in units:
        if not UNIT.match(unit):
            problem = f"remove_units: '{unit}' is not a unit's name; write it like 'ebpf-fleet-bcc.service'"
            raise FleetError("EF_ARGUMENT", problem)
    paths = [os.path.join(UNITS, unit) for unit in units]
    return [path for path in paths if os.path.lexists(path)]


def removal_commands(paths):
    """Return the commands that take units away: stopped and forgotten before their files go."""
    if not paths:
        return []
    stops = [["systemctl", "disable", "--now", os.path.basename(path)] for path in paths]
    return [*stops, *(["rm", "--", path] for path in paths), ["systemctl", "daemon-reload"]]


def diff_removals(paths):
    """Return the files' texts as they are, and nothing in their place."""
    shown = []
    for path in paths:
        before = filesteps.read_state(path).content or ""
        shown.append({"before_header": path, "after_header": f"{path} (absent)", "before": before, "after": ""})
    return shown


def is_enabled(module, unit):
    """Return whether systemd starts the unit at boot."""
    rc, dummy, dummy2 = module.run_command(["systemctl", "is-enabled", "--quiet", unit])
    return rc == 0


def is_active(module, unit):
    """Return whether systemd has the unit running."""
    rc, dummy, dummy2 = module.run_command(["systemctl", "is-active", "--quiet", unit])
    return rc == 0


def judge_trust(module, layout, steps, found):
    """Return the change of trust among the steps, None if there is none; raise where it may not be written."""
    from ansible_collections.ebpf.fleet.plugins.module_utils.release import trust_host

    change = trust_host.judge_steps(layout, steps, found) if layout else None
    if change is None:
        return None
    if change.fault:
        raise FleetError(change.fault.code, f"{change.fault}; nothing was written: correct the variable")
    for note in change.notes[:10]:
        module.warn(note)
    if change.problems and not module.params["trust_overrule"]:
        raise FleetError(
            "EF_TRUST_CHANGE",
            f"this change of trust is refused and nothing was written: {'; '.join(change.problems)}. Look for a "
            f"variable that is given twice or lacks a line; if it is meant, set '{trust_change.OVERRULE}'",
        )
    for problem in change.problems:
        module.warn(f"TRUST OVERRULED, as trust_overrule asks: {problem}")
    return change


def keep_trust(layout, steps, change):
    """Keep the signers that are there, so that a rollback restores them."""
    from ansible_collections.ebpf.fleet.plugins.module_utils.release import trust_host

    try:
        trust_host.keep_former(layout, steps, bool(change.problems))
    except OSError as error:
        problem = f"the signers of before cannot be kept ({error}); make room on that disk"
        raise FleetError(explain(error, NOT_WRITTEN).code, problem) from error


def find_host(wanted):
    """Return the layout of the host whose trust files are wanted, None if none are."""
    from ansible_collections.ebpf.fleet.plugins.module_utils.release import trust_host

    return trust_host.find_layout([item["path"] for item in wanted])


def apply(module, steps, actions):
    """Write the files and run the commands; raise with the command and its words when one fails."""
    for step in steps:
        try:
            filesteps.write_atomically(step.path, step.content, step.mode)
        except OSError as error:
            problem = f"cannot write {step.path}: {error.strerror}; correct that and run again"
            raise FleetError(explain(error, NOT_WRITTEN).code, problem, step.path) from error
    for action in actions:
        rc, out, err = module.run_command(action)
        if rc != 0:
            words = (err or out).strip()
            raise FleetError("EF_COMMAND", f"'{' '.join(action)}' ended with {rc}: {words}; correct that and run again")


def run(module):
    """Plan, then act unless this is check mode; return the result."""
    wanted = wanted_files(module.params["files"])
    require_systemd()
    if os.geteuid() != 0:
        raise FleetError(
            "EF_PERMISSION", "the module is not root on this host; the control files belong to root. Set 'become: true'"
        )
    found = {item["path"]: filesteps.read_state(item["path"]) for item in wanted}
    steps = filesteps.plan_files(wanted, found)
    layout = find_host(wanted)
    change = judge_trust(module, layout, steps, found)
    removals = plan_removals(module.params["remove_units"])
    actions = removal_commands(removals) + plan_actions(module, wanted, steps)
    if not module.check_mode:
        if change is not None:
            keep_trust(layout, steps, change)
        apply(module, steps, actions)
    return {
        "changed": bool(steps or actions),
        "trust_changed": change is not None,
        "trust_overruled": change.problems if change is not None else [],
        "files": [step.path for step in steps],
        "actions": [" ".join(action) for action in actions],
        "diff": filesteps.diff_steps(steps) + diff_removals(removals),
    }


def main():
    module = AnsibleModule(argument_spec=SPEC, supports_check_mode=True)
    try:
        result = run(module)
    except (OSError, FleetError) as error:
        module.fail_json(**explain(error, NOT_WRITTEN).as_result())
    module.exit_json(**result)


if __name__ == "__main__":
    main()
