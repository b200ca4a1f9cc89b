# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The files of a bundle: what may be in it, read from a tar or a folder, written as a tar.

Nothing here follows a symlink or trusts a name or a size that an archive claims.
"""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path
from typing import Any, BinaryIO, Callable, Iterable, Mapping, NamedTuple

from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError, raise_all
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle import btf_index
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle import manifest as mf
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle.manifest import MANIFEST, SIGNATURE, Manifest
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle.signature import open_seal
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle.source import (
    LISTED_SEPARATELY,
    MAX_BUNDLE,
    FolderSource,
    Member,
    MemberGuard,
    Members,
    check_source,
    check_variants,
    member_limit,
    open_source,
    tar_members,
    verify,
)
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle.source import refuse as _refuse
from ansible_collections.ebpf.fleet.plugins.module_utils.contract.document import validate_contract
from ansible_collections.ebpf.fleet.plugins.module_utils.contract.rules import CODE as CONTRACT_CODE

CREATED_FORMAT = "%Y-%m-%dT%H:%M:%SZ"
__all__ = [
    "LISTED_SEPARATELY", "MAX_BUNDLE", "Bundle", "Member", "MemberGuard", "as_tar", "check_contract", "check_files",
    "check_planned", "epoch_of", "find_damage", "load_bundle", "member_limit", "tar_bytes", "tar_members", "verify",
    "write_tar",
]  # fmt: skip


class Bundle(NamedTuple):
    """A bundle whose files are all as its manifest says; who signed it is not judged yet.

    ``members`` reads a file when it is asked for it, and holds it to the manifest again.
    """

    manifest: Manifest
    signature: bytes
    members: Mapping[str, Member]
    contracts: dict[str, dict[str, Any]]
    btf_index: list[dict[str, Any]]


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
    check_variants(manifest, feature, data)
    return dict(doc)


def _judge_seal(manifest: bytes, signature: bytes) -> None:
    """Who signed is for each host to judge; that the key in the signature signed these bytes is known here."""
    try:
        open_seal(manifest, signature)
    except FleetError as error:
        if error.code != "EF_NO_SSH_KEYGEN":
            raise


def load_bundle(source: str) -> Bundle:
    """Read a bundle from a tar or a folder and check all but whose signature it is.

    Raises FleetError with the reason code of the first thing that is wrong. The members stay where they are.
    """
    opened = open_source(source)
    manifest, signature, _verdict = check_source(opened, _judge_seal)
    members = Members(opened, manifest, signature)
    contracts = {
        name: check_contract(manifest, name, members[entry["contract"]].data)
        for name, entry in manifest.features.items()
    }
    index = members.get(btf_index.PATH)
    entries_of = btf_index.parse_index(index.data, members) if index else []
    return Bundle(manifest, signature, members, contracts, entries_of)


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
    seconds = mf.seconds_of(created)
    if seconds is None:
        _refuse("EF_MANIFEST_SCHEMA", MANIFEST, f"bundle.created: {created!r} is not a UTC time", "build it again")
    return int(seconds)


def tar_bytes(members: Mapping[str, Member], mtime: int) -> bytes:
    """The one tar of these members, as :func:`write_members` makes it."""
    buffer = io.BytesIO()
    write_members(buffer, members, mtime)
    return buffer.getvalue()


def write_members(file: BinaryIO, members: Mapping[str, Member], mtime: int) -> None:
    """Write the one tar of these members: sorted, owned by root, of one time, without folders; one member at a time."""
    with tarfile.open(fileobj=file, mode="w:", format=tarfile.USTAR_FORMAT) as tar:
        for path in sorted(members):
            member = members[path]
            info = _tar_info(member, mtime)
            tar.format = tarfile.USTAR_FORMAT if _fits_ustar(info) else tarfile.GNU_FORMAT
            tar.addfile(info, io.BytesIO(member.data))


def _fits_ustar(info: tarfile.TarInfo) -> bool:
    try:
        info.tobuf(tarfile.USTAR_FORMAT)
    except ValueError:
        return False
    return True


def _tar_info(member: Member, mtime: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(member.path)
    info.size = len(member.data)
    info.mode = member.mode
    info.mtime = mtime
    return info


def as_tar(bundle: Bundle) -> bytes:
    """The wire form of a bundle, whatever form it was read from; the whole of it in memory."""
    return tar_bytes(bundle.members, epoch_of(bundle.manifest.doc["bundle"]["created"]))


def write_tar(bundle: Bundle, file: BinaryIO) -> None:
    """Write the wire form of a bundle; one member is in memory at a time."""
    write_members(file, bundle.members, epoch_of(bundle.manifest.doc["bundle"]["created"]))


def find_damage(manifest: Manifest, folder: str) -> FleetError | None:
    """What is wrong with an unpacked bundle; None if every file is as signed."""
    if not Path(folder).is_dir():
        return FleetError("EF_FILE_MISSING", f"{folder}: is not a folder; give the folder of a bundle", folder)
    try:
        source = FolderSource(folder)
        source.head(MANIFEST, mf.MAX_MANIFEST, "EF_MANIFEST_MISSING", "EF_MANIFEST_MALFORMED")
        source.head(SIGNATURE, mf.MAX_SIGNATURE, "EF_SIG_MISSING", "EF_SIG_MALFORMED")
        for path in sorted(manifest.files):
            source.check(manifest.files[path])
        source.check_extra(manifest.files)
    except FleetError as error:
        return error
    return None
