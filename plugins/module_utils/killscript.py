# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
"""Render the kill switch as one POSIX sh script, for hosts where nothing else may work.

The script needs a shell, grep and sleep, no Python and no free disk. It places the orders,
proves from the kernel that they took effect, kills a loader that does not obey, and ends with
one line that `kill_answer` reads. Pure: nothing here touches a host.
"""

from __future__ import annotations

import re
import shlex
from typing import Any

from ansible_collections.ebpf.fleet.plugins.module_utils.kill import parse_scopes

MARK = "ebpf-fleet-kill: "
STATES = ("engaged", "released", "query")

DEFAULT_GRACE_SECONDS = 2
DEFAULT_DEADLINE_SECONDS = 10

_ROOT = re.compile(r"(?:/[A-Za-z0-9._-]+)*")

# Written without single quotes, so that a login shell that is no sh can hand it on to one.
_PRELUDE = r"""set -u
LC_ALL=C
export LC_ALL
umask 022
orders="@ORDERS@"
root=@ROOT@
etc=$root/etc/ebpf-fleet/kill.d
run=$root/run/ebpf-fleet/kill.d
persisted=null
changed=false
escalated=false
left=null
note=
off_ms=

# Hundredths of a second since the start, into $cs; /proc/uptime has no finer ones.
elapsed() {
	IFS=". " read -r sec frac _ </proc/uptime
	cs=$(((sec - sec0) * 100 + 1$frac - frac0))
}
IFS=". " read -r sec0 frac0 _ </proc/uptime
frac0=1$frac0

# OK DETAIL: the one line that is read by a machine, and the end.
answer() {
	if [ -z "$off_ms" ]; then
		elapsed
		off_ms=$((cs * 10))
	fi
	printf "@MARK@{\"ok\":%s,\"changed\":%s,\"host_ms\":%d,\"left\":%s," "$1" "$changed" "$off_ms" "$left"
	printf "\"persisted\":%s,\"escalated\":%s,\"detail\":\"%s\"}\n" "$persisted" "$escalated" "$2$note"
	[ "$1" = true ] && exit 0
	exit 1
}

# Without root other processes cannot be seen, and seeing nothing would look like off.
euid=
while read -r key _ value _; do
	if [ "$key" = "Uid:" ]; then
		euid=$value
		break
	fi
done </proc/self/status
[ "$euid" = 0 ] || answer false "is not root on this host; use become"
"""

_FIND_ORDERS = r"""
# Orders in both folders that are still there, into $there.
find_orders() {
	there=
	for order in $orders; do
		if [ -e "$run/$order" ] || [ -e "$etc/$order" ]; then
			there="$there $order"
		fi
	done
}
"""

_RELEASE = r"""for order in $orders; do
	for dir in "$run" "$etc"; do
		[ -e "$dir/$order" ] || continue
		rm -f "$dir/$order" 2>/dev/null && changed=true
	done
done
find_orders
[ -z "$there" ] || answer false "cannot remove the order:$there"
persisted=false
answer true "the orders are gone; the loader attaches again what is wanted"
"""

# Which programs are left, by two witnesses: the descriptors of processes and our own binary.
_LOOK = r"""
lists="$root/run/ebpf-fleet-loader/programs $root/run/ebpf-fleet-bcc/programs"
loader=$root/var/lib/ebpf-fleet/current/ebpf-loader
features="@FEATURES@"
families="@FAMILIES@"
whole=@WHOLE@
ids=
noted=
pids=
held=
foreign=

# This host is of two kernel families, as the loader reckons them.
find_families() {
	read -r release </proc/sys/kernel/osrelease
	minor=${release#*.}
	family=${release%%.*}.${minor%%[!0-9]*}
	quote=$(printf "\047")
	distro=
	for file in "$root/etc/os-release" "$root/usr/lib/os-release"; do
		[ -r "$file" ] || continue
		while IFS="=" read -r key value; do
			[ "$key" = ID ] && distro=$value
		done <"$file"
		break
	done
	distro=${distro#\"}
	distro=${distro%\"}
	distro=${distro#"$quote"}
	distro=${distro%"$quote"}
}

if [ -n "$families" ]; then
	find_families
	for name in $families; do
		if [ "$name" = "$family" ] || [ "$name" = "$distro-$family" ]; then
			whole=true
		fi
	done
fi

# Ids of the features programs, from the lists of loader and BCC collector, added to $ids.
# Programs of others that we load are not named ef_: tag and name are kept in $foreign.
note_ids() {
	for programs in $lists; do
		[ -r "$programs" ] || continue
		while read -r id tag feature name; do
			case " $features " in
			*" $feature "*) ;;
			*) [ "$whole" = true ] || continue ;;
			esac
			ids="$ids $id"
			case $name in
			ef_*) ;;
			*) foreign="$foreign $tag:$name" ;;
			esac
		done <"$programs"
	done
}

# Ids of all programs on the lists, added to $ids.
note_all_ids() {
	asked=$whole
	whole=true
	note_ids
	whole=$asked
}

# Pids of loaders and BCC collectors (with their compilers), into $pids. No process is started:
# this must be fast on a slow host.
find_loaders() {
	pids=
	for dir in /proc/[0-9]*; do
		comm=
		{ read -r comm <"$dir/comm"; } 2>/dev/null
		case $comm in
		ebpf-loader | ebpf-fleet-bcc) pids="$pids ${dir#/proc/}" ;;
		esac
	done
}

# Can the lists tell what each holder runs?
can_read_lists() {
	for programs in $lists; do
		[ -r "$programs" ] && return 0
	done
	return 1
}

# Program ids that the processes in $1 hold by a program or a link, into $held.
find_held() {
	held=
	dirs=
	for pid in $1; do
		dirs="$dirs /proc/$pid/fdinfo"
	done
	[ -n "$dirs" ] || return 0
	# shellcheck disable=SC2013,SC2086  # a list of folders, and words without spaces
	for word in $(grep -hsr "^prog_id:" $dirs 2>/dev/null); do
		[ "$word" = "prog_id:" ] || held="$held $word"
	done
}

# Those of $held that are in $1, each once, into $common.
find_common() {
	common=
	for id in $held; do
		case " $common " in *" $id "*) continue ;; esac
		case " $1 " in *" $id "*) common="$common $id" ;; esac
	done
}

# What is left of what was ordered off, into $still.
look() {
	note=
	find_loaders
	find_held "$pids"
	if [ "$whole" = true ]; then
		find_common "$held"
		still=$common
		return
	fi
	ids=$noted
	note_ids
	if [ -n "$held" ] && ! can_read_lists; then
		still=$held
		note="; the loader keeps no list of its programs, so all count"
		return
	fi
	find_common "$ids"
	still=$common
}

# Does any other process hold what the loader let go? And does our binary see none?
look_everywhere() {
	all=
	for dir in /proc/[0-9]*; do
		all="$all ${dir#/proc/}"
	done
	find_held "$all"
	find_common "$ids"
	still=$common
	[ -z "$still" ] || return 0
	[ -x "$loader" ] || return 0
	ask_loader
}

# A program that is detached stays in the kernel until no CPU can be in it: only our binary sees that.
ask_loader() {
	if [ -n "$foreign" ]; then
		list_foreign
		found=$("$loader" left --also "$also" 2>/dev/null)
	else
		found=$("$loader" left 2>/dev/null)
	fi
	code=$?
	[ -z "$foreign" ] || [ "$also" = /dev/null ] || rm -f "$also"
	if [ "$code" != 0 ] && [ "$code" != 4 ]; then
		note="; ebpf-loader left could not be asked"
		return
	fi
	if [ "$whole" = false ]; then
		held=
		for id in $ids; do
			case $found in *"\"id\":$id,"* | *"\"id\":$id}"*) held="$held $id" ;; esac
		done
		find_common "$held"
		still=$common
	elif [ "$code" = 4 ]; then
		still=" unknown"
		note="; ebpf-loader left still finds programs of ours"
	fi
}

# Our list of the programs that are not named ef_, in the loaders own format, into the file $also.
# On a full /run there is none, and the loader is asked without it; the descriptors still tell.
list_foreign() {
	also=$root/run/ebpf-fleet/.also.$$
	: >"$also" 2>/dev/null || also=/dev/null
	for word in $foreign; do
		printf "0 %s foreign %s\n" "${word%%:*}" "${word#*:}"
	done >>"$also" 2>/dev/null
}

# How many words of $1, into $left; one that has no id makes the number unknown.
count() {
	left=0
	for id in $1; do
		left=$((left + 1))
		if [ "$id" = unknown ]; then
			left=null
			return
		fi
	done
}

# A grep that finds nothing where something is would look like off.
grep -qsr "^pos:" /proc/self/fdinfo 2>/dev/null || answer false "cannot search /proc on this host: no grep -r"
"""

_QUERY = r"""
note_all_ids
noted=$ids
look
[ -n "$still" ] || look_everywhere
count "$still"
find_orders
persisted=false
for order in $orders; do
	[ -e "$etc/$order" ] && persisted=true
done
answer true "orders that hold:${there:- none}; programs left:${still:- none}"
"""

_ENGAGE = r"""
grace=@GRACE@
deadline=@DEADLINE@
persistent=@PERSISTENT@

# Every order into folder $1, or a failure.
place() {
	mkdir -p "$1" 2>/dev/null || return 1
	for order in $orders; do
		[ -e "$1/$order" ] && continue
		{ true >"$1/$order"; } 2>/dev/null || return 1
		changed=true
	done
}

# Are all orders on disk? Into $persisted.
find_persisted() {
	persisted=true
	for order in $orders; do
		[ -e "$etc/$order" ] || persisted=false
	done
}

# SIGKILL for the loaders and collectors in $pids that truly are.
kill_loaders() {
	for pid in $pids; do
		exe=$(readlink "/proc/$pid/exe" 2>/dev/null)
		case ${exe:-ebpf-loader} in
		*ebpf-loader | *"ebpf-loader (deleted)") kill -9 "$pid" 2>/dev/null && escalated=true ;;
		*/python3*) grep -qs "bcc\.py" "/proc/$pid/cmdline" && kill -9 "$pid" 2>/dev/null && escalated=true ;;
		esac
	done
}

# No order can be placed anywhere: what is left is to stop the service, which no order then holds.
stop_without_order() {
	[ "$whole" = true ] || answer false "no order can be placed, in run or in etc; nothing is off"
	command -v systemctl >/dev/null 2>&1 && systemctl --no-block stop @UNIT@ >/dev/null 2>&1
	find_loaders
	kill_loaders
	sleep 1
	look
	count "$still"
	note="; the service was stopped and killed, but nothing holds it"
	answer false "no order can be placed, in run or in etc"
}

# What the features programs are is noted before the loader takes them off its list.
if [ "$whole" = true ]; then
	note_all_ids
else
	note_ids
fi
noted=$ids

placed=false
place "$run" && placed=true
if [ "$placed" = false ]; then
	place "$etc" && placed=true
	[ "$placed" = true ] || stop_without_order
elif [ "$persistent" = true ]; then
	# On its own, so that a disk that hangs does not hold up the kill.
	place "$etc" </dev/null >/dev/null 2>&1 &
fi

if [ "$whole" = false ] && [ -z "$features" ]; then
	detail="the order is placed; this host is of family $family, which it does not concern"
else
	detail="off; nothing of it is left"
	while :; do
		look
		[ -n "$still" ] || look_everywhere
		[ -n "$still" ] || break
		elapsed
		if [ "$cs" -ge "$deadline" ]; then
			count "$still"
			find_persisted
			answer false "still in the kernel after $((cs / 100)) s: programs$still"
		fi
		if [ "$cs" -ge "$grace" ] && [ "$escalated" = false ]; then
			kill_loaders
			[ "$escalated" = true ] && detail="off; the loader did not obey and was killed"
		fi
		sleep 0.05 2>/dev/null || sleep 1
	done
	left=0
fi

elapsed
off_ms=$((cs * 10))
# The order on disk may come a little later than the effect; half a second is its due.
tries=0
find_persisted
while [ "$persistent" = true ] && [ "$persisted" = false ] && [ "$tries" -lt 10 ]; do
	tries=$((tries + 1))
	sleep 0.05 2>/dev/null || sleep 1
	find_persisted
done
answer true "$detail"
"""


_BODIES = {
    "engaged": _LOOK + _ENGAGE,
    "released": _FIND_ORDERS + _RELEASE,
    "query": _FIND_ORDERS + _LOOK + _QUERY,
}


def render(
    scopes: object,
    state: str = "engaged",
    persistent: bool = True,
    grace_seconds: int = DEFAULT_GRACE_SECONDS,
    deadline_seconds: int = DEFAULT_DEADLINE_SECONDS,
    unit: str = "ebpf-fleet-loader.service",
    root: str = "",
) -> str:
    """The script for these scopes and this state, as plain sh.

    `grace_seconds` is how long the loader may take before it is killed, `deadline_seconds` when
    the script gives up. `root` is a folder that stands before every path but /proc. Raises
    ValueError for anything that is not exactly what it should be.
    """
    found = parse_scopes(scopes)
    _check(state, grace_seconds, deadline_seconds, unit, root)
    values = {
        "@ORDERS@": " ".join(scope.order for scope in found),
        "@FEATURES@": " ".join(scope.name for scope in found if scope.kind == "feature"),
        "@FAMILIES@": " ".join(scope.name for scope in found if scope.kind == "family"),
        "@WHOLE@": "true" if any(scope.kind == "global" for scope in found) else "false",
        "@PERSISTENT@": "true" if persistent else "false",
        "@GRACE@": str(grace_seconds * 100),
        "@DEADLINE@": str(deadline_seconds * 100),
        "@UNIT@": unit,
        "@ROOT@": root,
        "@MARK@": MARK,
    }
    script = _PRELUDE + _BODIES[state]
    for key, value in values.items():
        script = script.replace(key, value)
    return script


def _check(state: str, grace: Any, deadline: Any, unit: str, root: str) -> None:
    if state not in STATES:
        raise ValueError(f"state {state!r}: say one of {', '.join(STATES)}")
    for name, value in (("grace_seconds", grace), ("deadline_seconds", deadline)):
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 600:
            raise ValueError(f"{name} {value!r}: give a whole number of seconds from 0 to 600")
    if grace >= deadline:
        raise ValueError(f"grace_seconds {grace} must be less than deadline_seconds {deadline}")
    if not re.fullmatch(r"[A-Za-z0-9@._-]+", unit):
        raise ValueError(f"unit {unit!r}: is not a unit's name")
    if not _ROOT.fullmatch(root):
        raise ValueError(f"root {root!r}: give an absolute path of letters, digits, dot, dash and underscore")


def command(script: str) -> str:
    """One command that runs the script in /bin/sh, whatever the login shell is."""
    return "/bin/sh -c " + shlex.quote(script)
