# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter of the prepare role, run by Ansible over variables as an inventory has them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.runner import ROOT

pytestmark = pytest.mark.apart

PLAY = """
- hosts: localhost
  connection: local
  gather_facts: false
  vars:
    cap: 5
    ebpf_fleet_policy: POLICY
  tasks:
    - ansible.builtin.copy:
        dest: "{{ playbook_dir }}/policy.json"
        content: "{{ ebpf_fleet_policy | ebpf.fleet.host_policy }}"
        mode: "0644"
"""


def play(folder: Path, policy: str, *options: str) -> subprocess.CompletedProcess[str]:
    path = folder / "play.yml"
    path.write_text(PLAY.replace("POLICY", policy))
    command = [sys.executable, "-m", "ansible", "playbook", "-i", "localhost,", str(path), *options]
    command += ["-e", f"ansible_python_interpreter={sys.executable}"]
    environment = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections"), "ANSIBLE_NOCOLOR": "1"}
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)


def test_templates_and_yaml_numbers_become_plain_json(tmp_path: Path) -> None:
    policy = (
        '{host: {cpu_millicores: "{{ cap | int }}"}, features: {runqlat: {drop_ratio_ppm: 3}}, sink: {kind: journal}}'
    )
    done = play(tmp_path, policy, "--check", "--diff")
    assert done.returncode == 0, done.stdout + done.stderr
    assert '"cpu_millicores":5' in done.stdout and not (tmp_path / "policy.json").exists(), "check mode shows only"
    assert play(tmp_path, policy).returncode == 0
    assert json.loads((tmp_path / "policy.json").read_text()) == {
        "schema": "ebpf.fleet/policy/v1",
        "host": {"cpu_millicores": 5},
        "features": {"runqlat": {"drop_ratio_ppm": 3}},
        "sink": {"kind": "journal"},
    }


def test_what_is_wrong_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    done = play(tmp_path, "{host: {cpu_milicores: 5}, sink: {files: 0}}")
    said = " ".join((done.stdout + done.stderr).split())
    assert done.returncode != 0 and not (tmp_path / "policy.json").exists()
    assert "did you mean 'cpu_millicores'?" in said and "sink.files: is 0" in said
