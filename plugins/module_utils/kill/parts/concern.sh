# shellcheck shell=sh disable=SC2034,SC2154,SC2317  # a part of a script: names and calls are in the others

# What this host has of the kind that was named, for whoever has to find the name that was meant. Bounded:
# forty names of features, each of at most 32 letters, and twenty orders.

# Features of the current and the previous release, into $have. The disk has answered before.
find_features() {
	have=
	have_count=0
	for path in "$root/var/lib/ebpf-fleet/current/bundle/features"/* "$root/var/lib/ebpf-fleet/previous/bundle/features"/*; do
		[ -e "$path" ] || continue
		add_feature "${path##*/}"
	done
	for word in $listed_features; do
		add_feature "$word"
	done
}

add_feature() {
	case $1 in "" | [!a-z]* | *[!a-z0-9_]* | ?????????????????????????????????*) return ;; esac
	case " $have " in *" $1 "*) return ;; esac
	[ "$have_count" -lt 1000 ] || return
	have="$have $1"
	have_count=$((have_count + 1))
	[ "$have_count" -gt 40 ] || feature_list="${feature_list:+$feature_list,}\"$1\""
}

# Features on the lists of loader and collector, into $listed_features.
find_listed_features() {
	listed_features=
	for word in $(read_lists | while read -r _ _ feature _; do echo "$feature"; done | head -n 1000); do
		case " $listed_features " in *" $word "*) ;; *) listed_features="$listed_features $word" ;; esac
	done
}

# Does the order concern this host? Into $concerned: true, false, or null where that cannot be told.
find_concern() {
	concerned=true
	[ "$whole" = false ] || return 0
	concerned=null
	succeeds_within 10 reach_releases || return 0
	find_listed_features
	find_features
	concerned=false
	for name in $features; do
		case " $have " in *" $name "*) concerned=true ;; esac
	done
	[ "$concerned" = true ] || explain_unconcerned
}

# Comes back when the disk of the releases answers, whether there is one or not.
reach_releases() {
	for path in "$root/var/lib/ebpf-fleet"/*/bundle/features/*; do
		[ -e "$path" ]
	done
	return 0
}

explain_unconcerned() {
	[ -n "$have" ] || detail="the order is placed; this host has no release, so no feature that it could concern"
	[ -z "$have" ] || detail="the order is placed; no release on this host has this feature, so it does not concern it"
}

# Orders that stand in both folders, into $order_list.
list_orders() {
	order_count=0
	for path in "$run"/* "$etc"/*; do
		name=${path##*/}
		[ -e "$path" ] || continue
		case $name in "" | *[!A-Za-z0-9._-]* | ????????????????????????????????????????????????????????????????*) continue ;; esac
		case ",$order_list," in *",\"$name\","*) continue ;; esac
		order_count=$((order_count + 1))
		[ "$order_count" -gt 20 ] || order_list="${order_list:+$order_list,}\"$name\""
	done
}
