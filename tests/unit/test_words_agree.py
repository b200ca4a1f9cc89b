# SPDX-License-Identifier: GPL-3.0-or-later
"""States, profiles and steps of degradation: C's tables and Python's have the same words, entry by entry."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from ansible_collections.ebpf.fleet.collectors.fleet_bcc import metrics
from ansible_collections.ebpf.fleet.plugins.module_utils.contract import profiles
from ansible_collections.ebpf.fleet.plugins.module_utils.rollout import status_schema

LOADER = Path(__file__).resolve().parents[2] / "bpf/loader"


def table(path: str, opening: str) -> tuple[str, ...]:
    """The words of a C array, in its order."""
    text = (LOADER / path).read_text(encoding="utf-8")
    found = re.search(re.escape(opening) + r"[^=]*= \{([^}]*)\}", text)
    assert found, f"{path} has no array {opening}"
    return tuple(re.findall(r'"([^"]*)"', found[1]))


def said(path: str, name: str) -> tuple[str, ...]:
    """The words in the comment before a function's declaration."""
    text = (LOADER / path).read_text(encoding="utf-8")
    found = re.search(r"/\*((?:(?!\*/)[^{}])*)\*/\n[^\n]*\b" + name + r"\(", text)
    assert found, f"{path} says nothing of {name}"
    return tuple(re.findall(r'"([^"]*)"', found[1]))


def test_states() -> None:
    states = table("feature/state.c", "names[EF_N_STATES]")
    assert states == status_schema.STATES == metrics.STATES == said("feature/state.h", "ef_state_name")


def test_why_a_feature_sees_nothing() -> None:
    """The first name is that of no reason, which no document has."""
    assert table("feature/unobserved.c", "names[EF_N_GAPS]")[1:] == status_schema.GAPS


def test_profiles() -> None:
    assert table("tell/labelled.c", "profiles[]") == profiles.PROFILES == metrics.PROFILES
    assert table("bundle/contract.c", "profiles[]") == profiles.OF_VARIANTS


@pytest.mark.parametrize("profile", profiles.PROFILES)
def test_the_loader_gives_a_variant_each_profile(profile: str) -> None:
    text = (LOADER / "bundle/contract.c").read_text(encoding="utf-8")
    assert f'"{profile}"' in text


def test_steps_of_degradation() -> None:
    steps = table("feature/degrade.c", "names[]")
    assert steps[0] == "none" and steps[1:] == said("feature/degrade.h", "ef_step_name")
