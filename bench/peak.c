#include "bench/peak.h"

#include "base/clock.h"
#include "base/cpu.h"

/* The loops of the probe. Written in assembly so that no compiler, at any level of optimisation, moves an
 * accumulator to memory. Enough independent accumulators to hide the longest latency: 24 of 32 registers, 12 of 16.
 */
struct peak_loop {
    void (*run)(long iterations);
    double flops; /* of one iteration */
};

#define ZMM_ACCUMULATORS "8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31"
#define ZMM_CLOBBERS                                                                                               \
    "xmm0", "xmm1", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15", "xmm16", "xmm17",        \
        "xmm18", "xmm19", "xmm20", "xmm21", "xmm22", "xmm23", "xmm24", "xmm25", "xmm26", "xmm27", "xmm28",         \
        "xmm29", "xmm30", "xmm31"
#define YMM_ACCUMULATORS "4,5,6,7,8,9,10,11,12,13,14,15"
#define YMM_CLOBBERS                                                                                               \
    "xmm0", "xmm1", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14",   \
        "xmm15"

__attribute__((target("avx512f"))) static void run_avx512_fma(long iterations)
{
    __asm__ volatile(".irp r,0,1," ZMM_ACCUMULATORS "\n vpxord %%zmm\\r, %%zmm\\r, %%zmm\\r\n .endr\n"
                     "1:\n"
                     ".irp r," ZMM_ACCUMULATORS "\n vfmadd231ps %%zmm0, %%zmm1, %%zmm\\r\n .endr\n"
                     "sub $1, %0\n jnz 1b\n vzeroupper\n"
                     : "+r"(iterations)
                     :
                     : "cc", ZMM_CLOBBERS);
}

__attribute__((target("avx512f,avx512bf16"))) static void run_avx512_bf16(long iterations)
{
    __asm__ volatile(".irp r,0,1," ZMM_ACCUMULATORS "\n vpxord %%zmm\\r, %%zmm\\r, %%zmm\\r\n .endr\n"
                     "1:\n"
                     ".irp r," ZMM_ACCUMULATORS "\n vdpbf16ps %%zmm0, %%zmm1, %%zmm\\r\n .endr\n"
                     "sub $1, %0\n jnz 1b\n vzeroupper\n"
                     : "+r"(iterations)
                     :
                     : "cc", ZMM_CLOBBERS);
}

__attribute__((target("avx2,fma"))) static void run_avx2_fma(long iterations)
{
    __asm__ volatile(".irp r,0,1," YMM_ACCUMULATORS "\n vxorps %%ymm\\r, %%ymm\\r, %%ymm\\r\n .endr\n"
                     "1:\n"
                     ".irp r," YMM_ACCUMULATORS "\n vfmadd231ps %%ymm0, %%ymm1, %%ymm\\r\n .endr\n"
                     "sub $1, %0\n jnz 1b\n vzeroupper\n"
                     : "+r"(iterations)
                     :
                     : "cc", YMM_CLOBBERS);
}

/* Half of the accumulators multiplied, half added to: without FMA the two kinds of instruction take turns. */
static void run_sse(long iterations)
{
    __asm__ volatile(".irp r,0,1," YMM_ACCUMULATORS "\n xorps %%xmm\\r, %%xmm\\r\n .endr\n"
                     "1:\n"
                     ".irp r,4,5,6,7,8,9\n mulps %%xmm0, %%xmm\\r\n .endr\n"
                     ".irp r,10,11,12,13,14,15\n addps %%xmm1, %%xmm\\r\n .endr\n"
                     "sub $1, %0\n jnz 1b\n"
                     : "+r"(iterations)
                     :
                     : "cc", YMM_CLOBBERS);
}

static struct peak_loop peak_loop_choose(enum dtype dtype)
{
    struct cpu_features features = cpu_features();
    if (dtype == DTYPE_BF16)
        return features.avx512_bf16 ? (struct peak_loop){run_avx512_bf16, 24 * 64} : (struct peak_loop){NULL, 0};
    if (features.avx512)
        return (struct peak_loop){run_avx512_fma, 24 * 32};
    if (features.avx2_fma)
        return (struct peak_loop){run_avx2_fma, 12 * 16};
    return (struct peak_loop){run_sse, 12 * 4};
}

double peak_of_core(enum dtype dtype)
{
    /* Short runs, the best one counted: on a shared machine some of them are interrupted. */
    enum { RUNS = 8, ITERATIONS = 20000 };
    struct peak_loop loop = peak_loop_choose(dtype);
    if (!loop.run)
        return 0;
    double best = 0;
    for (int run = 0; run < RUNS; run++) {
        double start = clock_seconds();
        loop.run(ITERATIONS);
        double seconds = clock_seconds() - start;
        if (seconds > 0 && (best == 0 || seconds < best))
            best = seconds;
    }
    return best > 0 ? 1e-9 * loop.flops * ITERATIONS / best : 0;
}
