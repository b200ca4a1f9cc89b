# SPDX-License-Identifier: GPL-3.0-or-later
"""The modules that grant, renew and confirm a lease, on a host's tree in a folder."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from tests.integration.release_host import FolderHost, make_bundle, run_ansible, run_module

pytestmark = [
    pytest.mark.apart,
    pytest.mark.skipif(os.geteuid() != 0, reason="a host's lease belongs to root; run as root"),
]
BOOT_ID = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
SECOND = 1_000_000_000
GRANT = {"seconds": 600, "holder": "rollout 7"}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> FolderHost:
    host = FolderHost(tmp_path_factory.mktemp("template") / "host")
    assert host.deploy(make_bundle())["changed"]
    return host


@pytest.fixture
def host(tmp_path: Path, template: FolderHost) -> FolderHost:
    """A host that runs version 1.0.0 and is not on probation."""
    return FolderHost(tmp_path / "host", template)


def path_of(host: FolderHost) -> Path:
    return host.root / "etc/ebpf-fleet/lease.json"


def on_host(host: FolderHost) -> dict[str, Any] | None:
    return json.loads(path_of(host).read_text()) if path_of(host).exists() else None


def lease(host: FolderHost, check: bool = False, **arguments: Any) -> dict[str, Any]:
    result, done = run_module("lease", {"root": str(host.root), **arguments}, check)
    assert result is not None, done.stderr
    return result


def now() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def test_a_lease_is_granted_renewed_and_confirmed(host: FolderHost) -> None:
    granted = lease(host, **GRANT)
    document = on_host(host)
    assert granted["changed"] and granted["left_seconds"] is None
    assert document == {"schema": "ebpf.fleet/lease/v1", **granted["lease"]}
    assert document["boot_id"] == BOOT_ID and document["holder"] == "rollout 7"
    assert 590 * SECOND < document["expires_boottime_ns"] - now() <= 600 * SECOND
    assert document["bundle_digest"] == make_bundle().manifest.digest, "the current release, where none is named"
    assert path_of(host).stat().st_mode & 0o777 == 0o644
    renewed = lease(host, **GRANT)
    assert renewed["changed"] and 590 <= renewed["left_seconds"] < 600
    assert on_host(host)["expires_boottime_ns"] > document["expires_boottime_ns"]
    confirmed = lease(host, state="confirmed", digest=document["bundle_digest"])
    assert confirmed["changed"] and confirmed["lease"] is None and on_host(host) is None
    assert confirmed["diff"]["after"] == "" and "rollout 7" in confirmed["diff"]["before"]
    assert not lease(host, state="confirmed")["changed"]
    assert not lease(host, state="absent")["changed"]


def test_check_mode_says_the_same_and_writes_nothing(host: FolderHost) -> None:
    told = lease(host, check=True, **GRANT)
    assert told["changed"] and "rollout 7" in told["diff"]["after"] and on_host(host) is None
    lease(host, **GRANT)
    before = on_host(host)
    assert lease(host, check=True, state="confirmed")["changed"]
    assert on_host(host) == before


def test_what_ran_out_cannot_be_confirmed_only_ended(host: FolderHost) -> None:
    lease(host, **GRANT)
    path_of(host).write_text(json.dumps({**on_host(host), "expires_boottime_ns": 1}))
    refused = lease(host, state="confirmed")
    assert refused["failed"] and refused["reason_code"] == "EF_LEASE_EXPIRED" and "has detached" in refused["msg"]
    assert on_host(host) is not None
    assert lease(host, state="absent")["changed"] and on_host(host) is None


@pytest.mark.parametrize("text", ["", "{", '{"schema": 1}'])
def test_what_is_no_lease_is_treated_as_the_loader_does(host: FolderHost, text: str) -> None:
    path_of(host).write_text(text)
    assert lease(host, state="confirmed")["reason_code"] == "EF_LEASE_EXPIRED"
    assert lease(host, **GRANT)["changed"]
    assert on_host(host)["holder"] == "rollout 7"


def test_another_releases_lease_is_left_alone(host: FolderHost) -> None:
    lease(host, digest="0" * 64, **GRANT)
    for state in ("confirmed", "absent"):
        assert not lease(host, state=state, digest="1" * 64)["changed"]
    assert on_host(host)["bundle_digest"] == "0" * 64


def test_a_symlink_is_never_followed(host: FolderHost, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("mine")
    path_of(host).symlink_to(victim)
    assert lease(host, **GRANT)["changed"]
    assert victim.read_text() == "mine" and not path_of(host).is_symlink()
    path_of(host).unlink()
    path_of(host).symlink_to(victim)
    assert lease(host, state="absent")["changed"]
    assert victim.read_text() == "mine" and not path_of(host).is_symlink()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"seconds": 0, "holder": "x"}, "lease.seconds"),
        ({"seconds": 600}, "holder"),
        ({"seconds": 600, "holder": " "}, "lease.holder"),
        ({"state": "confirmed", "digest": "abc"}, "digest"),
    ],
)
def test_bad_input_is_refused(host: FolderHost, arguments: dict[str, Any], says: str) -> None:
    refused = lease(host, **arguments)
    assert refused["failed"] and says in refused["msg"] and on_host(host) is None


def test_nothing_is_current_so_nothing_is_on_probation(tmp_path: Path) -> None:
    refused = lease(FolderHost(tmp_path / "bare"), **GRANT)
    assert refused["failed"] and "no release is current" in refused["msg"]


# The release module


@pytest.mark.slow
def test_a_release_comes_with_its_lease_and_a_second_run_changes_nothing(host: FolderHost) -> None:
    bundle = make_bundle("2.0.0", 2)
    told = host.deploy(bundle, check=True, lease=GRANT)
    assert told["changed"] and told["diff"]["after"]["lease"].startswith("of rollout 7")
    assert on_host(host) is None
    done = host.deploy(bundle, lease=GRANT)
    acts = [step["act"] for step in done["steps"]]
    assert acts.index("grant_lease") < acts.index("activate")
    assert on_host(host) == {"schema": "ebpf.fleet/lease/v1", **done["lease"]}
    assert done["lease"]["bundle_digest"] == bundle.manifest.digest
    lease(host, state="confirmed")
    again = host.deploy(bundle, lease=GRANT)
    assert not again["changed"] and again["lease"] is None and on_host(host) is None


def test_what_an_interrupted_rollout_left_is_renewed_or_ended(host: FolderHost) -> None:
    bundle = make_bundle("2.0.0", 2)
    host.deploy(bundle, lease=GRANT)
    path_of(host).write_text(json.dumps({**on_host(host), "expires_boottime_ns": 1}))
    renewed = host.deploy(bundle, lease=GRANT)
    assert [step["act"] for step in renewed["steps"]] == ["grant_lease"]
    assert on_host(host)["expires_boottime_ns"] > now()
    ended = host.deploy(bundle)
    assert [step["act"] for step in ended["steps"]] == ["drop_lease"] and on_host(host) is None


def test_the_way_back_ends_the_probation(host: FolderHost) -> None:
    bundle = make_bundle("2.0.0", 2)
    host.deploy(bundle, lease=GRANT)
    back = host.module(state="rolled_back", from_digest=bundle.manifest.digest)
    assert back["changed"] and back["lease"] is None and on_host(host) is None
    assert (host.current() or "").startswith("1.0.0-")


def test_a_deployment_that_fails_takes_its_lease_back(host: FolderHost) -> None:
    """The release's own loader cannot run: what was granted goes with it."""
    bundle = make_bundle("2.0.0", 2)
    host.deploy(bundle, lease=GRANT)
    host.module(state="rolled_back", from_digest=bundle.manifest.digest)
    (host.root / "etc/ebpf-fleet/desired.json").unlink()
    (host.root / "etc/ebpf-fleet/desired.json").mkdir()
    (host.root / "etc/ebpf-fleet/desired.json/kept").touch()
    failed = host.deploy(bundle, lease=GRANT)
    assert failed["failed"], failed
    assert on_host(host) is None and (host.current() or "").startswith("1.0.0-")


def test_a_deployment_that_fails_lets_nothing_run_that_did_not(host: FolderHost) -> None:
    """A lease that nobody understands kept everything off before; afterwards it still does."""
    path_of(host).write_text("{")
    link = host.root / "etc/ebpf-fleet/desired.json"
    link.unlink()
    link.mkdir()
    (link / "kept").touch()
    failed = host.deploy(make_bundle("2.0.0", 2), lease=GRANT)
    assert failed["failed"], failed
    found = on_host(host)
    assert found is not None and found["expires_boottime_ns"] == 0
    assert found["bundle_digest"] == make_bundle().manifest.digest


def test_a_lease_with_another_state_is_refused(host: FolderHost) -> None:
    refused = host.module(state="rolled_back", lease=GRANT)
    assert refused["failed"] and "lease: belongs to" in refused["msg"]


@pytest.mark.slow
def test_by_ansible_itself(host: FolderHost) -> None:
    answer = run_ansible("lease", {"root": str(host.root), **GRANT})
    assert answer["changed"] and on_host(host)["holder"] == "rollout 7"
