/* SPDX-License-Identifier: Apache-2.0 */
/*
 * journal_rig: a journal on a crash_disk, the actors around it, and a model of what they know.
 *
 * The model keeps for each batch and ordinal what was handed to the journal (submitted) and what
 * came back (acknowledged). After a crash, replay must give a state between the two: everything
 * acknowledged is there, nothing is invented.
 */
#pragma once

#include "engine/base/random.h"
#include "queue/journal_replay.h"
#include "tests/unit/queue/crash_disk.h"

enum { RIG_BATCHES = 24, RIG_RECORDS_MAX = 150, RIG_ENTRIES = 256, RIG_WORKERS = 3 };

struct rig_record {
    bool is_rejected;      /* no recipient: nothing ever comes for it */
    bool is_in_flight;     /* handed to the journal, not yet back */
    int settled_submitted; /* enum journal_what, -1 = none */
    int settled_acked;
    uint16_t attempts_submitted; /* of the last deferral */
    uint16_t attempts_acked;
    bool is_ambiguous; /* some attempt was */
};

struct rig_batch {
    bool is_used;
    bool is_accept_acked;
    bool is_settled; /* its node came */
    bool is_end_submitted;
    struct batch batch;
    struct journal_accept accept;
    struct journal_end end;
    struct rig_record records[RIG_RECORDS_MAX];
};

struct rig {
    struct crash_disk *disk;
    struct clock_manual clock;
    struct random random;
    struct waker waker;
    struct inbox accepts, ends, settled, workers[RIG_WORKERS];
    struct journal journal;
    bool has_journal;
    uint64_t segment_size;
    uint32_t segments_max;
    uint32_t files_max; /* of results; 0 as the journal has it */
    uint64_t results_sync_size;
    bool has_log;
    uint32_t next_number;
    uint32_t batches_max; /* live at a time */
    struct rig_batch batches[RIG_BATCHES];
    struct journal_entry entries[RIG_ENTRIES];
    bool is_entry_used[RIG_ENTRIES];
    uint64_t acked_count;
    uint64_t submitted_count;
};

struct rig *rig_create(uint64_t seed);
void rig_destroy(struct rig *rig);
/* 0 or -errno. */
int rig_start(struct rig *rig, const struct journal_known *known);
/* Deinit, in order. */
void rig_stop(struct rig *rig);
/* The journal is gone without a word, the disk crashes. */
void rig_crash(struct rig *rig, uint32_t keep_percent);
/* Some steps, then what came back. */
void rig_step(struct rig *rig, int count);
/* Steps until nothing is waiting (or the journal has failed). */
void rig_settle_down(struct rig *rig);
/* One random thing happens. */
void rig_act(struct rig *rig);
struct rig_batch *rig_accept(struct rig *rig, uint32_t records_count);
/* NULL: the ordinal may not have one now. */
struct journal_entry *rig_entry(struct rig *rig, struct rig_batch *batch, uint32_t ordinal,
                                enum journal_what what);
void rig_end(struct rig *rig, struct rig_batch *batch);
/* `known` is between acknowledged and submitted; the second fails the test when it is not, or when
 * anything was corrupt. */
bool rig_known_is_right(const struct rig *rig, const struct journal_known *known);
void rig_check_known(const struct rig *rig, const struct journal_known *known, size_t row);
/* Makes what is known the model's truth, and accepts the known batches again. */
void rig_adopt(struct rig *rig, struct journal_known *known);
/* Replays on a copy of the disk after a crash there, checks, and frees. */
void rig_check_copy(struct rig *rig, uint32_t keep_percent, size_t row);
/* A journal with some of everything: an older checkpoint is gone, a newer one is there with
 * segments behind it, of two runs; the last group is one that nobody would miss. */
struct rig *rig_aged(void);
/* Where the last group begins, in which file: damage there cannot be told from a torn write. */
size_t rig_last_group_at(struct rig *rig, char path[64]);
bool rig_name_is_of_journal(const struct crash_name *name);
/* Created and started with nothing known. */
struct rig *rig_started(uint64_t seed);
/* A batch that is accepted durably. */
struct rig_batch *rig_accepted(struct rig *rig, uint32_t records_count);
uint64_t rig_has_failed(const struct rig *rig);
/* What programs see of a file. */
bool rig_file_is(struct rig *rig, const char *path, const char *want);
size_t rig_lines_count(struct rig *rig, const char *path);
