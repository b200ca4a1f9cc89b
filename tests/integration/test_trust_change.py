# SPDX-License-Identifier: GPL-3.0-or-later
"""A change of a host's trust: judged by both verifiers before it is written, and taken back by the way back."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.kill import answer as kill_answer
from ansible_collections.ebpf.fleet.plugins.module_utils.kill import rollback

from tests.integration.release_host import (
    DRIVER,
    NAMESPACE,
    FolderHost,
    environment,
    make_bundle,
    make_key,
    public_key,
)
from tests.integration.test_host_prepare import AS_IF_BOOTED
from tests.unit.test_rollback import SYSTEMCTL

pytestmark = [
    pytest.mark.apart,
    pytest.mark.skipif(os.geteuid() != 0, reason="a host's trust belongs to root; run as root"),
]


def line(name: str, options: str = f'namespaces="{NAMESPACE}"') -> str:
    return f"{name}@example.org {options} {public_key(make_key(name))}"


def prepare(
    host: FolderHost, *signers: str, revoked: str = "", overrule: bool = False, check: bool = False
) -> dict[str, Any]:
    """Run host_prepare on the host's trust files where systemd seems to run."""
    files = [{"path": str(host.trust / "allowed_signers"), "content": "".join(f"{one}\n" for one in signers)},
             {"path": str(host.trust / "revoked_keys"), "content": revoked}]  # fmt: skip
    arguments = {"files": files, "trust_overrule": overrule, "_ansible_check_mode": check}
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", AS_IF_BOOTED, "sh", sys.executable, "-c", DRIVER, "host_prepare"],
        input=json.dumps({"ANSIBLE_MODULE_ARGS": arguments}),
        capture_output=True, text=True, check=False, env=environment(), timeout=300,
    )  # fmt: skip
    assert done.stdout.strip(), done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def trusted(host: FolderHost) -> dict[str, str]:
    return {path.name: path.read_text() for path in sorted(host.trust.iterdir())}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> FolderHost:
    host = FolderHost(tmp_path_factory.mktemp("template") / "host")
    assert prepare(host, line("release"), line("second"))["changed"]
    for number in (1, 2):
        assert host.deploy(make_bundle(f"{number}.0.0", number))["changed"]
    return host


@pytest.fixture
def host(tmp_path: Path, template: FolderHost) -> FolderHost:
    """A host that trusts two signers and runs version 2.0.0, before it 1.0.0."""
    return FolderHost(tmp_path / "host", template)


def go_back(host: FolderHost, from_digest: str | None = None, **more: Any) -> dict[str, Any]:
    """The script that a rollback runs, with a stand-in for systemctl."""
    stand_in = host.root / "bin/systemctl"
    stand_in.parent.mkdir(exist_ok=True)
    stand_in.write_text(SYSTEMCTL)
    stand_in.chmod(0o755)
    (host.root / "run/ebpf-fleet-loader").mkdir(parents=True, exist_ok=True)
    script = rollback.render_rollback(from_digest, wait_seconds=1, stop_seconds=2, root=str(host.root), **more)
    env = {**os.environ, "PATH": f"{stand_in.parent}:{os.environ['PATH']}", "HOST": str(host.root),
           "CALLS": str(host.root / "calls")}  # fmt: skip
    done = subprocess.run(["sh", "-c", script], env=env, capture_output=True, text=True, check=False)
    return dict(kill_answer.parse_answer({"stdout": done.stdout, "stderr": done.stderr, "rc": done.returncode}))


def digest(number: int) -> str:
    found: str = make_bundle(f"{number}.0.0", number).manifest.digest
    return found


# Before it is written


REFUSED = {
    "the variable of another fleet": ([line("stranger")], ""),
    "a line is lost": ([line("release")], ""),
    "the running signer's line is lost": ([line("second")], ""),
    "another namespace": ([line("release", 'namespaces="git"'), line("second")], ""),
    "an end that has passed": ([line("release", 'valid-before="20200101Z"'), line("second")], ""),
    "the running signer is revoked": ([line("release"), line("second")], public_key(make_key()) + "\n"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_trust_that_takes_something_away_is_refused_before_it_is_written(host: FolderHost, what: str) -> None:
    before = host.listing()
    signers, revoked = REFUSED[what]
    for check in (True, False):
        answer = prepare(host, *signers, revoked=revoked, check=check)
        assert answer.get("failed") and "ebpf_fleet_trust_overrule: true" in answer["msg"], answer
        assert answer["reason_code"] == "EF_TRUST_CHANGE"
        named = [one for one in ("release@example.org", "second@example.org", "2.0.0-") if one in answer["msg"]]
        assert named, answer["msg"]
    assert host.listing() == before


def test_the_loader_is_asked_too(host: FolderHost) -> None:
    answer = prepare(host, line("second"), line("release"), revoked=public_key(make_key()) + "\n")
    assert "the loader of the release 2.0.0-" in answer["msg"] and "EF_SIG_REVOKED" in answer["msg"]


@pytest.mark.parametrize("text", ["nonsense", "", "release@example.org cert-authority AAAA", "SSHKRL\n"])
def test_trust_that_trusts_nobody_is_refused_whatever_is_ordered(host: FolderHost, text: str) -> None:
    before = host.listing()
    answer = prepare(host, text, overrule=True)
    assert answer.get("failed") and "no usable line" in answer["msg"] and host.listing() == before
    assert answer["reason_code"] == "EF_TRUST_MALFORMED"


def test_an_order_overrules_and_says_so_loudly(host: FolderHost) -> None:
    answer = prepare(host, line("second"), revoked=public_key(make_key()) + "\n", overrule=True)
    assert answer["changed"] and answer["trust_changed"]
    said = str(answer["warnings"])
    assert "TRUST OVERRULED" in said and "2.0.0-" in said
    assert answer["trust_overruled"] and trusted(host)["allowed_signers"] == line("second") + "\n"
    assert go_back(host, trust_only=True)["changed"] is False
    assert trusted(host)["allowed_signers"] == line("second") + "\n", "an order is not taken back"


def test_more_trust_is_written_and_odd_lines_are_said(host: FolderHost) -> None:
    answer = prepare(host, line("release"), line("second"), line("third"), "odd line")
    assert answer["changed"] and "not used" in str(answer["warnings"])
    assert not prepare(host, line("release"), line("second"), line("third"), "odd line")["changed"]


# The way back


THREE = (line("release"), line("second"), line("third"))


@pytest.mark.parametrize("how", ["a refused rollout", "trust alone", "the new release runs", "module"])
def test_the_way_back_restores_the_signers(host: FolderHost, how: str) -> None:
    before = trusted(host)
    assert prepare(host, *THREE, revoked=public_key(make_key("lost")) + "\n")["changed"]
    if how in ("the new release runs", "module"):
        assert host.deploy(make_bundle("3.0.0", 3, "third"))["changed"]
    if how == "module":
        answer = host.module(state="rolled_back", from_digest=make_bundle("3.0.0", 3, "third").manifest.digest)
        assert answer["changed"] and answer["steps"][0]["act"] == "restore_trust"
    elif how == "trust alone":
        answer = go_back(host, trust_only=True)
        assert answer["ok"] and answer["changed"] and "trusted again" in answer["detail"]
    else:
        answer = go_back(host, make_bundle("3.0.0", 3, "third").manifest.digest)
        assert answer["ok"] and answer["changed"] and "trusted again" in answer["detail"], answer
    assert host.current() == make_bundle("2.0.0", 2).manifest.release_id and host.loader_verifies()
    assert trusted(host)["allowed_signers"] == before["allowed_signers"]
    assert trusted(host)["revoked_keys"] == public_key(make_key("lost")) + "\n", "a revocation stays"
    assert not (host.root / "etc/ebpf-fleet/trust-former").exists()


def test_two_refused_attempts_go_back_to_before_the_first(host: FolderHost) -> None:
    before = trusted(host)["allowed_signers"]
    assert prepare(host, *THREE)["changed"] and prepare(host, *THREE, line("fourth"))["changed"]
    assert go_back(host, "0" * 64)["changed"] and trusted(host)["allowed_signers"] == before


def test_signers_that_somebody_wrote_since_stay(host: FolderHost) -> None:
    assert prepare(host, *THREE)["changed"]
    text = trusted(host)["allowed_signers"] + "# by hand\n"
    (host.trust / "allowed_signers").write_text(text)
    answer = go_back(host, "0" * 64)
    assert answer["ok"] and "changed since" in answer["detail"] and trusted(host)["allowed_signers"] == text


def test_the_signers_of_another_release_stay(host: FolderHost) -> None:
    """Changed while 2.0.0 ran; two releases later the way back leads to 3.0.0, which ran under the new trust."""
    assert prepare(host, *THREE)["changed"]
    for number in (3, 4):
        assert host.deploy(make_bundle(f"{number}.0.0", number, "third"))["changed"]
    assert go_back(host)["changed"] and host.current() == make_bundle("3.0.0", 3, "third").manifest.release_id
    assert trusted(host)["allowed_signers"] == "".join(f"{one}\n" for one in THREE) and host.loader_verifies()


def test_the_first_trust_of_a_host_is_nothing_to_go_back_to(tmp_path: Path) -> None:
    host = FolderHost(tmp_path / "host")
    (host.trust / "allowed_signers").unlink()
    assert prepare(host, line("release"))["changed"]
    assert not go_back(host, "0" * 64)["changed"]
    assert hashlib.sha256((host.trust / "allowed_signers").read_bytes()).hexdigest()
