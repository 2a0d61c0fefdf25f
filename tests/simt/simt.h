/* simt: runs CUDA C on a CPU, thread by thread, so that kernels can be tested where there is no GPU.
 *
 * A kernel source is compiled as C++ with this header before it. Every thread of a block is a fiber; the fibers of
 * a block take turns on one CPU thread and give way where threads of a GPU would wait for each other: at barriers,
 * at shuffles and at the matrix instructions of a warp. Blocks run one after the other. So what is proven here is
 * that indices, layouts, masks and barriers are right, not how fast anything is, and not that there are no races.
 *
 * What is queued in a stream is done when somebody waits for it, as late as a GPU may be (simt_runtime.cc): results
 * that are read and buffers that are used again too early show.
 *
 * What a wrong kernel does is an error here, and ends the program with the kernel's name and the thread: waiting
 * for threads that never come, a barrier with the wrong number of threads, a collective that part of a warp has
 * left. Memory of the device is out of the host's reach except while a kernel or a copy is under way
 * (simt_runtime.cc).
 */
#ifndef LONGHAUL_TESTS_SIMT_H
#define LONGHAUL_TESTS_SIMT_H

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <cuda_bf16.h>
#include <cuda_runtime_api.h>
#include <functional>
#include <tuple>
#include <type_traits>
#include <vector>

#undef __shared__
#define __shared__ static thread_local
#undef __launch_bounds__
#define __launch_bounds__(...)
#undef __grid_constant__
#define __grid_constant__

namespace simt
{

enum { WARP = 32, SLOT_BYTES = 64, BARRIERS = 16 };

struct dims {
    unsigned x, y, z;
};

/* A barrier that any number of the block's threads may use, as bar.sync does. */
struct barrier {
    unsigned arrived, generation;
};

/* What the lanes of a warp tell each other: two sets in turn, so that one wait is enough. */
struct warp {
    unsigned char slots[2][WARP][SLOT_BYTES];
    barrier gate;
};

/* 16 bytes from global to shared memory, or 16 zeros. */
struct copy16 {
    void *to;
    const void *from;
    bool there;
};

struct thread {
    dims index;
    int lane;
    struct warp *of;
    unsigned told;                                  /* collectives so far: which set of slots is next */
    void *back;                                     /* the fiber that goes on when this one gives way */
    std::vector<std::vector<copy16>> copies = {{}}; /* under way: groups, the last one not yet committed */
};

struct block {
    dims index, size, grid;
    barrier barriers[BARRIERS];
    int alive;
    unsigned char *shared;
    size_t shared_bytes;
    uint64_t moves; /* grows with all that can let a waiting thread go on */
};

extern thread_local struct thread *current;
extern thread_local struct block *running;

/* Let the others go on. */
void give_way();
[[noreturn]] void wrong(const char *what);

/* bar.sync: wait until `threads` threads are there (0: all that have not ended). */
void wait_at(int barrier, int threads);
/* bar.arrive: be counted, and go on. */
void arrive_at(int barrier, int threads);
void wait_for_warp();

/* Every lane tells the others some bytes; what all have told, [WARP][SLOT_BYTES]. */
const unsigned char (*tell_warp(const void *bytes, size_t n))[SLOT_BYTES];

template <class T> const T &told(const unsigned char (*slots)[SLOT_BYTES], int lane)
{
    return *reinterpret_cast<const T *>(slots[lane]);
}

template <class T> T shuffle(T mine, int lane)
{
    const auto slots = tell_warp(&mine, sizeof mine);
    return lane >= 0 && lane < WARP ? told<T>(slots, lane) : mine;
}

/* All blocks of a kernel, here and now. */
void launch(const char *kernel, dims grid, dims block, size_t shared_bytes, const std::function<void()> &body);

/* To be done when the stream is waited for. */
void queue(cudaStream_t stream, std::function<void()> work);

/* The same for work that may have to wait for others: it says whether it is over, and is asked again until it is.
 */
void queue_until(cudaStream_t stream, std::function<bool()> work);

/* Whether a GPU would launch that; else the error is there for cudaGetLastError. */
bool may_launch(const void *kernel, dims grid, dims block, size_t shared_bytes);

template <class... Parameters, class... Arguments>
void start(const char *name, dims grid, dims block, size_t shared_bytes, cudaStream_t stream,
           void (*kernel)(Parameters...), const Arguments &...arguments)
{
    if (!may_launch((const void *)kernel, grid, block, shared_bytes))
        return;
    queue(stream, [=, kept = std::tuple<std::decay_t<Parameters>...>(arguments...)] {
        launch(name, grid, block, shared_bytes, [&] { std::apply(kernel, kept); });
    });
}

/* The device's memory can be reached between these two (simt_runtime.cc). */
void device_opens();
void device_closes();

static inline dims to_dims(unsigned x)
{
    return {x, 1, 1};
}

static inline dims to_dims(dim3 d)
{
    return {d.x, d.y, d.z};
}

} // namespace simt

#define threadIdx (simt::current->index)
#define blockIdx  (simt::running->index)
#define blockDim  (simt::running->size)
#define gridDim   (simt::running->grid)

static inline void __syncthreads()
{
    simt::wait_at(0, 0);
}

static inline void __syncwarp(unsigned = ~0u)
{
    simt::wait_for_warp();
}

template <class T> T __shfl_xor_sync(unsigned, T mine, int mask)
{
    return simt::shuffle(mine, simt::current->lane ^ mask);
}

template <class T> T __shfl_sync(unsigned, T mine, int lane)
{
    return simt::shuffle(mine, lane);
}

template <class T> T __shfl_down_sync(unsigned, T mine, int by)
{
    return simt::shuffle(mine, simt::current->lane + by);
}

static inline unsigned __ballot_sync(unsigned, int yes)
{
    const auto slots = simt::tell_warp(&yes, sizeof yes);
    unsigned all = 0;
    for (int lane = 0; lane < simt::WARP; lane++)
        all |= (unsigned)(simt::told<int>(slots, lane) != 0) << lane;
    return all;
}

static inline int __any_sync(unsigned mask, int yes)
{
    return __ballot_sync(mask, yes) != 0;
}

static inline int __all_sync(unsigned mask, int yes)
{
    return __ballot_sync(mask, yes) == ~0u;
}

template <class T> T __ldg(const T *at)
{
    return *at;
}

template <class T> T atomicAdd(T *to, T by)
{
    const T was = *to;
    *to = was + by;
    return was;
}

static inline void __threadfence()
{
}

/* Functions that CUDA has without a header. */
static inline float rsqrtf(float x)
{
    return 1.0f / std::sqrt(x);
}
static inline float __int_as_float(int bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}
static inline int __float_as_int(float f)
{
    int bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}
static inline unsigned __float_as_uint(float f)
{
    return (unsigned)__float_as_int(f);
}
static inline float __uint_as_float(unsigned bits)
{
    return __int_as_float((int)bits);
}
/* Byte i of the result is the byte of (high, low) that nibble i of `which` names. */
static inline unsigned __byte_perm(unsigned low, unsigned high, unsigned which)
{
    const uint64_t both = (uint64_t)high << 32 | low;
    unsigned out = 0;
    for (int i = 0; i < 4; i++)
        out |= (unsigned)(both >> 8 * (which >> 4 * i & 7) & 255) << 8 * i;
    return out;
}
template <class T> T min(T a, T b)
{
    return b < a ? b : a;
}
template <class T> T max(T a, T b)
{
    return a < b ? b : a;
}

#endif
