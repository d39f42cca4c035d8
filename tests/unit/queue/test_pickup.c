/* SPDX-License-Identifier: Apache-2.0 */
#include "queue/spool.h"

#include "tests/unit/queue/pickup_begin.h"

static void set_time(const char *path, int64_t at_s)
{
    struct timespec times[2] = {{.tv_sec = at_s}, {.tv_sec = at_s}};
    ensure(utimensat(AT_FDCWD, at(path), times, 0) == 0);
}

/* Writers that know nothing of rename: a file is taken only when it has stood still for 2 s between
 * looks, whatever its own time says. */
static void test_stands_still(void)
{
    pickup_begin();
    put_text("pickup/x.eml", "x-sender: s@x\n");
    set_time("pickup/x.eml", NOW - 1000000);
    CU_ASSERT_EQUAL(look(NOW, 100), 0);
    CU_ASSERT_EQUAL(collected.waiting_count, 1);
    CU_ASSERT_EQUAL(look(NOW + 1, 100), 0);
    CU_ASSERT_EQUAL(collected.files_count, 0);
    put_text("pickup/x.eml", MAIL); /* it goes on: other size */
    set_time("pickup/x.eml", NOW - 1000000);
    CU_ASSERT_EQUAL(look(NOW + 2, 100), 0);
    CU_ASSERT_EQUAL(collected.files_count, 0);
    set_time("pickup/x.eml", NOW + 1000000); /* other time, in the future */
    CU_ASSERT_EQUAL(look(NOW + 4, 100), 0);
    CU_ASSERT_EQUAL(collected.files_count, 0);
    CU_ASSERT_EQUAL(look(NOW + 6, 100), 0);
    CU_ASSERT_EQUAL(collected.files_count, 1);
    end();
}

/* The wall clock is set, by an hour forward or back: the rest is as long as it was. */
static void test_a_set_clock_shortens_no_rest(void)
{
    for (int i = 0; i < 2; i++) {
        int64_t shift_s = i == 0 ? 3600 : -3600;
        static const struct {
            int64_t mono_ms;
            uint32_t want;
        } LOOKS[] = {{1000, 0}, {1999, 0}, {2000, 1}};
        pickup_begin();
        put_text("pickup/x.eml", MAIL);
        CU_ASSERT_EQUAL(look(NOW, 100), 0);
        for (size_t j = 0; j < COUNT_OF(LOOKS); j++) {
            struct mono_time mono = {.ns = NOW * NS_PER_S + LOOKS[j].mono_ms * NS_PER_MS};
            CU_ASSERT_EQUAL(
                spool_pickup_collect(&spool, wall_s(NOW + shift_s), mono, 100, &collected), 0);
            CHECK_ROW(j, collected.files_count == LOOKS[j].want);
        }
        end();
    }
}

static void test_batch_and_release(void)
{
    pickup_begin();
    char path[256];
    char directory[SPOOL_DIRECTORY_MAX + 1];
    put_text("pickup/a.eml", MAIL);
    put_text("pickup/b.eml", MAIL);
    put_text("pickup/c.eml", MAIL);
    CU_ASSERT_EQUAL(look(NOW, 2), 0);
    CU_ASSERT_EQUAL(look(NOW + 2, 2), 0);
    CU_ASSERT_EQUAL(collected.files_count, 2);
    CU_ASSERT(collected.has_more);
    CU_ASSERT_STRING_EQUAL(collected.directory, "pickup-1796112002000-0.batch");
    memcpy(directory, collected.directory, sizeof(directory));
    (void)snprintf(path, sizeof(path), "active/%s/batch.json", directory);
    struct writer errors = writer_of(problem.text, sizeof(problem.text));
    struct manifest *manifest =
        manifest_parse(span_of_text(text_of(path)), SPAN("pickup-1"), &errors);
    CU_ASSERT_PTR_NOT_NULL_FATAL(manifest);
    CU_ASSERT(manifest_allows_rejects(manifest, 7, 7));
    manifest_destroy(manifest);

    /* The rest comes next; what was taken stays where it is, and is not taken again. */
    CU_ASSERT_EQUAL(look(NOW + 3, 100), 0);
    CU_ASSERT_EQUAL(collected.files_count, 1);
    CU_ASSERT_EQUAL(look(NOW + 9, 100), 0);
    CU_ASSERT_EQUAL(collected.files_count, 0);
    CU_ASSERT_EQUAL(names_count("pickup"), 3);

    CU_ASSERT_EQUAL(spool_pickup_release(&spool, directory), 0);
    CU_ASSERT_EQUAL(names_count("pickup"), 1);
    (void)snprintf(path, sizeof(path), "active/%s/sources.list", directory);
    CU_ASSERT(!exists(path));
    CU_ASSERT_EQUAL(spool_pickup_release(&spool, directory), 0);
    CU_ASSERT_EQUAL(spool_pickup_release(&spool, "gone.batch"), -ENOENT);

    /* The same names once more are other mail. */
    static const char *const names[] = {"pickup/a.eml", "pickup/b.eml", "pickup/c.eml"};
    for (size_t i = 0; i < COUNT_OF(names); i++) {
        if (!exists(names[i])) {
            put_text(names[i], MAIL);
        }
    }
    CU_ASSERT_EQUAL(collect(NOW + 20), 0);
    CU_ASSERT_EQUAL(collected.files_count, 2);
    end();
}

/* Between taking and release: a writer goes on, another replaces the file, somebody removes it. */
static void test_sources_change(void)
{
    pickup_begin();
    put_text("pickup/appended.eml", MAIL);
    put_text("pickup/replaced.eml", MAIL);
    put_text("pickup/removed.eml", MAIL);
    CU_ASSERT_EQUAL(collect(NOW), 0);
    CU_ASSERT_EQUAL(collected.files_count, 3);
    char directory[SPOOL_DIRECTORY_MAX + 1];
    memcpy(directory, collected.directory, sizeof(directory));
    put_text("pickup/appended.eml", MAIL "more\n");
    put_text("pickup/new.tmp", MAIL "new\n");
    ensure(rename(at("pickup/new.tmp"), at("pickup/replaced.eml")) == 0);
    ensure(unlink(at("pickup/removed.eml")) == 0);
    CU_ASSERT_EQUAL(collect(NOW + 10), 0);
    CU_ASSERT_EQUAL(collected.files_count, 1); /* the replaced one is new mail */
    CU_ASSERT_PTR_NOT_NULL(strstr(messages(), "new\r\n"));
    CU_ASSERT_EQUAL(spool_pickup_release(&spool, directory), 0);
    CU_ASSERT(exists("pickup/replaced.eml"));
    CU_ASSERT(!exists("pickup/appended.eml"));
    CU_ASSERT_PTR_NOT_NULL(strstr(text_of("badmail/appended.eml.bad.reason"), "was written to"));
    CU_ASSERT_EQUAL(spool_pickup_release(&spool, collected.directory), 0);
    CU_ASSERT_EQUAL(names_count("pickup"), 0);
    end();
}

/* A list that is damaged, or that a writer put into a batch of his own: what it can name lies in
 * pickup/, and the engine starts, and lets the batch go on. */
static void test_odd_lists(void)
{
    char text[4096], path[256], directory[SPOOL_DIRECTORY_MAX + 1];
    pickup_begin();
    put_text("journal/journal-1", "precious\n");
    put_text("pickup/a.eml", MAIL);
    put_text("pickup/b.eml", MAIL);
    CU_ASSERT_EQUAL(collect(NOW), 0);
    CU_ASSERT_EQUAL(collected.files_count, 2);
    memcpy(directory, collected.directory, sizeof(directory));
    (void)snprintf(path, sizeof(path), "active/%s/sources.list", directory);
    struct stat stat;
    ensure(lstat(at("journal/journal-1"), &stat) == 0);
    (void)snprintf(text, sizeof(text), "%llu 1 1 ../journal/journal-1\n\nx\n1 2\n1 2 3\n1 2 3 \n%s",
                   (unsigned long long)stat.st_ino, text_of(path));
    put_text(path, text);
    spool_close(&spool);
    start();
    CU_ASSERT_EQUAL(collect(NOW + 10), 0);
    CU_ASSERT_EQUAL(collected.files_count, 0); /* they are taken still */
    CU_ASSERT_EQUAL(spool_pickup_release(&spool, directory), 0);
    CU_ASSERT_EQUAL(names_count("pickup"), 0);
    CU_ASSERT(!exists(path));
    CU_ASSERT_STRING_EQUAL(text_of("journal/journal-1"), "precious\n");
    CU_ASSERT_EQUAL(names_count("badmail"), 0);
    for (int i = 0; i < 3; i++) {
        ensure(i != 0 || mkdir(at(path), 0700) == 0);
        ensure(i != 1 || mkfifo(at(path), 0600) == 0);
        ensure(i != 2 || symlink("batch.json", at(path)) == 0);
        spool_close(&spool);
        start();
        CHECK_ROW((size_t)i, spool_pickup_release(&spool, directory) == 0);
        ensure(remove(at(path)) == 0);
    }
    end();
}

static void test_failed_batch(void)
{
    pickup_begin();
    put_text("pickup/a.eml", MAIL);
    CU_ASSERT_EQUAL(collect(NOW), 0);
    CU_ASSERT_EQUAL(spool_one_finish(&spool, collected.directory, SPOOL_END_FAILED, NULL,
                                     SPAN("nobody may relay"), wall_s(NOW), NULL),
                    0);
    CU_ASSERT_EQUAL(names_count("pickup"), 0);
    CU_ASSERT_PTR_NOT_NULL(strstr(text_of("badmail/a.eml.bad.reason"), "nobody may relay"));
    put_text("pickup/b.eml", MAIL);
    CU_ASSERT_EQUAL(collect(NOW + 10), 0);
    CU_ASSERT_EQUAL(spool_one_finish(&spool, collected.directory, SPOOL_END_HELD, NULL,
                                     SPAN("later"), wall_s(NOW), NULL),
                    0);
    CU_ASSERT_EQUAL(names_count("pickup"), 0); /* hold/ has the mail */
    end();
}

/* Listings, and looks at files, since this was cleared. */
static struct {
    uint64_t lists, stats;
} counted;

static int64_t counting_run(struct disk *disk, struct disk_op *op)
{
    counted.lists += op->verb == DISK_LIST;
    counted.stats += op->verb == DISK_STAT;
    return check_disk_run(disk, op);
}

/* More files than are watched at once: all come in turn, each is looked at a few times, and pickup/
 * is not listed for each batch. */
static void test_many_files(void)
{
    enum { FILES = SPOOL_PICKUP_WATCHED_MAX + 500 };
    static const struct disk_ops ops = {.run = counting_run};
    pickup_begin();
    for (int i = 0; i < FILES; i++) {
        char path[64];
        (void)snprintf(path, sizeof(path), "pickup/%d.eml", i);
        put_text(path, MAIL);
    }
    uint32_t taken = 0;
    uint32_t calls = 0;
    check.disk.ops = &ops;
    counted.lists = 0;
    counted.stats = 0;
    for (int64_t now = NOW; taken < FILES && calls < 300; now += collected.has_more ? 0 : 1) {
        CU_ASSERT_EQUAL_FATAL(look(now, SPOOL_PICKUP_FILES_MAX), 0);
        taken += collected.files_count;
        calls++;
        if (collected.files_count > 0) {
            CU_ASSERT_EQUAL(spool_pickup_release(&spool, collected.directory), 0);
        }
    }
    CU_ASSERT_EQUAL(taken, FILES);
    CU_ASSERT(counted.lists <= 8);
    CU_ASSERT(counted.stats <= 8 * (uint64_t)FILES);
    CU_ASSERT_EQUAL(names_count("pickup"), 0);
    CU_ASSERT_EQUAL(look(NOW + 1000, 100), 0);
    CU_ASSERT_EQUAL(collected.files_count, 0);
    CU_ASSERT_EQUAL(collected.waiting_count, 0);
    end();
}

/* Others write on and on, come, go, and stand in the way: none keeps a file from its turn. */
static void test_files_among_restless_ones(void)
{
    pickup_begin();
    for (int64_t i = 0; i < 20; i++) {
        char path[64];
        for (int j = 0; j < 3; j++) {
            (void)snprintf(path, sizeof(path), "pickup/restless%d.eml", j);
            put_text(path, MAIL);
            set_time(path, NOW + 100 + i);
        }
        (void)snprintf(path, sizeof(path), "pickup/gone%d.eml", (int)i);
        put_text(path, MAIL);
        (void)snprintf(path, sizeof(path), "pickup/n%d.eml", (int)i);
        put_text(path, MAIL);
        CU_ASSERT_EQUAL(look(NOW + i, 2), 0);
        CU_ASSERT(i < 2 || collected.files_count == 1);
        if (collected.files_count > 0) {
            CU_ASSERT_EQUAL(spool_pickup_release(&spool, collected.directory), 0);
        }
        (void)snprintf(path, sizeof(path), "pickup/gone%d.eml", (int)i);
        ensure(unlink(at(path)) == 0);
    }
    CU_ASSERT_EQUAL(names_count("pickup"), 3 + 2);
    end();
}

SUITE(pickup, test_stands_still, test_a_set_clock_shortens_no_rest, test_batch_and_release,
      test_sources_change, test_odd_lists, test_failed_batch, test_many_files,
      test_files_among_restless_ones)
