# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
"""Which profile a feature will reach on a host: a pure function of its contract and the host's facts.

An answer that is unknown never satisfies a requirement. The first variant whose every
requirement is answered yes is predicted; the loader's trial load has the last word.
"""

from __future__ import annotations

import re
from typing import Any, Callable, Mapping, NamedTuple, Sequence

from ansible_collections.ebpf.fleet.plugins.module_utils.bpfnames import (
    HELPERS,
    MAP_TYPES,
    PROGRAM_TYPES,
)

Json = Mapping[str, Any]

ATTACH_KINDS = ("tp_btf", "raw_tp", "tracepoint", "kprobe", "fentry", "lsm")

_SYMBOL = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")
_TRACEPOINT = re.compile(r"[A-Za-z0-9_-]+/[A-Za-z0-9_-]+")
_VERSION = re.compile(r"[0-9]+\.[0-9]+")

REASON_CODES = {
    "btf": "EF_NO_BTF",
    "prog_type": "EF_NO_PROG_TYPE",
    "map_type": "EF_NO_MAP_TYPE",
    "helper": "EF_NO_HELPER",
    "attach": "EF_NO_ATTACH_POINT",
    "kernel": "EF_KERNEL_TOO_OLD",
}


class ContractError(ValueError):
    """A contract that this version cannot read; the message names feature, variant and remedy."""


class Requirement(NamedTuple):
    """One line of `requires`; `key` is where the facts of that kind hold the answer."""

    kind: str
    key: str
    text: str


class Answer(NamedTuple):
    """What the facts say of one requirement: yes, no or unknown, with the evidence."""

    answer: str
    evidence: str


def parse_requirement(text: str) -> Requirement:
    """Read one requirement of a contract, or raise ContractError with the grammar."""
    kind, _colon, key = str(text).partition(":")
    if kind not in REASON_CODES:
        raise ContractError(
            "requirement {!r}: unknown kind {!r}; use one of {}".format(text, kind, ", ".join(sorted(REASON_CODES)))
        )
    if not _KEY_IS_GOOD[kind](key):
        raise ContractError(f"requirement {text!r}: {_KEY_REMEDY[kind]}")
    return Requirement(kind, key, text)


def _is_helper(key: str) -> bool:
    program_type, _colon, name = key.partition(":")
    return program_type in PROGRAM_TYPES and name in HELPERS


def _is_attach(key: str) -> bool:
    kind, _colon, target = key.partition(":")
    pattern = _TRACEPOINT if kind == "tracepoint" else _SYMBOL
    return kind in ATTACH_KINDS and pattern.fullmatch(target) is not None


_KEY_IS_GOOD: dict[str, Callable[[str], bool]] = {
    "btf": lambda key: key == "vmlinux",
    "prog_type": lambda key: key in PROGRAM_TYPES,
    "map_type": lambda key: key in MAP_TYPES,
    "helper": _is_helper,
    "attach": _is_attach,
    "kernel": lambda key: _VERSION.fullmatch(key) is not None,
}
_KEY_REMEDY = {
    "btf": "only btf:vmlinux is known",
    "prog_type": "write prog_type:NAME with libbpf's lower-case name, such as tracing",
    "map_type": "write map_type:NAME with libbpf's lower-case name, such as percpu_array",
    "helper": "write helper:PROGTYPE:NAME, such as helper:tracing:ringbuf_reserve",
    "attach": "write attach:KIND:TARGET with KIND one of {}; a tracepoint is GROUP/NAME".format(
        ", ".join(ATTACH_KINDS)
    ),
    "kernel": "write kernel:MAJOR.MINOR, such as kernel:5.10",
}


def requirements(contracts: Sequence[Json]) -> list[Requirement]:
    """Every requirement of every variant, each once, in the order of the contracts."""
    found: dict[str, Requirement] = {}
    for contract in contracts:
        for variant in _variants(contract):
            for requirement in _requires(contract, variant):
                found.setdefault(requirement.text, requirement)
    return list(found.values())


def _variants(contract: Json) -> Sequence[Json]:
    variants = contract.get("variants")
    named = isinstance(contract.get("feature"), str)
    if not named or not isinstance(variants, (list, tuple)) or not variants:
        raise ContractError(
            "contract {}: needs a feature name and at least one variant; pass contract.json as built".format(
                contract.get("feature")
            )
        )
    return variants


def _requires(contract: Json, variant: Json) -> list[Requirement]:
    try:
        return [parse_requirement(text) for text in variant["requires"]]
    except (KeyError, TypeError):
        raise ContractError("contract {}: variant without `requires`".format(contract["feature"])) from None
    except ContractError as error:
        raise ContractError(
            "contract {}, variant {}: {}".format(contract["feature"], variant.get("name"), error)
        ) from None


def answer_of(requirement: Requirement, facts: Json) -> Answer:
    """What the facts say of one requirement; facts that do not mention it are unknown."""
    if requirement.kind == "kernel":
        return _kernel_answer(requirement.key, facts)
    if requirement.kind == "btf":
        found = facts.get("btf")
    else:
        found = facts.get(_TABLES[requirement.kind], {}).get(requirement.key)
    if not isinstance(found, Mapping) or found.get("answer") not in ("yes", "no"):
        evidence = found.get("evidence", "no evidence") if isinstance(found, Mapping) else "was not asked"
        return Answer("unknown", str(evidence))
    return Answer(found["answer"], str(found.get("evidence", "")))


_TABLES = {
    "prog_type": "program_types",
    "map_type": "map_types",
    "helper": "helpers",
    "attach": "attach_points",
}


def _kernel_answer(wanted: str, facts: Json) -> Answer:
    family = str(facts.get("kernel", {}).get("family"))
    if _VERSION.fullmatch(family) is None:
        return Answer("unknown", "kernel release was not read")
    enough = _version(family) >= _version(wanted)
    return Answer("yes" if enough else "no", f"kernel family {family}")


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("."))


def predict(contract: Json, facts: Json, today: str | None = None) -> dict[str, Any]:
    """The profile that a feature will reach: {profile, variant, reason_code, reason}.

    `today` is a UTC date, YYYY-MM-DD; without it the expiry is not judged.
    """
    variants = _variants(contract)
    expires = contract.get("expires")
    if today is not None and expires is not None and str(expires) <= today:
        reason = f"contract expired on {expires}; renew it or remove the feature"
        return _prediction(None, "EF_EXPIRED", reason)
    refusals: list[tuple[str, str, str]] = []
    for variant in variants:
        refusal = _refusal(_requires(contract, variant), facts)
        if refusal is None:
            return _reached(str(variant["name"]), refusals)
        refusals.append((str(variant["name"]), *refusal))
    # The last variant asks for least, so what it lacks is what the host must get.
    code = refusals[-1][1]
    return _prediction(None, code, _sentence(refusals))


def _refusal(needed: Sequence[Requirement], facts: Json) -> tuple[str, str] | None:
    """(reason code, sentence) of the first requirement that is not answered yes."""
    for requirement in needed:
        said = answer_of(requirement, facts)
        if said.answer == "yes":
            continue
        if said.answer == "no":
            return REASON_CODES[requirement.kind], f"{requirement.text}: no ({said.evidence})"
        code = "EF_PERMISSION" if "EPERM" in said.evidence else "EF_UNKNOWN"
        return code, f"{requirement.text}: unknown ({said.evidence})"
    return None


def _reached(variant: str, refusals: Sequence[tuple[str, str, str]]) -> dict[str, Any]:
    if not refusals:
        return _prediction(variant, "EF_OK", f"every requirement of variant {variant} is met")
    # As the loader does it: the code says why a better variant was passed over.
    reason = f"variant {variant} is met; {_sentence(refusals)}"
    return _prediction(variant, refusals[-1][1], reason)


def _sentence(refusals: Sequence[tuple[str, str, str]]) -> str:
    return "; ".join(f"{name} needs {sentence}" for name, _code, sentence in refusals)


def _prediction(variant: str | None, code: str, reason: str) -> dict[str, Any]:
    return {"profile": profile_of(variant), "variant": variant, "reason_code": code, "reason": reason}


def profile_of(variant: str | None) -> str:
    """The profile that a variant stands for; None is no variant."""
    if variant is None:
        return "disabled"
    return "full" if variant == "full" else "reduced"
