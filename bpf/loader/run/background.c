/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "run/background.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "base/version.h"

/* The exit status: good only when it was told so. */
static int await(pid_t child, int fd) {
	struct pollfd ready = {.fd = fd, .events = POLLIN};
	int status;
	char byte;

	if (poll(&ready, 1, EF_BACKGROUND_S * 1000) <= 0) {
		ef_err("no handover within %d s; the running loader goes on", EF_BACKGROUND_S);
		kill(child, SIGKILL);
	} else if (read(fd, &byte, 1) == 1) {
		return EF_EXIT_OK;
	}
	if (waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status))
		return WEXITSTATUS(status);
	return EF_EXIT_FAILED;
}

bool ef_background_start(int *parent_fd, int *code) {
	int fds[2] = {-1, -1};
	pid_t child = pipe2(fds, O_CLOEXEC) ? -1 : fork();

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
	*code = await(child, fds[0]);
	return true;
}
