/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/damage.h"
#include "engine/intake_priv.h"

/*
 * What an earlier engine left: batches in active/, and what the journal knows of them. Results that
 * are not complete: intake_results.c.
 *
 * The marker. An engine that stopped in order leaves the file `clean` in the spool, and the next
 * one removes it in its first step, before anything is dealt out: a start that comes to nothing
 * leaves it where it is. Where it is missing, transactions may have been under way
 * at the end whose answers nobody has recorded: each recipient that could have been in one is
 * marked (LAW 6). The journal cannot say who was in flight, so all who are not settled and were not
 * put off beyond the moment of this start are marked; the mark goes into each record of theirs. Who
 * has none when the engine stops again is still in doubt: his batch's number goes into `clean`,
 * with that moment. Whoever is due later by his last record was tried since, or had not been under
 * way: the mark, if he is to have it, is in the record. The same goes for a batch that was found
 * beside a journal that may have lost its accept record: it has a number when it is accepted anew,
 * and until then the number 0 stands for it. People may order that those who were put off are tried
 * at once (in/ctl/ID.retry): of such a batch, which has the file `retried`, all are in doubt. The
 * marker also tells where the journal ended: what is missing there was lost, not torn.
 *
 * A batch that the journal knows and that is not in active/ has left it before its end was
 * recorded: the journal is told now. One that lies in hold/ is kept in mind: people may put it back
 * into active/. No new batch is claimed before all that, since a new one may have an old one's
 * name.
 */
static const char CLEAN_NAME[] = "clean";

enum { MARKER_SIZE_MAX = 1 << 28, MARKER_LINE_MAX = 22, MARKER_LINE_MIN = 2 };
enum { CLOCK_SLACK_S = 60 };
enum { SUSPECT_UNKNOWN = 0 }; /* no batch's number: those in active/ that the journal lacks */

/* A line behind the words: a batch's number, and the moment up to which its recipients were in
 * doubt; without one, all of them are. */
static bool suspect_take(struct span line, struct intake_suspect *ret_suspect)
{
    struct cursor cursor = cursor_of(line);
    uint64_t number, until_s;
    if (!cursor_take_uint(&cursor, UINT32_MAX, &number)) {
        return false;
    }
    bool has_moment =
        cursor_take_byte(&cursor, ' ') && cursor_take_uint(&cursor, UINT32_MAX, &until_s);
    *ret_suspect = (struct intake_suspect){.number = (uint32_t)number,
                                           .until_s = has_moment ? (uint32_t)until_s : UINT32_MAX};
    return true;
}

/* "journal RUN GROUP" */
static bool journal_end_take(struct span line, struct journal_place *ret_end)
{
    struct cursor cursor = cursor_of(line);
    uint64_t run, group;
    if (!cursor_take_text(&cursor, SPAN("journal ")) ||
        !cursor_take_uint(&cursor, UINT32_MAX, &run) || !cursor_take_byte(&cursor, ' ') ||
        !cursor_take_uint(&cursor, UINT32_MAX, &group) || cursor_left(&cursor) > 0) {
        return false;
    }
    *ret_end = (struct journal_place){.run = (uint32_t)run, .group = (uint32_t)group};
    return true;
}

/* Batches some of whose recipients were in doubt already when this engine began, and may not have
 * been tried since. */
static int suspects_read(struct intake_core *core, uint64_t size)
{
    if (size > MARKER_SIZE_MAX) {
        return -EFBIG;
    }
    int fd = disk_open(core->disk, core->spool.root, CLEAN_NAME, DISK_READONLY);
    char *text = fd < 0 ? NULL : malloc((size_t)size + 1);
    core->suspects =
        text == NULL ? NULL : calloc((size_t)size / MARKER_LINE_MIN + 1, sizeof(*core->suspects));
    int64_t got = fd < 0 ? fd : -ENOMEM;
    if (core->suspects != NULL) {
        got = disk_read(core->disk, fd, text, (size_t)size, 0);
        struct cursor cursor = cursor_of(span_of(text, got > 0 ? (size_t)got : 0));
        struct span line;
        while (cursor_take_line(&cursor, &line)) {
            (void)journal_end_take(line, &core->journal_end);
            core->suspects_count +=
                suspect_take(line, &core->suspects[core->suspects_count]) ? 1 : 0;
        }
    }
    free(text);
    if (fd >= 0) {
        disk_close(core->disk, fd);
    }
    return got < 0 ? (int)got : 0;
}

int intake_marker_take(struct intake_core *core)
{
    struct disk_stat stat;
    int result = disk_stat_at(core->disk, core->spool.root, CLEAN_NAME, &stat);
    if (result != 0) {
        core->is_unclean = true;
        return result == -ENOENT ? 0 : result;
    }
    result = suspects_read(core, stat.size);
    if (result == -ENOMEM) {
        return result;
    }
    core->is_unclean = result != 0;
    core->has_marker = true;
    return 0;
}

/* From now on this life may leave somebody under way. */
static bool marker_remove(struct intake_core *core)
{
    int result = disk_unlink(core->disk, core->spool.root, CLEAN_NAME);
    result = result == 0 ? disk_sync(core->disk, core->spool.root) : result;
    core->has_marker = result != 0;
    return result == 0;
}

/* Beside such a journal, what is found in active/ may have been accepted before: something in it
 * was lost, now or before its last checkpoint; or it had no file at all, which is so beside an
 * empty active/ only, or when people emptied it; or the engine before has seen that, and left a
 * batch unaccepted. */
static bool has_lost_accepts(const struct intake_core *core)
{
    const struct journal_known *known = &core->known;
    return known->damages.count > 0 || known->corrupt_records > 0 || known->next_segment == 1 ||
           (core->suspects_count > 0 && core->suspects[0].number == SUSPECT_UNKNOWN);
}

/* Batches found in active/ that the journal did not know at the start: all of their recipients are
 * in doubt. */
static void strangers_put(const struct intake_core *core, struct writer *writer)
{
    bool is_one_unaccepted = core->is_recovering;
    for (uint32_t i = 0; i < core->engine->config->batches_max; i++) {
        const struct intake_batch *ib = &core->batches[i];
        if (ib->stage != INTAKE_FREE && !ib->is_new && ib->known == NULL) {
            writer_put_uint(writer, ib->batch->number);
            writer_put_byte(writer, '\n');
            is_one_unaccepted = is_one_unaccepted || !ib->is_accepted;
        }
    }
    if (is_one_unaccepted) {
        writer_put_uint(writer, SUSPECT_UNKNOWN);
        writer_put_byte(writer, '\n');
    }
}

const struct journal_place *intake_journal_end(const struct intake *intake)
{
    const struct intake_core *core = intake->core;
    return core->is_unclean || core->journal_end.run == 0 ? NULL : &core->journal_end;
}

int intake_mark_clean(struct intake *intake)
{
    struct intake_core *core = intake->core;
    size_t rows = (size_t)core->known.batches_count + core->engine->config->batches_max;
    size_t size = 512 + rows * MARKER_LINE_MAX;
    char *text = malloc(size);
    if (text == NULL) {
        return -ENOMEM;
    }
    struct writer writer = writer_of(text, size);
    writer_put(&writer, SPAN("The engine stopped in order: nothing was in flight. What follows are "
                             "the numbers of batches\nin which recipients may still have been in "
                             "flight when an engine before it ended, each\nwith the second up to "
                             "which they were due then. The journal ended with this run, and this "
                             "group of it:\n"));
    const struct journal_place *end = &core->engine->journal->end;
    writer_put_format(&writer, "journal %u %u\n", end->run, end->group);
    for (uint32_t i = 0; i < core->known.batches_count; i++) {
        const struct intake_known *row = &core->known_rows[i];
        if (row->is_suspect && row->state != INTAKE_KNOWN_ENDED) {
            writer_put_uint(&writer, row->number);
            writer_put_byte(&writer, ' ');
            writer_put_uint(&writer, row->doubt_until_s);
            writer_put_byte(&writer, '\n');
        }
    }
    if (has_lost_accepts(core)) {
        strangers_put(core, &writer);
    }
    ensure(!writer.is_full);
    int result =
        disk_write_file(core->disk, core->spool.root, CLEAN_NAME, writer_span(&writer), true);
    free(text);
    return result;
}

struct intake_known *intake_known_of(struct intake_core *core, const struct intake_batch *ib)
{
    return ib->known == NULL ? NULL : &core->known_rows[ib->known - core->known.batches];
}

int intake_doubt_retried(struct intake_core *core, const struct intake_batch *ib)
{
    struct intake_known *row = intake_known_of(core, ib);
    if (row == NULL || !row->is_suspect) {
        return 0;
    }
    int result = spool_order_was_retried(&core->spool, ib->fd);
    if (result > 0) {
        row->doubt_until_s = UINT32_MAX;
    }
    return result < 0 ? result : 0;
}

bool intake_may_be_repeated(struct intake_core *core, const struct intake_batch *ib,
                            const struct recipient *recipient)
{
    const struct intake_known *row = intake_known_of(core, ib);
    if (row == NULL) {
        return !ib->is_new && has_lost_accepts(core);
    }
    if (!row->is_suspect) {
        return false;
    }
    if (ib->known->is_damaged) {
        return true; /* its record may be one of those that were lost */
    }
    return recipient->due_s <= row->doubt_until_s;
}

/* What is known. */

static int suspect_compare(const void *a, const void *b)
{
    const struct intake_suspect *one = a, *other = b;
    return one->number < other->number ? -1 : one->number > other->number;
}

static int by_number(const void *a, const void *b, void *context)
{
    const struct intake_known *rows = context;
    uint32_t one = rows[*(const uint32_t *)a].number;
    uint32_t other = rows[*(const uint32_t *)b].number;
    return one < other ? -1 : one > other;
}

/* Who was due by then may have been tried. The wall clock may have been set back since: a little,
 * or behind what the journal tells, and then by nobody knows how much. */
static uint32_t doubt_until_s(const struct intake_core *core)
{
    uint32_t now_s = wall_seconds(clock_wall(core->engine->clock));
    return core->known.latest_s > now_s ? UINT32_MAX : now_s + CLOCK_SLACK_S;
}

static void row_fill(struct intake_core *core, struct intake_known *row,
                     const struct journal_known_batch *known, uint32_t until_s)
{
    row->number = known->number;
    row->records_count = known->records_count;
    row->fd = -1;
    const struct intake_suspect key = {.number = known->number};
    const struct intake_suspect *suspect =
        core->suspects_count == 0
            ? NULL
            : bsearch(&key, core->suspects, core->suspects_count, sizeof(key), suspect_compare);
    row->is_suspect = core->is_unclean || known->is_damaged || suspect != NULL;
    row->doubt_until_s = core->is_unclean || suspect == NULL ? until_s : suspect->until_s;
}

int intake_recover(struct intake *intake, struct journal_known *known)
{
    struct intake_core *core = intake->core;
    ensure(core->known_rows == NULL);
    core->known = *known;
    *known = (struct journal_known){.batches = NULL};
    core->is_recovering = true;
    if (core->known.next_number > core->next_number) {
        core->next_number = core->known.next_number;
    }
    uint32_t count = core->known.batches_count;
    if (core->suspects_count > 1) {
        qsort(core->suspects, core->suspects_count, sizeof(*core->suspects), suspect_compare);
    }
    core->known_rows = calloc(count + 1u, sizeof(*core->known_rows));
    core->known_by_number = calloc(count + 1u, sizeof(*core->known_by_number));
    if (core->known_rows == NULL || core->known_by_number == NULL) {
        return -ENOMEM;
    }
    uint32_t until_s = doubt_until_s(core);
    for (uint32_t i = 0; i < count; i++) {
        row_fill(core, &core->known_rows[i], &core->known.batches[i], until_s);
        core->known_by_number[i] = i;
    }
    qsort_r(core->known_by_number, count, sizeof(*core->known_by_number), by_number,
            core->known_rows);
    return intake_results_recover(core);
}

void intake_tell_damage(const struct intake *intake, struct writer *words)
{
    const struct intake_core *core = intake->core;
    if (core->kept_broken > 0) {
        damage_tell_kept(core->engine, core->kept_broken, words);
    }
    for (uint32_t i = 0; i < spool_ids_damages_count(core->ids); i++) {
        const struct spool_ids_damage *damage = spool_ids_damage(core->ids, i);
        damage_tell_ids(core->engine, damage->file, damage->error, damage->lost_size, words);
    }
    uint32_t told = 0;
    for (uint32_t i = 0; i < core->known.batches_count && told < DAMAGE_BATCHES_MAX; i++) {
        const struct intake_known *row = &core->known_rows[i];
        if (row->lost_count > 0) {
            damage_tell_lines(core->engine, &core->known.batches[i], row->lost_count,
                              row->lost_first, row->lost_last, words);
            told++;
        }
    }
}

void intake_known_free(struct intake_core *core)
{
    for (uint32_t i = 0; core->known_rows != NULL && i < core->known.batches_count; i++) {
        struct intake_known *row = &core->known_rows[i];
        if (row->fd >= 0) {
            disk_close(core->disk, row->fd);
        }
        free(row->lines);
        free(row->finals);
        free(row->missing);
        free(row->waiting_id);
    }
    free(core->known_rows);
    free(core->known_by_number);
    free(core->suspects);
    core->suspects = NULL;
    core->known_rows = NULL;
    core->known_by_number = NULL;
    journal_known_free(&core->known);
}

/* 0: it is there; -ENOENT; -errno: that cannot be seen. */
static int look_in_hold(struct intake_core *core, const char *directory)
{
    struct disk_stat stat;
    return disk_stat_at(core->disk, core->spool.places[SPOOL_HOLD], directory, &stat);
}

struct journal_known_batch *intake_known_take(struct intake_core *core, const char *directory)
{
    struct journal_known_batch *known = journal_known_find(&core->known, directory);
    if (known == NULL) {
        return NULL;
    }
    struct intake_known *row = &core->known_rows[known - core->known.batches];
    ensure(row->state == INTAKE_KNOWN_UNSEEN);
    /* The one that the journal knows lies in hold/: this is another of the same name. Where that
     * cannot be seen this one is taken for it: its content must be the same. */
    if (look_in_hold(core, directory) == 0) {
        row->state = INTAKE_KNOWN_HELD;
        return NULL;
    }
    row->state = INTAKE_KNOWN_TAKEN;
    return known;
}

void intake_known_held(struct intake_core *core, const struct intake_batch *ib)
{
    struct intake_known *row = intake_known_of(core, ib);
    ensure(row != NULL);
    row->state = INTAKE_KNOWN_HELD;
    intake_results_go_on(core, row);
}

void intake_known_ended(struct intake_core *core, const struct intake_batch *ib)
{
    struct intake_known *row = intake_known_of(core, ib);
    if (row != NULL) {
        ensure(row->state == INTAKE_KNOWN_TAKEN);
        row->state = INTAKE_KNOWN_ENDED;
    }
}

bool intake_is_name_held(struct intake_core *core, const char *directory)
{
    const struct journal_known_batch *known = journal_known_find(&core->known, directory);
    return known != NULL &&
           core->known_rows[known - core->known.batches].state == INTAKE_KNOWN_HELD;
}

/* Those that have left active/ without the journal's knowing it, some at a time. True: all are
 * told, and their ends are durable. */
static bool ghosts_end(struct intake_core *core)
{
    while (inbox_take(&core->ghosts_back) != NULL) {
        ensure(core->ghosts_away > 0);
        core->ghosts_away--;
    }
    if (core->ghosts_away > 0) {
        return false;
    }
    while (core->ghosts_next < core->known.batches_count && core->ghosts_away < INTAKE_GHOSTS_MAX) {
        uint32_t at = core->ghosts_next++;
        struct intake_known *row = &core->known_rows[at];
        if (row->state != INTAKE_KNOWN_UNSEEN) {
            continue;
        }
        int result = look_in_hold(core, core->known.batches[at].directory);
        if (result != -ENOENT) {
            if (result != 0) {
                odd(hold_not_seen); /* kept in mind: the next start sees more */
            }
            row->state = INTAKE_KNOWN_HELD;
            continue;
        }
        struct intake_ghost *ghost = &core->ghosts[core->ghosts_away++];
        row->state = INTAKE_KNOWN_ENDED;
        ghost->batch.number = row->number;
        ghost->batch.index = UINT32_MAX; /* no slot of the table */
        ghost->end = (struct journal_end){.reply_to = &core->ghosts_back, .batch = &ghost->batch};
        inbox_push_xcore(&core->engine->journal->ends, &ghost->end.node);
    }
    return core->ghosts_away == 0;
}

/* What lay in active/ at the start, a few a step. Names that were listed are taken up before it is
 * listed again, which costs with all that lies there. */
static void recover_listed(struct intake_core *core)
{
    struct spool_names *names = core->names;
    if (!intake_has_slot(core)) {
        return; /* batches must leave first */
    }
    if (core->names_next == names->count) {
        int result = spool_list_active(&core->spool, core->recover_after, names);
        if (result != 0 && result != -E2BIG) {
            stat_set(&core->engine->must_stop, 1);
            return;
        }
        core->names_next = 0;
        core->has_names_left = result == -E2BIG;
    }
    for (uint32_t i = 0;
         i < INTAKE_RECOVERS_STEP_MAX && core->names_next < names->count && intake_has_slot(core);
         i++) {
        const char *name = names->names[core->names_next++];
        (void)snprintf(core->recover_after, sizeof(core->recover_after), "%s", name);
        intake_open_recovered(core, name);
    }
    core->is_listed = !core->has_names_left && core->names_next == names->count;
}

void intake_recover_some(struct intake_core *core)
{
    ensure(core->is_recovering);
    if (core->has_marker && !marker_remove(core)) {
        stat_set(&core->engine->must_stop, 1);
        return;
    }
    if (!core->is_listed) {
        recover_listed(core);
    } else if (ghosts_end(core) && core->ghosts_next == core->known.batches_count) {
        core->is_recovering = false;
        core->names->count = 0; /* they were those of active/ */
        core->names_next = 0;
    }
}
