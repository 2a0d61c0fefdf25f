#include "pipeline/place.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/cpu.h"
#include "base/device.h"
#include "base/log.h"
#include "base/num.h"

/* ---- CPUs ---- */

int place_threads(const int32_t *mine, const int32_t *ranks)
{
    const double rounding = 1e-6;
    double share = 0;
    for (int cpu = 0; cpu < CPU_MOST; cpu++)
        share += mine[cpu] ? 1.0 / ranks[cpu] : 0;
    return share < 1 ? 1 : (int)(share + rounding);
}

/* Whether it was Open MPI's mpirun that started this process, here or by its daemon: srun and taskset give what was
 * asked of them. */
static bool started_by_mpirun(void)
{
    static const char *const names[] = {"mpirun", "mpiexec", "orterun", "orted", "prterun", "prted"};
    char path[64], name[32] = "";
    snprintf(path, sizeof path, "/proc/%ld/comm", (long)getppid());
    FILE *file = fopen(path, "r");
    if (!file)
        return false;
    const bool told = fscanf(file, "%31s", name) == 1;
    fclose(file);
    for (size_t i = 0; told && i < sizeof names / sizeof *names; i++)
        if (strcmp(name, names[i]) == 0)
            return true;
    return false;
}

/* mpirun binds two ranks to a core each, if it is not told otherwise. What it may use itself is what there is. */
static void warn_of_binding(const int32_t *ranks)
{
    int32_t there[CPU_MOST];
    int used = 0;
    if (!started_by_mpirun())
        return;
    for (int cpu = 0; cpu < CPU_MOST; cpu++)
        used += ranks[cpu] > 0;
    const int all = cpu_mask(getppid(), there);
    if (2 * used <= all)
        log_warn("the ranks of this node may use %d of its %d CPUs: mpirun --bind-to none gives them all", used,
                 all);
}

/* This rank's threads. */
static int survey_cpus(const struct comm *world, const struct comm *node, int64_t *threads, struct error *err)
{
    int32_t mine[CPU_MOST], ranks[CPU_MOST];
    cpu_mask(0, mine);
    memcpy(ranks, mine, sizeof ranks);
    if (comm_sum_counts(node, ranks, CPU_MOST, err) != 0)
        return -1;
    if (world->rank == 0)
        warn_of_binding(ranks);
    *threads = place_threads(mine, ranks);
    return 0;
}

/* ---- GPUs ---- */

/* The GPU of a rank, as --device allows it; NULL with the reason where there is none or none can be asked for: GPUs
 * do not compute in f32. */
static const struct device *find_gpu(const struct options *options, int node_rank, struct error *err)
{
    if (options->device != DEVICE_CHOICE_CPU && options->dtype != DTYPE_CHOICE_F32)
        return device_cuda(node_rank, err);
    error_set(err, ERROR_USAGE, "no GPU was asked for");
    return NULL;
}

/* Where the user has left it open; without a driver nobody expects a GPU. */
static void warn_of_cpu(const struct options *options, const struct error *why)
{
    if (options->device == DEVICE_CHOICE_AUTO && options->dtype != DTYPE_CHOICE_F32 && device_cuda_has_driver())
        log_warn("computing on the CPU: %s", why->text);
}

/* A part is left for the workspaces of cuBLASLt and NCCL, the code of kernels, and what is lost between
 * allocations. */
static size_t memory_share(const struct device *gpu, int64_t ranks, int64_t gpus)
{
    const size_t share = gpu->memory_free() / (size_t)i64_ceil_div(ranks, gpus), beside = (size_t)2 << 30;
    return share - (share / 16 < beside ? share / 16 : beside);
}

/* This rank's memory on its GPU; INT64_MAX where it has none. The GPUs of a node count once, however many ranks
 * share each; a batch system may show each rank one of its own. */
static int survey_gpus(const struct options *options, const struct comm *world, const struct comm *node,
                       int64_t *memory, bool *everywhere, struct error *err)
{
    struct error why;
    const struct device *gpu = find_gpu(options, node->rank, &why);
    int64_t places, without, lacking;
    if (comm_max(world, gpu == NULL, &lacking, err) != 0)
        return -1;
    *everywhere = !lacking;
    if (gpu && lacking)
        error_set(&why, ERROR_USAGE, "not every rank has a GPU");
    if (lacking && world->rank == 0)
        warn_of_cpu(options, &why);
    if (comm_distinct(node, gpu ? gpu->place : "", &places, err) != 0 ||
        comm_max(node, gpu == NULL, &without, err) != 0)
        return -1;
    *memory = gpu ? (int64_t)memory_share(gpu, node->size, places - without) : INT64_MAX;
    return 0;
}

/* ---- all of it ---- */

int place_survey(const struct options *options, const struct comm *world, const struct comm *node,
                 struct place *out, struct error *err)
{
    int64_t threads, memory;
    bool gpus;
    if (survey_cpus(world, node, &threads, err) != 0 ||
        survey_gpus(options, world, node, &memory, &gpus, err) != 0 ||
        comm_max(world, -threads, &threads, err) != 0 || comm_max(world, -memory, &memory, err) != 0)
        return -1;
    *out = (struct place){node->size, (int)-threads, gpus, (size_t)-memory};
    return 0;
}

struct place place_for_ranks(const struct options *options, int ranks)
{
    struct error why;
    const struct device *gpu = find_gpu(options, 0, &why);
    const int threads = cpu_cores() / ranks;
    return (struct place){ranks, threads > 1 ? threads : 1, gpu != NULL,
                          gpu ? memory_share(gpu, ranks, gpu->count()) : 0};
}
