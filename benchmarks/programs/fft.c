/* Fast Fourier transforms, forward and back: butterflies of doubles over strided memory. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum { BITS = 12, N = 1 << BITS };

static double real[N], imaginary[N], cosines[N / 2], sines[N / 2];

static void reorder(void)
{
    for (unsigned i = 0, j = 0; i < N; i++) {
        if (i < j) {
            double swap = real[i];
            real[i] = real[j];
            real[j] = swap;
            swap = imaginary[i];
            imaginary[i] = imaginary[j];
            imaginary[j] = swap;
        }
        unsigned bit = N >> 1;
        for (; j & bit; bit >>= 1)
            j ^= bit;
        j |= bit;
    }
}

static void transform(double direction)
{
    reorder();
    for (int half = 1; half < N; half *= 2)
        for (int start = 0; start < N; start += 2 * half)
            for (int k = 0; k < half; k++) {
                int a = start + k, b = a + half, turn = k * (N / 2 / half);
                double c = cosines[turn], s = sines[turn] * direction;
                double x = real[b] * c - imaginary[b] * s, y = real[b] * s + imaginary[b] * c;
                real[b] = real[a] - x;
                imaginary[b] = imaginary[a] - y;
                real[a] += x;
                imaginary[a] += y;
            }
}

int main(int argc, char **argv)
{
    int rounds = argc > 1 ? atoi(argv[1]) : 10000;
    uint32_t state = 5;
    for (int i = 0; i < N / 2; i++) {
        cosines[i] = cos(2 * 3.14159265358979323846 * i / N);
        sines[i] = sin(2 * 3.14159265358979323846 * i / N);
    }
    for (int i = 0; i < N; i++) {
        state = state * 1664525u + 1013904223u;
        real[i] = (double)(state >> 8) / (1 << 24) - 0.5;
    }
    double power = 0;
    for (int round = 0; round < rounds; round++) {
        transform(-1);
        int bin = round % (N / 2);
        power += real[bin] * real[bin] + imaginary[bin] * imaginary[bin];
        transform(1);
        for (int i = 0; i < N; i++) {
            real[i] /= N;
            imaginary[i] /= N;
        }
        real[round % N] += 0.25;
    }
    printf("%.12g %.12g\n", power, real[1]);
    return 0;
}
