/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "run/background.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "base/version.h"

/* The exit status that the next loader says, or that it failed where it says none. */
static int await(int fd) {
	struct pollfd ready = {.fd = fd, .events = POLLIN};
	unsigned char code;

	if (poll(&ready, 1, EF_BACKGROUND_S * 1000) > 0)
		return read(fd, &code, 1) == 1 ? code : EF_EXIT_FAILED;
	ef_err("no handover within %d s; the running loader goes on", EF_BACKGROUND_S);
	return EF_EXIT_FAILED;
}

/*
 * A grandchild, whose parent has ended: it becomes a child of systemd's, which then sees how it
 * ends when it is the unit's main process.
 */
static pid_t fork_away(void) {
	pid_t child = fork();
	int status;

	if (!child) {
		child = fork();
		if (child)
			_exit(child < 0);
		return 0;
	}
	if (child > 0 && (waitpid(child, &status, 0) != child || status))
		return -1;
	return child;
}

bool ef_background_start(int *parent_fd, int *code) {
	int fds[2] = {-1, -1};
	/* No pipe: the unit's filter allows none. */
	pid_t child = socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) ? -1 : fork_away();

	if (child < 0) {
		ef_err("no process for the next loader: %s; allow the unit more tasks",
		       strerror(errno));
		*code = EF_EXIT_FAILED;
		return true;
	}
	if (!child) {
		close(fds[0]);
		*parent_fd = fds[1];
		return false;
	}
	close(fds[1]);
	*code = await(fds[0]);
	return true;
}

void ef_background_tell(int *parent_fd, int code) {
	unsigned char byte = (unsigned char)code;

	if (*parent_fd <= 0)
		return;
	if (write(*parent_fd, &byte, 1) != 1)
		ef_warn("who started this loader is not there any more");
	close(*parent_fd);
	*parent_fd = 0;
}
