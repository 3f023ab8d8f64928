/* Floating point in round-to-nearest: arithmetic, comparison, conversion, classification, text.
   Bits of NaNs are never printed: machines differ in the sign of the NaN that they generate. */
#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const double doubles[] = {
    0.0, -0.0, 1.0, -1.0, 0.1, -0.1, 1.0 / 3, 2.5, -3.5, 1e10, -1e10, 1e300, -1e300, 1e-300,
    DBL_MAX, -DBL_MAX, DBL_MIN, -DBL_MIN, DBL_MIN / 2, 0x1p-1074, -0x1p-1074, 0x1.fffffffffffffp-1,
    0x1.0000000000001p0, 123456789.125, INFINITY, -INFINITY, NAN,
};
enum { COUNT = sizeof doubles / sizeof doubles[0] };

static uint64_t digest = 1469598103934665603u;

static void mix(uint64_t bits)
{
    digest = (digest ^ bits) * 1099511628211u;
    digest ^= digest >> 29;
}

static void mix_double(double value)
{
    uint64_t bits = 0x7ff8000000000000u;
    if (!isnan(value))
        memcpy(&bits, &value, 8);
    mix(bits);
}

static void mix_float(float value)
{
    uint32_t bits = 0x7fc00000u;
    if (!isnan(value))
        memcpy(&bits, &value, 4);
    mix(bits);
}

static void report(const char *name)
{
    printf("%-12s %016" PRIx64 "\n", name, digest);
    digest = 1469598103934665603u;
}

static void arithmetic(void)
{
    for (int i = 0; i < COUNT; i++)
        for (int j = 0; j < COUNT; j++) {
            volatile double a = doubles[i], b = doubles[j];
            mix_double(a + b), mix_double(a - b), mix_double(a * b), mix_double(a / b);
            mix_double(fmin(a, b)), mix_double(fmax(a, b)), mix_double(copysign(a, b));
            mix(a < b), mix(a <= b), mix(a == b), mix(a != b), mix(isunordered(a, b));
        }
    report("double");
    for (int i = 0; i < COUNT; i++)
        for (int j = 0; j < COUNT; j++) {
            volatile float a = (float)doubles[i], b = (float)doubles[j];
            mix_float(a + b), mix_float(a - b), mix_float(a * b), mix_float(a / b);
            mix_float(fminf(a, b)), mix_float(fmaxf(a, b));
            mix(a < b), mix(a <= b), mix(a == b), mix(isgreater(a, b));
        }
    report("float");
}

static void fused(void)
{
    for (int i = 0; i < COUNT; i++)
        for (int j = 0; j < COUNT; j++)
            for (int k = 0; k < COUNT; k += 3) {
                volatile double a = doubles[i], b = doubles[j], c = doubles[k];
                /* musl's own fma loses the sign of a product that underflows, added to zero. */
                if (c == 0 && a * b == 0 && a != 0 && b != 0)
                    continue;
                mix_double(fma(a, b, c)), mix_double(fma(-a, b, c));
                mix_double(fma(a, b, -c)), mix_double(-fma(a, b, c));
                mix_float(fmaf((float)a, (float)b, (float)c));
            }
    report("fused");
}

static void single(void)
{
    for (int i = 0; i < COUNT; i++) {
        volatile double a = doubles[i];
        mix_double(sqrt(a)), mix_float(sqrtf((float)a)), mix_double(fabs(a));
        mix_double(floor(a)), mix_double(ceil(a)), mix_double(trunc(a)), mix_double(round(a));
        mix_double(rint(a)), mix_double(nearbyint(a));
        mix((uint64_t)fpclassify(a)), mix(signbit(a) != 0 && !isnan(a));
        int exponent = 0;
        if (isfinite(a)) {
            mix_double(frexp(a, &exponent)), mix((uint64_t)exponent);
            mix_double(ldexp(a, 5)), mix_double(ldexp(a, -1060)), mix_double(fmod(a, 0.7));
            double whole;
            mix_double(modf(a, &whole)), mix_double(whole);
        }
        mix_double((double)(float)a);
    }
    report("single");
}

static void conversions(void)
{
    for (int i = 0; i < COUNT; i++) {
        volatile double a = doubles[i];
        if (fabs(a) < 2e9)
            mix((uint64_t)(int32_t)a), mix((uint64_t)lrint(a)), mix((uint64_t)(int32_t)(float)a);
        if (fabs(a) < 9e18)
            mix((uint64_t)(int64_t)a), mix((uint64_t)llround(a));
        if (a >= 0 && a < 1.8e19)
            mix((uint64_t)a);
    }
    static const int64_t integers[] = {0, 1, -1, 16777217, -16777219, INT32_MIN, INT32_MAX,
                                       9007199254740993, INT64_MAX, INT64_MIN, 0x7fffffbfffffffff};
    for (unsigned i = 0; i < sizeof integers / sizeof integers[0]; i++) {
        volatile int64_t n = integers[i];
        mix_double((double)n), mix_double((double)(uint64_t)n), mix_float((float)n);
        mix_float((float)(uint64_t)n), mix_double((double)(int32_t)n);
        mix_float((float)(int32_t)n), mix_float((float)(uint32_t)n);
    }
    report("conversions");
}

static void text(void)
{
    for (int i = 0; i < COUNT; i++)
        if (!isnan(doubles[i]))
            printf("%g %.17g %a %.3f %e\n", doubles[i], doubles[i], doubles[i],
                   fabs(doubles[i]) < 1e20 ? doubles[i] : 0.0, doubles[i]);
    static const char *inputs[] = {"3.14159265358979323846", "1e-320", "0x1.8p3", "inf", "1e400",
                                   "2.2250738585072012e-308", "9007199254740993", "-0.0junk"};
    for (unsigned i = 0; i < sizeof inputs / sizeof inputs[0]; i++) {
        char *end;
        double value = strtod(inputs[i], &end);
        printf("%s -> %a rest '%s' float %a\n", inputs[i], value, end, strtof(inputs[i], NULL));
    }
}

static void loops(void)
{
    volatile double step = 1e-6;
    double sum = 0, compensation = 0, pi = 0;
    for (int i = 0; i < 200000; i++) {
        double y = step * i - compensation, t = sum + y;
        compensation = (t - sum) - y;
        sum = t;
        pi += (i & 1 ? -4.0 : 4.0) / (2 * i + 1);
    }
    float shrinking = 1;
    int steps = 0;
    for (; shrinking > 0; steps++)
        shrinking *= 0.4f;
    printf("kahan %a leibniz %a underflow after %d\n", sum, pi, steps);
    /* Libraries may fuse inside these, so only the leading digits are portable. */
    for (int i = 1; i < 6; i++)
        printf("%.9f %.9f %.9f %.9f %.9f\n", sin(i), exp(-i), log(i), pow(i, 1.5), atan2(i, 3));
}

int main(void)
{
    arithmetic();
    fused();
    single();
    conversions();
    text();
    loops();
    return 0;
}
