# SPDX-License-Identifier: GPL-3.0-or-later
"""Each page of docs/formats has an example, and the project's own reader takes it.

What each page's example is put through stands beside the page's name in `JUDGES`. Where only C reads or writes a
format, the loader's own `inspect` or the source that writes it is the judge.
"""

from __future__ import annotations

import datetime
import json
import re
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.ebpf.fleet.plugins.module_utils.base import strictjson
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle import signature
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle.btf_index import parse_index
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle.loader_verdict import judge_verdict
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle.manifest import (
    canonical_json,
    digest_of,
    load_manifest,
)
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle.matrix import check_matrix
from ansible_collections.ebpf.fleet.plugins.module_utils.contract.document import validate_contract
from ansible_collections.ebpf.fleet.plugins.module_utils.contract.objects import compare_with_objects
from ansible_collections.ebpf.fleet.plugins.module_utils.events import desk
from ansible_collections.ebpf.fleet.plugins.module_utils.events.rates import Limits
from ansible_collections.ebpf.fleet.plugins.module_utils.events.senders import Sender
from ansible_collections.ebpf.fleet.plugins.module_utils.facts import capability_document, census
from ansible_collections.ebpf.fleet.plugins.module_utils.foreign import answer as takeoff_answer
from ansible_collections.ebpf.fleet.plugins.module_utils.foreign import record as takeoff_record
from ansible_collections.ebpf.fleet.plugins.module_utils.foreign import undo
from ansible_collections.ebpf.fleet.plugins.module_utils.gameday import facts as gameday_facts
from ansible_collections.ebpf.fleet.plugins.module_utils.gameday import record as gameday_record
from ansible_collections.ebpf.fleet.plugins.module_utils.gameday import report as gameday_report
from ansible_collections.ebpf.fleet.plugins.module_utils.gameday import score as gameday_score
from ansible_collections.ebpf.fleet.plugins.module_utils.incident import blast, bundles, evidence
from ansible_collections.ebpf.fleet.plugins.module_utils.inventory import document as inventory_document
from ansible_collections.ebpf.fleet.plugins.module_utils.inventory import fleet
from ansible_collections.ebpf.fleet.plugins.module_utils.kill import killlist, standing_order
from ansible_collections.ebpf.fleet.plugins.module_utils.kill.answer import parse_answer
from ansible_collections.ebpf.fleet.plugins.module_utils.kill.orders import parse_scope, scope_of
from ansible_collections.ebpf.fleet.plugins.module_utils.pull import documents, sealed
from ansible_collections.ebpf.fleet.plugins.module_utils.pull import metrics as pull_metrics
from ansible_collections.ebpf.fleet.plugins.module_utils.release import desired, lease, mark, policy
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout import (
    ledger,
    ledger_lock,
    quarantine,
    status_schema,
)
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate import arguments, judge
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.gate.base import Inputs
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.plan import Wishes, plan
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.plan_holdback import Holdback
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout.quarantine import KEYS, quarantined

from tests.load.shipper import Shipper
from tests.loader import exposition
from tests.matrix import document as matrix

ROOT = Path(__file__).resolve().parents[2]
FORMATS = ROOT / "docs/formats"
PAGES = {path.stem: path.read_text(encoding="utf-8") for path in sorted(FORMATS.glob("*.md"))}
VISIT = (ROOT / "plugins/module_utils/pull/visit.py").read_text(encoding="utf-8")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
# A page that has no document: a table of paths.
WITHOUT = {"paths"}
Page = str


# ---- what stands in a page ----


def examples(page: Page, language: str, heading: str = "Example") -> list[str]:
    """The blocks of that language below that heading."""
    (text,) = re.findall(rf"^## {heading}\n(.*?)(?=^## |\Z)", page, re.M | re.S)
    return [body for of, body in FENCE.findall(text) if of == language]


def the_json(page: Page, heading: str = "Example") -> Any:
    """The one JSON example, by the rules of documents that are read: no key twice, whole numbers."""
    (text,) = examples(page, "json", heading)
    return strictjson.parse(text.encode())


def the_lines(page: Page, heading: str = "Example") -> list[str]:
    (text,) = examples(page, "text", heading)
    return text.splitlines()


def keys(value: Any) -> set[str]:
    if isinstance(value, list):
        return set().union(*map(keys, value)) if value else set()
    return set(value).union(*map(keys, value.values())) if isinstance(value, dict) else set()


def contract_of(feature: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / f"bpf/features/{feature}/contract.yml").read_text(encoding="utf-8"))
    return found


def written_by(source: str) -> set[str]:
    """The literals of a C source: among them every key that it writes."""
    return set(re.findall(r'"([a-z_]+)"', (ROOT / "bpf/loader" / source).read_text(encoding="utf-8")))


def only(contract: dict[str, Any], variant: str) -> dict[str, Any]:
    """The contract with one variant."""
    variants = [one for one in contract["variants"] if one["name"] == variant]
    maps = [one for one in contract["maps"] if variant in one.get("variants", [variant])]
    return {**contract, "variants": variants, "maps": maps}


# ---- control files ----


def desired_state(page: Page) -> None:
    data = json.dumps(the_json(page)).encode()
    features = desired.parse_desired(data)
    assert features and all({"enabled", "sample_every"} == set(wish) for wish in features.values())
    assert desired.parse_fallbacks(data) == ("bcc",)
    assert re.fullmatch(r"[0-9a-f]{64}", the_json(page)["bundle_digest"])


def host_limits(page: Page) -> None:
    document = the_json(page)
    assert document.pop("schema") == policy.SCHEMA
    assert policy.check_policy(document) == document
    assert set(document["host"]) == set(policy.LIMITS), "the example shows every limit"
    rows = dict(re.findall(r"^\| `(\w+)` \| [^|]* \| (\d+) \|", page, re.M))
    shown = {**document["host"], **{name: document["sink"][name] for name in policy.SINK_NUMBERS}}
    assert {name: int(value) for name, value in rows.items()} == shown, "its figures are the defaults of the table"


def a_lease(page: Page) -> None:
    document = the_json(page)
    found = lease.parse_lease(json.dumps(document).encode())
    assert found is not None and found.usable
    assert json.loads(lease.render_lease(found)) == document


def a_mark(page: Page) -> None:
    document = the_json(page)
    found = mark.parse_mark(json.dumps(document).encode())
    assert found not in (None, mark.UNREADABLE)
    assert json.loads(mark.render_mark(found)) == document and document["lowered"]


def kill_orders(page: Page) -> None:
    scopes = [parse_scope(scope_of(name)) for name in the_lines(page)]
    assert [scope.order for scope in scopes] == the_lines(page)
    assert {name.partition(".")[0] for name in the_lines(page)} == {"global", "feature", "family"}


def kill_list(page: Page) -> None:
    """The whole file of the example is one that a host follows which trusts the key that stands beside it."""
    (text,) = examples(page, "text")
    (key,) = re.findall(r"^Signed by `(ssh-ed25519 \S+)`:$", page, re.M)
    trust = signature.Trust("signers", f'ops namespaces="ebpf-fleet-kill" {key}\n'.encode(), "revoked", None)
    judged = sealed.judge(text.encode(), trust, 1795716110, None)
    assert judged.found.sequence == 7 and len(judged.found.orders) == 3
    told = set(re.findall(r"^\| `(?:orders\[\]\.)?([a-z]+)` \|", page, re.M))
    assert told == keys(killlist.as_document(judged.found))


def the_pull_files(page: Page) -> None:
    """Status, settings and mark; every field of a status has a row."""
    status, settings, newest = (strictjson.parse(text.encode()) for text in examples(page, "json"))
    documents.parse_settings(json.dumps(settings).encode(), "pull.json")
    found = documents.parse_mark(json.dumps(newest).encode(), "mark.json")
    assert found is not None and json.loads(documents.render_mark(found)) == newest
    fields = {key: value for key, value in status.items() if key != "schema"}
    assert status["schema"] == documents.STATUS and documents.parse_contact(json.dumps(status).encode()) is not None
    assert pull_metrics.render_metrics(fields).count(b"# TYPE") == len(pull_metrics.SERIES)
    table = page.partition("## status.json")[2].partition("\n## ")[0]
    told = {name for row in re.findall(r"^\| (`.*?) \|", table, re.M) for name in re.findall(r"`(\w+)`", row)}
    written = set(
        re.findall(r'^ +"(\w+)":|, "(\w+)":', VISIT.partition("def _fields")[2].partition("def _tell")[0], re.M)
    )
    assert told == set(status) == {"schema"} | {first or second for first, second in written}


def the_cursor(page: Page, tmp_path: Path) -> None:
    """What the reference shipper writes has the same keys; the loader's limits hold."""
    document = the_json(page)
    shipper = Shipper(tmp_path, tmp_path / "cursor", sqlite3.connect(":memory:"))
    shipper.segment, shipper.offset = document["segment"], document["offset"]
    shipper.commit([])
    assert json.loads((tmp_path / "cursor").read_text()) == document
    assert document["segment"] >= 1 and document["offset"] >= 0
    assert set(document) <= written_by("events/cursor.c") and document["schema"] in source_text("events/cursor.c")


def source_text(name: str) -> str:
    return (ROOT / "bpf/loader" / name).read_text(encoding="utf-8")


# ---- a release ----


def the_manifest(page: Page) -> None:
    load_manifest(canonical_json(the_json(page)).encode())


def btf_index(page: Page) -> None:
    document = the_json(page)
    files = {entry["file"] for entry in document["entries"]}
    assert len(parse_index(canonical_json(document).encode(), files)) == len(files) == 2


def the_contract(page: Page) -> None:
    (text,) = examples(page, "yaml")
    assert validate_contract(yaml.safe_load(text), "the example", folder="runqlat") == []


def requirements(page: Page) -> None:
    """Every form of the grammar passes the rules of contracts; the table has the form of each."""
    lists = [yaml.safe_load(text)["requires"] for text in examples(page, "yaml")]
    contract = only(contract_of("exec_policy"), "full")  # the data path that may have every kind of hook
    for one in lists:
        contract["variants"][0]["requires"] = one
        assert validate_contract(contract, "the example") == []
    asked = [one for some in lists for one in some]
    form = re.compile(r"(?:attach|btf):\w+|(?:prog_type|map_type|helper|kernel):")
    table = page.partition("## Grammar")[2].partition("\n\nThe loader asks")[0]
    forms, used = set(form.findall(table)), set(form.findall(" ".join(asked)))
    assert forms == used


def inspected(page: Page, feature: str, heading: str = "Example") -> None:
    contract = only(contract_of(feature), "full")
    document = the_json(page, heading)
    assert compare_with_objects(contract, {"full": document}, "the example") == []
    fields = keys({**document, "structs": list(document["structs"].values())})
    assert fields <= written_by("cmd/inspect.c") | written_by("kernel/format.c")


def records(page: Page) -> None:
    inspected(page, "exec_events")


# ---- what the loader says ----


def the_loader(page: Page) -> None:
    good, refused = (json.loads(one) for one in examples(page, "json", "verify"))
    digest = digest_of(canonical_json(the_json(PAGES["bundle"])).encode())
    assert judge_verdict(json.dumps(good).encode(), b"", "", 0, digest) is None
    answer = judge_verdict(json.dumps(refused).encode(), b"", "", 3, digest)
    assert answer and answer.code == refused["reason_code"] and answer.file == refused["file"]
    inspected(page, "runqlat", "inspect")
    probe = the_json(page, "probe")
    assert probe["schema"] == "ebpf.fleet/probe/v1"
    types = {*probe["program_types"], *probe["map_types"]}
    assert keys(probe) - types <= written_by("cmd/probe.c") | written_by("kernel/kernel.c")
    assert {one["answer"] for one in (*probe["program_types"].values(), *probe["map_types"].values())} == {
        "yes", "no", "unknown"
    }  # fmt: skip
    left = the_json(page, "left")
    assert set(left) == {"programs"} and keys(left) <= written_by("cmd/left.c")
    check = the_json(page, "check")
    names = set(check["features"]) | {"full"}
    assert keys(check) - names <= written_by("cmd/check.c") | written_by("kernel/kernel.c") | written_by(
        "bundle/bundle.c"
    )
    assert matrix.contradictions("h", the_json(PAGES["status"]), check, ids_of(the_json(PAGES["status"]))) == []


def ids_of(status: dict[str, Any]) -> list[int]:
    return [one["id"] for feature in status["features"].values() for one in feature["programs"]]


def the_status(page: Page) -> None:
    status = the_json(page)
    assert status_schema.status_fault(status) is None
    for name, feature in status["features"].items():
        told = feature["counters"]
        assert told["produced"] == sum(told[one] for one in ("delivered", "dropped", "sampled_out", "in_flight")), name
    lines = [
        f"{one['id']} {one['tag']} {name} {one['name']}"
        for name, feature in status["features"].items()
        for one in feature["programs"]
    ]
    assert the_lines(page, "programs") == lines
    assert the_json(page, "The compatibility event") == status["compatibility"]
    for name, feature in status["features"].items():
        event = status["compatibility"]["features"][name]
        assert event == {key: feature[key] for key in event}


def unobserved(page: Page) -> None:
    document = the_json(page)
    assert keys(document) - set(document["features"]) <= written_by("run/seen.c") | set(status_schema.GAPS)
    assert document["schema"] in source_text("run/seen.c")
    for entry in document["features"].values():
        assert set(entry["ns"]) == set(status_schema.GAPS) and all(ns >= 0 for ns in entry["ns"].values())
    table = page.partition("## Reasons")[2].partition("## Example")[0]
    assert tuple(re.findall(r"^\| `(\w+)` \|", table, re.M)) == status_schema.GAPS


def the_collector(page: Page) -> None:
    status = the_json(PAGES["status"])
    assert status_schema.status_fault({**status, "collector": the_json(page)}) is None


def metrics(page: Page) -> None:
    (text,) = examples(page, "text")
    found = exposition.parse(text)
    source = source_text("tell/metrics.c")
    documented = (ROOT / "docs/metrics.md").read_text(encoding="utf-8")
    assert set(found.samples) == set(found.types) == set(found.helps) and found.samples
    for name, kind in found.types.items():
        short = name.removeprefix("ebpf_fleet_")
        (row,) = re.findall(rf'\{{\.name = "{short}",\s*\.type = "(\w+)",\s*\.help = "([^"]*)"', source)
        assert row == (kind, found.helps[name]), name
        assert f"### `{name}`\n\n- Type: {kind}" in documented


def events(page: Page, tmp_path: Path) -> None:
    """The reference shipper takes every line; the fields are those of the struct."""
    (text,) = examples(page, "json")
    (tmp_path / "events.jsonl").write_bytes(text.encode("ascii"))
    store = sqlite3.connect(":memory:")
    while Shipper(tmp_path, tmp_path / "cursor", store).ship():
        pass
    lines = [json.loads(line) for (line,) in store.execute("select line from lines")]
    assert len(lines) == len(text.splitlines())
    signal = contract_of("exec_events")["signals"][0]
    struct = [one["name"] for one in the_json(PAGES["records"])["structs"][signal["event"]]]
    for line in lines:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", line["time"])
        assert (line["feature"], line["event"]) == ("exec_events", signal["name"])
        assert list(line) == ["time", "feature", "event", *struct]


def audit(page: Page) -> None:
    record = the_json(page)
    source = source_text("tell/audit.c")
    packed = source.partition("static void record(")[2].partition("_cleanup_free_")[0]
    assert set(record) == set(re.findall(r'"(\w+)"[,)]', packed)) - {"s"}
    assert record["schema"] in packed and set(record["who"]) == {"source", "path", "uid"} <= written_by("tell/audit.c")
    table = dict(re.findall(r"^\| `(event|who\.source)` \| (.*?) \|", page, re.M))
    assert f"`{record['event']}`" in table["event"] and f"`{record['who']['source']}`" in table["who.source"]
    running = the_json(PAGES["status"])["features"][record["feature"]]
    assert record["programs"] == [{key: one[key] for key in ("name", "id", "tag")} for one in running["programs"]]
    assert (record["links"], record["variant"]) == (running["links"], running["variant"])


# ---- what modules and filters say ----


def answers() -> dict[str, Any]:
    facts = the_json(PAGES["capabilities"])
    silent = {"unreachable": True, "msg": "Failed to connect to the host"}
    return {"h1": {"capabilities": facts, "profiles": facts["profiles"]}, "h2": silent}


def host_inventory(page: Page) -> None:
    answer = inventory_document.read("h1", {"inventory": the_json(page)})
    assert answer.problem is None and answer.inventory == the_json(page)


def fleet_inventory(page: Page) -> None:
    """Of one host that has one program more than the last time, and one that is silent."""
    host, document = the_json(PAGES["bpf-inventory"]), the_json(page)
    before = {"h1": {"inventory": {**host, "programs": host["programs"][1:]}}}
    last = fleet.fleet_inventory(before, None, document["changes"]["since"])
    silent = {"unreachable": True, "msg": "Failed to connect to the host"}
    made = fleet.fleet_inventory({"h1": {"inventory": host}, "h2": silent}, last, document["time"])
    assert {**made, "hosts": {}} == document
    assert inventory_document.fleet_faults(made) is None


def capabilities(page: Page) -> None:
    answer = capability_document.read("h1", answers()["h1"], ["exec_events", "runqlat"])
    assert answer.problem is None and answer.capabilities == the_json(page)
    (fields,) = examples(page, "", "Fields")
    assert set(the_json(page)) == top_keys(fields)


def top_keys(fields: str) -> set[str]:
    """The keys of the outermost object of a sample that is not JSON."""
    found, depth = set(), 0
    for part in re.findall(r'"\w+":|[{}\[\]]', fields):
        depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(part, 0)
        if depth == 1 and part.endswith(":"):
            found.add(part[1:-2])
    return found


def the_census(page: Page) -> None:
    document = the_json(page)
    assert capability_document.census_faults(document) is None
    target = {"bundle": document["bundle"], "digest": document["digest"], "contracts": []}
    assert census.capability_census(answers(), target, None, document["time"]) == document


def the_matrix(page: Page) -> None:
    document = the_json(page)
    files = the_json(PAGES["bundle"])["files"]
    objects = {path: file["sha256"] for path, file in files.items() if path.endswith(".bpf.o")}
    variants = {name: ["full", "reduced"] for name in the_json(PAGES["bundle"])["features"]}
    check_matrix(document, FORMATS / "matrix.md", variants, objects)
    assert capability_document.matrix_faults(document) is None
    check = the_json(PAGES["loader"], "check")
    host = matrix.host_entry(the_json(PAGES["capabilities"]), the_json(PAGES["status"]), check)
    assert matrix.document(document["bundle"], document["digest"], objects, {"k61a": host}) == document


def the_plan(page: Page) -> None:
    hosts, planned = (json.loads(one) for one in examples(page, "json"))
    holdback = Holdback(planned["holdback"]["percent"], planned["holdback"]["until"], "2026-12-01")
    assert plan(hosts, Wishes(holdback=holdback, left_out=planned["left_out"])) == planned


def observation(page: Page) -> None:
    assert status_schema.observation_fault(the_json(page)) is None


def the_gate(page: Page) -> None:
    seen = the_json(PAGES["observation"])
    inputs = Inputs(
        changed={"h1": {"before": None, "after": seen}},
        controls={},
        limits=arguments.check_limits(None),
        contracts=arguments.check_contracts([contract_of("exec_events"), contract_of("runqlat")]),
        expected=arguments.check_expected(None),
        digest=seen["end"]["status"]["bundle"]["digest"],
        on_inconclusive=arguments.check_policies(None),
        expressions=[],
        search=None,
    )
    assert judge.judge(inputs) == the_json(page)


def kill_answers(page: Page) -> None:
    kill, back = examples(page, "text")
    for line in (kill, back):
        answer = parse_answer({"stdout": "of a profile\n" + line, "rc": 0}, host="h1")
        document = json.loads(line.partition(": ")[2])
        assert answer["ok"] is True and {key: answer[key] for key in document} == document
    table = {name for row in re.findall(r"^\| (`.*?) \|", page, re.M) for name in re.findall(r"`(\w+)`", row)}
    assert keys(json.loads(kill.partition(": ")[2])) | {"digest"} == table


def the_ledger(page: Page) -> None:
    """The chain is sound and the head is that of its last line; the tables have every field and kind."""
    (text,) = examples(page, "text")
    (head,) = examples(page, "json", "Head")
    found = ledger.verify(text.encode(), ledger.parse_head(head.encode()))
    assert found.broken_line is None, found.fault
    assert ledger.verify(text.encode()[:-2], None).torn
    fields, kinds = page.partition("| kind | data |")[::2]
    names = {name for row in re.findall(r"^\| (`.*?) \|", fields, re.M) for name in re.findall(r"`(\w+)`", row)}
    assert names == set(json.loads(text.splitlines()[0]))
    rows = kinds.partition("\n\n")[0]
    told = {name for row in re.findall(r"^\| (`.*?) \|", rows, re.M) for name in re.findall(r"`(\w+)`", row)}
    assert told == set(ledger.KINDS) and all(f"`{one}`" in rows for one in ledger.ACTIONS)


def the_lock(page: Page) -> None:
    owner = ledger_lock.parse(json.dumps(the_json(page)).encode())
    assert owner is not None and json.loads(ledger_lock.render(owner)) == the_json(page)
    assert ledger_lock.judge(owner, owner, owner.start_ticks) == "mine"


def the_quarantine(page: Page) -> None:
    found = quarantine.parse(json.dumps(the_json(page)).encode())
    assert len(found) == 1 and json.loads(quarantine.render(found)) == the_json(page)
    assert set(KEYS) < set(the_json(page)["entries"][0])
    assert list(quarantined(the_json(page), found[0].digest)) == [found[0].stratum]
    assert quarantined(the_json(page), "0" * 64) == {}


def the_takeoff(page: Page) -> None:
    judged = takeoff_answer.read("h1", {"takeoff": the_json(page)})
    assert judged.document == the_json(page)
    assert set(re.findall(r"^\| `(\w+)` \|", page, re.M)) == set(the_json(page))


def the_takeoff_record(page: Page) -> None:
    """It is read as it stands, and what it has not done is put back by it."""
    document = the_json(page)
    found = takeoff_record.parse(json.dumps(document).encode(), "the example")
    assert json.loads(takeoff_record.render(found)) == document
    assert [step["do"] for step in undo.undo(found, document["boot_id"]).steps] == ["detach", "mask", "stop", "keep"]
    table = page.partition("## Steps")[2].partition("## Example")[0]
    assert tuple(re.findall(r"^\| `(\w+)` \|", table, re.M)[1:]) == takeoff_record.DOES
    assert all(f"`{one}`" in table for one in takeoff_record.STATUSES)


def the_standing_order(page: Page) -> None:
    order = standing_order.parse(json.dumps(the_json(page)).encode())
    assert json.loads(standing_order.render(order)) == the_json(page)
    assert order.hosts == ("a1", "a2", "a3") and standing_order.line(order).startswith(order.id)


def the_evidence(page: Page) -> None:
    """What a host printed becomes its entry, and the document is made of the entries alone."""
    document = the_json(page)
    (text,) = examples(page, "text")
    seen = evidence.read(text)
    answer = {"failed": False, "seconds": document["hosts"]["web1"]["seconds_ms"] / 1000}
    assert bundles.entry("web1", answer, seen) == document["hosts"]["web1"]
    silent = {"failed": True, "msg": document["hosts"]["web2"]["faults"][0], "seconds": 10}
    hosts = {"web1": document["hosts"]["web1"], "web2": bundles.entry("web2", silent, evidence.read(""))}
    assert bundles.document(hosts, document["time"], document["limits"]) == document


def the_radius(page: Page) -> None:
    """The document is made of findings; those of the example are put together from it."""
    told = the_json(page)
    hosts = {
        name: {
            "state": state, "kernel": None if group["version"] == blast.UNKNOWN else group["kernel"],
            "version": None if group["version"] == blast.UNKNOWN else group["version"],
            "checks": [] if state != "confirmed" else [
                {"check": check, "feature": row["features"][0], "measured": row["worst"], "limit": row["limit"],
                 "unit": row["unit"]} for check, row in group["checks"].items()],
        }
        for group in told["groups"] for state in blast.STATES for name in group[state]
    }  # fmt: skip
    lists = {state: [name for name, one in hosts.items() if one["state"] == state] for state in blast.STATES}
    last = {"confirmed": told["still_over"], "unmeasured": told["unmeasured_after"]}
    first = {"hosts": hosts, "costs": told["costs"], **lists}
    assert blast.radius(first, told["steps"], last, {"web3": "5.10"}, told["time"]) == told
    assert blast.lines(told)


def the_game_day(page: Page) -> None:
    """The document is made of scores, each verdict of its parts, and the facts keep to their rule."""
    told = the_json(page)
    chosen = {name: list(told[name]) for name in ("drills", "hosts", "left_out")}
    assert gameday_report.report(told["scores"], chosen, told["begun"], told["ended"], told["reason"]) == told
    for one in told["scores"]:
        assert gameday_score.verdict(one) == one["verdict"]
        for moment in one["facts"].values():
            assert list(gameday_facts.RULE("", moment)) == []
    assert gameday_report.lines(told)


def the_injection(page: Page) -> None:
    found = gameday_record.parse(examples(page, "json")[0].encode(), "record.json")
    assert gameday_record.parse(gameday_record.render(found), "again") == found


def an_event(page: Page) -> None:
    """The line is what the desk logs of a request; that of the example is put together from it."""
    told = the_json(page)
    (row,) = told["alerts"]
    labels = {"alertname": row["alert"], "ebpf_fleet_action": row["action"], "ebpf_fleet_scope": row["scope"]}
    alert = {"status": "firing", "labels": labels, "fingerprint": row["fingerprint"], "startsAt": row["starts_at"]}
    body = {"version": "4", "status": "firing", "receiver": "r", "groupKey": "k", "alerts": [alert]}
    front = desk.Desk([Sender(told["sender"], "token", b"t" * 32)], Limits(), False)
    wall = datetime.datetime.fromisoformat(told["time"].replace("Z", "+00:00")).timestamp()
    headers = [("Authorization", f"Bearer {'t' * 32}")]
    assert front.decide(desk.Request(told["remote"], headers, json.dumps(body).encode(), wall, 0.0)).line == told


JUDGES: dict[str, Callable[..., None]] = {
    "audit": audit,
    "takeoff": the_takeoff,
    "takeoff-record": the_takeoff_record,
    "blast-radius": the_radius,
    "gameday": the_game_day,
    "gameday-record": the_injection,
    "btf-index": btf_index,
    "bundle": the_manifest,
    "capabilities": capabilities,
    "bpf-inventory": host_inventory,
    "inventory": fleet_inventory,
    "census": the_census,
    "collector": the_collector,
    "contract": the_contract,
    "cursor": the_cursor,
    "desired": desired_state,
    "event-log": an_event,
    "events": events,
    "forensics": the_evidence,
    "gate": the_gate,
    "kill-answer": kill_answers,
    "kill-list": kill_list,
    "kill-orders": kill_orders,
    "lease": a_lease,
    "ledger": the_ledger,
    "loader": the_loader,
    "mark": a_mark,
    "matrix": the_matrix,
    "metrics": metrics,
    "observation": observation,
    "plan": the_plan,
    "policy": host_limits,
    "pull": the_pull_files,
    "quarantine": the_quarantine,
    "records": records,
    "requirements": requirements,
    "rollout-lock": the_lock,
    "standing-order": the_standing_order,
    "status": the_status,
    "unobserved": unobserved,
}
NEEDS_A_FOLDER = {"cursor", "events"}


def apply(name: str, page: Page, tmp_path: Path) -> None:
    JUDGES[name](page, tmp_path) if name in NEEDS_A_FOLDER else JUDGES[name](page)


def test_each_page_has_a_judge_and_a_line_in_the_index() -> None:
    assert set(PAGES) == set(JUDGES) | WITHOUT
    index = (ROOT / "docs/interfaces.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^\| \[formats/([a-z-]+)\.md\]", index, re.M)) == sorted(PAGES)


@pytest.mark.parametrize("name", JUDGES)
def test_the_example_is_taken_by_its_reader(name: str, tmp_path: Path) -> None:
    apply(name, PAGES[name], tmp_path)


def broken(name: str) -> str:
    """The page with one fault in its example: a key, a name or a figure of its own."""
    old, new = FAULTS[name]
    head, mark_, tail = PAGES[name].rpartition("## Example" if "## Example" in PAGES[name] else "## verify")
    assert old in tail, f"{name}: the example has no {old!r} to break"
    return head + mark_ + tail.replace(old, new, 1)


FAULTS = {
    "takeoff": ('"status": "off"', '"status": "gone"'),
    "takeoff-record": ('"do": "stop"', '"do": "halt"'),
    "audit": ('"seq"', '"sequence"'),
    "blast-radius": ('"worst": 90', '"most": 90'),
    "gameday": ('"answer": "yes"', '"answer": "no"'),
    "gameday-record": ('"seconds": 60', '"seconds": 6'),
    "btf-index": ('"machine"', '"arch"'),
    "bundle": ('"mode": "0644"', '"mode": "0777"'),
    "capabilities": ('"family": "6.1"', '"family": "6.x"'),
    "bpf-inventory": ('"privileged"', '"root"'),
    "inventory": ('"programs": 1', '"programs": 2'),
    "census": ('"full": 1', '"full": 2'),
    "collector": ('"pid": 713', '"pid": 0'),
    "contract": ("lifetime: permanent", "lifetime: forever"),
    "cursor": ('"segment": 42', '"segment": 0'),
    "desired": ('"sample_every": 1', '"sample_every": 0'),
    "event-log": ('"duplicate": 0', '"duplicate": 1'),
    "events": ('"pid"', '"process"'),
    "forensics": ('"complete": true', '"complete": false'),
    "gate": ('"inconclusive"', '"pass"'),
    "kill-answer": ('"left": 0', '"left": -1'),
    "kill-list": ('"sequence":7', '"sequence":8'),
    "kill-orders": ("family.6.1", "kernel.6.1"),
    "lease": ('"holder"', '"owner"'),
    "ledger": ('"number":1', '"number":2'),
    "loader": ('"EF_FILE_DIGEST"', '"EF_FILE_HASH"'),
    "mark": ('"sequence": 7', '"sequence": 0'),
    "matrix": ('"equal": true', '"equal": false'),
    "metrics": ("counter", "gauge"),
    "observation": ('"window_ns"', '"window_s"'),
    "plan": ('"number": 1', '"number": 0'),
    "policy": ('"cpu_millicores": 20', '"cpu_millicores": 0'),
    "pull": ('"taken"', '"removed"'),
    "quarantine": ('"digest": "86', '"digest": "xx'),
    "records": ('"ktime_ns"', '"time_ns"'),
    "requirements": ("attach:lsm:bprm", "attach:lsms:bprm"),
    "rollout-lock": ('"pid": 4711', '"pid": "4711"'),
    "standing-order": ('"everywhere": true', '"everywhere": "yes"'),
    "status": ('"state": "running"', '"state": "fine"'),
    "unobserved": ('"down"', '"gone"'),
}


@pytest.mark.parametrize("name", JUDGES)
def test_a_fault_in_the_example_is_seen(name: str, tmp_path: Path) -> None:
    page = broken(name)
    with pytest.raises((AssertionError, ValueError, KeyError, FleetError)):  # each reader has its own way to refuse
        apply(name, page, tmp_path)
