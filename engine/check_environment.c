/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/check_environment.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/un.h>
#include <unistd.h>

#include "dns/dns_source.h"
#include "engine/base/disk.h"
#include "engine/config.h"
#include "engine/smtp/smtp_address.h"
#include "net/net.h"
#include "queue/recipient.h"

/* As engine/boot.c: beside one a session. */
enum { DESCRIPTORS_SPARE = 1024, PATH_SIZE = 4096, DOMAIN_BYTES = 84 };

/* A resolver that is well answers this one from what it keeps, and within the time. */
static const char QUESTION[] = "a.root-servers.net";
enum { QUESTION_MS = 1500, QUESTION_END_MS = 4000 };

struct findings {
    const struct config *config;
    struct writer *errors;
    struct writer *warnings;
};

static struct span parent_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    if (slash == NULL) {
        return SPAN(".");
    }
    return slash == path ? SPAN("/") : span_of(path, (size_t)(slash - path));
}

/* The directory is there and may be written to, or can be made. */
static void check_directory(const struct findings *findings, const char *what, const char *path,
                            bool can_be_made)
{
    struct stat found;
    char parent[PATH_SIZE];
    if (stat(path, &found) == 0) {
        if (!S_ISDIR(found.st_mode)) {
            writer_put_format(findings->errors, "%s: %s is not a directory\n", what, path);
        } else if (access(path, R_OK | W_OK | X_OK) != 0) {
            writer_put_format(findings->errors,
                              "%s: %s: %s; give it to the user who runs the engine\n", what, path,
                              strerror(errno));
        }
        return;
    }
    int error = errno;
    struct span above = parent_of(path);
    (void)snprintf(parent, sizeof(parent), "%.*s", (int)above.size, above.at);
    if (error != ENOENT || !can_be_made || access(parent, W_OK | X_OK) != 0) {
        writer_put_format(findings->errors, "%s: %s: %s; make it: mkdir -p -m 0750 %s\n", what,
                          path, strerror(error), path);
    }
}

static void check_space(const struct findings *findings)
{
    const struct config *config = findings->config;
    char parent[PATH_SIZE];
    struct statvfs space;
    struct span above = parent_of(config->spool);
    (void)snprintf(parent, sizeof(parent), "%.*s", (int)above.size, above.at);
    if (statvfs(config->spool, &space) != 0 && statvfs(parent, &space) != 0) {
        return;
    }
    uint64_t free_bytes = (uint64_t)space.f_bavail * (uint64_t)space.f_frsize;
    if (free_bytes < config->free_space_min) {
        writer_put_format(findings->warnings,
                          "spool: %s: %llu MiB are free, and below free-space-min = %llu MiB "
                          "nothing is claimed: make room, or set spool { free-space-min } lower\n",
                          config->spool, (unsigned long long)(free_bytes >> 20),
                          (unsigned long long)(config->free_space_min >> 20));
    }
}

static void check_paths(const struct findings *findings)
{
    const struct config *config = findings->config;
    check_directory(findings, "spool", config->spool, true);
    if (config->log_events && config->log_directory != NULL) {
        check_directory(findings, "log", config->log_directory, false);
    }
    size_t room = sizeof(((struct sockaddr_un *)NULL)->sun_path);
    if (strlen(config->control_socket) >= room) {
        writer_put_format(findings->errors,
                          "control: the socket's path has %zu bytes, a UNIX socket takes %zu: set "
                          "control { socket } to a shorter one, such as /run/ramjet/control.sock\n",
                          strlen(config->control_socket), room - 1);
        return;
    }
    char parent[PATH_SIZE];
    struct span above = parent_of(config->control_socket);
    (void)snprintf(parent, sizeof(parent), "%.*s", (int)above.size, above.at);
    if (strcmp(parent, config->spool) != 0) {
        check_directory(findings, "control", parent, false);
    }
    struct stat stat;
    if (lstat(config->control_socket, &stat) == 0 && !S_ISSOCK(stat.st_mode)) {
        writer_put_format(findings->errors,
                          "control: socket %s: there is something that is no socket: give control "
                          "{ socket } a path of its own, or move that away\n",
                          config->control_socket);
    }
}

/* 0, or the error that binding a socket to the address gives; with a port: listening there. */
static int try_bind(const struct net_addr *addr)
{
    union {
        struct sockaddr any;
        struct sockaddr_in ip4;
        struct sockaddr_in6 ip6;
    } name = {.any.sa_family = addr->family == NET_IP4 ? AF_INET : AF_INET6};
    socklen_t size = addr->family == NET_IP4 ? sizeof(name.ip4) : sizeof(name.ip6);
    if (addr->family == NET_IP4) {
        name.ip4.sin_port = htons(addr->port);
        memcpy(&name.ip4.sin_addr, addr->bytes, sizeof(name.ip4.sin_addr));
    } else {
        name.ip6.sin6_port = htons(addr->port);
        memcpy(&name.ip6.sin6_addr, addr->bytes, sizeof(name.ip6.sin6_addr));
    }
    int fd = socket(name.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return errno;
    }
    int one = 1; /* as engine/control_http.c */
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    bool is_fine = bind(fd, &name.any, size) == 0 && (addr->port == 0 || listen(fd, 1) == 0);
    int error = is_fine ? 0 : errno;
    (void)close(fd);
    return error;
}

/* It has the port that its configuration names. */
static bool is_engine_running(const struct config *config)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    if (strlen(config->control_socket) >= sizeof(name.sun_path)) {
        return false;
    }
    (void)snprintf(name.sun_path, sizeof(name.sun_path), "%s", config->control_socket);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool is_running = fd >= 0 && connect(fd, (struct sockaddr *)&name, sizeof(name)) == 0;
    if (fd >= 0) {
        (void)close(fd);
    }
    return is_running;
}

static void check_metrics(const struct findings *findings)
{
    struct net_addr addr = findings->config->metrics_listen;
    char text[NET_ADDR_TEXT_MAX + 1];
    struct writer writer = writer_of(text, sizeof(text) - 1);
    if (addr.family == NET_NONE) {
        return;
    }
    if (!net_addr_is_loopback(&addr)) {
        writer_put_format(findings->warnings, "control: metrics can be read by anybody who reaches "
                                              "this address\n");
    }
    net_addr_put(&writer, &addr);
    *writer.at = '\0';
    if (is_engine_running(findings->config)) {
        addr.port = 0;
    }
    int error = try_bind(&addr);
    if (error == EADDRINUSE) {
        writer_put_format(findings->errors,
                          "control: metrics: %s: another program listens there: give control { "
                          "metrics } a port of its own (ss -ltnp shows who has it)\n",
                          text);
    } else if (error != 0) {
        writer_put_format(
            findings->errors, "control: metrics: %s: %s; ip address shows what there is\n", text,
            error == EADDRNOTAVAIL ? "is not on any interface of this machine" : strerror(error));
    }
}

static void check_address(const struct config_source *source, const struct net_addr *addr,
                          struct writer *ret_warnings)
{
    char text[NET_ADDR_TEXT_MAX + 1];
    struct writer writer = writer_of(text, sizeof(text) - 1);
    int error = addr->family == NET_NONE ? 0 : try_bind(addr);
    if (error == 0) {
        return;
    }
    net_addr_put(&writer, addr);
    *writer.at = '\0';
    writer_put_format(
        ret_warnings,
        "source %s: %s: %s: recipients dealt to it are put off (TEMP_NO_CONNECT) until it is; "
        "ip address shows what there is\n",
        source->name, text,
        error == EADDRNOTAVAIL ? "is not on any interface of this machine" : strerror(error));
}

static bool is_other_family(const struct config_source *a, const struct config_source *b)
{
    return (config_source_address(a, NET_IP4) == NULL) !=
               (config_source_address(b, NET_IP4) == NULL) ||
           (config_source_address(a, NET_IP6) == NULL) !=
               (config_source_address(b, NET_IP6) == NULL);
}

void check_source_addresses(const struct config *config, struct writer *ret_warnings)
{
    for (uint32_t i = 0; i < config->sources_count; i++) {
        const struct config_source *source = &config->sources[i];
        check_address(source, &source->address, ret_warnings);
        check_address(source, &source->address6, ret_warnings);
        for (uint32_t other = 0; other < i; other++) {
            if (is_other_family(source, &config->sources[other])) {
                writer_put_format(
                    ret_warnings,
                    "source %s: reaches hosts of another family than source %s: a recipient is "
                    "dealt to one of them for good, and is put off where it cannot reach a host; "
                    "give each source an IPv4 address and an address6\n",
                    source->name, config->sources[other].name);
                break;
            }
        }
    }
}

static void check_name(const struct findings *findings, const char *what, const char *name)
{
    struct span text = span_of_text(name);
    if (text.size > 0 && text.at[0] == '[') {
        return;
    }
    if (span_find(text, '.') == text.size || smtp_address_check_domain(text) != SMTP_ADDRESS_OK) {
        writer_put_format(findings->warnings,
                          "%s: \"%s\" is not a full domain name: servers refuse such an EHLO; set "
                          "node { hostname } or source { ehlo }\n",
                          what, name);
    }
}

static void check_sources(const struct findings *findings)
{
    const struct config *config = findings->config;
    char what[256];
    for (uint32_t i = 0; i < config->sources_count; i++) {
        const struct config_source *source = &config->sources[i];
        if (strcmp(source->ehlo, config->hostname) != 0) {
            (void)snprintf(what, sizeof(what), "source %.200s", source->name);
            check_name(findings, what, source->ehlo);
        }
    }
    check_name(findings, "node", config->hostname);
    check_source_addresses(config, findings->warnings);
}

/* Some route needs a name to be looked up. */
static bool is_dns_wanted(const struct config *config)
{
    for (uint32_t i = 0; i < config->routes_count; i++) {
        const struct config_route *route = &config->routes[i];
        bool is_wanted = route->hosts_count == 0;
        for (uint32_t host = 0; host < route->hosts_count; host++) {
            is_wanted = is_wanted || route->hosts[host].name != NULL;
        }
        if (is_wanted) {
            return true;
        }
    }
    return false;
}

struct asking {
    bool is_answered;
    enum dns_status status;
};

static void on_answer(struct dns_question *question, enum dns_status status, struct span message)
{
    struct asking *asking = question->user;
    (void)message;
    asking->is_answered = true;
    asking->status = status;
}

/* Any answer will do: that there is no such name, too. */
static void ask_one(const struct findings *findings, struct dns_source *source)
{
    const struct clock *clock = clock_system();
    struct asking asking = {.status = DNS_TIMED_OUT};
    struct dns_question question = {.type = DNS_A, .on_answer = on_answer, .user = &asking};
    (void)snprintf(question.name, sizeof(question.name), "%s", QUESTION);
    struct mono_time now = clock_mono(clock);
    struct mono_time end = mono_add_ms(now, QUESTION_END_MS);
    source->ask(source, &question);
    while (mono_before(now, end)) {
        struct mono_time next = source->step(source, now);
        if (asking.is_answered) {
            break;
        }
        source->wait(source, now, mono_earlier(next, end));
        now = clock_mono(clock);
    }
    if (asking.status == DNS_FAILED || asking.status == DNS_TIMED_OUT) {
        const char *servers = findings->config->dns_servers;
        writer_put_format(findings->warnings,
                          "dns: servers \"%s\": %s (A of %s): mail that goes by DNS waits until "
                          "they do; look at the resolver, or set dns { servers }\n",
                          servers != NULL ? servers : "of resolv.conf",
                          asking.status == DNS_FAILED ? "fail or refuse to answer"
                                                      : "do not answer in time",
                          QUESTION);
    }
}

static void check_dns(const struct findings *findings)
{
    const struct config *config = findings->config;
    int error = 0;
    struct dns_source *source = dns_ares_create(config->dns_servers, QUESTION_MS, 1, NULL, &error);
    if (source == NULL) {
        writer_put_format(findings->errors,
                          "dns: servers \"%s\" cannot be used: %s; write addresses, such as "
                          "\"127.0.0.1:53,[::1]\"\n",
                          config->dns_servers != NULL ? config->dns_servers : "of resolv.conf",
                          strerror(-error));
        return;
    }
    if (is_dns_wanted(config)) {
        ask_one(findings, source);
    }
    source->destroy(source);
}

static void on_no_event(void *context, const struct net_event *event)
{
    (void)context;
    (void)event;
}

static void check_rings(const struct findings *findings)
{
    static const char REMEDY[] =
        "it takes Linux 6.1 or newer, sysctl kernel.io_uring_disabled = 0, "
        "and a container whose seccomp rules allow it";
    int error = 0;
    const struct net_config net = {
        .conns_max = 1,
        .clock = clock_system(),
        .on_event = on_no_event,
    };
    struct net_loop *loop = net_uring_create(&net, &error);
    if (loop != NULL) {
        loop->ops->destroy(loop);
    } else {
        writer_put_format(findings->errors, "io_uring cannot be used: %s; %s\n", strerror(-error),
                          REMEDY);
    }
    struct disk *disk = disk_uring_create(NULL, &error);
    if (disk == NULL) {
        writer_put_format(findings->warnings,
                          "io_uring cannot be used for files: %s; plain calls are used\n",
                          strerror(-error));
    }
    disk_destroy(disk);
}

/* What a container or a unit may forbid, and the engine cannot do without. */
static void check_open(const struct findings *findings)
{
    int error = 0;
    struct disk *disk = disk_plain_create(NULL, &error);
    int fd = disk == NULL ? error : disk_open(disk, DISK_ROOT, "/", DISK_READONLY | DISK_DIRECTORY);
    if (fd == -ENOSYS || fd == -EPERM) {
        writer_put_format(findings->errors,
                          "openat2 cannot be used: %s; it takes a container whose seccomp rules "
                          "allow it, and a unit without RestrictSUIDSGID\n",
                          strerror(-fd));
    }
    if (fd >= 0) {
        disk_close(disk, fd);
    }
    disk_destroy(disk);
}

static void check_descriptors(const struct findings *findings)
{
    struct rlimit limit;
    rlim_t wanted = (rlim_t)findings->config->sessions_max + DESCRIPTORS_SPARE;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_max >= wanted) {
        return;
    }
    struct rlimit raised = {.rlim_cur = limit.rlim_cur, .rlim_max = wanted};
    if (setrlimit(RLIMIT_NOFILE, &raised) == 0) {
        (void)setrlimit(RLIMIT_NOFILE, &limit);
        return;
    }
    writer_put_format(
        findings->warnings,
        "limits: %u sessions want %llu file descriptors, this user gets %llu: further "
        "connections would fail; set LimitNOFILE in the unit (or ulimit -n), or "
        "fewer sessions\n",
        findings->config->sessions_max, (unsigned long long)wanted,
        (unsigned long long)limit.rlim_max);
}

static void check_cores(const struct findings *findings)
{
    const struct config *config = findings->config;
    long online = sysconf(_SC_NPROCESSORS_ONLN);
    long there = sysconf(_SC_NPROCESSORS_CONF);
    if (online > 0 && config->workers_count > (uint32_t)online) {
        writer_put_format(findings->warnings,
                          "node: %u workers share %ld cores: more workers than cores are slower\n",
                          config->workers_count, online);
    }
    if (config->sessions_max < config->workers_count) {
        writer_put_format(findings->warnings,
                          "limits: %u sessions are fewer than the %u workers, of which each opens "
                          "one at least: set node { workers } lower, or more sessions\n",
                          config->sessions_max, config->workers_count);
    }
    for (uint32_t i = 0; i < config->workers_count && there > 0; i++) {
        if (config->cores[i] >= there) {
            writer_put_format(findings->warnings,
                              "node: worker %u cannot be pinned: there is no core %d\n", i,
                              config->cores[i]);
        }
    }
}

static void check_memory(const struct findings *findings)
{
    const struct config *config = findings->config;
    long pages = sysconf(_SC_PHYS_PAGES);
    long page_size = sysconf(_SC_PAGESIZE);
    if (pages <= 0 || page_size <= 0) {
        return;
    }
    uint64_t memory = (uint64_t)pages * (uint64_t)page_size;
    uint64_t wanted = config->recipients_max * (uint64_t)sizeof(struct recipient) +
                      config->domains_max * (uint64_t)DOMAIN_BYTES + config->readahead_bytes_max;
    if (wanted > memory / 10 * 8) {
        writer_put_format(findings->warnings,
                          "limits: recipients, domains and read-ahead can take %llu MiB of the "
                          "machine's %llu MiB: lower them, or the system may end the engine\n",
                          (unsigned long long)(wanted >> 20), (unsigned long long)(memory >> 20));
    }
}

static void check_routes(const struct findings *findings)
{
    const struct config *config = findings->config;
    for (uint32_t i = 0; i < config->routes_count; i++) {
        const struct config_route *route = &config->routes[i];
        if (route->connections_max > config->sessions_max) {
            writer_put_format(findings->warnings,
                              "route %s: %u connections, but limits { sessions } allows %u in "
                              "all\n",
                              route->pattern, route->connections_max, config->sessions_max);
        }
        if (route->connection_idle_ms > 60000) {
            writer_put_format(findings->warnings,
                              "route %s: connections idle for %u s: servers and firewalls drop "
                              "them earlier\n",
                              route->pattern, route->connection_idle_ms / 1000);
        }
    }
}

void check_environment(const struct config *config, struct writer *ret_errors,
                       struct writer *ret_warnings)
{
    const struct findings findings = {config, ret_errors, ret_warnings};
    check_paths(&findings);
    check_space(&findings);
    check_metrics(&findings);
    check_sources(&findings);
    check_dns(&findings);
    check_rings(&findings);
    check_open(&findings);
    check_descriptors(&findings);
    check_cores(&findings);
    check_memory(&findings);
    check_routes(&findings);
}
