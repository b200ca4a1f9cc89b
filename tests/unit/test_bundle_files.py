# SPDX-License-Identifier: GPL-3.0-or-later
"""The files of a bundle: what a tar or a folder may hold."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import shutil
import signal
import socket
import tarfile
from pathlib import Path
from typing import Callable, Iterator

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle import files as bd
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle import manifest as mf
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle import source as bundle_source
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle.source import Members, check_source, open_source

CONTENT = {
    "features/f/contract.json": b"{}\n",
    "features/f/full.bpf.o": b"object",
    "loader/x86_64/ebpf-loader": b"loader",
}


def members() -> dict[str, bd.Member]:
    return {path: bd.Member(path, 0o755 if "loader" in path else 0o644, data) for path, data in CONTENT.items()}


def manifest() -> mf.Manifest:
    return mf.create_manifest(
        bundle={"name": "b", "version": "1", "sequence": 1, "created": "2026-11-23T18:00:00Z"},
        loader_version="1",
        archs=["x86_64"],
        features={"f": ["full"]},
        files={
            path: mf.BundleFile(path, hashlib.sha256(member.data).hexdigest(), len(member.data), member.mode)
            for path, member in members().items()
        },
        provenance={},
        compatibility={},
    )


def whole() -> dict[str, bd.Member]:
    return {
        **members(),
        mf.MANIFEST: bd.Member(mf.MANIFEST, 0o644, manifest().data),
        mf.SIGNATURE: bd.Member(mf.SIGNATURE, 0o644, b"sig"),
    }


def code_of(act: Callable[[], object]) -> str:
    with pytest.raises(FleetError) as found:
        act()
    return found.value.code


def check(found: dict[str, bd.Member]) -> None:
    bd.check_files(manifest(), found.values(), lambda _member: None)


def test_the_files_as_signed_pass() -> None:
    check(whole())


@pytest.mark.parametrize("path", CONTENT)
def test_every_file_is_held_to_its_size_digest_and_mode(path: str) -> None:
    good = whole()[path]
    flipped = bytes([good.data[0] ^ 1]) + good.data[1:]
    assert code_of(lambda: check({**whole(), path: good._replace(data=flipped)})) == "EF_FILE_DIGEST"
    assert code_of(lambda: check({**whole(), path: good._replace(data=good.data + b"x")})) == "EF_FILE_SIZE"
    assert code_of(lambda: check({**whole(), path: good._replace(mode=0o600)})) == "EF_FILE_TYPE"
    assert code_of(lambda: check({key: value for key, value in whole().items() if key != path})) == "EF_FILE_MISSING"


def test_a_file_that_is_not_named_is_extra() -> None:
    assert code_of(lambda: check({**whole(), "x": bd.Member("x", 0o644, b"")})) == "EF_FILE_EXTRA"


def test_manifest_and_signature_must_be_there() -> None:
    for path, code in ((mf.MANIFEST, "EF_MANIFEST_MISSING"), (mf.SIGNATURE, "EF_SIG_MISSING")):
        rest = {key: value for key, value in whole().items() if key != path}
        assert code_of(lambda rest=rest: check(rest)) == code


def tar_of(tmp_path: Path, *infos: tarfile.TarInfo, data: bytes = b"x") -> str:
    path = tmp_path / "t.tar"
    with tarfile.open(path, "w") as tar:
        for info in infos:
            info.size = len(data) if info.isreg() else 0
            tar.addfile(info, io.BytesIO(data) if info.isreg() else None)
    return str(path)


def info(name: str, kind: bytes = tarfile.REGTYPE) -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type = kind
    entry.linkname = "/etc/passwd"
    return entry


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE]
)
def test_only_regular_members_are_read(tmp_path: Path, kind: bytes) -> None:
    archive = tar_of(tmp_path, info("a", kind))
    assert code_of(lambda: list(bd.tar_members(archive))) == "EF_FILE_TYPE"


@pytest.mark.parametrize("name", ["../a", "/a", "a/../b", "a b", "./a", "a" * 300])
def test_members_with_unsafe_names_are_refused(tmp_path: Path, name: str) -> None:
    archive = tar_of(tmp_path, info(name))
    assert code_of(lambda: list(bd.tar_members(archive))) == "EF_FILE_TYPE"


def test_a_name_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    archive = tar_of(tmp_path, info("a"), info("a"))
    assert code_of(lambda: list(bd.tar_members(archive))) == "EF_FILE_EXTRA"


def test_a_member_that_claims_too_much_is_refused_unread(tmp_path: Path) -> None:
    entry = info("a")
    entry.size = mf.MAX_OBJECT + 1
    path = tmp_path / "t.tar"
    path.write_bytes(entry.tobuf())
    assert code_of(lambda: list(bd.tar_members(str(path)))) == "EF_FILE_SIZE"


@pytest.mark.parametrize("data", [b"", b"no tar", b"\x1f\x8b\x08\x00" + b"x" * 600])
def test_what_is_no_plain_tar_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "t.tar").write_bytes(data)
    assert code_of(lambda: list(bd.tar_members(str(tmp_path / "t.tar")))) == "EF_FILE_TYPE"


def test_the_tar_gives_back_the_members_and_is_always_the_same(tmp_path: Path) -> None:
    data = bd.tar_bytes(whole(), 1234)
    assert data == bd.tar_bytes(dict(reversed(whole().items())), 1234)
    (tmp_path / "t.tar").write_bytes(data)
    assert {member.path: member for member in bd.tar_members(str(tmp_path / "t.tar"))} == whole()


def folder(tmp_path: Path) -> Path:
    for path, member in whole().items():
        (tmp_path / "b" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "b" / path).write_bytes(member.data)
        (tmp_path / "b" / path).chmod(member.mode)
    return tmp_path / "b"


def test_a_folder_is_read_like_a_tar(tmp_path: Path) -> None:
    assert bd.find_damage(manifest(), str(folder(tmp_path))) is None
    manifest_, signature, _verdict = check_source(open_source(str(tmp_path / "b")), lambda *_heads: None)
    assert dict(Members(open_source(str(tmp_path / "b")), manifest_, signature)) == whole()


def test_links_pipes_and_empty_folders_are_damage(tmp_path: Path) -> None:
    base = folder(tmp_path)
    (base / "empty").mkdir()
    assert bd.find_damage(manifest(), str(base)).code == "EF_FILE_EXTRA"
    (base / "empty").rmdir()
    target = base / "features/f/full.bpf.o"
    target.rename(tmp_path / "aside")
    target.symlink_to(tmp_path / "aside")
    assert bd.find_damage(manifest(), str(base)).code == "EF_FILE_TYPE"
    target.unlink()
    os.mkfifo(target)
    assert bd.find_damage(manifest(), str(base)).code == "EF_FILE_TYPE"
    assert bd.find_damage(manifest(), str(tmp_path / "nowhere")).code == "EF_FILE_MISSING"


@pytest.mark.parametrize(
    ("name", "limit", "missing", "large"),
    [
        (mf.MANIFEST, mf.MAX_MANIFEST, "EF_MANIFEST_MISSING", "EF_MANIFEST_MALFORMED"),
        (mf.SIGNATURE, mf.MAX_SIGNATURE, "EF_SIG_MISSING", "EF_SIG_MALFORMED"),
    ],
)
def test_damage_of_what_is_not_listed_has_a_code_of_its_own(
    tmp_path: Path, name: str, limit: int, missing: str, large: str
) -> None:
    base = folder(tmp_path)
    (base / name).write_bytes(b" " * limit)
    assert bd.find_damage(manifest(), str(base)) is None
    (base / name).write_bytes(b" " * (limit + 1))
    assert bd.find_damage(manifest(), str(base)).code == large
    (base / name).unlink()
    assert bd.find_damage(manifest(), str(base)).code == missing


def test_a_contract_that_no_longer_fits_is_refused() -> None:
    assert code_of(lambda: bd.check_contract(manifest(), "f", b"{}\n")) == "EF_CONTRACT_MALFORMED"
    assert code_of(lambda: bd.check_contract(manifest(), "f", b"{} \n")) == "EF_CONTRACT_MALFORMED"


def test_a_time_that_does_not_exist_is_refused() -> None:
    assert bd.epoch_of("1970-01-02T00:00:00Z") == 86400
    assert code_of(lambda: bd.epoch_of("2026-13-41T00:00:00Z")) == "EF_MANIFEST_SCHEMA"


# What may be named as a bundle and is not one: refused at once, and not opened


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    """Fail instead of waiting for ever."""

    def give_up(_number: int, _frame: object) -> None:
        raise AssertionError(f"it still waits after {seconds} s")

    former = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)


def refused_at_once(path: Path) -> FleetError:
    with within(10), pytest.raises(FleetError) as refused:
        check_source(open_source(str(path)), lambda _manifest, _signature: None)
    assert str(path) in refused.value.message or path.name in refused.value.message or mf.MANIFEST in str(refused.value)
    return refused.value


@pytest.mark.parametrize("linked", [False, True])
@pytest.mark.parametrize("kind", ["fifo", "zero", "socket"])
def test_what_is_not_a_file_is_refused_at_once(tmp_path: Path, kind: str, linked: bool) -> None:
    path = tmp_path / kind
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(path))
    else:
        path = Path("/dev/zero")
    if linked:
        (tmp_path / "link").symlink_to(path)
        path = tmp_path / "link"
    assert refused_at_once(path).code == "EF_FILE_TYPE"


def test_links_in_a_circle_and_folders_of_something_else_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    assert refused_at_once(tmp_path / "a").code == "EF_MANIFEST_MISSING"
    assert refused_at_once(Path("/proc")).code == "EF_MANIFEST_MISSING"
    os.mkfifo(tmp_path / mf.MANIFEST)
    assert refused_at_once(tmp_path).code == "EF_FILE_TYPE"


def test_a_folder_within_itself_is_not_followed(tmp_path: Path) -> None:
    base = folder(tmp_path)
    (base / "features/again").symlink_to(base)
    assert refused_at_once(base).code == "EF_FILE_TYPE"


def test_a_folder_that_is_too_deep_or_too_full_is_refused(tmp_path: Path) -> None:
    base = folder(tmp_path)
    deep = base
    os.chdir(base)
    try:
        for _ in range(40):
            (deep := Path("a" * 200)).mkdir()
            (deep / "file").touch()
            os.chdir(deep)
    finally:
        os.chdir(tmp_path)
    assert refused_at_once(base).code == "EF_FILE_EXTRA"
    shutil.rmtree(base / ("a" * 200))
    for number in range(mf.MAX_FILES + 2):
        (base / f"file{number}").touch()
    assert refused_at_once(base).code == "EF_FILE_EXTRA"


def test_a_file_that_is_too_large_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "large.tar"
    with path.open("wb") as file:
        file.truncate(bd.MAX_BUNDLE + 1)
    refused = refused_at_once(path)
    assert refused.code == "EF_FILE_SIZE" and str(bd.MAX_BUNDLE) in refused.message


def test_files_that_are_too_large_together_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = sum(len(member.data) for member in whole().values())
    archive = io.BytesIO(bd.tar_bytes(whole(), 0))
    (path := tmp_path / "t.tar").write_bytes(archive.getvalue())
    with path.open("rb") as file:
        monkeypatch.setattr(bundle_source, "MAX_BUNDLE", size - 1)
        with pytest.raises(FleetError) as refused:
            bundle_source.tar_entries(file, str(path))
        assert refused.value.code == "EF_FILE_SIZE"
        monkeypatch.setattr(bundle_source, "MAX_BUNDLE", size)
        assert bundle_source.tar_entries(file, str(path))


def test_a_file_that_may_not_be_read_is_refused(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may read every file")
    (tmp_path / "t.tar").write_bytes(b"x")
    (tmp_path / "t.tar").chmod(0)
    assert refused_at_once(tmp_path / "t.tar").code == "EF_FILE_TYPE"


def test_only_the_planned_digest_passes() -> None:
    good = manifest()
    bd.check_planned(good.digest, None, "x.tar")
    bd.check_planned(good.digest, good.digest, "x.tar")
    with pytest.raises(FleetError) as refused:
        bd.check_planned(good.digest, "0" * 64, "x.tar")
    assert refused.value.code == "EF_NOT_PLANNED"
    for word in ("x.tar", good.digest, "0" * 64):
        assert word in refused.value.message
    assert code_of(lambda: bd.check_planned(good.digest, "", "x.tar")) == "EF_NOT_PLANNED"
