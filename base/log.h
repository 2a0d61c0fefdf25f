/* The log of one rank: what happened and when, one line each. Global, as there is one.
 *
 * log_open once, before other threads start; then log_error .. log_debug from any thread; log_close at the end.
 * A file is appended to, never cut, so that a job that goes on keeps the lines of the one before it. Each line is
 * written whole: "2026-01-31T12:00:00.123Z rank 3 warn: text". Before log_open and after log_close, and for as
 * long as the file cannot be written to, lines of warn and above go to stderr and the rest nowhere.
 * Logging never fails and keeps errno.
 */
#ifndef LONGHAUL_BASE_LOG_H
#define LONGHAUL_BASE_LOG_H

#include "base/error.h"

enum log_level { LOG_LEVEL_ERROR, LOG_LEVEL_WARN, LOG_LEVEL_INFO, LOG_LEVEL_DEBUG };

/* *out = the level called "error", "warn", "info" or "debug"; ERROR_USAGE for any other name. */
int log_level_parse(const char *name, enum log_level *out, struct error *err);

/* From now on lines up to `level` are appended to the file at `path`, made if need be. ERROR_IO. A log that was
 * open already is closed first. */
int log_open(const char *path, int rank, enum log_level level, struct error *err);

/* The same to stderr, as rank 0, for commands that have no folder for a file. ERROR_IO. */
int log_to_stderr(enum log_level level, struct error *err);

/* Close the file; harmless when none is open. */
void log_close(void);

/* One line, without its newline. Control characters in it become '?'; more than 2000 bytes end in "...". */
void log_write(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define log_error(...) log_write(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warn(...)  log_write(LOG_LEVEL_WARN, __VA_ARGS__)
#define log_info(...)  log_write(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...) log_write(LOG_LEVEL_DEBUG, __VA_ARGS__)

#endif
