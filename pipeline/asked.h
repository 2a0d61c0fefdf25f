/* Asked: what the options ask of a model's layers and positions, alike for all commands that compute. Whatever is
 * asked takes effect, or is refused in one line; what stretches a model beyond its training is warned of.
 */
#ifndef LONGHAUL_PIPELINE_ASKED_H
#define LONGHAUL_PIPELINE_ASKED_H

#include <stdbool.h>

#include "attention/policy.h"
#include "base/error.h"
#include "model/model.h"
#include "pipeline/options.h"

/* Whether a document beyond the context is read as a whole under a policy chosen by itself: with --strategy whole,
 * where nothing else is said of policies and nothing is cut off. */
bool asked_extends(const struct options *options, const struct model *model);

/* Whether answers may depend on where segments end: what is kept under some policies does, so wherever one but full
 * and window is in force, be it asked for, compared with, or chosen by itself beyond the context; and positions
 * that follow the length do. Segments are then as long on every machine. */
bool asked_heeds_segments(const struct options *options, const struct model *model);

/* The policy chosen by itself, with --memory-budget; its window is shorter where a model knows few positions. */
int asked_beyond(const struct options *options, const struct model *model, struct policy_spec *out,
                 struct error *err);

/* --policy with --memory-budget in *general, full where nothing is said; policies [layers] of a model that has it
 * and --layers. ERROR_USAGE also for a policy that no layer would have, and for a budget that would bound nothing
 * or not all: of layers with windows of their own, of --layers, of no policy. */
int asked_policies(const struct options *options, const struct model *model, struct policy_spec *general,
                   struct policy_spec *policies, struct error *err);

/* The same of --against, which has neither budget nor lines of --layers. */
int asked_against(const struct options *options, const struct model *model, struct policy_spec *general,
                  struct policy_spec *policies, struct error *err);

/* Warn of positions that stand in place of the file's, and of a --context beyond what positions reach; `bounded`:
 * no layer sees so far. */
void asked_warn(const struct options *options, const struct model *model, bool bounded);

#endif
