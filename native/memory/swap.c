/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * swap.c - how a view takes another's place, and how views are write-protected.
 *
 * The mappings during one dump:
 *   INIT   shadow := read-only mapping with its page tables filled   (machine runs)
 *   START  live -> spare (MREMAP_DONTUNMAP), shadow -> live          (machine stands)
 *   ...    handlers and sweep make parts of live writable; behind the sweep, spare is made
 *          read-only
 *   INIT   of the next dump: spare becomes the new shadow; what of it is not read-only yet
 *          becomes so, and its page tables lack only what came since
 *
 * "Read-only" is PROT_READ with backend SIGSEGV; with UFFD and SIGBUS it is the write protection
 * of userfaultfd, which moves with the mapping. Where an arena tracks, that write protection is a
 * mark beside PROT_READ, which moves as well (changes.c).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <sys/mman.h>

#include "memory/within.h"

#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4 /* Linux 5.7; on shared memory 5.13 */
#endif

/* Bytes whose page table entries are changed while mmap_lock is held once. */
#define PIECE (32ULL << 20)

#define RO PROT_READ
#define RW (PROT_READ | PROT_WRITE)

/*
 * Change the protection of a view piece by piece, so that a page fault of the machine waits for one
 * piece only, not for all.
 */
static int protect_in_pieces(uint8_t *view, uint64_t size, int prot)
{
	for (uint64_t at = 0; at < size; at += PIECE) {
		uint64_t length = size - at < PIECE ? size - at : PIECE;

		if (mprotect(view + at, length, prot))
			return -errno;
	}
	return 0;
}

/*
 * Make a view that is not in use read-only, whatever protected it before. Its parts may have been
 * left registered and protected by userfaultfd by ldfs_arena_close, others not: that would be
 * several mappings, and mremap moves one only.
 */
static int protect_view(ldfs_arena *a, uint8_t *view, uint32_t backend)
{
	int rc = 0;

	store_seq(&a->shadow_torn, 0);
	if (load_seq(&a->tracks)) {
		rc = ldfs_uffd_register(a, view, a->size);
		return rc ? rc : protect_in_pieces(view, a->size, RO);
	}
	if (ldfs_uffd_protects(backend)) {
		rc = protect_in_pieces(view, a->size, RW);
		/*
		 * Set before the first page is protected: a thread that discards memory and does
		 * not see it has discarded before that.
		 */
		store_seq(&a->shadow_guarded, 1);
		return rc ? rc : ldfs_uffd_register(a, view, a->size);
	}
	if (a->uffd.fd >= 0) {
		ldfs_uffd_forget(a, view, a->size);
		/* Where that failed all is registered, so nothing protected is passed over. */
		rc = ldfs_uffd_unprotect(a, view, a->size);
	}
	return rc ? rc : protect_in_pieces(view, a->size, RO);
}

/*
 * Whether a new view of the memory can be made writable at all: not if the memfd was sealed
 * (F_SEAL_FUTURE_WRITE), or if we were given a read-only descriptor. INIT finds that out here, so
 * that the machine's first store does not.
 */
static int check_writable(const ldfs_arena *a, uint8_t *view)
{
	if (mprotect(view, a->page, RW))
		return errno == EACCES ? -EPERM : -errno;
	return mprotect(view, a->page, RO) ? -errno : 0;
}

/* Map what will be the shadow: the mapping that was live before the last swap, or a new one. */
static int map_shadow(ldfs_arena *a)
{
	uint8_t *was_live = a->spare;
	int rc;

	if (!a->spare_mapped) {
		rc = ldfs_memory_map(a, a->shadow, RO);
		/* The program may have called madvise since it made the arena. */
		if (!rc && !a->adopted)
			rc = ldfs_vma_read(a->live, &a->advice);
		if (!rc)
			rc = ldfs_vma_advise(a->shadow, a->size, a->advice);
		return rc ? rc : check_writable(a, a->shadow);
	}
	a->spare = a->shadow;
	a->shadow = was_live;
	a->spare_mapped = false;
	return 0;
}

int ldfs_arena_prepare_shadow(ldfs_arena *a, uint32_t backend)
{
	bool by_uffd = ldfs_uffd_protects(backend) || load_seq(&a->tracks);
	int rc;

	ldfs_changes_look(a);
	rc = a->shadow_ready ? 0 : map_shadow(a);
	if (rc)
		return rc;
	if (!a->shadow_ready || a->shadow_backend != backend || by_uffd) {
		a->shadow_ready = false;
		rc = protect_view(a, a->shadow, backend);
	}
	if (!rc)
		rc = ldfs_fill(a, a->shadow, by_uffd);
	if (rc) {
		/* Only partly protected, but mapped: the next INIT can begin with it. */
		uint8_t *view = a->shadow;

		store_seq(&a->shadow_guarded, 0);
		a->shadow_ready = false;
		a->shadow = a->spare;
		a->spare = view;
		a->spare_mapped = true;
		return rc;
	}
	a->shadow_ready = true;
	a->shadow_backend = backend;
	return 0;
}

int ldfs_arena_prepare_observer(ldfs_arena *a)
{
	return a->observer ? ldfs_fill(a, a->observer, false) : 0;
}

void ldfs_arena_close(ldfs_arena *a, uint32_t backend, uint64_t offset, uint64_t length)
{
	if (!a->spare_mapped)
		return;
	if (ldfs_uffd_protects(backend))
		ldfs_uffd_protect(a, a->spare + offset, length);
	else
		mprotect(a->spare + offset, length, RO);
}

/*
 * The machine stands. MREMAP_DONTUNMAP leaves the live address range mapped (and empty) between the
 * two calls, and the shadow's address range after them, so that no other mapping can be placed
 * there. If the second call fails, the live view is a fresh mapping of the same memory: the machine
 * can go on.
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
	a->unseen = true;
	if (mremap(a->shadow, a->size, a->size, flags, a->live) == MAP_FAILED)
		return -errno;
	store_seq(&a->shadow_guarded, 0);
	a->shadow_ready = false;
	return 0;
}

int ldfs_arena_protect(ldfs_arena *a, uint32_t backend)
{
	if (ldfs_uffd_protects(backend))
		return ldfs_uffd_protect(a, a->live, a->size);
	return mprotect(a->live, a->size, RO) ? -errno : 0;
}

int ldfs_arena_unprotect_all(ldfs_arena *a, uint32_t backend)
{
	int rc;

	if (ldfs_uffd_protects(backend))
		return ldfs_uffd_unprotect(a, a->live, a->size);
	rc = protect_in_pieces(a->live, a->size, RW);

	/*
	 * At vm.max_map_count a piece may need to split a mapping, which fails; all at once never
	 * does.
	 */
	if (rc == -ENOMEM)
		rc = mprotect(a->live, a->size, RW) ? -errno : 0;
	return rc;
}

void ldfs_arena_forget(ldfs_arena *a, uint32_t backend)
{
	if (ldfs_uffd_protects(backend))
		ldfs_uffd_forget(a, a->live, a->size);
}
