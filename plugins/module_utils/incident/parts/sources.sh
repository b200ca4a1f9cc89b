# shellcheck shell=sh disable=SC2034,SC2154,SC2317  # a part of a script: names and calls are in the others
# Where evidence comes from. Each source is one command that can be killed. Of no process the command line, the
# environment or the memory is read, and no record of an event: these are of others.

has_python() {
	command -v python3 >/dev/null 2>&1 && within 5 python3 -I -S -c "import ctypes, json" >/dev/null
}

# FILE BYTES head|tail: that much of a file that the loaders user may have put there. It is opened once; what was
# opened must be the file of that name, so that no link leads to what only root may read.
read_file() {
	place=$(cd -P "${1%/*}" 2>/dev/null && pwd -P) || exit 3
	[ -e "$1" ] || [ -h "$1" ] || exit 3
	[ -f "$1" ] && [ ! -h "$1" ] || exit 4
	exec <"$1" || exit 4
	[ "$(readlink /proc/self/fd/0)" = "$place/${1##*/}" ] && [ -f /proc/self/fd/0 ] || exit 4
	exec "$3" -c "$2"
}

# The same of the file, and before it of the one that it was rotated from.
read_rotated() {
	(read_file "$1.1" "$2" tail) 2>/dev/null
	read_file "$1" "$2" tail
}

show_host() {
	date -u "+time: %Y-%m-%dT%H:%M:%SZ"
	for one in uptime loadavg meminfo pressure/cpu pressure/memory pressure/io; do
		[ -r "/proc/$one" ] || continue
		echo "== /proc/$one"
		head -n 6 "/proc/$one"
	done
	echo "== orders"
	for folder in "$root/run/ebpf-fleet/kill.d" "$root/etc/ebpf-fleet/kill.d"; do
		for order in "$folder"/*; do
			if [ -e "$order" ] || [ -h "$order" ]; then echo "$order"; fi
		done
	done
	echo "== release"
	for link in current previous; do
		echo "$link: $(readlink "$root/var/lib/ebpf-fleet/$link" 2>/dev/null || echo none)"
	done
}

show_disks() {
	exec df -P "$root/run" "$root/var/log" "$root/var/lib" "$root/tmp"
}

show_capability() {
	echo "kernel: $(uname -r) $(uname -m), family ${distro:-unknown}-$kernel"
	if [ -e /sys/kernel/btf/vmlinux ]; then
		echo "btf: vmlinux, $(wc -c </sys/kernel/btf/vmlinux) bytes"
	else
		echo "btf: missing"
	fi
	for one in /sys/kernel/security/lockdown /sys/kernel/security/lsm /proc/sys/kernel/unprivileged_bpf_disabled \
		/proc/sys/kernel/bpf_stats_enabled /proc/sys/kernel/perf_event_paranoid /proc/sys/kernel/kptr_restrict \
		/proc/sys/net/core/bpf_jit_enable /proc/sys/net/core/bpf_jit_harden /proc/sys/net/core/bpf_jit_kallsyms \
		/proc/sys/net/core/bpf_jit_limit; do
		if [ -r "$one" ]; then echo "$one: $(head -n 1 "$one")"; else echo "$one: unknown"; fi
	done
	echo "== mounts"
	grep -E " (bpf|tracefs|debugfs|cgroup2?) " /proc/self/mounts | cut -d " " -f 1-3
	echo "== configuration"
	for one in /proc/config.gz "/boot/config-$(uname -r)"; do
		[ -r "$one" ] || continue
		if [ "${one%.gz}" != "$one" ]; then gzip -dc "$one"; else cat "$one"; fi 2>/dev/null |
			grep -E "^(# )?CONFIG_(BPF|DEBUG_INFO_BTF|FTRACE|KPROBE|UPROBE|FUNCTION_TRACER|LSM|NET_CLS_BPF|XDP)"
		break
	done
	echo "== programs on this host"
	for one in python3 bpftool systemctl journalctl dmesg; do
		echo "$one: $(command -v "$one" || echo none)"
	done
}

# What the processes of our units hold of one kind, prog or map, by the kernels own words: it answers of a process
# that is stopped, too.
show_held() {
	find_groups
	find_group_pids
	[ -n "$pids" ] || exit 3
	for pid in $pids; do
		# shellcheck disable=SC2013  # names without spaces
		for one in $(grep -lsE "^$1_(id|type):" "/proc/$pid/fdinfo"/*); do
			printf "pid %s fd %s: " "$pid" "${one##*/}"
			tr "\n\t" "  " <"$one"
			echo
		done
	done
	[ "$1" = prog ] || return 0
	echo "== every program that the kernel compiled, whoever loaded it"
	grep -o "bpf_prog_[0-9a-f]\{16\}[^[:space:]]*" /proc/kallsyms
	return 0
}

list_with_python() {
	command -v python3 >/dev/null 2>&1 || exit 5
	exec python3 -I -S -c @PYTHON@
}

show_unit() {
	for unit in $units; do
		echo "== $unit"
		if command -v systemctl >/dev/null 2>&1; then
			systemctl show --no-pager -p Id,LoadState,ActiveState,SubState,Result,NRestarts,MainPID,ExecMainStatus \
				-p ExecMainCode,ActiveEnterTimestamp,InactiveEnterTimestamp,MemoryCurrent,CPUUsageNSec,TasksCurrent \
				-p StatusText,NeedDaemonReload,UnitFileState,ControlGroup,WatchdogTimestamp -- "$unit"
		else
			echo "no systemctl"
		fi
	done
	find_groups
	find_group_pids
	for pid in $pids; do
		echo "== process $pid"
		grep -E "^(Name|State|PPid|Uid|Threads|VmRSS|VmSize|CapEff|Seccomp|[a-z]*voluntary_ctxt_switches):" "/proc/$pid/status"
		echo "wchan: $(cat "/proc/$pid/wchan" 2>/dev/null)"
	done
	return 0
}

# Of the kernels log only lines on BPF are taken: what else it says is not ours to take.
show_kernel_log() {
	if command -v dmesg >/dev/null 2>&1; then
		exec dmesg
	fi
	command -v journalctl >/dev/null 2>&1 || exit 5
	exec journalctl --no-pager -k -b -n 5000 -o short-monotonic
}

show_journal() {
	command -v journalctl >/dev/null 2>&1 || exit 5
	set --
	for unit in $units; do set -- "$@" -u "$unit"; done
	exec journalctl --no-pager -q -o short-iso -n 2000 "$@"
}

# The words of the verifier are had by loading again: by the loader of this host, with the powers of its unit and no
# more, and nothing is attached. Not while an order stands: off means off.
wants_check() {
	[ "$check" != never ] || return 1
	for order in "$root/run/ebpf-fleet/kill.d"/* "$root/etc/ebpf-fleet/kill.d"/*; do
		if [ -e "$order" ] || [ -h "$order" ]; then return 1; fi
	done
	[ -x "$root/var/lib/ebpf-fleet/current/ebpf-loader" ] || return 1
	command -v systemd-run >/dev/null 2>&1 || return 1
	[ "$check" = always ] || within 5 read_file "$root/run/ebpf-fleet-loader/status.json" 4194304 head | grep -q EF_LOAD_REJECTED
}

run_check() {
	wants_check || exit 6
	exec systemd-run --quiet --wait --pipe --collect -p User="$user" -p Group="$user" \
		-p "AmbientCapabilities=CAP_BPF CAP_PERFMON CAP_SYS_ADMIN" \
		-p "CapabilityBoundingSet=CAP_BPF CAP_PERFMON CAP_SYS_ADMIN" -p NoNewPrivileges=yes -p ProtectSystem=strict \
		-p ProtectHome=yes -p PrivateNetwork=yes -p PrivateDevices=yes -p PrivateTmp=yes -p LimitMEMLOCK=64M \
		-p CPUQuota=20% -p MemoryMax=128M -p RuntimeMaxSec=20 \
		"$root/var/lib/ebpf-fleet/current/ebpf-loader" check "$root/var/lib/ebpf-fleet/current/bundle"
}

# What the journal said of the verifier already; $journal is what was taken of it.
show_refusals() {
	printf "%s\n" "$journal" | grep -E "verifier|EF_LOAD_REJECTED|libbpf"
	return 0
}
