#include "pipeline/difference.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <string.h>

/* A value as a message shows it; to be freed by cJSON_free. */
static char *show(const cJSON *value)
{
    const bool empty = cJSON_IsString(value) && value->valuestring[0] == '\0';
    return empty || !value ? NULL : cJSON_PrintUnformatted(value);
}

static void say(const char *name, const cJSON *there, const cJSON *here, char *out, size_t size)
{
    char *was = show(there), *is = show(here);
    snprintf(out, size, "%s %.50s there, %.50s here", name, was ? was : "not given", is ? is : "not given");
    cJSON_free(was);
    cJSON_free(is);
}

static bool find_option(const cJSON *there, const cJSON *here, char *out, size_t size)
{
    const cJSON *option;
    cJSON_ArrayForEach(option, here)
    {
        const cJSON *was = cJSON_GetObjectItemCaseSensitive(there, option->string);
        if (cJSON_Compare(was, option, true))
            continue;
        say(option->string, was, option, out, size);
        return true;
    }
    return false;
}

void difference_find(const struct results_run *there, const struct results_run *here, char *out, size_t size)
{
    cJSON *was = cJSON_Parse(there->options), *is = cJSON_Parse(here->options);
    if (strcmp(there->model_sha256, here->model_sha256) != 0)
        snprintf(out, size, "another model");
    else if (!find_option(was, is, out, size))
        snprintf(out, size, "another --segment, or other words in a file that an option names");
    cJSON_Delete(was);
    cJSON_Delete(is);
}
