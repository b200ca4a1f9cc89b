# SPDX-License-Identifier: GPL-3.0-or-later
"""The BCC fallback on a real host without BTF: prepared, deployed, measured, killed. Changes the guest k61bcc.

The guest is made with `python3 -m tests.lab up k61bcc`; `reset k61bcc` takes it back.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import time
from pathlib import Path
from typing import Any, Callable

import pytest
import yaml
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle.collector_files import collector_files
from ansible_collections.ebpf.fleet.plugins.module_utils.kill import answer as kill_answer
from ansible_collections.ebpf.fleet.plugins.module_utils.kill import script as killscript

from tests.lab import guest, paths, ssh
from tests.loader.bundles import Bundle, Trust, describe, make_bundle, make_key, write
from tests.loader.service import contract_of

HOST = "k61bcc"
ROOT = Path(__file__).resolve().parents[2]
FEATURES = ("runqlat", "exec_events")
SECONDS_TO_COMPILE = 600  # both features, in an emulated guest of a busy machine
OURS = (
    "bpftool -j prog show | python3 -c 'import json, sys; "
    'print(sum(p.get("name", "").startswith("ef_") for p in json.load(sys.stdin)))\''
)


def build_bundle(folder: Path) -> tuple[Bundle, Trust]:
    """A signed bundle of the two features that have a bcc.c, with the collector."""
    built = folder / "build"
    subprocess.run(["make", "-s", "-C", str(ROOT / "bpf"), f"BUILD={built}"], check=True, capture_output=True)
    features: dict[str, Any] = {}
    for name in FEATURES:
        contract = contract_of(name)
        names = [variant["name"] for variant in contract["variants"]]
        features[name] = (
            contract,
            {each: (built / "features" / name / f"{each}.bpf.o").read_bytes() for each in names},
        )
    key = make_key(folder / "keys")
    loader = built / "loader" / platform.machine() / "ebpf-loader"
    bundle = make_bundle(folder / "bundle", key, features, loader=loader)
    document = bundle.manifest
    sources = {f"features/{name}/bcc.c": (ROOT / "bpf/features" / name / "bcc.c").read_bytes() for name in FEATURES}
    for path, data in {**sources, **collector_files(ROOT)}.items():
        document["files"][path] = describe(write(bundle.root / path, data))
    bundle.write_manifest(document)
    return bundle, Trust(folder / "trust", key)


class Host:
    """The guest, and how it is deployed to."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port = folder, port
        self.bundle, self.trust = build_bundle(folder)

    def sh(self, script: str, seconds: float = 120) -> str:
        return ssh.run(self.port, script, seconds)

    def deploy(self, opted_in: bool) -> int:
        """Prepare and deploy with the roles; how many tasks changed something."""
        play = {
            "hosts": HOST,
            "gather_facts": False,
            "vars": {
                "ebpf_fleet_bcc_fallback": opted_in,
                "ebpf_fleet_bcc_cpu_quota": "100%",
                "ebpf_fleet_bundle": str(self.bundle.root),
                "ebpf_fleet_allow_downgrade": True,
                "ebpf_fleet_allowed_signers": self.trust.signers.read_text(),
            },
            "tasks": [
                {"ansible.builtin.import_role": {"name": f"ebpf.fleet.{role}"}} for role in ("prepare", "deploy")
            ],
        }
        (self.folder / "play.yml").write_text(yaml.safe_dump([play]))
        inventory = subprocess.run(
            ["python3", "-m", "tests.lab", "inventory", HOST], check=True, capture_output=True, text=True, cwd=ROOT
        )
        (self.folder / "inventory.yml").write_text(inventory.stdout)
        done = subprocess.run(
            ["ansible-playbook", "-i", str(self.folder / "inventory.yml"), str(self.folder / "play.yml")],
            capture_output=True, text=True, cwd=ROOT, check=False, timeout=300,
            env={**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections")},
        )  # fmt: skip
        assert done.returncode == 0, done.stdout[-3000:]
        found = re.search(r"changed=([0-9]+)", done.stdout)
        assert found
        return int(found.group(1))

    def status(self, unit: str = "bcc") -> dict[str, Any]:
        text = self.sh(f"cat /run/ebpf-fleet-{unit}/status.json 2>/dev/null || echo null")
        return dict(json.loads(text) or {})

    def states(self) -> dict[str, str]:
        return {name: each["state"] for name, each in (self.status().get("features") or {}).items()}

    def wait(self, condition: Callable[[], bool], what: str, seconds: float = SECONDS_TO_COMPILE) -> None:
        until = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > until:
                journal = self.sh("journalctl -u ebpf-fleet-bcc -o cat --no-pager -n 15")
                raise AssertionError(f"{what}: not within {seconds} s; {self.states()}; {journal}")
            time.sleep(2)

    def all_attached(self) -> bool:
        return self.states() == dict.fromkeys(FEATURES, "attached")

    def ours(self) -> int:
        return int(self.sh(OURS))

    def switch(self, scope: str, state: str = "engaged") -> dict[str, Any]:
        done = subprocess.run(
            ssh.command(self.port, ["sh", "-s"]), input=killscript.render([scope], state=state),
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        return kill_answer.parse_answer(done.stdout)


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Host:
    found = guest.record(HOST)
    if found is None or guest.state(HOST) != "running":
        pytest.skip(f"{HOST} does not run: python3 -m tests.lab up {HOST}")
    assert paths.REPOSITORY == ROOT
    made = Host(tmp_path_factory.mktemp("bcc"), found.port)
    made.sh("rm -f /run/ebpf-fleet/kill.d/* /etc/ebpf-fleet/kill.d/*")
    return made


@pytest.fixture
def collecting(host: Host) -> Host:
    """The host with both features attached through BCC."""
    host.deploy(opted_in=True)
    host.sh("rm -f /run/ebpf-fleet/kill.d/* /etc/ebpf-fleet/kill.d/*")
    host.wait(host.all_attached, "both features attached through BCC")
    return host


def test_without_the_opt_in_it_is_disabled_and_says_why(host: Host) -> None:
    host.deploy(opted_in=False)
    features = host.status("loader")["features"]
    assert {name: (each["state"], each["reason_code"]) for name, each in features.items()} == dict.fromkeys(
        FEATURES, ("disabled", "EF_NO_BTF")
    )
    assert "BTF" in features["runqlat"]["reason"]
    assert host.sh("ls /etc/systemd/system/ebpf-fleet-bcc.service 2>/dev/null; pgrep -x ebpf-fleet-bcc; true") == ""
    assert host.ours() == 0


def test_with_the_opt_in_it_delivers_with_the_loaders_metric_names(collecting: Host) -> None:
    assert collecting.deploy(opted_in=True) == 0
    status = collecting.status()
    runqlat = status["features"]["runqlat"]
    assert (status["engine"], runqlat["profile"], runqlat["variant"]) == ("bcc", "reduced", "bcc")
    assert runqlat["reason_code"] == "EF_NO_BTF"
    names = {}
    for unit in ("loader", "bcc"):
        text = collecting.sh(f"cat /run/ebpf-fleet-{unit}/metrics.prom")
        names[unit] = set(re.findall(r"^(ebpf_fleet_[a-z_]+)\{?", text, re.MULTILINE))
    assert {"ebpf_fleet_run_queue_latency_seconds_bucket", "ebpf_fleet_events_produced_total"} <= names["bcc"]
    own = {name for name in names["bcc"] - names["loader"] if not re.search(r"_map_|_program_|_lag_", name)}
    assert own == set(), "names that the loader does not have"
    for name, feature in status["features"].items():
        counters = feature["counters"]
        assert counters["produced"] > 0, name
        parts = sum(counters[key] for key in ("delivered", "dropped", "sampled_out", "in_flight"))
        assert counters["produced"] == parts, name


def test_events_have_the_records_of_what_was_executed(collecting: Host) -> None:
    before = collecting.status()["features"]["exec_events"]["counters"]["delivered"]
    collecting.sh("for i in 1 2 3 4 5; do /bin/true; done; sleep 8")
    lines = collecting.sh("tail -n 400 /var/log/ebpf-fleet/events-bcc.jsonl").splitlines()
    records = [json.loads(line) for line in lines]
    assert sum(record["comm"] == "true" and record["uid"] == 0 for record in records) >= 5
    assert collecting.status()["features"]["exec_events"]["counters"]["delivered"] >= before + 5


def test_a_kill_file_detaches_at_once_and_leaves_the_other_feature(collecting: Host) -> None:
    left = collecting.sh("touch /run/ebpf-fleet/kill.d/feature.runqlat; sleep 1; " + OURS)
    assert int(left) == 1
    left = collecting.sh("touch /etc/ebpf-fleet/kill.d/global; sleep 1; " + OURS)
    assert int(left) == 0
    collecting.wait(lambda: collecting.status()["state"] == "killed", "the status says so", 20)


def test_the_kill_script_proves_off_and_kills_a_collector_that_does_not_obey(collecting: Host) -> None:
    collecting.sh("kill -STOP $(pgrep -x ebpf-fleet-bcc)")
    answer = collecting.switch("global")
    assert (answer["ok"], answer["left"], answer["escalated"]) == (True, 0, True), answer
    assert collecting.ours() == 0
    assert collecting.switch("global", "released")["ok"]


def test_after_sigkill_nothing_is_left_in_the_kernel(collecting: Host) -> None:
    script = """systemctl mask --runtime -q ebpf-fleet-bcc; kill -9 $(pgrep -x ebpf-fleet-bcc); sleep 1
    bpftool -j prog show; bpftool -j map show; cat /sys/kernel/tracing/kprobe_events; ls /sys/fs/bpf
    systemctl unmask --runtime -q ebpf-fleet-bcc; systemctl reset-failed ebpf-fleet-bcc
    systemctl start ebpf-fleet-bcc"""
    assert collecting.ours() == 4
    assert '"ef_' not in collecting.sh(script)


def test_a_source_that_was_tampered_with_is_refused(collecting: Host) -> None:
    path = "/var/lib/ebpf-fleet/current/bundle/features/runqlat/bcc.c"
    collecting.sh(f"cp {path} /tmp/kept.c; echo '/* x */' >>{path}; systemctl restart ebpf-fleet-bcc; sleep 12")
    said = collecting.sh("journalctl -u ebpf-fleet-bcc -o cat --no-pager -n 30")
    assert "refused:" in said and "bcc.c" in said and "EF_FILE_" in said
    assert collecting.sh("systemctl show -p ExecMainStatus --value ebpf-fleet-bcc").strip() == "3"
    assert collecting.ours() == 0
    collecting.sh(f"cp /tmp/kept.c {path}")
