/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * hooks.h - included in front of each file of native/ by the compiler (-include) when the core is
 * built for interleave.c: every atomic operation, and every call by which threads or the kernel
 * meet, first asks the scheduler which actor is next. The core's own sources and objects have
 * nothing of it.
 */
#ifndef INTERLEAVE_HOOKS_H
#define INTERLEAVE_HOOKS_H

/* All that native/ includes: below this line its names may become macros. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <ucontext.h>
#include <unistd.h>

#include "base/atomic.h"
#include "base/copy.h"
#include "base/relax.h"

/* The running actor is about to touch shared memory at `at`. */
void hook_step(const volatile void *at, const char *what, const char *function, int line);
/* What it read: what it does next depends on nothing else. */
void hook_read(uint64_t value);
/* It has written. */
void hook_wrote(void);
void hook_compared(const volatile void *at, uint64_t before, uint64_t after, bool good);

int hook_mprotect(void *start, size_t length, int prot);
int hook_ioctl(int fd, unsigned long request, void *argument);
long hook_syscall(long number, ...);
ssize_t hook_pwrite(int fd, const void *bytes, size_t length, off_t at);
ssize_t hook_pwritev(int fd, const struct iovec *iov, int count, off_t at);
int hook_fallocate(int fd, int mode, off_t at, off_t length);
int hook_fdatasync(int fd);
off_t hook_lseek(int fd, off_t at, int whence);
void *hook_memcpy(void *to, const void *from, size_t length);
int hook_clock_gettime(clockid_t clock, struct timespec *now);
int hook_usleep(useconds_t us);
int hook_spin(void);
int hook_pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*main)(void *),
			void *arg);
int hook_pthread_join(pthread_t thread, void **result);
int hook_pthread_setname(pthread_t thread, const char *name);
int hook_mutex_lock(pthread_mutex_t *m);
int hook_mutex_trylock(pthread_mutex_t *m);
int hook_mutex_unlock(pthread_mutex_t *m);
int hook_sigaction(int signo, const struct sigaction *act, struct sigaction *before);
void hook_free(void *p);
void *hook_mmap(void *at, size_t length, int prot, int flags, int fd, off_t offset);
int hook_munmap(void *at, size_t length);
int hook_madvise(void *at, size_t length, int advice);

#define HOOK(p, what) hook_step((p), what, __func__, __LINE__)
#define HOOK_VALUE(p, what, operation)                \
	({                                            \
		HOOK(p, what);                        \
		__auto_type hook_value = (operation); \
		hook_read((uint64_t)hook_value);      \
		hook_value;                           \
	})
#define HOOK_CHANGE(p, what, operation)                                    \
	({                                                                 \
		__auto_type hook_changed = HOOK_VALUE(p, what, operation); \
		hook_wrote();                                              \
		hook_changed;                                              \
	})
#define HOOK_STORE(p, what, operation) \
	do {                           \
		HOOK(p, what);         \
		operation;             \
		hook_wrote();          \
	} while (0)

#undef load_relaxed
#undef load_acquire
#undef load_seq
#undef store_relaxed
#undef store_release
#undef store_seq
#undef add_seq
#undef sub_seq
#undef exchange_seq
#undef cas_seq
/* add_relaxed stays: counters, which decide nothing. */
#define load_relaxed(p) HOOK_VALUE(p, "load " #p, atomic_load(p))
#define load_acquire(p) HOOK_VALUE(p, "load " #p, atomic_load(p))
#define load_seq(p) HOOK_VALUE(p, "load " #p, atomic_load(p))
#define store_relaxed(p, v) HOOK_STORE(p, "store " #p, atomic_store((p), (v)))
#define store_release(p, v) HOOK_STORE(p, "store " #p, atomic_store((p), (v)))
#define store_seq(p, v) HOOK_STORE(p, "store " #p, atomic_store((p), (v)))
#define add_seq(p, v) HOOK_CHANGE(p, "add " #p, atomic_fetch_add((p), (v)))
#define sub_seq(p, v) HOOK_CHANGE(p, "sub " #p, atomic_fetch_sub((p), (v)))
#define exchange_seq(p, v) HOOK_CHANGE(p, "exchange " #p, atomic_exchange((p), (v)))
#define cas_seq(p, old, new)                                                        \
	({                                                                          \
		HOOK(p, "cas " #p);                                                 \
		bool hook_good = atomic_compare_exchange_strong((p), (old), (new)); \
		hook_compared((p), (uint64_t)*(old), (uint64_t)(new), hook_good);   \
		hook_good;                                                          \
	})
#undef look_seq
#define look_seq(p) HOOK_VALUE(p, "look " #p, atomic_load(p))

/* So few granules are to be in different groups of waiters all the same. */
#define GROUP_GRANULES 1
/* And to be several pieces of the sweep, and several shares of filled slots. */
extern unsigned hook_run_bytes;
#define LDFS_RUN_BYTES hook_run_bytes
#define LDFS_SHARE_LEAST 1

#undef memcpy
#define memcpy(to, from, length) hook_memcpy((to), (from), (length))
#define copy_past_cache(to, from, length) ((void)hook_memcpy((to), (from), (length)))
#define ioctl(fd, request, argument) hook_ioctl((fd), (request), (void *)(uintptr_t)(argument))
#define mprotect(start, length, prot) hook_mprotect((start), (length), (prot))
#define syscall(...) hook_syscall(__VA_ARGS__, 0L, 0L, 0L, 0L, 0L, 0L) /* six are looked at */
#define pwrite(fd, bytes, length, at) hook_pwrite((fd), (bytes), (length), (at))
#define pwritev(fd, iov, count, at) hook_pwritev((fd), (iov), (count), (at))
#define fallocate(fd, mode, at, length) hook_fallocate((fd), (mode), (at), (length))
#define fdatasync(fd) hook_fdatasync(fd)
#define lseek(fd, at, whence) hook_lseek((fd), (at), (whence))
#define clock_gettime(clock, now) hook_clock_gettime((clock), (now))
#define usleep(us) hook_usleep(us)
#define sched_yield() hook_spin()
#define relax() ((void)hook_spin())
#define sysconf(name) ((void)(name), (long)LDFS_PAGE_SIZE) /* its granules are pages */
#define pthread_create(t, attr, main, arg) hook_pthread_create((t), (attr), (main), (arg))
#define pthread_join(t, result) hook_pthread_join((t), (result))
#define pthread_setname_np(t, name) hook_pthread_setname((t), (name))
#define pthread_sigmask(how, set, before) ((void)(set), (void)(before), 0)
#define pthread_mutex_lock(m) hook_mutex_lock(m)
#define pthread_mutex_trylock(m) hook_mutex_trylock(m)
#define pthread_mutex_unlock(m) hook_mutex_unlock(m)
#define sigaction(signo, act, before) hook_sigaction((signo), (act), (before))
#define fopen(path, mode) \
	((FILE *)NULL) /* /proc: how many mappings there are, which threads block SIGSEGV */
#define free(p) hook_free(p)
#define sched_getaffinity(thread, size, set) ((void)(set), -1) /* one keeper */
#define mmap(at, length, prot, flags, fd, offset) \
	hook_mmap((at), (length), (prot), (flags), (fd), (offset))
#define munmap(at, length) hook_munmap((at), (length))
#define madvise(at, length, advice) hook_madvise((at), (length), (advice))

#endif
