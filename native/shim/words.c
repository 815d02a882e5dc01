/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the host would have said: a machine that it holds must go on without it, also when the host
 * is only stopped. Under a lock of their own: they never wait for a target. Before the first of
 * them, `monitor` is where to say that the machine may run at all.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "shim/within.h"

#define FIRST_WORDS "{\"execute\": \"qmp_capabilities\"}\n{\"execute\": \"cont\"}\n"

static pthread_mutex_t words_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t words_changed = PTHREAD_COND_INITIALIZER;
static struct {
	uint8_t text[LDFS_SHIM_WORDS];
	size_t length;
	int fd;
	uint64_t until; /* CLOCK_MONOTONIC, ns; 0: until the host has gone */
	bool watched;   /* a thread looks at `until` */
	bool late; /* they were said while the host lives: the machine runs, and no instant is one
		    */
	struct sockaddr_un monitor; /* no path: none */
} last_words = { .fd = -1 };

bool shim_said_too_late(void)
{
	bool late;

	pthread_mutex_lock(&words_lock);
	late = last_words.late;
	pthread_mutex_unlock(&words_lock);
	return late;
}

/* Under words_lock. The fd stays open, see listen_for_ever. */
static void say(void)
{
	if (last_words.length)
		send(last_words.fd, last_words.text, last_words.length,
		     MSG_NOSIGNAL | MSG_DONTWAIT);
	last_words.until = 0;
}

/*
 * The host still has the connection, and reads the answer. It may have stood still before it
 * stopped the machine: the words then change nothing, and are kept for its end. Said again and
 * again, they would undo whatever somebody else does to the machine meanwhile.
 */
static void *words_main(void *unused)
{
	pthread_mutex_lock(&words_lock);
	for (;;) {
		uint64_t until = last_words.until;
		struct timespec t = { (time_t)(until / 1000000000u), (long)(until % 1000000000u) };

		if (!until) {
			pthread_cond_wait(&words_changed, &words_lock);
		} else if (ldfs_now_ns() < until) {
			pthread_cond_clockwait(&words_changed, &words_lock, CLOCK_MONOTONIC, &t);
		} else {
			last_words.late = true; /* before they are said: see do_start */
			say();
		}
	}
	return unused;
}

/* Under words_lock. Takes the fd over when it answers 0. */
static int set_last_words(struct shim_message *m)
{
	int rc = 0;

	if (m->head.arg[0] && !last_words.watched)
		rc = ldfs_thread_detached(words_main, NULL, SHIM_THREAD);
	if (rc)
		return rc;
	last_words.watched |= m->head.arg[0] != 0;
	if (last_words.fd >= 0)
		close(last_words.fd);
	memcpy(last_words.text, m->payload, m->head.size);
	last_words.length = m->head.size;
	last_words.fd = m->head.size ? m->fds[0] : -1;
	last_words.until = m->head.size && m->head.arg[0] ? ldfs_now_ns() + m->head.arg[0] : 0;
	last_words.late = false;
	last_words.monitor.sun_path[0] = 0;
	if (m->head.size)
		m->fds[0] = -1;
	pthread_cond_signal(&words_changed);
	return 0;
}

int shim_keep_last_words(struct shim_message *m)
{
	int rc;

	if (m->head.size > sizeof(last_words.text) || (m->head.size && m->fds[0] < 0))
		return -EINVAL;
	pthread_mutex_lock(&words_lock);
	rc = set_last_words(m);
	pthread_mutex_unlock(&words_lock);
	return rc;
}

/* The fd that they went to, which is then the caller's; -1: there were none. */
int shim_say_last_words(void)
{
	int fd;

	pthread_mutex_lock(&words_lock);
	say();
	fd = last_words.fd;
	last_words.length = 0;
	last_words.fd = -1;
	pthread_mutex_unlock(&words_lock);
	return fd;
}

/* It stays open, for QEMU drops what it has not read when it sees a hang-up; and QEMU keeps what it
 * says until somebody reads it. */
void shim_listen_for_ever(int fd)
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

void shim_set_monitor(const struct sockaddr_un *monitor)
{
	last_words.monitor = *monitor;
}

/* The host went before it let the machine run. Whoever listens for it may not do so yet. -1: nobody
 * will. */
int shim_say_first_words(void)
{
	struct sockaddr_un monitor;
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	pthread_mutex_lock(&words_lock);
	monitor = last_words.monitor;
	pthread_mutex_unlock(&words_lock);
	while (fd >= 0 && (!monitor.sun_path[0] ||
			   connect(fd, (struct sockaddr *)&monitor, sizeof(monitor)))) {
		if (monitor.sun_path[0] &&
		    (errno == ENOENT || errno == ECONNREFUSED || errno == EINTR)) {
			usleep(SHIM_RETRY_US);
			continue;
		}
		close(fd);
		fd = -1;
	}
	if (fd >= 0)
		send(fd, FIRST_WORDS, sizeof(FIRST_WORDS) - 1, MSG_NOSIGNAL);
	return fd;
}
