/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/control_http.h"

#include <arpa/inet.h>
#include <errno.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <microhttpd.h>

_Static_assert(sizeof(((struct control_http *)0)->path) ==
                   sizeof(((struct sockaddr_un *)0)->sun_path),
               "a path that can be bound has room");

/* Connections: whoever was silent longest goes for a new one. */

static void silent_longest_close(struct control_http *http)
{
    for (struct list *link = http->open.next; link != &http->open; link = link->next) {
        struct control_peer *peer = CONTAINER_OF(link, struct control_peer, link);
        if (!peer->is_closed) {
            peer->is_closed = true;
            http->open_count--;
            (void)shutdown(peer->fd, SHUT_RDWR); /* the library sees its end, and closes it */
            return;
        }
    }
    ensure(false);
}

static void on_connection(void *context, struct MHD_Connection *connection, void **socket_context,
                          enum MHD_ConnectionNotificationCode code)
{
    struct control_http *http = context;
    if (code == MHD_CONNECTION_NOTIFY_STARTED) {
        const union MHD_ConnectionInfo *info =
            MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
        struct list *link = list_take_first(&http->free);
        ensure(link != NULL); /* the library takes no more connections than there are */
        struct control_peer *peer = CONTAINER_OF(link, struct control_peer, link);
        *peer = (struct control_peer){.fd = info->connect_fd};
        list_init(&peer->link);
        list_add_last(&http->open, &peer->link);
        *socket_context = peer;
        if (++http->open_count > CONTROL_CONNECTIONS_MAX) {
            silent_longest_close(http);
        }
        return;
    }
    struct control_peer *peer = *socket_context;
    http->open_count -= peer->is_closed ? 0 : 1;
    peer->fd = -1;
    list_remove(&peer->link);
    list_add_last(&http->free, &peer->link);
}

static enum MHD_Result on_request(void *context, struct MHD_Connection *connection, const char *url,
                                  const char *method, const char *version, const char *upload,
                                  size_t *upload_size, void **request)
{
    static const char SEEN;
    (void)version;
    (void)upload;
    if (*request == NULL) {
        *request = (void *)(uintptr_t)&SEEN; /* an answer to the bare header ends the connection */
        return MHD_YES;
    }
    if (*upload_size > 0) {
        *upload_size = 0; /* nothing that is sent along is wanted */
        return MHD_YES;
    }
    struct control_http *http = context;
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    struct control_peer *peer = info->socket_context;
    list_remove(&peer->link);
    list_add_last(&http->open, &peer->link);
    struct control_reply reply =
        http->answer(http->context, span_of_text(method), span_of_text(url));
    struct MHD_Response *response = MHD_create_response_from_buffer(
        reply.body.size, (void *)(uintptr_t)reply.body.at, MHD_RESPMEM_MUST_COPY);
    if (response == NULL) {
        return MHD_NO;
    }
    (void)MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, reply.type);
    enum MHD_Result result = MHD_queue_response(connection, reply.status, response);
    MHD_destroy_response(response);
    return result;
}

void control_http_init(struct control_http *http,
                       struct control_reply (*answer)(void *, struct span, struct span),
                       void *context)
{
    *http = (struct control_http){.answer = answer, .context = context};
    list_init(&http->open);
    list_init(&http->free);
    for (size_t i = 0; i < COUNT_OF(http->peers); i++) {
        http->peers[i].fd = -1;
        list_init(&http->peers[i].link);
        list_add_last(&http->free, &http->peers[i].link);
    }
}

static bool begin(struct control_http *http, int fd)
{
    http->daemon =
        MHD_start_daemon(MHD_USE_EPOLL, 0, NULL, NULL, on_request, http, MHD_OPTION_LISTEN_SOCKET,
                         fd, MHD_OPTION_CONNECTION_LIMIT, (unsigned)COUNT_OF(http->peers),
                         MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)CONTROL_SILENCE_S,
                         MHD_OPTION_NOTIFY_CONNECTION, on_connection, http, MHD_OPTION_END);
    return http->daemon != NULL;
}

/* Where to listen. */

static int refuse(struct writer *errors, const char *what, const char *which, int error)
{
    writer_put_format(errors, "control: %s %s: %s\n", what, which, strerror(error));
    return -error;
}

/* What lies at the path is removed when it is the socket of an engine that is gone, and nothing
 * else. */
static int make_way(const struct sockaddr_un *address, struct writer *ret_errors)
{
    struct stat stat;
    const char *path = address->sun_path;
    if (lstat(path, &stat) != 0) {
        return errno == ENOENT ? 0 : refuse(ret_errors, "socket", path, errno);
    }
    if (!S_ISSOCK(stat.st_mode)) {
        writer_put_format(ret_errors,
                          "control: socket %s: there is something that is no socket, and it is "
                          "left alone: give control { socket } a path of its own, or move that "
                          "away\n",
                          path);
        return -EEXIST;
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return refuse(ret_errors, "socket", path, errno);
    }
    int error = connect(fd, (const struct sockaddr *)address, sizeof(*address)) == 0 ? 0 : errno;
    (void)close(fd);
    if (error == ECONNREFUSED) {
        return unlink(path) == 0 ? 0 : refuse(ret_errors, "socket", path, errno);
    }
    if (error == ENOENT) {
        return 0;
    }
    if (error != 0 && error != EAGAIN && error != EPROTOTYPE) {
        return refuse(ret_errors, "socket", path, error);
    }
    writer_put_format(ret_errors,
                      "control: socket %s: another program listens there: give control { socket } "
                      "of each engine a path of its own, or stop that one\n",
                      path);
    return -EADDRINUSE;
}

int control_http_open_path(struct control_http *http, const char *path, struct writer *ret_errors)
{
    ensure(http->daemon == NULL);
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof(address.sun_path)) {
        return refuse(ret_errors, "socket", path, ENAMETOOLONG);
    }
    memcpy(address.sun_path, path, strlen(path) + 1);
    int result = make_way(&address, ret_errors);
    if (result != 0) {
        return result;
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) {
        return refuse(ret_errors, "socket", path, errno);
    }
    struct stat stat;
    if (bind(fd, (struct sockaddr *)&address, sizeof(address)) != 0 || chmod(path, 0660) != 0 ||
        lstat(path, &stat) != 0 || listen(fd, CONTROL_CONNECTIONS_MAX) != 0) {
        int error = errno;
        (void)close(fd);
        return refuse(ret_errors, "socket", path, error);
    }
    memcpy(http->path, path, strlen(path) + 1);
    http->device = stat.st_dev;
    http->inode = stat.st_ino;
    if (!begin(http, fd)) {
        (void)close(fd);
        return refuse(ret_errors, "HTTP on", path, EIO);
    }
    return 0;
}

static socklen_t put_sockaddr(const struct net_addr *addr, struct sockaddr_storage *ret_storage)
{
    memset(ret_storage, 0, sizeof(*ret_storage));
    if (addr->family == NET_IP4) {
        struct sockaddr_in *ip4 = (struct sockaddr_in *)ret_storage;
        ip4->sin_family = AF_INET;
        ip4->sin_port = htons(addr->port);
        memcpy(&ip4->sin_addr, addr->bytes, sizeof(ip4->sin_addr));
        return sizeof(*ip4);
    }
    struct sockaddr_in6 *ip6 = (struct sockaddr_in6 *)ret_storage;
    ip6->sin6_family = AF_INET6;
    ip6->sin6_port = htons(addr->port);
    memcpy(&ip6->sin6_addr, addr->bytes, sizeof(ip6->sin6_addr));
    return sizeof(*ip6);
}

int control_http_open_addr(struct control_http *http, const struct net_addr *addr,
                           struct writer *ret_errors)
{
    ensure(http->daemon == NULL);
    struct sockaddr_storage storage;
    socklen_t size = put_sockaddr(addr, &storage);
    int fd = socket(storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int one = 1;
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) != 0 ||
        bind(fd, (struct sockaddr *)&storage, size) != 0 ||
        listen(fd, CONTROL_CONNECTIONS_MAX) != 0) {
        int error = errno;
        if (fd >= 0) {
            (void)close(fd);
        }
        char name[NET_ADDR_TEXT_MAX + 1];
        struct writer writer = writer_of(name, sizeof(name) - 1);
        net_addr_put(&writer, addr);
        *writer.at = '\0';
        writer_put_format(ret_errors, "control: metrics: cannot listen at %s: %s\n", name,
                          strerror(error));
        return -error;
    }
    if (!begin(http, fd)) {
        (void)close(fd);
        return refuse(ret_errors, "metrics", "HTTP", EIO);
    }
    return 0;
}

static void path_remove(struct control_http *http)
{
    struct stat stat;
    if (http->path[0] != '\0' && lstat(http->path, &stat) == 0 && stat.st_dev == http->device &&
        stat.st_ino == http->inode) {
        (void)unlink(http->path);
    }
    http->path[0] = '\0';
}

void control_http_close(struct control_http *http)
{
    if (http->daemon != NULL) {
        MHD_stop_daemon(http->daemon);
        http->daemon = NULL;
    }
    path_remove(http);
}

void control_http_run(struct control_http *http)
{
    if (http->daemon != NULL) {
        (void)MHD_run(http->daemon);
    }
}

int control_http_fd(const struct control_http *http)
{
    const union MHD_DaemonInfo *info =
        http->daemon == NULL ? NULL : MHD_get_daemon_info(http->daemon, MHD_DAEMON_INFO_EPOLL_FD);
    return info == NULL ? -1 : info->epoll_fd;
}
