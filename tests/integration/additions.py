# SPDX-License-Identifier: GPL-3.0-or-later
"""A made-up addition of every kind that docs/contributing has a page for: what it changes in which file, step by step.

Each step is one function from a file's text to the new one. test_contributing.py applies them to a copy of the tree.
"""

from __future__ import annotations

import re
from typing import Callable, Mapping, NamedTuple

Edit = Callable[[str], str]
# A test by file and name, as pytest takes it.
Node = str


class Addition(NamedTuple):
    """One page's addition. `words` stand for the page's placeholders; `tests` are run in the copy, then `probes`.

    A probe is a Python program that fails where something is missing; its argument is the placeholder NAME.
    `made`: `make feature` goes first. `builds`: the loader must compile with it.
    `then` is a target that writes what the steps do not change by hand, after them.
    """

    page: str
    words: Mapping[str, str]
    edits: Mapping[str, Edit]
    tests: tuple[Node, ...]
    probes: tuple[str, ...] = ()
    made: bool = False
    builds: bool = False
    then: str = ""


def put(after: str, text: str) -> Edit:
    """Put a text behind another one, which must be there once."""

    def edit(old: str) -> str:
        assert old.count(after) == 1, f"{after!r} is there {old.count(after)} times"
        return old.replace(after, after + text)

    return edit


def swap(old_text: str, new_text: str) -> Edit:
    """Put a text in the place of another one, which must be there once."""

    def edit(old: str) -> str:
        assert old.count(old_text) == 1, f"{old_text!r} is there {old.count(old_text)} times"
        return old.replace(old_text, new_text)

    return edit


def both(*edits: Edit) -> Edit:
    def edit(old: str) -> str:
        for one in edits:
            old = one(old)
        return old

    return edit


def fill_in(old: str) -> str:
    """What a person does with the skeleton: an answer in the place of each FILL IN."""
    assert "FILL IN" in old
    return re.sub(r"FILL IN: ", "Of the tests: ", old)


DOCS = "tests/unit/test_docs.py"

# ---- a feature ----

NEW = "dns_queries"
ALERT = "DnsQueriesHigh"
RULES = "tests/loader/test_alerts.py"
FEATURE = Addition(
    page="feature",
    words={"NAME": NEW},
    made=True,
    edits={
        f"bpf/features/{NEW}/contract.yml": fill_in,
        f"bpf/features/{NEW}/{NEW}.bpf.c": swap("An example that works, to be replaced: what", "What"),
        f"docs/runbooks/{NEW}.md": fill_in,
        "docs/runbooks/alerts.yml": fill_in,
        "docs/metrics.md": lambda old: old,
        "docs/privileges.md": lambda old: old,
        "README.md": put("`file_unlinks`", f" `{NEW}`"),
        RULES: put('CASES: dict[str, tuple[dict[str, str], dict[str, str]]] = {\n', f'''\
    "{ALERT}": (
        {{'ebpf_fleet_{NEW}_total{{uid="0"}}': f"0+90000{{LONG}}"}},
        {{'ebpf_fleet_{NEW}_total{{uid="0"}}': f"0+900{{LONG}}"}},
    ),
'''),
        "tests/loader/test_runbooks.py": put('"rate(ebpf_fleet_file_unlinks_total": ({"uid": "54321"}, 1e-9),\n',
                                             f'    "rate(ebpf_fleet_{NEW}_total": ({{"uid": "0"}}, 1e-9),\n'),
        "tests/loader/features/checks.py": both(
            put("CHECKS: Mapping[str, Callable[[Round, str], None]] = {\n", f'    "{NEW}": {NEW},\n'),
            swap("CHECKS: Mapping", f'''\
def {NEW}(found: Round, variant: str) -> None:
    assert tables(found, "{NEW}", "{NEW}_total") > 0


CHECKS: Mapping'''),
        ),
    },
    tests=(
        f"{DOCS}::test_the_readme_names_every_feature",
        f"{DOCS}::test_nothing_of_a_feature_is_left_to_be_filled_in",
        "tests/unit/test_privileges.py::test_the_page_is_what_the_sources_say",
        f"{RULES}::test_every_rule_has_a_case",
        f"{RULES}::test_a_consumer_of_a_contract_has_a_rule_and_its_page",
        f"{RULES}::test_a_rule_leads_to_the_section_of_its_own_name",
        f"{RULES}::test_a_runbook_has_a_rule_that_leads_to_it",
        "tests/loader/test_metrics.py::test_the_page_has_every_signal_of_the_contracts_with_its_bound_and_alert",
        "tests/loader/test_runbooks.py::test_an_answer_is_known_for_every_query",
        "tests/loader/test_features_rounds.py::test_every_feature_has_a_check_of_what_it_counted",
    ),
    probes=(
        "import sys; from tools.feature import check; left = check.check(sys.argv[1]); assert left == [], left",
    ),
)  # fmt: skip

# ---- a metric ----

METRIC = Addition(
    page="metric",
    words={},
    edits={
        "bpf/loader/tell/metrics.c": both(
            swap("/* ---- the table ---- */", '''\
static int64_t features_known(host *snapshot) {
\treturn (int64_t)snapshot->n;
}

/* ---- the table ---- */'''),
            swap('    {.name = "kernel_info",', '''\
    {.name = "features_known",
     .type = "gauge",
     .help = "Features of the bundle, and those that are wanted beside.",
     .of_host = features_known},
    {.name = "kernel_info",'''),
        ),
        "docs/metrics.md": swap("### `ebpf_fleet_kernel_info`", '''\
### `ebpf_fleet_features_known`

- Type: gauge, features. Labels: none
- Means: features of the bundle, and those that desired.json names beside.
- Source: the loader. Bound: 1. Absent: never.
- Alert: none.

### `ebpf_fleet_kernel_info`'''),
        "tests/loader/test_metrics.py": put("LOADER_ONLY = {\n", '    "ebpf_fleet_features_known",\n'),
    },
    tests=(
        f"{DOCS}::test_the_page_on_metrics_has_the_loaders_table",
        "tests/loader/test_metrics.py::test_the_list_of_what_the_collector_leaves_to_the_loader_is_right",
    ),
    builds=True,
)  # fmt: skip
# What the loader's own renderer writes of a host with so many features, with the line that it must hold.
METRIC_FEATURES = 3
METRIC_LINE = f"ebpf_fleet_features_known {METRIC_FEATURES}\n"

# ---- a check of the gate ----

GATE = "plugins/module_utils/rollout/gate"
CHECK = Addition(
    page="gate-check",
    words={"JUDGE": "host"},
    edits={
        f"{GATE}/host.py": swap("def judge_restarts(", '''\
def judge_loader_maps(pair: Pair) -> Measured:
    \"\"\"What all maps of the loader hold of the kernel's memory.\"\"\"
    return Measured(number(pair.end, "status", "loader", "map_memory_bytes"))


def judge_restarts('''),
        f"{GATE}/checks.py": swap('    Check(\n        name="loader_restarts",\n', '''\
    Check(
        name="loader_maps",
        scope=HOST,
        judge=host.judge_loader_maps,
        what="memory of all maps",
        step="turn features off, or raise loader_maps_bytes",
        sentence="memory of all maps",
        unit="bytes",
        limit="loader_maps_bytes",
        default=1_073_741_824,
    ),
    Check(
        name="loader_restarts",
'''),
        "docs/rollout.md": lambda old: old,
        "docs/formats/gate.md": lambda old: old,
        "plugins/modules/gate.py": lambda old: old,
        "tests/unit/test_gate_checks.py": both(
            put('"status_age_ns": 30_000_000_000, "loader_restarts": 0,', ' "loader_maps_bytes": 1 << 30,'),
            swap('    "map_memory": [(maps(600, 400)', '''\
    "loader_maps": [(spoil("status/loader/map_memory_bytes", 1 << 30), 1 << 30, PASSED),
                    (spoil("status/loader/map_memory_bytes", (1 << 30) + 1), (1 << 30) + 1, FAILED),
                    (spoil("status/loader/map_memory_bytes", None), None, HELD)],
    "map_memory": [(maps(600, 400)'''),
        ),
    },
    then="checks",
    tests=(
        f"{DOCS}::test_the_tables_of_checks_are_the_gates_records",
        f"{DOCS}::test_the_list_of_checks_and_the_modules_limits_are_the_gates_records",
        "tests/unit/test_gate_reasons.py",
        "tests/unit/test_gate_checks.py",
    ),
    # A batch that fails by the new check says by what, and what to do.
    probes=('''
from tests.unit.test_gate import judge, spoil
found = judge(spoil("status/loader/map_memory_bytes", 2 << 30))
(check,) = [one for one in found["checks"] if one["check"] == "loader_maps"]
said = [check[key] for key in ("verdict", "measured", "limit", "unit")]
assert said == ["fail", 2 << 30, 1 << 30, "bytes"], check
assert any("raise loader_maps_bytes" in step for step in found["next"]), found["next"]
''',),
)  # fmt: skip

# ---- a kind of hook ----

KIND = Addition(
    page="attach-kind",
    words={},
    edits={
        "plugins/module_utils/contract/requirements.py": swap(
            "               perf_event=True, lockdown=True, bcc=True),\n)\n", '''\
               perf_event=True, lockdown=True, bcc=True),
    AttachKind("ksyscall", NAME, ("ksyscall",), "kprobe", 0, "call", btf.FUNC, "__x64_sys_",
               perf_event=True, lockdown=True),
)
'''),
        "bpf/loader/kernel/requirement.h": put("\tEF_ATTACH_KRETPROBE,\n", "\tEF_ATTACH_KSYSCALL,\n"),
        "bpf/loader/kernel/requirement.c": swap('     "kprobe", 0, "exit", BTF_KIND_FUNC, "", false},\n', '''\
     "kprobe", 0, "exit", BTF_KIND_FUNC, "", false},
    {EF_ATTACH_KSYSCALL, "ksyscall", "NAME", is_name, {"ksyscall"},
     "kprobe", 0, "call", BTF_KIND_FUNC, "__x64_sys_", false},
'''),
        "bpf/loader/kernel/hook.c": both(
            swap("/* By tracefs; without", '''\
static enum ef_answer ask_ksyscall(const struct ef_kernel *kernel,
\t\t\t\t   const struct ef_requirement *hook, struct ef_reason *why) {
\tchar name[160];
\tstruct ef_requirement of_kernel = *hook;

\t(void)kernel;
\tsnprintf(name, sizeof(name), "__x64_sys_%s", hook->target);
\tof_kernel.target = name;
\treturn ask_probe(&of_kernel, false, why);
}

/* By tracefs; without'''),
            put("[EF_ATTACH_KRETPROBE] = ask_kretprobe,\n", "\t    [EF_ATTACH_KSYSCALL] = ask_ksyscall,\n"),
        ),
        "plugins/module_utils/facts/hookask.py": both(
            put('    "kretprobe": HookAsker._kretprobe,\n', '    "ksyscall": HookAsker._ksyscall,\n'),
            swap("    def _kretprobe(self", '''\
    def _ksyscall(self, name: str) -> Answer:
        return self._probe("kprobe", f"__x64_sys_{name}", on_return=False)

    def _kretprobe(self'''),
        ),
        "plugins/module_utils/facts/nextkernel.py": put('    "kretprobe": Next._kprobe,\n',
                                                        '    "ksyscall": Next._kprobe,\n'),
        "docs/formats/requirements.md": swap(
            "`attach:kretprobe:SYMBOL`,", "`attach:kretprobe:SYMBOL`, `attach:ksyscall:NAME`,"
        ),
        "docs/contract.md": swap("`kretprobe:`, `fentry:`", "`kretprobe:`, `ksyscall:`, `fentry:`"),
        "docs/capabilities.md": swap("| `kprobe`, `kretprobe` |", "| `kprobe`, `kretprobe`, `ksyscall` |"),
        "tests/support/requirement_cases.py": put('    "attach:kretprobe:do_unlinkat": None,\n',
                                                  '    "attach:ksyscall:openat": None,\n'),
        "tests/unit/test_requirements.py": both(
            swap("len(ATTACH) == 8", "len(ATTACH) == 9"),
            swap("== 13", "== 14"),
            swap('trace, trace, "name", "name"]', 'trace, trace, "name", "name", "__x64_sys_name"]'),
            swap('"tracepoint", "kprobe", "kretprobe"]', '"tracepoint", "kprobe", "kretprobe", "ksyscall"]'),
        ),
        "tests/loader/test_requirements.py": lambda old: old.replace(" == 8", " == 9"),
    },
    tests=("tests/unit/test_requirements.py", "tests/loader/test_requirements.py"),
    probes=('''
from pathlib import Path
from ansible_collections.ebpf.fleet.plugins.module_utils.contract.document import validate_contract
from ansible_collections.ebpf.fleet.plugins.module_utils.contract.objects import compare_with_objects
from ansible_collections.ebpf.fleet.plugins.module_utils.facts import profile
from tests.support.requirement_cases import CASES
from tests.unit.test_contract import changed
from tests.unit.test_contract_objects import HISTOGRAM, OBJECT

requires = ["btf:any", "prog_type:kprobe", "attach:ksyscall:openat"]
contract = changed(HISTOGRAM, "variants.0.requires", requires)
assert validate_contract(contract, "c") == []
program = {**OBJECT["programs"][0], "section": "ksyscall/openat", "type": "kprobe"}
assert compare_with_objects(contract, {"full": {**OBJECT, "programs": [program]}}, "c") == []
yes = {"answer": "yes", "evidence": "tried"}
facts = {"kernel": {"family": "6.1"}, "btf": {**yes, "state": "vmlinux"}, "program_types": {"kprobe": yes},
         "attach_points": {"ksyscall:openat": yes}}
assert profile.predict(contract, facts)["reason_code"] == "EF_OK", profile.predict(contract, facts)
assert CASES["attach:ksyscall:openat"] is None
for page in ("contract", "capabilities"):
    assert "ksyscall" in Path(f"docs/{page}.md").read_text(), page
''',),
    builds=True,
)  # fmt: skip

# ---- a reason code ----

CODE = Addition(
    page="reason-code",
    words={"GIVER": "bpf/loader/feature/decide.c", "TEST": "tests/loader/test_decide.py", "SECTION": "features"},
    edits={
        "bpf/loader/feature/decide.c": swap("\telse if (fall->shed)", '''\
\telse if (inputs->wall_s > 4102444800)
\t\tef_reason_set(off_in(verdict, EF_STATE_OFF), "EF_CLOCK_BEYOND",
\t\t\t      "this host's clock stands after 2099; set the clock");
\telse if (fall->shed)'''),
        "tests/loader/test_decide.py": put("    # Budgets.\n", '''\
    (f"{ON} wall_day=47482", "none", "", "-"),
    (f"{ON} wall_day=47483", "rest", "off", "EF_CLOCK_BEYOND"),
'''),
        "plugins/module_utils/base/reasons/features.py": swap('            "EF_EXPIRED": Reason(', '''\
            "EF_CLOCK_BEYOND": Reason(
                "the host's clock stands after 2099",
                "set the host's clock",
                (LOADER,),
            ),
            "EF_EXPIRED": Reason('''),
        "docs/reason-codes.md": lambda old: old,
    },
    then="reason-codes",
    tests=("tests/unit/test_reasons.py", "tests/loader/test_decide.py"),
)  # fmt: skip

# ---- a kernel of the lab ----

KERNEL = Addition(
    page="kernel",
    words={},
    edits={
        "tests/lab/lab.yml": both(
            swap('  "6.18":\n', '''\
  "6.17":
    suite: trixie-backports
    package: linux-image-6\\.17\\.[^-]*-cloud-amd64
  "6.18":
'''),
            swap("  k618:\n", '''\
  k617:
    groups: [matrix]
    kernel: "6.17"
    userland: trixie
    cell: eu-b
    region: eu
    port: 22670
  k618:
'''),
        ),
        "docs/matrix.md": put("special |\n| --- | --- | --- |\n", "| k617 | 6.17 | as Debian ships it |\n"),
    },
    tests=(
        f"{DOCS}::test_the_page_on_the_matrix_has_its_hosts_with_their_kernels",
        "tests/lab/test_lab.py::TestSettings",
        "tests/lab/test_lab.py::TestMatrixHosts",
        "tests/matrix/test_document.py::TestPlaces",
    ),
    probes=('''
import re
from tests.lab import paths, settings
from tests.matrix import places
(place,) = places.places(settings.load(paths.SETTINGS), ["k617"])
assert place.host and place.host.kernel.suite == "trixie-backports" and not place.hidden
name = "linux-image-6.17.8+deb13-cloud-amd64"
assert re.fullmatch(place.host.kernel.package, name), place.host.kernel.package
''',),
)  # fmt: skip
