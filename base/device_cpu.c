#include "base/device.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "base/free_memory.h"

enum { ALIGNMENT = 64 };

/* From here on memory comes in whole huge pages, where the kernel grants them: fewer TLB misses. */
static const size_t HUGE_PAGE = (size_t)2 << 20;

static void *cpu_alloc(size_t bytes, const char *what, struct error *err)
{
    size_t alignment = bytes >= HUGE_PAGE ? HUGE_PAGE : ALIGNMENT;
    void *memory = NULL;
    if (bytes > SIZE_MAX - alignment || posix_memalign(&memory, alignment, bytes ? bytes : ALIGNMENT) != 0) {
        error_set(err, ERROR_RESOURCE, "no memory for %s (%zu bytes)", what, bytes);
        return NULL;
    }
    if (alignment == HUGE_PAGE)
        madvise(memory, bytes, MADV_HUGEPAGE);
    return memset(memory, 0, bytes);
}

static int cpu_count(void)
{
    return 1;
}

static int cpu_stream_create(struct device_stream **out, struct error *err)
{
    (void)err;
    *out = NULL;
    return 0;
}

static void cpu_stream_free(struct device_stream *stream)
{
    (void)stream;
}

static int cpu_stream_wait(struct device_stream *stream, struct error *err)
{
    (void)stream, (void)err;
    return 0;
}

static int cpu_copy(void *to, const void *from, size_t bytes, enum device_copy direction,
                    struct device_stream *stream, struct error *err)
{
    (void)direction, (void)stream, (void)err;
    memcpy(to, from, bytes);
    return 0;
}

static int cpu_event_create(struct device_event **out, struct error *err)
{
    (void)err;
    *out = NULL;
    return 0;
}

static void cpu_event_free(struct device_event *event)
{
    (void)event;
}

static int cpu_event_record(struct device_event *event, struct device_stream *stream, struct error *err)
{
    (void)event, (void)stream, (void)err;
    return 0;
}

static int cpu_event_query(struct device_event *event, bool *over, struct error *err)
{
    (void)event, (void)err;
    *over = true;
    return 0;
}

const struct device *device_cpu(void)
{
    static const struct device cpu = {
        .name = "cpu",
        .model = "CPU",
        .place = "",
        .host_visible = true,
        .count = cpu_count,
        .alloc = cpu_alloc,
        .free = free,
        .memory_free = free_memory,
        .host_alloc = cpu_alloc,
        .host_free = free,
        .stream_create = cpu_stream_create,
        .stream_free = cpu_stream_free,
        .stream_wait = cpu_stream_wait,
        .copy = cpu_copy,
        .event_create = cpu_event_create,
        .event_free = cpu_event_free,
        .event_record = cpu_event_record,
        .event_query = cpu_event_query,
    };
    return &cpu;
}
