/* SPDX-License-Identifier: GPL-2.0-or-later */
/* console.c - see console.h. */
#include "console.h"

#include "processor.h"

void console_text(const char *text)
{
	while (*text)
		put(*text++);
}

void console_number(u64 number)
{
	char digits[20];
	u32 n = 0;

	do
		digits[n++] = (char)('0' + number % 10);
	while (number /= 10);
	while (n)
		put(digits[--n]);
}
