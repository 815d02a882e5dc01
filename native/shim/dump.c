/* SPDX-License-Identifier: GPL-2.0-or-later */
/* dump.c - the arena and the dump of this process, and the requests of the host for them. */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/magic.h>
#include <pthread.h>
#include <string.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "life/reference.h"
#include "shim/within.h"

#define WAIT_MOST_NS 100000000u

/*
 * `dump` is freed under the write lock and used under the read lock, which is held for long while a
 * target hangs.
 */
static pthread_rwlock_t lock = PTHREAD_RWLOCK_INITIALIZER;
static ldfs_arena *arena;
static ldfs_dump *dump;
static uint64_t number;       /* number of the dump, or of the last one */
static ldfs_stream *stream;   /* of the dump, if its target is a pipe */
static _Atomic uint32_t gone; /* 1: the host has ended: refuse INIT */

/*
 * Only memory of a tmpfs or hugetlbfs (a memfd is of one of the two) can be write-protected page by
 * page: not files on a disk.
 */
static int do_adopt(const struct shim_message *m)
{
	struct statfs s;
	int rc;

	if (arena)
		return -EEXIST;
	if (fstatfs(m->fds[0], &s))
		return -errno;
	if (s.f_type != TMPFS_MAGIC && s.f_type != HUGETLBFS_MAGIC)
		return -EMEDIUMTYPE;
	rc = ldfs_arena_adopt((void *)(uintptr_t)m->head.arg[0], m->head.arg[1], m->fds[0], &arena);
	if (rc)
		return rc;
	rc = shim_memory_watch(arena);
	if (rc) {
		ldfs_arena_destroy(arena);
		arena = NULL;
	}
	return rc;
}

static int next_fd(const struct shim_message *m, uint64_t bit, int *used)
{
	return m->head.arg[0] & bit && *used < LDFS_SHIM_FDS ? m->fds[(*used)++] : -1;
}

static void close_stream(void)
{
	ldfs_stream_close(stream);
	stream = NULL;
}

/* With a reference, which tests have, or -1. */
static int init_dump(const ldfs_dump_config *config, int reference)
{
	int rc = ldfs_dump_init(arena, config, &dump);

	if (rc || reference < 0)
		return rc;
	rc = ldfs_dump_set_reference(dump, reference);
	if (rc) {
		ldfs_dump_release(dump);
		ldfs_dump_free(dump);
		dump = NULL;
	}
	return rc;
}

static int do_init(struct shim_message *m, struct shim_answer *out)
{
	ldfs_dump_config config;
	int used = 0, rc = 0, reference;

	if (!arena || m->head.size < sizeof(config))
		return -EINVAL;
	memcpy(&config, m->payload, sizeof(config));
	if (config.extent_count > (m->head.size - sizeof(config)) / sizeof(ldfs_extent))
		return -EINVAL;
	/* The kernel drops descriptors when the process has reached its limit of open files. */
	if (m->count != (size_t)__builtin_popcountll(m->head.arg[0] & 15))
		return -EMFILE;
	config.extents = (const ldfs_extent *)(m->payload + sizeof(config));
	config.target_fd = next_fd(m, 1, &used);
	config.table_fd = next_fd(m, 2, &used);
	config.uffd_fd = next_fd(m, 4, &used);
	reference = next_fd(m, 8, &used);
	if (dump || load_seq(&gone))
		return dump ? -EBUSY : -ECANCELED;
	if (m->head.arg[0] & 16)
		rc = ldfs_stream_open(config.target_fd, 1, &stream);
	config.stream = stream;
	if (!rc)
		rc = init_dump(&config, reference);
	if (rc)
		close_stream();
	else
		out->head.dump = ++number;
	return rc;
}

/* The dump with that number; NULL: it was freed, and another one may exist now. */
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

static int do_record(const struct shim_message *m)
{
	if (!stream)
		return -EINVAL;
	return m->head.size ? ldfs_stream_write(stream, m->payload, m->head.size, m->head.arg[0])
			    : ldfs_stream_end(stream);
}

static int do_read(const ldfs_shim_request *r, struct shim_answer *out)
{
	int rc = r->arg[1] > LDFS_SHIM_PAYLOAD
			 ? -EINVAL
			 : ldfs_dump_read(dump, r->arg[0], out->payload, r->arg[1]);

	out->head.size = rc ? 0 : (uint32_t)r->arg[1];
	return rc;
}

static int do_marks(const ldfs_shim_request *r, struct shim_answer *out)
{
	int rc = r->arg[1] > LDFS_SHIM_PAYLOAD || r->arg[0] > UINT32_MAX
			 ? -EINVAL
			 : ldfs_dump_marks(dump, (uint32_t)r->arg[0], (uint32_t)r->arg[1],
					   out->payload);

	out->head.size = rc ? 0 : (uint32_t)r->arg[1];
	return rc;
}

static int do_counters(struct shim_answer *out)
{
	ldfs_counters counters;

	ldfs_dump_counters(dump, &counters);
	memcpy(out->payload, &counters, sizeof(counters));
	out->head.size = sizeof(counters);
	return 0;
}

/*
 * START, unless the last words (words.c) are said meanwhile: while memory is being armed they would
 * let the machine write in the middle of it. So this looks before and after. Last words that come
 * after that do no harm, because the snapshot instant is over.
 */
static int do_start(void)
{
	int rc = shim_said_too_late() ? -ETIMEDOUT : ldfs_dump_start(dump, NULL, 0);

	if (!rc && shim_said_too_late()) {
		ldfs_dump_release(dump);
		rc = -ETIMEDOUT;
	}
	return rc;
}

/* Requests that need a dump. The caller holds the read lock. */
static int serve_dump(const struct shim_message *m, struct shim_answer *out)
{
	const ldfs_shim_request *r = &m->head;

	switch (r->op) {
	case LDFS_SHIM_RECORD:
		return do_record(m);
	case LDFS_SHIM_START:
		return do_start();
	case LDFS_SHIM_SWEEP:
		return ldfs_dump_sweep(dump);
	case LDFS_SHIM_WAIT:
		return ldfs_dump_wait(dump, r->arg[0] < WAIT_MOST_NS ? r->arg[0] : WAIT_MOST_NS);
	case LDFS_SHIM_RELEASE:
		return ldfs_dump_release(dump);
	case LDFS_SHIM_COUNTERS:
		return do_counters(out);
	case LDFS_SHIM_MARKS:
		return do_marks(r, out);
	case LDFS_SHIM_READ:
		return do_read(r, out);
	}
	return -EINVAL;
}

int shim_with_dump(const struct shim_message *m, struct shim_answer *out)
{
	int rc;

	pthread_rwlock_rdlock(&lock);
	rc = numbered(m->head.dump) ? serve_dump(m, out) : -ENODATA;
	pthread_rwlock_unlock(&lock);
	return rc;
}

int shim_alone(struct shim_message *m, struct shim_answer *out)
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

/* --------------------------------------------------------- the host has gone */

/* Release and free the dump; repeated until no memory is protected any more. */
void shim_end_dump(uint64_t which)
{
	int rc = -EBUSY;

	while (rc) {
		pthread_rwlock_rdlock(&lock);
		rc = numbered(which) ? ldfs_dump_release(dump) : 0;
		pthread_rwlock_unlock(&lock);
		if (rc)
			usleep(SHIM_RETRY_US);
		pthread_rwlock_wrlock(&lock);
		rc = do_free(which);
		pthread_rwlock_unlock(&lock);
	}
}

uint64_t shim_latest(void)
{
	uint64_t which;

	pthread_rwlock_rdlock(&lock);
	which = number;
	pthread_rwlock_unlock(&lock);
	return which;
}

void shim_no_more_dumps(void)
{
	store_seq(&gone, 1);
}
