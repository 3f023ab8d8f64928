/* qsort and bsearch over integers, structures and strings, and sorting algorithms of our own. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { COUNT = 5000 };

static uint32_t state = 12345;

static uint32_t draw(void)
{
    state ^= state << 13;
    state ^= state >> 17;
    state ^= state << 5;
    return state;
}

struct person {
    char name[12];
    short age;
    double weight;
};

static int calls;

static int ascending(const void *a, const void *b)
{
    int32_t x = *(const int32_t *)a, y = *(const int32_t *)b;
    calls++;
    return (x > y) - (x < y);
}

static int by_age_then_name(const void *a, const void *b)
{
    const struct person *x = a, *y = b;
    return x->age != y->age ? x->age - y->age : strcmp(x->name, y->name);
}

static void heap_sort(int32_t *a, int n)
{
    for (int start = n / 2 - 1, end = n; end > 1;) {
        if (start >= 0) {
            start--;
        } else {
            end--;
            int32_t swap = a[end];
            a[end] = a[0];
            a[0] = swap;
        }
        int root = start + 1 > 0 && start >= -1 && end == n ? start + 1 : 0;
        for (int child; (child = 2 * root + 1) < end; root = child) {
            if (child + 1 < end && a[child] < a[child + 1])
                child++;
            if (a[root] >= a[child])
                break;
            int32_t swap = a[root];
            a[root] = a[child];
            a[child] = swap;
        }
    }
}

static void merge_sort(int32_t *a, int32_t *spare, int n)
{
    if (n < 2)
        return;
    int half = n / 2, i = 0, j = half, k = 0;
    merge_sort(a, spare, half);
    merge_sort(a + half, spare, n - half);
    while (i < half && j < n)
        spare[k++] = a[j] < a[i] ? a[j++] : a[i++];
    while (i < half)
        spare[k++] = a[i++];
    while (j < n)
        spare[k++] = a[j++];
    memcpy(a, spare, sizeof *a * (size_t)n);
}

static void radix_sort(uint32_t *a, uint32_t *spare, int n)
{
    for (int shift = 0; shift < 32; shift += 8) {
        int counts[257] = {0};
        for (int i = 0; i < n; i++)
            counts[(a[i] >> shift & 255) + 1]++;
        for (int i = 0; i < 256; i++)
            counts[i + 1] += counts[i];
        for (int i = 0; i < n; i++)
            spare[counts[a[i] >> shift & 255]++] = a[i];
        memcpy(a, spare, sizeof *a * (size_t)n);
    }
}

int main(void)
{
    static int32_t original[COUNT], sorted[COUNT], other[COUNT], spare[COUNT];
    for (int i = 0; i < COUNT; i++)
        original[i] = sorted[i] = (int32_t)draw();
    qsort(sorted, COUNT, sizeof *sorted, ascending);
    printf("%" PRId32 " %" PRId32 " %" PRId32 " calls %d\n", sorted[0], sorted[COUNT / 2],
           sorted[COUNT - 1], calls);

    memcpy(other, original, sizeof other);
    heap_sort(other, COUNT);
    printf("heap %d", memcmp(other, sorted, sizeof other));
    memcpy(other, original, sizeof other);
    merge_sort(other, spare, COUNT);
    printf(" merge %d", memcmp(other, sorted, sizeof other));
    memcpy(other, original, sizeof other);
    radix_sort((uint32_t *)other, (uint32_t *)spare, COUNT);
    printf(" radix %" PRIx32 " %" PRIx32 "\n", (uint32_t)other[0], (uint32_t)other[COUNT - 1]);

    int found = 0, missing = 0;
    for (int i = 0; i < COUNT; i++) {
        int32_t key = i & 1 ? original[i] : (int32_t)draw();
        int32_t *hit = bsearch(&key, sorted, COUNT, sizeof key, ascending);
        if (hit)
            found += *hit == key;
        else
            missing++;
    }
    printf("found %d missing %d\n", found, missing);

    struct person people[40];
    for (int i = 0; i < 40; i++) {
        snprintf(people[i].name, sizeof people[i].name, "%c%c%u", 'a' + (int)(draw() % 26),
                 'a' + (int)(draw() % 26), draw() % 1000);
        people[i].age = (short)(20 + draw() % 5);
        people[i].weight = (double)(draw() % 1000) / 8;
    }
    qsort(people, 40, sizeof people[0], by_age_then_name);
    for (int i = 0; i < 40; i += 3)
        printf("%s %d %.3f\n", people[i].name, people[i].age, people[i].weight);
    return 0;
}
