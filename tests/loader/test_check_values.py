# SPDX-License-Identifier: GPL-3.0-or-later
"""`check` by value, of which the kernel's part is made up here: nothing is loaded, nothing is attached."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.loader.bundles import Bundle, Trust
from tests.loader.drivers import build
from tests.loader.objects import bundle_of, compile_source, contract, variant

pytestmark = pytest.mark.apart

NEEDED = ("base/*.c", "bundle/*.c", "cmd/check.c", "feature/*.c", "events/*.c", "control/*.c",
          *(f"kernel/{name}.c" for name in ("format", "labels", "bpflog", "proof", "hook", "require", "requirement",
          "bpfnames", "kernel", "probe", "mapread", "privilege")))  # fmt: skip
SOURCE = """
#include "ef_kernel.h"
#include <bpf/bpf_helpers.h>
SEC("raw_tp/sys_enter") int ef_one(void *ctx) { return 0; }
SEC("raw_tp/sys_exit") int ef_two(void *ctx) { return 0; }
"""
ENOENT, EPERM, EINVAL = 2, 1, 22


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("check"), "check", NEEDED)


@pytest.fixture(scope="module")
def two_programs(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return compile_source(tmp_path_factory.mktemp("object"), "test", SOURCE)


def made(folder: Path, trust: Trust, data: bytes, **more: Any) -> Bundle:
    """A feature with a full and a reduced variant of that object."""
    variants = [variant(name, ["ef_one", "ef_two"], ["kernel:1.0"]) for name in ("full", "reduced")]
    return bundle_of(folder, trust, test=(contract("test", variants, **more), {"full": data, "reduced": data}))


def check(
    driver: Path, bundle: Bundle, trust: Trust, *options: str, loads: str = "", attaches: str = "", log: str = ""
) -> tuple[dict[str, Any], list[str]]:
    """The feature's answer, and what was asked of the kernel."""
    command = [str(driver), "check", str(bundle.root), *trust.arguments, *options]
    environment = {**os.environ, "LOADS": loads, "ATTACHES": attaches, "LOG": log}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=30)
    found: dict[str, Any] = json.loads(done.stdout)["features"]["test"]
    return found, done.stderr.splitlines()


def test_what_loads_and_attaches_is_reached_in_full(
    driver: Path, tmp_path: Path, trust: Trust, two_programs: bytes
) -> None:
    found, asked = check(driver, made(tmp_path, trust, two_programs), trust, "--attach")
    assert (found["profile"], found["variant"], found["reason_code"]) == ("full", "full", "EF_OK")
    assert list(found["variants"]) == ["full", "reduced"]
    full = found["variants"]["full"]
    assert (full["loads"], full["attaches"], full["errno"], full["errno_name"]) == (True, True, 0, None)
    assert [one["name"] for one in full["programs"]] == ["ef_one", "ef_two"]
    assert full["programs"][0]["verified_insns"] == 10 and full["programs"][0]["tag"] == "ab00000000000000"
    # The statistics alone are asked for; both programs attach before one is detached.
    variant_asked = ["level 4"] * 2 + ["load 0", "attach ef_one 0", "attach ef_two 0", "detach", "detach"]
    assert asked == variant_asked * 2
    found, asked = check(driver, made(tmp_path / "other", trust, two_programs), trust)
    assert found["variants"]["full"]["attaches"] is None and not any("attach" in line for line in asked)


@pytest.mark.parametrize(
    ("log", "processed", "stack"),
    [
        ("", None, None),
        ("stack depth 0\\nprocessed 12 insns (limit 1000000)", 12, 0),
        ("verification time 3 usec\\nstack depth 16\\nprocessed 0 insns", 0, 16),
        ("stack depth 16+0+8\\nprocessed 3 insns", 3, 24),
        ("stack depth 1+2+30+4 x\\nprocessed", None, 37),
        ("stack depth x\\nprocessed 2147483647 insns", 2**31 - 1, None),
        ("stack depth 2147483648\\nprocessed 2147483648 insns", None, None),
    ],
)
def test_the_verifiers_statistics_are_read(
    driver: Path, tmp_path: Path, trust: Trust, two_programs: bytes, log: str, processed: int | None, stack: int | None
) -> None:
    found, _ = check(driver, made(tmp_path, trust, two_programs), trust, log=log.replace("\\n", "\n"))
    for program in found["variants"]["full"]["programs"]:
        assert (program["processed_insns"], program["stack_bytes"]) == (processed, stack)


def test_the_first_variant_that_works_is_reached_with_the_reason_for_no_better(
    driver: Path, tmp_path: Path, trust: Trust, two_programs: bytes
) -> None:
    """What does not load is loaded once more without statistics, for the kernel's words."""
    found, asked = check(driver, made(tmp_path, trust, two_programs), trust, loads=f"{EINVAL},{EINVAL}")
    assert (found["profile"], found["variant"], found["reason_code"]) == ("reduced", "reduced", "EF_LOAD_REJECTED")
    assert found["reason"].startswith("variant full: ")
    full, reduced = found["variants"]["full"], found["variants"]["reduced"]
    assert (full["loads"], full["errno"], full["errno_name"], full["attaches"]) == (False, EINVAL, "EINVAL", None)
    assert full["programs"][0]["tag"] is None and full["programs"][0]["verified_insns"] is None
    assert (reduced["loads"], reduced["reason_code"], reduced["reason"]) == (True, "EF_OK", "it loads")
    assert [line for line in asked if "load" in line] == [f"load {EINVAL}", f"load {EINVAL}", "load 0"]


def test_where_none_works_the_last_reason_stands(
    driver: Path, tmp_path: Path, trust: Trust, two_programs: bytes
) -> None:
    found, _ = check(driver, made(tmp_path, trust, two_programs), trust, loads=",".join([str(EINVAL)] * 4))
    assert (found["profile"], found["variant"], found["reason_code"]) == ("disabled", None, "EF_LOAD_REJECTED")
    assert found["reason"].startswith("variant reduced: ")


@pytest.mark.parametrize("first", [True, False])
def test_a_variant_of_which_one_program_does_not_attach_does_not_work(
    driver: Path, tmp_path: Path, trust: Trust, two_programs: bytes, first: bool
) -> None:
    ends = f"{ENOENT}" if first else f"0,{ENOENT}"
    found, asked = check(driver, made(tmp_path, trust, two_programs), trust, "--attach", attaches=ends)
    full = found["variants"]["full"]
    assert (full["loads"], full["attaches"], full["errno"], full["errno_name"]) == (True, False, ENOENT, "ENOENT")
    assert full["reason_code"] == "EF_NO_ATTACH_POINT" and found["variant"] == "reduced"
    assert found["variants"]["reduced"]["reason"] == "it loads and attaches"
    assert asked.count("detach") == (2 if first else 3)


def test_a_contract_that_has_expired_reaches_nothing(
    driver: Path, tmp_path: Path, trust: Trust, two_programs: bytes
) -> None:
    old = made(tmp_path, trust, two_programs, lifetime="temporary", expires="2020-01-01")
    found, _ = check(driver, old, trust)
    assert (found["profile"], found["variant"], found["reason_code"]) == ("disabled", None, "EF_EXPIRED")


def test_an_object_that_is_none_is_not_loaded(driver: Path, tmp_path: Path, trust: Trust) -> None:
    found, asked = check(driver, made(tmp_path, trust, b"no object"), trust)
    full = found["variants"]["full"]
    assert (full["loads"], full["programs"], full["reason_code"]) == (False, [], "EF_LOAD_REJECTED") and asked == []
