/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Linked around the real loader, in the place of the function that ends an
 * interval: a loader that starts well and then dies, again and again
 * (EF_CRASH_AFTER intervals), one whose memory grows (EF_GROW_BYTES an
 * interval), or one that dies before it has said a word (EF_CRASH_AT_START).
 */
#include <stdlib.h>
#include <string.h>

struct ef_service;

void __real_ef_publish_interval(struct ef_service *service);
void __wrap_ef_publish_interval(struct ef_service *service);

#ifdef EF_CRASH_AT_START
static void __attribute__((constructor)) crash(int argc, char **argv) {
	if (argc > 1 && !strcmp(argv[1], "run"))
		abort();
}
#endif

void __wrap_ef_publish_interval(struct ef_service *service) {
#ifdef EF_CRASH_AFTER
	static int intervals;

	if (++intervals >= EF_CRASH_AFTER)
		abort();
#endif
#ifdef EF_GROW_BYTES
	/* Bounded, so that neither a machine without limits nor a wall of the unit
	 * decides. */
	static int times;
	char *more = times++ < EF_GROW_TIMES ? malloc(EF_GROW_BYTES) : NULL;

	if (more) {
		memset(more, 1, EF_GROW_BYTES);
		asm volatile("" : : "r"(more) : "memory");
	}
#endif
	__real_ef_publish_interval(service);
}
