# SPDX-License-Identifier: GPL-3.0-or-later
"""The pages of docs/contributing, followed: a made-up addition by each page's steps, in a copy of the tree.

The files that the page numbers are the files that the addition changes, no fewer and no more: with all of them the
real tools take the addition, and without any one of them something fails.
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Iterator, Mapping

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle.contracts import read_contracts

from tests.integration import additions
from tests.integration.additions import CHECK, CODE, FEATURE, KERNEL, KIND, METRIC, Addition

pytestmark = pytest.mark.apart

ROOT = Path(__file__).resolve().parents[2]
PAGES = ROOT / "docs/contributing"
ADDITIONS = [FEATURE, METRIC, CHECK, KIND, CODE, KERNEL]
STEP = re.compile(r"^\| (\d+) \| `([^`]+)` \| (.+) \|$", re.M)
WHERE = re.compile(r"^\| ([^|`]+) \| `([^`]+)` \| (.+) \|$", re.M)
COMPILED = (FEATURE, KIND, METRIC, CODE)
LONGEST = "dns_queries_of_every_user_by_uid"
FORMS = pytest.mark.parametrize("addition", ADDITIONS, ids=lambda one: one.page)
# Four of them compile what they make at each step that is taken away, and one judges by it.
LONG = pytest.mark.parametrize(
    "addition",
    [pytest.param(one, marks=pytest.mark.slow) if one in (*COMPILED, CHECK) else one for one in ADDITIONS],
    ids=lambda one: one.page,
)


def page_of(addition: Addition) -> str:
    return (PAGES / f"{addition.page}.md").read_text(encoding="utf-8")


def named(path: str, words: Mapping[str, str]) -> str:
    """A path of a page with its placeholders, which are in capitals, replaced."""
    return re.sub(r"[A-Z]{4,}(?=[/.]|$)", lambda found: words.get(found[0], found[0]), path)


def steps(addition: Addition) -> list[str]:
    """The files of a page's steps, in their order."""
    return [named(path, addition.words) for _number, path, _change in STEP.findall(page_of(addition))]


# ---- the copy ----


class Tree:
    """A copy of the checkout: additions go in, are tried with the tools of the copy, and go out again."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def run(self, command: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
        paths = f"{self.root}:{self.root / 'collections'}"
        env = {**os.environ, "PYTHONPATH": paths, "ANSIBLE_CONFIG": str(self.root / "ansible.cfg"), **environment}
        return subprocess.run(command, cwd=self.root, env=env, check=False, capture_output=True, text=True)

    def make(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A target of the copy's Makefile, without the set-up of this machine."""
        return self.run(["make", "-s", "-o", "setup", f"PYTHON={sys.executable}", *arguments])

    def build_loader(self) -> str:
        """Compile the copy's loader; what went wrong, or nothing."""
        done = self.run(["make", "-s", "-C", "bpf", f"-j{os.cpu_count()}", "loader"])
        return done.stderr if done.returncode else ""

    def read(self, path: str) -> str | None:
        file = self.root / path
        return file.read_text(encoding="utf-8") if file.exists() else None

    def put(self, path: str, text: str | None) -> None:
        """Write a file, or remove it; an emptied folder goes too, as git knows none."""
        file = self.root / path
        if text is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        elif file.exists():
            file.unlink()
            if not any(file.parent.iterdir()):
                file.parent.rmdir()

    def changed(self) -> set[str]:
        """The files that differ from the copy as it was made, new ones included."""
        done = self.run(["git", "-c", "core.quotePath=false", "status", "--porcelain", "--untracked-files=all"])
        assert done.returncode == 0, done.stderr
        return {line[3:] for line in done.stdout.splitlines()}

    @contextlib.contextmanager
    def without(self, path: str, before: str | None) -> Iterator[None]:
        """The tree with one file as it was before."""
        now = self.read(path)
        self.put(path, before)
        yield
        self.put(path, now)

    def try_out(self, addition: Addition) -> str:
        """What refuses the addition, cheapest first; nothing where all of it is taken."""
        tests = ["-q", "-x", "-p", "no:cacheprovider", *addition.tests]
        commands = [[sys.executable, "-c", probe, *addition.words.values()] for probe in addition.probes]
        for command in [*commands, [sys.executable, "-m", "pytest", *tests]]:
            done = self.run(command)
            if done.returncode:
                return done.stdout[-3000:] + done.stderr[-3000:]
        return ""


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    """What git knows of this checkout and what is new in it, as a repository of its own."""
    root = tmp_path_factory.mktemp("tree")
    command = ["git", "-c", "safe.directory=*", "-C", str(ROOT), "ls-files", "-coz", "--exclude-standard"]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split("\0")
    for path in filter(None, listed):
        source = ROOT / path
        if not (source.exists() or source.is_symlink()):
            continue
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, root / path, follow_symlinks=False)
    made = Tree(root)
    who = ["-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false"]
    for words in (["init", "-q"], ["add", "-A"], [*who, "commit", "-qm", "copy", "--no-verify"]):
        done = made.run(["git", *words])
        assert done.returncode == 0, done.stderr
    return made


@pytest.fixture(scope="module")
def built(tree: Tree) -> Tree:
    """The copy with its loader compiled, once."""
    assert tree.build_loader() == ""
    return tree


@pytest.fixture
def clean(tree: Tree) -> Iterator[Tree]:
    yield tree
    for words in (["reset", "-q", "--hard"], ["clean", "-qfd"]):
        assert tree.run(["git", *words]).returncode == 0


# ---- the pages ----


def test_every_page_has_an_addition_and_is_linked() -> None:
    assert {path.stem for path in PAGES.glob("*.md")} == {one.page for one in ADDITIONS}
    contributing = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for one in ADDITIONS:
        assert f"(docs/contributing/{one.page}.md)" in contributing


@FORMS
def test_a_page_numbers_its_steps_and_names_files_that_are_there(addition: Addition) -> None:
    text = page_of(addition)
    found = STEP.findall(text)
    assert [int(number) for number, *_ in found] == list(range(1, len(found) + 1)) != []
    assert len(set(steps(addition))) == len(found), "a file has one step"
    new = set(re.findall(r"`([^`]*NAME[^`]*)`", text))
    for path in [path for _number, path, _change in found] + [path for _where, path, _change in WHERE.findall(text)]:
        assert path in new or (ROOT / named(path, addition.words)).is_file(), path


# ---- the additions ----


def add(tree: Tree, addition: Addition) -> dict[str, str | None]:
    """Take an addition's steps in their order; {path: its text before}."""
    before = {path: tree.read(path) for path in addition.edits}
    if addition.made:
        done = tree.make("feature", f"NAME={addition.words['NAME']}")
        assert done.returncode == 0, done.stderr
    for path in steps(addition):
        assert path in addition.edits, f"the page names {path}, and the addition does without"
        tree.put(path, addition.edits[path](tree.read(path) or ""))
    if addition.then:
        done = tree.make(addition.then)
        assert done.returncode == 0, done.stderr
    return before


@LONG
def test_the_steps_of_the_page_make_it_and_each_is_needed(built: Tree, clean: Tree, addition: Addition) -> None:
    before = add(clean, addition)
    assert clean.changed() == set(addition.edits) == set(steps(addition)), "the page names what must be changed"
    if addition.builds:
        assert clean.build_loader() == ""
    assert clean.try_out(addition) == ""
    needless = []
    for path, text in before.items():
        with clean.without(path, text):
            if clean.try_out(addition) == "":
                needless.append(path)
    assert needless == [], "the page names these, and nothing fails without them"


def test_a_metric_is_in_what_the_loader_writes(built: Tree, clean: Tree, tmp_path: Path) -> None:
    """Its own renderer, over a snapshot that needs no kernel."""
    (clean.root / "bpf/loader/tell/metrics.c").touch()
    absent = rendered(clean, tmp_path / "before")
    add(clean, METRIC)
    (clean.root / "bpf/loader/tell/metrics.c").touch()
    assert additions.METRIC_LINE in rendered(clean, tmp_path / "after")
    assert "features_known" not in absent and "ebpf_fleet_kernel_info" in absent


def rendered(tree: Tree, binary: Path) -> str:
    assert tree.build_loader() == ""
    parts = (tree.root / "build/loader-obj" / platform.machine()).glob("*/*.o")
    objects = [str(path) for path in parts if path.name != "main.o"]
    driver = tree.root / "tests/integration/metrics_driver.c"
    command = ["gcc", "-std=gnu11", "-D_GNU_SOURCE", "-iquote", str(tree.root / "bpf/loader"), str(driver), *objects]
    libraries = ["-lbpf", "-lelf", "-lz", "-ljansson", "-lsodium", "-lseccomp", "-pthread"]
    done = tree.run([*command, "-o", str(binary), *libraries])
    assert done.returncode == 0, done.stderr
    done = tree.run([str(binary), str(additions.METRIC_FEATURES)])
    assert done.returncode == 0, done.stderr
    return done.stdout


# ---- make feature ----


def test_a_skeleton_builds_and_keeps_its_contract_and_no_release_takes_it(built: Tree, clean: Tree) -> None:
    done = clean.make("feature", "NAME=dns_queries")
    assert done.returncode == 0, done.stderr
    told = set(re.findall(r"^feature: (\S+/\S+)$", done.stdout, re.M))
    made = {named(path, FEATURE.words) for _n, path, change in STEP.findall(page_of(FEATURE)) if "made: " in change}
    assert clean.changed() == told == made
    held = clean.make("contract", "NAME=dns_queries")
    assert held.returncode == 0, held.stderr
    assert "dns_queries builds and holds what its contract says" in held.stdout
    left = re.findall(r"before a release: \S+: (\S+): is 'FILL IN", held.stdout)
    assert left == ["summary", "owner.team", "owner.contact", "signals[0].help", "maps[3].cardinality"]
    folder = clean.root / "bpf/features/dns_queries"
    with pytest.raises(FleetError) as refused:
        read_contracts({"dns_queries": folder}, "2026-11-27")
    assert refused.value.code == "EF_CONTRACT_MALFORMED"
    for field in left:
        assert f"contract.yml: {field}: is 'FILL IN" in refused.value.message
    contract = folder / "contract.yml"
    contract.write_text(additions.fill_in(contract.read_text()))
    assert set(read_contracts({"dns_queries": folder}, "2026-11-27")) == {"dns_queries"}


@pytest.mark.parametrize("name", ["dns_queries", LONGEST])
def test_a_skeleton_is_in_the_style_of_the_house(clean: Tree, name: str) -> None:
    assert clean.make("feature", f"NAME={name}").returncode == 0
    style = ["clang-format-14", "--style=file:bpf/.clang-format", "--dry-run", "-Werror"]
    done = clean.run([*style, f"bpf/features/{name}/{name}.bpf.c"])
    assert done.returncode == 0, done.stderr
    done = clean.run([sys.executable, "-m", "yamllint", "--strict", f"bpf/features/{name}", "docs/runbooks/alerts.yml"])
    assert done.returncode == 0, done.stdout


def test_an_object_that_is_not_what_its_contract_says_is_refused(built: Tree, clean: Tree) -> None:
    assert clean.make("feature", "NAME=dns_queries").returncode == 0
    contract = clean.root / "bpf/features/dns_queries/contract.yml"
    contract.write_text(contract.read_text().replace("max_entries: 1024", "max_entries: 1025"))
    held = clean.make("contract", "NAME=dns_queries")
    assert held.returncode == 2 and "EF_CONTRACT_MALFORMED" in held.stderr
    assert "has 1025 here and 1024 in variant 'full'" in held.stderr


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("", "NAME is missing"),
        ("Dns", "NAME is 'Dns'; use [a-z]"),
        ("dns-queries", "NAME is 'dns-queries'; use [a-z]"),
        ("../dns", "NAME is '../dns'; use [a-z]"),
        ("dns/x", "NAME is 'dns/x'; use [a-z]"),
        ("a" * 33, "at most 32 characters"),
        ("x", "begin it with a word of two letters"),
        ("runqlat", "bpf/features/runqlat is there already"),
        ("events_dropped", "docs/runbooks/events_dropped.md is there already"),
        ("events_produced", "docs/metrics.md has a metric ebpf_fleet_events_produced_total already"),
        ("file__unlinks", "docs/runbooks/alerts.yml has an alert FileUnlinksHigh already"),
        ("dns$$(touch${IFS}x)", "use [a-z]"),
    ],
)
def test_a_name_that_cannot_be_used_changes_nothing(clean: Tree, name: str, says: str) -> None:
    done = clean.make("feature", f"NAME={name}")
    lines = [line for line in done.stderr.splitlines() if line.startswith("feature: ")]
    assert done.returncode == 2 and len(lines) == 1 and says in lines[0], done.stderr
    assert clean.changed() == set() and done.stdout == ""


def test_a_name_of_the_environment_is_not_one_that_was_typed(clean: Tree) -> None:
    done = clean.run(["make", "-s", "-o", "setup", f"PYTHON={sys.executable}", "feature"], NAME="laptop")
    assert done.returncode == 2 and "NAME is missing" in done.stderr
    assert clean.changed() == set()


def test_the_longest_name_makes_a_feature(built: Tree, clean: Tree) -> None:
    """The kernel cuts names off after 15 characters, so they are not made of the feature's whole name."""
    assert len(LONGEST) == 32
    assert clean.make("feature", f"NAME={LONGEST}").returncode == 0
    held = clean.make("contract", f"NAME={LONGEST}")
    assert held.returncode == 0, held.stderr
