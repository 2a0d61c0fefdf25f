#include <cjson/cJSON.h>
#include <dirent.h>
#include <errno.h>
#include <fnmatch.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/log.h"
#include "base/num.h"
#include "io/digest.h"
#include "io/results_document.h"
#include "io/results_index.h"

struct results {
    char *directory;
    struct durable_lock *lock;
    struct results_index index;
    int64_t lost;
    int64_t last_number; /* given to a document */
    bool run_listed;     /* the index holds this run */
    const struct results_run *run;
    /* The batch that is not published yet: */
    hid_t file;                 /* -1 when nothing was added */
    int64_t part;               /* its number */
    struct results_index batch; /* its rows */
};

/* ---- opening ---- */

static int64_t next_part(const struct results *results)
{
    int64_t last = 0;
    for (int64_t i = 0; i < results->index.n_parts; i++)
        last = i64_max(last, results->index.parts[i].number);
    return last + 1;
}

/* Remove the temporaries of a killed run in `folder` of the directory ("." or "parts"). */
static int temporaries_sweep(const struct results *results, const char *folder, const char *pattern,
                             struct error *err)
{
    char path[2 * RESULTS_PATH];
    snprintf(path, sizeof path, "%s/%s", results->directory, folder);
    DIR *directory = opendir(path);
    if (!directory)
        return error_errno(err, "cannot list %s", path);
    int status = 0;
    for (struct dirent *entry; !status && (entry = readdir(directory));) {
        if (fnmatch(pattern, entry->d_name, 0) != 0)
            continue;
        snprintf(path, sizeof path, "%s/%s/%s", results->directory, folder, entry->d_name);
        status = durable_remove(path, err);
    }
    closedir(directory);
    return status;
}

static bool is_listed(const struct results_index *index, const char *name)
{
    char file[RESULTS_PATH];
    for (int64_t i = 0; i < index->n_parts; i++) {
        results_part_file(index->parts[i].number, file);
        if (strcmp(file + strlen("parts/"), name) == 0)
            return true;
    }
    return false;
}

/* A kill between part and index leaves one part that is not listed, the next one. It is removed, which is told, and
 * its documents are done again: nothing vouches for its bytes. Any other means that an index was lost or set back,
 * and then nothing is removed. */
static int strays_remove(const struct results *results, struct error *err)
{
    char parts[2 * RESULTS_PATH], next[RESULTS_PATH], path[3 * RESULTS_PATH];
    results_part_file(next_part(results), next);
    snprintf(parts, sizeof parts, "%s/parts", results->directory);
    DIR *directory = opendir(parts);
    if (!directory)
        return error_errno(err, "cannot list %s", parts);
    int status = 0;
    for (struct dirent *entry; !status && (entry = readdir(directory));)
        if (fnmatch("part-*.h5", entry->d_name, 0) == 0 && strcmp(entry->d_name, next + strlen("parts/")) != 0 &&
            !is_listed(&results->index, entry->d_name))
            status = error_set(err, ERROR_INPUT,
                               "%s/%s is not listed in %s/results.h5: put back the index that lists it, or move "
                               "the part away",
                               parts, entry->d_name, results->directory);
    closedir(directory);
    snprintf(path, sizeof path, "%s/%s", results->directory, next);
    if (status == 0 && access(path, F_OK) == 0) {
        log_warn("%s: removed, as no index lists it; its documents are done again", path);
        status = durable_remove(path, err);
    }
    return status ? -1 : 0;
}

/* Every listed part is there and whole, or its documents are forgotten; a damaged one is an error. */
static int parts_check(struct results *results, struct error *err)
{
    char path[2 * RESULTS_PATH], file[RESULTS_PATH];
    for (int64_t i = results->index.n_parts - 1; i >= 0; i--) {
        struct results_part part = results->index.parts[i];
        results_part_file(part.number, file);
        snprintf(path, sizeof path, "%s/%s", results->directory, file);
        if (access(path, F_OK) != 0 && errno == ENOENT) {
            int64_t lost;
            if (results_index_drop_part(&results->index, part.number, &lost, err))
                return -1;
            results->lost += lost;
            continue;
        }
        hid_t opened = results_part_open(results->directory, &part, err);
        if (opened < 0)
            return -1;
        store_file_close(opened);
    }
    return 0;
}

static int index_take_up(struct results *results, struct error *err)
{
    char path[RESULTS_PATH];
    results_index_path(results->directory, path);
    if (access(path, F_OK) != 0 && errno == ENOENT)
        return 0;
    if (results_index_load(results->directory, &results->index, err))
        return -1;
    const struct results_run *last = &results->index.runs[results->index.n_runs - 1];
    if (last->task != results->run->task)
        return error_set(err, ERROR_USAGE, "%s holds the results of %s, not of %s", results->directory,
                         result_task_name(last->task), result_task_name(results->run->task));
    return parts_check(results, err);
}

static int directory_prepare(struct results *results, struct error *err)
{
    char parts[RESULTS_PATH];
    cJSON *options = cJSON_Parse(results->run->options);
    cJSON_Delete(options);
    if (!options)
        return error_set(err, ERROR_INTERNAL, "the options of the run are not JSON");
    if (strlen(results->directory) > RESULTS_PATH - 100)
        return error_set(err, ERROR_USAGE, "the name of the output directory is too long");
    snprintf(parts, sizeof parts, "%s/parts", results->directory);
    if (durable_make_directories(parts, err))
        return -1;
    results->lock = durable_lock_take(results->directory, err);
    if (!results->lock || index_take_up(results, err) || temporaries_sweep(results, ".", "results.h5.*.tmp", err) ||
        temporaries_sweep(results, "parts", "part-*.h5.*.tmp", err) || strays_remove(results, err))
        return -1;
    for (int64_t i = 0; i < results->index.n_rows; i++)
        results->last_number = i64_max(results->last_number, results->index.rows[i].number);
    return 0;
}

struct results *results_open(const char *directory, const struct results_run *run, struct error *err)
{
    struct results *results = calloc(1, sizeof *results);
    if (!results) {
        error_set(err, ERROR_RESOURCE, "out of memory");
        return NULL;
    }
    results->run = run;
    results->file = -1;
    results->directory = strdup(directory);
    if (!results->directory) {
        error_set(err, ERROR_RESOURCE, "out of memory");
        goto fail;
    }
    if (directory_prepare(results, err))
        goto fail;
    return results;
fail:
    results_close(results);
    return NULL;
}

const struct results_run *results_before(const struct results *results)
{
    return results->index.n_runs > 0 ? &results->index.runs[results->index.n_runs - 1] : NULL;
}

int64_t results_lost(const struct results *results)
{
    return results->lost;
}

bool results_find(const struct results *results, const char *id, struct results_entry *out)
{
    const struct results_row *row = results_index_find(&results->index, id);
    if (row)
        *out = (struct results_entry){row->sha256, row->status, row->attempts};
    return row != NULL;
}

void results_place(struct results *results, const char *id, int64_t order)
{
    struct results_row *row = results_index_find(&results->index, id);
    if (row)
        row->order = order;
}

/* ---- adding ---- */

/* The number of the run that is going on, when it is listed. */
static int64_t run_number(const struct results *results)
{
    return results->index.n_runs + !results->run_listed;
}

/* A document keeps its number for good; a new one gets the next. */
static int64_t number_for(struct results *results, const char *id)
{
    const struct results_row *known = results_index_find(&results->index, id);
    return known ? known->number : ++results->last_number;
}

static int batch_begin(struct results *results, struct error *err)
{
    if (results->file >= 0)
        return 0;
    char name[RESULTS_PATH];
    results->part = next_part(results);
    results_part_file(results->part, name);
    results->file = store_file_new(name, 0, err);
    if (results->file < 0)
        return -1;
    hid_t documents = store_group_new(results->file, "documents", err);
    if (documents < 0) {
        store_file_close(results->file);
        results->file = -1;
        return -1;
    }
    H5Gclose(documents);
    return 0;
}

static int batch_write(struct results *results, const struct results_row *row,
                       const struct result_document *document, struct error *err)
{
    char name[64];
    snprintf(name, sizeof name, "/documents/%08" PRId64, row->number);
    hid_t group = store_group_new(results->file, name, err);
    if (group < 0)
        return -1;
    struct result_document stamped = *document;
    stamped.run = row->run;
    int status = results_document_write(group, &stamped, err);
    H5Gclose(group);
    if (!status)
        status = results_index_put(&results->batch, row, err);
    if (status)
        H5Ldelete(results->file, name, H5P_DEFAULT);
    return status;
}

int results_add(struct results *results, const struct result_document *document, struct error *err)
{
    if (results_index_find(&results->batch, document->id))
        return error_set(err, ERROR_INTERNAL, "%s was added twice in one batch", document->id);
    if (batch_begin(results, err))
        return -1;
    struct results_row row = {
        .number = number_for(results, document->id),
        .id = document->id,
        .path = document->path,
        .sha256 = document->sha256,
        .order = document->order,
        .status = document->status,
        .reason = document->reason,
        .attempts = document->attempts,
        .bytes = document->bytes,
        .tokens_in = document->tokens_in,
        .tokens_used = document->tokens_used,
        .tokens_dropped = document->tokens_dropped,
        .part = results->part,
        .run = run_number(results),
    };
    return batch_write(results, &row, document, err) ? error_wrap(err, "result of %s", document->id) : 0;
}

/* ---- publishing ---- */

/* The part as a file, and its row for the index (`sha256` lies in `hex`, `file` in `name`). */
static int part_publish(struct results *results, struct results_part *part, char hex[DIGEST_HEX_BYTES],
                        struct error *err)
{
    char path[2 * RESULTS_PATH];
    struct durable_bytes image;
    snprintf(path, sizeof path, "%s/%s", results->directory, part->file);
    if (store_file_image(results->file, &image, err))
        return error_wrap(err, "%s", path);
    int status = digest_bytes(image.bytes, image.size, hex, err);
    if (!status)
        status = durable_write(path, image.bytes, image.size, err);
    part->bytes = (int64_t)image.size;
    part->sha256 = hex;
    free(image.bytes);
    return status;
}

static void batch_end(struct results *results)
{
    store_file_close(results->file);
    results->file = -1;
    results_index_free(&results->batch);
}

int results_publish(struct results *results, struct error *err)
{
    if (!results->batch.n_rows)
        return 0;
    char name[RESULTS_PATH], hex[DIGEST_HEX_BYTES];
    struct results_part part = {.number = results->part, .file = name};
    results_part_file(part.number, name);
    part.documents = results->batch.n_rows;
    if (part_publish(results, &part, hex, err))
        return -1;
    /* Everything put here is put once more, with the same outcome, when publishing is tried again. */
    if (!results->run_listed && results_index_put_run(&results->index, results->run, err))
        return -1;
    results->run_listed = true;
    if (results_index_put_part(&results->index, &part, err))
        return -1;
    for (int64_t i = 0; i < results->batch.n_rows; i++)
        if (results_index_put(&results->index, &results->batch.rows[i], err))
            return -1;
    if (results_index_save(results->directory, &results->index, err))
        return -1;
    batch_end(results);
    return 0;
}

void results_close(struct results *results)
{
    if (!results)
        return;
    batch_end(results);
    results_index_free(&results->index);
    durable_lock_release(results->lock);
    free(results->directory);
    free(results);
}
