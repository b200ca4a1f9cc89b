/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The command `verify` alone, which sanitizers can watch: what it takes it gives back, whatever the
 * bundle is. */
#include "cmd/commands.h"

int main(int argc, char **argv) {
	return cmd_verify(argc - 1, argv + 1) << 4; /* a sanitizer ends with 1 */
}
