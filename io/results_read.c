#include <libgen.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "io/results_document.h"
#include "io/results_index.h"

struct results_reader {
    char *directory;
    struct results_index index; /* rows by (order, id): its hash table is not to be used any more */
    int64_t next;               /* row */
    int64_t part;               /* the one that is open */
    hid_t file;                 /* or -1 */
    struct arena arena;         /* of the document given last */
    struct result_document document;
};

static bool is_same_file(const char *one, const char *other)
{
    struct stat a, b;
    return stat(one, &a) == 0 && stat(other, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

bool results_own(const char *directory, const char *path)
{
    char index[RESULTS_PATH], parts[RESULTS_PATH], folder[RESULTS_PATH];
    results_index_path(directory, index);
    snprintf(parts, sizeof parts, "%s/parts", directory);
    snprintf(folder, sizeof folder, "%s", path);
    return is_same_file(path, index) || is_same_file(dirname(folder), parts);
}

static int row_compare(const void *a, const void *b)
{
    const struct results_row *one = a, *other = b;
    if (one->order != other->order)
        return one->order < other->order ? -1 : 1;
    return strcmp(one->id, other->id);
}

struct results_reader *results_load(const char *directory, struct error *err)
{
    struct results_reader *reader = calloc(1, sizeof *reader);
    if (!reader || !(reader->directory = strdup(directory)) || strlen(directory) > RESULTS_PATH - 100) {
        error_set(err, ERROR_RESOURCE, "%.200s: out of memory, or its name is too long", directory);
        goto fail;
    }
    reader->file = -1;
    if (results_index_load(directory, &reader->index, err))
        goto fail;
    if (reader->index.n_rows)
        qsort(reader->index.rows, (size_t)reader->index.n_rows, sizeof *reader->index.rows, row_compare);
    return reader;
fail:
    free(reader ? reader->directory : NULL);
    free(reader);
    return NULL;
}

int64_t results_count(const struct results_reader *reader)
{
    return reader->index.n_rows;
}

/* Open the part of that number, unless it is open already. */
static int part_switch(struct results_reader *reader, int64_t number, struct error *err)
{
    if (reader->file >= 0 && reader->part == number)
        return 0;
    store_file_close(reader->file);
    reader->file = -1;
    for (int64_t i = 0; i < reader->index.n_parts; i++) {
        if (reader->index.parts[i].number != number)
            continue;
        reader->file = results_part_open(reader->directory, &reader->index.parts[i], err);
        reader->part = number;
        return reader->file < 0 ? -1 : 0;
    }
    return error_set(err, ERROR_INPUT, "%s/results.h5 lists no part %lld", reader->directory, (long long)number);
}

int results_next(struct results_reader *reader, const struct result_document **out, struct error *err)
{
    *out = NULL;
    arena_free(&reader->arena);
    if (reader->next == reader->index.n_rows)
        return 0;
    const struct results_row *row = &reader->index.rows[reader->next];
    if (part_switch(reader, row->part, err))
        return error_wrap(err, "result of %s", row->id);
    char name[64];
    snprintf(name, sizeof name, "/documents/%08lld", (long long)row->number);
    hid_t group = store_group_open(reader->file, name, err);
    int status = group < 0 ? -1 : results_document_read(group, &reader->arena, &reader->document, err);
    if (group >= 0)
        H5Gclose(group);
    if (status)
        return error_wrap(err, "result of %s", row->id);
    reader->document.number = row->number;
    reader->document.order = row->order; /* the part has that of when it was made */
    reader->next++;
    *out = &reader->document;
    return 0;
}

const struct results_run *results_run_of(const struct results_reader *reader, int64_t number)
{
    return number < 1 || number > reader->index.n_runs ? NULL : &reader->index.runs[number - 1];
}

enum result_task results_task(const struct results_reader *reader)
{
    return reader->index.runs[reader->index.n_runs - 1].task;
}

void results_unload(struct results_reader *reader)
{
    if (!reader)
        return;
    store_file_close(reader->file);
    arena_free(&reader->arena);
    results_index_free(&reader->index);
    free(reader->directory);
    free(reader);
}
