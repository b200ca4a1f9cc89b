# SPDX-License-Identifier: GPL-3.0-or-later
"""Command line of the VM lab."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any, Callable

from . import fleet, guest, inventory, paths
from .errors import LabError
from .settings import Settings, load
from .system import exclusive, say

EXIT_OK, EXIT_FAILED, EXIT_USAGE = 0, 1, 2


def _build(settings: Settings, options: argparse.Namespace) -> None:
    parts = fleet.build(settings, settings.select(options.hosts), options.refresh)
    for kernel in parts.kernels.values():
        say(f"kernel {kernel.release} ({kernel.version})")


def _up(settings: Settings, options: argparse.Namespace) -> None:
    fleet.up(settings, settings.select(options.hosts), options.persistent)


def _down(settings: Settings, options: argparse.Namespace) -> None:
    fleet.down(settings, settings.select(options.hosts or settings.hosts))


def _reset(settings: Settings, options: argparse.Namespace) -> None:
    fleet.reset(settings, settings.select(options.hosts))


def _reboot(settings: Settings, options: argparse.Namespace) -> None:
    fleet.reboot(settings.select(options.hosts))


def _pause(settings: Settings, options: argparse.Namespace) -> None:
    fleet.for_each(settings.select(options.hosts), lambda host: guest.pause(host.name))


def _resume(settings: Settings, options: argparse.Namespace) -> None:
    fleet.for_each(settings.select(options.hosts), lambda host: guest.resume(host.name))


def _unplug(settings: Settings, options: argparse.Namespace) -> None:
    fleet.for_each(settings.select(options.hosts), lambda host: guest.set_cable(host.name, False))


def _plug(settings: Settings, options: argparse.Namespace) -> None:
    fleet.for_each(settings.select(options.hosts), lambda host: guest.set_cable(host.name, True))


def _status(settings: Settings, options: argparse.Namespace) -> None:
    rows = fleet.status(settings.select(settings.hosts if options.all else options.hosts))
    if options.json:
        print(json.dumps({"hosts": rows}, indent=2))
        return
    for row in rows:
        print(_line(row))


def _line(row: dict[str, Any]) -> str:
    place = f"{row['region']}/{row['cell']}"
    text = f"{row['name']:8} {row['state']:12} {place:10} {row['userland']:9}"
    if row["pid"] is None:
        return text
    kept = " persistent" if row["persistent"] else ""
    return f"{text} {row['kernel']} port {row['port']} {row['accelerator']} {row['origin']}{kept}"


def _inventory(settings: Settings, options: argparse.Namespace) -> None:
    hosts = settings.select(options.hosts)
    if options.write:
        inventory.write(settings.hosts.values())
    elif options.json:
        print(json.dumps(inventory.document(inventory.running_ports(hosts), hosts), indent=2))
    else:
        print(inventory.text(hosts), end="")


def _ssh(settings: Settings, options: argparse.Namespace) -> None:
    words = options.words[1:] if options.words[:1] == ["--"] else options.words
    fleet.replace_with_ssh(settings.select([options.host])[0], words)


def parser() -> argparse.ArgumentParser:
    """All commands. Those that change a machine hold the lab's lock."""
    top = argparse.ArgumentParser(prog="python3 -m tests.lab", description="The VM lab.")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, action: Callable[[Settings, argparse.Namespace], None], text: str, hosts: str = "*",
            locked: bool = True) -> argparse.ArgumentParser:  # fmt: skip
        made = commands.add_parser(name, help=text, description=text)
        made.set_defaults(action=action, locked=locked)
        if hosts:
            made.add_argument("hosts", nargs=hosts, metavar="HOST", help="a host of lab.yml")
        return made

    build = add("build", _build, "make the images that are not in the cache, the fleet's by default")
    build.add_argument("--refresh", action="store_true", help="look for newer versions")
    up = add("up", _up, "bring hosts up, the fleet by default, and write the inventory")
    up.add_argument("--persistent", action="store_true", help="keep files across reboots, on a disk")
    add("down", _down, "end hosts, by default all that run")
    add("reset", _reset, "take hosts back to their first boot, also from persistent", "+")
    add("reboot", _reboot, "reboot hosts and wait for them", "+")
    add("pause", _pause, "freeze hosts: connections hang, their time stands still", "+")
    add("resume", _resume, "let frozen hosts go on", "+")
    add("unplug", _unplug, "cut hosts off from the network while they go on working", "+")
    add("plug", _plug, "connect hosts to the network again", "+")
    state = add("status", _status, "show the state of hosts", locked=False)
    state.add_argument("--json", action="store_true")
    state.add_argument("--all", action="store_true", help="also hosts that are not of the fleet")
    listing = add("inventory", _inventory, "print the inventory of what runs", locked=False)
    listing.add_argument("--json", action="store_true")
    listing.add_argument("--write", action="store_true", help="write inventories/lab/hosts.yml instead")
    shell = add("ssh", _ssh, "log in to a host, or run a command in it", "", locked=False)
    shell.add_argument("host", metavar="HOST")
    shell.add_argument("words", nargs=argparse.REMAINDER, metavar="-- COMMAND")
    return top


def main(argv: list[str] | None = None) -> int:
    """Run one command. Returns 0, 1 when it failed; argparse exits with 2 on wrong usage."""
    options = parser().parse_args(argv)
    try:
        settings = load(paths.SETTINGS)
        if not options.locked:
            options.action(settings, options)
            return EXIT_OK
        with exclusive(paths.LOCK):
            options.action(settings, options)
    except LabError as error:
        print(f"lab: {error}", file=sys.stderr)
        return EXIT_FAILED
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
