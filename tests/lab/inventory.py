# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab as an ordinary SSH inventory."""

from __future__ import annotations

import shlex
from typing import Any, Iterable

import yaml

from . import guest, paths, ssh
from .settings import FLEET, Host
from .system import write_text


def host_variables(port: int, host: Host) -> dict[str, Any]:
    """What Ansible must know of one host."""
    return {
        "ansible_host": "127.0.0.1",
        "ansible_port": port,
        "ebpf_fleet_cell": host.cell,
        "ebpf_fleet_region": host.region,
    }


def common_variables() -> dict[str, Any]:
    """What all hosts share."""
    return {
        "ansible_user": "root",
        "ansible_ssh_private_key_file": str(ssh.IDENTITY),
        "ansible_ssh_common_args": shlex.join(ssh.options()),
        "ansible_python_interpreter": "/usr/bin/python3",
        # An emulated processor takes seconds for a login, and more beside others.
        "ebpf_fleet_connect_timeout": 40,
    }


def document(ports: dict[str, int], hosts: Iterable[Host]) -> dict[str, Any]:
    """The inventory of the hosts that `ports` has, with a group per cell and region."""
    running = [host for host in hosts if host.name in ports]
    groups: dict[str, Any] = {}
    for host in running:
        for group in (f"cell_{host.cell}", f"region_{host.region}"):
            groups.setdefault(group.replace("-", "_"), {"hosts": {}})["hosts"][host.name] = None
    return {
        "all": {
            "vars": common_variables(),
            "hosts": {host.name: host_variables(ports[host.name], host) for host in running},
            "children": groups,
        }
    }


def running_ports(hosts: Iterable[Host]) -> dict[str, int]:
    """The SSH port of each host whose machine exists, a paused one too."""
    records = (guest.record(host.name) for host in hosts)
    return {found.name: found.port for found in records if found}


def text(hosts: Iterable[Host]) -> str:
    """The inventory of what runs, as YAML."""
    listed = list(hosts)
    return "---\n" + yaml.safe_dump(document(running_ports(listed), listed), sort_keys=False, width=1000)


def write(hosts: Iterable[Host]) -> None:
    """Make known_hosts tell what runs, and inventories/lab/hosts.yml what of the fleet does.

    Without a host of the fleet there is no such file: what is deployed to it meets no other host.
    """
    listed = list(hosts)
    ports = running_ports(listed)
    if ports:
        write_text(paths.KNOWN_HOSTS, ssh.known_hosts(sorted(ports.values())))
    fleet = [host for host in listed if FLEET in host.groups]
    if not running_ports(fleet):
        paths.INVENTORY.unlink(missing_ok=True)
        return
    write_text(paths.INVENTORY, text(fleet))
