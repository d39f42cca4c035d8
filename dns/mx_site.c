/* SPDX-License-Identifier: Apache-2.0 */
#include "dns/mx_site.h"

#include <stdlib.h>
#include <xxhash.h>

#include "engine/base/text.h"

enum { IDENTITY_SIZE_MAX = MX_SITE_HOSTS_MAX * 256, TAIL_SIZE_MAX = 24 };

static int compare_text(struct span a, struct span b)
{
    int order = memcmp(a.at, b.at, a.size < b.size ? a.size : b.size);
    return order != 0 ? order : (a.size > b.size) - (a.size < b.size);
}

static int compare_hosts(const void *left, const void *right)
{
    const struct mx_site_host *a = left, *b = right;
    if (a->group != b->group) {
        return a->group < b->group ? -1 : 1;
    }
    return compare_text(a->name, b->name);
}

/* ',' and ';' stand in no host name, so that two different sets never have one text. */
static uint64_t hash_hosts(const struct mx_site_host *hosts, size_t hosts_count)
{
    char text[IDENTITY_SIZE_MAX];
    struct writer writer = writer_of(text, sizeof(text));
    for (size_t i = 0; i < hosts_count; i++) {
        if (i > 0) {
            writer_put_byte(&writer, hosts[i].group == hosts[i - 1].group ? ',' : ';');
        }
        writer_put(&writer, hosts[i].name);
    }
    ensure(!writer.is_full);
    uint64_t key = XXH3_64bits(text, writer_size(&writer));
    return key != 0 ? key : 1;
}

/* Bytes of the longest run of whole labels that both end with, without the dot before it. */
static size_t common_tail(struct span a, struct span b)
{
    size_t tail = 0, size = 0;
    while (size < a.size && size < b.size && a.at[a.size - size - 1] == b.at[b.size - size - 1]) {
        if (a.at[a.size - size - 1] == '.') {
            tail = size;
        }
        size++;
    }
    bool a_ends = size == a.size || a.at[a.size - size - 1] == '.';
    bool b_ends = size == b.size || b.at[b.size - size - 1] == '.';
    return a_ends && b_ends ? size : tail;
}

/* `tail` bytes are common to all; a host that is no more than that makes the brackets optional. */
static void put_rolled_up(struct writer *writer, const struct mx_site_host *hosts,
                          size_t hosts_count, size_t tail)
{
    bool is_optional = false;
    size_t put_count = 0;
    writer_put_byte(writer, '(');
    for (size_t i = 0; i < hosts_count; i++) {
        struct span name = hosts[i].name;
        if (name.size == tail) {
            is_optional = true;
            continue;
        }
        if (put_count++ > 0) {
            writer_put_byte(writer, '|');
        }
        writer_put(writer, span_of(name.at, name.size - (tail > 0 ? tail + 1 : 0)));
    }
    writer_put_byte(writer, ')');
    if (is_optional) {
        writer_put_byte(writer, '?');
    }
    if (tail > 0) {
        writer_put_byte(writer, '.');
        writer_put(writer, span_of(hosts[0].name.at + hosts[0].name.size - tail, tail));
    }
}

static void put_short(struct writer *writer, const struct mx_site_host *hosts, size_t hosts_count,
                      uint64_t key)
{
    struct span first = hosts[0].name;
    if (first.size > MX_SITE_NAME_MAX - TAIL_SIZE_MAX) {
        first.size = MX_SITE_NAME_MAX - TAIL_SIZE_MAX;
    }
    writer_put(writer, first);
    writer_put_byte(writer, '+');
    writer_put_uint(writer, hosts_count - 1);
    writer_put_byte(writer, '~');
    text_put_hex64(writer, key);
}

void mx_site_build(struct mx_site_host *hosts, size_t hosts_count, struct mx_site *ret_site)
{
    ensure(hosts_count > 0);
    ensure(hosts_count <= MX_SITE_HOSTS_MAX);
    qsort(hosts, hosts_count, sizeof(hosts[0]), compare_hosts);
    struct mx_site site = {.key = hash_hosts(hosts, hosts_count)};
    struct writer writer = writer_of(site.name, sizeof(site.name));
    size_t tail = hosts[0].name.size;
    for (size_t i = 1; i < hosts_count; i++) {
        size_t common = common_tail(hosts[0].name, hosts[i].name);
        tail = common < tail ? common : tail;
    }
    if (hosts_count == 1) {
        writer_put(&writer, hosts[0].name);
    } else {
        put_rolled_up(&writer, hosts, hosts_count, tail);
    }
    if (writer.is_full) {
        writer = writer_of(site.name, sizeof(site.name));
        put_short(&writer, hosts, hosts_count, site.key);
    }
    ensure(!writer.is_full);
    site.name_size = (uint16_t)writer_size(&writer);
    *ret_site = site;
}
