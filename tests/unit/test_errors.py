# SPDX-License-Identifier: GPL-3.0-or-later
"""The one family of errors, held over the sources: every class is of it, everything raised has a code, one way out."""

from __future__ import annotations

import ast
import builtins
import errno
import os
import re
from pathlib import Path
from typing import Any, Callable, Iterator, NamedTuple

import pytest
import yaml
from ansible.errors import AnsibleFilterError
from ansible_collections.ebpf.fleet.plugins.filter import (
    census,
    host_policy,
    kill,
    rollback,
    rollout_plan,
    trust,
    values,
)
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError, OneCodeError, explain
from ansible_collections.ebpf.fleet.plugins.module_utils.base.reasons.table import REASONS
from ansible_collections.ebpf.fleet.plugins.module_utils.kill.script import MARK
from ansible_collections.ebpf.fleet.plugins.plugin_utils import told

ROOT = Path(__file__).resolve().parents[2]
PLUGINS = ROOT / "plugins"
BUILTIN = {name for name, one in vars(builtins).items() if isinstance(one, type) and issubclass(one, BaseException)}

# Files that raise Python's own errors, and who makes of them what an operator meets. Nothing else may.
OWN_ERRORS = {
    "module_utils/base/atomic_files.py": "an OSError as of the system call itself, which base.errors.explain words",
    "module_utils/base/bounded.py": "parse_json's ValueError has no file yet; read_json and the callers name it",
    "module_utils/base/strictjson.py": "a ValueError without the file, which those who read a control file name",
    "module_utils/bundle/contracts.py": "PyYAML's own error, which _read names with the contract's path",
    "module_utils/bundle/manifest.py": "a ValueError of the document, which becomes EF_MANIFEST_MALFORMED",
    "module_utils/bundle/minimal_btf.py": "a TarError beside those of tarfile, which names the archive",
    "module_utils/bundle/signature.py": "a ValueError of the signature's parser, which becomes EF_SIG_MALFORMED",
    "module_utils/bundle/trustfiles.py": "a ValueError of one line, which becomes EF_TRUST_MALFORMED with its number",
    "module_utils/foreign/act.py": "an OSError that the same file makes an outcome of a step",
    "module_utils/kernel/bpffs.py": "an OSError of mount(2), which is an answer of the kernel",
    "module_utils/kernel/bpfobject.py": "a ValueError of an ELF file, which the compiler of a variant names",
    "module_utils/kernel/bpfsys.py": "an OSError with the kernel's errno, which is an answer of the kernel",
    "module_utils/kernel/kernelimage.py": "a ValueError of a packing, which unpack makes an ImageError",
    "module_utils/kernel/netchange.py": "an OSError as the kernel's own, where this compares and the kernel cannot",
    "module_utils/kernel/netlink.py": "an OSError with the kernel's errno, which is an answer of the kernel",
    "module_utils/kernel/netns.py": "an OSError of setns(2), which is an answer of the kernel",
    "module_utils/kill/parts/list_programs.py": "the exit status of a script that runs without this collection",
    "module_utils/pull/documents.py": "a ValueError of a field; it becomes EF_ARGUMENT or EF_PULL_STATE with its file",
    "module_utils/pull/fetch.py": "a ValueError of a location, which its readers name; what the fetching process meets",
    "module_utils/rollout/ledger.py": "a ValueError of one line or entry, which becomes EF_LEDGER_BROKEN or EF_LEDGER",
    "plugin_utils/host_connection.py": "an alarm within Ansible's templating, which knows only its own errors",
}


class Source(NamedTuple):
    name: str
    tree: ast.Module


def sources() -> list[Source]:
    found = [
        Source(path.relative_to(PLUGINS).as_posix(), ast.parse(path.read_text(encoding="utf-8")))
        for path in sorted(PLUGINS.rglob("*.py"))
    ]
    assert len(found) > 100
    return found


SOURCES = sources()


def name_of(node: ast.expr) -> str:
    """The last part of a dotted name; empty for another expression."""
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")


def exception_classes() -> Iterator[tuple[str, ast.ClassDef]]:
    """Every class of ours that is raised or is named like one that is."""
    for source in SOURCES:
        for node in ast.walk(source.tree):
            if isinstance(node, ast.ClassDef) and any(
                name_of(base) in BUILTIN or name_of(base).endswith(("Error", "Exception", "Fail"))
                for base in node.bases
            ):
                yield source.name, node


FAMILY = {"FleetError", "OneCodeError", *(node.name for _file, node in exception_classes())}


def code_of(node: ast.ClassDef) -> str | None:
    """The code that a class says for all that raise it."""
    for one in node.body:
        if isinstance(one, ast.Assign) and [name_of(target) for target in one.targets] == ["code"]:
            return one.value.value if isinstance(one.value, ast.Constant) else None
    return None


def wrong_class(node: ast.ClassDef) -> str | None:
    """Why a class is not as one of the family has to be; None if it is."""
    bases = [name_of(base) for base in node.bases]
    if node.name == "FleetError":
        return None if bases == ["Exception"] else "the family's first is an Exception and nothing else"
    if not set(bases) & FAMILY:
        return f"is of {', '.join(bases)}: make it a OneCodeError, or raise FleetError with a code"
    if node.name == "OneCodeError":
        return None
    code = code_of(node)
    return None if code in REASONS else f"says the code {code!r}, which is not in the list"


def test_every_exception_class_is_of_the_family_and_has_a_code() -> None:
    wrong = {(file, node.name): wrong_class(node) for file, node in exception_classes() if wrong_class(node)}
    assert wrong == {}
    assert len(list(exception_classes())) > 10


@pytest.mark.parametrize(
    "text",
    [
        "class A(Exception): pass",
        "class A(ValueError):\n    code = 'EF_KEY'",
        "class A(AnsibleError): pass",
        "class A(OneCodeError): pass",
        "class A(OneCodeError):\n    code = 'EF_OF_TOMORROW'",
        "class A(OneCodeError):\n    code = TEXT",
    ],
)
def test_a_class_outside_of_the_family_or_without_a_code_is_found(text: str) -> None:
    node = ast.parse(text).body[0]
    assert isinstance(node, ast.ClassDef) and wrong_class(node)


# ---- what is raised ----


def own_constants(tree: ast.Module) -> dict[str, object]:
    """The module's own names for literals."""
    return {
        name_of(node.targets[0]): node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
    }


def constants(tree: ast.Module) -> dict[str, object]:
    """The names for literals that a module has or imports from another of ours."""
    by_file = {source.name: source.tree for source in SOURCES}
    found = own_constants(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            file = (node.module or "").partition("ebpf.fleet.plugins.")[2].replace(".", "/") + ".py"
            theirs = own_constants(by_file[file]) if file in by_file else {}
            found.update({one.asname or one.name: theirs[one.name] for one in node.names if one.name in theirs})
    return found


def is_code(node: ast.expr, tree: ast.Module) -> bool:
    """Is the expression a code of the list, or another error's or a caller's?"""
    if isinstance(node, ast.Constant):
        return node.value in REASONS
    if isinstance(node, ast.IfExp):
        return is_code(node.body, tree) and is_code(node.orelse, tree)
    if isinstance(node, ast.Attribute):
        return node.attr == "code"
    if not isinstance(node, ast.Name):
        return False
    known = constants(tree)
    return known[node.id] in REASONS if node.id in known else node.id == "code"


def calls_of(tree: ast.Module, name: str) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call) and name_of(node.func) == name)


def without_code(source: Source) -> list[str]:
    return [
        f"{source.name}:{call.lineno}"
        for call in calls_of(source.tree, "FleetError")
        if len(call.args) < 2 or not is_code(call.args[0], source.tree)
    ]


def test_every_error_that_is_made_says_its_code() -> None:
    assert [line for source in SOURCES for line in without_code(source)] == []
    assert sum(len(list(calls_of(source.tree, "FleetError"))) for source in SOURCES) > 80


@pytest.mark.parametrize(
    "text",
    [
        "FleetError('EF_OF_TOMORROW', 'x')",
        "FleetError(message, 'x')",
        "FleetError('EF_KEY')",
        "FleetError(f'EF_{x}', 'y')",
        "CODE = 'EF_OF_TOMORROW'\nFleetError(CODE, 'x')",
    ],
)
def test_an_error_without_a_code_of_the_list_is_found(text: str) -> None:
    assert without_code(Source("x.py", ast.parse(text)))


def raised(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, class) of what is raised; a name that was caught is not a new one."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
            yield node.lineno, name_of(node.exc.func)
        elif isinstance(node, ast.Raise) and name_of(node.exc or ast.Constant(0)) in BUILTIN:
            yield node.lineno, name_of(node.exc or ast.Constant(0))


def is_foreign(name: str) -> bool:
    """A class that is not of the family: Python's, Ansible's or a library's."""
    return name not in FAMILY and (name in BUILTIN or name.endswith(("Error", "Exception", "Fail")))


def test_nothing_else_is_raised_but_where_a_coded_error_is_made_of_it() -> None:
    foreign = {source.name for source in SOURCES for _line, name in raised(source.tree) if is_foreign(name)}
    assert foreign - set(OWN_ERRORS) == set(), "raise FleetError with a code"
    assert set(OWN_ERRORS) - foreign == set(), "these raise nothing of that kind any more: strike them out"


def test_what_is_raised_is_seen() -> None:
    tree = ast.parse(
        "raise ValueError('x')\nraise AnsibleError(y)\nraise KeyError\nraise error\nraise FleetError('EF_KEY', '')"
    )
    assert [name for _line, name in raised(tree) if is_foreign(name)] == ["ValueError", "AnsibleError", "KeyError"]


# ---- the one way out ----


def plain_failures(source: Source) -> list[str]:
    """The lines that fail a module with words of their own in place of an error's."""
    return [
        f"{source.name}:{call.lineno}"
        for call in calls_of(source.tree, "fail_json")
        if any(one.arg == "msg" for one in call.keywords)
        or not any(
            one.arg is None and isinstance(one.value, ast.Call) and name_of(one.value.func) == "as_result"
            for one in call.keywords
        )
    ]


def test_a_module_fails_by_an_error_of_the_family_only() -> None:
    assert [line for source in SOURCES for line in plain_failures(source)] == []
    assert sum(len(list(calls_of(source.tree, "fail_json"))) for source in SOURCES) > 7
    two = "module.fail_json(msg='x')\nmodule.fail_json(**error.as_result())"
    assert plain_failures(Source("x.py", ast.parse(two))) == ["x.py:1"]


def test_an_action_fails_by_the_keys_of_an_error_only() -> None:
    """`failed: True` stands where the keys of an error are made, and where a host's own failure is handed on."""
    made = {
        source.name
        for source in SOURCES
        if source.name.startswith(("action/", "plugin_utils/"))
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Dict)
        for key, value in zip(node.keys, node.values)
        if isinstance(key, ast.Constant) and key.value == "failed" and getattr(value, "value", None) is True
    }
    assert made == {"plugin_utils/told.py", "plugin_utils/host_failure.py"}


def test_the_members_of_the_family_show_their_code() -> None:
    class SomeKeyError(OneCodeError):
        code = "EF_KEY"

    error = SomeKeyError("signing_key: k is not a key; give one", "k")
    assert isinstance(error, FleetError) and str(error) == "signing_key: k is not a key; give one"
    assert error.as_line() == "EF_KEY: signing_key: k is not a key; give one" and error.file == "k"
    assert error.as_result()["reason_code"] == "EF_KEY" and error.as_result()["remedy"]


UNCONCERNED = {"h": {"rc": 0, "stdout": f'{MARK}{{"ok": true, "concerned": false}}'}}
A_HOST = (
    [{"inventory_hostname": "h", "ebpf_fleet_capability": {"capabilities": {"profiles": {"p": {}}}}}],
    [{"feature": "p", "data_path": "policy"}],
)
FILTERS: dict[str, tuple[Callable[[], object], str]] = {
    "census_html": (lambda: census.FilterModule().filters()["census_html"]([]), "EF_UNREADABLE: census_html: "),
    "host_policy": (lambda: host_policy.host_policy(3), "EF_HOST_POLICY_MALFORMED: ebpf_fleet_policy: "),
    "kill_census": (lambda: rollback.kill_census(UNCONCERNED, ["globl"]), "EF_ARGUMENT: scope 'globl' is not one"),
    "kill_script": (lambda: kill.kill_script(["globl"]), "EF_ARGUMENT: scope 'globl' is not one"),
    "policy_refusals": (lambda: census.policy_refusals(*A_HOST, {"x": 1}), "EF_ARGUMENT: limits.x: is not known"),
    "report_paths": (lambda: census.report_paths("", "/"), "EF_ARGUMENT: report_paths: the path is empty"),
    "rollback_script": (lambda: rollback.rollback_script("x"), "EF_ARGUMENT: from_digest 'x' is not 64 hex digits"),
    "rollout_plan": (lambda: rollout_plan.rollout_plan([]), "EF_PLAN: hosts: the list is empty"),
    "trust_text": (lambda: trust.trust_text(3, "n"), "EF_ARGUMENT: n: is 3, neither a text nor a list"),
    "value": (lambda: values.value("x", "ebpf_fleet_bake"), "EF_ARGUMENT: ebpf_fleet_bake: is 'x' (text)"),
    "value_faults": (lambda: values.value_faults([], "x"), "EF_ARGUMENT: value_faults: 'x' is not a group"),
}


@pytest.mark.parametrize("name", FILTERS)
def test_a_filter_fails_with_code_and_sentence(name: str) -> None:
    call, line = FILTERS[name]
    with pytest.raises(AnsibleFilterError) as caught:
        call()
    assert str(caught.value).startswith(line)


def test_a_fault_that_is_told_is_the_same_line() -> None:
    assert rollout_plan.rollout_plan([], told=True) == {
        "fault": "EF_PLAN: hosts: the list is empty; name at least one host"
    }
    assert host_policy.host_policy(3, told=True)["fault"].startswith("EF_HOST_POLICY_MALFORMED: ebpf_fleet_policy: ")


def test_an_action_that_fails_returns_what_a_module_does() -> None:
    error = FleetError("EF_HOSTS", "hosts: the list is empty; name one")
    assert told.failed(error) == {**error.as_result(), "failed": True, "changed": False}


@pytest.mark.parametrize(
    ("number", "code", "words"),
    [
        (errno.ENOSPC, "EF_DISK_FULL", "/x: no space is left; make room on that file system"),
        (errno.EDQUOT, "EF_DISK_FULL", "/x: no space is left; make room on that file system"),
        (errno.EROFS, "EF_NOT_WRITTEN", "/x: the file system is read-only; remount it"),
        (errno.EACCES, "EF_NOT_WRITTEN", "/x: Permission denied; correct that and run again"),
    ],
)
def test_an_error_of_the_system_joins_the_family(number: int, code: str, words: str) -> None:
    found = explain(OSError(number, os.strerror(number), "/x"), "EF_NOT_WRITTEN")
    assert (found.code, found.message, found.file) == (code, words, "/x")
    assert explain(found) is found
    nameless = explain(OSError(errno.EIO, "Input/output error"))
    assert (nameless.code, nameless.message) == (
        "EF_STORE",
        "the host's disk: Input/output error; correct that and run again",
    )


# ---- playbooks and roles ----

FAILURES = {"ansible.builtin.assert": "fail_msg", "ansible.builtin.fail": "msg"}
# A code of the playbook's own, a code chosen by the verdict, or the line of an error that a filter or lookup told.
TOLD = (
    r"(?:ebpf_fleet_(?:target|plan|taking_part|sampling|before_inventory|takeoff_chosen|gameday_chosen|triage_found|triage_choice)|judged)"
    r"\.fault"
)
CODED = re.compile(
    r"EF_[A-Z_]+: ."
    r"|\{\{ '(EF_[A-Z_]+)' if [^}]+ else '(EF_[A-Z_]+)' \}\}: ."
    rf"|\{{\{{ {TOLD}( \| default\(''\))? \}}\}}$"
)


def tasks_of(node: Any) -> Iterator[dict[str, Any]]:
    """Every mapping of a playbook or a role, however deep in blocks."""
    if isinstance(node, list):
        for one in node:
            yield from tasks_of(one)
    elif isinstance(node, dict):
        yield node
        for one in node.values():
            yield from tasks_of(one)


def failures_of(text: str) -> Iterator[tuple[str, str]]:
    """(task, words) of each task that can fail with words of its own."""
    for task in tasks_of(yaml.safe_load(text)):
        for module, option in FAILURES.items():
            if isinstance(task.get(module), dict):
                yield str(task.get("name")), str(task[module].get(option, ""))
        if task.get("failed_when") is True:
            yield str(task.get("name")), str(task["ansible.builtin.debug"]["msg"])


def test_every_failure_of_a_playbook_begins_with_a_code() -> None:
    files = [*ROOT.glob("playbooks/**/*.yml"), *ROOT.glob("roles/*/tasks/*.yml")]
    found = [(path.name, *one) for path in files for one in failures_of(path.read_text(encoding="utf-8"))]
    assert [(file, task) for file, task, words in found if not CODED.match(words)] == []
    assert len(found) > 25


def test_a_failure_without_a_code_is_found() -> None:
    text = (
        "- block:\n  - name: a\n    ansible.builtin.fail: {msg: x}\n  - name: b\n    ansible.builtin.assert: {that: x}"
    )
    assert [(task, bool(CODED.match(words))) for task, words in failures_of(text)] == [("a", False), ("b", False)]


# ansible-core has fragments for options, not for what is returned: each module says it, and all alike.
@pytest.mark.parametrize("path", sorted((ROOT / "plugins/modules").glob("*.py")), ids=lambda path: path.stem)
def test_every_module_documents_what_a_failure_returns_and_all_alike(path: Path) -> None:
    returned = yaml.safe_load(re.search(r'RETURN = r"""\n(.*?)"""', path.read_text(encoding="utf-8"), re.S)[1])
    told = {name: {**returned[name], "sample": None} for name in set(FleetError("EF_STORE", "").as_result()) - {"msg"}}
    assert told == {
        "reason_code": {"description": "Why it was refused or failed, a code of docs/reason-codes.md.",
                        "returned": "failure", "type": "str", "sample": None},
        "remedy": {"description": "What docs/reason-codes.md says to do.",
                   "returned": "failure", "type": "str", "sample": None},
        "file": {"description": "The file that the reason is about, or null.",
                 "returned": "failure", "type": "str", "sample": None},
    }  # fmt: skip
