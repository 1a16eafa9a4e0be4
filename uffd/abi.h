/* SPDX-License-Identifier: MIT */
/*
 * The kernel's interface where the headers we build on are older than the kernels we run on: what
 * Linux 6.2 to 6.8 added to userfaultfd, PAGEMAP_SCAN, and advice values. Sizes and numbers are
 * proved below, so that a newer header that disagrees stops the build and not a guest. No code; all
 * of uffd/ includes userfaultfd's header through here.
 * Source: Documentation/admin-guide/mm/userfaultfd.rst and pagemap.rst of the kernel.
 */
#ifndef UFFD_ABI_H
#define UFFD_ABI_H

#include <assert.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/userfaultfd.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#ifndef UFFD_FEATURE_WP_UNPOPULATED
#define UFFD_FEATURE_WP_UNPOPULATED (1 << 13) /* 6.4 */
#endif
#ifndef UFFD_FEATURE_POISON
#define UFFD_FEATURE_POISON (1 << 14) /* 6.6 */
#endif
#ifndef UFFD_FEATURE_WP_ASYNC
#define UFFD_FEATURE_WP_ASYNC (1 << 15) /* 6.7 */
#endif
#ifndef UFFD_FEATURE_MOVE
#define UFFD_FEATURE_MOVE (1 << 16) /* 6.8 */
#endif
static_assert(UFFD_FEATURE_WP_UNPOPULATED == 1 << 13 && UFFD_FEATURE_POISON == 1 << 14 &&
                  UFFD_FEATURE_WP_ASYNC == 1 << 15 && UFFD_FEATURE_MOVE == 1 << 16,
              "userfaultfd feature bits");

#ifndef USERFAULTFD_IOC_NEW
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00) /* 6.1 */
#endif
static_assert(USERFAULTFD_IOC_NEW == 0xAA00, "USERFAULTFD_IOC_NEW");

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* 5.14 */
#endif
#ifndef MADV_DONTNEED_LOCKED
#define MADV_DONTNEED_LOCKED 24 /* 5.18 */
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 /* 6.1 */
#endif
static_assert(MADV_POPULATE_WRITE == 23 && MADV_DONTNEED_LOCKED == 24 && MADV_COLLAPSE == 25,
              "advice values");

#ifndef PAGEMAP_SCAN /* 6.7 */
#define PAGE_IS_WRITTEN       (1 << 1)
#define PM_SCAN_WP_MATCHING   (1 << 0)
#define PM_SCAN_CHECK_WPASYNC (1 << 1)

struct page_region {
    __u64 start;
    __u64 end;
    __u64 categories;
};

struct pm_scan_arg {
    __u64 size;
    __u64 flags;
    __u64 start;
    __u64 end;
    __u64 walk_end;
    __u64 vec;
    __u64 vec_len;
    __u64 max_pages;
    __u64 category_inverted;
    __u64 category_mask;
    __u64 category_anyof_mask;
    __u64 return_mask;
};

#define PAGEMAP_SCAN _IOWR('f', 16, struct pm_scan_arg)
#endif
static_assert(sizeof(struct page_region) == 24 && sizeof(struct pm_scan_arg) == 96, "pagemap scan");
static_assert(PAGE_IS_WRITTEN == 2 && PM_SCAN_WP_MATCHING == 1 && PM_SCAN_CHECK_WPASYNC == 2,
              "pagemap scan flags");

static_assert(sizeof(struct uffd_msg) == 32, "one fault is one message of 32 bytes");
static_assert(sizeof(struct uffdio_copy) == 40 && sizeof(struct uffdio_zeropage) == 32 &&
                  sizeof(struct uffdio_continue) == 32,
              "placing calls");
static_assert(UFFDIO_COPY == 0xc028aa03 && UFFDIO_ZEROPAGE == 0xc020aa04 &&
                  UFFDIO_CONTINUE == 0xc020aa07,
              "placing calls");

#endif
