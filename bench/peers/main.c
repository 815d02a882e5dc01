/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * main.c - makes dumps in one way, one after the other, while the writers write; prints JSON.
 *
 *     peers run WAY key=value...      the times of each dump, the writers' stores in every 5 ms,
 *                                     and how long each store took
 *     peers touch WAY key=value...    the cost of the first store to a page (touch.c)
 *     peers first WAY key=value...    the same for many threads together, a granule (first.c)
 *     peers init WAY key=value...     INIT, and INIT again after a dump (first.c)
 *     peers many key=value...         all of that for 1 to 14 writers, within a time (many.c)
 *     peers granules WAY key=value... a granule that several threads open (granules.c)
 *     peers huge WAY key=value...     dumps of memory of huge pages (huge.c)
 *     peers floor                     the costs that no way can avoid (floor.c)
 *
 * Keys: size, writers, pattern (0 hot, 1 uniform, 2 sequential), rate, dumps, target, granule,
 * pool, auto, copy, policy, backend, arming, pages, before, after (ms), verify, broken. peer.h
 * explains them.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

#include "peer.h"

#define TICK_NS 5000000ull
#define TICKS_MOST 200000

static const struct peer *const peers[] = { &ours,        &forked,      &stopped,   &mprotected,
					    &uffd_thread, &uffd_sigbus, &open_segv, &open_sigbus };

static struct {
	uint64_t ns, stores;
} ticks[TICKS_MOST];
static _Atomic unsigned tick_count, ticking;

uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (uint64_t)t.tv_sec * 1000000000ull + (uint64_t)t.tv_nsec;
}

static double ns_per_cycle(void)
{
	uint64_t ns = now_ns(), cycles = __rdtsc();

	usleep(50000);
	return (double)(now_ns() - ns) / (double)(__rdtsc() - cycles);
}

int map_shared(struct bench *b)
{
	b->memfd = memfd_create("bench", MFD_CLOEXEC);
	if (b->memfd < 0 || ftruncate(b->memfd, (off_t)b->opt.size))
		return -errno;
	b->memory = mmap(NULL, b->opt.size, PROT_READ | PROT_WRITE, MAP_SHARED, b->memfd, 0);
	return b->memory == MAP_FAILED ? -errno : 0;
}

void keep_reference(struct bench *b)
{
	if (b->reference)
		memcpy(b->reference, b->memory, b->opt.size);
}

int stop_and(struct bench *b, int (*arm)(struct bench *b))
{
	uint64_t asked = now_ns(), stood, done;
	int rc;

	writers_stop();
	stood = now_ns();
	keep_reference(b);
	b->times.quiesce = stood - asked;
	stood = now_ns();
	rc = arm(b);
	done = now_ns();
	writers_go();
	b->times.arm = done - stood;
	b->times.resume = now_ns() - done;
	b->instant_ns = done;
	return rc;
}

int write_pages(int fd, const uint8_t *from, uint64_t first, uint64_t count)
{
	uint64_t at = first * PAGE, end = at + count * PAGE;

	while (at < end) {
		uint64_t length = end - at < RUN_PAGES * PAGE ? end - at : RUN_PAGES * PAGE;
		ssize_t n = pwrite(fd, from + at, length, (off_t)at);

		if (n <= 0)
			return n ? -errno : -EIO;
		at += (uint64_t)n;
	}
	return 0;
}

static void *ticker(void *arg)
{
	uint64_t next = now_ns();

	(void)arg;
	while (atomic_load(&ticking)) {
		unsigned i = atomic_load(&tick_count);
		struct timespec t;

		if (i < TICKS_MOST) {
			ticks[i].ns = now_ns();
			ticks[i].stores = writers_stores();
			atomic_store(&tick_count, i + 1);
		}
		next += TICK_NS;
		t = (struct timespec){ (time_t)(next / 1000000000), (long)(next % 1000000000) };
		clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
	}
	return NULL;
}

static void fill(struct bench *b)
{
	/*
	 * Every page exists, and no two pages are alike, so that nothing can be saved by merging
	 * pages.
	 */
	for (uint64_t i = 0; i < b->opt.size; i += 8)
		*(uint64_t *)(b->memory + i) = (i + 1) * 0x9e3779b97f4a7c15ull;
}

static uint64_t differences(const struct bench *b)
{
	static uint8_t page[PAGE];
	uint64_t bad = 0;

	for (uint64_t i = 0; i < b->pages; i++)
		if (pread(b->target, page, PAGE, (off_t)(i * PAGE)) != (ssize_t)PAGE ||
		    memcmp(page, b->reference + i * PAGE, PAGE))
			bad++;
	return bad;
}

/* Change a byte of the first page on the target, to test the comparison. */
static int spoil(const struct bench *b)
{
	uint8_t byte;

	if (pread(b->target, &byte, 1, 0) != 1)
		return -EIO;
	byte ^= 1;
	return pwrite(b->target, &byte, 1, 0) == 1 ? 0 : -EIO;
}

struct moments {
	uint64_t begun, swept, done; /* start() called; all on the target; finish() returned */
};

/* Make one dump. Without a target it ends right after start(). */
static int dump_once(struct bench *b, struct moments *m)
{
	uint64_t before = now_ns(), ending;
	int rc = b->peer->prepare(b);

	b->times.prepare = now_ns() - before;
	if (rc)
		return rc;
	writers_era(DURING);
	m->begun = now_ns();
	rc = b->peer->start(b);
	if (!rc && b->target >= 0)
		rc = b->peer->sweep(b);
	if (!rc && b->target >= 0 && fdatasync(b->target))
		rc = -errno;
	if (!rc && b->opt.broken)
		rc = spoil(b);
	m->swept = now_ns();
	b->times.dump = m->swept - m->begun;
	ending = now_ns();
	if (b->peer->finish(b) && !rc)
		rc = -EIO;
	m->done = now_ns();
	b->times.finish = m->done - ending;
	writers_era(AFTER);
	return rc;
}

static void print_ticks(void)
{
	fputs(",\"ticks\":[", stdout);
	for (unsigned i = 0; i < atomic_load(&tick_count); i++)
		printf("%s[%lu,%lu]", i ? "," : "", ticks[i].ns, ticks[i].stores);
	fputs("]", stdout);
}

static void print_dump(const struct bench *b, const struct moments *m)
{
	const struct times *t = &b->times;

	printf("{\"prepare_ns\":%lu,\"quiesce_ns\":%lu,\"arm_ns\":%lu,\"resume_ns\":%lu,\"dump_"
	       "ns\":%lu,\"finish_ns\":%lu,",
	       t->prepare, t->quiesce, t->arm, t->resume, t->dump, t->finish);
	printf("\"begun\":%lu,\"instant\":%lu,\"swept\":%lu,\"done\":%lu,\"save_max_ns\":%lu,"
	       "\"slot_waits\":%lu",
	       m->begun, b->instant_ns, m->swept, m->done, b->save_max_ns, b->slot_waits);
	if (b->reference)
		printf(",\"compared\":%lu,\"different\":%lu", b->pages, differences(b));
	putchar('}');
}

static int run_dumps(struct bench *b)
{
	for (unsigned i = 0; i < b->opt.dumps; i++) {
		struct moments m;
		int rc;

		writers_era(BEFORE);
		usleep(b->opt.before_ms * 1000);
		rc = dump_once(b, &m);
		if (rc)
			return rc;
		usleep(b->opt.after_ms * 1000);
		if (i)
			putchar(',');
		print_dump(b, &m);
	}
	return 0;
}

static void print_stores(double cycle_ns)
{
	static const char *const names[ERAS] = { "before", "during", "after" };

	for (unsigned i = 0; i < ERAS; i++) {
		struct histogram h;

		writers_histogram(i, &h);
		printf(",\"%s\":", names[i]);
		histogram_print(stdout, &h, cycle_ns);
	}
}

static int run(struct bench *b)
{
	double cycle_ns = ns_per_cycle();
	pthread_t thread;
	int rc;

	if (b->opt.verify) {
		b->reference = mmap(NULL, b->opt.size, PROT_READ | PROT_WRITE,
				    MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
		if (b->reference == MAP_FAILED)
			return -errno;
	}
	atomic_store(&ticking, 1);
	rc = writers_begin(b);
	if (rc || pthread_create(&thread, NULL, ticker, NULL))
		return rc ? rc : -EAGAIN;
	printf("{\"way\":\"%s\",\"size\":%lu,\"dumps\":[", b->peer->name, b->opt.size);
	rc = run_dumps(b);
	atomic_store(&ticking, 0);
	pthread_join(thread, NULL);
	putchar(']');
	print_ticks();
	print_stores(cycle_ns);
	puts("}");
	writers_end();
	return rc;
}

/* False: there is no such key. */
static bool set_option(struct options *o, const char *key, const char *value)
{
	const struct {
		const char *key;
		uint64_t *at;
	} wide[] = {
		{ "size", &o->size },
		{ "rate", &o->rate },
		{ "granule", &o->granule },
		{ "pool", &o->pool },
	};
	const struct {
		const char *key;
		uint32_t *at;
	} narrow[] = {
		{ "writers", &o->writers }, { "dumps", &o->dumps },
		{ "policy", &o->policy },   { "backend", &o->backend },
		{ "arming", &o->arming },   { "before", &o->before_ms },
		{ "after", &o->after_ms },  { "pattern", (uint32_t *)&o->pattern },
		{ "auto", &o->pool_auto },  { "copy", &o->copy },
		{ "pages", &o->pages },
	};

	for (unsigned i = 0; i < sizeof(wide) / sizeof(wide[0]); i++)
		if (!strcmp(key, wide[i].key))
			return *wide[i].at = strtoull(value, NULL, 0), true;
	for (unsigned i = 0; i < sizeof(narrow) / sizeof(narrow[0]); i++)
		if (!strcmp(key, narrow[i].key))
			return *narrow[i].at = (uint32_t)strtoul(value, NULL, 0), true;
	if (!strcmp(key, "target"))
		return o->target = value, true;
	if (!strcmp(key, "verify"))
		return o->verify = atoi(value), true;
	if (!strcmp(key, "broken"))
		return o->broken = atoi(value), true;
	return false;
}

static bool parse(struct options *o, int argc, char **argv)
{
	for (int i = 0; i < argc; i++) {
		char *equals = strchr(argv[i], '=');

		if (!equals)
			return false;
		*equals = 0;
		if (!set_option(o, argv[i], equals + 1))
			return false;
	}
	return o->size && o->size % PAGE == 0 && o->writers <= WRITERS_MOST && o->dumps;
}

static const struct peer *find(const char *name)
{
	for (unsigned i = 0; i < sizeof(peers) / sizeof(peers[0]); i++)
		if (!strcmp(peers[i]->name, name))
			return peers[i];
	return NULL;
}

static int (*command(const char *name))(struct bench *b)
{
	const struct {
		const char *name;
		int (*call)(struct bench *b);
	} all[] = { { "run", run },   { "touch", touch },       { "first", first },
		    { "init", init }, { "granules", granules }, { "huge", huge } };

	for (unsigned i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		if (!strcmp(all[i].name, name))
			return all[i].call;
	return NULL;
}

static int open_target(struct bench *b)
{
	b->target = -1;
	if (!b->opt.target)
		return 0;
	b->target = open(b->opt.target, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	return b->target < 0 ? -errno : 0;
}

int main(int argc, char **argv)
{
	static struct bench b = { .memfd = -1,
				  .opt = { .size = 256u << 20,
					   .writers = 1,
					   .dumps = 1,
					   .before_ms = 100,
					   .after_ms = 100 } };
	int (*call)(struct bench *b) = argc < 3 ? NULL : command(argv[1]);
	int rc;

	if (argc == 2 && !strcmp(argv[1], "floor"))
		return print_floor() ? 1 : 0;
	if (argc > 2 && !strcmp(argv[1], "many"))
		return many(argc - 2, argv + 2);
	if (!call || !(b.peer = find(argv[2])) || !parse(&b.opt, argc - 3, argv + 3)) {
		fputs("see main.c for what it takes\n", stderr);
		return 2;
	}
	b.pages = b.opt.size / PAGE;
	rc = open_target(&b);
	if (!rc)
		rc = b.peer->map(&b);
	if (!rc) {
		fill(&b);
		rc = call(&b);
	}
	if (rc)
		fprintf(stderr, "%s: %s\n", argv[2], strerror(-rc));
	return rc ? 1 : 0;
}
