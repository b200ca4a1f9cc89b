# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The bundle: verified by its own loader, its files read once and compared with the manifest."""

from __future__ import annotations

import argparse
import datetime
import hashlib
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from ansible_collections.ebpf.fleet.collectors.fleet_bcc.attach import Hook
from ansible_collections.ebpf.fleet.collectors.fleet_bcc.basics import RefusedError
from ansible_collections.ebpf.fleet.collectors.fleet_bcc.files import MAX_JSON_BYTES, parse_json, read_regular
from ansible_collections.ebpf.fleet.plugins.module_utils.contract.rules import KERNEL_NAME

FOLDER = "collector/"  # in the bundle
OWN_MODULES = "ansible_collections"
VERIFY_SECONDS = 120
# Of the contract's grammar (module_utils/contract/requirements.py) what we attach; a test holds both equal.
HOOK = re.compile(r"attach:(?:(raw_tp):([A-Za-z0-9_]{1,127})|(kprobe|kretprobe):([A-Za-z_][A-Za-z0-9_.]{0,126}))")


class Source(NamedTuple):
    """A feature that BCC can run: its contract, its programs with their hooks, and the bytes to compile."""

    name: str
    contract: dict[str, Any]
    programs: dict[str, Hook]
    text: bytes

    def signal(self, kind: str) -> dict[str, Any] | None:
        """The contract's signal of that kind, or None."""
        for each in self.contract["signals"]:
            if each["kind"] == kind:
                return dict(each)
        return None

    @property
    def sample_every(self) -> int:
        return int(self.contract["signals"][0].get("sample_every", 1))

    def expired(self) -> str | None:
        """The day on which the contract expired, or None."""
        expires = self.contract.get("expires")
        today = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d")
        return str(expires) if expires is not None and str(expires) <= today else None


class Bundle(NamedTuple):
    """What of a verified bundle matters here."""

    about: dict[str, Any]
    digest: str
    features: list[str]
    sources: list[Source]


def ask_loader(options: argparse.Namespace) -> dict[str, Any]:
    """The verdict of the release's own loader on the bundle. Raises RefusedError."""
    trust = Path(options.etc) / "trust"
    command = [options.loader, "verify", options.bundle, "--self", "--trust", str(trust / "allowed_signers")]
    if (trust / "revoked_keys").exists():
        command += ["--revoked", str(trust / "revoked_keys")]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, timeout=VERIFY_SECONDS, check=False
        )
        verdict = parse_json(done.stdout, "its answer")
    except (OSError, subprocess.TimeoutExpired, ValueError) as error:
        raise RefusedError(
            "EF_UNKNOWN", f"{options.loader} gives no verdict ({error}); deploy the release again"
        ) from error
    if done.returncode != 0 or not isinstance(verdict, dict) or verdict.get("ok") is not True:
        said = verdict if isinstance(verdict, dict) else {}
        code, reason = str(said.get("reason_code", "EF_UNKNOWN")), said.get("reason", f"exit {done.returncode}")
        raise RefusedError(code, str(reason))
    return verdict


class Files:
    """The files of a bundle, each read once and compared with the manifest."""

    def __init__(self, folder: Path, digest: str) -> None:
        self.folder = folder
        data = self._read("manifest.json")
        if hashlib.sha256(data).hexdigest() != digest:
            raise RefusedError(
                "EF_FILE_DIGEST", "manifest.json: is not the one that was verified; deploy the release again"
            )
        self.manifest: dict[str, Any] = parse_json(data, "manifest.json")

    def _read(self, path: str) -> bytes:
        try:
            return read_regular(self.folder / path, MAX_JSON_BYTES)
        except OSError as error:
            raise RefusedError("EF_FILE_MISSING", f"{path}: {error.strerror}; deploy the release again") from error

    def read(self, path: str) -> bytes:
        """The bytes of a file that the manifest names. Raises RefusedError."""
        named = self.manifest["files"].get(path)
        if named is None:
            raise RefusedError("EF_FILE_MISSING", f"{path}: is not in the manifest; build the release again")
        data = self._read(path)
        if hashlib.sha256(data).hexdigest() != named["sha256"]:
            raise RefusedError("EF_FILE_DIGEST", f"{path}: is not what was signed; deploy the release again")
        return data


def read_hooks(name: str, doc: Any) -> dict[str, Hook]:
    """The contract's `bcc`: its n-th program belongs to its n-th `attach:`. Raises RefusedError."""
    programs, requires = doc.get("programs"), doc.get("requires")
    where = f"features/{name}/contract.json: bcc"
    if not isinstance(programs, list) or not isinstance(requires, list):
        raise RefusedError("EF_CONTRACT_MALFORMED", f"{where}: needs the lists programs and requires")
    for program in programs:
        if not isinstance(program, str) or not KERNEL_NAME.match(program):
            raise RefusedError(
                "EF_CONTRACT_MALFORMED", f"{where}.programs: {program!r} must be ef_ and up to 12 of [a-z0-9_]"
            )
    hooks = []
    for text in requires:
        if not str(text).startswith("attach:"):
            continue
        found = HOOK.fullmatch(str(text))
        if not found:
            raise RefusedError(
                "EF_CONTRACT_MALFORMED", f"{where}.requires: {text!r} must be a raw_tp, kprobe or kretprobe"
            )
        hooks.append(Hook(*(part for part in found.groups() if part)))
    if not programs or len(hooks) != len(programs):
        raise RefusedError(
            "EF_CONTRACT_MALFORMED", f"{where}.requires: needs one attach: for each program, in the same sequence"
        )
    return dict(zip(programs, hooks))


def read_source(files: Files, name: str) -> Source | None:
    """A feature's source, or None where BCC is not a fallback of it."""
    path = f"features/{name}/contract.json"
    contract = parse_json(files.read(path), path)
    if "bcc" not in contract:
        return None
    return Source(name, contract, read_hooks(name, contract["bcc"]), files.read(f"features/{name}/bcc.c"))


def holds(path: Path, data: bytes) -> bool:
    """Whether a file has exactly these bytes; no where it cannot be read."""
    try:
        return read_regular(path, MAX_JSON_BYTES) == data
    except OSError:
        return False


def check_own(files: Files, entry: Path) -> None:
    """What runs here must be what was signed: each file of the collector, and no module from elsewhere.

    `entry` is the collector's bcc.py; the rest of it lies in lib/ beside it. Raises RefusedError (EF_LOADER_SELF).
    """
    folder = entry.parent
    own = {path: folder / path[len(FOLDER) :] for path in files.manifest["files"] if path.startswith(FOLDER)}
    loaded = [Path(str(module.__file__)) for name, module in sys.modules.items() if name.startswith(OWN_MODULES)]
    strange = [path for path in [entry, *loaded] if path not in own.values()]
    wrong = strange or [path for name, path in own.items() if not holds(path, files.read(name))]
    if wrong:
        raise RefusedError("EF_LOADER_SELF", f"{wrong[0]}: is not the bundle's collector; start the one in the bundle")


def open_bundle(options: argparse.Namespace, entry: Path) -> Bundle:
    """Verify and read; `entry` is the bcc.py that runs. Raises RefusedError; then nothing runs."""
    verdict = ask_loader(options)
    files = Files(Path(options.bundle), verdict["digest"])
    check_own(files, entry)
    names = sorted(files.manifest["features"])
    try:
        sources = [source for source in (read_source(files, name) for name in names) if source]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RefusedError(
            "EF_CONTRACT_MALFORMED", f"a contract cannot be read ({error}); build the release again"
        ) from error
    about = {**files.manifest["bundle"], "digest": verdict["digest"]}
    about = {key: about[key] for key in ("name", "version", "sequence", "digest")}
    return Bundle(about, verdict["digest"], names, sources)
