# SPDX-License-Identifier: GPL-3.0-or-later
"""What shall run: resolved against contracts, rendered, read back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.release import desired

CONTRACTS = {"exec_events": {"signals": [{"sample_every": 1}]}, "runqlat": {"signals": [{"sample_every": 4}]}}


def test_without_a_wish_everything_runs_as_its_contract_says() -> None:
    assert desired.resolve_features(None, CONTRACTS) == {
        "exec_events": {"enabled": True, "sample_every": 1},
        "runqlat": {"enabled": True, "sample_every": 4},
    }


def test_a_policy_feature_runs_only_where_it_is_named() -> None:
    contracts = {**CONTRACTS, "exec_policy": {"data_path": "policy", "signals": [{"sample_every": 1}]}}
    assert sorted(desired.resolve_features(None, contracts)) == ["exec_events", "runqlat"]
    assert desired.resolve_features({"exec_policy": {}}, contracts) == {
        "exec_policy": {"enabled": True, "sample_every": 1}
    }


def test_a_feature_that_is_not_named_does_not_run() -> None:
    assert desired.resolve_features({"runqlat": {"enabled": False}}, CONTRACTS) == {
        "runqlat": {"enabled": False, "sample_every": 4}
    }
    assert desired.resolve_features({}, CONTRACTS) == {}


@pytest.mark.parametrize(
    ("features", "code", "word"),
    [
        ({"runqlatt": {}}, "EF_NOT_IN_BUNDLE", "did you mean 'runqlat'?"),
        ("runqlat", "EF_DESIRED_MALFORMED", "is not a mapping"),
        ({"runqlat": True}, "EF_DESIRED_MALFORMED", "features.runqlat"),
        ({"runqlat": {"enable": True}}, "EF_DESIRED_MALFORMED", "did you mean 'enabled'?"),
        ({"runqlat": {"enabled": "maybe"}}, "EF_DESIRED_MALFORMED", "true or false"),
        ({"runqlat": {"sample_every": 0}}, "EF_DESIRED_MALFORMED", "from 1"),
        ({"runqlat": {"sample_every": 2**32}}, "EF_DESIRED_MALFORMED", "from 1"),
        ({"runqlat": {"sample_every": 1.5}}, "EF_DESIRED_MALFORMED", "sample_every"),
        ({"runqlat": {"sample_every": True}}, "EF_DESIRED_MALFORMED", "sample_every"),
    ],
)
def test_a_wish_that_makes_no_sense_is_refused(features: Any, code: str, word: str) -> None:
    with pytest.raises(FleetError) as found:
        desired.resolve_features(features, CONTRACTS)
    assert found.value.code == code and word in found.value.message


@pytest.mark.parametrize("features", [None, [], {"runqlat": {}}, {"runqlat": {"enabled": 1, "sample_every": 1}}])
def test_the_host_takes_only_what_is_resolved(features: Any) -> None:
    with pytest.raises(FleetError):
        desired.check_resolved(features, CONTRACTS)


def test_the_document_is_canonical_and_comes_back() -> None:
    features = desired.resolve_features(None, CONTRACTS)
    text = desired.render_desired("a" * 64, features)
    assert json.loads(text) == {"schema": desired.SCHEMA, "bundle_digest": "a" * 64, "features": features}
    assert desired.parse_desired(text.encode()) == features


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"schema":"x","features":{}}', "[" * 100000])
def test_what_is_not_ours_is_unknown(text: str) -> None:
    assert desired.parse_desired(text.encode()) is None


def test_fallbacks_are_written_only_where_they_were_opted_into() -> None:
    assert "fallbacks" not in json.loads(desired.render_desired("a" * 64, {}))
    text = desired.render_desired("a" * 64, {}, ["bcc"])
    assert json.loads(text)["fallbacks"] == ["bcc"]
    assert desired.parse_fallbacks(text.encode()) == ("bcc",)
    assert desired.parse_fallbacks(b"{") == ()


@pytest.mark.parametrize("value", ["bcc", ["bbc"], [1], {"bcc": True}])
def test_a_fallback_that_is_none_is_refused(value: Any) -> None:
    with pytest.raises(FleetError, match="fallbacks"):
        desired.check_fallbacks(value)
