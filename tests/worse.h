/* The largest error of many, where NaN is larger than all: C's fmax would pass it over. */
#ifndef LONGHAUL_TESTS_WORSE_H
#define LONGHAUL_TESTS_WORSE_H

#include <math.h>

static inline double worse(double a, double b)
{
    return isnan(a) || isnan(b) ? NAN : fmax(a, b);
}

#endif
