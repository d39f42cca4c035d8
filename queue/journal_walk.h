/* SPDX-License-Identifier: Apache-2.0 */
/*
 * journal_walk: reads the journal's files and adds up what they say; used by replay at start and by
 * the checkpoint while the journal runs.
 *
 * Two passes over the newest whole checkpoint and the segments behind it. The first goes from old
 * to new and makes the tally: live batches, settled bitmaps, counts. The second goes back from new
 * to old and tells each deferral that is the latest of an ordinal that is not settled: two bits a
 * recipient suffice, however many deferrals there are.
 *
 * Sans-I/O but for the opening of files: journal_walk_next fills in one read, the owner runs or
 * submits it and hands it to journal_walk_feed. One step works on at most JOURNAL_CHUNK_SIZE bytes.
 * Owner: whoever began it; the disk's files are read only.
 *
 * What is torn, lost or corrupt: docs/JOURNAL.md. An error (-errno) ends the walk.
 */
#pragma once

#include "engine/base/disk.h"
#include "queue/journal_record.h"
#include "queue/journal_replay.h"

enum { JOURNAL_CHUNK_SIZE = 256 * 1024, JOURNAL_CHUNK_CELLS = JOURNAL_CHUNK_SIZE / 32 };

/* A batch that has not ended. */
struct journal_tally_batch {
    struct journal_known_batch known; /* its deferrals are the walk's owner's */
    uint64_t *seen;                   /* second pass: ordinals whose latest deferral was told */
    uint32_t deferrals_room;          /* the owner's */
    uint32_t next_free;               /* index + 1, of a free row */
    bool is_live;
};

struct journal_tally {
    struct journal_tally_batch *rows;
    uint32_t rows_count; /* used at least once */
    uint32_t rows_room;
    uint32_t free_head;
    uint32_t live_count;
    uint32_t *places; /* hash by number: index + 1 */
    uint32_t places_mask;
    uint32_t next_number;
    uint32_t latest_s; /* the latest time that a record tells */
    uint64_t records_count;
    uint64_t corrupt_records;
    struct journal_damages damages;
    struct journal_damage at; /* the file, number and offset that are being read */
    int error;                /* the first one: -ENOMEM */
};

void journal_tally_init(struct journal_tally *tally);
void journal_tally_deinit(struct journal_tally *tally); /* safe on a zeroed one */
struct journal_tally_batch *journal_tally_find(const struct journal_tally *tally, uint32_t number);
/* A record of one cell, of a segment. */
void journal_tally_add(struct journal_tally *tally, const struct journal_record *record);
/* A record with what its MORE cells carried. */
void journal_tally_add_long(struct journal_tally *tally, const struct journal_record *record,
                            struct span payload);
/* Something was lost: it is told, and the batch is marked, or all that live when none is known. */
void journal_tally_damage(struct journal_tally *tally, const struct journal_damage *damage);
/* Second pass, records from new to old: the batch when this is the latest deferral of an ordinal
 * that is not settled, else NULL. */
struct journal_tally_batch *journal_tally_defer(struct journal_tally *tally,
                                                const struct journal_record *record);
/* LAW 3 as the files must have it: each settled ordinal was counted once, by one outcome. A batch
 * that breaks it is marked and counted as corrupt. */
void journal_tally_prove(struct journal_tally *tally);

/* One file's cells into the tally. Carried on from segment to segment. */
struct journal_reader {
    struct journal_tally *tally;
    const struct journal_place *ended; /* where a run ended in order; NULL: not known */
    enum journal_file file;
    uint64_t seed;
    uint32_t run;
    uint32_t index;        /* of the next cell in this file */
    uint32_t group;        /* number of the last group seen in this run */
    uint32_t group_left;   /* cells of it still to come */
    uint32_t group_at;     /* index of its first cell, when it is in this file; else 0 */
    uint32_t end;          /* index behind the last group of this file */
    bool is_headless;      /* this file's header is broken: its run is not known */
    bool is_beheaded;      /* a group whose own cell is broken: it ends where the next one begins */
    bool is_group_unknown; /* behind a checkpoint without a header: any group may be the next */
    uint64_t deferred_count;
    uint64_t suspects; /* broken records of the last group: torn, if nothing comes behind it */
    struct journal_damages suspected; /* they */
    bool is_whole;                    /* a checkpoint's last cell was read */
    /* The record whose MORE cells are being collected. */
    struct journal_record record;
    uint32_t more_taken;
    bool is_in_long;
    bool is_long_broken;
    uint32_t payload_size;
    char payload[JOURNAL_MORE_CELLS_MAX * JOURNAL_MORE_SIZE];
};

/* `is_headless`: of the header only file and number are known, from the file's name. */
void journal_reader_begin_file(struct journal_reader *reader, const struct journal_header *header,
                               bool is_headless);
/* Nothing comes behind the suspects that could vouch for them: all of them are lost. */
void journal_reader_convict(struct journal_reader *reader);
/* Behind the last file of all. */
void journal_reader_end(struct journal_reader *reader);
/* Behind a checkpoint's last cell: groups go on where the segments it stands for ended. */
void journal_reader_end_checkpoint(struct journal_reader *reader,
                                   const struct journal_header *header);
void journal_reader_feed(struct journal_reader *reader, const struct journal_cell *cells,
                         size_t count);

struct journal_walk_file {
    enum journal_file file;
    uint32_t number;
    uint32_t end; /* first pass: index behind the last group */
    uint32_t group_at;
    uint64_t deferred_count;
};

/* The journal's files in a directory, ascending. */
struct journal_listing {
    struct journal_walk_file *files;
    uint32_t count;
    uint32_t room;
    int error;
};

int journal_listing_read(struct journal_listing *listing, struct disk *disk, int dir)
    __attribute__((warn_unused_result));
void journal_listing_free(struct journal_listing *listing); /* safe on a zeroed one */

struct journal_walk {
    struct disk *disk;
    int dir;
    struct journal_listing listing;
    uint32_t checkpoint;   /* index in the listing of the one in use; == listing.count: none */
    uint32_t at;           /* index in the listing of the file being read */
    uint32_t cut;          /* segments above this number are not read */
    bool is_back;          /* second pass */
    bool is_done;          /* with this pass */
    bool has_header;       /* of the file being read: it was looked at */
    uint32_t next_segment; /* number of the one that should come next: they have no gaps */
    struct journal_header header; /* of the file being read; of a broken one what its name says */
    int fd;                       /* -1: none open */
    uint32_t index;               /* next cell to read; in the second pass the one behind it */
    struct journal_tally tally;
    struct journal_reader reader;
    const struct journal_place *ended; /* the reader's */
    uint64_t corrupt_before;           /* in the tally, when the checkpoint's reading began */
    struct journal_damages passed;     /* checkpoints that were passed over */
    struct journal_cell *chunk;
    /* Second pass: a deferral that counts. */
    void (*on_deferral)(void *context, struct journal_tally_batch *batch,
                        const struct journal_record *record);
    void *context;
    int error;
};

/* 0 or -errno; `cut`: the last segment to read. */
int journal_walk_init(struct journal_walk *walk, struct disk *disk, int dir, uint32_t cut)
    __attribute__((warn_unused_result));
/* Where a run ended in order, with run 0: none is known of. Before the first op; kept as it is. */
void journal_walk_ended(struct journal_walk *walk, const struct journal_place *ended);
void journal_walk_deinit(struct journal_walk *walk); /* safe on a zeroed one */
/* Fills in the next read of this pass; false: the pass is over, or walk->error is set. */
bool journal_walk_next(struct journal_walk *walk, struct disk_op *op);
void journal_walk_feed(struct journal_walk *walk, const struct disk_op *op);
/* From the first pass to the second. */
void journal_walk_turn(struct journal_walk *walk);
