/* The plain twin of the fast GPU kernels: a warp for each query row, 32 keys at a time, all in fp32. */
#include "attention/attend_cuda.h"

#include <math.h>

#include "base/gpu.cuh"
#include "base/gpu.h"
#include "base/gpu_rows.cuh"

enum { WARPS = 4, MAX_DIM = 256 };

/* What a warp carries of its row: lane l has o of dims l, l + 32, ... */
struct row_state {
    float o[MAX_DIM / GPU_WARP], m, l;
};

/* The row of k and v that holds a key of that kv head. */
static __device__ int64_t key_row(const struct attend_cuda &call, int head, int key)
{
    const int64_t row = call.pages ? (int64_t)ATTEND_PAGE * call.pages[key / ATTEND_PAGE] + key % ATTEND_PAGE : key;
    return head * call.key_rows + row;
}

static __device__ float score_of(const struct attend_cuda &call, const __nv_bfloat16 *q, int64_t row, int key)
{
    const __nv_bfloat16 *k = (const __nv_bfloat16 *)call.k + row * call.dim;
    float score = 0;
    for (int d = 0; d < call.dim; d++)
        score += __bfloat162float(q[d]) * __bfloat162float(k[d]);
    return call.bias ? score + call.bias[key] : score;
}

/* The keys [first, first + n) of the row's span, n <= 32: lane i scores key first + i. */
static __device__ void attend_keys(const struct attend_cuda &call, const __nv_bfloat16 *q, int first, int n,
                                   struct row_state *state)
{
    const int lane = threadIdx.x % GPU_WARP;
    const int64_t row = lane < n ? key_row(call, blockIdx.y, first + lane) : 0;
    const float score = lane < n ? score_of(call, q, row, first + lane) : -INFINITY;
    const float m = fmaxf(state->m, gpu_warp_max(score));
    if (m == -INFINITY)
        return;
    const float weight = gpu_exp2(score - m), factor = gpu_exp2(state->m - m);
    state->m = m;
    state->l = state->l * factor + gpu_warp_sum(weight);
    for (int i = 0; GPU_WARP * i < call.dim; i++)
        state->o[i] *= factor;
    for (int j = 0; j < n; j++) {
        const __nv_bfloat16 *v = (const __nv_bfloat16 *)call.v + __shfl_sync(~0u, row, j) * call.dim;
        const float weight_j = __shfl_sync(~0u, weight, j);
        for (int i = 0, d = lane; d < call.dim; i++, d += GPU_WARP)
            state->o[i] += weight_j * __bfloat162float(v[d]);
    }
}

static __global__ void attend_rows(const struct attend_cuda call)
{
    const int lane = threadIdx.x % GPU_WARP;
    const int64_t rows = call.tokens * call.group, row = (int64_t)blockIdx.x * WARPS + threadIdx.x / GPU_WARP;
    if (row >= rows)
        return;
    const struct attend_span span = call.spans[row / call.group];
    if (span.first >= span.end)
        return;
    const int64_t at = blockIdx.y * rows + row;
    const __nv_bfloat16 *q = (const __nv_bfloat16 *)call.q + at * call.dim;
    struct row_state state;
    state.m = call.m[at];
    state.l = call.l[at];
    for (int i = 0, d = lane; d < call.dim; i++, d += GPU_WARP)
        state.o[i] = call.o[at * call.dim + d];
    for (int first = span.first; first < span.end; first += GPU_WARP)
        attend_keys(call, q, first, min((int)GPU_WARP, span.end - first), &state);
    for (int i = 0, d = lane; d < call.dim; i++, d += GPU_WARP)
        call.o[at * call.dim + d] = state.o[i];
    __syncwarp(); /* all lanes have read m and l */
    if (lane == 0) {
        call.m[at] = state.m;
        call.l[at] = state.l;
    }
}

static bool supported(int capability, int dim)
{
    return capability > 0 && dim >= 16 && dim <= MAX_DIM && dim % 16 == 0;
}

static int attend(const struct attend_cuda *call, cudaStream_t stream, struct error *err)
{
    const int64_t rows = call->tokens * call->group;
    if (rows == 0)
        return 0;
    const dim3 grid((unsigned)((rows + WARPS - 1) / WARPS), (unsigned)call->kv_heads);
    GPU_LAUNCH(attend_rows, grid, WARPS * GPU_WARP, 0, stream, *call);
    return gpu_check_launch("plain attention on the GPU", err);
}

extern "C" const struct attend_cuda_kernel attend_cuda_plain = {"cuda-plain", supported, attend};
