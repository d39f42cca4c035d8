/* SPDX-License-Identifier: Apache-2.0 */
/*
 * scan_priv: what the files of scan share; visible inside queue/ only.
 *
 * Each format has a split function with the contract of scan_split_next and a record function with
 * that of scan_record_recipient. NDJSON records have two readers that must agree: the fast one for
 * the plain shape, which may answer "unusual", and yajl for everything. So have BSMTP texts with
 * CRLF line ends: the splitter's measure (scan_text.h) for good ones, the lines one by one for all.
 */
#pragma once

#include "queue/scan.h"

enum { SCAN_SCRATCH_SIZE = SCAN_LINE_MAX + SCAN_VARS_MAX * (SCAN_NAME_MAX + 1) };

struct scan_json; /* scan_ndjson.c: the yajl handle and where it stands */

struct scan_parser {
    struct scan_json *json;
    bool has_fast_path;
    struct scan_recipient recipient; /* under way; copied out when the record is good */
    size_t scratch_used;
    char scratch[SCAN_SCRATCH_SIZE];
};

__attribute__((format(printf, 2, 3))) void scan_problem_set(struct scan_problem *problem,
                                                            const char *format, ...);

/* Foreign bytes for a problem's text: printable, clipped. */
struct scan_shown {
    char text[64];
};
struct scan_shown scan_show(struct span foreign);

/* A copy that lives as long as the record's answer. Scratch cannot overflow: decoded text is never
 * longer than the record, names are bounded. */
struct span scan_scratch_put(struct scan_parser *parser, struct span piece);
/* True when the bytes lie inside the record, so that no copy is needed. */
bool scan_is_inside(struct span record, struct span piece);
/* The variable of that name among those found so far, or NULL. */
struct scan_var *scan_var_find(struct scan_parser *parser, struct span name);
/* Ends of a line taken off: LF or CRLF. */
struct span scan_line_chop(struct span line);
bool scan_line_is_blank(struct span line);

/*
 * BSMTP commands, for the reader of records and for that of envelopes, which must take the same
 * ones. The verb and its word ("RCPT", "TO:"), with any number of blanks between and behind; false:
 * another command. Then "<" path ">", with quoted strings in which ">" may stand (RFC 5321 4.1.2),
 * at most SCAN_PATH_MAX bytes.
 */
bool scan_command_take(struct cursor *cursor, struct span verb, struct span word);
bool scan_command_take_path(struct cursor *cursor, struct span *ret_path);

/* What a line of BSMTP is, where a command may stand. */
enum bsmtp_verb {
    VERB_MAIL,
    VERB_RCPT,
    VERB_DATA,
    VERB_NOOP,
    VERB_RESET, /* RSET, HELO, EHLO, QUIT: an open transaction is given up */
    VERB_DOT,
    VERB_BLANK,
    VERB_UNKNOWN,
};
/* `line` without its line end. */
enum bsmtp_verb scan_bsmtp_verb(struct span line);

/* Puts *start behind a byte order mark; false when more bytes are needed to know. */
bool scan_split_begin(struct scan_splitter *splitter, struct span bytes, bool is_last,
                      size_t *start);
/* Answers END or MORE when `start` is at the end of the bytes; see the split functions. */
enum scan_split scan_split_more(struct scan_splitter *splitter, size_t start, size_t end,
                                bool is_last, size_t *ret_skip);
/* BAD for a record that passed record_size_max. */
enum scan_split scan_split_too_long(struct scan_splitter *splitter, size_t start, size_t *ret_skip,
                                    size_t *ret_size, uint64_t *ret_line,
                                    struct scan_problem *ret_problem);

enum scan_split scan_ndjson_split(struct scan_splitter *splitter, struct span bytes, bool is_last,
                                  size_t *ret_skip, size_t *ret_size, uint64_t *ret_line,
                                  struct scan_problem *ret_problem);
enum scan_split scan_csv_split(struct scan_splitter *splitter, struct span bytes, bool is_last,
                               size_t *ret_skip, size_t *ret_size, uint64_t *ret_line,
                               struct scan_problem *ret_problem);
enum scan_split scan_bsmtp_split(struct scan_splitter *splitter, struct span bytes, bool is_last,
                                 size_t *ret_skip, size_t *ret_size, uint64_t *ret_line,
                                 struct scan_problem *ret_problem);

struct scan_json *scan_json_create(struct scan_parser *parser);
void scan_json_destroy(struct scan_json *json); /* NULL-safe */
/* Fills parser->recipient. 0 or -EINVAL. */
int scan_json_record(struct scan_json *json, struct span record, struct scan_problem *ret_problem)
    __attribute__((warn_unused_result));
/* True: parser->recipient is what yajl would have made of the record. False: ask yajl. */
bool scan_ndjson_fast(struct scan_parser *parser, struct span record);

int scan_csv_record(struct scan_parser *parser, const struct scan_columns *columns,
                    struct span record, struct scan_problem *ret_problem)
    __attribute__((warn_unused_result));
