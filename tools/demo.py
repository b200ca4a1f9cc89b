# SPDX-License-Identifier: GPL-3.0-or-later
"""The main job, end to end, on a fleet of real VMs: `make demo`.

Builds and signs a release, rolls it out through every stage, tries a bad one
and sees it stop at the canary, turns everything off and proves from each
kernel that nothing is left. What it claims it has asked `bpftool` in the VMs,
not only our own status. The record is build/demo/summary.json, and each rollout
has a report beside its records. Something is printed at least every ten seconds.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from tests.support.play import ROOT, Played, lab, lab_hosts, new_key, on_host, play

OUT = ROOT / "build" / "demo"
GOOD, BAD = "1.0.0", "1.1.0"
REPORTS = {GOOD: "rollout-good", BAD: "rollout-bad"}
BAD_FEATURES = ROOT / "tests" / "fixtures" / "features" / "syscall_firehose"
SILENCE_SECONDS = 9
# A real load for the canary: two system calls a byte, bounded in time.
LOAD = "timeout 900 dd if=/dev/zero of=/dev/null bs=1 >/dev/null 2>&1 </dev/null & echo $!"


class DemoError(Exception):
    """Something that the demo promises did not hold."""


class Demo:
    """One run: its steps, in order, and what they found."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.summary: dict[str, Any] = {"schema": "ebpf.fleet/demo/v1", "steps": []}
        self.hosts: list[str] = []
        self.trust = ""
        self.key = Path()
        self.now, self.now_since, self.last = "", self.started, self.started
        threading.Thread(target=self.beat, daemon=True).start()

    def say(self, text: str) -> None:
        self.last = time.monotonic()
        print(f"[{self.last - self.started:5.0f} s] {text}", flush=True)

    def beat(self) -> None:
        """Say what is still in hand, where nothing was said for long."""
        while True:
            time.sleep(1)
            if self.now and time.monotonic() - self.last >= SILENCE_SECONDS:
                self.say(f"  ... {self.now}: since {time.monotonic() - self.now_since:.0f} s")

    def step(self, name: str, action: Any) -> Any:
        """Do one step, time it, and write the summary so far."""
        self.say(name)
        began = time.monotonic()
        self.now, self.now_since = name, began
        result = action()
        self.summary["steps"].append({"name": name, "seconds": round(time.monotonic() - began, 1)})
        self.write()
        return result

    def write(self) -> None:
        text = json.dumps(self.summary, indent=2, sort_keys=True) + "\n"
        (OUT / "summary.json").write_text(text)

    def playbook(self, name: str, log: str, expect: int | None = 0, **variables: Any) -> Played:
        """Run a playbook; `expect` is its exit code, None for any failure. Of a rollout every line is shown."""
        echo = (lambda line: self.say("  " + line)) if name == "rollout" else None
        played = play(name, variables, log=OUT / f"{log}.log", echo=echo)
        good = played.rc == expect if expect is not None else played.rc != 0
        if not good:
            tail = "\n".join(played.text.splitlines()[-40:])
            raise DemoError(f"{name} ended with {played.rc}; build/demo/{log}.log ends with:\n{tail}")
        return played


def run(demo: Demo) -> None:
    demo.hosts = demo.step("booting the test fleet (the first time builds its images)", boot)
    demo.key, demo.trust = new_key(OUT / "keys")
    good = demo.step(f"building and signing release {GOOD}", lambda: build(demo, GOOD, 1, []))
    bad = demo.step(f"building and signing release {BAD}, which is bad", lambda: build(demo, BAD, 2, [BAD_FEATURES]))
    demo.step("asking every host what it can run", lambda: capabilities(demo, good))
    demo.step(f"rolling out {GOOD} to the whole fleet", lambda: roll_out_good(demo, good))
    demo.step(f"trying to roll out {BAD} under load", lambda: roll_out_bad(demo, bad))
    demo.step("turning everything off", lambda: kill(demo))
    demo.step("taking the order back", lambda: release_order(demo))


def boot() -> list[str]:
    if lab("up").returncode != 0:
        raise DemoError("the test fleet did not come up; see above")
    # Every demo begins with hosts that nothing was deployed to.
    hosts = lab_hosts()
    if lab("reset", *hosts).returncode != 0:
        raise DemoError("the test fleet could not be reset; see above")
    return hosts


def build(demo: Demo, version: str, sequence: int, extra: list[Path]) -> Path:
    output = OUT / f"ebpf-fleet-{version}.tar"
    demo.playbook(
        "release", f"release-{version}",
        ebpf_fleet_release_version=version, ebpf_fleet_release_sequence=sequence,
        ebpf_fleet_release_signing_key=str(demo.key), ebpf_fleet_release_output=str(output),
        ebpf_fleet_release_features_dirs=[str(ROOT / "bpf" / "features"), *map(str, extra)],
    )  # fmt: skip
    return output


def capabilities(demo: Demo, bundle: Path) -> None:
    report = OUT / "capabilities.json"
    demo.playbook("capabilities", "capabilities", ebpf_fleet_bundle=str(bundle), ebpf_fleet_report=str(report))
    census = json.loads(report.read_text())
    for line in census["sentences"]:
        demo.say("  " + line)
    demo.summary["hosts"] = {
        name: {"kernel": host["kernel"]["release"], "stratum": host["stratum"], "predicted": host["profiles"]}
        for name, host in census["hosts"].items()
    }


def rollout_variables(demo: Demo, bundle: Path, report: str) -> dict[str, Any]:
    folder = OUT / report
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return {
        "ebpf_fleet_bundle": str(bundle),
        "ebpf_fleet_allowed_signers": demo.trust,
        "ebpf_fleet_report_dir": str(folder),
        # Of demos alone: the fleet's own is that of the user.
        "ebpf_fleet_ledger": str(OUT / "ledger"),
        # Of every stage alike, so that a demo is over in minutes.
        "ebpf_fleet_bake": 30,
    }


def batches(report: str) -> list[dict[str, Any]]:
    """What the rollout recorded of each batch, in order."""
    return [json.loads(path.read_text()) for path in sorted((OUT / report).glob("batch-*.json"))]


def roll_out_good(demo: Demo, bundle: Path) -> None:
    demo.playbook("rollout", "rollout-good", **rollout_variables(demo, bundle, "rollout-good"))
    demo.summary["stages"] = batches("rollout-good")
    for batch in demo.summary["stages"]:
        demo.say(f"  {batch['stage']}: {', '.join(batch['hosts'])}: {batch['verdict']}, {len(batch['checks'])} checks")
    reached = {batch["stage"] for batch in demo.summary["stages"]}
    require(len(reached) > 1, f"the rollout had only these stages: {sorted(reached)}")
    require(sorted(h for b in demo.summary["stages"] for h in b["hosts"]) == demo.hosts, "a host was in no stage")
    for host, seen in states_of_hosts(demo).items():
        require(seen["digest"] == demo.summary["stages"][0]["digest"], f"{host} runs {seen['digest']}")
        require(seen["programs"], f"bpftool on {host} sees no program of ours after the rollout")
        profiles = {name: feature["profile"] for name, feature in seen["features"].items() if feature["wanted"]}
        demo.summary["hosts"][host].update(profile=profiles, release=seen["version"], programs=seen["programs"])


def roll_out_bad(demo: Demo, bundle: Path) -> None:
    good = demo.summary["stages"][0]["digest"]
    canary = demo.summary["stages"][0]["hosts"][0]
    pid = on_host(canary, LOAD).stdout.strip()
    try:
        demo.playbook("rollout", "rollout-bad", None, **rollout_variables(demo, bundle, "rollout-bad"))
    finally:
        # It may have ended by itself: nothing that whoever looks on need know.
        on_host(canary, f"kill {pid} 2>/dev/null || :")
    tried = batches("rollout-bad")
    require(len(tried) == 1, f"{len(tried)} batches were tried; only the canary should have been")
    failed = [check for check in tried[0]["checks"] if check["verdict"] == "fail"]
    for check in failed:
        demo.say(f"  {check['sentence']}")
    # How fast the host is decides what is over first: the drops, the rate, the CPU, or the step that a budget took.
    stopped = {check["check"] for check in failed if check["feature"] == BAD_FEATURES.name}
    require(bool(stopped), "the feature that exceeds its budgets was not what stopped it")
    after = states_of_hosts(demo)
    for host, seen in after.items():
        require(seen["digest"] == good, f"{host} runs {seen['digest']} after the bad release, not the good one")
        require((tried[0]["digest"][:12] in seen["installed"]) == (host == canary), f"{host} got the bad release")
    demo.summary["bad_release"] = {
        "version": BAD, "digest": tried[0]["digest"], "stopped_in": tried[0]["stage"], "canary": canary,
        "outcome": tried[0]["outcome"], "failed_checks": failed,
        "reached_hosts": tried[0]["hosts"], "release_after": {host: seen["version"] for host, seen in after.items()},
    }  # fmt: skip
    demo.say(f"  stopped in stage {tried[0]['stage']}; {canary} is back on {after[canary]['version']}")


def kill(demo: Demo) -> None:
    report = OUT / "kill.json"
    demo.playbook("rollback", "kill", scope="global", ebpf_fleet_report=str(report))
    census = json.loads(report.read_text())
    left = {host: seen["programs"] for host, seen in states_of_hosts(demo).items()}
    maps = {host: on_host(host, "bpftool map show").stdout.count("name ef_") for host in demo.hosts}
    require(not any(left.values()), f"bpftool still sees programs of ours: {left}")
    require(not any(maps.values()), f"bpftool still sees maps of ours: {maps}")
    demo.summary["kill"] = {
        "time_to_off_ms": {name: host["host_ms"] for name, host in census["hosts"].items()},
        "programs_left": {host: len(programs) for host, programs in left.items()},
        "maps_left": maps,
        "confirmed": census["confirmed"], "missing": census["missing"],
    }  # fmt: skip
    demo.say(f"  {census['sentence']} bpftool in each VM sees no program and no map of ours.")


def release_order(demo: Demo) -> None:
    demo.playbook("rollback", "kill-released", scope="global", state="released",
                  confirm="release", reason="the demo goes on")  # fmt: skip
    deadline = time.monotonic() + 60
    while True:
        seen = states_of_hosts(demo)
        missing = [host for host, state in seen.items() if not state["programs"]]
        if not missing:
            break
        require(time.monotonic() < deadline, f"nothing runs again on {missing} 60 s after the order was taken back")
        time.sleep(1)
    demo.summary["after_release"] = {host: state["programs"] for host, state in seen.items()}


LOOK = """bpftool prog show -j; echo; cat /run/ebpf-fleet-loader/status.json; echo; ls /var/lib/ebpf-fleet/releases"""


def states_of_hosts(demo: Demo) -> dict[str, dict[str, Any]]:
    """Ask each host's kernel (bpftool) and loader (status.json) what runs there."""
    with ThreadPoolExecutor(len(demo.hosts)) as pool:
        return dict(zip(demo.hosts, pool.map(state_of, demo.hosts)))


def state_of(host: str) -> dict[str, Any]:
    answer = on_host(host, LOOK)
    require(answer.returncode == 0, f"{host} could not be asked what runs there")
    programs, status, *installed = (line for line in answer.stdout.splitlines() if line)
    state = json.loads(status)
    return {
        "programs": sorted(p["name"] for p in json.loads(programs) if p.get("name", "").startswith("ef_")),
        "digest": state["bundle"]["digest"], "version": state["bundle"]["version"],
        "features": state["features"], "installed": " ".join(installed),
    }  # fmt: skip


def require(holds: Any, otherwise: str) -> None:
    if not holds:
        raise DemoError(otherwise)


def reports() -> list[tuple[str, Path]]:
    """(release, path) of each rollout's report."""
    found = [(version, sorted((OUT / name).glob("rollout-*.html"))) for version, name in REPORTS.items()]
    return [(version, paths[-1].relative_to(ROOT)) for version, paths in found if paths]


def report(demo: Demo) -> str:
    """What a person reads at the end."""
    summary = demo.summary
    lines = ["", f"{'host':8} {'kernel':30} {'release':8} {'off in':>8}  profile"]
    for name, host in sorted(summary["hosts"].items()):
        profiles = ", ".join(f"{feature} {profile}" for feature, profile in sorted(host["profile"].items()))
        off = f"{summary['kill']['time_to_off_ms'][name]} ms"
        lines.append(f"{name:8} {host['kernel']:30} {host['release']:8} {off:>8}  {profiles}")
    lines.append("")
    for batch in summary["stages"]:
        lines.append(f"stage {batch['stage']:7} {batch['verdict']:5} {', '.join(batch['hosts'])}")
    bad = summary["bad_release"]
    lines += [
        f"release {BAD} stopped in stage {bad['stopped_in']} on {bad['canary']}:",
        *(f"  {check['sentence']}" for check in bad["failed_checks"]),
        "kill switch: no program and no map of ours was left on any host (bpftool); then taken back",
        "",
        f"whole run: {summary['seconds']} s. Where to look next:",
        "  build/demo/summary.json       everything above, with every check, measured value and limit",
        "  build/demo/*.log              what each playbook printed",
        *(f"  {path}    the report of the rollout of {version}, for a browser" for version, path in reports()),
        "  make lab-ssh HOST=k61a        a shell on a host; try: ebpf-loader is in /var/lib/ebpf-fleet/current",
        "  make lab-down                 stop the fleet",
    ]
    return "\n".join(lines)


def main() -> int:
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    demo = Demo()
    try:
        run(demo)
    except (DemoError, subprocess.TimeoutExpired) as error:
        demo.summary["error"] = str(error)
        demo.write()
        print(f"demo: FAILED: {error}", file=sys.stderr)
        return 1
    missing = set(REPORTS) - {version for version, _path in reports()}
    if missing:
        print(f"demo: FAILED: no report was written of {sorted(missing)}", file=sys.stderr)
        return 1
    demo.summary["seconds"] = round(time.monotonic() - demo.started)
    demo.write()
    print(report(demo))
    return 0


if __name__ == "__main__":
    sys.exit(main())
