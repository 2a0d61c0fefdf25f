/* Policies: per layer, what a token may attend to and what is kept of the past.
 *
 * visible() gives, for the query at `position`, the span of indices into a run of keys with rising positions;
 * keep() is called once per layer after a segment, when its keys are in memory, and may drop or compress them.
 * One file per policy. `full` sees every earlier token and keeps all.
 */
#ifndef LONGHAUL_ATTENTION_POLICY_H
#define LONGHAUL_ATTENTION_POLICY_H

#include <stdint.h>

#include "attention/kernel.h"
#include "attention/memory.h"

struct policy {
    const char *name;
    /* positions [n], rising: those of the run. */
    struct attn_span (*visible)(int layer, int64_t position, const int64_t *positions, int64_t n);
    int (*keep)(int layer, struct memory *memory, struct error *err);
};

extern const struct policy policy_full;

#endif
