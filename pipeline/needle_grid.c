#include "pipeline/needle_grid.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/num.h"

static const char DEFAULT_TASKS[] = "niah", DEFAULT_DEPTHS[] = "0,25,50,75,100";
enum { FIRST_DEFAULT_LENGTH = 1024 };

const char *needle_setting_name(int setting)
{
    return setting == NEEDLE_ASKED ? "asked" : "untouched";
}

/* ---- lists on the command line ---- */

/* Into its place; one that is there already is no error. */
static int list_insert(struct needle_list *list, int64_t item, const char *option, struct error *err)
{
    int at = list->n;
    while (at > 0 && list->items[at - 1] >= item)
        at--;
    if (at < list->n && list->items[at] == item)
        return 0;
    if (list->n == NEEDLE_LIST)
        return error_set(err, ERROR_USAGE, "--%s: no more than %d", option, (int)NEEDLE_LIST);
    memmove(list->items + at + 1, list->items + at, (size_t)(list->n - at) * sizeof *list->items);
    list->items[at] = item;
    list->n++;
    return 0;
}

/* The bounds of the numbers of an option. */
struct numbers {
    const char *option;
    int64_t least, most;
};

/* "1024,4k,1M": K and M count in 1,024. */
static int parse_numbers(const char *text, const struct numbers *numbers, struct needle_list *out,
                         struct error *err)
{
    out->n = 0;
    for (const char *at = text;; at++) {
        char *end;
        double number = strtod(at, &end);
        if (end > at && (*end == 'k' || *end == 'K' || *end == 'M')) {
            number *= *end == 'M' ? 1 << 20 : 1 << 10;
            end++;
        }
        if (end == at || (*end != ',' && *end != '\0') || number != floor(number))
            return error_set(err, ERROR_USAGE, "--%s: \"%.40s\" is not a list of whole numbers", numbers->option,
                             text);
        if (!(number >= (double)numbers->least && number <= (double)numbers->most))
            return error_set(err, ERROR_USAGE, "--%s: %.15g is not between %lld and %lld", numbers->option, number,
                             (long long)numbers->least, (long long)numbers->most);
        if (list_insert(out, (int64_t)number, numbers->option, err) != 0)
            return -1;
        if (*end == '\0')
            return 0;
        at = end;
    }
}

static int unknown_task(const char *name, size_t length, struct error *err)
{
    char known[256];
    size_t at = 0;
    for (int task = 0; task < NEEDLE_TASKS && at < sizeof known; task++)
        at += (size_t)snprintf(known + at, sizeof known - at, "%s%s", task > 0 ? ", " : "",
                               needle_task_name((enum needle_task)task));
    return error_set(err, ERROR_USAGE, "--tasks: \"%.*s\" is none of %s", (int)(length < 60 ? length : 60), name,
                     known);
}

static int parse_tasks(const char *text, struct needle_grid *grid, struct error *err)
{
    grid->n_tasks = 0;
    for (const char *at = text;; at++) {
        const size_t length = strcspn(at, ",");
        const int task = needle_task_find(at, length);
        bool known = false;
        if (task < 0)
            return unknown_task(at, length, err);
        for (int i = 0; i < grid->n_tasks; i++)
            known = known || grid->tasks[i] == (enum needle_task)task;
        if (!known)
            grid->tasks[grid->n_tasks++] = (enum needle_task)task;
        at += length;
        if (*at == '\0')
            return 0;
    }
}

static int default_lengths(struct needle_grid *grid, int64_t most, struct error *err)
{
    for (int64_t length = FIRST_DEFAULT_LENGTH; length <= most; length *= 2)
        if (list_insert(&grid->lengths, length, "lengths", err) != 0)
            return -1;
    return grid->lengths.n > 0
               ? 0
               : error_set(err, ERROR_USAGE, "this setting holds %lld tokens: say which --lengths are to be tried",
                           (long long)most);
}

int needle_grid_parse(struct needle_grid *grid, const struct options *options, const struct needle_limits *limits,
                      int64_t trained, struct error *err)
{
    const struct numbers lengths = {"lengths", 1, (int64_t)1 << 40}, depths = {"depths", 0, 100};
    *grid = (struct needle_grid){.trials = options->trials, .limits = *limits};
    if (parse_tasks(options->tasks ? options->tasks : DEFAULT_TASKS, grid, err) != 0 ||
        parse_numbers(options->depths ? options->depths : DEFAULT_DEPTHS, &depths, &grid->depths, err) != 0)
        return -1;
    if (!options->lengths)
        return default_lengths(grid, limits->asked == INT64_MAX ? trained : limits->asked, err);
    if (parse_numbers(options->lengths, &lengths, &grid->lengths, err) != 0)
        return -1;
    const int64_t longest = grid->lengths.items[grid->lengths.n - 1];
    if (longest > limits->asked)
        return error_set(err, ERROR_USAGE,
                         "--lengths: %lld tokens are more than the %lld that this setting can hold (--policy, "
                         "--positions or --context reach further)",
                         (long long)longest, (long long)limits->asked);
    return 0;
}

/* ---- places ---- */

int64_t needle_grid_size(const struct needle_grid *grid)
{
    return (int64_t)grid->lengths.n * NEEDLE_SETTINGS * grid->n_tasks * grid->depths.n * grid->trials;
}

int64_t needle_grid_index(const struct needle_grid *grid, const struct needle_place *place)
{
    int64_t index = (int64_t)place->length * NEEDLE_SETTINGS + place->setting;
    index = index * grid->n_tasks + place->task;
    index = index * grid->depths.n + place->depth;
    return index * grid->trials + place->trial;
}

struct needle_place needle_grid_place(const struct needle_grid *grid, int64_t index)
{
    struct needle_place place;
    place.trial = index % grid->trials;
    index /= grid->trials;
    place.depth = (int)(index % grid->depths.n);
    index /= grid->depths.n;
    place.task = (int)(index % grid->n_tasks);
    index /= grid->n_tasks;
    place.setting = (int)(index % NEEDLE_SETTINGS);
    place.length = (int)(index / NEEDLE_SETTINGS);
    return place;
}

bool needle_grid_has(const struct needle_grid *grid, const struct needle_place *place)
{
    return (place->depth == 0 || needle_task_has_depth(grid->tasks[place->task])) &&
           (place->setting == NEEDLE_ASKED || grid->lengths.items[place->length] <= grid->limits.untouched);
}

struct needle_cell needle_grid_cell(const struct needle_grid *grid, const struct needle_place *place)
{
    return (struct needle_cell){grid->tasks[place->task], grid->lengths.items[place->length],
                                grid->depths.items[place->depth], place->trial};
}

static int list_find(const struct needle_list *list, int64_t item)
{
    for (int i = 0; i < list->n; i++)
        if (list->items[i] == item)
            return i;
    return -1;
}

int64_t needle_grid_find(const struct needle_grid *grid, const struct needle_cell *cell, int setting)
{
    struct needle_place place = {.length = list_find(&grid->lengths, cell->length),
                                 .setting = setting,
                                 .task = -1,
                                 .depth =
                                     needle_task_has_depth(cell->task) ? list_find(&grid->depths, cell->depth) : 0,
                                 .trial = cell->trial};
    for (int i = 0; i < grid->n_tasks; i++)
        if (grid->tasks[i] == cell->task)
            place.task = i;
    if (place.length < 0 || place.task < 0 || place.depth < 0 || cell->trial < 0 || cell->trial >= grid->trials ||
        !needle_grid_has(grid, &place))
        return -1;
    return needle_grid_index(grid, &place);
}
