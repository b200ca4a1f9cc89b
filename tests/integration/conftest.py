# SPDX-License-Identifier: GPL-3.0-or-later
"""What the integration tests share: with those of the loader the binary, objects, key and trust; and built bundles."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle import contracts, writer
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle import files as bd

from tests.integration.release_host import REPO, as_bundle, make_bundle, make_key, order
from tests.loader.conftest import feature_objects, other_key, signing_key, trust
from tests.loader.conftest import loader as built_loader

POLICY_FEATURES = ["exec_events", "exec_policy", "file_unlinks", "runqlat"]

__all__ = ["built_loader", "feature_objects", "loader", "other_key", "signing_key", "trust"]


@pytest.fixture(scope="session")
def loader(built_loader: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the binary, which a build beside us does not take away."""
    copy = tmp_path_factory.mktemp("loader") / "ebpf-loader"
    shutil.copy(built_loader, copy)
    return copy


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A signed bundle of one feature, for playbooks that hosts are asked by."""
    path = tmp_path_factory.mktemp("bundle") / "fleet.tar"
    path.write_bytes(bd.as_tar(make_bundle()))
    return path


@pytest.fixture(scope="module")
def policy_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A signed bundle with a policy feature, and one whose hook may be gone."""
    features = contracts.find_features([REPO / "bpf/features"], POLICY_FEATURES)
    built = as_bundle(writer.build(order("2.0.0", 2, make_key(), features=features)).members)
    path = tmp_path_factory.mktemp("bundle") / "fleet.tar"
    path.write_bytes(bd.as_tar(built))
    return path
