/* The part of the CUDA runtime that the program calls, over memory of this machine.
 *
 * What is queued in a stream is done when it is waited for or asked after, in the order of the stream and no
 * sooner: so the host's pinned memory is read and written as late as it may be. Pageable memory is read at once,
 * and written before the call returns, as CUDA does it. The first look at an event finds it not over.
 *
 * The device's memory is one stretch of address space that is closed to the host but while a kernel or a copy is
 * under way: a host that reads or writes it ends with a segmentation fault, as it would with a GPU. SIMT_MEMORY
 * says how many bytes there are (2 GiB), SIMT_CAPABILITY which card it is (80), SIMT_MULTIPROCESSORS how many
 * blocks it has room for (2), SIMT_DEVICES how many cards a process sees (1), SIMT_PLACE where they all sit.
 */
#include "simt.h"
#include "tensor_map.h"

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <sys/mman.h>
#include <unistd.h>

static const size_t ALIGN = 512;

static size_t number_of(const char *name, size_t otherwise)
{
    const char *text = getenv(name);
    return text ? strtoull(text, nullptr, 10) : otherwise;
}

/* ---- memory ---- */

struct arena {
    char *start;
    size_t bytes, used;
    std::map<size_t, size_t> stretches; /* offset -> bytes, of what is allocated */
    int open;
};

static struct arena *make_arena()
{
    struct arena *made = new struct arena();
    made->bytes = number_of("SIMT_MEMORY", (size_t)2 << 30);
    made->start = (char *)mmap(nullptr, made->bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (made->start == MAP_FAILED)
        simt::wrong("no address space for the device's memory");
    return made;
}

static struct arena *arena()
{
    static struct arena *const only = make_arena();
    return only;
}

/* One thread of the host at a time has the device. */
static std::recursive_mutex turn;

void simt::device_opens()
{
    turn.lock();
    struct arena *a = arena();
    if (a->open++ == 0)
        mprotect(a->start, a->bytes, PROT_READ | PROT_WRITE);
}

void simt::device_closes()
{
    struct arena *a = arena();
    if (--a->open == 0)
        mprotect(a->start, a->bytes, PROT_NONE);
    turn.unlock();
}

static thread_local cudaError_t last = cudaSuccess;

static cudaError_t said(cudaError_t code)
{
    if (code != cudaSuccess)
        last = code;
    return code;
}

/* ---- streams ---- */

struct CUstream_st {
    std::deque<std::function<bool()>> queue;
};

static CUstream_st *stream_of(cudaStream_t stream)
{
    static CUstream_st *const standard = new CUstream_st();
    return stream ? stream : standard;
}

static std::set<CUstream_st *> &streams()
{
    static auto *const all = new std::set<CUstream_st *>{stream_of(nullptr)};
    return *all;
}

void simt::queue_until(cudaStream_t stream, std::function<bool()> work)
{
    const std::lock_guard<std::recursive_mutex> alone(turn);
    stream_of(stream)->queue.push_back(std::move(work));
}

void simt::queue(cudaStream_t stream, std::function<void()> work)
{
    queue_until(stream, [work = std::move(work)] {
        work();
        return true;
    });
}

/* Does what can be done now; true where there was something to do. */
static bool advance(CUstream_st *stream)
{
    const std::lock_guard<std::recursive_mutex> alone(turn);
    const bool busy = !stream->queue.empty();
    while (!stream->queue.empty()) {
        std::function<bool()> work = std::move(stream->queue.front());
        stream->queue.pop_front();
        if (!work()) {
            stream->queue.push_front(std::move(work));
            break;
        }
    }
    return busy;
}

static void finish(CUstream_st *stream)
{
    while (advance(stream) && !stream->queue.empty())
        usleep(100);
}

static void finish_all()
{
    const std::lock_guard<std::recursive_mutex> alone(turn);
    for (CUstream_st *stream : streams())
        finish(stream);
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *out, unsigned flags)
{
    const std::lock_guard<std::recursive_mutex> alone(turn);
    if (flags != cudaStreamNonBlocking)
        return said(cudaErrorNotSupported); /* the others wait for the default stream */
    streams().insert(*out = new CUstream_st());
    return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
    const std::lock_guard<std::recursive_mutex> alone(turn);
    finish(stream);
    streams().erase(stream);
    delete stream;
    return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
    finish(stream_of(stream));
    return cudaSuccess;
}

cudaError_t cudaStreamQuery(cudaStream_t stream)
{
    return advance(stream_of(stream)) ? said(cudaErrorNotReady) : cudaSuccess;
}

cudaError_t cudaDeviceSynchronize()
{
    finish_all();
    return cudaSuccess;
}

/* ---- events ---- */

/* One recording of an event. */
struct recording {
    CUstream_st *in;
    bool over;
    std::chrono::steady_clock::time_point when;
};

struct CUevent_st {
    std::shared_ptr<recording> last;
};

/* True where it was not over yet; it may be now. */
static bool advance(const std::shared_ptr<recording> &recording)
{
    const std::lock_guard<std::recursive_mutex> alone(turn);
    return recording && !recording->over && (advance(recording->in), true);
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *out, unsigned)
{
    *out = new CUevent_st();
    return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
    delete event;
    return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
    event->last = std::make_shared<recording>(recording{stream_of(stream), false, {}});
    simt::queue(stream, [now = event->last] {
        now->over = true;
        now->when = std::chrono::steady_clock::now();
    });
    return cudaSuccess;
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned)
{
    simt::queue_until(stream, [of = event->last] { return !advance(of) || of->over; });
    return cudaSuccess;
}

cudaError_t cudaEventQuery(cudaEvent_t event)
{
    return advance(event->last) ? said(cudaErrorNotReady) : cudaSuccess;
}

cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
    while (advance(event->last) && !event->last->over)
        usleep(100);
    return cudaSuccess;
}

cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t from, cudaEvent_t to)
{
    if (!from->last || !to->last || !from->last->over || !to->last->over)
        return said(cudaErrorNotReady);
    *milliseconds = std::chrono::duration<float, std::milli>(to->last->when - from->last->when).count();
    return cudaSuccess;
}

/* ---- allocating ---- */

cudaError_t cudaMalloc(void **out, size_t asked)
{
    const std::lock_guard<std::recursive_mutex> alone(turn);
    struct arena *a = arena();
    const size_t bytes = (asked + ALIGN - 1) / ALIGN * ALIGN;
    size_t at = 0;
    for (const auto &stretch : a->stretches) {
        if (stretch.first - at >= bytes)
            break;
        at = stretch.first + stretch.second;
    }
    if (asked == 0 || at + bytes > a->bytes)
        return said(cudaErrorMemoryAllocation);
    a->stretches[at] = bytes;
    a->used += bytes;
    *out = a->start + at;
    simt::device_opens();
    memset(*out, 0xff, bytes); /* NaN: what is not written is not 0 */
    simt::device_closes();
    return cudaSuccess;
}

static cudaError_t give_back(void *memory)
{
    const std::lock_guard<std::recursive_mutex> alone(turn);
    struct arena *a = arena();
    const auto stretch = a->stretches.find((size_t)((char *)memory - a->start));
    if (stretch == a->stretches.end())
        return said(cudaErrorInvalidValue);
    a->used -= stretch->second;
    a->stretches.erase(stretch);
    return cudaSuccess;
}

/* It waits for the device. */
cudaError_t cudaFree(void *memory)
{
    finish_all();
    return memory ? give_back(memory) : cudaSuccess;
}

cudaError_t cudaMallocAsync(void **out, size_t bytes, cudaStream_t)
{
    return cudaMalloc(out, bytes);
}

cudaError_t cudaFreeAsync(void *memory, cudaStream_t stream)
{
    simt::queue(stream, [=] { give_back(memory); });
    return cudaSuccess;
}

cudaError_t cudaDeviceGetDefaultMemPool(cudaMemPool_t *out, int)
{
    *out = nullptr;
    return cudaSuccess;
}

cudaError_t cudaMemPoolSetAttribute(cudaMemPool_t, enum cudaMemPoolAttr, void *)
{
    return cudaSuccess;
}

/* Pinned memory: where it begins -> bytes. */
static std::map<const char *, size_t> &pinned()
{
    static auto *const all = new std::map<const char *, size_t>();
    return *all;
}

cudaError_t cudaMallocHost(void **out, size_t bytes)
{
    const std::lock_guard<std::recursive_mutex> alone(turn);
    if (!(*out = aligned_alloc(64, (bytes + 63) / 64 * 64)))
        return said(cudaErrorMemoryAllocation);
    pinned()[(const char *)*out] = bytes;
    return cudaSuccess;
}

cudaError_t cudaFreeHost(void *memory)
{
    const std::lock_guard<std::recursive_mutex> alone(turn);
    finish_all();
    if (memory && pinned().erase((const char *)memory) == 0)
        return said(cudaErrorInvalidValue);
    free(memory);
    return cudaSuccess;
}

static bool is_pinned(const void *at)
{
    const std::lock_guard<std::recursive_mutex> alone(turn);
    auto behind = pinned().upper_bound((const char *)at);
    return behind != pinned().begin() && (--behind, (const char *)at < behind->first + behind->second);
}

cudaError_t cudaMemGetInfo(size_t *unused, size_t *all)
{
    *unused = arena()->bytes - arena()->used;
    *all = arena()->bytes;
    return cudaSuccess;
}

static bool on_device(const void *at)
{
    const struct arena *a = arena();
    return (const char *)at >= a->start && (const char *)at < a->start + a->bytes;
}

static void move(void *to, const void *from, size_t bytes)
{
    simt::device_opens();
    memmove(to, from, bytes);
    simt::device_closes();
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind, cudaStream_t stream)
{
    const bool to_device = kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice;
    const bool from_device = kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice;
    if (kind == cudaMemcpyDefault)
        return said(cudaErrorNotSupported);
    if (bytes > 0 && (on_device(to) != to_device || on_device(from) != from_device))
        return said(cudaErrorInvalidValue);
    if (!from_device && !is_pinned(from))
        simt::queue(stream, [=, kept = std::string((const char *)from, bytes)] { move(to, kept.data(), bytes); });
    else
        simt::queue(stream, [=] { move(to, from, bytes); });
    if (!to_device && !is_pinned(to))
        finish(stream_of(stream));
    return cudaSuccess;
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind)
{
    const cudaError_t code = cudaMemcpyAsync(to, from, bytes, kind, nullptr);
    finish(stream_of(nullptr));
    return code;
}

cudaError_t cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch, size_t width,
                              size_t height, enum cudaMemcpyKind kind, cudaStream_t stream)
{
    cudaError_t code = to_pitch < width || from_pitch < width ? said(cudaErrorInvalidValue) : cudaSuccess;
    for (size_t row = 0; row < height && code == cudaSuccess; row++)
        code = cudaMemcpyAsync((char *)to + row * to_pitch, (const char *)from + row * from_pitch, width, kind,
                               stream);
    return code;
}

cudaError_t cudaMemsetAsync(void *memory, int value, size_t bytes, cudaStream_t stream)
{
    if (!on_device(memory))
        return said(cudaErrorInvalidValue);
    simt::queue(stream, [=] {
        simt::device_opens();
        memset(memory, value, bytes);
        simt::device_closes();
    });
    return cudaSuccess;
}

/* ---- the device ---- */

cudaError_t cudaGetDeviceCount(int *out)
{
    *out = (int)number_of("SIMT_DEVICES", 1);
    return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int *out)
{
    *out = CUDART_VERSION;
    return cudaSuccess;
}

/* All are alike, and a process uses one. */
static int current;

cudaError_t cudaSetDevice(int device)
{
    if (device < 0 || (size_t)device >= number_of("SIMT_DEVICES", 1))
        return said(cudaErrorInvalidDevice);
    current = device;
    return cudaSuccess;
}

cudaError_t cudaGetDevice(int *out)
{
    *out = current;
    return cudaSuccess;
}

/* Shared memory of a block, where it is asked for. */
static size_t most_shared()
{
    const size_t capability = number_of("SIMT_CAPABILITY", 80);
    const bool large = capability == 80 || capability == 87;
    return (large ? 163 : capability >= 90 && capability < 120 ? 227 : 99) << 10;
}

cudaError_t cudaDeviceGetAttribute(int *out, enum cudaDeviceAttr what, int)
{
    const int capability = (int)number_of("SIMT_CAPABILITY", 80);
    switch (what) {
    case cudaDevAttrComputeCapabilityMajor:
        *out = capability / 10;
        return cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor:
        *out = capability % 10;
        return cudaSuccess;
    case cudaDevAttrMultiProcessorCount:
        *out = (int)number_of("SIMT_MULTIPROCESSORS", 2);
        return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
        *out = (int)most_shared();
        return cudaSuccess;
    default:
        return said(cudaErrorInvalidValue);
    }
}

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *out, int)
{
    memset(out, 0, sizeof *out);
    strcpy(out->name, "simt");
    out->totalGlobalMem = arena()->bytes;
    out->major = (int)number_of("SIMT_CAPABILITY", 80) / 10;
    out->minor = (int)number_of("SIMT_CAPABILITY", 80) % 10;
    out->multiProcessorCount = 2;
    return cudaSuccess;
}

cudaError_t cudaDeviceGetPCIBusId(char *out, int size, int device)
{
    snprintf(out, (size_t)size, "simt:%d", (int)number_of("SIMT_PLACE", (size_t)device));
    return cudaSuccess;
}

/* ---- launches ---- */

/* Dynamic shared memory that a kernel has been allowed. */
static std::map<const void *, size_t> &allowed()
{
    static auto *const all = new std::map<const void *, size_t>();
    return *all;
}

cudaError_t cudaFuncSetAttribute(const void *kernel, enum cudaFuncAttribute what, int bytes)
{
    const std::lock_guard<std::recursive_mutex> alone(turn);
    if (what != cudaFuncAttributeMaxDynamicSharedMemorySize || bytes < 0 || (size_t)bytes > most_shared())
        return said(cudaErrorInvalidValue);
    allowed()[kernel] = (size_t)bytes;
    return cudaSuccess;
}

bool simt::may_launch(const void *kernel, dims grid, dims block, size_t shared_bytes)
{
    const std::lock_guard<std::recursive_mutex> alone(turn);
    const auto found = allowed().find(kernel);
    const uint64_t threads = (uint64_t)block.x * block.y * block.z;
    if (grid.x < 1 || grid.x > INT32_MAX || grid.y < 1 || grid.y > 65535 || grid.z < 1 || grid.z > 65535 ||
        threads < 1 || threads > 1024 || block.z > 64)
        return said(cudaErrorInvalidConfiguration) == cudaSuccess;
    if (shared_bytes > (found == allowed().end() ? (size_t)48 << 10 : found->second))
        return said(cudaErrorInvalidValue) == cudaSuccess;
    return true;
}

/* ---- the one function of the driver ---- */

/* What the manual demands of a map that cp.async.bulk.tensor can use. */
static bool map_is_right(const simt::tensor_map &map, const cuuint32_t *steps)
{
    bool right = (uintptr_t)map.start % 16 == 0 && map.box[0] * 2 <= 128 && map.box[0] * 2 % 16 == 0;
    for (int i = 0; i < 3; i++)
        right &= map.sizes[i] >= 1 && map.sizes[i] <= (uint64_t)1 << 32 && map.box[i] >= 1 && map.box[i] <= 256 &&
                 steps[i] == 1;
    for (int i = 0; i < 2; i++)
        right &= map.strides[i] % 16 == 0 && map.strides[i] < (uint64_t)1 << 40;
    return right;
}

static CUresult encode_map(CUtensorMap *out, CUtensorMapDataType type, cuuint32_t rank, void *start,
                           const cuuint64_t *sizes, const cuuint64_t *strides, const cuuint32_t *box,
                           const cuuint32_t *steps, CUtensorMapInterleave interleave, CUtensorMapSwizzle swizzle,
                           CUtensorMapL2promotion, CUtensorMapFloatOOBfill fill)
{
    if (type != CU_TENSOR_MAP_DATA_TYPE_BFLOAT16 || rank != 3 || interleave != CU_TENSOR_MAP_INTERLEAVE_NONE ||
        swizzle != CU_TENSOR_MAP_SWIZZLE_128B || fill != CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE)
        return CUDA_ERROR_NOT_SUPPORTED;
    simt::tensor_map map;
    map.start = (const unsigned char *)start;
    memcpy(map.sizes, sizes, sizeof map.sizes);
    memcpy(map.strides, strides, sizeof map.strides);
    memcpy(map.box, box, sizeof map.box);
    if (!map_is_right(map, steps) || !on_device(start))
        return CUDA_ERROR_INVALID_VALUE;
    memcpy(out, &map, sizeof map);
    return CUDA_SUCCESS;
}

cudaError_t cudaGetDriverEntryPointByVersion(const char *name, void **out, unsigned, unsigned long long,
                                             enum cudaDriverEntryPointQueryResult *found)
{
    const bool known = strcmp(name, "cuTensorMapEncodeTiled") == 0;
    *out = known ? (void *)encode_map : nullptr;
    *found = known ? cudaDriverEntryPointSuccess : cudaDriverEntryPointSymbolNotFound;
    return cudaSuccess;
}

/* ---- errors ---- */

cudaError_t cudaGetLastError()
{
    const cudaError_t code = last;
    last = cudaSuccess;
    return code;
}

cudaError_t cudaPeekAtLastError()
{
    return last;
}

const char *cudaGetErrorString(cudaError_t code)
{
    switch (code) {
    case cudaSuccess:
        return "no error";
    case cudaErrorMemoryAllocation:
        return "out of memory";
    case cudaErrorInvalidValue:
        return "invalid argument";
    case cudaErrorInvalidDevice:
        return "invalid device ordinal";
    default:
        return "another error";
    }
}
