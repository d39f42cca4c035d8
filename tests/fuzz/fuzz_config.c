/* SPDX-License-Identifier: Apache-2.0 */
/* The configuration file. */
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "engine/config.h"
#include "tests/fuzz/fuzz.h"

void fuzz_one(struct span input)
{
    char path[32];
    char words[4096];
    int fd = memfd_create("config", MFD_CLOEXEC);
    ensure(fd >= 0);
    ensure(write(fd, input.at, input.size) == (ssize_t)input.size);
    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    struct writer errors = writer_of(words, sizeof(words));
    struct config *config = config_read(path, &errors);
    ensure((config == NULL) == (writer_size(&errors) > 0));
    if (config != NULL) {
        uint32_t index;
        ensure(config->sources_count > 0 && config->routes_count > 0);
        ensure(config_route_of(config, SPAN("example.org"), &index) != NULL);
        ensure(index < config->routes_count);
    }
    config_destroy(config);
    (void)close(fd);
}
