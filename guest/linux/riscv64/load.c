/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * load.c - what a guest does while it is dumped. Each program proves its own work, and says so in a
 * line of the kernel's log every second: `load: NAME N right`. What is wrong is a line with WRONG,
 * and the program ends.
 *
 *   load stores   blocks of memory are written at random, each with its checksum, and read again
 *   load forks    children write memory that they share with their parent, copy on write
 *   load files    files on /disk are written, synced, read back past the cache, and removed
 *   load ticks    a timer of 4 ms: no expiration is lost, none comes early
 *   load tasks    five processes that sleep
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/timerfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MEMORY (24u << 20)
#define BLOCK 4096u
#define WORDS (BLOCK / 8)
#define SHARED (1u << 20)
#define FILE_BLOCKS 64u
#define FILES 8u
#define TICK_NS 4000000u
#define SECOND 1000000000u

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * SECOND + (uint64_t)ts.tv_nsec;
}

static uint64_t next(uint64_t *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed;
}

static void wrong(const char *format, ...)
{
	char text[200];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	printf("load: WRONG: %s\n", text);
	fflush(stdout);
	exit(1);
}

/* A line a second. */
static void say(const char *name, uint64_t right)
{
	static uint64_t said;

	if (now_ns() - said < SECOND)
		return;
	said = now_ns();
	printf("load: %s %llu right\n", name, (unsigned long long)right);
	fflush(stdout);
}

/* A block says which one it is and how often it was written; the last word is the sum. */
static void fill(uint64_t *block, uint64_t number, uint64_t version)
{
	uint64_t seed = number * 0x9e3779b97f4a7c15 + version + 1, sum = 0;

	for (unsigned i = 0; i < WORDS - 1; i++) {
		block[i] = next(&seed);
		sum += block[i];
	}
	block[WORDS - 1] = sum ^ number;
}

static void check(const uint64_t *block, uint64_t number, const char *what)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < WORDS - 1; i++)
		sum += block[i];
	if (block[WORDS - 1] != (sum ^ number))
		wrong("%s: block %llu has another checksum", what, (unsigned long long)number);
}

static void *memory(size_t size)
{
	void *at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (at == MAP_FAILED)
		wrong("no memory: %s", strerror(errno));
	return at;
}

static void stores(void)
{
	uint64_t *at = memory(MEMORY), seed = 88172645463325252u, count = MEMORY / BLOCK;

	for (uint64_t i = 0; i < count; i++)
		fill(at + i * WORDS, i, 0);
	for (uint64_t version = 1;; version++) {
		uint64_t one = next(&seed) % count, other = next(&seed) % count;

		fill(at + one * WORDS, one, version);
		check(at + other * WORDS, other, "stores");
		say("stores", version);
	}
}

static void forks(void)
{
	uint64_t *at = memory(SHARED), count = SHARED / BLOCK;

	for (uint64_t i = 0; i < count; i++)
		fill(at + i * WORDS, i, 0);
	for (uint64_t right = 0;; right++) {
		pid_t child = fork();
		int status;

		if (child < 0)
			wrong("no child: %s", strerror(errno));
		if (child == 0) {
			for (uint64_t i = right % 2; i < count; i += 2)
				fill(at + i * WORDS, i, right);
			for (uint64_t i = 0; i < count; i++)
				check(at + i * WORDS, i, "forks, child");
			_exit(0);
		}
		if (waitpid(child, &status, 0) != child || status)
			wrong("forks: a child ended with %#x", (unsigned)status);
		check(at + right % count * WORDS, right % count, "forks, parent");
		say("forks", right);
	}
}

static void write_file(const char *path, uint64_t *block, uint64_t file, uint64_t version)
{
	int fd = open(path, O_CREAT | O_TRUNC | O_WRONLY, 0600);

	if (fd < 0)
		wrong("files: cannot make %s: %s", path, strerror(errno));
	for (uint64_t i = 0; i < FILE_BLOCKS; i++) {
		fill(block, file << 32 | i, version);
		if (write(fd, block, BLOCK) != BLOCK)
			wrong("files: cannot write %s: %s", path, strerror(errno));
	}
	if (fsync(fd) || close(fd))
		wrong("files: cannot sync %s: %s", path, strerror(errno));
}

static void read_file(const char *path, uint64_t *block, uint64_t file)
{
	int fd = open(path, O_RDONLY | O_DIRECT);

	if (fd < 0)
		wrong("files: cannot open %s: %s", path, strerror(errno));
	for (uint64_t i = 0; i < FILE_BLOCKS; i++) {
		memset(block, 0, BLOCK);
		if (read(fd, block, BLOCK) != BLOCK)
			wrong("files: cannot read %s: %s", path, strerror(errno));
		check(block, file << 32 | i, path);
	}
	close(fd);
}

static void files(void)
{
	uint64_t *block = memory(BLOCK);

	for (uint64_t right = 0;; right++) {
		uint64_t file = right % FILES;
		char path[40];

		snprintf(path, sizeof(path), "/disk/load-%u", (unsigned)file);
		write_file(path, block, file, right);
		read_file(path, block, file);
		if (right % 3 == 0 && unlink(path))
			wrong("files: cannot remove %s: %s", path, strerror(errno));
		say("files", right);
	}
}

static void ticks(void)
{
	struct itimerspec period = { { 0, TICK_NS }, { 0, TICK_NS } };
	int timer = timerfd_create(CLOCK_MONOTONIC, 0);
	uint64_t begin = now_ns(), count = 0, late = 0, missing = UINT64_MAX;

	if (timer < 0 || timerfd_settime(timer, 0, &period, NULL))
		wrong("ticks: no timer: %s", strerror(errno));
	for (;;) {
		uint64_t some, before, after;

		if (read(timer, &some, sizeof(some)) != sizeof(some))
			wrong("ticks: %s", strerror(errno));
		count += some;
		after = now_ns();
		before = (after - begin) / TICK_NS;
		/*
		 * `begin` was a while before the timer was set: so many are missing from the start,
		 * the least that ever were. What has expired since it was read comes with the next
		 * read. So one is lost if more are missing still after the timer was read many
		 * times without a wait.
		 */
		if (before < count)
			wrong("ticks: %llu of %llu", (unsigned long long)count,
			      (unsigned long long)before);
		if (before - count < missing)
			missing = before - count;
		late = before - count > missing ? late + (some == 1) : 0;
		if (late > 250)
			wrong("ticks: %llu of %llu, of which %llu were before",
			      (unsigned long long)count, (unsigned long long)before,
			      (unsigned long long)missing);
		say("ticks", count);
	}
}

static void tasks(void)
{
	for (int i = 0; i < 5; i++) {
		char name[16];

		if (fork())
			continue;
		snprintf(name, sizeof(name), "sleeper-%d", i);
		prctl(PR_SET_NAME, name);
		for (;;)
			pause();
	}
}

int main(int count, char **arguments)
{
	static const struct {
		const char *name;
		void (*run)(void);
	} programs[] = { { "stores", stores },
			 { "forks", forks },
			 { "files", files },
			 { "ticks", ticks },
			 { "tasks", tasks } };

	for (unsigned i = 0; count == 2 && i < sizeof(programs) / sizeof(programs[0]); i++)
		if (!strcmp(arguments[1], programs[i].name)) {
			prctl(PR_SET_NAME, programs[i].name);
			programs[i].run();
			return 0;
		}
	fprintf(stderr, "usage: load stores | forks | files | ticks | tasks\n");
	return 2;
}
