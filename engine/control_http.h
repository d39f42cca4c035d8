/* SPDX-License-Identifier: Apache-2.0 */
/*
 * control_http: a listening socket on which control answers HTTP: its UNIX socket, or the port of
 * its metrics.
 *
 * Owner: control, in its thread. Lives from open to close; the answers come from `answer`, at once.
 *
 * Bounds: CONTROL_CONNECTIONS_MAX connections. One more, and the one that was silent longest is
 * closed: whoever holds connections open keeps nobody else from being answered. A connection ends
 * after CONTROL_SILENCE_S without a word.
 *
 * Errors: open refuses what another has: a file that is no socket, a socket on which somebody
 * answers.
 */
#pragma once

#include <stdbool.h>

#include "engine/base/bytes.h"
#include "engine/base/list.h"
#include "net/addr.h"

enum { CONTROL_CONNECTIONS_MAX = 64, CONTROL_SILENCE_S = 10 };

struct control_reply {
    unsigned status;
    const char *type;
    struct span body; /* copied at once */
};

struct control_peer {
    struct list link;
    int fd;         /* -1: of nobody */
    bool is_closed; /* by us: its end is under way */
};

struct control_http {
    struct MHD_Daemon *daemon; /* NULL: not open */
    struct control_reply (*answer)(void *context, struct span method, struct span url);
    void *context;
    char path[108]; /* of the UNIX socket; "" */
    uint64_t device, inode;
    uint32_t open_count;
    struct list open; /* the one that was silent longest in front */
    struct list free;
    struct control_peer peers[2 * CONTROL_CONNECTIONS_MAX]; /* those whose end is under way too */
};

/* `context` goes to each `answer`. */
void control_http_init(struct control_http *http,
                       struct control_reply (*answer)(void *, struct span, struct span),
                       void *context);
/* 0 or -errno, with file, reason and remedy in ret_errors. */
int control_http_open_path(struct control_http *http, const char *path, struct writer *ret_errors)
    __attribute__((warn_unused_result));
int control_http_open_addr(struct control_http *http, const struct net_addr *addr,
                           struct writer *ret_errors) __attribute__((warn_unused_result));
/* Safe when it is not open. The UNIX socket is removed if it is still this one. */
void control_http_close(struct control_http *http);
/* What has come in meanwhile is answered; nothing when it is not open. */
void control_http_run(struct control_http *http);
/* For poll; -1: it is not open. */
int control_http_fd(const struct control_http *http);
