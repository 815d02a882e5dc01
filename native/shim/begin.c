/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * begin.c - finds out whether this process is the one to be dumped, and if so, connects to the
 * host.
 */
#define _GNU_SOURCE
#include <link.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "shim/within.h"

#define VERSION "QEMU emulator version" /* a text that QEMU prints with --version */

/* Looks in the read-only segments of the program itself, which dl_iterate_phdr passes first. */
static int look_for_version(struct dl_phdr_info *program, size_t size, void *found)
{
	(void)size;
	for (int i = 0; i < program->dlpi_phnum; i++) {
		const ElfW(Phdr) *p = &program->dlpi_phdr[i];

		if (p->p_type == PT_LOAD && (p->p_flags & (PF_R | PF_W)) == PF_R &&
		    memmem((const void *)(program->dlpi_addr + p->p_vaddr), p->p_filesz, VERSION,
			   strlen(VERSION)))
			*(bool *)found = true;
	}
	return 1;
}

/*
 * Whether the program contains QEMU's version text. A program that is only named like QEMU and then
 * starts it does not: the wrappers of NixOS are programs, not scripts.
 */
static bool says_that_it_is_qemu(void)
{
	bool found = false;

	dl_iterate_phdr(look_for_version, &found);
	return found;
}

/*
 * Whether this is the process to be dumped. Other processes have the same environment: a shell,
 * env, taskset or numactl that starts QEMU, a wrapper named like it, and another QEMU that one of
 * these asks for something (--version). They must leave the environment as it is.
 */
static bool is_machine(int argc, char **argv)
{
	const char *word = getenv(LDFS_SHIM_WORD), *program = getenv(LDFS_SHIM_PROGRAM);
	char path[4096];
	ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 1);
	const char *name;
	bool told = false;

	for (int i = 1; word && i < argc; i++)
		told |= !strcmp(argv[i], word);
	if (!told || n <= 0)
		return false;
	path[n] = 0;
	name = strrchr(path, '/');
	name = name ? name + 1 : path;
	if (program && *program && !strcmp(name, program))
		return true; /* the host has checked that it is QEMU */
	return (strstr(name, "qemu-system") || strstr(name, "qemu-kvm") || !strcmp(name, "kvm")) &&
	       says_that_it_is_qemu();
}

static bool take_path(struct sockaddr_un *to, const char *variable)
{
	const char *path = getenv(variable);

	to->sun_family = AF_UNIX;
	if (!path || strlen(path) >= sizeof(to->sun_path))
		return false;
	strcpy(to->sun_path, path);
	return true;
}

static void *alone_main(void *unused)
{
	shim_give_up();
	return unused;
}

/*
 * Children of this process are not QEMU, so the variables are removed: none of them is for a child.
 * The descriptor is close-on-exec: if a child kept the connection open, we could not see the end of
 * the host, nor the host the end of QEMU.
 */
__attribute__((constructor)) static void begin(int argc, char **argv)
{
	struct sockaddr_un host, monitor = { 0 };
	int fd;

	if (!take_path(&host, LDFS_SHIM_SOCKET) || !is_machine(argc, argv))
		return;
	take_path(&monitor, LDFS_SHIM_MONITOR);
	shim_set_monitor(&monitor);
	unsetenv(LDFS_SHIM_SOCKET);
	unsetenv(LDFS_SHIM_WORD);
	unsetenv(LDFS_SHIM_PROGRAM);
	unsetenv(LDFS_SHIM_MONITOR);
	unsetenv("LD_PRELOAD");
	fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (fd >= 0 && (connect(fd, (struct sockaddr *)&host, sizeof(host)) ||
			shim_serve_connection(fd, true))) {
		close(fd);
		fd = -1;
	}
	if (fd < 0)
		ldfs_thread_detached(alone_main, NULL, SHIM_THREAD); /* the host has ended */
}
