#include "io/walk_roots.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* True when the path says what it is without looking at the disk: no "." or ".." or empty part in it. */
static bool is_plain(const char *path)
{
    for (const char *at = path; *at;) {
        at += *at == '/';
        size_t n = strcspn(at, "/");
        if (n == 0 || (n == 1 && at[0] == '.') || (n == 2 && at[0] == '.' && at[1] == '.'))
            return false;
        at += n;
    }
    return true;
}

/* Links in the path are not followed where it can be helped: they are the names the user knows. */
static char *make_absolute(const char *path)
{
    if (!is_plain(path))
        return realpath(path, NULL);
    if (path[0] == '/')
        return strdup(path);
    char *folder = getcwd(NULL, 0), *absolute = NULL;
    if (folder && asprintf(&absolute, "%s/%s", folder[1] ? folder : "", path) < 0)
        absolute = NULL;
    free(folder);
    return absolute;
}

static int compare_names(const void *a, const void *b)
{
    const struct walk_root *const *left = a, *const *right = b;
    int order = strcmp((*left)->name, (*right)->name);
    return order ? order : strcmp((*left)->absolute, (*right)->absolute);
}

/* One more folder in front of the name; false when there is none. */
static bool lengthen(struct walk_root *root)
{
    const char *at = root->name;
    if (at <= root->absolute + 1)
        return false;
    for (at--; at > root->absolute && at[-1] != '/'; at--) {
    }
    root->name = at;
    return true;
}

/* Lengthen the names of all roots that share theirs with another. The same root given twice stays as it is. */
static bool tell_apart(struct walk_root **sorted, int n)
{
    bool changed = false;
    qsort(sorted, (size_t)n, sizeof *sorted, compare_names);
    for (int first = 0, end; first < n; first = end) {
        for (end = first + 1; end < n && strcmp(sorted[end]->name, sorted[first]->name) == 0; end++) {
        }
        /* Sorted by path too: the ends differ when any two do. */
        if (strcmp(sorted[first]->absolute, sorted[end - 1]->absolute) == 0)
            continue;
        const int alike_end = end;
        for (int i = first; i < alike_end; i++)
            changed |= lengthen(sorted[i]);
    }
    return changed;
}

static int name_roots(struct walk_root *roots, int n, struct error *err)
{
    struct walk_root **sorted = malloc((size_t)n * sizeof *sorted);
    if (!sorted)
        return error_errno(err, "the list of paths");
    for (int i = 0; i < n; i++) {
        const char *slash = strrchr(roots[i].absolute, '/');
        roots[i].name = slash ? slash + 1 : roots[i].absolute;
        sorted[i] = &roots[i];
    }
    while (tell_apart(sorted, n)) {
    }
    free(sorted);
    return 0;
}

struct walk_root *walk_roots_create(const char *const *paths, int n, struct error *err)
{
    struct walk_root *roots = calloc((size_t)n + 1, sizeof *roots);
    if (!roots) {
        error_errno(err, "the list of paths");
        return NULL;
    }
    for (int i = 0; i < n; i++) {
        struct stat st;
        if (stat(paths[i], &st) < 0) {
            error_errno(err, "%s", paths[i]);
            goto fail;
        }
        roots[i].path = strdup(paths[i]);
        if (!roots[i].path)
            goto no_memory;
        for (size_t end = strlen(roots[i].path); end > 1 && roots[i].path[end - 1] == '/'; end--)
            roots[i].path[end - 1] = '\0';
        roots[i].absolute = make_absolute(roots[i].path);
        if (!roots[i].absolute)
            goto no_memory;
    }
    if (name_roots(roots, n, err) < 0)
        goto fail;
    return roots;
no_memory:
    error_errno(err, "the list of paths");
fail:
    walk_roots_free(roots, n);
    return NULL;
}

void walk_roots_free(struct walk_root *roots, int n)
{
    for (int i = 0; roots && i < n; i++) {
        free(roots[i].path);
        free(roots[i].absolute);
    }
    free(roots);
}
