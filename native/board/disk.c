/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * disk.c - the thread that does what the guest asks of its disk, one request after the other. It
 * reads the guest's memory, and never stores to it: what it reads from the disk goes to a buffer of
 * its own, because a system call that stores to write-protected memory fails (EFAULT). The vCPU's
 * thread copies it, so that a dump sees a store like any other (virtio.c).
 */
#define _GNU_SOURCE /* preadv, pwritev */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

#include "board/within.h"

#define SECTOR 512u
enum { KIND_READ = 0, KIND_WRITE = 1, KIND_FLUSH = 4, KIND_ID = 8 };
enum { STATUS_OK = 0, STATUS_ERROR = 1, STATUS_UNSUPPORTED = 2 };
#define ID_SIZE 20
static const char id[ID_SIZE] = "livedump";

void ldfs_job_free(struct job *job)
{
	if (job)
		free(job->bounce);
	free(job);
}

/* [any thread] With the lock. */
static void append(struct jobs *jobs, struct job *job)
{
	job->next = NULL;
	*jobs->last = job;
	jobs->last = &job->next;
}

static struct job *take_first(struct jobs *jobs)
{
	struct job *job = jobs->first;

	if (job) {
		jobs->first = job->next;
		if (!jobs->first)
			jobs->last = &jobs->first;
	}
	return job;
}

void ldfs_disk_ask(struct ldfs_board *b, struct job *job)
{
	struct disk *k = &b->disk;

	pthread_mutex_lock(&k->lock);
	append(&k->asked, job);
	pthread_mutex_unlock(&k->lock);
	ldfs_event_notify(&k->asked_changed);
}

struct job *ldfs_disk_take_done(struct ldfs_board *b)
{
	struct job *job;

	pthread_mutex_lock(&b->disk.lock);
	job = take_first(&b->disk.done);
	pthread_mutex_unlock(&b->disk.lock);
	return job;
}

/* ------------------------------------------------------------ one request */

/* Drop the first `done` bytes of the list, and what is empty behind them. */
static void skip(struct iovec **list, int *count, size_t done)
{
	while (*count && done >= (*list)->iov_len) {
		done -= (*list)->iov_len;
		(*list)++;
		(*count)--;
	}
	if (*count) {
		(*list)->iov_base = (uint8_t *)(*list)->iov_base + done;
		(*list)->iov_len -= done;
	}
}

static bool transfer(int fd, struct iovec *list, int count, off_t offset, bool write)
{
	skip(&list, &count, 0);
	while (count) {
		ssize_t done = write ? pwritev(fd, list, count, offset)
				     : preadv(fd, list, count, offset);

		if (done < 0 && errno == EINTR)
			continue;
		if (done <= 0)
			return false;
		offset += done;
		skip(&list, &count, (size_t)done);
	}
	return true;
}

static bool on_disk(const struct disk *k, const struct job *job)
{
	return job->size % SECTOR == 0 && job->sector <= k->sectors &&
	       job->size / SECTOR <= k->sectors - job->sector;
}

static bool write_to(const struct disk *k, const struct job *job)
{
	struct iovec list[SEGMENTS];

	for (uint32_t i = 0; i < job->segment_count; i++)
		list[i] = (struct iovec){ job->segments[i].at, job->segments[i].size };
	return transfer(k->fd, list, (int)job->segment_count, (off_t)(job->sector * SECTOR), true);
}

static bool read_from(const struct disk *k, struct job *job)
{
	struct iovec list;

	job->bounce = malloc(job->size + 1);
	list = (struct iovec){ job->bounce, job->size };
	return job->bounce &&
	       transfer(k->fd, &list, job->size != 0, (off_t)(job->sector * SECTOR), false);
}

static bool tell_id(struct job *job)
{
	job->bounce = calloc(1, job->size + ID_SIZE);
	if (job->bounce)
		memcpy(job->bounce, id, sizeof(id));
	return job->bounce;
}

static void do_job(struct disk *k, struct job *job)
{
	bool ok = true;

	switch (job->kind) {
	case KIND_READ:
		ok = on_disk(k, job) && read_from(k, job);
		add_seq(&k->reads, 1);
		break;
	case KIND_WRITE:
		ok = !k->read_only && on_disk(k, job) && write_to(k, job);
		add_seq(&k->writes, 1);
		break;
	case KIND_FLUSH:
		ok = k->read_only || fdatasync(k->fd) == 0;
		break;
	case KIND_ID:
		ok = tell_id(job);
		break;
	default:
		job->status = STATUS_UNSUPPORTED;
		return;
	}
	job->status = ok ? STATUS_OK : STATUS_ERROR;
	if (!ok)
		add_seq(&k->errors, 1);
}

/* ------------------------------------------------------------- the thread */

static void *disk_main(void *arg)
{
	struct ldfs_board *b = arg;
	struct disk *k = &b->disk;

	for (;;) {
		uint32_t seen = ldfs_event_prepare(&k->asked_changed);
		struct job *job;
		bool stop;

		pthread_mutex_lock(&k->lock);
		job = take_first(&k->asked);
		stop = k->stop;
		pthread_mutex_unlock(&k->lock);
		if (!job && !stop) {
			ldfs_event_wait(&k->asked_changed, seen, UINT64_MAX);
			continue;
		}
		ldfs_event_cancel(&k->asked_changed);
		if (!job)
			break;
		do_job(k, job);
		pthread_mutex_lock(&k->lock);
		append(&k->done, job);
		pthread_mutex_unlock(&k->lock);
		ldfs_vcpu_set_work(b->hart);
	}
	store_seq(&k->ended, 1);
	ldfs_event_notify(&k->ended_changed);
	return NULL;
}

int ldfs_disk_start(struct ldfs_board *b)
{
	int rc;

	if (b->disk.fd < 0)
		return 0;
	rc = ldfs_thread_start(&b->disk.thread, disk_main, b, "ldfs-disk");
	b->disk.has_thread = !rc;
	return rc;
}

static bool wait_for_end(struct disk *k, uint64_t deadline_ns)
{
	while (!load_seq(&k->ended)) {
		uint32_t seen = ldfs_event_prepare(&k->ended_changed);

		if (load_seq(&k->ended)) {
			ldfs_event_cancel(&k->ended_changed);
			return true;
		}
		if (!ldfs_event_wait(&k->ended_changed, seen, deadline_ns))
			return load_seq(&k->ended);
	}
	return true;
}

bool ldfs_disk_stop(struct ldfs_board *b, uint64_t deadline_ns)
{
	struct disk *k = &b->disk;

	if (!k->has_thread)
		return true;
	pthread_mutex_lock(&k->lock);
	k->stop = true;
	pthread_mutex_unlock(&k->lock);
	ldfs_event_notify(&k->asked_changed);
	if (!wait_for_end(k, deadline_ns))
		return false;
	pthread_join(k->thread, NULL);
	k->has_thread = false;
	return true;
}
