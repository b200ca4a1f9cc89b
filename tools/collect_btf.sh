#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Writes a tar of this host's BTF to standard output: MACHINE/RELEASE.btf and, where the kernel
# tells it, MACHINE/RELEASE.build-id. Needs no root. See docs/btf.md.
set -eu
btf=/sys/kernel/btf/vmlinux
if [ ! -r "$btf" ]; then
	echo "collect_btf: $btf cannot be read: this kernel tells no BTF; run this on a host of the same kernel that does" >&2
	exit 1
fi
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
place=$folder/$(uname -m)
mkdir "$place"
cat "$btf" >"$place/$(uname -r).btf"
# The GNU note of type 3: sizes 4 and 20, the type, "GNU", then the id.
if [ -r /sys/kernel/notes ]; then
	id=$(od -An -v -tx1 /sys/kernel/notes | tr -d ' \n' | sed -n 's/.*040000001400000003000000474e5500\([0-9a-f]\{40\}\).*/\1/p')
	if [ -n "$id" ]; then
		echo "$id" >"$place/$(uname -r).build-id"
	fi
fi
tar -C "$folder" -cf - "$(uname -m)"
