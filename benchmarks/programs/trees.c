/* Binary trees, built and freed: the allocator and pointers. */
#include <stdio.h>
#include <stdlib.h>

struct tree {
    struct tree *left, *right;
};

static struct tree *grow(int depth)
{
    struct tree *tree = malloc(sizeof *tree);
    tree->left = depth > 0 ? grow(depth - 1) : NULL;
    tree->right = depth > 0 ? grow(depth - 1) : NULL;
    return tree;
}

static long count(const struct tree *tree)
{
    return tree ? 1 + count(tree->left) + count(tree->right) : 0;
}

static void fell(struct tree *tree)
{
    if (tree) {
        fell(tree->left);
        fell(tree->right);
        free(tree);
    }
}

int main(int argc, char **argv)
{
    int rounds = argc > 1 ? atoi(argv[1]) : 300;
    struct tree *kept = grow(17);
    long total = 0;
    for (int round = 0; round < rounds; round++) {
        struct tree *tree = grow(14 + round % 3);
        total += count(tree) * (round & 3);
        fell(tree);
    }
    printf("%ld %ld\n", total, count(kept));
    fell(kept);
    return 0;
}
