/* SPDX-License-Identifier: GPL-2.0-or-later */
/* kmain.c - the built-in guest: checks its boot parameters, then runs the ledger for ever. */
#include "console.h"
#include "ledger.h"

static void banner(const struct boot_params *boot)
{
	console_text("livedumpfs ledger guest: vCPU ");
	console_number(boot->vcpu);
	console_text(" of ");
	console_number(boot->vcpus);
	console_text(", ");
	console_number(boot->ram_size >> 20);
	console_text(" MiB RAM\n");
}

/* Returns only if the boot parameters are invalid; start.S then halts. */
void kmain(struct boot_params *boot)
{
	struct ledger *l;

	if (boot->magic != BOOT_MAGIC || boot->version != BOOT_VERSION ||
	    boot->vcpu >= BOOT_VCPUS_MAX) {
		console_text("ledger guest: bad boot parameters\n");
		return;
	}
	l = &ledger[boot->vcpu];
	banner(boot);
	ledger_open(l, boot);
	boot->ledger = (u64)l;
	ledger_fill(l, boot);
	console_text("ledger ");
	console_number(boot->vcpu);
	console_text(": ");
	console_number(l->pages);
	console_text(" account pages ready\n");
	run_ledger(l, boot);
}
