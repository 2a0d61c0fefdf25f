#include "base/cpu.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct cpu_features cpu_features(void)
{
    __builtin_cpu_init();
    struct cpu_features features = {0};
    features.avx2_fma = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    features.avx512 = features.avx2_fma && __builtin_cpu_supports("avx512f") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
                      __builtin_cpu_supports("avx512dq");
    features.avx512_bf16 = features.avx512 && __builtin_cpu_supports("avx512bf16");
    features.fast_bf16 = features.avx512_bf16 && !__builtin_cpu_is("intel");
    features.avx512_vnni = features.avx512 && __builtin_cpu_supports("avx512vnni");
    return features;
}

int cpu_mask(pid_t process, int32_t *may)
{
    cpu_set_t *set = CPU_ALLOC(CPU_MOST);
    const size_t bytes = CPU_ALLOC_SIZE(CPU_MOST);
    const bool told = set && sched_getaffinity(process, bytes, set) == 0;
    int n = 0;
    for (int cpu = 0; cpu < CPU_MOST; cpu++)
        n += may[cpu] = told && CPU_ISSET_S((size_t)cpu, bytes, set);
    CPU_FREE(set);
    return n;
}

int cpu_cores(void)
{
    int32_t may[CPU_MOST];
    const int cores = cpu_mask(0, may);
    return cores > 0 ? cores : 1;
}

void cpu_model_name(char *name, size_t size)
{
    snprintf(name, size, "unknown");
    FILE *file = fopen("/proc/cpuinfo", "r");
    if (!file)
        return;
    char line[512];
    while (fgets(line, sizeof line, file)) {
        const char *colon = strchr(line, ':');
        if (colon && strncmp(line, "model name", 10) == 0) {
            const char *text = colon + 1 + strspn(colon + 1, " \t");
            snprintf(name, size, "%.*s", (int)strcspn(text, "\n"), text);
            break;
        }
    }
    fclose(file);
}
