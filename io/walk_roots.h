/* Names for the paths that a walk starts from: short, and no two alike. Inside of walk.c. */
#ifndef LONGHAUL_IO_WALK_ROOTS_H
#define LONGHAUL_IO_WALK_ROOTS_H

#include "base/error.h"

struct walk_root {
    char *path;       /* as given, without slashes at the end */
    char *absolute;   /* from the root of the file system */
    const char *name; /* the end of absolute, as much as sets it apart from the other roots */
};

/* The roots of paths [n], in the same order. NULL on failure: ERROR_IO for a path that does not exist. */
struct walk_root *walk_roots_create(const char *const *paths, int n, struct error *err);
void walk_roots_free(struct walk_root *roots, int n);

#endif
