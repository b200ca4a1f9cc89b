# SPDX-License-Identifier: GPL-3.0-or-later
"""A kill order to many hosts, proved on each, beside what else reaches them: raw, clush, and OpenSSH by itself.

The hosts are sshd processes in namespaces of this machine (tests/support/sshhosts.py), each with /etc, /run and
/var/lib of its own: real logins, the real script, and the kernel asked on each. The peers run `true` and prove nothing.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Iterator, NamedTuple, Sequence

from ansible_collections.ebpf.fleet.plugins.module_utils.kill import script as killscript

from tests.support import sshhosts
from tests.support.play import ROOT
from tools.bench.group import Group
from tools.bench.machine import say
from tools.bench.report import Result, result

HOSTS = int(os.environ.get("EBPF_FLEET_BENCH_FAN_OUT", "200"))
ROUNDS = int(os.environ.get("EBPF_FLEET_BENCH_FAN_OUT_ROUNDS", "3"))
LIMIT_SECONDS = 1200
KEX = "^curve25519-sha256"
LOGINS = 16 * (os.cpu_count() or 1)  # at once, as ours has by default
LARGE = (10_000, 50_000)
CORES = 8
NOTES: list[str] = []


class Spent(NamedTuple):
    """CPU seconds of the controller and all that it started, seconds, and the most bytes at once, None: not counted."""

    cpu: float
    wall: float
    peak: int | None


class Controller:
    """Runs the ways of reaching a fleet, each in a cgroup of its own."""

    def __init__(self, folder: Path, fleet: sshhosts.Hosts) -> None:
        self.folder, self.fleet = folder, fleet
        self.inventory = fleet.inventory(ansible_python_interpreter=sys.executable)
        self.addresses = [each["ansible_host"] for each in fleet.variables.values()]
        self.options = [
            "-F", "none", "-i", str(folder / "user_key"), "-p", str(sshhosts.PORT), "-l", "root", "-o", "BatchMode=yes",
            "-o", f"UserKnownHostsFile={folder}/known_hosts", "-o", "ControlMaster=no",
        ]  # fmt: skip

    def run(self, name: str, command: Sequence[str], said: str, **settings: str) -> Spent:
        """Run it; `said` is what its output has to say; without it nothing was measured."""
        log = self.folder / "said.txt"
        quiet = {key: value for key, value in os.environ.items() if not key.startswith(("ANSIBLE_", "_ANSIBLE"))}
        group = Group("fan-out")
        begun, before = time.monotonic(), group.seconds()
        try:
            with log.open("w") as file:
                done = subprocess.run(
                    group.enter(command), cwd=self.folder, env={**quiet, **settings}, stdout=file,
                    stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, timeout=LIMIT_SECONDS, check=False,
                )  # fmt: skip
            spent = Spent(group.seconds() - before, time.monotonic() - begun, group.peak_bytes())
        finally:
            group.end()
        text = log.read_text(errors="replace")
        if done.returncode or not re.search(said, text):
            raise SystemExit(f"bench: {name} did not reach all hosts (exit {done.returncode}): {text[-2000:]}")
        return spent

    def ours(self) -> Spent:
        """The playbook, as a person gives it: the order, and the proof of every host."""
        settings = {
            "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections"), "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "XDG_STATE_HOME": str(self.folder / "state"), "PYTHONPATH": f"{ROOT}:{ROOT / 'collections'}",
            "ANSIBLE_NOCOLOR": "1", "PWD": str(self.folder),
        }  # fmt: skip
        command = [sys.executable, "-m", "ansible", "playbook", "ebpf.fleet.rollback", "-i", str(self.inventory),
                   "-e", "scope=global"]  # fmt: skip
        return self.run("rollback.yml", command, rf"proved off {len(self.addresses)}\b", **settings)

    def raw(self) -> Spent:
        """`ansible -m raw` with nothing set: five hosts at once, and OpenSSH's own key exchange."""
        command = [sys.executable, "-m", "ansible", "adhoc", "all", "-i", str(self.inventory), "-m", "raw", "-a",
                   "true"]  # fmt: skip
        empty = self.folder / "empty.cfg"
        empty.write_text("[defaults]\n")
        return self.run("ansible -m raw", command, "CHANGED", ANSIBLE_CONFIG=str(empty), ANSIBLE_NOCOLOR="1")

    def clush(self) -> Spent:
        # It has its own options for the user; the rest goes to ssh as it is.
        ssh = " ".join(self.options)
        command = ["clush", "-q", "-S", "-w", ",".join(self.addresses), "-o", ssh, "true"]
        return self.run("clush", command, "")

    def plain(self, command: str = "true") -> Spent:
        """OpenSSH from one asyncio process, with the key exchange and as many logins at once as ours."""
        asked = {
            "hosts": self.addresses, "ssh": ["ssh", *self.options, "-o", f"KexAlgorithms={KEX}"], "command": command,
            "at_once": LOGINS,
        }  # fmt: skip
        place = self.folder / "plain.json"
        place.write_text(json.dumps(asked))
        words = [sys.executable, str(ROOT / "tools/bench/plain_ssh.py"), str(place)]
        return self.run("asyncio and OpenSSH", words, rf"^{len(self.addresses)}$")


def peers(controller: Controller) -> dict[str, Any]:
    same = killscript.command(killscript.render(["global"]))
    return {
        "ansible -m raw -a true": controller.raw,
        "clush true": controller.clush,
        "asyncio + OpenSSH, true": controller.plain,
        "asyncio + OpenSSH, our script": lambda: controller.plain(same),
    }


def fan_out() -> Iterator[Result]:
    """All of them in turns over HOSTS hosts; ours once more over a quarter, for what follows of larger fleets."""
    reason = sshhosts.why_not()
    if reason:
        say(f"no namespace hosts: {reason}")
        NOTES.append(f"Not measured: the fan-out over namespace hosts: {reason}.")
        return
    few = _of(HOSTS // 4, lambda controller: {"ours": [controller.ours() for _round in range(ROUNDS)]})["ours"]
    spent = _of(HOSTS, _in_turns)
    ours = spent.pop("rollback.yml")
    for peer, theirs in spent.items():
        yield from _beside(ours, peer, theirs)
    yield from _extrapolated(few, ours)
    _note(ours)


def _of(count: int, measure: Any) -> dict[str, list[Spent]]:
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        folder.chmod(0o755)  # users of the namespaces look into it
        with sshhosts.hosts(folder, *["good"] * count) as fleet:
            found: dict[str, list[Spent]] = measure(Controller(folder, fleet))
            return found


def _in_turns(controller: Controller) -> dict[str, list[Spent]]:
    ways = {"rollback.yml": controller.ours, **peers(controller)}
    spent: dict[str, list[Spent]] = {name: [] for name in ways}
    for number in range(ROUNDS):
        for name, way in ways.items():
            say(f"fan-out, round {number + 1} of {ROUNDS}: {name}")
            spent[name].append(way())
    return spent


def _beside(ours: list[Spent], peer: str, theirs: list[Spent]) -> Iterator[Result]:
    name = f"kill order to {HOSTS} hosts, proved"
    of = [[1000 * one.cpu / HOSTS for one in each] for each in (ours, theirs)]
    yield result(f"{name}: controller's CPU per host", "ms", of[0], peer, of[1])
    yield result(f"{name}: wall time", "s", [one.wall for one in ours], peer, [one.wall for one in theirs])
    peaks = [[one.peak / 2**20 for one in each if one.peak is not None] for each in (ours, theirs)]
    yield result(f"{name}: controller's memory at its peak", "MiB", peaks[0], peer, peaks[1])


def line(first: tuple[float, float], second: tuple[float, float], at: float) -> float:
    """The value at `at` of the straight line through two points (x, y)."""
    (x, y), (other_x, other_y) = first, second
    return y + (at - x) * (other_y - y) / (other_x - x)


def _extrapolated(few: list[Spent], many: list[Spent]) -> Iterator[Result]:
    """Seconds of work on CORES cores, and memory, of one controller: the line through HOSTS / 4 and HOSTS, by the least
    of the rounds of each, which other work on the machine disturbed least."""
    for hosts in LARGE:
        ends = [(HOSTS // 4, few), (HOSTS, many)]
        cpu = line(*((count, min(one.cpu for one in each)) for count, each in ends), at=hosts)
        yield result(f"extrapolated: work of one controller for {hosts:,} hosts", "s", [cpu / CORES], "", [])
        if all(one.peak is not None for each in (few, many) for one in each):
            peak = line(*((count, min(one.peak or 0 for one in each)) for count, each in ends), at=hosts)
            yield result(f"extrapolated: its memory for {hosts:,} hosts", "MiB", [peak / 2**20], "", [])


def _note(ours: list[Spent]) -> None:
    NOTES.append(
        f"`kill order to {HOSTS} hosts`: `rollback.yml -e scope=global` over real OpenSSH to namespaces of this "
        "machine. Ours places the order and asks the kernel of each host what is left; the peers run `true`, but for "
        "the last, which runs our script without reading its answer. `ansible -m raw` and `clush` have their own "
        f"defaults, OpenSSH's key exchange among them; OpenSSH from asyncio has `{KEX}` and {LOGINS} logins at once, "
        "as ours has. CPU and memory are of a cgroup with all that the command starts; memory counts files that it "
        "reads. The hosts' own work is not in the CPU, but in the wall time: it is done by the same cores."
    )
    NOTES.append(
        f"`extrapolated` to {LARGE[0]:,} and {LARGE[1]:,} hosts: CPU and memory grow as a line through {HOSTS // 4} "
        f"and {HOSTS} hosts, and {CORES} cores share the CPU; hosts answer at once and do their work on their own "
        f"cores. What a fleet adds is its network: {LOGINS} logins are under way at once, so that a login that takes "
        f"100 ms by the network alone is {LARGE[0] * 0.1 / LOGINS:.0f} s for {LARGE[0]:,} hosts; raise "
        "`ebpf_fleet_logins` there."
    )
