/* A device: where big buffers live and work is queued. The CPU is one device, a GPU another.
 *
 * Rooms above hold a `const struct device *` and call through its table. On the CPU a stream does everything at
 * once and an event is always over. On a GPU copies and kernels are queued: what comes of them is there after
 * stream_wait, and what they read must lie still until then. Of the host's memory only that of host_alloc is copied
 * beside computing.
 */
#ifndef LONGHAUL_BASE_DEVICE_H
#define LONGHAUL_BASE_DEVICE_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

struct device_stream; /* opaque: a queue of work in order */
struct device_event;  /* opaque: a place in a queue */

enum device_copy { DEVICE_FROM_HOST, DEVICE_TO_HOST, DEVICE_WITHIN };

struct device {
    const char *name;  /* "cpu", "cuda" */
    const char *model; /* what a user calls it: "NVIDIA H100 80GB HBM3" */
    const char *place; /* where it sits in its node: "0000:3b:00.0"; ranks that share a device have the same */
    bool host_visible; /* the host may read and write its memory directly */

    int (*count)(void); /* devices of its kind that this rank sees */

    /* Zeroed memory aligned to 64 bytes; NULL with ERROR_RESOURCE naming `what` and the bytes. */
    void *(*alloc)(size_t bytes, const char *what, struct error *err);
    void (*free)(void *memory);
    size_t (*memory_free)(void); /* bytes that can still be had now */
    /* The same in the host's memory, where the device copies from and to fastest. */
    void *(*host_alloc)(size_t bytes, const char *what, struct error *err);
    void (*host_free)(void *memory);

    int (*stream_create)(struct device_stream **out, struct error *err);
    void (*stream_free)(struct device_stream *stream);
    int (*stream_wait)(struct device_stream *stream, struct error *err);
    int (*copy)(void *to, const void *from, size_t bytes, enum device_copy direction, struct device_stream *stream,
                struct error *err);
    int (*event_create)(struct device_event **out, struct error *err);
    void (*event_free)(struct device_event *event);
    int (*event_record)(struct device_event *event, struct device_stream *stream, struct error *err);
    int (*event_query)(struct device_event *event, bool *over, struct error *err);
};

/* The CPU; always there. */
const struct device *device_cpu(void);

/* The GPU of this rank: of those that it sees the one of its node-local rank, beginning again at the first where
 * there are fewer. From then on this thread works with it. NULL with ERROR_RESOURCE where there is none, or one
 * below compute capability 8.0, and ERROR_USAGE in a program that was built without CUDA. */
const struct device *device_cuda(int node_rank, struct error *err);

/* Whether this machine has a driver for GPUs that a program built with CUDA could use, were it not too old. */
bool device_cuda_has_driver(void);

#endif
