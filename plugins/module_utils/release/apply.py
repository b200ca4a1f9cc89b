# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Executes a release plan: the one place that acts, and that takes back what failed."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any, Callable, NamedTuple

from ansible_collections.ebpf.fleet.plugins.module_utils.base import atomic_files as files
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError, explain
from ansible_collections.ebpf.fleet.plugins.module_utils.release import service, store
from ansible_collections.ebpf.fleet.plugins.module_utils.release.lease import Grant, Lease, grant_lease
from ansible_collections.ebpf.fleet.plugins.module_utils.release.mark import Mark
from ansible_collections.ebpf.fleet.plugins.module_utils.release.plan import HostState, Plan, Step
from ansible_collections.ebpf.fleet.plugins.module_utils.release.trust_kept import write_mark


class Host(NamedTuple):
    """Where a plan is executed; ``unit`` is empty when the loader's unit is not ours to manage."""

    layout: store.Layout
    machine: str
    unit: str
    wait: int
    grant: Grant | None = None  # the lease to be granted, where one was asked for
    mark: Mark | None = None  # the mark once the release is current


def apply_plan(plan: Plan, state: HostState, host: Host, incoming: store.Incoming | None) -> service.Handover | None:
    """Execute every step, or take back those that were done and raise what went wrong.

    Returns how the loader came to run the release, where a step restarts it.
    """
    run = _Run(state, host, incoming)
    done: list[Step] = []
    try:
        for step in plan.steps:
            done.append(step)
            run.act(step)
    except (OSError, FleetError) as error:
        raise run.take_back(done, explain(error)) from error
    run.commit()
    return run.handover


class _Run:
    """One execution; remembers what it needs to undo."""

    def __init__(self, state: HostState, host: Host, incoming: store.Incoming | None) -> None:
        self.state = state
        self.host = host
        self.layout = host.layout
        self.incoming = incoming
        self.restarted = False
        self.handover: service.Handover | None = None
        self.stopped = False
        self.collector_told = False
        self.kept: dict[str, list[files.Former]] = {}  # by act: what it overwrote
        self.aside: dict[str, Path] = {}  # by release: where it was put
        self.spent: list[Path] = []  # removed at the end

    def act(self, step: Step) -> None:
        getattr(self, "do_" + step.act)(step.release)

    def commit(self) -> None:
        """Remove what the undos would have needed; what cannot be removed now is a leftover for the next run."""
        for path in [*self.aside.values(), *self.spent]:
            with contextlib.suppress(OSError):
                files.remove_tree(path)

    def take_back(self, done: list[Step], error: FleetError) -> FleetError:
        """Undo the steps, last first; a failed undo is added to the first error and never hides it."""
        sentences = [error.message]
        for step in reversed(done):
            if step.undo is not None:
                self._try(f"taking back {step.act} of {step.release}", self._undo, step, sentences)
        if any(step.undo for step in done):
            self._try("starting what ran before", self._serve_as_before, None, sentences)
        held = f"the current release is {self.state.current or 'none, as before'}"
        return FleetError(error.code, "; ".join([*sentences, held]), error.file)

    @staticmethod
    def _try(what: str, act: Callable[[Any], None], argument: Any, sentences: list[str]) -> None:
        try:
            act(argument)
        except (OSError, FleetError) as failed:
            sentences.append(f"{what} failed: {explain(failed).message}")

    def _undo(self, step: Step) -> None:
        if step.undo in ("restore_file", "restore_files"):
            for former in self.kept.pop(step.act, []):
                files.bring_back(former, self._beside(former.path))
        else:
            getattr(self, f"undo_{step.undo}")(step.release)

    def _beside(self, path: Path) -> Path:
        """Where a temporary is not a file too many: beside a file of a bundle there may be none."""
        return self.layout.releases if self.layout.releases in path.parents else path.parent

    def _keep(self, act: str, *paths: Path) -> None:
        self.kept[act] = [files.remember(path) for path in paths]

    def _serve_as_before(self, _nothing: None) -> None:
        """Have systemd run what ran before, where it was told otherwise."""
        former = self.state.current
        if self.restarted and former is None:
            service.stop(self.host.unit)
        elif former is not None and (self.restarted or (self.stopped and self.state.running is not None)):
            service.restart_and_confirm(self.layout, self.host.unit, self._digest(former), self.host.wait)
        if not self.collector_told:
            return
        if self.state.collecting is None or former is None:
            service.stop(service.COLLECTOR_UNIT)
        else:
            service.start_collector(self.layout, self.state.collecting, self.host.wait)

    def needed(self) -> store.Incoming:
        if self.incoming is None:
            raise FleetError("EF_STORE", "the plan needs a bundle; run the module through its action plugin")
        return self.incoming

    def do_install(self, release: str) -> None:
        aside = store.install(self.layout, self.needed(), self.host.machine)
        if aside is not None:
            self.aside[release] = aside

    def do_write_desired(self, release: str) -> None:
        self._keep("write_desired", self.layout.releases / release / "desired.json")
        store.write_desired(self.layout, release, self.needed().desired)

    def do_write_signature(self, release: str) -> None:
        store.verify_signature_with_loader(self.layout, self.needed(), self.host.machine)
        self._keep("write_signature", store.signature_path(self.layout, release))
        store.write_signature(self.layout, release, self.needed().signature)

    def do_set_mark(self, release: str) -> None:
        self._keep("set_mark", self.layout.mark)
        if self.host.mark is None:
            raise FleetError("EF_STORE", f"the plan needs the mark of {release}; run the module again")
        write_mark(self.layout.mark, self.host.mark)

    def do_restore_trust(self, _release: str) -> None:
        kept = self.layout.former / "allowed_signers"
        self._keep("restore_trust", self.layout.signers, kept)
        kept.replace(self.layout.signers)
        files.sync_folder(self.layout.signers.parent)
        self.spent.append(self.layout.former)

    def do_set_previous(self, release: str) -> None:
        store.point(self.layout, "previous", release)

    def do_activate(self, release: str) -> None:
        store.verify_with_loader(self.layout, self.layout.releases / release, self._digest(release))
        store.point(self.layout, "current", release)

    def do_swap_back(self, release: str) -> None:
        store.verify_with_loader(self.layout, self.layout.releases / release, self._digest(release))
        store.swap_back(self.layout)

    def do_grant_lease(self, release: str) -> None:
        if self.host.grant is None:
            raise FleetError("EF_STORE", "the plan needs a lease to grant; give 'lease'")
        now = service.boottime_ns()
        lease = grant_lease(self.host.grant, self._digest(release), service.boot_id(), now)
        store.write_lease(self.layout, lease)

    def do_drop_lease(self, _release: None) -> None:
        store.write_lease(self.layout, None)

    def do_deactivate(self, _release: str) -> None:
        store.point(self.layout, "current", None)

    def do_forget_previous(self, _release: str) -> None:
        store.point(self.layout, "previous", None)

    def do_link_desired(self, _release: None) -> None:
        self._keep("link_desired", self.layout.desired_link)
        store.link_desired(self.layout)

    def do_unlink_desired(self, _release: None) -> None:
        self._keep("unlink_desired", self.layout.desired_link)
        store.unlink_desired(self.layout)

    def do_remove(self, release: str) -> None:
        self.aside[release] = store.put_aside(self.layout, release)

    def do_restart(self, release: str) -> None:
        self.restarted = True
        self.handover = service.hand_over_or_restart(self.layout, self.host.unit, self._digest(release), self.host.wait)

    def do_stop(self, _release: None) -> None:
        self.stopped = True
        service.stop(self.host.unit)

    def do_start_collector(self, release: str) -> None:
        self.collector_told = True
        service.start_collector(self.layout, self._digest(release), self.host.wait)

    def do_stop_collector(self, _release: None) -> None:
        self.collector_told = True
        service.stop(service.COLLECTOR_UNIT)

    def undo_remove(self, release: str) -> None:
        if (self.layout.releases / release).is_dir():
            files.remove_tree(store.put_aside(self.layout, release))

    def undo_restore_installed(self, release: str) -> None:
        self.undo_return_release(release)

    def undo_return_release(self, release: str) -> None:
        aside = self.aside.pop(release, None)
        if aside is not None:
            store.bring_release(self.layout, aside, release)

    def undo_restore_previous(self, _release: str) -> None:
        store.point(self.layout, "previous", self.state.previous)

    def undo_restore_lease(self, _release: str | None) -> None:
        """The former lease. One that kept all off without being understood comes back as one that ran out."""
        former = self.state.lease
        if former is not None and not former.usable and self.state.current is not None:
            former = Lease(self._digest(self.state.current), service.boot_id(), 0, "a lease that was not understood")
        store.write_lease(self.layout, former)

    def undo_swap_forward(self, release: str) -> None:
        self.undo_activate_former(release)
        store.point(self.layout, "previous", self.state.previous)

    def undo_activate_former(self, _release: str) -> None:
        """Let ``current`` be what it was; the loader is told when all else was taken back."""
        store.point(self.layout, "current", self.state.current)

    def _digest(self, release: str) -> str:
        """The digest of a release that is installed or on its way in."""
        digest: str | None = None
        if self.incoming is not None and self.incoming.manifest.release_id == release:
            digest = self.incoming.manifest.digest
        elif release in self.state.releases:
            digest = self.state.releases[release].digest
        if digest is None:
            raise FleetError("EF_STORE", f"the digest of {release} is not known; deploy it again")
        return digest
