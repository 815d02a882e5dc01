/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ledger.h - accounts spread over RAM, which prove that a dump shows all of it at one instant.
 *
 * RAM pages behind the program are numbered from 0, without the holes of the memory map. Account
 * page j is RAM page j * step / 2^20, and belongs to vCPU j % vcpus. It holds
 *     word 0   LEDGER_TAG ^ page frame number: a misplaced page shows
 *     word 1   version: number of transfers that touched this page
 *     word 2   sum of its accounts
 *     words 64 (k + 1) + place: account k, 0 to 6; place is a hash of frame number and k, 0 to 63
 *     zeros elsewhere.
 *
 * A transfer writes the old values to the journal, marks the journal OPEN, changes two pages,
 * increments the number of transfers, and marks the journal CLOSED. So at every instruction
 * boundary, if the words that an open journal names are replaced by its old values,
 *     sum of the accounts == pages filled * 7 * LEDGER_INITIAL
 *     sum of the versions == 2 * transfers (the journal's number of them while it is open)
 *     word 2 of each page == sum of its accounts
 * A page from another instant breaks the first or the second, half a page the third.
 *
 * `transfers` is counted twice: in memory by one instruction, and in a register that nothing else
 * uses, r15 or s11. Between two instructions they differ by at most one. If the emulator runs an
 * instruction twice, the guest itself finds the difference (mismatches).
 */
#ifndef LEDGER_H
#define LEDGER_H

#include "boot.h"

#define LEDGER_MAGIC 0x52454744454c444c /* "LDLEDGER" */
#define LEDGER_TAG 0x6567617074636361   /* "acctpage" */
#define LEDGER_ACCOUNTS 7
#define LEDGER_INITIAL 1000000
#define LEDGER_HASH_PFN 0x9e3779b97f4a7c15
#define LEDGER_HASH_K 0xc2b2ae3d27d4eb4f

enum ledger_phase { LEDGER_OFF = 0, LEDGER_FILLING = 1, LEDGER_RUNNING = 2 };
enum journal_phase { JOURNAL_CLOSED = 0, JOURNAL_OPEN = 1 };

/* One of the two accounts of a transfer: its place, and the values before the transfer. */
struct journal_side {
	u64 account; /* address of the account's word; its page is that address rounded down */
	u64 old_value;
	u64 old_sum;
	u64 old_version;
};

struct journal {
	u64 phase;
	u64 transfer; /* value of `transfers` before this transfer */
	u64 amount;
	struct journal_side from, to;
};

struct ledger {
	u64 magic;
	u32 vcpu;
	u32 phase;      /* enum ledger_phase */
	u64 base;       /* address of RAM page 0 of the numbering above */
	u64 step;       /* RAM pages from one account page to the next, times 2^20 */
	u64 pages;      /* account pages of this vCPU */
	u64 filled;     /* account pages that are ready; grows while FILLING */
	u64 transfers;  /* transfers done */
	u64 mismatches; /* times that `transfers` and r15 differed between two transfers */
	u64 random;     /* state of the generator */
	struct journal journal;
} __attribute__((aligned(4096)));

extern struct ledger ledger[BOOT_VCPUS_MAX];

void ledger_open(struct ledger *l, const struct boot_params *boot);
void ledger_fill(struct ledger *l, const struct boot_params *boot);
void run_ledger(struct ledger *l, const struct boot_params *boot) __attribute__((noreturn));

#endif
