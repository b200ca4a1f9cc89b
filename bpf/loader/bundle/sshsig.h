/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_SSHSIG_H
#define EF_SSHSIG_H

#include <stddef.h>
#include <stdint.h>

#include "base/refusal.h"
#include "bundle/sshkey.h"

#define EF_RELEASE_NAMESPACE "ebpf-fleet-release"

/*
 * Verify that the armored SSHSIG (OpenSSH's PROTOCOL.sshsig) in signature
 * covers message, in the namespace EF_RELEASE_NAMESPACE, with an ed25519 key.
 * 0: signer is the key that signed; whether it may sign is the trust's to say
 * (trust.h). -1: *why is EF_SIG_MALFORMED, EF_SIG_NAMESPACE or EF_SIG_BAD, with
 * `file` as the signature's name.
 */
int ef_sshsig_verify(const void *signature, size_t signature_size, const void *message,
		     size_t message_size, const char *file, uint8_t signer[EF_ED25519_KEY],
		     struct ef_refusal *why);

#endif
