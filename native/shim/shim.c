/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * shim.c - the C core inside another process (QEMU), by LD_PRELOAD: serves the host's requests.
 *
 * The process must never pay for it: when the host goes, for whatever reason, the dump is released and the
 * memory is as free as before. The shim waits on its sockets and does nothing else until it is asked.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "atomic.h"
#include "ldfs.h"
#include "memory.h"
#include "shim.h"

#define SOCKET_VARIABLE "LIVEDUMP_SHIM_FD"
#define WAIT_MOST_NS 100000000u
#define RETRY_US 10000

/* dump is freed under the write lock, and used under the read lock: for long, where a target hangs. */
static pthread_rwlock_t lock = PTHREAD_RWLOCK_INITIALIZER;
static ldfs_arena *arena;
static ldfs_dump *dump;
static uint64_t number; /* of the dump, or of the last one */
static ldfs_stream *stream; /* of the dump: its target is a pipe */
static _Atomic uint32_t gone; /* 1: the host has; no INIT any more */

struct message {
	ldfs_shim_request head;
	uint8_t payload[LDFS_SHIM_PAYLOAD];
	int fds[LDFS_SHIM_FDS]; /* -1: none */
	size_t count;
};

struct answer {
	ldfs_shim_reply head;
	uint8_t payload[LDFS_SHIM_PAYLOAD];
};

struct connection {
	int fd;
	bool first;
	struct message in;
	struct answer out;
};

/* --------------------------------------------------------------- messages */

static void take_fds(struct message *m, struct msghdr *h)
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

static void close_fds(struct message *m)
{
	for (int i = 0; i < LDFS_SHIM_FDS; i++)
		if (m->fds[i] >= 0)
			close(m->fds[i]);
}

/* False: the host has gone. */
static bool receive(int fd, struct message *m)
{
	char control[CMSG_SPACE(sizeof(int) * LDFS_SHIM_FDS)];
	struct iovec parts[] = { { &m->head, sizeof(m->head) }, { m->payload, sizeof(m->payload) } };
	struct msghdr h = { .msg_iov = parts, .msg_iovlen = 2,
			    .msg_control = control, .msg_controllen = sizeof(control) };
	ssize_t n;

	do {
		n = recvmsg(fd, &h, MSG_CMSG_CLOEXEC);
	} while (n < 0 && errno == EINTR);
	if (n <= 0)
		return false;
	take_fds(m, &h);
	if ((size_t)n < sizeof(m->head) || (size_t)n != sizeof(m->head) + m->head.size)
		m->head = (ldfs_shim_request){ 0 }; /* answered with -EINVAL */
	return true;
}

static bool answer(int fd, struct answer *a)
{
	struct iovec parts[] = { { &a->head, sizeof(a->head) }, { a->payload, a->head.size } };
	struct msghdr h = { .msg_iov = parts, .msg_iovlen = 2 };
	ssize_t n;

	do {
		n = sendmsg(fd, &h, MSG_NOSIGNAL);
	} while (n < 0 && errno == EINTR);
	return n > 0;
}

/* --------------------------------------------------------------- requests */

/* Huge pages and files on a disk cannot be write-protected page by page. */
static int do_adopt(const struct message *m)
{
	struct statfs s;
	int rc;

	if (arena)
		return -EEXIST;
	if (fstatfs(m->fds[0], &s))
		return -errno;
	if (s.f_type != TMPFS_MAGIC)
		return -EMEDIUMTYPE;
	rc = ldfs_arena_adopt((void *)(uintptr_t)m->head.arg[0], m->head.arg[1], m->fds[0], &arena);
	if (!rc)
		shim_memory_watch(arena);
	return rc;
}

static int next_fd(const struct message *m, uint64_t bit, int *used)
{
	return m->head.arg[0] & bit && *used < LDFS_SHIM_FDS ? m->fds[(*used)++] : -1;
}

static void close_stream(void)
{
	ldfs_stream_close(stream);
	stream = NULL;
}

static int do_init(struct message *m, struct answer *out)
{
	ldfs_dump_config config;
	int used = 0, rc = 0;

	if (!arena || m->head.size < sizeof(config))
		return -EINVAL;
	memcpy(&config, m->payload, sizeof(config));
	if (config.extent_count > (m->head.size - sizeof(config)) / sizeof(ldfs_extent))
		return -EINVAL;
	/* The kernel drops descriptors for which the process has no number left. */
	if (m->count != (size_t)__builtin_popcountll(m->head.arg[0] & 15))
		return -EMFILE;
	config.extents = (const ldfs_extent *)(m->payload + sizeof(config));
	config.target_fd = next_fd(m, 1, &used);
	config.table_fd = next_fd(m, 2, &used);
	config.uffd_fd = next_fd(m, 4, &used);
	config.reference_fd = next_fd(m, 8, &used);
	if (dump || load_seq(&gone))
		return dump ? -EBUSY : -ECANCELED;
	if (m->head.arg[0] & 16)
		rc = ldfs_stream_open(config.target_fd, 1, &stream);
	config.stream = stream;
	if (!rc)
		rc = ldfs_dump_init(arena, &config, &dump);
	if (rc)
		close_stream();
	else
		out->head.dump = ++number;
	return rc;
}

/* That dump, which may have gone and been followed by another. */
static ldfs_dump *numbered(uint64_t which)
{
	return which == number ? dump : NULL;
}

static int do_free(uint64_t which)
{
	int rc = numbered(which) ? ldfs_dump_free(dump) : 0;

	if (!rc && numbered(which)) {
		dump = NULL;
		close_stream();
	}
	return rc;
}

static int do_record(const struct message *m)
{
	if (!stream)
		return -EINVAL;
	return m->head.size ? ldfs_stream_write(stream, m->payload, m->head.size, m->head.arg[0])
			    : ldfs_stream_end(stream);
}

static int do_read(const ldfs_shim_request *r, struct answer *out)
{
	int rc = r->arg[1] > LDFS_SHIM_PAYLOAD ? -EINVAL
					       : ldfs_dump_read(dump, r->arg[0], out->payload, r->arg[1]);

	out->head.size = rc ? 0 : (uint32_t)r->arg[1];
	return rc;
}

static int do_states(const ldfs_shim_request *r, struct answer *out)
{
	int rc = r->arg[1] > LDFS_SHIM_PAYLOAD || r->arg[0] > UINT32_MAX
			 ? -EINVAL
			 : ldfs_dump_states(dump, (uint32_t)r->arg[0], (uint32_t)r->arg[1], out->payload);

	out->head.size = rc ? 0 : (uint32_t)r->arg[1];
	return rc;
}

static int do_counters(struct answer *out)
{
	ldfs_counters counters;

	ldfs_dump_counters(dump, &counters);
	memcpy(out->payload, &counters, sizeof(counters));
	out->head.size = sizeof(counters);
	return 0;
}

/* What needs a dump; the read lock is held. */
static int serve_dump(const struct message *m, struct answer *out)
{
	const ldfs_shim_request *r = &m->head;

	switch (r->op) {
	case LDFS_SHIM_RECORD:
		return do_record(m);
	case LDFS_SHIM_START:
		return ldfs_dump_start(dump, NULL, 0);
	case LDFS_SHIM_SWEEP:
		return ldfs_dump_sweep(dump);
	case LDFS_SHIM_WAIT:
		return ldfs_dump_wait(dump, r->arg[0] < WAIT_MOST_NS ? r->arg[0] : WAIT_MOST_NS);
	case LDFS_SHIM_RELEASE:
		return ldfs_dump_release(dump);
	case LDFS_SHIM_COUNTERS:
		return do_counters(out);
	case LDFS_SHIM_STATES:
		return do_states(r, out);
	case LDFS_SHIM_READ:
		return do_read(r, out);
	}
	return -EINVAL;
}

static int with_dump(const struct message *m, struct answer *out)
{
	int rc;

	pthread_rwlock_rdlock(&lock);
	rc = numbered(m->head.dump) ? serve_dump(m, out) : -ENODATA;
	pthread_rwlock_unlock(&lock);
	return rc;
}

/*
 * What the host would have said: a guest that it holds must go on without it. Under a lock of their own: they
 * never wait for a target.
 */
static pthread_mutex_t words_lock = PTHREAD_MUTEX_INITIALIZER;
static struct {
	uint8_t text[LDFS_SHIM_WORDS];
	size_t length;
	int fd;
} last_words = { .fd = -1 };

/* Takes the fd over. */
static int keep_last_words(struct message *m)
{
	if (m->head.size > sizeof(last_words.text) || (m->head.size && m->fds[0] < 0))
		return -EINVAL;
	pthread_mutex_lock(&words_lock);
	if (last_words.fd >= 0)
		close(last_words.fd);
	memcpy(last_words.text, m->payload, m->head.size);
	last_words.length = m->head.size;
	last_words.fd = m->head.size ? m->fds[0] : -1;
	if (m->head.size)
		m->fds[0] = -1;
	pthread_mutex_unlock(&words_lock);
	return 0;
}

/* The fd that they went to, which is then the caller's; -1: there were none. */
static int say_last_words(void)
{
	int fd;

	pthread_mutex_lock(&words_lock);
	fd = last_words.fd;
	last_words.fd = -1;
	if (fd >= 0)
		send(fd, last_words.text, last_words.length, MSG_NOSIGNAL);
	pthread_mutex_unlock(&words_lock);
	return fd;
}

/* It stays open, for QEMU drops what it has not read when it sees a hang-up; and QEMU keeps what it says
 * until somebody reads it. */
static void listen_for_ever(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	char text[512];
	ssize_t n = 1;

	while (n > 0 || (n < 0 && (errno == EAGAIN || errno == EINTR))) {
		poll(&p, 1, -1);
		n = recv(fd, text, sizeof(text), MSG_DONTWAIT);
	}
	close(fd);
}

static int alone(struct message *m, struct answer *out)
{
	int rc;

	pthread_rwlock_wrlock(&lock);
	if (m->head.op == LDFS_SHIM_ADOPT)
		rc = do_adopt(m);
	else
		rc = m->head.op == LDFS_SHIM_INIT ? do_init(m, out) : do_free(m->head.dump);
	pthread_rwlock_unlock(&lock);
	return rc;
}

static int serve_connection(int fd, bool first);

static int serve(struct message *m, struct answer *out)
{
	int rc;

	switch (m->head.op) {
	case LDFS_SHIM_HELLO:
		return m->head.arg[0] == LDFS_SHIM_VERSION ? 0 : -EPROTO;
	case LDFS_SHIM_CONNECT:
		rc = m->fds[0] < 0 ? -EBADF : serve_connection(m->fds[0], false);
		if (!rc)
			m->fds[0] = -1;
		return rc;
	case LDFS_SHIM_ADOPT:
	case LDFS_SHIM_INIT:
	case LDFS_SHIM_FREE:
		return alone(m, out);
	case LDFS_SHIM_LAST_WORDS:
		return keep_last_words(m);
	}
	return with_dump(m, out);
}

/* ----------------------------------------------------------------- threads */

/* Nothing of it stays protected, whatever it takes. */
static void end_dump(uint64_t which)
{
	int rc = -EBUSY;

	while (rc) {
		pthread_rwlock_rdlock(&lock);
		rc = numbered(which) ? ldfs_dump_release(dump) : 0;
		pthread_rwlock_unlock(&lock);
		if (rc)
			usleep(RETRY_US);
		pthread_rwlock_wrlock(&lock);
		rc = do_free(which);
		pthread_rwlock_unlock(&lock);
	}
}

static uint64_t latest(void)
{
	uint64_t which;

	pthread_rwlock_rdlock(&lock);
	which = number;
	pthread_rwlock_unlock(&lock);
	return which;
}

/* The host has gone. */
static void give_up(void)
{
	int fd = say_last_words();

	store_seq(&gone, 1); /* an INIT that does not see it has the lock, and is the latest then */
	end_dump(latest());
	if (fd >= 0)
		listen_for_ever(fd);
}

/* The host has waited for the answer for too long, and believes that there is no such dump. */
static void take_back(const ldfs_shim_request *asked, const ldfs_shim_reply *answered)
{
	if (asked->op == LDFS_SHIM_INIT)
		end_dump(answered->dump);
	else if (asked->op == LDFS_SHIM_START)
		end_dump(asked->dump);
}

static void *connection_main(void *arg)
{
	struct connection *c = arg;

	while (receive(c->fd, &c->in)) {
		c->out.head = (ldfs_shim_reply){ 0 };
		c->out.head.rc = serve(&c->in, &c->out);
		close_fds(&c->in);
		if (answer(c->fd, &c->out))
			continue;
		if (!c->out.head.rc)
			take_back(&c->in.head, &c->out.head);
		break;
	}
	close(c->fd);
	if (c->first)
		give_up();
	free(c);
	return NULL;
}

/* All signals stay with the process's own threads; but SIGSEGV must never be blocked. */
static int start_thread(struct connection *c)
{
	sigset_t ours, before;
	pthread_t thread;
	int rc;

	sigfillset(&ours);
	sigdelset(&ours, SIGSEGV);
	sigdelset(&ours, SIGBUS);
	sigdelset(&ours, SIGFPE);
	sigdelset(&ours, SIGILL);
	pthread_sigmask(SIG_SETMASK, &ours, &before);
	rc = pthread_create(&thread, NULL, connection_main, c);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (!rc) {
		pthread_setname_np(thread, "ldfs-shim");
		pthread_detach(thread);
	}
	return -rc;
}

/* Owns fd when it answers 0. */
static int serve_connection(int fd, bool first)
{
	struct connection *c = malloc(sizeof(*c));
	int rc;

	if (!c)
		return -ENOMEM;
	c->fd = fd;
	c->first = first;
	rc = start_thread(c);
	if (rc)
		free(c);
	return rc;
}

/* Children of this process are not QEMU: neither variable is for them. */
__attribute__((constructor)) static void begin(void)
{
	const char *value = getenv(SOCKET_VARIABLE);
	char *end;
	long fd = value ? strtol(value, &end, 10) : -1;

	if (!value)
		return;
	unsetenv(SOCKET_VARIABLE);
	unsetenv("LD_PRELOAD");
	if (!*value || *end || fd < 0)
		return;
	/* A child that kept it would keep us from seeing that QEMU, or the host that QEMU, has gone. */
	fcntl((int)fd, F_SETFD, FD_CLOEXEC);
	serve_connection((int)fd, true);
}
