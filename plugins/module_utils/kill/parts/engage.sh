# shellcheck shell=sh disable=SC2034,SC2154,SC2317  # a part of a script: names and calls are in the others

grace=@GRACE@
persistent=@PERSISTENT@
unit=@UNIT@

# Every order into folder $1, or a failure.
place() {
	mkdir -p "$1" 2>/dev/null || return 1
	for order in $orders; do
		if [ -e "$1/$order" ]; then
			claim "$1/$order"
			continue
		fi
		{ true >"$1/$order"; } 2>/dev/null || return 1
		# So that who takes it back knows it for this order, whatever kernel the host has by then.
		[ "$within_family" = false ] || { echo "family $families" >"$1/$order"; } 2>/dev/null
		changed=true
	done
}

# An order that the kill list placed (docs/pull-channel.md) holds by that list; emptied, it is an order of a person, and
# the list cannot take it back. It holds either way, so a disk that refuses this changes nothing.
claim() {
	[ -s "$1" ] && [ -f "$1" ] && [ ! -h "$1" ] || return 0
	first=
	read -r first 2>/dev/null <"$1"
	case $first in "ebpf.fleet pull "*) ;; *) return 0 ;; esac
	{ true >"$1"; } 2>/dev/null && changed=true
	return 0
}

# Are all orders on disk? It is tried for some time.
are_on_disk() {
	attempts=0
	while [ "$attempts" -lt 100 ]; do
		missing=false
		for order in $orders; do
			[ -e "$etc/$order" ] || missing=true
		done
		[ "$missing" = true ] || return 0
		[ "$persistent" = true ] || return 1
		attempts=$((attempts + 1))
		nap
	done
	return 1
}

# The timer of the escalation: a process of its own, which nothing that the search does can hold up.
escalate() {
	sleep "$grace"
	[ "$whole" = true ] || [ -n "$features" ] || is_of_families || return
	if seems_to_obey; then
		# On a slow host the proof takes longer than the deed. Who only seems to obey gains no more than
		# the deadline: the search hastens this where it finds something left.
		elapsed
		[ "$cs" -ge $((deadline * 100)) ] || sleep $((deadline - cs / 100))
	fi
	escalate_now
}

# The unit is killed as a whole. A new loader that systemd starts is held back by the order; where it
# is not, and takes programs up again, it is killed again, and systemd is told to start it no more.
escalate_now() {
	find_groups
	kill_our_processes
	[ -n "$features" ] && [ "$whole" = false ] && return
	rounds_left=$((deadline / 3 + 2))
	while [ "$rounds_left" -gt 0 ]; do
		rounds_left=$((rounds_left - 1))
		sleep 3
		# Taken back meanwhile: what runs now is wanted.
		orders_hold || return
		find_groups
		find_group_pids
		find_held "$pids"
		[ -n "$held_ids" ] || continue
		systemctl stop --no-block "$unit" &
		kill_our_processes
	done
}

# The grace is over and something is left: the timer waits no longer, whatever it waits for.
hasten() {
	[ "$hastened" = false ] && [ "$escalated" = false ] || return 0
	hastened=true
	kill -9 "$killer" 2>/dev/null
	(escalate_now) </dev/null >/dev/null 2>&1 &
	killer=$!
}
hastened=false

# Do the units processes hold nothing of what was ordered off? The answer must come within two seconds:
# it is read from what they can make long.
seems_to_obey() {
	(holds_nothing_of_it) &
	asked=$!
	(
		sleep 2
		kill -9 "$asked"
	) &
	guard=$!
	wait "$asked"
	answered=$?
	kill "$guard" 2>/dev/null
	return "$answered"
}

holds_nothing_of_it() {
	find_groups
	find_group_pids
	find_held "$pids"
	[ -n "$held_ids" ] || return 0
	[ -n "$features" ] && [ "$whole" = false ] || return 1
	note_lists
	for id in $held_ids; do
		case "$others " in *" $id:"*) ;; *) return 1 ;; esac
	done
	return 0
}

orders_hold() {
	for order in $orders; do
		[ -e "$run/$order" ] || [ -e "$etc/$order" ] || return 1
	done
}

kill_our_processes() {
	find_group_pids
	[ -z "$pids" ] || tell_escalated
	kill_groups
	find_uid
	find_user_pids
	[ -n "$pids" ] || return 0
	tell_escalated
	for pid in $pids; do
		kill -9 "$pid"
	done
}

# Before the kill, so that whoever sees its effect knows of it.
tell_escalated() {
	kill -USR1 "$me" "$main"
}

# No order can be placed anywhere: what is left is to stop the service, which no order then holds.
stop_without_order() {
	[ "$whole" = true ] || answer false "no order can be placed, in run or in etc; nothing is off"
	systemctl stop --no-block "$unit" </dev/null >/dev/null 2>&1 &
	set_up_search
	find_group_pids
	[ -z "$pids" ] || escalated=true
	kill_groups
	find_uid
	find_user_pids
	for pid in $pids; do
		kill -9 "$pid" && escalated=true
	done
	sleep 1
	search
	count
	note="; the service was stopped and killed, but nothing holds it"
	answer false "no order can be placed, in run or in etc"
}

not_off() {
	[ "$searched" = true ] || who=
	if [ "$complete" = false ] && [ -n "$last_still" ]; then
		still=$last_still
	elif [ "$complete" = false ]; then
		left=null
		answer false "not confirmed within @DEADLINE@ s"
	fi
	count
	note="$note$who"
	[ "$disk" = answers ] && persisted=true
	find_concern
	answer false "still in the kernel after $((cs / 100)) s: programs$shown"
}

# The order is for hosts of one family alone, and is placed there only. /proc tells the kernel without a
# disk; the disk is asked only where the kernel fits and the distribution decides.
keep_to_family() {
	if needs_distro && ! succeeds_within 10 find_distro; then
		placed=false
		answer false "not placed: it cannot be told whether this host is of the family, as its disk does not answer"
	fi
	if ! is_of_families; then
		placed=false
		may_be_of_families &&
			answer false "not placed: it cannot be told whether this host is of the family, as its os-release names no distribution"
		concerned=false
		persisted=false
		answer true "not placed: this host is of family $family, and the order is for $families"
	fi
	place_now
}

work() {
	begin_work
	[ "$within_family" = false ] || keep_to_family
	if [ "$placed" = false ]; then
		succeeds_within 20 place "$etc" || stop_without_order
		placed=true
		changed=true
	fi
	(escalate) </dev/null >/dev/null 2>&1 &
	killer=$!
	if [ "$whole" = false ] && [ -z "$features" ]; then
		judge_families
	fi
	set_up_search
	find_off
	# A unit that was killed starts again: the watch over it goes on behind the answer.
	[ "$escalated" = true ] || kill -9 "$killer" 2>/dev/null
	elapsed
	off_ms=$((cs * 10))
	detail="off; nothing of it is left"
	[ "$escalated" = false ] || detail="off; the loader did not obey and was killed"
	find_concern
	left=0
	finish
}

# Everything is to be off if this host is of such a family; else the order does not concern it.
judge_families() {
	case $families in
	*-*)
		succeeds_within 10 find_distro ||
			answer false "cannot tell whether the order concerns this host: its disk does not answer"
		;;
	esac
	if is_of_families; then
		whole=true
		return
	fi
	kill -9 "$killer" 2>/dev/null
	may_be_of_families &&
		answer false "cannot tell whether the order concerns this host: its os-release names no distribution"
	concerned=false
	detail="the order is placed; this host is of family $family, which it does not concern"
	finish
}

# Returns when nothing is left; answers by itself when it is not to be waited for any longer. Twice in a
# row: a list that changes while it is read can lack what is in it.
find_off() {
	clean=0
	last_still=
	while [ "$clean" -lt 2 ]; do
		still_tags=
		elapsed
		began=$cs
		# Whoever obeys does so within the grace. After it all that is left is counted: it may be the answer.
		hurry=false
		[ "$began" -lt $((grace * 100)) ] && [ "$began" -lt "$soft" ] && hurry=true
		search
		[ "$complete" = false ] || last_still=$still
		if [ -z "$still" ] && [ "$complete" = true ]; then
			clean=$((clean + 1))
			[ "$clean" = 2 ] && check_users
			[ -z "$still" ] || clean=0
			continue
		fi
		clean=0
		[ "$began" -lt $((grace * 100)) ] || hasten
		elapsed
		[ "$cs" -lt "$soft" ] || [ "$hurry" = true ] || not_off
		# What outlives our processes is held by somebody else.
		if [ "$searched" = false ] && [ -z "$pids" ] && [ "$cs" -ge $((grace * 100 + 100)) ]; then
			find_holders
		fi
		nap
	done
}

# The order on disk may come a little later than the effect; half a second is its due.
finish() {
	note=
	persisted=false
	if [ "$persistent" = true ]; then
		succeeds_within 10 are_on_disk && persisted=true
	else
		succeeds_within 2 are_on_disk && persisted=true
	fi
	answer true "$detail"
}

# Puts the order into both folders, that of the tmpfs first.
place_now() {
	placed=false
	place "$run" && placed=true
	if [ "$placed" = true ] && [ "$persistent" = true ]; then
		# On its own, so that a disk that hangs does not hold up the kill.
		(place "$etc") </dev/null >/dev/null 2>&1 &
	fi
}

# The order comes first: nothing is read before it, as whatever is read can be made to hang.
[ "$within_family" = true ] || place_now
need_root
supervise
