#include "pipeline/setup.h"

#include <stdbool.h>
#include <string.h>

#include "base/cpu.h"
#include "base/device.h"
#include "base/log.h"
#include "pipeline/asked.h"
#include "pipeline/layers.h"

/* Tokens of a segment on a GPU, where it is free: enough rows to fill it in every product. Where memory is short
 * they are halved, down to the least. */
enum { CUDA_SEGMENT = 16384, CUDA_LEAST_SEGMENT = 512 };

static enum dtype choose_dtype(const struct setup_machine *machine)
{
    const int64_t asked = machine->options->dtype;
    if (asked != DTYPE_CHOICE_AUTO)
        return asked == DTYPE_CHOICE_BF16 ? DTYPE_BF16 : DTYPE_F32;
    if (strcmp(machine->before, dtype_name(DTYPE_F32)) == 0)
        return DTYPE_F32;
    if (strcmp(machine->before, dtype_name(DTYPE_BF16)) == 0)
        return DTYPE_BF16;
    return cpu_features().fast_bf16 ? DTYPE_BF16 : DTYPE_F32;
}

/* The settings' policies, to machine->policies. */
static int choose_policies(const struct setup *setup, const struct setup_machine *machine, struct error *err)
{
    struct policy_spec *policies = machine->policies;
    for (int i = 0; i < setup->n_settings; i++, policies += machine->model->shape.layers) {
        const struct setup_setting *setting = &setup->settings[i];
        const char *lines = setting->overridden ? machine->options->layers : NULL;
        if (layers_choose(&setting->general, lines, machine->model, policies, err) != 0)
            return -1;
    }
    return 0;
}

void setup_engine(const struct setup *setup, const struct setup_machine *machine, struct engine_options *out)
{
    const struct policy_spec *policies = machine->policies;
    *out = (struct engine_options){
        .model = machine->model,
        .dtype = (enum dtype)setup->dtype,
        .scores = setup->scores != 0,
        .compares = setup->scores != 0 && setup->reference >= 0,
        .streamed = setup->streamed != 0,
        .keys_on_host = setup->keys_on_host != 0,
        .threads = setup->threads,
        .segment = setup->segment,
        .max_new = setup->max_new,
        .n_settings = setup->n_settings,
    };
    for (int i = 0; i < setup->n_settings; i++, policies += machine->model->shape.layers) {
        const struct setup_setting *setting = &setup->settings[i];
        out->settings[i] = (struct engine_setting){
            .policies = policies,
            .positions = setting->file_positions ? &machine->model->file_positions : NULL,
            .max_tokens = setting->max_tokens,
        };
    }
}

const struct device *setup_device(const struct setup *setup, int node_rank, struct error *err)
{
    return setup->cuda ? device_cuda(node_rank, err) : device_cpu();
}

/* Whether the ranks compute on GPUs: -1 where they are asked to and cannot. */
static int choose_device(const struct setup_machine *machine, struct error *err)
{
    const struct options *options = machine->options;
    if (options->device == DEVICE_CHOICE_CUDA && options->dtype == DTYPE_CHOICE_F32)
        return error_set(err, ERROR_USAGE, "--device cuda computes in bf16, not in f32");
    const bool f32_before = options->dtype == DTYPE_CHOICE_AUTO && strcmp(machine->before, "f32") == 0;
    if (options->device == DEVICE_CHOICE_CUDA && f32_before)
        return error_set(
            err, ERROR_USAGE,
            "%s was begun in f32, and --device cuda computes in bf16: take another -o, or --device cpu",
            options->output);
    if (options->device == DEVICE_CHOICE_CUDA)
        return device_cuda(0, err) ? 1 : -1;
    if (f32_before && machine->place.gpus)
        log_warn("computing on the CPU: %s was begun in f32, and GPUs compute in bf16; another -o takes them",
                 options->output);
    return !f32_before && machine->place.gpus;
}

static bool fits_host(const struct setup *setup, int ranks_on_node)
{
    const size_t there = device_cpu()->memory_free();
    return setup->memory.weights + setup->memory.forward * (size_t)ranks_on_node + (size_t)setup->documents < there;
}

static bool fits_device(const struct setup *setup, const struct setup_machine *machine,
                        const struct engine_options *engine)
{
    return engine->device->host_visible || setup->memory.device < machine->place.gpu_memory;
}

/* On a GPU, where the user has not said how long they are and they decide no answer. */
static bool segments_are_free(const struct setup *setup, const struct setup_machine *machine)
{
    return setup->cuda && !machine->options->segment && !asked_heeds_segments(machine->options, machine->model);
}

/* The memory of a ring of that size; segments are cut until it fits, where they may be. */
static int measure_memory(struct setup *setup, const struct setup_machine *machine, struct engine_options *engine,
                          struct error *err)
{
    const bool may_cut = segments_are_free(setup, machine);
    engine->segment = setup->segment;
    if (engine_memory(engine, setup->ring, &setup->memory, err) != 0)
        return -1;
    while (may_cut && engine->segment >= 2 * CUDA_LEAST_SEGMENT && !fits_device(setup, machine, engine)) {
        engine->segment /= 2;
        if (engine_memory(engine, setup->ring, &setup->memory, err) != 0)
            return -1;
    }
    return 0;
}

static int refuse(const struct setup *setup, const struct setup_machine *machine,
                  const struct engine_options *engine, struct error *err)
{
    const double gib = 1 << 30;
    if (!fits_device(setup, machine, engine))
        return error_set(err, ERROR_RESOURCE,
                         "this needs %.2f GiB on the GPU of each rank; a rank has %.2f GiB of %s (more GPUs, a "
                         "shorter --context or --segment, a --memory-budget would do)",
                         (double)setup->memory.device / gib, (double)machine->place.gpu_memory / gib,
                         engine->device->model);
    return error_set(
        err, ERROR_RESOURCE,
        "this needs %.1f GiB of weights, %.1f GiB a rank and %.1f GiB of documents; the %d ranks of "
        "this node have %.1f GiB (more nodes, a shorter --chunk or --context, a --memory-budget would do)",
        (double)setup->memory.weights / gib, (double)setup->memory.forward / gib, (double)setup->documents / gib,
        machine->place.ranks_on_node, (double)device_cpu()->memory_free() / gib);
}

/* Measures a ring; *fits: there is memory for it. */
static int try_ring(struct setup *setup, const struct setup_machine *machine, struct engine_options *engine,
                    bool *fits, struct error *err)
{
    if (measure_memory(setup, machine, engine, err) != 0)
        return -1;
    *fits = fits_host(setup, machine->place.ranks_on_node) && fits_device(setup, machine, engine);
    return 0;
}

/* The smallest ring that fits memory and leaves no rank without a job. */
static int try_rings(struct setup *setup, const struct setup_machine *machine, struct engine_options *engine,
                     bool *fits, struct error *err)
{
    const int ranks = machine->ranks;
    *fits = false;
    for (int ring = 1; ring <= ranks && !*fits; ring++) {
        if (ranks % ring != 0)
            continue;
        setup->ring = ring;
        if (try_ring(setup, machine, engine, fits, err) != 0)
            return -1;
        *fits = *fits && (ranks / ring <= machine->jobs || ring == ranks);
    }
    return 0;
}

/* What a GPU has no room for stays in the host's memory: rather the matrices, whose way to the GPU is hidden behind
 * computing, than the keys and values of the past, whose way is not; and both where neither alone makes room. */
static const struct {
    bool streamed, keys_on_host;
} ways[] = {{false, false}, {true, false}, {false, true}, {true, true}};
enum { WAYS = sizeof ways / sizeof ways[0] };

/* ring: 0 is to be chosen. */
static int try_way(struct setup *setup, const struct setup_machine *machine, struct engine_options *engine, int way,
                   int ring, bool *fits, struct error *err)
{
    setup->ring = ring;
    setup->streamed = engine->streamed = ways[way].streamed;
    setup->keys_on_host = engine->keys_on_host = ways[way].keys_on_host;
    return (ring ? try_ring : try_rings)(setup, machine, engine, fits, err);
}

/* The first way for which there is room; where there is none, the first that the GPU has room for, or the last:
 * what is refused then. */
static int choose_way(struct setup *setup, const struct setup_machine *machine, struct engine_options *engine,
                      bool *fits, struct error *err)
{
    const int ring = setup->ring, n = setup->cuda ? WAYS : 1;
    int refused = n - 1;
    for (int way = 0; way < n; way++) {
        if (try_way(setup, machine, engine, way, ring, fits, err) != 0)
            return -1;
        if (*fits)
            return 0;
        if (way < refused && fits_device(setup, machine, engine))
            refused = way;
    }
    return refused < n - 1 ? try_way(setup, machine, engine, refused, ring, fits, err) : 0;
}

/* The ring that is asked for, else that of before, since another one adds up in another order; where there is none,
 * or no memory for it any more, the smallest that will do. */
static int choose_ring(struct setup *setup, const struct setup_machine *machine, struct engine_options *engine,
                       struct error *err)
{
    const int asked = (int)machine->options->ring;
    bool fits = false;
    setup->ring = asked ? asked : machine->ring_before;
    int status = choose_way(setup, machine, engine, &fits, err);
    if (status == 0 && !fits && !asked && machine->ring_before) {
        setup->ring = 0;
        status = choose_way(setup, machine, engine, &fits, err);
    }
    if (status != 0)
        return -1;
    setup->segment = engine->segment;
    return fits ? 0 : refuse(setup, machine, engine, err);
}

/* As long as the longest job has tokens, and no longer than is good for a GPU. */
static void lengthen_segment(struct setup *setup)
{
    int64_t longest = 1;
    for (int i = 0; i < setup->n_settings; i++)
        longest = i64_max(longest, setup->settings[i].max_tokens);
    setup->segment = i64_min(longest, CUDA_SEGMENT);
}

int setup_choose(struct setup *setup, const struct setup_machine *machine, struct error *err)
{
    const struct options *options = machine->options;
    setup->ring = 1;
    setup->documents = machine->documents;
    setup->threads = options->threads ? (int32_t)options->threads : machine->place.threads;
    if ((setup->cuda = choose_device(machine, err)) < 0)
        return -1;
    setup->dtype = setup->cuda ? DTYPE_BF16 : choose_dtype(machine);
    if (setup->n_settings == 0)
        return 0;
    if (options->ring && machine->ranks % (int)options->ring != 0)
        return error_set(err, ERROR_USAGE, "--ring %d does not divide the %d ranks into equal groups",
                         (int)options->ring, machine->ranks);
    if (segments_are_free(setup, machine))
        lengthen_segment(setup);
    struct engine_options engine;
    if (choose_policies(setup, machine, err) != 0)
        return -1;
    setup_engine(setup, machine, &engine);
    if (!(engine.device = setup_device(setup, 0, err)))
        return -1;
    return choose_ring(setup, machine, &engine, err);
}
