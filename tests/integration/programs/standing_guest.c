/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A guest that stands in a loop, two calls deep, with labels where each call returns. */
#define LABEL(name) __asm__ volatile(".globl " #name "\n" #name ":")
volatile unsigned long answer = 0x1122334455667788;
void inner(unsigned long value)
{
	answer += value;
	LABEL(in_inner);
	for (;;)
		;
}
void outer(void)
{
	inner(4242);
	LABEL(in_outer);
}
void _start(void)
{
	outer();
	LABEL(in_start);
}
