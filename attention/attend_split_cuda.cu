#include "attention/attend_split.h"

#include <math.h>

#include "base/gpu.cuh"
#include "base/gpu.h"
#include "base/gpu_rows.cuh"

/* A part has PART_PAGES pages of keys at least, or merging costs more than it spares; blocks are made until each
 * multiprocessor has BLOCKS_PER_SM. */
enum { WARPS = 4, PART_PAGES = 8, MAX_PARTS = 128, BLOCKS_PER_SM = 2 };

/* ---- the states of the parts ---- */

static __global__ void begin_states(float *m, float *l, int64_t n)
{
    const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) {
        m[i] = -INFINITY;
        l[i] = 0;
    }
}

/* A warp merges what the parts say of a row into the row's state. A part that saw nothing of it has written no o.
 */
static __global__ void merge_states(const struct attend_cuda call, const struct attend_cuda part, int parts)
{
    const int lane = threadIdx.x % GPU_WARP;
    const int64_t rows = call.kv_heads * call.tokens * call.group;
    const int64_t row = (int64_t)blockIdx.x * WARPS + threadIdx.x / GPU_WARP;
    if (row >= rows)
        return;
    const float m = call.m[row];
    float high = -INFINITY, l = 0;
    for (int p = 0; p < parts; p++)
        high = fmaxf(high, part.m[p * rows + row]);
    if (high == -INFINITY)
        return;
    high = fmaxf(high, m);
    for (int p = 0; p < parts; p++)
        l += part.l[p * rows + row] * gpu_exp2(part.m[p * rows + row] - high);
    const float factor = gpu_exp2(m - high);
    for (int d = lane; d < call.dim; d += GPU_WARP) {
        float o = m == -INFINITY ? 0.0f : call.o[row * call.dim + d] * factor;
        for (int p = 0; p < parts; p++)
            if (part.m[p * rows + row] != -INFINITY)
                o += part.o[(p * rows + row) * call.dim + d] * gpu_exp2(part.m[p * rows + row] - high);
        call.o[row * call.dim + d] = o;
    }
    __syncwarp(); /* all lanes have read m */
    if (lane == 0) {
        call.m[row] = high;
        call.l[row] = call.l[row] * factor + l;
    }
}

/* ---- the host's side ---- */

/* How many parts fill the card, where the keys are enough. What is seen of them is known on the card alone. */
static int parts_of(const struct attend_cuda *call, int tile_rows)
{
    const int multiprocessors = gpu_multiprocessors();
    const int64_t tiles = (call->tokens * call->group + tile_rows - 1) / tile_rows * call->kv_heads;
    const int64_t room = (int64_t)BLOCKS_PER_SM * multiprocessors / tiles;
    const int64_t most = min((int64_t)MAX_PARTS, call->key_rows / (ATTEND_PAGE * PART_PAGES));
    return 2 * tiles > multiprocessors ? 1 : (int)max((int64_t)1, min(room, most));
}

/* Room for the states, from the pool of the device, which keeps it for the next call; NULL where there is none. */
static float *states_alloc(size_t bytes, cudaStream_t stream)
{
    uint64_t kept = (uint64_t)64 << 20;
    int device;
    cudaMemPool_t pool;
    void *memory = NULL;
    if (cudaGetDevice(&device) == cudaSuccess && cudaDeviceGetDefaultMemPool(&pool, device) == cudaSuccess &&
        cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &kept) == cudaSuccess &&
        cudaMallocAsync(&memory, bytes, stream) == cudaSuccess)
        return (float *)memory;
    cudaGetLastError(); /* it goes without */
    return NULL;
}

struct split {
    struct attend_cuda call; /* o, m and l are those of all parts */
    int parts;
    attend_launch launch;
};

static int run_parts(const struct attend_cuda *call, const struct split *split, cudaStream_t stream,
                     struct error *err)
{
    const struct attend_cuda whole = *call, part = split->call;
    const int parts = split->parts;
    const int64_t rows = whole.kv_heads * whole.tokens * whole.group, states = parts * rows;
    const unsigned blocks = (unsigned)((states + WARPS * GPU_WARP - 1) / (WARPS * GPU_WARP));
    GPU_LAUNCH(begin_states, blocks, WARPS * GPU_WARP, 0, stream, part.m, part.l, states);
    if (gpu_check_launch("attention on the GPU", err) != 0 || split->launch(&part, parts, stream, err) != 0)
        return -1;
    GPU_LAUNCH(merge_states, (unsigned)((rows + WARPS - 1) / WARPS), WARPS * GPU_WARP, 0, stream, whole, part,
               parts);
    return gpu_check_launch("attention on the GPU", err);
}

int attend_split(const struct attend_cuda *call, int tile_rows, attend_launch launch, cudaStream_t stream,
                 struct error *err)
{
    if (call->tokens == 0)
        return 0;
    const int parts = parts_of(call, tile_rows);
    const size_t states = (size_t)(parts * call->kv_heads * call->tokens * call->group), dim = (size_t)call->dim;
    float *memory = parts > 1 ? states_alloc(states * (dim + 2) * sizeof(float), stream) : NULL;
    if (!memory)
        return launch(call, 1, stream, err);
    struct split split = {*call, parts, launch};
    split.call.o = memory;
    split.call.m = memory + states * dim;
    split.call.l = split.call.m + states;
    const int code = run_parts(call, &split, stream, err);
    cudaFreeAsync(memory, stream);
    return code;
}
