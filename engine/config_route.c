/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/config_priv.h"

#include <stdlib.h>

#include "engine/smtp/smtp_address.h"

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
    host->name = config_taken(strndup(text, colon));
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
    for (unsigned i = 0; i < cfg_size(section, CONFIG_LIST_IGNORE); i++) {
        struct span text = span_of_text(cfg_getnstr(section, CONFIG_LIST_IGNORE, i));
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
        config_error(file, line, "route %s: retry-first (%u s) is longer than retry-max (%u s)",
                     route->pattern, schedule->first_s, schedule->ceiling_s);
    }
    if (schedule->ceiling_s > schedule->expire_s) {
        config_error(file, line,
                     "route %s: retry-max (%u s) is longer than expire (%u s): set both",
                     route->pattern, schedule->ceiling_s, schedule->expire_s);
    }
    if (route->suspend_first_s > route->suspend_max_s) {
        config_error(file, line, "route %s: suspend-first (%u s) is longer than suspend-max (%u s)",
                     route->pattern, route->suspend_first_s, route->suspend_max_s);
    }
}

static void route_set(cfg_t *section, const char *pattern, struct config_route *route)
{
    config_section_set(section, CONFIG_ROUTE, route);
    route->pattern = config_taken(strdup(pattern));
    for (char *at = route->pattern; at != NULL && *at != '\0'; at++) {
        *at = *at >= 'A' && *at <= 'Z' ? (char)(*at - 'A' + 'a') : *at;
    }
    if (section == NULL || route->pattern == NULL) {
        return;
    }
    unsigned hosts = cfg_size(section, CONFIG_LIST_HOSTS);
    if (hosts > CONFIG_HOSTS_MAX) {
        config_error(section->filename, section->line, "host: at most %d hosts", CONFIG_HOSTS_MAX);
        hosts = CONFIG_HOSTS_MAX;
    }
    for (unsigned i = 0; i < hosts; i++) {
        set_host(section, cfg_getnstr(section, CONFIG_LIST_HOSTS, i), &route->hosts[i]);
    }
    route->hosts_count = hosts;
    set_ignored(section, route);
    route_check(section, route);
}

static int route_compare(const void *a, const void *b)
{
    const struct config_route *first = a;
    const struct config_route *second = b;
    /* Memory may be short. */
    return strcmp(first->pattern != NULL ? first->pattern : "",
                  second->pattern != NULL ? second->pattern : "");
}

/* In the place of the last of the two. */
static void tell_twice(cfg_t *cfg, const char *pattern)
{
    const char *file = NULL;
    int line = 0;
    for (unsigned i = 0; i < cfg_size(cfg, "route"); i++) {
        cfg_t *section = cfg_getnsec(cfg, "route", i);
        if (span_equal_nocase(span_of_text(cfg_title(section)), span_of_text(pattern))) {
            file = section->filename;
            line = section->line;
        }
    }
    config_error(file, line, "route %s: stands twice (the case of letters does not count)",
                 pattern);
}

/* Sorted by pattern, so that config_route_of finds them by halving. */
void config_set_routes(cfg_t *cfg, struct config *config)
{
    unsigned count = cfg_size(cfg, "route");
    if (count >= CONFIG_ROUTES_MAX) {
        config_error(cfg->filename, cfg->line, "route: at most %d routes", CONFIG_ROUTES_MAX - 1);
        count = CONFIG_ROUTES_MAX - 1;
    }
    config->routes = config_taken(calloc(count + 1u, sizeof(struct config_route)));
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
            tell_twice(cfg, config->routes[i].pattern);
        }
    }
    route_set(star, "*", &config->routes[config->routes_count++]);
}

void config_free_routes(struct config *config)
{
    for (uint32_t i = 0; i < config->routes_count; i++) {
        for (uint32_t host = 0; host < config->routes[i].hosts_count; host++) {
            free(config->routes[i].hosts[host].name);
        }
        free(config->routes[i].pattern);
    }
    free(config->routes);
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
