# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The releases on a host's disk: reads them and executes the steps of a plan.

Whatever ends the process at whatever moment, ``current`` names a complete
release or none: a release is built beside, synced, and renamed into place.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
from pathlib import Path
from typing import Any, Iterator, NamedTuple, Sequence

from ansible_collections.ebpf.fleet.plugins.module_utils.base import filesteps, waitlock
from ansible_collections.ebpf.fleet.plugins.module_utils.base.atomic_files import (
    TEMPORARY,
    make_folder,
    put_folder,
    remove_tree,
    replace_file,
    replace_link,
    sync_folder,
    temporary_in,
    write_file,
)
from ansible_collections.ebpf.fleet.plugins.module_utils.base.bounded import BoundedReadError, read_bytes, read_json
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle import files as bd
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle import manifest as mf
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle.loader_verdict import judge_verdict
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle.trustfiles import MAX_TRUST, Trust
from ansible_collections.ebpf.fleet.plugins.module_utils.confine.confined import run_confined
from ansible_collections.ebpf.fleet.plugins.module_utils.confine.confinement import FOLDER, Bounds, Copy, Place
from ansible_collections.ebpf.fleet.plugins.module_utils.release.desired import Features, parse_desired, parse_fallbacks
from ansible_collections.ebpf.fleet.plugins.module_utils.release.lease import MAX_BYTES as LEASE_BYTES
from ansible_collections.ebpf.fleet.plugins.module_utils.release.lease import UNUSABLE, Lease, parse_lease, render_lease
from ansible_collections.ebpf.fleet.plugins.module_utils.release.plan import HostState, Installed
from ansible_collections.ebpf.fleet.plugins.module_utils.release.trust_kept import former_signers, read_mark

LOADER = "ebpf-loader"
COLLECTOR = "collector/bcc.py"  # in the bundle
SECONDS_FOR_LOADER = 120
CPU_SECONDS_FOR_LOADER = 60
# Beside what it reads of the bundle.
MEMORY_FOR_LOADER = 128 * 1024 * 1024
MAX_VERDICT, MAX_MESSAGES = 64 * 1024, 16 * 1024
MAX_STATUS = 4 * 1024 * 1024
SECONDS_FOR_LOCK = 60
SPARE_BYTES = 256 * 1024


class Layout(NamedTuple):
    """The paths of a managed host below a root (``/`` on a real one)."""

    root: Path

    @property
    def etc(self) -> Path:
        return self.root / "etc/ebpf-fleet"

    @property
    def base(self) -> Path:
        return self.root / "var/lib/ebpf-fleet"

    @property
    def releases(self) -> Path:
        return self.base / "releases"

    @property
    def signers(self) -> Path:
        return self.etc / "trust/allowed_signers"

    @property
    def revoked(self) -> Path:
        return self.etc / "trust/revoked_keys"

    @property
    def former(self) -> Path:
        """Where the signers of before a change of trust are kept (``trust_host``)."""
        return self.etc / "trust-former"

    @property
    def mark(self) -> Path:
        return self.etc / "mark.json"

    @property
    def desired_link(self) -> Path:
        return self.etc / "desired.json"

    @property
    def desired_target(self) -> str:
        return str(self.base / "current/desired.json")

    @property
    def lease(self) -> Path:
        return self.etc / "lease.json"

    @property
    def status(self) -> Path:
        return self.root / "run/ebpf-fleet-loader/status.json"

    @property
    def collector_status(self) -> Path:
        return self.root / "run/ebpf-fleet-bcc/status.json"


class Incoming(NamedTuple):
    """A bundle on its way in: judged manifest and signature, its archive, the text of desired.json.

    ``archive`` is None when the bundle's bytes were not sent.
    """

    manifest: mf.Manifest
    signature: bytes
    archive: str | None
    desired: str


# Reading


def read_state(layout: Layout, machine: str, running: str | None, collecting: str | None = None) -> HostState:
    """What is installed; every release's files are compared with its manifest."""
    return HostState(
        current=_linked_release(layout.base / "current"),
        previous=_linked_release(layout.base / "previous"),
        releases={name: read_release(layout, name, machine) for name in _release_names(layout)},
        desired_linked=_links_to(layout.desired_link, layout.desired_target),
        running=running,
        collecting=collecting,
        lease=read_lease(layout),
        mark=read_mark(layout.mark),
        former_signers=former_signers(layout.former, layout.signers),
    )


def _release_names(layout: Layout) -> list[str]:
    if not layout.releases.is_dir():
        return []
    return sorted(path.name for path in layout.releases.iterdir() if not path.name.startswith("."))


def _linked_release(link: Path) -> str | None:
    """The release that a link names, also when that release is gone."""
    try:
        return Path(os.readlink(link)).name
    except FileNotFoundError:
        return None
    except OSError as error:
        raise FleetError("EF_STORE", f"{link}: is not a symlink ({error.strerror}); remove it", str(link)) from error


def _links_to(link: Path, target: str) -> bool:
    return link.is_symlink() and os.readlink(link) == target


def read_release(layout: Layout, name: str, machine: str) -> Installed:
    """One installed release and what is damaged in it."""
    folder = layout.releases / name
    try:
        manifest = mf.load_manifest(_read(folder / "bundle" / mf.MANIFEST))
        signature = _read(folder / "bundle" / mf.SIGNATURE)
    except (OSError, FleetError) as error:
        return Installed(name, None, None, None, None, str(error))
    fallbacks = _read_fallbacks(folder)
    return Installed(
        release=name,
        digest=manifest.digest,
        sequence=manifest.sequence,
        features=_read_desired(folder),
        signature=signature,
        damage=_damage(folder, name, manifest, machine),
        fallbacks=fallbacks,
        collector=needs_collector(manifest, fallbacks),
    )


def needs_collector(manifest: mf.Manifest, fallbacks: Sequence[str]) -> bool:
    """Whether the BCC collector belongs to that release: opted into, and in the bundle."""
    return "bcc" in fallbacks and COLLECTOR in manifest.files


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(mf.MAX_MANIFEST + 1)


def _read_desired(folder: Path) -> Features | None:
    try:
        return parse_desired(_read(folder / "desired.json"))
    except OSError:
        return None


def _read_fallbacks(folder: Path) -> tuple[str, ...]:
    try:
        return parse_fallbacks(_read(folder / "desired.json"))
    except OSError:
        return ()


def _damage(folder: Path, name: str, manifest: mf.Manifest, machine: str) -> str | None:
    if manifest.release_id != name:
        return f"its manifest belongs to {manifest.release_id}"
    damage = bd.find_damage(manifest, str(folder / "bundle"))
    return damage.message if damage else _loader_damage(folder / LOADER, manifest, machine)


def _loader_damage(path: Path, manifest: mf.Manifest, machine: str) -> str | None:
    """What is wrong with the loader that was copied out of the bundle."""
    try:
        named = manifest.files[manifest.loader_path(machine)]
        info = path.lstat()
        if not stat.S_ISREG(info.st_mode) or stat.S_IMODE(info.st_mode) != 0o755:
            return f"{path} is not a regular file of mode 0755"
        if info.st_size != named.size or mf.digest_of(path.read_bytes()) != named.sha256:
            return f"{path} is not the bundle's loader"
    except (OSError, FleetError) as error:
        return str(error)
    return None


def read_status(layout: Layout) -> dict[str, Any] | None:
    """The loader's last status document; None if there is none to read."""
    return read_status_of(layout.status)


def read_status_of(path: Path) -> dict[str, Any] | None:
    """A status document; None if there is none to read. Its writer is not root, so it is read bounded."""
    try:
        doc = read_json(path, MAX_STATUS)
    except ValueError:
        return None
    return doc if isinstance(doc, dict) else None


# The lock, and files that are whole or not there


@contextlib.contextmanager
def locked(layout: Layout) -> Iterator[None]:
    """Hold the host's release lock; a run that has to wait too long is refused."""
    make_folder(layout.releases)
    path = layout.base / ".lock"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        _wait_for_lock(fd, str(path))
        _remove_leftovers(layout)
        yield
    finally:
        os.close(fd)


def _wait_for_lock(fd: int, path: str) -> None:
    if not waitlock.took(fd, SECONDS_FOR_LOCK):
        problem = f"{path}: another release run holds the lock"
        raise FleetError("EF_LOCKED", problem + "; wait for its end and run again", path)


def _remove_leftovers(layout: Layout) -> None:
    """Remove what an interrupted run left; every temporary of ours is in one of these folders."""
    for folder in (layout.base, layout.releases, layout.etc):
        for path in list(folder.iterdir()) if folder.is_dir() else []:
            if path.name.startswith(TEMPORARY):
                remove_tree(path)


# Installing


def install(layout: Layout, incoming: Incoming, machine: str) -> Path | None:
    """Put the release beside the others, complete and verified twice, or change nothing.

    Where a damaged one was, it is put aside; its new place is returned, for the caller to remove or bring back.
    """
    loader_path = incoming.manifest.loader_path(machine)
    _need_space(layout, incoming.manifest, loader_path)
    temporary = temporary_in(layout.releases)
    try:
        temporary.mkdir(mode=0o700)
        _fill(temporary, incoming, loader_path)
        verify_with_loader(layout, temporary, incoming.manifest.digest)
        temporary.chmod(0o755)
        _sync_tree(temporary)
        aside: Path | None = put_folder(temporary, layout.releases / incoming.manifest.release_id)
    except BaseException:
        remove_tree(temporary)
        raise
    sync_folder(layout.releases)
    return aside


def verify_signature_with_loader(layout: Layout, incoming: Incoming, machine: str) -> None:
    """Let the release's loader judge these very bytes of a signature, on a copy: nothing unjudged reaches a release."""
    release = layout.releases / incoming.manifest.release_id
    _need_space(layout, incoming.manifest, incoming.manifest.loader_path(machine))
    temporary = temporary_in(layout.releases)
    try:
        temporary.mkdir(mode=0o700)
        shutil.copytree(release / "bundle", temporary / "bundle", symlinks=True)
        shutil.copy2(release / LOADER, temporary / LOADER)
        (temporary / "bundle" / mf.SIGNATURE).unlink()
        write_file(temporary / "bundle" / mf.SIGNATURE, incoming.signature, 0o644)
        verify_with_loader(layout, temporary, incoming.manifest.digest)
    finally:
        remove_tree(temporary)


def _need_space(layout: Layout, manifest: mf.Manifest, loader_path: str) -> None:
    needed = manifest.total_bytes() + manifest.files[loader_path].size + len(manifest.data) + SPARE_BYTES
    found = os.statvfs(layout.releases)
    free = found.f_bavail * found.f_frsize
    if free < needed:
        raise FleetError(
            "EF_DISK_FULL",
            f"{layout.releases}: {free} bytes are free, the release needs {needed}; make room on that file system",
            str(layout.releases),
        )


def _fill(folder: Path, incoming: Incoming, loader_path: str) -> None:
    if incoming.archive is None:
        raise FleetError("EF_STORE", "the bundle's bytes were not sent; run the module through its action plugin")
    kept: dict[str, bytes] = {}

    def keep(member: bd.Member) -> None:
        _unpack(folder / "bundle", member)
        if member.path == loader_path or member.path.endswith("/contract.json"):
            kept[member.path] = member.data
        if member.path in bd.LISTED_SEPARATELY:
            _same_as_judged(incoming, member)

    bd.check_files(incoming.manifest, bd.tar_members(incoming.archive), keep)
    for name, feature in incoming.manifest.features.items():
        bd.check_contract(incoming.manifest, name, kept[feature["contract"]])
    write_file(folder / LOADER, kept[loader_path], 0o755)
    write_file(folder / "desired.json", incoming.desired.encode("ascii"), 0o644)


def _same_as_judged(incoming: Incoming, member: bd.Member) -> None:
    """The archive must hold the manifest and signature that were verified before it was opened."""
    judged = {mf.MANIFEST: incoming.manifest.data, mf.SIGNATURE: incoming.signature}[member.path]
    if member.data != judged:
        code = "EF_FILE_DIGEST"
        problem = f"{member.path}: in the archive is not the one that was verified; transfer the bundle again"
        raise FleetError(code, problem, member.path)


def _unpack(bundle: Path, member: bd.Member) -> None:
    folder = bundle
    for part in ("", *member.path.split("/")[:-1]):
        folder = folder / part
        if not folder.is_dir():
            folder.mkdir()
            folder.chmod(0o755)
    mode = 0o644 if member.path in bd.LISTED_SEPARATELY else member.mode
    write_file(bundle / member.path, member.data, mode)


def _sync_tree(folder: Path) -> None:
    for path, _folders, _files in os.walk(folder):
        sync_folder(Path(path))


def verify_with_loader(layout: Layout, release: Path, digest: str, trust: Trust | None = None) -> None:
    """Let the release's own loader, the second implementation, judge its bundle.

    It is the signer's code: it runs confined, and what it says is data (see ``loader_verdict``). ``trust`` is
    judged in the place of the host's files.
    """
    copies = _trust_copies(layout) if trust is None else _copies_to_come(trust)
    place = Place(release / LOADER, release / "bundle", release, tuple(copies))
    command = [LOADER, "verify", FOLDER, "--self", "--trust", str(layout.signers)]
    if any(copy.path == str(layout.revoked) for copy in place.copies):
        command += ["--revoked", str(layout.revoked)]
    memory = MEMORY_FOR_LOADER + 2 * _bytes_below(release / "bundle")
    bounds = Bounds(SECONDS_FOR_LOADER, CPU_SECONDS_FOR_LOADER, memory, MAX_VERDICT, MAX_MESSAGES)
    found = run_confined(place, command, bounds)
    refusal = judge_verdict(found.stdout, found.stderr, found.ended, found.status, digest)
    if refusal is not None:
        raise refusal


def _copies_to_come(trust: Trust) -> Iterator[Copy]:
    """Trust files that are not written yet, as they will be."""
    yield Copy(trust.signers_path, trust.signers, 0, 0o444, 0, 0o555)
    if trust.revoked is not None:
        yield Copy(trust.revoked_path, trust.revoked, 0, 0o444, 0, 0o555)


def _trust_copies(layout: Layout) -> Iterator[Copy]:
    """The trust files for the confined loader: it must be able to read them, and judges owner and who can write."""
    for path in (layout.signers, layout.revoked):
        try:
            data = read_bytes(path, MAX_TRUST)
        except BoundedReadError as error:
            raise FleetError("EF_TRUST_MALFORMED", f"{error}; put the plain file there", str(path)) from error
        if data is None:
            continue
        file, folder = path.stat(), path.parent.stat()
        yield Copy(str(path), data, file.st_uid, 0o444 | file.st_mode & 0o222,
                      folder.st_uid, 0o555 | folder.st_mode & 0o1222)  # fmt: skip


def _bytes_below(folder: Path) -> int:
    """What the files below a folder of root's take."""
    return sum(path.lstat().st_size for path in folder.rglob("*"))


# One step of a plan each


def write_desired(layout: Layout, release: str, text: str) -> None:
    replace_file(layout.releases / release / "desired.json", text.encode("ascii"), 0o644, layout.releases)


def signature_path(layout: Layout, release: str) -> Path:
    return layout.releases / release / "bundle" / mf.SIGNATURE


def write_signature(layout: Layout, release: str, signature: bytes) -> None:
    replace_file(signature_path(layout, release), signature, 0o644, layout.releases)


def read_lease(layout: Layout) -> Lease | None:
    """The lease on the host; what is there and is not a plain file is one that cannot be used."""
    try:
        return parse_lease(read_bytes(layout.lease, LEASE_BYTES))
    except BoundedReadError:
        return UNUSABLE


def write_lease(layout: Layout, lease: Lease | None) -> None:
    """Replace the lease by another; None removes it. One that cannot be used is never put back."""
    if lease is not None and lease.usable:
        filesteps.write_atomically(str(layout.lease), render_lease(lease), 0o644)
    elif os.path.lexists(layout.lease):
        remove_tree(layout.lease)
        sync_folder(layout.etc)


def point(layout: Layout, link: str, release: str | None) -> None:
    """Let ``current`` or ``previous`` name a release; None removes the link."""
    path = layout.base / link
    if release is not None:
        replace_link(path, f"releases/{release}")
    elif path.is_symlink():
        path.unlink()
        sync_folder(layout.base)


def swap_back(layout: Layout) -> None:
    """Make the previous release current by one rename(2), which needs no room on the disk."""
    (layout.base / "previous").rename(layout.base / "current")
    sync_folder(layout.base)


def link_desired(layout: Layout) -> None:
    replace_link(layout.desired_link, layout.desired_target)


def unlink_desired(layout: Layout) -> None:
    remove_tree(layout.desired_link)
    sync_folder(layout.etc)


def put_aside(layout: Layout, release: str) -> Path:
    """Take a release away by one rename(2), so that none is ever there in part; its new place is a leftover."""
    temporary: Path = temporary_in(layout.releases)
    (layout.releases / release).rename(temporary)
    return temporary


def bring_release(layout: Layout, aside: Path, release: str) -> None:
    """Put a release back that was put aside, in the place of whatever is there now."""
    replaced = put_folder(aside, layout.releases / release)
    if replaced is not None:
        remove_tree(replaced)
    sync_folder(layout.releases)
