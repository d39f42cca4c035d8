/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/check_environment.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
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

/* 0, or the error that binding a socket to the address gives. */
static int try_bind(const struct net_addr *addr)
{
    union {
        struct sockaddr any;
        struct sockaddr_in ip4;
        struct sockaddr_in6 ip6;
    } name = {.any.sa_family = addr->family == NET_IP4 ? AF_INET : AF_INET6};
    socklen_t size = addr->family == NET_IP4 ? sizeof(name.ip4) : sizeof(name.ip6);
    if (addr->family == NET_IP4) {
        memcpy(&name.ip4.sin_addr, addr->bytes, sizeof(name.ip4.sin_addr));
    } else {
        memcpy(&name.ip6.sin6_addr, addr->bytes, sizeof(name.ip6.sin6_addr));
    }
    int fd = socket(name.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return errno;
    }
    int error = bind(fd, &name.any, size) == 0 ? 0 : errno;
    (void)close(fd);
    return error;
}

static void check_address(const struct findings *findings, const char *what, const char *name,
                          const struct net_addr *addr)
{
    char text[NET_ADDR_TEXT_MAX + 1];
    struct writer writer = writer_of(text, sizeof(text) - 1);
    if (addr->family == NET_NONE) {
        return;
    }
    int error = try_bind(addr);
    if (error != 0) {
        net_addr_put(&writer, addr);
        *writer.at = '\0';
        writer_put_format(
            findings->errors, "%s%s: %s: %s; ip address shows what there is\n", what, name, text,
            error == EADDRNOTAVAIL ? "is not on any interface of this machine" : strerror(error));
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
        check_address(findings, "source ", source->name, &source->address);
        if (strcmp(source->ehlo, config->hostname) != 0) {
            (void)snprintf(what, sizeof(what), "source %.200s", source->name);
            check_name(findings, what, source->ehlo);
        }
    }
    check_name(findings, "node", config->hostname);
    check_address(findings, "control: metrics", "", &config->metrics_listen);
    if (config->metrics_listen.family != NET_NONE &&
        !net_addr_is_loopback(&config->metrics_listen)) {
        writer_put_format(findings->warnings, "control: metrics can be read by anybody who reaches "
                                              "this address\n");
    }
}

static void check_dns(const struct findings *findings)
{
    const struct config *config = findings->config;
    int error = 0;
    struct dns_source *source = dns_ares_create(config->dns_servers, config->dns_timeout_ms,
                                                config->dns_tries, NULL, &error);
    if (source == NULL) {
        writer_put_format(findings->errors,
                          "dns: servers \"%s\" cannot be used: %s; write addresses, such as "
                          "\"127.0.0.1:53,[::1]\"\n",
                          config->dns_servers != NULL ? config->dns_servers : "of resolv.conf",
                          strerror(-error));
        return;
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
    check_sources(&findings);
    check_dns(&findings);
    check_rings(&findings);
    check_descriptors(&findings);
    check_cores(&findings);
    check_memory(&findings);
    check_routes(&findings);
}
