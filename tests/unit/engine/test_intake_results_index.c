/* SPDX-License-Identifier: Apache-2.0 */
/* A start behind a crash looks at the end of a long results.ndjson, and at all of it where the
 * index does not prove the rest. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "engine/intake.h"
#include "tests/unit/engine/intake_rig.h"

enum { RECIPIENTS = 100, SETTLED = 60 };

static const char RESULTS[] = "active/one.batch/" JOURNAL_RESULTS_NAME;
static const char INDEX[] = "active/one.batch/" JOURNAL_RESULTS_INDEX_NAME;
static const char COPY[] = "active/one.batch/copy";

static uint32_t lines_with(const char *text, const char *words)
{
    uint32_t count = 0;
    while ((text = strstr(text, words)) != NULL) {
        count++;
        text++;
    }
    return count;
}

/* Many blocks, and the engine is gone without a word. */
static struct rig *rig_with_index(void)
{
    struct rig *rig = rig_create();
    rig_down(rig, true);
    rig->results_sync_size = 1024;
    rig_boot(rig);
    rig_submit(rig, "one", RECIPIENTS);
    rig_run(rig);
    for (uint32_t i = 0; i < SETTLED; i++) {
        rig_end(rig, i, JOURNAL_DELIVERED, 0);
        if (i % 3 == 2) {
            rig_run(rig);
        }
    }
    CU_ASSERT(rig_is_there(rig, INDEX));
    rig_down(rig, false);
    return rig;
}

static void bytes_put(const struct rig *rig, const char *name, long at, int whence,
                      const char *bytes)
{
    char path[RIG_PATH_SIZE];
    rig_path(rig, name, path);
    FILE *file = fopen(path, "r+");
    ensure(file != NULL);
    ensure(fseek(file, at, whence) == 0);
    ensure(fputs(bytes, file) >= 0);
    ensure(fclose(file) == 0);
}

static void cut(const struct rig *rig, const char *name, size_t size)
{
    char path[RIG_PATH_SIZE];
    rig_path(rig, name, path);
    ensure(truncate(path, (off_t)size) == 0);
}

enum deed {
    NOTHING,
    TORN_END,      /* half a line at the end */
    NO_INDEX,      /* the index is gone */
    BROKEN_INDEX,  /* its first block is broken */
    OTHER_FILE,    /* results.ndjson is a copy */
    CUT_FILE,      /* its last lines are gone: also durable ones */
    BROKEN_RECORD, /* damage in the journal */
    IN_DOUBT,      /* a sync of it has failed */
    DEEDS_COUNT,
};

/* The first cell that says that somebody was delivered; false: none in this segment. */
static bool record_break_in(const struct rig *rig, uint32_t number)
{
    char name[64];
    char path[RIG_PATH_SIZE];
    struct journal_cell cell;
    struct journal_record record;
    (void)snprintf(name, sizeof(name), "journal/journal-%08u.log", number);
    rig_path(rig, name, path);
    FILE *file = fopen(path, "r");
    if (file == NULL) {
        return false;
    }
    uint64_t seed = journal_seed(JOURNAL_FILE_SEGMENT, number);
    uint64_t index = 0;
    bool is_found = false;
    while (!is_found && fread(&cell, sizeof(cell), 1, file) == 1) {
        is_found = journal_record_get(&cell, seed + index, &record) &&
                   record.kind == JOURNAL_KIND_DELIVERED;
        index++;
    }
    ensure(fclose(file) == 0);
    if (is_found) {
        bytes_put(rig, name, (long)(index - 1) * JOURNAL_CELL_SIZE, SEEK_SET, "broken");
    }
    return is_found;
}

static void record_break(const struct rig *rig)
{
    uint32_t number = 1;
    while (!record_break_in(rig, number)) {
        number++;
        ensure(number < 10);
    }
}

static void do_deed(const struct rig *rig, enum deed deed)
{
    static char text[256 * 1024];
    char path[RIG_PATH_SIZE];
    rig_file_read(rig, RESULTS, text, sizeof(text));
    switch (deed) {
    case NOTHING:
        return;
    case TORN_END:
        bytes_put(rig, RESULTS, 0, SEEK_END, "{\"type\":\"Delivery\",\"id\":\"1-7");
        return;
    case NO_INDEX:
        rig_path(rig, INDEX, path);
        ensure(unlink(path) == 0);
        return;
    case BROKEN_INDEX:
        bytes_put(rig, INDEX, 20, SEEK_SET, "broken");
        return;
    case OTHER_FILE:
        rig_file_write(rig, COPY, text);
        rig_move(rig, COPY, RESULTS);
        return;
    case CUT_FILE:
        cut(rig, RESULTS, strlen(text) / 2);
        return;
    case BROKEN_RECORD:
        record_break(rig);
        return;
    case IN_DOUBT:
        rig_move(rig, RESULTS, "active/one.batch/" JOURNAL_RESULTS_DOUBTED_NAME);
        return;
    case DEEDS_COUNT:
        break;
    }
    ensure(false);
}

/* A line in the first stretch that was written over tells who has looked there. */
static void test_what_is_proved_is_not_looked_at(void)
{
    static const bool IS_TRUSTED[DEEDS_COUNT] = {[NOTHING] = true, [TORN_END] = true};
    static char text[256 * 1024];
    for (enum deed deed = 0; deed < DEEDS_COUNT; deed++) {
        struct rig *rig = rig_with_index();
        bytes_put(rig, RESULTS, 60, SEEK_SET, "\x01");
        do_deed(rig, deed);
        rig_boot(rig);
        rig_file_read(rig, RESULTS, text, sizeof(text));
        CHECK_ROW(deed, (lines_with(text, "\x01") == 1) == IS_TRUSTED[deed]);
        rig_run(rig);
        rig_end_rest(rig, 0);
        CHECK_ROW(deed, rig_is_in(rig, "done", "one"));
        rig_file_read(rig, "done/2027-01-15/one.batch/results.ndjson", text, sizeof(text));
        CHECK_ROW(deed, lines_with(text, "}\n") == RECIPIENTS);
        CHECK_ROW(deed, lines_with(text, "\n") == RECIPIENTS);
        CHECK_ROW(deed, lines_with(text, "\"id\":\"1-0\"") == 1);
        CHECK_ROW(deed, lines_with(text, "\"id\":\"1-7\"") == 1);
        CHECK_ROW(deed, !rig_is_there(rig, "done/2027-01-15/one.batch/.results.index"));
        rig_destroy(rig);
    }
}

/* Crash behind crash: the index goes on behind what was read. */
static void test_the_index_goes_on_behind_a_crash(void)
{
    static char text[256 * 1024];
    struct rig *rig = rig_with_index();
    for (uint32_t round = 0; round < 4; round++) {
        do_deed(rig, round % 2 == 0 ? TORN_END : NOTHING);
        rig_boot(rig);
        rig_run(rig);
        for (uint32_t i = 0; i < 9; i++) {
            rig_end(rig, i, JOURNAL_BOUNCED, 0);
            if (i % 3 == 2) {
                rig_run(rig);
            }
        }
        rig_down(rig, false);
    }
    bytes_put(rig, RESULTS, 60, SEEK_SET, "\x01");
    rig_boot(rig);
    rig_file_read(rig, RESULTS, text, sizeof(text));
    CU_ASSERT_EQUAL(lines_with(text, "\x01"), 1);
    CU_ASSERT_EQUAL(lines_with(text, "}\n"), SETTLED + 4 * 9);
    rig_run(rig);
    rig_end_rest(rig, 0);
    rig_file_read(rig, "done/2027-01-15/one.batch/results.ndjson", text, sizeof(text));
    CU_ASSERT_EQUAL(lines_with(text, "}\n"), RECIPIENTS);
    rig_destroy(rig);
}

SUITE(intake_results_index, test_what_is_proved_is_not_looked_at,
      test_the_index_goes_on_behind_a_crash)
