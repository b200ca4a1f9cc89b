# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a change of a host's trust files would do: who may no longer sign, whether what runs may go on. Pure.

A signer that disappears because a variable was given twice, or by a typo, is found here before it is
written: only trust_overrule takes trust away without a refusal (docs/trust-formats.md).
"""

from __future__ import annotations

import base64
from typing import Any, NamedTuple

from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle.signature import (
    NAMESPACE,
    clock_known,
    judge_signer,
    matches,
    parse_signature,
)
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle.trustfiles import (
    KEY_SIZE,
    KEY_TYPE,
    Trust,
    Trusted,
    parse_trust,
    take_ed25519,
    take_string,
)

OVERRULE = "ebpf_fleet_trust_overrule: true"


class Sealed(NamedTuple):
    """A release that is on the host: its name and the key of the signature that it came with."""

    release: str
    key: bytes
    floor: int = 0  # a time that has been for certain, in seconds since 1970


class Change(NamedTuple):
    """What is wrong with a change of trust, and what else is to be said of it; ``fault`` cannot be overruled."""

    fault: FleetError | None
    problems: list[str]
    notes: list[str]


def trust_text(value: Any, name: str) -> str:
    """The text of a trust file from a variable: a text, or a list of lines; raises FleetError (EF_ARGUMENT)."""
    if isinstance(value, str):
        lines = [value.strip()]
    elif isinstance(value, (list, tuple)):
        lines = [_one_line(line, f"{name}[{index}]") for index, line in enumerate(value)]
    else:
        raise FleetError(
            "EF_ARGUMENT", f"{name}: is {value!r:.80}, neither a text nor a list of lines; give one of them"
        )
    text = "\n".join(line for line in lines if line)
    return text + "\n" if text else ""


def _one_line(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise FleetError("EF_ARGUMENT", f"{name}: is {value!r:.80}, not a text; give one line of the file")
    if "\n" in value.strip():
        raise FleetError("EF_ARGUMENT", f"{name}: holds several lines; give each as an item of the list")
    return value.strip()


def key_of(signature: bytes) -> bytes:
    """The ed25519 key that a signature names; raises FleetError (EF_SIG_MISSING, EF_SIG_MALFORMED)."""
    return take_ed25519(parse_signature(signature).key, KEY_SIZE)


def spell_key(key: bytes) -> str:
    """A key as it stands in the trust files."""
    blob = b"".join(len(part).to_bytes(4, "big") + part for part in (KEY_TYPE.encode("ascii"), key))
    return f"{KEY_TYPE} {base64.b64encode(blob).decode('ascii')}"


def read_key(text: str) -> bytes:
    """The bytes of a key that :func:`spell_key` wrote."""
    _kind, rest = take_string(base64.b64decode(text.split()[1]))
    return bytes(take_string(rest)[0])


def refusal_of(sealed: Sealed, trust: Trust, now: float) -> FleetError | None:
    """Why these trust files refuse a release now; None where they allow it."""
    try:
        judge_signer(sealed.key, trust, parse_trust(trust), int(now) if clock_known(now, sealed.floor) else None)
    except FleetError as error:
        return error
    return None


def judge_change(before: Trust | None, after: Trust, running: Sealed | None, now: float) -> Change:
    """Judge the trust that is to be written against what the host trusts (None: nothing) and what it runs."""
    try:
        new = parse_trust(after)
    except FleetError as error:
        return Change(error, [], [])
    notes = list(new.notes)
    old = _readable(before)
    if before is not None and old is None:
        notes.append(f"{before.signers_path}: what is there cannot be read, so it is not known who was trusted")
    problems = [] if old is None else _lost_signers(old, new, int(now)) + _lost_revocations(old, new)
    if running is not None:
        refusal = refusal_of(running, after, now)
        if refusal is not None and (before is None or refusal_of(running, before, now) is not None):
            notes.append(
                f"the release {running.release} that runs is refused by the trust before and after this change"
            )
        elif refusal is not None:
            problems.append(
                f"the release {running.release} that runs would be refused: {refusal.message} ({refusal.code})"
            )
    return Change(None, problems, notes)


def _readable(trust: Trust | None) -> Trusted | None:
    if trust is None:
        return None
    try:
        return parse_trust(trust)
    except FleetError:
        return None


def _signing(trusted: Trusted, now: int) -> dict[bytes, str]:
    """Who may sign a release now or later, by key."""
    return {
        signer.key: signer.principal
        for signer in trusted.signers
        if (signer.namespaces is None or matches(signer.namespaces, NAMESPACE))
        and (signer.valid_before is None or now <= signer.valid_before)
    }


def _lost_signers(old: Trusted, new: Trusted, now: int) -> list[str]:
    """A key that is put on the revocation list is taken away on purpose."""
    kept = _signing(new, now)
    return [
        f"the signer {principal} ({spell_key(key)}) may no longer sign"
        for key, principal in _signing(old, now).items()
        if key not in kept and key not in new.revoked and key not in old.revoked
    ]


def _lost_revocations(old: Trusted, new: Trusted) -> list[str]:
    return [f"the key {spell_key(key)} is no longer revoked" for key in old.revoked if key not in new.revoked]


def host_refusals(hostvars: list[Any], key: str, now: float) -> list[str]:
    """A sentence for each reason for which hosts' trust variables refuse a bundle of this key, with the hosts."""
    answers: dict[tuple[str, str], str | None] = {}
    said: dict[str, list[str]] = {}
    for variables in hostvars:
        signers, revoked = (
            trust_text(variables.get(name) or "", f"{name} of {variables['inventory_hostname']}")
            for name in ("ebpf_fleet_allowed_signers", "ebpf_fleet_revoked_keys")
        )
        if (signers, revoked) not in answers:
            answers[signers, revoked] = _variables_refuse(signers, revoked, key, now)
        sentence = answers[signers, revoked]
        if sentence is not None:
            said.setdefault(sentence, []).append(str(variables["inventory_hostname"]))
    return [f"{', '.join(names[:5])}{_more(names)}: {sentence}" for sentence, names in said.items()]


def _more(names: list[str]) -> str:
    return f" and {len(names) - 5} more" if len(names) > 5 else ""


def _variables_refuse(signers: str, revoked: str, key: str, now: float) -> str | None:
    trust = Trust("ebpf_fleet_allowed_signers", signers.encode("utf-8"), "ebpf_fleet_revoked_keys",
                  revoked.encode("utf-8"))  # fmt: skip
    refusal = refusal_of(Sealed("the bundle", read_key(key)), trust, now)
    return f"{refusal.message} ({refusal.code})" if refusal else None
