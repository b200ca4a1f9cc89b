# SPDX-License-Identifier: GPL-3.0-or-later
"""The matrix's own logic: what it compares, what it counts, what it refuses. No machine is started here."""

from __future__ import annotations

import copy
import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.facts import capability_document
from ansible_collections.ebpf.fleet.plugins.module_utils.report import matrix as pages

from tests.lab import fleet, paths
from tests.lab import settings as lab_settings
from tests.lab.errors import LabError
from tests.matrix import answers, bundles, document, places
from tests.matrix.errors import MatrixError
from tools import matrix as tool

FULL = {"profile": "full", "variant": "full", "reason_code": "EF_OK", "reason": "met"}
REDUCED = {"profile": "reduced", "variant": "reduced", "reason_code": "EF_NO_BTF", "reason": "no BTF"}
DISABLED = {"profile": "disabled", "variant": None, "reason_code": "EF_NO_BTF", "reason": "no BTF"}


def capabilities(**profiles: Any) -> dict[str, Any]:
    kernel = {"release": "6.1.0-50-cloud-amd64", "family": "6.1", "distro_family": "debian-6.1", "machine": "x86_64"}
    return {
        "kernel": kernel, "distro": {"id": "debian", "version_id": "12"}, "btf": {"state": "vmlinux"},
        "profiles": profiles,
    }  # fmt: skip


def status(**features: Any) -> dict[str, Any]:
    return {"state": "running", "kernel": {"btf": "vmlinux"}, "features": features}


def ran(found: dict[str, Any], *ids: int) -> dict[str, Any]:
    programs = [{"id": number, "name": f"ef_{number}"} for number in ids]
    return {**found, "state": "attached" if ids else "disabled", "programs": programs}


def check(**features: Any) -> dict[str, Any]:
    return {"btf": "vmlinux", "features": {name: {**found, "variants": {}} for name, found in features.items()}}


def whole(predicted: Any, reached: Any) -> dict[str, Any]:
    entry = document.host_entry(capabilities(x=predicted), status(x=ran(reached)), check(x=reached))
    return document.document({"name": "b"}, "d", {}, {"k61a": entry})


class TestComparison:
    def test_what_came_true_is_no_difference(self) -> None:
        assert whole(FULL, FULL)["differences"] == []

    def test_words_may_differ_codes_may_not(self) -> None:
        assert whole(REDUCED, {**REDUCED, "reason": "in other words"})["differences"] == []
        (found,) = whole(REDUCED, {**REDUCED, "reason_code": "EF_NO_HELPER"})["differences"]
        assert (found["host"], found["feature"]) == ("k61a", "x")

    @pytest.mark.parametrize("key", ["profile", "variant", "reason_code"])
    def test_each_compared_key_counts(self, key: str) -> None:
        assert not document.equal(FULL, {**FULL, key: "other"})

    def test_a_feature_that_one_side_does_not_know_differs(self) -> None:
        entry = document.host_entry(capabilities(a=FULL), status(b=ran(FULL, 1)), check(b=FULL))
        found = document.differences({"h": entry})
        assert [(one["feature"], one["predicted"] is None, one["reached"] is None) for one in found] == [
            ("a", False, True), ("b", True, False),
        ]  # fmt: skip

    def test_a_difference_is_told_with_both_sentences(self) -> None:
        (found,) = whole(FULL, DISABLED)["differences"]
        text = document.difference_text(found)
        assert "k61a: x:" in text
        assert "predicted full: x → full" in text
        assert "reached   disabled EF_NO_BTF: x → disabled: no BTF" in text

    def test_the_table_marks_it(self) -> None:
        lines = document.table(whole(FULL, DISABLED)).splitlines()
        assert [line.endswith("<-- differs") for line in lines] == [False, True]
        assert not any("differs" in line for line in document.table(whole(FULL, FULL)).splitlines())

    def test_figures_of_the_verifier_are_kept_and_the_log_is_not(self) -> None:
        checked = check(x=FULL)
        program = {"name": "ef_x", "insns": 3, "processed_insns": None, "stack_bytes": 8}
        checked["features"]["x"]["variants"] = {
            "full": {"loads": True, "attaches": True, "programs": [program], "log_tail": "long"}
        }
        cell = document.host_entry(capabilities(x=FULL), status(x=ran(FULL, 1)), checked)["features"]["x"]
        assert cell["variants"]["full"]["programs"] == [program]
        assert "log_tail" not in cell["variants"]["full"]


class TestContradictions:
    def test_none_where_run_check_and_kernel_agree(self) -> None:
        assert document.contradictions("h", status(x=ran(FULL, 7)), check(x=FULL), [7, 8]) == []

    def test_a_program_that_the_kernel_does_not_list(self) -> None:
        (found,) = document.contradictions("h", status(x=ran(FULL, 7)), check(x=FULL), [8])
        assert found == "h: x: bpftool sees no program 7 (ef_7)"

    def test_attached_without_a_program(self) -> None:
        empty = {**ran(FULL), "state": "attached"}
        assert document.contradictions("h", status(x=empty), check(x=FULL), []) == ["h: x: attached without a program"]

    def test_run_and_check_that_disagree(self) -> None:
        (found,) = document.contradictions("h", status(x=ran(REDUCED, 7)), check(x=FULL), [7])
        assert found == "h: x: run reached reduced/reduced, check full/full"

    def test_a_refused_bundle(self) -> None:
        refused = {"state": "refused", "kernel": {"btf": "missing"}, "features": None}
        found = document.contradictions("h", refused, check(), [])
        assert found == ["h: the loader is refused", "h: run says BTF missing, check says vmlinux"]


class TestCount:
    def test_eight_kernels_and_two_hidden_are_enough(self) -> None:
        assert document.shortfall([f"6.{minor}" for minor in range(8)], 2) == []

    def test_a_kernel_that_is_there_twice_counts_once(self) -> None:
        found = document.shortfall(["6.1"] * 9, 1)
        assert found[0].startswith("the matrix has 1 kernels: it needs 8")
        assert "hidden: it needs 2" in found[1]

    @pytest.mark.parametrize(
        ("release", "flavour"),
        [
            ("6.1.0-50-cloud-amd64", "cloud"), ("6.12.117+deb13-rt-amd64", "rt"), ("6.1.0-50-amd64", "generic"),
            ("6.18.44-fc", "other"),
        ],
    )  # fmt: skip
    def test_flavours(self, release: str, flavour: str) -> None:
        assert document.flavour(release) == flavour


class TestPlaces:
    LAB = lab_settings.load(paths.SETTINGS)

    def test_the_matrix_is_the_labs_group_and_this_machine_twice(self) -> None:
        names = [place.name for place in places.places(self.LAB, [])]
        assert names == [host.name for host in self.LAB.group("matrix")] + ["own", "own-n"]

    def test_a_strange_host_is_named(self) -> None:
        with pytest.raises(MatrixError, match="no host of the matrix: k61b; it has k510"):
            places.places(self.LAB, ["k61b", "own"])

    def test_hidden_hosts_have_twins(self) -> None:
        known = places.places(self.LAB, [])
        for hidden in (place for place in known if place.hidden):
            assert any(one.twin_kernel == hidden.twin_kernel and not one.hidden for one in known), hidden.name

    def test_hosts_are_asked_in_groups_that_fit(self) -> None:
        known = places.places(self.LAB, ["k510", "k61a", "k616", "own"])
        sizes = [[place.name for place in group] for group in tool.groups(known, 1300)]
        assert sizes == [["k510", "k61a"], ["k616", "own"]]
        assert [len(group) for group in tool.groups(known, 100)] == [1, 1, 2]


class TestJudgement:
    def matrix(self, *names: str, whole: bool = False) -> tool.Matrix:
        lab = lab_settings.load(paths.SETTINGS)
        return tool.Matrix(places.places(lab, list(names)), whole)

    def test_all_well(self) -> None:
        assert tool.judge(self.matrix("k61a"), whole(FULL, FULL)) == []

    def test_a_host_without_an_answer_is_named(self) -> None:
        assert "k616: is not in the matrix" in tool.judge(self.matrix("k61a", "k616"), whole(FULL, FULL))

    def test_what_went_wrong_on_the_way_is_a_failure(self) -> None:
        asked = self.matrix("k61a")
        asked.wrong("k61a: kernel 6.1 is not to be had")
        assert "k61a: kernel 6.1 is not to be had" in tool.judge(asked, whole(FULL, FULL))

    def test_a_kernel_that_is_gone_is_left_to_the_count_unless_it_was_asked_for(self) -> None:
        every = self.matrix("k61a", "k70", whole=True)
        every.miss("k70", "k70: kernel 7.0 is not to be had")
        every.miss("k70", "k70: kernel 7.0 is not to be had")
        assert every.absent == ["k70"]
        assert not any("k70" in text for text in tool.judge(every, whole(FULL, FULL)))
        asked = self.matrix("k70")
        asked.miss("k70", "k70: kernel 7.0 is not to be had")
        assert "k70: kernel 7.0 is not to be had" in tool.judge(asked, whole(FULL, FULL))

    def test_only_what_cannot_be_made_is_left_out(self, monkeypatch: pytest.MonkeyPatch) -> None:
        lab = lab_settings.load(paths.SETTINGS)
        every = self.matrix("k61a", "k70", whole=True)

        def build(_: Any, hosts: list[Any]) -> None:
            if hosts[0].name == "k70":
                raise LabError("no package of trixie-backports matches")

        monkeypatch.setattr(fleet, "build", build)
        found = tool.buildable(every, lab, [place.host for place in every.chosen if place.host])
        assert [host.name for host in found] == ["k61a"]
        assert every.absent == ["k70"]

    def test_a_whole_matrix_needs_its_kernels(self) -> None:
        asked = tool.Matrix(self.matrix("k61a").chosen, True)
        assert any("it needs 8" in text for text in tool.judge(asked, whole(FULL, FULL)))

    def test_wrong_usage_names_the_host(self) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "tools.matrix", "nosuch"], cwd=paths.REPOSITORY, capture_output=True, text=True,
            env={"PYTHONPATH": ".:collections", "PATH": "/usr/bin:/bin"},
        )  # fmt: skip
        assert done.returncode == 1
        assert "no host of the matrix: nosuch" in done.stderr


class TestAnswers:
    def test_parts_are_found_by_their_marks(self) -> None:
        text = 'noise\n=== check\n{"a": "=== b"}\n\n=== run_rc\n0\n'
        assert answers.parts(text) == {"check": '{"a": "=== b"}', "run_rc": "0"}

    def test_a_loader_that_says_nothing_is_an_error_with_its_words(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(answers, "WORK", tmp_path)
        said = "\n=== check\n\n=== programs\n[]\n=== status\n\n=== errors\nno such option\n"
        monkeypatch.setattr(answers, "unpack_and_ask", lambda *_: said)
        with pytest.raises(MatrixError, match="x: the loader gave no answer: no such option"):
            answers.loader(places.Place("x", False), tmp_path)


class TestBuildId:
    OWN = Path("/sys/kernel/notes")

    @staticmethod
    def note(name: bytes, kind: int, data: bytes) -> bytes:
        words = b"".join(number.to_bytes(4, "little") for number in (len(name), len(data), kind))
        return words + name.ljust(-(-len(name) // 4) * 4, b"\0") + data.ljust(-(-len(data) // 4) * 4, b"\0")

    def test_the_gnu_note_is_taken_and_no_other(self) -> None:
        identity = bytes(range(20))
        notes = self.note(b"Xen\0", 3, b"12345") + self.note(b"GNU\0", 1, b"1") + self.note(b"GNU\0", 3, identity)
        assert bundles.build_id_of(notes) == identity.hex()

    @pytest.mark.parametrize("notes", [b"", b"short", b"\xff" * 40])
    def test_without_one_there_is_none(self, notes: bytes) -> None:
        assert bundles.build_id_of(notes) is None

    def test_this_kernels_own(self) -> None:
        if not self.OWN.exists():
            pytest.skip("this kernel has no /sys/kernel/notes")
        found = bundles.build_id_of(self.OWN.read_bytes())
        assert found is None or len(found) == 40


class TestPayload:
    class Bundle:
        def __init__(self, path: Path) -> None:
            self.path = path

        @staticmethod
        def desired() -> dict[str, Any]:
            return {"features": {"x": {"enabled": True, "sample_every": 1}}}

    def test_it_holds_the_bundle_whole_and_who_asks(self, tmp_path: Path) -> None:
        with tarfile.open(tmp_path / "bundle.tar", "w") as archive:
            member = tarfile.TarInfo("loader/x86_64/ebpf-loader")
            member.size, member.mode = 3, 0o755
            archive.addfile(member, io.BytesIO(b"elf"))
        bundles.payload(self.Bundle(tmp_path / "bundle.tar"), "trust\n", tmp_path / "payload.tar")  # type: ignore[arg-type]
        with tarfile.open(tmp_path / "payload.tar") as made:
            modes = {member.name: member.mode for member in made}
            wanted = made.extractfile("etc/desired.json")
            assert wanted is not None
            assert json.loads(wanted.read()) == self.Bundle.desired()
        assert modes == {
            "bundle/loader/x86_64/ebpf-loader": 0o755, "etc/trust/allowed_signers": 0o644,
            "etc/desired.json": 0o644, "ask.sh": 0o644,
        }  # fmt: skip


def test_the_document_is_what_the_pages_are_made_of() -> None:
    doc = whole(FULL, DISABLED)
    doc["bundle"] = {"name": "b", "version": "1", "sequence": 1}
    before = copy.deepcopy(doc)
    assert capability_document.matrix_faults(doc) is None
    assert "k61a" in pages.matrix_markdown(doc)
    assert "k61a" in pages.matrix_html(doc)
    assert doc == before
