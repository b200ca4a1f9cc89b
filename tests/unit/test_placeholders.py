# SPDX-License-Identifier: GPL-3.0-or-later
"""Texts that a skeleton left open: each is found, however deep, and a text that only speaks of it is none."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.contract.document import validate_contract
from ansible_collections.ebpf.fleet.plugins.module_utils.contract.placeholders import placeholders

from tests.unit.test_contract import GOOD, changed


def test_a_contract_that_says_everything_has_none() -> None:
    assert placeholders(GOOD, "c") == []


@pytest.mark.parametrize("path", ["summary", "owner.team", "signals.0.help", "signals.0.consumer.alert", "maps.0.why"])
@pytest.mark.parametrize("text", ["FILL IN", "FILL IN: the team.", " fill in: the team."])
def test_each_is_named_with_its_field_and_what_to_do(path: str, text: str) -> None:
    document = changed(GOOD, path, text)
    (error,) = placeholders(document, "x/contract.yml")
    first, *parts = path.split(".")
    field = first + "".join(f"[{part}]" if part.isdigit() else f".{part}" for part in parts)
    assert error.code == "EF_CONTRACT_MALFORMED" and error.file == "x/contract.yml"
    assert error.message.startswith(f"x/contract.yml: {field}: is {text!r}")
    assert error.message.endswith("; write what it asks for")


def test_all_are_told_at_once_and_none_keeps_the_contract_from_being_built() -> None:
    document = changed(changed(GOOD, "owner.team", "FILL IN: a"), "owner.contact", "FILL IN: b")
    assert len(placeholders(document, "c")) == 2
    assert validate_contract(document, "c") == []


@pytest.mark.parametrize("value", ["Counts who must FILL IN forms.", 7, True, None, []])
def test_what_is_no_placeholder(value: Any) -> None:
    assert placeholders(changed(GOOD, "summary", value), "c") == []


@pytest.mark.parametrize("document", [None, [], 3])
def test_a_document_that_is_not_a_mapping_has_none(document: Any) -> None:
    assert placeholders(document, "c") == []
