/* SPDX-License-Identifier: GPL-2.0-or-later */
/* ledger.c - see ledger.h. */
#include "ledger.h"

#include "console.h"
#include "processor.h"

#define PAGE 4096UL
#define STEP_SHIFT 20

/* Transfers between two lines on the console; a power of two. */
#define PROGRESS (1UL << 22)

#define barrier() __asm__ volatile("" ::: "memory")

extern char image_end[]; /* ledger.ld */

struct ledger ledger[BOOT_VCPUS_MAX];

/* A page with accounts. volatile, because the order of the stores is what a dump is checked by. */
struct account_page {
	volatile u64 tag, version, sum;
	u64 rest[509];
};

/*
 * Linear congruential generator with Knuth's (MMIX) constants; only its upper bits are good enough
 * to choose pages.
 */
static inline u64 next_random(struct ledger *l)
{
	l->random = l->random * 6364136223846793005UL + 1442695040888963407UL;
	return l->random;
}

/* A number below n from 32 random bits. */
static inline u64 choose(u64 random32, u64 n)
{
	return random32 * n >> 32;
}

/* Account page i of this vCPU. */
static inline struct account_page *account_page(const struct ledger *l,
						const struct boot_params *boot, u64 i)
{
	u64 number = i * boot->vcpus + l->vcpu;
	u64 address = l->base + (number * l->step >> STEP_SHIFT) * PAGE;

	for (u32 r = 0; r + 1 < boot->ranges; r++) {
		u64 end = boot->range[r].start + boot->range[r].size;

		if (address < end)
			break;
		address += boot->range[r + 1].start - end;
	}
	return (struct account_page *)address;
}

static inline volatile u64 *account(struct account_page *page, u64 k)
{
	u64 hash = ((u64)page / PAGE) * LEDGER_HASH_PFN + k * LEDGER_HASH_K;

	return (volatile u64 *)page + 64 * (k + 1) + (hash >> 58);
}

static inline void note(struct journal_side *side, struct account_page *page, volatile u64 *word)
{
	side->account = (u64)word;
	side->old_value = *word;
	side->old_sum = page->sum;
	side->old_version = page->version;
}

__attribute__((noinline)) static void transfer(struct ledger *l, const struct boot_params *boot)
{
	u64 pick = next_random(l), more = next_random(l);
	u64 from_index = choose(pick >> 32, l->pages);
	u64 to_index = choose(pick & 0xffffffff, l->pages - 1);
	struct account_page *from, *to;
	volatile u64 *from_account, *to_account;
	struct journal *j = &l->journal;
	u64 amount = more >> 32;

	to_index += to_index >= from_index; /* not the same page */
	from = account_page(l, boot, from_index);
	to = account_page(l, boot, to_index);
	from_account = account(from, choose((u32)more & 0xffff0000, LEDGER_ACCOUNTS));
	to_account = account(to, choose((u32)more << 16, LEDGER_ACCOUNTS));

	note(&j->from, from, from_account);
	note(&j->to, to, to_account);
	j->transfer = l->transfers;
	j->amount = amount;
	barrier();
	j->phase = JOURNAL_OPEN;
	barrier();
	take_from(from_account, amount);
	end_block();
	take_from(&from->sum, amount);
	add_to(&from->version, 1);
	add_to(to_account, amount);
	end_block();
	add_to(&to->sum, amount);
	add_to(&to->version, 1);
	count_transfer(&l->transfers);
	barrier();
	j->phase = JOURNAL_CLOSED;
	barrier();
}

/*
 * After a mismatch the counts are made equal, so that each instruction that ran twice is counted
 * once.
 */
static inline void compare_counts(struct ledger *l)
{
	if (transfers_in_register != l->transfers) {
		l->mismatches++;
		transfers_in_register = l->transfers;
	}
}

static void print_progress(const struct ledger *l)
{
	console_text("ledger ");
	console_number(l->vcpu);
	console_text(": ");
	console_number(l->transfers);
	console_text(" transfers, ");
	console_number(l->mismatches);
	console_text(" mismatches\n");
}

__attribute__((noinline)) void run_ledger(struct ledger *l, const struct boot_params *boot)
{
	u32 left = boot->burst;

	for (;;) {
		transfer(l, boot);
		compare_counts(l);
		if ((l->transfers & (PROGRESS - 1)) == 0)
			print_progress(l);
		if (boot->burst && --left == 0) {
			sleep_ticks(boot->ticks);
			left = boot->burst;
		}
	}
}

/* Number of RAM pages from l->base on. */
static u64 pages_behind_program(const struct ledger *l, const struct boot_params *boot)
{
	u64 pages = (boot->range[0].start + boot->range[0].size - l->base) / PAGE;

	for (u32 r = 1; r < boot->ranges; r++)
		pages += boot->range[r].size / PAGE;
	return pages;
}

void ledger_open(struct ledger *l, const struct boot_params *boot)
{
	u64 all, used;

	l->vcpu = boot->vcpu;
	l->base = ((u64)image_end + PAGE - 1) & ~(PAGE - 1);
	l->random = boot->seed;
	all = pages_behind_program(l, boot);
	used = all * boot->dirty_share / BOOT_ALL_PAGES;
	if (used < 2UL * boot->vcpus)
		used = 2UL * boot->vcpus; /* a transfer needs two pages */
	l->step = (all << STEP_SHIFT) / used;
	l->pages = (used - boot->vcpu + boot->vcpus - 1) / boot->vcpus;
	transfers_in_register = 0;
	barrier();
	l->magic = LEDGER_MAGIC;
	l->phase = LEDGER_FILLING;
}

static void fill_page(struct account_page *page)
{
	for (u64 k = 0; k < LEDGER_ACCOUNTS; k++)
		*account(page, k) = LEDGER_INITIAL;
	page->tag = LEDGER_TAG ^ ((u64)page / PAGE);
	page->version = 0;
	page->sum = LEDGER_ACCOUNTS * LEDGER_INITIAL;
}

void ledger_fill(struct ledger *l, const struct boot_params *boot)
{
	for (u64 i = 0; i < l->pages; i++) {
		fill_page(account_page(l, boot, i));
		barrier();
		l->filled = i + 1;
		barrier();
	}
	l->phase = LEDGER_RUNNING;
}
