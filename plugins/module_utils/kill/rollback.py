# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The way back to the previous release, as a POSIX sh script that a host runs over SSH. Pure.

Its answer is read by ``kill_answer``.
"""

from __future__ import annotations

import re

from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.kill import script as killscript

MARK = "ebpf-fleet-rollback: "

_DIGEST = re.compile(r"^[0-9a-f]{64}$")

# rename(2) of the link `previous` onto `current` needs no block and no inode:
# it works on a full disk. The desired state lies in the release's folder and
# comes back with it.
_PARTS = ("rollback_head.sh", "unit.sh", "rollback_trust.sh", "rollback.sh")


def render_rollback(
    from_digest: str | None = None,
    unit: str = "ebpf-fleet-loader.service",
    wait_seconds: int = 30,
    lock_seconds: int = 90,
    stop_seconds: int = 12,
    root: str = "",
    trust_only: bool = False,
) -> str:
    """Return the script that makes the previous release current again.

    With ``from_digest`` (64 hex digits) a host on which another release is
    active is left as it is, and a host without a previous release ends with
    nothing running: what a failed rollout wants. A release run that still
    works on the host is awaited for ``lock_seconds``; a loader that does not end
    within ``stop_seconds`` is killed with its cgroup. The signers that were replaced
    while that release ran are restored; with ``trust_only`` nothing else is done. ``root`` is a prefix for
    tests. Raises FleetError on anything that could not be a digest or path.
    """
    if from_digest and not _DIGEST.match(from_digest):
        raise FleetError("EF_ARGUMENT", f"from_digest '{from_digest}' is not 64 hex digits; give a bundle's digest")
    if not re.match(r"^[A-Za-z0-9@._-]+$", unit):
        raise FleetError("EF_ARGUMENT", f"unit '{unit}' is not a unit's name; give one such as NAME.service")
    if not re.match(r"^[A-Za-z0-9/._-]*$", root):
        raise FleetError("EF_ARGUMENT", f"root '{root}' holds characters that a path here may not; give another")
    values = {
        "@ROOT@": root,
        "@UNIT@": unit,
        "@UNITS@": f"{unit} {killscript.COLLECTOR_UNIT}",
        "@USER@": killscript.USER,
        "@FROM@": '"%s"' % (from_digest or ""),
        "@WAIT@": str(int(wait_seconds)),
        "@LOCK_WAIT@": str(int(lock_seconds)),
        "@TRUST_ONLY@": "yes" if trust_only else "",
        "@STOP@": str(int(stop_seconds)),
        "@MARK@": MARK,
    }
    script = "".join(map(killscript.part, _PARTS))
    for key, value in values.items():
        script = script.replace(key, value)
    return script
