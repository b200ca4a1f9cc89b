# SPDX-License-Identifier: GPL-3.0-or-later
"""A change of trust on a host of its own, by the real playbooks: refused, rolled back with the release, or obeyed."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.play import Played, new_key
from tests.support.sysfleet import Release, SysFleet, status
from tests.support.syshost import SysHost

SIGNERS = "/etc/ebpf-fleet/trust/allowed_signers"


@pytest.fixture(scope="module")
def second(sysfleet: SysFleet) -> Release:
    return sysfleet.release("2.0.0", 2)


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A line of another signer."""
    _key, line = new_key(tmp_path_factory.mktemp("stranger"))
    return line.replace("release@", "stranger@").strip()


def rollout(fleet: SysFleet, release: Release, signers: list[str], *arguments: str, **variables: Any) -> Played:
    given = {
        "ebpf_fleet_bundle": str(release.bundle), "ebpf_fleet_allowed_signers": signers,
        "ebpf_fleet_cell": "c1", "ebpf_fleet_region": "r1", "ebpf_fleet_bake": 1,
        "ebpf_fleet_window_before": 3, "ebpf_fleet_window_after": 4, **variables,
    }  # fmt: skip
    return fleet.play("rollout", given, *arguments)


def files(host: SysHost) -> str:
    """Trust and releases as they lie there, with the links' targets."""
    return host.must(
        "cd /etc/ebpf-fleet && sha256sum trust/allowed_signers trust/revoked_keys && stat -c '%a %n' trust/*"
        " && cd /var/lib/ebpf-fleet && readlink current; readlink previous; find releases -type f | sort"
        " | xargs sha256sum"
    )


def wait_state(host: SysHost, state: str, code: str, seconds: float = 20) -> dict[str, Any]:
    end = time.monotonic() + seconds
    while True:
        found = status(host)
        if (found["state"], found["reason_code"]) == (state, code):
            return found
        assert time.monotonic() < end, found
        time.sleep(0.2)


@pytest.mark.parametrize("what", ["another signer's line in its place", "no line", "two lines in one"])
@pytest.mark.sample(1)
@pytest.mark.slow
def test_a_rollout_whose_trust_would_not_take_the_bundle_changes_nothing(
    deployed: SysHost, sysfleet: SysFleet, second: Release, stranger: str, what: str
) -> None:
    before = files(deployed)
    ours = sysfleet.trust.strip()
    signers = {"another signer's line in its place": [stranger], "no line": [],
               "two lines in one": [f"{stranger} {ours}"]}[what]  # fmt: skip
    played = rollout(sysfleet, second, signers)
    assert played.rc != 0 and files(deployed) == before
    assert ("Nothing was changed" in played.text) is (what != "no line"), played.text
    assert status(deployed)["state"] == "running"


@pytest.mark.slow
def test_a_signer_that_the_inventory_lost_is_named_and_nothing_is_written(
    deployed: SysHost, sysfleet: SysFleet, first: Release, second: Release, stranger: str
) -> None:
    ours = sysfleet.trust.strip()
    sysfleet.deploy(first, ebpf_fleet_allowed_signers=[ours, stranger])
    before = files(deployed)
    played = rollout(sysfleet, second, [ours])
    assert played.rc != 0 and "stranger@" in played.text and "ebpf_fleet_trust_overrule: true" in played.text
    assert files(deployed) == before
    ordered = rollout(sysfleet, first, [ours], ebpf_fleet_trust_overrule=True)
    assert ordered.rc == 0 and "TRUST OVERRULED" in ordered.text, ordered.text
    assert deployed.must(f"cat {SIGNERS}").strip() == ours


@pytest.mark.slow
def test_a_refused_rollout_leaves_no_trust_behind(
    deployed: SysHost, sysfleet: SysFleet, second: Release, stranger: str
) -> None:
    """The gate refuses it after trust and release were changed; both go back, and the loader starts under them."""
    ours = sysfleet.trust.strip()
    before = deployed.must(f"cat {SIGNERS}")
    refusing = {"ebpf_fleet_gate_limits": {"loader_cpu_millicores": 0}}
    played = rollout(sysfleet, second, [ours, stranger], **refusing)
    assert played.rc != 0 and "the signers of before are trusted again" in played.text, played.text
    assert deployed.must(f"cat {SIGNERS}") == before
    wait_state(deployed, "running", "EF_OK")
    assert status(deployed)["bundle"]["version"] == "1.0.0"
    deployed.must("systemctl restart ebpf-fleet-loader")
    wait_state(deployed, "running", "EF_OK")


@pytest.mark.slow
def test_where_the_release_stays_the_trust_goes_back_alone(
    deployed: SysHost, sysfleet: SysFleet, first: Release, stranger: str
) -> None:
    """The same release again with more trust; the batch fails, and there is no release to go back to."""
    before = files(deployed)
    played = rollout(sysfleet, first, [sysfleet.trust.strip(), stranger],
                     ebpf_fleet_gate_limits={"loader_cpu_millicores": 0})  # fmt: skip
    assert played.rc != 0 and "the signers of before are trusted again" in played.text, played.text
    assert files(deployed) == before and status(deployed)["bundle"]["version"] == "1.0.0"


def test_revocation_reaches_what_runs_and_capabilities_tells_it(
    deployed: SysHost, sysfleet: SysFleet, tmp_path: Path
) -> None:
    ours = sysfleet.trust.strip()
    key = " ".join(ours.split()[-2:])
    given = {"ebpf_fleet_allowed_signers": [ours], "ebpf_fleet_revoked_keys": [key]}
    refused = sysfleet.play("prepare", given)
    assert refused.rc != 0 and "would be refused" in refused.text and "EF_SIG_REVOKED" in refused.text
    assert status(deployed)["state"] == "running"
    assert sysfleet.play("prepare", {**given, "ebpf_fleet_trust_overrule": True}).rc == 0
    found = wait_state(deployed, "idle", "EF_TRUST_WITHDRAWN")
    assert found["trust"]["ok"] is False and not any(one["programs"] for one in found["features"].values())
    report = tmp_path / "census.json"
    asked = sysfleet.play("capabilities", {"ebpf_fleet_report": str(report)})
    assert asked.rc == 0 and "TRUST: it refuses the release 1.0.0-" in asked.text, asked.text
    assert json.loads(report.read_text())["hosts"][deployed.name]["trust"]["reason_code"] == "EF_SIG_REVOKED"
    back = sysfleet.play("prepare", {"ebpf_fleet_allowed_signers": [ours], "ebpf_fleet_trust_overrule": True})
    assert back.rc == 0 and "no longer revoked" in back.text
    wait_state(deployed, "running", "EF_OK")
