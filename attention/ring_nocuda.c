#include "attention/ring_parts.h"

const struct ring_arithmetic *ring_on_cuda(void)
{
    return NULL;
}
