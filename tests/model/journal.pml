/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A model of how a recipient's outcome becomes durable: accept -> journal -> settle -> checkpoint
 * -> recovery, with a power failure or a kill between any two steps. States have the names they
 * have in the code: queue/journal_priv.h (pipe, check), engine/intake_priv.h (stages), docs/LAW.md.
 *
 * One batch of RECIPIENTS; a group holds whatever gathered. What is written and not synced is in
 * the page cache: a kill keeps it, a power failure keeps any part of it (a torn group). A record
 * lies in the segments, or a checkpoint stands for it.
 *
 * Beside its record each outcome has a line in results.ndjson, which is written and synced by its
 * own clock. A checkpoint knows who is settled and not by what, so from its name on a lost line can
 * only be made again from `results-missing` (engine/intake_results.c).
 *
 * Of a large batch a block of `.results.index` says that a stretch of results.ndjson is on stable
 * storage (docs/JOURNAL.md 8); here a stretch is one line. A start behind a crash does not look at
 * the line when the block can be read and all in it are settled. A power failure may take any
 * block.
 *
 * Checked in every state that can be reached (tests/model/run.py):
 *   LAW 1  a recipient of an accepted batch is pending, in flight or settled: nobody is forgotten
 *   LAW 2  one settle record a recipient
 *   LAW 4  the batch leaves active/ only when every settle record is durable
 *   LAW 6  a delivery repeats only when its settle record was not durable, and is then marked
 *   lines  who is settled has a line, or a record from which it can be made, after any crash; the
 *          batch leaves active/ with the lines of all; nobody has two
 * BUG n plants an error, each of which must be found: 1 acknowledged before the sync, 2 sync that
 * does nothing, 3 checkpoint that forgets one, 4 removals before it is durable, 5 replay that does
 * not write the last group again, 6 and 7 mark forgotten, 8 checkpoint named before lines are
 * synced, 9 results-missing not synced, 10 batch handed back without its lines, 11 lines left out
 * of results-missing that are in the page cache only, 12 line of nobody settled left in the file,
 * 13 orderly stop without the sync of lines, 14 block written before its line is synced, 15 block
 * believed of somebody who is not settled.
 */
#ifndef BUG
#define BUG 0
#endif
#define RECIPIENTS 2
#define CRASHES_MAX 3

mtype:place = { PENDING, FLIGHT, SETTLING, SETTLED }
mtype:pipe = { PIPE_IDLE, PIPE_WRITING, PIPE_SYNCING }
mtype:check = { CHECK_NONE, CHECK_SYNCING, CHECK_WAITING, CHECK_NAMING, CHECK_REMOVING }
/* LOOKING, KEEPING: a start before its journal's first step; COMPLETING: lines are added. */
mtype:stage = { INTAKE_SCANNING, INTAKE_ACCEPTING, INTAKE_ACTIVE, INTAKE_LEAVING, INTAKE_FREE,
                INTAKE_LOOKING, INTAKE_KEEPING, INTAKE_COMPLETING }
/* Of a record, or a line: not written, in memory, in the page cache, on stable storage. */
mtype:record = { NOWHERE, GATHERED, CACHED, DURABLE }

/* What a crash takes. */
mtype:place place[RECIPIENTS];
mtype:pipe pipe;
mtype:check check;
mtype:stage stage;
bool in_flying[RECIPIENTS]; /* the record is in the group under way */
bool accept_in_flying;
bool is_marked[RECIPIENTS]; /* possible_duplicate */
bool is_unsynced;           /* the journal has written lines since the last sync of their file */
bool final[RECIPIENTS];     /* settled without a line, and its record was found */

/* What is on the disk. */
mtype:record settle[RECIPIENTS]; /* in the segments */
mtype:record accept;
bool has_checkpoint;         /* it has its name, durably */
bool has_name;               /* it has its name, in the page cache */
bool checked[RECIPIENTS];    /* the checkpoint stands for the settle record */
bool has_segments = true;    /* the segments that the checkpoint stands for are still there */
bool has_left;               /* the batch's directory has left active/ */
bool is_clean;               /* the marker of an orderly stop */
mtype:record line[RECIPIENTS]; /* in results.ndjson */
bool has_block[RECIPIENTS];    /* in .results.index, and it can be read: the line is durable */
bool kept[RECIPIENTS];       /* the record is in results-missing */
bool has_unsynced_kept;      /* BUG 9 only: and what that file is in the page cache */
bool unsynced_kept[RECIPIENTS];

/* What the world has seen. */
byte delivered[RECIPIENTS];
byte crashes;
bool is_acknowledged;        /* people were told that the batch is accepted */
bool was_lost[RECIPIENTS];
bool has_stopped;

#define IS_DURABLE(i) (settle[i] == DURABLE || (has_checkpoint && checked[i]))

inline start_delivery(i)
{
    stage == INTAKE_ACTIVE && place[i] == PENDING -> place[i] = FLIGHT
}

/* The server takes the message: end of data was sent, and the 2xx read. */
inline deliver(i)
{
    place[i] == FLIGHT ->
    assert(!IS_DURABLE(i));                     /* LAW 6 */
    assert(delivered[i] == 0 || is_marked[i]);  /* LAW 6: the log says so */
    delivered[i]++;
    assert(settle[i] == NOWHERE);               /* LAW 2 */
    settle[i] = GATHERED;
    assert(line[i] == NOWHERE);                 /* lines: nobody has two */
    line[i] = GATHERED;
    place[i] = SETTLING
}

/* The server takes it, and the connection is lost before its 2xx: tried again, and marked. */
inline lose(i)
{
    place[i] == FLIGHT && !was_lost[i] ->
    was_lost[i] = true; /* once is enough */
    assert(!IS_DURABLE(i));
    assert(delivered[i] == 0 || is_marked[i]);
    delivered[i]++;
    is_marked[i] = (BUG != 6);
    place[i] = PENDING
}

inline group_launch()
{
    pipe == PIPE_IDLE && (accept == GATHERED || settle[0] == GATHERED || settle[1] == GATHERED) ->
    accept_in_flying = (accept == GATHERED);
    in_flying[0] = (settle[0] == GATHERED);
    in_flying[1] = (settle[1] == GATHERED);
    pipe = PIPE_WRITING
}

inline group_written()
{
    pipe == PIPE_WRITING ->
    if :: accept_in_flying -> accept = CACHED :: else fi;
    if :: in_flying[0] -> settle[0] = CACHED :: else fi;
    if :: in_flying[1] -> settle[1] = CACHED :: else fi;
    pipe = PIPE_SYNCING;
    if
    :: BUG == 1 -> group_acknowledge() /* before the sync */
    :: else
    fi
}

inline group_acknowledge()
{
    if :: accept_in_flying -> stage = INTAKE_ACTIVE; is_acknowledged = true :: else fi;
    if :: in_flying[0] -> place[0] = SETTLED :: else fi;
    if :: in_flying[1] -> place[1] = SETTLED :: else fi
}

inline group_synced()
{
    pipe == PIPE_SYNCING ->
    if :: accept_in_flying && accept == CACHED -> accept = DURABLE :: else fi;
    if :: in_flying[0] && settle[0] == CACHED && BUG != 2 -> settle[0] = DURABLE :: else fi;
    if :: in_flying[1] && settle[1] == CACHED && BUG != 2 -> settle[1] = DURABLE :: else fi;
    if :: BUG != 1 -> group_acknowledge() :: else fi;
    accept_in_flying = false;
    in_flying[0] = false;
    in_flying[1] = false;
    pipe = PIPE_IDLE
}

/* results.ndjson has its own buffers ... */
inline line_write(i)
{
    line[i] == GATHERED -> line[i] = CACHED; is_unsynced = true
}

/* ... and is synced for a checkpoint, and at the batch's end. */
inline lines_sync()
{
    is_unsynced && (check == CHECK_WAITING || (place[0] == SETTLED && place[1] == SETTLED)) ->
    lines_make_durable();
    is_unsynced = false
}

inline lines_make_durable()
{
    if :: line[0] == CACHED -> line[0] = DURABLE :: else fi;
    if :: line[1] == CACHED -> line[1] = DURABLE :: else fi
}

/* Behind the sync of its line; the index need not be durable. */
inline block_write(i)
{
    stage == INTAKE_ACTIVE && !has_block[i] &&
    (line[i] == DURABLE || (BUG == 14 && line[i] == CACHED)) ->
    has_block[i] = true
}

#define IS_JOURNAL_RUNNING (stage != INTAKE_LOOKING && stage != INTAKE_KEEPING)
#define HAS_LINES_PENDING (is_unsynced || line[0] == GATHERED || line[1] == GATHERED)
/* The checkpoint takes nothing away that a line could need. */
#define IS_LINE_SAFE(i) (!checked[i] || line[i] == DURABLE || kept[i])

/* A checkpoint is made from closed segments: what is durable in them. */
inline check_begin()
{
    check == CHECK_NONE && !has_checkpoint && IS_JOURNAL_RUNNING &&
    (settle[0] == DURABLE || settle[1] == DURABLE) ->
    checked[0] = (settle[0] == DURABLE);
    checked[1] = (settle[1] == DURABLE && BUG != 3);
    check = CHECK_SYNCING
}

inline check_synced()
{
    check == CHECK_SYNCING -> check = CHECK_WAITING
}

/* Under its name it counts, as soon as that is durable. */
inline check_name()
{
    check == CHECK_WAITING && (BUG == 8 || !HAS_LINES_PENDING) ->
    assert(BUG == 8 || (IS_LINE_SAFE(0) && IS_LINE_SAFE(1)));
    has_name = true;
    check = CHECK_NAMING;
    if :: BUG == 4 -> segments_remove() :: else fi
}

inline check_named()
{
    check == CHECK_NAMING -> has_checkpoint = true; check = CHECK_REMOVING
}

inline segments_remove()
{
    has_segments = false;
    if :: settle[0] == DURABLE && (checked[0] || BUG == 3) -> settle[0] = NOWHERE :: else fi;
    if :: settle[1] == DURABLE && (checked[1] || BUG == 3) -> settle[1] = NOWHERE :: else fi
}

inline check_remove()
{
    check == CHECK_REMOVING && IS_JOURNAL_RUNNING -> segments_remove(); check = CHECK_NONE
}

inline leave()
{
    stage == INTAKE_ACTIVE && place[0] == SETTLED && place[1] == SETTLED &&
    (BUG == 10 || !HAS_LINES_PENDING) ->
    assert(IS_DURABLE(0) && IS_DURABLE(1)); /* LAW 4 */
    assert(line[0] == DURABLE && line[1] == DURABLE); /* lines: of all */
    stage = INTAKE_LEAVING;
    has_left = true
}

/* One part of the page cache survives, or does not. */
inline tear(record_of, is_power_loss)
{
    if
    :: record_of == GATHERED -> record_of = NOWHERE
    :: record_of == CACHED && is_power_loss -> record_of = NOWHERE
    :: record_of == CACHED
    :: else
    fi
}

inline crash(is_power_loss)
{
    crashes < CRASHES_MAX && stage != INTAKE_FREE ->
    crashes++;
    tear(accept, is_power_loss);
    tear(settle[0], is_power_loss);
    tear(settle[1], is_power_loss);
    tear(line[0], is_power_loss);
    tear(line[1], is_power_loss);
    if :: is_power_loss -> has_block[0] = false :: true fi;
    if :: is_power_loss -> has_block[1] = false :: true fi;
    if
    :: has_name && is_power_loss && !has_checkpoint -> has_name = false
    :: has_name -> has_checkpoint = true
    :: else
    fi;
    if
    :: has_unsynced_kept && !is_power_loss ->
        kept[0] = unsynced_kept[0];
        kept[1] = unsynced_kept[1]
    :: else
    fi;
    unsynced_kept_forget();
    recover()
}

/* In order: sessions have ended, the journal has written all. Nobody is in doubt but who was. */
inline stop()
{
    !has_stopped && stage == INTAKE_ACTIVE && pipe == PIPE_IDLE && place[0] != FLIGHT &&
    place[1] != FLIGHT && accept != GATHERED && settle[0] != GATHERED && settle[1] != GATHERED &&
    check == CHECK_NONE ->
    has_stopped = true; /* once is enough */
    is_clean = true;
    if :: line[0] == GATHERED -> line[0] = CACHED :: else fi;
    if :: line[1] == GATHERED -> line[1] = CACHED :: else fi;
    if :: BUG != 13 -> lines_make_durable() :: else fi;
    recover();
    is_clean = false
}

inline unsynced_kept_forget()
{
    has_unsynced_kept = false;
    unsynced_kept[0] = false;
    unsynced_kept[1] = false
}

/* What replay believes it writes again and syncs, before anything is told by it. */
inline recover()
{
    if :: accept == CACHED && BUG != 5 -> accept = DURABLE :: else fi;
    if :: settle[0] == CACHED && BUG != 5 -> settle[0] = DURABLE :: else fi;
    if :: settle[1] == CACHED && BUG != 5 -> settle[1] = DURABLE :: else fi;
    pipe = PIPE_IDLE;
    accept_in_flying = false;
    in_flying[0] = false;
    in_flying[1] = false;
    check = (has_checkpoint && has_segments -> CHECK_REMOVING : CHECK_NONE);
    if :: !has_checkpoint -> checked[0] = false; checked[1] = false :: else fi;
    recover_recipient(0);
    recover_recipient(1);
    is_unsynced = false;
    final[0] = false;
    final[1] = false;
    if
    :: has_left -> stage = INTAKE_LEAVING
    :: !has_left && accept == NOWHERE ->
        assert(!is_acknowledged); /* what was accepted stays so */
        stage = INTAKE_SCANNING
    :: else -> stage = (is_clean && !kept[0] && !kept[1] -> INTAKE_ACTIVE : INTAKE_LOOKING)
    fi
}

/* Moves 1 and 2 of engine/intake_results.c. Lines that are there are synced; those of somebody who
 * is not settled by what replay believed are taken out, durably. */
#define IS_BELIEVED(i) (has_block[i] && (place[i] == SETTLED || BUG == 15))
inline results_look(i)
{
    if
    :: IS_BELIEVED(i) ->
        assert(line[i] == DURABLE) /* lines: nobody will look whether it is there */
    :: else -> result_look(i)
    fi
}

inline result_look(i)
{
    if
    :: line[i] == CACHED && BUG != 11 -> line[i] = DURABLE
    :: else
    fi;
    if
    :: line[i] != NOWHERE && place[i] != SETTLED && BUG != 12 ->
        has_block[0] = false; /* whatever takes bytes away removes the index first */
        has_block[1] = false;
        line[i] = NOWHERE
    :: line[i] == NOWHERE && place[i] == SETTLED ->
        assert((settle[i] == DURABLE && !(has_checkpoint && checked[i])) || kept[i]);
        final[i] = true
    :: else
    fi
}

/* Move 3: one file takes the place of the one before, durably. */
inline results_keep()
{
    stage == INTAKE_KEEPING ->
    if
    :: BUG == 9 ->
        has_unsynced_kept = true;
        unsynced_kept[0] = final[0];
        unsynced_kept[1] = final[1]
    :: else ->
        kept[0] = final[0];
        kept[1] = final[1]
    fi;
    stage = INTAKE_COMPLETING
}

/* Move 4, beside a running journal. */
inline result_complete(i)
{
    stage == INTAKE_COMPLETING && final[i] ->
    assert(line[i] == NOWHERE); /* lines: nobody has two */
    line[i] = CACHED;
    final[i] = false
}

inline results_end()
{
    stage == INTAKE_COMPLETING && !final[0] && !final[1] ->
    lines_make_durable();
    stage = INTAKE_ACTIVE
}

inline recover_recipient(i)
{
    if
    :: settle[i] == DURABLE || settle[i] == CACHED || (has_checkpoint && checked[i]) ->
        place[i] = SETTLED
    :: else ->
        assert(!has_left);
        place[i] = PENDING;
        is_marked[i] = (is_marked[i] || (!is_clean && BUG != 7))
    fi
}

init
{
    place[0] = PENDING;
    place[1] = PENDING;
    pipe = PIPE_IDLE;
    check = CHECK_NONE;
    stage = INTAKE_SCANNING;
    accept = NOWHERE;
    settle[0] = NOWHERE;
    settle[1] = NOWHERE;
    line[0] = NOWHERE;
    line[1] = NOWHERE;
    do
    :: atomic { stage == INTAKE_SCANNING -> accept = GATHERED; stage = INTAKE_ACCEPTING }
    :: atomic { start_delivery(0) }
    :: atomic { start_delivery(1) }
    :: atomic { deliver(0) }
    :: atomic { deliver(1) }
    :: atomic { lose(0) }
    :: atomic { lose(1) }
    :: atomic { group_launch() }
    :: atomic { group_written() }
    :: atomic { group_synced() }
    :: atomic { line_write(0) }
    :: atomic { line_write(1) }
    :: atomic { lines_sync() }
    :: atomic { block_write(0) }
    :: atomic { block_write(1) }
    :: atomic { check_begin() }
    :: atomic { check_synced() }
    :: atomic { check_name() }
    :: atomic { check_named() }
    :: atomic { check_remove() }
    :: atomic {
        stage == INTAKE_LOOKING -> results_look(0); results_look(1); stage = INTAKE_KEEPING
    }
    :: atomic { results_keep() }
    :: atomic { result_complete(0) }
    :: atomic { result_complete(1) }
    :: atomic { results_end() }
    :: atomic { leave() }
    :: atomic { stop() }
    :: atomic { crash(true) }
    :: atomic { crash(false) }
    :: atomic { stage == INTAKE_LEAVING -> stage = INTAKE_FREE; break }
    od;
    /* LAW 1, at the end: nobody was forgotten. */
    assert(delivered[0] > 0 && delivered[1] > 0)
}
