# SPDX-License-Identifier: GPL-3.0-or-later
"""A bundle costs the controller one member of memory, and none before its signature holds."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle.files import tar_bytes, verify
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle.signature import read_trust
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle.source import (
    Members,
    TarSource,
    check_source,
    open_source,
)

from tests.loader.bundles import write
from tests.verifiers.differential import environment
from tests.verifiers.world import World, make_origin, make_world

pytestmark = pytest.mark.apart

MIB = 1024 * 1024
MEMBERS = 40

# Reads the bundle from its folder, writes it as a tar, reads that; prints the most memory that it ever had, in KiB.
# Not by getrusage(2): the kernel hands ru_maxrss of the process that ran execve(2) on to the new program.
WORK = """
import sys, time
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle import files as bundle, source as bundle_source
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle.signature import read_trust
folder, tar, signers, revoked = sys.argv[1:]
trust = read_trust(signers, revoked)
bundle.verify(folder, trust, time.time())
source = bundle_source.open_source(folder)
manifest, signature, _ = bundle_source.check_source(source, lambda *_: None)
with open(tar, "wb") as file:
    bundle.write_members(file, bundle_source.Members(source, manifest, signature), 0)
bundle.verify(tar, trust, time.time())
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM:")))
"""


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path / "world", make_origin(tmp_path / "origin"))


def test_a_large_bundle_takes_the_memory_of_a_member(world: World) -> None:
    doc = world.doc
    digest = hashlib.sha256(bytes(8 * MIB)).hexdigest()
    for number in range(MEMBERS):
        path = write(world.root / f"large/{number}", b"")
        os.truncate(path, 8 * MIB)
        doc["files"][f"large/{number}"] = {"sha256": digest, "size": 8 * MIB, "mode": "0644"}
    world.reseal(doc)
    command = [sys.executable, "-c", WORK, str(world.root), str(world.tar), str(world.signers), str(world.revoked)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment())
    assert world.tar.stat().st_size > MEMBERS * 8 * MIB
    assert int(done.stdout) < 128 * 1024, f"{done.stdout.strip()} KiB"


@pytest.mark.parametrize("form", ["folder", "tar"])
def test_no_member_is_read_before_the_signature_holds(world: World, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
    source = open_source(str(world.root))
    manifest, signature, _verdict = check_source(source, lambda *_heads: None)
    world.tar.write_bytes(tar_bytes(Members(source, manifest, b"not a signature"), 0))
    world.signature(b"not a signature")
    asked: list[str] = []
    for kind in (type(source), TarSource):
        monkeypatch.setattr(kind, "pieces", lambda _self, named: asked.append(named.path))
    with pytest.raises(FleetError) as caught:
        place = world.root if form == "folder" else world.tar
        verify(str(place), read_trust(str(world.signers), str(world.revoked)), 1.0)
    assert caught.value.code == "EF_SIG_MALFORMED" and asked == []


def test_an_extended_header_is_refused_before_it_is_read(world: World) -> None:
    """A pax header of 256 MiB, which Python's tarfile reads whole."""
    header = tarfile.TarInfo("PaxHeader")
    header.type, header.size = tarfile.XHDTYPE, 1 << 28
    world.tar.write_bytes(header.tobuf(tarfile.USTAR_FORMAT))
    os.truncate(world.tar, (1 << 28) + 4096)
    with pytest.raises(FleetError) as caught:
        open_source(str(world.tar))
    assert caught.value.code == "EF_FILE_TYPE" and "at most 16384" in caught.value.message
