# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The rules of a contract's variants and of its BCC fallback: programs, and what they require of a host. Pure."""

from __future__ import annotations

from typing import Any, Collection, Sequence

from ansible_collections.ebpf.fleet.plugins.module_utils.contract import requirements, rules
from ansible_collections.ebpf.fleet.plugins.module_utils.contract.profiles import OF_VARIANTS
from ansible_collections.ebpf.fleet.plugins.module_utils.contract.requirements import Requirement
from ansible_collections.ebpf.fleet.plugins.module_utils.contract.rules import Check, Findings

VARIANT: dict[str, Check] = {
    "name": rules.pattern_of(rules.NAME, "use [a-z][a-z0-9_]*, at most 32 characters"),
    "programs": rules.list_remedy,
    "profile": rules.choice(*OF_VARIANTS),
    "requires": rules.list_remedy,
}
BCC: dict[str, Check] = {"programs": rules.list_remedy, "requires": rules.list_remedy}


def check_variants(findings: Findings, doc: dict[str, Any]) -> None:
    before: list[dict[str, Any]] = []
    for field, variant in rules.check_entries(findings, doc, "variants"):
        rules.check_keys(findings, field, variant, VARIANT, optional={"profile"})
        name_check = rules.FREE_NAME_CHECK if rules.is_third_party(doc) else _program_remedy
        rules.check_words(findings, rules.at(field, "programs"), variant.get("programs"), name_check)
        requires = _check_requires(findings, rules.at(field, "requires"), variant)
        _fitting(findings, rules.at(field, "requires"), requires)
        _own_btf(findings, rules.at(field, "requires"), requires)
        _alternatives(findings, rules.at(field, "requires"), requires)
        _lsm_path(findings, rules.at(field, "requires"), requires, doc)
        _reachable(findings, field, variant, before)
        before.append(variant)


def _check_requires(findings: Findings, field: str, entry: dict[str, Any]) -> list[Requirement]:
    """Say what is not of the grammar; the requirements that are."""
    rules.check_words(findings, field, entry.get("requires"), requirements.remedy)
    return requirements_of(entry)


def requirements_of(entry: dict[str, Any]) -> list[Requirement]:
    """The requirements of a variant that are of the grammar."""
    values = entry.get("requires")
    words = values if isinstance(values, list) else []
    return [requirements.parse(word) for word in words if not requirements.remedy(word)]


def _fitting(findings: Findings, field: str, requires: Sequence[Requirement]) -> None:
    """Each hook and helper has programs of its type in the variant."""
    types = {one.key for one in requires if one.kind == "prog_type"}
    for one in requires:
        if one.attach and one.attach.program_type not in types:
            findings.add(field, f"has {one.text!r} without 'prog_type:{one.attach.program_type}'", "add it")
        if one.kind == "helper" and one.program_type not in types:
            findings.add(field, f"has {one.text!r}, but no program of type {one.program_type!r}",
                         f"use a type of the variant's programs: {', '.join(sorted(types))}")  # fmt: skip


def _own_btf(findings: Findings, field: str, requires: Sequence[Requirement]) -> None:
    """A hook that is found by the kernel's own BTF needs that, and with it nothing less is worth a word."""
    texts = {one.text for one in requires}
    for one in requires:
        if one.attach and one.attach.own_btf and "btf:vmlinux" not in texts:
            remedy = f"add it: {one.attach.name} needs the kernel's own BTF, a bundled one does not do"
            findings.add(field, f"has {one.text!r} without 'btf:vmlinux'", remedy)
    if {"btf:any", "btf:vmlinux"} <= texts:
        findings.add(field, "has 'btf:any' and 'btf:vmlinux'", "remove 'btf:any': the other asks for more")


def _alternatives(findings: Findings, field: str, requires: Sequence[Requirement]) -> None:
    """Every program of a variant is attached: two for one hook would count each event twice."""
    first: dict[tuple[str, str], str] = {}
    for one in requires:
        if one.attach is None:
            continue
        other = first.setdefault(one.attach.hook(one.target), one.text)
        if other != one.text:
            findings.add(field, f"has {other!r} and {one.text!r}, which are one hook, and both programs would attach",
                         "keep one, and make a variant of the other")  # fmt: skip


def _lsm_path(findings: Findings, field: str, requires: Sequence[Requirement], doc: dict[str, Any]) -> None:
    words = [one.text for one in requires if one.kind in ("prog_type", "attach") and one.program_type == "lsm"]
    if words and doc.get("data_path") in ("metrics", "events"):
        findings.add(field, f"has {words[0]!r} on the {doc['data_path']} data path",
                     "an LSM program belongs to 'data_path: policy' with 'mode: observe'")  # fmt: skip


def _reachable(findings: Findings, field: str, variant: dict[str, Any], before: list[dict[str, Any]]) -> None:
    """A variant that asks for all that an earlier one asks for is never the first that works."""
    requires = requirements_of(variant)
    for earlier in before:
        wanted = requirements_of(earlier)
        if wanted and all(_implied(one, requires) for one in wanted):
            findings.add(f"{field}.requires", f"holds all that {earlier.get('name')!r} requires, which comes before "
                         f"it: {variant.get('name')!r} can never be chosen",
                         f"put it before {earlier.get('name')!r}, or say what that one needs beyond it")  # fmt: skip
            return


def _implied(wanted: Requirement, requires: Collection[Requirement]) -> bool:
    """Whether a host that meets ``requires`` meets ``wanted`` too."""
    texts = {one.text for one in requires}
    if wanted.text in texts or (wanted.text == "btf:any" and "btf:vmlinux" in texts):
        return True
    versions = [requirements.version_of(one.key) for one in requires if one.kind == "kernel"]
    least = requirements.version_of(wanted.key) if wanted.kind == "kernel" else None
    return least is not None and any(version is not None and version >= least for version in versions)


def check_bcc(findings: Findings, doc: dict[str, Any]) -> None:
    fallback = doc.get("bcc")
    if not isinstance(fallback, dict):
        return
    rules.check_keys(findings, "bcc", fallback, BCC)
    rules.check_words(findings, "bcc.programs", fallback.get("programs"), _program_remedy)
    requires = _check_requires(findings, "bcc.requires", fallback)
    _fitting(findings, "bcc.requires", requires)
    _lsm_path(findings, "bcc.requires", requires, doc)
    _alternatives(findings, "bcc.requires", requires)
    for one in requires:
        if one.kind == "btf":
            findings.add("bcc.requires", f"has {one.text!r}", "remove it: BCC compiles with the kernel's headers")
    _bcc_hooks(findings, fallback, [one for one in requires if one.attach])


def _bcc_hooks(findings: Findings, fallback: dict[str, Any], hooks: Sequence[Requirement]) -> None:
    """BCC's sources name no hooks: the n-th program belongs to the n-th ``attach:``."""
    programs = fallback.get("programs")
    known = ", ".join(kind.name for kind in requirements.ATTACH_KINDS if kind.bcc)
    for one in hooks:
        if one.attach and not one.attach.bcc:
            findings.add("bcc.requires", f"has {one.text!r}", f"the collector attaches {known} only")
    if isinstance(programs, list) and len(programs) != len(hooks):
        findings.add("bcc.requires", f"has {len(hooks)} hooks for {len(programs)} programs",
                     "give one attach: for each program, in their order")  # fmt: skip


_program_remedy = rules.pattern_of(rules.KERNEL_NAME, rules.KERNEL_NAME_REMEDY)
