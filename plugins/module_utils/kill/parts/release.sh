# shellcheck shell=sh disable=SC2034,SC2154,SC2317  # a part of a script: names and calls are in the others

# An order that a kill list placed comes back while that list has it (docs/pull-channel.md).
note_list() {
	first=
	[ ! -f "$1" ] || [ -h "$1" ] || read -r first <"$1"
	case $first in
	"ebpf.fleet pull "*) note="; a kill list had placed it, and does so again while it has it" ;;
	esac
}

work() {
	begin_work
	list_orders
	for order in $orders; do
		for dir in "$run" "$etc"; do
			[ -e "$dir/$order" ] || continue
			note_list "$dir/$order"
			rm -f "$dir/$order" 2>/dev/null && changed=true
		done
	done
	find_orders
	[ -z "$there" ] || answer false "cannot remove the order:$there"
	persisted=false
	concerned=$changed
	[ "$changed" = true ] || answer true "no such order was on this host"
	answer true "the orders are gone; the loader attaches again what is wanted"
}

need_root
supervise
