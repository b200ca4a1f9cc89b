# SPDX-License-Identifier: GPL-3.0-or-later
"""Both pages word for word, and what stands where something is not known; a person read tests/fixtures/pages."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.report import page
from ansible_collections.ebpf.fleet.plugins.module_utils.report.census import census_html, census_markdown
from ansible_collections.ebpf.fleet.plugins.module_utils.report.matrix import matrix_html, matrix_markdown

PAGES = Path(__file__).resolve().parents[1] / "fixtures/pages"
NEW, OLD = "6.12/x86_64/debian", "6.1/x86_64/debian"


def host(stratum: str, release: str | None, **more: Any) -> dict[str, Any]:
    kernel = None if release is None else {"release": release}
    return {"stratum": stratum, "kernel": kernel, "btf": "vmlinux", "privileged": True, **more}


def reason(profile: str, code: str, variant: str | None, hosts: list[str]) -> dict[str, Any]:
    return {"profile": profile, "reason_code": code, "reason": f"why {code}", "variant": variant, "hosts": hosts}


def policy(code: str, why: str) -> list[dict[str, Any]]:
    return [{"feature": "p", "ready": code == "EF_OK", "reason": why, "reason_code": code}]


CHANGE = {
    "feature": "runqlat",
    "from": {"profile": "full", "variant": "ring"},
    "to": {"profile": "disabled", "variant": None},
    "reason_code": "EF_NO_BTF",
    "sentence": "it goes",
}
NEXT = {
    "release": "6.9",
    "chosen_by": "grub",
    "btf": {"evidence": "a section"},
    "changes": [],
    "profiles": {"runqlat": {}},
}
CENSUS: dict[str, Any] = {
    "time": "2026-11-23T22:00:00Z",
    "bundle": {"name": "fleet", "version": "2.0", "sequence": 9},
    "digest": "abcdef0123456789",
    "strata": {NEW: ["a", "b"], OLD: ["c"]},
    "silent": ["gone", "lost"],
    "silent_reasons": {"gone": "no route"},
    "features": {
        "runqlat": {
            "strata": {NEW: {"full": 2, "disabled": 0}, OLD: {"disabled": 1}},
            "reasons": {
                NEW: [reason("full", "EF_OK", "ring", ["a", "b"])],
                OLD: [reason("disabled", "EF_NO_BTF", None, ["c"]), reason("disabled", "EF_X", "v", ["c"])],
            },
        },
        "events": {
            "strata": {NEW: {"full": 1, "reduced": 1}},
            "reasons": {NEW: [reason("reduced", "EF_NO_MAP_TYPE", "perf", ["b"])]},
        },
    },
    "hosts": {
        "b": host(NEW, "6.12.1", policy=policy("EF_POLICY_NOT_READY", "idle"), next_kernel=NEXT),
        "a": host(NEW, "6.12.1", policy=policy("EF_OK", "healthy"), next_kernel={**NEXT, "changes": [CHANGE]}),
        "c": host(OLD, "6.1.8", btf=None, privileged=False, next_kernel={**NEXT, "profiles": {}}),
        "d": host(OLD, "6.1.9", privileged=None, next_kernel={**NEXT, "release": None}),
        "e": host(OLD, None),
    },
}
REACHED = {"profile": "full", "variant": "ring", "reason_code": "EF_OK", "reason": "fine"}
GONE = {"profile": "disabled", "variant": None, "reason_code": "EF_NO_BTF", "reason": "no types"}
PROGRAM = {"name": "p", "insns": 1, "processed_insns": 2, "stack_bytes": None}
VARIANTS = {
    "ring": {"loads": True, "attaches": False, "reason_code": "EF_OK", "reason": "fine", "programs": [PROGRAM]},
    "perf": {"loads": None, "attaches": None, "reason_code": "EF_X", "reason": "why"},
}
MATRIX: dict[str, Any] = {
    "bundle": {"name": "fleet", "version": "2.0", "sequence": 9},
    "hosts": {
        "k612": {
            "family": "6.12",
            "kernel": {"release": "6.12.1"},
            "flavour": "cloud",
            "distro": "debian 13",
            "btf": "vmlinux",
            "features": {
                "runqlat": {"reached": REACHED, "equal": True, "variants": VARIANTS},
                "events": {"reached": None},
            },
        },
        "k61": {"family": "6.1", "features": {"runqlat": {"reached": GONE, "predicted": REACHED, "equal": False}}},
    },
    "differences": [{"host": "k61", "feature": "runqlat", "predicted": REACHED, "reached": None}],
}


@pytest.mark.parametrize(
    ("render", "document", "name"),
    [(census_markdown, CENSUS, "census.md"), (census_html, CENSUS, "census.html"),
     (matrix_markdown, MATRIX, "matrix.md"), (matrix_html, MATRIX, "matrix.html")],
)  # fmt: skip
def test_a_page_is_this_word_for_word(render: Callable[[Any], str], document: dict[str, Any], name: str) -> None:
    """The style sheet apart. A wanted change: write the page to that file again, and read what differs."""
    head, style, rest = render(document).partition("<style>")
    body = rest.partition("</style>")[2]
    assert (head + style + body) == (PAGES / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("render", [census_markdown, census_html])
def test_a_census_in_which_all_answered_and_nothing_was_asked_has_no_table_of_what_is_not_there(render: Any) -> None:
    bare = {"bundle": None, "strata": {}, "silent": [], "features": {}, "hosts": {"a": host(NEW, "6.12.1")}}
    text = render(bare)
    assert "1 host answered, every one that was asked." in text
    assert "No bundle was asked for: facts only, no profiles." in text
    for title in ("No answer from", "Asked at", "Features by", "next boot", "Policy features", "Why not in full"):
        assert title not in text
    assert "Hosts" in text


@pytest.mark.parametrize("render", [matrix_markdown, matrix_html])
def test_a_matrix_without_a_difference_says_that_every_prediction_was_reached(render: Any) -> None:
    good = {**MATRIX, "hosts": {"k612": MATRIX["hosts"]["k612"]}, "differences": []}
    text = render(good)
    assert "1 kernel of families 6.12; every prediction was reached." in text
    assert "Differs" not in text and "Why not in full" not in text


def cell_reason(reason_text: str) -> str:
    reached = {**GONE, "reason": reason_text}
    doc = {"hosts": {"k": {"features": {"f": {"reached": reached, "equal": True}}}}}
    line = next(one for one in matrix_markdown({**MATRIX, **doc}).splitlines() if one.startswith("| **"))
    return line.split("EF_NO_BTF: ")[1].removesuffix(" |")


def test_a_reason_is_cut_where_a_cell_ends_and_not_before() -> None:
    assert cell_reason("x" * 90) == "x" * 90
    assert cell_reason("x" * 91) == "x" * 89 + "…"
    assert cell_reason("a  b\n c") == "a b c"
    assert cell_reason("x" * 88 + " yyyy") == "x" * 88 + "…"


def test_names_are_folded_away_above_eight() -> None:
    assert page.html_names(list("abcdefgh")) == '<span class="names">a, b, c, d, e, f, g, h</span>'
    assert page.html_names(list("abcdefghi")) == (
        '<details><summary>9 hosts</summary><span class="names">a, b, c, d, e, f, g, h, i</span></details>'
    )


def test_a_text_of_a_host_is_only_text() -> None:
    assert page.html_text("<a href=\"x\" id='y'>&") == "&lt;a href=&quot;x&quot; id=&#x27;y&#x27;&gt;&amp;"
    assert page.markdown_text("a|b*c`d[e]~f\\g") == r"a\|b\*c\`d\[e\]\~f\\g"
    assert page.markdown_text(" <b>&  x\ny") == "&lt;b&gt;&amp; x y"
    assert page.markdown_text("http://x www.y _a_ b_c") == r"http&#58;//x www&#46;y \_a\_ b_c"


def test_an_unknown_profile_has_no_sign_and_no_colour() -> None:
    assert [page.sign(name) for name in ("full", "reduced", "disabled", "new")] == ["●", "◐", "○", "?"]
    table = page.html_table("c", ["f"], [page.Row("t", "", [[page.Chip("new", "x")]])])
    assert '<span class="chip none">? x</span>' in table
    assert page.markdown_table("c", [], [page.Row("t", "", [])]).splitlines()[-1] == "| **t** |"
