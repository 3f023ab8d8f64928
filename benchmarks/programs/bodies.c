/* Planets under gravity: divisions and square roots of doubles. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { COUNT = 6 };

static struct body {
    double position[3], velocity[3], mass;
} bodies[COUNT];

static double energy(void)
{
    double total = 0;
    for (int i = 0; i < COUNT; i++) {
        for (int k = 0; k < 3; k++)
            total += bodies[i].mass * bodies[i].velocity[k] * bodies[i].velocity[k] / 2;
        for (int j = i + 1; j < COUNT; j++) {
            double squared = 0;
            for (int k = 0; k < 3; k++) {
                double d = bodies[i].position[k] - bodies[j].position[k];
                squared += d * d;
            }
            total -= bodies[i].mass * bodies[j].mass / sqrt(squared);
        }
    }
    return total;
}

int main(int argc, char **argv)
{
    int steps = argc > 1 ? atoi(argv[1]) : 11000000;
    const double dt = 0.001;
    for (int i = 0; i < COUNT; i++)
        bodies[i] = (struct body){{i * 2.0, i % 3 - 1.0, i % 2 * 0.5},
                                  {0, i ? 1.0 / i : 0, 0.01 * i},
                                  i ? 0.01 * i : 10};
    for (int step = 0; step < steps; step++) {
        for (int i = 0; i < COUNT; i++)
            for (int j = i + 1; j < COUNT; j++) {
                double d[3], squared = 0.01;
                for (int k = 0; k < 3; k++) {
                    d[k] = bodies[i].position[k] - bodies[j].position[k];
                    squared += d[k] * d[k];
                }
                double pull = dt / (squared * sqrt(squared));
                for (int k = 0; k < 3; k++) {
                    bodies[i].velocity[k] -= d[k] * bodies[j].mass * pull;
                    bodies[j].velocity[k] += d[k] * bodies[i].mass * pull;
                }
            }
        for (int i = 0; i < COUNT; i++)
            for (int k = 0; k < 3; k++)
                bodies[i].position[k] += dt * bodies[i].velocity[k];
    }
    printf("%.12f\n", energy());
    return 0;
}
