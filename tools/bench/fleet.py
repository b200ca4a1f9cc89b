# SPDX-License-Identifier: GPL-3.0-or-later
"""What a rollout costs its controller, beside no-op modules on the same hosts; and its wall time with more controllers.

The hosts are sshd processes in namespaces of this machine: real logins, real payloads, real transfers. What would need
a kernel for each (200 loaders with BPF) is answered by a script: a module stands in for each of ours, which is as large
and says as much, and waits as long as a host of ours may.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Iterator, NamedTuple, Sequence

from ansible_collections.ebpf.fleet.plugins.module_utils.bundle import files as bundle_files
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.plan import Wishes, plan

from tests.integration.release_host import make_bundle, make_key, public_key
from tests.support import sshhosts
from tests.support.play import ROOT
from tools.bench.group import Group
from tools.bench.machine import say
from tools.bench.report import Result, result

HOSTS = int(os.environ.get("EBPF_FLEET_BENCH_FLEET", "200"))
CONTROLLERS = 4
# Hosts that a controller of the comparison asks at once, and seconds that a host works on each step.
FORKS, WORK_SECONDS = 5, 0.5
LIMIT_SECONDS = 3600
LARGE, CELLS = 50_000, 50
CORES = 8
NOTES: list[str] = []
# Our modules that run on a host in a rollout, by the task that calls each: measured twice.
MODULES = ("capability_facts", "observation_info", "host_prepare", "release", "lease")
STEPS = 6
# A line for a host: what became of a task there, and who did it for it. An include says all of its hosts in one line.
RAN = re.compile(r"^(?:(?:ok|changed|skipping): \[([^] ]+)|included: .* for (.+))", re.M)
STAND_IN = """

if __name__ == "__main__":
    import json
    import sys
    import time

    time.sleep({seconds})
    print(json.dumps({{**{answer!r}, "said": "x" * {bytes}}}))
    sys.exit(0)
"""
# Bytes that a healthy host answers.
SAYS = {"capability_facts": 12_000, "observation_info": 9_000, "host_prepare": 1_500, "release": 1_500, "lease": 300}
PROFILE = {"profile": "full", "variant": "full", "reason_code": "EF_OK", "reason": "fits"}
FACTS = {"kernel": {"family": "6.1", "release": "6.1.0-1"}, "machine": "x86_64", "distro": {"id": "debian"},
         "btf": {"state": "vmlinux"}}  # fmt: skip


class Spent(NamedTuple):
    """What one playbook took: seconds of CPU of the controller and all that it started, of those in `cells` those of
    the cells' controllers; seconds; exit status; and what it printed."""

    cpu: float
    wall: float
    status: int
    said: str
    cells: float = 0.0


class Tasks(NamedTuple):
    """How many tasks a play has: `each` are run for every host, `once` for one of them."""

    each: int
    once: int


class Bench:
    """Hosts, the collection with stand-ins, and a bundle, in one folder."""

    def __init__(self, folder: Path, fleet: sshhosts.Hosts) -> None:
        self.folder, self.fleet = folder, fleet
        self.bundle = folder / "bundle.tar"
        self.bundle.write_bytes(bundle_files.as_tar(make_bundle()))
        self.signers = f'release@example.org namespaces="ebpf-fleet-release" {public_key(make_key())}'
        names = sorted(fleet.names)
        self.cells = {name: f"cell-{index % CONTROLLERS}" for index, name in enumerate(names)}

    def collection(self, seconds: float) -> Path:
        """The collection with real actions and stand-ins on the hosts, which work for so long."""
        place = self.folder / f"collections-{seconds}"
        fleet = place / "ansible_collections/ebpf/fleet"
        if fleet.exists():
            return place
        for kind in ("action", "modules"):
            (fleet / "plugins" / kind).mkdir(parents=True)
            for path in (ROOT / "plugins" / kind).glob("*.py"):
                (fleet / "plugins" / kind / path.name).symlink_to(path)
        for one in ("galaxy.yml", "meta", "playbooks", "roles"):
            (fleet / one).symlink_to(ROOT / one)
        for path in (ROOT / "plugins").iterdir():
            if path.name not in ("action", "modules", "__pycache__"):
                (fleet / "plugins" / path.name).symlink_to(path)
        for name in (*MODULES, "gate"):
            action = fleet / f"plugins/action/{name}.py"
            action.unlink(missing_ok=True)
            found = f"answered_by_script({name!r})"
            action.write_text(f"from tools.bench.fleet_action import answered_by_script\nActionModule = {found}\n")
        for name in MODULES:
            module = fleet / f"plugins/modules/{name}.py"
            source = module.read_text().split('\nif __name__ == "__main__":')[0]
            module.unlink()
            answer: dict[str, Any] = {"changed": name in ("release", "lease")}
            if name == "release":
                answer["lease"] = {"seconds": 400, "holder": "x"}
            module.write_text(source + STAND_IN.format(seconds=seconds, answer=answer, bytes=SAYS[name]))
        return place

    def script(self) -> None:
        passed = {"verdict": "pass", "sentence": "scripted", "checks": [], "reasons": [], "next": []}
        observed = {"observation": {"start": {}, "end": {"status": {"bundle": {"digest": "0" * 64}, "lease": None}}}}
        profiles = {"exec_events": PROFILE, "runqlat": PROFILE}
        answers = {"gate": passed, "observation_info": observed,
                   "capability_facts": {"capabilities": FACTS, "profiles": profiles}}  # fmt: skip
        (self.folder / "script.json").write_text(json.dumps(answers))

    def inventory(self, controllers: bool = False) -> Path:
        """Of all hosts in CONTROLLERS cells; with a controller for each cell where that is wanted."""
        for name, cell in self.cells.items():
            self.fleet.variables[name].update(ebpf_fleet_cell=cell, ebpf_fleet_region="r")
        # Each in a cgroup beside the coordinator's, so that its part is known.
        runner = Group("cells").enter([sys.executable, "-m", "ansible_runner"])
        local = {"local": True, "runner": runner}
        own: dict[str, Any] = (
            {"ebpf_fleet_cell_controllers": {cell: local for cell in set(self.cells.values())}} if controllers else {}
        )
        return self.fleet.inventory(ansible_python_interpreter=sys.executable, **own)

    def play(
        self, playbook: str, variables: dict[str, Any], *, seconds: float, forks: int, controllers: bool = False
    ) -> Spent:
        """Run a playbook in a cgroup of its own."""
        self.script()
        place = self.collection(seconds)
        command = [sys.executable, "-m", "ansible", "playbook", playbook, "-i", str(self.inventory(controllers)),
                   "-e", json.dumps(variables), "-f", str(forks)]  # fmt: skip
        settings = {
            **os.environ, "ANSIBLE_COLLECTIONS_PATH": str(place), "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"),
            "ANSIBLE_NOCOLOR": "1", "ANSIBLE_LOCALHOST_WARNING": "false", "EBPF_FLEET_SCRIPT": str(self.folder),
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "collections")]),
            "XDG_STATE_HOME": str(self.folder / f"state-{time.monotonic_ns()}"), "PWD": str(self.folder),
        }  # fmt: skip
        group, cells = Group(), Group("cells")
        log = self.folder / "playbook.log"
        begun, before, cells_before = time.monotonic(), group.seconds(), cells.seconds()
        try:
            with log.open("w") as file:
                done = subprocess.run(
                    group.enter(command), cwd=self.folder, env=settings, stdout=file, stderr=subprocess.STDOUT,
                    stdin=subprocess.DEVNULL, timeout=LIMIT_SECONDS, check=False,
                )  # fmt: skip
            wall = time.monotonic() - begun
            of_cells = cells.seconds() - cells_before
            cpu = group.seconds() - before + of_cells
            return Spent(cpu, wall, done.returncode, log.read_text(), of_cells)
        finally:
            group.end()
            cells.end()

    def rollout(self, *, seconds: float = 0, forks: int = 20, controllers: bool = False, **more: Any) -> Spent:
        """A whole rollout without bakes; it must end well."""
        given = {"ebpf_fleet_bundle": str(self.bundle), "ebpf_fleet_allowed_signers": self.signers,
                 "ebpf_fleet_bake": 0, "ebpf_fleet_window_before": 0, "ebpf_fleet_window_after": 0,
                 "ebpf_fleet_control_hosts": 0, **more}  # fmt: skip
        spent = self.play("ebpf.fleet.rollout", given, seconds=seconds, forks=forks, controllers=controllers)
        if spent.status != 0:
            raise SystemExit(f"bench: the rollout over namespace hosts did not end well: {spent.said[-4000:]}")
        return spent

    def bare(self, serial: Sequence[int], before: Tasks, batch: Tasks) -> Spent:
        """No-op tasks in batches of the same sizes, by the same road, as many as before the batches and in each.

        Of each play's tasks for every host, as many are modules on the host as the rollout has there.
        """
        plays = [
            {"hosts": "all", "gather_facts": False, "tasks": no_ops(before, 1)},
            {"hosts": "all", "gather_facts": False, "serial": list(serial), "tasks": no_ops(batch, STEPS - 1)},
        ]
        playbook = self.folder / "bare.yml"
        playbook.write_text(json.dumps(plays))
        spent = self.play(str(playbook), {}, seconds=0, forks=20)
        if spent.status != 0:
            raise SystemExit(f"bench: no-op tasks on namespace hosts did not end well: {spent.said[-4000:]}")
        return spent


def no_ops(tasks: Tasks, modules: int) -> list[dict[str, Any]]:
    """So many tasks that do nothing, `modules` of them on the hosts."""
    on_host: dict[str, Any] = {"ansible.builtin.ping": {}}
    here: dict[str, Any] = {"ansible.builtin.assert": {"that": True, "quiet": True}}
    every = [on_host] * modules + [here] * (tasks.each - modules)
    plain = [{"name": f"Nothing {number}", **one} for number, one in enumerate(every)]
    return plain + [{"name": f"Nothing once {number}", "run_once": True, **here} for number in range(tasks.once)]


def tasks_of(printed: str, play: str) -> Tasks:
    """The tasks of the first play of that name with several hosts, by what ansible-playbook printed."""
    for part in re.split(r"^PLAY ", printed, flags=re.M)[1:]:
        if not part.startswith(f"[{play}]"):
            continue
        hosts = [
            len({name for one, several in RAN.findall(section) for name in (one or several).split(", ")})
            for section in re.split(r"^TASK ", part, flags=re.M)[1:]
        ]
        if max(hosts, default=0) > 1:
            return Tasks(sum(count > 1 for count in hosts), sum(count == 1 for count in hosts))
    raise ValueError(f"no play {play} with several hosts was printed")


def serial_of(cells: dict[str, str]) -> list[int]:
    """Sizes of the batches of the default plan of these hosts."""
    hosts = [
        {"name": name, "cell": cell, "region": "r", "stratum": "6.1/x86_64/debian"} for name, cell in cells.items()
    ]
    return list(plan(hosts, Wishes())["serial"])


@contextlib.contextmanager
def bench(count: int) -> Iterator[Bench]:
    """So many hosts; EBPF_FLEET_BENCH_FLEET says how many."""
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        # Ansible's own copies of what it sends are looked up by users of namespaces.
        folder.chmod(0o755)
        with sshhosts.hosts(folder, *["good"] * count) as fleet:
            yield Bench(folder, fleet)


def fleet() -> Iterator[Result]:
    """A rollout beside no-op modules; one controller beside four; and what follows for a large fleet."""
    reason = sshhosts.why_not()
    if reason:
        say(f"no namespace hosts: {reason}")
        NOTES.append(f"Not measured: rollouts over namespace hosts: {reason}.")
        return
    with bench(HOSTS) as made:
        serial = serial_of(made.cells)
        ours = made.rollout()
        modules = made.bare(serial, Tasks(1, 0), Tasks(STEPS - 1, 0))
        before, batch = tasks_of(ours.said, "Plan the rollout"), tasks_of(ours.said, "Roll out")
        tasks = made.bare(serial, before, batch)
        name = f"rollout over {HOSTS} hosts in {len(serial)} batches: controller's CPU per host"
        yield result(name, "ms", [1000 * ours.cpu / HOSTS], "as many no-op tasks", [1000 * tasks.cpu / HOSTS])
        of_modules = f"{name}, beside its modules alone"
        yield result(of_modules, "ms", [1000 * ours.cpu / HOSTS], "as many no-op modules", [1000 * modules.cpu / HOSTS])
        one_wave: dict[str, Any] = {"ebpf_fleet_stages": [{"stage": "fleet"}], "ebpf_fleet_fleet_percent": 100,
                    "ebpf_fleet_cell_percent": 100}  # fmt: skip
        alone = made.rollout(seconds=WORK_SECONDS, forks=FORKS, **one_wave)
        four = made.rollout(seconds=WORK_SECONDS, forks=FORKS, controllers=True, **one_wave)
        name = f"rollout over {HOSTS} hosts in one wave on {CONTROLLERS} cell controllers"
        yield result(f"{name}: wall time", "s", [four.wall], "one controller", [alone.wall])
        yield result(f"{name}: CPU of all controllers", "s", [four.cpu], "one controller", [alone.cpu])
        yield extrapolated(alone.cpu / HOSTS, (four.cpu - four.cells) / HOSTS, four.cells / HOSTS)
        note(ours, modules, tasks, before, batch, made.bundle.stat().st_size)


def extrapolated(alone: float, coordinator: float, cell: float) -> Result:
    """Hours of work for LARGE hosts, by the CPU seconds that each host took: of one controller; or of the coordinator,
    which is one, and of a cell's controller, of which there are CELLS."""
    one = LARGE * alone / CORES / 3600
    many = LARGE * (coordinator + cell / CELLS) / CORES / 3600
    name = f"extrapolated: work of controllers for {LARGE:,} hosts, {CELLS} cells with one each"
    return result(name, "h", [many], "one controller", [one])


def note(ours: Spent, modules: Spent, tasks: Spent, before: Tasks, batch: Tasks, bundle: int) -> None:
    """What the rows hold, and what the extrapolation assumes."""
    NOTES.append(
        f"`rollout over {HOSTS} hosts`: real OpenSSH to namespaces of this machine; the hosts' modules are stand-ins "
        f"of the same size that answer by a script, as {HOSTS} loaders with BPF in one kernel are impossible. {STEPS} "
        f"modules reach each host (ask, measure, prepare, deploy, measure, confirm); the bundle, {bundle / 1024:.0f} "
        "KiB, is sent besides. All of ansible-playbook and its ssh is counted, by a cgroup: "
        f"{ours.cpu:.1f} s of CPU in {ours.wall:.0f} s. Windows and bakes are 0; each was run once."
    )
    NOTES.append(
        f"`As many no-op tasks` ({tasks.cpu:.1f} s in {tasks.wall:.0f} s): {before.each} for each host and "
        f"{before.once} for all before the first batch, {batch.each} and {batch.once} in each batch, counted in what "
        "the rollout printed: `ping` where a module reaches the host, `assert` elsewhere. "
        f"`As many no-op modules` ({modules.cpu:.1f} s in {modules.wall:.0f} s): the `ping` alone."
    )
    NOTES.append(
        f"`on {CONTROLLERS} cell controllers`: all on this machine, each with {FORKS} forks, as the one has; "
        f"a host works {WORK_SECONDS} s on each step. Waiting is shared out so; this machine's cores are one for all."
    )
    NOTES.append(
        f"`extrapolated`, {LARGE:,} hosts, assumes: the CPU for each host that was measured here, at every size; "
        f"{CORES} cores like this machine's in each controller, all busy; equal cells, whose controllers work at the "
        "same time, after the coordinator's own work, which is not shared out. Bakes, windows and waiting come on top, "
        "the same for both."
    )


if __name__ == "__main__":
    for row in fleet():
        print(json.dumps(row))
    print("\n".join(NOTES))
