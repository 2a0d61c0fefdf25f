/* Which policy each layer of a model has: the model's own pattern, a general policy on the layers that have none of
 * their own, and the lines of --layers on top: what the field calls a hierarchical policy.
 *
 * --layers has a line for each stretch of layers, later ones winning; '#' begins a comment:
 *     0-11  window:window=512
 *     12    full
 * It is a file, regular and with a stretch at least, or, where it begins with a digit and holds a blank, the lines
 * themselves with ';' between them.
 */
#ifndef LONGHAUL_PIPELINE_LAYERS_H
#define LONGHAUL_PIPELINE_LAYERS_H

#include <stdbool.h>
#include <stdio.h>

#include "attention/policy.h"
#include "base/error.h"
#include "model/model.h"

/* Whether these are the lines themselves, not the name of a file. */
bool layers_are_lines(const char *lines);

/* policies [model->shape.layers]. general->kind POLICY_FULL: nothing is asked; lines, of --layers, may be NULL.
 * ERROR_INPUT names the line that is wrong, or says why the file will not do. */
int layers_choose(const struct policy_spec *general, const char *lines, const struct model *model,
                  struct policy_spec *policies, struct error *err);

/* Whether the layer has a window of its own, so that a general policy is not for it; and whether every layer has.
 */
bool layers_is_own(const struct model *model, int layer);
bool layers_all_own(const struct model *model);

/* Whether some layer keeps every token: then the context is bounded by positions and by memory. */
bool layers_any_full(const struct policy_spec *policies, int layers);

/* Whether every layer is as in the model's own pattern; and whether some layer sees or keeps less than in it. */
bool layers_untouched(const struct policy_spec *policies, const struct model *model);
bool layers_lossy(const struct policy_spec *policies, const struct model *model);

/* Of the first n tokens of a text, read in segments of so many: how many from its beginning see all that they see
 * in the model's own pattern, in every layer. */
int64_t layers_intact(const struct policy_spec *policies, const struct model *model, int64_t segment, int64_t n);

/* A warning, once, where a policy takes more positions for a text of n tokens than the model's reach. `segment`:
 * most tokens of a segment, or of an answer. `full` is left out: it takes what the text has. */
void layers_warn_beyond(const struct policy_spec *policies, const struct model *model, int64_t segment, int64_t n);

/* Keys that the n queries of a sequence see, all layers together; and far keys by which each of its heads chooses
 * blocks. */
double layers_keys_seen(const struct policy_spec *policies, int layers, int64_t n);
double layers_keys_searched(const struct policy_spec *policies, int layers, int64_t n);

/* "sinks:window=1020,sinks=4", or for several policies how many layers each has: "window:window=512 x15, full x3".
 */
void layers_describe(const struct policy_spec *policies, int layers, char *out, size_t size);

/* All policies with their parameters, for the help. */
void layers_help(FILE *out);

#endif
