# SPDX-License-Identifier: GPL-3.0-or-later
"""capabilities.yml on real hosts (this machine): bundle, pages, silent hosts, next kernel; and the policy's refusal."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import POLICY_FEATURES as FEATURES
from tests.integration.release_host import make_key, public_key
from tests.integration.test_playbooks import OWN_STATE, run
from tests.unit.test_nextkernel_image import bzimage, vmlinux

pytestmark = pytest.mark.apart

NEXT = "9.9.0-1-next"
# Port 9 answers to nobody.
SILENT = (
    "gone ansible_connection=ssh ansible_host=127.0.0.1 ansible_port=9 ansible_ssh_common_args='-o BatchMode=yes'\n"
)


def need_root() -> None:
    # A user may run the file; make test refuses one.
    if os.geteuid() != 0:
        pytest.skip("not root: the kernel answers few questions, and no mount namespace can be made")


def report(folder: Path, name: str = "fleet") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / f"{name}.json").read_text())
    return found


def test_a_bundle_that_was_not_shipped_is_answered_for_in_three_files(tmp_path: Path, policy_bundle: Path) -> None:
    need_root()
    asked = (
        "-e",
        f"bundle={policy_bundle}",
        "-e",
        "ebpf_fleet_report=fleet",
        "-e",
        'ebpf_fleet_features={"exec_policy":{}}',
    )
    status, said = run("capabilities", tmp_path, *asked)
    assert status == 0, said
    census = report(tmp_path)
    assert census["bundle"]["version"] == "2.0.0" and sorted(census["features"]) == FEATURES
    assert sum(census["features"]["runqlat"]["hosts"].values()) == 2
    (policy,) = census["hosts"]["w1"]["policy"]
    assert (policy["feature"], policy["reason_code"]) == ("exec_policy", "EF_POLICY_NOT_READY")
    for page in ("fleet.md", "fleet.html"):
        text = (tmp_path / page).read_text()
        assert all(feature in text for feature in FEATURES) and "w1" in text and "EF_POLICY_NOT_READY" in text


@pytest.mark.slow
def test_a_host_that_does_not_answer_is_named_and_the_others_are_reported(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more/silent.ini").write_text(SILENT)
    options = ("-i", "hosts.ini", "-i", "more/silent.ini", "-e", "ebpf_fleet_report=more/")
    status, said = run("capabilities", tmp_path, *options)
    assert status != 0 and "No answer from gone" in said
    census = report(tmp_path / "more", "census")
    assert sorted(census["hosts"]) == ["d1", "w1"] and census["silent"] == ["gone"]
    assert census["silent_reasons"]["gone"].startswith("unreachable: ")
    assert "No answer from gone" in (tmp_path / "more/census.html").read_text()


def test_a_folder_for_the_report_that_is_none_is_refused_before_anyone_is_asked(tmp_path: Path) -> None:
    status, said = run("capabilities", tmp_path, "-e", "ebpf_fleet_report=nowhere/fleet.json")
    assert status != 0 and f"{tmp_path}/nowhere is not a folder on the controller" in said
    assert "Ask for capabilities" not in said


def test_a_bundle_that_is_none_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "no.tar").write_text("this is no tar")
    status, said = run("capabilities", tmp_path, "-e", f"bundle={tmp_path}/no.tar")
    assert status != 0 and "EF_FILE_TYPE" in said and "Ask for capabilities" not in said


@pytest.mark.slow
def test_the_kernel_that_boots_next_is_read_out_of_its_image(tmp_path: Path, policy_bundle: Path) -> None:
    """This machine's own BTF, packed as another kernel's image, whose boot loader is a link."""
    need_root()
    own = Path("/sys/kernel/btf/vmlinux")
    # Of the kernel: nothing else has whole BTF; the lab's guests have it.
    if not own.exists():
        pytest.skip(f"{own} is not there: this kernel has no BTF to pack")
    kernel = vmlinux(own.read_bytes())
    (tmp_path / "image").write_bytes(bzimage(gzip.compress(kernel, 1), len(kernel)))
    (tmp_path / "config").write_text('CONFIG_BPF_EVENTS=y\n# CONFIG_BPF_LSM is not set\nCONFIG_LSM="bpf"\n')
    within = "mount -t tmpfs tmpfs /boot && "
    within += f"cp {tmp_path}/image /boot/vmlinuz-{NEXT} && cp {tmp_path}/config /boot/config-{NEXT} && "
    within += f"ln -s vmlinuz-{NEXT} /boot/vmlinuz && "
    options = ("-e", f"bundle={policy_bundle}", "-e", "ebpf_fleet_next_kernel=auto", "-e", "ebpf_fleet_report=fleet")
    status, said = run("capabilities", tmp_path, *options, within=within)
    assert status == 0, said
    after = report(tmp_path)["hosts"]["w1"]["next_kernel"]
    assert after["release"] == NEXT and "vmlinuz points to it" in after["chosen_by"]
    assert after["btf"]["answer"] == "yes" and after["source"] == f"/boot/vmlinuz-{NEXT}"
    assert after["profiles"]["runqlat"]["profile"] == "full"
    assert f"{len(own.read_bytes())} bytes of BTF" in after["btf"]["evidence"]
    for page in ("fleet.md", "fleet.html"):
        assert "What changes at next boot" in (tmp_path / page).read_text()


@pytest.mark.slow
def test_a_next_kernel_that_is_not_installed_is_unknown_and_said(tmp_path: Path) -> None:
    status, said = run("capabilities", tmp_path, "-e", "ebpf_fleet_next_kernel=1.2.3", "-e", "ebpf_fleet_report=fleet")
    assert status == 0, said
    after = report(tmp_path)["hosts"]["w1"]["next_kernel"]
    assert after["release"] is None and "1.2.3, which is not installed" in after["chosen_by"]


def rollout(policy_bundle: Path, folder: Path, within: str, **more: Any) -> tuple[int, str]:
    signers = f'release@example.org namespaces="ebpf-fleet-release" {public_key(make_key())}'
    variables = {"ebpf_fleet_bundle": str(policy_bundle), "ebpf_fleet_allowed_signers": signers,
                 "ebpf_fleet_window_before": 1, "ebpf_fleet_window_after": 1, "ebpf_fleet_bake": 0, **more}  # fmt: skip
    return run("rollout", folder, "-e", json.dumps(variables), "--limit", "w1", "--check", within=within)


def running_release(folder: Path, policy_bundle: Path, **feature: Any) -> str:
    """Shell that lays a release and its loader's status over this machine, in a mount namespace of its own."""
    status = {
        "schema": "ebpf.fleet/status/v1", "state": "running", "bundle": {"digest": "ab" * 32},
        "features": {"runqlat": {"state": "attached", "profile": "full", "variant": "full",
                                 "counters": {"produced": 1000, "dropped": 0, "sampled_out": 0}, **feature}},
    }  # fmt: skip
    (folder / "status.py").write_text(
        "import json, sys, time\n"
        f"status = {status!r}\n"
        "status['time_unix_ns'] = time.time_ns()\n"
        "json.dump(status, open('/run/ebpf-fleet-loader/status.json', 'w'))\n"
    )
    release = "/var/lib/ebpf-fleet/releases/1"
    return OWN_STATE + (
        "mount -t tmpfs tmpfs /run && mkdir /run/ebpf-fleet-loader && "
        f"mkdir -p {release}/bundle && tar -xf {policy_bundle} -C {release}/bundle && "
        f"ln -s releases/1 /var/lib/ebpf-fleet/current && python3 {folder}/status.py && "
    )


NAMED = {"runqlat": {}, "exec_policy": {}}


@pytest.mark.slow
def test_a_policy_feature_is_refused_before_any_host_is_touched(tmp_path: Path, policy_bundle: Path) -> None:
    need_root()
    status, said = rollout(policy_bundle, tmp_path, OWN_STATE, ebpf_fleet_features=NAMED)
    assert status != 0
    assert "w1: exec_policy: EF_POLICY_NOT_READY: no release of ours is known to run on this host" in said
    assert "Print the plan" not in said and "Measure before" not in said


@pytest.mark.slow
def test_a_release_that_loses_what_it_sees_does_not_vouch_for_a_host(tmp_path: Path, policy_bundle: Path) -> None:
    need_root()
    within = running_release(tmp_path, policy_bundle, counters={"produced": 1000, "dropped": 900, "sampled_out": 0})
    status, said = rollout(policy_bundle, tmp_path, within, ebpf_fleet_features=NAMED)
    assert status != 0 and "EF_POLICY_NOT_READY: runqlat dropped 900 of 1000" in said


@pytest.mark.slow
def test_a_healthy_observability_release_lets_the_policy_feature_into_the_plan(
    tmp_path: Path, policy_bundle: Path
) -> None:
    need_root()
    within = running_release(tmp_path, policy_bundle)
    _status, said = rollout(policy_bundle, tmp_path, within, ebpf_fleet_features=NAMED)
    assert "EF_POLICY_NOT_READY" not in said and "Print the plan" in said


@pytest.mark.slow
def test_without_the_policy_feature_a_new_host_is_planned(tmp_path: Path, policy_bundle: Path) -> None:
    need_root()
    _status, said = rollout(policy_bundle, tmp_path, OWN_STATE)
    assert "EF_POLICY_NOT_READY" not in said and "Print the plan" in said
