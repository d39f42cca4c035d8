/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The keys of config_keys.h and their values: numbers with units, switches, texts, addresses.
 */
#include "engine/config_priv.h"

#include <stdlib.h>

#include "engine/load.h"

const char *const CONFIG_SECTION_NAMES[] = {"node", "spool",  "log",    "control",
                                            "dns",  "limits", "source", "route"};
_Static_assert(COUNT_OF(CONFIG_SECTION_NAMES) == CONFIG_SECTIONS_COUNT, "a name for each section");

#define OWNER_NODE struct config
#define OWNER_SPOOL struct config
#define OWNER_LOG struct config
#define OWNER_CONTROL struct config
#define OWNER_DNS struct config
#define OWNER_LIMITS struct config
#define OWNER_SOURCE struct config_source
#define OWNER_ROUTE struct config_route

const struct config_key CONFIG_KEYS[] = {
#define CONFIG_KEY(part, name, type, field, text, min, max, help)                                  \
    {CONFIG_##part, name, CONFIG_KIND_##type, offsetof(OWNER_##part, field), text, min, max, help},
#include "engine/config_keys.h"
#undef CONFIG_KEY
};
const size_t CONFIG_KEYS_COUNT = COUNT_OF(CONFIG_KEYS);

static const struct config_key *key_find(const char *section, const char *name)
{
    for (size_t i = 0; i < CONFIG_KEYS_COUNT; i++) {
        if (strcmp(CONFIG_SECTION_NAMES[CONFIG_KEYS[i].section], section) == 0 &&
            strcmp(CONFIG_KEYS[i].name, name) == 0) {
            return &CONFIG_KEYS[i];
        }
    }
    return NULL;
}

struct unit {
    const char *name;
    uint64_t factor;
};

static const struct unit SECOND_UNITS[] = {{"", 1},      {"s", 1},      {"m", 60}, {"h", 3600},
                                           {"d", 86400}, {"w", 604800}, {NULL, 0}};
static const struct unit MILLISECOND_UNITS[] = {{"ms", 1},      {"s", 1000},     {"m", 60000},
                                                {"h", 3600000}, {"d", 86400000}, {NULL, 0}};
static const struct unit SIZE_UNITS[] = {{"", 1},        {"K", 1 << 10},           {"M", 1 << 20},
                                         {"G", 1 << 30}, {"T", UINT64_C(1) << 40}, {NULL, 0}};
static const struct unit RATE_UNITS[] = {{"/s", 3600}, {"/m", 60}, {"/h", 1}, {NULL, 0}};
static const struct unit COUNT_UNITS[] = {{"", 1}, {NULL, 0}};
static const struct unit PERCENT_UNITS[] = {{"", 1}, {"%", 1}, {NULL, 0}};

static const struct unit *units_of(enum config_kind kind)
{
    switch (kind) {
    case CONFIG_KIND_SECONDS:
        return SECOND_UNITS;
    case CONFIG_KIND_MILLISECONDS:
        return MILLISECOND_UNITS;
    case CONFIG_KIND_SIZE:
        return SIZE_UNITS;
    case CONFIG_KIND_RATE:
        return RATE_UNITS;
    case CONFIG_KIND_PERCENT:
        return PERCENT_UNITS;
    case CONFIG_KIND_COUNT:
    case CONFIG_KIND_SWITCH:
    case CONFIG_KIND_TEXT:
    case CONFIG_KIND_PATH:
    case CONFIG_KIND_ADDRESS:
        return COUNT_UNITS;
    }
    ensure(false);
    return NULL;
}

/* What to write, and in what unit the bounds are told. */
static const struct {
    const char *example;
    const char *unit;
} KINDS[] = {
    [CONFIG_KIND_COUNT] = {"a number", ""},
    [CONFIG_KIND_SECONDS] = {"30s, 5m, 4h, 5d", " seconds"},
    [CONFIG_KIND_MILLISECONDS] = {"200ms, 30s, 5m", " milliseconds"},
    [CONFIG_KIND_SIZE] = {"512K, 64M, 1G", " bytes"},
    [CONFIG_KIND_RATE] = {"100/s, 5000/m, 400000/h or 0", " an hour"},
    [CONFIG_KIND_SWITCH] = {"yes or no", ""},
    [CONFIG_KIND_TEXT] = {"a text of one line", ""},
    [CONFIG_KIND_PATH] = {"an absolute path of one line, that begins with /", ""},
    [CONFIG_KIND_ADDRESS] = {"192.0.2.1 or [2001:db8::1], with :port where one is wanted", ""},
    [CONFIG_KIND_PERCENT] = {"a number", " percent"},
};
_Static_assert(COUNT_OF(KINDS) == CONFIG_KIND_PERCENT + 1, "a row for each kind");

/* A number with a unit of its kind, within the key's bounds. */
static bool take_number(const struct config_key *key, struct span text, uint64_t *ret_value)
{
    struct cursor cursor = cursor_of(span_trim(text));
    uint64_t value;
    if (!cursor_take_uint(&cursor, UINT64_C(1) << 53, &value)) {
        return false;
    }
    struct span rest = span_of(cursor.at, cursor_left(&cursor));
    if (key->kind == CONFIG_KIND_RATE && value == 0 && rest.size == 0) {
        *ret_value = 0;
        return true;
    }
    for (const struct unit *unit = units_of(key->kind); unit->name != NULL; unit++) {
        if (span_equal(rest, span_of_text(unit->name))) {
            uint64_t whole;
            if (__builtin_mul_overflow(value, unit->factor, &whole) || whole < key->min ||
                whole > key->max) {
                return false;
            }
            *ret_value = whole;
            return true;
        }
    }
    return false;
}

static bool take_switch(struct span text, bool *ret_value)
{
    static const char *const YES[] = {"yes", "on", "true"};
    static const char *const NO[] = {"no", "off", "false"};
    for (size_t i = 0; i < COUNT_OF(YES); i++) {
        if (span_equal(text, span_of_text(YES[i]))) {
            *ret_value = true;
            return true;
        }
        if (span_equal(text, span_of_text(NO[i]))) {
            *ret_value = false;
            return true;
        }
    }
    return false;
}

/* A text of one line; a path must be absolute. */
static bool is_line(const struct config_key *key, const char *text)
{
    bool is_lost = key->kind == CONFIG_KIND_PATH && text[0] != '\0' && text[0] != '/';
    return !is_lost && strlen(text) >= key->min &&
           span_find_break(span_of_text(text)) == strlen(text);
}

/* Whether the text is a value of the key; sets it in `owner` when that is given. */
static bool value_set(const struct config_key *key, const char *text, void *owner)
{
    char *field = owner == NULL ? NULL : (char *)owner + key->offset;
    uint64_t number = 0;
    bool is_on = false;
    struct net_addr addr = {.family = NET_NONE};
    switch (key->kind) {
    case CONFIG_KIND_COUNT:
    case CONFIG_KIND_SECONDS:
    case CONFIG_KIND_MILLISECONDS:
    case CONFIG_KIND_PERCENT:
        if (!take_number(key, span_of_text(text), &number)) {
            return false;
        }
        if (field != NULL && strcmp(key->name, "port") == 0) {
            *(uint16_t *)(void *)field = (uint16_t)number;
        } else if (field != NULL) {
            *(uint32_t *)(void *)field = (uint32_t)number;
        }
        return true;
    case CONFIG_KIND_SIZE:
    case CONFIG_KIND_RATE:
        if (!take_number(key, span_of_text(text), &number)) {
            return false;
        }
        if (field != NULL) {
            *(uint64_t *)(void *)field = number;
        }
        return true;
    case CONFIG_KIND_SWITCH:
        if (!take_switch(span_of_text(text), &is_on)) {
            return false;
        }
        if (field != NULL) {
            *(bool *)field = is_on;
        }
        return true;
    case CONFIG_KIND_PATH:
    case CONFIG_KIND_TEXT:
        if (!is_line(key, text)) {
            return false;
        }
        if (field != NULL) {
            *(char **)(void *)field = text[0] == '\0' ? NULL : config_taken(strdup(text));
        }
        return true;
    case CONFIG_KIND_ADDRESS:
        if (text[0] != '\0' && !net_addr_parse(span_of_text(text), &addr)) {
            return false;
        }
        if (field != NULL) {
            *(struct net_addr *)(void *)field = addr;
        }
        return true;
    }
    ensure(false);
    return false;
}

void config_section_set(cfg_t *section, enum config_section which, void *owner)
{
    for (size_t i = 0; i < CONFIG_KEYS_COUNT; i++) {
        const struct config_key *key = &CONFIG_KEYS[i];
        if (key->section != which) {
            continue;
        }
        const char *text = section == NULL ? NULL : cfg_getstr(section, key->name);
        if (text == NULL || !value_set(key, text, owner)) {
            ensure(value_set(key, key->fallback, owner));
        }
    }
}

int config_on_value(cfg_t *cfg, cfg_opt_t *opt)
{
    const struct config_key *key = key_find(cfg->name, opt->name);
    const char *text = cfg_opt_getnstr(opt, 0);
    ensure(key != NULL);
    if (text == NULL || value_set(key, text, NULL)) {
        return 0;
    }
    if (key->max > 0) {
        config_error(cfg->filename, cfg->line,
                     "%s: \"%s\" cannot be used: write %s; from %llu to %llu%s (%s)", opt->name,
                     text, KINDS[key->kind].example, (unsigned long long)key->min,
                     (unsigned long long)key->max, KINDS[key->kind].unit, key->help);
    } else {
        config_error(cfg->filename, cfg->line, "%s: \"%s\" cannot be used: write %s (%s)",
                     opt->name, text, KINDS[key->kind].example, key->help);
    }
    return 0;
}
