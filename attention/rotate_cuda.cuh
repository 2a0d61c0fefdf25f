/* Rotation as threads do it: V pairs of elements of a head at a time, with the angles of a position composed from a
 * rope's tables on the GPU. Private to attention. */
#ifndef LONGHAUL_ATTENTION_ROTATE_CUDA_CUH
#define LONGHAUL_ATTENTION_ROTATE_CUDA_CUH

#include "attention/rotate_cuda.h"
#include "base/gpu_rows.cuh"

template <int V> struct rotate_pairs {
    float a[V], b[V];
};

template <int V> struct rotate_angles {
    float cosines[V], sines[V];
};

/* Whether pairs can be taken four at a time. */
static inline bool rotate_in_fours(const struct rope_tables &tables, int dim)
{
    return tables.half % 4 == 0 && dim % 4 == 0;
}

/* Those of the pairs i .. i + V at a position. */
template <int V>
static __device__ __forceinline__ rotate_angles<V> rotate_angles_at(const struct rope_tables &tables,
                                                                    int64_t position, int i)
{
    const int half = tables.half;
    const float *low = tables.rows + position % ROPE_LEAST * 2 * half + i;
    const float *high = tables.rows + (ROPE_LEAST + position / ROPE_LEAST) * 2 * half + i;
    struct rotate_angles<V> x, y, angles;
    gpu_load(x.cosines, low);
    gpu_load(x.sines, low + half);
    gpu_load(y.cosines, high);
    gpu_load(y.sines, high + half);
    for (int k = 0; k < V; k++) {
        angles.cosines[k] = x.cosines[k] * y.cosines[k] - x.sines[k] * y.sines[k];
        angles.sines[k] = x.cosines[k] * y.sines[k] + x.sines[k] * y.cosines[k];
    }
    return angles;
}

/* Where the pairs i .. i + V lie: V numbers from the first place on and V from the second. */
template <int V> static __device__ __forceinline__ int2 rotate_places(const struct rope_tables &tables, int i)
{
    return tables.pairs == ROPE_NEIGHBOURS ? int2{2 * i, 2 * i + V} : int2{i, tables.half + i};
}

template <int V, class T>
static __device__ __forceinline__ rotate_pairs<V> rotate_load(const struct rope_tables &tables, const T *x, int i)
{
    const int2 at = rotate_places<V>(tables, i);
    struct rotate_pairs<V> found;
    gpu_load(found.a, x + at.x);
    gpu_load(found.b, x + at.y);
    if constexpr (V == 4) {
        const struct rotate_pairs<V> f = found;
        if (tables.pairs == ROPE_NEIGHBOURS)
            found = {{f.a[0], f.a[2], f.b[0], f.b[2]}, {f.a[1], f.a[3], f.b[1], f.b[3]}};
    }
    return found;
}

template <int V, class T>
static __device__ __forceinline__ void rotate_store(const struct rope_tables &tables, struct rotate_pairs<V> x,
                                                    T *to, int i)
{
    const int2 at = rotate_places<V>(tables, i);
    if constexpr (V == 4) {
        if (tables.pairs == ROPE_NEIGHBOURS)
            x = {{x.a[0], x.b[0], x.a[1], x.b[1]}, {x.a[2], x.b[2], x.a[3], x.b[3]}};
    }
    gpu_store(to + at.x, x.a);
    gpu_store(to + at.y, x.b);
}

template <int V>
static __device__ __forceinline__ rotate_pairs<V> rotate_turn(const struct rotate_pairs<V> &x,
                                                              const struct rotate_angles<V> &angles)
{
    struct rotate_pairs<V> turned;
    for (int k = 0; k < V; k++) {
        turned.a[k] = x.a[k] * angles.cosines[k] - x.b[k] * angles.sines[k];
        turned.b[k] = x.a[k] * angles.sines[k] + x.b[k] * angles.cosines[k];
    }
    return turned;
}

/* The pairs i .. i + V of a raw query, times `scale` and rotated. */
template <int V>
static __device__ __forceinline__ rotate_pairs<V> rotate_query(const struct rope_tables &tables, const float *query,
                                                               float scale, const struct rotate_angles<V> &angles,
                                                               int i)
{
    struct rotate_pairs<V> x = rotate_load<V>(tables, query, i);
    for (int k = 0; k < V; k++)
        x.a[k] *= scale, x.b[k] *= scale;
    return rotate_turn(x, angles);
}

/* The pairs i .. i + V of a raw key, rotated. offset [dim], unless NULL, is added before, and offset * slow_cosine
 * [dim] taken off again after. */
template <int V>
static __device__ __forceinline__ rotate_pairs<V>
rotate_key(const struct rope_tables &tables, const __nv_bfloat16 *key, const float *offset,
           const float *slow_cosine, const struct rotate_angles<V> &angles, int i)
{
    struct rotate_pairs<V> x = rotate_load<V>(tables, key, i);
    if (!offset)
        return rotate_turn(x, angles);
    const struct rotate_pairs<V> more = rotate_load<V>(tables, offset, i),
                                 rest = rotate_load<V>(tables, slow_cosine, i);
    for (int k = 0; k < V; k++)
        x.a[k] += more.a[k], x.b[k] += more.b[k];
    x = rotate_turn(x, angles);
    for (int k = 0; k < V; k++)
        x.a[k] -= more.a[k] * rest.a[k], x.b[k] -= more.b[k] * rest.b[k];
    return x;
}

/* Element e of a raw key that does not turn. */
static __device__ __forceinline__ float rotate_key_rest(const __nv_bfloat16 *key, const float *offset,
                                                        const float *slow_cosine, int e)
{
    const float x = __bfloat162float(key[e]);
    return offset ? (x + offset[e]) - offset[e] * slow_cosine[e] : x;
}

#endif
