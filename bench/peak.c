#include "bench/peak.h"

#include <math.h>

#include "base/clock.h"
#include "base/cpu.h"

/* The loops. Written in assembly so that no compiler, at any level of optimisation, moves an accumulator to memory.
 * Enough independent accumulators to hide the longest latency: 24 of 32 registers, 12 of 16. */
enum { ZMM_ACCUMULATORS = 24, YMM_ACCUMULATORS = 12 };

#define ZMM_NUMBERS "8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31"
#define ZMM_CLOBBERS                                                                                               \
    "xmm0", "xmm1", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14", "xmm15", "xmm16", "xmm17",        \
        "xmm18", "xmm19", "xmm20", "xmm21", "xmm22", "xmm23", "xmm24", "xmm25", "xmm26", "xmm27", "xmm28",         \
        "xmm29", "xmm30", "xmm31"
#define YMM_NUMBERS "4,5,6,7,8,9,10,11,12,13,14,15"
#define YMM_CLOBBERS                                                                                               \
    "xmm0", "xmm1", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm12", "xmm13", "xmm14",   \
        "xmm15"

#define ZMM_LOOP(name, features, instruction)                                                                      \
    __attribute__((target("avx512f," features))) static void name(long iterations)                                 \
    {                                                                                                              \
        __asm__ volatile(".irp r,0,1," ZMM_NUMBERS "\n vpxord %%zmm\\r, %%zmm\\r, %%zmm\\r\n .endr\n"              \
                         "1:\n"                                                                                    \
                         ".irp r," ZMM_NUMBERS "\n " instruction " %%zmm0, %%zmm1, %%zmm\\r\n .endr\n"             \
                         "sub $1, %0\n jnz 1b\n vzeroupper\n"                                                      \
                         : "+r"(iterations)                                                                        \
                         :                                                                                         \
                         : "cc", ZMM_CLOBBERS);                                                                    \
    }

#define YMM_LOOP(name, features, instruction)                                                                      \
    __attribute__((target(features))) static void name(long iterations)                                            \
    {                                                                                                              \
        __asm__ volatile(".irp r,0,1," YMM_NUMBERS "\n vxorps %%ymm\\r, %%ymm\\r, %%ymm\\r\n .endr\n"              \
                         "1:\n"                                                                                    \
                         ".irp r," YMM_NUMBERS "\n " instruction " %%ymm0, %%ymm1, %%ymm\\r\n .endr\n"             \
                         "sub $1, %0\n jnz 1b\n vzeroupper\n"                                                      \
                         : "+r"(iterations)                                                                        \
                         :                                                                                         \
                         : "cc", YMM_CLOBBERS);                                                                    \
    }

ZMM_LOOP(run_avx512_fma, "avx512f", "vfmadd231ps")
ZMM_LOOP(run_avx512_bf16, "avx512bf16", "vdpbf16ps")
ZMM_LOOP(run_avx512_bytes, "avx512vnni", "vpdpbusd")
YMM_LOOP(run_avx2_fma, "avx2,fma", "vfmadd231ps")
YMM_LOOP(run_avx2_bytes, "avx2", "vpmaddubsw") /* pairs, in sixteen bits; to add these up comes on top */

/* Half of the accumulators multiplied, half added to: without FMA the two kinds of instruction take turns. */
static void run_sse(long iterations)
{
    __asm__ volatile(".irp r,0,1," YMM_NUMBERS "\n xorps %%xmm\\r, %%xmm\\r\n .endr\n"
                     "1:\n"
                     ".irp r,4,5,6,7,8,9\n mulps %%xmm0, %%xmm\\r\n .endr\n"
                     ".irp r,10,11,12,13,14,15\n addps %%xmm1, %%xmm\\r\n .endr\n"
                     "sub $1, %0\n jnz 1b\n"
                     : "+r"(iterations)
                     :
                     : "cc", YMM_CLOBBERS);
}

static void run_sse_words(long iterations)
{
    __asm__ volatile(".irp r,0,1," YMM_NUMBERS "\n pxor %%xmm\\r, %%xmm\\r\n .endr\n"
                     "1:\n"
                     ".irp r," YMM_NUMBERS "\n pmaddwd %%xmm0, %%xmm\\r\n .endr\n"
                     "sub $1, %0\n jnz 1b\n"
                     : "+r"(iterations)
                     :
                     : "cc", YMM_CLOBBERS);
}

/* Operations of one core in a nanosecond, where an iteration has so many. Short runs, the best one counted: on a
 * shared machine some of them are interrupted. */
static double rate(void (*run)(long iterations), double operations)
{
    enum { RUNS = 8, ITERATIONS = 20000 };
    double best = 0;
    for (int i = 0; i < RUNS; i++) {
        const double start = clock_seconds();
        run(ITERATIONS);
        const double seconds = clock_seconds() - start;
        if (seconds > 0 && (best == 0 || seconds < best))
            best = seconds;
    }
    return best > 0 ? 1e-9 * operations * ITERATIONS / best : 0;
}

double peak_of_core(enum dtype dtype)
{
    const struct cpu_features features = cpu_features();
    if (dtype == DTYPE_BF16)
        return features.avx512_bf16 ? rate(run_avx512_bf16, ZMM_ACCUMULATORS * 64) : 0;
    if (features.avx512)
        return rate(run_avx512_fma, ZMM_ACCUMULATORS * 32);
    return features.avx2_fma ? peak_of_avx2() : rate(run_sse, YMM_ACCUMULATORS * 4);
}

double peak_of_fastest(void)
{
    return fmax(peak_of_core(DTYPE_F32), peak_of_core(DTYPE_BF16));
}

double peak_of_avx2(void)
{
    return cpu_features().avx2_fma ? rate(run_avx2_fma, YMM_ACCUMULATORS * 16) : 0;
}

double peak_of_bytes(void)
{
    const struct cpu_features features = cpu_features();
    if (features.avx512_vnni)
        return rate(run_avx512_bytes, ZMM_ACCUMULATORS * 64);
    return features.avx2_fma ? rate(run_avx2_bytes, YMM_ACCUMULATORS * 32)
                             : rate(run_sse_words, YMM_ACCUMULATORS * 8);
}
