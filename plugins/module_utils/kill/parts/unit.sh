# shellcheck shell=sh disable=SC2034,SC2154,SC2317  # a part of a script: names and calls are in the others

# The cgroups of our units, into $groups. They are told by their place below a slice of the system,
# which only root can make; what a user owns, or what lies below user.slice, is never one.
find_groups() {
	groups=
	for hierarchy in "$root/sys/fs/cgroup" "$root/sys/fs/cgroup/unified" "$root/sys/fs/cgroup/systemd"; do
		for slice in "$hierarchy"/*.slice "$hierarchy"/*.slice/*.slice; do
			case $slice in */user.slice | */user.slice/*) continue ;; esac
			for one_unit in $units; do
				if [ -d "$slice/$one_unit" ] && [ -O "$slice/$one_unit" ] && [ -O "$slice" ]; then
					groups="$groups $slice/$one_unit"
				fi
			done
		done
	done
}

# Pids of all processes in $groups, into $pids. Pid 0 is a process of another namespace.
find_group_pids() {
	pids=
	for group in $groups; do
		for file in "$group/cgroup.procs" "$group"/*/cgroup.procs "$group"/*/*/cgroup.procs; do
			[ -r "$file" ] || continue
			while read -r pid; do
				case $pid in "" | 0 | 1 | *[!0-9]*) continue ;; esac
				case " $pids " in *" $pid "*) continue ;; esac
				pids="$pids $pid"
			done 2>/dev/null <"$file"
		done
	done
}

# FILE WORD: writes the word where the kernel has such a file.
set_group() {
	[ -e "$1" ] || return 1
	{ echo "$2" >"$1"; } 2>/dev/null
}

# SIGKILL for whatever is in $groups, until nothing is. Where there is no cgroup.kill (before 5.14) they
# are frozen meanwhile, so that none forks between list and kill.
kill_groups() {
	rounds=0
	while [ "$rounds" -lt 100 ]; do
		find_group_pids
		[ -n "$pids" ] || break
		for group in $groups; do
			set_group "$group/cgroup.kill" 1 || set_group "$group/cgroup.freeze" 1
		done
		for pid in $pids; do
			kill -9 "$pid" 2>/dev/null
		done
		thaw_old_freezer
		rounds=$((rounds + 1))
		nap
	done
	for group in $groups; do
		set_group "$group/cgroup.freeze" 0
	done
}

# In the freezer of cgroup v1 a frozen process does not even take SIGKILL.
thaw_old_freezer() {
	for one_unit in $units; do
		for file in "$root/sys/fs/cgroup/freezer"/*.slice/"$one_unit/freezer.state"; do
			set_group "$file" THAWED
		done
	done
}

# Number of the user that our units run as, into $uid; empty where there is no such user, and for root.
find_uid() {
	uid=
	while IFS=: read -r name _ number _; do
		[ "$name" = "$user" ] && uid=$number
	done 2>/dev/null <"$root/etc/passwd"
	case $uid in 0 | *[!0-9]*) uid= ;; esac
}

# Processes of that user, into $pids. A container has users of its own under the same numbers: what
# lives in another namespace of pids or mounts is not ours. The kernel answers a read of status without
# waiting for the process, which it does not for cmdline, maps or environ.
find_user_pids() {
	pids=
	[ -n "$uid" ] || return 0
	here=$(readlink /proc/self/ns/mnt)
	first=$(readlink /proc/1/ns/mnt)
	# shellcheck disable=SC2013  # paths without spaces
	for file in $(printf "%s\n" /proc/[0-9]*/status | xargs grep -ls "^Uid:[[:space:]]${uid}[[:space:]]" 2>/dev/null); do
		pid=${file#/proc/}
		pid=${pid%/status}
		inner=gone
		while read -r key _ value; do
			[ "$key" = "NSpid:" ] && inner=$value
		done 2>/dev/null <"$file"
		[ -z "$inner" ] || continue
		place=$(readlink "/proc/$pid/ns/mnt")
		[ "$place" = "$here" ] || [ "$place" = "$first" ] || continue
		pids="$pids $pid"
	done
}
