# SPDX-License-Identifier: GPL-3.0-or-later
"""A release's files on a host: the lock, what is synced, where temporaries lie, and the signers that are kept."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.base import waitlock
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.base.filesteps import FileState, FileStep
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle import trust_change
from ansible_collections.ebpf.fleet.plugins.module_utils.release import apply, lease, store, trust_host
from ansible_collections.ebpf.fleet.plugins.modules import release

from tests.unit.test_manifest import make as manifest


@pytest.fixture
def layout(tmp_path: Path) -> store.Layout:
    return store.Layout(tmp_path)


def test_the_lock_is_held_and_what_an_interrupted_run_left_is_gone(layout: store.Layout) -> None:
    left = [layout.base / ".tmp-1-2", layout.releases / ".tmp-3-4"]
    for path in left:
        path.mkdir(parents=True)
    kept = layout.releases / "1.0.0-aa"
    kept.mkdir()
    with store.locked(layout):
        assert [path for path in left if path.exists()] == [] and kept.is_dir()
        assert (layout.base / ".lock").stat().st_mode & 0o777 == 0o600


def test_a_lock_that_is_a_link_is_not_followed(layout: store.Layout, tmp_path: Path) -> None:
    layout.base.mkdir(parents=True)
    (layout.base / ".lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"), store.locked(layout):
        pass
    assert not (tmp_path / "elsewhere").exists()


def test_the_lock_does_not_reach_the_programs_that_are_started(layout: store.Layout) -> None:
    with store.locked(layout):
        (held,) = [fd for fd in os.listdir("/proc/self/fd")
                   if os.path.realpath(f"/proc/self/fd/{fd}") == str(layout.base / ".lock")]  # fmt: skip
        assert not os.get_inheritable(int(held))


def test_a_release_run_waits_for_another_and_is_refused_where_that_does_not_end(
    layout: store.Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "SECONDS_FOR_LOCK", 0)
    with store.locked(layout), pytest.raises(FleetError, match="another release run holds the lock; wait") as caught:
        store.locked(layout).__enter__()
    assert caught.value.code == "EF_LOCKED" and caught.value.file == str(layout.base / ".lock")
    monkeypatch.setattr(store, "SECONDS_FOR_LOCK", 60)
    held = store.locked(layout)
    held.__enter__()
    # Long enough to be waited for, and let go meanwhile.
    threading.Timer(0.3, held.__exit__, (None, None, None)).start()
    with store.locked(layout), (layout.base / ".lock").open("rb+") as file:
        assert not waitlock.took(file.fileno(), 0)


def test_every_folder_of_a_release_is_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a power cut would show is not to be seen otherwise."""
    synced: list[Path] = []
    monkeypatch.setattr(store, "sync_folder", synced.append)
    (tmp_path / "one/two").mkdir(parents=True)
    (tmp_path / "one/file").touch()
    store._sync_tree(tmp_path)
    assert sorted(synced) == [tmp_path, tmp_path / "one", tmp_path / "one/two"]


def run_of(layout: store.Layout) -> Any:
    class Host:
        """As much of a host as an undo asks for."""

    Host.layout = layout  # type: ignore[attr-defined]
    return apply._Run(None, Host(), None)  # type: ignore[arg-type]


def test_a_temporary_never_lies_within_a_bundle(layout: store.Layout) -> None:
    run = run_of(layout)
    assert run._beside(layout.releases / "1/bundle/features/x/contract.json") == layout.releases
    assert run._beside(layout.releases / "1/desired.json") == layout.releases
    assert run._beside(layout.base / "current") == layout.base
    assert run._beside(layout.lease) == layout.etc


def test_at_the_end_nothing_is_left_of_what_the_undos_needed(layout: store.Layout, tmp_path: Path) -> None:
    run = run_of(layout)
    aside, spent = tmp_path / "aside", tmp_path / "spent"
    (aside / "bundle").mkdir(parents=True)
    spent.touch()
    run.aside["1.0.0-aa"] = aside
    run.spent = [Path("/proc/self/environ"), spent]  # the first of them cannot be removed
    run.commit()
    assert not aside.exists() and not spent.exists()


# --- the lease of a host --------------------------------------------------------------------------

LEASE = lease.Lease("d" * 64, "boot", 1000, "rollout é")


def test_a_lease_is_written_read_and_taken_away(layout: store.Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    monkeypatch.setattr(store, "sync_folder", synced.append)
    layout.etc.mkdir(parents=True)
    assert store.read_lease(layout) is None
    store.write_lease(layout, None)
    assert not layout.lease.exists()
    for one in (LEASE, LEASE._replace(holder="another")):
        store.write_lease(layout, one)
        assert store.read_lease(layout) == one and layout.lease.stat().st_mode & 0o777 == 0o644
    for none in (None, lease.UNUSABLE):
        store.write_lease(layout, LEASE)
        store.write_lease(layout, none)
        assert store.read_lease(layout) is None and list(layout.etc.iterdir()) == []
    assert synced == [layout.etc] * 2, "that it is gone lasts too"


@pytest.mark.parametrize("kind", ["folder", "link", "dangling", "fifo", "large", "text"])
def test_what_is_there_and_is_not_a_lease_cannot_be_used_and_is_not_no_lease(layout: store.Layout, kind: str) -> None:
    layout.etc.mkdir(parents=True)
    text = lease.render_lease(LEASE).encode("ascii")
    (layout.etc / "elsewhere").write_bytes(text)
    make: dict[str, Callable[[], Any]] = {
        "folder": layout.lease.mkdir,
        "link": lambda: layout.lease.symlink_to("elsewhere"),
        "dangling": lambda: layout.lease.symlink_to("nowhere"),
        "fifo": lambda: os.mkfifo(layout.lease),
        "large": lambda: layout.lease.write_bytes(text.ljust(4097)),
        "text": lambda: layout.lease.write_bytes(b"{}"),
    }
    make[kind]()
    assert store.read_lease(layout) == lease.UNUSABLE
    store.write_lease(layout, None)
    assert store.read_lease(layout) is None and (layout.etc / "elsewhere").read_bytes() == text


def test_a_lease_of_as_many_bytes_as_the_loader_reads_is_one(layout: store.Layout) -> None:
    layout.etc.mkdir(parents=True)
    layout.lease.write_bytes(lease.render_lease(LEASE).encode("ascii").ljust(4096))
    assert store.read_lease(layout) == LEASE


# --- the signers of before ------------------------------------------------------------------------


def change(layout: store.Layout, before: str | None, content: str) -> list[FileStep]:
    return [FileStep(str(layout.signers), FileState(before, None if before is None else 0o644), content, 0o644)]


def kept(layout: store.Layout) -> dict[str, str]:
    folder = layout.former
    return {path.name: path.read_text() for path in sorted(folder.iterdir())} if folder.is_dir() else {}


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def test_the_signers_that_are_there_are_kept_with_what_was_written(layout: store.Layout) -> None:
    trust_host.keep_former(layout, change(layout, "old\n", "new\n"), False)
    assert kept(layout) == {"allowed_signers": "old\n", "running": "\n", "written": f"{sha('new' + chr(10))}\n"}
    assert [path.stat().st_mode & 0o777 for path in layout.former.iterdir()] == [0o644] * 3


def test_a_second_change_keeps_the_first_ones_signers(layout: store.Layout) -> None:
    """As long as no one else wrote the file: they are what the release that runs was trusted by."""
    trust_host.keep_former(layout, change(layout, "old\n", "new\n"), False)
    layout.signers.parent.mkdir(parents=True)
    layout.signers.write_text("new\n")
    trust_host.keep_former(layout, change(layout, "new\n", "newer\n"), False)
    assert kept(layout)["allowed_signers"] == "old\n" and kept(layout)["written"] == f"{sha('newer' + chr(10))}\n"
    layout.signers.write_text("by hand\n")
    trust_host.keep_former(layout, change(layout, "by hand\n", "last\n"), False)
    assert kept(layout)["allowed_signers"] == "by hand\n"


@pytest.mark.parametrize(("before", "overruled"), [("old\n", True), (None, False), (None, True)])
def test_nothing_is_kept_of_signers_that_are_taken_away_or_were_not_there(
    layout: store.Layout, before: str | None, overruled: bool
) -> None:
    trust_host.keep_former(layout, change(layout, "older\n", "old\n"), False)
    assert kept(layout) != {}
    trust_host.keep_former(layout, change(layout, before, "new\n"), overruled)
    assert kept(layout) == {}
    trust_host.keep_former(layout, [], False)
    assert kept(layout) == {}


def test_a_release_is_called_by_its_name() -> None:
    assert trust_host.Installed(trust_change.Sealed("1.0.0-aa", b"key"), "d" * 64).release == "1.0.0-aa"


@pytest.mark.parametrize(("path", "root"), [
    ("/etc/ebpf-fleet/trust/allowed_signers", "/"), ("/h/etc/ebpf-fleet/trust/allowed_signers", "/h"),
    ("/etc/ebpf-fleet/trust/revoked_keys", None), ("/x/allowed_signers", None),
])  # fmt: skip
def test_the_host_is_found_by_its_trust_file(path: str, root: str | None) -> None:
    found = trust_host.find_layout(["/other", path])
    assert (None if found is None else str(found.root)) == root


# --- the signature in check mode ------------------------------------------------------------------


def judged(layout: store.Layout, check_mode: bool, warned: list[str]) -> Any:
    made = manifest()
    features = {"runqlat": {"enabled": True, "sample_every": 1}}
    params = {"manifest": made.data.decode(), "signature": "no signature", "digest": None, "bundle": "b.tar",
              "features": features, "fallbacks": [], "archive": None}  # fmt: skip
    return release.judge_bundle(SimpleNamespace(params=params, check_mode=check_mode, warn=warned.append), layout)


@pytest.mark.parametrize(("prepared", "check_mode"), [(True, True), (True, False), (False, False)])
def test_a_signature_is_verified_wherever_there_can_be_trust(
    layout: store.Layout, prepared: bool, check_mode: bool
) -> None:
    if prepared:
        layout.etc.mkdir(parents=True)
    with pytest.raises(FleetError) as refused:
        judged(layout, check_mode, [])
    assert refused.value.code.startswith(("EF_SIG_", "EF_TRUST_"))


def test_only_check_mode_on_a_host_that_was_never_prepared_goes_on_without_and_says_so(
    layout: store.Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(release.platform, "machine", lambda: "x86_64")
    warned: list[str] = []
    incoming, signer = judged(layout, True, warned)
    assert signer is None and incoming.manifest.digest == manifest().digest
    assert warned == [f"{layout.etc} does not exist: the signature can be verified once the host is prepared"]
