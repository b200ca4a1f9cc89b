# SPDX-License-Identifier: GPL-3.0-or-later
"""On real hosts, oldest and newest kernel: a bundle that is swapped, and one whose signer means harm."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
from pathlib import Path

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle import files as bd
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle import manifest as mf

from tests.faults.conftest import Fleet, Release, everywhere, installed, programs, running
from tests.integration.release_host import LOADER_FILE, sign_again
from tests.support.play import ROOT, on_host

HOSTS = ["k510", "k73"]
LIMIT = ("--limit", ",".join(HOSTS))
STAGES = [{"stage": "canary", "count": 1}, {"stage": "fleet"}]


@pytest.fixture(scope="module", autouse=True)
def new_hosts(fleet: Fleet) -> None:
    fleet.reset(*HOSTS)


def test_a_bundle_that_is_swapped_between_two_batches_is_not_installed(fleet, first, second, tmp_path):
    path = tmp_path / "release.tar"
    shutil.copy(first.bundle, path)
    swapped: list[str] = []
    over = threading.Event()

    def swap_when_the_canary_runs() -> None:
        while not over.wait(0.5):
            canary = [host for host, version in everywhere(running, HOSTS).items() if version == first.version]
            if canary:
                shutil.copy(second.bundle, tmp_path / "next")
                (tmp_path / "next").replace(path)
                swapped.extend(canary)
                return

    watcher = threading.Thread(target=swap_when_the_canary_runs)
    watcher.start()
    try:
        done = fleet.roll_out(first._replace(bundle=path), *LIMIT, ebpf_fleet_stages=STAGES, ebpf_fleet_bake=15)
    finally:
        over.set()
        watcher.join()
    assert len(swapped) == 1, f"the file was not swapped between the batches; nothing was tested\n{done.text}"
    assert done.rc != 0 and "no later batch was started" in done.text, done.text
    assert "EF_NOT_PLANNED" in done.text and first.digest in done.text and second.digest in done.text
    (other,) = set(HOSTS) - set(swapped)
    assert running(swapped[0]) == first.version, "a batch that had passed stays as it is"
    assert installed(other) == "" and programs(other) == []
    assert all(second.version not in installed(host) for host in HOSTS)


def test_with_the_planned_file_back_the_same_rollout_is_finished(fleet, first):
    done = fleet.roll_out(first, *LIMIT, ebpf_fleet_stages=STAGES)
    assert done.rc == 0, done.text
    assert everywhere(running, HOSTS) == dict.fromkeys(HOSTS, first.version)


def test_a_signed_bundle_with_a_hostile_loader_does_nothing_as_root(fleet, first, second, tmp_path):
    hostile = tmp_path / "loader"
    defines = {"MARKER": '"/root/marker"', "SOCKET": '"/run/systemd/private"', "VICTIM": "1", "END": "QUIET",
               "WORDS": '""', "STATUS": "1"}  # fmt: skip
    source = ROOT / "tests/integration/hostile/loader.c"
    options = [f"-D{name}={value}" for name, value in defines.items()]
    subprocess.run(["gcc", "-O1", "-w", "-static", *options, "-o", str(hostile), str(source)], check=True)
    bad = signed_with(hostile, second, fleet.key, tmp_path)
    before = everywhere(programs, HOSTS)
    done = fleet.roll_out(bad, *LIMIT, ebpf_fleet_stages=[{"stage": "fleet"}])
    assert done.rc != 0 and "gave no verdict" in done.text, done.text
    assert "unconfined" not in done.text
    for host in HOSTS:
        assert on_host(host, "test -e /root/marker").returncode == 1, f"{host}: the signer's code ran as root"
    assert everywhere(running, HOSTS) == dict.fromkeys(HOSTS, first.version)
    assert everywhere(programs, HOSTS) == before
    assert all(second.version not in installed(host) for host in HOSTS)


def signed_with(loader: Path, release: Release, key: Path, folder: Path) -> Release:
    """That release with another program as its loader, signed by the same key."""
    bundle = bd.load_bundle(str(release.bundle))
    doc = json.loads(bundle.manifest.data)
    data = loader.read_bytes()
    doc["files"][LOADER_FILE].update(sha256=mf.digest_of(data), size=len(data))
    manifest = mf.canonical_json(doc).encode()
    new = {LOADER_FILE: data, mf.MANIFEST: manifest, mf.SIGNATURE: sign_again(manifest, key)}
    members = {path: member._replace(data=new.get(path, member.data)) for path, member in bundle.members.items()}
    path = folder / "hostile.tar"
    path.write_bytes(bd.tar_bytes(members, bd.epoch_of(doc["bundle"]["created"])))
    return release._replace(bundle=path, digest=mf.digest_of(manifest))
