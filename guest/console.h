/* SPDX-License-Identifier: GPL-2.0-or-later */
/* console.h - prints text for the host, byte by byte through port 0xe9. */
#ifndef CONSOLE_H
#define CONSOLE_H

#include "boot.h"

void console_text(const char *text);
void console_number(u64 number); /* decimal */

#endif
