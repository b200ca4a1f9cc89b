# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which controller a cell has, as the inventory says it. Pure."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from ansible_collections.ebpf.fleet.plugins.module_utils.base import values

CONTROLLERS = "ebpf_fleet_cell_controllers"
RUNNER = "ansible-runner"
_DESTINATION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@:%\[\]-]{0,254}", re.ASCII)
_KNOWN = {"ssh", "local", "options", "runner"}


class Controller(NamedTuple):
    """Where a cell's jobs run: `ssh` is a destination, None this machine; `runner` the command and its first words."""

    ssh: str | None
    options: tuple[str, ...] = ()
    runner: tuple[str, ...] = (RUNNER,)

    @property
    def where(self) -> str:
        """As a sentence can say it."""
        return "this machine" if self.ssh is None else self.ssh


def read_controllers(name: str, value: Any) -> dict[str, Controller]:
    """{cell: its controller}; RefusedValueError for what is not one, with the cell's name."""
    return {
        values.label(f"{name}: a cell's name", cell): _controller(f"{name}.{cell}", one)
        for cell, one in values.mapping(name, value).items()
    }


def checked_controllers(name: str, value: Any) -> dict[str, Any]:
    """The mapping as it was given, once it can be used."""
    read_controllers(name, value)
    return values.mapping(name, value)


def _controller(name: str, value: Any) -> Controller:
    given = values.mapping(name, value)
    unknown = sorted(set(map(str, given)) - _KNOWN)
    if unknown:
        raise values.refuse(name, unknown[0], "give only " + ", ".join(sorted(_KNOWN)))
    local = values.truth(f"{name}.local", given.get("local", False))
    if local == ("ssh" in given):
        raise values.refuse(name, value, "give either ssh, a destination such as ops@ctl-a.example.org, or local: true")
    runner = tuple(values.names(f"{name}.runner", given.get("runner", [RUNNER])))
    if not runner:
        raise values.refuse(f"{name}.runner", given["runner"], f"name the command, or leave it out for {RUNNER}")
    options = tuple(values.names(f"{name}.options", given.get("options", [])))
    return Controller(None if local else _destination(f"{name}.ssh", given["ssh"]), options, runner)


def _destination(name: str, value: Any) -> str:
    found = values.text(name, value)
    if not _DESTINATION.fullmatch(found):
        raise values.refuse(name, value, "give a destination of ssh, as user@host or an alias of your ssh_config")
    return found
