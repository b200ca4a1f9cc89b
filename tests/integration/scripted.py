# SPDX-License-Identifier: GPL-3.0-or-later
"""The real playbooks and roles, with the modules that ask or change a host replaced by ones that follow a script.

No VM, no systemd and no BPF program is needed; what the replaced modules do has tests of its own. What is left is
the playbook's: which module is called for which host, in which order, with which arguments, and what becomes of
its answer. Lookups, filters and roles are the collection's own.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Mapping, NamedTuple, Sequence

ROOT = Path(__file__).resolve().parents[2]
REPLACED = ("bpf_takeoff", "bundle_build", "capability_facts", "gameday_drill", "gate", "host_prepare",
            "latency_info", "lease", "observation_info", "release")  # fmt: skip
# {task: {host or "*": answer or answers}}
Script = Mapping[str, Mapping[str, Any]]


class Call(NamedTuple):
    """One call of a replaced module."""

    task: str
    module: str
    host: str
    check: bool
    arguments: dict[str, Any]


class Ended(NamedTuple):
    """How a playbook ended: exit status, its output as words with one blank between, and the calls in their order.

    `screen` has a line for each task, in their order: what became of which host, with the host that did it for
    them after `>`, as in "Read the bundle: ok w1>localhost".
    """

    status: int
    said: str
    screen: list[str]
    calls: list[Call]

    def asked(self, task: str) -> list[Call]:
        return [call for call in self.calls if call.task == task]

    def order(self) -> list[tuple[str, str]]:
        """(task, host) of each call."""
        return [(call.task, call.host) for call in self.calls]

    def part(self, task: str) -> str:
        """What was printed under the heading of a task, "" where it was not reached."""
        _before, found, after = self.said.partition(f"TASK [{task}]")
        return after.split(" TASK [", 1)[0].split(" PLAY ", 1)[0] if found else ""


STATE = re.compile(
    r"^(?:(?P<state>ok|changed|skipping): \[(?P<host>[^\]]+)\](?: => \((?:item=)?(?P<item>[^)]*)\))?"
    r"|(?:fatal|failed): \[(?P<lost>[^\]]+)\](?: \(item=(?P<one>[^)]*)\))?.*?: (?P<end>FAILED|UNREACHABLE)!"
    r"|included: .*/(?P<file>[^/]+) for (?P<hosts>.+))"
)


def screen(output: str) -> list[str]:
    """What was printed, a line for each heading; hosts in the order of their names."""
    lines: list[tuple[str, set[str]]] = []
    for line in output.splitlines():
        heading = re.match(r"(?:(PLAY) |TASK |RUNNING HANDLER )\[(.*)\] \*+$", line)
        if heading:
            lines.append((f"PLAY {heading[2]}" if heading[1] else heading[2].split(" - ")[0], set()))
        found = STATE.match(line)
        if found and lines:
            lines[-1][1].add(_state(found))
    return [f"{name}: {', '.join(sorted(states))}" if states else name for name, states in lines]


def _state(found: re.Match[str]) -> str:
    if found["file"]:
        return f"includes {found['file']} for {' '.join(sorted(found['hosts'].split(', ')))}"
    host = (found["host"] or found["lost"]).replace(" -> ", ">")
    item = found["item"] or found["one"]
    return f"{found['state'] or found['end']} {host}{f' ({item})' if item else ''}"


def collection(folder: Path) -> Path:
    """A folder of collections with this one, whose REPLACED modules and fan_out follow the script."""
    place = folder / "ansible_collections/ebpf/fleet"
    (place / "plugins/action").mkdir(parents=True)
    for one in ("galaxy.yml", "meta", "playbooks", "roles"):
        (place / one).symlink_to(ROOT / one)
    for kind in (ROOT / "plugins").iterdir():
        if kind.name not in ("action", "__pycache__"):
            (place / "plugins" / kind.name).symlink_to(kind)
    for action in (ROOT / "plugins/action").glob("*.py"):
        if action.stem not in (*REPLACED, "fan_out"):
            (place / "plugins/action" / action.name).symlink_to(action)
    for name in REPLACED:
        text = "from tests.integration.scripted_action import ActionModule\n"
        (place / f"plugins/action/{name}.py").write_text(text)
    text = "from tests.integration.scripted_action import OnceForAll as ActionModule\n"
    (place / "plugins/action/fan_out.py").write_text(text)
    return folder


def inventory(hosts: Sequence[str], **variables: Any) -> dict[str, Any]:
    """Hosts of one cell that are this machine, each with the variables; so few that a batch may have all of them."""
    base = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable, "ebpf_fleet_cell": "c",
            "ebpf_fleet_region": "r", "ebpf_fleet_fleet_percent": 100, "ebpf_fleet_cell_percent": 100,
            **variables}  # fmt: skip
    return {"all": {"hosts": {host: base for host in hosts}}}


def begun(
    folder: Path, playbook: str, hosts: Mapping[str, Any], script: Mapping[str, Any], *options: str,
    environment: Mapping[str, str] | None = None, screen_fd: int | None = None, **variables: Any,
) -> subprocess.Popen[str]:  # fmt: skip
    """Start a playbook in `folder`; `hosts` is an inventory, `variables` go in with -e.

    With `screen_fd` it prints there.

    `playbook` is the name of one of the collection's, or a path that ends in .yml. What it prints goes to a file, so
    that no one who lives longer holds a pipe.
    """
    place = folder / "scripted"
    if not place.exists():
        collection(place)
    (place / "calls.jsonl").unlink(missing_ok=True)
    (place / "script.json").write_text(json.dumps(script))
    (folder / "hosts.json").write_text(json.dumps(hosts))
    named = playbook if playbook.endswith(".yml") else f"ebpf.fleet.{playbook}"
    command = [sys.executable, "-m", "ansible", "playbook", named, "-i", "hosts.json",
               "-e", json.dumps(variables), *options]  # fmt: skip
    with (place / "stdout").open("w") as stdout, (place / "stderr").open("w") as stderr:
        return subprocess.Popen(
            command, cwd=folder, text=True, stdin=subprocess.DEVNULL, stderr=stderr,
            stdout=stdout if screen_fd is None else screen_fd,
            env={**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(place), "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
                 "ANSIBLE_NOCOLOR": "1", "ANSIBLE_LOCALHOST_WARNING": "false", "PWD": str(folder),
                 "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "collections")]),
                 "EBPF_FLEET_SCRIPT": str(place), "XDG_STATE_HOME": str(folder / "state"), **(environment or {})},
        )  # fmt: skip


def outcome(folder: Path, process: subprocess.Popen[str]) -> Ended:
    """How a playbook that was begun there ended; it is waited for."""
    place = folder / "scripted"
    try:
        status = process.wait(300)
    finally:
        process.kill()
    lines = (place / "calls.jsonl").read_text().splitlines() if (place / "calls.jsonl").exists() else []
    calls = [Call(**json.loads(line)) for line in lines]
    stdout = (place / "stdout").read_text()
    said = " ".join((stdout + (place / "stderr").read_text()).split())
    return Ended(status, said, screen(stdout), calls)


def played(
    folder: Path, playbook: str, hosts: Mapping[str, Any], script: Mapping[str, Any], *options: str,
    environment: Mapping[str, str] | None = None, **variables: Any,
) -> Ended:  # fmt: skip
    """Run a playbook to its end, as `begun` does it."""
    return outcome(folder, begun(folder, playbook, hosts, script, *options, environment=environment, **variables))
