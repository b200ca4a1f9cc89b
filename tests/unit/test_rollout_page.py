# SPDX-License-Identifier: GPL-3.0-or-later
"""The report of rollouts that passed, failed, are held, or are of hostile hosts: what it says, and that it is whole."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.report.rollout import Family, report
from ansible_collections.ebpf.fleet.plugins.module_utils.report.rollout_page import rollout_html
from ansible_collections.ebpf.fleet.plugins.module_utils.report.rollout_plots import KINDS, comparison
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout import ledger
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.ledger import Entry

ID, DIGEST, OLD = "20261128-001733-3f1c2a", "ab" * 32, "0" * 64
EVIL = "<img src=x onerror=alert(1)>\x1b[2J\"'&"
VOID = {"meta", "br", "circle", "line", "rect"}
PLAN = {
    "hosts": ["a", "b", "c"],
    "batches": [{"number": 1, "stage": "canary", "hosts": ["a"]}, {"number": 2, "stage": "cell", "hosts": ["b", "c"]}],
    "left_out": [{"host": "m", "reason": "maintenance", "why": EVIL}],
    "holdback": {"percent": 10, "until": "2027-01-31", "hosts": ["h"]},
}
STRATA = {"6.1/x86_64/debian": ["a", "b", "h"], "5.10/x86_64/debian": ["c"]}
BAD = {"host": "b", "feature": None, "check": "loader_cpu", "verdict": "fail", "measured": 394, "limit": 50,
       "unit": "millicores", "sentence": f"b: loader CPU 394 millicores, over the limit of 50 {EVIL}"}  # fmt: skip
GOOD = {**BAD, "host": "a", "verdict": "pass", "measured": 2, "sentence": "a: fine"}
CPU = {"host": "a", "feature": None, "check": "host_cpu_delta", "verdict": "pass", "measured": 1, "limit": 50_000,
       "unit": "ppm", "sentence": "a: fine"}  # fmt: skip


class Story:
    """Entries of one rollout, one second after the other."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.records: list[dict[str, Any]] = []
        self.add(ledger.STARTED, who="jane", bundle={"version": "1.2.0"}, bundle_digest=DIGEST, plan=PLAN,
                 plan_digest="x", controller="ctl1", strata=STRATA)  # fmt: skip

    def add(self, kind: str, **data: Any) -> None:
        number = len(self.entries)
        self.entries.append(Entry(number + 1, OLD, f"2026-11-28T00:17:{number:02d}.000000Z", ID, kind, data))

    def batch(self, number: int, verdict: str, checks: list[Any], **sizes: Any) -> None:
        hosts = PLAN["batches"][number - 1]["hosts"]  # type: ignore[index]
        stage = PLAN["batches"][number - 1]["stage"]  # type: ignore[index]
        self.add(ledger.BATCH_BEGUN, number=number, stage=stage, hosts=hosts)
        for when, digest in (("before", OLD), ("after", DIGEST)):
            running = {host: {"digest": digest, "lease": when == "after"} for host in hosts}
            self.add(ledger.OBSERVED, number=number, when=when, digests={}, running=running)
        reasons = [one["sentence"] for one in checks if one["verdict"] != "pass"]
        self.add(ledger.VERDICT, number=number, verdict=verdict, sentence=f"so it is {verdict}", reasons=reasons,
                 checks_digest=ledger.digest_of_document(checks))  # fmt: skip
        self.records.append({"rollout": ID, "number": number, "checks": checks, "next": ["sample less"], **sizes,
                             "reasons": [one for one in checks if one["verdict"] != "pass"]})  # fmt: skip

    def act(self, action: str, **data: Any) -> None:
        self.add(ledger.ACTION, action=action, **data)

    def promoted(self, number: int, checks: list[Any], **sizes: Any) -> None:
        self.batch(number, "pass", checks, **sizes)
        self.act("promoted", number=number, hosts=PLAN["batches"][number - 1]["hosts"], digest=DIGEST)  # type: ignore[index]

    def page(self, alive: bool = False) -> str:
        return rollout_html(report(ID, self.entries, self.records, alive), "now")


class Whole(HTMLParser):
    """Refuses what is not closed, and collects what would be fetched or run."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.outside: list[str] = []
        self.tags: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == [], self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        bad = {"src", "href", "xlink:href", "srcset", "action", "data", "poster", "style"}
        self.outside += [f"{tag} {name}" for name, _value in attrs if name in bad or name.startswith("on")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, tag


def whole(page: str) -> Whole:
    found = Whole(page)
    assert found.outside == [] and not {"script", "img", "link", "iframe", "object"} & set(found.tags)
    assert "@import" not in page and "url(" not in page and "\x1b" not in page and "<img" not in page
    assert page.startswith('<!doctype html>\n<html lang="en">') and found.tags.count("h1") == 1
    return found


def passed() -> Story:
    story = Story()
    story.promoted(1, [GOOD, CPU], before_after={"changed": {"a": {"host_cpu_ppm": [10_000, 70_000]}}, "controls": {}})
    story.promoted(2, [GOOD])
    story.add(ledger.ENDED, outcome="complete", sentence="every batch was promoted")
    return story


def failed(returned_ok: bool = True) -> Story:
    story = Story()
    story.promoted(1, [GOOD])
    story.batch(2, "fail", [GOOD, BAD])
    story.act("rolled_back", number=2, why="so it is fail",
              returned={"b": {"ok": True, "detail": ""}, "c": {"ok": returned_ok, "detail": "gone"}})  # fmt: skip
    story.add(ledger.ENDED, outcome="stopped", sentence="in stage cell: so it is fail")
    return story


def held() -> Story:
    story = Story()
    story.batch(
        1, "inconclusive", [{**CPU, "verdict": "inconclusive", "measured": None, "sentence": "a: not measured"}]
    )
    story.act("held", number=1, seconds=60)
    return story


def test_a_rollout_that_passed() -> None:
    page = passed().page()
    whole(page)
    assert "Complete: every one of 3 hosts of the plan runs 1.2.0 and passed." in page
    assert "What stood in the way" not in page and page.count("✓ promoted") == 2
    assert "changed, over the limit" in page and "1 %" in page and "7 %" in page and "+6 %" in page
    assert "2027-01-31" in page and "maintenance" in page and "Content-Security-Policy" in page


def test_a_rollout_that_failed_says_why_and_who_went_back() -> None:
    page = failed().page()
    whole(page)
    assert "Stopped in stage cell: so it is fail; 2 hosts went back; 1 of 3 hosts run 1.2.0 and passed." in page
    assert "What stood in the way, batch 2 (cell)" in page and "sample less" in page
    assert "394 millicores" in page and "50 millicores" in page and "✗ went back" in page
    assert "&lt;img src=x onerror=alert(1)&gt;\\x1b[2J&quot;&#x27;&amp;" in page


def test_a_host_that_did_not_confirm_is_named_and_open() -> None:
    story = failed(returned_ok=False)
    assert "c did not confirm that they went back" in story.page() and "✗ not all went back" in story.page()
    found = report(ID, story.entries, [], False).families
    assert found == [Family("5.10", 1, 1, 0, 0, 1), Family("6.1", 3, 2, 1, 1, 0), Family("unknown", 1, 0, 0, 0, 0)]


def test_how_far_a_failed_rollout_reached() -> None:
    found = report(ID, failed().entries, [], False).families
    assert found == [Family("5.10", 1, 1, 0, 1, 0), Family("6.1", 3, 2, 1, 1, 0), Family("unknown", 1, 0, 0, 0, 0)]


def test_what_was_seen_on_hosts_before_a_verdict_counts_as_reached() -> None:
    """A controller that died between measuring and judging: b ran the release by then, c still the one before."""
    story = Story()
    hosts = ["b", "c"]
    story.add(ledger.BATCH_BEGUN, number=2, stage="cell", hosts=hosts)
    running = {"b": {"digest": DIGEST, "lease": True}, "c": {"digest": OLD, "lease": False}}
    story.add(ledger.OBSERVED, number=2, when="after", digests={}, running=running)
    found = report(ID, story.entries, [], False).families
    assert found == [Family("5.10", 1, 0, 0, 0, 0), Family("6.1", 3, 1, 0, 0, 1), Family("unknown", 1, 0, 0, 0, 0)]


def test_a_rollout_that_is_held() -> None:
    page = held().page(alive=True)
    whole(page)
    assert "Held for a person: batch 1 (canary) could not be judged: so it is inconclusive; 0 of 3 hosts" in page
    assert "? held for a person" in page and "ebpf.fleet.promote" in page and "not measured" in page
    assert "Interrupted" in held().page(alive=False)


def test_paused_and_aborted() -> None:
    story = Story()
    story.add(ledger.PAUSED, who="jo", before_batch=1)
    assert "Paused before batch 1, as jo asked; 0 of 3 hosts run 1.2.0 and passed." in story.page()
    story = Story()
    story.add(ledger.ENDED, outcome="aborted", sentence="before batch 1; what was promoted stays")
    assert "Aborted before batch 1; what was promoted stays; 0 of 3" in story.page()


def test_a_record_that_is_missing_or_another_is_said_and_not_shown() -> None:
    story = failed()
    story.records[1]["checks"][0] = {**GOOD, "measured": 1}
    page = story.page()
    assert (
        "its record is not what was judged, by the digest in the ledger" in page and "394 millicores</td>" not in page
    )
    # What the ledger itself has is still there.
    assert "b: loader CPU 394 millicores" in page
    story.records = [{**one, "rollout": "another"} for one in story.records]
    assert "its record was not found" in story.page() and "batch 1, 2" in story.page()


def test_unknown_is_never_a_number() -> None:
    ends = {"changed": {"a": {"host_cpu_ppm": [None, 5]}, "b": {"host_cpu_ppm": [None, None]}, "c": {}}, "controls": {}}
    text = comparison(KINDS[0], {"before_after": ends, "checks": []})
    assert text.count("unknown") >= 5 and "no limit is set" in text and "no controls" in text
    assert text.count("<tr") == 3 and "<circle" in text and 'class="way"' not in text and ">0<" not in text
    assert comparison(KINDS[5], {"before_after": ends, "checks": []}) == ""
    assert comparison(KINDS[0], {}) == ""


@pytest.mark.parametrize(("after", "over"), [(60_000, False), (60_001, True)])
def test_a_host_is_over_its_limit_beyond_it_and_not_at_it(after: int, over: bool) -> None:
    record = {"before_after": {"changed": {"a": {"host_cpu_ppm": [10_000, after]}}, "controls": {}}, "checks": [CPU]}
    assert ("over the limit" in comparison(KINDS[0], record)) == over


def test_of_many_hosts_those_that_grew_most_are_shown_and_the_others_counted() -> None:
    hosts = {f"h{number:03}": {"host_cpu_ppm": [0, number]} for number in range(500)}
    text = comparison(KINDS[0], {"before_after": {"changed": hosts, "controls": hosts}, "checks": []})
    assert text.count("<tr ") == 12 + 8 and "h499" in text and "h487" not in text.split("control", 1)[0]
    assert "500 changed hosts" in text and "(the 12 that grew most are shown)" in text


def test_hostile_names_and_documents_stay_text() -> None:
    story = Story()
    sizes = {EVIL: {"host_cpu_ppm": [1, 2]}, "b": {"host_cpu_ppm": ["x", True]}, "c": {"host_cpu_ppm": [1]}}
    hostile = {**BAD, "host": EVIL, "check": EVIL, "measured": EVIL, "limit": EVIL, "unit": EVIL, "feature": EVIL}
    story.batch(1, "fail", [hostile], before_after={"changed": sizes, "controls": sizes})
    story.act("rolled_back", number=1, why=EVIL, returned={EVIL: {"ok": False, "detail": EVIL}})
    story.add(ledger.ENDED, outcome="stopped", sentence=EVIL)
    whole(story.page())


def test_a_plot_has_a_mark_for_each_end_that_was_measured_and_none_for_another() -> None:
    def marks(before: int | None, after: int | None) -> list[str]:
        record = {"before_after": {"changed": {"a": {KINDS[0].name: [before, after]}}, "controls": {}}, "checks": []}
        return re.findall(r'<(?:circle|line) class="(\w+)"', comparison(KINDS[0], record))

    assert marks(1, 2) == ["way", "before", "after"]
    assert marks(1, None) == ["before"] and marks(None, 2) == ["after"] and marks(None, None) == []


def test_the_legend_shows_each_mark() -> None:
    page = passed().page()
    legend = page[page.index('<p class="legend">') :].partition("</p>")[0]
    assert legend.count("<svg") == legend.count("</svg>") == 3 and "None" not in legend
    assert re.findall(r'<(?:circle|line) class="(\w+)"', legend) == ["before", "after", "limit"]
