# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a feature's folder holds beside its contract: a source, or objects of others, and a BCC source."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Iterator

from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError, did_you_mean
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle.manifest import MAX_OBJECT
from ansible_collections.ebpf.fleet.plugins.module_utils.contract.rules import CODE, is_third_party

CONTRACT = "contract.yml"
BCC_SOURCE = "bcc.c"
OBJECT = ".bpf.o"
COMMENT = re.compile(r"/\*.*?\*/|//[^\n]*", re.DOTALL)


def objects_of(contract: dict[str, Any]) -> list[str]:
    """The file names of a valid contract's objects, in order of preference."""
    return [variant["name"] + OBJECT for variant in contract["variants"]]


def folder_problems(name: str, folder: Path, contract: Any) -> list[FleetError]:
    """What is missing or too much in the folder of a feature, whatever state its contract is in."""
    if not isinstance(contract, dict):
        return []
    found = _third_party_problems if is_third_party(contract) else _source_problems
    return [*found(name, folder, contract), *_bcc_problems(folder, contract)]


def _problem(path: Path, field: str, problem: str, remedy: str) -> FleetError:
    return FleetError(CODE, f"{path}: {field}: {problem}; {remedy}", str(path))


def _variants(contract: dict[str, Any]) -> list[str]:
    values = contract.get("variants")
    entries = [value for value in values if isinstance(value, dict)] if isinstance(values, list) else []
    return [str(entry.get("name")) for entry in entries]


def _objects_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*" + OBJECT))


def _source_problems(name: str, folder: Path, _contract: dict[str, Any]) -> Iterator[FleetError]:
    source = folder / f"{name}.bpf.c"
    if not source.is_file():
        yield _problem(source, "feature", "does not exist",
                       "write the program, or say 'origin: third_party' and give its objects")  # fmt: skip
    for found in _objects_in(folder):
        yield _problem(folder / found, "origin", "is a compiled object in a feature that is compiled here",
                       "remove it, or say 'origin: third_party'")  # fmt: skip


def _third_party_problems(name: str, folder: Path, contract: dict[str, Any]) -> Iterator[FleetError]:
    wanted = [variant + OBJECT for variant in _variants(contract)]
    source = folder / f"{name}.bpf.c"
    if source.exists():
        yield _problem(source, "origin", "is a source that nothing compiles",
                       "remove 'origin: third_party', or keep the source in another folder")  # fmt: skip
    for index, file in enumerate(wanted):
        path = folder / file
        if not path.is_file():
            yield _problem(path, f"variants[{index}]", "does not exist",
                           "compile it with clang -target bpf -g -O2, see docs/third-party.md")  # fmt: skip
        elif path.stat().st_size > MAX_OBJECT:
            yield _problem(path, f"variants[{index}]", f"has more than {MAX_OBJECT} bytes",
                           "strip its debug information with llvm-strip -g")  # fmt: skip
    for file in _objects_in(folder):
        if file not in wanted:
            yield _problem(folder / file, "variants", f"no variant is named {file[: -len(OBJECT)]!r}",
                           did_you_mean(file[: -len(OBJECT)], _variants(contract)))  # fmt: skip


def _bcc_problems(folder: Path, contract: dict[str, Any]) -> Iterator[FleetError]:
    """A BCC source and the contract's word of it come together, and name the same functions."""
    path = folder / BCC_SOURCE
    if "bcc" not in contract and not path.exists():
        return
    if "bcc" not in contract:
        yield _problem(folder / CONTRACT, "bcc", f"is missing, but there is a {BCC_SOURCE}",
                       "name its programs and what they require, or remove the file")  # fmt: skip
        return
    if not path.is_file():
        yield _problem(path, "bcc", "does not exist, but the contract has 'bcc'", "write it, or remove the key")
        return
    fallback = contract["bcc"]
    programs = fallback.get("programs") if isinstance(fallback, dict) else None
    source = COMMENT.sub(" ", path.read_text(encoding="utf-8", errors="replace"))
    for index, program in enumerate(programs if isinstance(programs, list) else []):
        if not _defines(source, str(program)):
            yield _problem(folder / CONTRACT, f"bcc.programs[{index}]", f"{path} has no function {program!r}",
                           "define it as 'int NAME(…)' that is not static, or remove it")  # fmt: skip


def _defines(source: str, function: str) -> bool:
    """Whether a C source without comments defines a function that is not static."""
    for match in re.finditer(rf"([^;{{}}#]*?)\bint\s+{re.escape(function)}\s*\([^;{{]*\)\s*\{{", source):
        if not re.search(r"\bstatic\b[^\n]*\Z", match.group(1)):
            return True
    return False
