# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A rollout as it goes on: what was told of each task, in the lines of stage_lines. Pure: times are given, in seconds.

What is known is folded: of the tasks that passed one line. What is not known, and whatever failed, is told in full.
"""

from __future__ import annotations

from typing import Any, Mapping, NamedTuple

from ansible_collections.ebpf.fleet.plugins.module_utils.base.printable import printable
from ansible_collections.ebpf.fleet.plugins.module_utils.base.words import counted
from ansible_collections.ebpf.fleet.plugins.module_utils.report import stage_lines as lines
from ansible_collections.ebpf.fleet.plugins.module_utils.report.stage_lines import Line, Wait

Json = Mapping[str, Any]

OK, CHANGED, SKIPPED, FAILED, UNREACHABLE = "ok", "changed", "skipped", "failed", "unreachable"
# A task that took so long has a line of its own, although nothing came of it.
LONG_SECONDS = 5
WIDTH = 100


class Task(NamedTuple):
    """The task in hand; `step` is that of a ledger's task."""

    name: str
    began: float
    step: str = ""
    wait: Wait | None = None


class View:
    """What was seen so far. Each method returns the lines that it makes."""

    def __init__(self, width: int = WIDTH) -> None:
        self.width = width
        self.plan: Json = {}
        self.batch: Json | None = None
        self.stage = ""
        self.stage_began = 0.0
        self.began: float | None = None
        self.done: set[str] = set()
        self.task: Task | None = None
        self.states: dict[str, str] = {}
        self.results: dict[str, dict[str, Json]] = {}
        self.ignored: set[str] = set()
        self.messages: dict[tuple[str, ...], list[str]] = {}
        self.play = ""
        self.play_began = 0.0
        self.folded = {OK: 0, SKIPPED: 0}
        self.stopped: list[str] = []
        self.report = ""
        self.verdict: Json | None = None
        self.bakes_since: float | None = None

    # --- plays and tasks ---

    def play_begins(self, name: str, now: float) -> list[Line]:
        """A play, or the next batch of the same one."""
        found = self._task_ends(now)
        if name != self.play:
            found += self._fold(now)
            self.play, self.play_began = name, now
            self.began = now if self.began is None else self.began
            found.append(Line(printable(name), lines.HEAD))
        return found

    def task_begins(self, task: Task) -> list[Line]:
        found = self._task_ends(task.began)
        self.task = task
        return found

    def host_begins(self, host: str, now: float) -> list[Line]:
        """A host is asked: the first one of a batch tells which batch it is."""
        number = (self.plan.get("batch_of") or {}).get(host)
        if number is None or self.task is None or (self.batch is not None and self.batch["number"] == number):
            return []
        batch = next((one for one in self.plan["batches"] if one["number"] == number), None)
        if batch is None or self.play_is_planning():
            return []
        found = []
        if batch["stage"] != self.stage:
            self.stage, self.stage_began = str(batch["stage"]), now
            found.append(lines.stage_head(batch, self.plan))
        self.batch, self.verdict, self.bakes_since = batch, None, None
        return [*found, lines.batch_head(batch, self.plan, len(self.done))]

    def play_is_planning(self) -> bool:
        """Whether no play has begun since the plan was made."""
        return self._planned_in == self.play

    _planned_in = ""

    def host_ends(self, host: str, state: str, result: Json, ignored: bool = False) -> None:
        """What became of a host. What was ignored is told all the same."""
        self.states[host] = state
        if state in (FAILED, UNREACHABLE):
            self.results.setdefault(state, {})[host] = result
            if ignored:
                self.ignored.add(state)

    def message(self, host: str, texts: list[str]) -> None:
        """What a task prints for a person."""
        self.messages.setdefault(tuple(texts), []).append(host)

    def _task_ends(self, now: float) -> list[Line]:
        task = self.task
        if task is None:
            return []
        found = self.failures()
        for texts, hosts in self.messages.items():
            # Where not all were told the same, each with who was.
            found += [Line(f"  on {lines.names(hosts)}:")] if len(self.messages) > 1 else []
            found += [Line(f"  {text}") for text in texts]
        found += self._outcome(task, now)
        self.task, self.states, self.messages = None, {}, {}
        return found

    def failures(self) -> list[Line]:
        """What failed and was not told yet; before it what passed until then."""
        if not self.results or self.task is None:
            return []
        found = self._fold(self.task.began)
        for kind, results in self.results.items():
            # In a batch a host that is lost sends all back, although the play itself goes on.
            if kind not in self.ignored or self.batch is not None:
                self.stopped.append(f"{printable(self.task.name)} on {lines.names(list(results))}")
            found += lines.failure_lines(self.task.name, kind, results, kind in self.ignored)
        self.results, self.ignored = {}, set()
        return found

    def _outcome(self, task: Task, now: float) -> list[Line]:
        count = {state: list(self.states.values()).count(state) for state in (OK, CHANGED, SKIPPED)}
        changed = [host for host, state in self.states.items() if state == CHANGED]
        took = now - task.began
        # Of a bake that goes in slices only the time that is left is told.
        if not changed and (took < LONG_SECONDS or self.bake_remains(now) > 0 or not count[OK]):
            self.folded[OK if count[OK] else SKIPPED] += 1 if count[OK] or count[SKIPPED] else 0
            return []
        parts = [f"{count[OK]} ok"] if count[OK] else []
        if changed:
            parts.append(f"{len(changed)} changed ({lines.names(changed)})")
        parts += [f"{count[SKIPPED]} skipped"] if count[SKIPPED] else []
        text = f"  {printable(task.name)}: {', '.join(parts)} after {lines.duration(took)}"
        return [Line(text, lines.CHANGED if changed else lines.PLAIN)]

    def _fold(self, now: float) -> list[Line]:
        """One line of everything that passed in this play and has no line of its own."""
        passed, skipped = self.folded[OK], self.folded[SKIPPED]
        self.folded = {OK: 0, SKIPPED: 0}
        if self.batch is not None or not passed:
            return []
        more = f", {skipped} did not apply" if skipped else ""
        return [
            Line(
                f"  {counted(passed, 'check')} and steps passed{more} in {lines.duration(now - self.play_began)}",
                lines.GOOD,
            )
        ]

    # --- what is known of a rollout ---

    def planned(self, plan: Json) -> None:
        """The plan, or that of what remains of a rollout."""
        self.plan = plan
        self._planned_in = self.play
        self.done = set((plan.get("resumed") or {}).get("done") or [])

    def judged(self, verdict: Json) -> list[Line]:
        """What the gate said of the batch in hand."""
        baking = verdict.get("verdict") == "pass" and not verdict.get("checks")
        if self.batch is None or baking or not verdict.get("hosts", True):
            return []
        self.verdict = verdict
        return lines.verdict_lines(verdict, self.width)

    def released(self, now: float) -> None:
        """A host of the batch has another release now: the bake begins."""
        self.bakes_since = now

    def bake_remains(self, now: float) -> float:
        """Seconds of the planned bake that are still to come; 0 where nothing bakes."""
        planned = (self.batch or {}).get("bake")
        if self.bakes_since is None or not isinstance(planned, int):
            return 0
        return max(0.0, planned - (now - self.bakes_since))

    def promoted(self, now: float) -> list[Line]:
        """The batch has passed, and perhaps its stage."""
        batch = self.batch
        if batch is None:
            return []
        self.done |= set(batch["hosts"])
        of = lines.total(self.plan)
        found = [Line(f"  promoted: {lines.progress(len(self.done), of)}", lines.GOOD)]
        if batch.get("last"):
            took = lines.duration(now - self.stage_began)
            found.append(Line(f"Stage {printable(batch['stage'])} passed in {took}", lines.GOOD))
        return found

    # --- while nothing else is told ---

    def status(self, now: float) -> str:
        """What is waited for now, in one line; empty where nothing is in hand."""
        task = self.task
        if task is None:
            return ""
        where = ""
        if self.batch is not None:
            batches = len(self.plan.get("batches") or [])
            where = f"{printable(self.batch['stage'])} {self.batch['number']}/{batches}, "
            where += f"{len(self.done)} of {lines.total(self.plan)} hosts done: "
        of = len(self.batch["hosts"]) if self.batch is not None else 0
        answers = f", {len(self.states)} of {of} answered" if of > 1 and 0 < len(self.states) < of else ""
        left, elapsed = self.bake_remains(now), now - task.began
        wait = task.wait
        sliced = wait is not None and 0 < wait.bake + wait.window - elapsed < left
        bake = f", {lines.duration(left)} of the bake left" if sliced else ""
        return f"{where}{printable(task.name)}: {lines.wait_text(wait, elapsed)}{bake}{answers}"

    def ends(self, now: float) -> list[Line]:
        """The last lines."""
        found = self._task_ends(now) + self._fold(now)
        of = lines.total(self.plan)
        took = lines.duration(now - (now if self.began is None else self.began))
        if self.stopped:
            where = lines.progress(len(self.done), of) if of else "before there was a plan"
            found.append(Line(f"Stopped after {took}: {where}; it began with: {self.stopped[0]}", lines.BAD))
        else:
            found.append(Line(f"Ended after {took}: {lines.progress(len(self.done), of)}", lines.GOOD))
        return found + ([Line(f"Report: {printable(self.report, 4000)}", lines.HEAD)] if self.report else [])
