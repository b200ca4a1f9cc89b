/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_CURSOR_H
#define EF_CURSOR_H

#include <stdint.h>

/* How far a log shipper has read: all segments before this one, and of it so many bytes. */
struct ef_cursor {
	uint64_t segment; /* from 1 on */
	uint64_t offset;  /* bytes */
};

/*
 * Read the file of a cursor. Others write it: it is read bounded, never waited for,
 * no link is followed, and nothing but these two numbers is believed. 0; -ENOENT:
 * there is none (also for the path ""); -EINVAL: it is something else. *cursor is
 * all zero then, as if nothing had been taken.
 */
int ef_cursor_read(const char *path, struct ef_cursor *cursor);

#endif
