/* Which position method a run reads with: the model's own, or what --positions, --factor and --context ask for. */
#ifndef LONGHAUL_PIPELINE_POSITIONS_H
#define LONGHAUL_PIPELINE_POSITIONS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"
#include "model/model.h"
#include "pipeline/options.h"

/* Gives the model what the options ask for; where they ask for nothing it keeps its own. ERROR_USAGE for what
 * cannot go together or what this model cannot have. */
int positions_choose(const struct options *options, struct model *model, struct error *err);

/* Whether a method or factor of the user's stands in place of one that the file asks for; if so, out [size] says
 * so: "yarn, factor 2, in place of the file's yarn, factor 4". */
bool positions_replace(const struct model *model, char *out, size_t size);

/* Whether the positions in force are in any way others than the file's. */
bool positions_differ(const struct model *model);

/* "positions yarn, factor 2 beyond 8192 tokens (--positions, for --context)" and the like: for the plan, the log
 * and the record of the run. Two runs that read in different ways never have the same. */
enum { POSITIONS_DESCRIPTION = 256 };
void positions_describe(const struct options *options, const struct model *model, char *out, size_t size);

#endif
