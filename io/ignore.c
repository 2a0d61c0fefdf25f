#include "io/ignore.h"

#include <git2.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/log.h"

struct ignore {
    git_repository *repository;
    git_index *index;    /* NULL: nothing is tracked yet, or it cannot be read */
    char root[PATH_MAX]; /* real path of the work tree, ends in '/' */
};

static const char *git_reason(void)
{
    const git_error *error = git_error_last();
    return error ? error->message : "no reason given";
}

struct ignore *ignore_open(const char *folder)
{
    struct ignore *ignore = calloc(1, sizeof *ignore);
    git_libgit2_init();
    /* Shared corpora belong to others than those who run the job; only their ignore rules are read. */
    git_libgit2_opts(GIT_OPT_SET_OWNER_VALIDATION, 0);
    int rc = ignore ? git_repository_open_ext(&ignore->repository, folder, 0, NULL) : GIT_ENOTFOUND;
    const char *root = rc == 0 ? git_repository_workdir(ignore->repository) : NULL;
    if (rc < 0 && rc != GIT_ENOTFOUND)
        log_warn("%s: the ignore rules of git are not honoured: %s", folder, git_reason());
    if (!root || !realpath(root, ignore->root) || strlen(ignore->root) + 2 > sizeof ignore->root) {
        if (ignore)
            git_repository_free(ignore->repository);
        git_libgit2_shutdown();
        free(ignore);
        return NULL;
    }
    size_t length = strlen(ignore->root);
    if (ignore->root[length - 1] != '/')
        strcpy(ignore->root + length, "/");
    if (git_repository_index(&ignore->index, ignore->repository) < 0)
        ignore->index = NULL;
    return ignore;
}

void ignore_close(struct ignore *ignore)
{
    if (!ignore)
        return;
    git_index_free(ignore->index);
    git_repository_free(ignore->repository);
    git_libgit2_shutdown();
    free(ignore);
}

bool ignore_match(const struct ignore *ignore, const char *path)
{
    size_t length = ignore ? strlen(ignore->root) : 0;
    if (!ignore || strncmp(path, ignore->root, length) != 0 || path[length] == '\0')
        return false;
    const char *inside = path + length;
    int ignored = 0;
    if (git_ignore_path_is_ignored(&ignored, ignore->repository, inside) < 0)
        log_warn("%s: the ignore rules of git cannot be applied: %s", path, git_reason());
    if (!ignored || !ignore->index)
        return ignored;
    bool folder = inside[strlen(inside) - 1] == '/';
    return folder ? git_index_find_prefix(NULL, ignore->index, inside) != 0
                  : git_index_get_bypath(ignore->index, inside, 0) == NULL;
}
