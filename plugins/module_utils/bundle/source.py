# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a bundle lies, a folder or a tar: its files are held to the manifest one by one, and none is kept.

Nothing here follows a symlink or trusts a name or a size that an archive claims, and nothing but the
two heads is read before the signature was judged. The order of the checks is the loader's (bundle.c).
"""

from __future__ import annotations

import abc
import errno
import hashlib
import os
import stat
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Callable, Collection, Iterator, Mapping, NamedTuple, NoReturn

from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.base.printable import printable
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle import manifest as mf
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle.manifest import (
    MANIFEST,
    SIGNATURE,
    BundleFile,
    Manifest,
)
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle.signature import Trust, judge_release
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle.tar import Entry, entries
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle.trustfiles import parse_trust
from ansible_collections.ebpf.fleet.plugins.module_utils.contract.rules import CODE as CONTRACT_CODE

LISTED_SEPARATELY = (MANIFEST, SIGNATURE)
# A bundle on its way, in either form; what is larger is not read.
MAX_BUNDLE = 512 * mf.MIB
PIECE = 1024 * 1024  # bytes of a file that are in memory at a time


class Member(NamedTuple):
    """One regular file of a bundle: its path inside, permission bits and bytes."""

    path: str
    mode: int
    data: bytes


def member_limit(path: str) -> int:
    """The largest size of that member in bytes, also for the manifest and its signature."""
    return {MANIFEST: mf.MAX_MANIFEST, SIGNATURE: mf.MAX_SIGNATURE}.get(path) or mf.file_limit(path)


def refuse(code: str, file: str, problem: str, remedy: str = "use the bundle as it was signed") -> NoReturn:
    raise FleetError(code, f"{file}: {problem}; {remedy}", file)


class MemberGuard:
    """What every member must pass before a byte of it is read."""

    def __init__(self) -> None:
        self.seen: set[str] = set()
        self.bytes = 0

    def admit(self, path: str, regular: bool, size: int) -> None:
        if not mf.safe_path(path):
            refuse("EF_FILE_TYPE", path, "is not a path that a bundle may hold")
        if not regular:
            refuse("EF_FILE_TYPE", path, "is not a regular file")
        if path in self.seen:
            refuse("EF_FILE_EXTRA", path, "is in the bundle twice")
        if size > member_limit(path):
            refuse("EF_FILE_SIZE", path, f"has {size} bytes; at most {member_limit(path)} are allowed")
        self.bytes += size
        if self.bytes > MAX_BUNDLE:
            refuse("EF_FILE_SIZE", path, f"makes the bundle larger than {MAX_BUNDLE} bytes")
        self.seen.add(path)
        if len(self.seen) > mf.MAX_FILES + len(LISTED_SEPARATELY):
            refuse("EF_FILE_EXTRA", path, f"is one file too many; at most {mf.MAX_FILES} are allowed")


def tar_entries(file: BinaryIO, archive: str) -> list[Entry]:
    """The members of an uncompressed tar, each found safe by its header; not one of them is read."""
    guard = MemberGuard()
    found = []
    for entry in entries(file, archive):
        guard.admit(entry.name, True, entry.size)
        if entry.name in LISTED_SEPARATELY:
            _head_mode(entry.name, entry.mode)
        found.append(entry)
    return found


def tar_members(archive: str) -> Iterator[Member]:
    """The members of an uncompressed tar, each read only after the whole archive's headers were found safe."""
    with open_archive(archive) as file:
        for entry in tar_entries(file, archive):
            yield read_entry(file, entry)


def open_archive(archive: str) -> BinaryIO:
    """A regular file of a bundle's size, opened without waiting for anybody; a symlink to one is fine."""
    try:
        _refuse_special(Path(archive).stat(), archive)  # before it is opened: to open a device can be an act
        fd = os.open(archive, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except OSError as error:
        refuse("EF_FILE_TYPE", archive, f"cannot be read ({error.strerror or error})", "give the path of a bundle")
    file = os.fdopen(fd, "rb")
    try:
        info = os.fstat(fd)
        _refuse_special(info, archive)
        if info.st_size > MAX_BUNDLE:
            refuse("EF_FILE_SIZE", archive, f"has {info.st_size} bytes; at most {MAX_BUNDLE} are read")
    except BaseException:
        file.close()
        raise
    return file


def _refuse_special(info: os.stat_result, path: str) -> None:
    if not stat.S_ISREG(info.st_mode):
        refuse("EF_FILE_TYPE", path, "is not a regular file", "give the path of a bundle, a tar or a folder")


def read_entry(file: BinaryIO, entry: Entry) -> Member:
    """One member with its bytes."""
    data = os.pread(file.fileno(), entry.size, entry.offset)
    if len(data) != entry.size:
        refuse("EF_FILE_SIZE", entry.name, f"the archive ends after {len(data)} of its {entry.size} bytes")
    return Member(entry.name, entry.mode, data)


class Source(abc.ABC):
    """Where a bundle lies: its files are looked at one by one, and none is kept. Close it by letting go of it."""

    @abc.abstractmethod
    def head(self, path: str, limit: int, missing: str, malformed: str) -> bytes:
        """The manifest or its signature, which nothing has described yet."""

    @abc.abstractmethod
    def pieces(self, named: BundleFile) -> Iterator[bytes]:
        """The bytes of a file that is there with the size and mode that it is named with."""

    @abc.abstractmethod
    def check_extra(self, files: Collection[str]) -> None:
        """Refuse whatever is there beside these files and the two heads."""

    def check(self, named: BundleFile) -> None:
        """A file must be exactly what the manifest says; a piece of it is in memory at a time."""
        digest = hashlib.sha256()
        for piece in self.pieces(named):
            digest.update(piece)
        _same_digest(named, digest.hexdigest())

    def member(self, named: BundleFile) -> Member:
        """That file with its bytes, held to the manifest again."""
        data = b"".join(self.pieces(named))
        _same_digest(named, hashlib.sha256(data).hexdigest())
        return Member(named.path, named.mode, data)


def _same_digest(named: BundleFile, digest: str) -> None:
    if digest != named.sha256:
        refuse("EF_FILE_DIGEST", named.path, "has another SHA-256 than the manifest says")


def _same_mode_and_size(named: BundleFile, mode: int, size: int) -> None:
    if mode != named.mode:
        refuse("EF_FILE_TYPE", named.path, f"has mode {mode:04o}, not {named.mode:04o}")
    if size != named.size:
        refuse("EF_FILE_SIZE", named.path, f"has {size} bytes, not {named.size}")


def _head_mode(path: str, mode: int) -> None:
    if mode & ~0o755:
        problem = f"has mode {mode:04o}, which lets others write or is set-id"
        refuse("EF_FILE_TYPE", path, problem, "chmod it to 0644")


class FolderSource(Source):
    """A bundle in a folder; no part of a path may be a symlink."""

    def __init__(self, folder: str) -> None:
        try:
            self.fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            refuse("EF_MANIFEST_MISSING", folder, f"cannot be opened as a folder ({error.strerror})", "name it")

    def __del__(self) -> None:
        if hasattr(self, "fd"):
            os.close(self.fd)

    def _open(self, path: str, missing: str) -> int:
        """The descriptor of a regular file, each folder opened beneath the one before."""
        at = os.dup(self.fd)
        *folders, name = path.split("/")
        try:
            for folder in folders:
                flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
                before, at = at, os.open(folder, flags, dir_fd=at)
                os.close(before)
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
            return os.open(name, flags, dir_fd=at)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.EINVAL, errno.ENOTDIR, errno.ENXIO):
                refuse("EF_FILE_TYPE", path, "is not a regular file")
            refuse(missing, path, f"cannot be opened ({error.strerror})")
        finally:
            os.close(at)

    def _open_regular(self, path: str, missing: str) -> tuple[int, os.stat_result]:
        fd = self._open(path, missing)
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):
            os.close(fd)
            refuse("EF_FILE_TYPE", path, "is not a regular file")
        return fd, info

    def head(self, path: str, limit: int, missing: str, malformed: str) -> bytes:
        fd, info = self._open_regular(path, missing)
        with os.fdopen(fd, "rb") as file:
            _head_mode(path, stat.S_IMODE(info.st_mode))
            data = file.read(limit + 1) if info.st_size <= limit else b""
        if info.st_size > limit or len(data) != info.st_size:
            refuse(malformed, path, f"is larger than the limit of {limit} bytes, or changes while it is read")
        return data

    def pieces(self, named: BundleFile) -> Iterator[bytes]:
        fd, info = self._open_regular(named.path, "EF_FILE_MISSING")
        with os.fdopen(fd, "rb") as file:
            _same_mode_and_size(named, stat.S_IMODE(info.st_mode), info.st_size)
            left = named.size + 1
            while left > 0:
                piece = file.read(min(PIECE, left))
                if not piece:
                    return
                left -= len(piece)
                yield piece

    def check_extra(self, files: Collection[str]) -> None:
        folders = {folder for path in files for folder in mf.folders_of(path)}
        self._check_folder("", {*files, *LISTED_SEPARATELY}, folders)

    def _check_folder(self, prefix: str, files: set[str], folders: set[str]) -> None:
        """As deep as the manifest's paths are, whatever lies there."""
        try:
            fd = os.open(prefix or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.fd)
            with os.scandir(fd) as found:
                entries_here = sorted(found, key=lambda entry: os.fsencode(entry.name))
                kinds = [(entry.name, entry.is_file(follow_symlinks=False), entry.is_dir(follow_symlinks=False))
                         for entry in entries_here]  # fmt: skip
            os.close(fd)
        except OSError as error:
            refuse("EF_FILE_TYPE", prefix, f"cannot be read as a folder ({error.strerror})")
        for name, is_file, is_folder in kinds:
            path = f"{prefix}/{name}" if prefix else name
            if not is_file and not is_folder:
                refuse("EF_FILE_TYPE", printable(path), "is not a regular file")
            if path not in (files if is_file else folders):
                refuse("EF_FILE_EXTRA", printable(path), "is not named by the manifest")
            if is_folder:
                self._check_folder(path, files, folders)


class TarSource(Source):
    """A bundle in an uncompressed tar; only headers are read until a file is asked for."""

    def __init__(self, archive: str) -> None:
        self.file = open_archive(archive)
        self.entries = {entry.name: entry for entry in tar_entries(self.file, archive)}

    def __del__(self) -> None:
        if hasattr(self, "file"):
            self.file.close()

    def head(self, path: str, limit: int, missing: str, malformed: str) -> bytes:
        if path not in self.entries:
            refuse(missing, path, "is not in the bundle")
        return read_entry(self.file, self.entries[path]).data

    def pieces(self, named: BundleFile) -> Iterator[bytes]:
        entry = self.entries.get(named.path)
        if entry is None:
            refuse("EF_FILE_MISSING", named.path, "is named by the manifest, but is not in the bundle")
        _same_mode_and_size(named, entry.mode, entry.size)
        for at in range(0, entry.size, PIECE):
            yield os.pread(self.file.fileno(), min(PIECE, entry.size - at), entry.offset + at)

    def check_extra(self, files: Collection[str]) -> None:
        for name in self.entries:
            if name not in files and name not in LISTED_SEPARATELY:
                refuse("EF_FILE_EXTRA", name, "is not named by the manifest")


class Members(Mapping[str, Member]):
    """The members of a bundle, each read and held to the manifest when it is asked for."""

    def __init__(self, source: Source, manifest: Manifest, signature: bytes) -> None:
        self.source = source
        self.files: dict[str, BundleFile] = manifest.files
        self.heads = {MANIFEST: Member(MANIFEST, 0o644, manifest.data), SIGNATURE: Member(SIGNATURE, 0o644, signature)}

    def __getitem__(self, path: str) -> Member:
        return self.heads[path] if path in self.heads else self.source.member(self.files[path])

    def __iter__(self) -> Iterator[str]:
        return iter([*self.heads, *self.files])

    def __len__(self) -> int:
        return len(self.heads) + len(self.files)

    def __contains__(self, path: object) -> bool:
        return path in self.heads or path in self.files


def open_source(source: str) -> Source:
    """A bundle at a path, whichever form it has."""
    if not Path(source).exists():
        refuse("EF_MANIFEST_MISSING", source, "does not exist", "build it with playbooks/release.yml")
    return FolderSource(source) if Path(source).is_dir() else TarSource(source)


def check_source(source: Source, judge: Callable[[bytes, bytes], Any]) -> tuple[Manifest, bytes, Any]:
    """Hold a bundle to its manifest: the manifest, the signature and what ``judge(manifest, signature)`` answered.

    In the loader's order, so that of two faults both verifiers name the same one: heads, signature, manifest,
    files by path, what is there beside them, the contracts' variants. Nothing but the two heads is read before
    ``judge`` has agreed.
    """
    data = source.head(MANIFEST, mf.MAX_MANIFEST, "EF_MANIFEST_MISSING", "EF_MANIFEST_MALFORMED")
    signature = source.head(SIGNATURE, mf.MAX_SIGNATURE, "EF_SIG_MISSING", "EF_SIG_MALFORMED")
    verdict = judge(data, signature)
    manifest = mf.load_manifest(data)
    for path in sorted(manifest.files):
        source.check(manifest.files[path])
    source.check_extra(manifest.files)
    members = Members(source, manifest, signature)
    for name in sorted(manifest.features):
        check_variants(manifest, name, members[manifest.features[name]["contract"]].data)
    return manifest, signature, verdict


def verify(source: str, trust: Trust, now: float) -> tuple[Manifest, str]:
    """What ``ebpf-loader verify`` does, by this implementation: the manifest of a good bundle and its signer.

    ``trust`` is of read_trust(), ``now`` in seconds since 1970. Raises FleetError with the loader's reason code.
    """
    parse_trust(trust)
    judge = partial(_judge, trust=trust, now=now)
    manifest, _signature, signer = check_source(open_source(source), judge)
    return manifest, str(signer)


def _judge(manifest: bytes, signature: bytes, trust: Trust, now: float) -> str:
    return str(judge_release(manifest, signature, trust, now).signer)


def check_variants(manifest: Manifest, feature: str, data: bytes) -> None:
    """A contract that lists variants lists the manifest's, in its order, which is the order of preference.

    The loader has the same rule (variants.c); what else a contract says is judged where it is used.
    """
    path = f"features/{feature}/contract.json"
    try:
        doc = mf.parse_canonical(data, path, CONTRACT_CODE)
    except FleetError:
        return
    if not isinstance(doc, dict) or "variants" not in doc:
        return
    found = doc["variants"] if isinstance(doc["variants"], list) else [None]
    names = [one.get("name") if isinstance(one, dict) else None for one in found]
    if names != [variant["name"] for variant in manifest.features[feature]["variants"]]:
        refuse(
            CONTRACT_CODE, path, "has other variants than the manifest, or in another order", "build the bundle again"
        )
