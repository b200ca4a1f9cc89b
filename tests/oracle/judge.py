# SPDX-License-Identifier: GPL-3.0-or-later
"""Compare our answers with each witness's, and have a real attempt decide where they differ. Pure."""

from __future__ import annotations

import re
from typing import Any, Iterator, Mapping, NamedTuple, Sequence

from ansible_collections.ebpf.fleet.plugins.module_utils.kernel.bpfnames import HELPERS, PROGRAM_TYPES

Json = Mapping[str, Any]

EPERM, EINVAL = 1, 22

# Attach type, flags and target under which a type can be loaded at all; written down anew here.
PLACES: Mapping[str, Sequence[str]] = {
    "cgroup_sock": ("2 0 -", "12 0 -", "13 0 -", "34 0 -"),
    "cgroup_sock_addr": ("8 0 -", "10 0 -", "14 0 -", "19 0 -", "29 0 -"),
    "cgroup_sockopt": ("21 0 -", "22 0 -"),
    "sk_lookup": ("36 0 -",),
    "netfilter": ("45 0 -",),
    "syscall": ("0 16 -",),
    "tracing": ("23 0 sched_switch", "25 0 bpf_fentry_test1", "28 0 task"),
    "lsm": ("27 0 file_open", "27 16 file_open"),
}
_NO = re.compile(
    "invalid func |unknown func |program of this type cannot use helper "
    "|not supported for program type |supported only for "
)
# Said before any argument is looked at. Only a program that is bound to a function may hear otherwise at another one.
_NOT_ALLOWED = "helper call is not allowed in probe"
_AT_A_FUNCTION = ("tracing", "lsm", "ext")
_YES = re.compile("R[1-5] |!read_ok|sleep")


class Dispute(NamedTuple):
    """One question on which we and a witness differ."""

    table: str
    key: str
    ours: str
    our_evidence: str
    witness: str
    theirs: str


class Ruling(NamedTuple):
    """What the real attempt says: yes, no or undecided, and its words."""

    truth: str
    attempt: str


def disputes(facts: Json, claims: Json, witness: str) -> Iterator[Dispute]:
    """Where both say yes or no and differ. `claims` are {table: {key: bool}}."""
    for table, answers in claims.items():
        for key, claim in answers.items():
            ours = facts[table].get(key)
            theirs = "yes" if claim else "no"
            if ours is not None and ours["answer"] in ("yes", "no") and ours["answer"] != theirs:
                yield Dispute(table, key, ours["answer"], ours["evidence"], witness, theirs)


def libbpf_claims(probes: Json) -> dict[str, dict[str, bool]]:
    """What `ebpf-loader probe` says with yes or no."""
    helpers = {
        f"{program_type}:{name}": asked
        for program_type, names in probes["helpers"].items()
        for name, asked in names.items()
    }
    tables = {"program_types": probes["program_types"], "map_types": probes["map_types"], "helpers": helpers}
    return {
        table: {key: one["answer"] == "yes" for key, one in asked.items() if one["answer"] != "unknown"}
        for table, asked in tables.items()
    }


def bpftool_claims(probes: Json) -> dict[str, dict[str, bool]]:
    """What `bpftool feature probe -j` says; a helper that it does not list for a type it says no to."""
    helpers: dict[str, bool] = {}
    for key, listed in probes["helpers"].items():
        program_type = key[: -len("_available_helpers")]
        if isinstance(listed, list):
            helpers.update({f"{program_type}:{name}": f"bpf_{name}" in listed for name in HELPERS[1:]})
    return {
        "program_types": _unwrapped(probes["program_types"], "_prog_type"),
        "map_types": _unwrapped(probes["map_types"], "_map_type"),
        "helpers": helpers,
    }


def _unwrapped(answers: Json, suffix: str) -> dict[str, bool]:
    return {key[len("have_") : -len(suffix)]: value for key, value in answers.items()}


def attach_claims(attempts: Mapping[str, int]) -> dict[str, dict[str, bool]]:
    """The real attaches as claims: these are the truth, so no further attempt is needed."""
    kinds = {name: number == 0 for name, number in attempts.items() if ":" not in name}
    links = {name[len("link:") :]: number == 0 for name, number in attempts.items() if ":" in name}
    return {"attach_kinds": kinds, "bpf_links": links}


def load_questions(dispute: Dispute) -> list[str]:
    """The loads that decide a dispute on a program type or a helper, as attempt.c reads them."""
    name, _colon, helper = dispute.key.partition(":")
    number = HELPERS.index(helper) if helper else 0
    kind = PROGRAM_TYPES.index(name)
    places = [place.split() for place in PLACES.get(name, ("0 0 -",))]
    return [f"{kind} {attach} {flags} {number} {target}" for attach, flags, target in places]


def rule(dispute: Dispute, outcomes: Sequence[tuple[int, str]]) -> Ruling:
    """What the loads prove. A yes under any place is a yes; a no must be said under every place."""
    if dispute.table == "helpers":
        # A place that this kernel does not know says nothing of a helper, unless none is known.
        outcomes = [one for one in outcomes if one != (EINVAL, "")] or outcomes
    read = [_read_load(dispute, number, words) for number, words in outcomes]
    for verdict in ("yes", "undecided", "no"):
        for (number, words), found in zip(outcomes, read):
            if found == verdict:
                return Ruling(verdict, f"errno {number}: {words[-200:]}")
    return Ruling("undecided", "no load decides this")


def _read_load(dispute: Dispute, number: int, words: str) -> str:
    if number == 0:
        return "yes"
    if number in (EPERM, EINVAL) and not words:
        return "no"
    if dispute.table != "helpers":
        # Only the verifier can have anything to say of a program whose type the kernel knows.
        return "yes" if words else "no"
    if _NO.search(words):
        return "no"
    if _NOT_ALLOWED in words:
        return "undecided" if dispute.key.partition(":")[0] in _AT_A_FUNCTION else "no"
    return "yes" if _YES.search(words) else "undecided"


def record(dispute: Dispute, ruling: Ruling) -> dict[str, str]:
    """One entry of build/oracle/HOST.json."""
    right = "undecided"
    if ruling.truth in ("yes", "no"):
        right = "ours" if ruling.truth == dispute.ours else dispute.witness
    return {**dispute._asdict(), "truth": ruling.truth, "attempt": ruling.attempt, "right": right}
