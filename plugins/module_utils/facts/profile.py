# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which profile a feature will reach on a host: a pure function of its contract and the host's facts.

An answer that is unknown never satisfies a requirement. The first variant whose every
requirement is answered yes is predicted; the loader's trial load has the last word. Reason
codes follow the loader's order, `Which reason a variant has` in docs/interfaces.md.
"""

from __future__ import annotations

import re
from typing import Any, Callable, Mapping, NamedTuple, Sequence

from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import OneCodeError
from ansible_collections.ebpf.fleet.plugins.module_utils.contract.profiles import OF_VARIANTS
from ansible_collections.ebpf.fleet.plugins.module_utils.kernel.bpfnames import (
    HELPERS,
    MAP_TYPES,
    PROGRAM_TYPES,
)

Json = Mapping[str, Any]

ATTACH_KINDS = ("tp_btf", "raw_tp", "tracepoint", "kprobe", "kretprobe", "fentry", "fexit", "lsm")

# What a host offers at the last, where the operator opted in.
BCC = "bcc"
FALLBACKS = (BCC,)

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


class ContractError(OneCodeError):
    """A contract that this version cannot read; the message names feature, variant and remedy."""

    code = "EF_CONTRACT_MALFORMED"


class Requirement(NamedTuple):
    """One line of `requires`; `key` is where the facts of that kind hold the answer."""

    kind: str
    key: str
    text: str


class Answer(NamedTuple):
    """What the facts say of one requirement: yes, no or unknown, with the evidence.

    `reason_code` is the facts' own, where the cause of a no is another than absence.
    """

    answer: str
    evidence: str
    reason_code: str | None = None


class Refusal(NamedTuple):
    """Why a variant is passed over; `need` is the requirement's text."""

    variant: str
    code: str
    need: str
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
    "btf": lambda key: key in ("vmlinux", "any"),
    "prog_type": lambda key: key in PROGRAM_TYPES,
    "map_type": lambda key: key in MAP_TYPES,
    "helper": _is_helper,
    "attach": _is_attach,
    "kernel": lambda key: _VERSION.fullmatch(key) is not None,
}
_KEY_REMEDY = {
    "btf": "write btf:vmlinux (the kernel's own) or btf:any (that or the bundle's)",
    "prog_type": "write prog_type:NAME with libbpf's lower-case name, such as tracing",
    "map_type": "write map_type:NAME with libbpf's lower-case name, such as percpu_array",
    "helper": "write helper:PROGTYPE:NAME, such as helper:tracing:ringbuf_reserve",
    "attach": "write attach:KIND:TARGET with KIND one of {}; a tracepoint is GROUP/NAME".format(
        ", ".join(ATTACH_KINDS)
    ),
    "kernel": "write kernel:MAJOR.MINOR, such as kernel:5.10",
}


def requirements(contracts: Sequence[Json]) -> list[Requirement]:
    """Every requirement of every variant and fallback, each once, in the order of the contracts."""
    found: dict[str, Requirement] = {}
    for contract in contracts:
        parts = [*_variants(contract), *([{**contract[BCC], "name": BCC}] if contract.get(BCC) else [])]
        for part in parts:
            for requirement in _requires(contract, part):
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
        raise ContractError(
            "contract {}: variant without `requires`; pass contract.json as built".format(contract["feature"])
        ) from None
    except ContractError as error:
        raise ContractError(
            "contract {}, variant {}: {}".format(contract["feature"], variant.get("name"), error)
        ) from None


def answer_of(requirement: Requirement, facts: Json) -> Answer:
    """What the facts say of one requirement; facts that do not mention it are unknown."""
    if requirement.kind == "kernel":
        return _kernel_answer(requirement.key, facts)
    if requirement.kind == "btf":
        return _btf_answer(requirement.key, facts.get("btf"))
    return _read(facts.get(_TABLES[requirement.kind], {}).get(requirement.key))


def _read(found: Any) -> Answer:
    """An answer of the facts, of whatever form they are; anything else is unknown."""
    if not isinstance(found, Mapping):
        return Answer("unknown", "was not asked")
    code = found.get("reason_code")
    evidence = str(found.get("evidence", "no evidence"))
    answer = found.get("answer")
    return Answer(answer if answer in ("yes", "no") else "unknown", evidence, code)


def _btf_answer(key: str, btf: Any) -> Answer:
    own = _read(btf)
    if key == "vmlinux" or own.answer != "no":
        return own
    bundled = _read(btf.get("bundled"))
    if bundled.answer == "yes":
        return bundled
    code = bundled.reason_code or own.reason_code
    return bundled._replace(evidence=f"{own.evidence}; {bundled.evidence}", reason_code=code)


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


def predict(contract: Json, facts: Json, today: str | None = None, fallbacks: Sequence[str] = ()) -> dict[str, Any]:
    """The profile that a feature will reach: {profile, variant, reason_code, reason, sentence}.

    `today` is a UTC date, YYYY-MM-DD; without it the expiry is not judged. `fallbacks` are those
    that the operator opted into, of FALLBACKS.
    """
    variants = _variants(contract)
    expires = contract.get("expires")
    if today is not None and expires is not None and str(expires) <= today:
        reason = f"contract expired on {expires}; renew it or remove the feature"
        return _prediction(contract, None, "disabled", "EF_EXPIRED", reason)
    if expires is not None and (facts.get("trust") or {}).get("clock_known") is False:
        reason = f"runs until {expires}, and the host's clock stands before what has happened already; set the clock"
        return _prediction(contract, None, "disabled", "EF_CLOCK_UNKNOWN", reason)
    refusals: list[Refusal] = []
    for variant in variants:
        name = str(variant["name"])
        refusal = _refusal(name, _requires(contract, variant), facts)
        if refusal is None:
            return _reached(contract, name, profile_of(name, variant.get("profile")), refusals)
        refusals.append(refusal)
    return _without_variant(contract, facts, refusals, fallbacks)


def _without_variant(contract: Json, facts: Json, refusals: list[Refusal], fallbacks: Sequence[str]) -> dict[str, Any]:
    """No variant works: a fallback, or disabled with the last variant's reason, as it asks for least."""
    code = refusals[-1].code
    if BCC not in fallbacks or not contract.get(BCC):
        return _prediction(contract, None, "disabled", code, _sentence(refusals))
    host = _read(facts.get(BCC))
    refusal = _refusal(BCC, _requires(contract, {**contract[BCC], "name": BCC}), facts)
    if refusal is None and host.answer == "yes":
        return _reached(contract, BCC, "reduced", refusals)
    lacks = refusal or Refusal(BCC, code, "python3-bpfcc and kernel headers", f"{host.answer} ({host.evidence})")
    return _prediction(contract, None, "disabled", code, _sentence([*refusals, lacks]))


# In the order in which the loader meets them: asked before the load, refused by the load, explained after it.
_BEFORE_LOAD = ("kernel", "btf", "attach")
_FORBIDDEN = ("EF_PERMISSION", "EF_LOCKDOWN")


def _refusal(variant: str, needed: Sequence[Requirement], facts: Json) -> Refusal | None:
    """Why the variant is not to be had; None where every requirement is answered yes."""
    lacking = [(one, said) for one, said in ((one, answer_of(one, facts)) for one in needed) if said.answer != "yes"]
    if not lacking:
        return None
    requirement, said = min(lacking, key=lambda pair: _rank(*pair))
    return Refusal(variant, _code(requirement, said), requirement.text, f"{said.answer} ({said.evidence})")


def _rank(requirement: Requirement, said: Answer) -> int:
    """Lower is met earlier; min() keeps the contract's order among equals. What is unknown comes last."""
    if said.answer == "unknown":
        return 4
    if requirement.kind in _BEFORE_LOAD:
        return 3 if said.reason_code == "EF_ATTACH_FAILED" else 0
    return 1 if said.reason_code in _FORBIDDEN and requirement.kind != "helper" else 2


def _code(requirement: Requirement, said: Answer) -> str:
    if said.answer == "no":
        return said.reason_code or REASON_CODES[requirement.kind]
    return "EF_PERMISSION" if "EPERM" in said.evidence else "EF_UNKNOWN"


def _reached(contract: Json, variant: str, profile: str, refusals: Sequence[Refusal]) -> dict[str, Any]:
    if not refusals:
        return _prediction(contract, variant, profile, "EF_OK", f"every requirement of variant {variant} is met")
    # As the loader does it: the code says why a better variant was passed over.
    reason = f"variant {variant} is met; {_sentence(refusals)}"
    return _prediction(contract, variant, profile, refusals[-1].code, reason)


def _sentence(refusals: Sequence[Refusal]) -> str:
    return "; ".join(f"{one.variant} needs {one.need}: {one.evidence}" for one in refusals)


def _prediction(contract: Json, variant: str | None, profile: str, code: str, reason: str) -> dict[str, Any]:
    return {
        "profile": profile,
        "variant": variant,
        "reason_code": code,
        "reason": reason,
        "sentence": "{} → {}: {}".format(contract["feature"], profile, reason),
    }


def profile_of(variant: str | None, declared: str | None = None) -> str:
    """The profile that a variant stands for; None is no variant. `declared` is the variant's own word."""
    if variant is None:
        return "disabled"
    if declared in OF_VARIANTS:
        return str(declared)
    return "full" if variant == "full" else "reduced"
