/* Rows of numbers on a GPU: several at a time where they are aligned, bf16 or f32 in memory and f32 in registers,
 * and sums over the threads of a block. For files *_cuda.cu. */
#ifndef LONGHAUL_BASE_GPU_ROWS_CUH
#define LONGHAUL_BASE_GPU_ROWS_CUH

#include "base/gpu.cuh"

enum { GPU_WARP = 32, GPU_ROW_THREADS = 256 /* of a block that has a row to itself, at most */ };

/* ---- V numbers at once: 1, 4 or (loading bf16, storing f32) 8. Addresses are aligned to 4 numbers or 8 bf16 ----
 */

template <int V> static __device__ __forceinline__ void gpu_load(float (&out)[V], const float *at)
{
    static_assert(V == 1 || V == 4, "numbers of f32 at once");
    if constexpr (V == 4) {
        const float4 four = *reinterpret_cast<const float4 *>(at);
        out[0] = four.x, out[1] = four.y, out[2] = four.z, out[3] = four.w;
    } else {
        out[0] = *at;
    }
}

/* Two bf16 that lie in a word, the low half first. */
static __device__ __forceinline__ void gpu_unpack_bf16(float *out, uint32_t pair)
{
    out[0] = __uint_as_float(pair << 16), out[1] = __uint_as_float(pair & 0xffff0000u);
}

template <int V> static __device__ __forceinline__ void gpu_load(float (&out)[V], const __nv_bfloat16 *at)
{
    if constexpr (V == 8) {
        const uint4 eight = *reinterpret_cast<const uint4 *>(at);
        gpu_unpack_bf16(out, eight.x), gpu_unpack_bf16(out + 2, eight.y);
        gpu_unpack_bf16(out + 4, eight.z), gpu_unpack_bf16(out + 6, eight.w);
    } else if constexpr (V == 4) {
        const uint2 four = *reinterpret_cast<const uint2 *>(at);
        gpu_unpack_bf16(out, four.x), gpu_unpack_bf16(out + 2, four.y);
    } else {
        out[0] = __bfloat162float(*at);
    }
}

template <int V> static __device__ __forceinline__ void gpu_store(float *at, const float (&x)[V])
{
    static_assert(V == 1 || V % 4 == 0, "numbers of f32 at once");
    if constexpr (V == 1)
        *at = x[0];
    else
        for (int i = 0; i < V; i += 4)
            *reinterpret_cast<float4 *>(at + i) = float4{x[i], x[i + 1], x[i + 2], x[i + 3]};
}

template <int V> static __device__ __forceinline__ void gpu_store(__nv_bfloat16 *at, const float (&x)[V])
{
    static_assert(V == 1 || V == 4, "numbers of bf16 at once");
    if constexpr (V == 4)
        *reinterpret_cast<uint2 *>(at) = uint2{gpu_pack_bf16(x[0], x[1]), gpu_pack_bf16(x[2], x[3])};
    else
        *at = __float2bfloat16_rn(x[0]);
}

/* Whether rows that begin at `at`, `stride` numbers apart, can be read four numbers at a time; true of NULL. */
template <class T> static inline bool gpu_in_fours(const T *at, int64_t stride)
{
    return stride % 4 == 0 && reinterpret_cast<uintptr_t>(at) % (4 * sizeof(T)) == 0;
}

/* Threads for a row of so many vectors: whole warps. */
static inline unsigned gpu_row_threads(int64_t vectors)
{
    const int64_t warps = (vectors + GPU_WARP - 1) / GPU_WARP, most = GPU_ROW_THREADS / GPU_WARP;
    return (unsigned)(GPU_WARP * (warps < 1 ? 1 : warps < most ? warps : most));
}

/* ---- sums, in the same order every time ---- */

template <class T> static __device__ __forceinline__ T gpu_warp_sum(T x)
{
    for (int far = GPU_WARP / 2; far > 0; far /= 2)
        x += __shfl_xor_sync(~0u, x, far);
    return x;
}

static __device__ __forceinline__ float gpu_warp_max(float x)
{
    for (int far = GPU_WARP / 2; far > 0; far /= 2)
        x = fmaxf(x, __shfl_xor_sync(~0u, x, far));
    return x;
}

/* Of all threads of the block, to all of them; parts [GPU_WARP] lies in shared memory. */
template <class T> static __device__ __forceinline__ T gpu_block_sum(T x, T *parts)
{
    x = gpu_warp_sum(x);
    __syncthreads(); /* the parts of the sum before have been read */
    if (threadIdx.x % GPU_WARP == 0)
        parts[threadIdx.x / GPU_WARP] = x;
    __syncthreads();
    T sum = 0;
    for (unsigned warp = 0; warp < blockDim.x / GPU_WARP; warp++)
        sum += parts[warp];
    return sum;
}

#endif
