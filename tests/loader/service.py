# SPDX-License-Identifier: GPL-3.0-or-later
"""Run the real service on this machine's kernel, with a real signed bundle and folders of its own."""

from __future__ import annotations

import copy
import json
import os
import platform
import re
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Iterator, Mapping

import yaml

from tests.loader.bundles import Bundle, Trust, canonical, make_bundle

ROOT = Path(__file__).resolve().parents[2]
FEATURES = ROOT / "bpf" / "features"
VARIANTS = ("full", "reduced")
# Tests of other things flood on purpose: what they ask of a feature is no budget's business.
ROOMY_BUDGET = {"cpu_millicores": 1000000, "map_memory_bytes": 1 << 40, "event_rate_per_second": 1000000000}
ROOMY_BUDGET["drop_ratio_ppm"] = 1000000
ROOMY_POLICY = {
    "schema": "ebpf.fleet/policy/v1",
    "host": {**ROOMY_BUDGET, "rss_bytes": 1 << 40, "map_fill_ppm": 1000000},
}


def contract_of(name: str) -> dict[str, Any]:
    """A feature's contract as a document; dates become text as in contract.json."""
    document: dict[str, Any] = yaml.safe_load((FEATURES / name / "contract.yml").read_text())
    if "expires" in document:
        document["expires"] = str(document["expires"])
    return document


def compile_feature(name: str, variant: str, target: Path, *defines: str) -> bytes:
    """Compile a feature's variant with other limits than the release's, for tests of those limits."""
    command = ["clang-14", "-target", "bpf", "-std=gnu11", "-g", "-O2", "-Wall", "-Werror"]
    arch = {"x86_64": "x86", "aarch64": "arm64"}[platform.machine()]
    command += [f"-D__TARGET_ARCH_{arch}", f"-I{ROOT / 'bpf' / 'include'}", f"-DEF_VARIANT_{variant.upper()}", *defines]
    subprocess.run([*command, "-c", str(FEATURES / name / f"{name}.bpf.c"), "-o", str(target)], check=True)
    return target.read_bytes()


def _map_of(entry: dict[str, Any], variants: list[str]) -> dict[str, Any] | None:
    """A contract's map as it is where only some variants are left; None where none of them holds it."""
    if "variants" not in entry:
        return entry
    left = [each for each in entry["variants"] if each in variants]
    return {**entry, "variants": left} if left else None


def feature_of(objects: Path, name: str, variants: tuple[str, ...] | None = None) -> tuple[Any, dict[str, bytes]]:
    """A feature as make_bundle() takes it: its contract and its objects; all variants unless some are named."""
    contract = contract_of(name)
    contract["variants"] = [each for each in contract["variants"] if variants is None or each["name"] in variants]
    chosen = [each["name"] for each in contract["variants"]]
    contract["maps"] = [of for each in contract["maps"] if (of := _map_of(each, chosen))]
    return contract, {each: (objects / name / f"{each}.bpf.o").read_bytes() for each in chosen}


def shown(kind: str) -> list[dict[str, Any]]:
    """bpftool's list of programs, maps or links; asked again where something went while it was listed."""
    command = ["bpftool", "-j", kind, "show"]
    for _ in range(20):
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode == 0:
            return list(json.loads(done.stdout or "[]"))
    raise AssertionError(f"{' '.join(command)} fails again and again: {done.stdout}{done.stderr}")


def is_of_another_worker(entry: Mapping[str, Any]) -> bool:
    """Is it held by processes that run beside these tests alone? What no process holds is never another's."""
    mine = os.environ.get("PYTEST_XDIST_WORKER", "")
    holders = [worker_of(each["pid"]) for each in entry.get("pids", [])]
    return bool(mine and holders) and all(worker and worker != mine for worker in holders)


def worker_of(pid: int) -> str:
    """The worker of pytest-xdist that a process belongs to, by its environment; empty where it has none."""
    try:
        words = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return ""
    key = b"PYTEST_XDIST_WORKER="
    return next((word[len(key) :].decode() for word in words if word.startswith(key)), "")


def ours_in_kernel(kind: str) -> list[dict[str, Any]]:
    """bpftool's list of the programs or maps whose name begins with ef_: the independent oracle."""
    named = [each for each in shown(kind) if str(each.get("name", "")).startswith("ef_")]
    return [each for each in named if not is_of_another_worker(each)]


def dump_map(map_id: int) -> list[int]:
    """A per-CPU array of u64 by bpftool, summed over the CPUs."""
    done = subprocess.run(
        ["bpftool", "-j", "map", "dump", "id", str(map_id)], check=True, capture_output=True, text=True
    )
    return [
        sum(int.from_bytes(bytes(int(byte, 16) for byte in cpu["value"]), "little") for cpu in entry["values"])
        for entry in json.loads(done.stdout)
    ]


def map_id(feature: dict[str, Any], name: str) -> int:
    return next(int(each["id"]) for each in feature["maps"] if each["name"] == name)


def links_in_kernel() -> list[dict[str, Any]]:
    """bpftool's list of BPF links."""
    return shown("link")


def wait_for(condition: Callable[[], Any], what: str, seconds: float = 20.0) -> Any:
    """Wait until the condition is true and return its value; fail with `what` when it never is."""
    limit = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > limit:
            raise AssertionError(f"{what}: not within {seconds} s")
        time.sleep(0.01)


@dataclass
class Service:
    """One loader that runs as the service does, and its folders."""

    binary: Path
    folder: Path
    bundle: Bundle
    trust: Trust
    prefix: tuple[str, ...] = ()
    interval: int = 1
    environment: Mapping[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        self.etc = self.folder / "etc"
        self.run = self.folder / "run"
        self.state = self.folder / "state"
        self.log = self.folder / "log"
        self.journal_path = self.folder / "journal"
        for each in (self.etc, self.run, self.log):
            each.mkdir(parents=True, exist_ok=True)

    @property
    def events_path(self) -> Path:
        return self.log / "events.jsonl"

    def want(self, *features: str, digest: str | None = None, **sampling: int) -> None:
        """Replace desired.json: these features run; sampling is sample_every by feature."""
        wishes = {name: {"enabled": True, "sample_every": sampling.get(name, 1)} for name in features}
        self.write_desired(canonical({"schema": "ebpf.fleet/desired/v1", "bundle_digest": digest, "features": wishes}))

    def allow(self, policy: Mapping[str, Any] | bytes) -> None:
        """Replace policy.json; bytes as they stand."""
        part = self.etc / ".policy.part"
        part.write_bytes(policy if isinstance(policy, bytes) else canonical(policy))
        part.rename(self.etc / "policy.json")

    def write_desired(self, data: bytes) -> None:
        part = self.etc / ".desired.part"
        part.write_bytes(data)
        part.rename(self.etc / "desired.json")

    def order(self, name: str, where: str = "run") -> Path:
        """Give a kill order as a person does: touch the file."""
        folder = (self.etc if where == "etc" else self.run) / "kill.d"
        folder.mkdir(exist_ok=True)
        path = folder / name
        path.touch()
        return path

    def command(self) -> list[str]:
        folders = ["--etc", self.etc, "--run", self.run, "--state", self.state, "--log", self.log]
        return [
            *self.prefix,
            str(self.binary),
            "run",
            "--bundle",
            str(self.bundle.root),
            *map(str, folders),
            "--interval",
            str(self.interval),
            *self.trust.arguments,
        ]

    def start(self) -> None:
        """Start the process and return at once."""
        with self.journal_path.open("ab") as journal:
            self.process = subprocess.Popen(self.command(), stderr=journal, env={**os.environ, **self.environment})

    def start_settled(self) -> dict[str, Any]:
        """Start it and wait until every feature was tried; returns the status."""
        self.start()
        return self.settled()

    def settled(self) -> dict[str, Any]:
        """The status once the compatibility event is out."""

        def ready() -> dict[str, Any] | None:
            assert self.alive(), self.journal()
            status = self.status()
            return status if status and status["compatibility"] else None

        found: dict[str, Any] = wait_for(ready, "the service settles")
        return found

    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def status(self) -> dict[str, Any] | None:
        """status.json, None while there is none; also holds that this process wrote it."""
        path = self.state / "status.json"
        if not path.exists():
            return None
        document: dict[str, Any] = json.loads(path.read_bytes())
        if self.process is not None and not self.prefix and document["pid"] != self.process.pid:
            return None
        return document

    def now(self) -> dict[str, Any]:
        """status.json, which must be there."""
        status = self.status()
        assert status is not None, self.journal()
        return status

    def send(self, number: int) -> None:
        """Send the process a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def fresh_status(self) -> dict[str, Any]:
        """A status that was written after this call."""
        now = time.time_ns()

        def newer() -> dict[str, Any] | None:
            status = self.status()
            return status if status and status["time_unix_ns"] > now else None

        found: dict[str, Any] = wait_for(newer, "a new status")
        return found

    def feature(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.now()["features"][name]
        return found

    def wait_state(self, name: str, state: str, seconds: float = 20.0) -> dict[str, Any]:
        """The feature's status once it is in a state."""

        def reached() -> dict[str, Any] | None:
            assert self.alive(), self.journal()
            found = self.feature(name)
            return found if found["state"] == state else None

        found: dict[str, Any] = wait_for(reached, f"{name} becomes {state}", seconds)
        return found

    def journal(self) -> str:
        return self.journal_path.read_text(errors="replace") if self.journal_path.exists() else ""

    def kill_times_us(self) -> list[int]:
        """How long the loader took from seeing a kill order to the last detach, by its own clock."""
        return [int(us) for us in re.findall(r"detached (\d+) us after the order", self.journal())]

    def events(self) -> list[dict[str, Any]]:
        """All whole records, those of the oldest segment first; a line may be half there while it is written."""
        lines: list[str] = []
        segments = sorted(self.log.glob("events.jsonl.*"), key=lambda path: int(path.suffix[1:]))
        for path in (*segments, self.events_path):
            if path.exists():
                lines += path.read_text().split("\n")[:-1]
        return [json.loads(line) for line in lines]

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End the process; returns its exit status (negative: the signal)."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(timeout=20)


def total(counters: Mapping[str, int]) -> int:
    """What became of the events; must equal `produced`."""
    return sum(counters[key] for key in ("delivered", "dropped", "sampled_out", "in_flight"))


def roomy(contract: dict[str, Any]) -> dict[str, Any]:
    """The contract with budgets that no test exceeds."""
    changed = copy.deepcopy(contract)
    if isinstance(changed, dict) and isinstance(changed.get("budget"), dict):
        changed["budget"].update(ROOMY_BUDGET)
    return changed


def make_service(
    binary: Path, folder: Path, trust: Trust, features: Mapping[str, Any], budgets: bool = False, **options: Any
) -> Service:
    """A service over a bundle of these features; nothing is started. With `budgets` the contracts' hold."""
    if not budgets:
        features = {name: (roomy(contract), objects) for name, (contract, objects) in features.items()}
    bundle = make_bundle(folder / "bundle", trust.key, features)
    service = Service(binary, folder, bundle, trust, **options)
    if not budgets:
        service.allow(ROOMY_POLICY)
    return service


# Features that attach wherever the loader's tests run.
BOTH = ("exec_events", "runqlat")


def until_end(made: Service) -> Iterator[Service]:
    """A fixture's body: hand the service out, and end what was started of it."""
    yield made
    if made.process is not None:
        made.stop(signal.SIGKILL)


def both_wanted(binary: Path, folder: Path, trust: Trust, objects: Path) -> Iterator[Service]:
    """A fixture's body: a service with both features wanted, that looks by itself once an hour; not started."""
    made = make_service(binary, folder, trust, {name: feature_of(objects, name) for name in BOTH})
    made.interval = 3600
    made.want(*BOTH)
    yield from until_end(made)
