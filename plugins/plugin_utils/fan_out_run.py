# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Ask many hosts from one task of the controller: what the action fan_out does, for whatever else has to."""

from __future__ import annotations

import os
import resource
import signal
import time
from pathlib import Path

from ansible_collections.ebpf.fleet.plugins.module_utils.base import values
from ansible_collections.ebpf.fleet.plugins.module_utils.base.atomic_files import write_file
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import explain
from ansible_collections.ebpf.fleet.plugins.module_utils.hosts import fanout, output
from ansible_collections.ebpf.fleet.plugins.plugin_utils import cell_steps
from ansible_collections.ebpf.fleet.plugins.plugin_utils.host_connection import Reach

CONNECT_SECONDS = 10
SECONDS = 20
KEX_ALGORITHMS = "^curve25519-sha256"
QUIET_SECONDS = 2
REPEAT_SECONDS = 10


def answers_of(action, arguments, task_vars, hosts):
    """{host: result} of these hosts; of cells that have a controller by that one, where `by_cell` says so."""
    told = through_cells(action, arguments, task_vars["hostvars"], hosts) if arguments["by_cell"] else {}
    answers = {**told, **_asked(action, [host for host in hosts if host not in told], arguments, task_vars)}
    return {host: answers[host] for host in hosts}


def _asked(action, hosts, arguments, task_vars):
    """What these hosts answer to the controller itself."""
    if not hosts:
        return {}
    reach = Reach(
        action, task_vars, arguments["command"], arguments["connect_timeout"], arguments["timeout"],
        arguments["kex_algorithms"], arguments.get("stdout_bytes", output.HEAD_BYTES),
    )  # fmt: skip
    logins, most = fanout.limits(environment())
    progress = Progress(action._display)
    keep = saver(arguments.get("save_to", ""), hosts)
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
