# shellcheck shell=sh disable=SC2034,SC2154,SC2317  # a part of a script: names and calls are in the others
# How evidence leaves the host: each file is a line that is read by a machine, then its lines behind a bar.
# Nothing is written on the host: the disk may be full, and what is looked for may be on it.
set -u
LC_ALL=C
export LC_ALL
root=@ROOT@
units="@UNITS@"
user=@USER@
most=@FILE_BYTES@
room=@TOTAL_BYTES@
check=@CHECK@
mark="@MARK@"
files=0
total=0
sums=
nl="
"

# SECONDS COMMAND…: its output, for that long at most. What hangs is killed.
within() {
	seconds=$1
	shift
	"$@" </dev/null 2>/dev/null &
	reader=$!
	(
		sleep "$seconds"
		kill -9 "$reader"
	) </dev/null >/dev/null 2>&1 &
	guard=$!
	wait "$reader" 2>/dev/null
	code=$?
	kill "$guard" 2>/dev/null
	return "$code"
}

# Plain ASCII on lines: no letter that paints a terminal leaves the host.
plain() {
	tr -d "\000\r" | tr -c "\n\t\040-\176" "?"
}

choose_sum() {
	for tool in "sha256sum" "busybox sha256sum" "openssl dgst -sha256 -r" "shasum -a 256"; do
		command -v "${tool%% *}" >/dev/null 2>&1 || continue
		# shellcheck disable=SC2086  # a command and its words
		case $(printf "" | $tool 2>/dev/null) in e3b0c44298fc1c14*) return ;; esac
	done
	tool=
}

# SHA-256 of what comes in, or nothing where the host has no tool for it.
sum() {
	[ -n "$tool" ] || return 0
	# shellcheck disable=SC2086  # a command and its words
	$tool 2>/dev/null | head -c 64
}

# Only the lines that the file is about, and the last one, which says how the command ended.
filter() {
	if [ -n "$keep" ]; then grep -iE -e "$keep" -e "^@[0-9]+\$"; else cat; fi
}
keep=

# NAME head|tail SECONDS COMMAND…: what the command prints is the file. Of more than there is room for the begin or
# the end is kept, in whole lines.
file() {
	name=$1
	end=$2
	time=$3
	shift 3
	limit=$most
	[ "$room" -ge "$limit" ] || limit=$room
	why=
	cut=false
	content=
	if [ "$limit" -lt 512 ]; then
		why="no room is left for it in the evidence of this host"
		cut=true
	else
		# More is read than is kept: a secret that lies across the cut is found before the cut.
		raw=$({
			within "$time" "$@"
			printf "\n@%s" "$?"
		} | filter | if [ "$end" = head ]; then cat; else tail -c $((limit * 4)); fi | plain)
		code=${raw##*"$nl@"}
		raw=${raw%"$nl@"*}
		if [ "$end" = tail ] && [ "${#raw}" -ge $((limit * 4 - 8)) ]; then
			cut=true
			raw=${raw#*"$nl"}
		fi
		shorten
		tell_code
	fi
	emit
}

# $raw without its secrets and with the length of the limit, into $content.
shorten() {
	[ -n "$raw" ] || return 0
	content=$(printf "%s\n" "$raw" | redact)
	[ "${#content}" -ge "$limit" ] || return 0
	cut=true
	if [ "$end" = tail ]; then
		content=$(printf "%s\n" "$content" | tail -c "$limit")
		content=${content#*"$nl"}
	else
		content=$(printf "%s\n" "$content" | head -c $((limit - 1)))
		content=${content%"$nl"*}
	fi
}

# What the end of the command says of the file.
tell_code() {
	case $code in
	0) [ -n "$content" ] || why="there is nothing" ;;
	3) why="it is not there" ;;
	4) why="it is not a regular file of its own name and was not read" ;;
	5) why="this host has no tool for it" ;;
	6) why="was not run: no feature was refused by the verifier, an order stands, it was not asked for, or there is no systemd-run" ;;
	137) why="it did not end within $time s" ;;
	*) why="it ended with status $code" ;;
	esac
}

emit() {
	size=0
	digest=
	if [ -n "$content" ]; then
		size=$((${#content} + 1))
		digest=$(printf "%s\n" "$content" | sum)
		sums="$sums$digest  $name$nl"
	fi
	printf "\n%s%s\n" "$mark" \
		"{\"file\":\"$name\",\"bytes\":$size,\"sha256\":\"$digest\",\"cut\":$cut,\"why\":\"$why\"}"
	[ -z "$content" ] || printf "%s\n" "$content" | sed "s/^/|/"
	files=$((files + 1))
	total=$((total + size))
	room=$((room - size))
}

begin() {
	choose_sum
	find_kernel
	find_distro
	python=false
	if has_python; then python=true; fi
	printf "\n%s%s\n" "$mark" \
		"{\"begin\":1,\"family\":\"$kernel\",\"distro\":\"$distro\",\"python\":$python,\"root\":$is_root}"
}

finish() {
	printf "\n%s%s\n" "$mark" \
		"{\"end\":1,\"files\":$files,\"bytes\":$total,\"sha256\":\"$(printf "%s" "$sums" | sum)\"}"
}
