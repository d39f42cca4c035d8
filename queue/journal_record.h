/* SPDX-License-Identifier: Apache-2.0 */
/*
 * journal_record: the bytes of journal and checkpoint files (docs/JOURNAL.md).
 *
 * A file is a header sector and then groups; a group is a run of cells of 32 bytes that begins on a
 * sector with a cell that numbers the group and counts the others. A record is one cell; what does
 * not fit (a directory name, a bitmap) goes on in MORE cells behind it. All numbers are
 * little-endian.
 *
 * Each cell has a checksum seeded with the file's number, its kind and the cell's index: a cell of
 * an earlier use of the file, or one that was written to the wrong place, is as broken as a torn
 * one. Every cell says what it is in the same byte, so each can be judged without its neighbours.
 *
 * Pure functions on memory of the caller; journal and replay alone use them. Reading takes any
 * bytes; writing a value out of range is a bug.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/base/bytes.h"
#include "queue/batch.h"
#include "queue/journal.h"

enum {
    JOURNAL_VERSION = 1,
    JOURNAL_SECTOR_SIZE = 512,
    JOURNAL_CELL_SIZE = 32,
    JOURNAL_SECTOR_CELLS = JOURNAL_SECTOR_SIZE / JOURNAL_CELL_SIZE,
    JOURNAL_MORE_SIZE = 24,           /* bytes that a MORE cell carries */
    JOURNAL_MORE_CELLS_MAX = 255,     /* behind one record */
    JOURNAL_GROUP_BEHIND_MAX = 16383, /* cells behind a group's own */
    JOURNAL_DIRECTORY_MAX = MANIFEST_ID_MAX + 31,
    JOURNAL_ACCEPTED_CELLS_MAX = 10,
    JOURNAL_NUMBER_MAX = 99999999, /* of a file: eight digits in its name */
};

/* Of a batch; what is beyond was not written by us, and the next one must not come to 0. */
static const uint32_t JOURNAL_BATCH_NUMBER_MAX = UINT32_MAX - (1u << 20);

/* On disk; the first seven are enum journal_what + 1. */
enum journal_kind {
    JOURNAL_KIND_ACCEPTED = JOURNAL_ACCEPTED + 1,
    JOURNAL_KIND_DELIVERED = JOURNAL_DELIVERED + 1,
    JOURNAL_KIND_BOUNCED = JOURNAL_BOUNCED + 1,
    JOURNAL_KIND_EXPIRED = JOURNAL_EXPIRED + 1,
    JOURNAL_KIND_CANCELLED = JOURNAL_CANCELLED + 1,
    JOURNAL_KIND_DEFERRED = JOURNAL_DEFERRED + 1,
    JOURNAL_KIND_ENDED = JOURNAL_ENDED + 1,
    JOURNAL_KIND_GROUP = 16, /* ordinal: cells behind this one; group: its number */
    JOURNAL_KIND_MORE = 17,
    JOURNAL_KIND_COUNTS = 18,  /* checkpoint: struct batch counts, in MORE cells */
    JOURNAL_KIND_SETTLED = 19, /* checkpoint: bitmap from `ordinal` on, in MORE cells */
    JOURNAL_KIND_WHOLE = 20,   /* checkpoint: its last cell; ordinal: batches in it */
};

enum journal_flags {
    JOURNAL_FLAG_AMBIGUOUS = 1u << 0,
    JOURNAL_FLAG_POSSIBLE_DUPLICATE = 1u << 1,
    JOURNAL_FLAG_DAMAGED = 1u << 2, /* of ACCEPTED in a checkpoint: some record of it was lost */
    JOURNAL_FLAGS_ALL = 7u,
};

/* As it lies on disk, in little-endian; only journal_record.c looks inside. */
struct journal_cell {
    uint32_t checksum;
    uint8_t kind;
    uint8_t flags;
    uint16_t code;
    uint32_t batch;
    uint32_t ordinal;
    uint32_t at_s;
    uint32_t due_s;
    uint16_t attempts_count;
    uint16_t reserved; /* 0 */
    uint32_t group;
};

_Static_assert(sizeof(struct journal_cell) == JOURNAL_CELL_SIZE, "a cell is 32 bytes");

/* A cell that is not MORE, in the machine's byte order. */
struct journal_record {
    enum journal_kind kind;
    uint8_t flags;
    uint16_t code; /* SMTP reply; of ACCEPTED, COUNTS and SETTLED: MORE cells behind it */
    uint32_t batch;
    uint32_t ordinal;
    uint32_t at_s;
    uint32_t due_s;
    uint16_t attempts_count;
    uint32_t group;
};

/* What an ACCEPTED record says. */
struct journal_accepted {
    uint32_t number;
    bool is_damaged;
    uint64_t recipients_count;
    uint64_t records_count;
    uint64_t rejected_count;
    uint64_t content_hash;
    uint64_t content_size;
    struct wall_time accepted_at;
    struct span directory; /* 1..JOURNAL_DIRECTORY_MAX bytes */
};

/* Into the third kind intake writes, without groups: records whose lines in results.ndjson are
 * missing. */
enum journal_file {
    JOURNAL_FILE_SEGMENT = 1,
    JOURNAL_FILE_CHECKPOINT = 2,
    JOURNAL_FILE_RESULTS = 3, /* "results-missing": has no number in its name */
};

struct journal_header {
    enum journal_file file;
    uint32_t number;       /* of a checkpoint: the last segment it stands for */
    uint32_t run;          /* the first segment of the run of the engine that wrote this one */
    uint32_t group;        /* of a checkpoint: the last group of the segments it stands for */
    uint32_t before_run;   /* of a segment: the run in front of this one, as replay found it ... */
    uint32_t before_group; /* ... and its last group; both 0 when not known */
    struct wall_time created_at;
    uint64_t size;            /* of the file */
    uint32_t next_number;     /* of a checkpoint: first batch number never used */
    uint64_t corrupt_records; /* of a checkpoint: found so far in the life of the spool */
};

/* The seed of the file's first cell (its header's place); that of cell i is i higher. */
uint64_t journal_seed(enum journal_file file, uint32_t number);

/* The hot one: one cell, checksum and all. */
void journal_record_put(struct journal_cell *cell, const struct journal_record *record,
                        uint64_t seed);
/* False: the cell is broken, of no known kind, or a MORE cell. */
bool journal_record_get(const struct journal_cell *cell, uint64_t seed,
                        struct journal_record *ret_record);
/* What a broken cell was, when its checksum fits with one bit flipped back: certain enough to tell
 * whom the damage concerns. False: it cannot be told, or the cell is not broken. */
bool journal_cell_mend(const struct journal_cell *cell, uint64_t seed,
                       struct journal_record *ret_record);
/* Nothing but zeros: what a group's last sector is filled up with. */
bool journal_cell_is_empty(const struct journal_cell *cell);

/* Writes the record (its `code` is set here) and `payload` behind it; returns the cells used. */
uint32_t journal_long_put(struct journal_cell *cells, struct journal_record record,
                          struct span payload, uint64_t seed);
/* Copies what a MORE cell carries to `to` (JOURNAL_MORE_SIZE bytes of room) and tells its place in
 * the record, from 0. False: the cell is broken or of another kind. */
bool journal_more_get(const struct journal_cell *cell, uint64_t seed, void *to, uint32_t *ret_size,
                      uint32_t *ret_index);

uint32_t journal_accepted_put(struct journal_cell *cells, const struct journal_accepted *accepted,
                              uint32_t group, uint64_t seed);
/* `payload`: what the MORE cells carried; the directory points into it. False: it makes no sense.
 */
bool journal_accepted_get(const struct journal_record *record, struct span payload,
                          struct journal_accepted *ret_accepted);

uint32_t journal_counts_put(struct journal_cell *cells, uint32_t batch,
                            const uint64_t counts[BATCH_COUNTS_COUNT], uint32_t group,
                            uint64_t seed);
bool journal_counts_get(struct span payload, uint64_t ret_counts[BATCH_COUNTS_COUNT]);

/* Fills one sector. */
void journal_header_put(void *sector, const struct journal_header *header);
/* 0; -EBADMSG: not a header of ours, or broken; -EPROTONOSUPPORT: whole, and of another version. */
int journal_header_get(struct span sector, struct journal_header *ret_header)
    __attribute__((warn_unused_result));

/* "journal-00000007.log", "checkpoint-00000007": into JOURNAL_NAME_SIZE bytes. */
enum { JOURNAL_NAME_SIZE = 32 };
void journal_name_put(char ret_name[JOURNAL_NAME_SIZE], enum journal_file file, uint32_t number);
bool journal_name_get(const char *name, enum journal_file *ret_file, uint32_t *ret_number);
