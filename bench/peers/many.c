/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * many.c - every measurement of many writers in one call, on a computer that has nothing but this
 * program. Each cell is a process of its own (this program again). The cells run round after round
 * until the time is spent; what got no time is listed.
 *
 *     peers many budget=SECONDS size=BYTES target=FILE threads=MOST verify=0 rounds=0 before=300
 *         after=600
 *
 * rounds=0: as many as there is time for. before and after are those of main.c.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <unistd.h>

#include "peer.h"

#define CELLS_MOST 512
#define WORDS_MOST 24
#define WORDS_LENGTH 320
#define POOL (64ull << 20)
#define SMALL (64ull << 10) /* the usual granule */
#define INIT_DUMPS "3"

static const struct {
	const char *name;
	unsigned number;
} backends[] = { CORE_BACKENDS };

struct cell {
	char about[160];          /* members of JSON: what it is */
	char words[WORDS_LENGTH]; /* arguments of this program */
	unsigned threads;
};

static struct cell cells[CELLS_MOST];
static unsigned cell_count;
static const unsigned threads_of[] = { 8, 2, 4, 14, 1 };
static const char *const patterns[] = { "hot", "uniform", "in order" };
static const char *comma = "";

static struct {
	uint64_t budget, size, threads, verify, rounds, before, after;
	const char *target;
} opt = { .budget = 60, .size = 256u << 20, .before = 300, .after = 600 };

static unsigned processors(void)
{
	cpu_set_t set;

	return sched_getaffinity(0, sizeof(set), &set) ? 1 : (unsigned)CPU_COUNT(&set);
}

/* Add a cell; `words` are for all ways, `own` for this one. */
static void add(const char *kind, const char *label, const char *pattern, unsigned threads,
		const char *words, const char *own)
{
	struct cell *c = &cells[cell_count];

	if (cell_count == CELLS_MOST)
		abort();
	cell_count++;
	c->threads = threads;
	snprintf(c->about, sizeof(c->about),
		 "\"kind\":\"%s\",\"way\":\"%s\",\"pattern\":\"%s\",\"threads\":%u", kind, label,
		 pattern, threads);
	if (snprintf(c->words, sizeof(c->words), "%s %s %s", kind, own, words) >= WORDS_LENGTH)
		abort();
}

static void add_ours(const char *kind, const char *pattern, unsigned threads, const char *words,
		     unsigned backend, const char *pool, const char *more)
{
	char label[64], own[96];

	snprintf(label, sizeof(label), "ours, %s, %s", backends[backend].name, pool);
	snprintf(own, sizeof(own), "ours backend=%u %s", backends[backend].number, more);
	add(kind, label, pattern, threads, words, own);
}

/* The ways to dump while that many writers store in that pattern. */
static void add_writers(unsigned threads, unsigned pattern)
{
	char words[WORDS_LENGTH / 2], all[48];
	const char *name = patterns[pattern];

	snprintf(words, sizeof(words),
		 "size=%lu target=%s writers=%u pattern=%u before=%lu after=%lu verify=%lu",
		 opt.size, opt.target, threads, pattern, opt.before, opt.after, opt.verify);
	snprintf(all, sizeof(all), "pool=%lu", opt.size + (1 << 20));
	add("run", "fork", name, threads, words, "fork");
	for (unsigned i = 0; i < sizeof(backends) / sizeof(backends[0]); i++) {
#ifdef POOL_AUTO
		add_ours("run", name, threads, words, i, "pool auto", "auto=1");
#endif
		if (!i)
			add_ours("run", name, threads, words, i, "pool 64 MiB", "");
		add_ours("run", name, threads, words, i, "pool = RAM", all);
	}
	add("run", "uffd-sigbus", name, threads, words, "uffd-sigbus");
	add("run", "uffd", name, threads, words, "uffd");
}

static void add_first(unsigned threads)
{
	static const char *const bare[] = { "open-mprotect", "open-uffd" };
	static const char *const sizes[] = { "64 KiB", "4 KiB" };
	uint64_t size = opt.size < 512u << 20 ? opt.size : 512u << 20;
	char words[96];

	for (unsigned small = 0; small < 2; small++) {
		snprintf(words, sizeof(words), "size=%lu granule=%llu writers=%u dumps=3", size,
			 small ? PAGE : SMALL, threads);
		for (unsigned i = 0; i < 2; i++) {
			add("first", bare[i], sizes[small], threads, words, bare[i]);
			if (!small)
				add("first", i ? "open-uffd, copy" : "open-mprotect, copy",
				    sizes[small], threads, words,
				    i ? "open-uffd copy=1" : "open-mprotect copy=1");
		}
		for (unsigned i = 0; !small && i < sizeof(backends) / sizeof(backends[0]); i++)
			add_ours("first", sizes[small], threads, words, i, "pool = RAM", "");
		if (small)
			add("first", "fork", sizes[small], threads, words, "fork");
	}
}

static void add_cells(void)
{
	char words[WORDS_LENGTH / 2];

	snprintf(words, sizeof(words), "size=%lu target=%s dumps=" INIT_DUMPS " pool=%llu",
		 opt.size, opt.target, opt.size / 32 > POOL ? opt.size / 32 : POOL);
	for (unsigned i = 0; i < sizeof(backends) / sizeof(backends[0]); i++)
		add_ours("init", "1 % changed", 1, words, i, "pool 64 MiB", "");
	for (unsigned i = 0; i < sizeof(threads_of) / sizeof(threads_of[0]); i++) {
		if (threads_of[i] > opt.threads)
			continue;
		add_first(threads_of[i]);
		for (unsigned pattern = 0; pattern < 3; pattern++)
			add_writers(threads_of[i], pattern);
	}
}

/* In the child: become the cell. Its alarm ends it when the time is over. */
static void become(const struct cell *c, int out, unsigned seconds)
{
	static char words[WORDS_LENGTH];
	char *argv[WORDS_MOST + 2] = { "peers" }, *rest;
	unsigned n = 1;

	memcpy(words, c->words, sizeof(words));
	for (char *w = strtok_r(words, " ", &rest); w && n <= WORDS_MOST;
	     w = strtok_r(NULL, " ", &rest))
		argv[n++] = w;
	alarm(seconds);
	dup2(out, STDOUT_FILENO);
	execv("/proc/self/exe", argv);
	_exit(127);
}

/* Copy what the cell printed. */
static void pass_on(int from)
{
	char piece[65536];
	ssize_t n;

	lseek(from, 0, SEEK_SET);
	while ((n = read(from, piece, sizeof(piece))) > 0)
		fwrite(piece, 1, (size_t)n, stdout);
}

/* Run one cell; prints what it found, or how it ended. */
static int run_cell(const struct cell *c, unsigned round, unsigned seconds)
{
	int out = memfd_create("cell", MFD_CLOEXEC), status = 0;
	uint64_t began = now_ns();
	pid_t child;

	if (out < 0)
		return -errno;
	fflush(NULL);
	child = fork();
	if (!child)
		become(c, out, seconds);
	if (child < 0 || waitpid(child, &status, 0) != child)
		return close(out), -ECHILD;
	printf("%s\n{%s,\"round\":%u,\"took_ns\":%lu,", comma, c->about, round, now_ns() - began);
	comma = ",";
	if (WIFEXITED(status) && !WEXITSTATUS(status)) {
		fputs("\"found\":", stdout);
		pass_on(out);
	} else {
		printf("\"failed\":\"%s %d\"", WIFSIGNALED(status) ? "signal" : "exit status",
		       WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
	}
	putchar('}');
	close(out);
	return 0;
}

/* Run the cells until the end; marks each that ran. Returns 0 or -errno. */
static int run_cells(bool *ran, uint64_t end)
{
	uint64_t longest = 0;

	for (unsigned round = 0; !opt.rounds || round < opt.rounds; round++) {
		bool none = true;

		for (unsigned i = 0; i < cell_count; i++) {
			uint64_t began = now_ns();
			int rc;

			if (began + longest + longest / 4 >= end)
				continue;
			fprintf(stderr, "\r%u of %u, round %u, %lu s left ", i + 1, cell_count,
				round + 1, (end - began) / 1000000000);
			rc = run_cell(&cells[i], round, (unsigned)((end - began) / 1000000000) + 1);
			if (rc)
				return rc;
			ran[i] = true;
			none = false;
			if (now_ns() - began > longest)
				longest = now_ns() - began;
		}
		if (none)
			break;
	}
	return 0;
}

static bool take(const char *key, const char *value)
{
	const struct {
		const char *key;
		uint64_t *at;
	} wide[] = { { "budget", &opt.budget },   { "size", &opt.size },
		     { "threads", &opt.threads }, { "verify", &opt.verify },
		     { "rounds", &opt.rounds },   { "before", &opt.before },
		     { "after", &opt.after } };

	if (!strcmp(key, "target"))
		return opt.target = value, strlen(value) < 100 && !strchr(value, ' ');
	for (unsigned i = 0; i < sizeof(wide) / sizeof(wide[0]); i++)
		if (!strcmp(key, wide[i].key))
			return *wide[i].at = strtoull(value, NULL, 0), true;
	return false;
}

int many(int argc, char **argv)
{
	static bool ran[CELLS_MOST];
	uint64_t began = now_ns();
	struct utsname u;
	int rc;

	for (int i = 0; i < argc; i++) {
		char *equals = strchr(argv[i], '=');

		if (!equals || (*equals = 0, !take(argv[i], equals + 1))) {
			fputs("see many.c for what it takes\n", stderr);
			return 2;
		}
	}
	if (!opt.target || !opt.size || opt.size % SMALL || !opt.budget || uname(&u)) {
		fputs("many needs a target, a time and a size of whole granules\n", stderr);
		return 2;
	}
	if (!opt.threads)
		opt.threads = processors() < 14 ? 8 : 14;
	add_cells();
	printf("{\"processors\":%u,\"kernel\":\"%s\",\"size\":%lu,\"budget_s\":%lu,\"verify\":%lu,"
	       "\"cells\":%u,\"runs\":[",
	       processors(), u.release, opt.size, opt.budget, opt.verify, cell_count);
	rc = run_cells(ran, began + opt.budget * 1000000000);
	fputs("],\"without_time\":[", stdout);
	comma = "";
	for (unsigned i = 0; i < cell_count; i++)
		if (!ran[i]) {
			printf("%s\n{%s}", comma, cells[i].about);
			comma = ",";
		}
	printf("],\"used_s\":%.1f}\n", (double)(now_ns() - began) / 1e9);
	fputs("\n", stderr);
	unlink(opt.target);
	return rc ? 1 : 0;
}
