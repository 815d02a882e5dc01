/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * hold.pml - HOLD, ARM and GO (native/life/gaps.c, start.c; livedumpfs/dump/held.py): one holder, a client that asks for ARM and
 * GO or dies at any moment, RELEASE at any moment, a deadline that passes at any moment or never, and the shim of a QEMU, which
 * lets the machine run some time after the deadline when the holder does not come to its turn. What is armed and how is
 * protocol.pml; here only that it is.
 */
#define ON 0            /* enum ldfs_hold_end */
#define GO 1
#define EXPIRED 2
#define ENDED 3         /* by RELEASE */
#define FAILED 4
#define GOING 5

#define STOPPING 0      /* enum ldfs_hold_stage */
#define STANDS 1
#define ARMED 2
#define OVER 3

#define READY 0         /* of the dump's phase */
#define STARTED 1
#define RELEASED 2

byte end_by = ON, stage = STOPPING, phase = READY;
bit arm, woken;         /* ARM was asked for; the holder's event */
bit past, late;         /* the deadline has passed; the shim has said the last words */
bit runs = 1, armed, linked;
bit released;           /* RELEASE has returned, or never comes */
byte resumed;           /* how often the holder let it go */
bit soon, died;         /* whether the deadline passes although the client lives; the client has died */

#ifdef BUG_NO_WAKE_HOLDER
#define WAKE skip
#else
#define WAKE woken = 1
#endif

/* Only the first one to end it does. */
inline ends(by)
{
	atomic { if :: end_by == ON -> end_by = by :: else fi }
}

inline disarm()
{
	atomic { armed = 0; linked = 0 }
}

/* ldfs_hold_wait */
inline wait(for_arm, ok)
{
	do
	:: woken = 0;
	   if
	   :: end_by != ON -> ok = 0; break
	   :: end_by == ON && past ->
		ends(EXPIRED);
		ok = 0; break
	   :: end_by == ON && !past && for_arm && arm -> ok = 1; break
	   :: else -> (woken || past)
	   fi
	od
}

/* ldfs_dump_start_held; what the shim looks at is do_start of native/shim/dump.c */
proctype holder()
{
	bit ok;

	runs = 0;
	stage = STANDS;
	wait(1, ok);
	if
	:: ok && late -> ok = 0
	:: ok && !late ->
		linked = 1;
		armed = 1;
		if
		:: late -> disarm(); ok = 0
		:: else
		fi;
		atomic {
			if
			:: ok && phase == READY -> phase = STARTED
			:: else -> ok = 0
			fi
		};
		if :: !ok -> disarm() :: else fi
	:: else
	fi;
	if
	:: ok -> stage = ARMED; wait(0, ok)
	:: else
	fi;
	runs = 1;
	resumed++;
	ends(FAILED);
	stage = OVER
}

/* Dies at any moment: then it asks for nothing more. */
proctype client()
{
	byte found;
	bit stood;

	(stage >= STANDS);
	if :: skip :: died = 1; goto done fi;
	arm = 1; WAKE;
	(stage >= ARMED);
	if :: stage == OVER -> goto done :: else fi;
	if :: skip :: died = 1; goto done fi;
	/* ldfs_hold_go: the word, then the clock */
#ifdef BUG_CLOCK_FIRST
	if :: past -> goto done :: else fi;
#endif
	atomic {
		stood = !runs && (armed || phase == RELEASED);
		if :: end_by == ON -> end_by = GOING; found = GOING :: else -> found = end_by fi
	};
	if
	:: found == GOING ->
		atomic {
#ifdef BUG_CLOCK_FIRST
			found = GO;
#else
			found = (past -> EXPIRED : GO);
#endif
			end_by = found
		}
	:: else
	fi;
	assert(found != GO || stood);
	WAKE;
	(stage == OVER);
done:	skip
}

proctype release()
{
	byte before;

	ends(ENDED); WAKE;
	atomic { before = phase; phase = RELEASED };
	if
	:: before == READY -> !linked /* wait_for_start */
	:: else -> disarm()
	fi;
	(stage == OVER);
	assert(runs && !armed && !linked);
	released = 1
}

/* A deadline that passes at any moment, or only once the client has died; and the shim's. */
proctype time()
{
end:	(soon || died);
	past = 1;
#ifdef SHIM
	if
	:: stage == STANDS || stage == ARMED -> atomic { late = 1; runs = 1 }
	:: skip
	fi
#endif
}

init {
	atomic {
		if :: soon = 1 :: skip fi;
		run holder(); run client(); run time();
		if :: run release() :: released = 1 fi
	};
	(stage == OVER && released);
	assert(runs && resumed == 1 && armed <= linked && (armed -> phase == STARTED : 1))
}
