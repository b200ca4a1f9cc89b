/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "run/meet.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/json.h"
#include "base/must.h"
#include "base/paths.h"
#include "base/util.h"
#include "kernel/process.h"

#define SOCKET_NAME "handover.sock"
#define TICK_NS 10000000 /* of the kernel's account of when a process started */

static const struct ef_control_rules status_rules = {.limit = 4 * 1024 * 1024,
						     .remedy = "restart the loader"};

static int address_of(const char *state, struct sockaddr_un *address) {
	int length;

	*address = (struct sockaddr_un){.sun_family = AF_UNIX};
	length = snprintf(address->sun_path, sizeof(address->sun_path), "%s/" SOCKET_NAME, state);
	return length < (int)sizeof(address->sun_path) ? 0 : -ENAMETOOLONG;
}

/* Only who has our user's rights already may take what is ours. */
static bool is_ours(int fd) {
	struct ucred peer;
	socklen_t size = sizeof(peer);

	return !getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) && peer.uid == geteuid();
}

/* Whose status that is, if it still runs; 0: no one. A number alone may be another's by now. */
static pid_t running(const char *state) {
	_cleanup_free_ char *path = ef_must(ef_path_join(state, "status.json"));
	int64_t started, told;
	char why[400];
	int err, pid;
	_cleanup_json_ json_t *status = ef_json_read(path, &status_rules, &err, why, sizeof(why));

	if (!status)
		return 0;
	pid = (int)json_integer_value(json_object_get(status, "pid"));
	told = json_integer_value(json_object_get(status, "started_boottime_ns"));
	started = pid > 1 && pid != getpid() ? ef_process_start_ns(pid) : -1;
	if (started < 0 || started < told - TICK_NS || started > told + TICK_NS)
		return 0;
	return pid;
}

static int listen_at(const struct sockaddr_un *address) {
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	mode_t before;

	if (fd < 0)
		return -errno;
	unlink(address->sun_path);
	before = umask(0177);
	if (bind(fd, (const struct sockaddr *)address, sizeof(*address)) || listen(fd, 1)) {
		int err = -errno;

		umask(before);
		close(fd);
		return err;
	}
	umask(before);
	return fd;
}

static int wait_readable(int fd, int timeout_ms) {
	struct pollfd ready = {.fd = fd, .events = POLLIN};

	return poll(&ready, 1, timeout_ms) > 0 ? 0 : -ETIMEDOUT;
}

static int accept_ours(int listener) {
	int fd = wait_readable(listener, EF_MEET_MS)
		     ? -1
		     : accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (fd >= 0 && !is_ours(fd)) {
		close(fd);
		errno = EACCES;
		return -1;
	}
	return fd;
}

int ef_meet_call(const char *state, char *why, size_t size) {
	struct sockaddr_un address;
	_cleanup_close_ int listener = -1;
	pid_t pid = running(state);
	int fd, err = address_of(state, &address);

	if (!pid) {
		snprintf(why, size, "no loader runs by %s/status.json; start one", state);
		return -1;
	}
	listener = err ? err : listen_at(&address);
	if (listener < 0) {
		snprintf(why, size, "%s/" SOCKET_NAME ": %s", state, strerror(-listener));
		return -1;
	}
	if (kill(pid, SIGHUP)) {
		snprintf(why, size, "the running loader (%d) cannot be called: %s", pid,
			 strerror(errno));
		unlink(address.sun_path);
		return -1;
	}
	fd = accept_ours(listener);
	unlink(address.sun_path);
	if (fd < 0)
		snprintf(why, size,
			 "the running loader (%d) does not answer within %d ms: it knows of no "
			 "handover, or is held up; restart it",
			 pid, EF_MEET_MS);
	return fd;
}

int ef_meet_answer(const char *state, char *why, size_t size) {
	struct sockaddr_un address;
	struct stat st;
	int fd, err = address_of(state, &address);

	if (err || lstat(address.sun_path, &st))
		return -ENOENT;
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd >= 0 && S_ISSOCK(st.st_mode) &&
	    !connect(fd, (struct sockaddr *)&address, sizeof(address)) && is_ours(fd))
		return fd;
	err = errno == 0 || fd < 0 ? -EACCES : -errno;
	snprintf(why, size, "%s: %s, or who listens there is not of this user", address.sun_path,
		 strerror(-err));
	if (fd >= 0)
		close(fd);
	return err;
}

int ef_meet_send(int fd, const json_t *message, const int *fds, size_t n_fds) {
	union {
		char bytes[CMSG_SPACE(EF_MEET_FDS * sizeof(int))];
		struct cmsghdr aligned;
	} control = {{0}};
	_cleanup_free_ char *text = json_dumps(message, JSON_COMPACT);
	struct iovec part = {text, text ? strlen(text) : 0};
	struct msghdr head = {.msg_iov = &part, .msg_iovlen = 1};
	struct cmsghdr *rights;

	if (!text || part.iov_len > EF_MEET_BYTES || n_fds > EF_MEET_FDS)
		return -E2BIG;
	if (n_fds) {
		head.msg_control = control.bytes;
		head.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
		rights = CMSG_FIRSTHDR(&head);
		rights->cmsg_level = SOL_SOCKET;
		rights->cmsg_type = SCM_RIGHTS;
		rights->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
		memcpy(CMSG_DATA(rights), fds, n_fds * sizeof(int));
	}
	return sendmsg(fd, &head, MSG_NOSIGNAL) < 0 ? -errno : 0;
}

json_t *ef_meet_receive_fds(int fd, int timeout_ms, int *fds, size_t *n_fds) {
	union {
		char bytes[CMSG_SPACE(EF_MEET_FDS * sizeof(int))];
		struct cmsghdr aligned;
	} control;
	_cleanup_free_ char *text = ef_must(malloc(EF_MEET_BYTES));
	struct iovec part = {text, EF_MEET_BYTES};
	struct msghdr head = {.msg_iov = &part,
			      .msg_iovlen = 1,
			      .msg_control = control.bytes,
			      .msg_controllen = sizeof(control)};
	const struct cmsghdr *rights;
	ssize_t length;
	char why[200];

	*n_fds = 0;
	if (wait_readable(fd, timeout_ms))
		return NULL;
	length = recvmsg(fd, &head, MSG_CMSG_CLOEXEC);
	if (length <= 0)
		return NULL;
	rights = CMSG_FIRSTHDR(&head);
	if (rights && rights->cmsg_level == SOL_SOCKET && rights->cmsg_type == SCM_RIGHTS) {
		*n_fds = (rights->cmsg_len - CMSG_LEN(0)) / sizeof(int);
		memcpy(fds, CMSG_DATA(rights), *n_fds * sizeof(int));
	}
	return ef_json_parse(text, (size_t)length, why, sizeof(why));
}

json_t *ef_meet_receive(int fd, bool *gone) {
	_cleanup_free_ char *text = ef_must(malloc(EF_MEET_BYTES));
	ssize_t length = read(fd, text, EF_MEET_BYTES);
	json_t *message = NULL;
	char why[200];

	if (length < 0 && (errno == EAGAIN || errno == EINTR))
		return NULL;
	if (length > 0)
		message = ef_json_parse(text, (size_t)length, why, sizeof(why));
	*gone = !message;
	return message;
}

pid_t ef_meet_peer(int fd) {
	struct ucred peer;
	socklen_t size = sizeof(peer);

	return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) ? 0 : peer.pid;
}
