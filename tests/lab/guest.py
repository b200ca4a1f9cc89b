# SPDX-License-Identifier: GPL-3.0-or-later
"""One guest: starting, saving, restoring, stopping it, and saying truly what state it is in."""

from __future__ import annotations

import dataclasses
import os
import shlex
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

from . import paths, qemu, ssh
from .console import Console
from .errors import LabError
from .qemu import Machine, Monitor, Program
from .system import read_json, run, say, write_json

BOOT_SECONDS = 300.0
RESTORE_SECONDS = 90.0
SAVE_SECONDS = 120.0
ANSWER_SECONDS = 30.0
CLOCK_TOLERANCE_SECONDS = 1.5

_UNLIMITED_BANDWIDTH = 1 << 34
_SETTLE = "systemctl is-system-running --wait; systemctl --failed --plain --no-legend"

# Read after a boot, so that a guest that is restored from its snapshot has it in memory.
_WARM_UP = (
    "python3 -c 'import ctypes, grp, json, logging, platform, pwd, selectors, shlex, socket, subprocess,"
    " tempfile, urllib.request, zipfile'; bpftool prog list >/dev/null; systemctl show -p Version >/dev/null"
)


@dataclasses.dataclass(frozen=True)
class Record:
    """What is known of a started guest: its process, how to reach it and what it was made of."""

    name: str
    pid: int
    start_ticks: int
    machine_boot: str
    port: int
    kernel: str
    userland: str
    accelerator: str
    persistent: bool
    origin: str

    def alive(self) -> bool:
        """Whether that very process still runs, and not another one with its number."""
        return self.machine_boot == _machine_boot() and _start_ticks(self.pid) == self.start_ticks


def _machine_boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _start_ticks(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None where it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in ("Z", "X") else int(fields[19])


def folder(name: str) -> Path:
    """Where a guest's record, monitor and console are."""
    return paths.RUN / name


def record(name: str) -> Record | None:
    """The record of a guest that runs; None where it is down, whatever was left behind."""
    document = read_json(folder(name) / "record.json")
    if not isinstance(document, dict) or set(document) != {f.name for f in dataclasses.fields(Record)}:
        return None
    found = Record(**document)
    return found if found.alive() else None


def require(name: str) -> Record:
    """The record of a guest that must run."""
    found = record(name)
    if found is None:
        raise LabError(f"{name} is down: start it with 'up {name}'")
    return found


def state(name: str) -> str:
    """QEMU's own word ("running", "paused", ...), or "unplugged", "unresponsive" or "down"."""
    if record(name) is None:
        return "down"
    try:
        with Monitor(folder(name), seconds=3) as monitor:
            status = str(monitor.command("query-status")["status"])
    except (OSError, LabError):
        return "unresponsive" if record(name) else "down"
    return "unplugged" if status == "running" and _unplugged(name).exists() else status


def _unplugged(name: str) -> Path:
    """There while the guest's network cable is pulled; the monitor cannot be asked for that."""
    return folder(name) / "unplugged"


def set_cable(name: str, plugged: bool) -> None:
    """Cut a guest off from the network, or connect it again, while it goes on working."""
    require(name)
    if not plugged:
        _unplugged(name).touch()
    with Monitor(folder(name)) as monitor:
        monitor.command("set_link", name="n0", up=plugged)
    if plugged:
        _unplugged(name).unlink(missing_ok=True)


def pause(name: str) -> None:
    """Hold a guest's processor: connections hang, time stands still in it."""
    require(name)
    with Monitor(folder(name)) as monitor:
        monitor.command("stop")


def resume(name: str) -> None:
    """Let a held guest go on, with the right time."""
    found = require(name)
    with Monitor(folder(name)) as monitor:
        monitor.command("cont")
    ssh.set_clock(found.port)


def recover(name: str) -> bool:
    """Make a guest reachable that a test left paused or unplugged; False where that fails."""
    try:
        before = state(name)
        if before == "unplugged":
            set_cable(name, True)
        if before == "paused":
            resume(name)
        _await("answering", name, ANSWER_SECONDS, lambda: ssh.greets(require(name).port))
    except (OSError, LabError) as error:
        say(f"{name}: runs but cannot be reached: {error}")
        return False
    return True


def free_port(preferred: int) -> int:
    """The preferred loopback port, or one that the system picks where that is taken."""
    for port in (preferred, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise LabError("no free loopback port: end what holds them")


def _start(emulator: Program, machine: Machine, origin: str, extra: list[str]) -> Record:
    name = machine.host.name
    home = folder(name)
    home.mkdir(parents=True, exist_ok=True)
    _end_strays(name)
    for stale in ("monitor", "record.json", "unplugged", "console.log"):
        (home / stale).unlink(missing_ok=True)
    port = free_port(machine.host.port)
    argv = [*emulator.command(), *qemu.arguments(machine, port), *extra]
    with (home / "qemu.log").open("wb") as log:
        process = subprocess.Popen(
            argv, cwd=home, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            start_new_session=True, env=emulator.environment(),
        )  # fmt: skip
    started = Record(
        name, process.pid, _start_ticks(process.pid) or 0, _machine_boot(), port, machine.kernel.release,
        str(machine.base.about["suite"]), machine.accelerator, machine.state_disk is not None, origin,
    )  # fmt: skip
    write_json(home / "record.json", dataclasses.asdict(started))
    return started


def _end_strays(name: str) -> None:
    """End a QEMU of ours in this guest's folder whose record was lost: its starter was killed."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            ours = (process / "cwd").readlink() == folder(name)
            ours = ours and paths.QEMU.resolve() in (process / "exe").readlink().parents
        except OSError:
            continue
        if ours:
            say(f"{name}: ending process {process.name}, a machine that nobody recorded")
            os.kill(int(process.name), signal.SIGKILL)


def last_words(name: str) -> str:
    """The end of what QEMU and the guest's console said."""
    parts = []
    for file in ("qemu.log", "console.log"):
        path = folder(name) / file
        text = path.read_bytes()[-600:].decode(errors="replace").strip() if path.exists() else ""
        if text:
            parts.append(f"{file}: {text}")
    return "\n".join(parts) or "nothing was logged"


def _await(what: str, name: str, seconds: float, ready: Any, console: Console | None = None) -> None:
    """Wait until `ready`; a QEMU that ended and a kernel that gave up on `console` are told at once."""

    def ready_or_dead() -> bool:
        if record(name) is None:
            raise LabError(f"{name}: QEMU ended during {what}: {last_words(name)}")
        refuse_panic(name, what, console)
        return bool(ready())

    qemu.wait_until(f"{name}: {what}", seconds, ready_or_dead)


def refuse_panic(name: str, what: str, console: Console | None) -> None:
    """LabError where the console shows a panic: such a guest would be waited for in vain."""
    panic = None if console is None else console.panic()
    if panic is not None:
        where = folder(name) / "console.log"
        raise LabError(f"{name}: its kernel gave up during {what}: {panic}; see {where}, then 'down {name}'")


def _await_ssh(started: Record, seconds: float) -> None:
    console = Console(folder(started.name) / "console.log")
    _await("waiting for SSH", started.name, seconds, lambda: ssh.greets(started.port), console)
    paths.KNOWN_HOSTS.parent.mkdir(parents=True, exist_ok=True)
    know(started.port)
    ssh.set_clock(started.port)


def know(port: int) -> None:
    """Add a guest's key to known_hosts if it is not there. One short append is atomic."""
    line = ssh.known_hosts([port])
    if not paths.KNOWN_HOSTS.exists() or line not in paths.KNOWN_HOSTS.read_text():
        with paths.KNOWN_HOSTS.open("a") as file:
            file.write(line)


def boot(emulator: Program, machine: Machine) -> Record:
    """Start a guest cold and wait until systemd has nothing left to start."""
    started = _start(emulator, machine, "booted", [])
    _await_ssh(started, BOOT_SECONDS)
    settled = ssh.run(started.port, _SETTLE, 180)
    if settled.splitlines()[0] != "running":
        say(f"{started.name}: systemd is {settled.strip()}")
    ssh.run(started.port, _WARM_UP)
    _check_clock(started)
    return started


def _check_clock(started: Record) -> None:
    """Refuse a guest whose kernel took a wrong rate for its counter; its clock runs away."""
    wrong_by = ssh.clock_error(started.port)
    if abs(wrong_by) > CLOCK_TOLERANCE_SECONDS:
        raise LabError(f"{started.name}: its clock is wrong by {wrong_by:.1f} s soon after it was set")


def save(started: Record, snapshot: Path) -> None:
    """Write a guest's whole state to `snapshot`, which appears only when it is complete."""
    snapshot.parent.mkdir(parents=True, exist_ok=True)
    partial = snapshot.with_name(f".{snapshot.name}.partial")
    with Monitor(folder(started.name), seconds=30) as monitor, qemu.stopped(monitor):
        monitor.command("migrate-set-parameters", **{"max-bandwidth": _UNLIMITED_BANDWIDTH})
        monitor.command("migrate", uri=f"exec:zstd -q -1 -T0 > {shlex.quote(str(partial))}")
        _await("saving", started.name, SAVE_SECONDS, lambda: _saved(monitor))
    # What a full disk cut short must not become a snapshot.
    run(["zstd", "-tq", partial], f"check the snapshot of {started.name}")
    partial.replace(snapshot)
    ssh.set_clock(started.port)


def _saved(monitor: Monitor) -> bool:
    status = monitor.command("query-migrate").get("status")
    if status in ("failed", "cancelled"):
        raise LabError(f"saving a guest: QEMU says {status}: look for free disk space")
    return bool(status == "completed")


def restore(emulator: Program, machine: Machine, snapshot: Path) -> Record:
    """Start a guest from its snapshot and set its clock."""
    incoming = ["-incoming", f"exec:zstd -dqc {shlex.quote(str(snapshot))}"]
    started = _start(emulator, machine, "restored", incoming)
    _await("restoring", started.name, RESTORE_SECONDS, lambda: state(started.name) == "paused")
    with Monitor(folder(started.name)) as monitor:
        monitor.command("cont")
    _await_ssh(started, RESTORE_SECONDS)
    return started


def stop(name: str) -> bool:
    """End a guest's QEMU; False where it was down. What a persistent guest wrote is on its disk."""
    found = record(name)
    if found is None:
        return False
    if found.persistent and state(name) == "running":
        _sync(found)
    for signal_number, seconds in ((signal.SIGTERM, 5.0), (signal.SIGKILL, 10.0)):
        if found.alive():
            os.kill(found.pid, signal_number)
        if _ended(found, seconds):
            (folder(name) / "record.json").unlink(missing_ok=True)
            return True
    raise LabError(f"{name}: QEMU, process {found.pid}, does not end: look at it with ps")


def _sync(found: Record) -> None:
    try:
        ssh.run(found.port, "sync", 15)
    except LabError as error:
        say(f"{found.name}: its last writes may be lost: {error}")


def _ended(found: Record, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while found.alive():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def reboot(found: Record) -> None:
    """Have the guest reboot itself and wait until it is up again, with a new boot id."""
    asked = "cat /proc/sys/kernel/random/boot_id"
    before = ssh.run(found.port, asked)
    console = Console(folder(found.name) / "console.log", from_now=True)
    ssh.run(found.port, "systemctl --no-block reboot")

    def rebooted() -> bool:
        if not ssh.greets(found.port):
            return False
        try:
            return ssh.run(found.port, asked, 30) != before
        except LabError:
            return False

    _await("rebooting", found.name, BOOT_SECONDS, rebooted, console)
    ssh.set_clock(found.port)


def ensure_state_disk(name: str, base_digest: str, mebibytes: int) -> Path:
    """The disk that keeps a host's files; it belongs to one base image and goes with it."""
    disk = paths.STATE_DISKS / f"{name}-{base_digest[:12]}.ext4"
    if not disk.exists():
        remove_state_disks(name)
        paths.STATE_DISKS.mkdir(parents=True, exist_ok=True)
        partial = disk.with_name(f".{disk.name}.partial")
        with partial.open("wb") as file:
            file.truncate(mebibytes << 20)
        run(["mke2fs", "-q", "-F", "-t", "ext4", partial], f"make the disk of {name}")
        partial.replace(disk)
    return disk


def remove_state_disks(name: str) -> None:
    """Forget all that a persistent host ever wrote."""
    for disk in paths.STATE_DISKS.glob(f"{name}-*.ext4"):
        disk.unlink()
