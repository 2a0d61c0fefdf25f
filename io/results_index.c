#include "io/results_index.h"

#include <cjson/cJSON.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/fnv.h"
#include "base/num.h"
#include "io/digest.h"
#include "io/results_document.h"

/* The first SEAL_BYTES of OUT/results.h5 are an HDF5 user block: one line of text with the SHA-256 of all that
 * follows, then NULs. HDF5 readers skip it. */
enum { SEAL_BYTES = 512, FORMAT_VERSION = 1 };
static const char format_name[] = "longhaul results";

/* ---- how structs map to fields ---- */

/* What stands at the root of the index. */
struct head {
    const char *format;
    int64_t format_version;
    const char *task;
    const char *config_hash;
    int64_t documents;
};
static const struct store_field head_fields[] = {
    {STORE_FIELD("format", STORE_STRING, head, format)},
    {STORE_FIELD("format_version", STORE_INT, head, format_version)},
    {STORE_FIELD("task", STORE_STRING, head, task)},
    {STORE_FIELD("config_hash", STORE_STRING, head, config_hash)},
    {STORE_FIELD("documents", STORE_INT, head, documents)},
};
static const struct store_record head_record = {head_fields, 5, sizeof(struct head)};

static const struct store_field part_fields[] = {
    {STORE_FIELD("number", STORE_INT, results_part, number)},
    {STORE_FIELD("file", STORE_STRING, results_part, file)},
    {STORE_FIELD("bytes", STORE_INT, results_part, bytes)},
    {STORE_FIELD("sha256", STORE_STRING, results_part, sha256)},
    {STORE_FIELD("documents", STORE_INT, results_part, documents)},
};
static const struct store_record part_record = {part_fields, 5, sizeof(struct results_part)};

static const struct store_field row_fields[] = {
    {STORE_FIELD("number", STORE_INT, results_row, number)},
    {STORE_FIELD("id", STORE_NAME, results_row, id)},
    {STORE_FIELD("path", STORE_NAME, results_row, path)},
    {STORE_FIELD("sha256", STORE_STRING, results_row, sha256)},
    {STORE_FIELD("order", STORE_INT, results_row, order)},
    {STORE_FIELD("status", STORE_ENUM, results_row, status), .names = results_status_names},
    {STORE_FIELD("reason", STORE_STRING, results_row, reason)},
    {STORE_FIELD("attempts", STORE_INT, results_row, attempts)},
    {STORE_FIELD("bytes", STORE_INT, results_row, bytes)},
    {STORE_FIELD("tokens_in", STORE_INT, results_row, tokens_in)},
    {STORE_FIELD("tokens_used", STORE_INT, results_row, tokens_used)},
    {STORE_FIELD("tokens_dropped", STORE_INT, results_row, tokens_dropped)},
    {STORE_FIELD("part", STORE_INT, results_row, part)},
    {STORE_FIELD("run", STORE_INT, results_row, run)},
};
static const struct store_record row_record = {row_fields, 14, sizeof(struct results_row)};

/* ---- names ---- */

void results_index_path(const char *directory, char out[RESULTS_PATH])
{
    snprintf(out, RESULTS_PATH, "%s/results.h5", directory);
}

void results_part_file(int64_t number, char out[RESULTS_PATH])
{
    snprintf(out, RESULTS_PATH, "parts/part-%06" PRId64 ".h5", number);
}

/* ---- the hash table ---- */

/* The slot of that id, or the free one where it belongs. */
static int64_t *slot_of(const struct results_index *index, const char *id)
{
    uint64_t mask = (uint64_t)index->n_slots - 1;
    for (uint64_t at = fnv_bytes(FNV_START, id, strlen(id)) & mask;; at = (at + 1) & mask) {
        int64_t row = index->slots[at];
        if (row < 0 || strcmp(index->rows[row].id, id) == 0)
            return &index->slots[at];
    }
}

/* The table anew, for all rows, at most half full with one more. */
static int slots_rebuild(struct results_index *index, struct error *err)
{
    int64_t n = 64;
    while (n / 2 <= index->n_rows)
        n *= 2;
    int64_t *slots = malloc((size_t)n * sizeof *slots);
    if (!slots)
        return error_set(err, ERROR_RESOURCE, "out of memory for %" PRId64 " documents", index->n_rows);
    free(index->slots);
    index->slots = slots;
    index->n_slots = n;
    for (int64_t i = 0; i < n; i++)
        slots[i] = -1;
    for (int64_t row = 0; row < index->n_rows; row++)
        *slot_of(index, index->rows[row].id) = row;
    return 0;
}

struct results_row *results_index_find(const struct results_index *index, const char *id)
{
    int64_t row = index->n_slots ? *slot_of(index, id) : -1;
    return row < 0 ? NULL : &index->rows[row];
}

/* ---- changes ---- */

/* Room for one more than n in *array, which doubles when it is full. */
static int make_room(void **array, int64_t n, int64_t *room, size_t size, struct error *err)
{
    if (n < *room)
        return 0;
    int64_t wanted = *room ? 2 * *room : 16;
    void *larger = reallocarray(*array, (size_t)wanted, size);
    if (!larger)
        return error_set(err, ERROR_RESOURCE, "out of memory for an index of %" PRId64 " entries", wanted);
    *array = larger;
    *room = wanted;
    return 0;
}

/* Every string of a struct replaced by the arena's copy. */
static int copy_strings(struct arena *arena, const struct store_record *record, void *row, struct error *err)
{
    for (int f = 0; f < record->n_fields; f++) {
        if (record->fields[f].kind != STORE_STRING && record->fields[f].kind != STORE_NAME)
            continue;
        const char **string = (const char **)((char *)row + record->fields[f].offset);
        if (!(*string = arena_string(arena, *string, err)))
            return -1;
    }
    return 0;
}

int results_index_put(struct results_index *index, const struct results_row *row, struct error *err)
{
    struct results_row copy = *row;
    if (copy_strings(&index->arena, &row_record, &copy, err))
        return -1;
    struct results_row *known = results_index_find(index, row->id);
    if (known) {
        *known = copy;
        return 0;
    }
    if (make_room((void **)&index->rows, index->n_rows, &index->room_rows, sizeof *index->rows, err))
        return -1;
    if (2 * (index->n_rows + 1) > index->n_slots && slots_rebuild(index, err))
        return -1;
    index->rows[index->n_rows] = copy;
    *slot_of(index, copy.id) = index->n_rows++;
    return 0;
}

int results_index_put_part(struct results_index *index, const struct results_part *part, struct error *err)
{
    struct results_part copy = *part;
    int64_t at = 0;
    while (at < index->n_parts && index->parts[at].number != part->number)
        at++;
    if (make_room((void **)&index->parts, at, &index->room_parts, sizeof *index->parts, err) ||
        copy_strings(&index->arena, &part_record, &copy, err))
        return -1;
    index->parts[at] = copy;
    index->n_parts = i64_max(index->n_parts, at + 1);
    return 0;
}

int results_index_put_run(struct results_index *index, const struct results_run *run, struct error *err)
{
    struct results_run copy = *run;
    if (make_room((void **)&index->runs, index->n_runs, &index->room_runs, sizeof *index->runs, err) ||
        copy_strings(&index->arena, &results_run_record, &copy, err))
        return -1;
    index->runs[index->n_runs++] = copy;
    return 0;
}

int results_index_drop_part(struct results_index *index, int64_t number, int64_t *dropped, struct error *err)
{
    int64_t kept = 0, parts = 0;
    for (int64_t i = 0; i < index->n_rows; i++)
        if (index->rows[i].part != number)
            index->rows[kept++] = index->rows[i];
    for (int64_t i = 0; i < index->n_parts; i++)
        if (index->parts[i].number != number)
            index->parts[parts++] = index->parts[i];
    *dropped = index->n_rows - kept;
    index->n_rows = kept;
    index->n_parts = parts;
    return slots_rebuild(index, err);
}

void results_index_free(struct results_index *index)
{
    free(index->runs);
    free(index->parts);
    free(index->rows);
    free(index->slots);
    arena_free(&index->arena);
    *index = (struct results_index){0};
}

/* ---- the index as a file ---- */

/* The run as one JSON object, its options inside as such; the caller frees it. */
static char *run_json(const struct results_run *run, struct error *err)
{
    cJSON *object = cJSON_CreateObject();
    for (int f = 0; f < results_run_record.n_fields; f++) {
        const struct store_field *field = &results_run_record.fields[f];
        const void *at = (const char *)run + field->offset;
        if (field->kind == STORE_INT)
            cJSON_AddNumberToObject(object, field->name, (double)*(const int64_t *)at);
        else if (field->kind == STORE_ENUM)
            cJSON_AddStringToObject(object, field->name, field->names[*(const unsigned *)at]);
        else if (field->offset == offsetof(struct results_run, options))
            cJSON_AddItemToObject(object, field->name, cJSON_Parse(run->options));
        else
            cJSON_AddStringToObject(object, field->name, *(const char *const *)at);
    }
    char *json = cJSON_PrintUnformatted(object);
    cJSON_Delete(object);
    if (!json)
        error_set(err, ERROR_RESOURCE, "out of memory for the description of the run");
    return json;
}

static int run_write(hid_t runs, int64_t number, const struct results_run *run, struct error *err)
{
    static const struct store_field json_field = {.name = "json", .kind = STORE_STRING};
    static const struct store_record json_record = {&json_field, 1, sizeof(char *)};
    char name[32];
    snprintf(name, sizeof name, "%06" PRId64, number);
    hid_t group = store_group_new(runs, name, err);
    if (group < 0)
        return -1;
    char *json = run_json(run, err);
    int status = json ? store_attributes_write(group, &results_run_record, run, err) : -1;
    if (!status)
        status = store_attributes_write(group, &json_record, &json, err);
    cJSON_free(json);
    H5Gclose(group);
    return status;
}

static int runs_write(hid_t file, const struct results_index *index, struct error *err)
{
    hid_t runs = store_group_new(file, "runs", err);
    int status = runs < 0 ? -1 : 0;
    for (int64_t i = 0; i < index->n_runs && !status; i++)
        status = run_write(runs, i + 1, &index->runs[i], err);
    if (runs >= 0)
        H5Gclose(runs);
    return status;
}

/* Under `documents`, each document by its number: a link into the part that holds its latest version. */
static int links_write(hid_t file, const struct results_index *index, struct error *err)
{
    hid_t documents = store_group_new(file, "documents", err);
    int status = documents < 0 ? -1 : 0;
    for (int64_t i = 0; i < index->n_rows && !status; i++) {
        char part[RESULTS_PATH], target[64];
        results_part_file(index->rows[i].part, part);
        snprintf(target, sizeof target, "/documents/%08" PRId64, index->rows[i].number);
        if (H5Lcreate_external(part, target, documents, target + strlen("/documents/"), H5P_DEFAULT, H5P_DEFAULT) <
            0)
            status = store_failed(err, ERROR_INTERNAL, "cannot link %s", target);
    }
    if (documents >= 0)
        H5Gclose(documents);
    return status;
}

static int index_write(hid_t file, const struct results_index *index, struct error *err)
{
    const struct results_run *last = &index->runs[index->n_runs - 1];
    struct head head = {format_name, FORMAT_VERSION, result_task_name(last->task), last->config_hash,
                        index->n_rows};
    if (store_attributes_write(file, &head_record, &head, err) || runs_write(file, index, err) ||
        links_write(file, index, err))
        return -1;
    struct store_rows parts = {index->parts, index->n_parts}, rows = {index->rows, index->n_rows};
    if (store_table_write(file, "parts", &part_record, parts, err))
        return -1;
    return store_table_write(file, "index", &row_record, rows, err);
}

/* Put the seal in front of the image of an index. */
static int seal(const struct durable_bytes *image, struct error *err)
{
    char hex[DIGEST_HEX_BYTES];
    if (digest_bytes(image->bytes + SEAL_BYTES, image->size - SEAL_BYTES, hex, err))
        return -1;
    snprintf((char *)image->bytes, SEAL_BYTES, "longhaul index, HDF5 from byte 512, sha256 %s\n", hex);
    return 0;
}

int results_index_save(const char *directory, const struct results_index *index, struct error *err)
{
    char path[RESULTS_PATH];
    struct durable_bytes image;
    results_index_path(directory, path);
    hid_t file = store_file_new(path, SEAL_BYTES, err);
    if (file < 0)
        return -1;
    int status = index_write(file, index, err);
    if (!status)
        status = store_file_image(file, &image, err);
    store_file_close(file);
    if (status)
        return error_wrap(err, "%s", path);
    status = seal(&image, err);
    if (!status)
        status = durable_write(path, image.bytes, image.size, err);
    free(image.bytes);
    return status;
}

/* ---- reading ---- */

static int seal_check(const struct durable_bytes *image, const char *path, struct error *err)
{
    char said[DIGEST_HEX_BYTES] = "", is[DIGEST_HEX_BYTES], line[SEAL_BYTES];
    if (image->size > SEAL_BYTES) {
        memcpy(line, image->bytes, SEAL_BYTES);
        line[SEAL_BYTES - 1] = '\0';
        sscanf(line, "longhaul index, HDF5 from byte 512, sha256 %64[0-9a-f]", said);
    }
    if (!*said)
        return error_set(err, ERROR_INPUT, "%s is not the index of a longhaul results directory", path);
    if (digest_bytes(image->bytes + SEAL_BYTES, image->size - SEAL_BYTES, is, err))
        return -1;
    if (strcmp(said, is) != 0)
        return error_set(err, ERROR_INPUT, "%s is damaged: its SHA-256 is not the one it was written with", path);
    return 0;
}

static int runs_read(hid_t file, struct results_index *index, struct error *err)
{
    hid_t runs = store_group_open(file, "runs", err);
    int status = runs < 0 ? -1 : 0;
    for (int64_t number = 1; !status; number++) {
        char name[32];
        snprintf(name, sizeof name, "%06" PRId64, number);
        if (!store_exists(runs, name))
            break;
        struct results_run run = {0};
        hid_t group = store_group_open(runs, name, err);
        status = group < 0 ? -1 : store_attributes_read(group, &results_run_record, &run, &index->arena, err);
        if (!status)
            status = results_index_put_run(index, &run, err);
        if (group >= 0)
            H5Gclose(group);
    }
    if (runs >= 0)
        H5Gclose(runs);
    return status;
}

static int index_read(hid_t file, struct results_index *index, struct error *err)
{
    struct head head;
    struct store_rows parts, rows;
    if (store_attributes_read(file, &head_record, &head, &index->arena, err))
        return -1;
    if (strcmp(head.format, format_name) != 0 || head.format_version != FORMAT_VERSION)
        return error_set(err, ERROR_INPUT,
                         "format \"%.40s\" version %" PRId64 "; this longhaul reads \"%s\" version %d", head.format,
                         head.format_version, format_name, FORMAT_VERSION);
    if (runs_read(file, index, err) || store_table_read(file, "parts", &part_record, &index->arena, &parts, err) ||
        store_table_read(file, "index", &row_record, &index->arena, &rows, err))
        return -1;
    if (!index->n_runs)
        return error_set(err, ERROR_INPUT, "it lists no run");
    for (int64_t i = 0; i < parts.n; i++)
        if (results_index_put_part(index, (const struct results_part *)parts.rows + i, err))
            return -1;
    for (int64_t i = 0; i < rows.n; i++)
        if (results_index_put(index, (const struct results_row *)rows.rows + i, err))
            return -1;
    return 0;
}

int results_index_load(const char *directory, struct results_index *index, struct error *err)
{
    char path[RESULTS_PATH];
    struct durable_bytes image;
    *index = (struct results_index){0};
    results_index_path(directory, path);
    if (durable_read(path, &image, err))
        return -1;
    hid_t file = seal_check(&image, path, err) ? -1 : store_file_open(&image, path, err);
    int status = file < 0 ? -1 : 0;
    if (!status && index_read(file, index, err))
        status = error_wrap(err, "%s", path);
    store_file_close(file);
    free(image.bytes);
    if (status)
        results_index_free(index);
    return status;
}

/* ---- parts ---- */

hid_t results_part_open(const char *directory, const struct results_part *part, struct error *err)
{
    char path[2 * RESULTS_PATH], name[RESULTS_PATH], hex[DIGEST_HEX_BYTES];
    struct durable_bytes image;
    results_part_file(part->number, name);
    snprintf(path, sizeof path, "%s/%s", directory, name);
    if (durable_read(path, &image, err))
        return -1;
    hid_t file = -1;
    if ((int64_t)image.size != part->bytes)
        error_set(err, ERROR_INPUT, "%s is damaged: it has %zu bytes and should have %" PRId64, path, image.size,
                  part->bytes);
    else if (digest_bytes(image.bytes, image.size, hex, err) == 0) {
        if (strcmp(hex, part->sha256) != 0)
            error_set(err, ERROR_INPUT, "%s is damaged: its SHA-256 is not the one in the index", path);
        else
            file = store_file_open(&image, path, err);
    }
    free(image.bytes);
    return file;
}
