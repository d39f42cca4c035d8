/* SPDX-License-Identifier: Apache-2.0 */
/*
 * sim_book: the book of what was submitted to a simulated engine, and the account at the end.
 *
 * sim_book_submit writes a batch into the spool as a submitter does (files synced, renamed from
 * in/tmp to in/new, names synced) and keeps for every recipient who it is, where it stands, what
 * bytes it must get, and what may become of it. Addresses are unique: SCRIPT-NUMBER@DOMAIN, SCRIPT
 * being a word of bench/sink_script.h or "u".
 *
 * sim_book_settle_up joins the book with what the mail servers have logged, with results.ndjson,
 * the event log and summary.json. A breach is a sim_violation:
 *   - a batch is in neither done/ nor failed/, or in both
 *   - a recipient without an end, or with two; an end that it may not have
 *   - told delivered, and no server has it and has said 2xx to it (LAW 5); one that says so before
 *     the message has come counts only where the way between can fail; delivered by what was never
 *     submitted
 *   - other bytes than were submitted, or not the same bytes each time (LAW 6)
 *   - more deliveries than ambiguous ends account for, and deaths of the engine soon behind one
 *     (LAW 6); one that a server has taken and said no to may be repeated, and nobody can know
 *   - a line of results, or of the log, that is not one object of printable text
 *   - a repeat that the log does not call possible_duplicate
 *   - an expiry before its time, or long behind it: by time that has gone by, and over a restart by
 *     the wall clock
 *   - attempts that an orderly restart has forgotten
 *   - summary.json that does not say what happened
 * After a power loss the event log may lack lines, after faults of the disk results.ndjson too:
 * then the journal's counts in summary.json are held against the servers', and a batch that was not
 * accepted may be in failed/, untouched, and one that was in hold/, for people to look at. Where
 * files were damaged a batch may be in hold/ too, a recipient lack its line and the counts differ
 * when the start has named the batch, or said that it may be any; and bytes that the engine makes
 * may differ, where it has lost when they were accepted.
 *
 * Bounds: the heap's.
 */
#pragma once

#include "tests/sim/sim_engine.h"

enum sim_kind { SIM_NDJSON, SIM_CSV, SIM_BSMTP };
enum { SIM_KINDS_COUNT = SIM_BSMTP + 1 };

enum sim_end {
    SIM_DELIVERED = 1u << 0,
    SIM_BOUNCED = 1u << 1,
    SIM_EXPIRED = 1u << 2,
    SIM_CANCELLED = 1u << 3,
    SIM_ANY_END = 15u,
};

/* Who a recipient is to be. */
struct sim_choice {
    const char *script; /* NULL: none */
    const char *domain;
    unsigned ends; /* enum sim_end: what may become of it; 0: any */
    bool is_bad;   /* an address that is rejected (not in SIM_BSMTP) */
};

struct sim_plan {
    const char *id;
    enum sim_kind kind;
    uint32_t count;
    uint32_t body_size;        /* about */
    uint32_t rcpts_per_record; /* SIM_BSMTP; 0: one */
    bool is_same;              /* merge: no variables, all get the same bytes */
    bool is_lf;                /* SIM_BSMTP: lines end in LF */
    bool is_bare;              /* SIM_BSMTP: no Date, no Message-ID */
    bool is_failing;           /* goes to failed/: its manifest is broken */
    uint64_t expires_s;        /* wall seconds; 0: none */
    void (*choose)(void *context, uint32_t index, struct sim_choice *ret_choice);
    void *context;
};

struct sim_entry {
    uint32_t batch;
    uint32_t ordinal;
    unsigned ends;
    bool is_bad;
    uint64_t hash;  /* of the bytes it must get; 0: made by the engine */
    uint64_t token; /* in the message; SIM_PEER_NONE: none */
    char address[96];
    /* What happened. */
    uint32_t deliveries; /* taken and not denied: 2xx was said, or nothing that is an answer */
    uint32_t confirmed;  /* of them, with 2xx */
    uint32_t denied;     /* taken, and 4xx or 5xx was said */
    uint32_t promised;   /* 2xx was said before the message had come */
    uint64_t delivered_hash;
    int64_t first_ns;
    int64_t last_ns;
    uint32_t ends_count; /* lines of results.ndjson */
    enum sim_end end;
    struct wall_time accepted_at; /* as its last line has them */
    struct wall_time ended_at;
    bool is_marked;     /* possible_duplicate in its last line */
    bool is_siteless;   /* it was told once that all sites are in use */
    uint32_t excused;   /* deliveries behind one whose record a death may have taken */
    uint32_t deferrals; /* lines of the event log that tell of one, and the most attempts told */
    uint64_t attempts_max;
    uint64_t attempts;  /* as its last line has them */
    uint32_t ambiguous; /* lines of the event log that tell of an attempt without an answer */
};

/* A line of the event log that tells of an attempt that another one follows. */
struct sim_deferral {
    uint32_t number; /* entry */
    uint64_t attempts;
    struct wall_time at;
};

struct sim_submitted {
    char id[64];
    enum sim_kind kind;
    bool is_failing;
    int64_t at_ns;   /* when it was submitted */
    bool is_retried; /* it was ordered to be tried at once, whoever was put off */
    uint32_t first;  /* entry */
    uint32_t count;
    uint32_t bad_count;
    int64_t told_ns; /* when a start first named it as damaged; 0: none did */
};

struct sim_totals {
    uint64_t recipients;
    uint64_t delivered, bounced, expired, cancelled;
    uint64_t repeats; /* deliveries beyond the first */
    uint64_t results_missing;
    uint64_t results_twice;
};

struct sim_book {
    struct sim_engine *sim;
    struct sim_entry *entries; /* by number */
    uint32_t entries_count;
    uint32_t entries_room;
    struct sim_submitted *batches;
    uint32_t batches_count;
    uint32_t batches_room;
    struct sim_deferral *deferrals;
    uint32_t deferrals_count;
    uint32_t deferrals_room;
    bool had_power_loss;
    bool had_disk_faults;
    bool had_damage;
    bool had_journal_damaged; /* the loss of its last group cannot be seen (docs/JOURNAL.md 7) */
    bool had_lines_damaged;   /* of results.ndjson: where they were durable nobody looks again */
    char *told;               /* of it, by all starts; NULL: nothing */
    size_t told_size;
    bool has_safe_ways;   /* connections do not fail by chance */
    uint32_t expire_s;    /* at this age recipients expire, not before; 0: not checked */
    bool is_expiry_exact; /* ... and not much later, in a life without an end */
    struct sim_totals totals;
};

/* A start has said what is damaged: `words`, a text of lines. */
void sim_book_told(struct sim_book *book, const char *words);
/* A start has named the batch as damaged, or said that it may be any. */
bool sim_book_is_told(const struct sim_book *book, const struct sim_submitted *batch);
void sim_book_init(struct sim_book *book, struct sim_engine *sim);
void sim_book_deinit(struct sim_book *book);
/* Returns the batch's index. The engine must have made the spool. */
uint32_t sim_book_submit(struct sim_book *book, const struct sim_plan *plan);
/* A merge batch for recipients that are all alike. */
uint32_t sim_book_submit_simple(struct sim_book *book, const char *id, uint32_t count,
                                const char *script, const char *domain, unsigned ends);
/* Puts the order's file: "pause", "resume", "cancel", "retry". */
void sim_book_order(struct sim_book *book, uint32_t batch, const char *verb);
/* After everything has come to its end. May be called once. */
void sim_book_settle_up(struct sim_book *book);
const struct sim_entry *sim_book_entry(const struct sim_book *book, uint32_t batch, uint32_t index);
