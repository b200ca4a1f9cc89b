# SPDX-License-Identifier: GPL-3.0-or-later
"""Each link of each page leads somewhere, and each anchor to a heading."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.markdown import anchors, links

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    path
    for path in ROOT.rglob("*.md")
    if not any(part in ("build", "collections") or part[0] == "." for part in path.relative_to(ROOT).parts)
)
LINKS = [(page, link) for page in PAGES for link in links(page)]


@pytest.mark.parametrize(("page", "link"), LINKS, ids=lambda one: str(one).removeprefix(f"{ROOT}/"))
def test_a_link_leads_to_a_file_and_an_anchor_to_a_heading(page: Path, link: str) -> None:
    if link.startswith("https://"):
        return  # others' pages: their end is no fault of ours, and tests ask nobody outside
    file, _, section = link.partition("#")
    target = (page.parent / file).resolve() if file else page
    assert target.exists(), f"{page.relative_to(ROOT)}: {link}"
    assert not section or section in anchors(target), f"{page.relative_to(ROOT)}: {link}: no such heading"


def test_every_page_is_linked_from_another_one() -> None:
    reached = {(page.parent / link.partition("#")[0]).resolve() for page, link in LINKS if not link.startswith("#")}
    reached |= {path for folder in reached if folder.is_dir() for path in folder.glob("*.md")}
    alone = {page for page in PAGES if page not in reached} - {ROOT / "README.md"}
    assert {str(page.relative_to(ROOT)) for page in alone if page.is_relative_to(ROOT / "docs")} == set()
