# shellcheck shell=sh disable=SC2034,SC2154,SC2317  # a part of a script: names and calls are in the others

# The deadline has come, whatever the work is stuck in.
give_up() {
	# On a busy host the answer may be out and this process has not run since: it is not given twice. The end of work may
	# be what wait has just returned; of one that has ended the status is there at once, and one that is stuck is not
	# waited for. The signal comes more than once, and would end that wait, too.
	end_as $?
	trap "" USR2
	end_as "$code"
	[ -n "$worker" ] || worker=$!
	ended=
	read -r ended 2>/dev/null <"/proc/$worker/stat"
	case $ended in
	*") Z "*)
		wait "$worker"
		end_as $?
		;;
	esac
	kill -9 "$worker" 2>/dev/null
	answer false "not confirmed within @DEADLINE@ s: the search on this host did not end in time"
}

# Ends as work did, if its status says that it has answered.
end_as() {
	case $1 in
	10) exit 0 ;;
	11) exit 1 ;;
	esac
}

# Runs work, which answers, and answers in its place at the deadline. This process touches nothing
# that could hold it up. The signal comes more than once: one that arrives just before wait is not seen.
supervise() {
	trap "escalated=true" USR1
	trap give_up USR2
	main=$$
	code=
	worker=
	(
		sleep "$deadline"
		tries=0
		while [ "$tries" -lt 20 ] && kill -USR2 "$main" 2>/dev/null; do
			tries=$((tries + 1))
			nap
		done
	) </dev/null >/dev/null 2>&1 &
	watch=$!
	# In parentheses, here and elsewhere: a function that is redirected keeps the old descriptors open, and
	# whoever waits for their end would wait for a process that hangs.
	(work) 2>/dev/null &
	worker=$!
	while :; do
		wait "$worker"
		code=$?
		# A signal ends wait, too.
		kill -0 "$worker" 2>/dev/null || break
	done
	trap "" USR1 USR2
	kill "$watch" 2>/dev/null
	end_as "$code"
	answer false "not confirmed: the search on this host ended by itself with status $code"
}

# The first steps of work: how it answers, and its own pid for those that signal it.
begin_work() {
	exit_yes=10
	exit_no=11
	disk=silent
	trap "escalated=true" USR1
	trap "disk=answers" ALRM
	trap - USR2
	read -r me _ </proc/self/stat
	elapsed
	# Some time before the deadline, so that what was found by then is told: a check can take a second
	# on a slow host.
	soft=$((deadline * 80))
}

# TENTHS COMMAND…: does the command succeed within that time? It may touch a disk that hangs: then it
# cannot even be killed, so it is not waited for. The command says by a signal that it is through.
succeeds_within() {
	disk=silent
	tries=$(($1 * 2))
	shift
	("$@" && kill -ALRM "$me") </dev/null >/dev/null 2>&1 &
	while [ "$disk" = silent ] && [ "$tries" -gt 0 ]; do
		tries=$((tries - 1))
		nap
	done
	[ "$disk" = answers ]
}
