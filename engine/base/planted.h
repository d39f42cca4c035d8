/* SPDX-License-Identifier: Apache-2.0 */
/*
 * planted: deliberate bugs, to prove that the simulator's checkers see such.
 *
 * PLANTED(NAME) stands at the place of each and is false at compile time unless the build has the
 * meson option `planted`: the product has none of it. In such a build one bug at most is chosen,
 * before anything else runs (tests/sim/sim_planted.h, `./dev sim --planted`).
 */
#pragma once

#include <stdbool.h>

/* PLANT(name, what it does) */
#define PLANTS(PLANT)                                                                              \
    PLANT(SYNC_SKIPPED, "a group of the journal is not synced")                                    \
    PLANT(DEAL_EARLY, "a batch is dealt out before its accept record is durable")                  \
    PLANT(SETTLED_TWICE, "a recipient is counted as settled twice")                                \
    PLANT(RETRY_FORGOTTEN, "a deferred recipient is not put into the retry wheel")                 \
    PLANT(BORDER_RECORD_LOST, "a record in the last sector of a segment is not written")           \
    PLANT(CHECKPOINT_FORGETS, "a checkpoint leaves deferrals out")                                 \
    PLANT(DIR_SYNC_SKIPPED, "directories are not synced behind the rename of a batch")             \
    PLANT(BYTES_GIVEN_EARLY, "a message's bytes are given back while they are sent")               \
    PLANT(TEMP_IS_DELIVERED, "4xx to the end of data is taken as 2xx")                             \
    PLANT(LOST_IS_DELIVERED, "no answer to the end of data is taken as 2xx")                       \
    PLANT(DUPLICATE_UNMARKED, "a repeat is not called possible_duplicate")                         \
    PLANT(WHEEL_LATE, "who waits long comes into a coarse slot that opens late")                   \
    PLANT(CANCEL_LOSES_ONE, "a recipient that is deferred while its batch is cancelled is lost")   \
    PLANT(LIMIT_NOT_GIVEN, "a connection's place in its site's limit is not given back")           \
    PLANT(DATE_MOVES, "a message's date is that of its batch's opening")                           \
    PLANT(RATE_BY_GROUP, "the rate counts a transaction of many recipients as one message")        \
    PLANT(SENDER_LEAKS, "a batch that has ended leaves its compiled sender behind")                \
    PLANT(BLOCKS_KEPT, "bytes that were read ahead are kept until the engine ends")                \
    PLANT(BURST_ONE_MORE, "a message more than the burst goes at once")                            \
    PLANT(RESULTS_DROPPED, "lines of results that cannot be written are given up")                 \
    PLANT(WRONG_IS_DELIVERED, "3xx to the end of data is taken as 2xx")                            \
    PLANT(EARLY_IS_DELIVERED, "a 2xx before the message is sent counts as its acceptance")         \
    PLANT(DATA_503_BOUNCES, "503 to DATA is taken as a refusal for good")                          \
    PLANT(LONG_REPLY_REFUSED, "a reply of more than 512 bytes is taken as a protocol error")       \
    PLANT(PIPELINES_ALWAYS, "commands go out at once where PIPELINING is not offered")             \
    PLANT(ANSWER_KEPT, "an answer of the name servers never grows old")                            \
    PLANT(WAIT_BY_WALL, "waits and ages are counted by the wall clock")                            \
    PLANT(CONTENT_UNCHECKED, "the bytes of a batch are not held against their hash")               \
    PLANT(CELL_UNCHECKED, "a cell of the journal is not held against its checksum")

#define PLANT_NAME(name, words) PLANT_##name,
enum plant { PLANT_NONE, PLANTS(PLANT_NAME) PLANTS_END };
#undef PLANT_NAME
enum { PLANTS_COUNT = PLANTS_END - 1 };

#ifdef RAMJET_PLANTED

extern enum plant planted_chosen;

#define PLANTED(name) (planted_chosen == PLANT_##name)

static inline bool planted_choose(enum plant plant)
{
    planted_chosen = plant;
    return true;
}

#else

#define PLANTED(name) false

/* False: there is none in this build. */
static inline bool planted_choose(enum plant plant)
{
    return plant == PLANT_NONE;
}

#endif
