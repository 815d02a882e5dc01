/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * serve.c - the connections with the host. Each has a thread that receives a request, executes it,
 * and answers.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <unistd.h>

#include "shim/within.h"

struct connection {
	int fd;
	bool first;
	struct shim_message in;
	struct shim_answer out;
};

static int serve(struct shim_message *m, struct shim_answer *out)
{
	int rc;

	switch (m->head.op) {
	case LDFS_SHIM_HELLO:
		return m->head.arg[0] == LDFS_SHIM_VERSION ? 0 : -EPROTO;
	case LDFS_SHIM_CONNECT:
		rc = m->fds[0] < 0 ? -EBADF : shim_serve_connection(m->fds[0], false);
		if (!rc)
			m->fds[0] = -1;
		return rc;
	case LDFS_SHIM_ADOPT:
	case LDFS_SHIM_INIT:
	case LDFS_SHIM_FREE:
		return shim_alone(m, out);
	case LDFS_SHIM_LAST_WORDS:
		return shim_keep_last_words(m);
	}
	return shim_with_dump(m, out);
}

/* The host has ended: let the machine run, and release the dump. */
void shim_give_up(void)
{
	int fd = shim_say_last_words();

	/* An INIT that misses this holds the lock already; its dump is then the latest. */
	shim_no_more_dumps();
	shim_end_dump(shim_latest());
	if (fd < 0)
		fd = shim_say_first_words();
	if (fd >= 0)
		shim_listen_for_ever(fd);
}

/*
 * The answer could not be sent: the host has waited for too long, and believes that there is no
 * such dump. Undo the request.
 */
static void take_back(const ldfs_shim_request *asked, const ldfs_shim_reply *answered)
{
	if (asked->op == LDFS_SHIM_INIT)
		shim_end_dump(answered->dump);
	else if (asked->op == LDFS_SHIM_START)
		shim_end_dump(asked->dump);
}

static void *connection_main(void *arg)
{
	struct connection *c = arg;

	while (shim_receive(c->fd, &c->in)) {
		c->out.head = (ldfs_shim_reply){ 0 };
		c->out.head.rc = serve(&c->in, &c->out);
		shim_close_fds(&c->in);
		if (shim_answer(c->fd, &c->out))
			continue;
		if (!c->out.head.rc)
			take_back(&c->in.head, &c->out.head);
		break;
	}
	close(c->fd);
	if (c->first)
		shim_give_up();
	ldfs_buffer_free(c, sizeof(*c));
	return NULL;
}

/* Owns fd if it returns 0. */
int shim_serve_connection(int fd, bool first)
{
	/* From ldfs_buffer_make, because the guest's bytes pass through it. */
	struct connection *c = ldfs_buffer_make(sizeof(*c));
	int rc;

	if (!c)
		return -ENOMEM;
	c->fd = fd;
	c->first = first;
	rc = ldfs_thread_detached(connection_main, c, SHIM_THREAD);
	if (rc)
		ldfs_buffer_free(c, sizeof(*c));
	return rc;
}
