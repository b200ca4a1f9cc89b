# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Why a module or a playbook stopped. Pure."""

from __future__ import annotations

from ansible_collections.ebpf.fleet.plugins.module_utils.base.reasons.reason import MODULES, PLAYBOOKS, Reason, Section

SECTIONS: tuple[Section, ...] = (
    Section(
        "A module stopped",
        "What ran before still runs, unless the sentence says otherwise.",
        {
            "EF_ARGUMENT": Reason(
                "a value cannot be used",
                "give what the sentence says; it names the option or variable",
                (MODULES, PLAYBOOKS),
            ),
            "EF_NOT_PLANNED": Reason(
                "the bundle at that path is not the planned one; nothing of it was sent or unpacked",
                "put the planned bundle back, or plan again; find out who replaced it",
                (MODULES,),
            ),
            "EF_NO_CONFINEMENT": Reason(
                "this host cannot confine the bundle's loader, so it was not run and nothing was installed",
                "the sentence names the step that the kernel refused, and what permits it",
                (MODULES,),
            ),
            "EF_UNSUPPORTED_HOST": Reason(
                "the host is not Linux, or a machine whose system calls are not known here",
                "leave it out with `--limit`",
                (MODULES,),
            ),
            "EF_NO_SYSTEMD": Reason(
                "systemd does not run the host",
                'leave the host out, or manage the loader yourself (`service: ""`)',
                (MODULES,),
            ),
            "EF_NO_SERVICE": Reason(
                "the unit is not known to systemd",
                "run `prepare` first",
                (MODULES,),
            ),
            "EF_SERVICE": Reason(
                "systemd did not start or stop the unit",
                "`journalctl -u ebpf-fleet-loader`",
                (MODULES,),
            ),
            "EF_NO_SSH_KEYGEN": Reason(
                "the host's `ssh-keygen` is missing or too old; the bundle was not judged",
                "install OpenSSH's client tools",
                (MODULES,),
            ),
            "EF_DISK_FULL": Reason(
                "no room is left on a disk",
                "make room where the sentence says, and run again",
                (MODULES,),
            ),
            "EF_LOCKED": Reason(
                "another run works on the host",
                "wait for its end, and run again",
                (MODULES,),
            ),
            "EF_STORE": Reason(
                "the host's release store cannot be read or written",
                "correct the path that the sentence names, and run again",
                (MODULES,),
            ),
            "EF_UNREADABLE": Reason(
                (
                    "a file is there and cannot be used: it is not a regular file, is too large, or is not "
                    "what it should be"
                ),
                "correct or remove the file that the sentence names",
                (MODULES,),
            ),
            "EF_NOT_CONFIRMED": Reason(
                "the loader did not confirm the release in time; the host went back",
                "`journalctl -u ebpf-fleet-loader`; a slow host: `ebpf_fleet_activation_timeout`",
                (MODULES,),
            ),
            "EF_NO_PREVIOUS": Reason(
                "there is no release to go back to",
                "deploy one, or stop what runs (`release` with `state: absent`)",
                (MODULES,),
            ),
            "EF_BUILD": Reason(
                "a compiler or tool failed while a release was built",
                "correct what its last words, in the sentence, name",
                (MODULES,),
            ),
            "EF_NO_TOOL": Reason(
                "a tool or Python package is not installed on the controller",
                "install what the sentence names",
                (MODULES,),
            ),
            "EF_KEY": Reason(
                "the signing key cannot be used",
                "give an ed25519 key; with a passphrase in the ssh-agent",
                (MODULES,),
                see="keys.md",
            ),
            "EF_BUNDLE_IMMUTABLE": Reason(
                "another bundle is at that output already",
                "another version or another output; a version is never built twice with other content",
                (MODULES,),
            ),
        },
    ),
    Section(
        "A host was not prepared",
        "What was written before the sentence stays, and what ran before still runs.",
        {
            "EF_TRUST_CHANGE": Reason(
                (
                    "a change of trust takes a signer or a revocation away, or refuses the release that runs; "
                    "nothing was written"
                ),
                (
                    "correct a variable that is given twice or lacks a line; if it is meant, "
                    "`ebpf_fleet_trust_overrule: true`"
                ),
                (MODULES,),
                see="keys.md",
            ),
            "EF_NOT_WRITTEN": Reason(
                "a file of the host could not be read or written",
                "correct the path that the sentence names, and run again",
                (MODULES,),
            ),
            "EF_COMMAND": Reason(
                "a command that prepares the host failed",
                "correct what its words, in the sentence, name, and run again",
                (MODULES,),
            ),
        },
    ),
    Section(
        "A kill list was not followed",
        "Orders that it placed before stay; what then holds says `ebpf_fleet_pull_policy`.",
        {
            "EF_KILL_LIST": Reason(
                "it is not a kill list: cut short, too large, or of another form; nothing was changed",
                "publish it again with `kill_list.yml`; see what stands at its location",
                (MODULES,),
                see="formats/kill-list.md",
            ),
            "EF_KILL_LIST_REPLAY": Reason(
                "its sequence is not above the newest one that was taken; nothing was changed",
                "find out who publishes an old list; publish one with a higher sequence",
                (MODULES,),
                see="pull-channel.md",
            ),
            "EF_KILL_LIST_EXPIRED": Reason(
                "its time is over; nothing was changed",
                "publish a new one, or correct the host's clock",
                (MODULES,),
                see="pull-channel.md",
            ),
            "EF_KILL_LIST_UNREACHABLE": Reason(
                "it was not fetched whole and in time from its location",
                "see that it is there and that the host reaches it without a proxy or a redirect",
                (MODULES,),
                see="pull-channel.md",
            ),
            "EF_PULL_LEASE": Reason(
                "the policy is `detach` and no fresh list was had for the lease, so everything was turned off",
                "make a good list reachable: the next visit takes this order back",
                (MODULES,),
                see="pull-channel.md",
            ),
            "EF_PULL_STATE": Reason(
                "the host's mark of the newest list cannot be read, so no list is taken",
                "publish a new list, then remove the mark that the sentence names",
                (MODULES,),
                see="pull-channel.md",
            ),
        },
    ),
    Section(
        "A rollout, or the question what hosts can run, stopped",
        "Hosts that were not reached by a batch are as they were.",
        {
            "EF_HOSTS": Reason(
                "the hosts of the play are not exactly those that were meant, or there are none",
                "check the inventory (`-i`), `ebpf_fleet_hosts` and `--limit`",
                (MODULES, PLAYBOOKS),
            ),
            "EF_NO_ANSWER": Reason(
                "a host gave no answer, or none that can be used",
                "bring it back, or leave it out on purpose with `--limit`",
                (MODULES, PLAYBOOKS),
            ),
            "EF_NOT_ALLOWED": Reason(
                "a step asks before it acts, and it was not allowed; nothing of it was done",
                "type yes at a terminal, give `-e ebpf_fleet_triage_yes=true`, or type the command of the sentence",
                (PLAYBOOKS,),
                see="incident.md",
            ),
            "EF_TRIAGE": Reason(
                "a triage did all its steps, and something is left: the sentence names it",
                "still over a limit: disable more features; not measured or confirmed: run it again for those hosts",
                (PLAYBOOKS,),
                see="incident.md",
            ),
            "EF_CELL_LOST": Reason(
                "a cell controller died, hung or was not reached: what its hosts did is unknown; the batch goes back",
                "bring the cell controller back, see what its hosts run, and resume the rollout",
                (MODULES, PLAYBOOKS),
                see="cells.md",
            ),
            "EF_CELL_ANSWER": Reason(
                "a cell controller answered twice, for another job, or not in the form of an answer",
                "find out what answers there; see what its hosts run, and resume the rollout",
                (MODULES,),
                see="cells.md",
            ),
            "EF_NO_RUNNER": Reason(
                "the coordinator's Python has no ansible-runner",
                "install ansible-runner beside ansible-core there",
                (MODULES,),
                see="cells.md",
            ),
            "EF_SAMPLING": Reason(
                "a fleet's sampling cannot be found: the target is not one, or no host was measured",
                "give a feature and samples an hour; bring the loaders of the named hosts up",
                (MODULES,),
            ),
            "EF_OLD_PYTHON": Reason(
                "the host's Python is older than 3.8, in which no module can start",
                "name a newer one in `ansible_python_interpreter`; the kill switch needs no Python",
                (MODULES,),
            ),
            "EF_CENSUS": Reason(
                "the last census cannot be read, or is not a census",
                "write it again with `capabilities`",
                (MODULES,),
                see="capabilities.md",
            ),
            "EF_LAST_INVENTORY": Reason(
                "the last inventory cannot be read, or is not an inventory",
                "name another, or none with `ebpf_fleet_last_inventory=`, and write one again with `inventory`",
                (MODULES,),
                see="bpf-inventory.md",
            ),
            "EF_POLICY_NOT_READY": Reason(
                "a feature on the policy data path may not go to a host on which no healthy release observes",
                "roll out the others first",
                (MODULES, PLAYBOOKS),
                see="capabilities.md",
            ),
            "EF_BUNDLE_NOT_TRUSTED": Reason(
                "the trust variables of hosts do not allow who signed the bundle; nothing was changed",
                (
                    "do what the code in the sentence asks: correct `ebpf_fleet_allowed_signers` or "
                    "`ebpf_fleet_revoked_keys`, or sign with another key"
                ),
                (PLAYBOOKS,),
                see="keys.md",
            ),
            "EF_PLAN": Reason(
                "no plan can be made of these hosts and stages",
                "correct the stage, or the host's cell, region or stratum, that the sentence names",
                (MODULES,),
                see="rollout.md",
            ),
            "EF_ORDER_STANDS": Reason(
                "a kill order stands for a host: it would keep features of the release off, or the host lacks it",
                "take the order back when its cause is gone, or give it to the host, as the sentence says",
                (MODULES, PLAYBOOKS),
                see="fan-out.md",
            ),
            "EF_FROZEN": Reason(
                "a freeze window or blocked hours keep the rollout, or its next batch, from starting",
                "run the same rollout again when that is over, or overrule it by name: `ebpf_fleet_overrule_freeze`",
                (MODULES, PLAYBOOKS),
                see="rollout.md",
            ),
            "EF_GATE_FAILED": Reason(
                "a check of the gate failed, and the batch goes back",
                "do what the verdict names next, lift the quarantine of the release, then run the same rollout again",
                (PLAYBOOKS,),
                see="rollout.md",
            ),
            "EF_GATE_INCONCLUSIVE": Reason(
                "a check of the gate could not be judged, and the batch goes back",
                "do what the verdict names next, then run the same rollout again",
                (PLAYBOOKS,),
                see="rollout.md",
            ),
            "EF_LEASE_NOT_CONFIRMED": Reason(
                "hosts of the batch did not confirm the end of their probation, and would detach by themselves",
                "bring them back, then run the same rollout again",
                (PLAYBOOKS,),
                see="lease.md",
            ),
            "EF_ROLLOUT_STOPPED": Reason(
                "a batch did not pass, so it went back and no later batch was started",
                "do what the sentence names next, then run the same rollout again",
                (PLAYBOOKS,),
                see="rollout.md",
            ),
        },
    ),
    Section(
        "One rollout at a time, and its ledger",
        "Nothing was changed by what is refused here; a batch in hand goes back where the sentence says so.",
        {
            "EF_ROLLOUT_RUNNING": Reason(
                "another rollout holds the fleet's lock",
                "wait for its end, or ask it to end with `pause` or `abort`; the sentence says who runs it",
                (MODULES,),
                see="formats/ledger.md",
            ),
            "EF_ROLLOUT_PAUSED": Reason(
                "a person asked the rollout to pause, and it ended before its next batch",
                "go on with `-e ebpf_fleet_resume=ID`",
                (MODULES,),
                see="rollout.md",
            ),
            "EF_ROLLOUT_ABORTED": Reason(
                "a person asked the rollout to end; the batch in hand went back, what was promoted stays",
                "none is needed; to go on, `-e ebpf_fleet_resume=ID`",
                (MODULES,),
                see="rollout.md",
            ),
            "EF_ROLLOUT_UNKNOWN": Reason(
                "the ledger has no rollout of that id",
                "`history` lists them; check `ebpf_fleet_ledger`",
                (MODULES,),
                see="rollout.md",
            ),
            "EF_ROLLOUT_STATE": Reason(
                "the rollout is not in the state in which that can be asked of it",
                "the sentence says its state; `history` explains it",
                (MODULES,),
                see="rollout.md",
            ),
            "EF_LEDGER": Reason(
                "a file of the ledger's folder cannot be read or written, or does not hold what it must",
                "correct the path that the sentence names, or name another folder with `ebpf_fleet_ledger`",
                (MODULES,),
                see="formats/ledger.md",
            ),
            "EF_LEDGER_BROKEN": Reason(
                "the ledger is not what was written: its chain breaks at the line that the sentence names",
                "find out who wrote there, and keep the file; a new ledger begins where it is put elsewhere",
                (MODULES, PLAYBOOKS),
                see="formats/ledger.md",
            ),
        },
    ),
    Section(
        "A kill was not confirmed",
        "The order stays where it could be placed.",
        {
            "EF_ORDER_STORE": Reason(
                "the orders that stand cannot be read or written on the controller; a kill goes on all the same",
                "put right what the sentence names, and run the same command again",
                (MODULES,),
                see="formats/standing-order.md",
            ),
            "EF_ORDER_NOT_WRITTEN": Reason(
                "a kill order could not be placed in one of its folders, or not be taken away there",
                "free the folder that the sentence names, or use `rollback`, which needs no disk",
                (MODULES,),
            ),
            "EF_KILL_UNCONFIRMED": Reason(
                "a host did not confirm the order, or its kernel does not tell what is loaded: it counts as on",
                "run the same command again until it exits with 0, or reach the host another way",
                (MODULES, PLAYBOOKS),
            ),
            "EF_KILL_NO_EFFECT": Reason(
                "the order is placed, and programs that it turns off are still in the kernel",
                "run `rollback` with the same scope, which ends a loader that does not obey",
                (MODULES,),
            ),
        },
    ),
    Section(
        "Others' programs were not taken off",
        "The record on the host says what was done there.",
        {
            "EF_TAKEOFF_ABSENT": Reason(
                "the host has no such unit or program, or nothing of it was taken off there: it is not concerned",
                "where it should have one, give the name as `inventory` tells it",
                (MODULES, PLAYBOOKS),
                see="foreign-programs.md",
            ),
            "EF_TAKEOFF_PROTECTED": Reason(
                "what was named keeps the host up or reachable, runs this very command, or is of ebpf.fleet",
                "name a program by its tag, or turn off what is of ebpf.fleet with `rollback`",
                (MODULES,),
                see="foreign-programs.md",
            ),
            "EF_TAKEOFF_RECORD": Reason(
                "the record of what is taken off cannot be read or written, or another run holds it: nothing changed",
                "put right what the sentence names, and run the same command again",
                (MODULES,),
                see="formats/takeoff-record.md",
            ),
            "EF_TAKEOFF_UNCONFIRMED": Reason(
                "something of it is attached or held, was not put back, or the kernel does not tell: it counts as on",
                "do what stands beside the host, and run the same command again until it exits with 0",
                (MODULES, PLAYBOOKS),
                see="foreign-programs.md",
            ),
        },
    ),
    Section(
        "A game day did not go as it should",
        "What was injected is taken back by the host itself, at its bound at the latest.",
        {
            "EF_GAMEDAY": Reason(
                "a drill was not met as the pages say, or could not be judged: the report says which",
                "read its score: correct the page, the limit or the release, and run that drill again",
                (PLAYBOOKS,),
                see="gameday.md",
            ),
            "EF_GAMEDAY_UNFIT": Reason(
                "the host may not meet the drill as it is; nothing was injected",
                "put right what the sentence names, or leave the host out",
                (MODULES,),
                see="gameday.md",
            ),
            "EF_GAMEDAY_RECORD": Reason(
                "the host's record of what is injected cannot be read or written, or is of another drill",
                "run `gameday` with `state=ended`, which takes back whatever is there",
                (MODULES,),
                see="formats/gameday-record.md",
            ),
        },
    ),
    Section(
        "An event was refused",
        "No playbook was run for it. What an earlier alert turned off stays off.",
        {
            "EF_EVENT_SENDER": Reason(
                "the request has no token or signature of a known sender, or its signature is old or was used before",
                "give the sender what stands in the file of secrets; the log says what was wrong",
                (MODULES,),
                "event-driven.md",
            ),
            "EF_EVENT_MALFORMED": Reason(
                "what was sent is not a document of version 4 of Alertmanager's webhook",
                "send it from Alertmanager; the sentence names the field",
                (MODULES,),
                "event-driven.md",
            ),
            "EF_EVENT_SCOPE": Reason(
                "the labels of an alert ask for what no event may do",
                "correct `ebpf_fleet_action` and `ebpf_fleet_scope` in the rule of the alert",
                (MODULES,),
                "event-driven.md",
            ),
            "EF_EVENT_RATE": Reason(
                "so many actions were taken within the window that this one was not",
                "see what sends so many alerts; run `rollback` by hand where it is to be done now",
                (MODULES,),
                "event-driven.md",
            ),
            "EF_EVENT_SECRETS": Reason(
                "the file of those who may send events cannot be used; nothing listens",
                "the sentence names the line, or the owner and mode that it must have",
                (MODULES,),
                "event-driven.md",
            ),
        },
    ),
)
