/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/config.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/harness.h"

enum { TEXT_SIZE = 256 * 1024, PATH_SIZE = 256 };

static char errors_text[TEXT_SIZE];

/* A directory with ramjet.conf and, when given, conf.d/NAME files. */
struct files {
    char directory[PATH_SIZE];
    char path[PATH_SIZE + 32];
};

static void file_write(const char *path, const char *content)
{
    FILE *file = fopen(path, "w");
    ensure(file != NULL);
    ensure(fputs(content, file) >= 0);
    ensure(fclose(file) == 0);
}

static void files_make(struct files *files, const char *content)
{
    (void)snprintf(files->directory, sizeof(files->directory), "/tmp/test_config.XXXXXX");
    ensure(mkdtemp(files->directory) != NULL);
    (void)snprintf(files->path, sizeof(files->path), "%s/ramjet.conf", files->directory);
    file_write(files->path, content);
}

static void files_add(const struct files *files, const char *name, const char *content)
{
    char path[2 * PATH_SIZE];
    (void)snprintf(path, sizeof(path), "%s/conf.d", files->directory);
    (void)mkdir(path, 0700);
    (void)snprintf(path, sizeof(path), "%s/conf.d/%s", files->directory, name);
    file_write(path, content);
}

static int remove_one(const char *path, const struct stat *stat, int kind, struct FTW *where)
{
    (void)stat;
    (void)kind;
    (void)where;
    return remove(path);
}

static void files_remove(const struct files *files)
{
    ensure(nftw(files->directory, remove_one, 8, FTW_DEPTH | FTW_PHYS) == 0);
}

/* NULL: the errors are in errors_text, with the directory's name cut out. */
static struct config *read_errors(const char *path, const char *directory)
{
    struct writer errors = writer_of(errors_text, sizeof(errors_text) - 1);
    struct config *config = config_read(path, &errors);
    *errors.at = '\0';
    CU_ASSERT((config == NULL) == (writer_size(&errors) > 0));
    size_t size = strlen(directory) + 1;
    for (char *at = errors_text; (at = strstr(at, directory)) != NULL;) {
        memmove(at, at + size, strlen(at + size) + 1);
    }
    return config;
}

static struct config *read_text(const char *content)
{
    struct files files;
    files_make(&files, content);
    struct config *config = read_errors(files.path, files.directory);
    files_remove(&files);
    return config;
}

static void test_defaults(void)
{
    struct config *config = read_errors(NULL, "/nowhere");
    ensure(config != NULL);
    CU_ASSERT_STRING_EQUAL(config->spool, "/var/spool/ramjet");
    CU_ASSERT_STRING_EQUAL(config->control_socket, "/var/spool/ramjet/control.sock");
    CU_ASSERT(config->hostname != NULL && config->hostname[0] != '\0');
    CU_ASSERT(config->workers_count >= 1 && config->workers_count <= CONFIG_WORKERS_MAX);
    CU_ASSERT_EQUAL(config->free_space_min, 256u << 20);
    CU_ASSERT_EQUAL(config->drain_timeout_ms, 60000);
    CU_ASSERT(config->log_events);
    CU_ASSERT_PTR_NULL(config->log_directory);
    CU_ASSERT_PTR_NULL(config->dns_servers);
    CU_ASSERT_EQUAL(config->metrics_listen.family, NET_NONE);
    CU_ASSERT_EQUAL(config->sources_count, 1);
    CU_ASSERT_STRING_EQUAL(config->sources[0].name, "default");
    CU_ASSERT_STRING_EQUAL(config->sources[0].ehlo, config->hostname);
    CU_ASSERT_EQUAL(config->sources[0].address.family, NET_NONE);
    CU_ASSERT_EQUAL(config->routes_count, 1);
    const struct config_route *route = &config->routes[0];
    CU_ASSERT_STRING_EQUAL(route->pattern, "*");
    CU_ASSERT_EQUAL(route->port, 25);
    CU_ASSERT_EQUAL(route->schedule.first_s, 15 * 60);
    CU_ASSERT_EQUAL(route->schedule.expire_s, 5 * 86400);
    CU_ASSERT_EQUAL(route->timeouts.end_of_data_ms, 600000);
    CU_ASSERT_EQUAL(route->rate_per_hour, 0);
    config_destroy(config);
    config_destroy(NULL);
}

static const char GOOD[] =
    "# a comment\n"
    "node {\n"
    "    hostname = \"mx1.example.net\"\n"
    "    workers = 2\n"
    "    cores = {0, \"1\"}\n"
    "    drain-timeout = 1500ms\n"
    "}\n"
    "spool { path = \"/data/spool\" free-space-min = 2G }\n"
    "log { events = off directory = \"/data/log\" size-max = 64M }\n"
    "control { socket = \"/run/r.sock\" metrics = \"127.0.0.1:9100\" }\n"
    "dns { servers = \"127.0.0.1:5353\" timeout = 200ms ip6 = no allow-special = yes }\n"
    "source \"a1\" { address = \"192.0.2.1\" ehlo = \"a1.example.net\" connections = 7 }\n"
    "source \"a2\" { address = \"2001:db8::1\" }\n"
    "route \"Example.COM\" { host = {\"mx.internal:2525\", \"192.0.2.7\", \"[2001:db8::7]:26\"}\n"
    "    rate = 100/s burst = 20 ignore = {PIPELINING, size} }\n"
    "route \"*.example.com\" { connections = 3 rate = 400000/h retry-first = 30s }\n"
    "route \"*.mail.example.com\" { connections = 4 }\n"
    "route \"*\" { port = 2626 rate = 5000/m }\n";

static void test_good_file(void)
{
    struct config *config = read_text(GOOD);
    CU_ASSERT_STRING_EQUAL(errors_text, "");
    ensure(config != NULL);
    CU_ASSERT_STRING_EQUAL(config->hostname, "mx1.example.net");
    CU_ASSERT_EQUAL(config->workers_count, 2);
    CU_ASSERT(config->cores[0] == 0 && config->cores[1] == 1 && config->cores[2] == -1);
    CU_ASSERT_EQUAL(config->drain_timeout_ms, 1500);
    CU_ASSERT_EQUAL(config->free_space_min, UINT64_C(2) << 30);
    CU_ASSERT_FALSE(config->log_events);
    CU_ASSERT_STRING_EQUAL(config->log_directory, "/data/log");
    CU_ASSERT_STRING_EQUAL(config->control_socket, "/run/r.sock");
    CU_ASSERT_EQUAL(config->metrics_listen.port, 9100);
    CU_ASSERT_STRING_EQUAL(config->dns_servers, "127.0.0.1:5353");
    CU_ASSERT(config->use_ip4 && !config->use_ip6 && config->allow_special);
    CU_ASSERT_EQUAL(config->sources_count, 2);
    CU_ASSERT_STRING_EQUAL(config->sources[0].ehlo, "a1.example.net");
    CU_ASSERT_STRING_EQUAL(config->sources[1].ehlo, "mx1.example.net");
    CU_ASSERT_EQUAL(config->sources[0].connections_max, 7);
    CU_ASSERT_EQUAL(config->sources[1].address.family, NET_IP6);
    CU_ASSERT_PTR_NULL(config_source_address(&config->sources[0], NET_IP6));
    CU_ASSERT_PTR_NULL(config_source_address(&config->sources[1], NET_IP4));
    CU_ASSERT_PTR_EQUAL(config_source_address(&config->sources[1], NET_IP6),
                        &config->sources[1].address);
    config_destroy(config);
}

static const struct config_route *route_of(const struct config *config, const char *domain)
{
    uint32_t index = UINT32_MAX;
    const struct config_route *route = config_route_of(config, span_of_text(domain), &index);
    ensure(index < config->routes_count);
    ensure(route == &config->routes[index]);
    return route;
}

static void test_routes(void)
{
    struct config *config = read_text(GOOD);
    ensure(config != NULL);
    CU_ASSERT_EQUAL(config->routes_count, 4);
    CU_ASSERT_STRING_EQUAL(config->routes[3].pattern, "*");
    static const struct {
        const char *domain;
        const char *pattern;
    } ROWS[] = {
        {"example.com", "example.com"},
        {"a.example.com", "*.example.com"},
        {"b.a.example.com", "*.example.com"},
        {"mail.example.com", "*.example.com"},
        {"x.mail.example.com", "*.mail.example.com"},
        {"badexample.com", "*"},
        {".example.com", "*"},
        {"com", "*"},
        {"", "*"},
        {"[192.0.2.1]", "*"},
    };
    for (size_t i = 0; i < COUNT_OF(ROWS); i++) {
        CHECK_ROW(i, strcmp(route_of(config, ROWS[i].domain)->pattern, ROWS[i].pattern) == 0);
    }
    const struct config_route *route = route_of(config, "example.com");
    CU_ASSERT_EQUAL(route->rate_per_hour, 360000);
    CU_ASSERT_EQUAL(route->rate_burst, 20);
    CU_ASSERT_EQUAL(route->capabilities_off, SMTP_CAN_PIPELINE | SMTP_CAN_SIZE);
    CU_ASSERT_EQUAL(route->hosts_count, 3);
    CU_ASSERT_STRING_EQUAL(route->hosts[0].name, "mx.internal");
    CU_ASSERT_EQUAL(route->hosts[0].port, 2525);
    CU_ASSERT_PTR_NULL(route->hosts[1].name);
    CU_ASSERT_EQUAL(route->hosts[1].addr.family, NET_IP4);
    CU_ASSERT_EQUAL(route->hosts[1].port, 0);
    CU_ASSERT_EQUAL(route->hosts[2].addr.family, NET_IP6);
    CU_ASSERT_EQUAL(route->hosts[2].port, 26);
    CU_ASSERT_EQUAL(route_of(config, "x.example.com")->schedule.first_s, 30);
    CU_ASSERT_EQUAL(route_of(config, "x.example.com")->rate_per_hour, 400000);
    CU_ASSERT_EQUAL(route_of(config, "x.example.org")->port, 2626);
    CU_ASSERT_EQUAL(route_of(config, "x.example.org")->rate_per_hour, 300000);
    /* A route inherits nothing from "*". */
    CU_ASSERT_EQUAL(route_of(config, "example.com")->port, 25);
    config_destroy(config);
}

/* Every kind of mistake, with its place and its key. */
static const struct {
    const char *content;
    const char *error; /* begins so */
} MISTAKES[] = {
    {"node { workers = many }\n", "ramjet.conf:1: workers: \"many\""},
    {"node { workers = -1 }\n", "ramjet.conf:1: workers: \"-1\""},
    {"node {\n workers = 65\n}\n", "ramjet.conf:2: workers: \"65\""},
    {"node { workers = \"\" }\n", "ramjet.conf:1: workers: \"\""},
    {"node { workers = 99999999999999999999 }\n", "ramjet.conf:1: workers:"},
    {"node { drain-timeout = 30 }\n", "ramjet.conf:1: drain-timeout: \"30\""},
    {"node { drain-timeout = 2h }\n", "ramjet.conf:1: drain-timeout: \"2h\""},
    {"node { cores = {0, x} }\n", "ramjet.conf:1: cores: \"x\""},
    {"spool { path = \"\" }\n", "ramjet.conf:1: path: \"\""},
    {"spool { path = \"a\nb\" }\n", "ramjet.conf:2: path: "},
    {"spool { free-space-min = 1X }\n", "ramjet.conf:1: free-space-min: \"1X\""},
    {"spool { free-space-min = 9007199254740992T }\n", "ramjet.conf:1: free-space-min:"},
    {"log { events = maybe }\n", "ramjet.conf:1: events: \"maybe\""},
    {"control { metrics = localhost }\n", "ramjet.conf:1: metrics: \"localhost\""},
    {"dns { ttl-min = 2x }\n", "ramjet.conf:1: ttl-min: \"2x\""},
    {"source \"a\" { address = 300.1.1.1 }\n", "ramjet.conf:1: address: \"300.1.1.1\""},
    {"source { address = 192.0.2.1 }\n",
     "ramjet.conf:1: missing title for section 'source': write its name"},
    {"route \"x\" { port = 0 }\n", "ramjet.conf:1: port: \"0\""},
    {"route \"x\" { port = 65536 }\n", "ramjet.conf:1: port: \"65536\""},
    {"route \"x\" { rate = 100 }\n", "ramjet.conf:1: rate: \"100\""},
    {"route \"x\" { retry-jitter = 51% }\n", "ramjet.conf:1: retry-jitter: \"51%\""},
    {"route \"x\" {\n retry-first = 5h\n}\n", "ramjet.conf:3: route x: retry-first"},
    {"route \"x\" { retry-max = 6d }\n", "ramjet.conf:1: route x: retry-max"},
    {"route \"x\" { suspend-max = 1s }\n", "ramjet.conf:1: route x: suspend-first"},
    {"route \"x\" { host = {\"mx:0\"} }\n", "ramjet.conf:1: host: \"mx:0\""},
    {"route \"x\" { host = {\"mx:99999\"} }\n", "ramjet.conf:1: host: \"mx:99999\""},
    {"route \"x\" { host = {\":25\"} }\n", "ramjet.conf:1: host: \":25\""},
    {"node { hostname = \"two words\" }\n", "ramjet.conf:1: hostname: \"two words\""},
    {"source \"a\" { ehlo = \"-bad\" }\n", "ramjet.conf:1: ehlo: \"-bad\""},
    {"source \"a\" { ehlo = \"[192.0.2.1\" }\n", "ramjet.conf:1: ehlo: \"[192.0.2.1\""},
    {"source \"a\" { ehlo = 192.0.2.1 }\n", "ramjet.conf:1: ehlo: \"192.0.2.1\""}, /* A11 */
    {"source \"a\" { ehlo = \"[2001:db8::1]\" }\n", "ramjet.conf:1: ehlo: \"[2001:db8::1]\""},
    {"source \"a\" { ehlo = \"[IPv6:192.0.2.1]\" }\n", "ramjet.conf:1: ehlo: \"[IPv6:192.0.2.1]\""},
    {"source \"a\" { address = \"192.0.2.1:25\" }\n", "ramjet.conf:1: address: a source has"},
    {"source \"a\" { address = \"192.0.2.1\" address6 = \"[2001:db8::1]:25\" }\n",
     "ramjet.conf:1: address: a source has"},
    {"source \"a\" { address6 = \"2001:db8::1\" }\n", "ramjet.conf:1: address6: an IPv6"},
    {"source \"a\" { address = \"192.0.2.1\" address6 = \"192.0.2.2\" }\n",
     "ramjet.conf:1: address6: an IPv6"},
    {"source \"a\" { address = \"2001:db8::1\" address6 = \"2001:db8::2\" }\n",
     "ramjet.conf:1: address6: an IPv6"},
    {"\ncontrol { metrics = 127.0.0.1 }\n", "ramjet.conf:2: control: metrics needs a port"},
    {"dns { ip4 = no ip6 = no }\n", "ramjet.conf:1: dns: ip4 and ip6"},
    {"dns { ttl-min = 2m ttl-max = 1m }\n",
     "ramjet.conf:1: dns: ttl-min (120 s) is longer than ttl-max (60 s)"},
    {"route \"exa mple\" { }\n", "ramjet.conf:1: route exa mple: neither"},
    {"route \"*.\" { }\n", "ramjet.conf:1: route *.: neither"},
    {"route \"*x.example\" { }\n", "ramjet.conf:1: route *x.example: neither"},
    {"route \"A.example\" { }\nroute \"a.example\" { }\n",
     "ramjet.conf:2: route a.example: stands twice"},
    {"route \"x\" { expire = 1m }\n",
     "ramjet.conf:1: route x: retry-max (14400 s) is longer than expire (60 s): set both"},
    {"route \"x\" { host = {} }\n", "ramjet.conf:1: host: the list is empty"},
    {"route \"x\" {\n host = { # none\n } }\n", "ramjet.conf:2: host: the list is empty"},
    {"route \"x\" { ignore = { } }\n", "ramjet.conf:1: ignore: the list is empty"},
    {"node { cores = {} }\n", "ramjet.conf:1: cores: the list is empty"},
    {"node { workers = 2 cores = {0} }\n", "ramjet.conf:1: cores: 1 for 2 workers: write one"},
    {"node { workers = 1 cores = {0, 1} }\n", "ramjet.conf:1: cores: 2 for 1 workers"},
    {"spool { path = \"spool\" }\n",
     "ramjet.conf:1: path: \"spool\" cannot be used: write an absolute path"},
    {"log { directory = ./log }\n", "ramjet.conf:1: directory: \"./log\" cannot be used"},
    {"control { socket = r.sock }\n", "ramjet.conf:1: socket: \"r.sock\" cannot be used"},
    {"\xEF\xBB\xBFnode { workers = x }\n", "ramjet.conf:1: workers: \"x\""},
    {"route \"x\" { ignore = {STARTTLS} }\n", "ramjet.conf:1: ignore: \"STARTTLS\""},
    {"\n\nnode { wrokers = 1 }\n",
     "ramjet.conf:3: wrokers: section node has no such key; did you mean workers?"},
    {"\nnoed { workers = 1 }\n", "ramjet.conf:2: noed: no such section; did you mean node?"},
    {"node { xyz = 1 }\n", "ramjet.conf:1: xyz: section node has no such key; see ramjet check"},
    {"workers = 1\n", "ramjet.conf:1: workers: stands in no section"},
    {"node {\n workers = 1\n workers = 2 }\n",
     "ramjet.conf:3: workers: given twice in one section, first in line 2"},
    {"node { workers = 1 }\n\nnode { hostname = a.example }\n",
     "ramjet.conf:3: node: the section stands twice, first in ramjet.conf:1"},
    {"\nnode { workers = 1\n", "ramjet.conf:2: node: the section is never closed"},
    {"route \"x\" { host = {\"a\", \"b\"\n",
     "ramjet.conf:2: premature end of file: a closing brace"},
    {"# a\n// b\n/* c\n */ /* */ log {\n# d\n events = x }\n", "ramjet.conf:6: events: "},
    {"log { events = \"# // /*\" }\n", "ramjet.conf:1: events: \"# // /*\""},
    {"node { workers = \"1\n", "ramjet.conf:"},
    {"node { workers = }\n", "ramjet.conf:1: "},
    {"node workers = 1\n", "ramjet.conf:1: "},
    {"source \"a\" { }\nsource \"a\" { }\n", "ramjet.conf:2: found duplicate title 'a'"},
    {"route \"a\" { }\nroute \"a\" { }\n", "ramjet.conf:2: found duplicate title 'a'"},
};

static void test_each_mistake(void)
{
    for (size_t i = 0; i < COUNT_OF(MISTAKES); i++) {
        struct config *config = read_text(MISTAKES[i].content);
        CHECK_ROW(i, config == NULL);
        bool is_told = strncmp(errors_text, MISTAKES[i].error, strlen(MISTAKES[i].error)) == 0;
        CHECK_ROW(i, is_told);
        if (!is_told) {
            printf("row %zu: %s", i, errors_text);
        }
        config_destroy(config);
    }
}

static size_t lines_count(const char *text)
{
    size_t count = 0;
    for (; *text != '\0'; text++) {
        count += *text == '\n';
    }
    return count;
}

static void test_all_values_in_one_go(void)
{
    struct config *config =
        read_text("node { workers = x drain-timeout = y }\n"
                  "log { events = z }\n"
                  "source \"a\" { connections = 0 }\n"
                  "route \"b\" { rate = fast host = {\":1\"} retry-max = 9d }\n");
    CU_ASSERT_PTR_NULL(config);
    CU_ASSERT_EQUAL(lines_count(errors_text), 7);
    config_destroy(config);
}

/* The library would stop at the first of these. */
static void test_all_kinds_in_one_go(void)
{
    struct config *config = read_text("# { \" comments are passed over\n"
                                      "node { wokers = {1, {2}, \"}\"} /* } */ hostname = -x }\n"
                                      "nodd \"t\" { a = { b = 1 } c { d = 2 } }\n"
                                      "stray = {1,\n 2}\n"
                                      "log { events = yes // }\n"
                                      "      evnets = \"}\" size-max = 1 }\n"
                                      "limits { sessions = 0 # }\n }\n");
    CU_ASSERT_PTR_NULL(config);
    static const char *const ERRORS[] = {
        "ramjet.conf:2: wokers: section node has no such key; did you mean workers?\n",
        "ramjet.conf:3: nodd: no such section; did you mean node?\n",
        "ramjet.conf:4: stray: stands in no section",
        "ramjet.conf:7: evnets: section log has no such key; did you mean events?\n",
        "ramjet.conf:7: size-max: \"1\"",
        "ramjet.conf:8: sessions: \"0\"",
        "hostname: \"-x\" is neither",
    };
    for (size_t i = 0; i < COUNT_OF(ERRORS); i++) {
        CHECK_ROW(i, strstr(errors_text, ERRORS[i]) != NULL);
    }
    CU_ASSERT_EQUAL(lines_count(errors_text), COUNT_OF(ERRORS));
    config_destroy(config);
}

/* Whatever stands in the file: an answer, and no crash. Every cut and every changed byte of a good
 * file. */
static void test_broken_files(void)
{
    static const char BYTES[] = "{}=\"'#/*\\+,\n ";
    char text[sizeof(GOOD)];
    for (size_t size = 0; size < sizeof(GOOD); size += 3) {
        memcpy(text, GOOD, sizeof(GOOD));
        text[size] = '\0';
        config_destroy(read_text(text));
    }
    for (size_t i = 0; i + 1 < sizeof(GOOD); i++) {
        memcpy(text, GOOD, sizeof(GOOD));
        text[i] = BYTES[i % (sizeof(BYTES) - 1)];
        config_destroy(read_text(text));
    }
}

static void test_many_routes(void)
{
    enum { MANY = 2000 };
    static char text[MANY * 64];
    struct writer writer = writer_of(text, sizeof(text) - 1);
    for (uint32_t i = 0; i < MANY; i++) {
        uint32_t n = i * 7919 % MANY;
        writer_put_format(&writer, "route \"%sd%u.example\" { port = %u }\n",
                          n % 2 == 0 ? "*." : "", n, n + 1);
    }
    *writer.at = '\0';
    struct config *config = read_text(text);
    ensure(config != NULL);
    for (uint32_t n = 0; n < MANY; n++) {
        char domain[64];
        (void)snprintf(domain, sizeof(domain), "%sd%u.example", n % 2 == 0 ? "a.b." : "", n);
        CHECK_ROW(n, route_of(config, domain)->port == n + 1);
        (void)snprintf(domain, sizeof(domain), "%sd%u.example", n % 2 == 0 ? "" : "a.", n);
        CHECK_ROW(n, route_of(config, domain)->port == 25);
    }
    config_destroy(config);
}

static void test_conf_d(void)
{
    struct files files;
    /* Sections that say nothing are in nobody's way. */
    files_make(&files, "node { hostname = \"a.example\" }\nlimits {\n#  sessions = 5\n}\n");
    files_add(&files, "20-b.conf", "route \"b\" { port = 2 }\nlimits { }\n");
    files_add(&files, "10-a.conf", "route \"a\" { port = 1 }\nlimits { sessions = 77 }\n");
    files_add(&files, "30-c.conf~", "rubbish {\n");
    files_add(&files, ".hidden.conf", "rubbish {\n");
    struct config *config = read_errors(files.path, files.directory);
    ensure(config != NULL);
    CU_ASSERT_STRING_EQUAL(config->hostname, "a.example");
    CU_ASSERT_EQUAL(config->sessions_max, 77);
    CU_ASSERT_EQUAL(config->routes_count, 3);
    CU_ASSERT_EQUAL(route_of(config, "a")->port, 1);
    CU_ASSERT_EQUAL(route_of(config, "b")->port, 2);
    config_destroy(config);
    /* Mistakes of all files together, each with its file; a title is defined once in all of them.
     */
    files_add(&files, "20-b.conf", "route \"b\" { port = 0 }\n\nroute \"a\" { port = 2 }\n");
    files_add(&files, "40-d.conf", "dns { tries = 0 }\n");
    files_add(&files, "50-e.conf", "limits { recipients = 100 }\n");
    CU_ASSERT_PTR_NULL(read_errors(files.path, files.directory));
    CU_ASSERT_PTR_NOT_NULL(strstr(errors_text, "conf.d/20-b.conf:1: port: \"0\""));
    CU_ASSERT_PTR_NOT_NULL(strstr(errors_text, "conf.d/20-b.conf:3: found duplicate title 'a'"));
    CU_ASSERT_PTR_NOT_NULL(strstr(errors_text, "conf.d/40-d.conf:1: tries: \"0\""));
    CU_ASSERT_PTR_NOT_NULL(strstr(errors_text, "conf.d/50-e.conf:1: limits: the section stands "
                                               "twice, first in conf.d/10-a.conf:2"));
    CU_ASSERT_EQUAL(lines_count(errors_text), 4);
    files_remove(&files);
}

static void test_files_that_cannot_be_read(void)
{
    CU_ASSERT_PTR_NULL(read_errors("/nowhere/ramjet.conf", "/tmp"));
    CU_ASSERT_PTR_NOT_NULL(strstr(errors_text, "/nowhere/ramjet.conf: cannot be read: No such"));
    CU_ASSERT_PTR_NULL(read_errors("/", "/tmp"));
    CU_ASSERT_PTR_NOT_NULL(strstr(errors_text, "cannot be read: not a regular file"));
}

/* More mistakes than the writer holds: still no config. */
static void test_errors_that_do_not_fit(void)
{
    struct files files;
    files_make(&files, "node { workers = x drain-timeout = y }\n");
    char small[10];
    struct writer errors = writer_of(small, sizeof(small));
    CU_ASSERT_PTR_NULL(config_read(files.path, &errors));
    CU_ASSERT(errors.is_full);
    files_remove(&files);
}

/* What `check --defaults` prints can be read, and means the same as no file at all. */
static void test_defaults_can_be_read_back(void)
{
    static char text[TEXT_SIZE];
    struct writer writer = writer_of(text, sizeof(text) - 1);
    config_put_defaults(&writer);
    *writer.at = '\0';
    CU_ASSERT_FALSE(writer.is_full);
    struct config *config = read_text(text);
    struct config *plain = read_errors(NULL, "/nowhere");
    CU_ASSERT_STRING_EQUAL(errors_text, "");
    ensure(config != NULL);
    ensure(plain != NULL);
    CU_ASSERT_STRING_EQUAL(config->hostname, plain->hostname);
    CU_ASSERT_STRING_EQUAL(config->spool, plain->spool);
    CU_ASSERT_STRING_EQUAL(config->control_socket, plain->control_socket);
    CU_ASSERT_EQUAL(memcmp(config->cores, plain->cores, sizeof(config->cores)), 0);
#define CONFIG_KEY(section, name, kind, field, fallback, min, max, help)                           \
    CONFIG_KEY_##section(kind, field)
#define CONFIG_KEY_NODE(kind, field) SAME_##kind(config->field, plain->field)
#define CONFIG_KEY_SPOOL CONFIG_KEY_NODE
#define CONFIG_KEY_LOG CONFIG_KEY_NODE
#define CONFIG_KEY_CONTROL CONFIG_KEY_NODE
#define CONFIG_KEY_DNS CONFIG_KEY_NODE
#define CONFIG_KEY_LIMITS CONFIG_KEY_NODE
#define CONFIG_KEY_SOURCE(kind, field)                                                             \
    SAME_##kind(config->sources[0].field, plain->sources[0].field)
#define CONFIG_KEY_ROUTE(kind, field) SAME_##kind(config->routes[0].field, plain->routes[0].field)
#define SAME_COUNT(a, b) CU_ASSERT_EQUAL(a, b);
#define SAME_SECONDS SAME_COUNT
#define SAME_MILLISECONDS SAME_COUNT
#define SAME_SIZE SAME_COUNT
#define SAME_RATE SAME_COUNT
#define SAME_SWITCH SAME_COUNT
#define SAME_PERCENT SAME_COUNT
#define SAME_PATH SAME_TEXT
#define SAME_TEXT(a, b) CU_ASSERT((a == NULL) == (b == NULL) && (a == NULL || strcmp(a, b) == 0));
#define SAME_ADDRESS(a, b) CU_ASSERT_EQUAL(memcmp(&a, &b, sizeof(a)), 0);
#include "engine/config_keys.h"
#undef CONFIG_KEY
    CU_ASSERT_EQUAL(config->routes_count, 1);
    CU_ASSERT_EQUAL(config->sources_count, 1);
    config_destroy(config);
    config_destroy(plain);
}

SUITE(config, test_defaults, test_good_file, test_routes, test_each_mistake,
      test_all_values_in_one_go, test_all_kinds_in_one_go, test_broken_files, test_many_routes,
      test_conf_d, test_files_that_cannot_be_read, test_errors_that_do_not_fit,
      test_defaults_can_be_read_back)
