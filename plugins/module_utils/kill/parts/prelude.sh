# shellcheck shell=sh disable=SC2034,SC2154,SC2317  # a part of a script: names and calls are in the others
# What every script begins with: names of places, the clock, and the one answer.
# Written without single quotes, as the program for python3 stands within double quotes.
set -u
LC_ALL=C
export LC_ALL
umask 022
orders="@ORDERS@"
features="@FEATURES@"
families="@FAMILIES@"
within_family=@WITHIN_FAMILY@
whole=@WHOLE@
units="@UNITS@"
user=@USER@
root=@ROOT@
deadline=@DEADLINE@
etc=$root/etc/ebpf-fleet/kill.d
run=$root/run/ebpf-fleet/kill.d
persisted=null
changed=false
escalated=false
left=null
witness=
holders=
pins=
note=
placed=null
concerned=null
family=
distro=
feature_list=
order_list=
off_ms=
worker=
watch=
exit_yes=0
exit_no=1

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
	# One write, on a line of its own: whatever a profile printed before it may have had no end.
	printf "\n%s%s%s%s\n" "@MARK@" \
		"{\"ok\":$1,\"changed\":$changed,\"host_ms\":$((off_ms)),\"left\":$left,\"persisted\":$persisted," \
		"\"escalated\":$escalated,\"witness\":\"$witness\",\"holders\":[$holders],\"pins\":[$pins],\"placed\":$placed," \
		"\"concerned\":$concerned,\"family\":\"$family\",\"features\":[$feature_list],\"orders\":[$order_list],\"detail\":\"$2$note\"}"
	[ "$1" = true ] && exit "$exit_yes"
	exit "$exit_no"
}

# Without root other processes cannot be seen, and seeing nothing would look like off.
need_root() {
	euid=
	while read -r key _ value _; do
		if [ "$key" = "Uid:" ]; then
			euid=$value
			break
		fi
	done </proc/self/status
	[ "$euid" = 0 ] || answer false "is not root on this host; use become"
}

# Some shells sleep in whole seconds only.
nap() {
	sleep 0.05 2>/dev/null || sleep 1
}
