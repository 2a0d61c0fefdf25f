#include "pipeline/needle_report.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "io/durable.h"
#include "pipeline/svg.h"

enum { TITLE = 64, LABEL = 24, NOTE = 640, MAPS = NEEDLE_SETTINGS * (NEEDLE_TASKS + 1) };

/* The maps and what they point to. */
struct sheet {
    const struct needle_report *report;
    int n, n_settings;
    struct svg_map maps[MAPS];
    int settings[MAPS];
    char titles[MAPS][TITLE];
    char lengths[NEEDLE_LIST][LABEL], depths[NEEDLE_LIST][LABEL];
    const char *length_labels[NEEDLE_LIST], *depth_labels[NEEDLE_LIST], *task_labels[NEEDLE_TASKS];
    double values[MAPS][NEEDLE_LIST * NEEDLE_LIST];
};

static void label(struct sheet *sheet)
{
    const struct needle_grid *grid = sheet->report->grid;
    for (int i = 0; i < grid->lengths.n; i++) {
        snprintf(sheet->lengths[i], LABEL, "%" PRId64, grid->lengths.items[i]);
        sheet->length_labels[i] = sheet->lengths[i];
    }
    for (int i = 0; i < grid->depths.n; i++) {
        snprintf(sheet->depths[i], LABEL, "%" PRId64 " %%", grid->depths.items[i]);
        sheet->depth_labels[i] = sheet->depths[i];
    }
    for (int i = 0; i < grid->n_tasks; i++)
        sheet->task_labels[i] = needle_task_name(grid->tasks[i]);
}

/* One map: of a task by depths, or (task -1) of all tasks. */
static void add_map(struct sheet *sheet, int task, int setting)
{
    const struct needle_grid *grid = sheet->report->grid;
    const int n = sheet->n++;
    struct svg_map *map = &sheet->maps[n];
    static const char *const suffixes[NEEDLE_SETTINGS] = {", as asked", ", untouched model"};
    snprintf(sheet->titles[n], TITLE, "%s%s", task < 0 ? "all tasks" : sheet->task_labels[task],
             sheet->n_settings > 1 ? suffixes[setting] : "");
    *map = (struct svg_map){
        .title = sheet->titles[n],
        .row_name = task < 0 ? "task" : "depth",
        .column_name = "tokens",
        .n_rows = task < 0 ? grid->n_tasks : grid->depths.n,
        .n_columns = grid->lengths.n,
        .rows = task < 0 ? sheet->task_labels : sheet->depth_labels,
        .columns = sheet->length_labels,
        .values = sheet->values[n],
    };
    sheet->settings[n] = setting;
    for (int row = 0; row < map->n_rows; row++)
        for (int column = 0; column < map->n_columns; column++) {
            const struct needle_place place = {.length = column,
                                               .setting = setting,
                                               .task = task < 0 ? row : task,
                                               .depth = task < 0 ? -1 : row,
                                               .trial = -1};
            sheet->values[n][row * map->n_columns + column] = needle_run_mean(sheet->report->run, &place);
        }
}

static struct sheet *sheet_create(const struct needle_report *report, struct error *err)
{
    const struct needle_grid *grid = report->grid;
    struct sheet *sheet = calloc(1, sizeof *sheet);
    if (!sheet) {
        error_set(err, ERROR_RESOURCE, "no memory for the tables of the scores");
        return NULL;
    }
    sheet->report = report;
    sheet->n_settings = grid->lengths.items[0] <= grid->limits.untouched ? NEEDLE_SETTINGS : 1;
    label(sheet);
    bool all = grid->n_tasks > 1 || grid->depths.n == 1;
    for (int task = 0; task < grid->n_tasks; task++)
        all = all || !needle_task_has_depth(grid->tasks[task]);
    for (int setting = 0; setting < sheet->n_settings && all; setting++)
        add_map(sheet, -1, setting);
    for (int task = 0; task < grid->n_tasks; task++)
        for (int setting = 0; setting < sheet->n_settings; setting++)
            if (needle_task_has_depth(grid->tasks[task]) && grid->depths.n > 1)
                add_map(sheet, task, setting);
    return sheet;
}

static void print_map(const struct sheet *sheet, int n, FILE *out)
{
    const struct svg_map *map = &sheet->maps[n];
    fprintf(out, "\n%s (%s)\n%16s", map->title, sheet->report->described[sheet->settings[n]], map->row_name);
    for (int column = 0; column < map->n_columns; column++)
        fprintf(out, " %8s", map->columns[column]);
    fputc('\n', out);
    for (int row = 0; row < map->n_rows; row++) {
        fprintf(out, "%16s", map->rows[row]);
        for (int column = 0; column < map->n_columns; column++) {
            const double value = map->values[row * map->n_columns + column];
            if (isnan(value))
                fprintf(out, " %8s", "-");
            else
                fprintf(out, " %8.1f", 100 * value);
        }
        fputc('\n', out);
    }
}

/* "" where all trials were done in one arithmetic: parts of a run on different machines may not have been. */
static void describe_mix(const struct needle_report *report, char *out, size_t size)
{
    const struct needle_counts counts = needle_run_counts(report->run);
    const int64_t in_f32 = counts.done_in[DTYPE_F32], in_bf16 = counts.done_in[DTYPE_BF16];
    out[0] = '\0';
    if (in_f32 > 0 && in_bf16 > 0)
        snprintf(out, size, "two arithmetics, %" PRId64 " trials in f32 and %" PRId64 " in bf16 (--dtype)", in_f32,
                 in_bf16);
}

int needle_report_print(const struct needle_report *report, FILE *out, struct error *err)
{
    struct sheet *sheet = sheet_create(report, err);
    if (!sheet)
        return -1;
    fprintf(out, "mean score, per cent, of up to %" PRId64 " trials a cell; columns: tokens of prompt and answer\n",
            report->grid->trials);
    char mix[NOTE / 4];
    describe_mix(report, mix, sizeof mix);
    if (*mix)
        fprintf(out, "%s\n", mix);
    for (int n = 0; n < sheet->n; n++)
        print_map(sheet, n, out);
    free(sheet);
    return ferror(out) || fflush(out) != 0 ? error_errno(err, "writing the table") : 0;
}

int needle_report_draw(const struct needle_report *report, const char *path, struct error *err)
{
    struct sheet *sheet = sheet_create(report, err);
    struct durable *file = sheet ? durable_create(path, err) : NULL;
    if (!file) {
        free(sheet);
        return -1;
    }
    char heading[256], mix[NOTE / 4], note[NOTE];
    describe_mix(report, mix, sizeof mix);
    snprintf(note, sizeof note, "%s%s%s", report->described[NEEDLE_ASKED], *mix ? "; " : "", mix);
    snprintf(heading, sizeof heading, "Needle in a haystack: %s", report->model);
    heading[utf8_valid_prefix((struct text){heading, strlen(heading)})] = '\0'; /* no piece of a character */
    const struct svg_figure figure = {
        .heading = heading,
        .note = note,
        .maps = sheet->maps,
        .n = sheet->n,
        .across = sheet->n_settings,
    };
    svg_write(&figure, durable_stream(file));
    free(sheet);
    return durable_publish(file, err);
}
