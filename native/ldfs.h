/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * ldfs.h - the whole public C interface of the livedumpfs core.
 *
 * This is the only place where the interface is written down: cffi reads the part between the two
 * "cffi" marks of this very file (native/build_native.py).
 *
 * Conventions
 *   - Functions return 0 or a negative errno. They never print and never exit.
 *   - Offsets and lengths are bytes unless a name says pages or granules. Ranges are [start, end),
 *     the end exclusive.
 *   - An arena and its dumps are of the process that made them: in a forked child every function
 * that changes one answers -ECHILD; to destroy, release and free there is nothing, and they answer
 * 0. At the live address a child of fork(2) has the memory privately: it reads its parent's, and
 * its stores are its own.
 *   - Times are nanoseconds of CLOCK_MONOTONIC unless a name says wall.
 *   - The first word of each comment says where a function may run:
 *       [signal]      inside the SIGSEGV handler as well
 *       [any thread]  any thread, any number at once
 *       [owner]       one thread at a time per object; the caller serialises
 */
#ifndef LDFS_H
#define LDFS_H

#include <stddef.h>
#include <stdint.h>

/* cffi: begin */

#define LDFS_PAGE_SIZE 4096
#define LDFS_MAX_ARENAS 64
#define LDFS_MAX_PACKERS 64

/* ------------------------------------------------------------------ arena */

/* The memory of one machine: a memfd and its views. See docs/architecture.md, "Words". */
typedef struct ldfs_arena ldfs_arena;

/*
 * [any thread] Make an arena of `size` bytes, a multiple of LDFS_PAGE_SIZE, all holes, and install
 * the fault handler when this is the first arena. -EINVAL: size; -ENOMEM; -ENFILE: LDFS_MAX_ARENAS
 * exist; -ENOSYS: the kernel lacks what views need (Linux 5.14).
 */
int ldfs_arena_create(uint64_t size, ldfs_arena **out);
/*
 * [any thread] Make an arena of memory that is there: [live, live + size) is one shared, writable
 * mapping of `memfd` from offset 0 on, and stays where it is as long as the arena. `memfd` is
 * duplicated. The memory stays the caller's when the arena is destroyed. Errors as above; -EINVAL
 * also: `live` is no page's start.
 */
int ldfs_arena_adopt(void *live, uint64_t size, int memfd, ldfs_arena **out);
/* [owner] Unmap and free. -EBUSY: a dump has not been freed yet; nothing is done then. */
int ldfs_arena_destroy(ldfs_arena *a);
/* [any thread] The live view. Its address never changes while the arena exists. */
void *ldfs_arena_live(const ldfs_arena *a);
uint64_t ldfs_arena_size(const ldfs_arena *a);
/* [any thread] The memfd itself, for pread; owned by the arena. */
int ldfs_arena_memfd(const ldfs_arena *a);
/* [any thread] Bytes that exist (are not holes), by SEEK_DATA; negative errno on failure. */
int64_t ldfs_arena_resident(const ldfs_arena *a);
/* [any thread] Copy live memory [offset, offset+length) to buf; allocates no hole. -EINVAL: range.
 */
int ldfs_arena_read(const ldfs_arena *a, uint64_t offset, void *buf, uint64_t length);
/*
 * [any thread] Make [offset, offset+length) writable for system calls: during a dump every armed
 * granule it touches is saved first, as a store would have done. Holds until the next START.
 */
int ldfs_arena_writable(ldfs_arena *a, uint64_t offset, uint64_t length);
/* [any thread] Turn whole pages into holes, saving them first during a dump. -EINVAL: not aligned.
 */
int ldfs_arena_discard(ldfs_arena *a, uint64_t offset, uint64_t length);

/* ----------------------------------------------------------- fault handler */

/* [any thread] 0 when our handler is the installed one, -ENOTCONN when another one is there. */
int ldfs_fault_verify(void);
/* [any thread] The id of a task of this process that blocks SIGSEGV, 0 for none, or -errno. */
int ldfs_fault_blocked_task(void);
/* [any thread] What START with backend SIGSEGV asks of both: 0, -ENOTCONN, or -EDEADLK where a task
 * goes on to block it. */
int ldfs_fault_check(void);

/* ------------------------------------------------------------------ machine */

/*
 * How a dump stops and frees a machine. All members may be NULL: then the caller of
 * ldfs_dump_start has stopped the writers itself.
 *   quiesce: return 0 once no vCPU runs; -ETIMEDOUT after `deadline_ns` (absolute), with the
 *            machine running again.
 *   capture: keep the registers of the snapshot instant; called between quiesce and resume.
 *   resume:  let all vCPUs go.
 *   patient: not 0 when none of them waits in a loop for another thread. Then the thread that does
 * START runs before all ordinary ones (SCHED_FIFO, where it may) from quiesce to resume, else while
 * it arms only.
 */
typedef struct ldfs_quiesce_ops {
	int (*quiesce)(void *ctx, uint64_t deadline_ns);
	void (*capture)(void *ctx);
	void (*resume)(void *ctx);
	void *ctx;
	int patient;
} ldfs_quiesce_ops;

/* --------------------------------------------------------------------- dump */

typedef struct ldfs_dump ldfs_dump;

enum ldfs_policy { LDFS_POLICY_BLOCK = 0, LDFS_POLICY_FAIL = 1, LDFS_POLICY_SPILL = 2 };
/* SWAP: a view prepared at INIT takes the live one's place; MPROTECT: the live view itself, at
 * START. */
enum ldfs_arming { LDFS_ARM_SWAP = 0, LDFS_ARM_MPROTECT = 1 };
/*
 * Who notices a store to an armed page. SIGSEGV: mprotect, and our handler on the storing thread; a
 * system call that writes armed memory gets EFAULT. UFFD: userfaultfd write protection and a
 * monitor thread; the kernel's own stores are caught, too.
 */
enum ldfs_backend { LDFS_BACKEND_SIGSEGV = 0, LDFS_BACKEND_UFFD = 1 };

/* Granule states: one byte each, changed only by the steps in granule.c. docs/concurrency.md. */
enum ldfs_state {
	LDFS_G_ARMED = 0,    /* read-only, not saved */
	LDFS_G_CLAIMED = 1,  /* a handler copies it to the slot that it holds */
	LDFS_G_IN_SLOT = 2,  /* published: its bytes are in its slot */
	LDFS_G_SWEEPING = 3, /* sweep I/O reads it from memory */
	LDFS_G_STEALING = 4, /* sweep I/O under way, and a handler copies it to a slot */
	LDFS_G_STOLEN = 5,   /* sweep I/O under way, and published in a slot, which wins */
	LDFS_G_SAVED = 6,    /* final: on the target */
	LDFS_G_HOLE = 7,     /* final: reads as zeros */
	LDFS_G_LOST = 8      /* final: its bytes of the instant are gone */
};

/* Which way a granule took to its final state; kept in its table entry. */
enum ldfs_how { LDFS_BY_NONE = 0, LDFS_BY_SWEEP = 1, LDFS_BY_FAULT = 2, LDFS_BY_STEAL = 3 };

/* Bytes [arena_offset, +length) of the arena lie at target_offset on the target. */
typedef struct ldfs_extent {
	uint64_t arena_offset;
	uint64_t length;
	uint64_t target_offset;
} ldfs_extent;

/* A file that is written to a pipe; see "pages of a kdump file". */
typedef struct ldfs_stream ldfs_stream;

typedef struct ldfs_dump_config {
	uint64_t granule_size; /* bytes, power of two, >= LDFS_PAGE_SIZE; 0: ldfs_granule_default */
	uint64_t pool_size;    /* bytes of slots made at INIT; at least one granule */
	uint64_t spill_limit;  /* policy spill: bytes of slots at the most; else ignored */
	uint64_t sweep_rate;   /* bytes a second that the sweep may write, see bytes_written; 0: no
				  cap */
	uint64_t stall_deadline_ns; /* longest wait of a vCPU for a slot before the policy is `fail`
				     */
	uint32_t policy;            /* enum ldfs_policy */
	uint32_t arming;            /* enum ldfs_arming */
	uint32_t backend;           /* enum ldfs_backend */
	int uffd_fd;   /* UFFD: /dev/userfaultfd, opened by somebody who may; -1: opened here */
	int target_fd; /* -1: no target. Duplicated; the caller keeps its own. */
	int target_reads_zero; /* nonzero: what was never written there reads as zeros */
	int target_direct; /* nonzero: data goes there past the page cache, where that is possible
			    */
	const ldfs_extent
		*extents; /* sorted by arena_offset, cover the arena without gap or overlap */
	uint32_t extent_count;
	int table_fd;          /* -1: no table on the target. Duplicated. */
	uint64_t table_offset; /* where its first block lies, multiple of 512 */
	uint8_t dump_id[16];   /* goes into every block of the table */
	/*
	 * A packed target (kdump): pages go, compressed, behind each other in the order in which
	 * they come, and the place of each into a descriptor. The extents' target_offset is
	 * LDFS_PAGE_SIZE times the number of the first page's descriptor then; extents consist of
	 * whole pages.
	 */
	uint32_t packed;             /* nonzero: it is one; the rest counts only then */
	uint32_t codec;              /* enum ldfs_codec */
	int level;                   /* 0: the codec's default */
	uint32_t threads;            /* that pack and write, 1 to LDFS_MAX_PACKERS */
	uint64_t descriptors_offset; /* of descriptor 0 on the target; they must read as zeros */
	uint64_t zero_page_offset; /* a page of zeros that is there already; data goes behind it */
	ldfs_stream *stream;       /* all writes go there; NULL: to target_fd. Outlives the dump. */
} ldfs_dump_config;

/* Steps of a dump at which I/O can fail; for messages. */
enum ldfs_operation {
	LDFS_OP_NONE = 0,
	LDFS_OP_WRITE_DATA = 1, /* pwrite of a granule, or of packed ones */
	LDFS_OP_ZERO_DATA = 2,  /* writing zeros where the arena has a hole */
	LDFS_OP_READ_ARENA = 3, /* pread or SEEK_DATA of the memfd */
	LDFS_OP_WRITE_TABLE = 4,
	LDFS_OP_SYNC = 5,
	LDFS_OP_WAIT_SLOT = 6, /* the stall deadline passed */
	LDFS_OP_PROTECT = 7,   /* mprotect gave something other than ENOMEM */
	LDFS_OP_HANDLER = 8    /* another SIGSEGV handler is over ours, and ours cannot go back */
};

/* The first error of a dump. error 0: none. */
typedef struct ldfs_failure {
	uint32_t operation; /* enum ldfs_operation */
	int32_t error;      /* positive errno */
	uint64_t pfn;       /* first page concerned; UINT64_MAX: none */
} ldfs_failure;

#define LDFS_HISTOGRAM_BINS 40
#define LDFS_COUNTERS_VERSION 1

/* All counts are of granules unless the comment says otherwise. */
typedef struct ldfs_counters {
	uint64_t granule_size; /* bytes */
	uint64_t granules;     /* in the arena */
	uint64_t faults;       /* SIGSEGVs in the arena while a dump was armed */
	uint64_t steals;       /* taken from sweep I/O under way */
	uint64_t by_fault;     /* final, saved by the fault path (steals included) */
	uint64_t by_sweep;     /* final, saved by the sweep */
	uint64_t holes;        /* final, holes, and what the sweep found all zeros */
	uint64_t lost;         /* final, lost */
	uint64_t remaining;    /* not in a final state */
	uint64_t widened;      /* granules saved early because mprotect met ENOMEM */
	uint64_t slots;        /* slots that exist now */
	uint64_t slots_peak;   /* most in use at once */
	uint64_t slot_waits;   /* times that a vCPU found no free slot and waited */
	uint64_t slot_wait_ns; /* sum of those waits */
	uint64_t spilled;      /* slots added by `spill` */
	/* To the target: data, packed where it is so, and zeros that had to be written out; not
	 * headers or table. */
	uint64_t bytes_written;
	uint64_t bytes_pool;   /* of those, from slots */
	uint64_t target_end;   /* packed target: first byte behind all data; else 0 */
	uint64_t stall_max_ns; /* longest time in the handler */
	uint64_t handler_ns[LDFS_HISTOGRAM_BINS]; /* [i]: faults that took [2^i, 2^(i+1)) ns */
	uint64_t handler_sum_ns;                  /* sum of the times in the handler */
	uint64_t quiesce_ns; /* request to all vCPUs parked; a program's callback: to its return */
	uint64_t arm_ns;     /* the swap, or mprotect */
	uint64_t resume_ns;  /* resume call */
	uint64_t pause_ns; /* quiesce request to resume's return: these three, and what lies between
			    */
	uint64_t instant_mono_ns; /* the snapshot instant */
	uint64_t instant_wall_ns; /* the same, CLOCK_REALTIME since the epoch */
	uint64_t sweep_start_ns;  /* 0: not yet */
	uint64_t drained_ns;      /* 0: not yet */
	uint64_t gave_up;         /* 1: policy is `fail` since an error or a passed deadline */
	uint64_t abandoned;       /* 1: the target was given up, what was not saved is lost */
	uint64_t not_durable; /* 1: a sync or a write of the table failed, maybe after `failure` */
	uint64_t chained;     /* SIGSEGVs passed on to another handler (whole process) */
	uint64_t retaken; /* times that another SIGSEGV handler was over ours, and ours put back */
	ldfs_failure failure;
} ldfs_counters;

/* What a dump is doing. The control interface's numbers are another matter (livedump_ioctl.h). */
enum ldfs_phase {
	LDFS_PHASE_READY = 1, /* INIT done */
	LDFS_PHASE_ARMED = 2, /* START done */
	LDFS_PHASE_SWEEPING = 3,
	LDFS_PHASE_DRAINED =
		4, /* every granule final, table written, data synced; nothing protected */
	LDFS_PHASE_RELEASED = 5
};

/*
 * [any thread] Smallest granule size in bytes, a power of two, for an arena of `arena_size` so that
 * even alternating protections stay below vm.max_map_count less what the process maps now.
 */
uint64_t ldfs_granule_default(uint64_t arena_size);

/*
 * [any thread] Whether so many bytes more can be filled with data without anybody being killed for
 * it, as far as machine and memory cgroups say. 0: no.
 */
int ldfs_headroom(uint64_t bytes);

/*
 * [owner] INIT: check the config, allocate pool and table, write the empty table to the target,
 * build the shadow view, start the writer. The machine runs meanwhile. -EBUSY: the arena has a dump
 * (also a released one whose I/O hangs); -EINVAL: config; -ENOMEM; errors of the target; -EPERM:
 * the memfd is sealed against writing, or read-only. Backend UFFD: -EACCES: no right to
 * userfaultfd; -ENOSYS: the kernel's cannot write-protect shared memory (Linux 5.19).
 */
int ldfs_dump_init(ldfs_arena *a, const ldfs_dump_config *config, ldfs_dump **out);
/*
 * [owner] START: check handler and signal masks, stop the machine by `ops` (NULL: already stopped),
 * arm, let it go. -EINVAL: not READY; -ENOTCONN: somebody took SIGSEGV; -EDEADLK: a task blocks
 * SIGSEGV; -ETIMEDOUT: the machine did not stop within `quiesce_ns`. Failure leaves it running,
 * unarmed, and the dump READY.
 */
int ldfs_dump_start(ldfs_dump *d, const ldfs_quiesce_ops *ops, uint64_t quiesce_ns);
/* [owner] SWEEP: begin to save what nobody wrote; returns at once. -EINVAL: not ARMED. */
int ldfs_dump_sweep(ldfs_dump *d);
/*
 * [any thread] Wait until DRAINED. 0; -ETIMEDOUT after `timeout_ns` (relative; 0: only look);
 * -ECANCELED: released. Whether the dump is good is in the counters (lost, failure).
 */
int ldfs_dump_wait(ldfs_dump *d, uint64_t timeout_ns);
/*
 * [any thread] RELEASE, from every phase: all memory writable, all who wait woken, handlers and
 * readers counted out, threads ended, slots freed. 0, or -EINPROGRESS when a thread is still in I/O
 * on the target: the machine is free already, and the rest happens when that I/O comes back.
 */
int ldfs_dump_release(ldfs_dump *d);
/* [owner] Free a released dump. -EBUSY: not released, or its I/O has not come back. */
int ldfs_dump_free(ldfs_dump *d);

int ldfs_dump_phase(const ldfs_dump *d);
void ldfs_dump_counters(const ldfs_dump *d, ldfs_counters *out);
/* [any thread] Copy the states of granules [first, first+count), one byte each. -EINVAL: range. */
int ldfs_dump_states(const ldfs_dump *d, uint32_t first, uint32_t count, uint8_t *out);
/*
 * [any thread] Read the snapshot: bytes [offset, +length) of the arena at the snapshot instant.
 * -ENODATA: before START or after RELEASE; -EIO: a granule is lost; -EINVAL: range.
 */
int ldfs_dump_read(ldfs_dump *d, uint64_t offset, void *buf, uint64_t length);

/* ------------------------------------------------------------- pages of a kdump file */

/* How the pages of a kdump dump are compressed; the flag of a page descriptor and of the header. */
enum ldfs_codec {
	LDFS_CODEC_NONE = 0,
	LDFS_CODEC_ZLIB = 1,
	LDFS_CODEC_LZO = 2,
	LDFS_CODEC_SNAPPY = 4,
	LDFS_CODEC_ZSTD = 0x20
};

/* As in the file, little-endian: makedumpfile's page_desc_t (diskdump_mod.h). */
typedef struct ldfs_page_desc {
	uint64_t offset;     /* of the stored bytes */
	uint32_t size;       /* stored bytes, 1 to LDFS_PAGE_SIZE */
	uint32_t flags;      /* enum ldfs_codec; 0: stored as it is */
	uint64_t page_flags; /* 0 */
} ldfs_page_desc;

/*
 * [any thread] Pack `count` pages into `out`, which has room for as many. `level` 0: the codec's
 * default. Offsets of `descs` count from the start of `out`; a page of zeros gets size 0, and
 * nothing is stored for it. Returns the bytes used; -EINVAL: no such codec or level; -ENOMEM.
 */
int64_t ldfs_pages_pack(uint32_t codec, int level, const void *pages, uint32_t count, void *out,
			ldfs_page_desc *descs);
/*
 * [any thread] Read the pages that the `count` descriptors of the file `fd` say, into `buf`.
 * Nothing in them is trusted. -EBADMSG: a descriptor or what it points to is damaged; -EIO and
 * other errors of pread, -EIO also where the file ends; -ENOMEM.
 */
int ldfs_pages_read(int fd, const ldfs_page_desc *descs, uint32_t count, void *buf);

/*
 * [any thread] Begin a stream on the pipe `fd`: a file in the flattened form of makedumpfile,
 * records of offset, length and bytes. `fd` stays the caller's: opened anew through /proc, or
 * duplicated and then nonblocking for all who share it. The stream's header is written with the
 * first record, unless it has `begun` already: nobody else may write to it from then on. -ENOMEM,
 * -EMFILE.
 */
int ldfs_stream_open(int fd, int begun, ldfs_stream **out);
/*
 * [any thread] One record: `length` bytes for offset `at` of the file. Waits for the reader.
 * -EPIPE: it has gone; -ECANCELED: by ldfs_stream_cancel. After any error the stream takes nothing
 * more.
 */
int ldfs_stream_write(ldfs_stream *s, const void *buf, uint64_t length, uint64_t at);
/* [any thread] The record that says that all is there. */
int ldfs_stream_end(ldfs_stream *s);
/* [any thread] Whoever waits for the reader stops, within 50 ms. */
void ldfs_stream_cancel(ldfs_stream *s);
/* [owner] Free it. */
void ldfs_stream_close(ldfs_stream *s);

/* ------------------------------------------------ the granule table on a target */

/* All integers little-endian. Block i holds the entries of granules [169 i, 169 i + count). */
#define LDFS_TABLE_BLOCK_SIZE 4096
#define LDFS_TABLE_BLOCK_ENTRIES 169
#define LDFS_TABLE_MAGIC "LDFSTAB1"

typedef struct ldfs_table_entry {
	uint64_t where; /* packed: target offset of the first stored byte; 0 where the layout fixes
			   it */
	uint64_t checksum; /* XXH3-64 of the granule's bytes (uncompressed); 0 for holes */
	uint32_t stored;   /* bytes stored; 0 for holes, and for packed pages that are all zeros */
	uint8_t state;     /* enum ldfs_state: ARMED (not saved yet), SAVED, HOLE or LOST */
	uint8_t how;       /* enum ldfs_how */
	uint16_t reserved;
} ldfs_table_entry;

typedef struct ldfs_table_block {
	char magic[8];
	uint8_t dump_id[16];
	uint32_t index;    /* of this block */
	uint32_t count;    /* entries in use, 1 to 169 */
	uint64_t checksum; /* XXH3-64 of the whole block with this field zero */
	ldfs_table_entry entries[169];
} ldfs_table_block;

/* --------------------------------------------------------------- other processes */

/*
 * [any thread] Copy a NUL-terminated string of at most `size` bytes, NUL included, from address
 * `address` of task `tid`. -EPERM, -ESRCH, -EFAULT: unreadable; -ENAMETOOLONG: no NUL within size.
 */
int ldfs_read_string(int tid, uint64_t address, char *buf, size_t size);

/* ---------------------------------------------------- vCPUs on Unicorn (vcpu/) */

#define LDFS_MAX_VCPUS 4
#define LDFS_CONSOLE_SIZE 65536

/* x86-64 vCPUs, each a thread with a Unicorn instance of its own, all on the same memory. */
typedef struct ldfs_machine ldfs_machine;

/* Guest addresses [start, start+size), whole pages, lie at `ram_offset` of the memory. */
typedef struct ldfs_ram_range {
	uint64_t start;
	uint64_t size;
	uint64_t ram_offset;
} ldfs_ram_range;

/* Linux's user_regs_struct for x86-64: names, order and width. */
typedef struct ldfs_registers {
	uint64_t r15, r14, r13, r12, rbp, rbx, r11, r10, r9, r8, rax, rcx, rdx, rsi, rdi;
	uint64_t orig_rax, rip, cs, eflags, rsp, ss, fs_base, gs_base, ds, es, fs, gs;
} ldfs_registers;

enum ldfs_vcpu_state {
	LDFS_VCPU_NEW = 0, /* start not called */
	LDFS_VCPU_RUNNING = 1,
	LDFS_VCPU_IDLE = 2,   /* in hlt until the next 1 ms tick */
	LDFS_VCPU_HALTED = 3, /* in hlt with interrupts off: for good */
	LDFS_VCPU_FAILED = 4, /* the guest crashed; the rest of the status says how */
	LDFS_VCPU_ENDED = 5   /* stopped by the host */
};

typedef struct ldfs_vcpu_status {
	uint32_t state;    /* enum ldfs_vcpu_state */
	uint32_t parked;   /* 1: a pause holds it outside guest code now */
	int32_t error;     /* FAILED: Unicorn's uc_err, 0: an exception */
	int32_t exception; /* FAILED: number of the CPU exception, -1: none */
	uint32_t access;   /* FAILED: Unicorn's uc_mem_type of the bad access, 0: none */
	uint32_t reserved;
	uint64_t address; /* FAILED: of the bad access */
	uint64_t pc;      /* FAILED, HALTED: where */
} ldfs_vcpu_status;

/*
 * [owner] Make a machine of `vcpus` vCPUs on the memory at `ram`, with the libunicorn at that path.
 * `ram` must stay mapped at this address until ldfs_machine_destroy returned 0. -EINVAL: ranges or
 * count; -ELIBACC: the library cannot be loaded or is not Unicorn 2; -ENOMEM; -EIO: Unicorn
 * refused. `why` gets a text for the last three, at most `why_size` bytes with its NUL.
 */
int ldfs_machine_create(const char *library, void *ram, const ldfs_ram_range *ranges,
			uint32_t range_count, uint32_t vcpus, ldfs_machine **out, char *why,
			size_t why_size);
/* [owner] Set general registers, rip and eflags. -EINVAL: no such vCPU; -EBUSY: started already. */
int ldfs_machine_set_registers(ldfs_machine *m, uint32_t vcpu, const ldfs_registers *registers);
/* [owner] Start the vCPU threads. -EBUSY: started already; errors of pthread_create. */
int ldfs_machine_start(ldfs_machine *m);
/*
 * [owner] End all vCPU threads, parked ones too (without running any more guest code) and wait for
 * them until `deadline_ns` (absolute). -ETIMEDOUT: one still runs, e.g. waits for a dump's slot;
 * call again. May be called in any state and more than once.
 */
int ldfs_machine_stop(ldfs_machine *m, uint64_t deadline_ns);
/* [owner] Free. -EBUSY: a vCPU thread has not been stopped; nothing is done then. */
int ldfs_machine_destroy(ldfs_machine *m);

/* [any thread] For ldfs_dump_start; valid as long as the machine. */
ldfs_quiesce_ops *ldfs_machine_ops(ldfs_machine *m);
/*
 * [any thread] Hold every vCPU at an instruction boundary with exact registers, or halted. Calls
 * nest: the machine runs again after as many resumes. -ETIMEDOUT at `deadline_ns` (absolute):
 * undone.
 */
int ldfs_machine_quiesce(ldfs_machine *m, uint64_t deadline_ns);
/* [any thread] -EINVAL: no quiesce is outstanding. */
int ldfs_machine_resume(ldfs_machine *m);
/*
 * [any thread] Live registers: that vCPU is parked for the few microseconds it takes. -EINVAL: no
 * such vCPU; -ETIMEDOUT at `deadline_ns` (absolute).
 */
int ldfs_machine_registers(ldfs_machine *m, uint32_t vcpu, ldfs_registers *out,
			   uint64_t deadline_ns);
/* [any thread] What the last capture kept. -EINVAL: no such vCPU; -ENODATA: no capture yet. */
int ldfs_machine_snapshot(ldfs_machine *m, uint32_t vcpu, ldfs_registers *out);
/*
 * [any thread] Copy the newest console output, oldest byte first, to buf; returns its length. At
 * most LDFS_CONSOLE_SIZE bytes of whole lines and one unfinished line (255 bytes) per vCPU are
 * kept.
 */
uint64_t ldfs_machine_console(ldfs_machine *m, uint8_t *buf, uint64_t size);
/* [any thread] -EINVAL: no such vCPU. */
int ldfs_machine_status(ldfs_machine *m, uint32_t vcpu, ldfs_vcpu_status *out);
/* [any thread] Unicorn's own words for a uc_err. */
const char *ldfs_machine_error_text(const ldfs_machine *m, int error);

/* cffi: end */

#endif /* LDFS_H */
