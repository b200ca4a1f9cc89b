# shellcheck shell=sh disable=SC2034,SC2154,SC2317  # a part of a script: names and calls are in the others

# The signers that a change of trust replaced (trust_host.py): back with the release that ran, where
# no one wrote them since. One rename(2), so that a full disk does not matter. A revocation stays.
signers=$root/etc/ebpf-fleet/trust/allowed_signers
former=$root/etc/ebpf-fleet/trust-former
trust_said=
# Not empty: they are to be back and could not be put there.
trust_stuck=

# DIGEST of the release that runs now, empty: none. True if the signers were restored.
restore_trust() {
	[ -f "$former/allowed_signers" ] && [ -f "$former/running" ] && [ -f "$former/written" ] || return 1
	[ "$(cat "$former/running")" = "$1" ] || return 1
	if [ "$(sha256sum <"$signers" 2>/dev/null | cut -c1-64)" != "$(cat "$former/written")" ]; then
		trust_said="; allowed_signers was changed since and stays as it is"
		return 1
	fi
	if ! mv -fT "$former/allowed_signers" "$signers"; then
		trust_said="; the signers of before could not be restored: see $former"
		trust_stuck=yes
		return 1
	fi
	rm -rf "$former"
	trust_said="; the signers of before are trusted again"
}
