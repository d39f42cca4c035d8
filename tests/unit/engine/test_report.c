/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/report.h"

#include <jansson.h>
#include <stdlib.h>

#include "engine/smtp/smtp.h"
#include "queue/journal.h"
#include "tests/harness.h"

/* One attempt with all that a line is made of. */
struct fixture {
    struct config config;
    struct engine engine;
    struct worker worker;
    struct manifest manifest;
    struct batch batch;
    struct recipient recipient;
    struct attempt attempt;
    struct outcome outcome;
    char text[JOURNAL_LINE_MAX + 1];
    size_t size;
};

static void fixture_make(struct fixture *fixture)
{
    int error = 0;
    static char hostname[] = "node.example.net";
    memset(fixture, 0, sizeof(*fixture));
    fixture->config.hostname = hostname;
    memcpy(fixture->manifest.id, "spring-07", sizeof("spring-07"));
    fixture->batch.number = 12;
    fixture->batch.accepted_at.ns = INT64_C(1796112000) * NS_PER_S;
    fixture->recipient.ordinal = 104232;
    fixture->worker.engine = &fixture->engine;
    fixture->engine.config = &fixture->config;
    fixture->engine.domains = domain_table_create(16, 1, &error);
    ensure(fixture->engine.domains != NULL);
    fixture->batch.manifest = &fixture->manifest;
    fixture->recipient.domain = domain_intern(fixture->engine.domains, SPAN("example.org"));
    fixture->attempt.recipient = &fixture->recipient;
    fixture->attempt.batch = &fixture->batch;
    memcpy(fixture->attempt.address, "ann@example.org", 15);
    fixture->attempt.address_size = 15;
    fixture->outcome = (struct outcome){
        .class = OUTCOME_BOUNCED,
        .reason = PERM_REPLY,
        .response = {.code = 550,
                     .enhanced = {5, 1, 1},
                     .command = "RCPT TO",
                     .content = SPAN("user unknown")},
        .place = {.site = SPAN("mx.example.org"),
                  .source_name = SPAN("a1"),
                  .source = {.family = NET_IP4, .bytes = {203, 0, 113, 10}},
                  .peer_name = SPAN("mx.example.org"),
                  .peer_addr = SPAN("192.0.2.9"),
                  .session = 0xab,
                  .size = 1234,
                  .sender = SPAN("b-7@bounce.example.net")},
    };
}

static void fixture_end(struct fixture *fixture)
{
    domain_table_destroy(fixture->engine.domains);
}

static const struct wall_time AT = {.ns = INT64_C(1796112001) * NS_PER_S + 123 * NS_PER_MS};

static void put_at(struct fixture *fixture, bool is_possible_duplicate, struct wall_time at)
{
    struct writer writer = writer_of(fixture->text, JOURNAL_LINE_MAX);
    report_put_line(&writer, fixture->worker.engine, &fixture->worker.report, &fixture->attempt,
                    &fixture->outcome, 3, is_possible_duplicate, at);
    fixture->size = writer_size(&writer);
    fixture->text[fixture->size] = '\0';
}

static void put(struct fixture *fixture, bool is_possible_duplicate)
{
    put_at(fixture, is_possible_duplicate, AT);
}

/* One line, one object; NULL never. */
static json_t *parse(const struct fixture *fixture)
{
    json_error_t error;
    const char *end = memchr(fixture->text, '\n', fixture->size);
    CU_ASSERT(end == fixture->text + fixture->size - 1);
    json_t *line = json_loadb(fixture->text, fixture->size, JSON_REJECT_DUPLICATES, &error);
    if (line == NULL) {
        printf("%s: %s\n", error.text, fixture->text);
    }
    ensure(line != NULL);
    return line;
}

static const char *text_of(json_t *line, const char *key)
{
    const char *text = json_string_value(json_object_get(line, key));
    return text != NULL ? text : "(none)";
}

static void test_golden_line(void)
{
    static const char GOLDEN[] =
        "{\"type\":\"Bounce\",\"id\":\"12-104232\",\"batch\":\"spring-07\",\"line\":104233,"
        "\"recipient_id\":\"u1\",\"sender\":\"b-7@bounce.example.net\","
        "\"recipient\":\"ann@example.org\",\"queue\":\"example.org\",\"site\":\"mx.example.org\","
        "\"size\":1234,\"num_attempts\":3,\"event_time\":\"2026-12-01T08:00:01.123Z\","
        "\"created_time\":\"2026-12-01T08:00:00.000Z\",\"reason\":\"PERM_REPLY\","
        "\"tenant\":\"acme\",\"campaign\":\"Spring \\\"sale\\\"\","
        "\"response\":{\"code\":550,\"enhanced_code\":{\"class\":5,\"subject\":1,\"detail\":1},"
        "\"command\":\"RCPT TO\",\"content\":\"user unknown\"},"
        "\"peer_address\":{\"name\":\"mx.example.org\",\"addr\":\"192.0.2.9\"},"
        "\"session_id\":\"00000000000000ab\",\"egress_source\":\"a1\","
        "\"source_address\":{\"address\":\"203.0.113.10\"},\"nodeid\":\"node.example.net\"}\n";
    static struct fixture fixture;
    fixture_make(&fixture);
    memcpy(fixture.attempt.id, "u1", 2);
    fixture.attempt.id_size = 2;
    char tenant[] = "acme", campaign[] = "Spring \"sale\"";
    fixture.manifest.tenant = tenant;
    fixture.manifest.campaign = campaign;
    put(&fixture, false);
    CU_ASSERT_STRING_EQUAL(fixture.text, GOLDEN);
    json_decref(parse(&fixture));
    fixture_end(&fixture);
}

static void test_types(void)
{
    static const char *const TYPES[] = {
        [OUTCOME_DELIVERED] = "Delivery",    [OUTCOME_DEFERRED] = "TransientFailure",
        [OUTCOME_BOUNCED] = "Bounce",        [OUTCOME_EXPIRED] = "Expiration",
        [OUTCOME_CANCELLED] = "AdminBounce",
    };
    static struct fixture fixture;
    fixture_make(&fixture);
    CU_ASSERT_EQUAL(COUNT_OF(TYPES), OUTCOME_CLASSES_COUNT);
    for (size_t i = 0; i < COUNT_OF(TYPES); i++) {
        fixture.outcome.class = (enum outcome_class)i;
        put(&fixture, false);
        json_t *line = parse(&fixture);
        CHECK_ROW(i, strcmp(text_of(line, "type"), TYPES[i]) == 0);
        json_decref(line);
    }
    fixture_end(&fixture);
}

/* LAW 6: told when this attempt may be a repeat, and when it may have delivered unseen. */
static void test_possible_duplicate(void)
{
    static struct fixture fixture;
    fixture_make(&fixture);
    for (unsigned bits = 0; bits < 4; bits++) {
        fixture.outcome.is_ambiguous = (bits & 1) != 0;
        put(&fixture, (bits & 2) != 0);
        json_t *line = parse(&fixture);
        CHECK_ROW(bits, json_is_true(json_object_get(line, "possible_duplicate")) == (bits != 0));
        json_decref(line);
    }
    fixture_end(&fixture);
}

static void test_absent_fields(void)
{
    static struct fixture fixture;
    fixture_make(&fixture);
    fixture.outcome.place =
        (struct outcome_place){.site = SPAN_NONE, .source_name = SPAN_NONE, .peer_name = SPAN_NONE};
    fixture.outcome.response =
        (struct policy_response){.code = 451, .command = "", .content = SPAN_NONE};
    put(&fixture, false);
    json_t *line = parse(&fixture);
    CU_ASSERT_PTR_NULL(json_object_get(line, "peer_address"));
    CU_ASSERT_PTR_NULL(json_object_get(line, "session_id"));
    CU_ASSERT_PTR_NULL(json_object_get(line, "source_address"));
    CU_ASSERT_PTR_NULL(json_object_get(line, "recipient_id"));
    CU_ASSERT_PTR_NULL(json_object_get(json_object_get(line, "response"), "enhanced_code"));
    CU_ASSERT_PTR_NULL(json_object_get(line, "sender"));
    CU_ASSERT_PTR_NULL(json_object_get(line, "tenant"));
    CU_ASSERT_PTR_NULL(json_object_get(line, "campaign"));
    json_decref(line);
    fixture.outcome.place.sender = SPAN(""); /* the null path */
    put(&fixture, false);
    line = parse(&fixture);
    CU_ASSERT_STRING_EQUAL(text_of(line, "sender"), "");
    json_decref(line);
    fixture_end(&fixture);
}

/* Whatever a server or a record says, the line is one line of JSON. */
static void test_hostile_bytes(void)
{
    static const char BYTES[] =
        "a\"b\\c\r\nd\x01\x7f\xff\xc3\x28\xe2\x82\t</script>\xf0\x9f\x98\x80";
    static struct fixture fixture;
    fixture_make(&fixture);
    fixture.outcome.response.content = span_of(BYTES, sizeof(BYTES)); /* with its NUL */
    fixture.outcome.place.sender = span_of(BYTES, sizeof(BYTES) - 1);
    fixture.outcome.place.peer_name = span_of(BYTES, sizeof(BYTES) - 1);
    memcpy(fixture.attempt.id, BYTES, sizeof(BYTES) - 1);
    fixture.attempt.id_size = sizeof(BYTES) - 1;
    put(&fixture, false);
    json_error_t error;
    json_t *line = json_loadb(fixture.text, fixture.size, JSON_ALLOW_NUL, &error);
    CU_ASSERT_PTR_NOT_NULL(line);
    CU_ASSERT_STRING_EQUAL(text_of(line, "recipient"), "ann@example.org");
    CU_ASSERT(strncmp(text_of(line, "sender"), "a\"b\\c\r\nd\x01\x7f", 10) == 0);
    json_decref(line);
    fixture_end(&fixture);
}

/* Every field as long as it can be, of bytes that cost 1, 2, 3 or 6 each in JSON: it never
 * overflows, and what names the recipient is whole. */
static void test_longest_fields_fit(void)
{
    static const char FILLS[] = {'x', '"', '\xff', '\x01'};
    static char big[SMTP_REPLY_TEXT_MAX];
    for (size_t fill = 0; fill < COUNT_OF(FILLS); fill++) {
        static struct fixture fixture;
        fixture_make(&fixture);
        memset(big, FILLS[fill], sizeof(big));
        char address[SMTP_ADDRESS_MAX]; /* a quoted local part costs two each */
        memset(address, 'a', sizeof(address));
        memset(address, '\\', 64);
        char domain[DOMAIN_NAME_MAX + 1];
        memset(domain, 'd', sizeof(domain));
        char hostname[254] = {0};
        memset(hostname, 'h', sizeof(hostname) - 1);
        memset(fixture.manifest.id, 'i', MANIFEST_ID_MAX);
        memset(fixture.attempt.id, FILLS[fill], ATTEMPT_ID_MAX);
        memcpy(fixture.attempt.address, address, sizeof(address));
        char tenant[MANIFEST_LABEL_MAX + 1] = {0}, campaign[MANIFEST_LABEL_MAX + 1] = {0};
        memset(tenant, FILLS[fill], MANIFEST_LABEL_MAX);
        memset(campaign, FILLS[fill], MANIFEST_LABEL_MAX);
        fixture.manifest.tenant = tenant;
        fixture.manifest.campaign = campaign;
        fixture.config.hostname = hostname;
        fixture.batch.number = UINT32_MAX;
        fixture.recipient.ordinal = UINT32_MAX;
        fixture.recipient.domain =
            domain_intern(fixture.engine.domains, span_of(domain, DOMAIN_NAME_MAX));
        fixture.attempt.id_size = ATTEMPT_ID_MAX;
        fixture.attempt.address_size = sizeof(address);
        struct outcome_place *place = &fixture.outcome.place;
        place->sender = span_of(address, sizeof(address));
        place->site = span_of(domain, SITE_NAME_MAX);
        place->peer_name = span_of(big, 255);
        place->source_name = span_of(big, 255);
        char peer[NET_ADDR_TEXT_MAX];
        memset(peer, 'f', sizeof(peer));
        place->peer_addr = span_of(peer, sizeof(peer));
        place->source.family = NET_IP6;
        memset(place->source.bytes, 0xfe, 16);
        place->session = UINT64_MAX;
        place->size = INT64_MAX;
        fixture.outcome.class = OUTCOME_DEFERRED;
        fixture.outcome.is_ambiguous = true;
        fixture.outcome.reason = TEMP_CONNECTION_LOST;
        fixture.outcome.response = (struct policy_response){.code = 65535,
                                                            .enhanced = {255, 65535, 65535},
                                                            .command = "END OF DATA",
                                                            .content = span_of(big, sizeof(big))};
        put(&fixture, true);
        json_t *line = parse(&fixture);
        CHECK_ROW(fill, strlen(text_of(line, "batch")) == MANIFEST_ID_MAX);
        CHECK_ROW(fill, strlen(text_of(line, "recipient")) == SMTP_ADDRESS_MAX);
        CHECK_ROW(fill, strlen(text_of(line, "queue")) == DOMAIN_NAME_MAX);
        CHECK_ROW(fill, strlen(text_of(line, "id")) == 21);
        CHECK_ROW(fill, strlen(text_of(line, "sender")) == SMTP_ADDRESS_MAX);
        size_t each = FILLS[fill] == '\xff' ? 3 : 1; /* U+FFFD */
        CHECK_ROW(fill, strlen(text_of(line, "recipient_id")) == ATTEMPT_ID_MAX * each);
        json_decref(line);
        fixture_end(&fixture);
    }
}

/* Times and batches in turn: what is kept of the last line is never shown in another's place. */
static void test_times_in_turn(void)
{
    static const struct {
        int64_t ms;
        const char *text;
    } ROWS[] = {
        {1796112001000, "2026-12-01T08:00:01.000Z"},
        {1796112001999, "2026-12-01T08:00:01.999Z"},
        {1796112002000, "2026-12-01T08:00:02.000Z"},
        {1796112001007, "2026-12-01T08:00:01.007Z"},
        {0, "1970-01-01T00:00:00.000Z"},
        {4102444799999, "2099-12-31T23:59:59.999Z"},
    };
    static struct fixture fixture;
    fixture_make(&fixture);
    struct batch other = fixture.batch;
    for (size_t i = 0; i < 2 * COUNT_OF(ROWS); i++) {
        size_t row = i % COUNT_OF(ROWS);
        /* A slot of the batch table is used again under a new number. */
        other.number = fixture.batch.number + 1 + (uint32_t)i / 4;
        other.accepted_at.ns = ROWS[i / 4].ms * NS_PER_MS;
        fixture.attempt.batch = i % 2 == 0 ? &fixture.batch : &other;
        put_at(&fixture, false, (struct wall_time){.ns = ROWS[row].ms * NS_PER_MS});
        json_t *line = parse(&fixture);
        const char *created = i % 2 == 0 ? "2026-12-01T08:00:00.000Z" : ROWS[i / 4].text;
        CHECK_ROW(i, strcmp(text_of(line, "event_time"), ROWS[row].text) == 0);
        CHECK_ROW(i, strcmp(text_of(line, "created_time"), created) == 0);
        json_decref(line);
    }
    fixture_end(&fixture);
}

/* The words of the server fill what is left and no more. */
static void test_words_of_every_length(void)
{
    static struct fixture fixture;
    fixture_make(&fixture);
    static char words[SMTP_REPLY_TEXT_MAX];
    memset(words, '?', sizeof(words));
    for (size_t size = 0; size <= sizeof(words); size++) {
        fixture.outcome.response.content = span_of(words, size);
        put(&fixture, false);
        json_t *line = parse(&fixture);
        json_t *content = json_object_get(json_object_get(line, "response"), "content");
        CHECK_ROW(size, json_string_length(content) == size);
        json_decref(line);
    }
    fixture_end(&fixture);
}

SUITE(report, test_golden_line, test_types, test_possible_duplicate, test_absent_fields,
      test_hostile_bytes, test_longest_fields_fit, test_times_in_turn, test_words_of_every_length)
