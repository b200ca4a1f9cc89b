# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads lab.yml: which hosts there are, with which kernel, userland and place in the fleet."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any, Iterable

import yaml

from .errors import LabError

FLEET, MATRIX = "fleet", "matrix"

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,30}")
_POOL_FILE = re.compile(r"pool/[a-z0-9/-]+/[A-Za-z0-9+~._-]+\.deb")
_ARGUMENTS = re.compile(r"[A-Za-z0-9_.,=-]+( [A-Za-z0-9_.,=-]+)*")


@dataclasses.dataclass(frozen=True)
class Kernel:
    """A kernel to find: the newest package of `suite` whose whole name matches `package`.

    `pool` are packages that the suite's index no longer names: path in the archive and SHA-256.
    """

    name: str
    suite: str
    package: str
    pool: tuple[tuple[str, str], ...] = ()


@dataclasses.dataclass(frozen=True)
class Userland:
    """A Debian suite and what its image holds beside the packages that all images hold.

    `headers` is the kernel whose headers are installed in it, None for an image without any.
    """

    name: str
    suite: str
    packages: tuple[str, ...]
    headers: Kernel | None = None


@dataclasses.dataclass(frozen=True)
class Host:
    """One virtual machine. `port` is preferred for SSH, another is taken where it is in use.

    `groups` say what it is for: the fleet, the kernel matrix, or something of its own. `arguments`
    are further words of its kernel's command line. `hide_btf` takes /sys/kernel/btf from it.
    """

    name: str
    kernel: Kernel
    userland: Userland
    cell: str
    region: str
    port: int
    memory_mib: int
    state_disk_mib: int
    groups: tuple[str, ...] = (FLEET,)
    arguments: str = ""
    hide_btf: bool = False


@dataclasses.dataclass(frozen=True)
class Emulator:
    """The QEMU package and the suites it and its libraries come from; the last one is preferred."""

    package: str
    suites: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Settings:
    """All of lab.yml, checked."""

    emulator: Emulator
    hosts: dict[str, Host]

    def select(self, names: Iterable[str]) -> list[Host]:
        """The hosts named, in the file's order; those of the fleet when none is named."""
        wanted = set(names) or {host.name for host in self.group(FLEET)}
        unknown = sorted(wanted - set(self.hosts))
        if unknown:
            raise LabError(f"no such host: {', '.join(unknown)}; lab.yml has {', '.join(self.hosts)}")
        return [host for name, host in self.hosts.items() if name in wanted]

    def group(self, name: str) -> list[Host]:
        """The hosts of a group, in the file's order."""
        return [host for host in self.hosts.values() if name in host.groups]


def _field(where: str, mapping: Any, key: str, kind: type) -> Any:
    if not isinstance(mapping, dict) or key not in mapping:
        raise LabError(f"lab.yml: {where} has no field '{key}': add it")
    value = mapping[key]
    if not isinstance(value, kind) or isinstance(value, bool):
        raise LabError(f"lab.yml: {where}.{key} is {value!r}: give a {kind.__name__}")
    return value


def _range(where: str, value: int, low: int, high: int) -> int:
    if not low <= value <= high:
        raise LabError(f"lab.yml: {where} is {value}: give a number from {low} to {high}")
    return value


def _reference(where: str, name: str, known: dict[str, Any]) -> Any:
    if name not in known:
        raise LabError(f"lab.yml: {where} is '{name}', which is not defined: use one of {', '.join(known)}")
    return known[name]


def _kernel(name: str, raw: Any) -> Kernel:
    where = f"kernels.{name}"
    package = _field(where, raw, "package", str)
    try:
        re.compile(package)
    except re.error as error:
        raise LabError(f"lab.yml: {where}.package is no regular expression: {error}") from error
    return Kernel(name, _field(where, raw, "suite", str), package, _pool(where, raw))


def _pool(where: str, raw: Any) -> tuple[tuple[str, str], ...]:
    files = _field(where, {"pool": {}, **raw}, "pool", dict)
    for path, digest in files.items():
        if not _POOL_FILE.fullmatch(str(path)) or not re.fullmatch("[0-9a-f]{64}", str(digest)):
            raise LabError(f"lab.yml: {where}.pool: give 'pool/….deb: SHA-256 in hex', not {path!r}: {digest!r}")
    return tuple(files.items())


def _userland(name: str, raw: Any, kernels: dict[str, Kernel]) -> Userland:
    where = f"userlands.{name}"
    packages = tuple(_field(where, raw, "packages", list))
    suite = _field(where, {"suite": name, **raw}, "suite", str)
    if "headers" not in raw:
        return Userland(name, suite, packages)
    headers = _reference(f"{where}.headers", _field(where, raw, "headers", str), kernels)
    if headers.suite != suite:
        raise LabError(f"lab.yml: {where}.headers is of {headers.suite}, the userland of {suite}: use one suite")
    return Userland(name, suite, packages, headers)


def _groups(where: str, merged: Any) -> tuple[str, ...]:
    groups = tuple(_field(where, merged, "groups", list))
    for group in groups:
        if not isinstance(group, str) or not _NAME.fullmatch(group):
            raise LabError(f"lab.yml: {where}.groups holds {group!r}: give names such as {FLEET} or {MATRIX}")
    return groups


def _arguments(where: str, merged: Any) -> str:
    text = str(_field(where, {"arguments": "", **merged}, "arguments", str))
    if text and not _ARGUMENTS.fullmatch(text):
        raise LabError(f"lab.yml: {where}.arguments is {text!r}: give plain words, one space between them")
    return text


def _hide_btf(where: str, merged: Any) -> bool:
    value = merged.get("hide_btf", False)
    if not isinstance(value, bool):
        raise LabError(f"lab.yml: {where}.hide_btf is {value!r}: give true or false")
    return value


def _host(name: str, raw: Any, defaults: Any, kernels: dict[str, Kernel], userlands: dict[str, Userland]) -> Host:
    where = f"hosts.{name}"
    if not _NAME.fullmatch(str(name)):
        raise LabError(f"lab.yml: {where}: a host's name is lower case letters, digits and hyphens")
    merged = {**defaults, **(raw if isinstance(raw, dict) else {})}

    def number(field: str, low: int, high: int) -> int:
        return _range(f"{where}.{field}", _field(where, merged, field, int), low, high)

    return Host(
        name=name,
        kernel=_reference(f"{where}.kernel", _field(where, merged, "kernel", str), kernels),
        userland=_reference(f"{where}.userland", _field(where, merged, "userland", str), userlands),
        cell=_field(where, merged, "cell", str),
        region=_field(where, merged, "region", str),
        port=number("port", 1024, 65535),
        memory_mib=number("memory_mib", 256, 16384),
        state_disk_mib=number("state_disk_mib", 64, 65536),
        groups=_groups(where, merged),
        arguments=_arguments(where, merged),
        hide_btf=_hide_btf(where, merged),
    )


def parse(document: Any) -> Settings:
    """Check a document as read from lab.yml. Raises LabError that names the field."""
    if _field("the file", document, "version", int) != 1:
        raise LabError(f"lab.yml: version is {document['version']}: this lab reads version 1")
    qemu = _field("the file", document, "qemu", dict)
    emulator = Emulator(_field("qemu", qemu, "package", str), tuple(_field("qemu", qemu, "suites", list)))
    kernels = {name: _kernel(name, raw) for name, raw in _field("the file", document, "kernels", dict).items()}
    raw_userlands = _field("the file", document, "userlands", dict)
    userlands = {name: _userland(name, raw, kernels) for name, raw in raw_userlands.items()}
    defaults = _field("the file", document, "defaults", dict)
    raw_hosts = _field("the file", document, "hosts", dict)
    hosts = {name: _host(name, raw, defaults, kernels, userlands) for name, raw in raw_hosts.items()}
    return Settings(emulator, hosts)


def load(path: Path) -> Settings:
    """Read and check lab.yml."""
    try:
        return parse(yaml.safe_load(path.read_text()))
    except yaml.YAMLError as error:
        raise LabError(f"{path.name} is no YAML: {error}") from error
