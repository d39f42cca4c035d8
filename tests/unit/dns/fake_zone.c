/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/dns/fake_zone.h"

#include "engine/base/ensure.h"
#include "tests/unit/dns/dns_build.h"

enum { CHAIN_MAX = 40 };

static bool is_name(const struct fake_row *row, struct span name)
{
    return span_equal_nocase(span_of_text(row->name), name);
}

static const struct fake_row *find_row(const struct fake_row *rows, struct span name, int type)
{
    for (; rows->name != NULL; rows++) {
        if (is_name(rows, name) && rows->type == type) {
            return rows;
        }
    }
    return NULL;
}

static bool is_known(const struct fake_row *rows, struct span name)
{
    for (; rows->name != NULL; rows++) {
        if (is_name(rows, name)) {
            return true;
        }
    }
    return false;
}

static const char *type_text(enum dns_type type)
{
    return type == DNS_A ? "A" : type == DNS_AAAA ? "AAAA" : "MX";
}

static bool misbehaves(const struct fake_row *rows, struct span name, enum dns_type type, int how)
{
    for (; rows->name != NULL; rows++) {
        if (rows->type == how && is_name(rows, name) &&
            (rows->data == NULL || strcmp(rows->data, type_text(type)) == 0)) {
            return true;
        }
    }
    return false;
}

static void put_mx_text(struct dns_build *build, const struct fake_row *row)
{
    struct cursor cursor = cursor_of(span_of_text(row->data));
    uint64_t preference;
    ensure(cursor_take_uint(&cursor, UINT16_MAX, &preference));
    ensure(cursor_take_byte(&cursor, ' '));
    struct span target = span_of(cursor.at, cursor_left(&cursor));
    if (span_equal(target, SPAN("."))) {
        target = SPAN_NONE;
    }
    dns_build_mx(build, span_of_text(row->name), row->ttl_s, (unsigned)preference, target);
}

static unsigned hex_digit(char digit)
{
    ensure((digit >= '0' && digit <= '9') || (digit >= 'a' && digit <= 'f'));
    return (unsigned)(digit <= '9' ? digit - '0' : digit - 'a' + 10);
}

static void put_raw_mx(struct dns_build *build, const struct fake_row *row)
{
    char rdata[300];
    struct writer writer = writer_of(rdata, sizeof(rdata));
    for (const char *at = row->data; *at != '\0'; at += 2) {
        writer_put_byte(&writer, (char)(hex_digit(at[0]) << 4 | hex_digit(at[1])));
    }
    dns_build_record(build, DNS_ANSWERS, span_of_text(row->name), DNS_MX, row->ttl_s,
                     writer_span(&writer));
}

static void put_many_mx(struct dns_build *build, const struct fake_row *row)
{
    struct cursor cursor = cursor_of(span_of_text(row->data));
    uint64_t count;
    ensure(cursor_take_uint(&cursor, 9999, &count));
    for (uint64_t i = count; i-- > 0;) {
        char target[64];
        struct writer writer = writer_of(target, sizeof(target));
        writer_put(&writer, SPAN("mx"));
        writer_put_uint_padded(&writer, i, 4);
        writer_put(&writer, SPAN(".many.example"));
        dns_build_mx(build, span_of_text(row->name), row->ttl_s, 10, writer_span(&writer));
    }
}

static bool put_row(struct dns_build *build, const struct fake_row *row, enum dns_type type)
{
    if (row->type == (int)type && type != DNS_MX) {
        dns_build_addr(build, span_of_text(row->name), row->ttl_s, span_of_text(row->data));
    } else if (row->type == (int)type) {
        put_mx_text(build, row);
    } else if (type == DNS_MX && row->type == FAKE_RAW_MX) {
        put_raw_mx(build, row);
    } else if (type == DNS_MX && row->type == FAKE_MANY_MX) {
        put_many_mx(build, row);
    } else {
        return false;
    }
    return true;
}

bool fake_zone_is_silent(const struct fake_row *rows, struct span name, enum dns_type type)
{
    return misbehaves(rows, name, type, FAKE_SILENT);
}

enum dns_status fake_zone_answer(const struct fake_row *rows, struct span name, enum dns_type type,
                                 void *memory, struct span *ret_message)
{
    *ret_message = SPAN_NONE;
    if (misbehaves(rows, name, type, FAKE_SERVFAIL)) {
        return DNS_FAILED;
    }
    if (misbehaves(rows, name, type, FAKE_TIMEOUT) || fake_zone_is_silent(rows, name, type)) {
        return DNS_TIMED_OUT;
    }
    struct dns_build build;
    struct span end = name;
    const struct fake_row *alias, *half = find_row(rows, name, FAKE_HALF_CNAME);
    unsigned links_count = 0;
    while (half == NULL && links_count++ < CHAIN_MAX &&
           (alias = find_row(rows, end, DNS_CNAME)) != NULL) {
        end = span_of_text(alias->data);
    }
    bool exists = half != NULL || is_known(rows, end);
    dns_build_begin(&build, memory, DNS_BUILD_MESSAGE_MAX, name, type, exists ? 0 : 3);
    if (half != NULL) {
        dns_build_cname(&build, name, half->ttl_s, span_of_text(half->data));
        *ret_message = dns_build_end(&build);
        return DNS_OK;
    }
    struct span owner = name;
    for (unsigned i = 1; i < links_count && (alias = find_row(rows, owner, DNS_CNAME)); i++) {
        dns_build_cname(&build, owner, alias->ttl_s, span_of_text(alias->data));
        owner = span_of_text(alias->data);
    }
    bool has_data = false;
    for (const struct fake_row *row = rows; row->name != NULL; row++) {
        has_data = (is_name(row, end) && put_row(&build, row, type)) || has_data;
    }
    if (!has_data) {
        dns_build_soa(&build, SPAN("example"), FAKE_SOA_TTL_S, FAKE_SOA_MINIMUM_S);
    }
    bool has_answers = build.counts[DNS_ANSWERS] > 0;
    *ret_message = dns_build_end(&build);
    return !exists ? DNS_NO_NAME : has_answers ? DNS_OK : DNS_NO_DATA;
}

static void zone_ask(struct dns_source *source, struct dns_question *question)
{
    struct fake_zone *zone = (struct fake_zone *)source;
    struct dns_question **end = &zone->open;
    while (*end != NULL && !zone->is_backwards) {
        end = &(*end)->next;
    }
    question->source = source;
    question->next = *end;
    *end = question;
    zone->questions_count++;
    zone->open_count++;
    zone->open_peak = zone->open_count > zone->open_peak ? zone->open_count : zone->open_peak;
}

static struct mono_time zone_step(struct dns_source *source, struct mono_time now)
{
    struct fake_zone *zone = (struct fake_zone *)source;
    struct dns_question **at = &zone->open;
    (void)now;
    while (!zone->is_held && *at != NULL) {
        struct dns_question *question = *at;
        struct span name = span_of_text(question->name), message;
        if (fake_zone_is_silent(zone->rows, name, question->type)) {
            at = &question->next;
            continue;
        }
        *at = question->next;
        zone->open_count--;
        enum dns_status status =
            fake_zone_answer(zone->rows, name, question->type, zone->message, &message);
        question->on_answer(question, status, message);
    }
    return MONO_NEVER;
}

static void zone_wait(struct dns_source *source, struct mono_time now, struct mono_time deadline)
{
    (void)now;
    (void)deadline;
    ((struct fake_zone *)source)->waits_count++;
}

static void zone_destroy(struct dns_source *source)
{
    ((struct fake_zone *)source)->is_destroyed = true;
}

void fake_zone_init(struct fake_zone *zone, const struct fake_row *rows)
{
    *zone = (struct fake_zone){
        .source = {.ask = zone_ask, .step = zone_step, .wait = zone_wait, .destroy = zone_destroy},
        .rows = rows,
    };
}
