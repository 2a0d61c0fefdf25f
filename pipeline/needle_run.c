#include "pipeline/needle_run.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

enum state { ABSENT, OPEN, RUNNING, DONE, FAILED };

enum { TITLE = 128 };

struct entry {
    enum state state;
    enum dtype dtype; /* of what is done */
    double score;
    struct under_way {
        struct needle_trial trial; /* without its tokens: the job has them */
        char title[TITLE];
    } * now; /* while it runs */
};

struct needle_run {
    struct needle_run_options options;
    struct needle_log *log;
    const struct needle_identity *identity;
    struct meter *meter;
    int64_t size, running;
    struct entry *entries; /* [size] */
    bool stopped;
    struct error failure; /* take_job cannot return one: check_failure does */
};

static void describe(const struct needle_run *run, int64_t index, char out[TITLE])
{
    const struct needle_grid *grid = run->options.grid;
    const struct needle_place place = needle_grid_place(grid, index);
    const struct needle_cell cell = needle_grid_cell(grid, &place);
    char depth[32] = "";
    if (needle_task_has_depth(cell.task))
        snprintf(depth, sizeof depth, ", depth %" PRId64 " %%", cell.depth);
    snprintf(out, TITLE, "%s, %" PRId64 " tokens%s, trial %" PRId64 "%s", needle_task_name(cell.task), cell.length,
             depth, cell.trial, place.setting == NEEDLE_UNTOUCHED ? ", untouched" : "");
}

/* ---- life ---- */

struct needle_run *needle_run_create(const struct needle_run_options *options, struct error *err)
{
    const int64_t size = needle_grid_size(options->grid);
    struct needle_run *run = calloc(1, sizeof *run);
    if (!run || !(run->entries = calloc((size_t)size, sizeof *run->entries))) {
        free(run);
        error_set(err, ERROR_RESOURCE, "no memory for %" PRId64 " trials", size);
        return NULL;
    }
    run->options = *options;
    run->size = size;
    for (int64_t i = 0; i < size; i++) {
        const struct needle_place place = needle_grid_place(options->grid, i);
        run->entries[i].state = needle_grid_has(options->grid, &place) ? OPEN : ABSENT;
    }
    return run;
}

static void drop_trial(struct entry *entry)
{
    if (entry->now)
        needle_trial_free(&entry->now->trial);
    free(entry->now);
    entry->now = NULL;
}

void needle_run_free(struct needle_run *run)
{
    if (!run)
        return;
    for (int64_t i = 0; i < run->size; i++)
        drop_trial(&run->entries[i]);
    free(run->entries);
    free(run);
}

static enum dtype dtype_of(const char *name)
{
    return strcmp(name, dtype_name(DTYPE_BF16)) == 0 ? DTYPE_BF16 : DTYPE_F32;
}

void needle_run_note(void *context, const struct needle_record *record)
{
    struct needle_run *run = context;
    const int64_t index = needle_grid_find(run->options.grid, &record->cell, record->setting);
    if (index < 0 || record->failure)
        return;
    run->entries[index].state = DONE;
    run->entries[index].dtype = dtype_of(record->dtype);
    run->entries[index].score = record->score;
}

struct needle_counts needle_run_counts(const struct needle_run *run)
{
    struct needle_counts counts = {0};
    for (int64_t i = 0; i < run->size; i++) {
        const enum state state = run->entries[i].state;
        const struct needle_place place = needle_grid_place(run->options.grid, i);
        const int64_t length = run->options.grid->lengths.items[place.length];
        counts.trials += state != ABSENT;
        counts.done += state == DONE;
        counts.done_in[run->entries[i].dtype] += state == DONE;
        counts.failed += state == FAILED;
        if (state != OPEN)
            continue;
        const int64_t answer = needle_task_max_new(run->options.grid->tasks[place.task]);
        counts.tokens_left += length - answer;
        counts.answers_left += answer;
        counts.longest[place.setting] = length; /* they rise with the index */
    }
    return counts;
}

void needle_run_open(struct needle_run *run, struct needle_log *log, const struct needle_identity *identity,
                     struct meter *meter)
{
    run->log = log;
    run->identity = identity;
    run->meter = meter;
}

static int check_failure(void *context, struct error *err)
{
    const struct needle_run *run = context;
    if (run->failure.code == ERROR_NONE)
        return 0;
    *err = run->failure;
    return -1;
}

static int64_t find_open(const struct needle_run *run)
{
    int64_t index = run->size - 1;
    while (index >= 0 && run->entries[index].state != OPEN)
        index--;
    return index;
}

static bool is_over(void *context)
{
    const struct needle_run *run = context;
    return run->running == 0 && (run->stopped || find_open(run) < 0);
}

static void stop(void *context)
{
    struct needle_run *run = context;
    run->stopped = true;
}

/* ---- jobs ---- */

/* The trial of a place, and its tokens as a job, which takes them over. */
static int make_job(struct needle_run *run, int64_t index, struct job *out, struct error *err)
{
    struct entry *entry = &run->entries[index];
    const struct needle_place place = needle_grid_place(run->options.grid, index);
    const struct needle_cell cell = needle_grid_cell(run->options.grid, &place);
    if (!(entry->now = calloc(1, sizeof *entry->now)))
        return error_set(err, ERROR_RESOURCE, "no memory for a trial");
    struct needle_trial *trial = &entry->now->trial;
    describe(run, index, entry->now->title);
    if (needle_trial_make(run->options.material, &cell, trial, err) != 0)
        return -1;
    *out = (struct job){
        .id = index,
        .kind = JOB_GENERATE,
        .n_tokens = trial->n_tokens,
        .tokens = trial->tokens,
        .max_new = needle_task_max_new(cell.task),
        .setting = place.setting,
        .sampling = sample_defaults(),
    };
    trial->tokens = NULL;
    return 0;
}

static bool take_job(void *context, struct job *out)
{
    struct needle_run *run = context;
    const int64_t index = run->stopped || run->failure.code != ERROR_NONE ? -1 : find_open(run);
    if (index < 0 || make_job(run, index, out, &run->failure) != 0)
        return false;
    run->entries[index].state = RUNNING;
    run->running++;
    const char *title = run->entries[index].now->title;
    const struct meter_job metered = {
        .id = index, .reads = out->n_tokens, .writes = out->max_new, .foreseen = true, .document = title};
    meter_begin(run->meter, &metered);
    log_debug("%s: %" PRId64 " tokens handed out", title, out->n_tokens);
    return true;
}

static int write_down(struct needle_run *run, const struct job_result *result, const struct text *answer,
                      struct error *err)
{
    struct entry *entry = &run->entries[result->id];
    const struct needle_trial *trial = &entry->now->trial;
    const struct needle_place place = needle_grid_place(run->options.grid, result->id);
    const struct needle_record record = {
        .cell = needle_grid_cell(run->options.grid, &place),
        .setting = place.setting,
        .prompt_tokens = trial->n_tokens,
        .generated = result->count,
        .n_expected = trial->n_expected,
        .expected = trial->expected,
        .answer = *answer,
        .failure = entry->state == FAILED ? result->failure.text : NULL,
        .score = entry->score,
        .finish = job_finish_name(result->finish),
        .policy = run->options.policy[place.setting],
        .positions = run->options.positions[place.setting],
        .prefill_seconds = result->prefill_seconds,
        .decode_seconds = result->decode_seconds,
    };
    return needle_log_add(run->log, run->identity, &record, err);
}

static int give_result(void *context, struct job_result *result, struct error *err)
{
    struct needle_run *run = context;
    struct entry *entry = &run->entries[result->id];
    char outcome[64] = "failed";
    struct arena scratch = {0};
    struct text answer;
    run->running--;
    meter_end(run->meter, result->id, result->tokens ? result->count : 0);
    int status = tokenizer_spell(run->options.tokenizer, result->tokens, result->count, &scratch, &answer, err);
    if (status == 0) {
        entry->state = result->failure.code == ERROR_NONE ? DONE : FAILED;
        entry->dtype = dtype_of(run->identity->dtype);
        entry->score = entry->state == DONE ? needle_score(&entry->now->trial, answer.bytes) : 0;
        status = write_down(run, result, &answer, err);
    }
    arena_free(&scratch);
    if (status != 0)
        return -1;
    if (entry->state == DONE)
        snprintf(outcome, sizeof outcome, "score %.2f", entry->score);
    else
        log_error("%s: %s", entry->now->title, result->failure.text);
    meter_document_done(run->meter, entry->now->title, outcome);
    drop_trial(entry);
    return 0;
}

static void give_progress(void *context, const struct job_progress *progress)
{
    struct needle_run *run = context;
    meter_progress(run->meter, progress);
}

struct session_source needle_run_source(struct needle_run *run)
{
    return (struct session_source){{take_job, give_result, give_progress, run}, is_over, check_failure, stop};
}

/* ---- scores ---- */

static bool agrees(int64_t wanted, int64_t is)
{
    return wanted < 0 || wanted == is;
}

double needle_run_mean(const struct needle_run *run, const struct needle_place *place)
{
    double sum = 0;
    int64_t count = 0;
    for (int64_t i = 0; i < run->size; i++) {
        const struct needle_place at = needle_grid_place(run->options.grid, i);
        if (run->entries[i].state != DONE || !agrees(place->length, at.length) ||
            !agrees(place->setting, at.setting) || !agrees(place->task, at.task) ||
            !agrees(place->depth, at.depth) || !agrees(place->trial, at.trial))
            continue;
        sum += run->entries[i].score;
        count++;
    }
    return count > 0 ? sum / (double)count : NAN;
}
