# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One job of a cell: ansible-runner transmit | worker | process, over SSH or here, each within its bounds.

The job brings all that it needs: this collection, the inventory of its hosts alone, and for a deployment the bundle.
What comes back is read with bounds, and only what may be believed is given to `process`.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import selectors
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from ansible import constants
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError, OneCodeError
from ansible_collections.ebpf.fleet.plugins.module_utils.base.printable import printable
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout import cell_stream, cells

COLLECTION = Path(__file__).parents[2]
PARTS = ("galaxy.yml", "MANIFEST.json", "meta", "plugins", "roles", "playbooks")
PLACE = "collections/ansible_collections/ebpf/fleet"
PLAYBOOK = f"{PLACE}/playbooks/cell_job.yml"
# Ours come after the inventory's: ssh takes what it meets first.
SSH = ("-o", "BatchMode=yes", "-o", "ConnectTimeout=15", "-o", "ServerAliveInterval=5", "-o", "ServerAliveCountMax=3")
CHUNK = 1 << 20
LAST_WORDS = 2000
# Seconds: for `process`, and for a worker whose stream has ended to end itself.
PROCESS_SECONDS, END_SECONDS = 300, 10
BESIDE = 'PATH="$1:$PATH"; export PATH; shift; exec "$@"'
INVENTORY = """#!/bin/sh
exec cat "$(dirname "$0")/../project/hosts.json"
"""


class CellLostError(OneCodeError):
    """The controller did not end its job; the message says how."""

    code = "EF_CELL_LOST"


def refuse_without_runner():
    """FleetError where this Python has no ansible-runner."""
    if importlib.util.find_spec("ansible_runner") is None:
        raise FleetError("EF_NO_RUNNER", f"{sys.executable} has no ansible-runner; install it there")


class Work:
    """What all jobs of a step have: where they are made, the hosts' variables, and their bounds in seconds."""

    def __init__(self, folder, variables, arguments, check, silence, bundle):
        self.folder, self.variables, self.arguments = Path(folder), variables, arguments
        self.check, self.silence, self.bundle = check, silence, bundle


class Job:
    """One job; `outcome` has then either answers, or the sentence on why there are none."""

    def __init__(self, work, controller, binding, seconds):
        self.work, self.controller, self.binding, self.seconds = work, controller, binding, seconds
        self.place = work.folder / binding.ident
        self.processes = []
        self.answers, self.sentence, self.took = None, "", None
        self.thread = threading.Thread(target=self._run, name=binding.cell, daemon=True)

    def _run(self):
        begun = time.monotonic()
        try:
            self.answers = self._answers()
        except CellLostError as error:
            self.sentence = cells.lost(self.binding.cell, self.controller, error.message)
        except FleetError as error:
            said = cells.lost if error.code == "EF_CELL_LOST" else cells.refused
            self.sentence = said(self.binding.cell, self.controller, error.message)
        except Exception as error:  # noqa: BLE001  # whatever it is: unknown, and told of this cell alone
            said = printable(f"{type(error).__name__}: {error}", LAST_WORDS)
            self.sentence = cells.lost(self.binding.cell, self.controller, f"could not be asked ({said})")
        finally:
            self.end()
            shutil.rmtree(self.place / "private", ignore_errors=True)
            self.took = round(time.monotonic() - begun, 3)

    def _answers(self):
        spool = self.place / "stream"
        private = self.place / "private"
        make_private(private, self)
        with spool.open("wb") as file:
            stream = self._exchange(private, file)
        if stream.failed:
            raise CellLostError(f"could not work: {printable(stream.failed, LAST_WORDS)}")
        return cell_stream.answers(process(self.place, spool, self.binding.ident), self.binding)

    def _exchange(self, private, file):
        """Send the job and read the worker's stream into a file, as far as it can be believed."""
        transmit = self._start(
            [sys.executable, "-m", "ansible_runner", "transmit", str(private), "-p", PLAYBOOK,
             "-i", self.binding.ident], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        worker = self._start(self._worker(), stdin=transmit.stdout, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        transmit.stdout.close()
        stream = cell_stream.Stream(len(self.binding.hosts))
        words = bytearray()
        until = time.monotonic() + self.seconds
        with selectors.DefaultSelector() as ready:
            for pipe, name in ((worker.stdout, "out"), (worker.stderr, "err"), (transmit.stderr, "err")):
                os.set_blocking(pipe.fileno(), False)
                ready.register(pipe, selectors.EVENT_READ, name)
            heard = time.monotonic()
            while any(key.fileobj is worker.stdout for key in ready.get_map().values()):
                now = time.monotonic()
                if now >= until:
                    raise CellLostError(f"did not end the step {self.binding.step} within {self.seconds} s")
                if now - heard >= self.work.silence:
                    raise CellLostError(f"said nothing for {self.work.silence} s in the step {self.binding.step}")
                for key, _mask in ready.select(min(until, heard + self.work.silence) - now):
                    data = os.read(key.fileobj.fileno(), CHUNK)
                    if not data:
                        ready.unregister(key.fileobj)
                    elif key.data == "err":
                        words += data
                        del words[:-LAST_WORDS]
                    else:
                        heard = time.monotonic()
                        file.writelines(stream.feed(data))
        if not stream.ended:
            with contextlib.suppress(subprocess.TimeoutExpired):
                worker.wait(END_SECONDS)
            said = printable(" ".join(words.decode("utf-8", "replace").split()), LAST_WORDS)
            ended = "hung up" if worker.returncode is None else f"ended with status {worker.returncode}"
            raise CellLostError(f"{ended} before its answer was whole{': ' if said else ''}{said}")
        stream.finish()
        return stream

    def _worker(self):
        # Its own bound ends a worker that no one listens to any more; later, so that whoever listens says why.
        command = ["timeout", "-k", "10", str(self.seconds + END_SECONDS), *self.controller.runner, "worker",
                   "--keepalive-seconds", str(cells.KEEPALIVE_SECONDS)]  # fmt: skip
        # A worker by its path has its ansible-playbook beside it.
        beside = os.path.dirname(self.controller.runner[0])
        command = ["sh", "-c", BESIDE, "sh", beside, *command] if os.path.isabs(beside) else command
        if self.controller.ssh is None:
            return command
        return ["ssh", *self.controller.options, *SSH, "--", self.controller.ssh, shlex.join(command)]

    def _start(self, command, **pipes):
        process = subprocess.Popen(command, start_new_session=True, env=environment(), **pipes)
        self.processes.append(process)
        return process

    def end(self):
        """End what still runs of it here."""
        for process in self.processes:
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGTERM if self.answers is not None else signal.SIGKILL)
            process.wait()
            for pipe in (process.stdout, process.stderr):
                if pipe is not None:
                    pipe.close()


def environment():
    """Without the settings of this run of ansible: a job has those of its own folder."""
    ours = ("ANSIBLE_", "_ANSIBLE_", "RUNNER_", "AWX_")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


def run(jobs):
    """Run all jobs at once, each within its own bound."""
    for job in jobs:
        job.thread.start()
    for job in jobs:
        job.thread.join()


def make_private(private, job):
    """The private data folder of a job, with all that it needs on the cell controller."""
    project = private / "project"
    place = project / PLACE
    place.mkdir(parents=True, mode=0o700)
    ignore = shutil.ignore_patterns("__pycache__", "*.pyc")
    for name in PARTS:
        source = COLLECTION / name
        if source.is_dir():
            shutil.copytree(source, place / name, ignore=ignore)
        elif source.exists():
            shutil.copy2(source, place / name)
    for folder in ("inventory", "env"):
        (private / folder).mkdir(mode=0o700)
    bundle = job.work.bundle
    if bundle:
        target = project / "bundle"
        shutil.copytree(bundle, target) if os.path.isdir(bundle) else shutil.copyfile(bundle, target)
    (project / "ansible.cfg").write_text(settings(len(job.binding.hosts)))
    (project / "hosts.json").write_text(json.dumps(inventory(job)))
    script = private / "inventory/hosts"
    script.write_text(INVENTORY)
    script.chmod(0o700)
    (private / "env/extravars").write_text(json.dumps({"cell_step": job.binding.step}))
    if job.work.check:
        (private / "env/cmdline").write_text("--check")


def inventory(job):
    """Of the job's hosts alone; it is data there, and no template once more."""
    asked = {
        "binding": job.binding.document(), "digest": job.binding.digest(), "arguments": job.work.arguments,
        "not_after": time.time() + job.seconds,
    }  # fmt: skip
    hosts = {host: unsafe(job.work.variables[host]) for host in job.binding.hosts}
    given = {"cell_job": unsafe(asked)}
    return {"all": {"hosts": list(job.binding.hosts), "vars": given}, "_meta": {"hostvars": hosts}}


def unsafe(value):
    """A copy in which no text is taken for a template."""
    if isinstance(value, dict):
        return {str(name): unsafe(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [unsafe(one) for one in value]
    if isinstance(value, str):
        return {"__ansible_unsafe": str(value)} if "{" in value else str(value)
    return value


def settings(hosts):
    """The coordinator's settings that a job has as well; others belong into the inventory."""
    ssh = (f"pipelining = {constants.config.get_config_value('ANSIBLE_PIPELINING')}",)
    return "\n".join((
        "[defaults]", "collections_path = ./collections", "interpreter_python = auto_silent",
        f"forks = {max(1, min(constants.DEFAULT_FORKS, hosts))}", f"timeout = {constants.DEFAULT_TIMEOUT}",
        f"host_key_checking = {constants.HOST_KEY_CHECKING}", "inject_facts_as_vars = False",
        "[connection]", *ssh, "[ssh_connection]", *ssh, "",
    ))  # fmt: skip


def process(place, spool, ident):
    """The events that `ansible-runner process` keeps of a stream, in their order."""
    command = [sys.executable, "-m", "ansible_runner", "process", str(place), "-i", ident]
    with spool.open("rb") as file:
        done = subprocess.run(
            command,
            env=environment(),
            stdin=file,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=PROCESS_SECONDS,
            check=False,
        )
    # 1 where a host failed, which is that host's answer.
    if done.returncode not in (0, 1):
        words = printable(done.stderr[-LAST_WORDS:].decode("utf-8", "replace"), LAST_WORDS)
        raise CellLostError(f"answered, but ansible-runner process ended here with status {done.returncode}: {words}")
    found = [
        json.loads(path.read_text("utf-8")) for path in (place / "artifacts" / ident / "job_events").glob("*.json")
    ]
    return sorted(found, key=lambda event: event["counter"])
