/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_UTIL_H
#define EF_UTIL_H

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/*
 * Scope-bound ownership: a variable declared with one of these attributes is
 * released when its scope ends, on every path. Hand it on with TAKE_FD or
 * TAKE_PTR, which leave an empty value behind.
 */
#define _cleanup_free_ __attribute__((cleanup(ef_cleanup_free)))
#define _cleanup_close_ __attribute__((cleanup(ef_cleanup_close)))
#define _cleanup_fclose_ __attribute__((cleanup(ef_cleanup_fclose)))
#define _cleanup_closedir_ __attribute__((cleanup(ef_cleanup_closedir)))

#define TAKE_PTR(ptr)                                                                              \
	({                                                                                         \
		__typeof__(ptr) *_place = &(ptr);                                                  \
		__typeof__(ptr) _taken = *_place;                                                  \
		*_place = NULL;                                                                    \
		_taken;                                                                            \
	})

#define TAKE_FD(fd)                                                                                \
	({                                                                                         \
		int *_place = &(fd);                                                               \
		int _taken = *_place;                                                              \
		*_place = -1;                                                                      \
		_taken;                                                                            \
	})

#define EF_ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))

static inline void ef_cleanup_free(void *place) {
	free(*(void **)place);
}

static inline void ef_cleanup_close(int *fd) {
	if (*fd >= 0)
		close(*fd);
}

static inline void ef_cleanup_fclose(FILE **stream) {
	if (*stream)
		fclose(*stream);
}

static inline void ef_cleanup_closedir(DIR **dir) {
	if (*dir)
		closedir(*dir);
}

#endif
