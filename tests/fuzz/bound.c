/* SPDX-License-Identifier: MIT */
/*
 * Live bytes of the process, counted where they are allocated: a program that goes beyond the bound
 * is stopped in the call that does, so that the stack says who.
 *
 * With a sanitizer's allocator its hooks count; without one the C library's functions are defined
 * here, around its own. Any thread.
 */
#include "tests/fuzz/fuzz.h"

#include <errno.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define HAS_HOOKS 1
#endif
#elif defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define HAS_HOOKS 1
#endif

/* atomic */
static int64_t live, base, peak, limit = INT64_MAX;

static int64_t
load(const int64_t *number)
{
    return __atomic_load_n(number, __ATOMIC_RELAXED);
}

static void
store(int64_t *number, int64_t value)
{
    __atomic_store_n(number, value, __ATOMIC_RELAXED);
}

static void
stop(int64_t count, size_t last)
{
    char text[160];
    int64_t bound = load(&limit);
    store(&limit, INT64_MAX); /* reporting allocates too */
    int length =
        snprintf(text, sizeof text,
                 "bound: %lld bytes are live, the last %zu of them by this call; the bound "
                 "is %lld\n",
                 (long long)count, last, (long long)bound);
    if (write(STDERR_FILENO, text, (size_t)length) < 0)
        _exit(2);
    abort();
}

static void
count_in(size_t length)
{
    int64_t now = __atomic_add_fetch(&live, (int64_t)length, __ATOMIC_RELAXED) - load(&base);
    if (now > load(&peak))
        store(&peak, now);
    if (now > load(&limit))
        stop(now, length);
}

static void
count_out(size_t length)
{
    __atomic_sub_fetch(&live, (int64_t)length, __ATOMIC_RELAXED);
}

void
bound_begin(size_t limit_bytes)
{
    store(&base, load(&live));
    store(&peak, 0);
    store(&limit, (int64_t)limit_bytes);
}

void
bound_end(void)
{
    store(&limit, INT64_MAX);
}

size_t
bound_peak(void)
{
    return (size_t)load(&peak);
}

#ifdef HAS_HOOKS

/* As in <sanitizer/allocator_interface.h>, which clang installs and Debian's gcc does not. */
extern int __sanitizer_install_malloc_and_free_hooks(void (*made)(const volatile void *, size_t),
                                                     void (*gone)(const volatile void *));
extern size_t __sanitizer_get_allocated_size(const volatile void *bytes);

static void
made(const volatile void *bytes, size_t length)
{
    (void)bytes;
    count_in(length);
}

static void
gone(const volatile void *bytes)
{
    if (bytes)
        count_out(__sanitizer_get_allocated_size(bytes));
}

__attribute__((constructor)) static void
install(void)
{
    if (!__sanitizer_install_malloc_and_free_hooks(made, gone))
        abort();
}

#else

/* The C library's own, under the names that it exports for this. */
extern void *__libc_malloc(size_t length);
extern void *__libc_calloc(size_t count, size_t length);
extern void *__libc_realloc(void *bytes, size_t length);
extern void *__libc_memalign(size_t alignment, size_t length);
extern void __libc_free(void *bytes);

#define SEEN __attribute__((visibility("default")))

static void *
counted(void *bytes)
{
    if (bytes)
        count_in(malloc_usable_size(bytes));
    return bytes;
}

SEEN void *
malloc(size_t length)
{
    return counted(__libc_malloc(length));
}

SEEN void *
calloc(size_t count, size_t length)
{
    return counted(__libc_calloc(count, length));
}

SEEN void *
realloc(void *bytes, size_t length)
{
    size_t before = bytes ? malloc_usable_size(bytes) : 0;
    void *moved = __libc_realloc(bytes, length);
    if (moved || length == 0)
        count_out(before);
    return counted(moved);
}

SEEN void *
memalign(size_t alignment, size_t length)
{
    return counted(__libc_memalign(alignment, length));
}

SEEN void *
aligned_alloc(size_t alignment, size_t length)
{
    return counted(__libc_memalign(alignment, length));
}

SEEN int
posix_memalign(void **ret_bytes, size_t alignment, size_t length)
{
    void *bytes = counted(__libc_memalign(alignment, length));
    if (!bytes)
        return ENOMEM;
    *ret_bytes = bytes;
    return 0;
}

SEEN void
free(void *bytes)
{
    if (bytes)
        count_out(malloc_usable_size(bytes));
    __libc_free(bytes);
}

#endif
