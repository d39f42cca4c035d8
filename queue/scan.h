/* SPDX-License-Identifier: Apache-2.0 */
/*
 * scan: from the bytes of a batch's recipient stream to records, and from one record to address, id
 * and variables. Sans-I/O.
 *
 * Two halves, both used twice: by intake over the whole stream before anything is accepted, and by
 * a worker over the one record it is about to send. The same bytes give the same answer both times.
 *
 * Splitting: scan_splitter finds where the next record ends, resumable at any byte, per format:
 *   NDJSON   one JSON object a line (LF or CRLF); blank lines are skipped
 *   CSV      RFC 4180: quotes may hold commas and line ends; the first record is the header row
 *   BSMTP    one message: MAIL .. the lone dot, with its RCPTs (RFC 2442); HELO, EHLO, RSET, NOOP,
 *            QUIT between messages are skipped
 * A record is whole lines: its last line end belongs to it. A UTF-8 byte order mark in front of the
 * stream is skipped (NDJSON, CSV). One splitter serves one file: a record never goes on in another.
 * Parsing: scan_record_recipient or scan_record_message on exactly one record.
 *
 * Problems name what is wrong and what to do, in words for people (`text`, printable ASCII); the
 * caller adds file and line (the record's first line + `line_offset`).
 * Bounds: SCAN_LINE_MAX bytes for NDJSON and CSV records, the message size limit for BSMTP;
 * SCAN_VARS_MAX variables with names of SCAN_NAME_MAX bytes; nesting depth SCAN_DEPTH_MAX.
 * Grammar and decisions: docs/formats/SPOOL.md.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "engine/base/bytes.h"
#include "queue/scan_text.h"

enum {
    SCAN_LINE_MAX = 64 * 1024,
    SCAN_VARS_MAX = 128,
    SCAN_NAME_MAX = 255,
    SCAN_DEPTH_MAX = 8,
    SCAN_COLUMNS_MAX = 128,
    SCAN_RCPTS_MAX = 1000,
    SCAN_PATH_MAX =
        1024, /* bytes between < and >; whether it is an address is not scan's question */
};

/* What a caller must be able to show at once. */
#define SCAN_WINDOW(record_size_max) ((record_size_max) + 8)

enum scan_format { SCAN_NDJSON, SCAN_CSV, SCAN_BSMTP };

/* What is wrong with one record (or with the rest of the stream when `is_fatal`: no next record can
 * be found). */
struct scan_problem {
    bool is_fatal;
    bool is_memory_short; /* nothing is wrong with the record: it may be read another time */
    uint64_t line_offset; /* lines below the record's first line; 0 for NDJSON */
    char text[192];
};

struct scan_var {
    struct span name;  /* nested objects and arrays are flattened: "user.city", "items.0.sku" */
    struct span value; /* text; numbers and booleans as written; null = empty */
};

/* Resumable; plain memory, may be copied. The members below `line` are the splitter's own. */
struct scan_splitter {
    enum scan_format format;
    uint64_t record_size_max;
    uint64_t line;         /* of the next record's first line, from 1 */
    uint64_t scanned;      /* bytes of the record under way that were looked at */
    uint64_t lines_inside; /* line ends among them */
    uint64_t quote_line;   /* CSV: where the open quote began, counted like lines_inside */
    uint64_t line_start;   /* BSMTP: where in the record the line under way began */
    struct scan_text text; /* BSMTP: of the record under way or, behind RECORD, of that one */
    int phase;             /* CSV, BSMTP: an enum of scan_csv.c, scan_bsmtp.c */
    bool is_begun;         /* what can only stand in front of the stream is behind us */
    bool is_lf;            /* BSMTP: the record's first line ended in LF alone */
    bool is_too_long;      /* the record was told as too long; its rest is being skipped */
    bool is_broken;        /* CSV: the line is skipped to its end */
    bool is_edge;          /* BSMTP: the line before ended as the record's first line did */
    bool is_mid_line;      /* BSMTP: the start of the line under way was skipped */
};

enum scan_split {
    SCAN_SPLIT_MORE,   /* call again with more bytes, starting ret_skip behind the start given */
    SCAN_SPLIT_RECORD, /* [ret_skip, ret_skip + ret_size) is one record */
    SCAN_SPLIT_END,    /* `is_last` was given and nothing but blanks is left */
    SCAN_SPLIT_BAD,    /* the record [ret_skip, ret_skip + ret_size) is broken but the next can be
                          found; problem filled in */
    SCAN_SPLIT_FATAL,  /* no further record can be found; problem filled in */
};

void scan_splitter_init(struct scan_splitter *splitter, enum scan_format format,
                        uint64_t record_size_max);
/*
 * Finds the next record in `bytes`, which starts where the last record (RECORD or BAD) ended, or
 * ret_skip behind the last start (MORE). `is_last`: nothing comes behind these bytes (a missing
 * final line end is then accepted for NDJSON and CSV); MORE is not answered then. ret_line: number
 * of the record's first line. A record of more than record_size_max bytes is BAD: ret_size is at
 * most record_size_max, the rest is skipped by the calls that follow, so a window of
 * SCAN_WINDOW(record_size_max) bytes is enough for any stream. After END and FATAL the splitter is
 * not called any more.
 */
enum scan_split scan_split_next(struct scan_splitter *splitter, struct span bytes, bool is_last,
                                size_t *ret_skip, size_t *ret_size, uint64_t *ret_line,
                                struct scan_problem *ret_problem);

/* Spans point into the record, the columns, or into the parser's scratch: valid until the next call
 * on the same parser. */
struct scan_recipient {
    struct span to; /* as written, not yet checked as an address */
    struct span id; /* empty when none */
    uint32_t vars_count;
    struct scan_var vars[SCAN_VARS_MAX];
};

struct scan_message {   /* BSMTP */
    struct span sender; /* between < and >, as written; empty: the null path */
    uint32_t rcpts_count;
    struct span rcpts[SCAN_RCPTS_MAX];
    struct span
        body;   /* in the file's form: dot-stuffed, with its line ends, without the lone dot */
    bool is_lf; /* line ends are LF throughout; false: CRLF throughout (mixed is a problem) */
    bool is_8bit;
    uint64_t size; /* octets with CRLF and without dot-stuffing (RFC 1870) */
};

struct scan_parser;                                   /* yajl handle, scratch; one an actor */
struct scan_parser *scan_parser_create(void);         /* NULL when there is no memory */
void scan_parser_destroy(struct scan_parser *parser); /* NULL-safe */
/* On after create. Off: NDJSON always goes through yajl. The answers are the same; for tests and
 * measurements (docs/decisions/0002-ndjson-fast-path.md). */
void scan_parser_set_fast_path(struct scan_parser *parser, bool is_on);

/* Column names of a CSV stream, from its header record; immutable afterwards, shared read-only by
 * intake and workers. Needs one column "to" or "email" (any case); a column "id" is the id, all
 * others are variables. NULL with the problem filled in. */
struct scan_columns;
struct scan_columns *scan_columns_create(struct span header_record,
                                         struct scan_problem *ret_problem);
void scan_columns_destroy(struct scan_columns *columns); /* NULL-safe */

/* 0, or -EINVAL with the problem filled in. `columns` for CSV only. Keys for NDJSON:
 * to|email|recipient, id, vars|substitutions|data, name (as variable "name" when vars has none),
 * metadata ignored; unknown keys are a problem that names the key, as is a key given twice. */
int scan_record_recipient(struct scan_parser *parser, enum scan_format format,
                          const struct scan_columns *columns, struct span record,
                          struct scan_recipient *ret_recipient, struct scan_problem *ret_problem)
    __attribute__((warn_unused_result));
/* The same for one BSMTP record; spans point into the record. `measured`: the splitter's `text`
 * behind the RECORD, which saves a second look at each line; NULL: not known. The answer is the
 * same. *ret_message is undefined after a failure: it is too big to be copied. */
int scan_record_message(struct span record, const struct scan_text *measured,
                        struct scan_message *ret_message, struct scan_problem *ret_problem)
    __attribute__((warn_unused_result));
