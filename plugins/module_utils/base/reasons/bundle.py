# Copyright: The ebpf.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Why a bundle is refused. Pure."""

from __future__ import annotations

from ansible_collections.ebpf.fleet.plugins.module_utils.base.reasons.reason import (
    COLLECTOR,
    LOADER,
    MODULES,
    VERIFY,
    Reason,
    Section,
)

SECTIONS: tuple[Section, ...] = (
    Section(
        "The bundle is refused",
        (
            "Nothing of the bundle is installed. Where the loader says so at its start it ends with exit "
            "status 3, and the host runs nothing until a good release is there: `ansible-playbook -i INVENTORY "
            "ebpf.fleet.rollback -e scope=previous --limit HOST`, or roll out a good one."
        ),
        {
            "EF_SIG_MISSING": Reason(
                "the bundle has no signature, or an empty one",
                "take the bundle as `release` built it",
                (VERIFY, LOADER, MODULES),
            ),
            "EF_SIG_MALFORMED": Reason(
                "the signature is not an armored SSH signature of an ed25519 key",
                "sign again with `release`",
                (VERIFY, LOADER, MODULES),
            ),
            "EF_SIG_UNKNOWN_SIGNER": Reason(
                "its key is on no usable line of the host's `allowed_signers`",
                ("add the signer to `ebpf_fleet_allowed_signers` and run `prepare`, or sign with a key that is there"),
                (VERIFY, LOADER, MODULES),
                see="keys.md",
            ),
            "EF_SIG_BAD": Reason(
                "the signature is not of these bytes: manifest or signature was altered",
                "fetch the bundle again; find out who altered it",
                (VERIFY, LOADER, MODULES),
            ),
            "EF_SIG_REVOKED": Reason(
                "its key is on the host's revocation list",
                "sign with a current key",
                (VERIFY, LOADER, MODULES),
                see="keys.md",
            ),
            "EF_SIG_NAMESPACE": Reason(
                "signed for another purpose, or the key may not sign releases",
                "sign with `release`; correct `namespaces=` in `allowed_signers`",
                (VERIFY, LOADER, MODULES),
            ),
            "EF_SIG_EXPIRED": Reason(
                "the key is not valid yet or no longer (`valid-after`, `valid-before`)",
                "check the host's clock, then the dates in `allowed_signers`",
                (VERIFY, LOADER, MODULES),
            ),
            "EF_CLOCK_UNKNOWN": Reason(
                (
                    "the clock stands more than 300 s before a time that has been for certain, so that nothing "
                    "which is limited in time is accepted"
                ),
                "set the host's clock",
                (VERIFY, LOADER, MODULES),
            ),
            "EF_MARK_MALFORMED": Reason(
                "`mark.json`, the highest sequence that ran here, is unsafe or cannot be understood",
                "find out who wrote it; `ebpf_fleet_allow_downgrade: true` writes it again",
                (LOADER, MODULES),
            ),
            "EF_TRUST_MISSING": Reason(
                "a trust file is not there or cannot be read",
                "run `prepare` on the host",
                (VERIFY, LOADER, MODULES),
            ),
            "EF_TRUST_MALFORMED": Reason(
                "a trust file is not a regular file, too large, writable by others, or not in its grammar",
                (
                    "correct the variable and run `prepare`; others' write access means that someone could "
                    "have changed it"
                ),
                (VERIFY, LOADER, MODULES),
                see="trust-formats.md",
            ),
            "EF_MANIFEST_MISSING": Reason(
                "there is no `manifest.json`",
                "give the path of a bundle",
                (VERIFY, LOADER, MODULES),
            ),
            "EF_MANIFEST_MALFORMED": Reason(
                "the manifest is not canonical JSON",
                "build the bundle again",
                (VERIFY, LOADER, MODULES),
            ),
            "EF_MANIFEST_SCHEMA": Reason(
                "the manifest has a key or value that the format does not know",
                "build it with the `release` of this collection's version",
                (VERIFY, LOADER, MODULES),
            ),
            "EF_FILE_MISSING": Reason(
                "a file that the manifest names is not there",
                "fetch the bundle again",
                (VERIFY, LOADER, COLLECTOR, MODULES),
            ),
            "EF_FILE_EXTRA": Reason(
                "there is a file that the manifest does not name",
                "fetch the bundle again; find out who put it there",
                (VERIFY, LOADER, MODULES),
            ),
            "EF_FILE_SIZE": Reason(
                "a file has another size than the manifest says, or is over a limit",
                "fetch the bundle again",
                (VERIFY, LOADER, MODULES),
            ),
            "EF_FILE_DIGEST": Reason(
                "a file's SHA-256 is not the manifest's: it was altered",
                "fetch the bundle again; find out who altered it",
                (VERIFY, LOADER, COLLECTOR, MODULES),
            ),
            "EF_FILE_TYPE": Reason(
                "a symlink, device or FIFO, or another mode than is signed",
                "fetch the bundle again",
                (VERIFY, LOADER, MODULES),
            ),
            "EF_LOADER_ARCH": Reason(
                "the bundle has no loader for this machine",
                "build the bundle for this architecture too",
                (VERIFY, LOADER, MODULES),
            ),
            "EF_LOADER_SELF": Reason(
                "the loader that runs is not the bundle's",
                "deploy the release again",
                (VERIFY, LOADER, COLLECTOR),
            ),
            "EF_PATH_UNSAFE": Reason(
                "others than root and the loader's user can write to the bundle's folder",
                "correct owner and mode, as the sentence says, and restart the loader",
                (LOADER,),
            ),
            "EF_SEQUENCE_DOWNGRADE": Reason(
                "the bundle's sequence is not higher than that of the current release",
                (
                    "build it with a higher one; to go back use `scope=previous`; `ebpf_fleet_allow_downgrade: "
                    "true` if it is meant"
                ),
                (LOADER, MODULES),
            ),
            "EF_CONTRACT_MALFORMED": Reason(
                "a contract is not what this version reads, or the object is not what its contract says",
                "build the bundle with the `release` of this collection's version",
                (VERIFY, LOADER, COLLECTOR, MODULES),
            ),
        },
    ),
)
