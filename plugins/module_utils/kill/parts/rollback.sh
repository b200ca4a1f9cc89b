# shellcheck shell=sh disable=SC2034,SC2154,SC2317  # a part of a script: names and calls are in the others

# The way back to the previous release. What the loader's user can write (its status) is read only
# after the loader was stopped, in a bounded way; whatever is asked of systemd has a limit.
store=$root/var/lib/ebpf-fleet
status=$root/run/ebpf-fleet-loader/status.json
lease=$root/etc/ebpf-fleet/lease.json
from=@FROM@
trust_only=@TRUST_ONLY@
confirm_seconds=@WAIT@
lock_seconds=@LOCK_WAIT@
stop_seconds=@STOP@

ms() {
	IFS=". " read -r s c _ </proc/uptime
	c=${c#0}
	echo $((s * 1000 + ${c:-0} * 10))
}
start=$(ms)
# OK CHANGED DIGEST DETAIL. Whatever else went well, a host whose trust did not come back is not back.
answer() {
	ok=$1
	[ -z "$trust_stuck" ] || ok=false
	printf "\n@MARK@{\"ok\":%s,\"changed\":%s,\"host_ms\":%d,\"digest\":\"%s\",\"detail\":\"%s\"}\n" \
		"$ok" "$2" "$(($(ms) - start))" "$3" "$4$trust_said"
	[ "$ok" = true ] && exit 0
	exit 1
}

nap() {
	sleep 0.05 2>/dev/null || sleep 1
}

digest() { sha256sum <"$1/bundle/manifest.json" 2>/dev/null | cut -c1-64; }

# SECONDS COMMAND…: runs the command, for at most that long.
within() {
	limit=$1
	shift
	"$@" </dev/null 2>/dev/null 9>&- &
	child=$!
	(
		sleep "$limit"
		kill -9 "$child"
	) </dev/null >/dev/null 2>&1 9>&- &
	guard=$!
	wait "$child" 2>/dev/null
	code=$?
	kill "$guard" 2>/dev/null
	return "$code"
}

# DIGEST: the probation ends with the release that was on it; the lease of another stays. Was there one?
end_lease() { grep -q "\"$1\"" "$lease" 2>/dev/null && rm -f "$lease"; }

# DETAIL: what runs here, $now, stays. A release run that died before it activated left the lease of what it was to activate.
stay() {
	changed=false
	end_lease "$from" && changed=true
	restore_trust "$now" && changed=true
	answer true "$changed" "$now" "$1"
}

# Does the status say that this release runs? It may be anything, and become anything before it is read.
runs() {
	[ -h "$status" ] && return 1
	[ -f "$status" ] || return 1
	within 2 dd if="$status" bs=1048576 count=1 | tr -d " \n" | grep -q "\"digest\":\"$1\""
}

# Tries for $1 twentieths of a second until no process of our units is left.
is_empty_within() {
	tries=$1
	while :; do
		find_groups
		find_group_pids
		[ -n "$pids" ] || return 0
		tries=$((tries - 1))
		[ "$tries" -gt 0 ] || return 1
		nap
	done
}

# A service can ignore SIGTERM and ask systemd for ever more time: after $stop_seconds its cgroup is
# killed. What it left in its folder says nothing of the next loader.
stop_unit() {
	within 5 systemctl stop --no-block "$unit" >/dev/null
	code=$?
	[ "$code" = 0 ] || [ "$code" = 137 ] || answer false "$1" "$2" "systemctl stop failed"
	patience=$((stop_seconds * 20))
	[ "$code" = 0 ] || patience=1
	if ! is_empty_within "$patience"; then
		kill_groups
		within 5 systemctl stop --no-block "$unit" >/dev/null
		is_empty_within 40 || answer false "$1" "$2" "$unit cannot be stopped: see systemctl status $unit"
	fi
	rm -rf "$status"
}

# A release module that outlived its connection may be about to activate: its end comes first.
if [ -w "$store/.lock" ] && command -v flock >/dev/null 2>&1; then
	exec 9<>"$store/.lock"
	tries=0
	while ! flock -n 9; do
		tries=$((tries + 1))
		[ "$tries" -gt "$lock_seconds" ] && answer false false "" "a release run still works here; try again when it ended"
		sleep 1
	done
fi
if [ -n "$trust_only" ]; then
	now=
	[ -L "$store/current" ] && now=$(digest "$store/current")
	restore_trust "$now" && answer true true "$now" "the release stays"
	answer true false "$now" "the release stays and its trust too"
fi
if [ ! -L "$store/current" ]; then
	now=
	if [ -n "$from" ]; then
		stay "no release is active here"
	fi
	answer false false "" "no release is active here and none can be gone back to"
fi
now=$(digest "$store/current")
# What cannot be read does not count as another release.
[ -n "$now" ] || answer false false "" "the digest of the current release cannot be read; look at $store/current"
if [ -n "$from" ] && [ "$now" != "$from" ]; then
	stay "another release is active already"
fi
if [ ! -L "$store/previous" ]; then
	[ -n "$from" ] || answer false false "$now" "there is no previous release on this host"
	stop_unit false "$now"
	rm -f "$store/current" || answer false true "$now" "cannot remove the link current"
	end_lease "$now"
	restore_trust ""
	answer true true "" "this was the first release: nothing runs now"
fi
back=$(digest "$store/previous")
[ -n "$back" ] || answer false false "$now" "the previous release has no manifest"
[ "$back" != "$now" ] || answer false false "$now" "previous names the current release: there is none to go back to"
mv -fT "$store/previous" "$store/current" || answer false false "$now" "cannot rename previous onto current"
restore_trust "$back"
stop_unit true "$back"
within 5 systemctl reset-failed "$unit" >/dev/null
within 10 systemctl start --no-block "$unit" >/dev/null ||
	answer false true "$back" "systemctl start failed; see journalctl -u $unit"
asked=0
while ! runs "$back"; do
	asked=$((asked + 1))
	[ "$asked" -gt "$confirm_seconds" ] && answer false true "$back" "the loader did not confirm in time; see journalctl -u $unit"
	sleep 1
done
end_lease "$now"
answer true true "$back" "the previous release runs"
