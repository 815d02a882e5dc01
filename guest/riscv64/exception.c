/* SPDX-License-Identifier: GPL-2.0-or-later */
/* exception.c - the last words of the guest. */
#include "console.h"

void report_exception(u64 cause, u64 at, u64 value);

void report_exception(u64 cause, u64 at, u64 value)
{
	console_text("ledger guest: exception ");
	console_number(cause);
	console_text(" at ");
	console_number(at);
	console_text(", value ");
	console_number(value);
	console_text("\n");
}
