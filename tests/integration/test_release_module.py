# SPDX-License-Identifier: GPL-3.0-or-later
"""The release module on a real bundle: it installs what is signed, and nothing else."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle import files as bd
from ansible_collections.ebpf.fleet.plugins.module_utils.release import service as release_service
from ansible_collections.ebpf.fleet.plugins.module_utils.release.desired import resolve_features
from ansible_collections.ebpf.fleet.plugins.module_utils.release.store import Layout

from tests.integration.release_host import (
    FILES,
    FILLED,
    LOADER_FILE,
    FolderHost,
    as_bundle,
    make_bundle,
    make_key,
    public_key,
    run_ansible,
    run_module,
    sign_again,
)

pytestmark = [
    pytest.mark.apart,
    pytest.mark.skipif(os.geteuid() != 0, reason="a host's releases belong to root; run as root"),
]
NEW = ("2.0.0", 2)


@pytest.fixture
def host(tmp_path: Path) -> FolderHost:
    return FolderHost(tmp_path / "host")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> FolderHost:
    host = FolderHost(tmp_path_factory.mktemp("template") / "host")
    assert host.deploy(make_bundle())["changed"]
    return host


@pytest.fixture
def deployed(tmp_path: Path, template: FolderHost) -> FolderHost:
    """A host that runs version 1.0.0."""
    return FolderHost(tmp_path / "host", template)


def write_tar(path: Path, bundle: bd.Bundle) -> Path:
    path.write_bytes(bd.as_tar(bundle))
    return path


def refused(host: FolderHost, members: dict[str, bd.Member], *codes: str, **changes: object) -> str:
    """Deploy members that must be refused; the host stays exactly as it was. Returns the message."""
    before = host.listing()
    answer = host.deploy_raw(members, resolve_features(None, make_bundle().contracts), **changes)
    assert answer.get("failed"), answer
    assert answer["reason_code"] in codes, answer["msg"]
    assert host.listing() == before
    return str(answer["msg"])


def replaced(bundle: bd.Bundle, path: str, data: bytes) -> dict[str, bd.Member]:
    return {**bundle.members, path: bundle.members[path]._replace(data=data)}


def test_the_list_of_files_is_the_bundles() -> None:
    assert set(FILES) == set(make_bundle().members)


# The good way


def test_a_first_release_is_installed_and_current(host: FolderHost) -> None:
    bundle = make_bundle()
    answer = host.deploy(bundle)
    assert answer["changed"] and answer["release"] == bundle.manifest.release_id == host.current()
    assert [step["act"] for step in answer["steps"]] == ["install", "set_mark", "activate", "link_desired"]
    assert answer["signer"] == "release@example.org" and host.previous() is None
    assert (host.base / "current/desired.json").samefile(host.root / "etc/ebpf-fleet/desired.json")
    assert host.loader_verifies()
    for path, member in bundle.members.items():
        installed = host.base / "current/bundle" / path
        assert installed.read_bytes() == member.data and installed.stat().st_mode & 0o7777 == member.mode


def test_a_second_run_changes_nothing(deployed: FolderHost) -> None:
    before = deployed.listing(times=True)
    answer = deployed.deploy(make_bundle())
    assert not answer["changed"] and answer["steps"] == []
    assert answer["diff"]["before"] == answer["diff"]["after"]
    assert deployed.listing(times=True) == before


def test_an_upgrade_keeps_the_old_release_as_previous(deployed: FolderHost) -> None:
    answer = deployed.deploy(make_bundle(*NEW))
    assert deployed.current() == answer["release"] == make_bundle(*NEW).manifest.release_id
    assert deployed.previous() == answer["previous"] == make_bundle().manifest.release_id


def test_the_diff_tells_what_changes(deployed: FolderHost) -> None:
    old, new = make_bundle().manifest.release_id, make_bundle(*NEW).manifest.release_id
    diff = deployed.deploy(make_bundle(*NEW), features={"runqlat": {"sample_every": 7}})["diff"]
    assert diff["before"]["current"] == old and diff["after"]["current"] == new
    assert diff["after"]["previous"] == old and diff["after"]["releases"] == sorted([old, new])
    assert set(diff["before"]["features"]) == {"exec_events", "runqlat"}
    assert diff["after"]["features"] == {"runqlat": {"enabled": True, "sample_every": 7}}


@pytest.mark.parametrize("fresh", [True, False])
def test_check_mode_touches_nothing_and_says_what_would_change(host: FolderHost, fresh: bool) -> None:
    if not fresh:
        host.deploy(make_bundle())
    before = host.listing(times=True)
    predicted = host.deploy(make_bundle(*NEW), check=True)
    assert predicted["changed"] and host.listing(times=True) == before
    done = host.deploy(make_bundle(*NEW))
    assert predicted["steps"] == done["steps"] and predicted["diff"] == done["diff"]


def test_check_mode_refuses_what_a_real_run_would(deployed: FolderHost) -> None:
    other = make_bundle(*NEW, "stranger")
    answer = deployed.deploy(other, check=True)
    assert answer["failed"] and answer["reason_code"] == "EF_SIG_UNKNOWN_SIGNER"


def test_check_mode_on_a_host_that_was_never_prepared(tmp_path: Path) -> None:
    host = FolderHost(tmp_path / "host")
    shutil.rmtree(host.root / "etc")
    answer = host.deploy(make_bundle(), check=True)
    assert answer["changed"] and answer["signer"] is None
    assert "once the host is prepared" in str(answer["warnings"])
    assert not list(host.root.rglob("*"))


def test_changed_features_rewrite_only_the_desired_state(deployed: FolderHost) -> None:
    before = {entry[0]: entry for entry in deployed.listing(times=True)}
    answer = deployed.deploy(make_bundle(), features={"exec_events": {"enabled": False}})
    assert [step["act"] for step in answer["steps"]] == ["write_desired"]
    after = {entry[0]: entry for entry in deployed.listing(times=True)}
    touched = {Path(name).name for name in after if after[name] != before.get(name)}
    assert touched == {"desired.json", deployed.current(), "releases"}
    assert answer["features"] == {"exec_events": {"enabled": False, "sample_every": 1}}


@pytest.mark.slow
def test_keep_prunes_the_oldest_but_never_current_or_previous(host: FolderHost) -> None:
    bundles = [make_bundle(f"{number}.0.0", number) for number in (1, 2, 3, 4)]
    for bundle in bundles:
        host.deploy(bundle, keep=3)
    assert host.releases() == sorted(bundle.manifest.release_id for bundle in bundles[1:])
    answer = host.deploy(bundles[3], keep=1)
    assert [step["act"] for step in answer["steps"]] == ["remove"]
    assert host.releases() == sorted(bundle.manifest.release_id for bundle in bundles[2:])
    assert not host.deploy(bundles[3], keep=1)["changed"]


# Refusals


@pytest.mark.sample(4)
@pytest.mark.parametrize("where", ["first", "middle", "last"])
@pytest.mark.parametrize("path", FILLED)
def test_a_flipped_byte_is_refused(deployed: FolderHost, path: str, where: str) -> None:
    bundle = make_bundle(*NEW)
    data = bytearray(bundle.members[path].data)
    data[{"first": 0, "middle": len(data) // 2, "last": len(data) - 1}[where]] ^= 1
    codes = {
        "manifest.json": ["EF_SIG_BAD"],
        "manifest.json.sig": ["EF_SIG_MALFORMED", "EF_SIG_BAD", "EF_SIG_UNKNOWN_SIGNER", "EF_SIG_NAMESPACE"],
    }.get(path, ["EF_FILE_DIGEST"])
    message = refused(deployed, replaced(bundle, path, bytes(data)), *codes)
    assert path in message


@pytest.mark.sample(2)
@pytest.mark.parametrize("path", sorted({*FILES} - {*FILLED}))
@pytest.mark.slow
def test_a_byte_in_a_file_that_is_to_be_empty_is_refused(deployed: FolderHost, path: str) -> None:
    assert path in refused(deployed, replaced(make_bundle(*NEW), path, b"#"), "EF_FILE_SIZE")


@pytest.mark.sample(3)
@pytest.mark.parametrize("path", FILES)
@pytest.mark.slow
def test_a_missing_file_is_refused(deployed: FolderHost, path: str) -> None:
    members = {name: member for name, member in make_bundle(*NEW).members.items() if name != path}
    codes = {"manifest.json": "EF_SIG_BAD", "manifest.json.sig": "EF_SIG_MISSING"}
    assert path in refused(deployed, members, codes.get(path, "EF_FILE_MISSING"))


@pytest.mark.sample(3)
@pytest.mark.parametrize("path", [name for name in FILLED if not name.startswith("manifest")])
@pytest.mark.slow
def test_a_truncated_file_is_refused(deployed: FolderHost, path: str) -> None:
    bundle = make_bundle(*NEW)
    data = bundle.members[path].data
    assert path in refused(deployed, replaced(bundle, path, data[: len(data) // 2]), "EF_FILE_SIZE")


@pytest.mark.parametrize(("path", "code"), [("manifest.json", "EF_SIG_BAD"), ("manifest.json.sig", "EF_SIG_MALFORMED")])
def test_a_truncated_manifest_or_signature_is_refused(deployed: FolderHost, path: str, code: str) -> None:
    bundle = make_bundle(*NEW)
    data = bundle.members[path].data
    refused(deployed, replaced(bundle, path, data[: len(data) // 2]), code)


@pytest.mark.parametrize("extra", ["readme", "features/runqlat/more.bpf.o", "../../outside", "/abs", "features//x"])
@pytest.mark.sample(3)
@pytest.mark.slow
def test_an_extra_file_is_refused(deployed: FolderHost, extra: str) -> None:
    members = {**make_bundle(*NEW).members, extra: bd.Member(extra, 0o644, b"x")}
    refused(deployed, members, "EF_FILE_EXTRA", "EF_FILE_TYPE")


def test_a_file_of_another_mode_is_refused(deployed: FolderHost) -> None:
    bundle = make_bundle(*NEW)
    members = {**bundle.members, LOADER_FILE: bundle.members[LOADER_FILE]._replace(mode=0o4755)}
    refused(deployed, members, "EF_FILE_TYPE")


def test_an_unsigned_bundle_is_refused(deployed: FolderHost) -> None:
    refused(deployed, replaced(make_bundle(*NEW), "manifest.json.sig", b""), "EF_SIG_MISSING")


def test_a_bundle_signed_by_a_stranger_is_refused(deployed: FolderHost) -> None:
    refused(deployed, make_bundle(*NEW, "stranger").members, "EF_SIG_UNKNOWN_SIGNER")


def test_the_signature_of_another_manifest_is_refused(deployed: FolderHost) -> None:
    signature = make_bundle("3.0.0", 3).signature
    refused(deployed, replaced(make_bundle(*NEW), "manifest.json.sig", signature), "EF_SIG_BAD")


def test_a_signature_for_another_purpose_is_refused(deployed: FolderHost) -> None:
    bundle = make_bundle(*NEW)
    signature = sign_again(bundle.manifest.data, make_key(), "git")
    refused(deployed, replaced(bundle, "manifest.json.sig", signature), "EF_SIG_NAMESPACE")


def test_a_signature_of_another_kind_of_key_is_refused(deployed: FolderHost) -> None:
    bundle = make_bundle(*NEW)
    signature = sign_again(bundle.manifest.data, make_key("release", "ecdsa"))
    refused(deployed, replaced(bundle, "manifest.json.sig", signature), "EF_SIG_MALFORMED")


def test_a_revoked_key_is_refused(deployed: FolderHost) -> None:
    (deployed.trust / "revoked_keys").write_text(f"# lost\n{public_key(make_key())} lost laptop\n")
    refused(deployed, make_bundle(*NEW).members, "EF_SIG_REVOKED")


@pytest.mark.parametrize("options", ['valid-before="20200101"', 'valid-after="20990101Z"'])
def test_a_key_outside_of_its_time_is_refused(deployed: FolderHost, options: str) -> None:
    deployed.allow(make_key(), options)
    refused(deployed, make_bundle(*NEW).members, "EF_SIG_EXPIRED")


def test_a_key_that_is_trusted_for_something_else_is_refused(deployed: FolderHost) -> None:
    deployed.allow(make_key(), 'namespaces="git"')
    refused(deployed, make_bundle(*NEW).members, "EF_SIG_NAMESPACE")


def test_trust_that_is_missing_empty_open_or_binary_is_refused(deployed: FolderHost) -> None:
    signers, revoked = deployed.trust / "allowed_signers", deployed.trust / "revoked_keys"
    members = make_bundle(*NEW).members
    signers.chmod(0o666)
    refused(deployed, members, "EF_TRUST_MALFORMED")
    deployed.allow(make_key())
    revoked.write_bytes(b"SSHKRL\n\0more")
    refused(deployed, members, "EF_TRUST_MALFORMED")
    revoked.unlink()
    deployed.allow(make_key(), "cert-authority")
    assert "cert-authority" in refused(deployed, members, "EF_TRUST_MALFORMED")
    signers.unlink()
    refused(deployed, members, "EF_TRUST_MISSING")


@pytest.mark.slow
def test_a_truncated_archive_is_refused(deployed: FolderHost, tmp_path: Path) -> None:
    bundle = make_bundle(*NEW)
    asked = deployed.questions(bundle.members, resolve_features(None, bundle.contracts))
    before = deployed.listing()
    whole = bd.as_tar(bundle)
    for size in (100, 700, len(whole) // 2, len(whole) - len(whole) // 4):
        archive = tmp_path / "cut.tar"
        archive.write_bytes(whole[:size])
        answer, _done = run_module("release", {**asked, "archive": str(archive)})
        assert answer and answer["reason_code"] in ("EF_FILE_SIZE", "EF_FILE_TYPE", "EF_FILE_MISSING"), answer
        assert deployed.listing() == before


def test_an_archive_other_than_the_judged_bundle_is_refused(deployed: FolderHost, tmp_path: Path) -> None:
    bundle, other = make_bundle(*NEW), make_bundle("3.0.0", 3)
    asked = deployed.questions(bundle.members, resolve_features(None, bundle.contracts))
    before = deployed.listing()
    answer, _done = run_module("release", {**asked, "archive": str(write_tar(tmp_path / "o.tar", other))})
    assert answer and answer["reason_code"] == "EF_FILE_DIGEST"
    assert deployed.listing() == before


def test_a_symlink_in_the_archive_is_refused(deployed: FolderHost, tmp_path: Path) -> None:
    bundle = make_bundle(*NEW)
    folder = tmp_path / "tree"
    for path, member in bundle.members.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(member.data)
    (folder / LOADER_FILE).unlink()
    (folder / LOADER_FILE).symlink_to("/bin/sh")
    archive = tmp_path / "link.tar"
    subprocess.run(["tar", "-C", str(folder), "-cf", str(archive), *sorted(bundle.members)], check=True)
    asked = deployed.questions(bundle.members, resolve_features(None, bundle.contracts))
    before = deployed.listing()
    answer, _done = run_module("release", {**asked, "archive": str(archive)})
    assert answer and answer["reason_code"] == "EF_FILE_TYPE"
    assert deployed.listing() == before


def test_an_unknown_feature_is_refused_with_a_hint(deployed: FolderHost) -> None:
    asked = deployed.questions(make_bundle().members, {"runqlatt": {"enabled": True, "sample_every": 1}})
    answer, _done = run_module("release", asked)
    assert answer and answer["reason_code"] == "EF_NOT_IN_BUNDLE" and "'runqlat'" in answer["msg"]


def test_a_downgrade_needs_the_operators_word(deployed: FolderHost) -> None:
    deployed.deploy(make_bundle(*NEW))
    old = make_bundle()
    assert "allow_downgrade" in refused(deployed, old.members, "EF_SEQUENCE_DOWNGRADE")
    refused(deployed, make_bundle("2.0.1", 2).members, "EF_SEQUENCE_DOWNGRADE")
    answer = deployed.deploy(old, allow_downgrade=True)
    assert deployed.current() == old.manifest.release_id
    assert [step["act"] for step in answer["steps"]] == ["set_previous", "set_mark", "activate"]


# Rollback and absence


def test_rollback_returns_to_the_previous_release(deployed: FolderHost) -> None:
    deployed.deploy(make_bundle(*NEW))
    bad = make_bundle(*NEW).manifest.digest
    before = deployed.listing(times=True)
    predicted = deployed.module(check=True, state="rolled_back", from_digest=bad)
    assert predicted["changed"] and deployed.listing(times=True) == before
    answer = deployed.module(state="rolled_back", from_digest=bad)
    assert answer["changed"] and deployed.current() == make_bundle().manifest.release_id
    again = deployed.module(state="rolled_back", from_digest=bad)
    assert not again["changed"] and deployed.current() == make_bundle().manifest.release_id


def test_rollback_of_a_first_release_leaves_nothing_running(deployed: FolderHost) -> None:
    answer = deployed.module(state="rolled_back", from_digest=make_bundle().manifest.digest)
    assert answer["changed"] and deployed.current() is None


def test_rollback_without_a_previous_release_is_refused(deployed: FolderHost) -> None:
    answer = deployed.module(state="rolled_back")
    assert answer["failed"] and answer["reason_code"] == "EF_NO_PREVIOUS"
    assert deployed.current() == make_bundle().manifest.release_id


def test_rollback_to_a_damaged_release_is_refused(deployed: FolderHost) -> None:
    deployed.deploy(make_bundle(*NEW))
    object_file = deployed.base / "previous/bundle/features/runqlat/full.bpf.o"
    object_file.write_bytes(object_file.read_bytes() + b"x")
    before = deployed.listing()
    answer = deployed.module(state="rolled_back")
    assert answer["failed"] and "full.bpf.o" in answer["msg"] and deployed.listing() == before


def test_rollback_under_a_revoked_key_is_refused_by_the_loader(deployed: FolderHost) -> None:
    deployed.deploy(make_bundle(*NEW))
    (deployed.trust / "revoked_keys").write_text(public_key(make_key()) + "\n")
    before = deployed.listing()
    answer = deployed.module(state="rolled_back")
    assert answer["failed"] and answer["reason_code"] == "EF_SIG_REVOKED" and deployed.listing() == before


def test_absent_removes_everything_and_is_idempotent(deployed: FolderHost) -> None:
    deployed.deploy(make_bundle(*NEW))
    assert deployed.module(state="absent")["changed"]
    assert deployed.releases() == [] and deployed.current() is None and deployed.previous() is None
    assert not (deployed.root / "etc/ebpf-fleet/desired.json").is_symlink()
    assert not deployed.module(state="absent")["changed"]


def test_absent_on_a_host_without_releases_creates_nothing(host: FolderHost) -> None:
    before = host.listing(times=True)
    assert not host.module(state="absent")["changed"] and host.listing(times=True) == before


# Faults


@pytest.mark.parametrize("path", ["bundle/features/runqlat/full.bpf.o", "ebpf-loader", "bundle/manifest.json"])
def test_a_damaged_release_is_installed_anew(deployed: FolderHost, path: str) -> None:
    file = deployed.base / "current" / path
    file.write_bytes(b"damaged")
    answer = deployed.deploy(make_bundle())
    assert answer["changed"] and answer["steps"][0]["act"] == "install"
    assert deployed.loader_verifies() and deployed.releases() == [make_bundle().manifest.release_id]


def test_a_new_signature_of_the_same_manifest_replaces_the_old(deployed: FolderHost) -> None:
    bundle = make_bundle()
    key = make_key("successor")
    members = replaced(bundle, "manifest.json.sig", sign_again(bundle.manifest.data, key))
    deployed.allow(key)
    answer = deployed.deploy(as_bundle(members))
    assert [step["act"] for step in answer["steps"]] == ["write_signature"]
    assert deployed.loader_verifies()


@pytest.mark.slow
def test_a_kill_at_any_moment_leaves_a_whole_release(deployed: FolderHost, tmp_path: Path) -> None:
    bundle = make_bundle(*NEW)
    old, new = make_bundle().manifest.release_id, bundle.manifest.release_id
    archive = write_tar(tmp_path / "b.tar", bundle)
    pristine = tmp_path / "pristine"
    deployed.root.rename(pristine)
    asked = deployed.questions(bundle.members, resolve_features(None, bundle.contracts), archive=str(archive))
    killed, outcomes = 0, set()
    while True:
        shutil.rmtree(deployed.root, ignore_errors=True)
        subprocess.run(["cp", "-a", str(pristine), str(deployed.root)], check=True)
        answer, done = run_module("release", asked, KILL_AT=str(killed + 1), KILL_ROOT=str(deployed.root))
        if answer is not None:
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
        killed += 1
        outcomes.add(deployed.current())
        assert deployed.current() in (old, new)
        assert all((deployed.base / "releases" / name).is_dir() for name in (old, str(deployed.current())))
        assert deployed.loader_verifies(), f"killed at act {killed}"
        if killed % 10 == 0 or deployed.current() == new:
            again = deployed.deploy(bundle)
            assert not again.get("failed"), again
            assert deployed.current() == new and deployed.releases() == sorted([old, new])
            assert not list(deployed.root.rglob(".tmp-*"))
    assert answer["changed"] and killed > 30 and outcomes == {old, new}


def mounted(path: Path, options: str) -> None:
    path.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        pytest.skip(f"a small file system cannot be mounted here: {done.stderr.strip()}")


@pytest.mark.parametrize("what", ["bytes", "inodes"])
def test_a_full_disk_leaves_the_old_release(tmp_path: Path, what: str) -> None:
    members = make_bundle().members
    size = sum(len(member.data) for member in members.values()) + len(members[LOADER_FILE].data)
    # One release and a half, with its folders.
    inodes = 3 * (len(members) + len({folder for path in members for folder in Path(path).parents})) // 2
    base = tmp_path / "host/var/lib/ebpf-fleet"
    mounted(
        base, f"size={size + 1024 * 1024},mode=0755" if what == "bytes" else f"size=64m,nr_inodes={inodes},mode=0755"
    )
    try:
        host = FolderHost(tmp_path / "host")
        assert host.deploy(make_bundle())["changed"]
        message = refused(host, make_bundle(*NEW).members, "EF_DISK_FULL")
        assert "make room" in message and host.loader_verifies()
    finally:
        subprocess.run(["umount", str(base)], check=True)


def test_a_file_system_without_exec_is_named(tmp_path: Path) -> None:
    base = tmp_path / "host/var/lib/ebpf-fleet"
    mounted(base, "size=64m,noexec,mode=0755")
    try:
        host = FolderHost(tmp_path / "host")
        before = host.listing()
        answer = host.deploy(make_bundle())
        assert answer["failed"] and "noexec" in answer["msg"] and host.current() is None
        assert [entry for entry in host.listing() if entry not in before and not entry[0].endswith("/releases")] == []
    finally:
        subprocess.run(["umount", str(base)], check=True)


@pytest.mark.slow
def test_two_runs_do_not_interleave(deployed: FolderHost) -> None:
    with (deployed.base / ".lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        seen: list[str | None] = []

        def look_then_free() -> None:
            time.sleep(2)
            seen.append(deployed.current())
            fcntl.flock(lock, fcntl.LOCK_UN)

        thread = threading.Thread(target=look_then_free)
        thread.start()
        answer = deployed.deploy(make_bundle(*NEW))
        thread.join()
    assert seen == [make_bundle().manifest.release_id]
    assert answer["changed"] and deployed.current() == make_bundle(*NEW).manifest.release_id


@pytest.mark.slow
def test_arguments_that_do_no_good_are_refused(host: FolderHost) -> None:
    for changes, word in (
        ({"keep": 0}, "keep"),
        ({"keep": 101}, "keep"),
        ({"wait": -1}, "wait"),
        ({"service": "x.service"}, "root"),
        ({"from_digest": "abc", "state": "rolled_back"}, "from_digest"),
        ({}, "bundle"),
    ):
        answer = host.module(**changes)
        assert answer["failed"] and answer["reason_code"] == "EF_ARGUMENT" and word in answer["msg"]


def test_a_host_without_ssh_keygen_is_told_so(deployed: FolderHost, tmp_path: Path) -> None:
    asked = deployed.questions(make_bundle(*NEW).members, resolve_features(None, make_bundle().contracts))
    answer, _done = run_module("release", asked, PATH=str(tmp_path))
    assert answer and answer["reason_code"] == "EF_NO_SSH_KEYGEN"


def test_a_host_without_systemd_is_told_so() -> None:
    if release_service.SYSTEMD_RUNS.is_dir():
        pytest.skip("systemd runs this machine, so its absence cannot be tried")
    answer, _done = run_module("release", {"state": "rolled_back"})
    assert answer and answer["failed"] and answer["reason_code"] == "EF_NO_SYSTEMD"


# The loader's word


@pytest.mark.kernel
def test_a_running_loader_confirms_its_release(deployed: FolderHost) -> None:
    layout = Layout(deployed.root)
    state = deployed.root / "run/ebpf-fleet-loader"
    for folder in (state, deployed.root / "log", deployed.root / "run/ebpf-fleet/kill.d"):
        folder.mkdir(parents=True)
    (deployed.root / "run/ebpf-fleet/kill.d/global").touch()
    since = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    digest = make_bundle().manifest.digest
    assert release_service.running_digest(layout) is None
    loader = subprocess.Popen(
        [str(deployed.base / "current/ebpf-loader"), "run", "--bundle", str(deployed.base / "current/bundle"),
         "--etc", str(deployed.root / "etc/ebpf-fleet"), "--run", str(deployed.root / "run/ebpf-fleet"),
         "--state", str(state), "--log", str(deployed.root / "log"), "--interval", "1"],
        stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        release_service.await_confirmation(layout, "none.service", digest, since, 20)
        assert release_service.running_digest(layout) == digest
        with pytest.raises(FleetError) as other:
            release_service.await_confirmation(layout, "none.service", "0" * 64, since, 1)
        assert other.value.code == "EF_NOT_CONFIRMED" and digest in other.value.message
    finally:
        loader.terminate()
        loader.communicate(timeout=20)
    assert release_service.running_digest(layout) is None


# Through ansible, with the action plugin


@pytest.mark.slow
def test_the_action_plugin_sends_the_bundle_once(host: FolderHost, tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "b.tar", make_bundle())
    before = host.listing(times=True)
    predicted = run_ansible("release", host.arguments(bundle=str(tar)), check=True)
    assert predicted["changed"] and host.listing(times=True) == before
    answer = run_ansible("release", host.arguments(bundle=str(tar)))
    assert answer["changed"] and answer["release"] == host.current()
    assert predicted["diff"] == answer["diff"]
    after = host.listing(times=True)
    again = run_ansible("release", host.arguments(bundle=str(tar)))
    assert not again["changed"] and host.listing(times=True) == after


@pytest.mark.slow
def test_a_bundle_may_be_a_folder(host: FolderHost, tmp_path: Path) -> None:
    for path, member in make_bundle().members.items():
        target = tmp_path / "bundle" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(member.data)
        target.chmod(member.mode)
    assert run_ansible("release", host.arguments(bundle=str(tmp_path / "bundle")))["changed"]
    assert host.loader_verifies()


@pytest.mark.parametrize(
    ("changes", "code", "word"),
    [
        ({"features": {"runqlatt": {}}}, "EF_NOT_IN_BUNDLE", "'runqlat'"),
        ({"features": {"runqlat": {"sampling": 2}}}, "EF_DESIRED_MALFORMED", "sample_every"),
        ({"features": {"runqlat": {"sample_every": 0}}}, "EF_DESIRED_MALFORMED", "sample_every"),
        ({"kep": 2}, "EF_ARGUMENT", "keep"),
        ({"bundle": "/nowhere.tar"}, "EF_MANIFEST_MISSING", "release.yml"),
        ({"bundle": ""}, "EF_ARGUMENT", "bundle"),
    ],
)
@pytest.mark.sample(2)
@pytest.mark.slow
def test_bad_input_never_reaches_the_host(
    host: FolderHost, tmp_path: Path, changes: dict[str, object], code: str, word: str
) -> None:
    tar = write_tar(tmp_path / "b.tar", make_bundle())
    before = host.listing(times=True)
    answer = run_ansible("release", {**host.arguments(bundle=str(tar)), **changes})
    assert answer["failed"] and answer["reason_code"] == code and word in answer["msg"]
    assert host.listing(times=True) == before


@pytest.mark.slow
def test_a_tampered_bundle_is_refused_through_ansible(deployed: FolderHost, tmp_path: Path) -> None:
    bundle = make_bundle(*NEW)
    data = bundle.members["features/runqlat/full.bpf.o"].data
    members = replaced(bundle, "features/runqlat/full.bpf.o", data[:-1] + bytes([data[-1] ^ 1]))
    tar = tmp_path / "bad.tar"
    tar.write_bytes(bd.tar_bytes(members, 0))
    answer = run_ansible("release", deployed.arguments(bundle=str(tar)))
    assert answer["failed"] and answer["reason_code"] == "EF_FILE_DIGEST"
    assert deployed.current() == make_bundle().manifest.release_id


@pytest.mark.sample(1)
@pytest.mark.parametrize("version", ["3.8", "3.9"])
def test_the_oldest_pythons_can_do_it(host: FolderHost, tmp_path: Path, version: str) -> None:
    found = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python3")) or [
        Path(path) for path in [shutil.which(f"python{version}")] if path
    ]
    if not found or subprocess.run([found[0], "--version"], capture_output=True, check=False).returncode:
        pytest.skip(f"Python {version} is not on this machine")
    tar = write_tar(tmp_path / "b.tar", make_bundle())
    answer = run_ansible("release", host.arguments(bundle=str(tar)), python=str(found[0]))
    assert answer.get("changed") and host.loader_verifies(), answer
