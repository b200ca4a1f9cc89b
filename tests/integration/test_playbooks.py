# SPDX-License-Identifier: GPL-3.0-or-later
"""The playbooks as a person runs them: whom they address, where records go, what the tarball holds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.integration.release_host import make_key, public_key
from tests.support.play import RELEASE

ROOT = Path(__file__).resolve().parents[2]
PLAYBOOKS = ("capabilities", "inventory", "prepare", "rollback", "rollout", "takeoff")
INVENTORY = f"""
[web]
w1 ansible_connection=local ansible_python_interpreter={sys.executable} ebpf_fleet_cell=c ebpf_fleet_region=r
[db]
d1 ansible_connection=local ansible_python_interpreter={sys.executable} ebpf_fleet_cell=c ebpf_fleet_region=r
[empty]
"""
# A host of its own in one mount namespace: this machine has no release, and must not get one.
OWN_STATE = "mount -t tmpfs tmpfs /var/lib && mkdir /var/lib/ebpf-fleet && "


def run(playbook: str, folder: Path, *options: str, within: str = "") -> tuple[int, str]:
    """(exit status, output) of a playbook of the collection, started in a folder that is not the checkout."""
    (folder / "hosts.ini").write_text(INVENTORY)
    command = [sys.executable, "-m", "ansible", "playbook", f"ebpf.fleet.{playbook}", *options]
    if within:
        command = ["unshare", "--mount", "sh", "-c", f'{within} exec "$@"', "sh", *command]
    done = subprocess.run(
        command,
        env={**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(ROOT / "collections"), "ANSIBLE_NOCOLOR": "1",
             "ANSIBLE_LOCALHOST_WARNING": "false", "ANSIBLE_INVENTORY": "hosts.ini", "PWD": str(folder),
             # Another test's rollout may have quarantined this very release.
             "XDG_STATE_HOME": str(folder / "state")},
        cwd=folder, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


@pytest.mark.sample(3)
@pytest.mark.parametrize(
    "options",
    [
        ("-i", "mistyped/prod"),
        ("-e", "ebpf_fleet_hosts=empty"),
        ("-e", "ebpf_fleet_hosts=wbe"),
        ("-e", "ebpf_fleet_hosts=web", "--limit", "db"),
        ("-e", "ebpf_fleet_hosts=localhost", "--limit", "web"),
        ("-i", "mistyped/prod", "--limit", "web"),
    ],
)
@pytest.mark.parametrize("playbook", PLAYBOOKS)
def test_no_host_is_never_a_good_end(tmp_path, playbook, options):
    status, said = run(playbook, tmp_path, "-e", "scope=feature=none_such", *RELEASE, *options)
    assert status != 0, said
    assert "no host is addressed" in said


def test_an_order_goes_to_the_pattern_within_the_limit_and_no_further(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("not root: the kill script confirms nothing without it")
    order = ("-e", "scope=feature=none_such", *RELEASE, "-e", "ebpf_fleet_report=record.json",
             "-e", "allow_unconcerned=true")  # fmt: skip
    status, said = run("rollback", tmp_path, *order, "-e", "ebpf_fleet_hosts=web,db", "--limit", "web")
    assert status == 0, said
    # A relative path is meant from where the command was typed.
    assert json.loads((tmp_path / "record.json").read_text())["confirmed"] == ["w1"]


@pytest.mark.parametrize("more", [(), ("-e", "ebpf_fleet_report=record.json")])
def test_check_mode_of_the_kill_switch_is_not_a_yes_and_says_why(tmp_path, more):
    status, said = run("rollback", tmp_path, "-e", "scope=global", "--check", *more)
    assert status != 0
    assert "run it without --check" in said


@pytest.mark.slow
def test_the_fleets_answers_are_written_where_the_command_was_typed(tmp_path):
    status, said = run("capabilities", tmp_path, "-e", "ebpf_fleet_report=fleet.json")
    assert status == 0, said
    assert sorted(json.loads((tmp_path / "fleet.json").read_text())["hosts"]) == ["d1", "w1"]


def rollout_options(bundle: Path) -> list[str]:
    signers = f'release@example.org namespaces="ebpf-fleet-release" {public_key(make_key())}'
    variables = {"ebpf_fleet_bundle": str(bundle), "ebpf_fleet_allowed_signers": signers,
                 "ebpf_fleet_window_before": 1, "ebpf_fleet_window_after": 1, "ebpf_fleet_bake": 0}  # fmt: skip
    return ["-e", json.dumps(variables), "--limit", "w1"]


def test_a_folder_for_records_that_is_none_is_refused_before_any_host_is_changed(tmp_path, bundle):
    status, said = run("rollout", tmp_path, *rollout_options(bundle), "-e", "ebpf_fleet_report_dir=records")
    assert status != 0
    assert f"{tmp_path}/records is not a folder on the controller" in said
    assert "Measure before" not in said


@pytest.mark.slow
def test_a_rollout_that_fails_leaves_a_host_alone_that_ran_the_release_before(tmp_path, bundle):
    """This machine has no systemd, so the batch fails before the deployment: nothing was changed, nothing goes back."""
    if os.geteuid() != 0 or Path("/run/systemd/system").is_dir():
        pytest.skip("needs root for a mount namespace, and a machine that was not booted with systemd")
    unpacked = tmp_path / "unpacked"
    with tarfile.open(bundle) as archive:
        archive.extract("manifest.json", unpacked)
    release = "/var/lib/ebpf-fleet/releases/1"
    active = f"mkdir -p {release}/bundle; cp {unpacked}/manifest.json {release}/bundle/; "
    active += "ln -s releases/1 /var/lib/ebpf-fleet/current; "
    witness = tmp_path / "after"
    keep = f'"$@"; status=$?; readlink /var/lib/ebpf-fleet/current >{witness}; exit $status; '
    status, said = run("rollout", tmp_path, *rollout_options(bundle), within=OWN_STATE + active + keep)
    assert status != 0 and "no later batch was started" in said, said
    assert witness.read_text() == "releases/1\n", "the release that ran before the rollout was taken away"
    assert "was not changed by this run" in said


def test_the_tarball_holds_what_a_person_needs_and_nothing_of_this_checkout(tmp_path):
    command = ["ansible-galaxy", "collection", "build", "--output-path", str(tmp_path), str(ROOT)]
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    subprocess.run(command, env=env, check=True, capture_output=True)
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as archive:
        names = archive.getnames()
    needed = ["playbooks/release.yml", "bpf/Makefile", "bpf/loader/cmd/main.c", "bpf/include/ef.h",
              "bpf/features/runqlat/contract.yml", "roles/prepare/templates/tmpfiles.conf.j2",
              "docs/runbooks/alerts.yml", "docs/variables.md", "inventories/example/hosts.yml", "tools/collect_btf.sh",
              "plugins/module_utils/kill/parts/engage.sh", "collectors/bcc.py",
              "collectors/fleet_bcc/command.py"]  # fmt: skip
    assert set(needed) <= set(names)
    folders = {"build", "collections", ".cache", ".git", ".ruff_cache", ".mypy_cache", ".pytest_cache", "__pycache__"}
    wrong = [name for name in names if folders & set(name.split("/")) or name.endswith((".o", ".pyc", ".gitignore"))]
    assert wrong == []
    only_here = ("tests/", "molecule/", "inventories/lab/")
    assert [name for name in names if f"{name}/".startswith(only_here)] == []
