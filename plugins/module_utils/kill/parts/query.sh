# shellcheck shell=sh disable=SC2034,SC2154,SC2317  # a part of a script: names and calls are in the others

work() {
	begin_work
	set_up_search
	search
	[ -n "$still" ] || check_users
	find_orders
	persisted=false
	for order in $orders; do
		[ -e "$etc/$order" ] && persisted=true
	done
	[ "$complete" = true ] || answer false "not counted: the kernel does not list its programs here"
	count
	answer true "orders that hold:${there:- none}; programs left:${shown:- none}"
}

need_root
supervise
