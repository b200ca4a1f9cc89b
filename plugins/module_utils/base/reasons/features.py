# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Why a feature does not run, runs reduced, or is held back. Pure."""

from __future__ import annotations

from ansible_collections.ebpf.fleet.plugins.module_utils.base.reasons.reason import (
    COLLECTOR,
    LOADER,
    MODULES,
    PLAYBOOKS,
    VERIFY,
    Reason,
    Section,
)

SECTIONS: tuple[Section, ...] = (
    Section(
        "A feature does not run, or runs reduced",
        (
            "The other features go on. `capabilities` predicts each of these before a release is shipped "
            "([capabilities.md](capabilities.md))."
        ),
        {
            "EF_OK": Reason(
                "the first variant works",
                "nothing",
                (LOADER, COLLECTOR, MODULES),
            ),
            "EF_NO_BTF": Reason(
                "the kernel has no BTF of its own (`/sys/kernel/btf/vmlinux`), or none is in the bundle for it",
                "put minimal BTF into the bundle, or use BCC",
                (LOADER, MODULES),
                see="btf.md",
            ),
            "EF_BTF_UNREADABLE": Reason(
                "the kernel's BTF, or the image that should hold it, is there and cannot be read",
                "build the release with a newer libbpf, or put minimal BTF into the bundle",
                (LOADER, MODULES),
                see="btf.md",
            ),
            "EF_BTF_MISMATCH": Reason(
                "the bundle's BTF of this release is of another build of the kernel",
                "add this very kernel's BTF",
                (LOADER, MODULES),
                see="btf.md",
            ),
            "EF_NO_PROG_TYPE": Reason(
                "this kernel does not know the variant's program type",
                "nothing, where a reduced variant runs; else a newer kernel",
                (LOADER, MODULES),
            ),
            "EF_NO_MAP_TYPE": Reason(
                "this kernel does not know the variant's map type",
                "nothing, where a reduced variant runs; else a newer kernel",
                (LOADER, MODULES),
            ),
            "EF_NO_HELPER": Reason(
                "this kernel does not know a helper that the variant calls",
                "nothing, where a reduced variant runs; else a newer kernel",
                (LOADER, MODULES),
            ),
            "EF_NO_ATTACH_POINT": Reason(
                "this kernel has no such function, tracepoint or hook, or no kprobes at all",
                "nothing, where a reduced variant runs; else a newer kernel",
                (LOADER, COLLECTOR, MODULES),
            ),
            "EF_LSM_INACTIVE": Reason(
                "`bpf` is not among the kernel's active security modules",
                "boot with `lsm=…,bpf`; a reduced variant needs none",
                (LOADER, MODULES),
            ),
            "EF_LOCKDOWN": Reason(
                "lockdown `confidentiality` forbids to read kernel memory",
                "nothing, if lockdown is wanted",
                (LOADER, MODULES),
            ),
            "EF_KERNEL_TOO_OLD": Reason(
                "the variant needs a newer kernel",
                "nothing, where a reduced variant runs; else a newer kernel",
                (LOADER, MODULES),
            ),
            "EF_LOAD_REJECTED": Reason(
                "the verifier refused the program; the sentence has its words",
                "give them to the feature's owner",
                (LOADER, COLLECTOR, MODULES),
            ),
            "EF_PERMISSION": Reason(
                "the kernel refuses it to the service, or a module runs without root",
                'set `ebpf_fleet_perf_event_paranoid: "2"` where the sentence says so; set `become: true`',
                (LOADER, COLLECTOR, MODULES),
                see="privileges.md",
            ),
            "EF_ATTACH_FAILED": Reason(
                "it was loaded and does not attach",
                "give the sentence to the feature's owner",
                (LOADER, COLLECTOR, MODULES),
            ),
            "EF_UNKNOWN": Reason(
                "it is about to be attached, or the cause could not be found out",
                "ask again after an interval; then read the journal",
                (VERIFY, LOADER, COLLECTOR, MODULES),
            ),
            "EF_KILLED_GLOBAL": Reason(
                "a kill order holds everything off",
                "take the order back with `-e state=released -e confirm=release -e reason=WHY` when its cause is gone",
                (LOADER, COLLECTOR),
            ),
            "EF_KILLED_FEATURE": Reason(
                "a kill order holds this feature off",
                "take the order back with `-e state=released -e confirm=release -e reason=WHY` when its cause is gone",
                (LOADER, COLLECTOR),
            ),
            "EF_KILLED_FAMILY": Reason(
                "a kill order holds everything off on hosts of this kernel family",
                "take the order back with `-e state=released -e confirm=release -e reason=WHY` when its cause is gone",
                (LOADER, COLLECTOR),
            ),
            "EF_NOT_WANTED": Reason(
                "`ebpf_fleet_features` does not want it, or the loader was stopped",
                "name it there, and roll out",
                (LOADER, COLLECTOR),
            ),
            "EF_NOT_IN_BUNDLE": Reason(
                "a feature is wanted that the bundle does not hold",
                "correct the name, or build it into the bundle",
                (LOADER, MODULES, PLAYBOOKS),
            ),
            "EF_NO_DESIRED": Reason(
                "there is no `desired.json`: nothing runs",
                "deploy a release",
                (LOADER, COLLECTOR),
            ),
            "EF_DESIRED_MALFORMED": Reason(
                (
                    "`desired.json` does not parse or is for another bundle: at start nothing runs, later what "
                    "runs goes on"
                ),
                "deploy the release again",
                (LOADER, COLLECTOR, MODULES),
            ),
            "EF_HOST_POLICY_MALFORMED": Reason(
                "`policy.json` does not parse: at start nothing runs, later the old limits hold",
                "correct `ebpf_fleet_policy` and run `prepare`",
                (LOADER, MODULES),
            ),
            "EF_EXPIRED": Reason(
                "the contract's date has come",
                "its owner renews it in a new release, or takes the feature out",
                (LOADER, COLLECTOR, MODULES),
            ),
            "EF_TRUST_WITHDRAWN": Reason(
                "the host's trust files no longer allow the signer of what runs: all features are off",
                (
                    "if it is not meant, correct the variable and run `prepare`; else roll out a release of a "
                    "signer that is trusted"
                ),
                (LOADER,),
            ),
            "EF_LEASE_EXPIRED": Reason(
                "the rollout that put the host on probation did not confirm in time: all features are off",
                "run the rollout again, or `scope=previous`",
                (LOADER, MODULES),
                see="lease.md",
            ),
            "EF_NO_BCC": Reason(
                "BCC is not on the host",
                "`ebpf_fleet_bcc_install_packages: true`",
                (COLLECTOR,),
                see="bcc.md",
            ),
            "EF_NO_HEADERS": Reason(
                "the kernel's headers are not on the host",
                "`ebpf_fleet_bcc_install_packages: true`",
                (COLLECTOR,),
                see="bcc.md",
            ),
            "EF_BCC_COMPILE": Reason(
                "BCC's source does not compile on this host",
                "give the sentence to the feature's owner",
                (COLLECTOR,),
                see="bcc.md",
            ),
        },
    ),
    Section(
        "A feature costs too much, or too much comes",
        "It runs with less, or is off (`shed`), and comes back by itself: [budgets.md](budgets.md#on-call).",
        {
            "EF_BUDGET_CPU": Reason(
                "the feature was over the limit of CPU that its contract or the host's limits give it",
                "did the load change, or the release? roll back a release that costs more",
                (LOADER,),
                see="budgets.md",
            ),
            "EF_BUDGET_MAP_MEMORY": Reason(
                "the feature was over the limit of map memory that its contract or the host's limits give it",
                "did the load change, or the release? roll back a release that costs more",
                (LOADER,),
                see="budgets.md",
            ),
            "EF_BUDGET_EVENT_RATE": Reason(
                ("the feature was over the limit of events a second that its contract or the host's limits give it"),
                "did the load change, or the release? roll back a release that costs more",
                (LOADER,),
                see="budgets.md",
            ),
            "EF_BUDGET_DROPS": Reason(
                ("the feature was over the limit of dropped events that its contract or the host's limits give it"),
                "did the load change, or the release? roll back a release that costs more",
                (LOADER,),
                see="budgets.md",
            ),
            "EF_BUDGET_MAP_FILL": Reason(
                "a map of the feature was filled beyond the limit that its contract gives it",
                "did the load change, or the release? roll back a release that costs more",
                (LOADER,),
                see="budgets.md",
            ),
            "EF_BUDGET_HOST_CPU": Reason(
                "all features together were over the host's limit of CPU",
                (
                    "did the load change, or the release? roll back a release that costs more, or raise "
                    "`ebpf_fleet_policy`"
                ),
                (LOADER,),
                see="budgets.md",
            ),
            "EF_BUDGET_HOST_MEMORY": Reason(
                "all features together were over the host's limit of memory",
                (
                    "did the load change, or the release? roll back a release that costs more, or raise "
                    "`ebpf_fleet_policy`"
                ),
                (LOADER,),
                see="budgets.md",
            ),
            "EF_BUDGET_HOST_MAP_MEMORY": Reason(
                "all features together were over the host's limit of map memory",
                (
                    "did the load change, or the release? roll back a release that costs more, or raise "
                    "`ebpf_fleet_policy`"
                ),
                (LOADER,),
                see="budgets.md",
            ),
            "EF_BUDGET_HOST_EVENT_RATE": Reason(
                "all features together were over the host's limit of events a second",
                (
                    "did the load change, or the release? roll back a release that costs more, or raise "
                    "`ebpf_fleet_policy`"
                ),
                (LOADER,),
                see="budgets.md",
            ),
            "EF_BACKPRESSURE_SAMPLE": Reason(
                "the reader is behind, and only a sample of the records is written",
                "nothing for a burst; tell the feature's owner if it stays",
                (LOADER,),
            ),
            "EF_BACKPRESSURE_AGGREGATE": Reason(
                "the reader is behind, and records are written together",
                "nothing for a burst; tell the feature's owner if it stays",
                (LOADER,),
            ),
            "EF_RECORDS_UNSHIPPED": Reason(
                "files of events gave way to younger ones before the log shipper took them",
                "follow the runbook",
                (LOADER,),
                see="runbooks/records_unshipped.md#ebpffleetrecordsunshipped",
            ),
            "EF_FAIRNESS_THINNED": Reason(
                "more events came than may pass, and the loudest users are recorded in part",
                "follow the runbook",
                (LOADER,),
                see="runbooks/event_floods.md#ebpffleeteventsthinned",
            ),
        },
    ),
)
