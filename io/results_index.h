/* The index of a results directory: runs, parts, documents; in memory, and as OUT/results.h5.
 * For io/results*.c only. A zeroed struct is an empty index; everything in it belongs to its arena. */
#ifndef LONGHAUL_IO_RESULTS_INDEX_H
#define LONGHAUL_IO_RESULTS_INDEX_H

#include "io/results.h"
#include "io/store.h"

enum { RESULTS_PATH = 4200 }; /* room for a directory and the names below it */

/* A row of the table `parts`. */
struct results_part {
    int64_t number;
    const char *file; /* below the directory */
    int64_t bytes;
    const char *sha256;
    int64_t documents;
};

/* A row of the table `index`: where a document is, and what is worth knowing without opening its part. */
struct results_row {
    int64_t number; /* the name of its group */
    const char *id;
    const char *path;
    const char *sha256;
    int64_t order;
    enum result_status status;
    const char *reason;
    int64_t attempts;
    int64_t bytes;
    int64_t tokens_in, tokens_used, tokens_dropped;
    int64_t part;
    int64_t run;
};

struct results_index {
    struct arena arena;
    int64_t n_runs, n_parts, n_rows;
    struct results_run *runs;
    struct results_part *parts;
    struct results_row *rows;
    int64_t room_runs, room_parts, room_rows;
    int64_t *slots; /* [n_slots] a hash table of rows by id, -1 is free; n_slots a power of two */
    int64_t n_slots;
};

/* "DIRECTORY/results.h5" and "parts/part-000007.h5". */
void results_index_path(const char *directory, char out[RESULTS_PATH]);
void results_part_file(int64_t number, char out[RESULTS_PATH]);

/* *index = what DIRECTORY/results.h5 says. ERROR_INPUT when it is damaged or not an index of this format. */
int results_index_load(const char *directory, struct results_index *index, struct error *err);

/* Publish the index. */
int results_index_save(const char *directory, const struct results_index *index, struct error *err);

/* The row of that id, or NULL. */
struct results_row *results_index_find(const struct results_index *index, const char *id);

/* Add, or replace the one of the same id (rows) or number (parts). Strings are copied. */
int results_index_put(struct results_index *index, const struct results_row *row, struct error *err);
int results_index_put_part(struct results_index *index, const struct results_part *part, struct error *err);
int results_index_put_run(struct results_index *index, const struct results_run *run, struct error *err);

/* Forget a part and the documents whose latest version it holds; *dropped = how many those were. */
int results_index_drop_part(struct results_index *index, int64_t number, int64_t *dropped, struct error *err);

void results_index_free(struct results_index *index);

/* Read a part of the index, compare size and SHA-256, and open it; -1 on failure. Close with store_file_close. */
hid_t results_part_open(const char *directory, const struct results_part *part, struct error *err);

#endif
