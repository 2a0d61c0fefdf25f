/* The set-up of a run: the ring, the arithmetic, the sizes and the ways of reading that every rank has to know
 * before it builds its engine. Chosen on rank 0 from what is to be done and what the machine has. */
#ifndef LONGHAUL_PIPELINE_SETUP_H
#define LONGHAUL_PIPELINE_SETUP_H

#include <stdint.h>

#include "base/error.h"
#include "pipeline/engine.h"
#include "pipeline/options.h"
#include "pipeline/place.h"

/* Plain data, sent as bytes. */
struct setup {
    int32_t ring, threads;
    int32_t cuda;         /* every rank computes on a GPU */
    int32_t streamed;     /* which has the matrices of two layers at a time */
    int32_t keys_on_host; /* whose full layers' keys and values lie beside it */
    int32_t dtype;        /* enum dtype */
    int32_t scores;       /* the task scores */
    int64_t segment, max_new;
    struct setup_setting {
        struct policy_spec general; /* of the layers that have none of their own */
        int64_t max_tokens;         /* of any job */
        int32_t overridden;         /* by the lines of --layers */
        int32_t file_positions;     /* in place of those that are asked for */
    } settings[ENGINE_SETTINGS];
    int32_t n_settings;          /* 0: there is nothing to do */
    int32_t reference;           /* the setting that jobs are compared with, or -1 */
    struct engine_memory memory; /* per node, per rank */
    int64_t documents;           /* bytes, on rank 0 */
};

/* What the choice goes by; all pointers borrowed. */
struct setup_machine {
    const struct options *options;
    struct model *model;
    int ranks;
    struct place place;
    int64_t jobs;                 /* that there will be, so that no ring group is left without one */
    const char *before;           /* the arithmetic of the results there are, "f32" or "bf16"; or "" */
    int ring_before;              /* their ring, where as many ranks made them; or 0 */
    int64_t documents;            /* bytes that rank 0 has of them: tokens, scores */
    struct policy_spec *policies; /* [n_settings][layers], that setup_choose fills in */
};

/* Fill in ring, threads, device, dtype and memory; what is to be read, and how, is there already. The arithmetic is
 * the user's choice, else that of the results there are, else the faster: a run that goes on keeps to what it began
 * with, whatever machine it is on now. So does the ring, as long as it fits; it is else the smallest that fits and
 * leaves no rank without a job. GPUs compute in bf16; they are taken where there are some, unless the user
 * or f32 speaks against it, and segments are then longer, or shorter where memory is short, unless they decide
 * answers; where none is short enough, matrices are streamed to them, or keys and values stay in the host's memory,
 * or both. ERROR_USAGE for a --ring that does not divide the ranks or a --dtype, asked for or begun with, that the
 * --device does not have, ERROR_RESOURCE when no ring fits the memory or there is no such device. */
int setup_choose(struct setup *setup, const struct setup_machine *machine, struct error *err);

/* The device that a rank of a node computes on. */
const struct device *setup_device(const struct setup *setup, int node_rank, struct error *err);

/* What the set-up says of an engine, which borrows machine->policies; device, tokenizer, groups and hooks are still
 * to be filled in. */
void setup_engine(const struct setup *setup, const struct setup_machine *machine, struct engine_options *out);

#endif
