# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the answer of `capability_facts` must be before anything is planned or reported by it. Pure.

The format is in docs/formats/capabilities.md. A field that a host leaves out is not known; a field that is
there must be what the format says. Names of features must be those that were asked about.
"""

from __future__ import annotations

from typing import Any, Iterable, Iterator, Mapping, NamedTuple

from ansible_collections.ebpf.fleet.plugins.module_utils.base import host_document as doc
from ansible_collections.ebpf.fleet.plugins.module_utils.base.host_document import Fault, Rule
from ansible_collections.ebpf.fleet.plugins.module_utils.base.printable import printable
from ansible_collections.ebpf.fleet.plugins.module_utils.contract.profiles import PROFILES

Json = Mapping[str, Any]

SCHEMA = "ebpf.fleet/capabilities/v1"
_SILENCE = 300

_FAMILY = r"[0-9]{1,3}\.[0-9]{1,5}"
# One part of a stratum, which is FAMILY/MACHINE/DISTRO.
_PART = r"[A-Za-z0-9][A-Za-z0-9._+-]{0,63}"
_FEATURE = r"[a-z][a-z0-9_]{0,31}"
_CODE = r"EF_[A-Z0-9_]{1,60}"
_DIGEST = r"[0-9a-f]{64}"

_ANSWER = doc.record(
    {"answer": doc.word("yes", "no", "unknown"), "evidence": doc.text(), "reason_code": doc.text(pattern=_CODE)},
    needed=("answer",),
)
_ANSWERS = doc.table(_ANSWER)
_VARIANT = doc.text(64, r"[A-Za-z0-9_.-]+", null=True)
_REACHED = {"profile": doc.word(*PROFILES), "variant": _VARIANT}
_PREDICTED = {**_REACHED, "reason_code": doc.text(pattern=_CODE), "reason": doc.text(), "sentence": doc.text()}
_PREDICTION_NEEDS = ("profile", "variant", "reason_code", "reason")
_PREDICTION = doc.record(_PREDICTED, _PREDICTION_NEEDS)
_PREDICTION_OR_NULL = doc.record(_PREDICTED, _PREDICTION_NEEDS, null=True)
_PREDICTIONS = doc.table(_PREDICTION, _FEATURE, 1000)

_KERNEL = doc.record(
    {
        "release": doc.text(65, null=True),
        "family": doc.text(16, _FAMILY, null=True),
        "distro_family": doc.text(96, null=True),
        "machine": doc.text(64, _PART, null=True),
        "build_id": doc.text(64, r"[0-9a-f]*", null=True),
    }
)
_RELEASE = doc.record(
    {
        "version": doc.text(128, null=True),
        "digest": doc.text(64, _DIGEST, null=True),
        "sequence": doc.whole(null=True),
        "state": doc.text(64, null=True),
        "status_age_ns": doc.whole(-doc.I64, doc.I64, null=True),
        "features": doc.table(
            doc.record(
                {
                    "state": doc.text(64, null=True),
                    "profile": doc.text(64, null=True),
                    "variant": doc.text(64, null=True),
                    "data_path": doc.text(64, null=True),
                    "produced": doc.whole(null=True),
                    "dropped": doc.whole(null=True),
                    "sampled_out": doc.whole(null=True),
                }
            ),
            _FEATURE,
            1000,
            null=True,
        ),
    },
    null=True,
)
_CHANGE = doc.record(
    {
        "feature": doc.text(32, _FEATURE),
        "from": doc.record(_REACHED, ("profile", "variant")),
        "to": doc.record(_REACHED, ("profile", "variant")),
        "reason_code": doc.text(pattern=_CODE),
        "sentence": doc.text(),
    },
    needed=("feature", "from", "to", "reason_code", "sentence"),
)
_NEXT_KERNEL = doc.record(
    {
        "release": doc.text(128, null=True),
        "chosen_by": doc.text(),
        "btf": _ANSWER,
        "source": doc.text(null=True),
        "profiles": _PREDICTIONS,
        "changes": doc.many(_CHANGE, 1000),
        "unknown": doc.many(doc.text(), 1000),
    },
    needed=("release", "chosen_by", "btf", "profiles", "changes"),
    null=True,
)
_TRUST = doc.record(
    {"release": doc.text(200), "ok": doc.truth(), "reason_code": doc.text(64), "reason": doc.text(),
     "clock_known": doc.truth()},
    needed=("release", "ok", "reason_code", "reason"),
    null=True,
)  # fmt: skip
_CAPABILITIES = doc.record(
    {
        "schema": doc.word(SCHEMA),
        "privileged": doc.truth(),
        "kernel": _KERNEL,
        "distro": doc.record({"id": doc.text(64, _PART, null=True), "version_id": doc.text(64, null=True)}),
        "python": doc.text(64),
        "systemd": _ANSWERS,
        "btf": doc.record(
            {"state": doc.word("vmlinux", "bundled", "missing"), "answer": doc.word("yes", "no", "unknown"),
             "evidence": doc.text(), "bundled": _ANSWER, "modules": doc.many(doc.text(128), null=True)},
            needed=("state",),
        ),
        "lockdown": doc.record({"mode": doc.text(64, null=True), "evidence": doc.text()}),
        "lsms": doc.many(doc.text(64), 100, null=True),
        "memlock": doc.record({"soft_bytes": doc.whole(null=True), "unlimited": doc.truth()}),
        "cgroup": doc.word("v2", "hybrid", "v1", null=True),
        "program_types": _ANSWERS,
        "map_types": _ANSWERS,
        "helpers": _ANSWERS,
        "attach_points": _ANSWERS,
        "attach_kinds": _ANSWERS,
        "bpf_links": _ANSWERS,
        "signed_programs": _ANSWER,
        "stats": _ANSWER,
        "bcc": _ANSWER,
        "loaded": doc.record(
            {name: doc.many(doc.record({"id": doc.whole()}), null=True) for name in ("programs", "maps", "links")}
        ),
        "own_programs": doc.record({"programs": doc.many(doc.record({"id": doc.whole()}), null=True)}),
        "release": _RELEASE,
        "kill_orders": doc.many(doc.text(300), 1000, null=True),
        "trust": _TRUST,
        "next_kernel": _NEXT_KERNEL,
        "profiles": _PREDICTIONS,
    },
    needed=("kernel", "distro", "btf"),
)  # fmt: skip
_RESULT: Rule = doc.record({"capabilities": _CAPABILITIES, "profiles": _PREDICTIONS}, needed=("capabilities",))

CENSUS_SCHEMA = "ebpf.fleet/census/v1"
_COUNTS = doc.record(dict.fromkeys(PROFILES, doc.whole()), PROFILES)
_NAMES = doc.many(doc.text(300), 100_000)
_CENSUS_HOST = doc.record(
    {
        "kernel": _KERNEL,
        "btf": doc.text(64, null=True),
        "privileged": doc.truth(null=True),
        "stratum": doc.text(200),
        "deployable": doc.record(
            {"answer": doc.word("yes", "no", "unknown"), "reason_code": doc.text(64), "reason": doc.text()}
        ),
        "profiles": _PREDICTIONS,
        "policy": doc.many(
            doc.record(
                {"feature": doc.text(64), "ready": doc.truth(), "reason_code": doc.text(64), "reason": doc.text()},
                ("feature", "ready", "reason_code", "reason"),
            )
        ),
        "next_kernel": _NEXT_KERNEL,
        "trust": _TRUST,
    },
    needed=("stratum", "profiles", "policy"),
)
_REASON = doc.record(
    {**_REACHED, "reason_code": doc.text(64), "reason": doc.text(), "hosts": _NAMES},
    ("profile", "variant", "reason_code", "reason", "hosts"),
)
_CENSUS = {
    "schema": doc.word(CENSUS_SCHEMA),
    "time": doc.text(64, null=True),
    "bundle": doc.record({}, null=True),
    "digest": doc.text(128, null=True),
    "strata": doc.table(_NAMES),
    "features": doc.table(
        doc.record(
            {"hosts": _COUNTS, "strata": doc.table(_COUNTS), "reasons": doc.table(doc.many(_REASON))},
            ("hosts", "strata", "reasons"),
        )
    ),
    "silent": _NAMES,
    "silence": doc.text(2_000_000),
    "silent_reasons": doc.table(doc.text(null=True), limit=100_000),
    "sentences": doc.many(doc.text(100_000), 200_000),
}
_PROGRAM = doc.record(
    {"name": doc.text(64), **{key: doc.whole(null=True) for key in ("insns", "processed_insns", "stack_bytes")}}
)
_TRIED = doc.record(
    {
        "loads": doc.truth(null=True),
        "attaches": doc.truth(null=True),
        "reason_code": doc.text(64, null=True),
        "reason": doc.text(null=True),
        "programs": doc.many(_PROGRAM, 1000, null=True),
    }
)
_MATRIX_HOST = doc.record(
    {
        "kernel": _KERNEL,
        **{name: doc.text(64, null=True) for name in ("family", "flavour", "distro", "btf")},
        "features": doc.table(
            doc.record(
                {
                    "predicted": _PREDICTION_OR_NULL,
                    "reached": _PREDICTION_OR_NULL,
                    "equal": doc.truth(null=True),
                    "variants": doc.table(_TRIED, null=True),
                }
            )
        ),
    },
    needed=("features",),
)
_MATRIX_RULE = doc.record(
    {
        "bundle": doc.record({}, null=True),
        "digest": doc.text(128, null=True),
        "differences": doc.many(
            doc.record(
                {
                    "host": doc.text(300),
                    "feature": doc.text(64),
                    "predicted": _PREDICTION_OR_NULL,
                    "reached": _PREDICTION_OR_NULL,
                },
                ("host", "feature", "predicted", "reached"),
            ),
            null=True,
        ),
    }
)
_CENSUS_RULE = doc.record(_CENSUS, ("schema", "strata", "features", "silent"))


class Answer(NamedTuple):
    """One host's answer: its documents, or None and the sentence why there are none."""

    capabilities: dict[str, Any] | None
    profiles: dict[str, Any]
    problem: str | None


def read(host: str, result: Any, features: Iterable[str] = ()) -> Answer:
    """What the result of `capability_facts` on `host` is worth.

    `features` are the names that were asked about; where it is empty, every name is one. Raises
    for nothing: what a host says wrongly is the answer's `problem`, printable and of one line.
    """
    if not isinstance(result, Mapping):
        return _none(doc.no_usable_answer(host, [Fault("the answer", "is not a mapping")]))
    if not result.get("capabilities"):
        return _none(_silence(result))
    judged = doc.usable({key: result[key] for key in ("capabilities", "profiles") if key in result}, _RESULT)
    faults = judged.faults or list(_not_asked(judged.document.get("profiles") or {}, set(features)))
    if faults:
        return _none(doc.no_usable_answer(host, faults))
    return Answer(judged.document["capabilities"], judged.document.get("profiles") or {}, None)


def _none(problem: str | None) -> Answer:
    return Answer(None, {}, problem)


def _not_asked(profiles: Json, features: set[str]) -> Iterator[Fault]:
    for name in sorted(set(profiles) - features) if features else ():
        yield Fault(f"profiles.{name}", "was not asked about")
        return


def _silence(result: Json) -> str | None:
    """What Ansible reported of a host that gave no answer, in one line; None where it reported nothing."""
    told = result.get("msg")
    words = " ".join(told.split()) if isinstance(told, str) else ""
    kind = "unreachable" if result.get("unreachable") else "failed" if result.get("failed") else None
    if not words:
        return kind
    # ssh says what went wrong last, after its warnings.
    if len(words) > _SILENCE:
        words = f"{words[: _SILENCE // 3]} … {words[-_SILENCE * 2 // 3 :]}"
    shown: str = printable(words, _SILENCE + 10)
    return f"{kind}: {shown}" if kind else shown


def census_faults(census: Any) -> str | None:
    """Why a census of capabilities.yml cannot be read again, in one line that names host and field; None if it can.

    Each host is judged by itself; a fleet's size is not a fault.
    """
    return _faults_by_host(census, _CENSUS_HOST, _CENSUS_RULE)


def matrix_faults(matrix: Any) -> str | None:
    """As `census_faults`, of a capability matrix (ebpf.fleet/matrix/v1)."""
    return _faults_by_host(matrix, _MATRIX_HOST, _MATRIX_RULE)


def _faults_by_host(document: Any, host_rule: Rule, rule: Rule) -> str | None:
    if not isinstance(document, Mapping) or not isinstance(document.get("hosts"), Mapping):
        return "it has no hosts"
    for name, host in document["hosts"].items():
        judged = doc.usable(host, host_rule)
        if judged.faults:
            return f"host {printable(name, 100)}: {doc.told(judged.faults)}"
    faults = [one for _turn, one in zip(range(doc.FAULTS_TOLD), rule("", document))]
    return doc.told(faults) if faults else None
