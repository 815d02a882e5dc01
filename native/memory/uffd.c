/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * uffd.c - userfaultfd write protection of views, in two ways; and marks, a third (changes.c).
 *
 * UFFD is for memory that the kernel writes too: a store to a protected page, from user space or
 * within a system call, waits until the page is unprotected. With SIGBUS (UFFD_FEATURE_SIGBUS) the
 * thread that stores gets that signal instead, and a system call EFAULT; only faults of user mode
 * are served (UFFD_USER_MODE_ONLY), which needs no right and no sysctl.
 *
 * The protection is a bit of the page table entries and moves with a mapping if
 * UFFD_FEATURE_EVENT_REMAP is on: the swap works as with PROT_READ. mremap() then blocks its caller
 * until the event has been read, so the monitor (fault/monitor.c) runs from the first use until the
 * arena ends.
 *
 * See ioctl_userfaultfd(2) and Documentation/admin-guide/mm/userfaultfd.rst of Linux.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "memory/memory.h"

/* Since Linux 5.11, 5.19, 6.4 and 6.1; older headers do not have them. */
#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif
#ifndef UFFD_FEATURE_WP_HUGETLBFS_SHMEM
#define UFFD_FEATURE_WP_HUGETLBFS_SHMEM (1 << 12)
#endif
#ifndef UFFD_FEATURE_WP_UNPOPULATED
#define UFFD_FEATURE_WP_UNPOPULATED (1 << 13)
#endif
#ifndef UFFD_FEATURE_WP_ASYNC
#define UFFD_FEATURE_WP_ASYNC (1 << 15) /* Linux 6.7 */
#endif
#ifndef USERFAULTFD_IOC_NEW
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00)
#endif

/*
 * Pages that do not exist (holes) are protected too: for memory of a file, which an arena always
 * is, the kernel does that without a feature bit. UFFD_FEATURE_WP_UNPOPULATED (6.4) concerns
 * anonymous memory only, and Linux 6.1 refuses it.
 *
 * But a kernel that has that bit also has what huge pages need and no bit tells: before 6.1.8
 * taking the protection of a hole away left an entry that the kernel took for a page
 * (CVE-2022-49760), and a store to a hole whose page table did not exist yet was not noticed
 * (fed15f1345dc); before 6.4 the same after a page table could not be made.
 */
#define FEATURES                                                     \
	(UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_EVENT_REMAP | \
	 UFFD_FEATURE_WP_HUGETLBFS_SHMEM)
#define FEATURES_OF(backend)                                                  \
	(FEATURES | ((backend) == LDFS_BACKEND_SIGBUS ? UFFD_FEATURE_SIGBUS   \
		     : (backend) == LDFS_UFFD_MARKS   ? UFFD_FEATURE_WP_ASYNC \
						      : 0))
#define DEVICE "/dev/userfaultfd"
/*
 * Bytes protected while mmap_lock is held once: the machine's page faults wait so long. A multiple
 * of the pages of each arena.
 */
#define PIECE (32ULL << 20)

/* ---------------------------------------------------------------- protection */

static bool on_monitor(const struct ldfs_uffd *u)
{
	return load_seq(&u->self) == (uint64_t)pthread_self();
}

/* EAGAIN: a mapping is being moved, and the monitor has not read its event yet. */
static int write_protect(const struct ldfs_uffd *u, uint8_t *start, uint64_t length, uint64_t mode)
{
	struct uffdio_writeprotect w = { .range = { (uintptr_t)start, length }, .mode = mode };
	unsigned turns = 0;

	while (ioctl(u->fd, UFFDIO_WRITEPROTECT, &w)) {
		if ((errno != EAGAIN && errno != EINTR) || (errno == EAGAIN && on_monitor(u)))
			return -errno;
		ldfs_event_soon(&turns);
	}
	return 0;
}

/* ENOENT: the range is not registered, so it is not protected. */
static int in_pieces(const struct ldfs_uffd *u, uint8_t *start, uint64_t length, uint64_t mode)
{
	int rc = 0;

	for (uint64_t at = 0; !rc && at < length; at += PIECE) {
		rc = write_protect(u, start + at, length - at < PIECE ? length - at : PIECE, mode);
		if (rc == -ENOENT && !mode)
			rc = 0;
	}
	return rc;
}

int ldfs_uffd_register(ldfs_arena *a, uint8_t *start, uint64_t length)
{
	struct uffdio_register r = { .range = { (uintptr_t)start, length },
				     .mode = UFFDIO_REGISTER_MODE_WP };

	return ioctl(a->uffd.fd, UFFDIO_REGISTER, &r) ? -errno : 0;
}

int ldfs_uffd_protect(ldfs_arena *a, uint8_t *start, uint64_t length)
{
	/*
	 * Registering a registered range again does no harm. Without it the kernel would protect
	 * what another userfaultfd has registered: it does not ask whose a range is.
	 */
	int rc = ldfs_uffd_register(a, start, length);

	return rc ? rc : in_pieces(&a->uffd, start, length, UFFDIO_WRITEPROTECT_MODE_WP);
}

int ldfs_uffd_unprotect(ldfs_arena *a, uint8_t *start, uint64_t length)
{
	return in_pieces(&a->uffd, start, length, 0);
}

/*
 * Unregistering a piece splits the mapping; after the last piece the kernel has merged it again. If
 * a split fails, the whole range is registered again: the next swap needs one mapping, because
 * mremap moves one only. Mappings of huge pages the kernel never merges, so they are unregistered
 * as a whole; they have few entries (seen: 6 ms for 64 GiB).
 */
void ldfs_uffd_forget(ldfs_arena *a, uint8_t *start, uint64_t length)
{
	struct uffdio_register all = { .range = { (uintptr_t)start, length },
				       .mode = UFFDIO_REGISTER_MODE_WP };
	const uint64_t piece = ldfs_arena_huge(a) ? length : PIECE;

	for (uint64_t at = 0; at < length; at += piece) {
		struct uffdio_range range = { (uintptr_t)start + at,
					      length - at < piece ? length - at : piece };

		if (ioctl(a->uffd.fd, UFFDIO_UNREGISTER, &range)) {
			ioctl(a->uffd.fd, UFFDIO_REGISTER, &all);
			return;
		}
	}
}

/* ---------------------------------------------------------------------- open */

/*
 * Make the userfaultfd with /dev/userfaultfd, the given one or opened here: then any user receives
 * also faults that happen within the kernel. The userfaultfd itself cannot be passed from another
 * process: it belongs to the address space of the process that makes it.
 */
static int make_fd(int given)
{
	int device = given >= 0 ? fcntl(given, F_DUPFD_CLOEXEC, 3)
				: open(DEVICE, O_RDWR | O_CLOEXEC);
	int fd, error;

	if (device < 0)
		return (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	fd = ioctl(device, USERFAULTFD_IOC_NEW, O_CLOEXEC | O_NONBLOCK);
	error = errno;
	close(device);
	errno = error;
	return fd;
}

/* A kernel that does not know the flag answers EINVAL. */
static int make_user_mode_fd(void)
{
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);

	if (fd < 0 && errno == EINVAL)
		errno = ENOSYS;
	return fd;
}

/* The kernel answers with all features that it has. */
static int negotiate(int fd, uint32_t backend, bool huge)
{
	struct uffdio_api api = { .api = UFFD_API, .features = FEATURES_OF(backend) };

	if (ioctl(fd, UFFDIO_API, &api))
		return errno == EINVAL ? -ENOSYS : errno == EPERM ? -EACCES : -errno;
	return huge && !(api.features & UFFD_FEATURE_WP_UNPOPULATED) ? -ENOSYS : 0;
}

int ldfs_uffd_make(struct ldfs_uffd *u, uint32_t backend, int given, bool huge)
{
	int rc;

	u->backend = backend;
	u->fd = backend == LDFS_BACKEND_UFFD ? make_fd(given) : make_user_mode_fd();
	if (u->fd < 0)
		return errno == EPERM ? -EACCES : -errno;
	rc = fcntl(u->fd, F_SETFL, O_NONBLOCK) ? -errno : negotiate(u->fd, backend, huge);
	if (!rc)
		return 0;
	close(u->fd);
	u->fd = -1;
	return rc;
}

/*
 * Closing the file would do it, but for a child by fork that still has it open. EINVAL of a range
 * that is not mapped: nothing is registered there.
 */
void ldfs_uffd_unregister(ldfs_arena *a)
{
	uint8_t *views[] = { a->live, a->shadow, a->spare };

	for (unsigned i = 0; i < sizeof(views) / sizeof(*views); i++) {
		struct uffdio_range range = { (uintptr_t)views[i], a->size };

		ioctl(a->uffd.fd, UFFDIO_UNREGISTER, &range);
	}
}

int ldfs_sigbus_possible(void)
{
	struct ldfs_uffd u;
	int rc = ldfs_uffd_make(&u, LDFS_BACKEND_SIGBUS, -1, false);

	if (!rc)
		close(u.fd);
	return rc;
}
