/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * rename.pml - how a sealed raw dump and its sidecar get their names when the last dump has them: publish() in
 * livedumpfs/targets/publish.py. The new files have been synced before (durable.pml). A name is an entry of the folder; a rename
 * is one change of the folder in memory, which the kernel brings to the platter at any time, each change in any order; a sync of
 * the folder waits for all. What a kill leaves is the folder in memory, what a power loss leaves the one on the platter, and both
 * are looked at whenever they change: a reader finds the last dump or the new one, whole.
 */
#define NONE 0
#define OLD 1
#define NEW 2

#define DUMP 0          /* TARGET */
#define SIDE 1          /* TARGET.ldfs */
#define NEXT 2          /* TARGET.incomplete */
#define NEXT_SIDE 3     /* TARGET.incomplete.ldfs */

byte memory[4];
byte platter[4];
bit renamed[2];         /* change 0: the dump, 1: the sidecar; in memory, and not yet on the platter */

/* A sidecar names its dump's inode: the one at the usual place, or else that of the unfinished name, if that is the dump's. */
#ifdef BUG_READER_BY_NAME
#define FOUND(place) place[SIDE]
#else
#define FOUND(place) (place[SIDE] == place[DUMP] -> place[SIDE] : (place[NEXT_SIDE] == place[DUMP] -> place[NEXT_SIDE] : place[SIDE]))
#endif
#define WHOLE(place) (place[DUMP] != NONE && FOUND(place) == place[DUMP])

#define RENAME(place, from, to) place[to] = place[from]; place[from] = NONE

inline change(which, from, to)
{
	atomic {
		RENAME(memory, from, to);
		renamed[which] = 1;
		assert(WHOLE(memory))
	}
}

active proctype kernel()
{
end:	do
	:: atomic { renamed[0] -> RENAME(platter, NEXT, DUMP); renamed[0] = 0; assert(WHOLE(platter)) }
	:: atomic { renamed[1] -> RENAME(platter, NEXT_SIDE, SIDE); renamed[1] = 0; assert(WHOLE(platter)) }
	od
}

#define SYNCED (!renamed[0] && !renamed[1])

active proctype publish()
{
	atomic {
		memory[DUMP] = OLD; memory[SIDE] = OLD; memory[NEXT] = NEW; memory[NEXT_SIDE] = NEW;
		platter[DUMP] = OLD; platter[SIDE] = OLD; platter[NEXT] = NEW; platter[NEXT_SIDE] = NEW
	};
#ifdef BUG_SIDECAR_FIRST
	change(1, NEXT_SIDE, SIDE);
	SYNCED;
	change(0, NEXT, DUMP);
#else
	change(0, NEXT, DUMP);
#ifndef BUG_FOLDER_UNSYNCED
	SYNCED;
#endif
	change(1, NEXT_SIDE, SIDE);
#endif
	SYNCED;
	assert(memory[DUMP] == NEW && memory[SIDE] == NEW && platter[DUMP] == NEW && platter[SIDE] == NEW)
}
