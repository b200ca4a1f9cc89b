# SPDX-License-Identifier: GPL-3.0-or-later
"""The emulator: where it comes from, its command line, its monitor, and whether KVM works here."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any, Iterator

from . import apt, paths
from .errors import LabError
from .images import Image, KernelImage
from .settings import Emulator, Host
from .system import digest_of, read_json, run, say, scratch_beside, write_json

BOOT_ARGUMENTS = (
    "console=ttyS0 quiet loglevel=4 mitigations=off nokaslr audit=0 apparmor=0 selinux=0"
    " random.trust_cpu=on tsc=reliable no_timer_check rcupdate.rcu_expedited=1"
    " systemd.show_status=0 systemd.log_target=kmsg systemd.log_level=warning net.ifnames=0"
    " panic=5 cryptomgr.notests i8042.nopnp i8042.noaux i8042.nokbd 8250.nr_uarts=1 nowatchdog TERM=dumb"
)
_PROBE_SECONDS = 20


@dataclasses.dataclass(frozen=True)
class Program:
    """An unpacked QEMU that runs with its own loader and libraries, and its own firmware."""

    folder: Path
    version: str

    def command(self) -> list[str]:
        """The words that start it, before any machine argument."""
        root = self.folder / "root"
        libraries = [root / "lib/x86_64-linux-gnu", root / "usr/lib/x86_64-linux-gnu"]
        # Not the one in lib64: that is a link to an absolute path, this machine's own loader.
        loader = root / "lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"
        binary = root / "usr/bin/qemu-system-x86_64"
        firmware = [root / "usr/share/qemu", root / "usr/share/seabios"]
        words = [str(loader), "--argv0", "qemu-lab", "--library-path", ":".join(map(str, libraries))]
        return [*words, str(binary)] + [word for folder in firmware for word in ("-L", str(folder))]

    def environment(self) -> dict[str, str]:
        """The environment it needs to find its own modules."""
        return {**os.environ, "QEMU_MODULE_DIR": str(self.folder / "root/usr/lib/x86_64-linux-gnu/qemu")}


@dataclasses.dataclass(frozen=True)
class Machine:
    """All that decides what a guest is; two equal ones can share a snapshot.

    `counter_khz` is the rate of the time stamp counter that the guest will see.
    `state_disk` is the disk that keeps the guest's files, None where they live in memory.
    """

    host: Host
    kernel: KernelImage
    base: Image
    accelerator: str
    counter_khz: int
    state_disk: Path | None = None


def program(wanted: Emulator, refresh: bool = False) -> Program:
    """The emulator, fetched and unpacked when the cache has none."""
    key = digest_of(wanted.package, *wanted.suites)[:16]
    folder = paths.QEMU / key
    if refresh and folder.exists():
        run(["rm", "-rf", "--one-file-system", folder], "remove the old emulator")
    if not folder.exists():
        say(f"emulator: fetching {wanted.package} of {wanted.suites[-1]}")
        with scratch_beside(folder) as scratch:
            _unpack(wanted, scratch)
        say("emulator: unpacked")
    return Program(folder, read_json(folder / "about.json")["version"])


def _unpack(wanted: Emulator, folder: Path) -> None:
    root = apt.Root(wanted.suites)
    root.update()
    for package in root.download_closure(wanted.package, wanted.suites[-1]):
        run(["dpkg-deb", "-x", package, folder / "root"], f"unpack {package.name}")
    root.clean()
    made = Program(folder, "")
    version = run([*made.command(), "--version"], "try the emulator", env=made.environment())
    write_json(folder / "about.json", {"version": version.splitlines()[0]})


def kernel_arguments(machine: Machine) -> str:
    """The guest kernel's command line."""
    machine_id = digest_of("lab", machine.host.name)[:32]
    upper = "disk" if machine.state_disk else "tmpfs"
    own = f"lab.host={machine.host.name} lab.machine_id={machine_id} lab.upper={upper}"
    further = [*(["lab.hide=btf"] if machine.host.hide_btf else []), machine.host.arguments]
    return " ".join(filter(None, [f"{BOOT_ARGUMENTS} tsc_early_khz={machine.counter_khz} {own}", *further]))


def _disk(name: str, path: str, read_only: bool) -> list[str]:
    mode = "on" if read_only else "off"
    return [
        "-blockdev", f"driver=file,node-name={name},filename={path},read-only={mode}",
        "-device", f"virtio-blk-pci,disable-legacy=on,drive={name},serial={name}",
    ]  # fmt: skip


def arguments(machine: Machine, port: int) -> list[str]:
    """QEMU's arguments for a guest whose SSH is forwarded from `port` of the loopback address.

    The guest reaches nothing but that one forwarded port. Monitor and console files are in the
    folder that QEMU is started in.
    """
    accelerator = "kvm" if machine.accelerator == "kvm" else "tcg,thread=multi,tb-size=128"
    argv = ["-accel", accelerator, "-M", "q35,usb=off,vmport=off", "-vga", "none", "-cpu", "max"]
    argv += ["-smp", "1", "-m", str(machine.host.memory_mib), "-nodefaults", "-no-user-config"]
    argv += ["-display", "none", "-serial", "file:console.log", "-qmp", "unix:monitor,server=on,wait=off"]
    argv += ["-kernel", str(machine.kernel.vmlinuz), "-initrd", str(machine.kernel.initrd)]
    argv += ["-append", kernel_arguments(machine)]
    argv += _disk("base", str(machine.base.path), True) + _disk("modules", str(machine.kernel.modules), True)
    if machine.state_disk:
        argv += _disk("state", str(machine.state_disk), False)
    argv += ["-netdev", f"user,id=n0,restrict=on,hostfwd=tcp:127.0.0.1:{port}-:22"]
    argv += ["-device", "virtio-net-pci,disable-legacy=on,romfile=,netdev=n0"]
    return [*argv, "-device", "virtio-rng-pci,disable-legacy=on"]


def snapshot_key(emulator_version: str, machine: Machine, processor: str) -> str:
    """Names a snapshot: equal for machines that can be restored from one another.

    `processor` describes what the guest sees of this computer's own processor.
    """
    neutral = dataclasses.replace(
        machine,
        counter_khz=0,
        kernel=dataclasses.replace(machine.kernel, vmlinuz=Path("k"), initrd=Path("i"), modules=Path("m")),
        base=dataclasses.replace(machine.base, path=Path("b")),
    )
    words = "\0".join(arguments(neutral, 0))
    return digest_of(emulator_version, words, machine.kernel.digest, machine.base.digest, processor)[:16]


class Monitor:
    """QEMU's control socket (QMP). One command at a time, each answered or an error."""

    def __init__(self, folder: Path, seconds: float = 10.0) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(seconds)
        self._folder = folder

    def __enter__(self) -> Monitor:
        # A socket's path is limited to 107 bytes: reach it through the open folder.
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            self._socket.connect(f"/proc/self/fd/{folder}/monitor")
        except OSError:
            self._socket.close()
            raise
        finally:
            os.close(folder)
        self._lines = self._socket.makefile("r")
        self._lines.readline()
        self.command("qmp_capabilities")
        return self

    def __exit__(self, *_: object) -> None:
        self._lines.close()
        self._socket.close()

    def command(self, command: str, **arguments: Any) -> Any:
        """Run a QMP command and return its answer. Raises LabError where QEMU refuses."""
        request = {"execute": command, **({"arguments": arguments} if arguments else {})}
        self._socket.sendall(json.dumps(request).encode() + b"\n")
        for line in self._lines:
            answer = json.loads(line)
            if "error" in answer:
                raise LabError(f"monitor of {self._folder.name}: {command}: {answer['error']['desc']}")
            if "return" in answer:
                return answer["return"]
        raise ConnectionError(f"monitor of {self._folder.name} closed during {command}")


def accelerator(emulator: Program, kernel: KernelImage) -> str:
    """ "kvm" where it boots a kernel here within a short time, else "tcg". Asked once per boot."""
    record = paths.CACHE / "accelerator.json"
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    question = {"boot": boot, "emulator": emulator.version}
    known = read_json(record)
    if known and known["question"] == question:
        return str(known["answer"])
    answer = "kvm" if os.access("/dev/kvm", os.R_OK | os.W_OK) and _kvm_boots(emulator, kernel) else "tcg"
    say(f"accelerator: {answer}")
    write_json(record, {"question": question, "answer": answer})
    return answer


def _kvm_boots(emulator: Program, kernel: KernelImage) -> bool:
    """Whether a guest under KVM gets as far as the lab's initrd, which ends there for want of disks."""
    argv = [*emulator.command(), "-accel", "kvm", "-M", "q35,usb=off,vmport=off", "-cpu", "max", "-m", "256"]
    argv += ["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio"]
    argv += ["-kernel", str(kernel.vmlinuz), "-initrd", str(kernel.initrd)]
    argv += ["-append", "console=ttyS0 quiet panic=-1"]
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=emulator.environment()
        )
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_PROBE_SECONDS)
        process.kill()
        process.wait()
        output.seek(0)
        return b"lab-init:" in output.read()


def wait_until(what: str, seconds: float, ready: Any, step: float = 0.1) -> None:
    """Call `ready` until it is true; raise LabError after `seconds`."""
    end = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > end:
            raise LabError(f"{what}: not within {seconds:.0f} s")
        time.sleep(step)


@contextlib.contextmanager
def stopped(monitor: Monitor) -> Iterator[None]:
    """Hold the guest's processor still."""
    monitor.command("stop")
    try:
        yield
    finally:
        monitor.command("cont")
