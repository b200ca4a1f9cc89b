# SPDX-License-Identifier: GPL-3.0-or-later
"""Measure ours beside a peer, on the same hosts and in the same run: `make bench`.

Writes build/bench/results.json, a list of {name, unit, ours, peer, peer_value, ratio}; ratio is
ours / peer_value: of costs, below 1 is cheaper; of rates, above 1 is faster. Runs alternate, and
medians are compared, because the machine's pace changes. Another benchmark is one more function in BENCHES.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, Iterator, Sequence

from tests.oracle.witnesses import lab_ports
from tests.support.play import ROOT, environment
from tools.bench import bcc, fan_out, fleet, idle, page, plan
from tools.bench.events import CURVES, execs, saturation
from tools.bench.kill import kill
from tools.bench.machine import machine, make_ready, say, statistics_on
from tools.bench.report import Result, result, rows
from tools.bench.runqlat import runqlat

OUT = ROOT / "build/bench/results.json"
ROUNDS = int(os.environ.get("EBPF_FLEET_BENCH_ROUNDS", "5"))
INVENTORY = ROOT / "inventories/lab/hosts.yml"


def hosts() -> list[str]:
    """This machine, and each lab VM that is up or that EBPF_FLEET_BENCH_HOSTS names."""
    up = lab_ports()
    chosen = os.environ.get("EBPF_FLEET_BENCH_HOSTS")
    return ["localhost", *(name for name in up if chosen is None or name in chosen.split(","))]


TASKS = {
    "capability_facts": {"ebpf.fleet.capability_facts": {}},
    "capability_facts helpers=all": {"ebpf.fleet.capability_facts": {"helpers": "all"}},
    "setup": {"ansible.builtin.setup": {}},
    "bpftool": {"ansible.builtin.command": {"argv": ["bpftool", "feature", "probe", "-j"]}},
}


def play_of(name: str) -> list[dict[str, Any]]:
    """A play that runs each task ROUNDS times, in turns, after one round that only warms up."""
    tasks = [
        {**task, "name": label, "changed_when": False, "ignore_errors": label == "bpftool"}
        for _round in range(ROUNDS + 1)
        for label, task in TASKS.items()
    ]
    variables = {"ansible_python_interpreter": sys.executable} if name == "localhost" else {}
    return [{"hosts": name, "gather_facts": False, "vars": variables, "tasks": tasks}]


def task_times(name: str) -> dict[str, list[float]]:
    """Seconds of each run by task on one host, as the profile of ansible's own JSON callback says."""
    with tempfile.TemporaryDirectory() as folder:
        playbook = Path(folder) / "play.json"
        playbook.write_text(json.dumps(play_of(name)))
        inventory = ["-i", "localhost,", "-c", "local"] if name == "localhost" else ["-i", str(INVENTORY)]
        settings = {**environment(), "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.minimal"}
        settings["ANSIBLE_CALLBACKS_ENABLED"] = "task_stamps"
        settings["ANSIBLE_CALLBACK_PLUGINS"] = str(ROOT / "tools/bench/callbacks")
        settings["EBPF_FLEET_BENCH_STAMPS"] = str(Path(folder) / "stamps.jsonl")
        command = [sys.executable, "-m", "ansible", "playbook", *inventory, str(playbook)]
        done = subprocess.run(command, cwd=ROOT, env=settings, capture_output=True, text=True, check=False)
        stamps = Path(folder) / "stamps.jsonl"
        if not stamps.exists():
            raise SystemExit(f"bench: {name}: ansible-playbook said nothing of its tasks: {done.stdout[-2000:]}")
        return read_stamps(stamps)


def read_stamps(path: Path) -> dict[str, list[float]]:
    """Seconds by task of the runs that did not fail, without the first, which warms up."""
    times: dict[str, list[float]] = {}
    for line in path.read_text().splitlines():
        stamp = json.loads(line)
        times.setdefault(stamp["task"], []).append(stamp["seconds"] if stamp["ok"] else float("nan"))
    return {task: [one for one in each[1:] if one == one] for task, each in times.items()}


def facts_by_ansible() -> Iterator[Result]:
    """capability_facts beside setup, and beside bpftool by the same road, per host."""
    for name in hosts():
        times = task_times(name)
        for ours in ("capability_facts", "capability_facts helpers=all"):
            for label, peer in (("setup", "ansible.builtin.setup"), ("bpftool", "bpftool feature probe by command")):
                if times.get(ours) and times.get(label):
                    yield result(f"{ours} on {name}", "s", times[ours], peer, times[label])


GATHER = """
import sys, time
sys.path.insert(0, sys.argv[1])
from ansible_collections.ebpf.fleet.plugins.module_utils.facts import capabilities
capabilities.gather([], all_helpers=sys.argv[2] == "all")
"""


def _seconds(command: Sequence[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


def facts_alone() -> Iterator[Result]:
    """The questions alone on this machine, Python's start included, beside bpftool."""
    for which in ("contracts", "all"):
        ours, theirs = [], []
        for _round in range(ROUNDS):
            ours.append(_seconds([sys.executable, "-S", "-c", GATHER, str(ROOT / "collections"), which]))
            theirs.append(_seconds(["bpftool", "feature", "probe", "-j"]))
        yield result(f"facts without Ansible, helpers={which}", "s", ours, "bpftool feature probe", theirs)


BENCHES: dict[str, Callable[[], Iterator[Result]]] = {
    "saturation": saturation,
    "execs": execs,
    "runqlat": runqlat,
    "idle": idle.idle,
    "kill": kill,
    "plan": plan.plan,
    "fan_out": fan_out.fan_out,
    "fleet": fleet.fleet,
    "facts": facts_alone,
    "ansible": facts_by_ansible,
    "bcc": bcc.bcc,
}


LINE = "{name:64} {ours!s:>12} {peer_value!s:>12} {unit:12} {peer:28} {ratio!s:>7}"


def chosen(names: Sequence[str]) -> list[str]:
    """The benchmarks to run: those named, else all."""
    unknown = sorted(set(names) - set(BENCHES))
    if unknown:
        raise SystemExit(f"bench: no benchmark {', '.join(unknown)}; there are {', '.join(BENCHES)}")
    return list(names) or list(BENCHES)


def main(names: Sequence[str]) -> int:
    """Run the benchmarks; print and write each result when it is there, as a run may be cut short."""
    wanted = chosen(names)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    make_ready()
    print(LINE.format(name="name", ours="ours", peer_value="peer", unit="unit", peer="which", ratio="ratio"))
    begun = time.monotonic()
    results: list[Result] = []
    with statistics_on():
        for name in wanted:
            say(f"{time.monotonic() - begun:.0f} s: {name}")
            for one in BENCHES[name]():
                results.append(one)
                OUT.write_text(json.dumps(rows(results), indent=1) + "\n")
                print(LINE.format(**one), flush=True)
    say(f"{time.monotonic() - begun:.0f} s: done")
    notes = [*idle.NOTES, *fan_out.NOTES, *fleet.NOTES, *bcc.NOTES]
    page.write(OUT.parent, machine(), results, CURVES, notes)
    if wanted == list(BENCHES):
        page.write(ROOT / "docs/benchmarks", machine(), results, CURVES, notes)
    return 0
