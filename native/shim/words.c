/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * words.c - the last words: what the shim tells QEMU in place of a host that has ended.
 *
 * The host stops the machine for a moment at START. If the host ends just then (killed, crashed) or
 * is itself stopped (SIGSTOP), no program would let the machine run again. So before it stops the
 * machine, the host leaves its last words with the shim: QMP commands that let the machine run, and
 * a descriptor of its connection to QEMU's monitor. The shim writes the text there when the
 * connection to the host ends, or when a time that the host has set is over.
 *
 * The first words are for a host that ends before it has left any last words. QEMU was started with
 * -S then and waits for `cont`; the shim connects to QEMU's monitor itself, at the path `monitor`.
 *
 * Everything here is under a lock of its own, so that it never waits for a thread that waits for a
 * target.
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
	uint64_t until; /* CLOCK_MONOTONIC, ns: write them then; 0: only at the host's end */
	bool watched;   /* the thread words_main runs */
	/*
	 * They were written although the host has not ended: the machine runs, so START has no
	 * instant.
	 */
	bool late;
	struct sockaddr_un monitor; /* empty path: none */
} last_words = { .fd = -1 };

bool shim_said_too_late(void)
{
	bool late;

	pthread_mutex_lock(&words_lock);
	late = last_words.late;
	pthread_mutex_unlock(&words_lock);
	return late;
}

/*
 * Write the last words. The caller holds words_lock. The descriptor stays open, see
 * shim_listen_for_ever.
 */
static void say(void)
{
	shim_urgent_lower(); /* the machine's code must not run so */
	if (last_words.length)
		send(last_words.fd, last_words.text, last_words.length,
		     MSG_NOSIGNAL | MSG_DONTWAIT);
	last_words.until = 0;
}

/*
 * The thread that writes the last words when their time is over. The host has not ended then, so it
 * still has the connection to QEMU and reads the answer.
 *
 * The words are kept for the host's end: the host may have been stopped before it stopped the
 * machine, and then this time they changed nothing. They are not repeated after more time, because
 * that would undo what another program does with the machine meanwhile.
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
			last_words.late = true; /* before they are written: see do_start */
			say();
		}
	}
	return unused;
}

/*
 * The caller holds words_lock. `length`: bytes of the text. Takes the descriptor over if it returns
 * 0.
 */
static int set_last_words(struct shim_message *m, uint32_t length)
{
	int rc = 0;

	/*
	 * At the first words of any kind: the host raises threads of this process, but no thread
	 * that comes later, and raised vCPUs might keep this one from its turn.
	 */
	if (!last_words.watched)
		rc = ldfs_thread_detached(words_main, NULL, SHIM_THREAD);
	last_words.watched |= !rc;
	if (rc && m->head.arg[0])
		return rc;
	if (m->head.arg[1] && !shim_urgent_may_lower())
		return -EPERM;
	if (last_words.fd >= 0)
		close(last_words.fd);
	shim_urgent_keep(m->payload + length, m->head.arg[1]);
	memcpy(last_words.text, m->payload, length);
	last_words.length = length;
	last_words.fd = length ? m->fds[0] : -1;
	last_words.until = length && m->head.arg[0] ? ldfs_now_ns() + m->head.arg[0] : 0;
	last_words.late = false;
	last_words.monitor.sun_path[0] = 0;
	if (length)
		m->fds[0] = -1;
	pthread_cond_signal(&words_changed);
	return 0;
}

int shim_keep_last_words(struct shim_message *m)
{
	uint64_t ids = m->head.arg[1] * sizeof(int32_t);
	uint32_t length;
	int rc;

	if (m->head.arg[1] > LDFS_SHIM_THREADS || ids > m->head.size)
		return -EINVAL;
	length = m->head.size - (uint32_t)ids;
	if (length > sizeof(last_words.text) || (length && m->fds[0] < 0))
		return -EINVAL;
	pthread_mutex_lock(&words_lock);
	rc = set_last_words(m, length);
	pthread_mutex_unlock(&words_lock);
	return rc;
}

/* See within.h. */
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

/*
 * Keep the connection to QEMU's monitor open and read it: when QEMU sees a hang-up it drops the
 * commands that it has not read yet, and it keeps its answers in memory until they are read.
 */
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

/*
 * The host has ended before it let the machine run. QEMU may not listen on the monitor's socket
 * yet, so this retries. -1: QEMU never will (no path, or another error).
 */
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
