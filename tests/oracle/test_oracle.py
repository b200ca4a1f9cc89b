# SPDX-License-Identifier: GPL-3.0-or-later
"""Every answer of capability_facts against independent witnesses; a real attempt decides who is right.

Writes build/oracle/HOST.json. Runs on this machine and on each VM of the lab that is up, or on
those that EBPF_FLEET_ORACLE_HOSTS names, separated by commas (`here` is this machine).
"""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any, Iterator

import pytest

from tests.lab.paths import SETTINGS
from tests.lab.settings import load as load_settings
from tests.loader.conftest import loader
from tests.oracle import judge, witnesses

__all__ = ["loader"]

OUT = witnesses.ROOT / "build/oracle"
HERE = "here"

# Questions that are not asked, or that no single question answers; each says so in its evidence.
MAY_BE_UNKNOWN = {
    "map_types": {"struct_ops"},
    "attach_kinds": {"tc"},
    "helpers": {"trace_printk", "trace_vprintk", "probe_write_user", "d_path", "sk_storage_get", "sk_storage_delete"},
}
WITHOUT_HELPERS = {"ext", "struct_ops"}

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the kernel answers the witnesses as root only")


def names() -> list[str]:
    chosen = os.environ.get("EBPF_FLEET_ORACLE_HOSTS")
    if chosen:
        return chosen.split(",")
    return [HERE, *load_settings(SETTINGS).hosts]


@pytest.fixture(scope="session")
def attempt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return witnesses.build_attempt(tmp_path_factory.mktemp("attempt"))


@pytest.fixture(scope="module", params=names())
def host(
    request: pytest.FixtureRequest, attempt: Path, loader: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[witnesses.Host]:
    name = request.param
    if name == HERE:
        one = witnesses.Host(HERE, str(tmp_path_factory.mktemp("oracle")))
    else:
        ports = witnesses.lab_ports()
        if name not in ports:
            pytest.skip(f"lab VM {name} is not up; start it with: python -m tests.lab up {name}")
        one = witnesses.Host(name, "/tmp/ebpf-fleet-oracle", ports[name])
    witnesses.carry(one, attempt, loader)
    yield one
    one.run(f"rm -rf {one.folder}")


@pytest.fixture(scope="module")
def facts(host: witnesses.Host) -> dict[str, Any]:
    return witnesses.our_facts(host)


def settle(host: witnesses.Host, found: list[judge.Dispute]) -> list[dict[str, str]]:
    """Have loads decide the disputes on types and helpers; a map is created by libbpf's probe itself."""
    asked = [judge.load_questions(one) if one.table != "map_types" else [] for one in found]
    outcomes = iter(witnesses.real_loads(host, [line for lines in asked for line in lines]))
    entries = []
    for one, lines in zip(found, asked):
        ruling = judge.rule(one, [next(outcomes) for _line in lines])
        if one.table == "map_types":
            ruling = judge.Ruling(map_truth(host, one.key), "created by libbpf's probe")
        entries.append(judge.record(one, ruling))
    return entries


def map_truth(host: witnesses.Host, name: str) -> str:
    answer = witnesses.libbpf_probes(host)["map_types"].get(name, {}).get("answer")
    return answer if answer in ("yes", "no") else "undecided"


def test_every_answer_stands_before_the_witnesses(host: witnesses.Host, facts: dict[str, Any]) -> None:
    libbpf = judge.libbpf_claims(witnesses.libbpf_probes(host))
    bpftool = witnesses.bpftool_probes(host)
    attached = judge.attach_claims(witnesses.real_attaches(host))
    found = list(judge.disputes(facts, libbpf, "libbpf"))
    if bpftool is not None:
        found += judge.disputes(facts, judge.bpftool_claims(bpftool), "bpftool")
    entries = settle(host, found)
    # A real attach needs no second one to decide.
    for one in judge.disputes(facts, attached, "real attach"):
        entries.append(judge.record(one, judge.Ruling(one.theirs, "attached" if one.theirs == "yes" else "refused")))
    write(host, facts, entries, bpftool is not None, {"libbpf": libbpf, "attached": attached})
    wrong = [one for one in entries if one["right"] != "ours"]
    assert not wrong, f"{host.name}: {len(wrong)} answers of ours are wrong or undecided, such as {wrong[:3]}"
    assert compared(facts, attached) >= 25, "the real attaches covered too little"


def compared(facts: dict[str, Any], claims: dict[str, dict[str, bool]]) -> int:
    """How many of our yes and no stood before these claims."""
    return sum(
        1
        for table, answers in claims.items()
        for key in answers
        if facts[table].get(key, {}).get("answer") in ("yes", "no")
    )


def write(
    host: witnesses.Host, facts: dict[str, Any], entries: list[dict[str, str]], bpftool: bool, claims: dict[str, Any]
) -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    document = {
        "schema": "ebpf.fleet/oracle/v1",
        "host": host.name,
        "kernel": facts["kernel"],
        "witnesses": {"bpftool": bpftool, "libbpf": True, "real attach": True},
        "compared": {name: compared(facts, one) for name, one in claims.items()},
        "by_witness": Counter(f"{one['witness']}, right: {one['right']}" for one in entries),
        "disagreements": entries,
    }
    (OUT / f"{host.name}.json").write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")


def test_what_is_unknown_is_what_cannot_be_asked(facts: dict[str, Any]) -> None:
    """To a privileged asker on a supported kernel, unknown is the exception and named here."""
    for table in ("program_types", "map_types", "attach_kinds", "bpf_links"):
        unknown = {key for key, one in facts[table].items() if one["answer"] == "unknown"}
        assert unknown <= MAY_BE_UNKNOWN.get(table, set()), {key: facts[table][key] for key in unknown}
    for key, one in facts["helpers"].items():
        program_type, _colon, name = key.partition(":")
        if one["answer"] == "unknown" and program_type not in WITHOUT_HELPERS:
            assert name in MAY_BE_UNKNOWN["helpers"], (key, one)
    for name in ("signed_programs", "stats"):
        assert facts[name]["answer"] != "unknown", facts[name]
