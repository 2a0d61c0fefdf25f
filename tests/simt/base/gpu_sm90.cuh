/* base/gpu_sm90.cuh as simt runs it. Copies are over at once, as early as a GPU could be; products of a warpgroup
 * are computed when they are waited for, as late as it could be, from what registers and shared memory hold by
 * then: so a slot that is given back too early, or a register that is used too early, shows. */
#ifndef LONGHAUL_BASE_GPU_SM90_CUH
#define LONGHAUL_BASE_GPU_SM90_CUH

#include "base/gpu.cuh"

#include <cuda.h>
#include <functional>
#include <unordered_map>
#include <vector>

#include "tensor_map.h"

/* ---- barriers in shared memory ---- */

namespace simt
{

/* The 64 bits of a barrier. A phase is over when nobody and nothing is awaited; the bytes may be there before they
 * are expected. */
struct phase {
    uint64_t count : 12, awaited : 12, odd : 1, inited : 1, : 6;
    int64_t bytes : 32;
};
static_assert(sizeof(phase) == sizeof(uint64_t), "a barrier has 64 bits");

template <class change> static inline void change_phase(uint64_t *barrier, change &&apply)
{
    phase now;
    memcpy(&now, barrier, sizeof now);
    apply(now);
    if (now.awaited == 0 && now.bytes == 0) {
        now.awaited = now.count;
        now.odd ^= 1;
    }
    memcpy(barrier, &now, sizeof now);
    running->moves++;
}

static inline void arrive_in_phase(uint64_t *barrier, int64_t bytes)
{
    change_phase(barrier, [=](phase &now) {
        if (now.awaited == 0)
            wrong("more threads arrive in a phase of a barrier than it is for");
        now.awaited = now.awaited - 1;
        now.bytes = now.bytes + bytes;
    });
}

} // namespace simt

static inline void gpu_barrier_init(uint64_t *barrier, unsigned count)
{
    const simt::phase first = {count, count, 0, 1, 0};
    memcpy(barrier, &first, sizeof first);
}

static inline void gpu_barriers_publish()
{
}

static inline void gpu_barrier_arrive(uint64_t *barrier)
{
    simt::arrive_in_phase(barrier, 0);
}

static inline void gpu_barrier_expect(uint64_t *barrier, unsigned bytes)
{
    simt::arrive_in_phase(barrier, bytes);
}

static inline void gpu_barrier_wait(uint64_t *barrier, unsigned parity)
{
    for (;;) {
        simt::phase now;
        memcpy(&now, barrier, sizeof now);
        if (now.odd != parity)
            break;
        simt::give_way();
    }
    simt::running->moves++;
}

static inline void gpu_group_wait(int index, int threads)
{
    simt::wait_at(index, threads);
}

static inline void gpu_group_arrive(int index, int threads)
{
    simt::arrive_at(index, threads);
}

/* ---- registers: there are enough ---- */

template <int REGISTERS> static inline void gpu_registers_shrink()
{
    static_assert(REGISTERS % 8 == 0 && REGISTERS >= 24, "what setmaxnreg takes");
}

template <int REGISTERS> static inline void gpu_registers_grow()
{
    static_assert(REGISTERS % 8 == 0 && REGISTERS <= 256, "what setmaxnreg takes");
}

/* ---- copies of boxes ---- */

namespace simt
{

static inline uint32_t place_in_shared(const void *shared)
{
    return (uint32_t)((const unsigned char *)shared - running->shared);
}

} // namespace simt

/* Where an offset in shared memory lies after the 128-byte swizzle. */
static inline uint32_t gpu_swizzle(uint32_t offset)
{
    return offset ^ (offset >> 7 & 7) << 4;
}

static inline void gpu_copy_box(void *shared, const CUtensorMap *map, int3 at, uint64_t *barrier)
{
    const simt::tensor_map of = simt::tensor_map_of(map);
    const uint32_t start = simt::place_in_shared(shared);
    if (start % 1024 != 0)
        simt::wrong("a box that is not aligned to its swizzle");
    for (uint32_t z = 0; z < of.box[2]; z++)
        for (uint32_t y = 0; y < of.box[1]; y++)
            for (uint32_t x = 0; x < of.box[0]; x++) {
                const int64_t column = (int64_t)at.x + x, row = (int64_t)at.y + y, plane = (int64_t)at.z + z;
                const bool inside = column >= 0 && column < (int64_t)of.sizes[0] && row >= 0 &&
                                    row < (int64_t)of.sizes[1] && plane >= 0 && plane < (int64_t)of.sizes[2];
                unsigned char *to =
                    simt::running->shared + gpu_swizzle(start + 2 * ((z * of.box[1] + y) * of.box[0] + x));
                if (inside)
                    memcpy(to, of.start + plane * of.strides[1] + row * of.strides[0] + 2 * column, 2);
                else
                    memset(to, 0, 2);
            }
    simt::change_phase(
        barrier, [&](simt::phase &now) { now.bytes = now.bytes - 2 * (int64_t)of.box[0] * of.box[1] * of.box[2]; });
}

/* ---- products of a warpgroup ---- */

namespace simt
{

/* What a thread has begun: products not yet in a group, and groups. */
struct products {
    std::vector<std::function<void()>> loose;
    std::vector<std::vector<std::function<void()>>> groups;
};

static inline products &products_begun()
{
    static thread_local std::unordered_map<const thread *, products> all;
    return all[current];
}

} // namespace simt

static inline uint64_t gpu_matrix(const void *shared, unsigned leading, unsigned stride)
{
    const uint64_t swizzle_128 = 1;
    return (uint64_t)(simt::place_in_shared(shared) >> 4 & 0x3fff) | (uint64_t)(leading >> 4 & 0x3fff) << 16 |
           (uint64_t)(stride >> 4 & 0x3fff) << 32 | swizzle_128 << 62;
}

static inline uint64_t gpu_matrix_after(uint64_t matrix, unsigned bytes)
{
    return (matrix & 0xffffffff00000000u) | (uint32_t)((uint32_t)matrix + (bytes >> 4));
}

/* Number (along, across) of an operand: `along` runs in a row of 128 bytes, `across` from row to row. */
static inline float gpu_matrix_at(uint64_t matrix, int along, int across)
{
    const uint32_t start = (uint32_t)(matrix & 0x3fff) << 4, leading = (uint32_t)(matrix >> 16 & 0x3fff) << 4,
                   stride = (uint32_t)(matrix >> 32 & 0x3fff) << 4;
    if (matrix >> 62 != 1 || (matrix >> 49 & 7) != 0)
        simt::wrong("an operand that is not swizzled by 128 bytes from the start of a pattern");
    const uint32_t offset =
        gpu_swizzle(start + along / 64 * leading + along % 64 * 2 + across / 8 * stride + across % 8 * 128);
    if (offset + 2 > simt::running->shared_bytes)
        simt::wrong("an operand that goes beyond the shared memory");
    uint16_t bits;
    memcpy(&bits, simt::running->shared + offset, sizeof bits);
    return gpu_bf16_of(bits, 0);
}

static inline void gpu_wgmma_fence()
{
}

static inline void gpu_wgmma_commit()
{
    simt::products &begun = simt::products_begun();
    begun.groups.push_back(std::move(begun.loose));
    begun.loose.clear();
}

template <int PENDING> static inline void gpu_wgmma_wait()
{
    std::vector<std::vector<std::function<void()>>> &groups = simt::products_begun().groups;
    while (groups.size() > PENDING) {
        const std::vector<std::function<void()>> group = std::move(groups.front());
        groups.erase(groups.begin());
        for (const auto &product : group)
            product();
    }
}

template <int BLOCKS> static inline void gpu_wgmma_settle(float (&)[BLOCKS][4])
{
}

template <int STEPS> static inline void gpu_wgmma_settle(uint32_t (&)[STEPS][4])
{
}

/* The row of its warpgroup's 64 that element i of a block is in, and its column of the block's 8. */
static inline int gpu_wgmma_row(int i)
{
    return (int)threadIdx.x / 32 % 4 * 16 + simt::current->lane / 4 + 8 * (i / 2);
}

static inline int gpu_wgmma_column(int i)
{
    return 2 * (simt::current->lane % 4) + i % 2;
}

template <int BLOCKS> static inline void gpu_wgmma(float (&d)[BLOCKS][4], uint64_t a, uint64_t b, bool add)
{
    simt::products_begun().loose.push_back([=, &d] {
        for (int j = 0; j < BLOCKS; j++)
            for (int i = 0; i < 4; i++) {
                float sum = 0;
                for (int k = 0; k < 16; k++)
                    sum += gpu_matrix_at(a, k, gpu_wgmma_row(i)) * gpu_matrix_at(b, k, 8 * j + gpu_wgmma_column(i));
                d[j][i] = add ? d[j][i] + sum : sum;
            }
    });
}

template <int BLOCKS> static inline void gpu_wgmma_turned(float (&d)[BLOCKS][4], const uint32_t (&a)[4], uint64_t b)
{
    simt::products_begun().loose.push_back([=, &d, &a] {
        const auto slots = simt::tell_warp(a, sizeof a);
        for (int j = 0; j < BLOCKS; j++)
            for (int i = 0; i < 4; i++) {
                float sum = 0;
                for (int k = 0; k < 16; k++) {
                    const uint32_t(&of)[4] =
                        simt::told<uint32_t[4]>(slots, simt::current->lane / 4 * 4 + k % 8 / 2);
                    sum += gpu_bf16_of(of[i / 2 + 2 * (k / 8)], k % 2) *
                           gpu_matrix_at(b, 8 * j + gpu_wgmma_column(i), k);
                }
                d[j][i] += sum;
            }
    });
}

#endif
