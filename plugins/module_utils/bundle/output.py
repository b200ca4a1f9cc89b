# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The finished bundle as a tar or a folder, whole or not at all; a version never changes."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Mapping

from ansible_collections.ebpf.fleet.plugins.module_utils.base.atomic_files import put_folder, remove_tree
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle import files as bd
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle.request import Built


def write_folder(members: Mapping[str, bd.Member], folder: Path) -> None:
    """Write the members below a new folder with exactly their modes."""
    for path in sorted(members):
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(members[path].data)
        target.chmod(members[path].mode)


def existing_bundle(output: Path) -> bd.Bundle | None:
    """The bundle at ``output``, None if nothing is there; anything else there is a refusal."""
    if not output.exists():
        return None
    try:
        return bd.load_bundle(str(output))
    except FleetError as error:
        raise FleetError(
            "EF_BUNDLE_IMMUTABLE",
            f"{output}: is there and is not a whole bundle ({error.message}); remove it or choose another output",
            str(output),
        ) from error


def judge_output(output: Path, existing: bd.Bundle | None, built: Built, force: bool) -> bool:
    """Whether the output has to be written; a version that is there with other content is a refusal."""
    if existing is None:
        return True
    if existing.manifest.digest == built.manifest.digest:
        return bool(existing.signature != built.signature)
    if existing.manifest.version == built.manifest.version and not force:
        raise FleetError(
            "EF_BUNDLE_IMMUTABLE",
            f"{output}: already holds version {built.manifest.version} with other content "
            f"({existing.manifest.digest[:12]}, not {built.manifest.digest[:12]}); give the new one a version of "
            "its own",
            str(output),
        )
    return True


def write_output(output: Path, built: Built) -> None:
    """Write the bundle as a tar (a name that ends in ``.tar``) or as a folder, whole or not at all."""
    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = output.with_name(f".{output.name}.{os.getpid()}-{time.monotonic_ns()}")
    try:
        if output.suffix == ".tar":
            temporary.write_bytes(bd.tar_bytes(built.members, bd.epoch_of(built.manifest.doc["bundle"]["created"])))
            temporary.rename(output)
        else:
            write_folder(built.members, temporary)
            replaced = put_folder(temporary, output)
            if replaced is not None:
                remove_tree(replaced)
    except BaseException:
        if temporary.is_dir():
            shutil.rmtree(temporary)
        elif temporary.exists():
            temporary.unlink()
        raise
