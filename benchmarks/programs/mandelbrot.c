/* Escape times in the complex plane: a short chain of double operations and a branch. */
#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
    int size = argc > 1 ? atoi(argv[1]) : 2300;
    long total = 0;
    for (int row = 0; row < size; row++)
        for (int column = 0; column < size; column++) {
            double cx = column * 3.0 / size - 2.25, cy = row * 3.0 / size - 1.5;
            double x = 0, y = 0;
            int n = 0;
            for (; n < 400 && x * x + y * y < 4; n++) {
                double next = x * x - y * y + cx;
                y = 2 * x * y + cy;
                x = next;
            }
            total += n * ((row ^ column) & 7);
        }
    printf("%ld\n", total);
    return 0;
}
