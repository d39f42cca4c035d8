/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/config.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "engine/config_priv.h"
#include "engine/load.h"
#include "engine/smtp/smtp_address.h"

static const struct {
    enum config_section section;
    const char *line; /* of `ramjet check --defaults` */
} LIST_LINES[] = {
    {CONFIG_NODE, "# cores = {0, 1}  # core of each worker; default: one after the other"},
    {CONFIG_ROUTE,
     "# host = {\"mx.example.net:25\", \"192.0.2.1\"}  # where mail goes; default: by DNS"},
    {CONFIG_ROUTE, "# ignore = {PIPELINING}  # EHLO keywords that are not believed"},
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
    writer_put_format(parse_errors, "%s:", file != NULL ? file : parse_path);
    if (line > 0) {
        writer_put_format(parse_errors, "%d:", line);
    }
    writer_put_format(parse_errors, " %s\n", text);
}

void *config_taken(void *memory)
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

/* What the library's own words begin with, and what they leave out. */
static const struct {
    const char *words;
    const char *remedy;
} REMEDIES[] = {
    {"missing title", ": write its name in front of the brace, as in source \"a1\" {"},
    {"found duplicate title", ": one source or route of a name, in all files together"},
    {"premature end of file", ": a closing brace or quote is missing"},
    {"missing equal sign", ": a key is written NAME = VALUE, a section NAME {"},
    {"missing opening brace", ": a section is written NAME {, a source or route NAME \"TITLE\" {"},
    {"unexpected", ": texts with blanks or special characters stand in quotes, lists in braces"},
};

static void on_confuse_error(cfg_t *cfg, const char *format, va_list arguments)
{
    char text[512];
    (void)vsnprintf(text, sizeof(text), format, arguments);
    const char *remedy = "";
    for (size_t i = 0; i < COUNT_OF(REMEDIES); i++) {
        if (span_starts(span_of_text(text), span_of_text(REMEDIES[i].words))) {
            remedy = REMEDIES[i].remedy;
        }
    }
    config_error(cfg->filename, cfg->line, "%s%s", text, remedy);
}

struct options {
    cfg_opt_t sections[CONFIG_SECTIONS_COUNT + 1];
    cfg_opt_t keys[CONFIG_SECTIONS_COUNT][32];
};

static void options_fill(struct options *options)
{
    const cfg_opt_t end = CFG_END();
    for (int section = 0; section < CONFIG_SECTIONS_COUNT; section++) {
        size_t count = 0;
        for (size_t i = 0; i < CONFIG_KEYS_COUNT; i++) {
            if ((int)CONFIG_KEYS[i].section == section) {
                const cfg_opt_t option = CFG_STR(CONFIG_KEYS[i].name, NULL, CFGF_NODEFAULT);
                options->keys[section][count++] = option;
            }
        }
        if (section == CONFIG_NODE) {
            const cfg_opt_t cores = CFG_STR_LIST(CONFIG_LIST_CORES, NULL, CFGF_NODEFAULT);
            options->keys[section][count++] = cores;
        }
        if (section == CONFIG_ROUTE) {
            const cfg_opt_t hosts = CFG_STR_LIST(CONFIG_LIST_HOSTS, NULL, CFGF_NODEFAULT);
            const cfg_opt_t ignore = CFG_STR_LIST(CONFIG_LIST_IGNORE, NULL, CFGF_NODEFAULT);
            options->keys[section][count++] = hosts;
            options->keys[section][count++] = ignore;
        }
        ensure(count < COUNT_OF(options->keys[section]));
        options->keys[section][count] = end;
        bool is_titled = section == CONFIG_SOURCE || section == CONFIG_ROUTE;
        cfg_flag_t flags = is_titled ? CFGF_MULTI | CFGF_TITLE | CFGF_NO_TITLE_DUPES : CFGF_NONE;
        const cfg_opt_t whole =
            CFG_SEC(CONFIG_SECTION_NAMES[section], options->keys[section], flags);
        options->sections[section] = whole;
    }
    options->sections[CONFIG_SECTIONS_COUNT] = end;
}

/* The same names for config_lint. */
static void lint_fill(struct config_lint *lint, const struct options *options,
                      struct writer *errors)
{
    memset(lint, 0, sizeof(*lint));
    lint->errors = errors;
    lint->sections_count = CONFIG_SECTIONS_COUNT;
    for (uint32_t i = 0; i < CONFIG_SECTIONS_COUNT; i++) {
        struct config_lint_section *section = &lint->sections[i];
        section->name = CONFIG_SECTION_NAMES[i];
        section->is_titled = i == CONFIG_SOURCE || i == CONFIG_ROUTE;
        for (const cfg_opt_t *key = options->keys[i]; key->name != NULL; key++) {
            ensure(section->keys_count < CONFIG_LINT_KEYS_MAX);
            section->keys[section->keys_count++] = key->name;
        }
    }
}

static void watch_values(cfg_t *cfg)
{
    for (size_t i = 0; i < CONFIG_KEYS_COUNT; i++) {
        char path[64];
        (void)snprintf(path, sizeof(path), "%s|%s", CONFIG_SECTION_NAMES[CONFIG_KEYS[i].section],
                       CONFIG_KEYS[i].name);
        (void)cfg_set_validate_func(cfg, path, config_on_value);
    }
}

static void set_cores(cfg_t *node, struct config *config)
{
    unsigned count = node == NULL ? 0 : cfg_size(node, CONFIG_LIST_CORES);
    for (uint32_t i = 0; i < CONFIG_WORKERS_MAX; i++) {
        config->cores[i] = -1;
    }
    for (unsigned i = 0; i < count && i < CONFIG_WORKERS_MAX; i++) {
        uint64_t core;
        struct cursor cursor = cursor_of(span_of_text(cfg_getnstr(node, CONFIG_LIST_CORES, i)));
        if (!cursor_take_uint(&cursor, 4095, &core) || cursor_left(&cursor) > 0) {
            config_error(node->filename, node->line, "cores: \"%s\" is not the number of a core",
                         cfg_getnstr(node, CONFIG_LIST_CORES, i));
            continue;
        }
        config->cores[i] = (int32_t)core;
    }
    if (count > CONFIG_WORKERS_MAX) {
        config_error(node->filename, node->line, "cores: at most %d cores", CONFIG_WORKERS_MAX);
    } else if (count > 0 && config->workers_count > 0 && config->workers_count != count) {
        config_error(node->filename, node->line,
                     "cores: %u for %u workers: write one core for each worker, or leave workers "
                     "out",
                     count, config->workers_count);
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

/* What is said in EHLO (A11): a domain, or an address in brackets, one of IPv6 with its tag. */
static bool is_ehlo_name(const char *name)
{
    struct span text = span_of_text(name);
    struct net_addr addr;
    if (text.size > 2 && text.at[0] == '[' && text.at[text.size - 1] == ']') {
        struct span inside = span_of(text.at + 1, text.size - 2);
        bool is_tagged = span_starts_nocase(inside, SPAN("IPv6:"));
        if (is_tagged) {
            inside = span_of(inside.at + 5, inside.size - 5);
        }
        return net_addr_parse(inside, &addr) && addr.port == 0 &&
               (addr.family == NET_IP6) == is_tagged;
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

static void set_sources(cfg_t *cfg, struct config *config)
{
    unsigned count = cfg_size(cfg, "source");
    if (count > CONFIG_SOURCES_MAX) {
        config_error(cfg->filename, cfg->line, "source: at most %d sources", CONFIG_SOURCES_MAX);
        count = CONFIG_SOURCES_MAX;
    }
    count = count > 0 ? count : 1;
    config->sources = config_taken(calloc(count, sizeof(struct config_source)));
    config->sources_count = config->sources != NULL ? count : 0;
    bool has_sections = cfg_size(cfg, "source") > 0;
    for (unsigned i = 0; i < config->sources_count; i++) {
        cfg_t *section = has_sections ? cfg_getnsec(cfg, "source", i) : NULL;
        struct config_source *source = &config->sources[i];
        config_section_set(section, CONFIG_SOURCE, source);
        source->name = config_taken(strdup(section != NULL ? cfg_title(section) : "default"));
        ehlo_check(section, "ehlo", source->ehlo);
        if (source->address6.family != NET_NONE &&
            (source->address6.family != NET_IP6 || source->address.family != NET_IP4)) {
            config_error(section->filename, section->line,
                         "address6: an IPv6 address, beside an IPv4 `address`");
        }
        if (source->address.port != 0 || source->address6.port != 0) {
            config_error(section->filename, section->line,
                         "address: a source has no port: the system chooses one for each "
                         "connection");
        }
        if (source->ehlo == NULL && config->hostname != NULL) {
            source->ehlo = config_taken(strdup(config->hostname));
        }
    }
}

/* What lies between two keys. */
static void check_config(cfg_t *cfg, const struct config *config)
{
    const cfg_t *dns = cfg_getsec(cfg, "dns");
    const cfg_t *control = cfg_getsec(cfg, "control");
    if (!config->use_ip4 && !config->use_ip6) {
        config_error(dns->filename, dns->line,
                     "dns: ip4 and ip6 are both off: no server could be reached");
    }
    if (config->dns_ttl_min_s > config->dns_ttl_max_s) {
        config_error(dns->filename, dns->line, "dns: ttl-min (%u s) is longer than ttl-max (%u s)",
                     config->dns_ttl_min_s, config->dns_ttl_max_s);
    }
    if (config->metrics_listen.family != NET_NONE && config->metrics_listen.port == 0) {
        config_error(control->filename, control->line,
                     "control: metrics needs a port, as in 127.0.0.1:9464");
    }
}

static void set_defaults_of_system(struct config *config)
{
    if (config->hostname == NULL) {
        char name[256] = "localhost";
        (void)gethostname(name, sizeof(name) - 1);
        config->hostname = config_taken(strdup(name));
    }
    if (config->control_socket == NULL && config->spool != NULL) {
        size_t size = strlen(config->spool) + sizeof("/control.sock");
        config->control_socket = config_taken(malloc(size));
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
    for (int section = CONFIG_NODE; section < CONFIG_SOURCE; section++) {
        config_section_set(cfg_getsec(cfg, CONFIG_SECTION_NAMES[section]), section, config);
    }
    ehlo_check(cfg_getsec(cfg, "node"), "hostname", config->hostname);
    set_defaults_of_system(config);
    set_cores(cfg_getsec(cfg, "node"), config);
    set_sources(cfg, config);
    config_set_routes(cfg, config);
    check_config(cfg, config);
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
    config_free_routes(config);
    free(config->sources);
    free(config->hostname);
    free(config->spool);
    free(config->log_directory);
    free(config->control_socket);
    free(config->dns_servers);
    free(config);
}

void config_put_defaults(struct writer *writer)
{
    int section = -1;
    for (size_t i = 0; i < CONFIG_KEYS_COUNT; i++) {
        const struct config_key *key = &CONFIG_KEYS[i];
        if ((int)key->section != section) {
            bool is_titled = key->section == CONFIG_SOURCE || key->section == CONFIG_ROUTE;
            const char *title = !is_titled                      ? ""
                                : key->section == CONFIG_SOURCE ? " \"default\""
                                                                : " \"*\"";
            writer_put_format(writer, "%s%s%s {\n", section < 0 ? "" : "}\n\n",
                              CONFIG_SECTION_NAMES[key->section], title);
            section = (int)key->section;
        }
        writer_put_format(writer, "    %s = \"%s\"  # %s\n", key->name, key->fallback, key->help);
        bool is_last = i + 1 == CONFIG_KEYS_COUNT || CONFIG_KEYS[i + 1].section != key->section;
        for (size_t list = 0; list < COUNT_OF(LIST_LINES) && is_last; list++) {
            if (LIST_LINES[list].section == key->section) {
                writer_put_format(writer, "    %s\n", LIST_LINES[list].line);
            }
        }
    }
    writer_put(writer, SPAN("}\n"));
}
