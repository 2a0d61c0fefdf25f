/* HDF5 as the results use it: files that live in memory, and C structs written as attributes and tables.
 *
 * A file is built with store_file_new, filled, and taken out whole with store_file_image; or an image is opened
 * with store_file_open. Either handle is closed with store_file_close. The library of io/results*.c only.
 *
 * A `struct store_record` says how one C struct maps to named fields; the same record writes and reads, as
 * attributes of an object (one struct) or as a compound table (many). All integers are 64-bit in the file, all
 * strings variable-length UTF-8, enums are stored by name. Bulk arrays are gzip-compressed with shuffle.
 *
 * HDF5's own error printing is off; its innermost message is put into `err`. While writing an HDF5 failure is
 * ERROR_INTERNAL (no disk is involved), while reading ERROR_INPUT.
 */
#ifndef LONGHAUL_IO_STORE_H
#define LONGHAUL_IO_STORE_H

#include <hdf5.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/arena.h"
#include "base/error.h"
#include "base/text.h"
#include "io/durable.h"

enum store_kind {
    STORE_INT,    /* int64_t                                                                     */
    STORE_REAL,   /* double                                                                      */
    STORE_STRING, /* const char *, kept as clean text                                            */
    STORE_NAME,   /* const char *, kept without loss (store_text.h)                              */
    STORE_ENUM,   /* an enum from 0 up, kept by name                                             */
    STORE_TEXT,   /* struct text, kept as clean text                                             */
    STORE_BYTES,  /* the same struct text again: its bytes, where cleaning changed them. Tables. */
    STORE_TOKENS, /* const int32_t *, its int64_t count at `count_offset`. Tables.               */
};

struct store_field {
    const char *name;
    enum store_kind kind;
    size_t offset;
    size_t count_offset;      /* STORE_TOKENS */
    const char *const *names; /* STORE_ENUM: NULL past the last */
};

/* A field of `structure`: STORE_FIELD("order", STORE_INT, results_row, order). */
#define STORE_FIELD(label, of, structure, member)                                                                  \
    .name = (label), .kind = (of), .offset = offsetof(struct structure, member)

struct store_record {
    const struct store_field *fields;
    int n_fields;
    size_t row_bytes; /* sizeof the struct */
};

/* ---- files in memory ---- */

/* -1 on failure. The path is only a name, but no two files of one name can be built at a time. user_block: bytes in
 * front that HDF5 leaves alone, 0 or a power of two from 512. */
hid_t store_file_new(const char *path, size_t user_block, struct error *err);
hid_t store_file_open(const struct durable_bytes *image, const char *path, struct error *err);

/* The bytes of a file that was built, its user block zeroed; out->bytes is the caller's to free. The file stays
 * open. */
int store_file_image(hid_t file, struct durable_bytes *out, struct error *err);
void store_file_close(hid_t file); /* -1 is fine */

/* ---- groups ---- */

/* A new group, or one that is there; -1 on failure. Close with H5Gclose. */
hid_t store_group_new(hid_t parent, const char *name, struct error *err);
hid_t store_group_open(hid_t parent, const char *name, struct error *err);

/* Whether there is something of that name. */
bool store_exists(hid_t parent, const char *name);

/* ---- structs ---- */

int store_attributes_write(hid_t object, const struct store_record *record, const void *row, struct error *err);
/* Fills `row`; strings in it belong to the arena. An attribute that is missing is an error. */
int store_attributes_read(hid_t object, const struct store_record *record, void *row, struct arena *arena,
                          struct error *err);

/* rows [n]; nothing is made when n is 0. */
struct store_rows {
    const void *rows;
    int64_t n;
};
int store_table_write(hid_t group, const char *name, const struct store_record *record, struct store_rows rows,
                      struct error *err);
/* n 0 when there is no such table. */
int store_table_read(hid_t group, const char *name, const struct store_record *record, struct arena *arena,
                     struct store_rows *out, struct error *err);

/* ---- arrays and texts ---- */

/* data [n] of a native type; nothing is made when n is 0. */
int store_array_write(hid_t group, const char *name, hid_t type, struct store_rows data, struct error *err);
int store_array_read(hid_t group, const char *name, hid_t type, struct arena *arena, struct store_rows *out,
                     struct error *err);

/* A scalar text "NAME", and "NAME_bytes" beside it when cleaning changed it. */
int store_text_write(hid_t group, const char *name, const struct text *text, struct error *err);
int store_text_read(hid_t group, const char *name, struct arena *arena, struct text *out, struct error *err);

/* error_set with HDF5's innermost message behind it; returns -1. */
int store_failed(struct error *err, enum error_code code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
