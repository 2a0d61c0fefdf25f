/* What a share of the peak is a share of. */
#ifndef LONGHAUL_BENCH_PEAK_H
#define LONGHAUL_BENCH_PEAK_H

#include "base/num.h"

/* Measured peak of one core in GFLOP/s, from loops that touch registers only: fused multiply-adds for f32, bf16
 * dot products for bf16 (0 where the CPU has none). Takes a few milliseconds of the calling thread. */
double peak_of_core(enum dtype dtype);

/* The faster of these two; and f32 by AVX2, whatever wider instructions there are (0 where the CPU has none). */
double peak_of_fastest(void);
double peak_of_avx2(void);

/* The same of products in eight bits, in G multiply-adds/s. */
double peak_of_bytes(void);

#endif
