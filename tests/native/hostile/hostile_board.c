/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * hostile_board.c - a board (native/board/) whose guest does its worst: descriptors that loop, lie
 * outside RAM or wrap, requests beyond the disk, registers of any width, page tables of noise,
 * calls of the firmware with any argument.
 *
 *   hostile_board SEED TURNS [read-only]
 *
 * Unicorn is played by this program: emulation is a loop that draws one deed after the other, and
 * calls what the board has hooked, on the vCPU's thread. Meanwhile the main thread holds the
 * machine again and again and write-protects its memory as a dump does. Checked:
 *   - memory beside RAM is not touched, and RAM is stored to by the vCPU's thread alone, never by a
 *     system call, which would fail on a protected page instead of faulting;
 *   - the machine can always be held, and the board takes no more memory than it says;
 *   - between the bad requests an honest driver finds the disk as a disk should be;
 *   - the file behind the disk changes within the disk alone, and not at all where it is read-only.
 * Prints "right" and how often each of it happened.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

#include "hostile.h"

struct ldfs_board *board;
uint8_t *ram;
bool read_only;
uint64_t random_state, turns_left;
_Atomic uint64_t faults, broken, honest_reads, honest_writes, translated, trapped, held;
_Atomic pid_t hart_tid;

/* A store to protected memory: as of a dump, but that nothing is kept. */
static void on_fault(int number, siginfo_t *info, void *context)
{
	uint8_t *at = info->si_addr;

	(void)context;
	if (at < ram || at >= ram + RAM_SIZE || gettid() != load_seq(&hart_tid)) {
		static const char said[] = "a stray access, or one of another thread\n";

		(void)!write(STDOUT_FILENO, said, sizeof(said) - 1);
		signal(number, SIG_DFL);
		return;
	}
	add_seq(&faults, 1);
	mprotect(ram + (uint64_t)(at - ram) / 4096 * 4096, 4096, PROT_READ | PROT_WRITE);
}

static void *make_ram(void)
{
	uint8_t *all = mmap(NULL, RAM_SIZE + 2 * GUARD, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
			    0);

	check(all != MAP_FAILED);
	check(!mprotect(all + GUARD, RAM_SIZE, PROT_READ | PROT_WRITE));
	return all + GUARD;
}

static int make_disk(void)
{
	int fd = memfd_create("disk", MFD_CLOEXEC);
	uint8_t sector[SECTOR];

	check(fd >= 0);
	memset(sector, 0x5a, sizeof(sector));
	for (uint32_t i = 0; i < 2 * SECTORS; i++)
		check(write(fd, sector, SECTOR) == SECTOR);
	return fd;
}

static void check_file(int fd)
{
	uint8_t sector[SECTOR];
	uint32_t changed = 0;

	check(lseek(fd, 0, SEEK_END) == 2 * SECTORS * SECTOR);
	for (uint32_t i = 0; i < 2 * SECTORS; i++) {
		bool same = true;

		check(pread(fd, sector, SECTOR, i * SECTOR) == SECTOR);
		for (uint32_t j = 0; j < SECTOR; j++)
			same = same && sector[j] == 0x5a;
		check(same || (i < SECTORS && !read_only));
		changed += !same;
	}
	check(read_only || changed > 0);
}

static void hold_and_protect(ldfs_machine *machine)
{
	check(ldfs_machine_quiesce(machine, ldfs_now_ns() + PATIENCE_NS) == 0);
	check(!mprotect(ram, RAM_SIZE, PROT_READ));
	check(ldfs_machine_resume(machine) == 0);
	add_seq(&held, 1);
}

int main(int argc, char **argv)
{
	struct sigaction action = { .sa_sigaction = on_fault, .sa_flags = SA_SIGINFO };
	ldfs_boot_part part = { LDFS_BOARD_RAM, "\x13", 1 };
	ldfs_board_plan plan = { .ram_size = RAM_SIZE,
				 .entry = LDFS_BOARD_RAM,
				 .parts = &part,
				 .part_count = 1,
				 .disk_size = (uint64_t)SECTORS * SECTOR };
	ldfs_board_status status;
	char why[256];

	check(argc >= 3);
	random_state = strtoull(argv[1], NULL, 10) * UINT64_C(0x9e3779b97f4a7c15) + 1;
	turns_left = strtoull(argv[2], NULL, 10);
	read_only = argc > 3;
	ram = make_ram();
	plan.disk = make_disk();
	plan.read_only = read_only;
	sigaction(SIGSEGV, &action, NULL);
	check(ldfs_board_create("", ram, &plan, &board, why, sizeof(why)) == 0);
	check(ldfs_board_start(board) == 0);
	do {
		static const struct timespec moment = { 0, 2000000 };

		hold_and_protect(ldfs_board_machine(board));
		ldfs_board_type(board, (const uint8_t *)"typed\n", 6);
		nanosleep(&moment, NULL);
		ldfs_board_status_of(board, &status);
	} while (!status.off);
	check(ldfs_board_stop(board, ldfs_now_ns() + PATIENCE_NS) == 0);
	check(ldfs_board_destroy(board) == 0);
	check_file(plan.disk);
	check(faults && broken && honest_reads && honest_writes && translated && trapped && held);
	printf("right: %" PRIu64 " requests, %" PRIu64 " refused, %" PRIu64
	       " broken queues, %" PRIu64 " faults, %" PRIu64 " honest, %" PRIu64
	       " translated, held %" PRIu64 " times\n",
	       status.disk_reads + status.disk_writes, status.disk_errors, broken, faults,
	       honest_reads, translated, held);
	return 0;
}
