/* One document, one run: how the structs of results.h lie in an HDF5 group. For io/results*.c only. */
#ifndef LONGHAUL_IO_RESULTS_DOCUMENT_H
#define LONGHAUL_IO_RESULTS_DOCUMENT_H

#include "io/results.h"
#include "io/store.h"

/* Names of the enums of results.h, NULL past the last. */
extern const char *const results_task_names[];
extern const char *const results_status_names[];

/* struct results_run as attributes. */
extern const struct store_record results_run_record;

/* Fill an empty group with the document, or a document from a group; what is read belongs to the arena. */
int results_document_write(hid_t group, const struct result_document *document, struct error *err);
int results_document_read(hid_t group, struct arena *arena, struct result_document *out, struct error *err);

#endif
