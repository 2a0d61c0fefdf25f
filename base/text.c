#include "base/text.h"

#include <string.h>

bool text_equals(struct text text, const char *string)
{
    return text.length == strlen(string) && (text.length == 0 || memcmp(text.bytes, string, text.length) == 0);
}
