#include "pipeline/setup.h"

#include <stdbool.h>
#include <string.h>

#include "base/cpu.h"
#include "base/device.h"
#include "pipeline/layers.h"

static enum dtype choose_dtype(const struct setup_machine *machine)
{
    const int64_t asked = machine->options->dtype;
    if (asked != DTYPE_CHOICE_AUTO)
        return asked == DTYPE_CHOICE_BF16 ? DTYPE_BF16 : DTYPE_F32;
    if (strcmp(machine->before, dtype_name(DTYPE_F32)) == 0)
        return DTYPE_F32;
    if (strcmp(machine->before, dtype_name(DTYPE_BF16)) == 0)
        return DTYPE_BF16;
    return cpu_probe_peak(DTYPE_BF16) > cpu_probe_peak(DTYPE_F32) ? DTYPE_BF16 : DTYPE_F32;
}

int setup_engine(const struct setup *setup, const struct setup_machine *machine, struct engine_options *out,
                 struct error *err)
{
    struct policy_spec *policies = machine->policies;
    *out = (struct engine_options){
        .model = machine->model,
        .dtype = (enum dtype)setup->dtype,
        .scores = setup->scores != 0,
        .threads = setup->threads,
        .segment = setup->segment,
        .max_new = setup->max_new,
        .n_settings = setup->n_settings,
    };
    for (int i = 0; i < setup->n_settings; i++, policies += machine->model->shape.layers) {
        const struct setup_reading *reading = &setup->settings[i];
        const char *file = reading->overridden ? machine->options->layers : NULL;
        if (layers_choose(&reading->general, file, machine->model, policies, err) != 0)
            return -1;
        out->settings[i] = (struct engine_setting){
            .policies = policies,
            .positions = reading->file_positions ? &machine->model->file_positions : NULL,
            .max_tokens = reading->max_tokens,
        };
    }
    return 0;
}

static bool fits_memory(const struct setup *setup, int ranks_on_node)
{
    const size_t there = device_cpu()->memory_free();
    return setup->memory.weights + setup->memory.forward * (size_t)ranks_on_node < there;
}

/* The smallest ring that fits memory and leaves no rank without a job. */
static int choose_ring(struct setup *setup, const struct setup_machine *machine,
                       const struct engine_options *engine, struct error *err)
{
    const int asked = (int)machine->options->ring, ranks = machine->ranks;
    for (int ring = asked ? asked : 1; ring <= ranks; ring++) {
        if (ranks % ring != 0)
            continue;
        if (engine_memory(engine, ring, &setup->memory, err) != 0)
            return -1;
        const bool all_busy = ranks / ring <= machine->jobs || ring == ranks;
        setup->ring = ring;
        if (asked || (all_busy && fits_memory(setup, machine->ranks_on_node)))
            break;
    }
    if (fits_memory(setup, machine->ranks_on_node))
        return 0;
    return error_set(err, ERROR_RESOURCE,
                     "this needs %.1f GiB of weights and %.1f GiB a rank; the %d ranks of this node have %.1f GiB "
                     "(more nodes, a shorter --chunk or --context, a --memory-budget would do)",
                     (double)setup->memory.weights / (1 << 30), (double)setup->memory.forward / (1 << 30),
                     machine->ranks_on_node, (double)device_cpu()->memory_free() / (1 << 30));
}

int setup_choose(struct setup *setup, const struct setup_machine *machine, struct error *err)
{
    const struct options *options = machine->options;
    const int cores = cpu_cores() / machine->ranks_on_node;
    setup->ring = 1;
    setup->threads = options->threads ? (int32_t)options->threads : cores > 1 ? cores : 1;
    setup->dtype = choose_dtype(machine);
    if (setup->n_settings == 0)
        return 0;
    if (options->ring && machine->ranks % (int)options->ring != 0)
        return error_set(err, ERROR_USAGE, "--ring %d does not divide the %d ranks into equal groups",
                         (int)options->ring, machine->ranks);
    struct engine_options engine;
    return setup_engine(setup, machine, &engine, err) == 0 ? choose_ring(setup, machine, &engine, err) : -1;
}
