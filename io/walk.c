#include "io/walk.h"

#include <errno.h>
#include <fnmatch.h>
#include <fts.h>
#include <search.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/utf8.h"
#include "io/document.h"
#include "io/ignore.h"
#include "io/walk_roots.h"

/* A folder on the way, kept to the end of the walk; fts_pointer of its entry. */
struct folder {
    struct folder *next;
    char *real;                  /* real path */
    const struct ignore *ignore; /* rules that hold in it, its own or its parent's; may be NULL */
    struct ignore *own;          /* rules that begin here, or NULL */
};

/* What a tree of search.h holds: a string, and of a real path the id it was met under. */
struct seen {
    const char *key; /* behind the struct */
    const char *id;  /* of the entry */
};

struct walker {
    struct walk *walk;
    int64_t capacity;
    const struct walk_options *options;
    char *output;                 /* real path of options->output, or NULL */
    const struct walk_root *root; /* the present one */
    struct folder *folders;
    void *reals, *ids; /* trees of struct seen */
};

/* ---- entries ---- */

static int compare_seen(const void *a, const void *b)
{
    const struct seen *left = a, *right = b;
    return strcmp(left->key, right->key);
}

/* NULL when the key is new and has been noted, else what was noted under it. *failed when out of memory. */
static const struct seen *note(void **tree, const char *key, const char *id, bool *failed)
{
    size_t size = strlen(key) + 1;
    struct seen *fresh = malloc(sizeof *fresh + size);
    *failed = true;
    if (!fresh)
        return NULL;
    *fresh = (struct seen){memcpy(fresh + 1, key, size), id};
    struct seen **at = tsearch(fresh, tree, compare_seen);
    *failed = !at;
    if (at && *at == fresh)
        return NULL;
    free(fresh);
    return at ? *at : NULL;
}

/* A name as an id may show it: bytes that are not UTF-8, and controls, as %XX. NULL: out of memory. */
static char *clean_name(const char *name)
{
    size_t length = strlen(name), at = 0;
    char *out = malloc(3 * length + 1);
    for (size_t i = 0; out && i < length;) {
        const struct utf8_piece piece = utf8_piece(name + i, length - i);
        const unsigned char byte = (unsigned char)name[i];
        if (!piece.valid || byte < 0x20 || byte == 0x7f) {
            at += (size_t)sprintf(out + at, "%%%02X", byte);
            i++;
            continue;
        }
        memcpy(out + at, name + i, piece.length);
        at += piece.length;
        i += piece.length;
    }
    if (out)
        out[at] = '\0';
    return out;
}

/* Roots of like names may meet below: a number tells the later entry apart. Takes over `id`; NULL: out of memory.
 */
static char *number_id(struct walker *walker, char *id)
{
    char *numbered = NULL;
    for (int number = 2;; number++) {
        bool failed;
        if (asprintf(&numbered, "%s#%d", id, number) < 0) {
            numbered = NULL;
            break;
        }
        bool taken = note(&walker->ids, numbered, NULL, &failed);
        if (!taken && !failed)
            break;
        free(numbered);
        numbered = NULL;
        if (failed)
            break;
    }
    free(id);
    return numbered;
}

/* What fts stands at, below its root. */
static const char *below_root(const struct walker *walker, const FTSENT *at)
{
    const char *below = at->fts_path + strlen(walker->root->path);
    return below + (*below == '/');
}

/* The id of what fts stands at; a folder's ends in '/'. NULL: out of memory. */
static char *make_id(struct walker *walker, const FTSENT *at, bool folder)
{
    char *whole = NULL;
    const char *name = walker->root->name, *below = below_root(walker, at);
    if (asprintf(&whole, "%s%s%s%s", name, *name && *below ? "/" : "", below, folder ? "/" : "") < 0)
        return NULL;
    char *id = clean_name(whole);
    free(whole);
    bool failed = false;
    if (id && note(&walker->ids, id, NULL, &failed))
        return number_id(walker, id);
    if (!failed)
        return id;
    free(id);
    return NULL;
}

/* Takes over `id`. */
static int add(struct walker *walker, const FTSENT *at, char *id, enum walk_fate fate, const char *reason)
{
    struct walk *walk = walker->walk;
    char *path = strdup(at->fts_path), *why = strdup(reason);
    if (!path || !why || !id)
        goto no_memory;
    if (walk->count == walker->capacity) {
        int64_t capacity = 2 * walker->capacity + 16;
        struct walk_entry *grown = realloc(walk->entries, (size_t)capacity * sizeof *grown);
        if (!grown)
            goto no_memory;
        walk->entries = grown;
        walker->capacity = capacity;
    }
    bool sized = at->fts_info == FTS_F;
    walk->entries[walk->count++] =
        (struct walk_entry){path, id, sized ? (int64_t)at->fts_statp->st_size : 0, fate, why};
    return 0;
no_memory:
    free(path);
    free(why);
    free(id);
    return -1;
}

/* ---- rules ---- */

static bool glob_matches(const char *glob, const char *below, const char *name)
{
    if (fnmatch(glob, below, 0) == 0)
        return true;
    if (!strchr(glob, '/'))
        return fnmatch(glob, name, 0) == 0;
    return strncmp(glob, "**/", 3) == 0 && fnmatch(glob + 3, below, 0) == 0;
}

static bool any_matches(const struct walk_globs *globs, const char *below, const char *name)
{
    for (int64_t i = 0; i < globs->count; i++) {
        if (glob_matches(globs->items[i], below, name))
            return true;
    }
    return false;
}

/* Why the globs keep a file out, or NULL. */
static const char *kept_out(const struct walker *walker, const FTSENT *at)
{
    const struct walk_options *options = walker->options;
    const char *below = below_root(walker, at);
    if (options->include.count > 0 && !any_matches(&options->include, below, at->fts_name))
        return "not included";
    return any_matches(&options->exclude, below, at->fts_name) ? "excluded" : NULL;
}

/* Why a name below a root is not looked at, or NULL. */
static const char *bad_name(const char *name)
{
    if (name[0] == '.')
        return "hidden";
    return strcmp(name, "CVS") == 0 || strcmp(name, "_darcs") == 0 ? "of version control" : NULL;
}

/* The real path of what fts stands at, to be freed; NULL: out of memory, or gone. */
static char *real_path(const FTSENT *at)
{
    const struct folder *parent = at->fts_level > FTS_ROOTLEVEL ? at->fts_parent->fts_pointer : NULL;
    char *real = NULL;
    if (!parent || at->fts_number) /* a root, or reached through a link */
        return realpath(at->fts_accpath, NULL);
    const char *slash = strcmp(parent->real, "/") == 0 ? "" : "/";
    return asprintf(&real, "%s%s%s", parent->real, slash, at->fts_name) < 0 ? NULL : real;
}

static bool is_ignored(const FTSENT *at)
{
    const struct folder *parent = at->fts_level > FTS_ROOTLEVEL ? at->fts_parent->fts_pointer : NULL;
    char *path = NULL;
    /* To git a link to a folder is not a folder. */
    bool folder = at->fts_info == FTS_D && !at->fts_number;
    if (!parent || !parent->ignore)
        return false;
    if (asprintf(&path, "%s/%s%s", parent->real, at->fts_name, folder ? "/" : "") < 0)
        return false;
    bool ignored = ignore_match(parent->ignore, path);
    free(path);
    return ignored;
}

/* Why the rules keep out what is no folder, or NULL; a root is wanted, whatever it is called. */
static const char *ruled_out(const struct walker *walker, const FTSENT *at)
{
    if (at->fts_level == FTS_ROOTLEVEL)
        return NULL;
    const char *why = bad_name(at->fts_name);
    why = why ? why : kept_out(walker, at);
    return why ? why : is_ignored(at) ? "ignored by git" : NULL;
}

/* ---- what fts shows ---- */

/* The rules of git that hold in a folder: its parent's, unless it begins a work tree, or stands elsewhere. */
static void find_rules(struct folder *folder, const FTSENT *at)
{
    const struct folder *parent = at->fts_level > FTS_ROOTLEVEL ? at->fts_parent->fts_pointer : NULL;
    char *git = NULL;
    struct stat st;
    bool begins = !parent || at->fts_number;
    if (!begins && asprintf(&git, "%s/.git", folder->real) >= 0) {
        begins = lstat(git, &st) == 0;
        free(git);
    }
    folder->ignore = parent ? parent->ignore : NULL;
    if (!begins)
        return;
    folder->own = ignore_open(folder->real);
    folder->ignore = folder->own;
    /* Whoever names an ignored folder wants it read. */
    char *path = NULL;
    if (!parent && folder->own && asprintf(&path, "%s/", folder->real) >= 0) {
        if (ignore_match(folder->own, path))
            folder->ignore = NULL;
        free(path);
    }
}

static int add_failed(struct walker *walker, const FTSENT *at, const char *reason)
{
    bool folder = at->fts_info == FTS_D || at->fts_info == FTS_DNR;
    return add(walker, at, make_id(walker, at, folder), WALK_FAILED, reason);
}

/* A file or folder whose real path could not be found. */
static int add_lost(struct walker *walker, const FTSENT *at)
{
    return errno == ENOMEM ? -1 : add_failed(walker, at, strerror(errno));
}

/* Enter a folder, or leave it out: then the tree below is not walked. */
static int visit_folder(struct walker *walker, FTS *fts, FTSENT *at)
{
    const char *why = at->fts_level > FTS_ROOTLEVEL ? bad_name(at->fts_name) : NULL;
    char *real = real_path(at), twice[512];
    bool failed = false;
    int rc = 0;
    if (!real) {
        fts_set(fts, at, FTS_SKIP);
        return add_lost(walker, at);
    }
    if (!why && walker->output && strcmp(real, walker->output) == 0)
        why = "the output folder";
    if (!why && is_ignored(at))
        why = "ignored by git";
    const struct seen *before = why ? NULL : note(&walker->reals, real, NULL, &failed);
    if (before) {
        snprintf(twice, sizeof twice, "read already as %s", before->key);
        why = twice;
    }
    struct folder *folder = why || failed ? NULL : calloc(1, sizeof *folder);
    if (folder) {
        *folder = (struct folder){.next = walker->folders, .real = real};
        walker->folders = folder;
        at->fts_pointer = folder;
        find_rules(folder, at);
        return 0;
    }
    free(real);
    if (!why)
        return -1;
    rc = add(walker, at, make_id(walker, at, true), WALK_LEFT_OUT, why);
    fts_set(fts, at, FTS_SKIP);
    return rc;
}

/* Behind the refusal of a format: how its text is had all the same, where there is some. */
static const char *what_to_do(const char *extension)
{
    static const char *const texts[] = {"doc", "docx", "epub", "mobi", "odp", "ods",
                                        "odt", "ppt",  "pptx", "rtf",  "xls", "xlsx"};
    if (strcmp(extension, "pdf") == 0)
        return ": turn it into text first, as with pdftotext";
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        if (strcmp(extension, texts[i]) == 0)
            return ": turn it into text first, as with pandoc or LibreOffice";
    }
    return "";
}

/* The fate of a file that is a document by all rules. */
static int add_document(struct walker *walker, const FTSENT *at, char *id)
{
    const char *extension = document_unsupported(at->fts_name);
    char reason[128];
    if (extension) {
        snprintf(reason, sizeof reason, "format not supported (.%s)%s", extension, what_to_do(extension));
        return add(walker, at, id, WALK_SKIPPED, reason);
    }
    if (at->fts_statp->st_size == 0)
        return add(walker, at, id, WALK_SKIPPED, "empty");
    return add(walker, at, id, WALK_READY, "");
}

static int visit_file(struct walker *walker, const FTSENT *at)
{
    const char *why = ruled_out(walker, at);
    if (why)
        return add(walker, at, make_id(walker, at, false), WALK_LEFT_OUT, why);
    char *real = real_path(at), twice[512];
    bool failed = false;
    if (!real)
        return add_lost(walker, at);
    char *id = make_id(walker, at, false);
    const struct seen *before = note(&walker->reals, real, id, &failed);
    free(real);
    if (!id || failed) {
        free(id);
        return -1;
    }
    if (before) {
        snprintf(twice, sizeof twice, "read already as %s", before->id);
        return add(walker, at, id, WALK_LEFT_OUT, twice);
    }
    return add_document(walker, at, id);
}

/* What cannot be opened or looked at is no document's failure where nobody asked for a document of that name. */
static int visit_other(struct walker *walker, const FTSENT *at, enum walk_fate fate, const char *reason)
{
    const char *why = ruled_out(walker, at);
    return add(walker, at, make_id(walker, at, false), why ? WALK_LEFT_OUT : fate, why ? why : reason);
}

static int visit(struct walker *walker, FTS *fts, FTSENT *at)
{
    switch (at->fts_info) {
    case FTS_D:
        return visit_folder(walker, fts, at);
    case FTS_DC:
        return add(walker, at, make_id(walker, at, true), WALK_LEFT_OUT, "leads back to a folder it is in");
    case FTS_F:
        return visit_file(walker, at);
    case FTS_SL: /* comes again as what it leads to */
        at->fts_number = 1;
        fts_set(fts, at, FTS_FOLLOW);
        return 0;
    case FTS_SLNONE:
        return visit_other(walker, at, WALK_FAILED, "a symbolic link to nothing");
    case FTS_DEFAULT:
        return visit_other(walker, at, WALK_SKIPPED, "not a regular file");
    case FTS_NS:
        return visit_other(walker, at, WALK_FAILED, strerror(at->fts_errno));
    case FTS_DNR: /* a folder, and as such let in */
    case FTS_ERR:
        return add_failed(walker, at, strerror(at->fts_errno));
    default: /* a folder is left */
        return 0;
    }
}

static int compare_fts(const FTSENT **a, const FTSENT **b)
{
    return strcmp((*a)->fts_name, (*b)->fts_name);
}

static int walk_root(struct walker *walker, const struct walk_root *root)
{
    char *const paths[] = {root->path, NULL};
    FTS *fts = fts_open(paths, FTS_PHYSICAL | FTS_COMFOLLOW | FTS_NOCHDIR, compare_fts);
    FTSENT *at = NULL;
    int rc = fts ? 0 : -1;
    walker->root = root;
    while (rc == 0 && (at = fts_read(fts)))
        rc = visit(walker, fts, at);
    if (rc == 0 && errno != 0)
        rc = -1;
    int cause = errno;
    if (fts)
        fts_close(fts);
    errno = cause;
    return rc;
}

static void free_walker(struct walker *walker)
{
    for (struct folder *folder = walker->folders, *next; folder; folder = next) {
        next = folder->next;
        ignore_close(folder->own);
        free(folder->real);
        free(folder);
    }
    free(walker->output);
    tdestroy(walker->reals, free);
    tdestroy(walker->ids, free);
}

struct walk *walk_paths(const char *const *paths, int n, const struct walk_options *options, struct error *err)
{
    struct walk_root *roots = walk_roots_create(paths, n, err);
    if (!roots)
        return NULL;
    struct walker walker = {.walk = calloc(1, sizeof(struct walk)), .options = options};
    int rc = walker.walk ? 0 : -1;
    if (options->output)
        walker.output = realpath(options->output, NULL);
    for (int i = 0; rc == 0 && i < n; i++) {
        rc = walk_root(&walker, &roots[i]);
        if (rc < 0)
            error_errno(err, "walking %s", roots[i].path);
    }
    if (!walker.walk)
        error_errno(err, "walking the corpus");
    free_walker(&walker);
    walk_roots_free(roots, n);
    if (rc == 0)
        return walker.walk;
    walk_free(walker.walk);
    return NULL;
}

void walk_free(struct walk *walk)
{
    if (!walk)
        return;
    for (int64_t i = 0; i < walk->count; i++) {
        free(walk->entries[i].path);
        free(walk->entries[i].id);
        free(walk->entries[i].reason);
    }
    free(walk->entries);
    free(walk);
}
