# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The files of a bundle: what may be in it, read from a tar or a folder, written as a tar.

Nothing here follows a symlink or trusts a name or a size that an archive claims.
"""

from __future__ import annotations

import calendar
import hashlib
import io
import itertools
import os
import stat
import tarfile
import time
from pathlib import Path
from typing import Any, BinaryIO, Callable, Iterable, Iterator, NamedTuple, NoReturn

from ansible_collections.ebpf.fleet.plugins.module_utils import btf_index
from ansible_collections.ebpf.fleet.plugins.module_utils import manifest as mf
from ansible_collections.ebpf.fleet.plugins.module_utils.contract import CODE as CONTRACT_CODE
from ansible_collections.ebpf.fleet.plugins.module_utils.contract import validate_contract
from ansible_collections.ebpf.fleet.plugins.module_utils.errors import FleetError, raise_all
from ansible_collections.ebpf.fleet.plugins.module_utils.manifest import MANIFEST, SIGNATURE, Manifest

CREATED_FORMAT = "%Y-%m-%dT%H:%M:%SZ"
LISTED_SEPARATELY = (MANIFEST, SIGNATURE)
# A bundle on its way, in either form; what is larger is not read.
MAX_BUNDLE = 512 * mf.MIB
MAX_ENTRIES = mf.MAX_FILES + len(LISTED_SEPARATELY)


class Member(NamedTuple):
    """One regular file of a bundle: its path inside, permission bits and bytes."""

    path: str
    mode: int
    data: bytes


class Bundle(NamedTuple):
    """A bundle whose files are all as its manifest says; the signature is not judged yet."""

    manifest: Manifest
    signature: bytes
    members: dict[str, Member]
    contracts: dict[str, dict[str, Any]]
    btf_index: list[dict[str, Any]]


def member_limit(path: str) -> int:
    """The largest size of that member in bytes, also for the manifest and its signature."""
    limit: int = {MANIFEST: mf.MAX_MANIFEST, SIGNATURE: mf.MAX_SIGNATURE}.get(path) or mf.file_limit(path)
    return limit


def _refuse(code: str, file: str, problem: str, remedy: str = "use the bundle as it was signed") -> NoReturn:
    raise FleetError(code, f"{file}: {problem}; {remedy}", file)


class MemberGuard:
    """What every member must pass before a byte of it is read."""

    def __init__(self) -> None:
        self.seen: set[str] = set()
        self.bytes = 0

    def admit(self, path: str, regular: bool, size: int) -> None:
        if not mf.safe_path(path):
            _refuse("EF_FILE_TYPE", path, "is not a path that a bundle may hold")
        if not regular:
            _refuse("EF_FILE_TYPE", path, "is not a regular file")
        if path in self.seen:
            _refuse("EF_FILE_EXTRA", path, "is in the bundle twice")
        if size > member_limit(path):
            _refuse("EF_FILE_SIZE", path, f"has {size} bytes; at most {member_limit(path)} are allowed")
        self.bytes += max(0, size)
        if self.bytes > MAX_BUNDLE:
            _refuse("EF_FILE_SIZE", path, f"makes the bundle larger than {MAX_BUNDLE} bytes")
        self.seen.add(path)
        if len(self.seen) > MAX_ENTRIES:
            _refuse("EF_FILE_EXTRA", path, f"is one file too many; at most {mf.MAX_FILES} are allowed")


def tar_members(archive: str) -> Iterator[Member]:
    """The members of an uncompressed tar, each read only after it was found safe."""
    guard = MemberGuard()
    try:
        with _open_archive(archive) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for info in tar:
                guard.admit(info.name, info.type in tarfile.REGULAR_TYPES and not info.issparse(), info.size)
                member = tar.extractfile(info) if info.size > 0 else None
                data = member.read() if member else b""
                if len(data) != info.size:
                    problem = f"the archive ends after {len(data)} of its {info.size} bytes"
                    _refuse("EF_FILE_SIZE", info.name, problem)
                yield Member(info.name, stat.S_IMODE(info.mode), data)
    except tarfile.TarError as error:
        _refuse("EF_FILE_TYPE", archive, f"is not a readable uncompressed tar ({error})")


def _open_archive(archive: str) -> BinaryIO:
    """A regular file of a bundle's size, opened without waiting for anybody; a symlink to one is fine."""
    _refuse_special(Path(archive).stat(), archive)  # before it is opened: to open a device can be an act
    fd = os.open(archive, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    file = os.fdopen(fd, "rb")
    try:
        info = os.fstat(fd)
        _refuse_special(info, archive)
        if info.st_size > MAX_BUNDLE:
            _refuse("EF_FILE_SIZE", archive, f"has {info.st_size} bytes; at most {MAX_BUNDLE} are read")
    except BaseException:
        file.close()
        raise
    return file


def _refuse_special(info: os.stat_result, path: str) -> None:
    if not stat.S_ISREG(info.st_mode):
        _refuse("EF_FILE_TYPE", path, "is not a regular file", "give the path of a bundle, a tar or a folder")


def folder_members(folder: str) -> Iterator[Member]:
    """The files below a folder; a symlink, a device or an empty folder is a refusal."""
    guard = MemberGuard()
    for path in sorted(_bounded(_paths_below(folder, ""), folder)):
        try:
            _refuse_irregular(Path(folder, path), path)
            fd = os.open(Path(folder, path), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        except OSError as error:
            _refuse("EF_FILE_TYPE", path, f"cannot be opened as a regular file ({error.strerror})")
        with os.fdopen(fd, "rb") as file:
            info = os.fstat(fd)
            guard.admit(path, stat.S_ISREG(info.st_mode), info.st_size)
            yield Member(path, stat.S_IMODE(info.st_mode), file.read(member_limit(path) + 1))


def _refuse_irregular(file: Path, path: str) -> None:
    """Before it is opened: to open a device can be an act. What it is after that is looked at once more."""
    if not stat.S_ISREG(file.lstat().st_mode):
        _refuse("EF_FILE_TYPE", path, "is not a regular file")


def _bounded(paths: Iterator[str], folder: str) -> list[str]:
    """All paths, unless there are more than a bundle can have: the folder is then something else."""
    found = list(itertools.islice(paths, MAX_ENTRIES + 1))
    if len(found) > MAX_ENTRIES:
        _refuse("EF_FILE_EXTRA", folder, f"holds more than {MAX_ENTRIES} files", "give the path of a bundle")
    return found


def _paths_below(folder: str, prefix: str) -> Iterator[str]:
    if prefix and not mf.safe_path(prefix[:-1]):
        _refuse("EF_FILE_TYPE", prefix[:80], "is not a path that a bundle may hold")
    empty = True
    with os.scandir(Path(folder, prefix)) as entries:
        for entry in entries:
            empty = False
            path = prefix + entry.name
            if entry.is_dir(follow_symlinks=False):
                yield from _paths_below(folder, path + "/")
            else:
                yield path
    if empty and prefix:
        _refuse("EF_FILE_EXTRA", prefix, "is a folder that holds nothing named")


def check_member(manifest: Manifest, member: Member) -> None:
    """A member must be named by the manifest and be exactly what it says."""
    named = manifest.files.get(member.path)
    if named is None:
        _refuse("EF_FILE_EXTRA", member.path, "is not named by the manifest")
    if len(member.data) != named.size:
        _refuse("EF_FILE_SIZE", member.path, f"has {len(member.data)} bytes, not {named.size}")
    if hashlib.sha256(member.data).hexdigest() != named.sha256:
        _refuse("EF_FILE_DIGEST", member.path, "has another SHA-256 than the manifest says")
    if member.mode != named.mode:
        _refuse("EF_FILE_TYPE", member.path, f"has mode {member.mode:04o}, not {named.mode:04o}")


def check_complete(manifest: Manifest, seen: Iterable[str]) -> None:
    """Every file that the manifest names must have been there."""
    for path in sorted(set(manifest.files) - set(seen)):
        _refuse("EF_FILE_MISSING", path, "is named by the manifest, but is not in the bundle")


def check_files(manifest: Manifest, members: Iterable[Member], keep: Callable[[Member], None]) -> None:
    """Check a stream of members against the manifest and hand each good one to ``keep``."""
    seen: list[str] = []
    for member in members:
        if member.path not in LISTED_SEPARATELY:
            check_member(manifest, member)
        seen.append(member.path)
        keep(member)
    check_complete(manifest, seen)
    if MANIFEST not in seen:
        _refuse("EF_MANIFEST_MISSING", MANIFEST, "is not in the bundle")
    if SIGNATURE not in seen:
        _refuse("EF_SIG_MISSING", SIGNATURE, "is not in the bundle", "sign the bundle with ssh-keygen -Y sign")


def check_contract(manifest: Manifest, feature: str, data: bytes) -> dict[str, Any]:
    """Parse a feature's contract and hold it against the manifest."""
    path = f"features/{feature}/contract.json"
    doc = mf.parse_canonical(data, path, CONTRACT_CODE)
    raise_all(validate_contract(doc, path, feature))
    named = [variant["name"] for variant in manifest.features[feature]["variants"]]
    if [variant["name"] for variant in doc["variants"]] != named:
        _refuse(CONTRACT_CODE, path, "has other variants than the manifest", "build the bundle again")
    return dict(doc)


def load_bundle(source: str) -> Bundle:
    """Read a bundle from a tar or a folder, once, and check all but the signature.

    What it returns are the bytes that were checked; whatever becomes of ``source`` meanwhile, they stay.
    Raises FleetError with the reason code of the first thing that is wrong.
    """
    try:
        members = {member.path: member for member in open_members(source)}
    except OSError as error:
        _refuse("EF_FILE_TYPE", source, f"cannot be read ({error.strerror or error})", "give the path of a bundle")
    if MANIFEST not in members:
        _refuse("EF_MANIFEST_MISSING", MANIFEST, f"is not in {source}", "give the path of a bundle")
    if SIGNATURE not in members:
        _refuse("EF_SIG_MISSING", SIGNATURE, f"is not in {source}", "sign the bundle with ssh-keygen -Y sign")
    manifest = mf.load_manifest(members[MANIFEST].data)
    check_files(manifest, members.values(), lambda _member: None)
    contracts = {
        name: check_contract(manifest, name, members[entry["contract"]].data)
        for name, entry in manifest.features.items()
    }
    index = members.get(btf_index.PATH)
    entries = btf_index.parse_index(index.data, members) if index else []
    return Bundle(manifest, members[SIGNATURE].data, members, contracts, entries)


def open_members(source: str) -> Iterator[Member]:
    """The members of a bundle at a path, whichever form it has."""
    if not Path(source).exists():
        _refuse("EF_MANIFEST_MISSING", source, "does not exist", "build it with playbooks/release.yml")
    if not Path(source).is_dir():
        return tar_members(source)
    if not stat.S_ISREG(_mode_of(Path(source, MANIFEST))):
        _refuse("EF_MANIFEST_MISSING", MANIFEST, f"is not a file in {source}", "give the path of a bundle")
    return folder_members(source)


def _mode_of(path: Path) -> int:
    try:
        return path.lstat().st_mode
    except FileNotFoundError:
        return 0


def check_planned(digest: str, planned: str | None, source: str) -> None:
    """Refuse a bundle of another digest than was planned; ``planned`` is None where none was named."""
    if planned is not None and digest != planned:
        raise FleetError(
            "EF_NOT_PLANNED",
            f"{source}: its digest is {digest}, but the bundle that was planned has {planned}; "
            "put the planned bundle back, or plan again with this one",
            MANIFEST,
        )


def epoch_of(created: str) -> int:
    """The seconds since 1970 of a manifest's ``created``; a date that does not exist is a refusal."""
    try:
        return calendar.timegm(time.strptime(created, CREATED_FORMAT))
    except ValueError:
        _refuse("EF_MANIFEST_SCHEMA", MANIFEST, f"bundle.created: {created!r} is not a UTC time", "build it again")


def tar_bytes(members: dict[str, Member], mtime: int) -> bytes:
    """The one tar of these members: sorted, owned by root, of one time, without folders."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:", format=tarfile.USTAR_FORMAT) as tar:
        for path in sorted(members):
            tar.addfile(_tar_info(members[path], mtime), io.BytesIO(members[path].data))
    return buffer.getvalue()


def _tar_info(member: Member, mtime: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(member.path)
    info.size = len(member.data)
    info.mode = member.mode
    info.mtime = mtime
    return info


def as_tar(bundle: Bundle) -> bytes:
    """The wire form of a bundle, whatever form it was read from."""
    return tar_bytes(bundle.members, epoch_of(bundle.manifest.doc["bundle"]["created"]))


def find_damage(manifest: Manifest, folder: str) -> FleetError | None:
    """What is wrong with an unpacked bundle; None if every file is as signed."""
    try:
        check_files(manifest, folder_members(folder), lambda _member: None)
    except FleetError as error:
        return error
    except OSError as error:
        return FleetError("EF_FILE_MISSING", f"{folder}: cannot be read ({error.strerror})", folder)
    return None
