/* SPDX-License-Identifier: Apache-2.0 */
/*
 * intake_rig: intake with a real spool and a real journal; the worker is an inbox that the rig
 * empties. One thread, virtual time; disk in a directory of its own under /tmp.
 *
 * How to use it: rig_create, rig_submit, rig_run, rig_end for what the worker has taken, rig_down
 * and rig_boot for another life, rig_destroy. A crash is an end without the mark of an orderly
 * stop, with what it takes taken from the files by the test.
 */
#pragma once

#include "engine/intake.h"
#include "engine/intake_priv.h"
#include "tests/harness.h"

enum { RIG_RECIPIENTS_MAX = 256, RIG_ENTRIES_MAX = 256, RIG_PATH_SIZE = 320 };

struct rig {
    char path[64];
    struct clock_manual clock;
    struct config *config;
    struct engine engine;
    struct waker waker;
    struct disk *intake_disk;
    struct disk *journal_disk;
    struct journal journal;
    struct intake intake;
    struct worker *worker;
    struct worker *workers[1];
    struct journal_entry entries[RIG_ENTRIES_MAX];
    uint32_t entries_count;
    struct inbox entries_back;
    struct recipient *taken[RIG_RECIPIENTS_MAX]; /* by the worker, in the order of their coming */
    uint32_t taken_count;
    uint32_t fds_max;
    uint32_t segments_max; /* of the journal; 0 = 4 */
    uint64_t results_sync_size;
};

/* Booted, with an empty spool. */
struct rig *rig_create(void);
/* Removes the spool. */
void rig_destroy(struct rig *rig);
/* A life of the engine: recovery, and the end of it, orderly or not. */
void rig_boot(struct rig *rig);
void rig_down(struct rig *rig, bool is_clean);

/* Names are below the spool. */
void rig_path(const struct rig *rig, const char *name, char path[RIG_PATH_SIZE]);
void rig_file_write(const struct rig *rig, const char *name, const char *text);
/* "" when it is not there. */
void rig_file_read(const struct rig *rig, const char *name, char *text, size_t size);
bool rig_is_there(const struct rig *rig, const char *name);
void rig_move(const struct rig *rig, const char *from, const char *to);
/* Where the batch is in done/ or failed/ on the rig's only day. */
bool rig_is_in(const struct rig *rig, const char *place, const char *name);

/* A batch of so many recipients in in/new. */
void rig_submit(const struct rig *rig, const char *name, uint32_t count);
/* Six seconds of intake and journal; the worker takes what it is given. */
void rig_run(struct rig *rig);
/* The recipient in `taken[index]` has an outcome. */
void rig_end(struct rig *rig, uint32_t index, uint8_t what, uint32_t due_s);
/* All from `from` on are delivered, and the rig is run. */
void rig_end_rest(struct rig *rig, uint32_t from);
/* Of those taken: how many may have been sent to before. */
uint32_t rig_marked_count(const struct rig *rig);
