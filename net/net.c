/* SPDX-License-Identifier: Apache-2.0 */
#include "net/net.h"

#include <assert.h>

static const char *const ERROR_NAMES[] = {
    [NET_OK] = "ok",           [NET_REFUSED] = "refused",         [NET_RESET] = "reset",
    [NET_TIMEOUT] = "timeout", [NET_UNREACHABLE] = "unreachable", [NET_NO_SOURCE] = "no source",
    [NET_NO_PORT] = "no port", [NET_FORBIDDEN] = "forbidden",     [NET_ABORTED] = "aborted",
    [NET_FAILED] = "failed",
};
static_assert(COUNT_OF(ERROR_NAMES) == NET_ERRORS_COUNT, "every error has a name");

const char *net_error_name(enum net_error error)
{
    ensure((unsigned)error < COUNT_OF(ERROR_NAMES));
    return ERROR_NAMES[error];
}

void net_loop_destroy(struct net_loop *loop)
{
    if (loop != NULL) {
        loop->ops->destroy(loop);
    }
}
