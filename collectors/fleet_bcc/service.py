# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The service: brings about what is desired, one feature at a time, and obeys kill orders at any moment."""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import signal
import socket
import threading
import time
from pathlib import Path
from typing import Any

from ansible_collections.ebpf.fleet.collectors.fleet_bcc.basics import (
    EXIT_FAILED,
    EXIT_REFUSED,
    CannotRunError,
    Reason,
    RefusedError,
)
from ansible_collections.ebpf.fleet.collectors.fleet_bcc.bundle import Bundle, open_bundle
from ansible_collections.ebpf.fleet.collectors.fleet_bcc.compile_job import Compiled, Job
from ansible_collections.ebpf.fleet.collectors.fleet_bcc.decide import Asked, decide
from ansible_collections.ebpf.fleet.collectors.fleet_bcc.desired import Desired, read_desired
from ansible_collections.ebpf.fleet.collectors.fleet_bcc.events import Sink
from ansible_collections.ebpf.fleet.collectors.fleet_bcc.feature import READ_LIMIT, Feature
from ansible_collections.ebpf.fleet.collectors.fleet_bcc.files import read_small
from ansible_collections.ebpf.fleet.collectors.fleet_bcc.journal import notify, say
from ansible_collections.ebpf.fleet.collectors.fleet_bcc.kernel import kernel_facts, process_start_ns
from ansible_collections.ebpf.fleet.collectors.fleet_bcc.live import EVENTS_MAP, Live
from ansible_collections.ebpf.fleet.collectors.fleet_bcc.loader_status import LoaderStatus
from ansible_collections.ebpf.fleet.collectors.fleet_bcc.orders import Orders, read_orders
from ansible_collections.ebpf.fleet.collectors.fleet_bcc.status import Present, Publisher, overall

CHECK_SECONDS = 0.1  # between two checks of the orders, and of the ring buffers


def kernel_counts_runs(loader_counts: bool) -> bool:
    """Whether run times and counts of programs grow: the loader has that on, or the host has."""
    return loader_counts or read_small("/proc/sys/kernel/bpf_stats_enabled").strip() == "1"


class Service:
    """Brings about what is desired, one feature at a time, and obeys kill orders at any moment."""

    def __init__(self, options: argparse.Namespace, entry: Path) -> None:
        """`entry` is the bcc.py that runs, and that compiles as a child."""
        self.options, self.entry = options, entry
        self.publisher = Publisher(Path(options.state))
        self.kernel = kernel_facts()
        self.families = [each for each in (self.kernel["family"], self.kernel["distro_family"]) if each]
        self.order_folders = [Path(options.etc) / "kill.d", Path(options.run) / "kill.d"]
        self.bundle: Bundle | None = None
        self.refusal: Reason | None = None
        self.features: list[Feature] = []
        self.orders = Orders([], [])
        self.desired = Desired({}, False, None)
        self.sink = Sink(Path(options.log))
        self.started_ns = process_start_ns(os.getpid())
        self.with_stats = False
        self.stopping = False
        self.ending = False
        self.lock = threading.Lock()
        self.wake_in, self.wake_out = socket.socketpair()
        self.wake_in.setblocking(False)
        self.wake_out.setblocking(False)

    # What should be

    def known_features(self) -> list[str] | None:
        return self.bundle.features if self.bundle else None

    def find_orders(self) -> Orders:
        return read_orders(self.order_folders, self.families, self.known_features())

    def cut_killed(self, orders: Orders) -> int:
        """Detach what the orders forbid and end its compiler; how many features that were."""
        cut = 0
        for feature in self.features:
            if not orders.of_feature(feature.name):
                continue
            job = feature.job
            if job:
                job.kill()
            with self.lock:
                cut += bool(feature.live and feature.live.cut())
        return cut

    def guard(self) -> None:
        """A thread of its own: neither a disk nor a compiler stands between an order and its effect."""
        while not self.ending:
            try:
                orders = self.find_orders()
                if self.cut_killed(orders) or orders != self.orders:
                    self.wake()
            except Exception as error:  # the guard must not end, whatever it meets
                say(3, f"the guard met an error: {error!r}")
            time.sleep(CHECK_SECONDS)

    def wake(self) -> None:
        with contextlib.suppress(OSError):
            self.wake_out.send(b"!")

    def obey(self) -> bool:
        """Read the orders and detach; True when they are not what they were."""
        orders = self.find_orders()
        cut = self.cut_killed(orders)
        changed = orders != self.orders
        before, self.orders = self.orders, orders
        self.say_orders(before, orders)
        if cut:
            say(5, f"kill: {cut} features detached")
        return changed

    @staticmethod
    def say_orders(before: Orders, now: Orders) -> None:
        """What is new, and what was released."""
        for order in now.orders:
            if order not in before.orders:
                say(5, f"kill order {order.path} holds")
        for order in before.orders:
            if order not in now.orders:
                say(5, f"kill order {order.path} was released")
        for path in now.unknown:
            if path not in before.unknown:
                say(4, f"kill order {path} holds nothing: its name must be global, feature.NAME or family.FAMILY")

    def renew_desired(self, at_start: bool) -> bool:
        """What cannot be read leaves in force what was; True when a word of it is new."""
        assert self.bundle is not None
        found = read_desired(Path(self.options.etc) / "desired.json", self.bundle.digest)
        if found == self.desired:
            return False
        if found.error and found.error.code == "EF_DESIRED_MALFORMED":
            if self.desired.error != found.error:
                say(3, found.error.text)
            self.desired = found if at_start else self.desired._replace(error=found.error)
            return True
        self.desired = found
        return True

    def take_down(self, feature: Feature, state: str, reason: Reason) -> bool:
        """Let go of all that a feature holds, and give it a state; True when that is a change."""
        changed = (feature.state, feature.reason) != (state, reason)
        if feature.job:
            feature.job.close()
            feature.job = None
        was_attached = feature.detach(self.lock, self.sink)
        feature.state, feature.reason = state, reason
        if was_attached:
            say(5, f"feature {feature.name}: detached: {reason.text} ({reason.code})")
        return changed

    def settle(self, feature: Feature, loader: LoaderStatus) -> bool:
        """Do what is decided of one feature; True when it changed."""
        order, expired = self.orders.of_feature(feature.name), feature.source.expired()
        verdict = decide(Asked(feature.name, order, self.desired, expired, loader.could_not(feature.name)))
        feature.wanted = verdict.wanted
        if verdict.state == "attached":
            return self.bring_up(feature, verdict.reason)
        if verdict.state != "disabled":
            feature.tried = False
        return self.take_down(feature, verdict.state, verdict.reason)

    def bring_up(self, feature: Feature, why: Reason) -> bool:
        """What should run: begin what is missing. True when something changed."""
        with self.lock:
            cut = bool(feature.live and not feature.live.links)
        if cut:
            # An order came and went before we were here: attach again.
            feature.detach(self.lock, self.sink)
            feature.state = "off"
        if feature.live or feature.job or feature.tried:
            return False
        if any(other.job for other in self.features):
            return False  # one compiler at a time
        feature.tried = True
        feature.state, feature.reason = "off", Reason("EF_UNKNOWN", "about to be attached: BCC compiles it")
        events_map = EVENTS_MAP if feature.source.signal("events") else None
        try:
            feature.job = Job(self.entry, feature.source, events_map)
        except OSError as error:
            self.fail(feature, CannotRunError("EF_BCC_COMPILE", f"the compiler cannot be started: {error}"), why)
        return True

    def fail(self, feature: Feature, error: CannotRunError, why: Reason) -> None:
        """This feature cannot run, for the loader's reason and for ours."""
        text = f"bcc: {error.message}; the loader could not: {why.text} ({why.code})"
        self.take_down(feature, "disabled", Reason(error.code, text))
        say(4, f"feature {feature.name}: disabled: {feature.reason.text} ({feature.reason.code})")

    def harvest(self, feature: Feature, loader: LoaderStatus) -> bool:
        """Take what the compiler made and attach it; True when something changed."""
        if not feature.job:
            return False
        why = loader.could_not(feature.name)[0] or Reason("EF_UNKNOWN", "the loader does not say")
        try:
            compiled = feature.job.poll()
            if compiled is None:
                return False
            feature.job.close()
            feature.job = None
            self.attach(feature, compiled)
        except CannotRunError as error:
            self.fail(feature, error, why)
            return True
        if feature.live:
            feature.state, feature.reason = "attached", Reason(why.code, why.text)
            self.publish()  # before it is announced
            say(5, f"feature {feature.name}: attached through BCC, {len(feature.live.links)} programs")
        return True

    def attach(self, feature: Feature, compiled: Compiled) -> None:
        """Everything of it, or nothing. Raises CannotRunError."""
        try:
            live = Live(feature.source, compiled, self.sink)
        except (CannotRunError, OSError) as error:
            compiled.close()
            raise (
                error if isinstance(error, CannotRunError) else CannotRunError("EF_LOAD_REJECTED", str(error))
            ) from error
        try:
            live.prepare(feature.sample_every)
            with self.lock:
                if self.find_orders().of_feature(feature.name):
                    live.close()  # the order is dealt with by the next check
                    feature.tried = False
                    return
                live.attach()
                feature.live = live
        except (CannotRunError, OSError) as error:
            live.close()
            raise (
                error if isinstance(error, CannotRunError) else CannotRunError("EF_ATTACH_FAILED", str(error))
            ) from error

    def apply_sampling(self, feature: Feature) -> bool:
        entry = self.desired.features.get(feature.name, {})
        every = int(entry.get("sample_every", feature.source.sample_every))
        if every == feature.sample_every:
            return False
        feature.sample_every = every
        if feature.live:
            feature.live.sample(every)
        return True

    def rescan(self, loader: LoaderStatus, at_start: bool = False) -> bool:
        """Read everything again and act on it; True on any change."""
        changed = self.obey()
        changed |= self.renew_desired(at_start)
        loader.listen()
        for feature in self.features:
            changed |= self.settle(feature, loader)
            changed |= self.apply_sampling(feature)
            changed |= self.harvest(feature, loader)
        self.with_stats = kernel_counts_runs(loader.stats_enabled)
        return changed

    # What is told

    def present(self) -> Present:
        """What there is to tell of now."""
        return Present(
            self.kernel, self.started_ns, self.bundle, self.refusal, self.stopping, self.orders, self.desired,
            self.with_stats, self.features,
        )  # fmt: skip

    def publish(self) -> None:
        self.publisher.publish(self.present())

    # The loop

    def wait(self, seconds: float) -> bool:
        """Until something may have happened; True when orders or a compiler ask to be looked at."""
        poller = select.poll()
        poller.register(self.wake_in, select.POLLIN)
        asking = {self.wake_in.fileno()}
        for feature in self.features:
            if feature.job:
                poller.register(feature.job.socket, select.POLLIN)
                asking.add(feature.job.socket.fileno())
        ready = {fd for fd, _events in poller.poll(max(0, int(seconds * 1000)))}
        with contextlib.suppress(OSError):
            self.wake_in.recv(4096)
        return bool(ready & asking)

    def read_feeds(self) -> bool:
        more = False
        for feature in self.features:
            if feature.live and feature.live.feed:
                more |= feature.live.feed.read(READ_LIMIT)
        self.sink.flush()
        return more

    def loop(self, loader: LoaderStatus) -> None:
        look, changed, tick = True, False, time.monotonic()
        while not self.stopping:
            if look:
                changed = self.rescan(loader)
            more = self.read_feeds()
            if changed or time.monotonic() >= tick:
                self.publish()
                notify("WATCHDOG=1")
                tick = time.monotonic() + self.options.interval
            if self.retires():
                return
            look = self.wait(0 if more or changed else self.patience(tick))
            look = look or changed or time.monotonic() >= tick
            changed = False

    def patience(self, tick: float) -> float:
        """Seconds until there is something to do by ourselves."""
        left = max(0.0, tick - time.monotonic()) + 0.001
        reads = any(feature.live and feature.live.feed for feature in self.features)
        return min(CHECK_SECONDS, left) if reads else left

    def retires(self) -> bool:
        """BCC is not opted into (any more): nothing to stay for. Opting in starts the service again."""
        error = self.desired.error
        if self.desired.bcc or (error and error.code == "EF_DESIRED_MALFORMED"):
            return False
        say(5, "desired.json has no fallback 'bcc': the collector ends")
        return True

    def on_signal(self, _number: int, _frame: Any) -> None:
        self.stopping = True
        self.wake()

    def stop(self) -> None:
        """Detach first; then there is time to say so."""
        self.stopping = True
        with self.lock:
            for feature in self.features:
                if feature.live:
                    feature.live.cut()
        notify("STOPPING=1")
        for feature in self.features:
            self.take_down(feature, "off", Reason("EF_NOT_WANTED", "the collector was stopped"))
        self.publish()

    def serve(self) -> int:
        assert self.bundle is not None
        loader = LoaderStatus(Path(self.options.loader_status), self.bundle.digest)
        self.features = [Feature(source) for source in self.bundle.sources]
        self.rescan(loader, at_start=True)
        self.publish()
        notify("READY=1\nSTATUS=" + overall(self.present())[1].text[:200].replace("\n", " "))
        guard = threading.Thread(target=self.guard, name="guard", daemon=True)
        guard.start()
        try:
            self.loop(loader)
        finally:
            self.stop()
            self.ending = True
            guard.join()
        return 0

    def run(self) -> int:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.on_signal)
        folder = self.publisher.folder
        try:
            folder.mkdir(mode=0o755, exist_ok=True)
        except OSError as error:
            say(3, f"cannot make {folder}: {error.strerror}; make it, or give --state")
            return EXIT_FAILED
        try:
            self.bundle = open_bundle(self.options, self.entry)
        except RefusedError as refused:
            self.refusal = Reason(refused.code, refused.message)
            say(3, f"refused: {refused.message} ({refused.code})")
            self.orders = self.find_orders()
            self.publish()
            notify("STATUS=refused: see the journal")
            return EXIT_REFUSED
        return self.serve()
