/* What kernels need of a GPU that CUDA C has no words for: a launch, shared memory, and the instructions of the
 * tensor cores. tests/simt/base/gpu.cuh has the same names for a CPU, on which kernels are tested.
 *
 * Everything here is for whole warps: all 32 lanes call together.
 */
#ifndef LONGHAUL_BASE_GPU_CUH
#define LONGHAUL_BASE_GPU_CUH

#include <cuda_bf16.h>
#include <cuda_runtime.h>
#include <stdint.h>

/* kernel<<<grid, block, shared_bytes, stream>>>(arguments): grid and block are numbers or dim3. */
#define GPU_LAUNCH(kernel, grid, block, shared_bytes, stream, ...)                                                 \
    kernel<<<grid, block, shared_bytes, stream>>>(__VA_ARGS__)

/* The block's shared memory, of the size that the launch gave, aligned to 1024 bytes. */
#define GPU_SHARED(name) extern __shared__ __align__(1024) unsigned char name[]

/* 2^x, to about 2 units in the last place */
static __device__ __forceinline__ float gpu_exp2(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

static __device__ __forceinline__ uint32_t gpu_shared_address(const void *shared)
{
    return (uint32_t)__cvta_generic_to_shared(shared);
}

/* ---- copies past the registers (sm_80) ---- */

/* 16 bytes from global to shared memory, or 16 zeros: both aligned to 16. Over when a gpu_copy_wait says so. */
static __device__ __forceinline__ void gpu_copy16_async(void *shared, const void *global, bool there)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(gpu_shared_address(shared)), "l"(global),
                 "r"(there ? 16 : 0)
                 : "memory");
}

/* What this thread has begun since its last commit is one group. */
static __device__ __forceinline__ void gpu_copy_commit()
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}

/* Wait until at most PENDING of this thread's groups are under way. */
template <int PENDING> static __device__ __forceinline__ void gpu_copy_wait()
{
    asm volatile("cp.async.wait_group %0;" ::"n"(PENDING) : "memory");
}

/* ---- matrices (sm_80) ---- */

/* Four 8 x 8 matrices of 16-bit elements from shared memory. Lane l gives the address of row l % 8 of matrix l / 8
 * (16 bytes, aligned), and gets of each matrix i elements (l / 4, 2 (l % 4)) and (l / 4, 2 (l % 4) + 1) in out[i].
 */
static __device__ __forceinline__ void gpu_load_matrices(uint32_t (&out)[4], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(gpu_shared_address(row))
                 : "memory");
}

/* The same with each matrix transposed: elements (2 (l % 4), l / 4) and (2 (l % 4) + 1, l / 4). */
static __device__ __forceinline__ void gpu_load_matrices_turned(uint32_t (&out)[4], const void *row)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(gpu_shared_address(row))
                 : "memory");
}

/* d [16 x 8] += a [16 x 16] b [16 x 8], bf16 in, f32 out; lane l = 4 g + t has
 *   d: (g, 2t) (g, 2t+1) (g+8, 2t) (g+8, 2t+1)
 *   a: pairs (g, 2t..) (g+8, 2t..) (g, 2t+8..) (g+8, 2t+8..), the pair along k
 *   b: pairs (2t.., g) (2t+8.., g), the pair along k; the even one in the low half. */
static __device__ __forceinline__ void gpu_mma_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2])
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
                 "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

/* Two numbers rounded to bf16, `low` in the low half. */
static __device__ __forceinline__ uint32_t gpu_pack_bf16(float low, float high)
{
    const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
    return *reinterpret_cast<const uint32_t *>(&pair);
}

#endif
