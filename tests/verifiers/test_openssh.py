# SPDX-License-Identifier: GPL-3.0-or-later
"""What the verdict owes to ssh-keygen: nothing that an older one lacks, and its faults are not the bundle's."""

from __future__ import annotations

import shutil
import subprocess
import time
from pathlib import Path

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle.files import verify
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle.signature import read_trust

from tests.loader.bundles import write
from tests.verifiers.world import World, make_origin, make_world

pytestmark = pytest.mark.apart

KEYGEN = shutil.which("ssh-keygen")

# As OpenSSH 8.1: no find-principals, and an allowed_signers with a time in it is refused whole.
OLD = f"""#!/bin/sh
case " $* " in *" find-principals "*|*" check-novalidate "*|*" -O "*) echo 'unknown option' >&2; exit 1;; esac
previous=
for word in "$@"; do
    if [ "$previous" = -f ] && grep -q 'valid-' "$word"; then echo 'bad options: unsupported' >&2; exit 255; fi
    previous=$word
done
exec {KEYGEN} "$@"
"""
ANCIENT = "#!/bin/sh\necho 'ssh-keygen: illegal option -- Y' >&2\necho 'usage: ssh-keygen [-q]' >&2\nexit 1\n"


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A good bundle whose signer has every option that OpenSSH 8.8 brought."""
    made = make_world(tmp_path / "world", make_origin(tmp_path / "origin"))
    options = 'namespaces="ebpf-fleet-release",valid-after="20200101Z",valid-before="29990101Z"'
    write(made.signers, f"me@x {options} {made.public}\n".encode())
    return made


def code(world: World) -> str:
    try:
        verify(str(world.root), read_trust(str(world.signers), str(world.revoked)), time.time())
    except FleetError as error:
        return f"{error.code}: {error.message}"
    return "EF_OK"


def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    write(tmp_path / "bin" / "ssh-keygen", script.encode(), 0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")


def test_an_old_openssh_verifies_a_bundle_with_every_option(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, monkeypatch, OLD)
    refused = subprocess.run(["ssh-keygen", "-Y", "find-principals"], check=False, capture_output=True)
    assert refused.returncode == 1 and b"unknown option" in refused.stderr
    assert code(world) == "EF_OK"
    world.signature(world.origin.signature.replace(b"U1NIU0lH", b"U1NIU0lI", 1))
    assert code(world).startswith("EF_SIG_MALFORMED")


@pytest.mark.parametrize("script", [OLD, None], ids=["old", "this one"])
def test_an_altered_manifest_is_the_bundles_fault(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str | None
) -> None:
    if script:
        install(tmp_path, monkeypatch, script)
    write(world.root / "manifest.json", world.origin.manifest.replace(b'"sequence":7', b'"sequence":8'))
    assert code(world).startswith("EF_SIG_BAD")


def test_an_openssh_without_signatures_is_not_the_bundles_fault(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, monkeypatch, ANCIENT)
    said = code(world)
    assert said.startswith("EF_NO_SSH_KEYGEN") and "OpenSSH 8.1 or newer" in said and "illegal option" in said


def test_no_openssh_is_not_the_bundles_fault(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert code(world).startswith("EF_NO_SSH_KEYGEN")


def test_ssh_keygen_is_believed_only_about_the_key_that_was_judged(world: World) -> None:
    """The line that ssh-keygen gets holds the signature's own key: a signer beside it does not help."""
    write(world.signers, f"a@x {world.origin.other.with_suffix('.pub').read_text()}".encode())
    assert code(world).startswith("EF_SIG_UNKNOWN_SIGNER")
