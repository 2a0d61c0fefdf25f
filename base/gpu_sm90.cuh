/* What base/gpu.cuh says of GPUs from sm_80 on, of sm_90a: barriers in shared memory, copies of boxes of a tensor
 * (TMA), products of warpgroups (wgmma), and registers handed from one warpgroup to another. For files that are
 * compiled for sm_90a alone. tests/simt/base/gpu_sm90.cuh has the same names for a CPU.
 *
 * A warpgroup is 4 warps, 128 threads, the first a multiple of 128.
 */
#ifndef LONGHAUL_BASE_GPU_SM90_CUH
#define LONGHAUL_BASE_GPU_SM90_CUH

#include "base/gpu.cuh"

#include <cuda.h>

/* ---- barriers in shared memory (mbarrier) ----
 * A barrier is in phase 0, 1, 2, ...; a phase is over when `count` threads have arrived and all bytes expected in
 * it are there, and the next begins at once. */

static __device__ __forceinline__ void gpu_barrier_init(uint64_t *barrier, unsigned count)
{
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(gpu_shared_address(barrier)), "r"(count)
                 : "memory");
}

/* By the thread that made barriers, before the __syncthreads after which they are used: copies see them, too. */
static __device__ __forceinline__ void gpu_barriers_publish()
{
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

static __device__ __forceinline__ void gpu_barrier_arrive(uint64_t *barrier)
{
    asm volatile("mbarrier.arrive.release.cta.shared::cta.b64 _, [%0];" ::"r"(gpu_shared_address(barrier))
                 : "memory");
}

/* Arrive, and let the phase wait for so many bytes of copies. */
static __device__ __forceinline__ void gpu_barrier_expect(uint64_t *barrier, unsigned bytes)
{
    asm volatile(
        "mbarrier.arrive.expect_tx.release.cta.shared::cta.b64 _, [%0], %1;" ::"r"(gpu_shared_address(barrier)),
        "r"(bytes)
        : "memory");
}

/* Wait until the phase of that parity is over: at once where the barrier is in a phase of the other parity, so that
 * parity 1 does not wait for a new barrier. */
static __device__ __forceinline__ void gpu_barrier_wait(uint64_t *barrier, unsigned parity)
{
    unsigned over;
    do
        asm volatile("{ .reg .pred over; mbarrier.try_wait.parity.acquire.cta.shared::cta.b64 over, [%1], %2; "
                     "selp.u32 %0, 1, 0, over; }"
                     : "=r"(over)
                     : "r"(gpu_shared_address(barrier)), "r"(parity)
                     : "memory");
    while (!over);
}

/* ---- barriers of some of the block's warps (bar): index 1 .. 15, threads: a multiple of 32 ---- */

/* Wait until so many threads are there, those that have only arrived included. */
static __device__ __forceinline__ void gpu_group_wait(int index, int threads)
{
    asm volatile("bar.sync %0, %1;" ::"r"(index), "r"(threads) : "memory");
}

static __device__ __forceinline__ void gpu_group_arrive(int index, int threads)
{
    asm volatile("bar.arrive %0, %1;" ::"r"(index), "r"(threads) : "memory");
}

/* ---- registers: by all threads of a warpgroup ---- */

/* Give registers back, down to so many a thread; a multiple of 8. */
template <int REGISTERS> static __device__ __forceinline__ void gpu_registers_shrink()
{
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(REGISTERS));
}

/* Take so many, when others have given enough back. */
template <int REGISTERS> static __device__ __forceinline__ void gpu_registers_grow()
{
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(REGISTERS));
}

/* ---- copies of boxes (TMA): by one thread ---- */

/* The box of a tensor of 3 dimensions that begins at (column, row, plane), to shared memory aligned to 1024 bytes,
 * as the map says; what lies outside the tensor becomes zeros. The barrier gets the bytes of the whole box. */
static __device__ __forceinline__ void gpu_copy_box(void *shared, const CUtensorMap *map, int3 at,
                                                    uint64_t *barrier)
{
    asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes "
                 "[%0], [%1, {%2, %3, %4}], [%5];" ::"r"(gpu_shared_address(shared)),
                 "l"(map), "r"(at.x), "r"(at.y), "r"(at.z), "r"(gpu_shared_address(barrier))
                 : "memory");
}

/* ---- products of a warpgroup (wgmma) ----
 * They are under way until a gpu_wgmma_wait says otherwise; until then their registers must not be touched nor
 * their shared memory written.
 *
 * An operand in shared memory lies in rows of 128 bytes (64 numbers), swizzled: bits 4-6 of each address are XORed
 * with its bits 7-9, as TMA does with CU_TENSOR_MAP_SWIZZLE_128B. 8 rows are a pattern of 1024 bytes, aligned to
 * its size. */

/* Where an operand begins, before swizzling, and how it goes on. `stride`: bytes from 8 rows to the next 8.
 * `leading`: bytes from 64 columns to the next 64, where n runs along rows (gpu_wgmma_turned) and is more than 64;
 * else it is not used, and 16 by custom. */
static __device__ __forceinline__ uint64_t gpu_matrix(const void *shared, unsigned leading, unsigned stride)
{
    const uint64_t swizzle_128 = 1;
    return (uint64_t)(gpu_shared_address(shared) >> 4 & 0x3fff) | (uint64_t)(leading >> 4 & 0x3fff) << 16 |
           (uint64_t)(stride >> 4 & 0x3fff) << 32 | swizzle_128 << 62;
}

/* The same so many bytes further on, a multiple of 16: cheaper than to make it anew. */
static __device__ __forceinline__ uint64_t gpu_matrix_after(uint64_t matrix, unsigned bytes)
{
    return (matrix & 0xffffffff00000000u) | (uint32_t)((uint32_t)matrix + (bytes >> 4));
}

/* Before the first product, and after registers that one uses were written by others. */
static __device__ __forceinline__ void gpu_wgmma_fence()
{
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}

/* The products begun since the last commit are one group. */
static __device__ __forceinline__ void gpu_wgmma_commit()
{
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}

/* Wait until at most PENDING groups are under way. */
template <int PENDING> static __device__ __forceinline__ void gpu_wgmma_wait()
{
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(PENDING) : "memory");
}

/* The compiler takes registers of products under way for ordinary ones: this keeps what is done with them on its
 * side of a fence or a wait. */
template <int BLOCKS> static __device__ __forceinline__ void gpu_wgmma_settle(float (&d)[BLOCKS][4])
{
#pragma unroll
    for (int j = 0; j < BLOCKS; j++)
        asm volatile("" : "+f"(d[j][0]), "+f"(d[j][1]), "+f"(d[j][2]), "+f"(d[j][3])::"memory");
}

template <int STEPS> static __device__ __forceinline__ void gpu_wgmma_settle(uint32_t (&a)[STEPS][4])
{
#pragma unroll
    for (int j = 0; j < STEPS; j++)
        asm volatile("" : "+r"(a[j][0]), "+r"(a[j][1]), "+r"(a[j][2]), "+r"(a[j][3])::"memory");
}

/* The accumulators of n blocks of 8 columns as operands of asm, and what these are called in it. */
#define GPU_BLOCK(j) "+f"(d[j][0]), "+f"(d[j][1]), "+f"(d[j][2]), "+f"(d[j][3])
#define GPU_BLOCKS_8(j)                                                                                            \
    GPU_BLOCK(j), GPU_BLOCK(j + 1), GPU_BLOCK(j + 2), GPU_BLOCK(j + 3), GPU_BLOCK(j + 4), GPU_BLOCK(j + 5),        \
        GPU_BLOCK(j + 6), GPU_BLOCK(j + 7)
#define GPU_D_8  GPU_BLOCKS_8(0)
#define GPU_D_10 GPU_D_8, GPU_BLOCK(8), GPU_BLOCK(9)
#define GPU_D_12 GPU_D_10, GPU_BLOCK(10), GPU_BLOCK(11)
#define GPU_D_16 GPU_D_8, GPU_BLOCKS_8(8)
#define GPU_D_32 GPU_D_16, GPU_BLOCKS_8(16), GPU_BLOCKS_8(24)
#define GPU_NAMES_8                                                                                                \
    "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"                                         \
    ", %16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define GPU_NAMES_10                                                                                               \
    GPU_NAMES_8                                                                                                    \
    ", %32, %33, %34, %35, %36, %37, %38, %39"
#define GPU_NAMES_12                                                                                               \
    GPU_NAMES_10                                                                                                   \
    ", %40, %41, %42, %43, %44, %45, %46, %47"
#define GPU_NAMES_16                                                                                               \
    GPU_NAMES_12                                                                                                   \
    ", %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define GPU_NAMES_32                                                                                               \
    GPU_NAMES_16                                                                                                   \
    ", %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79"                             \
    ", %80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95"                             \
    ", %96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111"                 \
    ", %112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"

/* d [64 x n] (+)= a [64 x 16] b [16 x n], bf16 in, f32 out; a and b in shared memory, k along rows, which are those
 * of a and the columns of b. Warp w of the warpgroup has rows 16 w .. 16 w + 15 of d, block j of 8 columns in d[j],
 * as gpu_mma_bf16 has them. n: 8 BLOCKS, 64 or 128. */
#define GPU_WGMMA(n, blocks, of_a, of_b, of_add)                                                                   \
    static __device__ __forceinline__ void gpu_wgmma(float(&d)[blocks][4], uint64_t a, uint64_t b, bool add)       \
    {                                                                                                              \
        asm volatile("{ .reg .pred add; setp.ne.b32 add, %" #of_add ", 0; "                                        \
                     "wgmma.mma_async.sync.aligned.m64n" #n "k16.f32.bf16.bf16 {" GPU_NAMES_##blocks               \
                     "}, "                                                                                         \
                     "%" #of_a ", %" #of_b ", add, 1, 1, 0, 0; }"                                                  \
                     : GPU_D_##blocks                                                                              \
                     : "l"(a), "l"(b), "r"((int)add));                                                             \
    }
GPU_WGMMA(64, 8, 32, 33, 34)
GPU_WGMMA(128, 16, 64, 65, 66)

/* d [64 x n] += a [64 x 16] b [16 x n]; a in registers, those of gpu_mma_bf16 in each warp; b in shared memory, n
 * along rows, a row for each k. n: 64, 80, 96, 128 or 256. */
#define GPU_WGMMA_TURNED(n, blocks, of_a0, of_a1, of_a2, of_a3, of_b)                                              \
    static __device__ __forceinline__ void gpu_wgmma_turned(float(&d)[blocks][4], const uint32_t(&a)[4],           \
                                                            uint64_t b)                                            \
    {                                                                                                              \
        asm volatile("wgmma.mma_async.sync.aligned.m64n" #n "k16.f32.bf16.bf16 {" GPU_NAMES_##blocks               \
                     "}, "                                                                                         \
                     "{%" #of_a0 ", %" #of_a1 ", %" #of_a2 ", %" #of_a3 "}, %" #of_b ", 1, 1, 1, 1;"               \
                     : GPU_D_##blocks                                                                              \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b));                                        \
    }
GPU_WGMMA_TURNED(64, 8, 32, 33, 34, 35, 36)
GPU_WGMMA_TURNED(80, 10, 40, 41, 42, 43, 44)
GPU_WGMMA_TURNED(96, 12, 48, 49, 50, 51, 52)
GPU_WGMMA_TURNED(128, 16, 64, 65, 66, 67, 68)
GPU_WGMMA_TURNED(256, 32, 128, 129, 130, 131, 132)

#undef GPU_WGMMA_TURNED
#undef GPU_WGMMA
#undef GPU_NAMES_8
#undef GPU_NAMES_10
#undef GPU_NAMES_12
#undef GPU_NAMES_16
#undef GPU_NAMES_32
#undef GPU_D_8
#undef GPU_D_10
#undef GPU_D_12
#undef GPU_D_16
#undef GPU_D_32
#undef GPU_BLOCKS_8
#undef GPU_BLOCK

#endif
