/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * message.c - receives and sends messages of a connection with the host, with the descriptors in
 * them.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "shim/within.h"

static void take_fds(struct shim_message *m, struct msghdr *h)
{
	struct cmsghdr *c = CMSG_FIRSTHDR(h);

	for (int i = 0; i < LDFS_SHIM_FDS; i++)
		m->fds[i] = -1;
	m->count = 0;
	if (!c || c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
		return;
	m->count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
	memcpy(m->fds, CMSG_DATA(c), m->count * sizeof(int));
}

void shim_close_fds(struct shim_message *m)
{
	for (int i = 0; i < LDFS_SHIM_FDS; i++)
		if (m->fds[i] >= 0)
			close(m->fds[i]);
}

/* False: the connection has ended. */
bool shim_receive(int fd, struct shim_message *m)
{
	char control[CMSG_SPACE(sizeof(int) * LDFS_SHIM_FDS)];
	struct iovec parts[] = { { &m->head, sizeof(m->head) },
				 { m->payload, sizeof(m->payload) } };
	struct msghdr h = { .msg_iov = parts,
			    .msg_iovlen = 2,
			    .msg_control = control,
			    .msg_controllen = sizeof(control) };
	ssize_t n;

	do {
		n = recvmsg(fd, &h, MSG_CMSG_CLOEXEC);
	} while (n < 0 && errno == EINTR);
	if (n <= 0)
		return false;
	take_fds(m, &h);
	if ((size_t)n < sizeof(m->head) || (size_t)n != sizeof(m->head) + m->head.size)
		m->head = (ldfs_shim_request){ 0 }; /* op 0: answered with -EINVAL */
	return true;
}

bool shim_answer(int fd, struct shim_answer *a)
{
	struct iovec parts[] = { { &a->head, sizeof(a->head) }, { a->payload, a->head.size } };
	struct msghdr h = { .msg_iov = parts, .msg_iovlen = 2 };
	ssize_t n;

	do {
		n = sendmsg(fd, &h, MSG_NOSIGNAL);
	} while (n < 0 && errno == EINTR);
	return n > 0;
}
