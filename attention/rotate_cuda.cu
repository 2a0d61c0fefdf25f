#include "attention/rotate_cuda.h"

#include <math.h>

#include "base/gpu.h"
#include "base/gpu_rows.cuh"

extern "C" {
#include "attention/kernel.h"
}

#define LOG2_E 1.44269504088896340736f

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
    const int half = tables.half;
    const float *low = tables.rows + position % ROPE_LEAST * 2 * half;
    const float *high = tables.rows + (ROPE_LEAST + position / ROPE_LEAST) * 2 * half;
    for (int i = threadIdx.x; i < half; i += blockDim.x) {
        cosines[i] = low[i] * high[i] - low[half + i] * high[half + i];
        cosines[half + i] = low[i] * high[half + i] + low[half + i] * high[i];
    }
    __syncthreads();
}

/* ---- V pairs of a head, which a thread rotates ---- */

template <int V> struct pairs {
    float a[V], b[V];
};

/* Where the pairs i .. i + V lie: V numbers from the first place on and V from the second. */
template <int V> static __device__ __forceinline__ int2 places(const struct rope_tables &tables, int i)
{
    return tables.pairs == ROPE_NEIGHBOURS ? int2{2 * i, 2 * i + V} : int2{i, tables.half + i};
}

template <int V, class T>
static __device__ __forceinline__ struct pairs<V> load_pairs(const struct rope_tables &tables, const T *x, int i) {
    const int2 at = places<V>(tables, i);
    struct pairs<V> found;
    gpu_load(found.a, x + at.x);
    gpu_load(found.b, x + at.y);
    if constexpr (V == 4) {
        const struct pairs<V> f = found;
        if (tables.pairs == ROPE_NEIGHBOURS)
            found = {{f.a[0], f.a[2], f.b[0], f.b[2]}, {f.a[1], f.a[3], f.b[1], f.b[3]}};
    }
    return found;
}

template <int V, class T>
static __device__ __forceinline__ void store_pairs(const struct rope_tables &tables, struct pairs<V> x, T *to,
                                                   int i)
{
    const int2 at = places<V>(tables, i);
    if constexpr (V == 4) {
        if (tables.pairs == ROPE_NEIGHBOURS)
            x = {{x.a[0], x.b[0], x.a[1], x.b[1]}, {x.a[2], x.b[2], x.a[3], x.b[3]}};
    }
    gpu_store(to + at.x, x.a);
    gpu_store(to + at.y, x.b);
}

template <int V>
static __device__ __forceinline__ struct pairs<V> turn(const struct pairs<V> &x, const float *cosines,
                                                       const float *sines) {
    struct pairs<V> turned;
    for (int k = 0; k < V; k++) {
        turned.a[k] = x.a[k] * cosines[k] - x.b[k] * sines[k];
        turned.b[k] = x.a[k] * sines[k] + x.b[k] * cosines[k];
    }
    return turned;
}

/* Threads for a token of so many heads. */
static unsigned
token_threads(const struct rope_cuda *rope, int heads, int v)
{
    return gpu_row_threads((int64_t)heads * rope->tables.half / v);
}

static bool pairs_in_fours(const struct rope_cuda *rope, int dim)
{
    return rope->tables.half % 4 == 0 && dim % 4 == 0;
}

/* ---- queries: a block a token. Bytes an element: 4 read, 6 written ---- */

static __device__ __forceinline__ int64_t row_of(const struct rotate_cuda_queries &call, int head)
{
    const int group = call.heads / call.kv_heads;
    return (head / group * call.tokens + blockIdx.x) * group + head % group;
}

template <int V>
static __device__ void rotate_query(const struct rope_tables &tables, const struct rotate_cuda_queries &call,
                                    int head, int i, const float *cosines)
{
    const int64_t at = row_of(call, head) * call.dim;
    const float *q = call.q + blockIdx.x * call.stride + (int64_t)head * call.dim;
    struct pairs<V> x = load_pairs<V>(tables, q, i);
    for (int k = 0; k < V; k++)
        x.a[k] *= call.scale, x.b[k] *= call.scale;
    x = turn(x, cosines + i, cosines + tables.half + i);
    store_pairs(tables, x, (__nv_bfloat16 *)call.out + at, i);
    store_pairs(tables, pairs<V>{}, call.o + at, i);
}

template <int V>
static __global__ void rotate_queries_kernel(const struct rope_tables tables, const struct rotate_cuda_queries call)
{
    GPU_SHARED(shared);
    float *cosines = (float *)shared;
    find_angles(tables, call.positions[blockIdx.x], cosines);
    const int units = tables.half / V, rest = call.dim - 2 * tables.half;
    for (int u = threadIdx.x; u < call.heads * units; u += blockDim.x)
        rotate_query<V>(tables, call, u / units, u % units * V, cosines);
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
    const bool fours = pairs_in_fours(rope, dim) && gpu_in_fours(call->q, call->stride) &&
                       gpu_in_fours((__nv_bfloat16 *)call->out, dim) && gpu_in_fours(call->o, dim);
    const auto rotate_queries = fours ? rotate_queries_kernel<4> : rotate_queries_kernel<1>;
    struct rotate_cuda_queries in_base_2 = *call;
    in_base_2.scale *= LOG2_E;
    GPU_LAUNCH(rotate_queries, (unsigned)call->tokens, token_threads(rope, call->heads, fours ? 4 : 1),
               2 * (size_t)rope->tables.half * sizeof(float), stream, rope->tables, in_base_2);
    return gpu_check_launch("rotating queries", err);
}

/* ---- keys: a block a key. Bytes an element of k: 2 read, 2 written, and as many of v ---- */

template <int V>
static __device__ void rotate_key(const struct rope_tables &tables, const struct rotate_cuda_keys &call, int head,
                                  int i, const float *cosines)
{
    const int64_t from = (head * call.capacity + call.first + blockIdx.x) * call.dim;
    const int64_t to = (head * call.key_rows + blockIdx.x) * call.dim;
    struct pairs<V> x = load_pairs<V>(tables, (const __nv_bfloat16 *)call.keys + from, i), offset = {
    };
    if (call.offset)
        offset = load_pairs<V>(tables, call.offset + (int64_t)head * call.dim, i);
    for (int k = 0; call.offset && k < V; k++)
        x.a[k] += offset.a[k], x.b[k] += offset.b[k];
    x = turn(x, cosines + i, cosines + tables.half + i);
    if (call.offset) {
        const struct pairs<V> still = load_pairs<V>(tables, call.still, i);
        for (int k = 0; k < V; k++)
            x.a[k] -= offset.a[k] * still.a[k], x.b[k] -= offset.b[k] * still.b[k];
    }
    store_pairs(tables, x, (__nv_bfloat16 *)call.k + to, i);
}

/* An element that does not turn. */
static __device__ void keep_element(const struct rotate_cuda_keys &call, int head, int e)
{
    float key = __bfloat162float(
        ((const __nv_bfloat16 *)call.keys)[(head * call.capacity + call.first + blockIdx.x) * call.dim + e]);
    if (call.offset) {
        const float offset = call.offset[(int64_t)head * call.dim + e];
        key = (key + offset) - offset * call.still[e];
    }
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
        rotate_key<V>(tables, call, u / units, u % units * V, cosines);
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
    const bool fours = pairs_in_fours(rope, dim) && gpu_in_fours((const __nv_bfloat16 *)call->keys, dim) &&
                       gpu_in_fours((const __nv_bfloat16 *)call->values, dim) &&
                       gpu_in_fours((__nv_bfloat16 *)call->k, dim) && gpu_in_fours((__nv_bfloat16 *)call->v, dim) &&
                       gpu_in_fours(call->offset, dim) && gpu_in_fours(call->still, dim);
    const auto rotate_keys = fours ? rotate_keys_kernel<4> : rotate_keys_kernel<1>;
    GPU_LAUNCH(rotate_keys, (unsigned)i64_round_up(call->n, ATTN_KEY_TILE),
               token_threads(rope, call->kv_heads, fours ? 4 : 1), 2 * (size_t)rope->tables.half * sizeof(float),
               stream, rope->tables, *call);
    return gpu_check_launch("rotating keys", err);
}

/* ---- spans: a thread a token ---- */

static __global__ void spans_kernel(const struct rotate_cuda_spans call)
{
    const int64_t token = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (token >= call.tokens)
        return;
    const int64_t position = call.query_positions[token];
    int64_t low = 0, high = call.keys;
    while (low < high) {
        const int64_t middle = low + (high - low) / 2;
        if (call.key_positions[middle] <= position)
            low = middle + 1;
        else
            high = middle;
    }
    call.spans[token] = {0, (int32_t)low};
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
        if (call.lse && e == 0)
            call.lse[row] = l == 0 ? -INFINITY : call.m[row] * 0.69314718055994530942f + logf(l);
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
