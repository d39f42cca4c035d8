/* SPDX-License-Identifier: Apache-2.0 */
/*
 * order: tells the thread sanitizer what liburcu orders: it is not built for it. ORDER_RELEASE
 * before something is published at an address, ORDER_ACQUIRE after it was found there; each use
 * names its partner. Nothing in any other build.
 */
#pragma once

#ifdef __SANITIZE_THREAD__
#define ORDER_IS_WATCHED
#elif defined(__has_feature) /* clang's way to say it */
#if __has_feature(thread_sanitizer)
#define ORDER_IS_WATCHED
#endif
#endif

#ifdef ORDER_IS_WATCHED
#include <sanitizer/tsan_interface.h>
#define ORDER_RELEASE(at) __tsan_release((void *)(at))
#define ORDER_ACQUIRE(at) __tsan_acquire((void *)(at))
#else
#define ORDER_RELEASE(at) ((void)0)
#define ORDER_ACQUIRE(at) ((void)0)
#endif
