/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "../fuzz.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SEPARATOR "\n%%%\n"

/* A target that cannot try its input must not look like one that found nothing. */
static void must(int holds) {
	if (!holds)
		abort();
}

static char folder[256];

static void remove_folder(void) {
	rmdir(folder);
}

/* No one else's, or the trust files in it are refused. */
const char *fuzz_folder(void) {
	const char *place = getenv("TMPDIR");

	if (*folder)
		return folder;
	snprintf(folder, sizeof(folder), "%s/ef-fuzz-XXXXXX", place ? place : "/dev/shm");
	must(mkdtemp(folder) != NULL);
	atexit(remove_folder);
	return folder;
}

static char path[512];

static void remove_file(void) {
	unlink(path);
}

const char *fuzz_file(const uint8_t *data, size_t size) {
	static int fd = -1;

	if (fd < 0) {
		snprintf(path, sizeof(path), "%s/input", fuzz_folder());
		fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
		atexit(remove_file);
	}
	must(fd >= 0 && !ftruncate(fd, 0));
	must(pwrite(fd, data, size, 0) == (ssize_t)size);
	return path;
}

char *fuzz_text(const uint8_t *data, size_t size) {
	char *text = malloc(size + 1);

	must(text != NULL);
	if (size)
		memcpy(text, data, size);
	text[size] = 0;
	return text;
}

struct fuzz_halves fuzz_split(const uint8_t *data, size_t size) {
	const size_t length = strlen(SEPARATOR);
	const uint8_t *at = size ? memmem(data, size, SEPARATOR, length) : NULL;

	if (!at)
		return (struct fuzz_halves){data, data + size, size, 0};
	return (struct fuzz_halves){data, at + length, (size_t)(at - data),
				    size - (size_t)(at - data) - length};
}
