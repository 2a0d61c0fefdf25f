/* From paths on the command line to the files of a corpus.
 *
 * walk_paths follows files and folders, walk_free gives back what it made. Files come in the order of the paths,
 * within a folder sorted by the bytes of their names: the same on every rank and every run. Nothing is opened.
 * Below a folder these are left out: hidden files and folders, the folders of version control, what git ignores,
 * what the globs do not let in, and what was met before under another name (so links cannot make loops). A file
 * that is named on the command line itself is always taken. The folder that results are written to is left out
 * wherever it is met, or the next run would read them.
 */
#ifndef LONGHAUL_IO_WALK_H
#define LONGHAUL_IO_WALK_H

#include <stdint.h>

#include "base/error.h"

enum walk_fate {
    WALK_READY,    /* to be read */
    WALK_SKIPPED,  /* a document in no format for us: unsupported, empty, not a regular file */
    WALK_FAILED,   /* wanted, but out of reach */
    WALK_LEFT_OUT, /* not asked for; a whole folder is one entry, its id ends in '/' */
};

struct walk_entry {
    char *path; /* to open it by */
    /* Unique, the same wherever the job is started: the name of the path given and what follows below it, as much
     * of the path given as sets it apart from the others. Valid UTF-8: other bytes and controls are %XX. */
    char *id;
    int64_t bytes;
    enum walk_fate fate;
    char *reason; /* "" for WALK_READY */
};

/* Patterns of fnmatch(3) for the path below the folder given; '*' also matches '/'. A pattern without a slash is
 * held against the bare name too, one that begins with two stars and a slash also against a path without folder.
 * A file is taken when an include matches, or there is none, and no exclude does. */
struct walk_globs {
    const char *const *items;
    int64_t count;
};

struct walk_options {
    struct walk_globs include, exclude;
    const char *output; /* the folder of the results, or NULL; it need not be there */
};

struct walk {
    int64_t count;
    struct walk_entry *entries;
};

/* All entries of paths [n]. NULL on failure: ERROR_IO for a path that does not exist, ERROR_RESOURCE. */
struct walk *walk_paths(const char *const *paths, int n, const struct walk_options *options, struct error *err);

void walk_free(struct walk *walk);

#endif
