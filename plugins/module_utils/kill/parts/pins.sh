# shellcheck shell=sh disable=SC2034,SC2154,SC2317  # a part of a script: names and calls are in the others

# Programs that a file in a bpffs holds, as words TAG:NAME:ID:PATH, into $pinned. Only a process that can ask
# the kernel for the program of a file can tell: python3, else bpftool.
find_pinned() {
	pinned=
	if lines=$(list_pins_by_python); then
		# shellcheck disable=SC2086  # words without spaces
		set -- $lines
		while [ $# -ge 4 ]; do
			pinned="$pinned $1:$2:$3:$4"
			shift 4
		done
	else
		command -v bpftool >/dev/null 2>&1 && find_pinned_by_bpftool
	fi
}

list_pins_by_python() {
	command -v python3 >/dev/null 2>&1 || return 1
	python3 -I -S -c "@PYTHON@" pins
}

# bpftool tells a program that a file holds with the program, one that a link holds with the link.
find_pinned_by_bpftool() {
	id=
	before=
	programs=
	for word in $(bpftool -f prog show | head -c 1000000); do
		case $before in
		name) name=$word ;;
		tag)
			programs="$programs $id:$word:${name:--}"
			tag=$word
			;;
		pinned) pinned="$pinned $tag:${name:--}:$id:$word" ;;
		esac
		case $word in [0-9]*:) id=${word%:} name= ;; esac
		before=$word
	done
	for word in $(bpftool -f link show | head -c 1000000); do
		case $before in
		prog) id=$word ;;
		pinned)
			for program in $programs; do
				case $program in "$id":*) pinned="$pinned ${program#*:}:$id:$word" ;; esac
			done
			;;
		esac
		before=$word
	done
	[ -n "$programs" ]
}

# Which of what is left is pinned, and how to remove it, into $pins and added to $who.
tell_pins() {
	# Paths have question marks for letters that are not plain; the files that they match are not meant here.
	set -f
	add_pins
	set +f
}

add_pins() {
	if ! find_pinned; then
		[ -n "$holders" ] || who="$who; without python3 or bpftool on this host it cannot be told which file in a bpffs it is"
		return
	fi
	pin_count=0
	for one in $pinned; do
		tag=${one%%:*}
		rest=${one#*:}
		name=${rest%%:*}
		rest=${rest#*:}
		id=${rest%%:*}
		path=${rest#*:}
		case " $still_tags " in *" $tag "*) ;; *) continue ;; esac
		case $path in *[!A-Za-z0-9/._+=:@?-]*) continue ;; esac
		pin_count=$((pin_count + 1))
		[ "$pin_count" -le 10 ] || continue
		pins="${pins:+$pins,}{\"id\":$id,\"tag\":\"$tag\",\"name\":\"$name\",\"path\":\"$path\"}"
		[ "$pin_count" -le 2 ] && who="$who; program $id ($name, tag $tag) is pinned: rm $path"
	done
	[ "$pin_count" -le 2 ] || who="$who; and $((pin_count - 2)) more pinned files"
}
