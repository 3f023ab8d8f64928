// The kernels of the tests. kernels.ptx is made of it by CUDA 13.0:
//   nvcc -ptx -arch=compute_75 kernels.cu
#include <cooperative_groups.h>

struct Point {
    double x;
    float y;
    char tag;
};

__device__ int counter;
__constant__ float factors[4];

extern "C" __global__ void saxpy(float a, const float *x, float *y, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n)
        y[i] = a * x[i] + y[i];
}

extern "C" __global__ void number(int *out, int first)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    out[i] = first + i;
}

extern "C" __global__ void takes(Point p, unsigned char c, short s, long long l, double d,
                                 const void *null, double *out)
{
    out[0] = p.x;
    out[1] = p.y;
    out[2] = p.tag;
    out[3] = c;
    out[4] = s;
    out[5] = (double)l;
    out[6] = d;
    out[7] = null == nullptr;
}

extern "C" __global__ void scale(float *x)
{
    x[threadIdx.x] *= factors[threadIdx.x & 3];
    atomicAdd(&counter, 1);
}

extern "C" __global__ void reverse(int *x, int n)
{
    extern __shared__ int held[];
    for (int i = threadIdx.x; i < n; i += blockDim.x)
        held[i] = x[i];
    __syncthreads();
    for (int i = threadIdx.x; i < n; i += blockDim.x)
        x[i] = held[n - 1 - i];
}

extern "C" __global__ void together(int *x)
{
    // Each block adds what all blocks wrote before the barrier of the grid.
    if (threadIdx.x == 0)
        x[blockIdx.x] = 1;
    cooperative_groups::this_grid().sync();
    int sum = 0;
    for (int i = 0; i < gridDim.x; i++)
        sum += ((volatile int *)x)[i];
    cooperative_groups::this_grid().sync();
    if (threadIdx.x == 0)
        x[blockIdx.x] = sum;
}

extern "C" __global__ void wait(long long nanoseconds)
{
    unsigned long long start, now;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(start));
    do
        asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
    while (now - start < nanoseconds);
}

extern "C" __global__ void wild(int *x)
{
    x[(1ll << 40) + threadIdx.x] = 1;
}

extern "C" __global__ void nothing()
{
}
