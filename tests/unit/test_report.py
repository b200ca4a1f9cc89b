# SPDX-License-Identifier: GPL-3.0-or-later
"""The pages that an on-call engineer reads, and what a release says of its kernels."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from typing import Any, Callable

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.base.words import version_order
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle.compatibility import compatibility_of
from ansible_collections.ebpf.fleet.plugins.module_utils.facts import census
from ansible_collections.ebpf.fleet.plugins.module_utils.report.census import census_html, census_markdown
from ansible_collections.ebpf.fleet.plugins.module_utils.report.matrix import matrix_html, matrix_markdown

EVIL = "<script>alert(1)</script> | `x` \" ' & *b* [l](javascript:1)"
FULL = {"profile": "full", "variant": "full", "reason_code": "EF_OK", "reason": "fine", "sentence": "s"}
REDUCED = {**FULL, "profile": "reduced", "variant": "perf", "reason_code": "EF_NO_MAP_TYPE", "reason": "no ringbuf"}
DISABLED = {**FULL, "profile": "disabled", "variant": None, "reason_code": "EF_NO_BTF", "reason": EVIL}


def host(family: str, facts: dict[str, Any] | None = None, **profiles: Any) -> dict[str, Any]:
    kernel = {"release": family + ".0-1", "family": family, "machine": "x86_64"}
    base = {"kernel": kernel, "distro": {"id": "debian"}, "btf": {"state": "vmlinux"}, "privileged": True}
    return {"capabilities": {**base, **(facts or {})}, "profiles": profiles}


CHANGE = {
    "feature": "runqlat",
    "from": {"profile": "full", "variant": "full"},
    "to": {"profile": "disabled", "variant": None},
    "reason_code": "EF_NO_BTF",
    "sentence": "runqlat → disabled: " + EVIL,
}
NEXT = {
    "release": "7.3.4",
    "chosen_by": "the link",
    "btf": {"answer": "no", "evidence": "no section"},
    "profiles": {"runqlat": DISABLED},
    "changes": [CHANGE],
}
TARGET = {
    "bundle": {"name": "ebpf-fleet", "version": "2.0.0", "sequence": 9},
    "digest": "ab" * 32,
    "contracts": [
        {"feature": "exec_policy", "data_path": "policy", "budget": {"drop_ratio_ppm": 0}},
        {"feature": "runqlat", "data_path": "metrics"},
        {"feature": "exec_events", "data_path": "events"},
    ],
}


def fleet() -> dict[str, Any]:
    answers: dict[str, Any] = {
        "new1": host("6.12", runqlat=FULL, exec_events=REDUCED),
        "new2": host("6.12", {"next_kernel": NEXT}, runqlat=FULL, exec_events=FULL),
        "old": host("6.1", runqlat=DISABLED),
        "gone<b>": {"unreachable": True, "msg": EVIL},
    }
    named = {name: {"exec_policy": {}} for name in answers}
    return census.capability_census(answers, target=TARGET, features=named, time="2026-11-23T22:00:00Z")


def matrix() -> dict[str, Any]:
    def entry(name: str, family: str, btf: str = "vmlinux", **reached: Any) -> dict[str, Any]:
        programs = [{"name": "ef_x", "insns": 812, "processed_insns": 1400, "stack_bytes": None}]
        variants = {
            "full": {"loads": True, "attaches": None, "reason_code": "EF_OK", "reason": "fine", "programs": programs}
        }
        features = {
            one: {"predicted": said, "reached": said, "equal": True, "variants": variants}
            for one, said in reached.items()
        }
        return {
            "kernel": {"release": family + ".9"}, "family": family, "flavour": "cloud", "distro": "debian 12",
            "btf": btf, "features": features,
        }  # fmt: skip

    hosts = {
        "k61": entry("k61", "6.1", runqlat=FULL, exec_events=FULL),
        "k61nobtf": entry("k61nobtf", "6.1", "missing", runqlat=DISABLED, exec_events=FULL),
        "k510": entry("k510", "5.10", runqlat=FULL, exec_events=DISABLED),
    }
    hosts["k510"]["features"]["runqlat"].update(predicted=REDUCED, equal=False)
    differences = [{"host": "k510", "feature": "runqlat", "predicted": REDUCED, "reached": FULL}]
    return {"bundle": TARGET["bundle"], "digest": "cd" * 32, "hosts": hosts, "differences": differences}


class Page(HTMLParser):
    """Holds a page to being well-formed, and collects its tags, its outside references and its text."""

    VOID = ("meta", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.references: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == [], f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        names = ("href", "src", "action", "onclick", "onload")
        self.references += [f"{name}={value}" for name, value in attrs if name in names]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


PAGES: list[tuple[Callable[[Any], str], Callable[[], Any]]] = [
    (census_html, fleet),
    (matrix_html, matrix),
]


@pytest.mark.parametrize(("render", "document"), PAGES)
def test_a_page_needs_nothing_else_and_runs_nothing_that_a_host_said(render: Any, document: Any) -> None:
    text = render(document())
    page = Page(text)
    assert "script" not in page.tags and page.references == []
    assert not re.search(r"https?://|@import|url\(", text)
    assert "default-src 'none'" in text
    assert EVIL.split(" |")[0] in page.text, "what a host said is shown as text"


@pytest.mark.parametrize(("render", "document"), PAGES)
def test_a_page_is_readable_in_the_dark_on_paper_and_without_colour(render: Any, document: Any) -> None:
    text = render(document())
    assert "prefers-color-scheme: dark" in text and "@media print" in text
    words = Page(text).text
    for sign, profile in (("●", "full"), ("○", "disabled")):
        assert re.search(rf"{sign} (\d+ )?{profile}", words), profile


def test_the_census_begins_with_who_is_silent_and_counts_by_stratum() -> None:
    text = Page(census_html(fleet())).text
    alarm, table = text.index("No answer from gone<b>"), text.index("6.1/x86_64/debian")
    assert alarm < table < text.index("6.12/x86_64/debian")
    for said in ("3 hosts answered, 1 did not.", "● 2 full", "◐ 1 reduced EF_NO_MAP_TYPE", "○ 1 disabled EF_NO_BTF"):
        assert said in text, said
    assert "Bundle ebpf-fleet 2.0.0 (sequence 9, abababababab)" in text


def test_the_census_tells_what_changes_at_next_boot_and_which_policy_is_refused() -> None:
    for text in (Page(census_html(fleet())).text, census_markdown(fleet())):
        assert "What changes at next boot" in text
        assert "● full (full) → ○ disabled (no variant)" in text
        assert "refused: EF_POLICY_NOT_READY" in text
        assert "new1, new2, old" in text


def test_without_a_next_kernel_or_bundle_the_page_says_only_what_was_asked() -> None:
    text = census_markdown(census.capability_census({"a": host("6.1")}))
    assert "next boot" not in text and "No bundle was asked for" in text and "every one that was asked" in text


def cells(line: str) -> int:
    return len(re.findall(r"(?<!\\)\|", line))


@pytest.mark.parametrize("text", [census_markdown(fleet()), matrix_markdown(matrix())])
def test_no_text_of_a_host_breaks_a_markdown_table(text: str) -> None:
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        lines = table.splitlines()
        assert {cells(line) for line in lines} == {cells(lines[0])}, table
    assert "<script>" not in text and "](javascript" not in text.replace("\\]", "")


def test_many_hosts_are_folded_away_and_all_there() -> None:
    answers = {f"h{number:04}": host("6.1", runqlat=DISABLED) for number in range(300)}
    page = Page(census_html(census.capability_census(answers)))
    assert "details" in page.tags and "300 hosts" in page.text and "h0299" in page.text


def test_strata_sort_by_version_and_not_by_letter() -> None:
    assert sorted(["6.12/x", "5.10/x", "6.1/x", "5.4/x"], key=version_order) == [
        "5.4/x", "5.10/x", "6.1/x", "6.12/x",
    ]  # fmt: skip
    assert sorted(["unknown/x", "6.1/x", "6.1-rt/x"], key=version_order)[-1] == "unknown/x"


def test_the_matrix_shows_variant_reason_and_every_difference() -> None:
    page = Page(matrix_html(matrix()))
    assert page.text.index("5.10 cloud · k510") < page.text.index("6.1 cloud · k61")
    assert "Differs: k510, runqlat: predicted reduced (perf, EF_NO_MAP_TYPE), reached full (full, EF_OK)" in page.text
    assert "● full: full" in page.text and "○ disabled EF_NO_BTF: <script>" in page.text
    assert "812 1400 not measured" in page.text
    assert "1 prediction differed" in page.text


def test_a_cell_that_was_not_measured_is_not_shown_as_anything_else() -> None:
    doc = matrix()
    doc["hosts"]["k61"]["features"]["runqlat"].update(reached=None, equal=False)
    assert "? not measured" in Page(matrix_html(doc)).text
    del doc["hosts"]["k61"]["features"]["exec_events"]
    assert "–" in matrix_markdown(doc)


def test_a_long_reason_is_short_in_its_cell_and_whole_below() -> None:
    doc = matrix()
    reason = "the kernel refuses it " * 20
    for name in ("k510", "k61nobtf"):
        doc["hosts"][name]["features"]["runqlat"]["reached"] = {**DISABLED, "reason": reason}
    for text in (Page(matrix_html(doc)).text, matrix_markdown(doc)):
        assert text.count(reason.strip()) == 1 and text.count("…") == 2
        assert "k510, k61nobtf" in text


def test_compatibility_names_what_no_kernel_of_a_family_reached() -> None:
    said = compatibility_of(matrix())
    assert said["known_disabled"] == [{"family": "5.10", "feature": "exec_events", "reason_code": "EF_NO_BTF"}]
    assert said["summary"] == [
        "5.10 (1 kernel): exec_events disabled (EF_NO_BTF), runqlat full",
        "6.1 (2 kernels): exec_events full, runqlat full or disabled (EF_NO_BTF)",
    ]
    json.dumps(said)


def test_compatibility_takes_nothing_that_was_not_measured_for_disabled() -> None:
    doc = matrix()
    doc["hosts"]["k510"]["features"]["exec_events"]["reached"] = None
    said = compatibility_of(doc)
    assert said["known_disabled"] == [] and "exec_events not measured" in said["summary"][0]
    assert compatibility_of({"hosts": {}}) == {"summary": [], "known_disabled": []}
