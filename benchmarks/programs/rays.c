/* Ray tracing of mirroring spheres over a chequered floor: square roots, branches, recursion. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum { SPHERES = 9 };

struct vector {
    double x, y, z;
};

static struct sphere {
    struct vector centre;
    double radius, mirror, shade;
} spheres[SPHERES];

static const struct vector light = {0.48, 0.8, -0.36};

static struct vector add(struct vector a, struct vector b)
{
    return (struct vector){a.x + b.x, a.y + b.y, a.z + b.z};
}

static struct vector scale(struct vector a, double by)
{
    return (struct vector){a.x * by, a.y * by, a.z * by};
}

static double dot(struct vector a, struct vector b)
{
    return a.x * b.x + a.y * b.y + a.z * b.z;
}

static const struct sphere *hit(struct vector from, struct vector along, double *distance)
{
    const struct sphere *nearest = NULL;
    for (const struct sphere *sphere = spheres; sphere < spheres + SPHERES; sphere++) {
        struct vector offset = add(from, scale(sphere->centre, -1));
        double middle = dot(offset, along);
        double root = middle * middle - dot(offset, offset) + sphere->radius * sphere->radius;
        if (root < 0)
            continue;
        double at = -middle - sqrt(root);
        if (at > 1e-6 && at < *distance) {
            *distance = at;
            nearest = sphere;
        }
    }
    return nearest;
}

static double brightness(struct vector from, struct vector along, int depth)
{
    double distance = 1e9, unused = 1e9;
    const struct sphere *sphere = hit(from, along, &distance);
    if (!sphere) {
        if (along.y >= 0)
            return 0.3 + 0.7 * along.y;
        distance = -from.y / along.y;
        struct vector point = add(from, scale(along, distance));
        int dark = ((int)floor(point.x) ^ (int)floor(point.z)) & 1;
        double lit = hit(point, light, &unused) ? 0.2 : 0.8;
        return lit * (dark ? 0.4 : 1) / (1 + 0.01 * distance);
    }
    struct vector point = add(from, scale(along, distance));
    struct vector normal = scale(add(point, scale(sphere->centre, -1)), 1 / sphere->radius);
    double diffuse = dot(normal, light);
    if (diffuse < 0 || hit(point, light, &unused))
        diffuse = 0;
    double value = sphere->shade * (0.1 + 0.9 * diffuse);
    if (depth > 0)
        value += sphere->mirror *
                 brightness(point, add(along, scale(normal, -2 * dot(along, normal))), depth - 1);
    return value;
}

int main(int argc, char **argv)
{
    int size = argc > 1 ? atoi(argv[1]) : 3900;
    for (int i = 0; i < SPHERES; i++)
        spheres[i] = (struct sphere){{i % 3 * 2.2 - 2.2, 0.8 + i / 3 * 0.5, 4 + i / 3 * 2.1},
                                     0.7 + i % 2 * 0.3, 0.3 + i % 4 * 0.1, 0.4 + i % 3 * 0.2};
    uint64_t checksum = 0;
    for (int row = 0; row < size; row++)
        for (int column = 0; column < size; column++) {
            struct vector along = {column * 2.0 / size - 1, 0.6 - row * 1.2 / size, 1.4};
            along = scale(along, 1 / sqrt(dot(along, along)));
            double value = brightness((struct vector){0, 1.2, -2}, along, 4);
            checksum = checksum * 31 + (uint64_t)(value * 65536);
        }
    printf("%016llx\n", (unsigned long long)checksum);
    return 0;
}
