# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host must do to reach a wanted release: a plan as data, with its diff. Pure."""

from __future__ import annotations

from typing import Any, NamedTuple, NoReturn

from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.release import mark as mk
from ansible_collections.ebpf.fleet.plugins.module_utils.release.desired import Features
from ansible_collections.ebpf.fleet.plugins.module_utils.release.lease import Grant, Lease, describe_lease


class Installed(NamedTuple):
    """A release on the host. ``sequence`` and ``digest`` are None when its manifest cannot be read.

    ``damage`` says what is wrong with its files, None if nothing is or if it was not looked at.
    """

    release: str
    digest: str | None
    sequence: int | None
    features: Features | None
    signature: bytes | None
    damage: str | None
    fallbacks: tuple[str, ...] = ()
    collector: bool = False  # it opted into BCC and its bundle has the collector


class HostState(NamedTuple):
    """What is on the host. ``running`` is the digest that a live loader reports, else None.

    ``collecting`` is the same of the BCC collector.
    """

    current: str | None
    previous: str | None
    releases: dict[str, Installed]
    desired_linked: bool
    running: str | None
    collecting: str | None = None
    lease: Lease | None = None
    mark: mk.Mark | None = None
    # The digest of the release with which the signers of before a change of trust come back; None: none do.
    former_signers: str | None = None


class Request(NamedTuple):
    """What is wanted; the fields of the bundle are None unless ``state`` is ``present``."""

    state: str
    release: str | None
    digest: str | None
    sequence: int | None
    features: Features | None
    signature: bytes | None
    keep: int
    allow_downgrade: bool
    from_digest: str | None
    manage_service: bool
    fallbacks: tuple[str, ...] = ()
    collector: bool = False
    lease: Grant | None = None
    now: int = 0  # seconds since 1970, for the record of the mark


class Step(NamedTuple):
    """One act of the executor and the act that takes it back.

    None only where nothing is written: what was told to systemd is put right when all else was taken back.
    """

    act: str
    release: str | None
    undo: str | None


class Plan(NamedTuple):
    """Steps in order and the host before and after them, as the diff shows it."""

    steps: list[Step]
    before: dict[str, Any]
    after: dict[str, Any]
    mark: mk.Mark | None = None  # as the steps leave it

    @property
    def changed(self) -> bool:
        return bool(self.steps)

    @property
    def needs_archive(self) -> bool:
        return any(step.act == "install" for step in self.steps)


def plan_release(state: HostState, request: Request) -> Plan:
    """The plan from ``state`` to ``request``; raises FleetError where a rule forbids it."""
    planners = {"present": _plan_present, "rolled_back": _plan_rollback, "absent": _plan_absent}
    steps, after = planners[request.state](state, request)
    shown = [describe(one, request.manage_service) for one in (state, after)]
    return Plan(steps, shown[0], shown[1], after.mark)


def describe(state: HostState, manage_service: bool) -> dict[str, Any]:
    """The part of a host's state that a release changes, for a person to read."""
    current = state.releases.get(state.current) if state.current else None
    shown: dict[str, Any] = {
        "current": state.current,
        "previous": state.previous,
        "features": current.features if current else None,
        "fallbacks": list(current.fallbacks) if current else [],
        "releases": sorted(state.releases),
        "damaged": sorted(name for name, release in state.releases.items() if release.damage),
        "desired_linked": state.desired_linked,
        "lease": describe_lease(state.lease),
        "mark": state.mark.sequence if state.mark else None,
    }
    if manage_service:
        shown["running"] = state.running
        shown["collecting"] = state.collecting
    return shown


def _plan_present(state: HostState, request: Request) -> tuple[list[Step], HostState]:
    assert request.release is not None
    _refuse_downgrade(state, request)
    target = state.releases.get(request.release)
    steps = _content_steps(target, request)
    reinstalled = any(step.act == "install" for step in steps)
    previous = state.previous
    if state.current != request.release:
        if state.current is not None:
            steps.append(Step("set_previous", state.current, "restore_previous"))
            previous = state.current
        steps.extend(_grant_steps(state, request, activates=True))
        steps.extend(_mark_steps(state, request, previous))
        steps.append(Step("activate", request.release, "activate_former"))
    else:
        steps.extend(_grant_steps(state, request, activates=False))
        steps.extend(_mark_steps(state, request, previous))
    if not state.desired_linked:
        steps.append(Step("link_desired", None, "restore_file"))
    activated = any(step.act == "activate" for step in steps)
    if request.manage_service and (activated or reinstalled or state.running != request.digest):
        steps.append(Step("restart", request.release, None))
    after = _with_target(state, request, previous)._replace(
        lease=_lease_after(state, request, steps), mark=mark_after(state, request, previous),
        former_signers=state.former_signers,
    )  # fmt: skip
    steps.extend(_collector_steps(state, after, request, restarted=any(step.act == "restart" for step in steps)))
    doomed = prunable(after, request.keep)
    steps.extend(Step("remove", release, "return_release") for release in doomed)
    kept = {name: value for name, value in after.releases.items() if name not in doomed}
    return steps, after._replace(releases=kept)


def mark_after(state: HostState, request: Request, previous: str | None) -> mk.Mark:
    """The mark once the wanted release is current."""
    kept = [str(request.digest)]
    held = state.releases.get(previous) if previous else None
    if held is not None and held.digest is not None:
        kept.append(held.digest)
    stays = state.current == request.release
    return mk.raise_mark(state.mark, int(request.sequence or 0), str(request.digest), kept, request.now, stays)


def _mark_steps(state: HostState, request: Request, previous: str | None) -> list[Step]:
    """Before the release is activated: then no moment has a release that the loader would refuse."""
    if mark_after(state, request, previous).same_rule(state.mark):
        return []
    return [Step("set_mark", request.release, "restore_file")]


def _grant_steps(state: HostState, request: Request, activates: bool) -> list[Step]:
    """A lease before the release that it watches; an earlier run's is renewed, or ended where none is asked.

    A host that ran the release already, without a lease, is not put on probation: it has nothing to go back to.
    """
    held = state.lease is not None and state.lease.concerns(request.digest)
    if request.lease is not None and (activates or held):
        return [Step("grant_lease", request.release, "restore_lease")]
    if request.lease is None and held:
        return [Step("drop_lease", None, "restore_lease")]
    return []


def _lease_after(state: HostState, request: Request, steps: list[Step]) -> Lease | None:
    """The lease as the steps leave it; its time is that of the act."""
    acts = {step.act for step in steps}
    if "grant_lease" in acts and request.lease is not None:
        return Lease(request.digest, None, 0, request.lease.holder)
    return None if "drop_lease" in acts else state.lease


def _drop_steps(state: HostState) -> list[Step]:
    return [Step("drop_lease", None, "restore_lease")] if state.lease is not None else []


def _collector_steps(state: HostState, after: HostState, request: Request, restarted: bool) -> list[Step]:
    """Have the BCC collector run exactly where the release that will be current needs it.

    A collector that runs is restarted by systemd together with the loader.
    """
    if not request.manage_service:
        return []
    wanted = after.collecting is not None
    if wanted and (restarted or state.collecting != after.collecting):
        return [Step("start_collector", after.current, None)]
    if not wanted and state.collecting is not None:
        return [Step("stop_collector", None, None)]
    return []


def _content_steps(target: Installed | None, request: Request) -> list[Step]:
    if target is None or target.damage:
        return [Step("install", request.release, "remove" if target is None else "restore_installed")]
    steps = []
    if target.signature != request.signature:
        steps.append(Step("write_signature", request.release, "restore_file"))
    if (target.features, target.fallbacks) != (request.features, request.fallbacks):
        steps.append(Step("write_desired", request.release, "restore_file"))
    return steps


def _with_target(state: HostState, request: Request, previous: str | None) -> HostState:
    assert request.release is not None
    target = Installed(
        request.release,
        request.digest,
        request.sequence,
        request.features,
        request.signature,
        None,
        request.fallbacks,
        request.collector,
    )
    releases = dict(state.releases)
    releases[request.release] = target
    collecting = request.digest if request.collector and request.manage_service else None
    return HostState(request.release, previous, releases, True, request.digest, collecting)


def _refuse_downgrade(state: HostState, request: Request) -> None:
    """A release that is not newer than the current one, or than any that ran here, needs the operator's word."""
    if state.current == request.release or request.allow_downgrade:
        return
    mk.check_downgrade(state.mark, int(request.sequence or 0), str(request.digest))
    if state.current is None:
        return
    current = state.releases.get(str(state.current))
    sequence = current.sequence if current else None
    if sequence is None:
        _downgrade(f"the sequence of the current release {state.current} cannot be read")
    if request.sequence is None or request.sequence <= sequence:
        held = f"the current release {state.current} has {sequence}"
        _downgrade(f"the bundle has sequence {request.sequence}, {held}")


def _downgrade(problem: str) -> NoReturn:
    remedy = "build the bundle with a higher sequence or set 'allow_downgrade: true'"
    raise FleetError("EF_SEQUENCE_DOWNGRADE", f"{problem}; {remedy}", "manifest.json")


def prunable(state: HostState, keep: int) -> list[str]:
    """The releases beyond ``keep``, oldest first; never the current or the previous one."""
    held = {state.current, state.previous}
    others = [release for name, release in state.releases.items() if name not in held]
    others.sort(key=lambda release: (release.sequence or 0, release.release))
    room = max(0, keep - (len(state.releases) - len(others)))
    return [release.release for release in others[: max(0, len(others) - room)]]


def _plan_rollback(state: HostState, request: Request) -> tuple[list[Step], HostState]:
    """Back to the previous release; a host that does not run ``from_digest`` stays as it is."""
    current = state.releases.get(state.current) if state.current else None
    if request.from_digest and (current is None or current.digest != request.from_digest):
        return [], state
    if state.current is None or state.previous in (None, state.current):
        return _rollback_without_previous(state, request)
    digest = _usable_digest(state, str(state.previous))
    steps = _trust_steps(state, digest) + [Step("swap_back", state.previous, "swap_forward"), *_drop_steps(state)]
    if not state.desired_linked:
        steps.append(Step("link_desired", None, "restore_file"))
    if request.manage_service:
        steps.append(Step("restart", state.previous, None))
    running = digest if request.manage_service else state.running
    collecting = digest if request.manage_service and state.releases[str(state.previous)].collector else None
    after = state._replace(
        current=state.previous, previous=None, desired_linked=True, running=running, collecting=collecting, lease=None,
        former_signers=None if state.former_signers == digest else state.former_signers,
    )  # fmt: skip
    steps.extend(_collector_steps(state, after, request, restarted=True))
    return steps, after


def _trust_steps(state: HostState, digest: str) -> list[Step]:
    """Before the release is verified: the signers that were trusted while it ran are trusted again."""
    return [Step("restore_trust", state.previous, "restore_files")] if state.former_signers == digest else []


def _rollback_without_previous(state: HostState, request: Request) -> tuple[list[Step], HostState]:
    """Before a first release nothing ran: that is restored, if the release to leave was named."""
    if state.current is None or state.previous is not None or request.from_digest is None:
        raise FleetError(
            "EF_NO_PREVIOUS",
            "there is no previous release on this host; deploy one with state 'present', or stop what runs "
            "with state 'absent'",
        )
    steps = [Step("deactivate", state.current, "activate_former")]
    if request.manage_service:
        steps.append(Step("stop", None, None))
    steps.extend(_drop_steps(state))
    after = state._replace(current=None, running=None, collecting=None, lease=None)
    steps.extend(_collector_steps(state, after, request, restarted=False))
    return steps, after


def _usable_digest(state: HostState, name: str) -> str:
    """The digest of a release that can be activated; a damaged one is a refusal."""
    release = state.releases.get(name)
    if release is None or release.damage or release.digest is None:
        problem = release.damage if release and release.damage else "its files are not there"
        raise FleetError(
            "EF_NO_PREVIOUS",
            f"the previous release {name} cannot be used: {problem}; deploy a release with state 'present' "
            "or stop what runs with state 'absent'",
        )
    return release.digest


def _plan_absent(state: HostState, request: Request) -> tuple[list[Step], HostState]:
    """Remove everything but the mark: what ran here once stays known."""
    steps: list[Step] = []
    nothing = HostState(None, None, {}, False, None, mark=state.mark, former_signers=state.former_signers)
    if request.manage_service and (state.current or state.running):
        steps.append(Step("stop", None, None))
    steps.extend(_collector_steps(state, nothing, request, restarted=False))
    if state.current:
        steps.append(Step("deactivate", state.current, "activate_former"))
    if state.previous:
        steps.append(Step("forget_previous", state.previous, "restore_previous"))
    if state.desired_linked:
        steps.append(Step("unlink_desired", None, "restore_file"))
    steps.extend(_drop_steps(state))
    steps.extend(Step("remove", release, "return_release") for release in sorted(state.releases))
    return steps, nothing
