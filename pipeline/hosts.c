#include "pipeline/hosts.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* Ranks may be dealt to machines in turn: the same name need not be the neighbour's. */
static bool is_first(const char (*names)[HOST_NAME], int rank)
{
    for (int other = 0; other < rank; other++)
        if (strcmp(names[other], names[rank]) == 0)
            return false;
    return true;
}

char *hosts_join(const char (*names)[HOST_NAME], int n)
{
    char *joined = calloc((size_t)n + 1, HOST_NAME), *end = joined;
    for (int rank = 0; joined && rank < n; rank++) {
        if (!is_first(names, rank))
            continue;
        if (end > joined)
            *end++ = ',';
        end = stpcpy(end, names[rank]);
    }
    return joined;
}
