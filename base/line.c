#include "base/line.h"

#include <string.h>

enum { LINE_BYTES = 16000 };

void line_clean(char *text, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f)
            text[i] = '?';
}

/* No memory is asked for: there may be none left, and that be what the line tells. */
void line_print_list(FILE *out, const char *format, va_list arguments)
{
    char line[LINE_BYTES + 1];
    vsnprintf(line, sizeof line, format, arguments);
    line_clean(line, strlen(line));
    fprintf(out, "%s\n", line);
}

void line_print(FILE *out, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    line_print_list(out, format, arguments);
    va_end(arguments);
}
