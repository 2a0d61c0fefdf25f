#include "pipeline/needle_log.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <search.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "io/durable.h"
#include "io/store_text.h"
#include "pipeline/needle_grid.h"

/* The place of a trial that has an answer. */
struct known {
    struct needle_cell cell;
    int setting;
};

struct needle_log {
    char *path;
    const char *config;
    struct needle_visitor visitor;
    int file;
    char dtype[8];
    void *known; /* tsearch's tree of struct known */
};

/* ---- what is known ---- */

static int compare_known(const void *a, const void *b)
{
    const struct known *left = a, *right = b;
    const int64_t differences[] = {(int64_t)left->cell.task - (int64_t)right->cell.task,
                                   left->cell.length - right->cell.length, left->cell.depth - right->cell.depth,
                                   left->cell.trial - right->cell.trial, left->setting - right->setting};
    for (size_t i = 0; i < sizeof differences / sizeof *differences; i++)
        if (differences[i] != 0)
            return differences[i] < 0 ? -1 : 1;
    return 0;
}

/* *fresh = whether the place was not known; it is now. */
static int know(struct needle_log *log, const struct needle_record *record, bool *fresh, struct error *err)
{
    struct known *place = malloc(sizeof *place), **found = NULL;
    if (place) {
        *place = (struct known){record->cell, record->setting};
        found = tsearch(place, &log->known, compare_known);
    }
    *fresh = found && *found == place;
    if (!*fresh)
        free(place);
    return found ? 0 : error_set(err, ERROR_RESOURCE, "%s: no memory", log->path);
}

/* ---- reading ---- */

static int64_t number_of(const cJSON *json, const char *name)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(json, name);
    return cJSON_IsNumber(item) ? (int64_t)item->valuedouble : -1;
}

static const char *string_of(const cJSON *json, const char *name)
{
    const char *string = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, name));
    return string ? string : "";
}

/* Where the lines are, for messages, and what came of them. */
struct lines {
    const char *path;
    int64_t number;
    FILE *copy; /* where the trials that are new go; NULL: they are the log's own */
    int64_t trials, taken;
    size_t end; /* the bytes of whole lines */
};

static int check_trial(const struct needle_log *log, const cJSON *json, const struct lines *lines,
                       struct error *err)
{
    const char *task = string_of(json, "task");
    if (needle_task_find(task, strlen(task)) < 0)
        return error_set(err, ERROR_INPUT, "%s: line %" PRId64 " is no trial of a needle run", lines->path,
                         lines->number);
    if (strcmp(string_of(json, "config"), log->config) != 0)
        return error_set(err, ERROR_USAGE,
                         "%s: line %" PRId64
                         " is of other options, another model or another haystack: take another "
                         "-o, or the same ones",
                         lines->path, lines->number);
    return 0;
}

static int read_trial(struct needle_log *log, const cJSON *json, const struct text *line, struct lines *lines,
                      struct error *err)
{
    if (check_trial(log, json, lines, err) != 0)
        return -1;
    const char *task = string_of(json, "task"), *setting = string_of(json, "setting");
    const cJSON *score = cJSON_GetObjectItemCaseSensitive(json, "score");
    const struct needle_record record = {
        .cell = {(enum needle_task)needle_task_find(task, strlen(task)), number_of(json, "length"),
                 number_of(json, "depth"), number_of(json, "trial")},
        .setting = strcmp(setting, needle_setting_name(NEEDLE_ASKED)) == 0 ? NEEDLE_ASKED : NEEDLE_UNTOUCHED,
        .prompt_tokens = number_of(json, "prompt_tokens"),
        .score = cJSON_IsNumber(score) ? score->valuedouble : NAN,
        .failure = cJSON_IsNumber(score) ? NULL : string_of(json, "error"),
        .dtype = string_of(json, "dtype"),
    };
    bool fresh = false;
    if (!record.failure && know(log, &record, &fresh, err) != 0)
        return -1;
    lines->trials += !record.failure;
    lines->taken += fresh;
    if (lines->copy && !fresh)
        return 0;
    if (lines->copy)
        fwrite(line->bytes, 1, line->length, lines->copy);
    if (!*log->dtype)
        snprintf(log->dtype, sizeof log->dtype, "%s", record.dtype);
    log->visitor.visit(log->visitor.context, &record);
    return 0;
}

/* All whole lines. */
static int read_lines(struct needle_log *log, const struct durable_bytes *all, struct lines *lines,
                      struct error *err)
{
    const char *const first = (const char *)all->bytes, *const last = first + all->size;
    for (const char *at = first, *stop; at < last && (stop = memchr(at, '\n', (size_t)(last - at)));
         at = stop + 1) {
        const struct text line = {at, (size_t)(stop + 1 - at)};
        cJSON *json = cJSON_ParseWithLength(at, line.length - 1);
        lines->number++;
        const int status = read_trial(log, json, &line, lines, err);
        cJSON_Delete(json);
        if (status != 0)
            return -1;
        lines->end = (size_t)(stop + 1 - first);
    }
    return 0;
}

static int read_before(struct needle_log *log, struct error *err)
{
    struct durable_bytes all = {0};
    struct lines lines = {.path = log->path};
    if (durable_read(log->path, &all, err) != 0)
        return -1;
    int status = read_lines(log, &all, &lines, err);
    if (status == 0 && lines.end < all.size && ftruncate(log->file, (off_t)lines.end) != 0)
        status = error_errno(err, "%s: cutting off an unfinished line", log->path);
    free(all.bytes);
    return status;
}

struct needle_log *needle_log_open(const char *path, const char *config, const struct needle_visitor *visitor,
                                   struct error *err)
{
    struct needle_log *log = calloc(1, sizeof *log);
    if (!log || !(log->path = strdup(path))) {
        free(log);
        error_set(err, ERROR_RESOURCE, "%s: no memory", path);
        return NULL;
    }
    log->config = config;
    log->visitor = *visitor;
    log->file = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
    if (log->file < 0)
        error_errno(err, "%s: opening it", path);
    else if (read_before(log, err) == 0)
        return log;
    needle_log_close(log);
    return NULL;
}

const char *needle_log_dtype(const struct needle_log *log)
{
    return log->dtype;
}

/* ---- writing ---- */

static bool add_strings(cJSON *json, const char *name, const struct needle_record *record)
{
    cJSON *array = cJSON_AddArrayToObject(json, name);
    bool complete = array != NULL;
    for (int i = 0; i < record->n_expected && complete; i++)
        complete = cJSON_AddItemToArray(array, cJSON_CreateString(record->expected[i]));
    return complete;
}

static bool add_number(cJSON *json, const char *name, double number)
{
    return cJSON_AddNumberToObject(json, name, number) != NULL;
}

static bool add_string(cJSON *json, const char *name, const char *string)
{
    return cJSON_AddStringToObject(json, name, string) != NULL;
}

static bool add_place(cJSON *json, const struct needle_record *record)
{
    const struct needle_cell *cell = &record->cell;
    return add_string(json, "task", needle_task_name(cell->task)) &&
           add_number(json, "length", (double)cell->length) &&
           (needle_task_has_depth(cell->task) ? add_number(json, "depth", (double)cell->depth)
                                              : cJSON_AddNullToObject(json, "depth") != NULL) &&
           add_number(json, "trial", (double)cell->trial) &&
           add_string(json, "setting", needle_setting_name(record->setting)) &&
           add_number(json, "prompt_tokens", (double)record->prompt_tokens);
}

static bool add_answer(cJSON *json, const struct needle_record *record)
{
    if (record->failure)
        return add_strings(json, "expected", record) && cJSON_AddNullToObject(json, "answer") != NULL &&
               cJSON_AddNullToObject(json, "score") != NULL && add_string(json, "error", record->failure);
    struct arena scratch = {0};
    struct error ignored; /* no memory: the line is not complete */
    size_t replaced;
    const char *answer =
        store_text_clean(&scratch, record->answer.bytes, record->answer.length, &replaced, &ignored);
    const bool complete = answer && add_strings(json, "expected", record) && add_string(json, "answer", answer) &&
                          add_number(json, "score", record->score) && add_string(json, "finish", record->finish) &&
                          add_number(json, "generated", (double)record->generated);
    arena_free(&scratch);
    return complete;
}

static bool add_circumstances(cJSON *json, const struct needle_identity *identity,
                              const struct needle_record *record)
{
    return add_string(json, "policy", record->policy) && add_string(json, "positions", record->positions) &&
           add_number(json, "seconds", record->prefill_seconds + record->decode_seconds) &&
           add_number(json, "prefill_seconds", record->prefill_seconds) &&
           add_number(json, "decode_seconds", record->decode_seconds) &&
           add_string(json, "model", identity->model) && add_string(json, "dtype", identity->dtype) &&
           add_string(json, "version", identity->version) && add_string(json, "config", identity->config);
}

/* One write for whole lines, so that they are there or, but for a dying machine, not. */
static int append(struct needle_log *log, const char *lines, size_t length, struct error *err)
{
    for (size_t done = 0; done < length;) {
        const ssize_t n = write(log->file, lines + done, length - done);
        if (n < 0 && errno != EINTR)
            return error_errno(err, "%s: writing a trial", log->path);
        done += n > 0 ? (size_t)n : 0;
    }
    return fdatasync(log->file) == 0 ? 0 : error_errno(err, "%s: writing a trial", log->path);
}

int needle_log_add(struct needle_log *log, const struct needle_identity *identity,
                   const struct needle_record *record, struct error *err)
{
    cJSON *json = cJSON_CreateObject();
    char *line = NULL;
    if (json && add_place(json, record) && add_answer(json, record) && add_circumstances(json, identity, record))
        line = cJSON_PrintUnformatted(json);
    cJSON_Delete(json);
    if (!line)
        return error_set(err, ERROR_RESOURCE, "%s: no memory", log->path);
    const size_t length = strlen(line);
    line[length] = '\n';
    const int status = append(log, line, length + 1, err);
    cJSON_free(line);
    return status;
}

/* The lines of `all` that are new, at the end of the log. */
static int take_over(struct needle_log *log, const struct durable_bytes *all, struct lines *lines,
                     struct error *err)
{
    char *copied = NULL;
    size_t length = 0;
    if (!(lines->copy = open_memstream(&copied, &length)))
        return error_set(err, ERROR_RESOURCE, "%s: no memory", lines->path);
    int status = read_lines(log, all, lines, err);
    if (fclose(lines->copy) != 0 && status == 0)
        status = error_set(err, ERROR_RESOURCE, "%s: no memory", lines->path);
    if (status == 0)
        status = append(log, copied, length, err);
    free(copied);
    return status;
}

int needle_log_gather(struct needle_log *log, const char *path, struct needle_gathered *out, struct error *err)
{
    struct durable_bytes all = {0};
    struct lines lines = {.path = path};
    *out = (struct needle_gathered){0, 0};
    if (access(path, F_OK) != 0 && (errno == ENOENT || errno == ENOTDIR))
        return 0;
    if (durable_read(path, &all, err) != 0)
        return -1;
    const int status = take_over(log, &all, &lines, err);
    free(all.bytes);
    *out = (struct needle_gathered){lines.trials, lines.taken};
    return status;
}

void needle_log_close(struct needle_log *log)
{
    if (!log)
        return;
    if (log->file >= 0)
        close(log->file);
    tdestroy(log->known, free);
    free(log->path);
    free(log);
}
