/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "events/perf.h"

#include <bpf/libbpf.h>
#include <errno.h>
#include <linux/perf_event.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/must.h"
#include "base/util.h"

#define ONLINE "/sys/devices/system/cpu/online"

struct ef_perf {
	struct perf_buffer *buffers;
	ef_perf_fn take;
	void *ctx;
	uint64_t lost;
	bool stopped;	   /* take() told it to, in this read */
	size_t next;	   /* the buffer that the next read begins with */
	char online[1024]; /* the CPUs as a list, when the buffers were made; "": not known */
};

struct sample {
	struct perf_event_header header;
	__u32 size;
	char data[];
};

struct lost_records {
	struct perf_event_header header;
	__u64 id;
	__u64 lost;
};

static void read_online(char *list, size_t size) {
	_cleanup_fclose_ FILE *file = fopen(ONLINE, "re");

	list[0] = 0;
	if (file && !fgets(list, (int)size, file))
		list[0] = 0;
}

/* libbpf's callback for one record of any kind. */
static enum bpf_perf_event_ret on_event(void *ctx, int cpu, struct perf_event_header *event) {
	struct ef_perf *perf = ctx;

	(void)cpu;
	if (event->type == PERF_RECORD_LOST)
		perf->lost += ((const struct lost_records *)event)->lost;
	if (event->type == PERF_RECORD_SAMPLE) {
		const struct sample *sample = (const struct sample *)event;

		perf->stopped = !perf->take(perf->ctx, sample->data, sample->size);
	}
	return perf->stopped ? LIBBPF_PERF_EVENT_DONE : LIBBPF_PERF_EVENT_CONT;
}

struct ef_perf *ef_perf_new(int map_fd, ef_perf_fn take, void *ctx) {
	/* Waking the reader for each record would cost more than all the rest. */
	struct perf_event_attr attr = {
	    .size = sizeof(attr),
	    .type = PERF_TYPE_SOFTWARE,
	    .config = PERF_COUNT_SW_BPF_OUTPUT,
	    .sample_type = PERF_SAMPLE_RAW,
	    .sample_period = 1,
	    .watermark = 1,
	    .wakeup_watermark = EF_PERF_CPU_BYTES / 4,
	};
	struct ef_perf *perf = ef_must(calloc(1, sizeof(*perf)));
	size_t pages = EF_PERF_CPU_BYTES / (size_t)sysconf(_SC_PAGESIZE);
	int err;

	perf->take = take;
	perf->ctx = ctx;
	read_online(perf->online, sizeof(perf->online)); /* before: a change meanwhile shows */
	perf->buffers =
	    perf_buffer__new_raw(map_fd, pages ? pages : 1, &attr, on_event, perf, NULL);
	if (perf->buffers)
		return perf;
	err = errno;
	free(perf);
	errno = err;
	return NULL;
}

void ef_perf_free(struct ef_perf *perf) {
	if (!perf)
		return;
	perf_buffer__free(perf->buffers);
	free(perf);
}

int ef_perf_fd(const struct ef_perf *perf) {
	return perf_buffer__epoll_fd(perf->buffers);
}

/* In turns, so that a CPU in a storm does not keep the others' records from being read. */
void ef_perf_read(struct ef_perf *perf) {
	size_t n = perf_buffer__buffer_cnt(perf->buffers);

	perf->stopped = false;
	for (size_t i = 0; i < n && !perf->stopped; i++) {
		perf_buffer__consume_buffer(perf->buffers, perf->next);
		perf->next = (perf->next + 1) % n;
	}
}

/* Bytes of one buffer's data, of which *waiting no one read yet; 0: there is no such buffer. */
static uint64_t measure(const struct ef_perf *perf, size_t index, uint64_t *waiting) {
	struct perf_event_mmap_page *page;
	void *memory;
	size_t size;
	uint64_t read;

	*waiting = 0;
	if (perf_buffer__buffer(perf->buffers, (int)index, &memory, &size))
		return 0;
	page = memory;
	read = __atomic_load_n(&page->data_tail, __ATOMIC_ACQUIRE); /* first: it is behind */
	*waiting = __atomic_load_n(&page->data_head, __ATOMIC_ACQUIRE) - read;
	return size;
}

uint64_t ef_perf_lag(const struct ef_perf *perf) {
	uint64_t sum = 0, waiting;

	for (size_t i = 0; i < perf_buffer__buffer_cnt(perf->buffers); i++) {
		measure(perf, i, &waiting);
		sum += waiting;
	}
	return sum;
}

uint64_t ef_perf_bytes(const struct ef_perf *perf) {
	uint64_t sum = 0, waiting;

	for (size_t i = 0; i < perf_buffer__buffer_cnt(perf->buffers); i++)
		sum += measure(perf, i, &waiting);
	return sum;
}

/* Copy out of one buffer's data, which goes round. */
static void copy_out(const char *data, size_t size, uint64_t from, void *to, size_t n) {
	for (size_t i = 0; i < n; i++)
		((char *)to)[i] = data[(from + i) & (size - 1)];
}

static uint64_t buffer_next(const struct ef_perf *perf, size_t index) {
	struct perf_event_mmap_page *page;
	struct sample sample;
	uint64_t waiting, tail, ktime = 0;
	void *memory;
	size_t size;

	if (!measure(perf, index, &waiting) || !waiting ||
	    perf_buffer__buffer(perf->buffers, (int)index, &memory, &size))
		return 0;
	page = memory;
	tail = page->data_tail;
	copy_out((char *)memory + page->data_offset, page->data_size, tail, &sample,
		 sizeof(sample));
	if (sample.header.type == PERF_RECORD_SAMPLE)
		copy_out((char *)memory + page->data_offset, page->data_size, tail + sizeof(sample),
			 &ktime, sizeof(ktime));
	return ktime;
}

uint64_t ef_perf_next(const struct ef_perf *perf) {
	uint64_t least = 0;

	for (size_t i = 0; i < perf_buffer__buffer_cnt(perf->buffers); i++) {
		uint64_t ktime = buffer_next(perf, i);

		if (ktime && (!least || ktime < least))
			least = ktime;
	}
	return least;
}

uint64_t ef_perf_lost(const struct ef_perf *perf) {
	return perf->lost;
}

bool ef_perf_stale(const struct ef_perf *perf) {
	char now[sizeof(perf->online)];

	read_online(now, sizeof(now));
	return *now && *perf->online && strcmp(now, perf->online) != 0;
}
