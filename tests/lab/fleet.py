# SPDX-License-Identifier: GPL-3.0-or-later
"""Many guests at once: building what they need, bringing them up, and their state."""

from __future__ import annotations

import dataclasses
import os
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Callable, Iterable

from . import guest, images, inventory, paths, processor, qemu, ssh
from .errors import LabError
from .images import Image, KernelImage
from .qemu import Machine, Program
from .settings import Host, Settings
from .system import say

_BUILDERS = 4

# What an emulator that crashes leaves: our own error, or a monitor that is suddenly gone.
_FAILURES = (LabError, OSError)


@dataclasses.dataclass(frozen=True)
class Parts:
    """All that is needed to start the hosts: the emulator, the images, the accelerator."""

    emulator: Program
    userlands: dict[str, Image]
    kernels: dict[str, KernelImage]
    accelerator: str


def build(settings: Settings, hosts: Iterable[Host], refresh: bool = False) -> Parts:
    """Make or find the parts of `hosts`. Downloads and builds run side by side."""
    wanted = list(hosts)
    images.ensure_keys()
    with ThreadPoolExecutor(_BUILDERS) as pool:
        userlands = {
            name: pool.submit(images.userland, userland)
            for name, userland in {host.userland.name: host.userland for host in wanted}.items()
        }
        emulator = pool.submit(qemu.program, settings.emulator, refresh)
        kernels = {
            name: pool.submit(images.kernel, kernel, refresh)
            for name, kernel in {host.kernel.name: host.kernel for host in wanted}.items()
        }
    made = {name: kernel.result() for name, kernel in kernels.items()}
    accelerator = qemu.accelerator(emulator.result(), next(iter(made.values())))
    return Parts(emulator.result(), {name: image.result() for name, image in userlands.items()}, made, accelerator)


def machine(parts: Parts, host: Host, persistent: bool) -> Machine:
    """The machine that a host is on this computer."""
    base = parts.userlands[host.userland.name]
    disk = guest.ensure_state_disk(host.name, base.digest, host.state_disk_mib) if persistent else None
    kernel = parts.kernels[host.kernel.name]
    return Machine(host, kernel, base, parts.accelerator, processor.counter_khz(), disk)


def snapshot_path(parts: Parts, made: Machine) -> Path:
    """Where the snapshot of this very machine is or will be."""
    key = qemu.snapshot_key(parts.emulator.version, made, processor.description(parts.accelerator))
    return paths.SNAPSHOTS / f"{made.host.name}-{key}.zst"


def _bring_up(parts: Parts, host: Host, persistent: bool) -> None:
    made = machine(parts, host, persistent)
    if persistent:
        guest.boot(parts.emulator, made)
        return
    snapshot = snapshot_path(parts, made)
    if snapshot.exists() and _restored(parts, made, snapshot):
        return
    say(f"{host.name}: booting {made.kernel.release}")
    started = guest.boot(parts.emulator, made)
    guest.save(started, snapshot)
    for old in paths.SNAPSHOTS.glob(f"{host.name}-*.zst"):
        if old != snapshot:
            old.unlink()


def _restored(parts: Parts, made: Machine, snapshot: Path) -> bool:
    try:
        guest.restore(parts.emulator, made, snapshot)
    except _FAILURES as error:
        say(f"{made.host.name}: the snapshot does not restore, booting instead: {error}")
        guest.stop(made.host.name)
        snapshot.unlink()
        return False
    return True


def _bring_up_or_stop(parts: Parts, host: Host, persistent: bool) -> None:
    """The last try: a host that fails again is ended, so that no inventory lists it."""
    try:
        _bring_up(parts, host, persistent)
    except _FAILURES:
        guest.stop(host.name)
        raise


def _bring_up_with_retry(parts: Parts, host: Host, persistent: bool) -> None:
    try:
        _bring_up(parts, host, persistent)
    except _FAILURES as error:
        say(f"{host.name}: did not come up, trying once more: {error}")
        guest.stop(host.name)
        _bring_up_or_stop(parts, host, persistent)
    found = guest.require(host.name)
    say(f"{host.name}: {found.origin}, {found.kernel}, port {found.port}")


def for_each(hosts: Iterable[Host], action: Callable[[Host], None]) -> None:
    """Do `action` for all hosts side by side; report every failure, not only the first."""
    wanted = list(hosts)
    if not wanted:
        return
    with ThreadPoolExecutor(len(wanted)) as pool:
        running: dict[str, Future[None]] = {host.name: pool.submit(action, host) for host in wanted}
    errors = [f"{name}: {future.exception()}" for name, future in running.items() if future.exception()]
    if errors:
        raise LabError("\n".join(errors))


def up(settings: Settings, hosts: list[Host], persistent: bool) -> None:
    """Bring hosts up. One that runs is made reachable and else left as it is.

    With `persistent`, one that runs without a disk is started again with one.
    """
    parts = build(settings, hosts)
    waiting = []
    for host in hosts:
        found = guest.record(host.name)
        if found and (found.persistent or not persistent) and guest.recover(host.name):
            continue
        guest.stop(host.name)
        waiting.append(host)
    try:
        for_each(waiting, lambda host: _bring_up_with_retry(parts, host, persistent))
    finally:
        inventory.write(settings.hosts.values())


def down(settings: Settings, hosts: list[Host]) -> None:
    """End the guests that run."""
    try:
        for host in hosts:
            if guest.stop(host.name):
                say(f"{host.name}: down")
    finally:
        inventory.write(settings.hosts.values())


def reset(settings: Settings, hosts: list[Host]) -> None:
    """Take hosts back to how they were after their first boot, whatever happened to them since."""
    for host in hosts:
        guest.stop(host.name)
        guest.remove_state_disks(host.name)
    up(settings, hosts, False)


def reboot(hosts: list[Host]) -> None:
    """Have guests reboot. A host that is not persistent comes back with nothing but its base image."""
    for host in hosts:
        guest.require(host.name)
    for_each(hosts, lambda host: guest.reboot(guest.require(host.name)))


def status(hosts: Iterable[Host]) -> list[dict[str, Any]]:
    """The state of each host; what is unknown of one that is down is None."""
    return [_status_of(host) for host in hosts]


def _status_of(host: Host) -> dict[str, Any]:
    found = guest.record(host.name)
    return {
        "name": host.name,
        "state": guest.state(host.name),
        "cell": host.cell,
        "region": host.region,
        "kernel": found.kernel if found else None,
        "userland": host.userland.suite,
        "port": found.port if found else None,
        "pid": found.pid if found else None,
        "accelerator": found.accelerator if found else None,
        "persistent": found.persistent if found else None,
        "origin": found.origin if found else None,
    }


def replace_with_ssh(host: Host, words: list[str]) -> None:
    """Become an ssh to the host; does not return."""
    argv = ssh.command(guest.require(host.name).port, words)
    os.execvp(argv[0], argv)
