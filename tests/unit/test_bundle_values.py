# SPDX-License-Identifier: GPL-3.0-or-later
"""What a bundle's readers take and refuse, on both sides of each limit: keys, archives, dates, the index of types."""

from __future__ import annotations

import io
import json
import struct
import tarfile
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle import (
    btf_index,
    files,
    manifest,
    matrix,
    minimal_btf,
    output,
    source,
    tar,
)
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle import signature as sg
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle.manifest import canonical_json

P = 2**255 - 19
L = 2**252 + 27742317777372353535851937790883648493
GOOD = (9).to_bytes(32, "little")


def little(number: int) -> bytes:
    return number.to_bytes(32, "little")


# RFC 8032: the y of the eight points of small order, also with the sign bit and as the same number above the prime.
# That the number which is no formula is one, a test below reckons.
EIGHTH = sg.EIGHTH
SMALL = [0, 1, P - 1, P, P + 1, EIGHTH, P - EIGHTH]


@pytest.mark.parametrize("number", SMALL)
@pytest.mark.parametrize("sign", [0, 1 << 255])
def test_a_point_of_small_order_signs_nothing(number: int, sign: int) -> None:
    assert sg._is_strict(GOOD, GOOD + little(1))
    assert not sg._is_strict(little(number | sign), GOOD + little(1))
    assert not sg._is_strict(GOOD, little(number | sign) + little(1))


@pytest.mark.parametrize("number", [2, P - 2, EIGHTH - 1, EIGHTH + 1, P - EIGHTH - 1, P - EIGHTH + 1])
def test_the_points_beside_them_are_good(number: int) -> None:
    assert sg._is_strict(little(number), GOOD + little(1))
    assert sg._is_strict(GOOD, little(number) + little(1))


def test_the_eighth_point_is_on_the_curve_and_its_double_has_order_four() -> None:
    """x^2 = (y^2 - 1) / (d y^2 + 1) with x^2 = -y^2 there, so that the double's y is 0."""
    d = -121665 * pow(121666, -1, P) % P
    y2 = EIGHTH * EIGHTH % P
    x2 = (y2 - 1) * pow(d * y2 + 1, -1, P) % P
    assert (x2 + y2) % P == 0 and (sg.PRIME, sg.ORDER) == (P, L)


@pytest.mark.parametrize(
    ("number", "good"), [(0, True), (L - 1, True), (L, False), (L + 1, False), (2**256 - 1, False)]
)
def test_the_second_half_of_a_signature_is_below_the_order(number: int, good: bool) -> None:
    assert sg._is_strict(GOOD, GOOD + little(number)) is good


@pytest.mark.parametrize(("number", "good"), [(P - 2, True), (P, False), (P + 2, False), (2**255 - 1, False)])
def test_a_key_has_its_one_form_below_the_prime(number: int, good: bool) -> None:
    assert sg._is_strict(little(number), GOOD + little(1)) is good


# ---- dates ----


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1970-01-01T00:00:00Z", 0), ("1970-01-01T00:00:01Z", 1), ("2024-02-29T12:34:56Z", 1709210096),
     ("1969-12-31T23:59:59Z", None), ("2023-02-29T00:00:00Z", None), ("2024-01-01T24:00:00Z", None),
     ("2024-01-01T00:00:60Z", None), ("2024-01-01T00:00:00", None), ("2024-01-01 00:00:00Z", None)],
)  # fmt: skip
def test_created_is_a_moment_in_utc(text: str, seconds: int | None) -> None:
    assert manifest.seconds_of(text) == seconds


# ---- archives ----


def archive(*members: tuple[str, bytes], form: int = tarfile.USTAR_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as made:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), 0o644
            made.addfile(info, io.BytesIO(data))
    return out.getvalue()


def entries(folder: Path, data: bytes) -> list[tuple[str, int, int]]:
    path = folder / "x.tar"
    path.write_bytes(data)
    with path.open("rb") as file:
        return [(one.name, one.mode, one.size) for one in tar.entries(file, "x.tar")]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("length", [1, 99, 100, 101, 150])
def test_a_name_is_whole_whatever_its_length_and_the_form(tmp_path: Path, form: int, length: int) -> None:
    name = ("d" * 49 + "/" + "n" * 200)[:length]
    data = archive((name, b"x" * 513), ("b", b""), form=form)
    assert entries(tmp_path, data) == [(name, 0o644, 513), ("b", 0o644, 0)]


@pytest.mark.parametrize(("length", "magic"), [(100, b"ustar\x0000"), (101, b"ustar  \0")])
def test_a_written_archive_is_of_the_common_form_unless_a_name_is_too_long_for_it(
    tmp_path: Path, length: int, magic: bytes
) -> None:
    out = io.BytesIO()
    name = "n" * length
    files.write_members(out, {"b": files.Member("b", 0o755, b"2"), name: files.Member(name, 0o644, b"11")}, 7)
    data = out.getvalue()
    assert data[257:265] == b"ustar\x0000", "the first by name is b"
    assert data[1024 + 257 : 1024 + 265] == magic
    assert entries(tmp_path, data) == [("b", 0o755, 1), (name, 0o644, 2)]


def bad(folder: Path, data: bytes) -> str:
    with pytest.raises(FleetError) as found:
        entries(folder, data)
    return found.value.message


def with_checksum(block: bytes) -> bytes:
    number = sum(block[:148]) + sum(block[156:]) + 8 * 32
    return block[:148] + b"%06o\0 " % number + block[156:]


def test_what_is_not_such_an_archive_is_refused(tmp_path: Path) -> None:
    good = archive(("a", b"data"))
    assert "is not an uncompressed tar with members" in bad(tmp_path, bytes(10240))
    assert "the checksum of a header is wrong" in bad(tmp_path, good[:100] + b"9" + good[101:])
    assert "has bytes behind its end" in bad(tmp_path, good[:-1] + b"x")
    assert "mode or a size that is not octal" in bad(tmp_path, with_checksum(good[:124] + b"9" * 11 + good[135:512]))
    assert "is not a regular file" in bad(tmp_path, with_checksum(good[:156] + b"2" + good[157:512]) + good[512:])
    cut = with_checksum(good[:124] + b"%011o" % 10241 + good[135:512]) + good[512:]
    assert "of its 10241 bytes; transfer it again" in bad(tmp_path, cut)
    assert "not a readable uncompressed tar" in bad(tmp_path, good[:257] + b"nostar" + good[263:])


@pytest.mark.parametrize(("size", "fine"), [(tar.MAX_EXTENSION, True), (tar.MAX_EXTENSION + 1, False)])
def test_an_extended_header_has_its_largest_size(tmp_path: Path, size: int, fine: bool) -> None:
    head = with_checksum(archive(("a", b""))[:124] + b"%011o" % size + archive(("a", b""))[135:156] + b"L"
                         + archive(("a", b""))[157:512])  # fmt: skip
    body = (b"long" + bytes(size - 4)).ljust(-(-size // 512) * 512, b"\0")
    data = head + body + archive(("short", b"x"))
    if fine:
        assert entries(tmp_path, data) == [("long", 0o644, 1)]
    else:
        assert f"at most {tar.MAX_EXTENSION} are allowed" in bad(tmp_path, data)


@pytest.mark.parametrize(
    "record", [b"12 path=abc", b"12 path-abcd\n", b"14 path=abcd\n", b"path=abcd\n", b"11 path=abcd\n"]
)
def test_a_pax_header_that_cannot_be_read_is_refused(record: bytes) -> None:
    assert tar._pax_name(b"12 path=abc\n", "x") == "abc"
    with pytest.raises(FleetError, match="an extended header that cannot be read"):
        tar._pax_name(record, "x")


def test_a_folder_gets_each_member_with_exactly_its_mode(tmp_path: Path) -> None:
    members = {name: source.Member(name, mode, name.encode()) for name, mode in
               (("a/b/c", 0o644), ("a/b/d", 0o755), ("e", 0o600))}  # fmt: skip
    output.write_folder(members, tmp_path)
    found = {path.relative_to(tmp_path).as_posix(): path for path in tmp_path.rglob("*") if path.is_file()}
    assert {name: path.read_bytes() for name, path in found.items()} == {name: name.encode() for name in members}
    assert {name: path.stat().st_mode & 0o7777 for name, path in found.items()} == {
        name: one.mode for name, one in members.items()
    }


def test_types_as_short_as_their_header_are_whole_and_shorter_ones_are_not() -> None:
    head = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, 0, 0, 0)
    assert minimal_btf.btf_problem(head) is None
    assert minimal_btf.btf_problem(head[:-1]) == "is not BTF: it has 23 bytes only"
    assert minimal_btf.btf_problem(b"\xeb\x9f" + head[2:]) == "is not raw little-endian BTF"
    for at in (12, 20):  # the length of the types, of the strings
        longer = head[:at] + struct.pack("<I", 4) + head[at + 4 :]
        assert minimal_btf.btf_problem(longer) == "is cut off" and minimal_btf.btf_problem(longer + bytes(4)) is None


# ---- the index of types ----

ENTRY = {"build_id": None, "file": "btf/x86_64/a.btf", "machine": "x86_64", "release": "6.1.0-9"}


def index_problem(*listed: Any, **document: Any) -> str:
    whole = {"schema": "ebpf.fleet/btf-index/v1", "entries": list(listed), **document}
    try:
        found = btf_index.parse_index(canonical_json(whole).encode(), {"btf/x86_64/a.btf", "btf/arm64/a.btf", "x"})
    except FleetError as error:
        assert error.code == "EF_MANIFEST_MALFORMED"
        return error.message
    assert found == list(listed)
    return ""


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, ""),
        ({"build_id": "a" * 40}, ""),
        ({"release": "6" * 64}, ""),
        ({"machine": "X86"}, "machine is not what uname -m prints"),
        ({"machine": 7}, "machine is not what uname -m prints"),
        ({"machine": "a" * 33}, "machine is not what uname -m prints"),
        ({"release": "6" * 65}, "release is not what uname -r prints"),
        ({"release": "-6"}, "release is not what uname -r prints"),
        ({"release": None}, "release is not what uname -r prints"),
        ({"build_id": "a" * 39}, "build_id is neither"),
        ({"build_id": "A" * 40}, "build_id is neither"),
        ({"build_id": 0}, "build_id is neither"),
        ({"file": "btf/arm64/a.btf"}, "file is not one of the bundle"),
        ({"file": "btf/x86_64/b.btf"}, "file is not one of the bundle"),
        ({"file": "x"}, "file is not one of the bundle"),
        ({"file": None}, "file is not one of the bundle"),
        ({"more": 1}, "does not have exactly the keys"),
    ],
)
def test_an_entry_of_the_index_is_right_or_named(changes: dict[str, Any], words: str) -> None:
    said = index_problem(ENTRY, {**ENTRY, **changes})
    assert words in said and bool(said) is bool(words) and ("entries[1]: " in said or not words)


def test_the_index_itself_is_right_or_named() -> None:
    assert "is not of the schema" in index_problem(schema="other")
    assert "is not of the schema" in index_problem(more=1)
    assert "entries: is not a list" in index_problem(entries={})
    assert index_problem() == ""


# ---- the matrix of kernels ----

REACHED = {"profile": "full", "variant": "ring"}
MATRIX = {
    "schema": matrix.SCHEMA,
    "objects": {"o": "a" * 64},
    "differences": [],
    "hosts": {
        "k": {
            "kernel": {"release": "6.1"},
            "features": {"f": {"variants": {"ring": {}}, "predicted": REACHED, "reached": REACHED}},
        }
    },
}


def matrix_problem(path: str, value: Any) -> str:
    doc = json.loads(json.dumps(MATRIX))
    for key in matrix.KEYS:
        doc.setdefault(key, {})
    *above, last = path.split("/")
    place = doc
    for word in above:
        place = place[word]
    if value is ...:
        del place[last]
    else:
        place[last] = value
    try:
        matrix.check_matrix(doc, Path("m.json"), {"f": ["ring", "perf"]}, {"o": "a" * 64})
    except FleetError as error:
        assert error.code == "EF_ARGUMENT" and error.message.startswith("matrix: m.json: ")
        return error.message
    return ""


F = "hosts/k/features/f"


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("schema", matrix.SCHEMA, ""),
        ("schema", "other", "schema: is not"),
        *((key, ..., f"{key}: is ") for key in sorted(matrix.KEYS)),
        ("objects", {}, "objects: is not a mapping with at least one entry"),
        ("hosts", {}, "hosts: is not a mapping with at least one entry"),
        ("hosts", [], "hosts: is not a mapping"),
        ("differences", {}, "differences: is not a list of mappings"),
        ("differences", [1], "differences: is not a list of mappings"),
        ("differences", [{"host": "k", "feature": "f"}], "what was predicted was not reached (k f)"),
        ("objects/o", "b" * 64, "o was measured with SHA-256 bbbbbbbbbbbb"),
        ("objects/o", ..., "objects: is not a mapping with at least one entry"),
        ("objects/p", "a" * 64, "p was measured, but is not in this bundle"),
        ("objects", {"p": "a" * 64}, "o of this bundle was not measured"),
        ("hosts/k", [], "hosts.k: is not a host"),
        ("hosts/k/kernel", None, "hosts.k: is not a host"),
        ("hosts/k/features/g", {}, "hosts.k.features: differ from this bundle's in g"),
        (f"{F}/variants", ..., "hosts.k.features.f: has no 'variants'"),
        (f"{F}/variants/perf", {}, ""),
        (f"{F}/variants/odd", {}, "hosts.k.features.f.variants: 'odd' is not in this bundle"),
        (f"{F}/reached", None, "hosts.k.features.f.reached: has no profile"),
        (f"{F}/predicted/profile", "good", "hosts.k.features.f.predicted: has no profile"),
        (f"{F}/reached/variant", "odd", "hosts.k.features.f.reached.variant: 'odd' is not in this bundle"),
        (f"{F}/reached/variant", "bcc", ""),
        (f"{F}/reached/variant", None, ""),
    ],
)
def test_a_matrix_is_of_this_very_bundle_or_named(path: str, value: Any, words: str) -> None:
    said = matrix_problem(path, value)
    assert words in said and bool(said) is bool(words), said
