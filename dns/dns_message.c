/* SPDX-License-Identifier: Apache-2.0 */
#include "dns/dns_message.h"

#include <errno.h>

#include "engine/base/ensure.h"

enum {
    CLASS_IN = 1,
    FLAG_ANSWER = 0x8000,
    FLAG_TRUNCATED = 0x0200,
    OPCODE_MASK = 0x7800,
    RCODE_MASK = 0x000f,
    LABEL_MAX = 63,
    POINTER_MARK = 0xc0,
    NAME_WIRE_MAX = 255,
    SOA_NUMBERS_SIZE = 20,
};

/* RFC 2181 8: a TTL with the top bit set counts as 0. */
static const uint32_t TTL_MAX = 0x7fffffff;

struct header {
    uint16_t id;
    uint16_t flags;
    uint16_t questions_count;
    uint16_t answers_count;
    uint16_t authorities_count;
    struct cursor rest;
};

struct record {
    struct dns_name owner;
    uint16_t type;
    uint16_t class;
    uint32_t ttl_s;
    struct span rdata;
};

/* The message as the walk over it needs it. */
struct reading {
    struct span message;
    struct cursor answers;
    uint16_t answers_count;
    enum dns_type type;
    unsigned aliases_before;
};

static bool take_be16(struct cursor *cursor, uint16_t *ret_value)
{
    struct span two;
    if (!cursor_take_span(cursor, 2, &two)) {
        return false;
    }
    *ret_value = (uint16_t)((unsigned char)two.at[0] << 8 | (unsigned char)two.at[1]);
    return true;
}

static bool take_be32(struct cursor *cursor, uint32_t *ret_value)
{
    uint16_t high, low;
    if (cursor_left(cursor) < 4 || !take_be16(cursor, &high) || !take_be16(cursor, &low)) {
        return false;
    }
    *ret_value = (uint32_t)high << 16 | low;
    return true;
}

static bool is_plain_byte(char byte)
{
    return (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') ||
           (byte >= '0' && byte <= '9') || byte == '-' || byte == '_';
}

static char lower(char byte)
{
    return byte >= 'A' && byte <= 'Z' ? (char)(byte - 'A' + 'a') : byte;
}

/* The text of a name has one byte less than its wire form without the final zero. */
static void add_label(struct dns_name *name, struct span label)
{
    ensure(label.size > 0);
    ensure(name->size + 1u + label.size <= DNS_NAME_TEXT_MAX + (name->size == 0 ? 1u : 0u));
    if (name->size > 0) {
        name->text[name->size++] = '.';
    }
    for (size_t i = 0; i < label.size; i++) {
        name->is_plain = name->is_plain && is_plain_byte(label.at[i]);
        name->text[name->size++] = lower(label.at[i]);
    }
}

/* A pointer must lead before the run of labels that it ends: so every jump goes strictly backwards
 * and no chain of them can close. */
bool dns_name_take(struct span message, struct cursor *cursor, struct dns_name *ret_name)
{
    ensure(cursor->at >= message.at);
    ensure(cursor->end <= message.at + message.size);
    struct dns_name name = {.is_plain = true};
    struct cursor reader = *cursor;
    const char *run = reader.at, *behind = NULL;
    size_t wire_size = 1;
    unsigned jumps_count = 0;
    for (;;) {
        char mark;
        if (!cursor_take(&reader, &mark)) {
            return false;
        }
        unsigned size = (unsigned char)mark;
        if (size == 0) {
            break;
        }
        if (size <= LABEL_MAX) {
            struct span label;
            wire_size += size + 1;
            if (wire_size > NAME_WIRE_MAX || !cursor_take_span(&reader, size, &label)) {
                return false;
            }
            add_label(&name, label);
            continue;
        }
        char low;
        if (size < POINTER_MARK || !cursor_take(&reader, &low)) {
            return false;
        }
        size_t offset = (size_t)(size & ~(unsigned)POINTER_MARK) << 8 | (unsigned char)low;
        if (offset >= (size_t)(run - message.at) || jumps_count == DNS_JUMPS_MAX) {
            return false;
        }
        if (jumps_count++ == 0) {
            behind = reader.at;
        }
        run = message.at + offset;
        reader = (struct cursor){.at = run, .end = message.at + message.size};
    }
    cursor->at = jumps_count > 0 ? behind : reader.at;
    name.text[name.size] = '\0';
    *ret_name = name;
    return true;
}

bool dns_name_is_plain(struct span text)
{
    size_t label_size = 0;
    for (size_t i = 0; i < text.size; i++) {
        if (text.at[i] == '.') {
            if (label_size == 0) {
                return false;
            }
            label_size = 0;
        } else if (!is_plain_byte(text.at[i]) || ++label_size > LABEL_MAX) {
            return false;
        }
    }
    return label_size > 0 && text.size <= DNS_NAME_TEXT_MAX;
}

bool dns_mx_parse(struct span message, struct span rdata, uint16_t *ret_preference,
                  struct dns_name *ret_name)
{
    struct cursor cursor = cursor_of(rdata);
    uint16_t preference;
    struct dns_name name;
    if (!take_be16(&cursor, &preference) || !dns_name_take(message, &cursor, &name) ||
        cursor_left(&cursor) > 0) {
        return false;
    }
    *ret_preference = preference;
    *ret_name = name;
    return true;
}

static bool take_header(struct span message, struct header *ret_header)
{
    struct cursor cursor = cursor_of(message);
    uint16_t additionals_count;
    return take_be16(&cursor, &ret_header->id) && take_be16(&cursor, &ret_header->flags) &&
           take_be16(&cursor, &ret_header->questions_count) &&
           take_be16(&cursor, &ret_header->answers_count) &&
           take_be16(&cursor, &ret_header->authorities_count) &&
           take_be16(&cursor, &additionals_count) && (ret_header->rest = cursor, true);
}

/* The question must be the one asked; a server may leave it out. */
static bool skip_question(struct span message, struct header *header, enum dns_type type,
                          struct span name)
{
    struct dns_name got;
    uint16_t got_type, got_class;
    if (header->questions_count == 0) {
        return true;
    }
    return header->questions_count == 1 && dns_name_take(message, &header->rest, &got) &&
           take_be16(&header->rest, &got_type) && take_be16(&header->rest, &got_class) &&
           got_type == type && got_class == CLASS_IN &&
           span_equal_nocase(dns_name_span(&got), name);
}

static bool take_record(struct span message, struct cursor *cursor, struct record *ret_record)
{
    uint16_t rdata_size;
    if (!dns_name_take(message, cursor, &ret_record->owner) ||
        !take_be16(cursor, &ret_record->type) || !take_be16(cursor, &ret_record->class) ||
        !take_be32(cursor, &ret_record->ttl_s) || !take_be16(cursor, &rdata_size) ||
        !cursor_take_span(cursor, rdata_size, &ret_record->rdata)) {
        return false;
    }
    if (ret_record->ttl_s > TTL_MAX) {
        ret_record->ttl_s = 0;
    }
    return true;
}

/* A label may hold a dot as a byte: such a name is not plain and equals no plain one. */
static bool is_same_name(const struct dns_name *a, const struct dns_name *b)
{
    return a->is_plain == b->is_plain && span_equal(dns_name_span(a), dns_name_span(b));
}

static uint32_t least(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* One pass over the answers along the aliases. Servers send a chain in its order, so a second pass
 * finds nothing new, as a rule. */
static int follow_aliases(const struct reading *reading, struct dns_reply *reply, bool *ret_moved)
{
    struct cursor cursor = reading->answers;
    *ret_moved = false;
    for (unsigned i = 0; i < reading->answers_count; i++) {
        struct record record;
        if (!take_record(reading->message, &cursor, &record)) {
            return -EBADMSG;
        }
        if (record.type != DNS_CNAME || record.class != CLASS_IN ||
            !is_same_name(&record.owner, &reply->name)) {
            continue;
        }
        struct cursor target = cursor_of(record.rdata);
        struct dns_name name;
        if (!dns_name_take(reading->message, &target, &name)) {
            reply->dropped_count++;
            continue;
        }
        if (reading->aliases_before + ++reply->aliases_count > DNS_ALIASES_MAX) {
            return -ELOOP;
        }
        reply->name = name;
        reply->ttl_s = least(reply->ttl_s, record.ttl_s);
        *ret_moved = true;
    }
    return 0;
}

/* MX needs a preference and at least the root; the addresses have one size. */
static bool has_sane_size(enum dns_type type, size_t size)
{
    switch (type) {
    case DNS_A:
        return size == 4;
    case DNS_AAAA:
        return size == 16;
    case DNS_MX:
        return size >= 3;
    case DNS_CNAME:
    case DNS_SOA:
        return size > 0;
    }
    ensure(false);
    return false;
}

static void keep_records(const struct reading *reading, struct dns_reply *reply)
{
    struct cursor cursor = reading->answers;
    for (unsigned i = 0; i < reading->answers_count; i++) {
        struct record record;
        ensure(take_record(reading->message, &cursor, &record));
        if (record.type != reading->type || record.class != CLASS_IN ||
            !is_same_name(&record.owner, &reply->name)) {
            continue;
        }
        if (reply->records_count == DNS_RECORDS_MAX ||
            !has_sane_size(reading->type, record.rdata.size)) {
            reply->dropped_count++;
            continue;
        }
        reply->records[reply->records_count++] = record.rdata;
        reply->ttl_s = least(reply->ttl_s, record.ttl_s);
    }
}

static bool skip_answers(struct reading *reading, struct header *header, struct dns_reply *reply)
{
    reading->answers = header->rest;
    reading->answers_count = header->answers_count;
    if (reading->answers_count > DNS_SECTION_MAX) {
        reply->dropped_count = (uint16_t)(reading->answers_count - DNS_SECTION_MAX);
        reading->answers_count = DNS_SECTION_MAX;
    }
    for (unsigned i = 0; i < reading->answers_count; i++) {
        struct record record;
        if (!take_record(reading->message, &header->rest, &record)) {
            return false;
        }
    }
    return true;
}

/* RFC 2308 5: the lesser of the SOA's own TTL and its last field. A broken authority section only
 * loses the TTL. */
static void take_negative_ttl(struct span message, const struct header *header,
                              struct dns_reply *reply)
{
    struct cursor cursor = header->rest;
    for (unsigned i = 0; i < header->authorities_count && i < DNS_SECTION_MAX; i++) {
        struct record record;
        if (!take_record(message, &cursor, &record)) {
            return;
        }
        struct cursor soa = cursor_of(record.rdata);
        struct dns_name name;
        struct span skipped;
        uint32_t minimum_s;
        if (record.type == DNS_SOA && record.class == CLASS_IN &&
            dns_name_take(message, &soa, &name) && dns_name_take(message, &soa, &name) &&
            cursor_take_span(&soa, SOA_NUMBERS_SIZE - 4, &skipped) && take_be32(&soa, &minimum_s)) {
            reply->has_negative_ttl = true;
            reply->negative_ttl_s = least(record.ttl_s, minimum_s);
            return;
        }
    }
}

static void set_name(struct dns_name *name, struct span text)
{
    ensure(text.size <= DNS_NAME_TEXT_MAX);
    name->size = (uint8_t)text.size;
    name->is_plain = true;
    for (size_t i = 0; i < text.size; i++) {
        name->text[i] = lower(text.at[i]);
    }
    name->text[text.size] = '\0';
}

static int read_reply(struct span message, enum dns_type type, struct span name,
                      unsigned aliases_before, struct dns_reply *reply)
{
    struct header header;
    struct reading reading = {.message = message, .type = type, .aliases_before = aliases_before};
    if (!take_header(message, &header) ||
        (header.flags & (FLAG_ANSWER | FLAG_TRUNCATED | OPCODE_MASK)) != FLAG_ANSWER ||
        !skip_question(message, &header, type, name) || !skip_answers(&reading, &header, reply)) {
        return -EBADMSG;
    }
    reply->id = header.id;
    reply->rcode = (uint8_t)(header.flags & RCODE_MASK);
    if (reply->rcode != DNS_RCODE_OK && reply->rcode != DNS_RCODE_NO_NAME) {
        return -EBADMSG;
    }
    bool has_moved = true;
    while (has_moved) {
        int error = follow_aliases(&reading, reply, &has_moved);
        if (error < 0) {
            return error;
        }
    }
    keep_records(&reading, reply);
    if (header.answers_count <= DNS_SECTION_MAX) {
        take_negative_ttl(message, &header, reply);
    }
    return 0;
}

int dns_reply_parse(struct span message, enum dns_type type, struct span name,
                    unsigned aliases_before, struct dns_reply *ret_reply)
{
    ensure(dns_name_is_plain(name));
    struct dns_reply reply = {.ttl_s = UINT32_MAX};
    set_name(&reply.name, name);
    int error = read_reply(message, type, name, aliases_before, &reply);
    if (error == 0) {
        *ret_reply = reply;
    }
    return error;
}
