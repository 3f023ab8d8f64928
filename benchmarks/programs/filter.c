/* A recursive and a transversal filter over samples in single precision. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { SAMPLES = 8192, TAPS = 32 };

int main(int argc, char **argv)
{
    int rounds = argc > 1 ? atoi(argv[1]) : 9000;
    static float input[SAMPLES + TAPS], output[SAMPLES], taps[TAPS];
    unsigned state = 99;
    for (int i = 0; i < SAMPLES + TAPS; i++) {
        state = state * 1664525u + 1013904223u;
        input[i] = (float)(int)(state >> 16) / 65536 - 0.5f;
    }
    for (int i = 0; i < TAPS; i++)
        taps[i] = 1.0f / (float)(i + 2);
    double energy = 0;
    for (int round = 0; round < rounds; round++) {
        float y1 = 0, y2 = 0, loudest = 0;
        for (int i = 0; i < SAMPLES; i++) {
            float sum = 0;
            for (int k = 0; k < TAPS; k++)
                sum += taps[k] * input[i + k];
            float y = 0.2f * sum + 1.2f * y1 - 0.5f * y2;
            y2 = y1;
            y1 = y;
            output[i] = y;
            loudest = fabsf(y) > loudest ? fabsf(y) : loudest;
        }
        energy += (double)(output[round % SAMPLES] * loudest);
        taps[round % TAPS] *= 0.999f;
    }
    printf("%.9g\n", energy);
    return 0;
}
