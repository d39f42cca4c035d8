/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/config.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "engine/config_priv.h"
#include "engine/load.h"
#include "engine/smtp/smtp_address.h"

enum section { NODE, SPOOL, LOG, CONTROL, DNS, LIMITS, SOURCE, ROUTE };
enum { SECTIONS_COUNT = ROUTE + 1 };

enum kind { COUNT, SECONDS, MILLISECONDS, SIZE, RATE, SWITCH, TEXT, ADDRESS, PERCENT };

static const char *const SECTION_NAMES[] = {"node", "spool",  "log",    "control",
                                            "dns",  "limits", "source", "route"};
_Static_assert(COUNT_OF(SECTION_NAMES) == SECTIONS_COUNT, "a name for each section");

struct key {
    enum section section;
    const char *name;
    enum kind kind;
    size_t offset; /* in config, config_source or config_route */
    const char *fallback;
    uint64_t min;
    uint64_t max;
    const char *help;
};

#define OWNER_NODE struct config
#define OWNER_SPOOL struct config
#define OWNER_LOG struct config
#define OWNER_CONTROL struct config
#define OWNER_DNS struct config
#define OWNER_LIMITS struct config
#define OWNER_SOURCE struct config_source
#define OWNER_ROUTE struct config_route

static const struct key KEYS[] = {
#define CONFIG_KEY(section, name, kind, field, fallback, min, max, help)                           \
    {section, name, kind, offsetof(OWNER_##section, field), fallback, min, max, help},
#include "engine/config_keys.h"
#undef CONFIG_KEY
};

/* Keys that are lists, beside the table: the parser and this file know them by name. */
static const char *const LIST_CORES = "cores";
static const char *const LIST_HOSTS = "host";
static const char *const LIST_IGNORE = "ignore";

static const struct {
    enum section section;
    const char *line; /* of `ramjet check --defaults` */
} LIST_LINES[] = {
    {NODE, "# cores = {0, 1}  # core of each worker; default: one after the other"},
    {ROUTE, "# host = {\"mx.example.net:25\", \"192.0.2.1\"}  # where mail goes; default: by DNS"},
    {ROUTE, "# ignore = {PIPELINING}  # EHLO keywords that are not believed"},
};

/* libconfuse's callbacks have no user pointer: of the one parse that is under way (start is
 * single-threaded). */
static struct writer *parse_errors;
static const char *parse_path;

void config_error(const char *file, int line, const char *format, ...)
{
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof(text), format, arguments);
    va_end(arguments);
    writer_put_format(parse_errors, "%s:%d: %s\n", file != NULL ? file : parse_path, line, text);
}

/* What was just taken; a want of memory is an error like any other. */
static void *taken(void *memory)
{
    if (memory == NULL) {
        config_error(NULL, 0, "out of memory");
    }
    return memory;
}

void config_error_set_file(const char *file)
{
    parse_path = file;
}

static void on_confuse_error(cfg_t *cfg, const char *format, va_list arguments)
{
    char text[512];
    (void)vsnprintf(text, sizeof(text), format, arguments);
    config_error(cfg->filename, cfg->line, "%s", text);
}

static const struct key *key_find(const char *section, const char *name)
{
    for (size_t i = 0; i < COUNT_OF(KEYS); i++) {
        if (strcmp(SECTION_NAMES[KEYS[i].section], section) == 0 &&
            strcmp(KEYS[i].name, name) == 0) {
            return &KEYS[i];
        }
    }
    return NULL;
}

/* Values. */

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

static const struct unit *units_of(enum kind kind)
{
    switch (kind) {
    case SECONDS:
        return SECOND_UNITS;
    case MILLISECONDS:
        return MILLISECOND_UNITS;
    case SIZE:
        return SIZE_UNITS;
    case RATE:
        return RATE_UNITS;
    case PERCENT:
        return PERCENT_UNITS;
    case COUNT:
    case SWITCH:
    case TEXT:
    case ADDRESS:
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
    [COUNT] = {"a number", ""},
    [SECONDS] = {"30s, 5m, 4h, 5d", " seconds"},
    [MILLISECONDS] = {"200ms, 30s, 5m", " milliseconds"},
    [SIZE] = {"512K, 64M, 1G", " bytes"},
    [RATE] = {"100/s, 5000/m, 400000/h or 0", " an hour"},
    [SWITCH] = {"yes or no", ""},
    [TEXT] = {"a text of one line", ""},
    [ADDRESS] = {"192.0.2.1 or [2001:db8::1], with :port where one is wanted", ""},
    [PERCENT] = {"a number", " percent"},
};
_Static_assert(COUNT_OF(KINDS) == PERCENT + 1, "a row for each kind");

/* A number with a unit of its kind, within the key's bounds. */
static bool take_number(const struct key *key, struct span text, uint64_t *ret_value)
{
    struct cursor cursor = cursor_of(span_trim(text));
    uint64_t value;
    if (!cursor_take_uint(&cursor, UINT64_C(1) << 53, &value)) {
        return false;
    }
    struct span rest = span_of(cursor.at, cursor_left(&cursor));
    if (key->kind == RATE && value == 0 && rest.size == 0) {
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

/* Whether the text is a value of the key; sets it in `owner` when that is given. */
static bool value_set(const struct key *key, const char *text, void *owner)
{
    char *field = owner == NULL ? NULL : (char *)owner + key->offset;
    uint64_t number = 0;
    bool is_on = false;
    struct net_addr addr = {.family = NET_NONE};
    switch (key->kind) {
    case COUNT:
    case SECONDS:
    case MILLISECONDS:
    case PERCENT:
        if (!take_number(key, span_of_text(text), &number)) {
            return false;
        }
        if (field != NULL && strcmp(key->name, "port") == 0) {
            *(uint16_t *)(void *)field = (uint16_t)number;
        } else if (field != NULL) {
            *(uint32_t *)(void *)field = (uint32_t)number;
        }
        return true;
    case SIZE:
    case RATE:
        if (!take_number(key, span_of_text(text), &number)) {
            return false;
        }
        if (field != NULL) {
            *(uint64_t *)(void *)field = number;
        }
        return true;
    case SWITCH:
        if (!take_switch(span_of_text(text), &is_on)) {
            return false;
        }
        if (field != NULL) {
            *(bool *)field = is_on;
        }
        return true;
    case TEXT:
        if (strlen(text) < key->min || span_find_break(span_of_text(text)) != strlen(text)) {
            return false;
        }
        if (field != NULL) {
            *(char **)(void *)field = text[0] == '\0' ? NULL : taken(strdup(text));
        }
        return true;
    case ADDRESS:
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

/* Runs as each value is read, when the line is known; always says "fine" so that the next mistake
 * is found as well. */
static int on_value(cfg_t *cfg, cfg_opt_t *opt)
{
    const struct key *key = key_find(cfg->name, opt->name);
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

/* Sections. */

struct options {
    cfg_opt_t sections[SECTIONS_COUNT + 1];
    cfg_opt_t keys[SECTIONS_COUNT][32];
};

static void options_fill(struct options *options)
{
    const cfg_opt_t end = CFG_END();
    for (int section = 0; section < SECTIONS_COUNT; section++) {
        size_t count = 0;
        for (size_t i = 0; i < COUNT_OF(KEYS); i++) {
            if ((int)KEYS[i].section == section) {
                const cfg_opt_t option = CFG_STR(KEYS[i].name, NULL, CFGF_NODEFAULT);
                options->keys[section][count++] = option;
            }
        }
        if (section == NODE) {
            const cfg_opt_t cores = CFG_STR_LIST(LIST_CORES, NULL, CFGF_NODEFAULT);
            options->keys[section][count++] = cores;
        }
        if (section == ROUTE) {
            const cfg_opt_t hosts = CFG_STR_LIST(LIST_HOSTS, NULL, CFGF_NODEFAULT);
            const cfg_opt_t ignore = CFG_STR_LIST(LIST_IGNORE, NULL, CFGF_NODEFAULT);
            options->keys[section][count++] = hosts;
            options->keys[section][count++] = ignore;
        }
        ensure(count < COUNT_OF(options->keys[section]));
        options->keys[section][count] = end;
        bool is_titled = section == SOURCE || section == ROUTE;
        cfg_flag_t flags = is_titled ? CFGF_MULTI | CFGF_TITLE | CFGF_NO_TITLE_DUPES : CFGF_NONE;
        const cfg_opt_t whole = CFG_SEC(SECTION_NAMES[section], options->keys[section], flags);
        options->sections[section] = whole;
    }
    options->sections[SECTIONS_COUNT] = end;
}

/* The same names for config_lint. */
static void lint_fill(struct config_lint *lint, const struct options *options,
                      struct writer *errors)
{
    memset(lint, 0, sizeof(*lint));
    lint->errors = errors;
    lint->sections_count = SECTIONS_COUNT;
    for (uint32_t i = 0; i < SECTIONS_COUNT; i++) {
        struct config_lint_section *section = &lint->sections[i];
        section->name = SECTION_NAMES[i];
        section->is_titled = i == SOURCE || i == ROUTE;
        for (const cfg_opt_t *key = options->keys[i]; key->name != NULL; key++) {
            ensure(section->keys_count < CONFIG_LINT_KEYS_MAX);
            section->keys[section->keys_count++] = key->name;
        }
    }
}

static void watch_values(cfg_t *cfg)
{
    for (size_t i = 0; i < COUNT_OF(KEYS); i++) {
        char path[64];
        (void)snprintf(path, sizeof(path), "%s|%s", SECTION_NAMES[KEYS[i].section], KEYS[i].name);
        (void)cfg_set_validate_func(cfg, path, on_value);
    }
}

/* All keys of a section into their fields: what is written, else the default. */
static void section_set(cfg_t *section, enum section which, void *owner)
{
    for (size_t i = 0; i < COUNT_OF(KEYS); i++) {
        const struct key *key = &KEYS[i];
        if (key->section != which) {
            continue;
        }
        const char *text = section == NULL ? NULL : cfg_getstr(section, key->name);
        if (text == NULL || !value_set(key, text, owner)) {
            ensure(value_set(key, key->fallback, owner));
        }
    }
}

static void set_cores(cfg_t *node, struct config *config)
{
    unsigned count = node == NULL ? 0 : cfg_size(node, LIST_CORES);
    for (uint32_t i = 0; i < CONFIG_WORKERS_MAX; i++) {
        config->cores[i] = -1;
    }
    for (unsigned i = 0; i < count && i < CONFIG_WORKERS_MAX; i++) {
        uint64_t core;
        struct cursor cursor = cursor_of(span_of_text(cfg_getnstr(node, LIST_CORES, i)));
        if (!cursor_take_uint(&cursor, 4095, &core) || cursor_left(&cursor) > 0) {
            config_error(node->filename, node->line, "cores: \"%s\" is not the number of a core",
                         cfg_getnstr(node, LIST_CORES, i));
            continue;
        }
        config->cores[i] = (int32_t)core;
    }
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    if (config->workers_count == 0) {
        uint32_t cores = online > 0 ? (uint32_t)online : 1;
        config->workers_count = count > 0 ? count : cores;
    }
    if (config->workers_count > CONFIG_WORKERS_MAX) {
        config->workers_count = CONFIG_WORKERS_MAX;
    }
    for (uint32_t i = 0; count == 0 && i < config->workers_count; i++) {
        config->cores[i] = online > 0 ? (int32_t)(i % (uint32_t)online) : -1;
    }
}

static void set_host(cfg_t *section, const char *text, struct config_host *host)
{
    struct span whole = span_of_text(text);
    if (net_addr_parse(whole, &host->addr)) {
        host->port = host->addr.port;
        return;
    }
    size_t colon = span_find(whole, ':');
    uint64_t port = 0;
    if (colon < whole.size) {
        struct cursor cursor = cursor_of(span_of(whole.at + colon + 1, whole.size - colon - 1));
        if (!cursor_take_uint(&cursor, 65535, &port) || cursor_left(&cursor) > 0 || port == 0) {
            config_error(section->filename, section->line, "host: \"%s\" has no legal port", text);
        }
    }
    if (colon == 0 || colon > 253) {
        config_error(section->filename, section->line,
                     "host: \"%s\" is neither a name nor an address", text);
    }
    host->port = (uint16_t)port;
    host->name = taken(strndup(text, colon));
}

static void set_ignored(cfg_t *section, struct config_route *route)
{
    static const struct {
        const char *keyword;
        uint32_t bit;
    } ROWS[] = {
        {"PIPELINING", SMTP_CAN_PIPELINE},
        {"8BITMIME", SMTP_CAN_8BIT},
        {"SIZE", SMTP_CAN_SIZE},
        {"ENHANCEDSTATUSCODES", SMTP_CAN_ENHANCED},
    };
    for (unsigned i = 0; i < cfg_size(section, LIST_IGNORE); i++) {
        struct span text = span_of_text(cfg_getnstr(section, LIST_IGNORE, i));
        uint32_t bit = 0;
        for (size_t row = 0; row < COUNT_OF(ROWS); row++) {
            if (span_equal_nocase(text, span_of_text(ROWS[row].keyword))) {
                bit = ROWS[row].bit;
            }
        }
        if (bit == 0) {
            config_error(
                section->filename, section->line,
                "ignore: \"%s\" is no keyword that is used; known are PIPELINING, 8BITMIME, "
                "SIZE, ENHANCEDSTATUSCODES",
                text.at);
        }
        route->capabilities_off |= bit;
    }
}

/* What is said in EHLO (A11): a domain, or an address in brackets. */
static bool is_ehlo_name(const char *name)
{
    struct span text = span_of_text(name);
    struct net_addr addr;
    if (text.size > 2 && text.at[0] == '[' && text.at[text.size - 1] == ']') {
        struct span inside = span_of(text.at + 1, text.size - 2);
        if (span_starts_nocase(inside, SPAN("IPv6:"))) {
            inside = span_of(inside.at + 5, inside.size - 5);
        }
        return net_addr_parse(inside, &addr) && addr.port == 0;
    }
    return smtp_address_check_domain(text) == SMTP_ADDRESS_OK;
}

static void ehlo_check(cfg_t *section, const char *key, const char *name)
{
    if (name != NULL && !is_ehlo_name(name)) {
        config_error(section->filename, section->line,
                     "%s: \"%s\" is neither a domain name nor an [address]", key, name);
    }
}

/* "*.example.com", "example.com", "[192.0.2.1]". */
static bool is_pattern(const char *pattern)
{
    struct span text = span_of_text(pattern);
    if (text.size > 2 && text.at[0] == '[') {
        return text.at[text.size - 1] == ']';
    }
    if (span_starts(text, SPAN("*."))) {
        text = span_of(text.at + 2, text.size - 2);
    }
    return smtp_address_check_domain(text) == SMTP_ADDRESS_OK;
}

static void route_check(cfg_t *section, const struct config_route *route)
{
    const char *file = section == NULL ? NULL : section->filename;
    int line = section == NULL ? 0 : section->line;
    const struct backoff_schedule *schedule = &route->schedule;
    if (strcmp(route->pattern, "*") != 0 && !is_pattern(route->pattern)) {
        config_error(file, line,
                     "route %s: neither a domain (in ASCII: xn--...) nor \"*.\" and a domain nor "
                     "\"*\"",
                     route->pattern);
    }
    if (schedule->first_s > schedule->ceiling_s) {
        config_error(file, line, "route %s: retry-first is longer than retry-max", route->pattern);
    }
    if (schedule->ceiling_s > schedule->expire_s) {
        config_error(file, line, "route %s: retry-max is longer than expire", route->pattern);
    }
    if (route->suspend_first_s > route->suspend_max_s) {
        config_error(file, line, "route %s: suspend-first is longer than suspend-max",
                     route->pattern);
    }
}

static void route_set(cfg_t *section, const char *pattern, struct config_route *route)
{
    section_set(section, ROUTE, route);
    route->pattern = taken(strdup(pattern));
    for (char *at = route->pattern; at != NULL && *at != '\0'; at++) {
        *at = *at >= 'A' && *at <= 'Z' ? (char)(*at - 'A' + 'a') : *at;
    }
    if (section == NULL || route->pattern == NULL) {
        return;
    }
    unsigned hosts = cfg_size(section, LIST_HOSTS);
    if (hosts > CONFIG_HOSTS_MAX) {
        config_error(section->filename, section->line, "host: at most %d hosts", CONFIG_HOSTS_MAX);
        hosts = CONFIG_HOSTS_MAX;
    }
    for (unsigned i = 0; i < hosts; i++) {
        set_host(section, cfg_getnstr(section, LIST_HOSTS, i), &route->hosts[i]);
    }
    route->hosts_count = hosts;
    set_ignored(section, route);
    route_check(section, route);
}

static void set_sources(cfg_t *cfg, struct config *config)
{
    unsigned count = cfg_size(cfg, "source");
    if (count > CONFIG_SOURCES_MAX) {
        config_error(cfg->filename, cfg->line, "source: at most %d sources", CONFIG_SOURCES_MAX);
        count = CONFIG_SOURCES_MAX;
    }
    count = count > 0 ? count : 1;
    config->sources = taken(calloc(count, sizeof(struct config_source)));
    config->sources_count = config->sources != NULL ? count : 0;
    bool has_sections = cfg_size(cfg, "source") > 0;
    for (unsigned i = 0; i < config->sources_count; i++) {
        cfg_t *section = has_sections ? cfg_getnsec(cfg, "source", i) : NULL;
        struct config_source *source = &config->sources[i];
        section_set(section, SOURCE, source);
        source->name = taken(strdup(section != NULL ? cfg_title(section) : "default"));
        ehlo_check(section, "ehlo", source->ehlo);
        if (source->address.port != 0) {
            config_error(section->filename, section->line,
                         "address: a source has no port: the system chooses one for each "
                         "connection");
        }
        if (source->ehlo == NULL && config->hostname != NULL) {
            source->ehlo = taken(strdup(config->hostname));
        }
    }
}

static int route_compare(const void *a, const void *b)
{
    const struct config_route *first = a;
    const struct config_route *second = b;
    bool are_both = first->pattern != NULL && second->pattern != NULL; /* memory may be short */
    return are_both ? strcmp(first->pattern, second->pattern) : 0;
}

/* Sorted by pattern, so that config_route_of finds them by halving; "*" is the last one. */
static void set_routes(cfg_t *cfg, struct config *config)
{
    unsigned count = cfg_size(cfg, "route");
    if (count >= CONFIG_ROUTES_MAX) {
        config_error(cfg->filename, cfg->line, "route: at most %d routes", CONFIG_ROUTES_MAX - 1);
        count = CONFIG_ROUTES_MAX - 1;
    }
    config->routes = taken(calloc(count + 1u, sizeof(struct config_route)));
    if (config->routes == NULL) {
        return;
    }
    cfg_t *star = NULL;
    for (unsigned i = 0; i < count; i++) {
        cfg_t *section = cfg_getnsec(cfg, "route", i);
        if (strcmp(cfg_title(section), "*") == 0) {
            star = section;
            continue;
        }
        route_set(section, cfg_title(section), &config->routes[config->routes_count++]);
    }
    qsort(config->routes, config->routes_count, sizeof(struct config_route), route_compare);
    for (uint32_t i = 1; i < config->routes_count; i++) {
        if (config->routes[i].pattern != NULL &&
            route_compare(&config->routes[i - 1], &config->routes[i]) == 0) {
            config_error(NULL, 0, "route %s: stands twice (the case of letters does not count)",
                         config->routes[i].pattern);
        }
    }
    route_set(star, "*", &config->routes[config->routes_count++]);
}

/* What lies between two keys. */
static void check_config(const struct config *config)
{
    if (!config->use_ip4 && !config->use_ip6) {
        config_error(NULL, 0, "dns: ip4 and ip6 are both off: no server could be reached");
    }
    if (config->dns_ttl_min_s > config->dns_ttl_max_s) {
        config_error(NULL, 0, "dns: ttl-min is longer than ttl-max");
    }
    if (config->metrics_listen.family != NET_NONE && config->metrics_listen.port == 0) {
        config_error(NULL, 0, "control: metrics needs a port, as in 127.0.0.1:9464");
    }
}

static void set_defaults_of_system(struct config *config)
{
    if (config->hostname == NULL) {
        char name[256] = "localhost";
        (void)gethostname(name, sizeof(name) - 1);
        config->hostname = taken(strdup(name));
    }
    if (config->control_socket == NULL && config->spool != NULL) {
        size_t size = strlen(config->spool) + sizeof("/control.sock");
        config->control_socket = taken(malloc(size));
        if (config->control_socket != NULL) {
            (void)snprintf(config->control_socket, size, "%s/control.sock", config->spool);
        }
    }
}

struct config *config_read(const char *path, struct writer *ret_errors)
{
    struct options *options = calloc(1, sizeof(*options));
    struct config_lint *lint = malloc(sizeof(*lint));
    struct config *config = calloc(1, sizeof(*config));
    if (options == NULL || config == NULL || lint == NULL) {
        free(options);
        free(lint);
        free(config);
        writer_put_format(ret_errors, "out of memory\n");
        return NULL;
    }
    size_t before = writer_size(ret_errors);
    parse_errors = ret_errors;
    parse_path = path != NULL ? path : "defaults";
    options_fill(options);
    lint_fill(lint, options, ret_errors);
    cfg_t *cfg = cfg_init(options->sections, CFGF_NONE);
    (void)cfg_set_error_function(cfg, on_confuse_error);
    watch_values(cfg);
    if (path != NULL) {
        config_parse_all(cfg, lint, path);
    }
    for (int section = NODE; section < SOURCE; section++) {
        section_set(cfg_getsec(cfg, SECTION_NAMES[section]), section, config);
    }
    ehlo_check(cfg_getsec(cfg, "node"), "hostname", config->hostname);
    set_defaults_of_system(config);
    set_cores(cfg_getsec(cfg, "node"), config);
    set_sources(cfg, config);
    set_routes(cfg, config);
    check_config(config);
    (void)cfg_free(cfg);
    free(options);
    free(lint);
    parse_errors = NULL;
    parse_path = NULL;
    if (writer_size(ret_errors) > before || ret_errors->is_full) {
        config_destroy(config);
        return NULL;
    }
    return config;
}

void config_destroy(struct config *config)
{
    if (config == NULL) {
        return;
    }
    for (uint32_t i = 0; i < config->sources_count; i++) {
        free(config->sources[i].name);
        free(config->sources[i].ehlo);
    }
    for (uint32_t i = 0; i < config->routes_count; i++) {
        for (uint32_t host = 0; host < config->routes[i].hosts_count; host++) {
            free(config->routes[i].hosts[host].name);
        }
        free(config->routes[i].pattern);
    }
    free(config->sources);
    free(config->routes);
    free(config->hostname);
    free(config->spool);
    free(config->log_directory);
    free(config->control_socket);
    free(config->dns_servers);
    free(config);
}

struct pattern {
    struct span star;   /* "*" or nothing */
    struct span domain; /* ".example.com" behind a star */
};

static int pattern_compare(const void *key, const void *route)
{
    const struct pattern *pattern = key;
    const char *other = ((const struct config_route *)route)->pattern;
    int star = strncmp(pattern->star.at, other, pattern->star.size);
    if (star != 0) {
        return star;
    }
    other += pattern->star.size;
    int domain = strncmp(pattern->domain.at, other, pattern->domain.size);
    return domain != 0 ? domain : -(int)(other[pattern->domain.size] != '\0');
}

/* The domain itself, then "*." and what is behind each of its dots: the longest first. */
const struct config_route *config_route_of(const struct config *config, struct span domain,
                                           uint32_t *ret_index)
{
    struct pattern pattern = {.star = SPAN_NONE, .domain = domain};
    const struct config_route *route = NULL;
    for (size_t dot = 0; route == NULL && dot < domain.size;) {
        route = bsearch(&pattern, config->routes, config->routes_count - 1, sizeof(*route),
                        pattern_compare);
        dot += 1 + span_find(span_of(domain.at + dot + 1, domain.size - dot - 1), '.');
        pattern.star = SPAN("*");
        pattern.domain = span_of(domain.at + dot, domain.size - dot);
    }
    route = route != NULL ? route : &config->routes[config->routes_count - 1];
    *ret_index = (uint32_t)(route - config->routes);
    return route;
}

void config_put_defaults(struct writer *writer)
{
    int section = -1;
    for (size_t i = 0; i < COUNT_OF(KEYS); i++) {
        const struct key *key = &KEYS[i];
        if ((int)key->section != section) {
            bool is_titled = key->section == SOURCE || key->section == ROUTE;
            const char *title = !is_titled               ? ""
                                : key->section == SOURCE ? " \"default\""
                                                         : " \"*\"";
            writer_put_format(writer, "%s%s%s {\n", section < 0 ? "" : "}\n\n",
                              SECTION_NAMES[key->section], title);
            section = (int)key->section;
        }
        writer_put_format(writer, "    %s = \"%s\"  # %s\n", key->name, key->fallback, key->help);
        bool is_last = i + 1 == COUNT_OF(KEYS) || KEYS[i + 1].section != key->section;
        for (size_t list = 0; list < COUNT_OF(LIST_LINES) && is_last; list++) {
            if (LIST_LINES[list].section == key->section) {
                writer_put_format(writer, "    %s\n", LIST_LINES[list].line);
            }
        }
    }
    writer_put(writer, SPAN("}\n"));
}
