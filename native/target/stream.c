/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * stream.c - a dump into a pipe, in the flattened format of makedumpfile: a header of 4096 bytes,
 * then records. Each record has an offset in the file, a length (64 bits each, big-endian) and that
 * many bytes; in the last record both numbers are -1. `makedumpfile -R` makes a file of it; a later
 * record overwrites an earlier one.
 *
 * The pipe is nonblocking: a reader that stops reading must not delay RELEASE.
 */
#define _GNU_SOURCE
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "target/target.h"

#define HEADER_SIZE 4096
#define FLAT_TYPE 1
#define FLAT_VERSION 1
#define TICK_MS 50

struct ldfs_stream {
	int fd;
	pthread_mutex_t lock; /* one record at a time */
	bool begun;           /* the header was written */
	int broken;           /* -errno of the first error: nothing more is written */
	_Atomic uint32_t cancelled;
};

struct record {
	uint64_t offset, length; /* big-endian */
};

static int wait_writable(struct ldfs_stream *s)
{
	struct pollfd p = { .fd = s->fd, .events = POLLOUT };

	while (!load_seq(&s->cancelled)) {
		int n = poll(&p, 1, TICK_MS);

		if (n > 0)
			return 0; /* or an error, which write() reports */
		if (n < 0 && errno != EINTR)
			return -errno;
	}
	return -ECANCELED;
}

/* What is left of the parts after n bytes of them. */
static struct iovec *past(struct iovec *first, const struct iovec *end, size_t n)
{
	for (; first < end; first++) {
		if (n < first->iov_len) {
			first->iov_base = (uint8_t *)first->iov_base + n;
			first->iov_len -= n;
			break;
		}
		n -= first->iov_len;
	}
	return first;
}

/* Both parts, one behind the other; where the pipe has room with one call. */
static int put(struct ldfs_stream *s, struct iovec parts[2])
{
	struct iovec *first = parts, *end = parts + 2;

	while (first < end) {
		ssize_t n = load_seq(&s->cancelled) ? 0 : writev(s->fd, first, (int)(end - first));

		if (n > 0) {
			first = past(first, end, (size_t)n);
			continue;
		}
		if (n == 0 || errno == EAGAIN) {
			int rc = wait_writable(s);

			if (rc)
				return rc;
		} else if (errno != EINTR) {
			return -errno;
		}
	}
	return 0;
}

static int put_header(struct ldfs_stream *s)
{
	uint8_t header[HEADER_SIZE] = "makedumpfile";
	uint64_t values[2] = { htobe64(FLAT_TYPE), htobe64(FLAT_VERSION) };
	struct iovec parts[2] = { { header, sizeof(header) }, { NULL, 0 } };

	memcpy(header + 16, values, sizeof(values));
	s->begun = true;
	return put(s, parts);
}

static int put_record(struct ldfs_stream *s, uint64_t offset, uint64_t length, const void *buf)
{
	struct record r = { htobe64(offset), htobe64(length) };
	struct iovec parts[2] = { { &r, sizeof(r) }, { (void *)buf, buf ? length : 0 } };
	int rc = s->broken;

	if (!rc && !s->begun)
		rc = put_header(s);
	if (!rc)
		rc = put(s, parts);
	s->broken = rc;
	return rc;
}

/*
 * Write one record. SIGPIPE is blocked meanwhile, because the end of the reader must be an error
 * here, not the end of the process; a SIGPIPE of ours goes to this thread and is taken off. The
 * thread must not be cancelled while it holds the lock.
 */
static int record(struct ldfs_stream *s, uint64_t offset, uint64_t length, const void *buf)
{
	struct timespec now = { 0 };
	sigset_t pipe, before, pending;
	int rc, cancel;

	sigemptyset(&pipe);
	sigaddset(&pipe, SIGPIPE);
	sigpending(&pending);
	pthread_sigmask(SIG_BLOCK, &pipe, &before);
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
	pthread_mutex_lock(&s->lock);
	rc = put_record(s, offset, length, buf);
	pthread_mutex_unlock(&s->lock);
	if (rc == -EPIPE && !sigismember(&pending, SIGPIPE))
		while (sigtimedwait(&pipe, NULL, &now) < 0 && errno == EINTR)
			;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	pthread_setcancelstate(cancel, NULL);
	return rc;
}

/*
 * Open the pipe again as an open file description of our own, where that is possible: O_NONBLOCK
 * would otherwise change it for every process that shares the descriptor.
 */
static int open_nonblocking(int fd)
{
	char path[64];
	int own, flags, copy;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	own = open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
	if (own >= 0)
		return own;
	copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	flags = copy < 0 ? -1 : fcntl(copy, F_GETFL);
	if (flags >= 0 && !fcntl(copy, F_SETFL, flags | O_NONBLOCK))
		return copy;
	if (copy >= 0)
		close(copy);
	return -1;
}

int ldfs_stream_open(int fd, int begun, ldfs_stream **out)
{
	ldfs_stream *s = calloc(1, sizeof(*s));

	if (!s)
		return -ENOMEM;
	s->begun = begun;
	s->fd = open_nonblocking(fd);
	if (s->fd < 0) {
		int error = errno;

		free(s);
		return -error;
	}
	pthread_mutex_init(&s->lock, NULL);
	*out = s;
	return 0;
}

int ldfs_stream_write(ldfs_stream *s, const void *buf, uint64_t length, uint64_t at)
{
	if (length == 0 || at > (uint64_t)INT64_MAX - length)
		return length ? -EFBIG : 0;
	return record(s, at, length, buf);
}

int ldfs_stream_end(ldfs_stream *s)
{
	return record(s, UINT64_MAX, UINT64_MAX, NULL);
}

void ldfs_stream_cancel(ldfs_stream *s)
{
	store_seq(&s->cancelled, 1);
}

void ldfs_stream_close(ldfs_stream *s)
{
	if (!s)
		return;
	close(s->fd);
	pthread_mutex_destroy(&s->lock);
	free(s);
}
