# SPDX-License-Identifier: GPL-3.0-or-later
"""The Python verifier's verdicts on many worlds: a program of its own, so that any Python can run it.

Reads a JSON list of [source, allowed_signers, revoked_keys], writes a list of [code, signer or message];
whatever is not one of our refusals is "TRACEBACK".
"""

from __future__ import annotations

import json
import sys
import time
import traceback

from ansible_collections.ebpf.fleet.plugins.module_utils.base.errors import FleetError
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle.files import verify
from ansible_collections.ebpf.fleet.plugins.module_utils.bundle.signature import read_trust


def verdict(source: str, signers: str, revoked: str) -> list[str]:
    """The reason code, "EF_OK" of a good bundle, and what is said beside it."""
    try:
        _manifest, signer = verify(source, read_trust(signers, revoked, revoked_required=True), time.time())
    except FleetError as error:
        return [error.code, error.message.encode("ascii", "backslashreplace").decode("ascii")]
    except BaseException:
        return ["TRACEBACK", traceback.format_exc()[-1500:]]
    return ["EF_OK", signer]


if __name__ == "__main__":
    json.dump([verdict(*world) for world in json.load(sys.stdin)], sys.stdout)
