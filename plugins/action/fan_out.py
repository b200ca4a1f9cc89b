# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Run one command on many hosts at once from the controller, each within its own bound."""

from __future__ import annotations

import os
import resource
import signal
import time
from pathlib import Path

from ansible.plugins.action import ActionBase
from ansible_collections.ebpf.fleet.plugins.module_utils.base import values
from ansible_collections.ebpf.fleet.plugins.module_utils.base.atomic_files import write_file
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError, explain
from ansible_collections.ebpf.fleet.plugins.module_utils.hosts import fanout, output
from ansible_collections.ebpf.fleet.plugins.plugin_utils import cell_steps
from ansible_collections.ebpf.fleet.plugins.plugin_utils.host_connection import Reach
from ansible_collections.ebpf.fleet.plugins.plugin_utils.told import failed

ARGUMENTS = {
    "command": {"type": "str", "required": True},
    "hosts": {"type": "raw", "required": True},
    "connect_timeout": {"type": "raw", "default": 10},
    "timeout": {"type": "raw", "default": 20},
    "logins": {"type": "raw", "default": 0},
    "kex_algorithms": {"type": "str", "default": "^curve25519-sha256"},
    "by_cell": {"type": "bool", "default": False},
    "stdout_bytes": {"type": "raw", "default": output.HEAD_BYTES},
    "save_to": {"type": "str", "default": ""},
}
QUIET_SECONDS = 2
REPEAT_SECONDS = 10


class ActionModule(ActionBase):
    """One task for all hosts; what a host does is that host's result and never fails the task."""

    TRANSFERS_FILES = False
    BYPASS_HOST_LOOP = True
    _supports_check_mode = True
    _requires_connection = False

    def run(self, tmp=None, task_vars=None):
        result = super().run(tmp, task_vars)
        _spec, arguments = self.validate_argument_spec(argument_spec=ARGUMENTS)
        try:
            hosts = names(arguments["hosts"])
            arguments.update(bounds(arguments))
        except FleetError as error:
            return {**result, **failed(error)}
        if self._task.check_mode:
            asked = {host: {"skipped": True, "seconds": None} for host in hosts}
            result.update(changed=False, skipped=True, hosts=asked, seconds=0.0, msg="check mode asks no host")
            return result
        begun = time.monotonic()
        try:
            told = through_cells(self, arguments, task_vars["hostvars"], hosts) if arguments["by_cell"] else {}
        except FleetError as error:
            return {**result, **failed(error)}
        answers = {**told, **self.asked([host for host in hosts if host not in told], arguments, task_vars)}
        answers = {host: answers[host] for host in hosts}
        result.update(changed=True, hosts=answers, seconds=round(time.monotonic() - begun, 3))
        return result

    def asked(self, hosts, arguments, task_vars):
        """What these hosts answer to the controller itself."""
        if not hosts:
            return {}
        reach = Reach(
            self, task_vars, arguments["command"], arguments["connect_timeout"], arguments["timeout"],
            arguments["kex_algorithms"], arguments["stdout_bytes"],
        )  # fmt: skip
        logins, most = fanout.limits(environment())
        progress = Progress(self._display)
        keep = saver(arguments["save_to"], hosts)
        run = fanout.FanOut(hosts, reach.launch, arguments["logins"] or logins, most, progress, keep)
        with Interrupted(run):
            answers = run.run()
        progress.end(run.counts(time.monotonic()))
        return answers


def through_cells(action, arguments, hostvars, hosts):
    """What those hosts answer whose cell has a controller; of a cell that is lost none, so that they are asked here."""
    if not cell_steps.any_controller(hostvars, hosts):
        return {}
    given = {name: arguments[name] for name in ("command", "connect_timeout", "timeout", "logins", "kex_algorithms")}
    done = cell_steps.do(
        cell_steps.Step("command", values.plain(given)), hostvars, hosts, None, action._display.warning
    )
    return done.command


def saver(folder, hosts):
    """What makes of a host's result one whose output lies in a file of the folder; no folder: what it was."""
    if not folder:
        return lambda _host, result: result
    numbers = {host: number for number, host in enumerate(hosts, 1)}

    def keep(host, result):
        # The number and not the name: a name may hold any letter.
        path = Path(folder) / f"{numbers[host]:05d}.out"
        try:
            write_file(path, result["stdout"].encode("utf-8", "replace"), 0o600)
        except OSError as error:
            why = f"its output cannot be kept on the controller: {explain(error, 'EF_ARGUMENT').message}"
            return dict(result, stdout="", failed=True, msg=why)
        return {**result, "stdout": "", "stdout_file": str(path)}

    return keep


class Progress:
    """A line on standard error when something changed, at most one a second, none for a short run."""

    def __init__(self, display):
        self.display = display
        self.last = None

    def __call__(self, counts):
        changed = self.last is None or counts[:3] != self.last[:3]
        late = self.last is not None and counts.seconds - self.last.seconds >= REPEAT_SECONDS
        if counts.seconds >= QUIET_SECONDS and (changed or late):
            self.say(counts)

    def end(self, counts):
        """The last line, where there was a first one."""
        if self.last is not None and counts[:3] != self.last[:3]:
            self.say(counts)

    def say(self, counts):
        self.last = counts
        answered, failed, outstanding, seconds = counts
        self.display.display(
            f"fan-out: {answered} answered, {failed} failed, {outstanding} outstanding, {seconds:.0f} s", stderr=True
        )


class Interrupted:
    """Ends the hosts' processes too when Ansible ends this one: they are in sessions of their own."""

    def __init__(self, run):
        self.run = run

    def __enter__(self):
        self.before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        for number in self.before:
            signal.signal(number, self.end)

    def __exit__(self, *_error):
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def end(self, number, frame):
        self.run.kill_all()
        before = self.before[number]
        if callable(before):
            before(number, frame)
        os._exit(1)


def names(hosts):
    """The exact names, each once; a text would have to be split, and a name may hold any separator."""
    if isinstance(hosts, str) or not isinstance(hosts, (list, tuple)):
        raise FleetError(
            "EF_ARGUMENT", "hosts: give a list of inventory names, as ansible_play_hosts_all is, not a text"
        )
    found = list(dict.fromkeys(str(host) for host in hosts))
    if not found:
        raise FleetError("EF_HOSTS", "hosts: the list is empty; name at least one host for the command")
    return found


READERS = {
    "connect_timeout": values.decimal(1, 3600),
    "timeout": values.decimal(1, 3600),
    "logins": values.whole(0, 4096),
    "stdout_bytes": values.whole(1024, output.FLOOD_BYTES),
}


def bounds(arguments):
    """Times and numbers, also as text; what cannot be meant is refused by name."""
    return {name: read(name, arguments[name]) for name, read in READERS.items()}


def environment():
    """What the controller has: CPUs, descriptors (raised to what is allowed) and free memory."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 65536 if hard == resource.RLIM_INFINITY else min(hard, 65536)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    files = 65536 if soft == resource.RLIM_INFINITY else soft
    return {"cpus": cpus, "files": files, "free_bytes": free_bytes()}


def free_bytes():
    """Memory that can be had, in bytes; 1 GiB where it cannot be read."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            found = [line.split()[1] for line in file if line.startswith("MemAvailable:")]
        return int(found[0]) * 1024
    except (OSError, ValueError, IndexError):
        return 1 << 30
