# SPDX-License-Identifier: GPL-3.0-or-later
"""The one list of reason codes against what gives them: the loader, the collector, plugins, playbooks; and its page."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Iterable

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.base.reasons import reason, table

from tools import reason_codes

ROOT = Path(__file__).resolve().parents[2]
LIST = ROOT / "plugins/module_utils/base/reasons"
CODE = re.compile(r"EF_[A-Z][A-Z_]*[A-Z]")
# Names that are not reason codes: a field of the journal, words of the programs' sources and of their build.
NOT_REASONS = {"EF_FEATURE", "EF_FAIR"}
# A code that is only compared with is not given there.
COMPARED_IN_C = re.compile(r"\b(?:strcmp|begins)\([^()]*\)")


def codes_of_c(text: str) -> set[str]:
    """The codes that a C source gives: its literals, less those that it compares with."""
    return set(re.findall(rf'"({CODE.pattern})"', COMPARED_IN_C.sub("", text)))


def codes_of_python(text: str) -> set[str]:
    """The codes that a Python source gives: its literals, less those that it compares with."""
    tree = ast.parse(text)
    compared = {id(one) for node in ast.walk(tree) if isinstance(node, ast.Compare) for one in ast.walk(node)}
    found = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and id(node) not in compared}
    return {one for one in found if isinstance(one, str) and CODE.fullmatch(one)}


def codes_of_yaml(text: str) -> set[str]:
    """The codes that a playbook, a role or a template gives: all that it holds."""
    return set(re.findall(rf"\b{CODE.pattern}\b", text))


def read(paths: Iterable[Path]) -> Iterable[str]:
    for path in paths:
        if path.is_file() and LIST not in path.parents:
            yield path.read_text(encoding="utf-8")


GIVERS = {
    reason.LOADER: (codes_of_c, ["bpf/loader/**/*.[ch]"]),
    reason.COLLECTOR: (codes_of_python, ["collectors/**/*.py"]),
    reason.MODULES: (codes_of_python, ["plugins/**/*.py"]),
    reason.PLAYBOOKS: (codes_of_yaml, ["playbooks/**/*.yml", "roles/**/*.yml", "roles/**/*.j2"]),
}


def given(giver: str) -> set[str]:
    """The codes that the sources of one giver give."""
    scan, patterns = GIVERS[giver]
    files = [path for pattern in patterns for path in ROOT.glob(pattern)]
    return set().union(*map(scan, read(files))) - NOT_REASONS


@pytest.mark.parametrize("giver", GIVERS)
def test_what_is_given_is_listed_for_its_giver_and_what_is_listed_is_given(giver: str) -> None:
    used, listed = given(giver), table.given_by(giver)
    assert used - listed == set(), f"{giver} gives these, and the list does not say so"
    assert listed - used == set(), f"the list says that {giver} gives these, and nothing does"
    assert len(used) > 3


def test_every_giver_of_the_list_is_known_and_verify_is_a_part_of_the_loader() -> None:
    assert {giver for one in table.REASONS.values() for giver in one.by} == {*GIVERS, reason.VERIFY}
    assert table.given_by(reason.VERIFY) <= table.given_by(reason.LOADER)


def test_a_code_is_listed_once() -> None:
    codes = [code for section in table.SECTIONS for code in section.reasons]
    assert sorted(codes) == sorted(set(codes))
    assert all(CODE.fullmatch(code) for code in codes)


@pytest.mark.parametrize("code", sorted(table.REASONS))
def test_every_code_has_a_sentence_a_remedy_and_a_giver(code: str) -> None:
    one = table.REASONS[code]
    assert len(one.sentence.split()) > 2 and one.remedy.strip() and one.by
    for words in (one.sentence, one.remedy):
        assert words == words.strip().rstrip(".") and "|" not in words and "\n" not in words
        assert not re.search(r"\b(mend|aloud|nobody|anew|look again)\b", words), words


@pytest.mark.parametrize("code", sorted(code for code, one in table.REASONS.items() if one.see))
def test_the_page_that_says_more_is_there(code: str) -> None:
    name, _sign, anchor = table.REASONS[code].see.partition("#")
    text = (ROOT / "docs" / name).read_text(encoding="utf-8")
    titles = {re.sub(r"[^a-z0-9 -]", "", one.lower()).replace(" ", "-") for one in re.findall(r"^#+ (.+)$", text, re.M)}
    assert not anchor or anchor in titles


def test_the_page_is_what_the_tool_makes_of_the_list() -> None:
    page = reason_codes.PAGE.read_text(encoding="utf-8")
    assert page == reason_codes.render(), "run make reason-codes"
    for code, one in table.REASONS.items():
        assert page.count(f"\n| `{code}` | {one.sentence} | {one.remedy}") == 1


def test_no_page_names_a_code_that_is_not_listed() -> None:
    pages = [ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("roles/*/README.md")]
    assert len(pages) > 20
    for path in pages:
        told = set(re.findall(rf"`({CODE.pattern})`", path.read_text(encoding="utf-8")))
        assert told - set(table.REASONS) - NOT_REASONS == set(), path.name


def test_an_error_takes_its_remedy_from_the_list_and_an_unknown_code_has_none() -> None:
    result = FleetError("EF_KEY", "signing_key: k does not sign", "k").as_result()
    assert result == {
        "msg": "EF_KEY: signing_key: k does not sign",
        "reason_code": "EF_KEY",
        "remedy": f"{table.REASONS['EF_KEY'].remedy} (docs/keys.md)",
        "file": "k",
    }
    assert FleetError("EF_LOCKED", "x").remedy == table.REASONS["EF_LOCKED"].remedy
    # A newer loader on a host may refuse with a code that this version does not know.
    assert FleetError("EF_OF_TOMORROW", "x").as_result()["remedy"] is None


def test_what_is_only_compared_with_is_not_given() -> None:
    assert codes_of_c('if (!strcmp(why->code, "EF_OK"))\n\tset(why, "EF_LOCKED", "x");') == {"EF_LOCKED"}
    assert codes_of_c('code(begins(code, "EF_KILLED_GLOBAL"));') == set()
    assert codes_of_python('a = code in ("EF_OK",) or "EF_KEY"\nb = {"EF_BUILD": 1}\n"EF_ no code"') == {
        "EF_KEY",
        "EF_BUILD",
    }
    assert codes_of_yaml("msg: 'EF_HOSTS: {{ x }}'\nother: DEF_HOSTS") == {"EF_HOSTS"}
