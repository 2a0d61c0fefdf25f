#include "pipeline/job.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

const char *job_finish_name(enum job_finish finish)
{
    return finish == FINISH_END ? "stop" : "length";
}

/* The arrays of a struct as they follow its header in a message; all have elements of four bytes. */
enum { ELEMENT = 4, MAX_ARRAYS = 4 };

struct arrays {
    void **at[MAX_ARRAYS]; /* the pointers inside the struct */
    int64_t count[MAX_ARRAYS];
    int n;
};

static struct arrays job_arrays(struct job *job)
{
    return (struct arrays){{(void **)&job->tokens}, {job->n_tokens}, 1};
}

/* Which arrays a result has is told by its pointers, which the header carries along as flags. */
static struct arrays result_arrays(struct job_result *result)
{
    struct arrays arrays = {{(void **)&result->tokens, (void **)&result->logprob, (void **)&result->top1,
                             (void **)&result->reference_logprob},
                            {0},
                            MAX_ARRAYS};
    for (int i = 0; i < MAX_ARRAYS; i++)
        arrays.count[i] = *arrays.at[i] ? result->count : 0;
    return arrays;
}

static void *to_message(const void *header, size_t header_bytes, const struct arrays *arrays, size_t *bytes)
{
    *bytes = header_bytes;
    for (int i = 0; i < arrays->n; i++)
        *bytes += (size_t)arrays->count[i] * ELEMENT;
    char *message = malloc(*bytes);
    if (!message)
        return NULL;
    memcpy(message, header, header_bytes);
    char *end = message + header_bytes;
    for (int i = 0; i < arrays->n; i++)
        if (arrays->count[i] > 0) {
            memcpy(end, *arrays->at[i], (size_t)arrays->count[i] * ELEMENT);
            end += (size_t)arrays->count[i] * ELEMENT;
        }
    return message;
}

/* The pointers inside the struct are the sender's: all they tell is which arrays there are. */
static int from_message(const char *message, size_t bytes, struct arrays *arrays, struct error *err)
{
    void *copies[MAX_ARRAYS] = {NULL};
    const char *next = message, *end = message + bytes;
    for (int i = 0; i < arrays->n; i++) {
        size_t size = (size_t)arrays->count[i] * ELEMENT;
        if (arrays->count[i] < 0 || size > (size_t)(end - next)) {
            error_set(err, ERROR_INTERNAL, "a message between ranks is shorter than it says");
            goto fail;
        }
        const bool there = *arrays->at[i] != NULL;
        copies[i] = there ? malloc(size ? size : 1) : NULL; /* an array of no elements is there all the same */
        if (there && !copies[i]) {
            error_set(err, ERROR_RESOURCE, "no memory for a message of %zu bytes", bytes);
            goto fail;
        }
        if (size)
            memcpy(copies[i], next, size);
        next += size;
    }
    for (int i = 0; i < arrays->n; i++)
        *arrays->at[i] = copies[i];
    return 0;
fail:
    for (int i = 0; i < arrays->n; i++) {
        free(copies[i]);
        *arrays->at[i] = NULL;
    }
    return -1;
}

void *job_to_message(const struct job *job, size_t *bytes)
{
    struct job copy = *job;
    struct arrays arrays = job_arrays(&copy);
    return to_message(job, sizeof *job, &arrays, bytes);
}

void *job_result_to_message(const struct job_result *result, size_t *bytes)
{
    struct job_result copy = *result;
    struct arrays arrays = result_arrays(&copy);
    return to_message(result, sizeof *result, &arrays, bytes);
}

static int too_short(struct error *err)
{
    return error_set(err, ERROR_INTERNAL, "a message between ranks is shorter than its header");
}

int job_from_message(const void *message, size_t bytes, struct job *out, struct error *err)
{
    if (bytes < sizeof *out)
        return too_short(err);
    memcpy(out, message, sizeof *out);
    struct arrays arrays = job_arrays(out);
    return from_message((const char *)message + sizeof *out, bytes - sizeof *out, &arrays, err);
}

int job_result_from_message(const void *message, size_t bytes, struct job_result *out, struct error *err)
{
    if (bytes < sizeof *out)
        return too_short(err);
    memcpy(out, message, sizeof *out);
    struct arrays arrays = result_arrays(out);
    return from_message((const char *)message + sizeof *out, bytes - sizeof *out, &arrays, err);
}

void job_free(struct job *job)
{
    free(job->tokens);
    *job = (struct job){0};
}

void job_result_free(struct job_result *result)
{
    free(result->tokens);
    free(result->logprob);
    free(result->top1);
    free(result->reference_logprob);
    *result = (struct job_result){0};
}
