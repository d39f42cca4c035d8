/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/sim_pages.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "engine/base/ensure.h"

void *__real_mmap64(void *at, size_t size, int access, int flags, int fd, long offset);
int __real_munmap(void *at, size_t size);
void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *at, size_t size);
void __real_free(void *at);
void *__wrap_mmap64(void *at, size_t size, int access, int flags, int fd, long offset);
int __wrap_munmap(void *at, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *at, size_t size);
void __wrap_free(void *at);

enum { PAGE = 4096, HEAD = 64 };

/* In front of what malloc and calloc have given. */
struct head {
    size_t size;
};

static struct {
    char *range; /* NULL: not asked for yet */
    bool is_refused;
    size_t used;
    size_t out_count;
} pages;

size_t sim_pages_used(void)
{
    return pages.used;
}

static bool is_ours(const void *at)
{
    uintptr_t address = (uintptr_t)at;
    uintptr_t range = (uintptr_t)pages.range;
    return pages.range != NULL && address >= range && address - range < SIM_PAGES_RANGE;
}

/* Whole pages, zero; NULL: none are left. */
static char *take(size_t size)
{
    if (pages.range == NULL && !pages.is_refused) {
        void *range = __real_mmap64(NULL, SIM_PAGES_RANGE, PROT_READ | PROT_WRITE,
                                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        pages.is_refused = range == MAP_FAILED;
        pages.range = pages.is_refused ? NULL : range;
    }
    size = (size + PAGE - 1) & ~(size_t)(PAGE - 1);
    if (pages.range == NULL || size > SIM_PAGES_RANGE - pages.used) {
        return NULL;
    }
    char *at = pages.range + pages.used;
    pages.used += size;
    pages.out_count++;
    return at;
}

static void give(void)
{
    ensure(pages.out_count > 0);
    if (--pages.out_count == 0) {
        ensure(madvise(pages.range, pages.used, MADV_DONTNEED) == 0);
        pages.used = 0;
    }
}

void *__wrap_mmap64(void *at, size_t size, int access, int flags, int fd, long offset)
{
    bool is_plain = at == NULL && fd < 0 && (flags & MAP_ANONYMOUS) != 0 &&
                    (flags & MAP_SHARED) == 0 && access == (PROT_READ | PROT_WRITE);
    char *taken = is_plain ? take(size) : NULL;
    return taken != NULL ? taken : __real_mmap64(at, size, access, flags, fd, offset);
}

int __wrap_munmap(void *at, size_t size)
{
    if (!is_ours(at)) {
        return __real_munmap(at, size);
    }
    give();
    return 0;
}

/* NULL: small, or there is no room. */
static void *allocate(size_t size)
{
    char *taken = size < SIM_PAGES_SIZE ? NULL : take(size + HEAD);
    if (taken == NULL) {
        return NULL;
    }
    ((struct head *)(void *)taken)->size = size;
    return taken + HEAD;
}

void *__wrap_malloc(size_t size)
{
    void *at = allocate(size);
    return at != NULL ? at : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
    size_t bytes;
    void *at = __builtin_mul_overflow(count, size, &bytes) ? NULL : allocate(bytes);
    return at != NULL ? at : __real_calloc(count, size);
}

void *__wrap_realloc(void *at, size_t size)
{
    if (at == NULL || !is_ours(at)) {
        return __real_realloc(at, size);
    }
    const struct head *head = (const struct head *)(const void *)((char *)at - HEAD);
    void *moved = __wrap_malloc(size);
    if (moved != NULL) {
        memcpy(moved, at, head->size < size ? head->size : size);
        give();
    }
    return moved;
}

void __wrap_free(void *at)
{
    if (at != NULL && is_ours(at)) {
        give();
    } else {
        __real_free(at);
    }
}
