#include "base/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

int error_set(struct error *err, enum error_code code, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(err->text, sizeof err->text, format, args);
    va_end(args);
    err->code = code;
    return -1;
}

int error_errno(struct error *err, const char *format, ...)
{
    int cause = errno;
    char what[sizeof err->text];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    const bool spent = cause == ENOMEM || cause == ENOSPC || cause == EDQUOT;
    return error_set(err, spent ? ERROR_RESOURCE : ERROR_IO, "%.400s: %s", what, strerror(cause));
}

int error_wrap(struct error *err, const char *format, ...)
{
    char inner[sizeof err->text], outer[sizeof err->text];
    memcpy(inner, err->text, sizeof inner);
    va_list args;
    va_start(args, format);
    vsnprintf(outer, sizeof outer, format, args);
    va_end(args);
    return error_set(err, err->code, "%.200s: %.300s", outer, inner);
}
