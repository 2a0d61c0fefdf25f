/* How much memory this process can still take: what the machine has, and no more than its control group grants.
 *
 * Pages that only cache files count as free, since the kernel gives them up when they are wanted: a program that
 * has just read a large file has not used up the memory that this took.
 */
#ifndef LONGHAUL_BASE_FREE_MEMORY_H
#define LONGHAUL_BASE_FREE_MEMORY_H

#include <stddef.h>

/* In bytes. */
size_t free_memory(void);

/* Where Linux says so; free_memory's are its own, others are for tests. */
struct free_memory_source {
    const char *meminfo;        /* /proc/meminfo */
    const char *cgroup;         /* /proc/self/cgroup: the control groups of this process */
    const char *control_groups; /* /sys/fs/cgroup: the folder of all */
};

/* SIZE_MAX where the source says nothing. */
size_t free_memory_of(const struct free_memory_source *source);

#endif
