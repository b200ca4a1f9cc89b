# shellcheck shell=sh disable=SC2034,SC2154,SC2317  # a part of a script: names and calls are in the others

# Of an order for one family: is it of this host, or does the file in folder $1 say that it is of that order?
is_ours() {
	[ "$within_family" = true ] || return 0
	[ "$of_family" = true ] && return 0
	said=
	[ -f "$1/$order" ] && read -r said 2>/dev/null <"$1/$order"
	[ "$said" = "family $families" ]
}

find_own_family() {
	of_family=false
	[ "$within_family" = true ] || return 0
	is_of_families && of_family=true
	[ "$of_family" = true ] || ! may_be_of_families ||
		note="; it cannot be told whether this host is of the family, as its os-release names no distribution"
}

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
	find_own_family
	list_orders
	for order in $orders; do
		for dir in "$run" "$etc"; do
			[ -e "$dir/$order" ] || continue
			is_ours "$dir" || continue
			note_list "$dir/$order"
			rm -f "$dir/$order" 2>/dev/null && changed=true
		done
	done
	find_orders
	if [ -n "$there" ] && [ "$within_family" = true ] && ! is_ours "$run" && ! is_ours "$etc"; then
		concerned=false
		answer true "the order on this host is another one: this host is of family $family"
	fi
	[ -z "$there" ] || answer false "cannot remove the order:$there"
	persisted=false
	concerned=$changed
	[ "$changed" = true ] || answer true "no such order was on this host"
	answer true "the orders are gone; the loader attaches again what is wanted"
}

need_root
supervise
