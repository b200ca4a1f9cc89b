/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_FUZZ_H
#define EF_FUZZ_H

#include <stddef.h>
#include <stdint.h>

/* libFuzzer calls it with each input; 0. Each *.c of this folder is one target. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A folder of this process below TMPDIR, else /dev/shm; it goes when the process exits and it is
 * empty. */
const char *fuzz_folder(void);

/* The path of a file with these bytes, for what reads by path; the next call writes it again. */
const char *fuzz_file(const uint8_t *data, size_t size);

/* A copy with a 0 behind it, which the caller frees. */
char *fuzz_text(const uint8_t *data, size_t size);

/*
 * The bytes before and behind the first separator (a line of "%%%"); all are
 * before where there is none. The halves point into data.
 */
struct fuzz_halves {
	const uint8_t *first, *second;
	size_t first_size, second_size;
};
struct fuzz_halves fuzz_split(const uint8_t *data, size_t size);

#endif
