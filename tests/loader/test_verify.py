# SPDX-License-Identifier: GPL-3.0-or-later
"""`ebpf-loader verify`: nothing passes that the signature does not cover."""

from __future__ import annotations

import base64
import ctypes
import json
import os
import platform
import shutil
import socket
import struct
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle.manifest import load_manifest

from tests.loader.bundles import (
    MANIFEST,
    NAMESPACE,
    PRINCIPAL,
    SIGNATURE,
    Bundle,
    Trust,
    canonical,
    make_bundle,
    make_key,
    public_key,
    sign,
    write,
)

pytestmark = pytest.mark.apart

ARCH = platform.machine()
LOADER_PATH = f"loader/{ARCH}/ebpf-loader"
OBJECT_PATH = "features/runqlat/full.bpf.o"
FILES = [
    MANIFEST,
    SIGNATURE,
    LOADER_PATH,
    "features/runqlat/contract.json",
    OBJECT_PATH,
    "features/runqlat/reduced.bpf.o",
    "features/exec_events/contract.json",
    "features/exec_events/full.bpf.o",
]
FEATURES = {
    "runqlat": ({"feature": "runqlat"}, {"full": bytes(range(256)) * 16, "reduced": b"\x7fELF" * 99}),
    "exec_events": ({"feature": "exec_events"}, {"full": b"\x7fELF exec"}),
}


@dataclass
class Verdict:
    """What `verify` answered."""

    code: int
    answer: dict[str, Any]
    stderr: str


@pytest.fixture
def verify(loader: Path, trust: Trust) -> Callable[..., Verdict]:
    """Run `verify` on a folder with the test's trust files."""

    def call(root: Path, *options: str, binary: Path = loader) -> Verdict:
        command = [str(binary), "verify", str(root), *trust.arguments, *options]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
        assert done.returncode in (0, 3), done.stderr
        return Verdict(done.returncode, json.loads(done.stdout), done.stderr)

    return call


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory, signing_key: Path) -> Bundle:
    """A good bundle that no test changes; its loader is not a real one."""
    folder = tmp_path_factory.mktemp("pristine")
    binary = write(folder / "ebpf-loader", b"\x7fELF loader" * 1000)
    return make_bundle(folder / "bundle", signing_key, FEATURES, binary)


@pytest.fixture
def bundle(pristine: Bundle, tmp_path: Path) -> Bundle:
    """The test's own copy of the good bundle."""
    root = tmp_path / "bundle"
    shutil.copytree(pristine.root, root)
    return Bundle(root, pristine.key)


def assert_refused(verdict: Verdict, code: str, file: str | None = None) -> None:
    """Exit 3, this reason code, a sentence, and the file at fault."""
    assert verdict.code == 3
    assert verdict.answer["ok"] is False
    assert verdict.answer["reason_code"] == code, verdict.answer
    assert len(verdict.answer["reason"]) > 20
    assert set(verdict.answer) == {"ok", "reason_code", "reason", "file"}
    if file is not None:
        assert verdict.answer["file"] == file


# --- what is good


def test_good_bundle(bundle: Bundle, verify: Callable[..., Verdict]) -> None:
    verdict = verify(bundle.root)
    assert verdict.code == 0
    assert verdict.answer == {
        "ok": True,
        "bundle": {"name": "ebpf-fleet", "version": "1.0.0", "sequence": 7, "digest": bundle.digest},
        "digest": bundle.digest,
        "signer": PRINCIPAL,
        "features": ["exec_events", "runqlat"],
    }


def test_sha256_message_hash(bundle: Bundle, verify: Callable[..., Verdict]) -> None:
    sign(bundle.manifest_path, bundle.key, digest="sha256")
    assert verify(bundle.root).code == 0


def test_absent_default_revocation_list(bundle: Bundle, trust: Trust, loader: Path) -> None:
    if Path("/etc/ebpf-fleet/trust/revoked_keys").exists():
        pytest.skip("this machine has a revocation list of its own")
    command = [str(loader), "verify", str(bundle.root), "--trust", str(trust.signers)]
    assert subprocess.run(command, check=False, capture_output=True).returncode == 0


@pytest.mark.parametrize("text", ["é", "\u2028", "\U0001f41d", "\x7f", '\\"/\b\f\n\r\t\x01'])
def test_canonical_form_agrees_with_python(bundle: Bundle, verify: Callable[..., Verdict], text: str) -> None:
    document = bundle.manifest
    document["compatibility"]["summary"] = [{text: [text, -1, 2**63 - 1, True, None, {}], "": text * 2}]
    bundle.write_manifest(document)
    assert verify(bundle.root).answer["ok"] is True


# --- altered bytes


@pytest.mark.parametrize("position", ["first", "middle", "last"])
@pytest.mark.parametrize("path", FILES)
def test_flipped_byte(bundle: Bundle, verify: Callable[..., Verdict], path: str, position: str) -> None:
    data = bytearray((bundle.root / path).read_bytes())
    data[{"first": 0, "middle": len(data) // 2, "last": -1}[position]] ^= 0x01
    (bundle.root / path).write_bytes(data)
    verdict = verify(bundle.root)
    if path == MANIFEST:
        assert_refused(verdict, "EF_SIG_BAD", SIGNATURE)
    elif path == SIGNATURE:
        assert verdict.answer["reason_code"] in ("EF_SIG_MALFORMED", "EF_SIG_BAD")
        assert_refused(verdict, verdict.answer["reason_code"], SIGNATURE)
    else:
        assert_refused(verdict, "EF_FILE_DIGEST", path)


def test_every_byte_of_the_signature(bundle: Bundle, loader: Path, trust: Trust) -> None:
    data = bundle.signature_path.read_bytes()
    command = [str(loader), "verify", str(bundle.root), *trust.arguments]
    for index in range(len(data)):
        for bit in (index % 7, 7):
            altered = bytearray(data)
            altered[index] ^= 1 << bit
            bundle.signature_path.write_bytes(altered)
            done = subprocess.run(command, check=False, capture_output=True)
            assert done.returncode == 3, f"bit {bit} of byte {index}: {done.stdout!r}"


@pytest.mark.parametrize("keep", ["half", "all but one", "none"])
@pytest.mark.parametrize("path", FILES)
def test_truncated(bundle: Bundle, verify: Callable[..., Verdict], path: str, keep: str) -> None:
    data = (bundle.root / path).read_bytes()
    size = {"half": len(data) // 2, "all but one": len(data) - 1, "none": 0}[keep]
    (bundle.root / path).write_bytes(data[:size])
    unsigned = "EF_SIG_MISSING" if keep == "none" else "EF_SIG_MALFORMED"
    expected = {MANIFEST: "EF_SIG_BAD", SIGNATURE: unsigned}.get(path, "EF_FILE_SIZE")
    assert_refused(verify(bundle.root), expected, SIGNATURE if path == MANIFEST else path)


@pytest.mark.parametrize("path", FILES)
def test_appended_byte(bundle: Bundle, verify: Callable[..., Verdict], path: str) -> None:
    with (bundle.root / path).open("ab") as stream:
        stream.write(b"\n")
    expected = {MANIFEST: "EF_SIG_BAD", SIGNATURE: "EF_SIG_MALFORMED"}.get(path, "EF_FILE_SIZE")
    assert_refused(verify(bundle.root), expected)


# --- the folder


@pytest.mark.parametrize("path", FILES)
def test_missing(bundle: Bundle, verify: Callable[..., Verdict], path: str) -> None:
    (bundle.root / path).unlink()
    missing = {MANIFEST: "EF_MANIFEST_MISSING", SIGNATURE: "EF_SIG_MISSING"}
    assert_refused(verify(bundle.root), missing.get(path, "EF_FILE_MISSING"), path)


def test_missing_folder(tmp_path: Path, verify: Callable[..., Verdict]) -> None:
    assert_refused(verify(tmp_path / "none"), "EF_MANIFEST_MISSING", str(tmp_path / "none"))


@pytest.mark.parametrize("path", ["extra", "features/runqlat/extra.bpf.o", "loader/.hidden", "\x1b[31m\n"])
def test_extra_file(bundle: Bundle, verify: Callable[..., Verdict], path: str) -> None:
    write(bundle.root / path, b"x")
    shown = "".join(char if " " <= char <= "~" else "?" for char in path)
    assert_refused(verify(bundle.root), "EF_FILE_EXTRA", shown)


@pytest.mark.parametrize("path", ["extra", "features/none", "features/runqlat/full"])
def test_extra_folder(bundle: Bundle, verify: Callable[..., Verdict], path: str) -> None:
    (bundle.root / path).mkdir()
    assert_refused(verify(bundle.root), "EF_FILE_EXTRA", path)


@pytest.mark.parametrize("path", FILES)
def test_symlink_in_place_of_a_file(bundle: Bundle, verify: Callable[..., Verdict], tmp_path: Path, path: str) -> None:
    shutil.move(str(bundle.root / path), str(tmp_path / "elsewhere"))
    (bundle.root / path).symlink_to(tmp_path / "elsewhere")
    assert_refused(verify(bundle.root), "EF_FILE_TYPE", path)


def test_symlink_in_place_of_a_folder(bundle: Bundle, verify: Callable[..., Verdict], tmp_path: Path) -> None:
    shutil.move(str(bundle.root / "features"), str(tmp_path / "features"))
    (bundle.root / "features").symlink_to(tmp_path / "features")
    assert_refused(verify(bundle.root), "EF_FILE_TYPE", "features/exec_events/contract.json")


def test_extra_symlink(bundle: Bundle, verify: Callable[..., Verdict]) -> None:
    (bundle.root / "link").symlink_to(MANIFEST)
    assert_refused(verify(bundle.root), "EF_FILE_TYPE", "link")


@pytest.mark.parametrize("path", FILES)
def test_fifo_in_place_of_a_file(bundle: Bundle, verify: Callable[..., Verdict], path: str) -> None:
    (bundle.root / path).unlink()
    os.mkfifo(bundle.root / path, 0o644)
    assert_refused(verify(bundle.root), "EF_FILE_TYPE", path)


def test_folder_in_place_of_a_file(bundle: Bundle, verify: Callable[..., Verdict]) -> None:
    (bundle.root / OBJECT_PATH).unlink()
    (bundle.root / OBJECT_PATH).mkdir()
    assert_refused(verify(bundle.root), "EF_FILE_TYPE", OBJECT_PATH)


def test_socket_in_place_of_a_file(
    bundle: Bundle, verify: Callable[..., Verdict], monkeypatch: pytest.MonkeyPatch
) -> None:
    target = bundle.root / OBJECT_PATH
    target.unlink()
    monkeypatch.chdir(target.parent)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(target.name)
        assert_refused(verify(bundle.root), "EF_FILE_TYPE", OBJECT_PATH)


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o4644, 0o2755])
@pytest.mark.parametrize("path", [MANIFEST, SIGNATURE, OBJECT_PATH])
def test_mode_that_was_not_signed(bundle: Bundle, verify: Callable[..., Verdict], path: str, mode: int) -> None:
    (bundle.root / path).chmod(mode)
    assert_refused(verify(bundle.root), "EF_FILE_TYPE", path)


def test_sparse_giant_in_place_of_each_head(bundle: Bundle, verify: Callable[..., Verdict]) -> None:
    for path, code in ((SIGNATURE, "EF_SIG_MALFORMED"), (MANIFEST, "EF_MANIFEST_MALFORMED")):
        with (bundle.root / path).open("r+b") as stream:
            stream.truncate(1 << 40)
        assert_refused(verify(bundle.root), code, path)


@pytest.mark.parametrize(
    ("path", "limit", "code"),
    [(SIGNATURE, 16 << 10, "EF_SIG_MALFORMED"), (MANIFEST, 1 << 20, "EF_MANIFEST_MALFORMED")],
)
def test_head_over_its_limit(bundle: Bundle, verify: Callable[..., Verdict], path: str, limit: int, code: str) -> None:
    write(bundle.root / path, b"x" * (limit + 1))
    verdict = verify(bundle.root)
    assert_refused(verdict, code, path)
    assert f"limit of {limit} bytes" in verdict.answer["reason"]


def test_sparse_giant_in_place_of_an_object(bundle: Bundle, verify: Callable[..., Verdict]) -> None:
    with (bundle.root / OBJECT_PATH).open("r+b") as stream:
        stream.truncate(1 << 40)
    assert_refused(verify(bundle.root), "EF_FILE_SIZE", OBJECT_PATH)


IN_OPEN = 0x20


def count_opens(folders: list[Path], act: Callable[[], object]) -> dict[str, int]:
    """How often each file of these folders is opened while `act` runs, by inotify."""
    libc = ctypes.CDLL(None, use_errno=True)
    with os.fdopen(libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC), "rb", buffering=0) as events:
        watched = {libc.inotify_add_watch(events.fileno(), os.fsencode(folder), IN_OPEN): folder for folder in folders}
        act()
        data = events.read(1 << 16)
    counts: dict[str, int] = {}
    while data:
        watch, mask, _cookie, length = struct.unpack_from("iIII", data)
        name = data[16 : 16 + length].rstrip(b"\0").decode()
        data = data[16 + length :]
        path = str(watched[watch] / name)
        if name and not Path(path).is_dir():
            counts[path] = counts.get(path, 0) + 1
    return counts


def test_each_file_is_read_once(bundle: Bundle, verify: Callable[..., Verdict]) -> None:
    """What is loaded is the buffer that was hashed: no file is read a second time."""
    folders = [bundle.root, *(path for path in bundle.root.rglob("*") if path.is_dir())]
    counts = count_opens(folders, lambda: verify(bundle.root))
    assert counts == {str(bundle.root / path): 1 for path in FILES}


# --- the signature


def test_unsigned_is_refused_before_the_manifest_is_read(bundle: Bundle, verify: Callable[..., Verdict]) -> None:
    bundle.signature_path.unlink()
    write(bundle.manifest_path, b"{not json")
    assert_refused(verify(bundle.root), "EF_SIG_MISSING", SIGNATURE)


def test_signed_by_another_key(bundle: Bundle, verify: Callable[..., Verdict], other_key: Path) -> None:
    sign(bundle.manifest_path, other_key)
    assert_refused(verify(bundle.root), "EF_SIG_UNKNOWN_SIGNER", SIGNATURE)


def test_signature_of_another_manifest(bundle: Bundle, verify: Callable[..., Verdict]) -> None:
    document = bundle.manifest
    document["bundle"]["sequence"] = 8
    write(bundle.manifest_path, canonical(document))
    assert_refused(verify(bundle.root), "EF_SIG_BAD", SIGNATURE)


def test_wrong_namespace(bundle: Bundle, verify: Callable[..., Verdict]) -> None:
    sign(bundle.manifest_path, bundle.key, namespace="git")
    assert_refused(verify(bundle.root), "EF_SIG_NAMESPACE", SIGNATURE)


def test_namespace_that_the_signer_may_not_use(bundle: Bundle, verify: Callable[..., Verdict], trust: Trust) -> None:
    trust.allow(bundle.key, options='namespaces="git,file"')
    assert_refused(verify(bundle.root), "EF_SIG_NAMESPACE", SIGNATURE)


def test_revoked(bundle: Bundle, verify: Callable[..., Verdict], trust: Trust) -> None:
    trust.revoke(bundle.key)
    assert_refused(verify(bundle.root), "EF_SIG_REVOKED", SIGNATURE)


@pytest.mark.parametrize("prefix", ['command="a b" ', "", "no-pty "])
def test_revoked_with_options_on_the_line(
    bundle: Bundle, verify: Callable[..., Verdict], trust: Trust, prefix: str
) -> None:
    write(trust.revoked, f"  {prefix}{public_key(bundle.key)}\r\n".encode())
    assert_refused(verify(bundle.root), "EF_SIG_REVOKED", SIGNATURE)


def test_other_key_revoked(bundle: Bundle, verify: Callable[..., Verdict], trust: Trust, other_key: Path) -> None:
    trust.revoke(other_key)
    assert verify(bundle.root).code == 0


@pytest.mark.parametrize(
    "options",
    ['valid-before="20200101Z"', 'valid-after="29990101Z"', 'valid-after="20200101",valid-before="20200102"'],
)
def test_signer_outside_its_time(bundle: Bundle, verify: Callable[..., Verdict], trust: Trust, options: str) -> None:
    trust.allow(bundle.key, options=options)
    assert_refused(verify(bundle.root), "EF_SIG_EXPIRED", SIGNATURE)


def test_unusable_line_for_our_key(
    bundle: Bundle, verify: Callable[..., Verdict], trust: Trust, other_key: Path
) -> None:
    lines = [f"{PRINCIPAL} {public_key(other_key)}", f"{PRINCIPAL} cert-authority {public_key(bundle.key)}"]
    write(trust.signers, "\n".join(lines).encode())
    verdict = verify(bundle.root)
    assert_refused(verdict, "EF_SIG_UNKNOWN_SIGNER", SIGNATURE)
    assert "lines not usable: 1" in verdict.answer["reason"]


def test_one_usable_line_is_enough(bundle: Bundle, verify: Callable[..., Verdict], trust: Trust) -> None:
    key = public_key(bundle.key)
    lines = [f'old@example.org valid-before="20200101Z" {key}', f"cert@example.org cert-authority {key}"]
    write(trust.signers, "\n".join([*lines, f'"now@example.org,b" {key} comment']).encode())
    verdict = verify(bundle.root)
    assert verdict.answer["signer"] == "now@example.org"
    assert "allowed_signers:2: this line is not used" in verdict.stderr


@pytest.mark.parametrize("kind", ["rsa", "ecdsa"])
def test_other_key_types_do_not_sign(
    bundle: Bundle, verify: Callable[..., Verdict], trust: Trust, tmp_path: Path, kind: str
) -> None:
    key = make_key(tmp_path / "keys", kind, kind)
    with trust.signers.open("a") as stream:
        stream.write(f"{PRINCIPAL} {public_key(key)}\n")
    sign(bundle.manifest_path, key)
    assert_refused(verify(bundle.root), "EF_SIG_MALFORMED", SIGNATURE)


def rewrap(signature: bytes, change: Callable[[bytearray], bytes]) -> bytes:
    """Change an armored signature's inner bytes."""
    lines = signature.decode().splitlines()
    inner = bytearray(base64.b64decode("".join(lines[1:-1])))
    body = base64.b64encode(change(inner)).decode()
    return "\n".join([lines[0], body, lines[-1], ""]).encode()


def grow_string(inner: bytearray, at: int) -> bytes:
    """Put one byte at the end of the length-prefixed string that starts at `at`."""
    length = int.from_bytes(inner[at : at + 4], "big")
    end = at + 4 + length
    grown = (length + 1).to_bytes(4, "big") + bytes(inner[at + 4 : end]) + b"x"
    return bytes(inner[:at]) + grown + bytes(inner[end:])


@pytest.mark.parametrize(
    "change",
    [
        lambda inner: bytes(inner) + b"\0",
        lambda inner: b"SSHSIH" + bytes(inner[6:]),
        lambda inner: bytes(inner[:9]) + b"\2" + bytes(inner[10:]),
        lambda inner: bytes(inner[:10]) + b"\xff\xff\xff\xff" + bytes(inner[14:]),
        lambda inner: bytes(inner).replace(b"sha512", b"sha384"),
        lambda inner: bytes(inner[:40]),
        lambda _: b"",
        lambda inner: grow_string(inner, 10),
        lambda inner: grow_string(inner, 10 + 4 + 51),
        lambda inner: grow_string(inner, 10 + 4 + 51 + 4 + len(NAMESPACE)),
        lambda inner: grow_string(inner, len(inner) - 4 - 83),
    ],
    ids=[
        "trailing",
        "magic",
        "version",
        "length",
        "hash",
        "short",
        "empty",
        "key grown",
        "namespace grown",
        "reserved filled",
        "signature grown",
    ],
)
def test_malformed_signature_blob(
    bundle: Bundle, verify: Callable[..., Verdict], change: Callable[[bytearray], bytes]
) -> None:
    write(bundle.signature_path, rewrap(bundle.signature_path.read_bytes(), change))
    verdict = verify(bundle.root)
    assert verdict.answer["reason_code"] in ("EF_SIG_MALFORMED", "EF_SIG_NAMESPACE")
    assert_refused(verdict, verdict.answer["reason_code"], SIGNATURE)


def test_rewrapped_signature_is_still_good(bundle: Bundle, verify: Callable[..., Verdict]) -> None:
    write(bundle.signature_path, rewrap(bundle.signature_path.read_bytes(), bytes))
    assert verify(bundle.root).code == 0


# --- the manifest


def edit(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """A change of one field, by its path; `...` removes it."""

    def change(document: dict[str, Any]) -> None:
        *folders, last = path.split("|")
        at: Any = document
        for folder in folders:
            at = at[int(folder)] if isinstance(at, list) else at[folder]
        if value is ...:
            del at[last]
        else:
            at[int(last) if isinstance(at, list) else last] = value

    return change


def rename_file(new: str) -> Callable[[dict[str, Any]], None]:
    """The manifest names an object by another path."""

    def change(document: dict[str, Any]) -> None:
        document["files"][new] = document["files"].pop(OBJECT_PATH)
        document["features"]["runqlat"]["variants"][0]["object"] = new

    return change


SCHEMA_FAULTS = {
    "schema": edit("schema", "ebpf.fleet/manifest/v2"),
    "schema type": edit("schema", 1),
    "unknown key": edit("surprise", {}),
    "unknown key in bundle": edit("bundle|extra", 1),
    "unknown key in loader": edit("loader|extra", 1),
    "unknown key in a feature": edit("features|runqlat|extra", 1),
    "unknown key in a file": edit(f"files|{OBJECT_PATH}|owner", "root"),
    "no provenance": edit("provenance", ...),
    "provenance type": edit("provenance", []),
    "compatibility type": edit("compatibility", []),
    "no feature": edit("features", {}),
    "no loader": edit("loader|files", {}),
    "other file too large": edit("files|b", {"sha256": "a" * 64, "size": (8 << 20) + 1, "mode": "0644"}),
    "object too large": edit(f"files|{OBJECT_PATH}|size", (8 << 20) + 1),
    "contract too large": edit("files|features/runqlat/contract.json|size", (64 << 10) + 1),
    "loader too large": edit(f"files|{LOADER_PATH}|size", (32 << 20) + 1),
    "no bundle": edit("bundle", ...),
    "bundle type": edit("bundle", None),
    "name": edit("bundle|name", "a b"),
    "version": edit("bundle|version", "-1"),
    "version too long": edit("bundle|version", "1" * 65),
    "sequence zero": edit("bundle|sequence", 0),
    "sequence negative": edit("bundle|sequence", -1),
    "sequence text": edit("bundle|sequence", "7"),
    "sequence true": edit("bundle|sequence", True),
    "created": edit("bundle|created", "2026-11-23 18:00:00"),
    "created on an impossible day": edit("bundle|created", "2026-02-30T18:00:00Z"),
    "created before 1970": edit("bundle|created", "1969-12-31T23:59:59Z"),
    "created in the year 0": edit("bundle|created", "0000-01-01T00:00:00Z"),
    "created in Arabic digits": edit("bundle|created", "٢٠٢٦-11-23T18:00:00Z"),
    "contract of a loader too large": edit(
        "files|loader/x/contract.json", {"sha256": "a" * 64, "size": (64 << 10) + 1, "mode": "0644"}
    ),
    "file below a file": edit(f"files|{OBJECT_PATH}/x", {"sha256": "a" * 64, "size": 1, "mode": "0644"}),
    "file below the manifest": edit("files|manifest.json/x", {"sha256": "a" * 64, "size": 1, "mode": "0644"}),
    "loader version": edit("loader|version", ""),
    "loader files type": edit("loader|files", []),
    "loader path": edit(f"loader|files|{ARCH}", OBJECT_PATH),
    "loader arch": edit("loader|files|../x", LOADER_PATH),
    "features type": edit("features", []),
    "feature name": edit("features|Bad", {}),
    "feature type": edit("features|runqlat", []),
    "contract elsewhere": edit("features|runqlat|contract", "features/exec_events/contract.json"),
    "contract type": edit("features|runqlat|contract", 3),
    "no variant": edit("features|runqlat|variants", []),
    "variants type": edit("features|runqlat|variants", {"full": OBJECT_PATH}),
    "variant name": edit("features|runqlat|variants|0|name", "Full"),
    "variant twice": edit("features|runqlat|variants|1", {"name": "full", "object": OBJECT_PATH}),
    "files type": edit("files", []),
    "object not in files": edit(f"files|{OBJECT_PATH}", ...),
    "digest upper case": edit(f"files|{OBJECT_PATH}|sha256", "A" * 64),
    "digest short": edit(f"files|{OBJECT_PATH}|sha256", "a" * 63),
    "size negative": edit(f"files|{OBJECT_PATH}|size", -1),
    "size huge": edit(f"files|{OBJECT_PATH}|size", 2**62),
    "size text": edit(f"files|{OBJECT_PATH}|size", "10"),
    "mode": edit(f"files|{OBJECT_PATH}|mode", "0777"),
    "names itself": edit("files|manifest.json", {"sha256": "a" * 64, "size": 1, "mode": "0644"}),
    "too many files": lambda document: document["files"].update(
        {f"f{i}": {"sha256": "a" * 64, "size": 1, "mode": "0644"} for i in range(1025)}
    ),
    "not an object": None,
}


@pytest.mark.parametrize("fault", SCHEMA_FAULTS)
def test_manifest_schema(bundle: Bundle, verify: Callable[..., Verdict], fault: str) -> None:
    document: Any = bundle.manifest
    change = SCHEMA_FAULTS[fault]
    if change is None:
        document = []
    else:
        change(document)
    bundle.write_manifest(document)
    assert_refused(verify(bundle.root), "EF_MANIFEST_SCHEMA")


@pytest.mark.parametrize("index", range(2))
def test_variant_list_of_other_things(bundle: Bundle, verify: Callable[..., Verdict], index: int) -> None:
    document = bundle.manifest
    document["features"]["runqlat"]["variants"][index] = "full"
    bundle.write_manifest(document)
    assert_refused(verify(bundle.root), "EF_MANIFEST_SCHEMA")


@pytest.mark.parametrize(
    "path",
    ["../outside", "/etc/passwd", "a/../../b", "a//b", "./a", "a/.", "a/", "", "a b", "é", "a" * 300],
)
def test_path_outside_the_bundle(bundle: Bundle, verify: Callable[..., Verdict], path: str) -> None:
    document = bundle.manifest
    rename_file(path)(document)
    bundle.write_manifest(document)
    assert_refused(verify(bundle.root), "EF_MANIFEST_SCHEMA")


# What Python can write canonically and the loader's JSON library does not read is refused by both.
NOT_CANONICAL: dict[str, Callable[[bytes], bytes]] = {
    "white space": lambda data: data.replace(b'":{', b'": {', 1),
    "no newline": lambda data: data.rstrip(b"\n"),
    "two newlines": lambda data: data + b"\n",
    "unsorted": lambda data: (
        b'{"schema":"ebpf.fleet/manifest/v1",' + data[1:].replace(b',"schema":"ebpf.fleet/manifest/v1"', b"")
    ),
    "duplicate key": lambda data: data.replace(b'"sequence":7', b'"sequence":7,"sequence":7'),
    "float": lambda data: data.replace(b'"sequence":7', b'"sequence":7.0'),
    "exponent": lambda data: data.replace(b'"sequence":7', b'"sequence":7e0'),
    "leading zero": lambda data: data.replace(b'"sequence":7', b'"sequence":07'),
    "minus zero": lambda data: data.replace(b'"sequence":7', b'"sequence":-0'),
    "escaped letter": lambda data: data.replace(b'"test"', b'"\\u0074est"'),
    "upper-case escape": lambda data: data.replace(b'"test"', b'"\\u00E9"'),
    "raw UTF-8": lambda data: data.replace(b'"test"', '"é"'.encode()),
    "bad UTF-8": lambda data: data.replace(b'"test"', b'"\xff"'),
    "byte order mark": lambda data: b"\xef\xbb\xbf" + data,
    "half": lambda data: data[: len(data) // 2],
    "empty": lambda data: b"",
    "nested": lambda data: b"[" * 100000 + b"]" * 100000 + b"\n",
    "trailing document": lambda data: data + data,
    "beyond 64 bits": lambda data: data.replace(b'"sequence":7', b'"sequence":18446744073709551616'),
    "lone surrogate": lambda data: data.replace(b'"test"', b'"\\ud800"'),
    "NUL": lambda data: data.replace(b'"test"', b'"\\u0000"'),
    "33 deep": lambda data: data.replace(b'"test"', b"[" * 32 + b"]" * 32),
}


@pytest.mark.parametrize("fault", NOT_CANONICAL)
def test_manifest_that_is_not_canonical(bundle: Bundle, verify: Callable[..., Verdict], fault: str) -> None:
    good = bundle.manifest_path.read_bytes()
    bad = NOT_CANONICAL[fault](good)
    assert bad != good
    bundle.write_manifest(bad)
    verdict = verify(bundle.root)
    assert_refused(verdict, "EF_MANIFEST_MALFORMED", MANIFEST)
    assert fault != "duplicate key" or "duplicate" in verdict.answer["reason"]


@pytest.mark.parametrize(("path", "limit"), [("features/runqlat/contract.json", 64 << 10), (OBJECT_PATH, 8 << 20)])
def test_size_at_its_limit(bundle: Bundle, verify: Callable[..., Verdict], path: str, limit: int) -> None:
    bundle.replace(path, b"x" * limit)
    assert verify(bundle.root).code == 0
    bundle.replace(path, b"x" * (limit + 1))
    assert_refused(verify(bundle.root), "EF_MANIFEST_SCHEMA")


def test_file_that_no_feature_uses_is_checked(bundle: Bundle, verify: Callable[..., Verdict]) -> None:
    bundle.replace("btf/6.1.btf", b"btf")
    assert verify(bundle.root).code == 0
    write(bundle.root / "btf/6.1.btf", b"btg")
    assert_refused(verify(bundle.root), "EF_FILE_DIGEST", "btf/6.1.btf")


# --- the trust files


def test_no_trust_file(bundle: Bundle, verify: Callable[..., Verdict], trust: Trust) -> None:
    trust.signers.unlink()
    assert_refused(verify(bundle.root), "EF_TRUST_MISSING", str(trust.signers))


def test_named_revocation_list_that_is_absent(bundle: Bundle, verify: Callable[..., Verdict], trust: Trust) -> None:
    trust.revoked.unlink()
    assert_refused(verify(bundle.root), "EF_TRUST_MISSING", str(trust.revoked))


def test_empty_trust_file(bundle: Bundle, verify: Callable[..., Verdict], trust: Trust) -> None:
    write(trust.signers, b"# no one yet\n")
    assert_refused(verify(bundle.root), "EF_TRUST_MALFORMED", str(trust.signers))


KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8g"
TRUST_FAULTS = [
    "release@example.org",
    KEY,
    "r@example.org ssh-ed25519 AAAA",
    "r@example.org ssh-ed25519 %%%%",
    "r@example.org ssh-rsa " + KEY.split()[1],
    f'r@example.org namespaces="a {KEY}',
    f"r@example.org namespaces=a {KEY}",
    f'r@example.org namespaces="a",namespaces="b" {KEY}',
    f'r@example.org valid-before="2020" {KEY}',
    f'r@example.org valid-before="20201301" {KEY}',
    f'r@example.org valid-before="20200230" {KEY}',
    f'r@example.org valid-before="20200101X" {KEY}',
    f'r@example.org valid-after="20210101",valid-before="20200101" {KEY}',
    f'r@example.org namespaces="a"valid-before="20200101" {KEY}',
    f'"r@example.org {KEY}',
    f'"" {KEY}',
]


@pytest.mark.parametrize("line", TRUST_FAULTS)
def test_an_odd_line_of_allowed_signers_is_left_out(
    bundle: Bundle, verify: Callable[..., Verdict], trust: Trust, line: str
) -> None:
    with trust.signers.open("a") as stream:
        stream.write(line + "\n")
    verdict = verify(bundle.root)
    assert verdict.code == 0, verdict.answer
    assert "allowed_signers:3: this line is not used: " in verdict.stderr
    write(trust.signers, (line + "\n").encode())
    assert_refused(verify(bundle.root), "EF_TRUST_MALFORMED", str(trust.signers))


def test_many_odd_lines_do_not_fill_the_journal(bundle: Bundle, verify: Callable[..., Verdict], trust: Trust) -> None:
    with trust.signers.open("a") as stream:
        stream.write("odd\n" * 5000)
    verdict = verify(bundle.root)
    assert verdict.code == 0
    assert len(verdict.stderr.splitlines()) < 20 and "5000 lines" in verdict.stderr


@pytest.mark.parametrize(
    "data",
    [b"not a key\n", b"ssh-ed25519\n", b"ssh-ed25519 AAAA\n", b"x\0y\n", b"SHA256:a\n", b"# a\rssh-ed25519 AAAA\r"],
)
def test_malformed_revocation_list(bundle: Bundle, verify: Callable[..., Verdict], trust: Trust, data: bytes) -> None:
    write(trust.revoked, data)
    assert_refused(verify(bundle.root), "EF_TRUST_MALFORMED", str(trust.revoked))


def test_binary_krl(bundle: Bundle, verify: Callable[..., Verdict], trust: Trust, other_key: Path) -> None:
    trust.revoked.unlink()
    command = ["ssh-keygen", "-q", "-k", "-f", str(trust.revoked), f"{other_key}.pub"]
    subprocess.run(command, check=True)
    trust.revoked.chmod(0o644)
    verdict = verify(bundle.root)
    assert_refused(verdict, "EF_TRUST_MALFORMED", str(trust.revoked))
    assert "KRL" in verdict.answer["reason"]


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666])
@pytest.mark.parametrize("name", ["signers", "revoked"])
def test_trust_file_that_others_can_write(
    bundle: Bundle, verify: Callable[..., Verdict], trust: Trust, name: str, mode: int
) -> None:
    path: Path = getattr(trust, name)
    path.chmod(mode)
    assert_refused(verify(bundle.root), "EF_TRUST_MALFORMED", str(path))


def test_trust_folder_that_others_can_write(bundle: Bundle, verify: Callable[..., Verdict], trust: Trust) -> None:
    trust.folder.chmod(0o777)
    assert_refused(verify(bundle.root), "EF_TRUST_MALFORMED", str(trust.signers))


@pytest.mark.parametrize("name", ["signers", "folder"])
def test_trust_of_another_owner(bundle: Bundle, verify: Callable[..., Verdict], trust: Trust, name: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a file to another user")
    os.chown(getattr(trust, name), 65534, 65534)
    assert_refused(verify(bundle.root), "EF_TRUST_MALFORMED", str(trust.signers))


def test_trust_file_that_is_a_symlink(bundle: Bundle, verify: Callable[..., Verdict], trust: Trust) -> None:
    trust.signers.rename(trust.folder / "real")
    trust.signers.symlink_to("real")
    assert_refused(verify(bundle.root), "EF_TRUST_MALFORMED", str(trust.signers))


def test_giant_trust_file(bundle: Bundle, verify: Callable[..., Verdict], trust: Trust) -> None:
    with trust.signers.open("r+b") as stream:
        stream.truncate(1 << 40)
    assert_refused(verify(bundle.root), "EF_TRUST_MALFORMED", str(trust.signers))


# --- --self


@pytest.fixture
def real(tmp_path: Path, signing_key: Path, loader: Path) -> Bundle:
    """A bundle that holds the very loader under test."""
    return make_bundle(tmp_path / "real", signing_key, FEATURES, loader)


def test_self(real: Bundle, verify: Callable[..., Verdict]) -> None:
    assert verify(real.root, "--self").code == 0


def test_self_of_the_bundle(real: Bundle, verify: Callable[..., Verdict]) -> None:
    assert verify(real.root, "--self", binary=real.root / LOADER_PATH).code == 0


def test_self_is_another_build(real: Bundle, verify: Callable[..., Verdict], loader: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "ebpf-loader", loader.read_bytes() + b"\0", 0o755)
    assert_refused(verify(real.root, "--self", binary=other), "EF_LOADER_SELF", LOADER_PATH)


def test_self_of_another_architecture(real: Bundle, verify: Callable[..., Verdict]) -> None:
    document = real.manifest
    (real.root / LOADER_PATH).rename(real.root / "loader/other")
    (real.root / f"loader/{ARCH}").rmdir()
    (real.root / "loader/s390x").mkdir()
    (real.root / "loader/other").rename(real.root / "loader/s390x/ebpf-loader")
    document["files"]["loader/s390x/ebpf-loader"] = document["files"].pop(LOADER_PATH)
    document["loader"]["files"] = {"s390x": "loader/s390x/ebpf-loader"}
    real.write_manifest(document)
    assert verify(real.root).code == 0
    assert_refused(verify(real.root, "--self"), "EF_LOADER_ARCH")


# --- the command line


@pytest.mark.parametrize(
    "arguments",
    [[], ["none"], ["verify"], ["verify", "a", "b"], ["verify", "a", "--none"], ["verify", "a", "--trust"]],
)
def test_usage(loader: Path, arguments: list[str]) -> None:
    done = subprocess.run([str(loader), *arguments], check=False, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr


def test_help(loader: Path) -> None:
    done = subprocess.run([str(loader), "--help"], check=False, capture_output=True, text=True)
    assert done.returncode == 0
    assert "ebpf-loader verify DIR" in done.stdout


def test_version(loader: Path) -> None:
    answer = json.loads(subprocess.run([str(loader), "version"], check=True, capture_output=True).stdout)
    assert answer == {"loader_version": "0.1.0", "libbpf": answer["libbpf"], "arch": ARCH}
    assert answer["libbpf"].startswith("1.")


def test_answer_that_cannot_be_written(loader: Path, bundle: Bundle, trust: Trust) -> None:
    with Path("/dev/full").open("w") as full:
        command = [str(loader), "verify", str(bundle.root), *trust.arguments]
        assert subprocess.run(command, check=False, stdout=full, stderr=subprocess.PIPE).returncode == 1


# --- agreement with OpenSSH


def openssh_accepts(bundle: Bundle, trust: Trust) -> bool:
    """What `ssh-keygen -Y verify` says of the manifest's signature."""
    command = ["ssh-keygen", "-Y", "verify", "-f", str(trust.signers), "-I", PRINCIPAL, "-n", NAMESPACE]
    command += ["-s", str(bundle.signature_path), "-r", str(trust.revoked)]
    with bundle.manifest_path.open("rb") as manifest:
        return subprocess.run(command, check=False, stdin=manifest, capture_output=True).returncode == 0


SIGNERS_LINES = [
    "{principal} {key}",
    '{principal} namespaces="ebpf-fleet-release" {key} a comment',
    "{principal}\t{key}",
    '"{principal}" {key}',
    "{principal},other@example.org {key}",
    '{principal} namespaces="git,ebpf-*" {key}',
    '{principal} namespaces="ebpf-fleet-releas?" {key}',
    '{principal} namespaces="*,!ebpf-fleet-release" {key}',
    '{principal} namespaces="!git,*" {key}',
    '{principal} namespaces="git" {key}',
    '{principal} namespaces="" {key}',
    '{principal} NameSpaces="ebpf-fleet-release" {key}',
    '{principal} valid-after="20200101" {key}',
    '{principal} valid-after="202001010101Z",valid-before="29990101000000Z" {key}',
    '{principal} valid-before="20200101Z" {key}',
    '{principal} valid-after="29990101" {key}',
    '{principal} namespaces="git",valid-before="20200101Z" {key}',
    '{principal} valid-after="20210101",valid-before="20200101" {key}',
    '{principal} valid-before="20200230" {key}',
    "{principal} valid-before=20990101 {key}",
    "{principal} cert-authority {key}",
    "{principal} surprise {key}",
    "{principal} ssh-ed25519 AAAA",
    "{principal}",
    '{principal} valid-before="20200101Z" {key}\n{principal} {key}',
    "# {principal} {key}",
    "  {principal} {key}",
    "{principal} {key}\r",
]


@pytest.mark.parametrize("line", SIGNERS_LINES)
def test_agreement_on_allowed_signers(bundle: Bundle, verify: Callable[..., Verdict], trust: Trust, line: str) -> None:
    text = line.format(principal=PRINCIPAL, key=public_key(bundle.key))
    write(trust.signers, f"{text}\n".encode())
    assert verify(bundle.root).answer["ok"] is openssh_accepts(bundle, trust)


@pytest.mark.parametrize("principal", ["*", "*@example.org", "release@example.or?"])
def test_stricter_than_openssh_on_patterns(
    bundle: Bundle, verify: Callable[..., Verdict], trust: Trust, principal: str
) -> None:
    trust.allow(bundle.key, principal=principal)
    assert openssh_accepts(bundle, trust)
    verdict = verify(bundle.root)
    assert_refused(verdict, "EF_TRUST_MALFORMED", str(trust.signers))
    assert "pattern" in verdict.stderr


@pytest.mark.parametrize("fault", SCHEMA_FAULTS)
def test_agreement_of_the_controller_on_the_schema(bundle: Bundle, fault: str) -> None:
    document: Any = bundle.manifest
    load_manifest(canonical(document))
    change = SCHEMA_FAULTS[fault]
    if change is None:
        document = []
    else:
        change(document)
    with pytest.raises(FleetError) as caught:
        load_manifest(canonical(document))
    assert caught.value.code == "EF_MANIFEST_SCHEMA"


@pytest.mark.parametrize("fault", NOT_CANONICAL)
def test_agreement_of_the_controller_on_the_form(bundle: Bundle, fault: str) -> None:
    with pytest.raises(FleetError) as caught:
        load_manifest(NOT_CANONICAL[fault](bundle.manifest_path.read_bytes()))
    assert caught.value.code == "EF_MANIFEST_MALFORMED"


SIGNINGS: dict[str, Callable[[Bundle, Trust, Path], None]] = {
    "good": lambda bundle, trust, other: None,
    "sha256": lambda bundle, trust, other: sign(bundle.manifest_path, bundle.key, digest="sha256"),
    "other key": lambda bundle, trust, other: sign(bundle.manifest_path, other),
    "namespace": lambda bundle, trust, other: sign(bundle.manifest_path, bundle.key, namespace="file"),
    "revoked": lambda bundle, trust, other: trust.revoke(bundle.key),
    "other revoked": lambda bundle, trust, other: trust.revoke(other),
    "altered": lambda bundle, trust, other: write_bytes(bundle.manifest_path, b"{}"),
    "empty signature": lambda bundle, trust, other: write_bytes(bundle.signature_path, b""),
}


def write_bytes(path: Path, data: bytes) -> None:
    """Replace a file's bytes."""
    path.write_bytes(data)


@pytest.mark.parametrize("signing", SIGNINGS)
def test_agreement_on_signatures(
    bundle: Bundle, verify: Callable[..., Verdict], trust: Trust, other_key: Path, signing: str
) -> None:
    SIGNINGS[signing](bundle, trust, other_key)
    assert verify(bundle.root).answer["ok"] is openssh_accepts(bundle, trust)
