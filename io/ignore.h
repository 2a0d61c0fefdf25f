/* What git would ignore: the .gitignore rules of the work tree that a folder stands in.
 *
 * ignore_open for a folder, ignore_match for what lies below it, ignore_close. Files that git tracks are never
 * ignored, whatever the rules say, as with git itself.
 */
#ifndef LONGHAUL_IO_IGNORE_H
#define LONGHAUL_IO_IGNORE_H

#include <stdbool.h>

struct ignore;

/* The rules that hold in `folder`, or NULL where there are none: no work tree, or one that cannot be read, of
 * which the log then has a line. */
struct ignore *ignore_open(const char *folder);

/* True when git would ignore the file or folder at `path`, a real path (see realpath(3)); false where the rules
 * are NULL or the path is outside their work tree. For a folder `path` ends in '/'; one that holds tracked files
 * is not ignored. */
bool ignore_match(const struct ignore *ignore, const char *path);

void ignore_close(struct ignore *ignore);

#endif
