# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The way back to the previous release, as a POSIX sh script that a host runs over SSH. Pure.

Its answer is read by ``kill_answer``.
"""

from __future__ import annotations

import re

MARK = "ebpf-fleet-rollback: "

_DIGEST = re.compile(r"^[0-9a-f]{64}$")

# rename(2) of the link `previous` onto `current` needs no block and no inode:
# it works on a full disk. The desired state lies in the release's folder and
# comes back with it.
_SCRIPT = r"""set -u
root=@ROOT@/var/lib/ebpf-fleet
status=@ROOT@/run/ebpf-fleet-loader/status.json
lease=@ROOT@/etc/ebpf-fleet/lease.json
unit=@UNIT@
from=@FROM@
wait=@WAIT@
lockwait=@LOCK_WAIT@
ms() { IFS='. ' read -r s c _ </proc/uptime; c=${c#0}; echo $((s * 1000 + ${c:-0} * 10)); }
start=$(ms)
answer() {
	printf '@MARK@{"ok":%s,"changed":%s,"host_ms":%d,"digest":"%s","detail":"%s"}\n' \
		"$1" "$2" "$(($(ms) - start))" "$3" "$4"
	[ "$1" = true ] && exit 0
	exit 1
}
digest() { sha256sum <"$1/bundle/manifest.json" 2>/dev/null | cut -c1-64; }
# The probation ends with the release that was on it; another's lease is none of ours.
end_lease() { ! grep -q "\"$now\"" "$lease" 2>/dev/null || rm -f "$lease"; }
runs() { tr -d ' \n' <"$status" 2>/dev/null | grep -q "\"digest\":\"$1\""; }
# A release module that outlived its connection may be about to activate: its end comes first.
if [ -w "$root/.lock" ] && command -v flock >/dev/null 2>&1; then
	exec 9<>"$root/.lock"
	tries=0
	while ! flock -n 9; do
		tries=$((tries + 1))
		[ "$tries" -gt "$lockwait" ] && answer false false "" "a release run still works here; try again when it ended"
		sleep 1
	done
fi
if [ ! -L "$root/current" ]; then
	[ -n "$from" ] && answer true false "" "no release is active here"
	answer false false "" "no release is active here and none can be gone back to"
fi
now=$(digest "$root/current")
# What cannot be read is no other release.
[ -n "$now" ] || answer false false "" "the digest of the current release cannot be read; look at $root/current"
if [ -n "$from" ] && [ "$now" != "$from" ]; then
	answer true false "$now" "another release is active already"
fi
if [ ! -L "$root/previous" ]; then
	[ -n "$from" ] || answer false false "$now" "there is no previous release on this host"
	systemctl stop "$unit" || answer false false "$now" "systemctl stop failed"
	rm -f "$root/current" || answer false true "$now" "cannot remove the link current"
	end_lease
	answer true true "" "this was the first release: nothing runs now"
fi
back=$(digest "$root/previous")
[ -n "$back" ] || answer false false "$now" "the previous release has no manifest"
[ "$back" != "$now" ] || answer false false "$now" "previous names the current release: there is none to go back to"
mv -fT "$root/previous" "$root/current" || answer false false "$now" "cannot rename previous onto current"
systemctl reset-failed "$unit" 2>/dev/null
systemctl restart "$unit" || answer false true "$back" "systemctl restart failed; see journalctl -u $unit"
tries=0
while ! runs "$back"; do
	tries=$((tries + 1))
	[ "$tries" -gt "$wait" ] && answer false true "$back" "the loader did not confirm in time; see journalctl -u $unit"
	sleep 1
done
end_lease
answer true true "$back" "the previous release runs"
"""


def render_rollback(
    from_digest: str | None = None,
    unit: str = "ebpf-fleet-loader.service",
    wait_seconds: int = 30,
    lock_seconds: int = 90,
    root: str = "",
) -> str:
    """Return the script that makes the previous release current again.

    With ``from_digest`` (64 hex digits) a host on which another release is
    active is left as it is, and a host without a previous release ends with
    nothing running: what a failed rollout wants. A release run that still
    works on the host is awaited for ``lock_seconds``. ``root`` is a prefix for
    tests. Raises ``ValueError`` on anything that could not be a digest or path.
    """
    if from_digest and not _DIGEST.match(from_digest):
        raise ValueError(f"from_digest '{from_digest}' is not 64 hex digits")
    if not re.match(r"^[A-Za-z0-9@._-]+$", unit):
        raise ValueError(f"unit '{unit}' is not a unit's name")
    if not re.match(r"^[A-Za-z0-9/._-]*$", root):
        raise ValueError(f"root '{root}' holds characters that a path here may not")
    values = {
        "@ROOT@": root,
        "@UNIT@": unit,
        "@FROM@": "'%s'" % (from_digest or ""),
        "@WAIT@": str(int(wait_seconds)),
        "@LOCK_WAIT@": str(int(lock_seconds)),
        "@MARK@": MARK,
    }
    script = _SCRIPT
    for key, value in values.items():
        script = script.replace(key, value)
    return script
