#include "model/ops_cuda.h"

#include <float.h>
#include <math.h>

#include "base/gpu.h"
#include "base/gpu_rows.cuh"

/* ---- norms: a block a row. The second look at a row comes out of the first-level cache ---- */

/* Of x [n], to all threads of the block. */
template <int V> static __device__ float row_scale(const float *x, const struct rms_norm &norm, float *parts)
{
    float sum = 0;
    for (int64_t i = (int64_t)V * threadIdx.x; i < norm.n; i += V * blockDim.x) {
        float some[V];
        gpu_load(some, x + i);
        for (int k = 0; k < V; k++)
            sum += some[k] * some[k];
    }
    return 1.0f / sqrtf(gpu_block_sum(sum, parts) / (float)norm.n + norm.eps);
}

template <int V, class Out>
static __device__ void scale_row(const float *x, const struct rms_norm &norm, float scale, Out *out)
{
    for (int64_t i = (int64_t)V * threadIdx.x; i < norm.n; i += V * blockDim.x) {
        float some[V], weight[V];
        gpu_load(some, x + i);
        gpu_load(weight, norm.weight + i);
        for (int k = 0; k < V; k++)
            some[k] = some[k] * scale * weight[k];
        gpu_store(out + i, some);
    }
}

/* Bytes an element: 4 read, 2 or 4 written; the weights stay in the cache. */
template <int V, class Out> static __global__ void rms_norm_kernel(const struct ops_cuda_rms_norm call)
{
    __shared__ float parts[GPU_WARP];
    const int64_t at = (int64_t)blockIdx.x * call.norm.n;
    const float scale = row_scale<V>(call.x + at, call.norm, parts);
    scale_row<V>(call.x + at, call.norm, scale, (Out *)call.out + at);
}

template <class Out> static void rms_norm_launch(const struct ops_cuda_rms_norm *call, cudaStream_t stream)
{
    const int64_t n = call->norm.n;
    const bool fours =
        gpu_in_fours(call->x, n) && gpu_in_fours((Out *)call->out, n) && gpu_in_fours(call->norm.weight, n);
    const auto rms_norm = fours ? rms_norm_kernel<4, Out> : rms_norm_kernel<1, Out>;
    GPU_LAUNCH(rms_norm, (unsigned)call->rows, gpu_row_threads(fours ? n / 4 : n), 0, stream, *call);
}

int ops_cuda_rms_norm(const struct ops_cuda_rms_norm *call, cudaStream_t stream, struct error *err)
{
    if (call->rows == 0)
        return 0;
    if (call->dtype == DTYPE_BF16)
        rms_norm_launch<__nv_bfloat16>(call, stream);
    else
        rms_norm_launch<float>(call, stream);
    return gpu_check_launch("norming rows", err);
}

/* x += y, or y * scale * post_weight; returns this thread's share of the sum of squares. A thread writes and later
 * reads the same elements, so the block need not wait. */
template <int V>
static __device__ float add_row(float *x, const float *y, const float *post_weight, float scale, int64_t n)
{
    float sum = 0;
    for (int64_t i = (int64_t)V * threadIdx.x; i < n; i += V * blockDim.x) {
        float some[V], added[V], weight[V];
        gpu_load(some, x + i);
        gpu_load(added, y + i);
        if (post_weight)
            gpu_load(weight, post_weight + i);
        for (int k = 0; k < V; k++) {
            some[k] += post_weight ? added[k] * scale * weight[k] : added[k];
            sum += some[k] * some[k];
        }
        gpu_store(x + i, some);
    }
    return sum;
}

/* Bytes an element: 8 read, 4 written for the stream, 2 or 4 for out. */
template <int V, class Out> static __global__ void add_norm_kernel(const struct ops_cuda_add_norm call)
{
    __shared__ float parts[GPU_WARP];
    const int64_t n = call.norm.n, at = (int64_t)blockIdx.x * n;
    float scale = 1;
    if (call.post_weight)
        scale = row_scale<V>(call.y + at, call.norm, parts);
    const float sum = add_row<V>(call.x + at, call.y + at, call.post_weight, scale, n);
    if (!call.norm.weight)
        return;
    scale = 1.0f / sqrtf(gpu_block_sum(sum, parts) / (float)n + call.norm.eps);
    scale_row<V>(call.x + at, call.norm, scale, (Out *)call.out + at);
}

template <class Out> static void add_norm_launch(const struct ops_cuda_add_norm *call, cudaStream_t stream)
{
    const int64_t n = call->norm.n;
    const bool fours = gpu_in_fours(call->x, n) && gpu_in_fours(call->y, n) && gpu_in_fours((Out *)call->out, n) &&
                       gpu_in_fours(call->norm.weight, n) && gpu_in_fours(call->post_weight, n);
    const auto add_norm = fours ? add_norm_kernel<4, Out> : add_norm_kernel<1, Out>;
    GPU_LAUNCH(add_norm, (unsigned)call->rows, gpu_row_threads(fours ? n / 4 : n), 0, stream, *call);
}

int ops_cuda_add_norm(const struct ops_cuda_add_norm *call, cudaStream_t stream, struct error *err)
{
    if (call->rows == 0)
        return 0;
    if (call->dtype == DTYPE_BF16)
        add_norm_launch<__nv_bfloat16>(call, stream);
    else
        add_norm_launch<float>(call, stream);
    return gpu_check_launch("adding to the residual stream", err);
}

/* A warp a head, in place: a lane writes only what it has read. Bytes an element: 4 read, 4 written. */
template <int V> static __global__ void head_norms_kernel(const struct ops_cuda_head_norms call)
{
    const int heads = call.heads + call.kv_heads, lane = threadIdx.x % GPU_WARP;
    const int64_t index = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) / GPU_WARP;
    if (index >= call.rows * heads)
        return;
    const int head = (int)(index % heads);
    const float *weight = head < call.heads ? call.query_norm : call.key_norm;
    if (!weight)
        return;
    float *x = call.qkv + index / heads * call.stride + (int64_t)head * call.dim;
    float sum = 0, some[V], weights[V];
    for (int i = V * lane; i < call.dim; i += V * GPU_WARP) {
        gpu_load(some, x + i);
        for (int k = 0; k < V; k++)
            sum += some[k] * some[k];
    }
    const float scale = 1.0f / sqrtf(gpu_warp_sum(sum) / (float)call.dim + call.eps);
    for (int i = V * lane; i < call.dim; i += V * GPU_WARP) {
        gpu_load(some, x + i);
        gpu_load(weights, weight + i);
        for (int k = 0; k < V; k++)
            some[k] = some[k] * scale * weights[k];
        gpu_store(x + i, some);
    }
}

int ops_cuda_head_norms(const struct ops_cuda_head_norms *call, cudaStream_t stream, struct error *err)
{
    enum { WARPS = 4 };
    if (call->rows == 0 || (!call->query_norm && !call->key_norm))
        return 0;
    const bool fours = call->dim % 4 == 0 && gpu_in_fours(call->qkv, call->stride) &&
                       gpu_in_fours(call->query_norm, call->dim) && gpu_in_fours(call->key_norm, call->dim);
    const auto head_norms = fours ? head_norms_kernel<4> : head_norms_kernel<1>;
    const int64_t blocks = i64_ceil_div(call->rows * (call->heads + call->kv_heads), WARPS);
    GPU_LAUNCH(head_norms, (unsigned)blocks, WARPS * GPU_WARP, 0, stream, *call);
    return gpu_check_launch("norming heads", err);
}

/* ---- gate ---- */

template <int ACTIVATION> static __device__ __forceinline__ float activate(float g)
{
    const float h = ACTIVATION == ACTIVATION_SILU ? g : 1.59576912f * (g + 0.044715f * g * g * g); /* sqrt(8/pi) */
    return g / (1.0f + expf(-h));
}

/* A block has GPU_ROW_THREADS vectors of a row. Bytes an element of out: 8 read, 2 or 4 written. */
template <int V, int ACTIVATION, class Out> static __global__ void gate_kernel(const struct ops_cuda_gate call)
{
    const int64_t ffn = call.gate.ffn, blocks = (ffn + V * blockDim.x - 1) / (V * blockDim.x);
    const int64_t row = blockIdx.x / blocks, i = V * (blockIdx.x % blocks * blockDim.x + threadIdx.x);
    if (i >= ffn)
        return;
    float gate[V], up[V];
    gpu_load(gate, call.gate_up + row * 2 * ffn + i);
    gpu_load(up, call.gate_up + row * 2 * ffn + ffn + i);
    for (int k = 0; k < V; k++)
        gate[k] = activate<ACTIVATION>(gate[k]) * up[k];
    gpu_store((Out *)call.out + row * ffn + i, gate);
}

template <int ACTIVATION, class Out> static void gate_launch(const struct ops_cuda_gate *call, cudaStream_t stream)
{
    const int64_t ffn = call->gate.ffn;
    const bool fours = gpu_in_fours(call->gate_up, ffn) && gpu_in_fours((Out *)call->out, ffn);
    const auto gate = fours ? gate_kernel<4, ACTIVATION, Out> : gate_kernel<1, ACTIVATION, Out>;
    const int64_t blocks = i64_ceil_div(fours ? ffn / 4 : ffn, GPU_ROW_THREADS);
    GPU_LAUNCH(gate, (unsigned)(call->rows * blocks), GPU_ROW_THREADS, 0, stream, *call);
}

int ops_cuda_gate(const struct ops_cuda_gate *call, cudaStream_t stream, struct error *err)
{
    const bool silu = call->gate.activation == ACTIVATION_SILU;
    if (call->rows == 0)
        return 0;
    if (call->dtype == DTYPE_BF16)
        (silu ? gate_launch<ACTIVATION_SILU, __nv_bfloat16>
              : gate_launch<ACTIVATION_GELU_TANH, __nv_bfloat16>)(call, stream);
    else
        (silu ? gate_launch<ACTIVATION_SILU, float> : gate_launch<ACTIVATION_GELU_TANH, float>)(call, stream);
    return gpu_check_launch("gating rows", err);
}

/* ---- log-softmax: a block a row, which is read once. Bytes an element: 4 read ---- */

/* What a thread knows of the logits that it has seen. The sum is in float where a thread sums, which is a few
 * hundred elements, and in double where threads add up. */
struct seen {
    float top; /* the largest, or -FLT_MAX */
    float sum; /* of e^(x - top) */
    int at;    /* the first index of the largest */
};

/* A NaN is never larger and gets into the sum. */
template <int V> static __device__ __forceinline__ void see(struct seen &seen, const float (&x)[V], int64_t i)
{
    float top = seen.top;
    for (int k = 0; k < V; k++)
        top = fmaxf(top, x[k]);
    if (top > seen.top) {
        int k = 0;
        while (x[k] != top)
            k++;
        seen = {top, seen.sum * expf(seen.top - top), (int)i + k};
    }
    for (int k = 0; k < V; k++)
        seen.sum += expf(x[k] - top);
}

/* The largest of all threads of the block and the lowest index that has it, to all of them. */
static __device__ struct seen block_top(struct seen seen, struct seen *parts)
{
    const unsigned lane = threadIdx.x % GPU_WARP;
    for (int round = 0; round < 2; round++) {
        for (int far = GPU_WARP / 2; far > 0; far /= 2) {
            const float top = __shfl_xor_sync(~0u, seen.top, far);
            const int at = __shfl_xor_sync(~0u, seen.at, far);
            if (top > seen.top || (top == seen.top && at < seen.at))
                seen.top = top, seen.at = at;
        }
        if (round == 0) { /* the second time, of the warps' */
            if (lane == 0)
                parts[threadIdx.x / GPU_WARP] = seen;
            __syncthreads();
            if (lane < blockDim.x / GPU_WARP)
                seen = parts[lane];
        }
    }
    return seen;
}

template <int V> static __global__ void log_softmax_kernel(const struct ops_cuda_log_softmax call)
{
    __shared__ double sums[GPU_WARP];
    __shared__ struct seen parts[GPU_WARP];
    const float *logits = call.logits + (int64_t)blockIdx.x * call.vocab;
    struct seen seen = {-FLT_MAX, 0, INT32_MAX};
    for (int64_t i = (int64_t)V * threadIdx.x; i < call.vocab; i += V * blockDim.x) {
        float some[V];
        gpu_load(some, logits + i);
        see(seen, some, i);
    }
    const struct seen all = block_top(seen, parts);
    const double sum = gpu_block_sum((double)seen.sum * (double)expf(seen.top - all.top), sums);
    if (threadIdx.x == 0) {
        const double log_sum_exp = (double)all.top + log(sum), logit = (double)logits[call.ids[blockIdx.x]];
        call.out[blockIdx.x] = {(float)log_sum_exp, (float)(logit - log_sum_exp), all.at == INT32_MAX ? 0 : all.at};
    }
}

int ops_cuda_log_softmax(const struct ops_cuda_log_softmax *call, cudaStream_t stream, struct error *err)
{
    enum { THREADS = 512 };
    if (call->rows == 0)
        return 0;
    const bool fours = gpu_in_fours(call->logits, call->vocab);
    const auto log_softmax = fours ? log_softmax_kernel<4> : log_softmax_kernel<1>;
    GPU_LAUNCH(log_softmax, (unsigned)call->rows, THREADS, 0, stream, *call);
    return gpu_check_launch("the log-softmax of logits", err);
}
