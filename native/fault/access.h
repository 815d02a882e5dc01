/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * access.h - whether the access that faulted was a store, as the signal's context says. [signal]
 *
 * Each processor tells it in another place. One that tells it nowhere (riscv64) could not tell a
 * store to armed memory from a load of memory that the program itself has protected.
 */
#ifndef LDFS_FAULT_ACCESS_H
#define LDFS_FAULT_ACCESS_H

#include <stdbool.h>
#include <stdint.h>
#include <ucontext.h>

#if defined(__x86_64__)

#define PAGE_FAULT_WRITE 2 /* bit 1 of the error code: Intel SDM vol. 3A, 4.7 */

static inline bool was_store(const ucontext_t *context)
{
	return context->uc_mcontext.gregs[REG_ERR] & PAGE_FAULT_WRITE;
}

#elif defined(__aarch64__)

#include <asm/sigcontext.h>

/* Of ESR_EL1: Arm ARM, "ESR_EL1, Exception Syndrome Register", and "ISS encoding for an exception
 * from a Data Abort". */
#define ESR_CLASS(esr) ((esr) >> 26 & 0x3f)
#define DATA_ABORT_OF_USER 0x24u
#define ESR_WRITE (1u << 6)       /* WnR */
#define ESR_MAINTENANCE (1u << 8) /* CM: of the cache, which sets WnR too and stores nothing */

/*
 * The record of the syndrome among those behind the registers: each begins with its kind and its
 * size, and one of kind 0 ends them. It is never in the part that the kernel puts elsewhere when
 * there is no room (EXTRA_MAGIC), because it is among the first. See asm/sigcontext.h of Linux.
 */
static inline uint64_t syndrome(const ucontext_t *context)
{
	const uint8_t *at = context->uc_mcontext.__reserved;
	const uint8_t *end = at + sizeof(context->uc_mcontext.__reserved);

	while ((uint64_t)(end - at) >= sizeof(struct esr_context)) {
		const struct _aarch64_ctx *head = (const struct _aarch64_ctx *)at;

		if (head->magic == ESR_MAGIC)
			return ((const struct esr_context *)at)->esr;
		if (!head->magic || head->size < sizeof(*head) || head->size > end - at)
			break;
		at += head->size;
	}
	return 0;
}

static inline bool was_store(const ucontext_t *context)
{
	uint64_t esr = syndrome(context);

	return ESR_CLASS(esr) == DATA_ABORT_OF_USER && esr & ESR_WRITE && !(esr & ESR_MAINTENANCE);
}

#else
#error "where does this processor say in the context of a signal whether a store faulted?"
#endif

#endif
