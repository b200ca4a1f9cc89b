# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The trust of a host: judged by both verifiers before it is changed, kept so that a rollback restores it.

The signers that a change replaces are kept in ``trust-former``, in the folder of the trust files so that
the way back is one rename(2), with the digest of the release that ran (empty: none) and the SHA-256 of
what was written. They are restored only with that release and only where no one changed the file since.
A revocation is never taken back.
"""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Any, NamedTuple

from ansible_collections.ebpf.fleet.plugins.module_utils.base import atomic_files as files
from ansible_collections.ebpf.fleet.plugins.module_utils.base.bounded import BoundedReadError, read_bytes
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.base.filesteps import FileState, FileStep, write_atomically
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle import manifest as mf
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle import trust_change
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle.signature import clock_known, read_trust
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle.trustfiles import Trust
from ansible_collections.ebpf.fleet.plugins.module_utils.release import store
from ansible_collections.ebpf.fleet.plugins.module_utils.release.trust_kept import former_signers, read_mark

SIGNERS = "etc/ebpf-fleet/trust/allowed_signers"
ABOUT_TRUST = ("EF_SIG_", "EF_TRUST_")


class Installed(NamedTuple):
    """The current release: how it is sealed, the bundle's digest, and a time that has been for certain."""

    sealed: trust_change.Sealed
    digest: str

    @property
    def release(self) -> str:
        return str(self.sealed.release)


def find_layout(paths: list[str]) -> store.Layout | None:
    """The host whose trust files are among these paths; None if none are."""
    for path in paths:
        if path.endswith("/" + SIGNERS):
            return store.Layout(Path(path[: -len(SIGNERS)]))
    return None


def running_release(layout: store.Layout) -> Installed | None:
    """The release that is current; None if there is none that can be read."""
    bundle = layout.base / "current/bundle"
    try:
        manifest = mf.load_manifest(read_bytes(bundle / mf.MANIFEST, mf.MAX_MANIFEST) or b"")
        key = trust_change.key_of(read_bytes(bundle / mf.SIGNATURE, mf.MAX_SIGNATURE) or b"")
    except (OSError, BoundedReadError, FleetError):
        return None
    mark = read_mark(layout.mark)
    floor = max(mf.seconds_of(manifest.doc["bundle"]["created"]) or 0, mark.seen_unix if mark else 0)
    return Installed(trust_change.Sealed(manifest.release_id, key, floor), manifest.digest)


def _trust_of(layout: store.Layout, texts: dict[str, str | None]) -> Trust:
    signers, revoked = str(layout.signers), str(layout.revoked)
    list_text = texts.get(revoked)
    return Trust(signers, (texts.get(signers) or "").encode("utf-8"), revoked,
                 None if list_text is None else list_text.encode("utf-8"))  # fmt: skip


def judge_steps(layout: store.Layout, steps: list[FileStep], found: dict[str, FileState]) -> trust_change.Change | None:
    """What is wrong with the steps that change trust files; None where no step does."""
    paths = (str(layout.signers), str(layout.revoked))
    if not any(step.path in paths for step in steps):
        return None
    texts = {path: found[path].content for path in paths if path in found}
    before = _trust_of(layout, texts) if texts.get(paths[0]) is not None else None
    after = _trust_of(layout, {**texts, **{step.path: step.content for step in steps}})
    running = running_release(layout)
    change = trust_change.judge_change(before, after, running.sealed if running else None, time.time())
    if change.fault is None and running is not None:
        return _ask_loader(layout, running, before, after, change)
    return change


def _ask_loader(
    layout: store.Layout, running: Installed, before: Trust | None, after: Trust, change: trust_change.Change
) -> trust_change.Change:
    """The second verifier's word: the loader of the release that runs, confined, on the trust that is to come."""
    refusal = _refusal_by_loader(layout, running, after)
    if refusal is None:
        return change
    said = f"{refusal.message} ({refusal.code})"
    if not refusal.code.startswith(ABOUT_TRUST):
        return change._replace(notes=[*change.notes, f"the loader of {running.release} could not judge it: {said}"])
    if before is None or _refusal_by_loader(layout, running, before) is not None:
        return change._replace(notes=[*change.notes, f"the loader of {running.release} refuses it before and after"])
    problem = f"the loader of the release {running.release} that runs refuses it: {said}"
    return change._replace(problems=[*change.problems, problem])


def _refusal_by_loader(layout: store.Layout, running: Installed, trust: Trust) -> FleetError | None:
    try:
        store.verify_with_loader(layout, layout.releases / running.release, running.digest, trust)
    except FleetError as error:
        return error
    except OSError as error:
        return FleetError("EF_UNKNOWN", f"it does not run ({error.strerror})")
    return None


def judge_running(layout: store.Layout) -> dict[str, Any] | None:
    """Whether the trust on the host allows the release that is installed as current; None where there is none.

    ``clock_known`` is whether the clock is plausible.
    """
    now = time.time()
    running = running_release(layout)
    if running is None:
        return None
    try:
        refusal = trust_change.refusal_of(running.sealed, read_trust(str(layout.signers), str(layout.revoked)), now)
    except FleetError as error:
        refusal = error
    return {
        "release": running.release,
        "ok": refusal is None,
        "reason_code": refusal.code if refusal else "EF_OK",
        "reason": refusal.message if refusal else "its signer is trusted",
        "clock_known": clock_known(now, running.sealed.floor),
    }


# The signers of before


def keep_former(layout: store.Layout, steps: list[FileStep], overruled: bool) -> None:
    """Before trust is written: keep the signers that are there, unless trust_overrule takes them away."""
    step = next((step for step in steps if step.path == str(layout.signers)), None)
    if step is None:
        return
    running = running_release(layout)
    digest = running.digest if running else ""
    goes_on = former_signers(layout.former, layout.signers) == digest
    if overruled or (step.before.content is None and not goes_on):
        files.remove_tree(layout.former)
        return
    if not goes_on:
        files.remove_tree(layout.former)
        write_atomically(str(layout.former / "allowed_signers"), step.before.content or "", 0o644)
        write_atomically(str(layout.former / "running"), digest + "\n", 0o644)
    written = hashlib.sha256(step.content.encode("utf-8")).hexdigest()
    write_atomically(str(layout.former / "written"), written + "\n", 0o644)
