# SPDX-License-Identifier: GPL-3.0-or-later
"""A refused or failed release run leaves the host as it was: current, previous, the way back, every byte and mode."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any, Iterator

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle import files as bd
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle import manifest as mf
from ansible_collections.ebpf.fleet.plugins.module_utils.release.desired import resolve_features

from tests.integration.release_host import FolderHost, make_bundle, make_key, run_module, sign_again
from tests.integration.test_confined import with_loader

pytestmark = [
    pytest.mark.apart,
    pytest.mark.skipif(os.geteuid() != 0, reason="a host's releases belong to root; run as root"),
]
PICKY = Path(__file__).parent / "hostile/picky.c"


@pytest.fixture(scope="module")
def picky(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bd.Member]:
    """A signed bundle whose loader refuses signatures that the Python verifier takes."""
    program = tmp_path_factory.mktemp("picky") / "loader"
    subprocess.run(["gcc", "-O1", "-static", "-o", str(program), str(PICKY), "-lsodium"], check=True)
    return with_loader(program)


@pytest.fixture
def host(tmp_path: Path) -> FolderHost:
    return FolderHost(tmp_path / "host")


def long_line(signature: bytes) -> bytes:
    """The same signature with its base64 in one line: good by the grammar, and by ssh-keygen."""
    first, *body, last = signature.decode().splitlines()
    return "\n".join([first, "".join(body), last, ""]).encode()


def resealed(members: dict[str, bd.Member], data: bytes) -> dict[str, bd.Member]:
    return {**members, mf.SIGNATURE: members[mf.SIGNATURE]._replace(data=data)}


def other_form(members: dict[str, bd.Member]) -> dict[str, bd.Member]:
    return resealed(members, long_line(members[mf.SIGNATURE].data))


def deploy(host: FolderHost, members: dict[str, bd.Member], **changes: Any) -> dict[str, Any]:
    features = changes.pop("features", None)
    return host.deploy_raw(members, resolve_features(features, make_bundle().contracts), **changes)


def tree(host: FolderHost) -> dict[str, tuple[Any, ...]]:
    """Every file, link and folder with its bytes and mode, and below the releases when it was changed."""
    found = {}
    for path, mode, shown, changed, _inode in host.listing(times=True):
        in_release = (host.base / "releases") in Path(path).parents
        found[path] = (mode, shown, changed if in_release else None)
    return found


def refused(host: FolderHost, answer: dict[str, Any], before: dict[str, tuple[Any, ...]], *codes: str) -> None:
    assert answer.get("failed") and answer["reason_code"] in codes, answer
    after = tree(host)
    differs = sorted(path for path in {*before, *after} if before.get(path) != after.get(path))
    assert not differs, [(path, before.get(path), after.get(path)) for path in differs[:5]]


# Nothing reaches an installed release that both verifiers have not accepted


@pytest.mark.parametrize("place", ["current", "previous", "older"])
@pytest.mark.sample(2)
def test_a_signature_that_one_verifier_refuses_never_reaches_a_release(
    host: FolderHost, picky: dict[str, bd.Member], place: str
) -> None:
    assert deploy(host, picky)["changed"]
    for number in range(3, 3 + ("current", "previous", "older").index(place)):
        assert host.deploy(make_bundle(f"{number}.0.0", number))["changed"]
    before = tree(host)
    answer = deploy(host, other_form(picky), allow_downgrade=True)
    refused(host, answer, before, "EF_SIG_MALFORMED")
    assert "a line is too long" in answer["msg"]
    if place == "previous":
        assert host.module(state="rolled_back")["changed"], "the way back is lost"
        assert host.current() == Path(os.readlink(host.base / "current")).name


def test_the_same_signature_reaches_a_release_whose_loader_takes_it(host: FolderHost) -> None:
    members = dict(make_bundle().members)
    assert deploy(host, members)["changed"]
    answer = deploy(host, other_form(members))
    assert [step["act"] for step in answer["steps"]] == ["write_signature"]
    found = (host.base / "current/bundle/manifest.json.sig").read_bytes()
    assert found == long_line(members[mf.SIGNATURE].data) and host.loader_verifies()
    assert not list(host.root.rglob(".tmp-*"))


@pytest.mark.parametrize(
    "change", ["a newline behind", "CRLF", "another key", "another namespace", "half", "empty", "another manifest's"]
)
@pytest.mark.sample(2)
def test_a_signature_that_both_refuse_changes_nothing(host: FolderHost, change: str) -> None:
    members = dict(make_bundle().members)
    assert deploy(host, members)["changed"] and host.deploy(make_bundle("2.0.0", 2))["changed"]
    manifest, good = members[mf.MANIFEST].data, members[mf.SIGNATURE].data
    data = {
        "a newline behind": good + b"\n",
        "CRLF": good.replace(b"\n", b"\r\n"),
        "another key": sign_again(manifest, make_key("stranger")),
        "another namespace": sign_again(manifest, make_key(), "git"),
        "half": good[: len(good) // 2],
        "empty": b"",
        "another manifest's": make_bundle("2.0.0", 2).signature,
    }[change]
    before = tree(host)
    answer = deploy(host, resealed(members, data), allow_downgrade=True)
    refused(host, answer, before, "EF_SIG_MALFORMED", "EF_SIG_MISSING", "EF_SIG_BAD", "EF_SIG_UNKNOWN_SIGNER",
            "EF_SIG_NAMESPACE")  # fmt: skip
    assert host.module(state="rolled_back")["changed"] and host.loader_verifies()


# A step that fails takes back all that was written before it


@pytest.fixture
def broken(host: FolderHost) -> Iterator[FolderHost]:
    """A host of two releases on which the last link cannot be made: a folder is in its place."""
    for number in (1, 2):
        assert host.deploy(make_bundle(f"{number}.0.0", number))["changed"]
    link = host.root / "etc/ebpf-fleet/desired.json"
    link.unlink()
    link.mkdir()
    yield host


def spoil(host: FolderHost, release: str) -> None:
    (host.base / "releases" / release / "bundle/features/runqlat/full.bpf.o").write_bytes(b"damaged")


@pytest.mark.parametrize(
    "what", ["upgrade", "signature", "features", "all of it", "damaged current", "damaged previous"]
)
@pytest.mark.sample(3)
@pytest.mark.slow
def test_a_step_that_fails_takes_all_back(broken: FolderHost, what: str) -> None:
    one, two = make_bundle("1.0.0", 1), make_bundle("2.0.0", 2)
    changes: dict[str, Any] = {"allow_downgrade": True}
    members = dict(two.members if what == "damaged current" else one.members)
    if what == "upgrade":
        members = dict(make_bundle("3.0.0", 3).members)
    if what in ("signature", "all of it"):
        members = other_form(members)
    if what in ("features", "all of it"):
        changes["features"] = {"exec_events": {"enabled": False}}
    if what.startswith("damaged"):
        spoil(broken, one.manifest.release_id if what.endswith("previous") else two.manifest.release_id)
    before = tree(broken)
    answer = deploy(broken, members, **changes)
    refused(broken, answer, before, "EF_STORE")
    assert "desired.json" in answer["msg"] and not list(broken.root.rglob(".tmp-*"))
    (broken.root / "etc/ebpf-fleet/desired.json").rmdir()
    if what != "damaged previous":
        assert host_goes_back(broken, one)


def host_goes_back(host: FolderHost, to: bd.Bundle) -> bool:
    answer = host.module(state="rolled_back")
    return bool(answer.get("changed")) and host.current() == to.manifest.release_id and host.loader_verifies()


@pytest.fixture
def pinned(host: FolderHost) -> Iterator[FolderHost]:
    """A host of four releases, of which the third cannot be renamed: something is mounted on it."""
    for number in (1, 2, 3, 4):
        assert host.deploy(make_bundle(f"{number}.0.0", number), keep=9)["changed"]
    place = host.base / "releases" / make_bundle("2.0.0", 2).manifest.release_id
    done = subprocess.run(["mount", "--bind", str(place), str(place)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"nothing can be mounted here: {done.stderr.strip()}")
    yield host
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("what", ["prune", "absent"])
@pytest.mark.slow
def test_a_release_that_cannot_be_removed_brings_all_back(pinned: FolderHost, what: str) -> None:
    before = tree(pinned)
    prune = what == "prune"
    answer = pinned.deploy(make_bundle("5.0.0", 5), keep=1) if prune else pinned.module(state="absent")
    refused(pinned, answer, before, "EF_STORE")
    assert host_goes_back(pinned, make_bundle("3.0.0", 3))


@pytest.mark.slow
def test_a_kill_at_any_moment_of_a_new_signature_leaves_a_good_one(host: FolderHost, tmp_path: Path) -> None:
    members = dict(make_bundle().members)
    assert deploy(host, members)["changed"] and host.deploy(make_bundle("2.0.0", 2))["changed"]
    changed, good = other_form(members), {members[mf.SIGNATURE].data, long_line(members[mf.SIGNATURE].data)}
    asked = host.questions(changed, resolve_features(None, make_bundle().contracts), allow_downgrade=True)
    pristine = tmp_path / "pristine"
    host.root.rename(pristine)
    signature = host.base / "releases" / make_bundle().manifest.release_id / "bundle/manifest.json.sig"
    for at in (1, 5, 9, 13, 17, 21, 25, 29, 33, 37, 41, 45, 49, 53, 57, 61, 65, 69):
        shutil.rmtree(host.root, ignore_errors=True)
        subprocess.run(["cp", "-a", str(pristine), str(host.root)], check=True)
        answer, done = run_module("release", asked, KILL_AT=str(at), KILL_ROOT=str(host.root))
        assert signature.read_bytes() in good and host.loader_verifies(), f"killed at act {at}"
        if answer is not None:
            assert answer["changed"]
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
    assert at > 20
    again, _done = run_module("release", asked)
    assert again is not None and not again.get("failed") and not list(host.root.rglob(".tmp-*"))


# The high-water mark


@pytest.mark.slow
def test_the_mark_survives_the_way_back_and_removal(host: FolderHost) -> None:
    one, two, three = (make_bundle(f"{number}.0.0", number) for number in (1, 2, 3))
    for bundle in (one, three):
        assert host.deploy(bundle)["changed"]
    assert host.module(state="rolled_back")["changed"] and host.current() == one.manifest.release_id
    before = tree(host)
    refused(host, host.deploy(two), before, "EF_SEQUENCE_DOWNGRADE")
    assert not host.deploy(one)["changed"], "what the way back led to stays"
    assert host.deploy(three)["changed"], "what ran already may run again"
    assert host.module(state="absent")["changed"]
    before = tree(host)
    for bundle in (one, two):
        refused(host, host.deploy(bundle), before, "EF_SEQUENCE_DOWNGRADE")
    answer = host.deploy(two, allow_downgrade=True)
    assert answer["changed"] and "sequence 3 to 2" in str(answer["warnings"])
    assert answer["mark"]["lowered"]["from"] == 3 and answer["mark"]["sequence"] == 2
    assert host.deploy(three)["changed"]


@pytest.mark.parametrize("data", [b"", b"{}", b'{"sequence":1}\n', b"\xff", b"9" * 5000])
@pytest.mark.sample(2)
def test_a_mark_that_cannot_be_read_is_no_permission(host: FolderHost, data: bytes) -> None:
    assert host.deploy(make_bundle())["changed"]
    (host.root / "etc/ebpf-fleet/mark.json").write_bytes(data)
    before = tree(host)
    refused(host, host.deploy(make_bundle("2.0.0", 2)), before, "EF_MARK_MALFORMED")
    assert host.deploy(make_bundle("2.0.0", 2), allow_downgrade=True)["changed"]
