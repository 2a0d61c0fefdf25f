#include "base/free_memory.h"

#include <ctype.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What the memory controller is called in either version of control groups, and its files. Limits, and what is
 * used, are those of a group with all groups below it. */
struct controller {
    const char *name; /* in the list of a process's groups; version 2 has one group for all controllers */
    const char *folder;
    const char *limit, *used;
    const char *cached[2]; /* lines of memory.stat: pages of files, which count as used */
};
static const struct controller controllers[] = {
    {"", "", "memory.max", "memory.current", {"inactive_file", "active_file"}},
    {"memory",
     "/memory",
     "memory.limit_in_bytes",
     "memory.usage_in_bytes",
     {"total_inactive_file", "total_active_file"}},
};

/* The number behind that word at the beginning of a line, or of a file that is but a number (word ""). False where
 * there is none, as in "max". */
static bool find_number(const char *path, const char *word, size_t *out)
{
    const size_t length = strlen(word);
    char line[256];
    bool found = false;
    FILE *file = fopen(path, "r");
    while (file && !found && fgets(line, sizeof line, file)) {
        if (strncmp(line, word, length) != 0)
            continue;
        const size_t blanks = strspn(line + length, " ");
        const char *number = line + length + blanks;
        found = (length == 0 || blanks > 0) && isdigit((unsigned char)*number);
        if (found)
            *out = strtoull(number, NULL, 10);
    }
    if (file)
        fclose(file);
    return found;
}

static size_t less(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* What a group can still take, SIZE_MAX where it has no limit. */
static size_t group_room(const struct controller *controller, const char *group)
{
    char path[PATH_MAX + 64];
    size_t limit, used = 0;
    snprintf(path, sizeof path, "%s/%s", group, controller->limit);
    if (!find_number(path, "", &limit))
        return SIZE_MAX;
    snprintf(path, sizeof path, "%s/%s", group, controller->used);
    find_number(path, "", &used);
    snprintf(path, sizeof path, "%s/memory.stat", group);
    for (int i = 0; i < 2; i++) {
        size_t cached = 0;
        find_number(path, controller->cached[i], &cached);
        used -= less(cached, used);
    }
    return limit - less(used, limit);
}

/* The group and those that it is part of: the batch system may have set its limit on any of them. In a container
 * some are not there to be seen. */
static size_t groups_room(const struct controller *controller, const char *control_groups, const char *own)
{
    char path[PATH_MAX];
    const int root = snprintf(path, sizeof path, "%s%s", control_groups, controller->folder);
    if (root < 0 || (size_t)root + strlen(own) >= sizeof path)
        return SIZE_MAX;
    strcpy(path + root, own);
    size_t room = group_room(controller, path);
    for (char *slash; (slash = strrchr(path + root, '/'));) {
        *slash = '\0';
        room = less(room, group_room(controller, path));
    }
    return room;
}

/* A line of /proc/self/cgroup is "NUMBER:CONTROLLER:GROUP". */
static size_t line_room(char *line, const char *control_groups)
{
    char *name = strchr(line, ':'), *own = name ? strchr(name + 1, ':') : NULL;
    if (!own)
        return SIZE_MAX;
    *own++ = '\0';
    own[strcspn(own, "\n")] = '\0';
    for (size_t i = 0; i < sizeof controllers / sizeof *controllers; i++)
        if (strcmp(name + 1, controllers[i].name) == 0)
            return groups_room(&controllers[i], control_groups, own);
    return SIZE_MAX;
}

size_t free_memory_of(const struct free_memory_source *source)
{
    size_t kilobytes, room = SIZE_MAX, capacity = 0;
    char *line = NULL;
    if (find_number(source->meminfo, "MemAvailable:", &kilobytes))
        room = kilobytes * 1024;
    FILE *groups = fopen(source->cgroup, "r");
    while (groups && getline(&line, &capacity, groups) > 0)
        room = less(room, line_room(line, source->control_groups));
    free(line);
    if (groups)
        fclose(groups);
    return room;
}

size_t free_memory(void)
{
    return free_memory_of(&(struct free_memory_source){"/proc/meminfo", "/proc/self/cgroup", "/sys/fs/cgroup"});
}
