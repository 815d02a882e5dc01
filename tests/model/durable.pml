/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * durable.pml - what a dump says of itself on its target when the host dies or the power fails: native/saving/table.c, sync_target() in
 * native/saving/sweep.c, judge() in livedumpfs/dump/verdict.py, opening() and seal() in livedumpfs/formats/plan.py. States and
 * steps of granules are those of protocol.pml, which says that what is written are the bytes of the instant.
 *
 * A cell of the page cache is a granule's data, the table's block, the superblock or the meta data. The kernel brings it to the
 * platter at any time and in any order, data and table also in parts (the superblock is one sector, and has the checksum of
 * the meta data). It may fail at that: one sync alone is told, because core and Python share one open file. A kill is that the
 * host does nothing more, a power loss that the kernel does neither; so what they leave is what is there at any moment, and that
 * is looked at whenever it changes.
 */
#define NG 2
#define DATA(g) (g)
#define TABLE 2
#define SUPER 3
#define META 4
#define CELLS 5

/* The files: the table's may be another one, as the sidecar of a raw dump is. */
#ifdef SIDECAR
#define FILE_OF(c) ((c) >= TABLE)
#else
#define FILE_OF(c) 0
#endif
#define TARGET 0
#define BOOK FILE_OF(SUPER)

/* What cells hold. OLD is of the dump that was there before; the table's marks are two bits a granule. */
#define OLD 128
#define TORN 64                     /* in part the one, in part the other */
#define NEW 1
#define WIPED 2
#define OPEN 3
#define INCOMPLETE 4                /* sealed, with a verdict */
#define CONSISTENT 5
#define MISSED 6                    /* verdict "torn": granules are lost */

#define SAVED 1
#define LOST 2
#define MARK(table, g) (((table) >> (2 * (g))) & 3)
#define COUNTS(table) ((table) < TORN)  /* id and checksum are right */

byte cache[CELLS] = OLD;
byte platter[CELLS] = OLD;
bit dirty[CELLS];                   /* page: not on the platter yet */
bit error[2];                       /* file: the next sync says so */
byte failures = 2;                  /* how much may still fail */
bit writeback_failed;               /* ghost */

byte state[NG];                     /* 0, SAVED or LOST */
bit marked;                         /* the table's block is to be written */
bit locked;                         /* the table */
byte remaining = NG;
bit not_durable;

/* ------------------------------------------------------------------ readers */

#define OURS(place) (place[SUPER] >= OPEN && place[SUPER] != OLD && COUNTS(place[TABLE]))
#define SAYS(place, verdict) (place[SUPER] == (verdict))
#define SEALED(place) (SAYS(place, INCOMPLETE) || SAYS(place, CONSISTENT) || SAYS(place, MISSED))
#define RIGHT(place, g) (MARK(place[TABLE], g) != SAVED || place[DATA(g)] == NEW)
#define OLD_IS_WHOLE(place) (place[DATA(0)] == OLD && place[DATA(1)] == OLD && place[TABLE] == OLD)

/* After a kill the page cache is whole: what is marked is there. (What failed on its way to the platter may have been dropped.) */
inline after_a_kill()
{
	assert(!OURS(cache) || writeback_failed || (RIGHT(cache, 0) && RIGHT(cache, 1)));
	assert(!SAYS(cache, OLD) || OLD_IS_WHOLE(cache))
}

/*
 * After a power loss a seal's word holds for data, marks and meta data. Marks of an unsealed dump are hints: their checksums
 * tell whether the bytes came with them.
 */
inline after_a_power_loss()
{
	assert(!SAYS(platter, OLD) || OLD_IS_WHOLE(platter));
	assert(!SEALED(platter) || platter[META] == NEW);
	assert(!SAYS(platter, CONSISTENT) ||
		(MARK(platter[TABLE], 0) == SAVED && MARK(platter[TABLE], 1) == SAVED));
	assert(!(SAYS(platter, CONSISTENT) || SAYS(platter, MISSED)) ||
		(COUNTS(platter[TABLE]) && MARK(platter[TABLE], 0) && MARK(platter[TABLE], 1) &&
		RIGHT(platter, 0) && RIGHT(platter, 1)));
#ifdef BUG_MARKS_TRUSTED
	assert(!OURS(platter) || (RIGHT(platter, 0) && RIGHT(platter, 1)))
#endif
}

/* ------------------------------------------------------------------- kernel */

inline put_whole(cell, value)
{
	atomic { cache[cell] = value; dirty[cell] = 1; after_a_kill() }
}

/* A pwrite that may be cut off by a kill. */
inline put(cell, value)
{
	atomic { cache[cell] = TORN; dirty[cell] = 1; after_a_kill() };
	put_whole(cell, value)
}

#define CLEAN(f, c) (!dirty[c] || FILE_OF(c) != (f))

inline sync(f, good)
{
	atomic {
		CLEAN(f, 0) && CLEAN(f, 1) && CLEAN(f, TABLE) && CLEAN(f, SUPER) && CLEAN(f, META);
		good = !error[f];
		error[f] = 0
	}
}

inline select_dirty(c)
{
	if
	:: dirty[DATA(0)] -> c = DATA(0)
	:: dirty[DATA(1)] -> c = DATA(1)
	:: dirty[TABLE] -> c = TABLE
	:: dirty[SUPER] -> c = SUPER
	:: dirty[META] -> c = META
	fi
}

active proctype kernel()
{
	byte c;
end:	do
	:: atomic {
			select_dirty(c);
			if
			:: platter[c] = cache[c]; dirty[c] = 0
			:: c <= TABLE && platter[c] != TORN -> platter[c] = TORN
			:: failures > 0 -> failures--; dirty[c] = 0; error[FILE_OF(c)] = 1; writeback_failed = 1
			fi;
			after_a_power_loss();
			c = 0
		}
	od
}

/* --------------------------------------------------------------------- core */

/* Sweep or writer: state, mark and count come after the pwrite has returned. */
proctype saver(byte g)
{
	byte found = SAVED;
#ifdef BUG_MARK_BEFORE_DATA
	state[g] = SAVED;
	marked = 1;
#endif
	if
	:: put(DATA(g), NEW)
	:: atomic { failures > 0 -> failures--; found = LOST }
	fi;
	state[g] = found;
	marked = 1;
	remaining--
}

/* The dirty flag is taken before the states are read: a step that comes later sets it again. */
inline flush()
{
	atomic { !locked -> locked = 1 };
	if
	:: marked ->
		marked = 0;
		block = state[0] | (state[1] << 2);
		if
		:: put(TABLE, block)
		:: atomic { failures > 0 -> failures--; marked = 1; not_durable = 1 }
		fi
	:: !marked
	fi;
	block = 0;
	locked = 0
}

/* ldfs_table_tick(), of whichever thread calls it. */
active proctype ticker()
{
	byte block;
end:	do
	:: marked -> flush()
	od
}

inline sync_target()
{
	flush();
	sync(TARGET, good);
#ifndef BUG_SYNC_ERROR_SEALS
	not_durable = not_durable || !good;
#endif
	sync(BOOK, good);
#ifndef BUG_SYNC_ERROR_SEALS
	not_durable = not_durable || !good;
#endif
	good = 0
}

/* --------------------------------------------------------------------- host */

/* INIT: what was there is no dump any more before anything of it is overwritten. */
inline opening()
{
#ifdef BUG_EMPTIED_FIRST
	put_whole(DATA(0), TORN);   /* a regular file: DumpFiles._make_room() */
#endif
	put_whole(SUPER, WIPED);
#ifndef BUG_WIPE_UNSYNCED
	sync(BOOK, good);
	if
	:: good
	:: !good -> goto over
	fi;
#endif
	put_whole(DATA(0), TORN);   /* what is not to show through: gaps, headers, an emptied file */
	put_whole(META, OLD);             /* another slot, which no seal names */
	put_whole(SUPER, OPEN);
	sync(BOOK, good);
	if
	:: good
	:: !good -> goto over
	fi;
	put(TABLE, 0)
}

#ifdef BUG_SEAL_BEFORE_SYNC
#define IS_DURABLE
#else
#define IS_DURABLE \
	sync(TARGET, good); \
	if \
	:: good -> sync(BOOK, good) \
	:: !good \
	fi; \
	if \
	:: good \
	:: !good -> goto over \
	fi;
#endif

inline seal()
{
	if
	:: not_durable -> block = INCOMPLETE
	:: !not_durable && (state[0] == LOST || state[1] == LOST) -> block = MISSED
	:: else -> block = CONSISTENT
	fi;
	put_whole(META, NEW);
	IS_DURABLE
	put_whole(SUPER, block);
	sync(BOOK, good)
}

active proctype host()
{
	byte block;
	bit good;
	opening();
	run saver(0);
	run saver(1);
	remaining == 0;
#ifndef BUG_SEAL_BEFORE_SYNC
	sync_target();
#else
	flush();
#endif
	seal();
over:	skip
}
