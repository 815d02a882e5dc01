// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * workload.c - what the Linux guest of the tests does. Each line on its console begins with
 * "guest:".
 *
 *   workload churn MIB      write memory for ever, and check what was written before
 *   workload direct DEVICE  read the device that `image` printed, with O_DIRECT, at random places,
 *                           and check the bytes
 *   workload beat           print four times a second that it runs
 *   workload pulse DEVICE   write a byte to DEVICE every millisecond: the host sees from them how
 *                           long the guest stood still, which the guest's own clock does not show
 *   workload fill MIB       every second allocate and free so much memory, so that free memory has
 *                           data in it
 *   workload leak KIB       take so much more memory every 100 ms, and give none back
 *   workload tasks          print every two seconds which tasks there are, as PID:NAME
 *   workload image BLOCKS   print the contents of a device: blocks of 4 KiB, each filled with its
 *                           own number (8 bytes each)
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define BLOCK 4096u
#define SAY_NS 250000000u /* so often those that run for ever say how far they are */
#define READ_BLOCKS 32u

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t next(uint64_t *x)
{
	*x ^= *x << 13;
	*x ^= *x >> 7;
	*x ^= *x << 17;
	return *x;
}

/* In round r word i is r * i, so a page from another round is noticed. */
static int churn(uint64_t words)
{
	uint64_t *memory = mmap(NULL, words * 8, PROT_READ | PROT_WRITE,
				MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (memory == MAP_FAILED)
		return 1;
	for (uint64_t round = 1;; round++) {
		for (uint64_t i = 0; i < words; i += 64) {
			if (memory[i] != (round - 1) * i) {
				printf("guest: MEMORY WRONG at word %lu of round %lu\n", i, round);
				fflush(stdout);
				return 1;
			}
			memory[i] = round * i;
			if (i % (1u << 18) == 0)
				usleep(2000);
		}
	}
}

static void report(uint64_t reads, uint64_t errors)
{
	printf("guest: direct reads %lu errors %lu\n", reads, errors);
	fflush(stdout);
}

static int direct(const char *path)
{
	int fd = open(path, O_RDONLY | O_DIRECT);
	uint64_t blocks = (uint64_t)lseek(fd, 0, SEEK_END) / BLOCK, seed = 88172645463325252u;
	uint64_t reads = 0, errors = 0, said = now_ns();

	if (fd < 0)
		return 1;
	for (;;) {
		/*
		 * Fresh memory each time: it was just given back to the kernel, and may be
		 * protected again.
		 */
		uint64_t *to = mmap(NULL, READ_BLOCKS * BLOCK, PROT_READ | PROT_WRITE,
				    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		uint64_t first = next(&seed) % (blocks - READ_BLOCKS);
		ssize_t n = pread(fd, to, READ_BLOCKS * BLOCK, (off_t)(first * BLOCK));

		reads++;
		if (n != READ_BLOCKS * BLOCK)
			errors++;
		for (uint64_t i = 0; n > 0 && i < READ_BLOCKS * BLOCK / 8; i += 512)
			errors += to[i] != first + i * 8 / BLOCK;
		munmap(to, READ_BLOCKS * BLOCK);
		if (now_ns() - said > SAY_NS) {
			report(reads, errors);
			said = now_ns();
		}
		usleep(2000);
	}
}

static void beat(void)
{
	for (uint64_t count = 1;; count++) {
		printf("guest: beat %lu\n", count);
		fflush(stdout);
		usleep(SAY_NS / 1000);
	}
}

static int pulse(const char *path)
{
	struct sched_param first = { .sched_priority = 1 };
	int fd = open(path, O_WRONLY | O_NOCTTY);

	if (fd < 0 || sched_setscheduler(0, SCHED_FIFO, &first))
		return 1;
	while (write(fd, ".", 1) == 1)
		usleep(1000);
	return 1;
}

static int fill(uint64_t bytes)
{
	for (;;) {
		char *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
				    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

		if (memory == MAP_FAILED)
			return 1;
		for (uint64_t i = 0; i < bytes; i += BLOCK)
			memory[i] = 'f';
		munmap(memory, bytes);
		sleep(1);
	}
}

/*
 * The task's name as in task_struct. For a kernel worker /proc adds the work queue, which is cut
 * off.
 */
static void name_of(const char *pid, char name[32])
{
	char path[300];
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%s/comm", pid);
	f = fopen(path, "re");
	if (!f || !fgets(name, 32, f))
		name[0] = 0;
	if (f)
		fclose(f);
	name[strncmp(name, "kworker/", 8) ? strcspn(name, "\n") : strcspn(name, "-+\n")] = 0;
}

/* Each line is one write: the console prints up to 2 KiB without a break. */
static void tasks(void)
{
	static char names[8192], name[32];

	for (;;) {
		DIR *dir = opendir("/proc");
		size_t used = 0, count = 0;
		struct dirent *entry;

		while (dir && (entry = readdir(dir)) && used < sizeof(names) - 64) {
			if (!isdigit((unsigned char)entry->d_name[0]))
				continue;
			name_of(entry->d_name, name);
			if (!name[0])
				continue;
			used += (size_t)sprintf(names + used, " %.10s:%s", entry->d_name, name);
			count++;
		}
		if (dir)
			closedir(dir);
		printf("guest: tasks %zu%s\n", count, names);
		fflush(stdout);
		sleep(2);
	}
}

static int image(uint64_t blocks)
{
	uint64_t block[BLOCK / 8];

	for (uint64_t n = 0; n < blocks; n++) {
		for (size_t i = 0; i < BLOCK / 8; i++)
			block[i] = n;
		if (fwrite(block, BLOCK, 1, stdout) != 1)
			return 1;
	}
	return fflush(stdout) != 0;
}

/* Writes each page of it, until there is no more. */
static int leak(uint64_t bytes)
{
	const struct timespec pause = { .tv_nsec = 100000000 };

	for (;;) {
		char *memory = malloc(bytes);

		if (!memory)
			return 1;
		for (uint64_t i = 0; i < bytes; i += BLOCK)
			memory[i] = 'l';
		nanosleep(&pause, NULL);
	}
}

int main(int argc, char **argv)
{
	/* The default buffer size of a pipe or terminal would split a line. */
	setvbuf(stdout, NULL, _IOFBF, 1 << 16);
	if (argc == 3 && !strcmp(argv[1], "churn"))
		return churn(strtoull(argv[2], NULL, 0) << 17);
	if (argc == 3 && !strcmp(argv[1], "direct"))
		return direct(argv[2]);
	if (argc == 2 && !strcmp(argv[1], "beat"))
		beat();
	if (argc == 3 && !strcmp(argv[1], "pulse"))
		return pulse(argv[2]);
	if (argc == 3 && !strcmp(argv[1], "fill"))
		return fill(strtoull(argv[2], NULL, 0) << 20);
	if (argc == 3 && !strcmp(argv[1], "leak"))
		return leak(strtoull(argv[2], NULL, 0) << 10);
	if (argc == 2 && !strcmp(argv[1], "tasks"))
		tasks();
	if (argc == 3 && !strcmp(argv[1], "image"))
		return image(strtoull(argv[2], NULL, 0));
	return 2;
}
