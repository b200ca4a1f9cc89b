#!/usr/bin/python
# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: bundle_build
short_description: Compile, check and sign a bundle of eBPF features, on the controller
version_added: 0.1.0
description:
  - Validates every contract, compiles every variant, holds the contracts against the compiled objects, writes the
    canonical manifest, signs it with C(ssh-keygen -Y sign), and lets the loader verify the result before anything is
    written.
  - The same inputs give the same manifest digest.
  - A version is immutable. An output that holds it with other content is refused.
author:
  - The ebpf.fleet authors (@ebpf-fleet)
options:
  source:
    description: The collection's C(bpf) folder, with its Makefile, C(include) and C(loader).
    type: path
    required: true
  features_dirs:
    description: Folders of features, each one a feature itself or a folder of them. Default is O(source)C(/features).
    type: list
    elements: path
  features:
    description: Names of the features to take. Default is all that are found.
    type: list
    elements: str
  loader:
    description:
      - Loaders that are built already, architecture (C(uname -m)) to path. Must hold the controller's own.
      - Left out, C(make -C bpf loader) builds one for the controller's architecture.
    type: dict
  build_dir:
    description: Where the loader is compiled, to be quicker the next time. Default is a temporary folder.
    type: path
  output:
    description: What to write, a tar if the name ends in C(.tar), else a folder with the bundle's files.
    type: path
    required: true
  name:
    description: The bundle's name.
    type: str
    default: ebpf-fleet
  version:
    description:
      - The bundle's version, C([0-9A-Za-z][0-9A-Za-z.+-]*).
      - A number is refused, as YAML makes 1.1 of an unquoted 1.10.
    type: raw
    required: true
  sequence:
    description: A positive number that grows with each release. A host refuses one that does not.
    type: int
    required: true
  created:
    description:
      - The bundle's time, C(YYYY-MM-DDTHH:MM:SSZ). Default is C(SOURCE_DATE_EPOCH), else that of an output of the same
        version, else now.
    type: str
  signing_key:
    description:
      - Path of an ed25519 private key without a passphrase, or of a public key whose private part the ssh-agent holds.
    type: path
    required: true
  compatibility:
    description:
      - What is known of kernels, lists C(summary) and C(known_disabled), kept in the manifest.
      - Excludes O(matrix), which tells it. Default is nothing known.
    type: dict
  btf_dirs:
    description:
      - Folders with kernels' whole BTF, C(RELEASE.btf) or C(RELEASE.btf.tar.xz) at any depth, as
        C(/sys/kernel/btf/vmlinux) has it and BTFHub collects it. C(RELEASE.build-id) beside it holds the kernel's GNU
        build id, C(RELEASE.machine) or a folder's name its architecture; default is the controller's.
      - The bundle gets what its objects need of each, for hosts whose kernel does not tell its types.
    type: list
    elements: path
    default: []
  matrix:
    description:
      - A capability matrix, C(build/matrix/matrix.json) of C(make test-matrix), to go into the bundle.
      - Refused unless it was measured on these very objects.
    type: path
  force:
    description: Overwrite an output of the same version that has other content.
    type: bool
    default: false
attributes:
  check_mode:
    support: full
    description: Builds and verifies everything in temporary folders and writes nothing.
  diff_mode:
    support: full
    description: Shows version, sequence and digest of the output, before and after.
  idempotent:
    support: full
    description: A second run changes nothing.
  platform:
    support: full
    platforms: linux
    description: The controller.
requirements:
  - PyYAML
  - ssh-keygen, make, gcc and clang on the controller, bpftool too for O(btf_dirs)
"""

EXAMPLES = r"""
- name: Build and sign a release
  ebpf.fleet.bundle_build:
    source: bpf
    version: 1.0.0
    sequence: 7
    signing_key: ~/.ssh/ebpf-fleet-release
    output: build/release/ebpf-fleet-1.0.0.tar
  delegate_to: localhost
  run_once: true
"""

RETURN = r"""
digest:
  description: SHA-256 of the manifest.
  returned: success
  type: str
output:
  description: Where the bundle is.
  returned: success
  type: str
bundle:
  description: Name, version, sequence and creation time.
  returned: success
  type: dict
compatibility:
  description: What the manifest says is known of kernels.
  returned: success
  type: dict
btf:
  description: The kernels for which the bundle has minimal BTF, as in its C(btf/index.json).
  returned: success
  type: list
  elements: dict
features:
  description: Each feature's variants.
  returned: success
  type: dict
  sample: {"runqlat": ["full", "reduced"]}
reason_code:
  description: Why it was refused or failed, a code of docs/reason-codes.md.
  returned: failure
  type: str
  sample: EF_CONTRACT_MALFORMED
remedy:
  description: What docs/reason-codes.md says to do.
  returned: failure
  type: str
file:
  description: The file that the reason is about, or null.
  returned: failure
  type: str
"""

import os
import re
import tempfile
import time
import traceback
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError, explain
from ansible_collections.ebpf.fleet.plugins.module_utils.base.values import told
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle.files import CREATED_FORMAT, epoch_of
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle.manifest import BUNDLE_NAME, VERSION
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle.output import (
    existing_bundle,
    judge_output,
    write_output,
)
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle.request import BuildRequest, btf_entries

YAML_PROBLEM = None
try:
    from ansible_collections.ebpf.fleet.plugins.module_utils.bundle import contracts, writer
except ImportError:
    YAML_PROBLEM = traceback.format_exc()

ARGUMENTS = {
    "source": {"type": "path", "required": True},
    "features_dirs": {"type": "list", "elements": "path"},
    "features": {"type": "list", "elements": "str"},
    "loader": {"type": "dict"},
    "build_dir": {"type": "path"},
    "output": {"type": "path", "required": True},
    "name": {"type": "str", "default": "ebpf-fleet"},
    "version": {"type": "raw", "required": True},
    "sequence": {"type": "int", "required": True},
    "created": {"type": "str"},
    "signing_key": {"type": "path", "required": True, "no_log": False},
    "compatibility": {"type": "dict"},
    "btf_dirs": {"type": "list", "elements": "path", "default": []},
    "matrix": {"type": "path"},
    "force": {"type": "bool", "default": False},
}


def wrong_version(version):
    """What is wrong with a version, as a list; a number may not be the version that was written."""
    if not isinstance(version, str):
        return [f"version: is {told(version)}; YAML makes 1.1 of an unquoted 1.10: quote it"]
    return [] if VERSION.match(version) else [f"version: is {version!r}; use 1 to 64 of [0-9A-Za-z.+-]"]


def check_arguments(params):
    """Refuse values that no bundle can have, all of them at once."""
    wrong = []
    if not BUNDLE_NAME.match(params["name"]):
        wrong.append(f"name: is {params['name']!r}; use 1 to 64 of [0-9A-Za-z._-]")
    wrong += wrong_version(params["version"])
    if params["sequence"] < 1:
        wrong.append(f"sequence: is {params['sequence']}; give a positive integer, higher than the last release's")
    if params["compatibility"] is not None and sorted(params["compatibility"]) != ["known_disabled", "summary"]:
        wrong.append("compatibility: needs exactly the lists 'summary' and 'known_disabled'")
    if params["compatibility"] is not None and params["matrix"]:
        wrong.append("compatibility: is given beside 'matrix', which tells it; leave one out")
    for folder in params["btf_dirs"]:
        if not Path(folder).is_dir():
            wrong.append(f"btf_dirs: {folder} is not a folder; give one with RELEASE.btf, see docs/btf.md")
    if not (Path(params["source"]) / "Makefile").is_file():
        wrong.append(f"source: {params['source']} has no Makefile; give the collection's bpf folder")
    if wrong:
        raise FleetError("EF_ARGUMENT", "; ".join(wrong))


def created_at(params, existing):
    """Return the bundle's time: the argument, the environment, that of the same version, or now."""
    given = params["created"]
    if given is not None:
        if not re.match(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z\Z", given):
            raise FleetError("EF_ARGUMENT", f"created: is {given!r}; use YYYY-MM-DDTHH:MM:SSZ")
        epoch_of(given)
        return given
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    if epoch is None and existing is not None and existing.manifest.version == params["version"]:
        return existing.manifest.doc["bundle"]["created"]
    if epoch is not None and not epoch.isdigit():
        raise FleetError("EF_ARGUMENT", f"SOURCE_DATE_EPOCH: is {epoch!r}; set it to seconds since 1970")
    return time.strftime(CREATED_FORMAT, time.gmtime(None if epoch is None else int(epoch)))


def make_request(params, existing, build_dir):
    """Return what to build, as the builder takes it."""
    source = Path(params["source"])
    folders = [Path(path) for path in params["features_dirs"] or [source / "features"]]
    return BuildRequest(
        name=params["name"],
        version=params["version"],
        sequence=params["sequence"],
        created=created_at(params, existing),
        features=contracts.find_features(folders, params["features"]),
        source=source,
        build_dir=build_dir,
        loaders={arch: Path(str(path)).expanduser() for arch, path in (params["loader"] or {}).items()},
        signing_key=Path(params["signing_key"]),
        compatibility=params["compatibility"] or {"summary": [], "known_disabled": []},
        btf_dirs=tuple(Path(path) for path in params["btf_dirs"]),
        matrix=Path(params["matrix"]) if params["matrix"] else None,
    )


def describe(manifest):
    """Return the part of a manifest that the diff shows."""
    if manifest is None:
        return {}
    return {"version": manifest.version, "sequence": manifest.sequence, "digest": manifest.digest}


def run(module):
    """Build in memory, judge the output, and write it unless nothing changed or check mode forbids it."""
    params = module.params
    check_arguments(params)
    output = Path(params["output"])
    existing = existing_bundle(output)
    with tempfile.TemporaryDirectory(prefix="ebpf-fleet-loader-") as temporary:
        keeps_objects = params["build_dir"] and not module.check_mode
        build_dir = Path(params["build_dir"]).absolute() if keeps_objects else Path(temporary)
        built = writer.build(make_request(params, existing, build_dir))
    changed = judge_output(output, existing, built, params["force"])
    if changed and not module.check_mode:
        write_output(output, built)
    return {
        "changed": changed,
        "digest": built.manifest.digest,
        "output": str(output.absolute()),
        "bundle": built.manifest.doc["bundle"],
        "compatibility": built.manifest.doc["compatibility"],
        "btf": btf_entries(built),
        "features": {
            name: [variant["name"] for variant in feature["variants"]]
            for name, feature in built.manifest.features.items()
        },
        "diff": {
            "before": describe(existing.manifest if existing else None),
            "after": describe(built.manifest if changed else existing.manifest),
        },
    }


def main():
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    if YAML_PROBLEM is not None:
        missing = FleetError("EF_NO_TOOL", missing_required_lib("PyYAML"))
        module.fail_json(**missing.as_result(), exception=YAML_PROBLEM)
    try:
        found = run(module)
    except (OSError, FleetError) as error:
        module.fail_json(**explain(error).as_result())
    module.exit_json(**found)


if __name__ == "__main__":
    main()
