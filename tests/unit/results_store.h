/* A store in a directory of its own, for tests: their setup is make_directory, their teardown remove_directory.
 * Include it behind cmocka.h. */
#ifndef LONGHAUL_TESTS_RESULTS_STORE_H
#define LONGHAUL_TESTS_RESULTS_STORE_H

#include "tests/unit/results_sample.h"

static char directory[SAMPLE_PATH];

static inline int make_directory(void **state)
{
    (void)state;
    sample_directory(directory);
    return 0;
}

static inline int remove_directory(void **state)
{
    (void)state;
    sample_remove(directory);
    return 0;
}

static inline struct results *open_store(const struct results_run *run)
{
    struct error err;
    struct results *results = results_open(directory, run, &err);
    if (!results)
        fail_msg("%s", err.text);
    return results;
}

static inline void add(struct results *results, struct result_document document)
{
    struct error err;
    if (results_add(results, &document, &err))
        fail_msg("%s", err.text);
}

static inline void publish(struct results *results)
{
    struct error err;
    if (results_publish(results, &err))
        fail_msg("%s", err.text);
}

/* A store of one part for each of the ids, in an order of its own. */
static inline void fill(const struct results_run *run, const char *const *ids, int n)
{
    struct results *results = open_store(run);
    for (int i = 0; i < n; i++) {
        add(results, sample_document(ids[i], n - i, "an answer"));
        publish(results);
    }
    results_close(results);
}

static inline struct results_reader *load(void)
{
    struct error err;
    struct results_reader *reader = results_load(directory, &err);
    if (!reader)
        fail_msg("%s", err.text);
    return reader;
}

static inline const struct result_document *next(struct results_reader *reader)
{
    struct error err;
    const struct result_document *document;
    if (results_next(reader, &document, &err))
        fail_msg("%s", err.text);
    return document;
}

/* Where a file of the store lies; until the next call. */
static inline const char *path_of(const char *name)
{
    static char path[2 * SAMPLE_PATH];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    return path;
}

static inline int exists(const char *name)
{
    return access(path_of(name), F_OK) == 0;
}

#endif
