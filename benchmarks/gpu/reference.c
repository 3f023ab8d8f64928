// The same algorithms in C, a loop over work-items: gcc -O3 -march=native -fno-math-errno -fopenmp
#include <math.h>
#include <string.h>
#define SIMD _Pragma("omp parallel for simd")
#define BLOCKS _Pragma("omp parallel for")
#define LANES _Pragma("omp simd")
#define T 16

void saxpy(int n, float a, const float* x, float* y) { SIMD for (int i = 0; i < n; i++) y[i] = a * x[i] + y[i]; }

void reduction(const float* x, float* out, int n, int blocks) {
  BLOCKS for (int b = 0; b < blocks; b++) {
    float part[256] = {0};
    for (int i = b * 256; i < n; i += blocks * 256) {
      int m = n - i < 256 ? n - i : 256;
      LANES for (int t = 0; t < m; t++) part[t] += x[i + t];
    }
    for (int d = 128; d; d >>= 1) LANES for (int t = 0; t < d; t++) part[t] += part[t + d];
    out[b] = part[0];
  }
}

void transpose(const float* in, float* out, int n) {
  _Pragma("omp parallel for collapse(2)") for (int by = 0; by < n; by += 32) for (int bx = 0; bx < n; bx += 32) {
    float tile[32][33];
    for (int y = 0; y < 32; y++) LANES for (int x = 0; x < 32; x++) tile[y][x] = in[(by + y) * n + bx + x];
    for (int y = 0; y < 32; y++) LANES for (int x = 0; x < 32; x++) out[(bx + y) * n + by + x] = tile[x][y];
  }
}

void matmul(const float* a, const float* b, float* c, int n) {
  _Pragma("omp parallel for collapse(2)") for (int by = 0; by < n; by += T) for (int bx = 0; bx < n; bx += T) {
    float as[T][T], bs[T][T], sum[T][T] = {0};
    for (int t = 0; t < n; t += T) {
      for (int y = 0; y < T; y++) LANES for (int x = 0; x < T; x++) {
        as[y][x] = a[(by + y) * n + t + x];
        bs[y][x] = b[(t + y) * n + bx + x];
      }
      for (int y = 0; y < T; y++) for (int k = 0; k < T; k++) LANES for (int x = 0; x < T; x++) sum[y][x] += as[y][k] * bs[k][x];
    }
    for (int y = 0; y < T; y++) LANES for (int x = 0; x < T; x++) c[(by + y) * n + bx + x] = sum[y][x];
  }
}

void stencil(const float* in, float* out, int w, int h) {
  BLOCKS for (int y = 1; y < h - 1; y++) LANES for (int x = 1; x < w - 1; x++) {
    const float* p = in + y * w + x;
    out[y * w + x] = 0.5f * p[0] + 0.125f * (p[-1] + p[1] + p[-w] + p[w]);
  }
}

void histogram(const unsigned char* data, unsigned* bins, int n, int blocks) {
  BLOCKS for (int b = 0; b < blocks; b++) {
    unsigned local[256] = {0};
    for (int i = b * 256; i < n; i += blocks * 256) {
      int m = n - i < 256 ? n - i : 256;
      for (int t = 0; t < m; t++) local[data[i + t]]++;
    }
    for (int i = 0; i < 256; i++) {
      _Pragma("omp atomic") bins[i] += local[i];
    }
  }
}

void nbody(const float* pos, float* acc, int n, float soft) {
  SIMD for (int i = 0; i < n; i++) {
    float px = pos[4 * i], py = pos[4 * i + 1], pz = pos[4 * i + 2], ax = 0, ay = 0, az = 0;
    for (int j = 0; j < n; j++) {
      float dx = pos[4 * j] - px, dy = pos[4 * j + 1] - py, dz = pos[4 * j + 2] - pz;
      float inv = 1.0f / sqrtf(dx * dx + dy * dy + dz * dz + soft), s = pos[4 * j + 3] * inv * inv * inv;
      ax += dx * s; ay += dy * s; az += dz * s;
    }
    acc[4 * i] = ax; acc[4 * i + 1] = ay; acc[4 * i + 2] = az; acc[4 * i + 3] = 0;
  }
}

static inline float normal(float d) {
  float k = 1.0f / (1.0f + 0.2316419f * fabsf(d));
  float r = 0.39894228f * expf(-0.5f * d * d) *
            (k * (0.31938153f + k * (-0.356563782f + k * (1.781477937f + k * (-1.821255978f + k * 1.330274429f)))));
  return d > 0 ? 1.0f - r : r;
}
void black_scholes(const float* price, const float* strike, const float* years, float* call, float* put, int n) {
  SIMD for (int i = 0; i < n; i++) {
    float s = price[i], x = strike[i], t = years[i], r = 0.02f, v = 0.30f;
    float root = sqrtf(t), d1 = (logf(s / x) + (r + 0.5f * v * v) * t) / (v * root), d2 = d1 - v * root;
    float c1 = normal(d1), c2 = normal(d2), e = expf(-r * t);
    call[i] = s * c1 - x * e * c2;
    put[i] = x * e * (1.0f - c2) - s * (1.0f - c1);
  }
}

void scan(const int* in, int* out, int n) {
  BLOCKS for (int base = 0; base < n; base += 512) {
    int s[512], step = 1;
    memcpy(s, in + base, sizeof s);
    for (int d = 256; d > 0; d >>= 1, step *= 2)
      LANES for (int t = 0; t < d; t++) s[step * (2 * t + 2) - 1] += s[step * (2 * t + 1) - 1];
    s[511] = 0;
    for (int d = 1; d < 512; d *= 2) {
      step >>= 1;
      LANES for (int t = 0; t < d; t++) {
        int a = step * (2 * t + 1) - 1, b = step * (2 * t + 2) - 1, x = s[a];
        s[a] = s[b];
        s[b] += x;
      }
    }
    memcpy(out + base, s, sizeof s);
  }
}

void bitonic(int* data, int n) {
  BLOCKS for (int base = 0; base < n; base += 512) {
    int s[512];
    memcpy(s, data + base, sizeof s);
    for (int k = 2; k <= 512; k *= 2)
      for (int j = k / 2; j > 0; j /= 2) {
        LANES for (int t = 0; t < 256; t++) {
          int i = 2 * t - (t & (j - 1)), a = s[i], b = s[i + j], swap = (a > b) == ((i & k) == 0);
          s[i] = swap ? b : a;
          s[i + j] = swap ? a : b;
        }
      }
    memcpy(data + base, s, sizeof s);
  }
}

void spmv(const int* rows, const int* cols, const float* values, const float* x, float* y, int n) {
  BLOCKS for (int i = 0; i < n; i++) {
    float sum = 0;
    for (int k = rows[i]; k < rows[i + 1]; k++) sum += values[k] * x[cols[k]];
    y[i] = sum;
  }
}

static const unsigned K[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};
#define ROR(x, n) ((x) >> (n) | (x) << (32 - (n)))
void sha256(const unsigned* words, unsigned* out, int n) {
  SIMD for (int i = 0; i < n; i++) {
    unsigned w[16], s[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    for (int k = 0; k < 16; k++) w[k] = words[k * n + i];
    unsigned a = s[0], b = s[1], c = s[2], d = s[3], e = s[4], f = s[5], g = s[6], h = s[7];
#pragma GCC unroll 64
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
}
