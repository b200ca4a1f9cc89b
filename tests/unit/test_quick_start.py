# SPDX-License-Identifier: GPL-3.0-or-later
"""The first commands of the README work as they stand, on an inventory that has no folder for variables yet."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import yaml
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle import signature

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def commands() -> list[str]:
    """The commands of the first rollout, each whole."""
    found = re.search(r"^## A first rollout.*?^```\n(.*?)^```", README, re.M | re.S)
    assert found
    return found[1].replace("\\\n", " ").splitlines()


def test_the_tarball_is_built_before_it_is_installed() -> None:
    first = commands()[0]
    version = yaml.safe_load((ROOT / "galaxy.yml").read_text(encoding="utf-8"))["version"]
    built, _, installed = first.partition(" && ")
    assert built == "ansible-galaxy collection build --output-path build/"
    assert installed == f"ansible-galaxy collection install build/ebpf-fleet-{version}.tar.gz"


def test_the_key_is_made_and_the_inventory_trusts_it(tmp_path: Path) -> None:
    (tmp_path / "inventories" / "prod").mkdir(parents=True)
    for command in commands()[1:]:
        if command.startswith("ansible-"):
            continue
        # Whoever types it answers the question for a passphrase.
        here = command.replace("ssh-keygen ", "ssh-keygen -q -N '' ")
        done = subprocess.run(["sh", "-c", here], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stderr
    (written,) = (tmp_path / "inventories").rglob("*.yml")
    document = yaml.safe_load(written.read_text(encoding="utf-8"))
    signers = tmp_path / "allowed_signers"
    signers.write_text(document["ebpf_fleet_allowed_signers"] + "\n", encoding="utf-8")
    signers.chmod(0o644)
    trust = signature.read_trust(str(signers), str(tmp_path / "revoked_keys"))
    key = (tmp_path / "release-key.pub").read_text(encoding="utf-8").split()[1]
    assert not signature.unusable_lines(trust) and key in signers.read_text(encoding="utf-8")


def test_every_playbook_of_the_road_is_one_of_the_collection() -> None:
    named = re.findall(r"ansible-playbook .*?ebpf\.fleet\.(\w+)", README)
    assert {"release", "capabilities", "rollout", "rollback"} <= set(named)
    for name in named:
        assert (ROOT / "playbooks" / f"{name}.yml").is_file()


def test_the_passphrase_is_spoken_of() -> None:
    assert "asks for a passphrase" in README and "ssh-add release-key" in README
