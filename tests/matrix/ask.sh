#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Runs a bundle on the host that it was unpacked on and prints what came of it: marked parts of JSON.
# usage: ask.sh FOLDER [hidden]
#   FOLDER   holds bundle/ and etc/ (trust, desired.json); what the loader writes goes there too
#   hidden   hide this kernel's BTF from everything that is started here (needs unshare)
set -u
here=$1
# The service's user has these and no others: CAP_SYS_ADMIN, CAP_PERFMON, CAP_BPF, by number, as old tools
# do not know their names. What root reaches is not what a fleet reaches.
nobody=65534
capabilities=-all,+cap_21,+cap_38,+cap_39
if [ "${2:-}" = hidden ]; then
	# shellcheck disable=SC2016 # the inner shell expands its own arguments
	exec unshare -m sh -c 'mount -t tmpfs -o ro hidden /sys/kernel/btf && exec sh "$0" "$1"' "$0" "$here"
fi
loader="$here/bundle/loader/$(uname -m)/ebpf-loader"
mkdir -p "$here/run/kill.d" "$here/etc/kill.d" "$here/state" "$here/log"
chown "$nobody:$nobody" "$here/state" "$here/log"

part() {
	printf '\n=== %s\n' "$1"
}

# A feature that is about to be attached says so; a loader that ended will say no more.
settled() {
	kill -0 "$pid" 2>/dev/null || return 0
	[ -s "$here/state/status.json" ] && ! grep -q '"reason_code": *"EF_UNKNOWN"' "$here/state/status.json"
}

wait_until_settled() {
	left=240
	until settled || [ "$left" -eq 0 ]; do
		left=$((left - 1))
		sleep 0.5
	done
}

# As the unit's LimitMEMLOCK of 64 MiB: before 5.11 maps count against it.
prlimit --pid $$ --memlock=67108864:67108864
part check
"$loader" check "$here/bundle" --trust "$here/etc/trust/allowed_signers" --attach 2>"$here/check.err"
part check_rc
echo $?
setpriv --reuid "$nobody" --regid "$nobody" --clear-groups --inh-caps "$capabilities" --ambient-caps "$capabilities" \
	"$loader" run --bundle "$here/bundle" --etc "$here/etc" --run "$here/run" --state "$here/state" \
	--log "$here/log" --interval 1 >"$here/run.out" 2>&1 &
pid=$!
wait_until_settled
part programs
PATH="$PATH:/usr/sbin" bpftool -j prog show 2>"$here/bpftool.err"
part status
cat "$here/state/status.json"
kill "$pid" 2>/dev/null
wait "$pid"
part run_rc
echo $?
part errors
tail -n 20 "$here/check.err" "$here/run.out" "$here/bpftool.err"
