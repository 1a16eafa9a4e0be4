/* SPDX-License-Identifier: MIT */
/*
 * What the files of uffd/ know of each other, and nobody outside: the memory of a block, the two
 * ways of placing as tables of functions, the walk over a range by one placing call, opening and
 * its gates.
 */
#ifndef UFFD_MEMORY_H
#define UFFD_MEMORY_H

#include "uffd/uffd.h"

#define TARGET_PAGE_BYTES 4096u
#define THP_BYTES         (2u << 20)
#define RUN_PAGES         64u

struct Uffd {
    int fd;
    uint64_t features;
};

typedef struct UffdWay UffdWay;

typedef struct UffdRange {
    uint64_t offset;
    uint64_t length;
} UffdRange;

struct UffdMemory {
    /* Set up before any other thread knows the memory. */
    UffdLayout layout;
    const UffdWay *way;
    uint8_t *guest;       /* layout.host_address */
    uint8_t *alias;       /* alias way, from empty on; else NULL */
    uint8_t *zeros;       /* hugetlb: page_bytes of them; else NULL */
    uint64_t count_pages; /* of page_bytes */
    bool no_thp;          /* we forbade THP and owe it back */
    bool thp;             /* the memfd gets 2 MiB pages */
    int uffd;             /* not ours; -1 before the first register */
    GArray *ranges;       /* of UffdRange: what is registered */

    /* Shared by the placing threads, bit by bit. */
    uint64_t *stored;  /* alias way: may hold bytes other than zero, or warm; copy way: present */
    uint64_t *visible; /* alias way: the guest may have written since, the alias is off limits */
};

/* Chosen once, in uffd_memory_new(); nothing on the walk asks again. */
struct UffdWay {
    uint64_t register_mode;
    uint64_t extent_bytes;  /* see uffd_memory_extent_bytes(); 0: the page size */
    uint64_t needed_ioctls; /* 1 << _UFFDIO_*, for memory of 4096-byte pages */
    bool (*empty)(UffdMemory *memory, GError **error);
    bool (*warm)(UffdMemory *memory, uint64_t offset, uint64_t length); /* NULL: not worth it */
    void (*store)(UffdMemory *memory, uint64_t offset, const void *bytes);
    void *(*receive_address)(UffdMemory *memory, uint64_t offset, uint64_t length);
    bool (*discard)(UffdMemory *memory, uint64_t offset, uint64_t length, GError **error);
    bool (*zap)(UffdMemory *memory, GError **error);
    UffdResult (*place)(UffdMemory *memory, uint64_t offset, uint64_t length, const void *bytes);
    UffdResult (*place_received)(UffdMemory *memory, uint64_t offset, uint64_t length);
    /* A page of a run comes; stage has room for it, bytes NULL: zeros. */
    void (*gather)(UffdMemory *memory, uint64_t offset, const void *bytes, uint8_t *stage);
    /* The run ends; bit i of zeros: its page i came as zeros. */
    UffdResult (*place_run)(UffdMemory *memory, uint64_t offset, uint64_t length,
                            const uint8_t *stage, uint64_t zeros);
    void (*give_thp_back)(UffdMemory *memory);
};

extern const UffdWay uffd_way_alias;
extern const UffdWay uffd_way_copy;

/* For memory whose alias way the kernel lacks, and for tests of that case: before empty. */
void uffd_memory_use_copy_way(UffdMemory *memory);

/* Drops the content of a range: mapping and file. */
bool uffd_memory_drop(UffdMemory *memory, uint64_t offset, uint64_t length, GError **error);
/* Unmaps a range, locked or not. False: errno says why. */
bool uffd_memory_unmap(UffdMemory *memory, uint64_t offset, uint64_t length);

/* ---- Placing: one call, one walk ------------------------------------------------------------- */

/* One placing ioctl. Returns 0 or an errno; *ret_done: bytes done in either case. */
typedef int (*UffdCall)(int uffd, uintptr_t address, uint64_t length, const void *bytes,
                        uint64_t *ret_done);
int uffd_call_copy(int uffd, uintptr_t address, uint64_t length, const void *bytes,
                   uint64_t *ret_done);
int uffd_call_zeropage(int uffd, uintptr_t address, uint64_t length, const void *bytes,
                       uint64_t *ret_done);
int uffd_call_continue(int uffd, uintptr_t address, uint64_t length, const void *bytes,
                       uint64_t *ret_done);

/* Places a range by call; a single page that it finds there, or finds to be a hole, by other (NULL:
 * such a page is there). Wakes who waits. PLACED: at least one page was not there before. */
UffdResult uffd_walk(UffdMemory *memory, UffdCall call, UffdCall other, uint64_t offset,
                     uint64_t length, const void *bytes);
void uffd_wake(UffdMemory *memory, uint64_t offset, uint64_t length);
/* Of two parts of a range: GONE and FAILED win, then PLACED. */
UffdResult uffd_result_join(UffdResult one, UffdResult two);
/* Forgets this thread's error text if it is of this memory. */
void uffd_forget_error(const UffdMemory *memory);

/* ---- Opening --------------------------------------------------------------------------------- */

/* A new userfaultfd with those of the wanted features that the kernel has; -1: error. */
int uffd_descriptor_open(uint64_t wanted, uint64_t *ret_features, GError **error);

/* A raw descriptor by the first gate that is open; -1: error, with all of them in it. */
int uffd_gate_open(GError **error);

#define UFFD_GATES 3

typedef struct UffdGate {
    const char *name;
    const char *tried;
    bool is_open;
    char *reason; /* NULL: open */
    char *remedy; /* a sentence without its stop; NULL: open */
} UffdGate;

/* Tries each by itself. */
void uffd_gates_try(UffdGate gates[UFFD_GATES]);
void uffd_gates_clear(UffdGate gates[UFFD_GATES]);

/* The words for a feature that is not there: reason. Remedy. */
char *uffd_feature_lack(const UffdFeatureRow *row);

/* A number of /proc/self/status; 0 when it is not told. */
uint64_t uffd_process_status(const char *field, int base);

/* "what: reason of errno". False always. */
bool uffd_fail(GError **error, UffdErrorCode code, int error_number, const char *format, ...)
    G_GNUC_PRINTF(4, 5);

#endif
