/* SPDX-License-Identifier: Apache-2.0 */
/* The linker's --wrap for programs that let allocations of the engine fail (sim_memory.h). Under a
 * sanitizer the real functions are its own, so it sees each allocation as ever. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "tests/sim/sim_memory.h"

void *__real_mmap64(void *at, size_t size, int access, int flags, int fd, long offset);
void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *at, size_t size);
void *__real_aligned_alloc(size_t alignment, size_t size);
char *__real_strdup(const char *text);
char *__real_strndup(const char *text, size_t size);
void *__wrap_mmap64(void *at, size_t size, int access, int flags, int fd, long offset);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *at, size_t size);
void *__wrap_aligned_alloc(size_t alignment, size_t size);
char *__wrap_strdup(const char *text);
char *__wrap_strndup(const char *text, size_t size);

static bool is_denied(void)
{
    bool is = sim_memory_is_denied();
    errno = is ? ENOMEM : errno;
    return is;
}

void *__wrap_mmap64(void *at, size_t size, int access, int flags, int fd, long offset)
{
    return is_denied() ? MAP_FAILED : __real_mmap64(at, size, access, flags, fd, offset);
}

void *__wrap_malloc(size_t size)
{
    return is_denied() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
    return is_denied() ? NULL : __real_calloc(count, size);
}

void *__wrap_realloc(void *at, size_t size)
{
    return is_denied() ? NULL : __real_realloc(at, size);
}

void *__wrap_aligned_alloc(size_t alignment, size_t size)
{
    return is_denied() ? NULL : __real_aligned_alloc(alignment, size);
}

char *__wrap_strdup(const char *text)
{
    return is_denied() ? NULL : __real_strdup(text);
}

char *__wrap_strndup(const char *text, size_t size)
{
    return is_denied() ? NULL : __real_strndup(text, size);
}
