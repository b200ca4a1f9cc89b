# SPDX-License-Identifier: GPL-3.0-or-later
"""The Python verifier on Debian 11, whose OpenSSH 8.4 knows no time in allowed_signers: a good bundle is good there."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.lab import guest, ssh
from tests.loader.bundles import write
from tests.verifiers.differential import ASK, ROOT
from tests.verifiers.world import World, make_origin, make_world

HOST = "k510"
UTILS = "plugins/module_utils"
ASKED = "d=$(mktemp -d) && cd $d && tar -xf - && PYTHONPATH=. python3 ask.py <asked.json; rc=$?; rm -rf $d; exit $rc"
OPTIONS = 'namespaces="ebpf-fleet-release",valid-after="20200101Z",valid-before="29990101Z"'


def ask_host(port: int, folder: Path, names: list[str]) -> list[list[str]]:
    """The verdicts of the host's own Python and ssh-keygen on these worlds."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        tar.add(ROOT / UTILS, f"ansible_collections/ebpf/fleet/{UTILS}", filter=without_cache)
        tar.add(ASK, "ask.py")
        tar.add(folder, "worlds")
        asked = [[f"worlds/{name}/{part}" for part in ("bundle", "trust/allowed_signers", "trust/revoked_keys")]
                 for name in names]  # fmt: skip
        text = json.dumps(asked).encode()
        info = tarfile.TarInfo("asked.json")
        info.size = len(text)
        tar.addfile(info, io.BytesIO(text))
    done = subprocess.run(
        ssh.command(port, [ASKED]), input=buffer.getvalue(), capture_output=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found: list[list[str]] = json.loads(done.stdout)
    return found


def without_cache(info: tarfile.TarInfo) -> tarfile.TarInfo | None:
    info.uid = info.gid = 0
    return None if "__pycache__" in info.name else info


def test_a_good_bundle_is_good_on_openssh_8_4(tmp_path: Path) -> None:
    found = guest.record(HOST)
    if found is None or guest.state(HOST) != "running":
        pytest.skip(f"{HOST} does not run: python3 -m tests.lab up {HOST}")
    version = subprocess.run(ssh.command(found.port, ["ssh -V 2>&1"]), capture_output=True, text=True, check=True)
    assert version.stdout.startswith("OpenSSH_8.4"), "this host is here for its old OpenSSH"
    (tmp_path / "worlds").mkdir()
    origin = make_origin(tmp_path / "origin")
    worlds: dict[str, World] = {}
    for name in ("good", "altered", "expired"):
        worlds[name] = make_world(tmp_path / "worlds" / name, origin)
        write(worlds[name].signers, f"me@x {OPTIONS} {worlds[name].public}\n".encode())
    write(worlds["altered"].root / "manifest.json", origin.manifest.replace(b'"sequence":7', b'"sequence":8'))
    write(worlds["expired"].signers, f'me@x valid-before="20200101Z" {worlds["expired"].public}\n'.encode())
    answers = ask_host(found.port, tmp_path / "worlds", list(worlds))
    assert [answer[0] for answer in answers] == ["EF_OK", "EF_SIG_BAD", "EF_SIG_EXPIRED"], answers
