/* The CPU this process runs on: which instructions it has, and how many cores it may use.
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

struct cpu_features {
    bool avx2_fma;    /* AVX2 and FMA */
    bool avx512;      /* AVX-512 F, BW, VL and DQ */
    bool avx512_bf16; /* all of avx512, and vdpbf16ps */
    /* vdpbf16ps outruns multiply-adds: on AMD's it has twice their rate, on Intel's half (docs/measurements.md). By
     * the CPU's maker and not by a measurement, which a neighbour could disturb: what is computed goes by it. */
    bool fast_bf16;
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

#endif
