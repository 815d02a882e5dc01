/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * signals.pml - native/fault/inside.c where dumps of both backends with a signal follow each other: a signal may
 * be that of an earlier dump, and a SIGBUS may have other causes than us. And the reader of the event of START's
 * swap, which userfaultfd has in place of a monitor then (native/fault/monitor.c).
 */

bit sigbus;                 /* backend of this dump; else SIGSEGV */
bit opened[NG];             /* ldfs_dump.writable */
bit moving;                 /* a mapping is being moved: unprotecting gives EAGAIN, and is tried again */
bit event;                  /* UFFD_EVENT_REMAP, not read yet: the thread that moved the mapping waits for that */
bit closing;                /* the arena ends */
bit overtakes;              /* RELEASE came before START was over */

/*
 * The kernel is asked whether the store can go on (MADV_POPULATE_WRITE). If not, the fault is passed on, and the
 * program dies of it: nothing else than our protection stops a store here.
 */
inline populate(g)
{
	assert(writable[g])
}

inline mark_opened(g)
{
	opened[g] = 1
}

/* sent: by which signal the store was stopped. */
inline handle(g, sent)
{
	inside++;               /* counted in first, then looked */
	if
	:: !linked -> populate(g)
	:: linked ->
		d_step { assert(!freed); s = phase };
		if
#ifdef BUG_LATE_PASSED_ON
		:: sent != sigbus -> populate(g)
#endif
		:: sigbus && opened[g] -> populate(g)
		:: else ->
			if
			:: s == PHASE_READY
			:: s == PHASE_RELEASED -> s = 0; moved(); make_writable(g, g, won); mark_opened(g)
			:: else ->
				s = 0;
#ifdef BUG_OPENED_EARLY
				mark_opened(g);
#endif
				save_and_make_writable(g);
				mark_opened(g)
			fi
		fi
	fi;
	atomic { s = 0; won = 0; inside-- }
}

/* A handler that meets EAGAIN tries again; it never does while START waits for the threads that are inside. */
inline moved()
{
	!moving
}

proctype event_reader()
{
	do
	:: event -> event = 0
#ifdef BUG_READER_OF_ONE_DUMP
	:: atomic { phase == PHASE_RELEASED -> break }
#endif
	:: atomic { closing -> break }
	od
}

/* -------------------------------------------------------------------- owner */

/* INIT, by either backend. */
inline next_dump()
{
	atomic {
		initialise();
		do
		:: k < NG -> opened[k] = 0; k++
		:: else -> break
		od;
		k = 0;
		writer_ended = 1;
		if
		:: sigbus = 1
		:: sigbus = 0
		fi
	};
	inside == 0
}

/* START. With userfaultfd mremap returns when its event was read. */
inline start_swapped()
{
	stop = 1;
	running == 0;
	linked = 1;
	inside == 0;
	atomic {
		take_instant();
		arm();
		moving = sigbus;
		event = sigbus
	};
	!event;
	moving = 0;
	if
	:: atomic { phase == PHASE_READY -> phase = PHASE_ARMED }
	:: phase == PHASE_RELEASED -> disarm()
	fi;
	stop = 0
}

/* START that RELEASE overtook may have linked the dump once more: a thread that saw it then is waited for. */
inline free_dump()
{
	inside == 0;
	freed = 1
}
