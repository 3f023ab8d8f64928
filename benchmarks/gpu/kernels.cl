// The kernels of kernels.cu in OpenCL C, for PoCL and Intel's runtime.
#define KERNEL __kernel void
#define G __global
#define SYNC barrier(CLK_LOCAL_MEM_FENCE)
#define T 16

KERNEL saxpy(int n, float a, G const float* x, G float* y) {
  int i = get_global_id(0);
  if (i < n) y[i] = a * x[i] + y[i];
}

KERNEL reduction(G const float* x, G float* out, int n) {
  __local float part[256];
  int t = get_local_id(0);
  float sum = 0;
  for (int i = get_global_id(0); i < n; i += get_global_size(0)) sum += x[i];
  part[t] = sum;
  SYNC;
  for (int d = 128; d; d >>= 1) {
    if (t < d) part[t] += part[t + d];
    SYNC;
  }
  if (t == 0) out[get_group_id(0)] = part[0];
}

KERNEL transpose(G const float* in, G float* out, int n) {
  __local float tile[32][33];
  int tx = get_local_id(0), ty = get_local_id(1), bx = get_group_id(0), by = get_group_id(1);
  int x = bx * 32 + tx, y = by * 32 + ty;
  for (int k = 0; k < 32; k += 8) tile[ty + k][tx] = in[(y + k) * n + x];
  SYNC;
  x = by * 32 + tx;
  y = bx * 32 + ty;
  for (int k = 0; k < 32; k += 8) out[(y + k) * n + x] = tile[tx][ty + k];
}

KERNEL matmul(G const float* a, G const float* b, G float* c, int n) {
  __local float as[T][T], bs[T][T];
  int tx = get_local_id(0), ty = get_local_id(1), row = get_global_id(1), col = get_global_id(0);
  float sum = 0;
  for (int t = 0; t < n; t += T) {
    as[ty][tx] = a[row * n + t + tx];
    bs[ty][tx] = b[(t + ty) * n + col];
    SYNC;
    for (int k = 0; k < T; k++) sum += as[ty][k] * bs[k][tx];
    SYNC;
  }
  c[row * n + col] = sum;
}

KERNEL stencil(G const float* in, G float* out, int w, int h) {
  int x = get_global_id(0), y = get_global_id(1);
  if (x < 1 || y < 1 || x >= w - 1 || y >= h - 1) return;
  G const float* p = in + y * w + x;
  out[y * w + x] = 0.5f * p[0] + 0.125f * (p[-1] + p[1] + p[-w] + p[w]);
}

KERNEL histogram(G const uchar* data, G unsigned* bins, int n) {
  __local unsigned part[256];
  for (int i = get_local_id(0); i < 256; i += get_local_size(0)) part[i] = 0;
  SYNC;
  for (int i = get_global_id(0); i < n; i += get_global_size(0)) atomic_inc(&part[data[i]]);
  SYNC;
  for (int i = get_local_id(0); i < 256; i += get_local_size(0)) atomic_add(&bins[i], part[i]);
}

KERNEL nbody(G const float4* pos, G float4* acc, int n, float soft) {
  int i = get_global_id(0);
  if (i >= n) return;
  float4 p = pos[i];
  float ax = 0, ay = 0, az = 0;
  for (int j = 0; j < n; j++) {
    float4 q = pos[j];
    float dx = q.x - p.x, dy = q.y - p.y, dz = q.z - p.z;
    float inv = rsqrt(dx * dx + dy * dy + dz * dz + soft), s = q.w * inv * inv * inv;
    ax += dx * s; ay += dy * s; az += dz * s;
  }
  acc[i] = (float4)(ax, ay, az, 0);
}

float normal(float d) {
  float k = 1.0f / (1.0f + 0.2316419f * fabs(d));
  float r = 0.39894228f * exp(-0.5f * d * d) *
            (k * (0.31938153f + k * (-0.356563782f + k * (1.781477937f + k * (-1.821255978f + k * 1.330274429f)))));
  return d > 0 ? 1.0f - r : r;
}
KERNEL black_scholes(G const float* price, G const float* strike, G const float* years, G float* call, G float* put, int n) {
  int i = get_global_id(0);
  if (i >= n) return;
  float s = price[i], x = strike[i], t = years[i], r = 0.02f, v = 0.30f;
  float root = sqrt(t), d1 = (log(s / x) + (r + 0.5f * v * v) * t) / (v * root), d2 = d1 - v * root;
  float c1 = normal(d1), c2 = normal(d2), e = exp(-r * t);
  call[i] = s * c1 - x * e * c2;
  put[i] = x * e * (1.0f - c2) - s * (1.0f - c1);
}

KERNEL scan(G const int* in, G int* out, int n) {
  __local int s[512];
  int t = get_local_id(0), base = get_group_id(0) * 512, step = 1;
  s[2 * t] = in[base + 2 * t];
  s[2 * t + 1] = in[base + 2 * t + 1];
  for (int d = 256; d > 0; d >>= 1) {
    SYNC;
    if (t < d) s[step * (2 * t + 2) - 1] += s[step * (2 * t + 1) - 1];
    step *= 2;
  }
  if (t == 0) s[511] = 0;
  for (int d = 1; d < 512; d *= 2) {
    step >>= 1;
    SYNC;
    if (t < d) {
      int a = step * (2 * t + 1) - 1, b = step * (2 * t + 2) - 1, x = s[a];
      s[a] = s[b];
      s[b] += x;
    }
  }
  SYNC;
  out[base + 2 * t] = s[2 * t];
  out[base + 2 * t + 1] = s[2 * t + 1];
}

KERNEL bitonic(G int* data) {
  __local int s[512];
  int t = get_local_id(0);
  G int* mine = data + get_group_id(0) * 512;
  s[t] = mine[t];
  s[t + 256] = mine[t + 256];
  for (int k = 2; k <= 512; k *= 2)
    for (int j = k / 2; j > 0; j /= 2) {
      SYNC;
      int i = 2 * t - (t & (j - 1)), a = s[i], b = s[i + j];
      if ((a > b) == ((i & k) == 0)) { s[i] = b; s[i + j] = a; }
    }
  SYNC;
  mine[t] = s[t];
  mine[t + 256] = s[t + 256];
}

KERNEL spmv(G const int* rows, G const int* cols, G const float* values, G const float* x, G float* y, int n) {
  int i = get_global_id(0);
  if (i >= n) return;
  float sum = 0;
  for (int k = rows[i]; k < rows[i + 1]; k++) sum += values[k] * x[cols[k]];
  y[i] = sum;
}

__constant unsigned K[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};
#define ROR(x, n) ((x) >> (n) | (x) << (32 - (n)))
KERNEL sha256(G const unsigned* words, G unsigned* out, int n) {
  int i = get_global_id(0);
  if (i >= n) return;
  unsigned w[16], s[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  for (int k = 0; k < 16; k++) w[k] = words[k * n + i];
  unsigned a = s[0], b = s[1], c = s[2], d = s[3], e = s[4], f = s[5], g = s[6], h = s[7];
#pragma unroll
  for (int k = 0; k < 64; k++) {
    if (k >= 16) {
      unsigned x = w[(k + 1) & 15], y = w[(k + 14) & 15];
      w[k & 15] += (ROR(x, 7) ^ ROR(x, 18) ^ x >> 3) + w[(k + 9) & 15] + (ROR(y, 17) ^ ROR(y, 19) ^ y >> 10);
    }
    unsigned t1 = h + (ROR(e, 6) ^ ROR(e, 11) ^ ROR(e, 25)) + ((e & f) ^ (~e & g)) + K[k] + w[k & 15];
    unsigned t2 = (ROR(a, 2) ^ ROR(a, 13) ^ ROR(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
    h = g; g = f; f = e; e = d + t1; d = c; c = b; b = a; a = t1 + t2;
  }
  unsigned r[8] = {a, b, c, d, e, f, g, h};
  for (int k = 0; k < 8; k++) out[k * n + i] = s[k] + r[k];
}
