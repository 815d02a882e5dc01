/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * arena.c - the memory of a machine: one memfd, its views, and how a view takes another's place.
 *
 * Live, observer, shadow and spare have addresses that are equal modulo 1 GiB, so that mremap moves
 * whole page tables (a PUD entry at a time) instead of entries: the swap costs the same at any size.
 * All four address ranges stay reserved while the arena exists: nothing else ever lands there.
 *
 * One dump's life of the mappings:
 *   INIT   shadow := read-only mapping with its page tables filled   (machine runs)
 *   START  live -> spare (MREMAP_DONTUNMAP), shadow -> live          (machine stands)
 *   ...    handlers and sweep make pieces of live writable
 *   INIT   of the next dump: spare, made read-only, is the new shadow; its page tables are there
 *
 * "Read-only" is PROT_READ with backend SIGSEGV; with UFFD it is userfaultfd's write protection, which
 * moves with the mapping.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "internal.h"

#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4 /* Linux 5.7; on shared memory 5.13 */
#endif
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ 22 /* Linux 5.14 */
#endif

#define VIEW_ALIGN (1ULL << 30)
#define PROBE_MOST (2ULL << 20) /* bytes of data whose end is looked for page by page */
#define PIECE (32ULL << 20) /* bytes of page tables changed under one hold of mmap_lock */

#define RO PROT_READ
#define RW (PROT_READ | PROT_WRITE)

/* Reserve `size` bytes of addresses that lie in VIEW_ALIGN as `like` does. NULL: no room. */
static uint8_t *reserve(uint64_t size, const uint8_t *like)
{
	uint8_t *base = mmap(NULL, size + VIEW_ALIGN, PROT_NONE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	uint64_t before, after;

	if (base == MAP_FAILED)
		return NULL;
	before = ((uintptr_t)like - (uintptr_t)base) % VIEW_ALIGN;
	after = VIEW_ALIGN - before;
	if (before)
		munmap(base, before);
	if (after)
		munmap(base + before + size, after);
	return base + before;
}

/* The arena at `at`. All views carry the same flags: a view can take another's place, and the pieces
 * of a split one merge again. */
static int map_view(const ldfs_arena *a, uint8_t *at, int prot)
{
	if (mmap(at, a->size, prot, MAP_SHARED | MAP_FIXED | MAP_NORESERVE, a->memfd, 0) != at)
		return -errno;
	return madvise(at, a->size, MADV_DONTFORK) ? -errno : 0;
}

static int make_memory(ldfs_arena *a)
{
	a->memfd = memfd_create("livedumpfs-arena", MFD_CLOEXEC);
	if (a->memfd < 0)
		return -errno;
	return ftruncate(a->memfd, (off_t)a->size) ? -errno : 0;
}

/* `live`: what is there already, or NULL. */
static int make_views(ldfs_arena *a, uint8_t *live)
{
	int rc;

	a->live = live ? live : reserve(a->size, NULL);
	a->observer = reserve(a->size, a->live);
	a->shadow = reserve(a->size, a->live);
	a->spare = reserve(a->size, a->live);
	if (!a->live || !a->observer || !a->shadow || !a->spare)
		return -ENOMEM;
	rc = live ? 0 : map_view(a, a->live, RW);
	if (!rc)
		rc = map_view(a, a->observer, RO);
	if (rc || !live)
		return rc;
	rc = ldfs_vma_read(live, &a->advice);
	return rc ? rc : ldfs_vma_advise(a->observer, a->size, a->advice);
}

static void unmake(ldfs_arena *a)
{
	uint8_t *views[] = { a->observer, a->shadow, a->spare, a->adopted ? NULL : a->live };

	ldfs_uffd_close(a);
	for (unsigned i = 0; i < sizeof(views) / sizeof(*views); i++)
		if (views[i])
			munmap(views[i], a->size);
	if (a->memfd >= 0)
		close(a->memfd);
	free(a);
}

/* MADV_POPULATE_READ is the youngest thing we need: a kernel that has it has the others. */
static int check_kernel(const ldfs_arena *a)
{
	/* A length of 0 does nothing, but an unknown advice is EINVAL all the same. */
	return madvise(a->observer, 0, MADV_POPULATE_READ) ? -ENOSYS : 0;
}

static ldfs_arena *new_arena(uint64_t size)
{
	ldfs_arena *a = calloc(1, sizeof(*a));

	if (!a)
		return NULL;
	a->size = size;
	a->memfd = a->uffd.fd = -1;
	a->pid = getpid();
	return a;
}

static bool possible_size(uint64_t size)
{
	return size && size % LDFS_PAGE_SIZE == 0 && size <= INT64_MAX / 8 &&
	       sysconf(_SC_PAGESIZE) == LDFS_PAGE_SIZE;
}

/* The arena's memory is there, or `rc` says why not. */
static int finish(ldfs_arena *a, uint8_t *live, int rc, ldfs_arena **out)
{
	if (!rc)
		rc = make_views(a, live);
	if (!rc)
		rc = check_kernel(a);
	if (!rc)
		rc = ldfs_fault_register(a);
	if (rc) {
		unmake(a);
		return rc;
	}
	*out = a;
	return 0;
}

int ldfs_arena_create(uint64_t size, ldfs_arena **out)
{
	ldfs_arena *a;

	if (!possible_size(size))
		return -EINVAL;
	a = new_arena(size);
	return a ? finish(a, NULL, make_memory(a), out) : -ENOMEM;
}

int ldfs_arena_adopt(void *live, uint64_t size, int memfd, ldfs_arena **out)
{
	ldfs_arena *a;

	if (!live || (uintptr_t)live % LDFS_PAGE_SIZE || !possible_size(size))
		return -EINVAL;
	a = new_arena(size);
	if (!a)
		return -ENOMEM;
	a->adopted = true;
	a->memfd = fcntl(memfd, F_DUPFD_CLOEXEC, 3);
	return finish(a, live, a->memfd < 0 ? -errno : 0, out);
}

int ldfs_arena_destroy(ldfs_arena *a)
{
	if (ldfs_arena_foreign(a))
		return 0;
	if (load_seq(&a->owner))
		return -EBUSY;
	ldfs_huge_stop(a);
	ldfs_fault_unregister(a);
	unmake(a);
	return 0;
}

void *ldfs_arena_live(const ldfs_arena *a)
{
	return a->live;
}

uint64_t ldfs_arena_size(const ldfs_arena *a)
{
	return a->size;
}

int ldfs_arena_memfd(const ldfs_arena *a)
{
	return a->memfd;
}

/* ------------------------------------------------------------------- holes */

/*
 * Where the data that begins at `start` ends. SEEK_HOLE walks every page up to the next hole, however
 * far behind `limit` that is: asked for a granule of a machine's filled memory it would walk gigabytes.
 * SEEK_DATA on data answers at once, so a short stretch is asked page by page.
 */
static int64_t data_end(const ldfs_arena *a, uint64_t start, uint64_t limit)
{
	off_t end;

	if (limit - start > PROBE_MOST) {
		end = lseek(a->memfd, (off_t)start, SEEK_HOLE);
		return end < 0 ? -errno : (uint64_t)end < limit ? end : (off_t)limit;
	}
	for (end = (off_t)start + LDFS_PAGE_SIZE; (uint64_t)end < limit; end += LDFS_PAGE_SIZE)
		if (lseek(a->memfd, end, SEEK_DATA) != end)
			return end;
	return (int64_t)limit;
}

bool ldfs_arena_next_data(const ldfs_arena *a, uint64_t from, uint64_t limit, uint64_t *start,
			  uint64_t *end, int *error)
{
	int64_t found;

	*error = 0;
	if (from >= limit)
		return false;
	found = lseek(a->memfd, (off_t)from, SEEK_DATA);
	if (found < 0) {
		*error = errno == ENXIO ? 0 : -errno;
		return false;
	}
	if ((uint64_t)found >= limit)
		return false;
	*start = (uint64_t)found;
	found = data_end(a, *start, limit);
	if (found < 0) {
		*error = (int)found;
		return false;
	}
	*end = (uint64_t)found;
	return true;
}

int64_t ldfs_arena_resident(const ldfs_arena *a)
{
	uint64_t start, end = 0;
	int64_t sum = 0;
	int error;

	while (ldfs_arena_next_data(a, end, a->size, &start, &end, &error))
		sum += (int64_t)(end - start);
	return error ? error : sum;
}

/* ------------------------------------------------------------ shadow, swap */

/* Change the rights of a view piece by piece, so that the machine's page faults wait for one only. */
static int protect_in_pieces(uint8_t *view, uint64_t size, int prot)
{
	for (uint64_t at = 0; at < size; at += PIECE) {
		uint64_t length = size - at < PIECE ? size - at : PIECE;

		if (mprotect(view + at, length, prot))
			return -errno;
	}
	return 0;
}

static int populate_data(uint8_t *view, uint64_t start, uint64_t end)
{
	for (; start < end; start += PIECE)
		if (madvise(view + start, end - start < PIECE ? end - start : PIECE,
			    MADV_POPULATE_READ))
			return -errno;
	return 0;
}

/* Existing pages only. What is punched meanwhile may come back as zeros: memory lost, never data. */
static int populate(const ldfs_arena *a, uint8_t *view)
{
	uint64_t start, end = 0;
	int rc = 0, error = 0;

	while (!rc && ldfs_arena_next_data(a, end, a->size, &start, &end, &error))
		rc = populate_data(view, start, end);
	return rc ? rc : error;
}

int ldfs_arena_prepare_observer(ldfs_arena *a)
{
	return populate(a, a->observer);
}

/* Make a view that is not in use read-only, whatever it was protected by before. */
static int protect_view(ldfs_arena *a, uint8_t *view, uint32_t backend)
{
	int rc;

	store_seq(&a->shadow_torn, 0);
	if (backend == LDFS_BACKEND_UFFD) {
		rc = protect_in_pieces(view, a->size, RW);
		/* Before the first page: who punches and does not see it has punched before that. */
		store_seq(&a->shadow_guarded, 1);
		return rc ? rc : ldfs_uffd_protect(a, view, a->size);
	}
	rc = a->uffd.fd < 0 ? 0 : ldfs_uffd_unprotect(a, view, a->size);
	return rc ? rc : protect_in_pieces(view, a->size, RO);
}

/*
 * Whether a new view of the memory can be made writable at all: not when somebody has sealed it
 * (F_SEAL_FUTURE_WRITE), or gave us a read-only descriptor. Found out here, not by the first store.
 */
static int check_writable(uint8_t *view)
{
	if (mprotect(view, LDFS_PAGE_SIZE, RW))
		return errno == EACCES ? -EPERM : -errno;
	return mprotect(view, LDFS_PAGE_SIZE, RO) ? -errno : 0;
}

/* What is to be the shadow: what was live before the last swap, or a new mapping. */
static int map_shadow(ldfs_arena *a)
{
	uint8_t *was_live = a->spare;
	int rc;

	if (!a->spare_mapped) {
		rc = map_view(a, a->shadow, RO);
		/* Its program may have said something since it made the arena. */
		if (!rc && !a->adopted)
			rc = ldfs_vma_read(a->live, &a->advice);
		if (!rc)
			rc = ldfs_vma_advise(a->shadow, a->size, a->advice);
		return rc ? rc : check_writable(a->shadow);
	}
	a->spare = a->shadow;
	a->shadow = was_live;
	a->spare_mapped = false;
	return 0;
}

int ldfs_arena_prepare_shadow(ldfs_arena *a, uint32_t backend)
{
	int rc = a->shadow_ready ? 0 : map_shadow(a);

	if (rc)
		return rc;
	if (!a->shadow_ready || a->shadow_backend != backend || backend == LDFS_BACKEND_UFFD) {
		a->shadow_ready = false;
		rc = protect_view(a, a->shadow, backend);
	}
	if (rc) {
		/* Half done, but a mapping that the next INIT can begin with. */
		uint8_t *view = a->shadow;

		store_seq(&a->shadow_guarded, 0);
		a->shadow = a->spare;
		a->spare = view;
		a->spare_mapped = true;
		return rc;
	}
	a->shadow_ready = true;
	a->shadow_backend = backend;
	return populate(a, a->shadow);
}

/*
 * The machine stands. DONTUNMAP leaves the live address mapped (and empty) between the two calls, and
 * the shadow's address after them: nothing else can land there. After a failure of the second call the
 * live view is a fresh mapping of the same memory: the machine can go on.
 */
int ldfs_arena_swap(ldfs_arena *a)
{
	const int flags = MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP;

	if (!a->shadow_ready)
		return -EINVAL;
	if (load_seq(&a->shadow_torn))
		return -ESTALE;
	if (mremap(a->live, a->size, a->size, flags, a->spare) == MAP_FAILED)
		return -errno;
	a->spare_mapped = true;
	if (mremap(a->shadow, a->size, a->size, flags, a->live) == MAP_FAILED)
		return -errno;
	store_seq(&a->shadow_guarded, 0);
	a->shadow_ready = false;
	return 0;
}

int ldfs_arena_protect(ldfs_arena *a, uint32_t backend)
{
	if (backend == LDFS_BACKEND_UFFD)
		return ldfs_uffd_protect(a, a->live, a->size);
	return mprotect(a->live, a->size, RO) ? -errno : 0;
}

int ldfs_arena_unprotect_all(ldfs_arena *a, uint32_t backend)
{
	int rc;

	if (backend == LDFS_BACKEND_UFFD)
		return ldfs_uffd_unprotect(a, a->live, a->size);
	rc = protect_in_pieces(a->live, a->size, RW);

	/* At vm.max_map_count a piece may need a split; all at once never does. */
	if (rc == -ENOMEM)
		rc = mprotect(a->live, a->size, RW) ? -errno : 0;
	return rc;
}

void ldfs_arena_forget(ldfs_arena *a, uint32_t backend)
{
	if (backend == LDFS_BACKEND_UFFD)
		ldfs_uffd_forget(a, a->live, a->size);
}

/* ------------------------------------------------- reading, writing, discards */

static bool in_range(const ldfs_arena *a, uint64_t offset, uint64_t length)
{
	return offset <= a->size && length <= a->size - offset;
}

int ldfs_arena_read(const ldfs_arena *a, uint64_t offset, void *buf, uint64_t length)
{
	if (!in_range(a, offset, length))
		return -EINVAL;
	return ldfs_read_all(a->memfd, buf, length, offset);
}

/*
 * Save the granules of a range that are armed, and stay counted in as a handler: no START arms until
 * ldfs_fault_leave. A START that is at work just now is waited for, uncounted.
 */
static void enter_and_save(ldfs_arena *a, uint64_t offset, uint64_t length)
{
	unsigned turns = 0;
	ldfs_dump *d;

	for (;;) {
		ldfs_fault_enter(a);
		d = load_seq(&a->dump);
		if (!d)
			return;
		if (load_seq(&d->phase) != LDFS_PHASE_READY)
			break;
		ldfs_fault_leave(a);
		ldfs_event_soon(&turns);
	}
	for (uint32_t g = ldfs_granule_of(d, offset); g <= ldfs_granule_of(d, offset + length - 1); g++)
		ldfs_save_make_writable(d, g, false);
}

/*
 * As in the handler: a program's own signal handler on this thread that stored to a granule whose claim
 * we hold would wait for ever.
 */
static void block_signals(sigset_t *before)
{
	sigset_t all;

	sigfillset(&all);
	sigdelset(&all, SIGSEGV);
	pthread_sigmask(SIG_SETMASK, &all, before);
}

int ldfs_arena_writable(ldfs_arena *a, uint64_t offset, uint64_t length)
{
	sigset_t before;

	if (ldfs_arena_foreign(a))
		return -ECHILD;
	if (!in_range(a, offset, length))
		return -EINVAL;
	if (length == 0)
		return 0;
	block_signals(&before);
	enter_and_save(a, offset, length);
	ldfs_fault_leave(a);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return 0;
}

/* From now on no granule of the range counts as full, whatever find_full has seen of it. */
static void mark_punched(ldfs_dump *d, uint64_t offset, uint64_t length)
{
	for (uint32_t g = ldfs_granule_of(d, offset); g <= ldfs_granule_of(d, offset + length - 1); g++)
		store_seq(&d->full[g], GRANULE_PUNCHED);
}

/*
 * A punch takes userfaultfd's protection of the shadow's pages with it. A START that is at work waits for us
 * before it swaps: the view that it puts in place is whole, or it says that it is not. While INIT has no such view yet there is nothing to do: it protects all of it later.
 */
static int protect_punched(ldfs_arena *a, const ldfs_dump *owner, uint64_t offset, uint64_t length)
{
	int rc;

	if (owner->backend != LDFS_BACKEND_UFFD || owner->arming != LDFS_ARM_SWAP ||
	    ldfs_dump_phase(owner) != LDFS_PHASE_READY || !load_seq(&a->shadow_guarded))
		return 0;
	rc = ldfs_uffd_protect(a, a->shadow + offset, length);
	if (rc)
		store_seq(&a->shadow_torn, 1);
	return rc;
}

int ldfs_arena_discard(ldfs_arena *a, uint64_t offset, uint64_t length)
{
	ldfs_dump *owner;
	sigset_t before;
	int rc;

	if (ldfs_arena_foreign(a))
		return -ECHILD;
	if (!in_range(a, offset, length) || offset % LDFS_PAGE_SIZE || length % LDFS_PAGE_SIZE)
		return -EINVAL;
	if (length == 0)
		return 0;
	block_signals(&before);
	enter_and_save(a, offset, length);
	owner = load_seq(&a->owner); /* not freed while we are counted in */
	if (owner)
		mark_punched(owner, offset, length);
	/* libc's fallocate is a cancellation point: whoever were cancelled here would stay counted in. */
	rc = syscall(SYS_fallocate, a->memfd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		     (off_t)offset, (off_t)length) ? -errno : 0;
	if (!rc && owner)
		rc = protect_punched(a, owner, offset, length);
	ldfs_fault_leave(a);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return rc;
}
