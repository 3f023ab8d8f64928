/* Matrices and dynamic programming over tables. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { N = 48 };

static double a[N][N], b[N][N], c[N][N];

static void matrices(void)
{
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++) {
            a[i][j] = (i * 7 + j * 3) % 11 - 5 + (i == j) * 20;
            b[i][j] = (i * 5 + j * 2) % 13 - 6;
        }
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++) {
            c[i][j] = 0;
            for (int k = 0; k < N; k++)
                c[i][j] += a[i][k] * b[k][j];
        }
    double trace = 0, all = 0;
    for (int i = 0; i < N; i++) {
        trace += c[i][i];
        for (int j = 0; j < N; j++)
            all += c[i][j] * (i - j);
    }
    printf("product trace %g weighted %g\n", trace, all);
    double determinant = 1;
    for (int k = 0; k < N; k++) {
        determinant *= a[k][k] / 16;
        for (int i = k + 1; i < N; i++) {
            double factor = a[i][k] / a[k][k];
            for (int j = k; j < N; j++)
                a[i][j] -= factor * a[k][j];
        }
    }
    printf("determinant %a\n", determinant);
}

static void subsequence(const char *x, const char *y)
{
    static int table[128][128];
    int m = (int)strlen(x), n = (int)strlen(y);
    for (int i = 0; i <= m; i++)
        for (int j = 0; j <= n; j++)
            if (i == 0 || j == 0)
                table[i][j] = 0;
            else if (x[i - 1] == y[j - 1])
                table[i][j] = table[i - 1][j - 1] + 1;
            else
                table[i][j] = table[i - 1][j] > table[i][j - 1] ? table[i - 1][j] : table[i][j - 1];
    char common[128];
    int length = table[m][n];
    common[length] = 0;
    for (int i = m, j = n; i > 0 && j > 0;)
        if (x[i - 1] == y[j - 1])
            common[--length] = x[i - 1], i--, j--;
        else if (table[i - 1][j] >= table[i][j - 1])
            i--;
        else
            j--;
    printf("common '%s'\n", common);
}

static void knapsack(void)
{
    static uint32_t best[10001];
    for (uint32_t item = 1; item <= 60; item++) {
        uint32_t weight = item * 37 % 101 + 5, value = item * 53 % 97 + 1;
        for (uint32_t w = 10000; w >= weight; w--)
            if (best[w - weight] + value > best[w])
                best[w] = best[w - weight] + value;
    }
    printf("knapsack %" PRIu32 " %" PRIu32 " %" PRIu32 "\n", best[100], best[1000], best[10000]);
}

static void paths(void)
{
    static int distance[64][64];
    for (int i = 0; i < 64; i++)
        for (int j = 0; j < 64; j++)
            distance[i][j] = i == j ? 0 : (i * 31 + j * 17) % 7 == 0 ? (i + j) % 23 + 1 : 100000;
    for (int k = 0; k < 64; k++)
        for (int i = 0; i < 64; i++)
            for (int j = 0; j < 64; j++)
                if (distance[i][k] + distance[k][j] < distance[i][j])
                    distance[i][j] = distance[i][k] + distance[k][j];
    long sum = 0;
    int longest = 0;
    for (int i = 0; i < 64; i++)
        for (int j = 0; j < 64; j++) {
            sum += distance[i][j];
            longest = distance[i][j] > longest ? distance[i][j] : longest;
        }
    printf("paths %ld longest %d\n", sum, longest);
}

static void partitions(void)
{
    static uint64_t ways[301] = {1};
    for (int part = 1; part <= 300; part++)
        for (int total = part; total <= 300; total++)
            ways[total] += ways[total - part];
    printf("partitions %" PRIu64 " %" PRIu64 "\n", ways[100], ways[300]);
}

static void life(void)
{
    static unsigned char cells[2][32][64];
    memcpy(&cells[0][10][20], "\0\1\1", 3);
    memcpy(&cells[0][11][20], "\1\1\0", 3);
    memcpy(&cells[0][12][20], "\0\1\0", 3);
    for (int step = 0; step < 100; step++)
        for (int y = 0; y < 32; y++)
            for (int x = 0; x < 64; x++) {
                int near = 0;
                for (int dy = -1; dy <= 1; dy++)
                    for (int dx = -1; dx <= 1; dx++)
                        near += cells[step & 1][(y + dy) & 31][(x + dx) & 63];
                near -= cells[step & 1][y][x];
                cells[~step & 1][y][x] = near == 3 || (near == 2 && cells[step & 1][y][x]);
            }
    for (int y = 0; y < 32; y += 2) {
        for (int x = 0; x < 64; x++)
            putchar(cells[0][y][x] ? '#' : '.');
        putchar('\n');
    }
}

int main(void)
{
    matrices();
    subsequence("the quick brown fox jumps over the lazy dog",
                "pack my box with five dozen liquor jugs, then rest");
    knapsack();
    paths();
    partitions();
    life();
    return 0;
}
