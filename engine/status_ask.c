/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/status_ask.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "engine/base/bytes.h"

enum { ANSWER_MAX = 1 << 20, PATIENCE_S = 10 };

/* One HTTP/1.0 question to the engine's own socket: the answer ends where the connection does. */
static int fetch(const char *path, const char *url, struct writer *ret_body)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof(address.sun_path)) {
        return -ENAMETOOLONG;
    }
    memcpy(address.sun_path, path, strlen(path) + 1);
    const struct timeval patience = {.tv_sec = PATIENCE_S};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&address, sizeof(address)) != 0) {
        int error = errno;
        if (fd >= 0) {
            (void)close(fd);
        }
        return -error;
    }
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    char request[256];
    struct writer writer = writer_of(request, sizeof(request));
    writer_put_format(&writer, "GET %s HTTP/1.0\r\nHost: ramjet\r\n\r\n", url);
    ssize_t size = send(fd, request, writer_size(&writer), MSG_NOSIGNAL);
    while (size > 0 && ret_body->at < ret_body->end) {
        size = recv(fd, ret_body->at, (size_t)(ret_body->end - ret_body->at), 0);
        ret_body->at += size > 0 ? size : 0;
    }
    int result = size < 0 ? -errno : 0;
    (void)close(fd);
    return result;
}

static json_t *parse_answer(struct span answer)
{
    const char *body = memmem(answer.at, answer.size, "\r\n\r\n", 4);
    if (body == NULL) {
        return NULL;
    }
    body += 4;
    json_error_t error;
    return json_loadb(body, answer.size - (size_t)(body - answer.at), 0, &error);
}

int status_ask(const char *path, json_t **ret_status)
{
    char *memory = malloc(ANSWER_MAX);
    if (memory == NULL) {
        return -ENOMEM;
    }
    struct writer answer = writer_of(memory, ANSWER_MAX);
    int result = fetch(path, "/v1/status", &answer);
    json_t *status = result == 0 ? parse_answer(writer_span(&answer)) : NULL;
    free(memory);
    if (status == NULL) {
        return result != 0 ? result : -EPROTO;
    }
    *ret_status = status;
    return 0;
}
