# SPDX-License-Identifier: GPL-3.0-or-later
"""The BCC collector as a host starts it: out of a signed bundle, verified by the real loader.

No program is loaded here; what it compiles and attaches is tested on a host without BTF, in tests/lab/test_bcc.py.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any, Callable, Iterator

import pytest
from ansible_collections.ebpf.fleet.collectors.fleet_bcc import kernel
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle.collector_files import START, collector_files
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.status_schema import status_fault

from tests.loader.bundles import Bundle, Trust, describe, make_bundle, write
from tests.loader.service import contract_of

ROOT = Path(__file__).resolve().parents[2]
FEATURES = ("exec_events", "runqlat")
PYTHON = "/usr/bin/python3"
PART = "collector/lib/ansible_collections/ebpf/fleet/collectors/fleet_bcc/orders.py"
HEADERS = (f"/lib/modules/{os.uname().release}/build/include", "/sys/kernel/kheaders.tar.xz")


class Host:
    """A folder with what a host has: bundle, trust, loader, state; and the collector's process."""

    def __init__(self, folder: Path, loader: Path, key: Path) -> None:
        self.folder, self.loader = folder, loader
        self.trust = Trust(folder / "etc/trust", key)
        self.bundle = self._bundle(key)
        self.state = folder / "state"
        for name in ("run/kill.d", "etc/kill.d", "log"):
            (folder / name).mkdir(parents=True)
        self.process: subprocess.Popen[str] | None = None

    def _bundle(self, key: Path) -> Bundle:
        features = {}
        for name in FEATURES:
            contract = contract_of(name)
            features[name] = (contract, {each["name"]: b"an object" for each in contract["variants"]})
        bundle = make_bundle(self.folder / "bundle", key, features, loader=self.loader)
        document = bundle.manifest
        sources = {f"features/{name}/bcc.c": (ROOT / f"bpf/features/{name}/bcc.c").read_bytes() for name in FEATURES}
        for path, data in {**sources, **collector_files(ROOT)}.items():
            document["files"][path] = describe(write(bundle.root / path, data))
        bundle.write_manifest(document)
        return bundle

    def want(self, *fallbacks: str) -> None:
        """Write desired.json: runqlat, and the fallbacks that the operator opted into."""
        document = {
            "schema": "ebpf.fleet/desired/v1",
            "bundle_digest": self.bundle.digest,
            "features": {"runqlat": {"enabled": True}},
            "fallbacks": list(fallbacks),
        }
        (self.folder / "etc/desired.json").write_text(json.dumps(document))

    def loader_says(self, state: str, code: str) -> None:
        """A status of this very process, as that of a loader which lives and runs the bundle."""
        feature = {"state": state, "reason_code": code, "reason": "because"}
        document = {
            "boot_id": kernel.boot_id(), "pid": os.getpid(),
            "started_boottime_ns": kernel.process_start_ns(os.getpid()),
            "bundle": {"digest": self.bundle.digest}, "stats_enabled": False, "features": {"runqlat": feature},
        }  # fmt: skip
        write(self.folder / "loader.json", json.dumps(document).encode())

    def command(self, start: Path | None = None) -> list[str]:
        words = {
            "bundle": self.bundle.root, "loader": self.loader, "etc": self.folder / "etc",
            "run": self.folder / "run", "state": self.state, "loader-status": self.folder / "loader.json",
            "log": self.folder / "log", "interval": 1,
        }  # fmt: skip
        options = [str(word) for name, value in words.items() for word in (f"--{name}", value)]
        return [PYTHON, "-I", "-B", str(start or self.bundle.root / START), "run", *options]

    def run(self, start: Path | None = None) -> subprocess.CompletedProcess[str]:
        """To its end, which it comes to by itself."""
        return subprocess.run(
            self.command(start), capture_output=True, text=True, env={}, cwd="/", timeout=60, check=False
        )

    def begin(self, start: Path | None = None) -> None:
        self.process = subprocess.Popen(self.command(start), stderr=subprocess.PIPE, text=True, env={}, cwd="/")

    def status(self) -> dict[str, Any]:
        path = self.state / "status.json"
        return dict(json.loads(path.read_text())) if path.exists() else {}

    def runqlat(self) -> tuple[str | None, str | None]:
        """Its state and reason code."""
        feature = (self.status().get("features") or {}).get("runqlat", {})
        return feature.get("state"), feature.get("reason_code")

    def wait(self, condition: Callable[[], bool], what: str) -> None:
        until = time.monotonic() + 60
        while not condition():
            assert self.process is not None and self.process.poll() is None, f"{what}: it ended"
            assert time.monotonic() < until, f"{what}: not within 60 s: {self.status()}"
            time.sleep(0.05)

    def end(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


@pytest.fixture
def host(tmp_path: Path, loader: Path, signing_key: Path) -> Iterator[Host]:
    made = Host(tmp_path, loader, signing_key)
    made.want("bcc")
    made.loader_says("disabled", "EF_NO_BTF")
    yield made
    if made.process and made.process.poll() is None:
        made.process.kill()
        made.process.wait()


def test_without_the_opt_in_it_verifies_tells_and_ends(host: Host) -> None:
    host.want()
    done = host.run()
    assert done.returncode == 0, done.stderr
    status = host.status()
    assert status_fault(status) is None
    assert (status["state"], status["bundle"]["digest"]) == ("idle", host.bundle.digest)
    assert host.runqlat() == ("off", "EF_NOT_WANTED")
    assert "the collector ends" in done.stderr
    assert not list(host.bundle.root.rglob("__pycache__"))


def test_it_starts_through_the_link_to_the_current_release(host: Host) -> None:
    host.want()
    link = host.folder / "current"
    link.symlink_to(host.bundle.root)
    assert host.run(link / START).returncode == 0
    assert host.status()["state"] == "idle"


def no_headers() -> None:
    """Skip where a compiler would go on to load programs."""
    # Of the machine: with headers it would compile and load, which the lab's guest k61bcc does.
    if any(os.path.exists(path) for path in HEADERS):
        pytest.skip("this host has kernel headers: what follows is tested in tests/lab/test_bcc.py")


def test_the_child_compiles_or_says_what_the_host_lacks(host: Host) -> None:
    """Service and child are both started from the bundle; the answer comes through their socket."""
    no_headers()
    host.begin()
    host.wait(lambda: host.runqlat() == ("disabled", "EF_NO_HEADERS"), "the child's answer")
    reason = host.status()["features"]["runqlat"]["reason"]
    assert f"linux-headers-{os.uname().release}" in reason
    assert reason.endswith("the loader could not: because (EF_NO_BTF)")
    assert host.end() == 0
    assert host.runqlat() == ("off", "EF_NOT_WANTED")


def test_it_stays_with_its_own_release_when_the_link_turns(host: Host) -> None:
    """The child is of the release that the service was started from, whatever is current by then."""
    no_headers()
    host.loader_says("attached", "EF_OK")
    link = host.folder / "current"
    link.symlink_to(host.bundle.root)
    host.begin(link / START)
    host.wait(lambda: host.runqlat() == ("off", "EF_NOT_WANTED"), "what the loader runs is not for BCC")
    link.unlink()
    link.symlink_to(host.folder / "log")
    host.loader_says("disabled", "EF_NO_BTF")
    host.wait(lambda: host.runqlat()[0] == "disabled", "the child's answer")
    assert host.runqlat()[1] == "EF_NO_HEADERS", host.status()["features"]["runqlat"]["reason"]
    assert host.end() == 0


def test_it_follows_orders_and_the_loader(host: Host) -> None:
    host.loader_says("attached", "EF_OK")
    host.begin()
    host.wait(lambda: host.runqlat() == ("off", "EF_NOT_WANTED"), "what the loader runs is not for BCC")
    order = host.folder / "run/kill.d/global"
    order.touch()
    host.wait(lambda: host.runqlat() == ("killed", "EF_KILLED_GLOBAL"), "the order holds")
    assert host.status()["state"] == "killed"
    order.unlink()
    host.wait(lambda: host.runqlat() == ("off", "EF_NOT_WANTED"), "the order was released")
    assert host.end() == 0


@pytest.mark.parametrize("path", ["features/runqlat/bcc.c", START, PART])
def test_a_file_that_was_changed_is_a_refusal(host: Host, path: str) -> None:
    with (host.bundle.root / path).open("a") as stream:
        stream.write("\n/* x */\n" if path.endswith(".c") else "\n# x\n")
    done = host.run()
    assert done.returncode == 3, done.stderr
    status = host.status()
    assert (status["state"], status["features"]) == ("refused", None)
    assert status["reason_code"].startswith("EF_FILE_") and path in status["reason"]


def copied(host: Host) -> Path:
    """The collector's start in a folder beside the bundle."""
    shutil.copytree(host.bundle.root / "collector", host.folder / "copy/collector")
    return host.folder / "copy" / START


@pytest.mark.parametrize("path", [START, PART])
def test_a_collector_that_is_not_the_bundles_is_a_refusal(host: Host, path: str) -> None:
    """One that runs from elsewhere beside a good bundle: each of its files is compared."""
    host.want()
    start = copied(host)
    assert host.run(start).returncode == 0
    with (host.folder / "copy" / path).open("a") as stream:
        stream.write("\n# x\n")
    assert host.run(start).returncode == 3
    status = host.status()
    assert status["reason_code"] == "EF_LOADER_SELF" and str(host.folder / "copy" / path) in status["reason"]


def test_a_module_that_the_manifest_does_not_name_is_a_refusal(host: Host) -> None:
    """Every signed file is as it was, and one more is imported."""
    host.want()
    start = copied(host)
    package = host.folder / "copy/collector/lib/ansible_collections/ebpf/fleet/collectors/fleet_bcc/orders"
    package.mkdir()  # a package of that name goes before orders.py
    shutil.copy(package.with_suffix(".py"), package / "__init__.py")
    assert host.run(start).returncode == 3
    assert host.status()["reason_code"] == "EF_LOADER_SELF"
    assert str(package / "__init__.py") in host.status()["reason"]


def test_a_file_too_many_in_the_bundle_is_a_refusal(host: Host) -> None:
    write(host.bundle.root / "collector/lib/bcc.py", b"# x\n")
    assert host.run().returncode == 3
    assert host.status()["state"] == "refused"
