# SPDX-License-Identifier: GPL-3.0-or-later
"""A feature's folder: which file is missing or too much, each told with its place and what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle import feature_folder
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle.manifest import MAX_OBJECT

OURS: dict[str, Any] = {"variants": [{"name": "full"}, {"name": "reduced"}]}
THEIRS = {**OURS, "origin": "third_party"}
WITH_BCC = {**OURS, "bcc": {"programs": ["ef_a", "ef_b"]}}
BCC = "int ef_a(struct x *ctx)\n{\n}\nRAW_TRACEPOINT_PROBE(x)\n{\n}\nint\nef_b(void) {\n}\n"


def problems(folder: Path, contract: Any) -> list[str]:
    found = feature_folder.folder_problems("probe", folder, contract)
    assert all(one.code == "EF_CONTRACT_MALFORMED" for one in found)
    return [one.message for one in found]


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    (tmp_path / "probe.bpf.c").touch()
    return tmp_path


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    for name in ("full", "reduced"):
        (tmp_path / f"{name}.bpf.o").touch()
    return tmp_path


def test_what_is_complete_has_no_problem(ours: Path) -> None:
    assert problems(ours, OURS) == problems(ours, []) == problems(ours, None) == []
    assert feature_folder.objects_of(OURS) == ["full.bpf.o", "reduced.bpf.o"]


def test_a_feature_of_ours_has_a_source_and_no_object(tmp_path: Path) -> None:
    (tmp_path / "old.bpf.o").touch()
    missing, extra = problems(tmp_path, OURS)
    assert missing == (f"{tmp_path}/probe.bpf.c: feature: does not exist; write the program, or say "
                       "'origin: third_party' and give its objects")  # fmt: skip
    assert extra == (f"{tmp_path}/old.bpf.o: origin: is a compiled object in a feature that is compiled here; "
                     "remove it, or say 'origin: third_party'")  # fmt: skip


def test_a_feature_of_others_has_an_object_for_each_variant_and_no_source(theirs: Path) -> None:
    assert problems(theirs, THEIRS) == []
    (theirs / "probe.bpf.c").touch()
    (theirs / "ful.bpf.o").touch()
    (theirs / "full.bpf.o").unlink()
    source, missing, extra = problems(theirs, THEIRS)
    assert source.startswith(f"{theirs}/probe.bpf.c: origin: is a source that nothing compiles; remove 'origin")
    assert missing.startswith(f"{theirs}/full.bpf.o: variants[0]: does not exist; compile it with clang")
    assert extra == f"{theirs}/ful.bpf.o: variants: no variant is named 'ful'; did you mean 'full'?"


def test_an_object_of_others_may_be_as_large_as_is_allowed_and_no_larger(theirs: Path) -> None:
    for size, told in ((MAX_OBJECT, []), (MAX_OBJECT + 1, [f"has more than {MAX_OBJECT} bytes"])):
        with (theirs / "reduced.bpf.o").open("wb") as file:
            file.truncate(size)
        found = problems(theirs, THEIRS)
        assert len(found) == len(told) and all(words in one for one, words in zip(found, told)), found


def test_a_source_for_bcc_and_the_contracts_word_come_together(ours: Path) -> None:
    (missing,) = problems(ours, WITH_BCC)
    assert missing.startswith(f"{ours}/bcc.c: bcc: does not exist, but the contract has 'bcc'; write it")
    (ours / "bcc.c").write_text(BCC)
    assert problems(ours, WITH_BCC) == []
    (unsaid,) = problems(ours, OURS)
    assert unsaid.startswith(f"{ours}/contract.yml: bcc: is missing, but there is a bcc.c; name its programs")
    for odd in ({}, [], {"programs": "ef_c"}, None):
        assert problems(ours, {**OURS, "bcc": odd}) == [], "the contract's own rules tell of it"


@pytest.mark.parametrize(
    "source",
    [
        BCC.replace("int ef_a", "static int ef_a"),
        BCC.replace("int ef_a", "static inline int ef_a"),
        BCC.replace("int ef_a(struct x *ctx)\n{", "int ef_a(struct x *ctx);\nint other(void)\n{"),
        BCC.replace("int ef_a", "int ef_aa"),
        "/* int ef_a(void)\n{ */\n// int ef_a(void) {\nint ef_b(void) {\n}\n",
    ],
)
def test_a_program_is_a_function_that_the_source_defines_for_others(ours: Path, source: str) -> None:
    (ours / "bcc.c").write_text(source)
    assert problems(ours, WITH_BCC) == [
        f"{ours}/contract.yml: bcc.programs[0]: {ours}/bcc.c has no function 'ef_a'; "
        "define it as 'int NAME(…)' that is not static, or remove it"
    ]
