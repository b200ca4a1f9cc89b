# shellcheck shell=sh disable=SC2034,SC2154,SC2317  # a part of a script: names and calls are in the others

# Kernel family of this host, into $family.
find_family() {
	read -r kernel_release </proc/sys/kernel/osrelease
	minor=${kernel_release#*.}
	family=${kernel_release%%.*}.${minor%%[!0-9]*}
}

# ID of os-release, into $distro. It lies on disk, which may hang.
find_distro() {
	distro=
	quote=$(printf "\047")
	for file in "$root/etc/os-release" "$root/usr/lib/os-release"; do
		[ -r "$file" ] || continue
		while IFS="=" read -r key value; do
			[ "$key" = ID ] && distro=$value
		done <"$file"
		break
	done
	distro=${distro#\"}
	distro=${distro%\"}
	distro=${distro#"$quote"}
	distro=${distro%"$quote"}
}

# Is one of the families this host? Then everything is to be off.
is_of_families() {
	find_family
	for name in $families; do
		[ "$name" = "$family" ] && return 0
	done
	case $families in *-*) ;; *) return 1 ;; esac
	find_distro
	for name in $families; do
		[ "$name" = "$distro-$family" ] && return 0
	done
	return 1
}
