# shellcheck shell=sh disable=SC2034,SC2154,SC2317  # a part of a script: names and calls are in the others

# What is left, by the kernel. Its symbols hold every program that is loaded, whoever holds it. Beside
# that, what the units processes hold by a descriptor. The lists that loader and collector write say
# which program is of which feature; whoever owns their folder can write anything there, so they are
# read in a bounded way and only ever add to what counts as left.
own=
own_count=0
others=
names=
known=false
listed=false
held_tags=
user_pids=
complete=true
searched=false

# FILE: its first 32 KiB, within a second. It may become a FIFO between test and read, so the read is
# done by a process that can be killed.
read_bounded() {
	dd if="$1" bs=32768 count=1 2>/dev/null &
	reader=$!
	(
		sleep 1
		kill -9 "$reader"
	) </dev/null >/dev/null 2>&1 &
	guard=$!
	wait "$reader"
	kill "$guard" 2>/dev/null
}

# Lines of all lists; a list that cannot be one makes the line "!", one that was read the line "+".
read_lists() {
	for file in "$root/run/ebpf-fleet-loader/programs" "$root/run/ebpf-fleet-bcc/programs"; do
		if [ -h "$file" ] || { [ -e "$file" ] && ! [ -f "$file" ]; }; then
			echo "!"
		elif [ -f "$file" ]; then
			read_bounded "$file"
			printf "\n+\n"
		fi
	done
}

# Those lines that are well formed, as words KIND:ID:TAG:NAME with the kind own (is ordered off) or other.
judge_lists() {
	while read -r id tag feature name more; do
		case $id in "!" | "+") echo "$id" && continue ;; esac
		case :$id:$tag:$feature:$name: in *::* | *[!A-Za-z0-9_.:]*) continue ;; esac
		case $id$more in *[!0-9]*) continue ;; esac
		kind=other
		case " $features " in *" $feature "*) kind=own ;; esac
		[ "$whole" = true ] && kind=own
		echo "$kind:$id:$tag:$name"
	done
}

# Notes what the lists say: $own grows, as the loader takes off its list what it detaches.
note_lists() {
	others=
	listed=false
	for word in $(read_lists | judge_lists); do
		case $word in
		"+") listed=true ;;
		"!") note="; the list of programs in /run is not a regular file and was not used" ;;
		other:*) others="$others ${word#other:}" ;;
		*)
			case " $own " in *" ${word#own:} "*) continue ;; esac
			[ "$own_count" -lt 1000 ] || continue
			own="$own ${word#own:}"
			own_count=$((own_count + 1))
			;;
		esac
	done
}

# Names of the features programs by their contracts, which are signed and roots own, into $names.
note_contracts() {
	for release in current previous; do
		for feature in $features; do
			set -- "$@" "$root/var/lib/ebpf-fleet/$release/bundle/features/$feature/contract.json"
		done
	done
	succeeds_within 10 grep -qs programs "$@" || return 0
	found=$(grep -ohs "\"programs\": *\[[^]]*\]" "$@")
	old_ifs=$IFS
	IFS="\",[]: 
"
	for word in $found; do
		case $word in "" | programs | *[!A-Za-z0-9_.]*) continue ;; esac
		names="$names $word"
		known=true
	done
	IFS=$old_ifs
}

# Can the kernels symbols tell? They hold no program that is not compiled, and none while it is hardened.
can_ask_symbols() {
	for pair in enable:1 enable:2 harden:0 kallsyms:1; do
		value=
		{ read -r value <"/proc/sys/net/core/bpf_jit_${pair%:*}"; } 2>/dev/null
		case $pair in
		enable:1) [ "$value" = 1 ] || [ "$value" = 2 ] || return 1 ;;
		enable:2) ;;
		*) [ "$value" = "${pair#*:}" ] || return 1 ;;
		esac
	done
	[ -r /proc/kallsyms ]
}

# Whom to ask, into $witness.
choose_witness() {
	if can_ask_symbols; then
		witness=kallsyms
	elif list_by_python >/dev/null; then
		witness=python3
	elif list_by_bpftool >/dev/null; then
		witness=bpftool
	else
		witness=descriptors
	fi
}

list_by_symbols() {
	grep "[[:space:]]bpf_prog_[0-9a-f]\{16\}" /proc/kallsyms
	[ "$?" -le 1 ]
}

list_by_python() {
	command -v python3 >/dev/null 2>&1 || return 1
	python3 -I -S -c "@PYTHON@"
}

list_by_bpftool() {
	command -v bpftool >/dev/null 2>&1 || return 1
	bpftool prog show
}

# All programs of the kernel as words TAG:NAME:ID:UID, into $kernel; what is not told is a dash.
list_kernel() {
	kernel=
	case $witness in
	kallsyms)
		lines=$(list_by_symbols) || complete=false
		for word in $lines; do
			case $word in bpf_prog_[0-9a-f]*) ;; *) continue ;; esac
			word=${word#bpf_prog_}
			tag=${word%%_*}
			name=${word#"$tag"}
			name=${name#_}
			kernel="$kernel $tag:${name:--}:-:-"
		done
		;;
	python3)
		lines=$(list_by_python) || complete=false
		# shellcheck disable=SC2086  # words without spaces
		set -- $lines
		while [ $# -ge 4 ]; do
			kernel="$kernel $1:$2:$3:$4"
			shift 4
		done
		;;
	bpftool)
		lines=$(list_by_bpftool) || complete=false
		note_bpftool
		;;
	esac
}

# "12: tracing  name ef_exec  tag 6deef7357e7b4530  gpl", and further lines of each program.
note_bpftool() {
	id=
	name=-
	before=
	for word in $lines; do
		case $before in
		name) name=$word ;;
		tag)
			kernel="$kernel $word:$name:${id:--}:-"
			name=-
			;;
		esac
		case $word in
		[0-9]*:) id=${word%:} ;;
		esac
		before=$word
	done
}

# Programs that the processes in $1 hold by a program or a link, into $held_ids, and their tags added to
# $held_tags. All threads are asked: a leader that ended hides the descriptors of the others.
find_held() {
	held_ids=
	dirs=
	for pid in $1; do
		for dir in "/proc/$pid/task"/[0-9]*; do
			dirs="$dirs $dir/fdinfo"
		done
	done
	[ -n "$dirs" ] || return 0
	key=
	# shellcheck disable=SC2013,SC2086  # a list of folders, and words without spaces
	for word in $(grep -hsr -e "^prog_id:" -e "^prog_tag:" $dirs); do
		case $word in prog_id: | prog_tag:) key=$word && continue ;; esac
		if [ "$key" = prog_id: ]; then
			case " $held_ids " in *" $word "*) ;; *) held_ids="$held_ids $word" ;; esac
		else
			case " $held_tags " in *" $word "*) ;; *) held_tags="$held_tags $word" ;; esac
		fi
	done
}

# What is left of what was ordered off, into $still, by names or ids. In a hurry: is anything left? Then
# not all of it is searched for.
hurry=false
search() {
	still=
	note=
	complete=true
	# To read the lists takes a dozen processes, and they tell nothing new of what is gone already.
	if [ "$whole" = false ] || [ "$clean" = 0 ]; then
		note_lists
	fi
	find_group_pids
	find_held "$pids $user_pids"
	# What they still hold is left for certain. In a hurry the kernels symbols are asked only when they hold
	# nothing: to read them all takes most of a second on a slow host, and takes the CPU from the loader
	# that is letting go.
	if [ "$hurry" = true ]; then
		note_held
		[ -z "$still" ] || return 0
	fi
	if [ "$witness" = descriptors ]; then
		check_descriptors
		return
	fi
	list_kernel
	for one in $kernel; do
		tag=${one%%:*}
		rest=${one#*:}
		name=${rest%%:*}
		if is_counted; then
			still="$still $name"
			still_tags="$still_tags $tag"
		fi
	done
	[ "$complete" = true ] || note="$note; the kernels programs could not be listed"
}
still_tags=
# How many searches in a row found nothing.
clean=0

# What our processes hold of what was ordered off, into $still, by the names that the lists have for it.
note_held() {
	for id in $held_ids; do
		case "$own " in
		*" $id:"*)
			rest=${own#*" $id:"}
			rest=${rest%% *}
			still="$still ${rest##*:}"
			;;
		*) [ "$whole" = false ] || still="$still $id" ;;
		esac
	done
}

# Does $one, with $tag and $name, count as left?
is_counted() {
	if [ "$whole" = true ]; then
		case $name in ef_*) is_of_user && return 0 ;; esac
		case " $held_tags " in *" $tag "*) return 0 ;; esac
		[ -n "$uid" ] && [ "${one##*:}" = "$uid" ] && return 0
		is_in "$own"
		return
	fi
	is_in "$own" && return 0
	case " $names " in
	*" $name "*)
		case $name in ef_*) return 0 ;; esac
		# A program of others may run without us, too: ours is the one that our processes held.
		case " $held_tags " in *" $tag "*) return 0 ;; esac
		;;
	esac
	[ "$known" = false ] || return 1
	case $name in ef_*) ;; *) return 1 ;; esac
	is_in "$others" && return 1
	[ "$listed" = true ] || note="; the loader keeps no list of its programs, so all count"
	return 0
}

# Whoever is not root and not our user can load some kinds of programs, under any name.
is_of_user() {
	case ${one##*:} in - | 0 | "$uid") return 0 ;; esac
	return 1
}

# Is a program of this tag and name among the words ID:TAG:NAME of $1? Without BTF the kernel cuts the name.
is_in() {
	case "$1 " in
	*":$tag:$name "*) return 0 ;;
	*":$tag:$name"*) ;;
	*) return 1 ;;
	esac
	case $name in ???????????????) return 0 ;; esac
	return 1
}

# Without a list of the kernel: what our processes hold, less what the list says is of other features, and
# what anybody holds of what the list had.
check_descriptors() {
	for id in $held_ids; do
		case "$others " in *" $id:"*) [ "$whole" = true ] || continue ;; esac
		still="$still $id"
	done
	[ -z "$still" ] || return 0
	set --
	for one in $own; do
		set -- "$@" -e "^prog_id:[[:space:]]*${one%%:*}\$"
	done
	[ $# -gt 0 ] || return 0
	found=$(search_everywhere "$@" | head -n 1000)
	case $found in *complete*) ;; *) complete=false ;; esac
	case $found in
	*/proc/*)
		still=" $(first_id_of "$found")"
		complete=true
		;;
	esac
	[ "$complete" = true ] ||
		note="; the search of all descriptors did not end in time, and the kernels list cannot be had: its JIT is hardened"
}

# The id in the first file of $1.
first_id_of() {
	for file in $1; do
		while read -r key value; do
			[ "$key" = "prog_id:" ] && echo "$value" && return
		done 2>/dev/null <"$file"
	done
	echo unknown
}

# grep -l with these arguments over the descriptors of all processes and threads, in portions that fit a
# command line, until shortly before $soft; then "complete" if it came to the end.
search_everywhere() {
	portion=
	size=0
	for dir in /proc/[0-9]*/task/[0-9]*; do
		portion="$portion $dir/fdinfo"
		size=$((size + 1))
		[ "$size" -ge 500 ] || continue
		search_portion "$@" || return
		portion=
		size=0
	done
	search_portion "$@" && echo complete
}

search_portion() {
	[ -n "$portion" ] || return 0
	elapsed
	# One more search has its place before $soft.
	time_left=$(((soft - cs) / 100 - 1))
	[ "$time_left" -ge 1 ] || return 1
	# shellcheck disable=SC2086  # a list of folders without spaces
	grep -lsr "$@" $portion 2>/dev/null &
	reader=$!
	(
		sleep "$time_left"
		kill -9 "$reader"
	) </dev/null >/dev/null 2>&1 &
	guard=$!
	wait "$reader"
	code=$?
	kill "$guard" 2>/dev/null
	[ "$code" -le 2 ]
}

# Who holds what is still there, into $holders, and a sentence into $who.
find_holders() {
	searched=true
	holder_count=0
	who=
	set --
	for tag in $still_tags; do
		[ $# -lt 40 ] && set -- "$@" -e "^prog_tag:[[:space:]]*$tag\$"
	done
	[ $# -gt 0 ] || return 0
	seen=
	found=$(search_everywhere "$@" | head -n 1000)
	for file in $found; do
		case $file in /proc/*) ;; *) continue ;; esac
		pid=${file#/proc/}
		pid=${pid%%/*}
		case " $seen " in *" $pid "*) continue ;; esac
		seen="$seen $pid"
		add_holder
	done
	tell_holders
}

add_holder() {
	owner=
	while read -r key value _; do
		[ "$key" = "Uid:" ] && owner=$value
	done 2>/dev/null <"/proc/$pid/status"
	[ -n "$owner" ] || return 0
	[ "$holder_count" -lt 10 ] || return 0
	holder_count=$((holder_count + 1))
	holders="${holders:+$holders,}{\"pid\":$pid,\"uid\":$owner}"
	who="$who, process $pid of uid $owner"
}

tell_holders() {
	case $found in
	*/proc/*) who="; held by${who#,}, which is not our unit and was not killed: find out what it is and end it" ;;
	*complete*) who="; no process holds it" ;;
	*) who="; who holds it was not found in time" ;;
	esac
	pins=
	tell_pins
	[ -n "$holders$pins" ] || case $found in
	*complete*) who="$who; it is pinned or attached for good, see bpftool prog and bpftool link" ;;
	esac
}

# How many words $still has, into $left, and the first of them into $shown.
count() {
	left=0
	shown=
	for word in $still; do
		left=$((left + 1))
		[ "$left" -gt 20 ] || shown="$shown $word"
	done
	[ "$left" -le 20 ] || shown="$shown and $((left - 20)) more"
}

# After the order: the first checks. Processes of our user outside of the units are searched for later.
set_up_search() {
	uid=
	find_groups
	# A grep that finds nothing where something is would look like off.
	grep -qsr "^pos:" /proc/self/fdinfo || answer false "cannot search /proc on this host: no grep -r"
	[ -z "$features" ] || [ "$whole" = true ] || note_contracts
	choose_witness
}

# Is anything held by processes of our user that are outside of the units? Then $still says so.
check_users() {
	if succeeds_within 10 grep -qs . "$root/etc/passwd"; then
		find_uid
	fi
	find_user_pids
	user_pids=$pids
	[ -z "$user_pids" ] || search
}
