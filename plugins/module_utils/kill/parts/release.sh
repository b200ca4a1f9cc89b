# shellcheck shell=sh disable=SC2034,SC2154,SC2317  # a part of a script: names and calls are in the others

work() {
	begin_work
	list_orders
	for order in $orders; do
		for dir in "$run" "$etc"; do
			[ -e "$dir/$order" ] || continue
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
