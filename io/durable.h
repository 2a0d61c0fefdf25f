/* Files that are whole or not there: atomic publication, directories, one writer to a directory.
 *
 * To publish a file: durable_create, write to durable_stream, then durable_publish or durable_abandon (either one
 * frees the object). The bytes go to "PATH.PID.tmp" beside the target; publishing flushes, fsyncs and closes it,
 * renames it onto the target and fsyncs the directory. Killed at any instant the target is what it was before, or
 * the whole new file; what may stay behind is a temporary, which whoever holds the directory's lock removes.
 * Errors name the target. A full disk is ERROR_RESOURCE, anything else the system refuses ERROR_IO.
 */
#ifndef LONGHAUL_IO_DURABLE_H
#define LONGHAUL_IO_DURABLE_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/error.h"

struct durable;

struct durable *durable_create(const char *path, struct error *err);

/* Where to write; owned by the object. A failed write need not be checked: publishing finds it. */
FILE *durable_stream(struct durable *file);

/* 0: the target is the new file, and stays so through a power cut. -1: the target is as it was and the temporary
 * is gone; or, when it is the directory's fsync that failed, the new file is there but not known to be safe. */
int durable_publish(struct durable *file, struct error *err);

/* Remove the temporary; NULL is fine. */
void durable_abandon(struct durable *file);

/* All of the above for bytes that lie in memory. */
int durable_write(const char *path, const void *bytes, size_t size, struct error *err);

/* Remove a published file for good (fsyncs the directory); a file that is not there is no error. */
int durable_remove(const char *path, struct error *err);

/* Make the directory and those above it, each entry fsynced. One that is there already is fine. */
int durable_make_directories(const char *path, struct error *err);

/* The lock of a directory: flock on DIRECTORY/.lock, which holds the host and process id of its holder. It ends
 * with the process, however that ends. Held by another: ERROR_USAGE, naming the holder. */
struct durable_lock;
struct durable_lock *durable_lock_take(const char *directory, struct error *err);
void durable_lock_release(struct durable_lock *lock); /* NULL is fine */

/* A whole file in memory, read at once; bytes [size], the caller frees them. */
struct durable_bytes {
    unsigned char *bytes;
    size_t size;
};
int durable_read(const char *path, struct durable_bytes *out, struct error *err);

#endif
