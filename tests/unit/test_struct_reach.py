# SPDX-License-Identifier: GPL-3.0-or-later
"""Which folders of the loader reach into a struct of another: three at most, seen by clang and not by names.

A struct that many folders read cannot change without all of them. What more of them need is given by
functions of the folder that the struct is of.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from clang import cindex

ROOT = Path(__file__).resolve().parents[2]
LOADER = ROOT / "bpf/loader"
MOST = 3
Reach = dict[str, set[str]]


def flags() -> list[str]:
    """How the loader's Makefile has its sources read; clang's own headers, as the library brings none."""
    own = subprocess.run(["clang-14", "-print-resource-dir"], capture_output=True, text=True, check=True).stdout.strip()
    version = '-DEF_LIBBPF_VERSION=""'
    return ["-iquote", str(LOADER), "-std=gnu11", "-D_GNU_SOURCE", version, "-I", f"{own}/include"]


def members(source: Path, arguments: list[str], text: str | None = None) -> Iterator[tuple[str, str]]:
    """(struct, member) of each access to a member of one of our headers' structs that a source file makes itself."""
    unsaved = [(str(source), text)] if text is not None else None
    unit = cindex.Index.create().parse(str(source), arguments, unsaved)
    errors = [str(one) for one in unit.diagnostics if one.severity >= cindex.Diagnostic.Error]
    assert not errors, f"{source}: clang does not understand it: {errors[:3]}"
    for top in unit.cursor.get_children():
        if top.location.file is None or top.location.file.name != str(source):
            continue
        for one in top.walk_preorder():
            field = one.referenced if one.kind == cindex.CursorKind.MEMBER_REF_EXPR else None
            if field is None or field.kind != cindex.CursorKind.FIELD_DECL:
                continue
            struct = field.semantic_parent
            home = struct.location.file
            if home is not None and home.name.startswith(str(LOADER)) and home.name.endswith(".h"):
                yield struct.spelling, field.spelling


@pytest.fixture(scope="module")
def reach() -> Reach:
    """{struct: folders whose sources name a member of it}."""
    arguments, found = flags(), Reach()
    for source in sorted(LOADER.rglob("*.c")):
        for struct, _member in members(source, arguments):
            found.setdefault(struct, set()).add(source.parent.name)
    return found


def too_many(reach: Mapping[str, set[str]]) -> dict[str, list[str]]:
    """The structs that more folders reach into than may."""
    return {struct: sorted(folders) for struct, folders in reach.items() if len(folders) > MOST}


def test_no_struct_is_reached_into_by_more_than_three_folders(reach: Reach) -> None:
    assert too_many(reach) == {}, "give the other folders functions of the struct's own folder"


def test_what_is_attached_is_reached_by_the_feature_and_who_runs_it(reach: Reach) -> None:
    assert reach["ef_live"] <= {"feature", "run"}


def test_the_test_sees_an_access(reach: Reach) -> None:
    """Else an error in it would look like a clean house; a fourth folder is seen, by pointer and by value."""
    assert len(reach) > 50, sorted(reach)
    text = (
        '#include "bundle/bundle.h"\n#include "base/moment.h"\n'
        "const char *probe(const struct ef_bundle *bundle, struct ef_moment at);\n"
        "const char *probe(const struct ef_bundle *bundle, struct ef_moment at)\n"
        "{ return at.known ? bundle->digest : 0; }\n"
    )
    found = set(members(LOADER / "tell/reach_probe.c", flags(), text))
    assert found == {("ef_bundle", "digest"), ("ef_moment", "known")}
    assert too_many({"ef_bundle": {"bundle", "cmd", "run"}}) == {}
    assert too_many({"ef_bundle": {"bundle", "cmd", "run", "tell"}}) == {"ef_bundle": ["bundle", "cmd", "run", "tell"]}
