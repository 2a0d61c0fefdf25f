#include "attention/rotate_cuda.cuh"

#include <math.h>

#include "base/gpu.h"

extern "C" {
#include "attention/kernel.h"
}

/* ---- a rope on the GPU ---- */

int rope_cuda_create(struct rope_cuda *copy, const struct rope *rope, const struct device *device,
                     struct error *err)
{
    const struct rope_tables tables = rope_tables(rope);
    const size_t bytes = (size_t)tables.n_rows * 2 * (size_t)tables.half * sizeof *tables.rows;
    *copy = {device, tables, -1};
    copy->tables.rows = (const float *)device->alloc(bytes, "the angles of positions", err);
    if (copy->tables.rows && rope_cuda_update(copy, rope, NULL, err) == 0)
        return 0;
    rope_cuda_free(copy);
    return -1;
}

void rope_cuda_free(struct rope_cuda *copy)
{
    if (copy->device)
        copy->device->free((void *)copy->tables.rows);
    *copy = {};
}

int rope_cuda_update(struct rope_cuda *copy, const struct rope *rope, cudaStream_t stream, struct error *err)
{
    const struct rope_tables tables = rope_tables(rope);
    const size_t bytes = (size_t)tables.n_rows * 2 * (size_t)tables.half * sizeof *tables.rows;
    if (copy->revision == rope_revision(rope))
        return 0;
    if (gpu_check(cudaMemcpyAsync((void *)copy->tables.rows, tables.rows, bytes, cudaMemcpyHostToDevice, stream),
                  "copying the angles of positions", err) != 0 ||
        gpu_check(cudaStreamSynchronize(stream), "copying the angles of positions", err) != 0)
        return -1;
    copy->revision = rope_revision(rope);
    return 0;
}

/* cosines [half], and behind them the sines, of a position, in shared memory: all heads share them. */
static __device__ void find_angles(const struct rope_tables &tables, int64_t position, float *cosines)
{
    for (int i = threadIdx.x; i < tables.half; i += blockDim.x) {
        const struct rotate_angles<1> angle = rotate_angles_at<1>(tables, position, i);
        cosines[i] = angle.cosines[0];
        cosines[tables.half + i] = angle.sines[0];
    }
    __syncthreads();
}

template <int V>
static __device__ __forceinline__ rotate_angles<V> angles_of(const struct rope_tables &tables, const float *cosines,
                                                             int i)
{
    struct rotate_angles<V> angles;
    gpu_load(angles.cosines, cosines + i);
    gpu_load(angles.sines, cosines + tables.half + i);
    return angles;
}

/* Threads for a token of so many heads. */
static unsigned token_threads(const struct rope_cuda *rope, int heads, int v)
{
    return gpu_row_threads((int64_t)heads * rope->tables.half / v);
}

/* ---- queries: a block a token. Bytes an element: 4 read, 6 written ---- */

static __device__ __forceinline__ int64_t row_of(const struct rotate_cuda_queries &call, int head)
{
    const int group = call.heads / call.kv_heads;
    return (head / group * call.tokens + blockIdx.x) * group + head % group;
}

template <int V>
static __device__ void rotate_query_of(const struct rope_tables &tables, const struct rotate_cuda_queries &call,
                                       int head, int i, const float *cosines)
{
    const int64_t at = row_of(call, head) * call.dim;
    const float *q = call.q + blockIdx.x * call.stride + (int64_t)head * call.dim;
    const struct rotate_pairs<V> x = rotate_query<V>(tables, q, call.scale, angles_of<V>(tables, cosines, i), i);
    rotate_store(tables, x, (__nv_bfloat16 *)call.out + at, i);
    rotate_store(tables, rotate_pairs<V>{}, call.o + at, i);
}

template <int V>
static __global__ void rotate_queries_kernel(const struct rope_tables tables, const struct rotate_cuda_queries call)
{
    GPU_SHARED(shared);
    float *cosines = (float *)shared;
    find_angles(tables, call.positions[blockIdx.x], cosines);
    const int units = tables.half / V, rest = call.dim - 2 * tables.half;
    for (int u = threadIdx.x; u < call.heads * units; u += blockDim.x)
        rotate_query_of<V>(tables, call, u / units, u % units * V, cosines);
    for (int u = threadIdx.x; u < call.heads * rest; u += blockDim.x) {
        const int head = u / rest, e = 2 * tables.half + u % rest;
        const int64_t at = row_of(call, head) * call.dim + e;
        const float q = call.q[blockIdx.x * call.stride + (int64_t)head * call.dim + e];
        ((__nv_bfloat16 *)call.out)[at] = __float2bfloat16_rn(q * call.scale);
        call.o[at] = 0;
    }
    for (int head = threadIdx.x; head < call.heads; head += blockDim.x) {
        call.m[row_of(call, head)] = -INFINITY;
        call.l[row_of(call, head)] = 0;
    }
}

int rotate_cuda_queries(const struct rope_cuda *rope, const struct rotate_cuda_queries *call, cudaStream_t stream,
                        struct error *err)
{
    if (call->tokens == 0)
        return 0;
    const int dim = call->dim;
    const bool fours = rotate_in_fours(rope->tables, dim) && gpu_in_fours(call->q, call->stride) &&
                       gpu_in_fours((__nv_bfloat16 *)call->out, dim) && gpu_in_fours(call->o, dim);
    const auto rotate_queries = fours ? rotate_queries_kernel<4> : rotate_queries_kernel<1>;
    struct rotate_cuda_queries in_base_2 = *call;
    in_base_2.scale *= ATTN_LOG2_E;
    GPU_LAUNCH(rotate_queries, (unsigned)call->tokens, token_threads(rope, call->heads, fours ? 4 : 1),
               2 * (size_t)rope->tables.half * sizeof(float), stream, rope->tables, in_base_2);
    return gpu_check_launch("rotating queries", err);
}

/* ---- keys: a block a key. Bytes an element of k: 2 read, 2 written, and as many of v ---- */

template <int V>
static __device__ void rotate_key_of(const struct rope_tables &tables, const struct rotate_cuda_keys &call,
                                     int head, int i, const float *cosines)
{
    const int64_t from = (head * call.capacity + call.first + blockIdx.x) * call.dim;
    const int64_t to = (head * call.key_rows + blockIdx.x) * call.dim;
    const float *offset = call.offset ? call.offset + (int64_t)head * call.dim : NULL;
    const struct rotate_pairs<V> x = rotate_key<V>(tables, (const __nv_bfloat16 *)call.keys + from, offset,
                                                   call.slow_cosine, angles_of<V>(tables, cosines, i), i);
    rotate_store(tables, x, (__nv_bfloat16 *)call.k + to, i);
}

/* An element that does not turn. */
static __device__ void keep_element(const struct rotate_cuda_keys &call, int head, int e)
{
    const int64_t from = (head * call.capacity + call.first + blockIdx.x) * call.dim;
    const float *offset = call.offset ? call.offset + (int64_t)head * call.dim : NULL;
    const float key = rotate_key_rest((const __nv_bfloat16 *)call.keys + from, offset, call.slow_cosine, e);
    ((__nv_bfloat16 *)call.k)[(head * call.key_rows + blockIdx.x) * call.dim + e] = __float2bfloat16_rn(key);
}

template <int V> static __device__ void move_values(const struct rotate_cuda_keys &call)
{
    const int units = call.dim / V;
    for (int u = threadIdx.x; u < call.kv_heads * units; u += blockDim.x) {
        const int head = u / units, e = u % units * V;
        float some[V];
        gpu_load(some, (const __nv_bfloat16 *)call.values +
                           (head * call.capacity + call.first + blockIdx.x) * call.dim + e);
        gpu_store((__nv_bfloat16 *)call.v + (head * call.key_rows + blockIdx.x) * call.dim + e, some);
    }
}

template <int V> static __device__ void zero_row(const struct rotate_cuda_keys &call)
{
    const int units = call.dim / V;
    const float zeros[V] = {};
    for (int u = threadIdx.x; u < call.kv_heads * units; u += blockDim.x) {
        const int64_t at = (u / units * call.key_rows + blockIdx.x) * call.dim + u % units * V;
        gpu_store((__nv_bfloat16 *)call.k + at, zeros);
        gpu_store((__nv_bfloat16 *)call.v + at, zeros);
    }
}

template <int V>
static __global__ void rotate_keys_kernel(const struct rope_tables tables, const struct rotate_cuda_keys call)
{
    GPU_SHARED(shared);
    float *cosines = (float *)shared;
    if (blockIdx.x >= call.n) {
        zero_row<V>(call);
        return;
    }
    find_angles(tables, call.positions[blockIdx.x], cosines);
    const int units = tables.half / V, rest = call.dim - 2 * tables.half;
    for (int u = threadIdx.x; u < call.kv_heads * units; u += blockDim.x)
        rotate_key_of<V>(tables, call, u / units, u % units * V, cosines);
    for (int u = threadIdx.x; u < call.kv_heads * rest; u += blockDim.x)
        keep_element(call, u / rest, 2 * tables.half + u % rest);
    move_values<V>(call);
}

int rotate_cuda_keys(const struct rope_cuda *rope, const struct rotate_cuda_keys *call, cudaStream_t stream,
                     struct error *err)
{
    if (call->n == 0)
        return 0;
    const int dim = call->dim;
    const bool fours = rotate_in_fours(rope->tables, dim) && gpu_in_fours((const __nv_bfloat16 *)call->keys, dim) &&
                       gpu_in_fours((const __nv_bfloat16 *)call->values, dim) &&
                       gpu_in_fours((__nv_bfloat16 *)call->k, dim) && gpu_in_fours((__nv_bfloat16 *)call->v, dim) &&
                       gpu_in_fours(call->offset, dim) && gpu_in_fours(call->slow_cosine, dim);
    const auto rotate_keys = fours ? rotate_keys_kernel<4> : rotate_keys_kernel<1>;
    GPU_LAUNCH(rotate_keys, (unsigned)i64_round_up(call->n, ATTN_KEY_TILE),
               token_threads(rope, call->kv_heads, fours ? 4 : 1), 2 * (size_t)rope->tables.half * sizeof(float),
               stream, rope->tables, *call);
    return gpu_check_launch("rotating keys", err);
}

/* ---- spans: a thread a token ---- */

/* How many of the keys are not behind that position. */
static __device__ int32_t keys_up_to(const struct rotate_cuda_spans &call, int64_t position)
{
    int64_t low = 0, high = call.keys;
    while (low < high) {
        const int64_t middle = low + (high - low) / 2;
        if (call.key_positions[middle] <= position)
            low = middle + 1;
        else
            high = middle;
    }
    return (int32_t)low;
}

static __global__ void spans_kernel(const struct rotate_cuda_spans call)
{
    const int64_t token = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (token >= call.tokens)
        return;
    const int64_t position = call.query_positions[token];
    call.spans[token] = {call.window > 0 ? keys_up_to(call, position - call.window) : 0,
                         keys_up_to(call, position)};
}

int rotate_cuda_spans(const struct rotate_cuda_spans *call, cudaStream_t stream, struct error *err)
{
    enum { THREADS = 128 };
    if (call->tokens == 0)
        return 0;
    GPU_LAUNCH(spans_kernel, (unsigned)i64_ceil_div(call->tokens, THREADS), THREADS, 0, stream, *call);
    return gpu_check_launch("finding what queries see", err);
}

/* ---- finishing: a block a token. Bytes an element: 4 read, 2 written ---- */

template <int V> static __global__ void finish_kernel(const struct rotate_cuda_finish call)
{
    const int group = call.heads / call.kv_heads, units = call.dim / V;
    for (int u = threadIdx.x; u < call.heads * units; u += blockDim.x) {
        const int head = u / units, e = u % units * V;
        const int64_t row = (head / group * call.tokens + blockIdx.x) * group + head % group;
        const float l = call.l[row];
        float some[V];
        gpu_load(some, call.o + row * call.dim + e);
        for (int k = 0; k < V; k++)
            some[k] = l == 0 ? 0 : some[k] / l;
        gpu_store((__nv_bfloat16 *)call.out + ((int64_t)blockIdx.x * call.heads + head) * call.dim + e, some);
    }
}

int rotate_cuda_finish(const struct rotate_cuda_finish *call, cudaStream_t stream, struct error *err)
{
    if (call->tokens == 0)
        return 0;
    const bool fours = gpu_in_fours(call->o, call->dim) && gpu_in_fours((__nv_bfloat16 *)call->out, call->dim);
    const auto finish = fours ? finish_kernel<4> : finish_kernel<1>;
    GPU_LAUNCH(finish, (unsigned)call->tokens, gpu_row_threads((int64_t)call->heads * call->dim / (fours ? 4 : 1)),
               0, stream, *call);
    return gpu_check_launch("finishing attention", err);
}

/* ---- memory: a block a token. Bytes an element: 4 read, 2 written ---- */

template <int V> static __global__ void put_kernel(const struct memory_cuda_put call)
{
    const int units = call.dim / V;
    const int64_t row = blockIdx.x * call.stride;
    for (int u = threadIdx.x; u < call.kv_heads * units; u += blockDim.x) {
        const int64_t at = (u / units * call.capacity + call.first + blockIdx.x) * call.dim + u % units * V;
        float some[V];
        gpu_load(some, call.k + row + u * V);
        gpu_store((__nv_bfloat16 *)call.keys + at, some);
        gpu_load(some, call.v + row + u * V);
        gpu_store((__nv_bfloat16 *)call.values + at, some);
    }
}

int memory_cuda_put(const struct memory_cuda_put *call, cudaStream_t stream, struct error *err)
{
    if (call->rows == 0)
        return 0;
    const int dim = call->dim;
    const bool fours = dim % 4 == 0 && gpu_in_fours(call->k, call->stride) && gpu_in_fours(call->v, call->stride) &&
                       gpu_in_fours((__nv_bfloat16 *)call->keys, dim) &&
                       gpu_in_fours((__nv_bfloat16 *)call->values, dim);
    const auto put = fours ? put_kernel<4> : put_kernel<1>;
    GPU_LAUNCH(put, (unsigned)call->rows, gpu_row_threads((int64_t)call->kv_heads * dim / (fours ? 4 : 1)), 0,
               stream, *call);
    return gpu_check_launch("keeping keys and values", err);
}
