#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Turns a fresh minimal Debian tree into a lab guest's base image.
# usage: customize.sh ROOT GUEST_FILES KEYS
#   ROOT         the tree that mmdebstrap has just unpacked
#   GUEST_FILES  the folder this script lives in
#   KEYS         folder with the lab's host key and the controller's public key
set -eu
root=$1
files=$2
keys=$3

mask_units() {
	while read -r unit; do
		ln -sfn /dev/null "$root/etc/systemd/system/$unit"
	done <"$files/masked-units"
}

# A generator costs a process at every boot; none has anything to do here.
mask_generators() {
	mkdir -p "$root/etc/systemd/system-generators"
	for generator in "$root"/lib/systemd/system-generators/*; do
		ln -sfn /dev/null "$root/etc/systemd/system-generators/${generator##*/}"
	done
}

configure_ssh() {
	rm -f "$root"/etc/ssh/ssh_host_* "$root"/etc/ssh/sshd_config.d/*
	install -m 0600 "$keys/host_ed25519" "$root/etc/ssh/ssh_host_ed25519_key"
	install -m 0644 "$keys/host_ed25519.pub" "$root/etc/ssh/ssh_host_ed25519_key.pub"
	install -m 0644 "$files/sshd.conf" "$root/etc/ssh/sshd_config"
	install -d -m 0700 "$root/root/.ssh"
	install -m 0600 "$keys/id_ed25519.pub" "$root/root/.ssh/authorized_keys"
	rm -f "$root"/etc/systemd/system/*/ssh.service "$root/etc/systemd/system/sshd.service"
	install -m 0644 "$files/ssh.service" "$root/etc/systemd/system/ssh.service"
	install -d "$root/etc/systemd/system/sysinit.target.wants"
	ln -sfn ../ssh.service "$root/etc/systemd/system/sysinit.target.wants/ssh.service"
}

configure_system() {
	install -d "$root/etc/systemd/journald.conf.d"
	install -m 0644 "$files/journald.conf" "$root/etc/systemd/journald.conf.d/lab.conf"
	ln -sfn /lib/systemd/system/multi-user.target "$root/etc/systemd/system/default.target"
	: >"$root/etc/fstab"
	: >"$root/etc/machine-id"
	rm -f "$root/etc/apt/apt.conf.d/99mmdebstrap" "$root/etc/resolv.conf"
}

# Compiled once here, not at every first import on an emulated processor.
compile_python() {
	chroot "$root" python3 -m compileall -q -j 1 /usr/lib/python3 >/dev/null
}

mask_units
mask_generators
configure_ssh
configure_system
compile_python
