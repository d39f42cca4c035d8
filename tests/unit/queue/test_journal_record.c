/* SPDX-License-Identifier: Apache-2.0 */
#include "queue/journal_record.h"

#include <endian.h>
#include <errno.h>
#include <xxhash.h>

#include "engine/base/random.h"
#include "tests/harness.h"

static const struct journal_record RECORD = {
    .kind = JOURNAL_KIND_DEFERRED,
    .flags = JOURNAL_FLAG_AMBIGUOUS,
    .code = 451,
    .batch = 7,
    .ordinal = 0x01020304,
    .at_s = 1800000000,
    .due_s = 1800000900,
    .attempts_count = 3,
    .group = 9,
};

static bool record_equal(const struct journal_record *a, const struct journal_record *b)
{
    return a->kind == b->kind && a->flags == b->flags && a->code == b->code &&
           a->batch == b->batch && a->ordinal == b->ordinal && a->at_s == b->at_s &&
           a->due_s == b->due_s && a->attempts_count == b->attempts_count && a->group == b->group;
}

/* The format, byte by byte: a change here is a change of JOURNAL_VERSION. */
static void test_bytes_on_disk(void)
{
    static const unsigned char WANT[JOURNAL_CELL_SIZE - 4] = {
        6,    1,    0xc3, 0x01, 7,    0,    0, 0, 4, 3, 2, 1, 0x00, 0xd2,
        0x49, 0x6b, 0x84, 0xd5, 0x49, 0x6b, 3, 0, 0, 0, 9, 0, 0,    0,
    };
    struct journal_cell cell;
    journal_record_put(&cell, &RECORD, 1);
    CU_ASSERT_EQUAL(memcmp((const char *)&cell + 4, WANT, sizeof(WANT)), 0);
    CU_ASSERT_EQUAL(journal_seed(JOURNAL_FILE_SEGMENT, 5), UINT64_C(0x1000000500000000));
    CU_ASSERT_EQUAL(journal_seed(JOURNAL_FILE_CHECKPOINT, 99999999), UINT64_C(0x25f5e0ff00000000));
}

static void test_round_trip(void)
{
    struct random random;
    random_init_seed(&random, 41);
    for (int i = 0; i < 10000; i++) {
        struct journal_record record = {
            .kind = JOURNAL_KIND_ACCEPTED + random_below(&random, 7),
            .flags = (uint8_t)random_below(&random, 8),
            .code = (uint16_t)random_u32(&random),
            .batch = random_u32(&random),
            .ordinal = random_u32(&random),
            .at_s = random_u32(&random),
            .due_s = random_u32(&random),
            .attempts_count = (uint16_t)random_u32(&random),
            .group = random_u32(&random),
        };
        uint64_t seed = random_u64(&random);
        struct journal_cell cell;
        struct journal_record got;
        journal_record_put(&cell, &record, seed);
        CHECK_ROW((size_t)i, journal_record_get(&cell, seed, &got) && record_equal(&got, &record));
    }
}

/* Every single bit, the neighbour's place, another file, and a cell of zeros. */
static void test_damage_is_seen(void)
{
    struct journal_cell cell, zeros = {0};
    struct journal_record got;
    uint64_t seed = journal_seed(JOURNAL_FILE_SEGMENT, 3) + 17;
    journal_record_put(&cell, &RECORD, seed);
    for (size_t bit = 0; bit < JOURNAL_CELL_SIZE * 8; bit++) {
        struct journal_cell bad = cell;
        ((unsigned char *)&bad)[bit / 8] ^= (unsigned char)(1u << bit % 8);
        CHECK_ROW(bit, !journal_record_get(&bad, seed, &got));
        CHECK_ROW(bit, journal_cell_mend(&bad, seed, &got) && record_equal(&got, &RECORD));
        ((unsigned char *)&bad)[(bit / 8 + 1) % JOURNAL_CELL_SIZE] ^= 0x10;
        CHECK_ROW(bit, !journal_cell_mend(&bad, seed, &got));
    }
    CU_ASSERT_FALSE(journal_record_get(&cell, seed + 1, &got));
    CU_ASSERT_FALSE(journal_record_get(&cell, journal_seed(JOURNAL_FILE_CHECKPOINT, 3) + 17, &got));
    CU_ASSERT_FALSE(journal_record_get(&cell, journal_seed(JOURNAL_FILE_SEGMENT, 4) + 17, &got));
    CU_ASSERT_FALSE(journal_record_get(&zeros, seed, &got));
    CU_ASSERT_FALSE(journal_cell_mend(&cell, seed, &got));
    CU_ASSERT_FALSE(journal_cell_mend(&cell, seed + 1, &got));
    CU_ASSERT_FALSE(journal_cell_mend(&zeros, seed, &got));
    CU_ASSERT(journal_cell_is_empty(&zeros) && !journal_cell_is_empty(&cell));
}

static void test_long_records(void)
{
    struct journal_cell cells[1 + JOURNAL_MORE_CELLS_MAX];
    char payload[JOURNAL_MORE_CELLS_MAX * JOURNAL_MORE_SIZE];
    for (size_t i = 0; i < sizeof(payload); i++) {
        payload[i] = (char)(i * 7);
    }
    static const size_t SIZES[] = {0, 1, 23, 24, 25, 48, 6119, 6120};
    for (size_t row = 0; row < COUNT_OF(SIZES); row++) {
        struct journal_record record = {.kind = JOURNAL_KIND_SETTLED, .batch = 4};
        uint32_t used = journal_long_put(cells, record, span_of(payload, SIZES[row]), 100);
        CHECK_ROW(row, used == 1 + (SIZES[row] + 23) / 24);
        struct journal_record got;
        CHECK_ROW(row, journal_record_get(&cells[0], 100, &got) && got.code == used - 1);
        size_t total = 0;
        for (uint32_t i = 1; i < used; i++) {
            char bytes[JOURNAL_MORE_SIZE];
            uint32_t size, index;
            CHECK_ROW(row, !journal_record_get(&cells[i], 100 + i, &got));
            CHECK_ROW(row, journal_more_get(&cells[i], 100 + i, bytes, &size, &index));
            CHECK_ROW(row, index == i - 1 && memcmp(bytes, payload + total, size) == 0);
            CHECK_ROW(row, !journal_more_get(&cells[i], 101 + i, bytes, &size, &index));
            total += size;
        }
        CHECK_ROW(row, total == SIZES[row]);
    }
}

static size_t payload_collect(const struct journal_cell *cells, uint32_t used, uint64_t seed,
                              char *payload)
{
    size_t total = 0;
    for (uint32_t i = 1; i < used; i++) {
        uint32_t size, index;
        char bytes[JOURNAL_MORE_SIZE];
        ensure(journal_more_get(&cells[i], seed + i, bytes, &size, &index));
        memcpy(payload + total, bytes, size);
        total += size;
    }
    return total;
}

static void test_accepted(void)
{
    char name[JOURNAL_DIRECTORY_MAX];
    memset(name, 'n', sizeof(name));
    for (size_t size = 1; size <= JOURNAL_DIRECTORY_MAX; size++) {
        struct journal_accepted accepted = {
            .number = 12,
            .is_damaged = size % 2 == 0,
            .recipients_count = 99,
            .records_count = 100,
            .rejected_count = 1,
            .content_hash = UINT64_C(0xfedcba9876543210),
            .content_size = 123456789,
            .accepted_at = {.ns = 1800000000123456789},
            .directory = span_of(name, size),
        };
        struct journal_cell cells[JOURNAL_ACCEPTED_CELLS_MAX];
        char payload[JOURNAL_ACCEPTED_CELLS_MAX * JOURNAL_MORE_SIZE];
        uint32_t used = journal_accepted_put(cells, &accepted, 5, 50);
        CHECK_ROW(size, used <= JOURNAL_ACCEPTED_CELLS_MAX);
        struct journal_record record;
        struct journal_accepted got;
        CHECK_ROW(size, journal_record_get(&cells[0], 50, &record) && record.group == 5);
        size_t total = payload_collect(cells, used, 50, payload);
        CHECK_ROW(size, journal_accepted_get(&record, span_of(payload, total), &got));
        CHECK_ROW(size, got.number == 12 && got.is_damaged == accepted.is_damaged &&
                            got.recipients_count == 99 && got.records_count == 100 &&
                            got.rejected_count == 1 && got.content_size == 123456789 &&
                            got.content_hash == accepted.content_hash &&
                            got.accepted_at.ns == accepted.accepted_at.ns &&
                            span_equal(got.directory, accepted.directory));
        /* Any cut is seen. */
        for (size_t cut = 0; cut < total; cut++) {
            CHECK_ROW(cut, !journal_accepted_get(&record, span_of(payload, cut), &got));
        }
    }
}

/* Checksums hold, the numbers make no sense. */
static void test_accepted_nonsense(void)
{
    static const struct {
        uint64_t recipients_count, records_count;
        const char *directory;
        size_t directory_size;
        bool is_good;
    } ROWS[] = {
        {1, 1, "a", 1, true},          {0, 0, "a", 1, true},
        {2, 1, "a", 1, false},         {1, UINT64_C(1) << 32, "a", 1, false},
        {1, UINT32_MAX, "a", 1, true}, {1, 1, "a\0b", 3, false},
    };
    for (size_t i = 0; i < COUNT_OF(ROWS); i++) {
        struct journal_accepted accepted = {
            .number = 1,
            .recipients_count = ROWS[i].recipients_count,
            .records_count = ROWS[i].records_count,
            .directory = span_of(ROWS[i].directory, ROWS[i].directory_size),
        };
        struct journal_cell cells[JOURNAL_ACCEPTED_CELLS_MAX];
        char payload[JOURNAL_ACCEPTED_CELLS_MAX * JOURNAL_MORE_SIZE];
        uint32_t used = journal_accepted_put(cells, &accepted, 1, 1);
        struct journal_record record;
        ensure(journal_record_get(&cells[0], 1, &record));
        size_t total = payload_collect(cells, used, 1, payload);
        CHECK_ROW(i, journal_accepted_get(&record, span_of(payload, total), &accepted) ==
                         ROWS[i].is_good);
        record.batch = 0;
        CHECK_ROW(i, !journal_accepted_get(&record, span_of(payload, total), &accepted));
    }
}

static void test_header(void)
{
    const struct journal_header header = {
        .file = JOURNAL_FILE_CHECKPOINT,
        .number = 17,
        .run = 5,
        .group = 99,
        .before_run = 2,
        .before_group = 44,
        .created_at = {.ns = 1800000000},
        .size = 65536,
        .next_number = 1234,
        .corrupt_records = 3,
    };
    char sector[JOURNAL_SECTOR_SIZE];
    struct journal_header got;
    journal_header_put(sector, &header);
    struct span span = span_of(sector, sizeof(sector));
    CU_ASSERT_EQUAL(journal_header_get(span, &got), 0);
    CU_ASSERT(got.file == header.file && got.number == 17 && got.run == 5 && got.group == 99 &&
              got.before_run == 2 && got.before_group == 44 && got.created_at.ns == 1800000000 &&
              got.size == 65536 && got.next_number == 1234 && got.corrupt_records == 3);
    for (size_t i = 0; i < sizeof(sector); i++) {
        sector[i] ^= 0x10;
        CHECK_ROW(i, journal_header_get(span, &got) == -EBADMSG);
        sector[i] ^= 0x10;
    }
    /* Another version is one only with a checksum over it. */
    sector[8] = 2;
    uint64_t checksum = htole64(XXH3_64bits(sector, 504));
    memcpy(sector + 504, &checksum, sizeof(checksum));
    CU_ASSERT_EQUAL(journal_header_get(span, &got), -EPROTONOSUPPORT);
    CU_ASSERT_EQUAL(journal_header_get(span_of(sector, 511), &got), -EBADMSG);
}

static void test_names(void)
{
    static const struct {
        const char *name;
        bool is_good;
        enum journal_file file;
        uint32_t number;
    } ROWS[] = {
        {"journal-00000001.log", true, JOURNAL_FILE_SEGMENT, 1},
        {"journal-99999999.log", true, JOURNAL_FILE_SEGMENT, 99999999},
        {"checkpoint-00000042", true, JOURNAL_FILE_CHECKPOINT, 42},
        {"journal-spare", false, 0, 0},
        {"checkpoint-spare", false, 0, 0},
        {"journal-1.log", false, 0, 0},
        {"journal-000000001.log", false, 0, 0},
        {"journal-0000000a.log", false, 0, 0},
        {"journal-00000001.log~", false, 0, 0},
        {"checkpoint-00000042.log", false, 0, 0},
        {"", false, 0, 0},
    };
    for (size_t i = 0; i < COUNT_OF(ROWS); i++) {
        enum journal_file file = 0;
        uint32_t number = 0;
        CHECK_ROW(i, journal_name_get(ROWS[i].name, &file, &number) == ROWS[i].is_good);
        CHECK_ROW(i, file == ROWS[i].file && number == ROWS[i].number);
        if (ROWS[i].is_good) {
            char name[JOURNAL_NAME_SIZE];
            journal_name_put(name, file, number);
            CHECK_ROW(i, strcmp(name, ROWS[i].name) == 0);
        }
    }
}

SUITE(journal_record, test_bytes_on_disk, test_round_trip, test_damage_is_seen, test_long_records,
      test_accepted, test_accepted_nonsense, test_header, test_names)
