#include "pipeline/needle_parts.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

static const char prefix[] = "part-";

static int is_part(const struct dirent *entry)
{
    return strncmp(entry->d_name, prefix, sizeof prefix - 1) == 0;
}

static int gather_part(struct needle_log *log, const char *output, const char *part, FILE *said, struct error *err)
{
    struct needle_gathered gathered;
    char *path;
    if (asprintf(&path, "%s/%s/trials.jsonl", output, part) < 0)
        return error_set(err, ERROR_RESOURCE, "no memory for the name of a file");
    const int status = needle_log_gather(log, path, &gathered, err);
    free(path);
    if (status != 0)
        return -1;
    if (gathered.trials > 0)
        fprintf(said, "%s: %" PRId64 " trials, %" PRId64 " of them new", part, gathered.trials, gathered.taken);
    else
        fprintf(said, "%s: no trials", part);
    return 0;
}

int needle_parts_gather(struct needle_log *log, const char *output, FILE *said, struct error *err)
{
    struct dirent **parts;
    const int n = scandir(output, &parts, is_part, alphasort);
    if (n < 0)
        return error_errno(err, "%s: looking for parts", output);
    int status = 0;
    for (int i = 0; i < n; i++) {
        if (status == 0) {
            fputs(i > 0 ? "; " : "", said);
            status = gather_part(log, output, parts[i]->d_name, said, err);
        }
        free(parts[i]);
    }
    free(parts);
    return status;
}
