/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * virtio.c - the disk as the guest sees it: a block device of virtio 1.2 behind registers in memory
 * (virtio-mmio, version 2), with one split queue.
 *
 * A request is taken apart here, and done by the disk's thread (disk.c), which gives it back. All
 * stores to the guest's memory are here.
 */
#include <stdlib.h>
#include <string.h>

#include "board/within.h"

enum {
	MAGIC = 0x00,
	VERSION = 0x04,
	DEVICE = 0x08,
	VENDOR = 0x0c,
	DEVICE_FEATURES = 0x10,
	DEVICE_FEATURES_PAGE = 0x14,
	DRIVER_FEATURES = 0x20,
	DRIVER_FEATURES_PAGE = 0x24,
	QUEUE = 0x30,
	QUEUE_MOST = 0x34,
	QUEUE_LENGTH = 0x38,
	QUEUE_READY = 0x44,
	QUEUE_NOTIFY = 0x50,
	INTERRUPT = 0x60,
	INTERRUPT_DONE = 0x64,
	STATUS = 0x70,
	DESCRIPTORS = 0x80,
	DRIVER_RING = 0x90,
	DEVICE_RING = 0xa0,
	CONFIG = 0x100
};

#define REGISTER_SIZE 4        /* but of the configuration; other accesses do nothing */
#define MAGIC_VALUE 0x74726976 /* "virt" */
#define VENDOR_VALUE 0x7366646c
#define DEVICE_BLOCK 2
#define STATUS_NEEDS_RESET 0x40u
#define INTERRUPT_QUEUE 1u
#define INTERRUPT_CONFIG 2u

enum { DESCRIPTOR_NEXT = 1, DESCRIPTOR_WRITE = 2 };
enum { KIND_READ = 0, KIND_WRITE = 1, KIND_FLUSH = 4, KIND_ID = 8, KIND_NONE = 0xff };
enum { STATUS_UNSUPPORTED = 2 };

struct descriptor {
	uint64_t address;
	uint32_t size;
	uint16_t flags, next;
};

struct request {
	uint32_t kind, reserved;
	uint64_t sector;
};

/* ------------------------------------------------------------------ the queue */

static void interrupt(struct ldfs_board *b, uint32_t why)
{
	b->disk.interrupt |= why;
	ldfs_plic_line(b, LDFS_BOARD_DISK_IRQ, true);
}

static void breaks(struct ldfs_board *b)
{
	b->disk.broken = true;
	b->disk.status |= STATUS_NEEDS_RESET;
	interrupt(b, INTERRUPT_CONFIG);
}

static struct job *job_of(struct ldfs_board *b, uint16_t head)
{
	struct job *job = calloc(1, sizeof(*job));

	if (job) {
		job->generation = b->disk.generation;
		job->head = head;
		job->kind = KIND_NONE;
	}
	return job;
}

/* The device writes what is read, and reads what is written. */
static bool has_direction(const struct job *job, const struct descriptor *d)
{
	if (job->kind == KIND_WRITE)
		return !(d->flags & DESCRIPTOR_WRITE);
	return (job->kind != KIND_READ && job->kind != KIND_ID) || d->flags & DESCRIPTOR_WRITE;
}

/* Add one descriptor to the request. False: the request makes no sense. */
static bool add(struct ldfs_board *b, struct job *job, const struct descriptor *d, uint32_t index)
{
	uint8_t *at = ldfs_ram_at(b, d->address, d->size);
	struct request request;

	if (!at)
		return false;
	if (index == 0) {
		if (d->size != sizeof(request) || d->flags != DESCRIPTOR_NEXT)
			return false;
		memcpy(&request, at, sizeof(request));
		job->kind = request.kind < KIND_NONE ? (uint8_t)request.kind : KIND_NONE;
		job->sector = request.sector;
		return true;
	}
	if (!(d->flags & DESCRIPTOR_NEXT)) {
		job->status_at = at;
		return d->size >= 1 && d->flags & DESCRIPTOR_WRITE;
	}
	if (job->segment_count == SEGMENTS || d->size > SEGMENT_SIZE || !has_direction(job, d))
		return false;
	job->segments[job->segment_count++] = (struct segment){ at, d->size };
	job->size += d->size;
	return true;
}

/* The request that begins with descriptor `head`; NULL: it makes no sense. */
static struct job *take(struct ldfs_board *b, uint16_t head)
{
	struct disk *k = &b->disk;
	struct descriptor *table = (struct descriptor *)ldfs_ram_at(b, k->descriptors,
								    k->size * sizeof(*table));
	struct job *job = table ? job_of(b, head) : NULL;
	uint32_t at = head;

	for (uint32_t i = 0; job && i < k->size; i++) {
		struct descriptor d;

		if (at >= k->size)
			break;
		d = table[at];
		if (!add(b, job, &d, i))
			break;
		if (job->status_at)
			return job;
		at = d.next;
	}
	ldfs_job_free(job);
	return NULL;
}

static bool has_room(const struct disk *k)
{
	return k->under_way < QUEUE_SIZE && k->bytes_under_way < BYTES_MOST;
}

/* Take what the guest asks for, as far as there is room. False: its queue makes no sense. */
static bool take_some(struct ldfs_board *b)
{
	struct disk *k = &b->disk;
	uint16_t *ring = (uint16_t *)ldfs_ram_at(b, k->driver_ring, 4 + 2 * (uint64_t)k->size);

	if (!ring || (uint16_t)(ring[1] - k->seen) > k->size)
		return false;
	while (k->seen != ring[1] && has_room(k)) {
		struct job *job = take(b, ring[2 + k->seen % k->size]);

		if (!job)
			return false;
		k->seen++;
		k->under_way++;
		k->bytes_under_way += job->size;
		ldfs_disk_ask(b, job);
	}
	k->waits = k->seen != ring[1];
	return true;
}

static void take_all(struct ldfs_board *b)
{
	if (b->disk.ready && !b->disk.broken && !take_some(b))
		breaks(b);
}

static void scatter(struct ldfs_board *b, struct job *job)
{
	const uint8_t *from = job->bounce;

	for (uint32_t i = 0; i < job->segment_count; i++) {
		ldfs_mmu_copy(b, job->segments[i].at, from, job->segments[i].size);
		from += job->segments[i].size;
	}
}

static void give_back(struct ldfs_board *b, struct job *job)
{
	struct disk *k = &b->disk;
	uint8_t *ring = ldfs_ram_at(b, k->device_ring, 4 + 8 * (uint64_t)k->size);
	uint32_t entry[2] = { job->head, 1 };

	if (!ring) {
		breaks(b);
		return;
	}
	if (job->bounce && !job->status) {
		scatter(b, job);
		entry[1] += (uint32_t)job->size;
	}
	ldfs_mmu_copy(b, job->status_at, &job->status, 1);
	ldfs_mmu_copy(b, ring + 4 + 8 * (size_t)(k->used % k->size), entry, sizeof(entry));
	k->used++;
	ldfs_mmu_copy(b, ring + 2, &k->used, sizeof(k->used));
	interrupt(b, INTERRUPT_QUEUE);
}

void ldfs_virtio_attend(struct ldfs_board *b)
{
	struct job *job;

	while ((job = ldfs_disk_take_done(b))) {
		b->disk.under_way--;
		b->disk.bytes_under_way -= job->size;
		if (job->generation == b->disk.generation && b->disk.ready && !b->disk.broken)
			give_back(b, job);
		ldfs_job_free(job);
	}
	if (b->disk.waits)
		take_all(b);
}

void ldfs_virtio_reset(struct ldfs_board *b)
{
	struct disk *k = &b->disk;

	k->generation++;
	k->status = k->interrupt = k->ready = k->size = 0;
	k->features_page = k->driver_page = k->queue = 0;
	memset(k->accepted, 0, sizeof(k->accepted));
	k->accepted_beyond = false;
	k->descriptors = k->driver_ring = k->device_ring = 0;
	k->seen = k->used = 0;
	k->broken = k->waits = false;
	ldfs_plic_line(b, LDFS_BOARD_DISK_IRQ, false);
}

/* -------------------------------------------------------------- the registers */

static uint64_t config(const struct disk *k, uint64_t offset, unsigned int size)
{
	struct {
		uint64_t sectors;
		uint32_t size_most, segments_most;
	} values = { k->sectors, SEGMENT_SIZE, SEGMENTS };
	uint64_t value = 0;

	if (size <= sizeof(value) && offset + size <= sizeof(values))
		memcpy(&value, (uint8_t *)&values + offset, size);
	return value;
}

uint64_t ldfs_virtio_read(ldfs_uc *uc, uint64_t offset, unsigned int size, void *user)
{
	struct ldfs_board *b = user;
	struct disk *k = &b->disk;

	(void)uc;
	if (offset >= CONFIG)
		return config(k, offset - CONFIG, size);
	if (size != REGISTER_SIZE)
		return 0;
	switch (offset) {
	case MAGIC:
		return MAGIC_VALUE;
	case VERSION:
		return 2;
	case DEVICE:
		return k->fd < 0 ? 0 : DEVICE_BLOCK;
	case VENDOR:
		return VENDOR_VALUE;
	case DEVICE_FEATURES:
		return ldfs_features_offered(k, k->features_page);
	case QUEUE_MOST:
		return k->queue || k->fd < 0 ? 0 : QUEUE_SIZE;
	case QUEUE_READY:
		return k->queue ? 0 : k->ready;
	case INTERRUPT:
		return k->interrupt;
	case STATUS:
		return k->status;
	}
	return 0;
}

/* What was asked of the queue as it was is not given back to another. */
static void set_ready(struct disk *k, bool on)
{
	if (on == k->ready)
		return;
	k->generation++;
	k->seen = k->used = 0;
	k->waits = false;
	k->ready = on && (k->status & LDFS_FEATURES_OK) && k->size && k->descriptors % 16 == 0 &&
		   k->driver_ring % 2 == 0 && k->device_ring % 4 == 0;
}

static void set_half(uint64_t *address, uint64_t offset, uint64_t value)
{
	if (offset & 4)
		*address = (*address & UINT32_MAX) | value << 32;
	else
		*address = (*address & ~(uint64_t)UINT32_MAX) | value;
}

/* Where the queue is: while it is ready, it stays there. */
static void place_queue(struct disk *k, uint64_t offset, uint64_t value)
{
	if (k->ready)
		return;
	switch (offset) {
	case QUEUE_LENGTH:
		if (value && value <= QUEUE_SIZE && !(value & (value - 1)))
			k->size = (uint32_t)value;
		break;
	case DESCRIPTORS:
	case DESCRIPTORS + 4:
		set_half(&k->descriptors, offset, value);
		break;
	case DRIVER_RING:
	case DRIVER_RING + 4:
		set_half(&k->driver_ring, offset, value);
		break;
	case DEVICE_RING:
	case DEVICE_RING + 4:
		set_half(&k->device_ring, offset, value);
		break;
	}
}

void ldfs_virtio_write(ldfs_uc *uc, uint64_t offset, unsigned int size, uint64_t value, void *user)
{
	struct ldfs_board *b = user;
	struct disk *k = &b->disk;

	(void)uc;
	if (size != REGISTER_SIZE || k->fd < 0)
		return;
	value = (uint32_t)value;
	switch (offset) {
	case DEVICE_FEATURES_PAGE:
		k->features_page = (uint32_t)value;
		break;
	case DRIVER_FEATURES:
		ldfs_features_accept(k, k->driver_page, (uint32_t)value);
		break;
	case DRIVER_FEATURES_PAGE:
		k->driver_page = (uint32_t)value;
		break;
	case QUEUE:
		k->queue = (uint32_t)value;
		break;
	case QUEUE_READY:
		if (k->queue == 0)
			set_ready(k, value != 0);
		break;
	case QUEUE_NOTIFY:
		if (value == 0)
			take_all(b);
		break;
	case INTERRUPT_DONE:
		k->interrupt &= ~(uint32_t)value;
		if (!k->interrupt)
			ldfs_plic_line(b, LDFS_BOARD_DISK_IRQ, false);
		break;
	case STATUS:
		if (value)
			k->status = ldfs_features_status(k, (uint32_t)value);
		else
			ldfs_virtio_reset(b);
		break;
	default:
		if (k->queue == 0)
			place_queue(k, offset, value);
	}
}
