#include <stdbool.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/durable.h"
#include "io/export.h"
#include "io/results.h"
#include "pipeline/commands.h"

/* A regular file, or one that is not there yet: whole or as it was. */
static int replace(const char *results, enum export_format format, const char *path, struct error *err)
{
    struct durable *file = durable_create(path, err);
    if (!file)
        return -1;
    if (export_write(results, format, durable_stream(file), err) != 0) {
        durable_abandon(file);
        return -1;
    }
    return durable_publish(file, err);
}

/* A terminal, a pipe, /dev/null: a file put in its place would not be what was meant. */
static int write_into(const char *results, enum export_format format, const char *path, struct error *err)
{
    FILE *out = fopen(path, "we");
    if (!out)
        return error_errno(err, "cannot write %s", path);
    int status = export_write(results, format, out, err);
    if (fclose(out) != 0 && status == 0)
        status = error_errno(err, "cannot write %s", path);
    return status;
}

/* /dev/stdout may be a regular file, which others write to as well. */
static bool is_stdout(const struct stat *there)
{
    struct stat out;
    return fstat(STDOUT_FILENO, &out) == 0 && out.st_dev == there->st_dev && out.st_ino == there->st_ino;
}

static int export_to(const char *results, enum export_format format, const char *path, struct error *err)
{
    struct stat there;
    if (results_own(results, path))
        return error_set(err, ERROR_USAGE, "%s belongs to the results themselves: take another -o", path);
    if (stat(path, &there) != 0)
        return replace(results, format, path, err);
    if (is_stdout(&there))
        return export_write(results, format, stdout, err);
    return (S_ISREG(there.st_mode) ? replace : write_into)(results, format, path, err);
}

int command_export(const struct options *options, struct error *err)
{
    const char *results = options->operands[0];
    const enum export_format format = (enum export_format)options->format;
    if (!options->output)
        return export_write(results, format, stdout, err);
    char *target = realpath(options->output, NULL); /* a link stays, and what it leads to is replaced */
    const int status = export_to(results, format, target ? target : options->output, err);
    free(target);
    return status;
}
