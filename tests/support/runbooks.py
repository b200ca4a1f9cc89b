# SPDX-License-Identifier: GPL-3.0-or-later
"""What a person may type of a runbook: every command and query of the pages in docs/runbooks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

PAGES = Path(__file__).resolve().parents[2] / "docs" / "runbooks"
FENCED = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.M | re.S)
INLINE = re.compile(r"`([^`]+)`")
QUERY = re.compile(r"\bebpf_fleet_\w+[\[{]")


class Typed(NamedTuple):
    """One thing to type: the page's name, and the text with its placeholders (HOST, PID, UID …)."""

    page: str
    text: str


def _fenced(markdown: str) -> list[tuple[str, str]]:
    """(language, text) of each fenced block, without its indent."""
    blocks = FENCED.findall(markdown)
    return [(language, re.sub(f"^{indent}", "", body, flags=re.M).strip()) for indent, language, body in blocks]


def _inline(markdown: str) -> list[str]:
    """Every code span outside of the blocks, on one line."""
    return [" ".join(span.split()) for span in INLINE.findall(FENCED.sub("", markdown))]


def kind_of(span: str) -> str:
    """What a code span is: shell, play, query or word. What has an argument is a command."""
    if QUERY.search(span) and not span.startswith("grep "):
        return "query"
    if span.startswith("ansible-playbook "):
        return "play"
    if " " in span and not span.startswith("-"):
        return "shell"
    return "word"


# Its commands run one after the other: tests/host/test_incident_runbook.py.
INCIDENT = "incident.md"


def typed(kind: str, pages: str = "*.md") -> list[Typed]:
    """Everything of that kind in all pages but the incident's, each once a page; a fenced block is a shell command."""
    found: dict[Typed, None] = {}
    for path in sorted(PAGES.glob(pages)):
        if path.name == INCIDENT != pages:
            continue
        markdown = path.read_text(encoding="utf-8")
        blocks = _fenced(markdown)
        other = sorted({language for language, _text in blocks} - {"sh"})
        assert not other, f"{path.name}: a block of {other}; only sh is run by the tests"
        spans = [("shell", text) for _language, text in blocks]
        spans += [(kind_of(span), span) for span in _inline(markdown)]
        found.update({Typed(path.name, text): None for of, text in spans if of == kind})
    return list(found)


def asks_systemd(text: str) -> bool:
    """Does a command need a host whose first process is systemd? tests/host runs these, tests/loader the others."""
    return re.search(r"\b(systemctl|journalctl)\b", text) is not None


def typed_elsewhere() -> list[Typed]:
    """Searches of the loader's files that other pages than the runbooks give, one a line."""
    found: dict[Typed, None] = {}
    for path in sorted(PAGES.parent.glob("*.md")):
        markdown = path.read_text(encoding="utf-8")
        lines = [line for _language, text in _fenced(markdown) for line in text.splitlines()]
        searches = [span for span in [*lines, *_inline(markdown)] if re.match(r"(jq|grep|journalctl) ", span)]
        spans = [span for span in searches if re.search(r"/(log|run)/ebpf-fleet|journalctl", span)]
        found.update({Typed(path.name, span): None for span in spans})
    return list(found)
