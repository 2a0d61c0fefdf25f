/* The sum of n numbers. */
long sum(const long *x, long n)
{
    long s = 0;
    for (long i = 0; i < n; i++)
        s += x[i];
    return s;
}
