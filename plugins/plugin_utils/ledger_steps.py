# Copyright: the ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a rollout writes into its ledger at each of its steps, and what people asked for that it honours there.

A step returns what its task has beside the usual; one that ends the rollout returns a failure, after what it wrote.
"""

from __future__ import annotations

import hashlib
import os
import time

from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.base.printable import printable
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout import (
    ledger,
    ledger_history,
    ledger_lock,
    ledger_resume,
    quarantine,
)
from ansible_collections.ebpf.fleet.plugins.plugin_utils import ledger_folder
from ansible_collections.ebpf.fleet.plugins.plugin_utils.ledger_folder import TEXT_LIMIT
from ansible_collections.ebpf.fleet.plugins.plugin_utils.told import failed

POLL_SECONDS = 0.5


class Steps:
    """The steps of one task: `folder` is open, `here` is the ansible-playbook process, `written` what was appended."""

    def __init__(self, folder, here, arguments, hostvars):
        self.folder, self.here, self.arguments, self.hostvars = folder, here, arguments, hostvars
        self.written = []
        self.notes = []

    def run(self, step):
        """Do one step, by its name."""
        return getattr(self, step)()

    def write(self, kind, rollout, **data):
        """Append an entry; what came from hosts is made printable, names of hosts stay what they are."""
        self.written.append(self.folder.append(rollout, kind, whole(data)))

    def own(self):
        """The id of the rollout that this process runs; FleetError where the lock is not its own any more."""
        owner, state = self.folder.held_by(self.here)
        if state != ledger_lock.MINE or not owner.rollout:
            holder = f"it is held by {ledger_lock.who(owner)}" if owner else "no one holds it"
            raise FleetError("EF_ROLLOUT_RUNNING", f"{self.folder.lock}: is not this rollout's lock: {holder}")
        return owner.rollout

    # --- before the first batch ---

    def lock(self):
        """Take the fleet's lock; a ledger that is broken is found now, and not in the middle."""
        stale = self.folder.take(self.here)
        found = self.folder.read()
        if found.broken_line is not None:
            self.folder.release(self.here)
            raise ledger.LedgerBrokenError(ledger_folder.broken(self.folder.ledger, found), str(self.folder.ledger))
        if found.torn:
            self.notes.append(f"{self.folder.ledger}: {ledger.sentence_of(found)}; it is kept in {self.folder.torn}")
        if stale is not None and stale.rollout:
            self.notes.append(f"the lock of {ledger_lock.who(stale)} is taken over: that process has ended")
        unfinished = stale.rollout if stale else ""
        if (
            unfinished
            and unfinished != self.arguments["resume"]
            and unfinished in ledger_history.rollouts(found.entries)
        ):
            self.notes.append(
                f"{unfinished} did not come to its end: ebpf.fleet.history -e ebpf_fleet_rollout_id={unfinished}"
            )
        sealed = None if self.arguments["resume"] else self.folder.seal()
        if sealed is not None:
            self.notes.append(f"the ledger was large: its lines are in {sealed} now, and it goes on behind them")
        return {"quarantine_file": str(self.folder.quarantine), "stale": ledger_lock.who(stale) if stale else None}

    def resume(self):
        """The plan of what remains of a rollout, by what its hosts were found to run."""
        rollout, digest = self.arguments["resume"], self.arguments["digest"]
        entries = self.folder.entries(rollout)
        own = ledger_resume.refuse(entries, rollout, digest, alive=False)
        plan = ledger_resume.remaining_plan(own, self.arguments["plan"], self.found(own[0].data["plan"]["hosts"]))
        return {"plan": plan}

    def found(self, hosts):
        """What each host was found to run, by the variables that the playbook registered."""
        answers = {}
        for host in hosts:
            observation = value_at(self.hostvars, host, "ebpf_fleet_found", "observation", "end")
            probation = value_at(self.hostvars, host, "ebpf_fleet_probation")
            # Its task never fails, so that `failed` alone says nothing: what a host has answered has this in it.
            answered = isinstance(probation, dict) and "left_seconds" in probation
            answered = answered and not probation.get("failed") and not probation.get("unreachable")
            answers[host] = ledger_resume.Found(
                value_at(observation, "witness", "installed_digest"),
                value_at(observation, "status", "bundle", "digest"),
                bool(probation.get("changed")) if answered else None,
            )
        return answers

    def start(self):
        """Write that the rollout begins, or goes on; one that has nothing to do ends at once."""
        plan, resumed = self.arguments["plan"], self.arguments["resume"]
        if resumed:
            rollout = resumed
            ledger_resume.refuse(self.folder.entries(rollout), rollout, self.arguments["digest"], alive=False)
            self.folder.forget(rollout)
        else:
            rollout = new_id(self.here, plan, self.arguments["digest"])
        # First the lock: whoever finds the entry finds who it is of.
        self.folder.name(self.here, rollout)
        if resumed:
            self.write(ledger.RESUMED, rollout, who=self.here.user, **plan["resumed"])
        else:
            self.write(
                ledger.STARTED, rollout, who=self.here.user, bundle=self.arguments["bundle"], plan=plan,
                bundle_digest=self.arguments["digest"], plan_digest=ledger.digest_of_document(whole(plan)),
                controller=self.here.host, strata=by_stratum(self.arguments["strata"]),
            )  # fmt: skip
        self.notes.append(f"rollout {rollout} {'goes on' if resumed else 'begins'}; ledger {self.folder.path}")
        if not plan["hosts"]:
            self.finish(rollout, "every host was done")
        return {"rollout": rollout}

    def end(self, rollout, outcome, sentence):
        """Write the end, and give the fleet back."""
        self.write(ledger.ENDED, rollout, outcome=outcome, sentence=sentence)
        self.folder.forget(rollout)
        self.folder.release(self.here)

    # --- a batch ---

    def batch(self):
        """Begin a batch, unless a person asked the rollout to pause or to end before it, or a freeze keeps it."""
        rollout, batch = self.own(), self.arguments["batch"]
        before = f"before batch {batch['number']}"
        wish = self.folder.asked(rollout, "abort")
        if wish is not None:
            self.write(ledger.ABORTED, rollout, who=who_of(wish))
            self.end(rollout, ledger_history.ABORTED, f"{before}; what was promoted stays")
            return stopped(
                "EF_ROLLOUT_ABORTED",
                f"rollout {rollout} ends {before}, as {who_of(wish)} asked: "
                "nothing of it was changed; what was promoted stays",
            )
        wish = self.folder.asked(rollout, "pause")
        if wish is not None:
            self.write(ledger.PAUSED, rollout, who=who_of(wish), before_batch=batch["number"])
            self.folder.forget(rollout)
            self.folder.release(self.here)
            return stopped(
                "EF_ROLLOUT_PAUSED",
                f"rollout {rollout} pauses {before} (stage {batch['stage']}), as {who_of(wish)} asked: "
                f"nothing of it was changed; go on with -e ebpf_fleet_resume={rollout}",
            )
        if self.arguments["frozen"]:
            return self.frozen(rollout, batch)
        self.write(ledger.BATCH_BEGUN, rollout, **{key: batch[key] for key in ("number", "stage", "hosts")})
        return {"rollout": rollout}

    def frozen(self, rollout, batch):
        """End the rollout before a batch that a freeze keeps."""
        why = "; ".join(self.arguments["frozen"])
        self.end(rollout, ledger_history.STOPPED, f"before batch {batch['number']}, which may not start now: {why}")
        return stopped(
            "EF_FROZEN",
            f"Batch {batch['number']} (stage {batch['stage']}) and all after it were not started: {why}. "
            f"The batches before it keep the release. Go on with -e ebpf_fleet_resume={rollout} when that is over, or "
            """overrule it by name with -e '{"ebpf_fleet_overrule_freeze": "WHY"}'""",
        )

    def measured(self):
        """Write what every host of the batch ran before, and the digests of what was measured."""
        self.observed("before", self.arguments["before_var"])
        return self.check()

    def observed(self, when, variable):
        batch = self.arguments["batch"]
        seen = {host: value_at(self.hostvars, host, variable, "observation") for host in batch["hosts"]}
        digests = {host: None if one is None else ledger.digest_of_document(one) for host, one in seen.items()}
        running = {
            host: {
                "digest": value_at(one, "end", "status", "bundle", "digest") or "",
                "lease": value_at(one, "end", "status", "lease") is not None,
            }
            for host, one in seen.items()
        }
        self.write(ledger.OBSERVED, self.own(), number=batch["number"], when=when, digests=digests, running=running)

    def verdict(self):
        """Write what the batch was judged by, and how."""
        given = self.arguments["verdict"]
        self.observed("after", self.arguments["after_var"])
        reasons = [str(one["sentence"]) for one in given.get("reasons", [])]
        checks = ledger.digest_of_document(given.get("checks", []))
        self.write(
            ledger.VERDICT, self.own(), number=self.arguments["batch"]["number"], verdict=given["verdict"],
            sentence=given["sentence"], checks_digest=checks, reasons=reasons,
        )  # fmt: skip
        return self.check()

    def check(self):
        """Fail where a person asked the rollout to end: what is in hand then goes back."""
        rollout = self.own()
        wish = self.folder.asked(rollout, "abort")
        if wish is None:
            return {}
        self.write(ledger.ABORTED, rollout, who=who_of(wish))
        # Honoured: what goes back now must not be stopped by it again.
        self.folder.forget(rollout, "abort")
        number = self.arguments["batch"]["number"]
        problem = f"rollout {rollout} ends, as {who_of(wish)} asked: batch {number} goes back"
        return stopped("EF_ROLLOUT_ABORTED", problem)

    def hold(self):
        """Write that the batch waits for a person; how long it waits in this step is `waiting`'s."""
        rollout, number = self.own(), self.arguments["batch"]["number"]
        own = list(ledger.of_rollout(self.folder.entries(rollout), rollout))
        if not ledger_history.is_held(own):
            self.write(
                ledger.ACTION, rollout, action=ledger.HELD, number=number, seconds=int(self.arguments["seconds"])
            )
            self.notes.append(
                f"batch {number} of rollout {rollout} is held for a person: ebpf.fleet.promote or ebpf.fleet.abort"
            )
        return {"rollout": rollout, "promote": False}

    def promoted(self):
        """Write that a batch has passed and its probation is over; the last one ends the rollout."""
        rollout, batch = self.own(), self.arguments["batch"]
        confirmed = [
            host for host in batch["hosts"] if is_confirmed(value_at(self.hostvars, host, "ebpf_fleet_confirmed"))
        ]
        if confirmed:
            self.write(ledger.ACTION, rollout, action=ledger.CONFIRMED, number=batch["number"], hosts=confirmed)
        by = {"who": self.arguments["who"]} if self.arguments["who"] else {}
        self.write(
            ledger.ACTION, rollout, action=ledger.PROMOTED, number=batch["number"], hosts=batch["hosts"],
            digest=self.arguments["digest"], **by,
        )  # fmt: skip
        self.folder.forget(rollout, "promote")
        if self.arguments["last"]:
            self.finish(rollout, "every batch was promoted")
        return {"rollout": rollout}

    def finish(self, rollout, sentence):
        """Write the end of a rollout that has no more to do in this run: complete, unless its plan has more hosts."""
        missing = ledger_history.missing_hosts(list(ledger.of_rollout(self.folder.entries(rollout), rollout)))
        if missing:
            some = ", ".join(missing[:10]) + (f" and {len(missing) - 10} more" if len(missing) > 10 else "")
            self.end(rollout, ledger_history.STOPPED, f"hosts of its plan were not to be changed by this run: {some}")
        else:
            self.end(rollout, ledger_history.COMPLETE, sentence)

    def report(self):
        """Nothing is written into the ledger; the report of it is the action's."""
        return {}

    # --- the way back ---

    def changed(self):
        """Hosts that this rollout changed and that are not of the batch in hand."""
        rollout = self.own()
        own = list(ledger.of_rollout(self.folder.entries(rollout), rollout))
        hosts = set(self.arguments["batch"]["hosts"])
        return {"rollout": rollout, "hosts": [host for host in ledger_history.changed_hosts(own) if host not in hosts]}

    def rolled_back(self):
        """Write that the batch went back, who did not, what may not go where again, and that the rollout stops."""
        rollout, batch, given = self.own(), self.arguments["batch"], self.arguments["verdict"]
        own = list(ledger.of_rollout(self.folder.entries(rollout), rollout))
        aborted = ledger_history.is_to_end(own)
        why = str(given.get("sentence") or "a task of this batch failed, or a host was lost")
        why = "a person asked it to end" if aborted else why
        self.write(
            ledger.ACTION, rollout, action=ledger.ROLLED_BACK, number=batch["number"],
            returned=self.arguments["returned"], why=why,
        )  # fmt: skip
        if self.arguments["returned_all"]:
            self.write(
                ledger.ACTION, rollout, action=ledger.ROLLED_BACK, returned=self.arguments["returned_all"],
                why="everything that this rollout changed was to go back (ebpf_fleet_rollback_all)",
            )  # fmt: skip
        found = {} if aborted else {"quarantined": self.quarantine(rollout, why)}
        stage = batch["stage"]
        outcome, said = (
            (ledger_history.ABORTED, f"in stage {stage}: its batch went back") if aborted
            else (ledger_history.STOPPED, f"in stage {stage}: {why}")
        )  # fmt: skip
        self.end(rollout, outcome, said)
        self.notes.append(
            f"rollout {rollout} ended {said}. ebpf.fleet.history -e ebpf_fleet_rollout_id={rollout} explains it, "
            f"ebpf.fleet.rollout -e ebpf_fleet_resume={rollout} goes on"
        )
        return {"rollout": rollout, "aborted": aborted, **found}

    def quarantine(self, rollout, why):
        """Put the release into quarantine where the verdict failed it; returns the strata."""
        strata = {one["name"]: one["stratum"] for one in self.arguments["strata"]}
        guilty = quarantine.strata_of(self.arguments["verdict"], strata, self.arguments["batch"]["hosts"])
        if not guilty:
            return []
        digest, since = self.arguments["digest"], ledger_folder.now()
        new = [quarantine.Quarantined(digest, one, printable(why), since, rollout) for one in map(printable, guilty)]
        self.folder.put_quarantine(quarantine.add(self.folder.quarantined(), new))
        self.write(
            ledger.ACTION, rollout, action=ledger.QUARANTINED, digest=digest, strata=guilty, why=why,
            number=self.arguments["batch"]["number"],
        )  # fmt: skip
        self.notes.append(
            f"release {digest[:12]} is quarantined for {', '.join(map(printable, guilty))}: "
            f"ebpf.fleet.quarantine -e ebpf_fleet_lift_quarantine={digest[:12]} permits it again"
        )
        return guilty


def wait_for_person(folder, rollout, seconds):
    """Wait for a wish of a person, with the folder closed: (promote's document or None, whether to end)."""
    until = time.monotonic() + seconds
    while True:
        with folder:
            wish, end = folder.asked(rollout, "promote"), folder.asked(rollout, "abort")
        if wish is not None or end is not None or time.monotonic() >= until:
            return wish, end is not None
        time.sleep(min(POLL_SECONDS, max(0.0, until - time.monotonic())))


def stopped(code, sentence):
    """What a step returns that ends the rollout."""
    return failed(FleetError(code, sentence))


def who_of(wish):
    return printable(wish.get("who") or "someone", 100)


def is_confirmed(answer):
    return isinstance(answer, dict) and not any(answer.get(one) for one in ("failed", "unreachable", "skipped"))


def new_id(here, plan, digest):
    """When, and six hex digits so that two of one second differ."""
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    seed = f"{digest}{here.pid}{here.start_ticks}{time.time_ns()}{os.urandom(8).hex()}{len(plan['hosts'])}"
    return f"{stamp}-{hashlib.sha256(seed.encode()).hexdigest()[:6]}"


def by_stratum(hosts):
    """{stratum: its hosts}, of each host's name and stratum."""
    found = {}
    for one in hosts:
        found.setdefault(str(one["stratum"]), []).append(one["name"])
    return found


def value_at(value, *names):
    """A part of nested mappings; None where one on the way is missing, or is not a mapping."""
    for name in names:
        try:
            value = value[name]
        except (KeyError, TypeError, IndexError):
            return None
    return value


def whole(value):
    """A copy of plain kinds, in which texts are printable and fractions are text: our documents hold whole numbers."""
    if isinstance(value, dict):
        return {str(key): whole(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [whole(one) for one in value]
    if isinstance(value, float):
        return repr(float(value))
    return value if value is None or isinstance(value, (bool, int)) else printable(value, TEXT_LIMIT)
