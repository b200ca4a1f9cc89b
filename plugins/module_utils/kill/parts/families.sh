# shellcheck shell=sh disable=SC2034,SC2154,SC2317  # a part of a script: names and calls are in the others

# Kernel family of this host, into $kernel.
find_kernel() {
	read -r kernel_release </proc/sys/kernel/osrelease
	minor=${kernel_release#*.}
	kernel=${kernel_release%%.*}.${minor%%[!0-9]*}
	family=$kernel
}

# ID of the os-release file $1, into $distro; empty where it does not give one that can be a name. Loader
# and modules read it by the same rules: the last line "ID=" counts, with a final newline or without, a
# carriage return and blanks behind the value do not, quotes must be a pair, and a byte order mark may
# begin the file.
read_distro() {
	distro=
	first=true
	while IFS= read -r line || [ -n "$line" ]; do
		[ "$first" = false ] || line=${line#"$mark_of_order"}
		first=false
		case $line in ID=*) ;; *) continue ;; esac
		distro=${line#ID=}
		distro=${distro%"${distro##*[![:space:]]}"}
		for quote in "\"" "$single"; do
			case $distro in
			"$quote"*"$quote")
				distro=${distro#"$quote"}
				distro=${distro%"$quote"}
				break
				;;
			esac
		done
	done <"$1"
	case $distro in *[!A-Za-z0-9._-]* | ????????????????????????????????*) distro= ;; esac
	[ -n "$distro" ]
}

# ID of os-release, into $distro. It lies on disk, which may hang.
find_distro() {
	single=$(printf "\047")
	mark_of_order=$(printf "\357\273\277")
	for file in "$root/etc/os-release" "$root/usr/lib/os-release"; do
		[ -r "$file" ] && read_distro "$file" && return
	done
	distro=
}

# Is one of the families this host? Then everything is to be off.
is_of_families() {
	find_kernel
	for name in $families; do
		[ "$name" = "$kernel" ] && return 0
	done
	case $families in *-*) ;; *) return 1 ;; esac
	find_distro
	[ -z "$distro" ] || family=$distro-$kernel
	for name in $families; do
		[ -n "$distro" ] && [ "$name" = "$distro-$kernel" ] && return 0
	done
	return 1
}

# Does only the distribution decide whether one of the families is this host? Its kernel fits.
needs_distro() {
	find_kernel
	for name in $families; do
		case $name in *-"$kernel") return 0 ;; esac
	done
	return 1
}

# Is it unknown whether one of the families is this host? Its kernel is of one, and no distribution is told.
may_be_of_families() {
	[ -z "$distro" ] && needs_distro
}
