/* Arrays on the GPU for tests of CUDA code: main() returns gpu_tests(tests); a test takes its arrays with gpu_copy
 * and gpu_room, and all of them are given back with gpu_forget(). Include it behind cmocka.h. */
#ifndef LONGHAUL_TESTS_UNIT_ON_GPU_H
#define LONGHAUL_TESTS_UNIT_ON_GPU_H

#include <cuda_runtime_api.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/device.h"

enum { GPU_ARRAYS = 4096, GPU_SKIPPED = 77 };

static struct {
    const struct device *device;
    void *arrays[GPU_ARRAYS];
    int n;
    struct error err;
} on_gpu;

/* In place of a stream: the default one. */
static const cudaStream_t gpu_stream = NULL;

static inline void gpu_must(int status)
{
    if (status != 0)
        fail_msg("%s", on_gpu.err.text);
}

/* Zeros. */
static inline void *gpu_room(size_t bytes)
{
    void *room = on_gpu.device->alloc(bytes, "a test", &on_gpu.err);
    if (!room || on_gpu.n == GPU_ARRAYS)
        fail_msg("%s", on_gpu.err.text);
    return on_gpu.arrays[on_gpu.n++] = room;
}

static inline void *gpu_copy(const void *from, size_t bytes)
{
    void *copy = gpu_room(bytes);
    gpu_must(on_gpu.device->copy(copy, from, bytes, DEVICE_FROM_HOST, NULL, &on_gpu.err));
    return copy;
}

/* What is at `from` once all that is queued is over. */
static inline void gpu_fetch(void *to, const void *from, size_t bytes)
{
    gpu_must(on_gpu.device->copy(to, from, bytes, DEVICE_TO_HOST, NULL, &on_gpu.err));
    gpu_must(on_gpu.device->stream_wait(NULL, &on_gpu.err));
}

static inline void gpu_forget(void)
{
    while (on_gpu.n > 0)
        on_gpu.device->free(on_gpu.arrays[--on_gpu.n]);
}

/* False, with the reason on standard error, where there is no GPU. */
static inline bool gpu_there(void)
{
    on_gpu.device = device_cuda(0, &on_gpu.err);
    if (!on_gpu.device)
        fprintf(stderr, "skipped: %s\n", on_gpu.err.text);
    return on_gpu.device != NULL;
}

#define gpu_tests(tests) (gpu_there() ? cmocka_run_group_tests(tests, NULL, NULL) : GPU_SKIPPED)

#endif
