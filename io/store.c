#include "io/store.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "io/store_text.h"

enum {
    IMAGE_GROWTH = 1 << 20, /* bytes by which a file in memory grows                       */
    CHUNK_ROWS = 1 << 16,   /* rows of a dataset that are compressed together              */
    COMPRESS_BYTES = 4096,  /* smaller datasets are left plain: a chunk index would cost more */
    GZIP_LEVEL = 4
};

/* ---- errors ---- */

static herr_t innermost_message(unsigned n, const H5E_error2_t *entry, void *context)
{
    char *text = context;
    if (n == 0)
        snprintf(text, 160, "%s", entry->desc ? entry->desc : "no reason given");
    return 0;
}

int store_failed(struct error *err, enum error_code code, const char *format, ...)
{
    char what[300], why[160] = "no reason given";
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, innermost_message, why);
    return error_set(err, code, "%s: HDF5: %s", what, why);
}

/* ---- files in memory ---- */

/* Access to a file that is only in memory: nothing reaches the disk through HDF5. */
static hid_t access_in_memory(void)
{
    H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
    hid_t access = H5Pcreate(H5P_FILE_ACCESS);
    if (access >= 0 && H5Pset_fapl_core(access, IMAGE_GROWTH, false) < 0) {
        H5Pclose(access);
        return -1;
    }
    return access;
}

hid_t store_file_new(const char *path, size_t user_block, struct error *err)
{
    hid_t access = access_in_memory(), creation = H5Pcreate(H5P_FILE_CREATE), file = -1;
    if (access >= 0 && H5Pset_userblock(creation, user_block) >= 0)
        file = H5Fcreate(path, H5F_ACC_TRUNC, creation, access);
    if (file < 0)
        store_failed(err, ERROR_INTERNAL, "cannot begin %s", path);
    H5Pclose(creation);
    if (access >= 0)
        H5Pclose(access);
    return file;
}

hid_t store_file_open(const struct durable_bytes *image, const char *path, struct error *err)
{
    char name[300]; /* HDF5 insists that no file of that name is on the disk */
    hid_t file = -1, access = access_in_memory();
    snprintf(name, sizeof name, "%.250s (image at %p)", path, (const void *)image->bytes);
    if (access >= 0 && H5Pset_file_image(access, image->bytes, image->size) >= 0)
        file = H5Fopen(name, H5F_ACC_RDONLY, access);
    if (file < 0)
        store_failed(err, ERROR_INPUT, "cannot open %s", path);
    if (access >= 0)
        H5Pclose(access);
    return file;
}

int store_file_image(hid_t file, struct durable_bytes *out, struct error *err)
{
    hsize_t block = 0;
    hid_t creation = H5Fget_create_plist(file);
    ssize_t size = H5Pget_userblock(creation, &block) < 0 || H5Fflush(file, H5F_SCOPE_GLOBAL) < 0
                       ? -1
                       : H5Fget_file_image(file, NULL, 0);
    H5Pclose(creation);
    if (size < 0)
        return store_failed(err, ERROR_INTERNAL, "cannot finish a results file");
    unsigned char *bytes = calloc(1, block + (size_t)size); /* HDF5 gives the image without the block */
    if (!bytes)
        return error_set(err, ERROR_RESOURCE, "out of memory for %zd bytes of results", size);
    if (H5Fget_file_image(file, bytes + block, (size_t)size) != size) {
        free(bytes);
        return store_failed(err, ERROR_INTERNAL, "cannot finish a results file");
    }
    *out = (struct durable_bytes){bytes, block + (size_t)size};
    return 0;
}

void store_file_close(hid_t file)
{
    if (file >= 0)
        H5Fclose(file);
}

/* ---- groups ---- */

hid_t store_group_new(hid_t parent, const char *name, struct error *err)
{
    hid_t group = H5Gcreate2(parent, name, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
    if (group < 0)
        store_failed(err, ERROR_INTERNAL, "cannot make the group %s", name);
    return group;
}

hid_t store_group_open(hid_t parent, const char *name, struct error *err)
{
    hid_t group = H5Gopen2(parent, name, H5P_DEFAULT);
    if (group < 0)
        store_failed(err, ERROR_INPUT, "cannot open the group %s", name);
    return group;
}

bool store_exists(hid_t parent, const char *name)
{
    return H5Lexists(parent, name, H5P_DEFAULT) > 0;
}

/* ---- one field ---- */

/* A field's value on its way between a C struct and HDF5, which sees a row as an array of these. */
union slot {
    int64_t integer;
    double real;
    const char *string;
    hvl_t list;
};

/* The type of a field in memory; the file's is the same, packed. Close with H5Tclose. */
static hid_t field_type(enum store_kind kind)
{
    if (kind == STORE_INT)
        return H5Tcopy(H5T_NATIVE_INT64);
    if (kind == STORE_REAL)
        return H5Tcopy(H5T_NATIVE_DOUBLE);
    if (kind == STORE_BYTES)
        return H5Tvlen_create(H5T_NATIVE_UINT8);
    if (kind == STORE_TOKENS)
        return H5Tvlen_create(H5T_NATIVE_INT32);
    hid_t type = H5Tcopy(H5T_C_S1);
    H5Tset_size(type, H5T_VARIABLE);
    H5Tset_cset(type, H5T_CSET_UTF8);
    return type;
}

static int field_encode_text(const struct store_field *field, const struct text *text, union slot *slot,
                             struct arena *arena, struct error *err)
{
    size_t replaced;
    char *clean = store_text_clean(arena, text->bytes, text->length, &replaced, err);
    if (!clean)
        return -1;
    if (field->kind == STORE_TEXT)
        slot->string = clean;
    else if (replaced)
        slot->list = (hvl_t){text->length, (void *)text->bytes};
    return 0;
}

/* slot = the field of the struct at `row`; what it points to is the row's or the arena's. */
static int field_encode(const struct store_field *field, const char *row, union slot *slot, struct arena *arena,
                        struct error *err)
{
    const void *at = row + field->offset;
    size_t replaced;
    memset(slot, 0, sizeof *slot);
    switch (field->kind) {
    case STORE_INT:
        slot->integer = *(const int64_t *)at;
        return 0;
    case STORE_REAL:
        slot->real = *(const double *)at;
        return 0;
    case STORE_STRING: {
        const char *string = *(const char *const *)at;
        slot->string = store_text_clean(arena, string, string ? strlen(string) : 0, &replaced, err);
        return slot->string ? 0 : -1;
    }
    case STORE_NAME:
        slot->string = store_name_encode(arena, *(const char *const *)at, err);
        return slot->string ? 0 : -1;
    case STORE_ENUM:
        slot->string = field->names[*(const unsigned *)at];
        return 0;
    case STORE_TEXT:
    case STORE_BYTES:
        return field_encode_text(field, at, slot, arena, err);
    case STORE_TOKENS:
        slot->list.len = (size_t) * (const int64_t *)(row + field->count_offset);
        slot->list.p = *(void *const *)at;
        return 0;
    }
    return error_set(err, ERROR_INTERNAL, "field %s has no kind", field->name);
}

static int field_decode_enum(const struct store_field *field, const char *name, unsigned *out, struct error *err)
{
    for (unsigned i = 0; name && field->names[i]; i++) {
        if (strcmp(field->names[i], name) == 0) {
            *out = i;
            return 0;
        }
    }
    return error_set(err, ERROR_INPUT, "%s is \"%.40s\", which means nothing", field->name, name ? name : "");
}

/* A list that HDF5 read, copied to the arena. */
static int field_decode_list(const struct store_field *field, char *row, const hvl_t *list, struct arena *arena,
                             struct error *err)
{
    void *at = row + field->offset;
    if (field->kind == STORE_BYTES) {
        if (!list->len) /* the clean text, read before, is the text */
            return 0;
        char *bytes = arena_text(arena, list->p, list->len, err);
        *(struct text *)at = (struct text){bytes, list->len};
        return bytes ? 0 : -1;
    }
    if (*(const int64_t *)(row + field->count_offset) != (int64_t)list->len)
        return error_set(err, ERROR_INPUT, "%s holds %zu and should hold another number", field->name, list->len);
    int32_t *tokens = arena_take(arena, list->len, sizeof *tokens, err);
    if (!tokens)
        return -1;
    if (list->len)
        memcpy(tokens, list->p, list->len * sizeof *tokens);
    *(const int32_t **)at = tokens;
    return 0;
}

/* The opposite of field_encode: everything that is pointed to goes to the arena. */
static int field_decode(const struct store_field *field, char *row, const union slot *slot, struct arena *arena,
                        struct error *err)
{
    void *at = row + field->offset;
    char *string;
    switch (field->kind) {
    case STORE_INT:
        *(int64_t *)at = slot->integer;
        return 0;
    case STORE_REAL:
        *(double *)at = slot->real;
        return 0;
    case STORE_STRING:
        string = arena_string(arena, slot->string, err);
        *(const char **)at = string;
        return string ? 0 : -1;
    case STORE_NAME:
        string = store_name_decode(arena, slot->string ? slot->string : "", err);
        *(const char **)at = string;
        return string ? 0 : -1;
    case STORE_ENUM:
        return field_decode_enum(field, slot->string, at, err);
    case STORE_TEXT:
        string = arena_string(arena, slot->string, err);
        *(struct text *)at = (struct text){string, string ? strlen(string) : 0};
        return string ? 0 : -1;
    case STORE_BYTES:
    case STORE_TOKENS:
        return field_decode_list(field, row, &slot->list, arena, err);
    }
    return error_set(err, ERROR_INTERNAL, "field %s has no kind", field->name);
}

/* ---- structs as attributes ---- */

static int attribute_write(hid_t object, const struct store_field *field, const union slot *slot, struct error *err)
{
    hid_t type = field_type(field->kind), space = H5Screate(H5S_SCALAR);
    hid_t attribute = H5Acreate2(object, field->name, type, space, H5P_DEFAULT, H5P_DEFAULT);
    int status = 0;
    if (attribute < 0 || H5Awrite(attribute, type, slot) < 0)
        status = store_failed(err, ERROR_INTERNAL, "cannot write the attribute %s", field->name);
    if (attribute >= 0)
        H5Aclose(attribute);
    H5Sclose(space);
    H5Tclose(type);
    return status;
}

int store_attributes_write(hid_t object, const struct store_record *record, const void *row, struct error *err)
{
    struct arena scratch = {0};
    int status = 0;
    for (int f = 0; f < record->n_fields && !status; f++) {
        union slot slot;
        status = field_encode(&record->fields[f], row, &slot, &scratch, err);
        if (!status)
            status = attribute_write(object, &record->fields[f], &slot, err);
    }
    arena_free(&scratch);
    return status;
}

static int attribute_read(hid_t object, const struct store_field *field, char *row, struct arena *arena,
                          struct error *err)
{
    hid_t attribute = H5Aopen(object, field->name, H5P_DEFAULT);
    if (attribute < 0)
        return store_failed(err, ERROR_INPUT, "no attribute %s", field->name);
    hid_t type = field_type(field->kind), space = H5Aget_space(attribute);
    union slot slot = {0};
    int status = 0;
    if (H5Sget_simple_extent_npoints(space) != 1)
        status = error_set(err, ERROR_INPUT, "the attribute %s is not one value", field->name);
    else if (H5Aread(attribute, type, &slot) < 0)
        status = store_failed(err, ERROR_INPUT, "cannot read the attribute %s", field->name);
    else
        status = field_decode(field, row, &slot, arena, err);
    H5Dvlen_reclaim(type, space, H5P_DEFAULT, &slot);
    H5Sclose(space);
    H5Tclose(type);
    H5Aclose(attribute);
    return status;
}

int store_attributes_read(hid_t object, const struct store_record *record, void *row, struct arena *arena,
                          struct error *err)
{
    for (int f = 0; f < record->n_fields; f++)
        if (attribute_read(object, &record->fields[f], row, arena, err))
            return -1;
    return 0;
}

/* ---- datasets ---- */

/* How a dataset of n rows is laid out: large ones in compressed chunks. Without times, so that the same results
 * are the same bytes. Close with H5Pclose. */
static hid_t dataset_layout(int64_t n, size_t row_bytes)
{
    hid_t layout = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_obj_track_times(layout, false);
    if ((double)n * (double)row_bytes >= COMPRESS_BYTES) {
        hsize_t chunk = n < CHUNK_ROWS ? (hsize_t)n : CHUNK_ROWS;
        H5Pset_chunk(layout, 1, &chunk);
        H5Pset_shuffle(layout);
        H5Pset_deflate(layout, GZIP_LEVEL);
    }
    return layout;
}

/* Makes `name` of type `in_file` and writes data [n] of type `in_memory`. */
static int dataset_write(hid_t group, const char *name, const hid_t types[2], struct store_rows data,
                         struct error *err)
{
    hsize_t extent = (hsize_t)data.n;
    hid_t in_file = types[0], in_memory = types[1];
    hid_t space = H5Screate_simple(1, &extent, NULL), layout = dataset_layout(data.n, H5Tget_size(in_file));
    hid_t dataset = H5Dcreate2(group, name, in_file, space, H5P_DEFAULT, layout, H5P_DEFAULT);
    int status = 0;
    if (dataset < 0 || H5Dwrite(dataset, in_memory, H5S_ALL, H5S_ALL, H5P_DEFAULT, data.rows) < 0)
        status = store_failed(err, ERROR_INTERNAL, "cannot write the dataset %s", name);
    if (dataset >= 0)
        H5Dclose(dataset);
    H5Pclose(layout);
    H5Sclose(space);
    return status;
}

/* Opens `name`; *n = its rows. -1 on failure; close with H5Dclose. */
static hid_t dataset_open(hid_t group, const char *name, int64_t *n, struct error *err)
{
    hid_t dataset = H5Dopen2(group, name, H5P_DEFAULT);
    if (dataset < 0)
        return store_failed(err, ERROR_INPUT, "cannot open the dataset %s", name);
    hid_t space = H5Dget_space(dataset);
    int rank = H5Sget_simple_extent_ndims(space);
    *n = H5Sget_simple_extent_npoints(space);
    H5Sclose(space);
    if (rank != 1 || *n < 0) {
        H5Dclose(dataset);
        return error_set(err, ERROR_INPUT, "the dataset %s has %d dimensions, not one", name, rank);
    }
    return dataset;
}

/* types[0] the packed row of the file, types[1] the slots in memory; close both. */
static void record_types(const struct store_record *record, hid_t types[2])
{
    types[1] = H5Tcreate(H5T_COMPOUND, (size_t)record->n_fields * sizeof(union slot));
    for (int f = 0; f < record->n_fields; f++) {
        hid_t type = field_type(record->fields[f].kind);
        H5Tinsert(types[1], record->fields[f].name, (size_t)f * sizeof(union slot), type);
        H5Tclose(type);
    }
    types[0] = H5Tcopy(types[1]);
    H5Tpack(types[0]);
}

static int rows_encode(const struct store_record *record, struct store_rows rows, union slot *slots,
                       struct arena *arena, struct error *err)
{
    for (int64_t r = 0; r < rows.n; r++)
        for (int f = 0; f < record->n_fields; f++) {
            const char *row = (const char *)rows.rows + (size_t)r * record->row_bytes;
            if (field_encode(&record->fields[f], row, slots++, arena, err))
                return -1;
        }
    return 0;
}

int store_table_write(hid_t group, const char *name, const struct store_record *record, struct store_rows rows,
                      struct error *err)
{
    if (!rows.n)
        return 0;
    struct arena scratch = {0};
    size_t width = (size_t)record->n_fields * sizeof(union slot);
    union slot *slots = arena_take(&scratch, (size_t)rows.n, width, err);
    int status = slots ? rows_encode(record, rows, slots, &scratch, err) : -1;
    if (!status) {
        hid_t types[2];
        record_types(record, types);
        status = dataset_write(group, name, types, (struct store_rows){slots, rows.n}, err);
        H5Tclose(types[0]);
        H5Tclose(types[1]);
    }
    arena_free(&scratch);
    return status;
}

/* The rows of an open table as structs of the arena, or NULL. */
static char *rows_read(hid_t dataset, const struct store_record *record, int64_t n, struct arena *arena,
                       struct error *err)
{
    struct arena scratch = {0};
    hid_t types[2], space = H5Dget_space(dataset);
    record_types(record, types);
    union slot *slots = arena_take(&scratch, (size_t)n, (size_t)record->n_fields * sizeof *slots, err);
    char *rows = slots ? arena_take(arena, (size_t)n, record->row_bytes, err) : NULL;
    if (rows) {
        int status = 0;
        if (H5Dread(dataset, types[1], H5S_ALL, H5S_ALL, H5P_DEFAULT, slots) < 0)
            status = store_failed(err, ERROR_INPUT, "cannot read its rows");
        const union slot *slot = slots;
        for (int64_t r = 0; r < n && !status; r++)
            for (int f = 0; f < record->n_fields && !status; f++)
                status = field_decode(&record->fields[f], rows + (size_t)r * record->row_bytes, slot++, arena, err);
        H5Dvlen_reclaim(types[1], space, H5P_DEFAULT, slots);
        rows = status ? NULL : rows;
    }
    H5Tclose(types[0]);
    H5Tclose(types[1]);
    H5Sclose(space);
    arena_free(&scratch);
    return rows;
}

int store_table_read(hid_t group, const char *name, const struct store_record *record, struct arena *arena,
                     struct store_rows *out, struct error *err)
{
    *out = (struct store_rows){NULL, 0};
    if (!store_exists(group, name))
        return 0;
    hid_t dataset = dataset_open(group, name, &out->n, err);
    if (dataset < 0)
        return -1;
    out->rows = rows_read(dataset, record, out->n, arena, err);
    H5Dclose(dataset);
    return out->rows ? 0 : error_wrap(err, "table %s", name);
}

int store_array_write(hid_t group, const char *name, hid_t type, struct store_rows data, struct error *err)
{
    hid_t types[2] = {type, type};
    return data.n ? dataset_write(group, name, types, data, err) : 0;
}

int store_array_read(hid_t group, const char *name, hid_t type, struct arena *arena, struct store_rows *out,
                     struct error *err)
{
    *out = (struct store_rows){NULL, 0};
    if (!store_exists(group, name))
        return 0;
    hid_t dataset = dataset_open(group, name, &out->n, err);
    if (dataset < 0)
        return -1;
    void *data = arena_take(arena, (size_t)out->n, H5Tget_size(type), err);
    int status = data ? 0 : -1;
    if (data && H5Dread(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) < 0)
        status = store_failed(err, ERROR_INPUT, "cannot read the dataset %s", name);
    out->rows = data;
    H5Dclose(dataset);
    return status;
}

/* ---- texts ---- */

static int text_dataset_write(hid_t group, const char *name, const char *clean, struct error *err)
{
    hid_t type = field_type(STORE_STRING), space = H5Screate(H5S_SCALAR), layout = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_obj_track_times(layout, false);
    hid_t dataset = H5Dcreate2(group, name, type, space, H5P_DEFAULT, layout, H5P_DEFAULT);
    int status = 0;
    if (dataset < 0 || H5Dwrite(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, &clean) < 0)
        status = store_failed(err, ERROR_INTERNAL, "cannot write the text %s", name);
    if (dataset >= 0)
        H5Dclose(dataset);
    H5Pclose(layout);
    H5Sclose(space);
    H5Tclose(type);
    return status;
}

int store_text_write(hid_t group, const char *name, const struct text *text, struct error *err)
{
    struct arena scratch = {0};
    size_t replaced;
    char bytes_name[64];
    snprintf(bytes_name, sizeof bytes_name, "%s_bytes", name);
    char *clean = store_text_clean(&scratch, text->bytes, text->length, &replaced, err);
    int status = clean ? text_dataset_write(group, name, clean, err) : -1;
    if (!status && replaced) {
        struct store_rows bytes = {text->bytes, (int64_t)text->length};
        status = store_array_write(group, bytes_name, H5T_NATIVE_UINT8, bytes, err);
    }
    arena_free(&scratch);
    return status;
}

static int text_dataset_read(hid_t group, const char *name, struct arena *arena, struct text *out,
                             struct error *err)
{
    hid_t dataset = H5Dopen2(group, name, H5P_DEFAULT);
    if (dataset < 0)
        return store_failed(err, ERROR_INPUT, "cannot open the text %s", name);
    hid_t type = field_type(STORE_STRING), space = H5Dget_space(dataset);
    char *read = NULL;
    int status = 0;
    if (H5Sget_simple_extent_npoints(space) != 1)
        status = error_set(err, ERROR_INPUT, "the text %s is not one value", name);
    else if (H5Dread(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, &read) < 0)
        status = store_failed(err, ERROR_INPUT, "cannot read the text %s", name);
    if (!status) {
        char *copy = arena_string(arena, read, err);
        *out = (struct text){copy, copy ? strlen(copy) : 0};
        status = copy ? 0 : -1;
    }
    H5Dvlen_reclaim(type, space, H5P_DEFAULT, &read);
    H5Sclose(space);
    H5Tclose(type);
    H5Dclose(dataset);
    return status;
}

int store_text_read(hid_t group, const char *name, struct arena *arena, struct text *out, struct error *err)
{
    char bytes_name[64];
    snprintf(bytes_name, sizeof bytes_name, "%s_bytes", name);
    struct store_rows bytes;
    if (text_dataset_read(group, name, arena, out, err) ||
        store_array_read(group, bytes_name, H5T_NATIVE_UINT8, arena, &bytes, err))
        return -1;
    if (bytes.n)
        *out = (struct text){bytes.rows, (size_t)bytes.n};
    return 0;
}
