/* The grid of a needle run: which tasks at which lengths, depths and trials, under which settings.
 *
 * Each place of the grid is one trial; its index counts the places that there could be, so that a place is found
 * again by its numbers. Settings: 0 is what the user asks for; 1 is the untouched model, there only where what is
 * asked differs from it, and only up to the length that it was trained for.
 */
#ifndef LONGHAUL_PIPELINE_NEEDLE_GRID_H
#define LONGHAUL_PIPELINE_NEEDLE_GRID_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "pipeline/needle_tasks.h"
#include "pipeline/options.h"

enum { NEEDLE_ASKED, NEEDLE_UNTOUCHED, NEEDLE_SETTINGS };
/* "asked", "untouched". */
const char *needle_setting_name(int setting);

enum { NEEDLE_LIST = 64 };

struct needle_list {
    int n;
    int64_t items[NEEDLE_LIST]; /* rising, each once */
};

/* How long a prompt with its answer may be, in tokens. */
struct needle_limits {
    int64_t asked;     /* what is asked can hold it; INT64_MAX: any */
    int64_t untouched; /* the model was trained for it; 0: it need not be measured untouched */
};

struct needle_grid {
    int n_tasks;
    enum needle_task tasks[NEEDLE_TASKS];
    struct needle_list lengths; /* tokens of prompt and answer together */
    struct needle_list depths;  /* per cent; tasks without a depth have their trials at the first one */
    int64_t trials;             /* of each cell */
    struct needle_limits limits;
};

/* From --tasks, --lengths, --depths and --trials; without --lengths the powers of two from 1,024 to the limit, or
 * to the model's `trained` length where there is none. ERROR_USAGE for what cannot be read, and for a length that
 * the setting cannot hold. */
int needle_grid_parse(struct needle_grid *grid, const struct options *options, const struct needle_limits *limits,
                      int64_t trained, struct error *err);

/* The indices of a place in the lists of the grid. */
struct needle_place {
    int length, setting, task, depth;
    int64_t trial;
};

int64_t needle_grid_size(const struct needle_grid *grid);
/* Places of longer prompts have greater indices. */
int64_t needle_grid_index(const struct needle_grid *grid, const struct needle_place *place);
struct needle_place needle_grid_place(const struct needle_grid *grid, int64_t index);
/* Whether there is a trial at the place. */
bool needle_grid_has(const struct needle_grid *grid, const struct needle_place *place);
struct needle_cell needle_grid_cell(const struct needle_grid *grid, const struct needle_place *place);

/* The index of the place with that cell and setting, or -1 when it is not of the grid. */
int64_t needle_grid_find(const struct needle_grid *grid, const struct needle_cell *cell, int setting);

#endif
