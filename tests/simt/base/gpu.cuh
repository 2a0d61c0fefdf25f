/* base/gpu.cuh as simt runs it: the same names, instruction by instruction in plain C++. What each does is said in
 * the root's base/gpu.cuh; how fragments lie in a warp is that of the PTX manual. */
#ifndef LONGHAUL_BASE_GPU_CUH
#define LONGHAUL_BASE_GPU_CUH

#include "simt.h"

#define GPU_LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                                                 \
    simt::start(#kernel, simt::to_dims(grid), simt::to_dims(block), shared_bytes, stream, kernel, __VA_ARGS__)

#define GPU_SHARED(name) unsigned char *const name = simt::running->shared

static inline float gpu_exp2(float x)
{
    return std::exp2(x);
}

/* ---- copies past the registers: done when they are waited for ---- */

static inline void gpu_copy16_async(void *shared, const void *global, bool there)
{
    if ((uintptr_t)shared % 16 != 0 || (uintptr_t)global % 16 != 0)
        simt::wrong("a copy of 16 bytes that is not aligned");
    simt::current->copies.back().push_back({shared, global, there});
}

static inline void gpu_copy_commit()
{
    simt::current->copies.emplace_back();
}

template <int PENDING> static inline void gpu_copy_wait()
{
    auto &groups = simt::current->copies;
    for (; groups.size() > PENDING + 1; groups.erase(groups.begin()))
        for (const simt::copy16 &copy : groups.front())
            copy.there ? memcpy(copy.to, copy.from, 16) : memset(copy.to, 0, 16);
}

/* ---- matrices ---- */

namespace simt
{

static inline const void *row_of_matrix(const void *row)
{
    if ((uintptr_t)row % 16 != 0)
        wrong("a row of a matrix that is not aligned to 16 bytes");
    return row;
}

} // namespace simt

static inline void gpu_load_matrices(uint32_t (&out)[4], const void *row)
{
    row = simt::row_of_matrix(row);
    const auto slots = simt::tell_warp(&row, sizeof row);
    const int lane = simt::current->lane;
    for (int i = 0; i < 4; i++)
        memcpy(&out[i], simt::told<const char *>(slots, 8 * i + lane / 4) + 4 * (lane % 4), sizeof out[i]);
}

static inline void gpu_load_matrices_turned(uint32_t (&out)[4], const void *row)
{
    row = simt::row_of_matrix(row);
    const auto slots = simt::tell_warp(&row, sizeof row);
    const int lane = simt::current->lane;
    for (int i = 0; i < 4; i++)
        for (int odd = 0; odd < 2; odd++)
            memcpy((char *)&out[i] + 2 * odd,
                   simt::told<const char *>(slots, 8 * i + 2 * (lane % 4) + odd) + 2 * (lane / 4), 2);
}

static inline float gpu_bf16_of(uint32_t pair, int odd)
{
    return __uint_as_float(odd ? pair & 0xffff0000u : pair << 16);
}

static inline void gpu_mma_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2])
{
    struct {
        uint32_t a[4], b[2];
    } mine;
    memcpy(mine.a, a, sizeof a);
    memcpy(mine.b, b, sizeof b);
    const auto slots = simt::tell_warp(&mine, sizeof mine);
    const int lane = simt::current->lane;
    for (int i = 0; i < 4; i++) {
        const int row = lane / 4 + 8 * (i / 2), column = 2 * (lane % 4) + i % 2;
        float sum = 0;
        for (int k = 0; k < 16; k++) {
            /* a: register (row / 8) + 2 (k / 8) of lane 4 (row % 8) + k % 8 / 2; b: register k / 8 of lane
             * 4 column + k % 8 / 2 */
            const auto &of_a = simt::told<decltype(mine)>(slots, 4 * (row % 8) + k % 8 / 2);
            const auto &of_b = simt::told<decltype(mine)>(slots, 4 * column + k % 8 / 2);
            sum += gpu_bf16_of(of_a.a[row / 8 + 2 * (k / 8)], k % 2) * gpu_bf16_of(of_b.b[k / 8], k % 2);
        }
        d[i] += sum;
    }
}

static inline uint32_t gpu_pack_bf16(float low, float high)
{
    const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    uint32_t bits;
    memcpy(&bits, &pair, sizeof bits);
    return bits;
}

#endif
