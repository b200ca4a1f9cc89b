# shellcheck shell=sh disable=SC2034,SC2154,SC2317  # a part of a script: names and calls are in the others

# Orders in both folders that are still there, into $there.
find_orders() {
	there=
	for order in $orders; do
		if [ -e "$run/$order" ] || [ -e "$etc/$order" ]; then
			there="$there $order"
		fi
	done
}
