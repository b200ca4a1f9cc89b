/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_VERSION_H
#define EF_VERSION_H

#define EF_LOADER_VERSION "0.1.0"

/* Exit codes of the loader: a contract, see docs/formats/loader.md. */
enum ef_exit {
	EF_EXIT_OK = 0,
	EF_EXIT_FAILED = 1,
	EF_EXIT_USAGE = 2,
	EF_EXIT_REFUSED = 3, /* bundle or trust */
	EF_EXIT_LEFT = 4,    /* programs of ours are left in the kernel */
};

#endif
