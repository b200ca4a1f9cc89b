# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The releases on a host's disk: reads them and executes the steps of a plan.

Whatever ends the process at whatever moment, ``current`` names a complete
release or none: a release is built beside, synced, and renamed into place.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import json
import os
import shutil
import stat
import subprocess
import time
from pathlib import Path
from typing import Any, Iterator, NamedTuple, Sequence

from ansible_collections.ebpf.fleet.plugins.module_utils import bounded, filesteps
from ansible_collections.ebpf.fleet.plugins.module_utils import bundle as bd
from ansible_collections.ebpf.fleet.plugins.module_utils import manifest as mf
from ansible_collections.ebpf.fleet.plugins.module_utils.desired import Features, parse_desired, parse_fallbacks
from ansible_collections.ebpf.fleet.plugins.module_utils.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.lease import UNUSABLE, Lease, parse_lease, render_lease
from ansible_collections.ebpf.fleet.plugins.module_utils.release_plan import HostState, Installed

LOADER = "ebpf-loader"
COLLECTOR = "collector/bcc.py"  # in the bundle
TEMPORARY = ".tmp-"
AT_FDCWD = -100
RENAME_EXCHANGE = 2
SECONDS_FOR_LOADER = 120
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
        return parse_desired(_read(folder / "desired.json").decode("utf-8", "replace"))
    except OSError:
        return None


def _read_fallbacks(folder: Path) -> tuple[str, ...]:
    try:
        fallbacks: tuple[str, ...] = parse_fallbacks(_read(folder / "desired.json").decode("utf-8", "replace"))
        return fallbacks
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


STATUS_LIMIT_BYTES = 4 << 20


def read_status(layout: Layout) -> dict[str, Any] | None:
    """The loader's last status document; None if there is none to read."""
    return read_status_of(layout.status)


def read_status_of(path: Path) -> dict[str, Any] | None:
    """A status document; None if there is none to read. Its writer is not root, so it is read bounded."""
    try:
        doc = bounded.read_json(path, STATUS_LIMIT_BYTES)
    except ValueError:
        return None
    return doc if isinstance(doc, dict) else None


# The lock, and files that are whole or not there


@contextlib.contextmanager
def locked(layout: Layout) -> Iterator[None]:
    """Hold the host's release lock; a run that has to wait too long is refused."""
    _make_folder(layout.releases)
    path = layout.base / ".lock"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        _wait_for_lock(fd, str(path))
        _remove_leftovers(layout)
        yield
    finally:
        os.close(fd)


def _make_folder(path: Path) -> None:
    """Make a folder and its parents readable for the loader's user, whatever the umask."""
    if path.is_dir():
        return
    _make_folder(path.parent)
    path.mkdir()
    path.chmod(0o755)


def _wait_for_lock(fd: int, path: str) -> None:
    until = time.monotonic() + SECONDS_FOR_LOCK
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError as error:
            if time.monotonic() > until:
                problem = f"{path}: another release run holds the lock"
                raise FleetError("EF_LOCKED", problem + "; wait for its end and run again", path) from error
            time.sleep(0.2)


def _remove_leftovers(layout: Layout) -> None:
    """Remove what an interrupted run left; every temporary of ours is in one of these folders."""
    for folder in (layout.base, layout.releases, layout.etc):
        for path in list(folder.iterdir()) if folder.is_dir() else []:
            if path.name.startswith(TEMPORARY):
                remove_tree(path)


def remove_tree(path: Path) -> None:
    """Remove a file, a symlink or a folder; nothing there is as good."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif path.is_symlink() or path.exists():
        path.unlink()


def sync_folder(path: Path) -> None:
    """Make the names in a folder survive a power cut."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_file(path: Path, data: bytes, mode: int) -> None:
    """Create a new file with these bytes, synced; it must not exist."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
        file.flush()
        os.fchmod(fd, mode)
        os.fsync(fd)


def _temporary(folder: Path) -> Path:
    return folder / f"{TEMPORARY}{os.getpid()}-{time.monotonic_ns()}"


def replace_file(path: Path, data: bytes, mode: int, beside: Path) -> None:
    """Replace a file so that a reader sees the old bytes or the new, never part of them.

    The temporary is made in ``beside``, of the same file system, where the next
    run finds it: within a bundle it would be a file too many.
    """
    temporary = _temporary(beside)
    try:
        write_file(temporary, data, mode)
        temporary.rename(path)
    except BaseException:
        remove_tree(temporary)
        raise
    sync_folder(path.parent)


def replace_link(link: Path, target: str) -> None:
    """Point a symlink elsewhere by one rename(2)."""
    _make_folder(link.parent)
    temporary = _temporary(link.parent)
    try:
        temporary.symlink_to(target)
        temporary.rename(link)
    except BaseException:
        remove_tree(temporary)
        raise
    sync_folder(link.parent)


def put_folder(temporary: Path, final: Path) -> None:
    """Rename a finished folder into place; one that is there already is exchanged, never missing."""
    if not final.exists():
        temporary.rename(final)
        return
    if _exchange(temporary, final):
        remove_tree(temporary)
        return
    former = temporary.with_name(temporary.name + "-old")
    final.rename(former)
    temporary.rename(final)
    remove_tree(former)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two names by renameat2(2); False where the C library or the file system cannot."""
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if renameat2 is None:
        return False
    arguments = (AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE)
    if renameat2(*arguments) == 0:
        return True
    number = ctypes.get_errno()
    if number in (errno.ENOSYS, errno.EINVAL):
        return False
    raise OSError(number, os.strerror(number), str(other))


# Installing


def install(layout: Layout, incoming: Incoming, machine: str) -> None:
    """Put the release beside the others, complete and verified twice, or change nothing."""
    loader_path = incoming.manifest.loader_path(machine)
    _need_space(layout, incoming.manifest, loader_path)
    temporary = _temporary(layout.releases)
    try:
        temporary.mkdir(mode=0o700)
        _fill(temporary, incoming, loader_path)
        verify_with_loader(layout, temporary, incoming.manifest.digest)
        temporary.chmod(0o755)
        _sync_tree(temporary)
        put_folder(temporary, layout.releases / incoming.manifest.release_id)
    except BaseException:
        remove_tree(temporary)
        raise
    sync_folder(layout.releases)


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


def verify_with_loader(layout: Layout, release: Path, digest: str) -> None:
    """Let the release's own loader, the second implementation, judge its bundle."""
    command = [
        str(release / LOADER),
        "verify",
        str(release / "bundle"),
        "--self",
        "--trust",
        str(layout.signers),
    ]
    if layout.revoked.exists():
        command += ["--revoked", str(layout.revoked)]
    done = _run_loader(command)
    try:
        verdict = json.loads(done.stdout)
    except ValueError:
        verdict = None
    if not isinstance(verdict, dict):
        said = done.stderr.decode("utf-8", "replace").strip()[-500:] or f"exit {done.returncode}"
        raise FleetError("EF_UNKNOWN", f"the bundle's loader gave no verdict ({said}); use another bundle")
    if done.returncode != 0 or verdict.get("ok") is not True:
        code, reason = str(verdict.get("reason_code", "EF_UNKNOWN")), verdict.get("reason")
        raise FleetError(code, f"the bundle's loader refuses it: {reason}", verdict.get("file"))
    if verdict.get("digest") != digest:
        raise FleetError("EF_UNKNOWN", f"the bundle's loader verified {verdict.get('digest')}, not {digest}")


def _run_loader(command: list[str]) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(command, capture_output=True, check=False, timeout=SECONDS_FOR_LOADER)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise FleetError(
            "EF_LOADER_ARCH",
            f"the bundle's loader does not run here ({error}); check its architecture and that /var/lib is not "
            "mounted noexec",
            command[0],
        ) from error


# One step of a plan each


def write_desired(layout: Layout, release: str, text: str) -> None:
    replace_file(layout.releases / release / "desired.json", text.encode("ascii"), 0o644, layout.releases)


def write_signature(layout: Layout, release: str, signature: bytes) -> None:
    replace_file(layout.releases / release / "bundle" / mf.SIGNATURE, signature, 0o644, layout.releases)


def read_lease(layout: Layout) -> Lease | None:
    """The lease on the host; what is there and is no plain file is one that cannot be used."""
    try:
        return parse_lease(filesteps.read_state(str(layout.lease)).content)
    except OSError as error:
        if error.errno is None:  # not a regular file
            return UNUSABLE
        raise


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


def remove_release(layout: Layout, release: str) -> None:
    """Take a release away: renamed first, so that none is ever there in part."""
    temporary = _temporary(layout.releases)
    (layout.releases / release).rename(temporary)
    remove_tree(temporary)
