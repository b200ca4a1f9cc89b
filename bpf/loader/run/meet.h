/* SPDX-License-Identifier: GPL-3.0-or-later */
#ifndef EF_RUN_MEET_H
#define EF_RUN_MEET_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

/*
 * How two loaders of one user come to speak: the next one listens at STATE/handover.sock, sends
 * SIGHUP to the process of STATE/status.json, and that one connects. Messages are one JSON
 * document each; each side asks the kernel who the other is.
 */

#define EF_MEET_MS 3000	    /* for the running loader to answer */
#define EF_MEET_FDS 128	    /* descriptors that are handed over, at most */
#define EF_MEET_BYTES 65536 /* of a message */

/*
 * The next loader's part, before its system calls are filtered. A connected socket; or -1 with
 * why[0..size).
 */
int ef_meet_call(const char *state, char *why, size_t size);

/*
 * The running loader's part: is there one that calls? A connected socket, -ENOENT: there is none;
 * another -errno with why[0..size).
 */
int ef_meet_answer(const char *state, char *why, size_t size);

/* 0 or -errno; fds are copied to the other process. */
int ef_meet_send(int fd, const json_t *message, const int *fds, size_t n_fds);

/*
 * Its message; NULL: it is gone, or what it sent cannot be read. *n_fds descriptors are the
 * caller's. Before the filter only: it needs recvmsg.
 */
json_t *ef_meet_receive_fds(int fd, int timeout_ms, int *fds, size_t *n_fds);

/* The same without descriptors, if there is one now. *gone: the other is, or it says nonsense. */
json_t *ef_meet_receive(int fd, bool *gone);

/* The other's process. */
pid_t ef_meet_peer(int fd);

#endif
