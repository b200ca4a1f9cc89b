# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The contracts of the features that go into a bundle, read on the controller. Needs PyYAML."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Mapping

import yaml
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError, did_you_mean, raise_all
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle import manifest as mf
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle.feature_folder import (
    CONTRACT,
    folder_problems,
)
from ansible_collections.ebpf.fleet.plugins.module_utils.contract.document import validate_contract
from ansible_collections.ebpf.fleet.plugins.module_utils.contract.placeholders import placeholders
from ansible_collections.ebpf.fleet.plugins.module_utils.contract.rules import CODE


class _StrictLoader(yaml.SafeLoader):
    """YAML as a contract may use it: no key twice, dates stay text."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key_node, _value_node in node.value:
            key = str(key_node.value)
            if key in seen:
                line = key_node.start_mark.line + 1
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is there twice (line {line})")
            seen.add(key)
        return super().construct_mapping(node, deep)


def read_contract(path: Path) -> Any:
    """Parse a contract; raises FleetError (EF_CONTRACT_MALFORMED) for anything that is not plain YAML."""
    try:
        data = path.read_bytes()
        if len(data) > mf.MAX_CONTRACT:
            raise FleetError(CODE, f"{path}: has more than {mf.MAX_CONTRACT} bytes; shorten it", str(path))
        return yaml.load(data.decode("utf-8"), Loader=_StrictLoader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        said = " ".join(str(error).split())
        raise FleetError(CODE, f"{path}: cannot be read as YAML ({said}); correct it", str(path)) from error


def find_features(folders: list[Path], names: list[str] | None) -> dict[str, Path]:
    """The folders of the wanted features. Each of ``folders`` is one feature or holds several.

    ``names`` None wants all. Raises FleetError (EF_ARGUMENT).
    """
    found: dict[str, Path] = {}
    for folder in folders:
        for feature in _feature_folders(folder):
            if feature.name in found:
                raise FleetError(
                    "EF_ARGUMENT",
                    f"features_dirs: {feature.name!r} is in {found[feature.name].parent} and in {feature.parent}; "
                    "rename one",
                )
            found[feature.name] = feature
    for name in names or []:
        if name not in found:
            raise FleetError("EF_ARGUMENT", f"features: {name!r} is not there; {did_you_mean(name, found)}")
    return {name: found[name] for name in sorted(found) if names is None or name in names}


def _feature_folders(folder: Path) -> list[Path]:
    if (folder / CONTRACT).is_file():
        return [folder.resolve()]
    inside = sorted(path.parent.resolve() for path in folder.glob(f"*/{CONTRACT}"))
    if not inside:
        raise FleetError(
            "EF_ARGUMENT", f"features_dirs: {folder} holds no feature; give a folder with NAME/{CONTRACT}", str(folder)
        )
    return inside


def contract_problems(name: str, folder: Path, today: str) -> tuple[dict[str, Any], list[FleetError]]:
    """A feature's contract, and all that is wrong with it and its folder on ``today`` (``YYYY-MM-DD``).

    Raises FleetError (EF_CONTRACT_MALFORMED) for a contract that cannot be read.
    """
    path = folder / CONTRACT
    contract = read_contract(path)
    return contract, [*validate_contract(contract, str(path), name, today), *folder_problems(name, folder, contract)]


def read_contracts(features: Mapping[str, Path], today: str) -> dict[str, dict[str, Any]]:
    """Every contract for a release: valid, filled in, not expired on ``today``; all errors of all of them at once."""
    contracts: dict[str, dict[str, Any]] = {}
    problems: list[FleetError] = []
    for name, folder in features.items():
        try:
            contracts[name], found = contract_problems(name, folder, today)
        except FleetError as error:
            problems.append(error)
            continue
        problems.extend(found)
        problems.extend(placeholders(contracts[name], str(folder / CONTRACT)))
    raise_all(problems)
    return contracts
