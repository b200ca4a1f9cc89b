# SPDX-License-Identifier: GPL-3.0-or-later
"""Releases of this repository on namespace hosts, deployed by the collection's own roles over SSH."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any, NamedTuple, Sequence

from tests.support.play import Played, new_key, play
from tests.support.syshost import SysHost

DEPLOY = "../tests/support/deploy"
# Attaching must not wait for the quota of a busy test machine.
VARIABLES = {"ebpf_fleet_loader_cpu_quota": "100%", "ebpf_fleet_loader_interval": 1}


class Release(NamedTuple):
    """A built and signed release: where it is, and what hosts will call it."""

    bundle: Path
    version: str
    digest: str


class SysFleet:
    """Namespace hosts with one key and one trust; `folder` holds key, bundles and inventory."""

    def __init__(self, folder: Path, hosts: Sequence[SysHost]) -> None:
        self.folder = folder
        self.hosts = list(hosts)
        self.key, self.trust = new_key(folder / "keys")
        # Seconds that a playbook may take.
        self.patience = 300.0
        # {host: variables of its own}, beside its ways in.
        self.own: dict[str, dict[str, Any]] = {}

    def release(
        self, version: str, sequence: int, features: Sequence[str] = ("runqlat", "exec_events"), **more: Any
    ) -> Release:
        """Build and sign a release of some features, or fail with what was printed; `more` goes to the playbook."""
        bundle = self.folder / f"{version}.tar"
        built = play("release", {
            "ebpf_fleet_release_version": version, "ebpf_fleet_release_sequence": sequence,
            "ebpf_fleet_release_signing_key": str(self.key), "ebpf_fleet_release_output": str(bundle),
            "ebpf_fleet_release_features": list(features), **more,
        }, inventory=None)  # fmt: skip
        assert built.rc == 0, built.text
        digest = next(line.split()[-1] for line in built.text.splitlines() if "digest:" in line)
        return Release(bundle, version, digest.strip("'\""))

    def inventory(self, **variables: Any) -> Path:
        """Write an SSH inventory of these hosts, with more variables for all of them.

        It is a dynamic one: only those take every name as it is; others read ports and ranges out of it.
        """
        names = [host.name for host in self.hosts]
        meta = {"hostvars": {host.name: {**host.ssh, **self.own.get(host.name, {})} for host in self.hosts}}
        document = {"all": {"hosts": names, "vars": {**VARIABLES, **variables}}, "_meta": meta}
        (self.folder / "hosts.json").write_text(json.dumps(document))
        path = self.folder / "hosts"
        path.write_text(f'#!/bin/sh\ncat "{self.folder}/hosts.json"\n')
        path.chmod(0o755)
        return path

    def play(self, playbook: str, variables: dict[str, Any], *arguments: str, timeout: float | None = None) -> Played:
        """Run one of the collection's playbooks on these hosts."""
        seconds = self.patience if timeout is None else timeout
        return play(playbook, variables, inventory=self.inventory(), arguments=arguments, timeout=seconds)

    def try_deploy(self, release: Release, *arguments: str, **variables: Any) -> Played:
        """Run the roles prepare and deploy on these hosts."""
        given = {"ebpf_fleet_bundle": str(release.bundle), "ebpf_fleet_allowed_signers": self.trust, **variables}
        return self.play(DEPLOY, given, *arguments)

    def deploy(self, release: Release, *arguments: str, **variables: Any) -> None:
        """The same, and it must succeed."""
        played = self.try_deploy(release, *arguments, **variables)
        assert played.rc == 0, played.text


def status(host: SysHost) -> dict[str, Any]:
    """The status document of a host's loader."""
    document: dict[str, Any] = json.loads(host.must("cat /run/ebpf-fleet-loader/status.json"))
    return document


def our_programs() -> list[dict[str, Any]]:
    """Every program named ef_ in the kernel that all hosts here share, by bpftool: a witness that is not ours."""
    done = subprocess.run(["bpftool", "prog", "show", "--json"], capture_output=True, text=True, check=True)
    return [one for one in json.loads(done.stdout) if str(one.get("name", "")).startswith("ef_")]
