/* The Mandelbrot set in characters. */
#include <stdio.h>

int main(void)
{
    static const char shades[] = " .,:;=+*o%#@";
    for (int row = 0; row < 21; row++) {
        for (int column = 0; column < 56; column++) {
            double cx = column / 18.0 - 2.2, cy = row / 9.0 - 1.11, x = 0, y = 0;
            int n = 0;
            for (; n < 600 && x * x + y * y < 4; n++) {
                double next = x * x - y * y + cx;
                y = 2 * x * y + cy;
                x = next;
            }
            putchar(n == 600 ? '@' : shades[n % 11]);
        }
        putchar('\n');
    }
    return 0;
}
