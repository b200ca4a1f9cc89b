#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# PID 1 of a namespace host, until it becomes systemd: builds the host's file system and boots it.
# Called by syshost.py as: syshost_boot.sh FOLDER ADDRESS PORT NAME, in namespaces of its own.
set -eu
folder=$1 address=$2 port=$3 name=$4

# Whatever is written lands in memory and ends with the last process of the host.
mount -t tmpfs -o mode=0755,size=1g tmpfs "$folder/disk"
mkdir "$folder/disk/upper" "$folder/disk/work" "$folder/disk/root"
new=$folder/disk/root
mount -t overlay -o "lowerdir=/,upperdir=$folder/disk/upper,workdir=$folder/disk/work" overlay "$new"

# The kernel is shared, so its settings are read-only here, as a container manager leaves them.
mount -t proc -o nosuid,nodev,noexec proc "$new/proc"
mount --bind "$new/proc/sys" "$new/proc/sys"
mount -o remount,bind,ro "$new/proc/sys"
mount -t sysfs -o nosuid,nodev,noexec sysfs "$new/sys"
[ ! -d "$new/sys/kernel/tracing" ] || mount -t tracefs -o nosuid,nodev,noexec tracefs "$new/sys/kernel/tracing"
mount -t bpf -o nosuid,nodev,noexec,mode=700 bpf "$new/sys/fs/bpf"
mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 "$new/sys/fs/cgroup"
mount -o remount,bind,ro "$new/sys"

for place in run:0755 tmp:1777 var/tmp:1777 root:0700; do
	mount -t tmpfs -o "mode=${place#*:}" tmpfs "$new/${place%:*}"
done

mount -t tmpfs -o mode=0755,nosuid tmpfs "$new/dev"
mkdir -m 0755 "$new/dev/pts"
mkdir -m 1777 "$new/dev/shm" "$new/dev/mqueue"
for node in null:1:3 zero:1:5 full:1:7 random:1:8 urandom:1:9 tty:5:0; do
	kind=${node%%:*} number=${node#*:}
	mknod -m 0666 "$new/dev/$kind" c "${number%:*}" "${number#*:}"
done
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 devpts "$new/dev/pts"
ln -s pts/ptmx "$new/dev/ptmx"
ln -s /proc/self/fd "$new/dev/fd"
for stream in stdin:0 stdout:1 stderr:2; do
	ln -s "/proc/self/fd/${stream#*:}" "$new/dev/${stream%:*}"
done

# What this machine enables, mounts and has of ours does not belong to the host.
rm -rf "$new/etc/systemd/system" "$new/etc/systemd/system.conf.d" "$new/etc/systemd/journald.conf.d" \
	"$new/etc/ebpf-fleet" "$new/var/lib/ebpf-fleet" "$new/var/log/ebpf-fleet" "$new/var/log/journal" \
	"$new/usr/lib/sysusers.d/ebpf-fleet.conf" "$new/usr/lib/tmpfiles.d/ebpf-fleet.conf"
mkdir -p "$new/etc/systemd/system" "$new/etc/systemd/journald.conf.d"
: >"$new/etc/fstab"
tr -d - <"$new/proc/sys/kernel/random/uuid" >"$new/etc/machine-id"
printf '%s\n' "$name" >"$new/etc/hostname"
printf '127.0.0.1 localhost\n%s %s\n' "$address" "$name" >"$new/etc/hosts"
printf '[Journal]\nStorage=volatile\nReadKMsg=no\nAudit=no\n' >"$new/etc/systemd/journald.conf.d/syshost.conf"
for unit in systemd-udevd.service systemd-udevd-control.socket systemd-udevd-kernel.socket systemd-udev-trigger.service \
	systemd-networkd.service systemd-networkd.socket systemd-resolved.service systemd-timesyncd.service \
	systemd-logind.service systemd-modules-load.service systemd-sysctl.service systemd-binfmt.service \
	systemd-random-seed.service systemd-update-utmp.service systemd-pstore.service systemd-hwdb-update.service \
	systemd-journald-audit.socket systemd-machine-id-commit.service systemd-firstboot.service systemd-repart.service \
	proc-sys-fs-binfmt_misc.automount proc-sys-fs-binfmt_misc.mount dev-hugepages.mount dev-mqueue.mount \
	sys-kernel-config.mount sys-kernel-debug.mount sys-kernel-tracing.mount sys-fs-fuse-connections.mount \
	kmod-static-nodes.service modprobe@.service ldconfig.service systemd-tmpfiles-clean.timer \
	getty@.service getty.target serial-getty@.service console-getty.service autovt@.service apparmor.service \
	systemd-ask-password-console.path systemd-ask-password-wall.path; do
	ln -s /dev/null "$new/etc/systemd/system/$unit"
done

mkdir -m 0700 "$new/root/.ssh"
cp "$folder/key.pub" "$new/root/.ssh/authorized_keys"
install -m 0600 "$folder/host_key" "$new/etc/ssh/syshost_key"
cat >"$new/etc/ssh/syshost_config" <<-END
	ListenAddress $address
	Port $port
	HostKey /etc/ssh/syshost_key
	PidFile none
	UsePAM no
	UseDNS no
	PasswordAuthentication no
	KbdInteractiveAuthentication no
	PermitRootLogin prohibit-password
	AuthorizedKeysFile /root/.ssh/authorized_keys
	MaxStartups 100
	Subsystem sftp internal-sftp
END
cat >"$new/etc/systemd/system/syshost-ssh.service" <<-'END'
	[Unit]
	Description=OpenSSH of the namespace host
	[Service]
	ExecStart=/usr/sbin/sshd -D -e -f /etc/ssh/syshost_config
	RuntimeDirectory=sshd
	KillMode=process
	Restart=on-failure
END
cat >"$new/etc/systemd/system/syshost.target" <<-'END'
	[Unit]
	Description=A host that is up
	Requires=basic.target
	Wants=syshost-ssh.service multi-user.target
	After=basic.target
	AllowIsolate=yes
END
# The machine's own services hang on multi-user.target in /usr/lib too: this host has a bare one.
printf '[Unit]\nDescription=Multi-user\nRequires=basic.target\nAfter=basic.target\nAllowIsolate=yes\n' \
	>"$new/etc/systemd/system/multi-user.target"
mkdir -p "$new/etc/systemd/system/multi-user.target.wants"
ln -s syshost.target "$new/etc/systemd/system/default.target"

hostname "$name"
cd "$new"
mkdir -p .old
pivot_root . .old
cd /
umount -l /.old
rmdir /.old
mount --make-rshared /
exec env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin container=other LANG=C.UTF-8 \
	/lib/systemd/systemd --log-target=journal --show-status=no
