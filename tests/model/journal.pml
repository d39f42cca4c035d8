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
 * Checked in every state that can be reached (tests/model/run.py):
 *   LAW 1  a recipient of an accepted batch is pending, in flight or settled: nobody is forgotten
 *   LAW 2  one settle record a recipient
 *   LAW 4  the batch leaves active/ only when every settle record is durable
 *   LAW 6  a delivery repeats only when its settle record was not durable, and is then marked
 * BUG n plants an error, each of which must be found.
 */
#ifndef BUG
#define BUG 0
#endif
#define RECIPIENTS 2
#define CRASHES_MAX 3

mtype:place = { PENDING, FLIGHT, SETTLING, SETTLED }
mtype:pipe = { PIPE_IDLE, PIPE_WRITING, PIPE_SYNCING }
mtype:check = { CHECK_NONE, CHECK_SYNCING, CHECK_NAMING, CHECK_REMOVING }
mtype:stage = { INTAKE_SCANNING, INTAKE_ACCEPTING, INTAKE_ACTIVE, INTAKE_LEAVING, INTAKE_FREE }
/* Of a record: not written, in memory, in the page cache, on stable storage. */
mtype:record = { NOWHERE, GATHERED, CACHED, DURABLE }

/* What a crash takes. */
mtype:place place[RECIPIENTS];
mtype:pipe pipe;
mtype:check check;
mtype:stage stage;
bool in_flying[RECIPIENTS]; /* the record is in the group under way */
bool accept_in_flying;
bool is_marked[RECIPIENTS]; /* possible_duplicate */

/* What is on the disk. */
mtype:record settle[RECIPIENTS]; /* in the segments */
mtype:record accept;
bool has_checkpoint;         /* it has its name, durably */
bool has_name;               /* it has its name, in the page cache */
bool checked[RECIPIENTS];    /* the checkpoint stands for the settle record */
bool has_segments = true;    /* the segments that the checkpoint stands for are still there */
bool has_left;               /* the batch's directory has left active/ */
bool is_clean;               /* the marker of an orderly stop */

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

/* A checkpoint is made from closed segments: what is durable in them. */
inline check_begin()
{
    check == CHECK_NONE && !has_checkpoint && (settle[0] == DURABLE || settle[1] == DURABLE) ->
    checked[0] = (settle[0] == DURABLE);
    checked[1] = (settle[1] == DURABLE && BUG != 3);
    check = CHECK_SYNCING
}

inline check_synced()
{
    check == CHECK_SYNCING -> has_name = true; check = CHECK_NAMING;
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
    check == CHECK_REMOVING -> segments_remove(); check = CHECK_NONE
}

inline leave()
{
    stage == INTAKE_ACTIVE && place[0] == SETTLED && place[1] == SETTLED ->
    assert(IS_DURABLE(0) && IS_DURABLE(1)); /* LAW 4 */
    stage = INTAKE_LEAVING;
    has_left = true
}

/* One part of the page cache survives, or does not. */
inline tear(record_of, is_power_loss)
{
    if
    :: record_of == GATHERED -> record_of = NOWHERE
    :: record_of == CACHED && is_power_loss -> record_of = NOWHERE
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
    /* A part of what was written may be on the disk by chance: it is as after a kill then. */
    if
    :: has_name && is_power_loss && !has_checkpoint -> has_name = false
    :: has_name -> has_checkpoint = true
    :: else
    fi;
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
    recover();
    is_clean = false
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
    if
    :: has_left -> stage = INTAKE_LEAVING
    :: !has_left && accept == NOWHERE ->
        assert(!is_acknowledged); /* what was accepted stays so */
        stage = INTAKE_SCANNING
    :: else -> stage = INTAKE_ACTIVE
    fi
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
    :: atomic { check_begin() }
    :: atomic { check_synced() }
    :: atomic { check_named() }
    :: atomic { check_remove() }
    :: atomic { leave() }
    :: atomic { stop() }
    :: atomic { crash(true) }
    :: atomic { crash(false) }
    :: atomic { stage == INTAKE_LEAVING -> stage = INTAKE_FREE; break }
    od;
    /* LAW 1, at the end: nobody was forgotten. */
    assert(delivered[0] > 0 && delivered[1] > 0)
}
