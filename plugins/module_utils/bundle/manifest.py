# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The manifest of a bundle: canonical form, digest, creation and strict validation. Pure."""

from __future__ import annotations

import calendar
import datetime
import hashlib
import json
import re
from typing import Any, NamedTuple, NoReturn

from ansible_collections.ebpf.fleet.plugins.module_utils.base import strictjson
from ansible_collections.ebpf.fleet.plugins.module_utils.base.bounded import nesting
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError, did_you_mean

SCHEMA = "ebpf.fleet/manifest/v1"
MANIFEST = "manifest.json"
SIGNATURE = "manifest.json.sig"
KIB, MIB = 1024, 1024 * 1024
MAX_MANIFEST, MAX_SIGNATURE = MIB, 16 * KIB
MAX_CONTRACT, MAX_OBJECT, MAX_LOADER = 64 * KIB, 8 * MIB, 32 * MIB
MAX_FILES = 1024
MAX_SEQUENCE = 2**63 - 1
MAX_DEPTH = 32
NAME = re.compile(r"[a-z][a-z0-9_]{0,31}\Z")
BUNDLE_NAME = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]{0,63}\Z")
VERSION = re.compile(r"[0-9A-Za-z][0-9A-Za-z.+-]{0,63}\Z")
CREATED = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z\Z")
PATH = re.compile(r"[A-Za-z0-9._/-]{1,255}\Z")
SHA256 = re.compile(r"[0-9a-f]{64}\Z")
TOP_KEYS = ("schema", "bundle", "loader", "features", "files", "provenance", "compatibility")


class BundleFile(NamedTuple):
    """A file as the manifest names it: ``size`` in bytes, ``mode`` as permission bits."""

    path: str
    sha256: str
    size: int
    mode: int


def canonical_json(doc: Any) -> str:
    """The one byte sequence of a document: ASCII, sorted keys, no white space, integers only."""
    _refuse_floats(doc, "document")
    return json.dumps(doc, sort_keys=True, separators=(",", ":"), ensure_ascii=True) + "\n"


def _refuse_floats(value: Any, field: str) -> None:
    if isinstance(value, float):
        raise FleetError("EF_MANIFEST_SCHEMA", f"{field} is {value}; use an integer in a smaller unit")
    if isinstance(value, dict):
        for key, item in value.items():
            _refuse_floats(item, f"{field}.{key}")
    if isinstance(value, list):
        for index, item in enumerate(value):
            _refuse_floats(item, f"{field}[{index}]")


def digest_of(manifest: bytes) -> str:
    """The digest of the bundle: SHA-256 of the manifest's bytes, in hex."""
    return hashlib.sha256(manifest).hexdigest()


def release_id(version: str, digest: str) -> str:
    """The folder name of an installed release."""
    return f"{version}-{digest[:12]}"


def safe_path(path: Any) -> bool:
    """Whether a path may be in a bundle: relative, plain characters, no '.', '..' or empty component."""
    if not isinstance(path, str) or not PATH.match(path):
        return False
    return all(part not in ("", ".", "..") for part in path.split("/"))


def folders_of(path: str) -> list[str]:
    """The folders that a path of a bundle lies in, the outermost first."""
    parts = path.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]


def file_limit(path: str) -> int:
    """The largest size of that file, in bytes."""
    if path.endswith("/contract.json"):
        return MAX_CONTRACT
    return MAX_LOADER if path.startswith("loader/") else MAX_OBJECT


def seconds_of(created: str) -> int | None:
    """The seconds since 1970 of a ``created``; None where it is not a moment from 1970 to 9999 in the one form."""
    if not CREATED.match(created):
        return None
    try:
        year, month, day, hour, minute, second = (int(part) for part in re.split(r"[-T:]", created[:-1]))
        moment = datetime.datetime(year, month, day, hour, minute, second)
    except ValueError:
        return None
    seconds = calendar.timegm(moment.timetuple())
    return seconds if seconds >= 0 else None


AGAIN = "build and sign the bundle again"


def parse_canonical(data: bytes, file: str, code: str = "EF_MANIFEST_MALFORMED", remedy: str = AGAIN) -> Any:
    """Parse a document that must be canonical JSON; any other byte is a refusal with ``code``.

    Nested at most 32 deep, integers of 64 bits with sign, no U+0000 and no lone surrogate: what the
    loader's library reads, Python reads, and nothing else.
    """
    try:
        doc = _parse_strict(data)
    except (ValueError, RecursionError) as error:
        raise FleetError(code, f"{file}: {error}; {remedy}", file) from error
    return doc


def _parse_strict(data: bytes) -> Any:
    """The document; raises ValueError with the fault."""
    try:
        text = data.decode("ascii")
    except UnicodeDecodeError as error:
        raise ValueError("is not JSON in ASCII") from error
    if nesting(text) > MAX_DEPTH:
        raise ValueError(f"is nested deeper than {MAX_DEPTH}")
    try:
        doc = json.loads(text, object_pairs_hook=strictjson.pairs, parse_int=strictjson.integer,
                         parse_float=strictjson.refuse_number, parse_constant=strictjson.refuse_number)  # fmt: skip
    except json.JSONDecodeError as error:
        raise ValueError(f"is not JSON in ASCII ({error})") from error
    strictjson.refuse_unreadable(doc)
    if canonical_json(doc).encode("ascii") != data:
        raise ValueError("is not in canonical form (sorted keys, no white space, integers only, one newline)")
    return doc


class Manifest:
    """A manifest that passed every rule. Make one with :func:`load_manifest`."""

    def __init__(self, doc: dict[str, Any], data: bytes) -> None:
        self.doc = doc
        self.data = data
        self.digest = digest_of(data)
        self.version = str(doc["bundle"]["version"])
        self.sequence = int(doc["bundle"]["sequence"])
        self.release_id = release_id(self.version, self.digest)
        self.features: dict[str, Any] = doc["features"]
        self.files: dict[str, BundleFile] = {
            path: BundleFile(path, entry["sha256"], entry["size"], int(entry["mode"], 8))
            for path, entry in doc["files"].items()
        }

    def loader_path(self, machine: str) -> str:
        """The bundle's loader for a machine (``uname -m``); refuses a machine that has none."""
        loaders = self.doc["loader"]["files"]
        if machine not in loaders:
            raise FleetError(
                "EF_LOADER_ARCH",
                f"the bundle has no loader for {machine}, only for {', '.join(sorted(loaders))}; "
                "build it with a loader for this architecture",
            )
        return str(loaders[machine])

    def total_bytes(self) -> int:
        """What the bundle's files take, without the manifest."""
        return sum(entry.size for entry in self.files.values())


def load_manifest(data: bytes, file: str = MANIFEST) -> Manifest:
    """Parse and validate; raises FleetError (EF_MANIFEST_MALFORMED, EF_MANIFEST_SCHEMA)."""
    if len(data) > MAX_MANIFEST:
        raise FleetError("EF_MANIFEST_MALFORMED", f"{file}: is {len(data)} bytes; at most {MAX_MANIFEST} are allowed",
                         file)  # fmt: skip
    doc = parse_canonical(data, file)
    _Validator(file).check(doc)
    return Manifest(doc, data)


class _Validator:
    """The rules of the manifest, one method each; the first broken one raises."""

    def __init__(self, file: str) -> None:
        self.file = file

    def refuse(self, field: str, problem: str) -> NoReturn:
        raise FleetError(
            "EF_MANIFEST_SCHEMA",
            f"{self.file}: {field}: {problem}; build and sign the bundle again",
            self.file,
        )

    def keys(self, field: str, value: Any, wanted: tuple[str, ...]) -> None:
        """``value`` must be an object of exactly the ``wanted`` keys."""
        if not isinstance(value, dict):
            self.refuse(field, "is not an object")
        for key in sorted(value):
            if key not in wanted:
                self.refuse(f"{field}.{key}", "is not a known key (" + did_you_mean(key, wanted) + ")")
        for key in wanted:
            if key not in value:
                self.refuse(f"{field}.{key}", "is missing")

    def match(self, field: str, value: Any, pattern: re.Pattern[str]) -> None:
        if not isinstance(value, str) or not pattern.match(value):
            self.refuse(field, f"is {str(value)[:80]!r}, not of the form {pattern.pattern[:-2]}")

    def integer(self, field: str, value: Any, low: int, high: int) -> None:
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            self.refuse(field, f"is {str(value)[:80]}, not an integer from {low} to {high}")

    def check(self, doc: Any) -> None:
        self.keys("manifest", doc, TOP_KEYS)
        if doc["schema"] != SCHEMA:
            self.refuse("schema", f"is {str(doc['schema'])[:80]!r}, not {SCHEMA!r}")
        self.check_bundle(doc["bundle"])
        self.check_files(doc["files"])
        self.check_loader(doc["loader"], doc["files"])
        self.check_features(doc["features"], doc["files"])
        for key in ("provenance", "compatibility"):
            if not isinstance(doc[key], dict):
                self.refuse(key, "is not an object")

    def check_bundle(self, bundle: Any) -> None:
        self.keys("bundle", bundle, ("name", "version", "sequence", "created"))
        self.match("bundle.name", bundle["name"], BUNDLE_NAME)
        self.match("bundle.version", bundle["version"], VERSION)
        self.integer("bundle.sequence", bundle["sequence"], 1, MAX_SEQUENCE)
        self.match("bundle.created", bundle["created"], CREATED)
        if seconds_of(bundle["created"]) is None:
            self.refuse("bundle.created", f"{bundle['created']!r} is not a moment of the calendar since 1970")

    def check_files(self, files: Any) -> None:
        if not isinstance(files, dict) or not files:
            self.refuse("files", "names no file")
        if len(files) > MAX_FILES:
            self.refuse("files", f"names {len(files)} files; at most {MAX_FILES} are allowed")
        for path in sorted(files):
            field = f"files[{path[:80]}]"
            if not safe_path(path) or path in (MANIFEST, SIGNATURE):
                self.refuse(field, "is not a path that a bundle may hold")
            self.keys(field, files[path], ("sha256", "size", "mode"))
            self.match(field + ".sha256", files[path]["sha256"], SHA256)
            self.integer(field + ".size", files[path]["size"], 0, file_limit(path))
            if files[path]["mode"] not in ("0644", "0755"):
                self.refuse(field + ".mode", "is not 0644 or 0755")
            if any(folder in files or folder in (MANIFEST, SIGNATURE) for folder in folders_of(path)):
                self.refuse(field, "lies in a folder that is a file of the bundle")

    def named(self, field: str, path: Any, files: dict[str, Any]) -> None:
        if not isinstance(path, str) or path not in files:
            self.refuse(field, f"{str(path)[:80]!r} is not in files")

    def check_loader(self, loader: Any, files: dict[str, Any]) -> None:
        self.keys("loader", loader, ("version", "files"))
        self.match("loader.version", loader["version"], VERSION)
        if not isinstance(loader["files"], dict) or not loader["files"]:
            self.refuse("loader.files", "names no loader")
        for arch in sorted(loader["files"]):
            self.match("loader.files", arch, NAME)
            if loader["files"][arch] != f"loader/{arch}/ebpf-loader":
                self.refuse(f"loader.files.{arch}", f"is not loader/{arch}/ebpf-loader")
            self.named(f"loader.files.{arch}", loader["files"][arch], files)

    def check_features(self, features: Any, files: dict[str, Any]) -> None:
        if not isinstance(features, dict) or not features:
            self.refuse("features", "names no feature")
        for name in sorted(features):
            self.match("features", name, NAME)
            field = f"features.{name}"
            self.keys(field, features[name], ("contract", "variants"))
            if features[name]["contract"] != f"features/{name}/contract.json":
                self.refuse(field + ".contract", f"is not features/{name}/contract.json")
            self.named(field + ".contract", features[name]["contract"], files)
            self.check_variants(field, name, features[name]["variants"], files)

    def check_variants(self, field: str, feature: str, variants: Any, files: dict[str, Any]) -> None:
        if not isinstance(variants, list) or not variants:
            self.refuse(field + ".variants", "names no variant")
        seen: list[str] = []
        for index, variant in enumerate(variants):
            here = f"{field}.variants[{index}]"
            self.keys(here, variant, ("name", "object"))
            self.match(here + ".name", variant["name"], NAME)
            if variant["name"] in seen:
                self.refuse(here + ".name", f"{variant['name']!r} is there twice")
            seen.append(variant["name"])
            if variant["object"] != f"features/{feature}/{variant['name']}.bpf.o":
                self.refuse(here + ".object", f"is not features/{feature}/{variant['name']}.bpf.o")
            self.named(here + ".object", variant["object"], files)


def create_manifest(
    bundle: dict[str, Any],
    loader_version: str,
    archs: list[str],
    features: dict[str, list[str]],
    files: dict[str, BundleFile],
    provenance: dict[str, str],
    compatibility: dict[str, list[Any]],
) -> Manifest:
    """A valid manifest. ``features`` maps each name to its variants in order of preference."""
    doc = {
        "schema": SCHEMA,
        "bundle": bundle,
        "loader": {
            "version": loader_version,
            "files": {arch: f"loader/{arch}/ebpf-loader" for arch in archs},
        },
        "features": {name: _feature_entry(name, variants) for name, variants in features.items()},
        "files": {
            path: {"sha256": entry.sha256, "size": entry.size, "mode": f"{entry.mode:04o}"}
            for path, entry in files.items()
        },
        "provenance": provenance,
        "compatibility": compatibility,
    }
    return load_manifest(canonical_json(doc).encode("ascii"))


def _feature_entry(name: str, variants: list[str]) -> dict[str, Any]:
    return {
        "contract": f"features/{name}/contract.json",
        "variants": [{"name": variant, "object": f"features/{name}/{variant}.bpf.o"} for variant in variants],
    }
