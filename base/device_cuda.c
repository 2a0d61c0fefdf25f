#include "base/device.h"

#include <cuda_runtime_api.h>
#include <string.h>

#include "base/gpu.h"

int gpu_check(cudaError_t code, const char *what, struct error *err)
{
    if (code == cudaSuccess)
        return 0;
    cudaGetLastError(); /* it is told here: no fault of the launches to come */
    return error_set(err, code == cudaErrorMemoryAllocation ? ERROR_RESOURCE : ERROR_CLUSTER, "%s: %s", what,
                     cudaGetErrorString(code));
}

int gpu_check_launch(const char *what, struct error *err)
{
    const cudaError_t code = cudaGetLastError();
    return gpu_check(code == cudaErrorNotReady ? cudaSuccess : code, what, err); /* that was an event's answer */
}

int gpu_multiprocessors(void)
{
    int device, n;
    const bool said = cudaGetDevice(&device) == cudaSuccess &&
                      cudaDeviceGetAttribute(&n, cudaDevAttrMultiProcessorCount, device) == cudaSuccess;
    return said ? n : 1;
}

int gpu_capability(void)
{
    int device, major, minor;
    if (cudaGetDevice(&device) != cudaSuccess ||
        cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) != cudaSuccess ||
        cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device) != cudaSuccess)
        return 0;
    return 10 * major + minor;
}

static int cuda_count(void)
{
    int devices = 0;
    return cudaGetDeviceCount(&devices) == cudaSuccess ? devices : 0;
}

/* ---- memory ---- */

static size_t cuda_memory_free(void)
{
    size_t unused = 0, all;
    return cudaMemGetInfo(&unused, &all) == cudaSuccess ? unused : 0;
}

static void *cuda_alloc(size_t bytes, const char *what, struct error *err)
{
    void *memory = NULL;
    cudaError_t code = cudaMalloc(&memory, bytes ? bytes : 1);
    if (code == cudaSuccess)
        code = cudaMemsetAsync(memory, 0, bytes, NULL);
    if (code == cudaSuccess)
        code = cudaStreamSynchronize(NULL);
    if (code == cudaSuccess)
        return memory;
    cudaGetLastError(); /* a refused allocation is no fault of the launches to come */
    cudaFree(memory);
    error_set(err, ERROR_RESOURCE, "no memory on the GPU for %s (%zu bytes; %zu are free): %s", what, bytes,
              cuda_memory_free(), cudaGetErrorString(code));
    return NULL;
}

static void cuda_free(void *memory)
{
    cudaFree(memory);
}

static void *cuda_host_alloc(size_t bytes, const char *what, struct error *err)
{
    void *memory = NULL;
    const cudaError_t code = cudaMallocHost(&memory, bytes ? bytes : 1);
    if (code == cudaSuccess)
        return memset(memory, 0, bytes);
    cudaGetLastError();
    error_set(err, ERROR_RESOURCE, "no pinned memory for %s (%zu bytes): %s", what, bytes,
              cudaGetErrorString(code));
    return NULL;
}

static void cuda_host_free(void *memory)
{
    if (memory)
        cudaFreeHost(memory);
}

/* ---- streams and events: ours are CUDA's ---- */

static cudaStream_t stream_of(struct device_stream *stream)
{
    return (cudaStream_t)stream;
}

static int cuda_stream_create(struct device_stream **out, struct error *err)
{
    return gpu_check(cudaStreamCreateWithFlags((cudaStream_t *)out, cudaStreamNonBlocking), "a stream of the GPU",
                     err);
}

static void cuda_stream_free(struct device_stream *stream)
{
    if (stream)
        cudaStreamDestroy(stream_of(stream));
}

static int cuda_stream_wait(struct device_stream *stream, struct error *err)
{
    return gpu_check(cudaStreamSynchronize(stream_of(stream)), "waiting for the GPU", err);
}

static int cuda_copy(void *to, const void *from, size_t bytes, enum device_copy direction,
                     struct device_stream *stream, struct error *err)
{
    static const enum cudaMemcpyKind kinds[] = {
        [DEVICE_FROM_HOST] = cudaMemcpyHostToDevice,
        [DEVICE_TO_HOST] = cudaMemcpyDeviceToHost,
        [DEVICE_WITHIN] = cudaMemcpyDeviceToDevice,
    };
    return bytes == 0 ? 0
                      : gpu_check(cudaMemcpyAsync(to, from, bytes, kinds[direction], stream_of(stream)),
                                  "copying to or from the GPU", err);
}

static int cuda_event_create(struct device_event **out, struct error *err)
{
    return gpu_check(cudaEventCreateWithFlags((cudaEvent_t *)out, cudaEventDisableTiming), "an event of the GPU",
                     err);
}

static void cuda_event_free(struct device_event *event)
{
    if (event)
        cudaEventDestroy((cudaEvent_t)event);
}

static int cuda_event_record(struct device_event *event, struct device_stream *stream, struct error *err)
{
    return gpu_check(cudaEventRecord((cudaEvent_t)event, stream_of(stream)), "an event of the GPU", err);
}

static int cuda_event_query(struct device_event *event, bool *over, struct error *err)
{
    const cudaError_t code = cudaEventQuery((cudaEvent_t)event);
    *over = code != cudaErrorNotReady;
    return *over ? gpu_check(code, "asking the GPU", err) : 0;
}

/* ---- choosing ---- */

/* Of compute capabilities, the first with bf16. */
enum { LEAST_MAJOR = 8 };

/* What the table below points to. */
static struct cudaDeviceProp properties;
static char place[32];

const struct device *device_cuda(int node_rank, struct error *err)
{
    static const struct device cuda = {
        .name = "cuda",
        .model = properties.name,
        .place = place,
        .host_visible = false,
        .count = cuda_count,
        .alloc = cuda_alloc,
        .free = cuda_free,
        .memory_free = cuda_memory_free,
        .host_alloc = cuda_host_alloc,
        .host_free = cuda_host_free,
        .stream_create = cuda_stream_create,
        .stream_free = cuda_stream_free,
        .stream_wait = cuda_stream_wait,
        .copy = cuda_copy,
        .event_create = cuda_event_create,
        .event_free = cuda_event_free,
        .event_record = cuda_event_record,
        .event_query = cuda_event_query,
    };
    const int devices = cuda_count();
    if (devices < 1) {
        const cudaError_t code = cudaGetLastError();
        error_set(err, ERROR_RESOURCE, "no GPU here: %s",
                  code == cudaSuccess ? "CUDA sees none" : cudaGetErrorString(code));
        return NULL;
    }
    if (gpu_check(cudaSetDevice(node_rank % devices), "taking a GPU", err) != 0 ||
        gpu_check(cudaGetDeviceProperties(&properties, node_rank % devices), "asking the GPU what it is", err) !=
            0 ||
        gpu_check(cudaDeviceGetPCIBusId(place, sizeof place, node_rank % devices), "asking the GPU where it is",
                  err) != 0)
        return NULL;
    if (properties.major < LEAST_MAJOR) {
        error_set(err, ERROR_RESOURCE, "no GPU here: %s is of compute capability %d.%d, and %d.0 is needed",
                  properties.name, properties.major, properties.minor, LEAST_MAJOR);
        return NULL;
    }
    return &cuda;
}

bool device_cuda_has_driver(void)
{
    int version = 0;
    return cudaDriverGetVersion(&version) == cudaSuccess && version > 0;
}
