/* The CPU this process runs on: which instructions it has, how many cores it may use, how fast one of them is.
 *
 * Nothing to create or free; any thread may call. A feature is reported only when the operating system saves its
 * registers too, so code guarded by it never ends in SIGILL.
 */
#ifndef LONGHAUL_BASE_CPU_H
#define LONGHAUL_BASE_CPU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/num.h"

struct cpu_features {
    bool avx2_fma;    /* AVX2 and FMA */
    bool avx512;      /* AVX-512 F, BW, VL and DQ */
    bool avx512_bf16; /* all of avx512, and vdpbf16ps */
    bool avx512_vnni; /* all of avx512, and vpdpbusd */
};

struct cpu_features cpu_features(void);

/* Linux numbers CPUs up to here at most. */
enum { CPU_MOST = 8192 };

/* may [CPU_MOST] := 1 for each CPU that a process may run on, 0 for the others: its affinity mask, which mpirun and
 * batch systems narrow. Returns their number, 0 where it is not told. process 0: this one. */
int cpu_mask(pid_t process, int32_t *may);

/* CPUs that this process may run on; at least 1. */
int cpu_cores(void);

/* name [size], terminated, cut where too long := the model as the kernel names it, or "unknown". */
void cpu_model_name(char *name, size_t size);

/* Measured peak of one core in GFLOP/s, from loops that touch registers only: fused multiply-adds for f32, bf16
 * dot products for bf16 (0 where the CPU has none). Takes a few milliseconds of the calling thread. */
double cpu_probe_peak(enum dtype dtype);

#endif
