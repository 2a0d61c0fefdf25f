/* Errors of longhaul: one struct, one way.
 *
 * A function that can fail takes a `struct error *err` as its last parameter and returns 0 or -1 (or a
 * pointer, NULL on failure). On failure it has filled *err with a code and one line that says what was being
 * done, to what (file, place), and why it failed. The caller either handles it, or returns -1 at once; it may
 * put more context in front with error_wrap(). Only main() turns an error into an exit, and comm_abort()
 * where other ranks would wait. `err` is never NULL.
 */
#ifndef LONGHAUL_BASE_ERROR_H
#define LONGHAUL_BASE_ERROR_H

#include <stddef.h>

/* The exit codes of the program (docs/user-guide.md lists them for users). */
enum error_code {
    ERROR_NONE = 0,
    ERROR_PARTIAL = 1,      /* the run ended, but some documents failed                  */
    ERROR_USAGE = 2,        /* a bad option, or options that cannot go together          */
    ERROR_INPUT = 3,        /* a file that is not what it should be: weights, documents  */
    ERROR_IO = 4,           /* the operating system refused a read, a write, a rename    */
    ERROR_RESOURCE = 5,     /* not enough memory, or disk, or ranks                      */
    ERROR_CLUSTER = 6,      /* MPI or the batch system                                   */
    ERROR_INTERNAL = 7,     /* a bug of ours                                             */
    ERROR_INTERRUPTED = 75, /* stopped by a signal; what is finished is saved: submit it again */
};

struct error {
    enum error_code code;
    char text[512];
};

/* Fill *err; always returns -1, so that `return error_set(...)` reads well. A message too long is shortened. */
int error_set(struct error *err, enum error_code code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* As error_set, with ": " and the text of the current errno behind the message; code ERROR_IO, or
 * ERROR_RESOURCE when errno is ENOMEM, ENOSPC or EDQUOT. */
int error_errno(struct error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* out [size] = the message; one too long loses its middle, where long paths are: in front stands what was being
 * done, at the end why it failed. No character of UTF-8 is cut. */
void error_shorten(const char *message, char *out, size_t size);

/* Put "context: " in front of the message in *err; returns -1. */
int error_wrap(struct error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
