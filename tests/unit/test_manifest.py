# SPDX-License-Identifier: GPL-3.0-or-later
"""The manifest: one byte sequence, and nothing in it that the rules do not know."""

from __future__ import annotations

import copy
import hashlib
import json
import time
from typing import Any

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle import manifest as mf

PATHS = ("features/runqlat/contract.json", "features/runqlat/full.bpf.o", "loader/x86_64/ebpf-loader")
FILES = {path: mf.BundleFile(path, hashlib.sha256(path.encode()).hexdigest(), 10, 0o644) for path in PATHS}


def make(**changes: Any) -> mf.Manifest:
    arguments: dict[str, Any] = {
        "bundle": {"name": "ebpf-fleet", "version": "1.0.0", "sequence": 7, "created": "2026-11-23T18:00:00Z"},
        "loader_version": "0.1.0",
        "archs": ["x86_64"],
        "features": {"runqlat": ["full"]},
        "files": FILES,
        "provenance": {"commit": "abc", "compiler": "clang", "libbpf": "1.1.2"},
        "compatibility": {"summary": [], "known_disabled": []},
    }
    return mf.create_manifest(**{**arguments, **changes})


def refused(doc: Any) -> FleetError:
    with pytest.raises(FleetError) as found:
        mf.load_manifest(mf.canonical_json(doc).encode())
    return found.value


def test_canonical_json_is_ascii_sorted_and_tight() -> None:
    assert mf.canonical_json({"b": [1, None], "a": "é\U0001f600"}) == '{"a":"\\u00e9\\ud83d\\ude00","b":[1,null]}\n'


@pytest.mark.parametrize("doc", [1.0, {"a": [1.5]}, {"a": {"b": float("nan")}}])
def test_canonical_json_holds_no_float(doc: Any) -> None:
    with pytest.raises(FleetError, match="integer"):
        mf.canonical_json(doc)


def test_a_manifest_survives_its_own_bytes() -> None:
    manifest = make()
    again = mf.load_manifest(manifest.data)
    assert again.doc == manifest.doc and again.digest == hashlib.sha256(manifest.data).hexdigest()
    assert again.release_id == f"1.0.0-{again.digest[:12]}"
    assert again.files == FILES and again.total_bytes() == 30


def test_the_order_of_the_inputs_does_not_matter() -> None:
    assert make(files=dict(reversed(FILES.items()))).data == make().data


def test_a_loader_for_another_machine_is_a_refusal() -> None:
    assert make().loader_path("x86_64") == "loader/x86_64/ebpf-loader"
    with pytest.raises(FleetError) as found:
        make().loader_path("riscv64")
    assert found.value.code == "EF_LOADER_ARCH" and "x86_64" in found.value.message


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[" * 100000,
        json.dumps(make().doc).encode(),
        make().data[:-1],
        make().data + b"\n",
        make().data.replace(b'"sequence":7', b'"sequence":7.0'),
        make().data.replace(b'"sequence":7', b'"sequence":-0'),
        make().data.replace(b'"sequence":7', b'"sequence":7,"sequence":8'),
        make().data.replace(b'"sequence":7', b'"sequence":NaN'),
        make().data.replace(b'"abc"', '"äbc"'.encode()),
        make().data.replace(b'"sequence":7', b'"sequence":9223372036854775808'),
        make().data.replace(b'"sequence":7', b'"sequence":-9223372036854775809'),
        make().data.replace(b'"sequence":7', b'"sequence":' + b"9" * 5000),
        make().data.replace(b'"abc"', b'"\\u0000"'),
        make().data.replace(b'"abc"', b'"\\ud800"'),
        make().data.replace(b'"abc"', b"[" * 33 + b"]" * 33),
        b'{"a":' * 100000 + b"1" + b"}" * 100000 + b"\n",
    ],
)
def test_other_bytes_than_the_canonical_are_malformed(data: bytes) -> None:
    with pytest.raises(FleetError) as found:
        mf.load_manifest(data)
    assert found.value.code == "EF_MANIFEST_MALFORMED" and found.value.file == "manifest.json"


def test_a_manifest_beyond_its_limit_is_refused_unread() -> None:
    with pytest.raises(FleetError) as found:
        mf.load_manifest(b" " * (mf.MAX_MANIFEST + 1))
    assert found.value.code == "EF_MANIFEST_MALFORMED"


def test_a_manifest_names_as_many_files_as_are_allowed_and_not_one_more() -> None:
    one = dict(make().doc["files"]["loader/x86_64/ebpf-loader"])
    own = make().doc["files"]
    for count in (mf.MAX_FILES, mf.MAX_FILES + 1):
        more = {f"features/runqlat/f{number}.bpf.o": one for number in range(count - len(own))}
        data = mf.canonical_json({**make().doc, "files": {**own, **more}}).encode()
        if count == mf.MAX_FILES:
            assert len(mf.load_manifest(data).files) == count
        else:
            with pytest.raises(FleetError, match=f"names {count} files; at most {mf.MAX_FILES} are allowed"):
                mf.load_manifest(data)


REMOVE = object()
OBJECT = "features/runqlat/full.bpf.o"


@pytest.mark.parametrize(
    ("path", "value", "word"),
    [
        (["extra"], 1, "extra"),
        (["schema"], "ebpf.fleet/manifest/v2", "schema"),
        (["schema"], REMOVE, "schema"),
        (["bundle", "extra"], 1, "bundle.extra"),
        (["bundle", "sequence"], 0, "bundle.sequence"),
        (["bundle", "sequence"], True, "bundle.sequence"),
        (["bundle", "sequence"], "7", "bundle.sequence"),
        (["bundle", "version"], "../x", "bundle.version"),
        (["bundle", "version"], "1.0\n", "bundle.version"),
        (["bundle", "created"], "today", "bundle.created"),
        (["bundle", "created"], "2026-02-30T00:00:00Z", "bundle.created"),
        (["bundle", "created"], "2026-01-01T23:59:60Z", "bundle.created"),
        (["bundle", "created"], "1969-12-31T23:59:59Z", "bundle.created"),
        (["bundle", "created"], "0000-01-01T00:00:00Z", "bundle.created"),
        (["bundle", "created"], "٢٠٢٦-01-01T00:00:00Z", "bundle.created"),
        (["files", OBJECT + "/x"], {"sha256": "0" * 64, "size": 1, "mode": "0644"}, OBJECT),
        (["files", "manifest.json/x"], {"sha256": "0" * 64, "size": 1, "mode": "0644"}, "manifest.json"),
        (["loader", "files"], {}, "loader.files"),
        (["loader", "files", "x86_64"], OBJECT, "loader.files.x86_64"),
        (["loader", "files", "../x"], OBJECT, "loader.files"),
        (["features"], {}, "features"),
        (["features", "Bad-Name"], {}, "features"),
        (["features", "runqlat", "contract"], OBJECT, "contract"),
        (["features", "runqlat", "variants"], [], "variants"),
        (["features", "runqlat", "variants", 0, "object"], "../../etc/passwd", "object"),
        (["features", "runqlat", "variants", 0, "name"], "Full", "name"),
        (["files"], [], "files: names no file"),
        (["files"], {}, "files: names no file"),
        (["loader", "version"], "../x", "loader.version"),
        (["loader", "version"], "", "loader.version"),
        (["files", "../x"], {"sha256": "0" * 64, "size": 1, "mode": "0644"}, "../x"),
        (["files", "/x"], {"sha256": "0" * 64, "size": 1, "mode": "0644"}, "/x"),
        (["files", "manifest.json"], {"sha256": "0" * 64, "size": 1, "mode": "0644"}, "manifest.json"),
        (["files", OBJECT, "sha256"], "F" * 64, "sha256"),
        (["files", OBJECT, "size"], -1, "size"),
        (["files", OBJECT, "size"], mf.MAX_OBJECT + 1, "size"),
        (["files", OBJECT, "mode"], "4755", "mode"),
        (["files", OBJECT, "mode"], 420, "mode"),
        (["files", OBJECT], REMOVE, OBJECT),
        (["provenance"], [], "provenance"),
        (["compatibility"], None, "compatibility"),
    ],
)
def test_what_the_schema_does_not_allow_is_refused_by_name(path: list[Any], value: Any, word: str) -> None:
    doc = copy.deepcopy(make().doc)
    place = doc
    for part in path[:-1]:
        place = place[part]
    if value is REMOVE:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    error = refused(doc)
    assert error.code == "EF_MANIFEST_SCHEMA" and word in error.message


def test_many_keys_do_not_take_long() -> None:
    data = mf.canonical_json({f"{number:06}": 1 for number in range(90000)}).encode()
    started = time.monotonic()
    with pytest.raises(FleetError):
        mf.load_manifest(data)
    assert time.monotonic() - started < 20


def test_too_many_files_are_refused() -> None:
    doc = copy.deepcopy(make().doc)
    doc["files"].update({f"x/{n}": {"sha256": "0" * 64, "size": 1, "mode": "0644"} for n in range(mf.MAX_FILES)})
    assert "1024" in refused(doc).message


@pytest.mark.parametrize("path", ["a", "a/b.c", "A-z_0.9/x"])
def test_safe_paths(path: str) -> None:
    assert mf.safe_path(path)


@pytest.mark.parametrize("path", ["", "/a", "a/", "a//b", ".", "..", "a/../b", "./a", "a b", "a\n", "é", "a" * 256, 5])
def test_unsafe_paths(path: Any) -> None:
    assert not mf.safe_path(path)
