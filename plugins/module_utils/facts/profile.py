# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which profile a feature will reach on a host: a pure function of its contract and the host's facts.

An answer that is unknown never satisfies a requirement. The first variant whose every
requirement is answered yes is predicted; the loader's trial load has the last word. Reason
codes follow the loader's order, docs/formats/requirements.md.
"""

from __future__ import annotations

from typing import Any, Iterator, Mapping, NamedTuple, Sequence

from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError, raise_all
from ansible_collections.ebpf.fleet.plugins.module_utils.contract.profiles import OF_VARIANTS
from ansible_collections.ebpf.fleet.plugins.module_utils.contract.requirements import (
    CODE,
    KIND,
    Requirement,
    parse,
    remedy,
    version_of,
)

Json = Mapping[str, Any]

# What a host offers at the last, where the operator opted in.
BCC = "bcc"
FALLBACKS = (BCC,)


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


def requirements(contracts: Sequence[Json]) -> list[Requirement]:
    """Every requirement of every variant and fallback, each once, in the order of the contracts.

    Raises FleetError (EF_CONTRACT_MALFORMED) for what this version cannot read; it says all at once, each with the
    contract's file in the bundle, the field and what to write instead.
    """
    raise_all([problem for contract in contracts for problem in _problems(contract)])
    found: dict[str, Requirement] = {}
    for contract in contracts:
        for _field, part in _parts(contract):
            for requirement in _requires(part):
                found.setdefault(requirement.text, requirement)
    return list(found.values())


def _parts(contract: Json) -> list[tuple[str, Any]]:
    """(field, part) of each that has a `requires`: the variants in order, and the fallback."""
    variants = [(f"variants[{index}]", variant) for index, variant in enumerate(contract["variants"])]
    return [*variants, (BCC, contract[BCC])] if contract.get(BCC) else variants


def _requires(part: Json) -> list[Requirement]:
    return [parse(text) for text in part["requires"]]


def _problems(contract: Json) -> Iterator[FleetError]:
    """What a prediction could not read of a contract; the rules of the build see more."""
    feature, variants = contract.get("feature"), contract.get("variants")
    file = f"features/{feature}/contract.json"
    if not isinstance(feature, str) or not isinstance(variants, (list, tuple)) or not variants:
        problem = "needs a feature name and at least one variant; pass contract.json as built"
        yield FleetError(CODE, f"contract {feature}: {problem}", file if isinstance(feature, str) else None)
        return
    for field, part in _parts(contract):
        for where, problem in _problems_of_part(field, part):
            yield FleetError(CODE, f"{file}: {where}: {problem}", file)


def _problems_of_part(field: str, part: Any) -> Iterator[tuple[str, str]]:
    if not isinstance(part, Mapping):
        yield field, f"is {part!r}; give a mapping"
        return
    if field != BCC and not isinstance(part.get("name"), str):
        yield f"{field}.name", "is missing or not text; give the variant a name"
    values = part.get("requires")
    if not isinstance(values, (list, tuple)):
        yield f"{field}.requires", "is not there or not a list; give a list of requirements"
        return
    for index, value in enumerate(values):
        wrong = remedy(value)
        if wrong:
            yield f"{field}.requires[{index}]", f"is {value!r}; {wrong}"


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
    found, least = version_of(family), version_of(wanted)
    if found is None or least is None:
        return Answer("unknown", "kernel release was not read")
    return Answer("yes" if found >= least else "no", f"kernel family {family}")


def predict(contract: Json, facts: Json, today: str | None = None, fallbacks: Sequence[str] = ()) -> dict[str, Any]:
    """The profile that a feature will reach: {profile, variant, reason_code, reason, sentence}.

    `today` is a UTC date, YYYY-MM-DD; without it the expiry is not judged. `fallbacks` are those
    that the operator opted into, of FALLBACKS. Raises FleetError as `requirements` does.
    """
    raise_all(list(_problems(contract)))
    expires = contract.get("expires")
    if today is not None and expires is not None and str(expires) <= today:
        reason = f"contract expired on {expires}; renew it or remove the feature"
        return _prediction(contract, None, "disabled", "EF_EXPIRED", reason)
    if expires is not None and (facts.get("trust") or {}).get("clock_known") is False:
        reason = f"runs until {expires}, and the host's clock stands before what has happened already; set the clock"
        return _prediction(contract, None, "disabled", "EF_CLOCK_UNKNOWN", reason)
    refusals: list[Refusal] = []
    for variant in contract["variants"]:
        name = str(variant["name"])
        refusal = _refusal(name, _requires(variant), facts)
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
    refusal = _refusal(BCC, _requires(contract[BCC]), facts)
    if refusal is None and host.answer == "yes":
        return _reached(contract, BCC, "reduced", refusals)
    lacks = refusal or Refusal(BCC, code, "python3-bpfcc and kernel headers", f"{host.answer} ({host.evidence})")
    return _prediction(contract, None, "disabled", code, _sentence([*refusals, lacks]))


_FORBIDDEN = ("EF_PERMISSION", "EF_LOCKDOWN")


def _refusal(variant: str, needed: Sequence[Requirement], facts: Json) -> Refusal | None:
    """Why the variant is not to be had; None where every requirement is answered yes."""
    lacking = [(one, said) for one, said in ((one, answer_of(one, facts)) for one in needed) if said.answer != "yes"]
    if not lacking:
        return None
    requirement, said = min(lacking, key=lambda pair: _rank(*pair))
    return Refusal(variant, _code(requirement, said), requirement.text, f"{said.answer} ({said.evidence})")


def _rank(requirement: Requirement, said: Answer) -> int:
    """Lower is met earlier; min() keeps the contract's order among equals. What is unknown comes last.

    In the order in which the loader meets them: asked before the load, refused by the load, explained after it.
    """
    if said.answer == "unknown":
        return 4
    if KIND[requirement.kind].before_load:
        return 3 if said.reason_code == "EF_ATTACH_FAILED" else 0
    return 1 if said.reason_code in _FORBIDDEN and requirement.kind != "helper" else 2


def _code(requirement: Requirement, said: Answer) -> str:
    if said.answer == "no":
        return said.reason_code or KIND[requirement.kind].reason_code
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
    """The profile that a variant stands for; None means no variant. `declared` is the variant's own word."""
    if variant is None:
        return "disabled"
    if declared in OF_VARIANTS:
        return str(declared)
    return "full" if variant == "full" else "reduced"
