// Kernels that show one thing each; compiled with: nvcc -ptx -arch=sm_90 semantics.cu
#include <cooperative_groups.h>
#include <cuda_fp16.h>
#include <cuda_bf16.h>
#include <assert.h>
#include <stdio.h>
#include <cuda/barrier>
#include <cuda/ptx>
#include <cuda_pipeline.h>
namespace cg = cooperative_groups;
namespace ptx = cuda::ptx;
using barrier = cuda::barrier<cuda::thread_scope_block>;
#define KERNEL extern "C" __global__ void
#define ALL 0xffffffffu

KERNEL shuffles(const int* in, int* out) {
  int t = threadIdx.x, n = blockDim.x, x = in[t];
  out[0 * n + t] = __shfl_sync(ALL, x, (t * 7) & 31);
  out[1 * n + t] = __shfl_up_sync(ALL, x, 3);
  out[2 * n + t] = __shfl_down_sync(ALL, x, 5);
  out[3 * n + t] = __shfl_xor_sync(ALL, x, 9);
  out[4 * n + t] = __shfl_sync(ALL, x, 5, 8);
  out[5 * n + t] = __shfl_up_sync(ALL, x, 2, 16);
  out[6 * n + t] = __shfl_down_sync(ALL, x, 3, 4);
  out[7 * n + t] = __shfl_xor_sync(ALL, x, t & 3);
  int sum = x;
  for (int d = 16; d; d >>= 1) sum += __shfl_xor_sync(ALL, sum, d);
  out[8 * n + t] = sum;
}

KERNEL votes(const int* in, unsigned* out) {
  int t = threadIdx.x, n = blockDim.x, x = in[t];
  out[0 * n + t] = __ballot_sync(ALL, x > 0);
  out[1 * n + t] = __any_sync(ALL, x > 90) + 2 * __all_sync(ALL, x > -100);
  out[2 * n + t] = __match_any_sync(ALL, x & 3);
  int p;
  out[3 * n + t] = __match_all_sync(ALL, x, &p) + p;
  out[4 * n + t] = __reduce_add_sync(ALL, x);
  out[5 * n + t] = __reduce_max_sync(ALL, x);
  out[6 * n + t] = __reduce_xor_sync(ALL, (unsigned)x);
  if (x > 0) out[7 * n + t] = __ballot_sync(__activemask(), x & 1) ? 1 : 2; else out[7 * n + t] = 3;
}

KERNEL block_sum(const int* in, int* out, int count) {  // threads past the end leave at once
  extern __shared__ int part[];
  int t = threadIdx.x, i = blockIdx.x * blockDim.x + t;
  part[t] = 0;
  if (i >= count) return;
  part[t] = in[i];
  __syncthreads();
  for (int d = blockDim.x / 2; d; d >>= 1) {
    if (t < d) part[t] += part[t + d];
    __syncthreads();
  }
  if (t == 0) out[blockIdx.x] = part[0];
}

KERNEL barrier_votes(const int* in, int* out) {
  int t = threadIdx.x, n = blockDim.x, x = in[t];
  out[t] = __syncthreads_count(x > 0);
  out[n + t] = __syncthreads_and(x > -1000);
  out[2 * n + t] = __syncthreads_or(x > 98);
}

KERNEL barrier_per_path(const int* in, int* out) {  // the paths of a warp meet at different places
  __shared__ int a[256], total;
  int t = threadIdx.x, next = (t + 1) % blockDim.x, got;
  if (t == 0) total = 0;
  if (in[t] & 1) { a[t] = 1; asm volatile("bar.sync 0;"); got = a[next]; }
  else { a[t] = 100; asm volatile("bar.sync 0;"); got = a[next]; atomicAdd(&total, 1000); }
  __syncthreads();
  out[t] = total + got;
}

KERNEL named_barriers(int* out, int rounds) {  // warp 0 produces, warp 1 consumes
  __shared__ volatile int box[32];
  int t = threadIdx.x, lane = t & 31, sum = 0;
  for (int r = 0; r < rounds; r++) {
    if (t < 32) {
      box[lane] = r * 100 + lane;
      asm volatile("bar.arrive 1, 64;");
      asm volatile("bar.sync 2, 64;");
    } else {
      asm volatile("bar.sync 1, 64;");
      sum += box[lane];
      asm volatile("bar.arrive 2, 64;");
    }
  }
  out[t] = sum;
}

KERNEL atomics(int* i, unsigned* u, float* f, double* d, unsigned long long* l, const int* in) {
  int t = blockIdx.x * blockDim.x + threadIdx.x, x = in[t];
  atomicAdd(&i[0], x); atomicMin(&i[1], x); atomicMax(&i[2], x); atomicSub(&i[3], x);
  atomicAnd(&u[0], ~(1u << (t & 15))); atomicOr(&u[1], 1u << (t & 31)); atomicXor(&u[2], t * 77);
  atomicInc(&u[3], 17); atomicDec(&u[4], 13); atomicAdd(&f[0], 0.5f); atomicAdd(&d[0], 0.25);
  atomicAdd(&l[0], (unsigned long long)t << 20); atomicMax(&l[1], (unsigned long long)x * x);
  int old = atomicAdd(&i[4], 1);
  i[8 + old] = 1;
  float* g = &f[1];
  int seen = __float_as_int(*g), was;
  do { was = seen; seen = atomicCAS((int*)g, was, __float_as_int(__int_as_float(was) + 2.0f)); } while (was != seen);
  __shared__ int s[4];
  if (threadIdx.x < 4) s[threadIdx.x] = 0;
  __syncthreads();
  atomicAdd(&s[threadIdx.x & 3], x);
  atomicExch(&i[5], 4321);
  __syncthreads();
  if (threadIdx.x < 4) atomicAdd(&u[8 + threadIdx.x], s[threadIdx.x]);
}

KERNEL spin_lock(int* lock, int* count) {  // a lock that lanes of one warp fight for
  for (int n = 0; n < 3; n++) {
    while (atomicCAS(lock, 0, 1) != 0) {}
    __threadfence();
    *(volatile int*)count = *(volatile int*)count + 1;
    __threadfence();
    atomicExch(lock, 0);
  }
}

KERNEL pass_on(volatile int* flag, int* out) {  // each warp waits for the next one
  int warp = threadIdx.x / 32, warps = blockDim.x / 32;
  if (warp != warps - 1) while (flag[warp + 1] == 0) {}
  if (threadIdx.x % 32 == 0) { out[warp] = warp == warps - 1 ? 1 : out[warp + 1] + 1; __threadfence(); flag[warp] = 1; }
}

KERNEL grid_rounds(int* data, int rounds) {
  cg::grid_group grid = cg::this_grid();
  int n = gridDim.x * blockDim.x, t = blockIdx.x * blockDim.x + threadIdx.x;
  for (int r = 0; r < rounds; r++) {
    int next = data[(r & 1) * n + (t + 37) % n];
    data[(~r & 1) * n + t] = next + 1;
    grid.sync();
  }
}

__device__ __noinline__ long ackermann(long m, long n) {
  if (m == 0) return n + 1;
  if (n == 0) return ackermann(m - 1, 1);
  return ackermann(m - 1, ackermann(m, n - 1));
}
KERNEL recursion(long* out) { out[threadIdx.x] = ackermann(threadIdx.x & 1, threadIdx.x % 5) + ackermann(2, threadIdx.x % 3); }

__device__ __noinline__ int twice(int x) { return 2 * x; }
__device__ __noinline__ int square(int x) { return x * x; }
__device__ __noinline__ int negate(int x) { return -x; }
__device__ int (*const table[3])(int) = {twice, square, negate};
KERNEL pointers(int* out, int which) {
  int t = threadIdx.x;
  int (*f)(int) = table[which % 3];
  int (*g)(int) = table[t % 3];
  out[t] = f(t) + g(t + 1);
}

struct Big { int a[5]; double b; char c; };
__device__ __noinline__ Big change(Big v, int k) { v.a[k % 5] += 7; v.b *= 2; v.c++; return v; }
KERNEL structs(Big v, double* out) {
  int t = threadIdx.x;
  Big w = change(v, t);
  w = change(w, t + 1);
  out[t] = w.a[0] + 10 * w.a[1] + 100 * w.a[2] + 1000 * w.a[3] + 10000 * w.a[4] + w.b + w.c;
}

__constant__ int weights[8] = {1, 2, 3, 4, 5, 6, 7, 8};
__device__ int counter = 5;
__device__ int* where = &counter;
__device__ float series[3] = {0.5f, -1.25f, 3e8f};
KERNEL variables(int* out) {
  int t = threadIdx.x;
  out[t] = weights[t & 7] + *where + (int)series[t % 2];
  __syncthreads();
  if (t == 0) counter = 77;
}

KERNEL local_arrays(const int* in, int* out) {
  int a[16], t = threadIdx.x;
  for (int k = 0; k < 16; k++) a[k] = in[(t + k) % blockDim.x];
  for (int k = 1; k < 16; k++)  // insertion sort
    for (int j = k; j > 0 && a[j - 1] > a[j]; j--) { int x = a[j]; a[j] = a[j - 1]; a[j - 1] = x; }
  int s = 0;
  for (int k = 0; k < 16; k++) s = s * 3 + a[k];
  out[t] = s + a[in[t] & 15];
}

KERNEL small_types(const signed char* c, const unsigned short* s, signed char* oc, unsigned short* os, uchar4* o4, float3* o3) {
  int t = threadIdx.x;
  oc[2 * t] = c[t] - c[(t * 5) % blockDim.x]; oc[2 * t + 1] = c[t] >> 1;
  os[t] = s[(t * 3) % blockDim.x] + c[t];
  o4[t] = make_uchar4(t, c[t], t * 3, 255 - t);
  o3[t] = make_float3(t, c[t] * 0.5f, s[t]);
}

KERNEL halves(const __half2* a, const __half2* b, __half2* out) {
  int t = threadIdx.x, n = blockDim.x;
  out[t] = __hadd2(a[t], b[t]); out[n + t] = __hmul2(a[t], b[t]); out[2 * n + t] = __hfma2(a[t], b[t], a[t]);
  out[3 * n + t] = __hmax2(a[t], b[t]); out[4 * n + t] = __hneg2(__habs2(a[t]));
  out[5 * n + t] = __halves2half2(__float2half(__half2float(__low2half(a[t])) * 3), __hsub(__high2half(b[t]), __low2half(a[t])));
  out[6 * n + t] = __hlt2(a[t], b[t]);
}

KERNEL bfloats(const float* a, __nv_bfloat16* out) {
  int t = threadIdx.x, n = blockDim.x;
  __nv_bfloat16 x = __float2bfloat16(a[t]), y = __float2bfloat16(a[(t + 1) % n]);
  out[t] = x; out[n + t] = __hadd(x, y); out[2 * n + t] = __hmul(x, y); out[3 * n + t] = __hfma(x, y, x);
  out[4 * n + t] = __float2bfloat16_rz(a[t]);
}

KERNEL collatz(const unsigned* in, int* out, int limit) {
  int t = blockIdx.x * blockDim.x + threadIdx.x, n = 0;
  unsigned long long x = in[t];
  while (true) {
    if (x == 1) break;
    if (x & 1) { x = 3 * x + 1; if (x > 100000000) { n = -n; break; } } else x >>= 1;
    if (++n > limit) { n = -1; break; }
    if (n % 50 == 49) continue;
    if ((x & 7) == 5) n += 1;
  }
  out[t] = n;
}

KERNEL tangled(const int* in, int* out) {  // a loop with two entries
  int t = threadIdx.x, x = in[t], n = 0;
  if (x & 1) goto odd;
even:
  x = x * 3 + 1; n += 2;
  if (n > 40) goto end;
  if (x & 2) goto even;
odd:
  x = (x >> 1) ^ n; n += 3;
  if (n > 37) goto end;
  if (x & 4) goto odd;
  goto even;
end:
  out[t] = x * 64 + n;
}

KERNEL cases(const int* in, int* out) {
  int t = threadIdx.x, r = 0;
  for (int k = 0; k < 6; k++)
    switch ((in[t] + k) % 9) {
      case 0: r += 3; case 1: r *= 5; break;
      case 2: r ^= t; break;
      case 3: if (k & 1) continue; r -= 9; break;
      case 4: r = r * 2 + k; break;
      case 5: case 6: r += in[(t + k) % blockDim.x]; break;
      default: r = ~r;
    }
  out[t] = r;
}

KERNEL asserts(const int* in) { assert(in[threadIdx.x] != 13); }
KERNEL traps(const int* in) { if (in[threadIdx.x] == 13) __trap(); }
KERNEL prints(int n) { if (threadIdx.x < n) printf("%d %5.2f|%s|%-4x|%c %llu\n", threadIdx.x, threadIdx.x * 1.5, "text", 255, 'x', 1ull << 40); }
KERNEL wild(int* p) { p[threadIdx.x * 1000000000ll] = 1; }
KERNEL forever(volatile int* p) { while (*p == 0) {} }
KERNEL heap(int** out) { int* p = (int*)malloc(16); p[0] = threadIdx.x * 3; p[3] = 1; out[threadIdx.x] = p; }
KERNEL sizes(int* out) {
  int t = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  int b = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  int* o = out + (b * (blockDim.x * blockDim.y * blockDim.z) + t) * 4;
  o[0] = threadIdx.x; o[1] = threadIdx.y; o[2] = threadIdx.z; o[3] = b;
}
KERNEL transpose_any(const float* in, float* out, int w, int h) {
  int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
  if (x < w && y < h) out[x * h + y] = in[y * w + x];
}
KERNEL reversed(const double* in, double* out, unsigned n) {
  unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) out[n - 1 - i] = in[i] + (i ? in[i - 1] : 0);
}

KERNEL copies(const float4* in, float4* out, int size) {
  __shared__ float4 s[128];
  int t = threadIdx.x;
  __pipeline_memcpy_async(&s[t], &in[t ^ 1], 16);
  __pipeline_commit();
  __pipeline_wait_prior(0);
  __syncthreads();
  out[t] = s[(t + 5) % blockDim.x];
  __syncthreads();
  __pipeline_memcpy_async(&s[t], &in[t], 16, t & 1 ? size : 0);
  __pipeline_wait_prior(0);
  out[blockDim.x + t] = s[t];
}

KERNEL phases(int* out, int rounds) {
  __shared__ cuda::barrier<cuda::thread_scope_block> bar;
  __shared__ int s[256];
  int t = threadIdx.x, n = blockDim.x, x = t;
  if (t == 0) init(&bar, n);
  __syncthreads();
  for (int r = 0; r < rounds; r++) {
    s[t] = x;
    bar.arrive_and_wait();
    x = s[(t + 33) % n] + 1;
    auto token = bar.arrive();
    bar.wait(std::move(token));
  }
  out[t] = x;
}

KERNEL transactions(const int* in, int* out) {
  __shared__ alignas(128) int tile[256];
  __shared__ barrier full, drop;
  int t = threadIdx.x, n = blockDim.x;
  if (t == 0) { init(&full, n); init(&drop, n); }
  __syncthreads();
  barrier::arrival_token token;
  if (t == 0) {
    cuda::device::memcpy_async_tx(tile, in, cuda::aligned_size_t<16>(n * 4), full);
    token = cuda::device::barrier_arrive_tx(full, 1, n * 4);
  } else token = full.arrive();
  full.wait(std::move(token));
  int got = tile[(t + 1) % n];
  bool parity = full.try_wait_parity_for(true, cuda::std::chrono::nanoseconds(100));
  full.arrive_and_wait();
  full.wait_parity(true);
  if (t & 1) drop.arrive_and_drop();
  else drop.arrive_and_wait();
  if (!(t & 1)) { auto tk = drop.arrive(); drop.wait(std::move(tk)); }
  tile[t] = got + 1;
  cuda::device::experimental::fence_proxy_async_shared_cta();
  __syncthreads();
  if (t == 0) {
    cuda::device::experimental::cp_async_bulk_shared_to_global(out, tile, n * 4);
    cuda::device::experimental::cp_async_bulk_commit_group();
    cuda::device::experimental::cp_async_bulk_wait_group_read<0>();
  }
  __syncthreads();
}
KERNEL expected_bytes(int* out) {
  __shared__ barrier b;
  int t = threadIdx.x;
  if (t == 0) init(&b, blockDim.x);
  __syncthreads();
  if (t == 0) cuda::device::barrier_expect_tx(b, 64);
  auto* h = cuda::device::barrier_native_handle(b);
  auto tok = b.arrive();
  bool early = ptx::mbarrier_test_wait(h, (uint64_t)0) ;
  __syncthreads();
  if (t == 0) asm volatile("mbarrier.complete_tx.relaxed.cta.shared::cta.b64 [%0], 64;" :: "r"((unsigned)__cvta_generic_to_shared(h)) : "memory");
  b.wait(std::move(tok));
  if (t == 0) { uint64_t s = ptx::mbarrier_arrive_no_complete(h, 3); out[1] = s != 0; }
  out[0] = 1 + early;
}
