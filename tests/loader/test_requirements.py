# SPDX-License-Identifier: GPL-3.0-or-later
"""The loader's grammar of requirements and its table of attach kinds are the collection's; no kernel is asked."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.contract.requirements import (
    ATTACH_KINDS,
    HELPERS,
    KINDS,
    MAP_TYPES,
    OF_SECTION,
    PROGRAM_TYPES,
    parse,
    remedy,
    version_of,
)
from ansible_collections.ebpf.fleet.plugins.module_utils.kernel.bpfnames import KERNEL_READERS

from tests.loader.drivers import build
from tests.loader.objects import contract, variant
from tests.support.requirement_cases import ALTERNATIVES, CASES

pytestmark = pytest.mark.apart

ROOT = Path(__file__).resolve().parents[2]
LOADER = ROOT / "bpf/loader"
NEEDED = ("base/*.c", "bundle/contract.c", "bundle/signal.c", "kernel/bpfnames.c", "kernel/requirement.c")
EACH_CASE = pytest.mark.parametrize(("text", "code"), CASES.items(), ids=[ascii(text)[:60] for text in CASES])


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The loader's own sources, with UBSan and ASan."""
    return build(tmp_path_factory.mktemp("requirement"), "requirement", NEEDED)


def told(driver: Path, *arguments: str, given: str = "") -> str:
    """What the driver prints."""
    command = [str(driver), *arguments]
    return subprocess.run(command, input=given, check=True, capture_output=True, text=True).stdout.rstrip("\n")


# Entry by entry.


@pytest.fixture(scope="module")
def tables(driver: Path) -> dict[str, list[list[str]]]:
    """{table: its entries in order, each a list of words}."""
    found: dict[str, list[list[str]]] = {}
    for line in told(driver, "tables").splitlines():
        table, *words = line.split("\t")
        found.setdefault(table, []).append(words)
    return found


def test_there_is_no_other_table(tables: dict[str, list[list[str]]]) -> None:
    assert set(tables) == {"requirement", "attach", "reader", "prog_type", "map_type", "helper"}


def test_the_kinds_of_requirements_are_equal(tables: dict[str, list[list[str]]]) -> None:
    ours = [[kind.name, kind.reason_code, str(int(kind.before_load))] for kind in KINDS]
    assert len(ours) == 6 and tables["requirement"] == ours


def test_the_attach_kinds_are_equal(tables: dict[str, list[list[str]]]) -> None:
    ours = [
        [
            kind.name, kind.target.form, ",".join(kind.sections), kind.program_type, str(kind.attach_type), kind.moment,
            str(kind.btf_kind), kind.prefix, str(int(kind.own_btf)), "1",
        ]
        for kind in ATTACH_KINDS
    ]  # fmt: skip
    assert len(ours) == 8 and tables["attach"] == ours


@pytest.mark.parametrize(
    ("table", "names"), [("prog_type", PROGRAM_TYPES), ("map_type", MAP_TYPES), ("helper", HELPERS)]
)
def test_the_names_of_the_kernel_are_equal(
    tables: dict[str, list[list[str]]], table: str, names: tuple[str, ...]
) -> None:
    assert len(names) > 30
    assert tables[table] == [[str(number), name] for number, name in enumerate(names, 1)]


def test_the_helpers_that_read_the_kernel_are_equal(tables: dict[str, list[list[str]]]) -> None:
    assert len(KERNEL_READERS) == 4
    assert sorted(tables["reader"]) == sorted([name] for name in KERNEL_READERS)


def test_every_attach_kind_is_asked_of_the_kernel() -> None:
    """A kind without a line there would be unknown, and loaded without a question."""
    kinds = re.search(r"enum ef_attach_id \{(.*?)\};", (LOADER / "kernel/requirement.h").read_text(), re.S)
    asked = re.findall(r"\[(EF_ATTACH_\w+)\] = ask_\w+", (LOADER / "kernel/hook.c").read_text())
    assert kinds and sorted(asked) == sorted(re.findall(r"EF_ATTACH_\w+", kinds[1])) and len(asked) == 8


# The same verdict.


@EACH_CASE
def test_a_requirement_is_read_as_the_collection_reads_it(driver: Path, text: str, code: str | None) -> None:
    found = told(driver, "read", text)
    if code:
        assert found.startswith("! write ")
        return
    one = parse(text)
    version = version_of(one.key) if one.kind == "kernel" else None
    major, minor = version or (0, 0)
    names = MAP_TYPES if one.kind == "map_type" else PROGRAM_TYPES
    kind = one.program_type if one.kind in ("prog_type", "helper") else one.key if one.kind == "map_type" else None
    number = names.index(kind) + 1 if kind else 0
    helper = HELPERS.index(one.target) + 1 if one.kind == "helper" else 0
    hook = f"{one.attach.name} {one.target}" if one.attach else "- -"
    assert found == f"{one.kind} {one.key} {major}.{minor} {number} {helper} {hook}"


def read(driver: Path, requires: list[str]) -> str:
    """What the loader says of a contract whose one variant requires this."""
    document: dict[str, Any] = contract("test", [variant("full", ["theirs"], requires)])
    return told(driver, "contract", given=json.dumps(document))


@EACH_CASE
def test_a_contract_with_it(driver: Path, text: str, code: str | None) -> None:
    found = read(driver, ["btf:any", text])
    if code is None:
        assert found == "EF_OK"
        return
    assert found.startswith(f"{code} features/f/contract.json: field 'variants.requires': '")
    assert "' is not a requirement: write " in found and "build the release again" in found
    hook = remedy(text)
    if hook and hook.startswith("write 'attach:"):
        assert f": {hook};".replace("'", "") in found, "how its kind writes a target"


@pytest.mark.parametrize(("hooks", "refused"), ALTERNATIVES)
def test_two_alternatives_for_one_hook(driver: Path, hooks: list[str], refused: bool) -> None:
    found = read(driver, [f"attach:{word}" for word in hooks])
    assert found.startswith("EF_CONTRACT_MALFORMED" if refused else "EF_OK")
    assert ("has two programs for one hook, and both would attach" in found) is refused


def test_one_hook_that_is_named_twice_is_no_alternative_of_itself(driver: Path) -> None:
    assert read(driver, ["attach:raw_tp:sched_switch"] * 2) == "EF_OK"


OTHER_SECTIONS = ("uprobe", "kprobe.multi", "ksyscall", "iter", "fmod_ret", "lsm_cgroup", "raw_tp.w", "xdp", "kprob")


@pytest.mark.parametrize("section", [*OF_SECTION, *OTHER_SECTIONS])
def test_a_section_is_of_the_kind_that_the_collection_sees(driver: Path, section: str) -> None:
    kind = OF_SECTION.get(section)
    assert told(driver, "section", f"{section}/some/target") == (f"{kind.name} some/target" if kind else "- -")
    assert told(driver, "section", section) == "- -", "without a target it is nowhere"
