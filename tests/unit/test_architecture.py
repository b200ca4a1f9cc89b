# SPDX-License-Identifier: GPL-3.0-or-later
"""Each "where is …?" of docs/architecture.md names a file that has the thing, and no other product file has it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
ANSWERS = dict(re.findall(r"^\| ([a-z][^|`]*) \| `([\w/.-]+)` \|$", PAGE, re.M))
PRODUCT = ("plugins", "bpf/loader", "bpf/include", "playbooks", "roles", "docs")
TEXTS = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8")
    for folder in PRODUCT
    for path in (ROOT / folder).rglob("*")
    if path.suffix in (".py", ".c", ".h", ".sh", ".yml", ".md", ".j2")
}
# What stands in the file and nowhere else. When a thing moves, its row here stays and the page's path changes.
# The BCC collector (collectors/) has a copy of some helps, as it runs from a bundle; it is not searched.
THINGS = {
    "an order's file name": 'else f"{self.kind}.{self.name}"',
    "the drop counter": "EF_DROPPED,\n",
    "a limit's default": 'limit="loader_cpu_millicores",\n        default=50',
    "a reason's sentence": "`bpf` is not among the kernel's active security modules",
    "the kill script's wait": "DEFAULT_GRACE_SECONDS = 2",
    "a metric's help": "1 while a kill order of this scope holds.",
    "a helper's name": "probe_read_user probe_read_kernel probe_read_user_str",
    "the lease's arithmetic": "needed + BATCH_SECONDS + HOST_SECONDS * hosts",
    "a contract rule": 'scope = "per_cpu" if kind in PER_CPU_TYPES',
    "the record format": "EF_FIELD_UINT, EF_FIELD_INT, EF_FIELD_CHARS, EF_FIELD_BYTES }",
}
# These show examples of it, as their reader is meant to see it, and the page that is rendered from the list.
SHOWS = re.compile(r"docs/formats/|docs/reason-codes\.md")


def test_the_page_has_the_ten_questions() -> None:
    assert set(ANSWERS) == set(THINGS) and len(THINGS) == 10


@pytest.mark.parametrize("question", THINGS)
def test_the_answer_is_one_file(question: str) -> None:
    having = sorted(path for path, text in TEXTS.items() if THINGS[question] in text and not SHOWS.match(path))
    assert having == [ANSWERS[question]]


def test_every_folder_of_the_table_is_in_the_list_of_folders() -> None:
    listed = yaml.safe_load((ROOT / "docs/folders.yml").read_text(encoding="utf-8"))
    table = PAGE.partition("| step |")[2].partition("\n## ")[0]
    for column, home in ((2, "plugins/module_utils"), (3, "bpf/loader")):
        cells = [row.split("|")[column] for row in table.splitlines() if row.startswith("| ") and row.count("|") >= 4]
        told = {name.removeprefix(home + "/") for cell in cells for name in re.findall(r"`([\w/]+)`", cell)}
        assert told and told <= set(listed[home])
