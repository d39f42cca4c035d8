/* SPDX-License-Identifier: Apache-2.0 */
/*
 * config_priv: what the parts of config share: config.c (sections, the snapshot), config_value.c
 * (keys and their values), config_route.c (routes), config_file.c (files and their order). Start is
 * single-threaded: one configuration is read at a time.
 */
#pragma once

#include <confuse.h>

#include "engine/config.h"
#include "engine/config_lint.h"

enum config_section {
    CONFIG_NODE,
    CONFIG_SPOOL,
    CONFIG_LOG,
    CONFIG_CONTROL,
    CONFIG_DNS,
    CONFIG_LIMITS,
    CONFIG_SOURCE,
    CONFIG_ROUTE,
};
enum { CONFIG_SECTIONS_COUNT = CONFIG_ROUTE + 1 };

extern const char *const CONFIG_SECTION_NAMES[CONFIG_SECTIONS_COUNT];

enum config_kind {
    CONFIG_KIND_COUNT,
    CONFIG_KIND_SECONDS,
    CONFIG_KIND_MILLISECONDS,
    CONFIG_KIND_SIZE,
    CONFIG_KIND_RATE,
    CONFIG_KIND_SWITCH,
    CONFIG_KIND_TEXT,
    CONFIG_KIND_PATH, /* absolute: who starts the engine may stand anywhere */
    CONFIG_KIND_ADDRESS,
    CONFIG_KIND_PERCENT,
};

/* A row of config_keys.h. */
struct config_key {
    enum config_section section;
    const char *name;
    enum config_kind kind;
    size_t offset; /* in config, config_source or config_route */
    const char *fallback;
    uint64_t min;
    uint64_t max;
    const char *help;
};

/* In the order of the table: a section's keys stand together. */
extern const struct config_key CONFIG_KEYS[];
extern const size_t CONFIG_KEYS_COUNT;

/* Keys that are lists, beside the table: parser and reader know them by name. */
static const char *const CONFIG_LIST_CORES = "cores";
static const char *const CONFIG_LIST_HOSTS = "host";
static const char *const CONFIG_LIST_IGNORE = "ignore";

/* One line of the errors under way; `file` NULL: of the file under way; `line` 0: of all of it. */
__attribute__((format(printf, 3, 4))) void config_error(const char *file, int line,
                                                        const char *format, ...);

/* Names the file under way. The path must outlive the reading of it. */
void config_error_set_file(const char *file);

/* What was just taken from the heap; a want of memory is an error like any other. */
void *config_taken(void *memory);

/* config_value.c: all keys of a section into the fields of `owner`: what is written, else the
 * default. `section` NULL: nothing is written. */
void config_section_set(cfg_t *section, enum config_section which, void *owner);
/* The library's callback: runs as each value is read, when the line is known; always says "fine" so
 * that the next mistake is found as well. */
int config_on_value(cfg_t *cfg, cfg_opt_t *opt);

/* config_route.c: sorted by pattern, "*" is the last one. */
void config_set_routes(cfg_t *cfg, struct config *config);
void config_free_routes(struct config *config);

/* config_file.c: the named file, then every .conf file of conf.d beside it, into `cfg`. */
void config_parse_all(cfg_t *cfg, struct config_lint *lint, const char *path);
