/* Directed rounding and exception flags through <fenv.h>. */
#include <fenv.h>
#include <float.h>
#include <math.h>
#include <stdio.h>

#pragma STDC FENV_ACCESS ON

static const struct {
    int mode;
    const char *name;
} modes[] = {
    {FE_TONEAREST, "nearest"}, {FE_TOWARDZERO, "zero"}, {FE_UPWARD, "up"}, {FE_DOWNWARD, "down"}};

static const char *flags(void)
{
    static char text[6];
    int raised = fetestexcept(FE_ALL_EXCEPT);
    text[0] = raised & FE_INVALID ? 'V' : '-';
    text[1] = raised & FE_DIVBYZERO ? 'Z' : '-';
    text[2] = raised & FE_OVERFLOW ? 'O' : '-';
    text[3] = raised & FE_UNDERFLOW ? 'U' : '-';
    text[4] = raised & FE_INEXACT ? 'X' : '-';
    feclearexcept(FE_ALL_EXCEPT);
    return text;
}

static void show(const char *name, double value)
{
    const char *raised = flags();
    int mode = fegetround();
    fesetround(FE_TONEAREST);
    if (isnan(value))
        printf("  %-14s nan %s\n", name, raised);
    else
        printf("  %-14s %a %s\n", name, value, raised);
    feclearexcept(FE_ALL_EXCEPT);
    fesetround(mode);
}

static void arithmetic(void)
{
    volatile double one = 1, three = 3, zero = 0, big = DBL_MAX, tiny = DBL_MIN, inf = INFINITY;
    volatile double least = 0x1p-1074, half_up = 2.5, below = -2.5;
    volatile double a = 0x1.0000001p0, b = 0x1.fffffffffffffp-1;
    volatile double r;
    r = one / three, show("1/3", r);
    r = -one / three, show("-1/3", r);
    r = one + least, show("1+least", r);
    r = one - least, show("1-least", r);
    r = big + big, show("max+max", r);
    r = -big * three, show("-max*3", r);
    r = tiny / three, show("min/3", r);
    r = tiny * b, show("min*below 1", r);
    r = least / (one + one), show("least/2", r);
    r = -least * least, show("-least*least", r);
    r = one / zero, show("1/0", r);
    r = zero / zero, show("0/0", r);
    r = inf - inf, show("inf-inf", r);
    r = inf * zero, show("inf*0", r);
    r = one - one, show("1-1", r);
    r = a * a, show("a*a", r);
    r = sqrt(three), show("sqrt 3", r);
    r = sqrt(-one), show("sqrt -1", r);
    r = fma(a, a, -one), show("fma", r);
    r = rint(half_up), show("rint 2.5", r);
    r = rint(below), show("rint -2.5", r);
    r = nearbyint(half_up), show("nearbyint 2.5", r);
    r = (double)lrint(below), show("lrint -2.5", r);
    r = floor(below), show("floor -2.5", floor(r));
    r = (float)one / (float)three, show("float 1/3", r);
    r = (double)(float)a, show("narrow", r);
    r = (double)(float)big, show("narrow max", r);
    r = (double)(float)least, show("narrow least", r);
    volatile long long wide = 9007199254740993ll;
    r = (double)wide, show("from 2^53+1", r);
    r = (double)-wide, show("from -2^53-1", r);
    r = (double)(float)wide, show("float of it", r);
    volatile float f = 0x1.000002p0f, g;
    g = f * f, show("float square", g);
    g = fmaf(f, f, -f), show("float fma", g);
    volatile int n = (int)half_up;
    show("int 2.5", n);
}

static void comparisons(void)
{
    volatile double quiet = NAN, one = 1;
    volatile int r;
    r = quiet == one, printf("  == quiet %d %s\n", r, flags());
    r = quiet < one, printf("  <  quiet %d %s\n", r, flags());
    r = quiet >= one, printf("  >= quiet %d %s\n", r, flags());
    r = isless(quiet, one), printf("  isless quiet %d %s\n", r, flags());
}

int main(void)
{
    feclearexcept(FE_ALL_EXCEPT);
    for (int i = 0; i < 4; i++) {
        printf("%s\n", modes[i].name);
        if (fesetround(modes[i].mode) != 0 || fegetround() != modes[i].mode) {
            printf("  not supported\n");
            continue;
        }
        arithmetic();
    }
    fesetround(FE_TONEAREST);
    comparisons();

    feraiseexcept(FE_OVERFLOW | FE_INVALID);
    printf("raised %s\n", flags());
    fenv_t environment;
    fesetround(FE_UPWARD);
    feraiseexcept(FE_DIVBYZERO);
    feholdexcept(&environment);
    printf("held %d", fetestexcept(FE_ALL_EXCEPT));
    feraiseexcept(FE_INEXACT);
    fesetround(FE_TONEAREST);
    feupdateenv(&environment);
    printf(" restored mode %d", fegetround() == FE_UPWARD);
    printf(" flags %s\n", flags());
    fesetenv(FE_DFL_ENV);
    printf("default %d %s\n", fegetround() == FE_TONEAREST, flags());
    return 0;
}
