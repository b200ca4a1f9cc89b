# SPDX-License-Identifier: GPL-3.0-or-later
"""Plain words in code and documentation: sentences, comments and names. One word for one thing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("plugins", "roles", "playbooks", "bpf", "collectors", "tools", "inventories", "tests/support", "docs")
PAGES = ("README.md", "CONTRIBUTING.md", "Makefile")
TEXTS = {".py", ".c", ".h", ".sh", ".yml", ".yaml", ".j2", ".md", ".toml", ""}

# Each with what to write in its place.
WORDS = {
    r"\banew\b": "again",
    r"\bnobody\b": "no one, no host, or who it is that does not",
    r"\baloud\b": "prints, logs",
    r"\bmend(s|ed|ing)?\b": "fix",
    r"(?<!\bos\.)(?<!\bast\.)(?<![a-z])walk(s|ed|ing)?(?![a-z])(?!_preorder)": "read, list, every part of",
    r"(?<!\bno )\b(a|the|one|each|every|first|last|second|another|two|between) looks?\b": "check",
    r"(?<![a-z])trail(?!ing)": "report, audit",
    r"(?<![a-z])bag(?![a-z])": "dict",
    r"(?<!\bthere )\b(?-i:is|are) (?-i:none)\b": "is not one",  # and Python's None is another
    r"(?<!\bthere )\b(is|are) no (?!longer\b|more\b)": "is not a, does not",
    r"\bhost's polic(y|ies)\b": "the host's limits, policy.json",
    r"\bpolicy path\b": "the policy data path",
    r"\b(by|explicit) order\b": "the option's name; an order is a kill order",
    r"- name: Order\b": "what an operator sees happening",
}
# A name's words are what stands between its underscores.
NAMES = ("said", "left", "rest", "trail", "walk", "look", "bag", "anew", "nobody", "mend", "aloud")
DEFINITION = re.compile(r"^\s*(?:def|class) (\w+)|^(?:\w+[ *]+)+(\w+)\(|^(\w+)\(\) *\{|^struct (\w+) \{", re.M)
ALLOWED = {
    "cmd_left": "the loader's command is called so, and commands stay",
    "left.c": "the file of that command",
    "left_out.py": "a lookup that playbooks of others may use; its name stays",
}
SENTENCES = {
    "(systemd's UIDS-GIDS). Not `nobody`": "the account's name",
}
CENSUS_FREE = ("plugins/module_utils/kill", "playbooks/rollback.yml")


def files() -> list[Path]:
    found = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*")] + [ROOT / page for page in PAGES]
    return sorted(
        path
        for path in found
        if path.is_file() and path.suffix in TEXTS and not {"__pycache__", "build"} & set(path.relative_to(ROOT).parts)
    )


def flat(text: str) -> str:
    """A file's text in one line, so that a sentence is seen that goes over lines of a comment or a literal."""
    return re.sub(r'\s*"?\n\s*(?:[*#]|//)?\s*f?"?', " ", text)


def words_of(name: str) -> list[str]:
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower().split("_")


def bad_names(names: Iterator[str] | list[str]) -> list[str]:
    """The names that a forbidden word begins or ends."""
    ends = [(name, words_of(name.partition(".")[0])) for name in names if name not in ALLOWED]
    return [name for name, words in ends if {words[0], words[-1]} & set(NAMES)]


def defined(text: str) -> list[str]:
    return [name for found in DEFINITION.findall(text) for name in found if name]


@pytest.mark.parametrize("pattern", WORDS)
def test_the_code_does_without_a_word(pattern: str) -> None:
    looked = files()
    assert len(looked) > 500
    found = [
        f"{path.relative_to(ROOT)}: …{text[max(0, hit.start() - 60) : hit.end() + 30]}…"
        for path in looked
        for text in [flat(path.read_text(encoding="utf-8"))]
        for hit in re.finditer(pattern, text, re.I if pattern.islower() else 0)
        if not any(one in text[max(0, hit.start() - 60) : hit.end() + 30] for one in SENTENCES)
    ]
    assert found == [], f"write instead: {WORDS[pattern]}"


def test_no_file_and_no_function_has_such_a_name() -> None:
    looked = files()
    names = {path.name for path in looked}
    code = [path for path in looked if path.suffix in {".py", ".c", ".h", ".sh"}]
    names |= {name for path in code for name in defined(path.read_text(encoding="utf-8"))}
    assert len(names) > 2000
    assert bad_names(sorted(names)) == []


def test_a_census_is_the_fleets_report_and_nothing_else() -> None:
    paths = [path for path in files() if str(path.relative_to(ROOT)).startswith(CENSUS_FREE)]
    assert len(paths) > 5
    for path in paths:
        text = path.read_text(encoding="utf-8").replace("ebpf.fleet.kill_census", "")  # a filter; its name stays
        assert "census" not in text, path


def test_every_exception_is_needed() -> None:
    texts = {path: path.read_text(encoding="utf-8") for path in files()}
    names = {path.name for path in texts} | {name for text in texts.values() for name in defined(text)}
    assert set(ALLOWED) <= names, "remove what is no longer there"
    assert all(any(one in flat(text) for text in texts.values()) for one in SENTENCES)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("static int walk_folder(struct tree *tree) {", ["walk_folder"]),
        ("struct walk {\n", ["walk"]),
        ("enum ef_change ef_live_look(struct ef_live *live);", ["ef_live_look"]),
        ("    def left(self):", ["left"]),
        ("class Walk(NamedTuple):", ["Walk"]),
        ("look_at_users() {", ["look_at_users"]),
        ("static void restart(struct a *b) {\ndef restore_all():\nclass TrailingComma:", []),
    ],
)
def test_a_name_is_judged_by_its_first_and_last_word(text: str, names: list[str]) -> None:
    assert bad_names(defined(text)) == names


@pytest.mark.parametrize(
    ("text", "bad"),
    [
        ("it is attached anew", True),
        ("a file that is\n * no folder", True),
        ('"which is "\n    "none of ours"', True),
        ("there is none, and there is no other; it is no longer there", False),
        ("for x in os.walk(top): ast.walk(tree)", False),
        ("ef_walk(map)", True),
        ("it looks at the trailing comma, and looks for a file", False),
        ("since the last look", True),
        ("no one looks for those", False),
    ],
)
def test_a_sentence_is_judged_as_it_reads(text: str, bad: bool) -> None:
    assert any(re.search(pattern, flat(text), re.I) for pattern in WORDS) is bad
