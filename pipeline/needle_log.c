#include "pipeline/needle_log.h"

#include <cjson/cJSON.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "io/durable.h"
#include "io/encoding.h"
#include "pipeline/needle_grid.h"

struct needle_log {
    char *path;
    int file;
    char dtype[8];
};

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

/* Where the line is, for messages. */
struct line {
    const char *path, *config;
    int64_t number;
};

static int read_trial(struct needle_log *log, const cJSON *json, const struct line *line,
                      const struct needle_visitor *visitor, struct error *err)
{
    const char *task = string_of(json, "task"), *setting = string_of(json, "setting");
    const cJSON *score = cJSON_GetObjectItemCaseSensitive(json, "score");
    const int found = needle_task_find(task, strlen(task));
    if (found < 0)
        return error_set(err, ERROR_INPUT, "%s: line %" PRId64 " is no trial of a needle run", line->path,
                         line->number);
    if (strcmp(string_of(json, "config"), line->config) != 0)
        return error_set(err, ERROR_USAGE,
                         "%s: line %" PRId64
                         " is of other options, another model or another haystack: take another "
                         "-o, or the same ones",
                         line->path, line->number);
    const struct needle_record record = {
        .cell = {(enum needle_task)found, number_of(json, "length"), number_of(json, "depth"),
                 number_of(json, "trial")},
        .setting = strcmp(setting, needle_setting_name(NEEDLE_ASKED)) == 0 ? NEEDLE_ASKED : NEEDLE_UNTOUCHED,
        .prompt_tokens = number_of(json, "prompt_tokens"),
        .score = cJSON_IsNumber(score) ? score->valuedouble : NAN,
        .failure = cJSON_IsNumber(score) ? NULL : string_of(json, "error"),
    };
    snprintf(log->dtype, sizeof log->dtype, "%s", string_of(json, "dtype"));
    visitor->visit(visitor->context, &record);
    return 0;
}

/* All whole lines; *end = the bytes that they have. */
static int read_lines(struct needle_log *log, const struct durable_bytes *all, struct line *line,
                      const struct needle_visitor *visitor, size_t *end, struct error *err)
{
    const char *at = (const char *)all->bytes, *const last = at + all->size;
    *end = 0;
    for (const char *stop; at < last && (stop = memchr(at, '\n', (size_t)(last - at))); at = stop + 1) {
        cJSON *json = cJSON_ParseWithLength(at, (size_t)(stop - at));
        line->number++;
        const int status = read_trial(log, json, line, visitor, err);
        cJSON_Delete(json);
        if (status != 0)
            return -1;
        *end = (size_t)(stop + 1 - (const char *)all->bytes);
    }
    return 0;
}

static int read_before(struct needle_log *log, const char *config, const struct needle_visitor *visitor,
                       struct error *err)
{
    struct durable_bytes all = {0};
    struct line line = {log->path, config, 0};
    size_t end;
    if (durable_read(log->path, &all, err) != 0)
        return -1;
    int status = read_lines(log, &all, &line, visitor, &end, err);
    if (status == 0 && end < all.size && ftruncate(log->file, (off_t)end) != 0)
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
    log->file = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0666);
    if (log->file < 0)
        error_errno(err, "%s: opening it", path);
    else if (read_before(log, config, visitor, err) == 0)
        return log;
    needle_log_close(log);
    return NULL;
}

const char *needle_log_dtype(const struct needle_log *log)
{
    return log->dtype;
}

/* ---- writing ---- */

/* The bytes as text: what is not UTF-8, and NUL, becomes U+FFFD. NULL: no memory. */
static char *clean(const char *bytes, size_t length)
{
    static const char replacement[] = "\xef\xbf\xbd";
    char *out = malloc(3 * length + 1);
    size_t n = 0;
    for (size_t i = 0; out && i < length;) {
        const size_t valid = encoding_utf8_valid(bytes + i, length - i);
        const size_t plain = valid > 0 ? strnlen(bytes + i, valid) : 0;
        memcpy(out + n, bytes + i, plain);
        n += plain;
        i += plain;
        if (i < length && plain == 0) {
            memcpy(out + n, replacement, 3);
            n += 3;
            i++;
        }
    }
    if (out)
        out[n] = '\0';
    return out;
}

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
    char *answer = clean(record->answer, record->answer_length);
    const bool complete = answer && add_strings(json, "expected", record) && add_string(json, "answer", answer) &&
                          add_number(json, "score", record->score) && add_string(json, "finish", record->finish) &&
                          add_number(json, "generated", (double)record->generated);
    free(answer);
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

/* One write for the whole line, so that it is there or, but for a dying machine, not. */
static int append(struct needle_log *log, char *line, struct error *err)
{
    const size_t length = strlen(line);
    line[length] = '\n';
    for (size_t done = 0; done < length + 1;) {
        const ssize_t n = write(log->file, line + done, length + 1 - done);
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
    const int status = line ? append(log, line, err) : error_set(err, ERROR_RESOURCE, "%s: no memory", log->path);
    cJSON_free(line);
    return status;
}

void needle_log_close(struct needle_log *log)
{
    if (!log)
        return;
    if (log->file >= 0)
        close(log->file);
    free(log->path);
    free(log);
}
