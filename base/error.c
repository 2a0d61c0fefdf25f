#include "base/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

enum { WHOLE_BYTES = 16384 }; /* of a message before it is shortened: room for two paths and more */

/* Inside of a character, not at its beginning. */
static bool is_inside(char byte)
{
    return ((unsigned char)byte & 0xc0u) == 0x80u;
}

void error_shorten(const char *message, char *out, size_t size)
{
    static const char gap[] = "...";
    const size_t length = strlen(message);
    if (length < size) {
        memcpy(out, message, length + 1);
        return;
    }
    size_t head = (size - sizeof gap) / 2, tail = length - (size - sizeof gap - head);
    while (head > 0 && is_inside(message[head]))
        head--;
    while (is_inside(message[tail]))
        tail++;
    memcpy(out, message, head);
    memcpy(out + head, gap, sizeof gap - 1);
    memcpy(out + head + sizeof gap - 1, message + tail, length - tail + 1);
}

int error_set(struct error *err, enum error_code code, const char *format, ...)
{
    char whole[WHOLE_BYTES];
    va_list args;
    va_start(args, format);
    vsnprintf(whole, sizeof whole, format, args);
    va_end(args);
    error_shorten(whole, err->text, sizeof err->text);
    err->code = code;
    return -1;
}

int error_errno(struct error *err, const char *format, ...)
{
    int cause = errno;
    char what[WHOLE_BYTES / 2];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    const bool spent = cause == ENOMEM || cause == ENOSPC || cause == EDQUOT;
    return error_set(err, spent ? ERROR_RESOURCE : ERROR_IO, "%s: %s", what, strerror(cause));
}

int error_wrap(struct error *err, const char *format, ...)
{
    char inner[sizeof err->text], outer[WHOLE_BYTES / 2];
    memcpy(inner, err->text, sizeof inner);
    va_list args;
    va_start(args, format);
    vsnprintf(outer, sizeof outer, format, args);
    va_end(args);
    return error_set(err, err->code, "%s: %s", outer, inner);
}
