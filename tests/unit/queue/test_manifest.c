/* SPDX-License-Identifier: Apache-2.0 */
#include "queue/manifest.h"

#include <stdio.h>
#include <stdlib.h>

#include "engine/base/random.h"
#include "tests/harness.h"

static char errors[4096];

static struct manifest *parse(const char *json, const char *name)
{
    struct writer writer = writer_of(errors, sizeof(errors) - 1);
    size_t size = strlen(json);
    char *exact = malloc(size > 0 ? size : 1);
    memcpy(exact, json, size);
    struct manifest *manifest = manifest_parse(span_of(exact, size), span_of_text(name), &writer);
    *writer.at = '\0';
    free(exact);
    return manifest;
}

static void test_everything(void)
{
    struct manifest *manifest = parse(
        "{\"v\":1,\"id\":\"spring-07\",\"kind\":\"merge\",\"from\":\"b-{{_vid}}@bounce.ex.com\","
        "\"message\":\"mail.eml\",\"recipients\":\"list.csv\",\"count\":10000000,"
        "\"template\":\"mustache\",\"missing\":\"empty\",\"tenant\":\"acme\","
        "\"campaign\":\"Spring \xc3\xa9\",\"priority\":9,"
        "\"not_before\":\"2026-12-01T08:00:00Z\",\"expires\":\"2026-12-03T08:00:00+01:00\","
        "\"vars\":{\"year\":2026,\"user\":{\"city\":\"Rom\"},\"list\":[true,null]},"
        "\"max_reject\":\"0.25%\",\"results\":[\"bounced\",\"rejected\",\"expired\"]}",
        "other");
    CU_ASSERT_PTR_NOT_NULL_FATAL(manifest);
    CU_ASSERT_STRING_EQUAL(manifest->id, "spring-07");
    CU_ASSERT_EQUAL(manifest->kind, MANIFEST_MERGE);
    CU_ASSERT_EQUAL(manifest->format, SCAN_CSV);
    CU_ASSERT_STRING_EQUAL(manifest->from, "b-{{_vid}}@bounce.ex.com");
    CU_ASSERT_STRING_EQUAL(manifest->message, "mail.eml");
    CU_ASSERT_STRING_EQUAL(manifest->recipients, "list.csv");
    CU_ASSERT_EQUAL(manifest->count, 10000000);
    CU_ASSERT_EQUAL(manifest->missing, MANIFEST_MISSING_EMPTY);
    CU_ASSERT_STRING_EQUAL(manifest->tenant, "acme");
    CU_ASSERT_STRING_EQUAL(manifest->campaign, "Spring \xc3\xa9");
    CU_ASSERT_EQUAL(manifest->priority, 9);
    CU_ASSERT_EQUAL(manifest->not_before.ns, INT64_C(1796112000) * NS_PER_S);
    CU_ASSERT_EQUAL(manifest->expires.ns, (INT64_C(1796112000) + 47 * 3600) * NS_PER_S);
    CU_ASSERT_EQUAL(manifest->max_reject_ppm, 2500);
    CU_ASSERT_EQUAL(manifest->results, MANIFEST_RESULT_BOUNCED | MANIFEST_RESULT_EXPIRED);
    CU_ASSERT_EQUAL_FATAL(manifest->vars_count, 4);
    static const char *const vars[] = {"year",   "2026", "user.city", "Rom",
                                       "list.0", "true", "list.1",    ""};
    for (uint32_t i = 0; i < manifest->vars_count; i++) {
        CHECK_ROW(i, strcmp(manifest->vars[i].name, vars[2 * i]) == 0);
        CHECK_ROW(i, strcmp(manifest->vars[i].value, vars[2 * i + 1]) == 0);
    }
    manifest_destroy(manifest);
    manifest_destroy(NULL);
}

static void test_defaults(void)
{
    struct manifest *manifest = parse("\xef\xbb\xbf{\"v\":1,\"from\":\"\"}\n", "X.1");
    CU_ASSERT_PTR_NOT_NULL_FATAL(manifest);
    CU_ASSERT_STRING_EQUAL(manifest->id, "X.1");
    CU_ASSERT_EQUAL(manifest->kind, MANIFEST_MERGE);
    CU_ASSERT_EQUAL(manifest->format, SCAN_NDJSON);
    CU_ASSERT_STRING_EQUAL(manifest->from, "");
    CU_ASSERT_STRING_EQUAL(manifest->message, "message.eml");
    CU_ASSERT_STRING_EQUAL(manifest->recipients, "recipients.ndjson");
    CU_ASSERT_EQUAL(manifest->missing, MANIFEST_MISSING_REJECT);
    CU_ASSERT_EQUAL(manifest->priority, 5);
    CU_ASSERT_EQUAL(manifest->count, 0);
    CU_ASSERT_EQUAL(manifest->max_reject_ppm, 10000);
    CU_ASSERT_EQUAL(manifest->not_before.ns, 0);
    CU_ASSERT_EQUAL(manifest->results, MANIFEST_RESULT_ALL);
    CU_ASSERT_EQUAL(manifest->vars_count, 0);
    manifest_destroy(manifest);

    manifest = parse("{\"v\":1,\"kind\":\"bsmtp\",\"results\":[],\"max_reject\":0}", "b");
    CU_ASSERT_PTR_NOT_NULL_FATAL(manifest);
    CU_ASSERT_EQUAL(manifest->format, SCAN_BSMTP);
    CU_ASSERT_PTR_NULL(manifest->from);
    CU_ASSERT_PTR_NULL(manifest->recipients);
    CU_ASSERT_EQUAL(manifest->results, 0);
    CU_ASSERT_EQUAL(manifest->max_reject_ppm, 0);
    manifest_destroy(manifest);
}

/* Members beside "v" and "from", and words of the error that names the key. */
static const struct {
    const char *members, *words;
} BAD[] = {
    {"\"x\":1", "unknown key \"x\""},
    {"\"\\n\":1", "unknown key \"\\x0a\""},
    {"\"v\":2", "line 1 column"}, /* given twice */
    {"\"id\":\"\"", "\"id\" is not 1 to 128"},
    {"\"id\":\".a\"", "\"id\" is not 1 to 128"},
    {"\"id\":\"-a\"", "\"id\" is not 1 to 128"},
    {"\"id\":\"a/b\"", "\"id\" is not 1 to 128"},
    {"\"id\":\"a~2\"", "\"id\" is not 1 to 128"},
    {"\"id\":7", "\"id\" is not a text"},
    {"\"kind\":\"mass\"", "\"kind\" is none of \"merge\", \"bsmtp\""},
    {"\"kind\":\"bsmtp\"", "\"from\" has no meaning for kind \"bsmtp\""},
    {"\"message\":\"../x\"", "\"message\" is not the name of a file"},
    {"\"message\":\"\"", "\"message\" is not the name of a file"},
    {"\"message\":\".hidden\"", "\"message\" is not the name of a file"},
    {"\"message\":\"results.ndjson\"", "keeps for itself"},
    {"\"message\":\"a.csv\",\"recipients\":\"a.csv\"", "are one file"},
    {"\"recipients\":\"list.txt\"", "neither in .ndjson nor in .csv"},
    {"\"recipients\":\".csv\"", "not the name of a file"},
    {"\"recipients\":\"list.ndjson.zst\"", "is compressed"},
    {"\"recipients\":\"a\\u0001.csv\"", "control character"},
    {"\"template\":\"jinja\"", "\"template\" is none of \"mustache\""},
    {"\"missing\":\"ignore\"", "\"missing\" is none of \"reject\", \"empty\", \"literal\""},
    {"\"campaign\":\"\"", "\"campaign\" is empty"},
    {"\"campaign\":7", "\"campaign\" is not a text"},
    {"\"pool\":\"news-a\"", "\"pool\" is not supported"},
    {"\"tenant\":\"a\\nb\"", "\"tenant\" holds a control character"},
    {"\"priority\":10", "\"priority\" is not a whole number from 0 to 9"},
    {"\"priority\":-1", "\"priority\" is not a whole number"},
    {"\"priority\":\"5\"", "\"priority\" is not a whole number"},
    {"\"count\":1.5", "\"count\" is not a whole number"},
    {"\"count\":4294967296", "\"count\" is not a whole number"},
    {"\"max_reject\":\"101%\"", "\"max_reject\" is neither"},
    {"\"max_reject\":\"100.0001%\"", "\"max_reject\" is neither"},
    {"\"max_reject\":\"1\"", "\"max_reject\" is neither"},
    {"\"max_reject\":\"0.00001%\"", "\"max_reject\" is neither"},
    {"\"max_reject\":-1", "\"max_reject\" is not a whole number"},
    {"\"not_before\":\"tomorrow\"", "\"not_before\" is not a time"},
    {"\"not_before\":\"2110-01-01T00:00:00Z\"", "\"not_before\" is a time behind 2105"},
    {"\"expires\":\"2106-02-07T06:28:16Z\"", "\"expires\" is a time behind 2105"},
    {"\"expires\":\"2026-12-01 08:00\"", "\"expires\" is not a time"},
    {"\"expires\":1796112000", "\"expires\" is not a time"},
    {"\"not_before\":\"2026-12-01T08:00:00Z\",\"expires\":\"2026-12-01T08:00:00Z\"",
     "\"expires\" is not later"},
    {"\"results\":\"bounced\"", "\"results\" is not a list"},
    {"\"results\":[\"lost\"]", "\"results\" is none of"},
    {"\"vars\":[1]", "\"vars\" is not an object"},
    {"\"vars\":{\"a\":1.5}", "put the number \"a\" in quotes"},
    {"\"vars\":{\"a.b\":1,\"a\":{\"b\":2}}", "\"a.b\" is given twice"},
    {"\"vars\":{\"\":1}", "a name is empty"},
    {"\"vars\":{\"a\":[[[[[[[[1]]]]]]]]}", "nested deeper than 8"},
    {"\"max_rate\":\"400000/h\"", "\"max_rate\" is not supported by this version"},
    {"\"windows\":[]", "\"windows\" is not supported by this version"},
    {"\"notify\":\"https://x\"", "\"notify\" is not supported by this version"},
};

static void test_bad_keys(void)
{
    for (size_t i = 0; i < COUNT_OF(BAD); i++) {
        char json[1024];
        (void)snprintf(json, sizeof(json), "{\"v\":1,\"from\":\"a@b\",%s}", BAD[i].members);
        struct manifest *manifest = parse(json, "x");
        bool is_told = manifest == NULL && strstr(errors, BAD[i].words) != NULL;
        if (!is_told) {
            printf("row %zu: %s\n", i, errors);
        }
        CHECK_ROW(i, is_told);
        CHECK_ROW(i, strchr(errors, '\n') == errors + strlen(errors) - 1);
        manifest_destroy(manifest);
    }
}

static void test_bad_wholes(void)
{
    static const struct {
        const char *json, *name, *words;
    } rows[] = {
        {"", "x", "line 1 column 0"},
        {"[]", "x", "not an object"},
        {"{\"v\":1,\n \"from\" \"a@b\"}", "x", "line 2 column"},
        {"{\"v\":1,\"from\":\"\xff\"}", "x", "line 1 column"},
        {"{\"from\":\"a@b\"}", "x", "\"v\" is missing"},
        {"{\"v\":2,\"from\":\"a@b\"}", "x", "\"v\" is not 1"},
        {"{\"v\":1}", "x", "\"from\" is missing"},
        {"{\"v\":1,\"from\":\"a@b\"}", "a b", "the directory's name cannot stand for it"},
        {"{\"v\":1,\"from\":\"a@b\\u0000c\"}", "x", "line 1 column"},
        {"{\"v\":1,\"from\":\"a@b\\r\\nDATA\"}", "x", "\"from\" holds a control character"},
    };
    for (size_t i = 0; i < COUNT_OF(rows); i++) {
        struct manifest *manifest = parse(rows[i].json, rows[i].name);
        bool is_told = manifest == NULL && strstr(errors, rows[i].words) != NULL;
        if (!is_told) {
            printf("row %zu: %s\n", i, errors);
        }
        CHECK_ROW(i, is_told);
        manifest_destroy(manifest);
    }
    char *large = malloc(MANIFEST_SIZE_MAX + 2);
    memset(large, ' ', MANIFEST_SIZE_MAX + 1);
    large[MANIFEST_SIZE_MAX + 1] = '\0';
    CU_ASSERT_PTR_NULL(parse(large, "x"));
    CU_ASSERT_PTR_NOT_NULL(strstr(errors, "longer than 65536 bytes"));
    free(large);
}

/* All errors come at once; what the text has no room for is dropped by whole lines. */
static void test_errors_are_collected(void)
{
    CU_ASSERT_PTR_NULL(parse("{\"v\":3,\"pool\":1,\"x\":2,\"priority\":77}", "x"));
    size_t lines = 0;
    for (const char *at = errors; *at != '\0'; at++) {
        lines += *at == '\n';
    }
    CU_ASSERT_EQUAL(lines, 5);

    char small[64];
    struct writer writer = writer_of(small, sizeof(small));
    CU_ASSERT_PTR_NULL(manifest_parse(SPAN("{\"x\":1,\"y\":2,\"z\":3}"), SPAN("x"), &writer));
    CU_ASSERT(writer.is_full);
    CU_ASSERT_EQUAL(small[writer_size(&writer) - 1], '\n');
}

static void test_allows_rejects(void)
{
    struct manifest share = {.max_reject_ppm = 10000};
    CU_ASSERT(manifest_allows_rejects(&share, 0, 0));
    CU_ASSERT(manifest_allows_rejects(&share, 0, 1));
    CU_ASSERT(!manifest_allows_rejects(&share, 1, 99));
    CU_ASSERT(manifest_allows_rejects(&share, 1, 100));
    CU_ASSERT(!manifest_allows_rejects(&share, UINT32_MAX, UINT32_MAX));
    struct manifest number = {.max_reject = 3};
    CU_ASSERT(manifest_allows_rejects(&number, 3, 3));
    CU_ASSERT(!manifest_allows_rejects(&number, 4, 1000000));
    struct manifest all = {.max_reject_ppm = MANIFEST_PPM};
    CU_ASSERT(manifest_allows_rejects(&all, UINT32_MAX, UINT32_MAX));
    CHECK_PANICS((void)manifest_allows_rejects(&all, 2, 1));
    CU_ASSERT(manifest_allows_rejects(&all, UINT64_MAX, UINT64_MAX));
    CU_ASSERT(manifest_allows_rejects(&share, UINT64_MAX / 100, UINT64_MAX));
    CU_ASSERT(!manifest_allows_rejects(&share, UINT64_MAX / 100 + 1, UINT64_MAX));
    CU_ASSERT(!manifest_allows_rejects(&number, UINT64_MAX, UINT64_MAX));
}

/* Mutated bytes: no crash, and a manifest or an error, never both. */
static void test_mutations(void)
{
    static const char good[] =
        "{\"v\":1,\"id\":\"s-7\",\"from\":\"b@x\",\"vars\":{\"a\":[1,{\"b\":\"c\"}]},"
        "\"max_reject\":\"0.25%\",\"results\":[\"bounced\"],\"count\":7,\"priority\":3}";
    static const char bytes[] = "\"\\{}[]:,0.-e%\x01\xff nt";
    struct random random;
    random_init_seed(&random, 7);
    uint32_t good_count = 0;
    for (uint32_t round = 0; round < 20000; round++) {
        char json[sizeof(good)];
        memcpy(json, good, sizeof(good));
        for (uint32_t flips = 1 + random_below(&random, 3); flips > 0; flips--) {
            json[random_below(&random, sizeof(good) - 1)] =
                bytes[random_below(&random, sizeof(bytes) - 1)];
        }
        struct manifest *manifest = parse(json, "x");
        CHECK_ROW(round, (manifest != NULL) == (errors[0] == '\0'));
        good_count += manifest != NULL;
        manifest_destroy(manifest);
    }
    CU_ASSERT(good_count > 0);
}

/* The linker's --wrap brings our own objects' allocations here (meson.build). */
void *__real_malloc(size_t size);
void *__wrap_malloc(size_t size);

static uint64_t allocations; /* since somebody set it */
static uint64_t allocation_denied;

void *__wrap_malloc(size_t size)
{
    allocations++;
    return allocations == allocation_denied ? NULL : __real_malloc(size);
}

/* Whatever allocation the JSON reader is refused, nothing speaks against the batch. */
static void test_json_without_memory(void)
{
    static const char json[] =
        "{\"v\":1,\"from\":\"a-name-longer-than-the-first-buffer-of-the-reader@example.com\","
        "\"vars\":{\"a\":[1,2],\"b\":{}},\"results\":[\"bounced\"]}";
    allocations = 0;
    allocation_denied = 0;
    manifest_destroy(parse(json, "x"));
    uint64_t count = allocations;
    CU_ASSERT(count > 20);
    for (uint64_t denied = 2; denied <= count; denied++) { /* the first is parse's own */
        allocations = 0;
        allocation_denied = denied;
        struct manifest *manifest = parse(json, "x");
        CHECK_ROW((size_t)denied, manifest == NULL);
        CHECK_ROW((size_t)denied, errors[0] == '\0');
        manifest_destroy(manifest);
    }
    allocation_denied = 0;
}

/* A writer may not put a file where the engine will write its own. */
static void test_reserved_names(void)
{
    static const char *const ours[] = {"batch.json",     "order",
                                       "results.ndjson", "results.ndjson.unread",
                                       ".results.index", ".results.doubted",
                                       "summary.json",   "retried"};
    static const char *const theirs[] = {"message.eml", "results", "recipients.ndjson", "orders"};
    for (size_t i = 0; i < COUNT_OF(ours); i++) {
        CHECK_ROW(i, manifest_file_is_reserved(ours[i]));
    }
    for (size_t i = 0; i < COUNT_OF(theirs); i++) {
        CHECK_ROW(i, !manifest_file_is_reserved(theirs[i]));
    }
}

SUITE(manifest, test_reserved_names, test_everything, test_defaults, test_bad_keys, test_bad_wholes,
      test_errors_are_collected, test_allows_rejects, test_mutations, test_json_without_memory)
