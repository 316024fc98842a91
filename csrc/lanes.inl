// The vocabulary of one SIMD level: vectors of lanes, fused multiply-add, transposition in registers.
//
// Included by kernels.cpp once per level, inside the level's namespace and compiled for its instructions. Nothing of
// the standard library may be used in here: an inline function instantiated with wider instructions could be the copy
// that the linker keeps for everyone.

#define PQRST_INLINE inline __attribute__((always_inline))

// n values side by side.
template <class T, int n>
struct LanesOf {
  typedef T type __attribute__((vector_size(n * sizeof(T))));
};
template <class T, int n>
using Lanes = typename LanesOf<T, n>::type;

constexpr int register_bytes = PQRST_REGISTER_BYTES;
template <class T>
constexpr int native = register_bytes / static_cast<int>(sizeof(T));  // lanes of one register

template <class V, class T>
PQRST_INLINE V load(const T* from) {
  V value;
  __builtin_memcpy(&value, from, sizeof value);
  return value;
}

template <class V, class T>
PQRST_INLINE void store(T* to, V value) {
  __builtin_memcpy(to, &value, sizeof value);
}

template <class T, int n>
PQRST_INLINE Lanes<T, n> all(T value) {
  return value - Lanes<T, n>{};  // -0.0 stays -0.0
}

// The value, in a register: GCC would rather load it anew for every use.
template <class V>
PQRST_INLINE V in_register(V value) {
#if defined(__x86_64__)
  asm("" : "+v"(value));
#endif
  return value;
}

// Every lane rounded once to the other type. By hand where GCC would take the vector apart for it; with a mask, because
// GCC warns of its own header without.
#if PQRST_REGISTER_BYTES == 64
constexpr __mmask8 every_lane = 0xFF;
#endif
template <class To, int n, class From>
PQRST_INLINE Lanes<To, n> convert(Lanes<From, n> value) {
#if PQRST_FMA == PQRST_FMA_X86
  constexpr bool widens = sizeof(To) > sizeof(From), narrows = sizeof(To) < sizeof(From);
#if PQRST_REGISTER_BYTES == 64
  if constexpr (widens && n == 8) return _mm512_maskz_cvtps_pd(every_lane, value);
  if constexpr (narrows && n == 8) return _mm512_maskz_cvtpd_ps(every_lane, value);
#endif
  if constexpr (widens && n == 4) return _mm256_cvtps_pd(value);
  if constexpr (narrows && n == 4) return _mm256_cvtpd_ps(value);
#endif
  return __builtin_convertvector(value, Lanes<To, n>);
}

// a * b + c, rounded once. Every level fuses every one of these and nothing else (-ffp-contract=off): so all levels
// give the same bits. Without such an instruction the C library computes it, exactly and slowly.
PQRST_INLINE double fma(double a, double b, double c) {
  return __builtin_fma(a, b, c);
}
PQRST_INLINE float fma(float a, float b, float c) {
  return __builtin_fmaf(a, b, c);
}
#if PQRST_FMA == PQRST_FMA_X86
PQRST_INLINE Lanes<double, 2> fma(Lanes<double, 2> a, Lanes<double, 2> b, Lanes<double, 2> c) {
  return _mm_fmadd_pd(a, b, c);
}
PQRST_INLINE Lanes<float, 4> fma(Lanes<float, 4> a, Lanes<float, 4> b, Lanes<float, 4> c) {
  return _mm_fmadd_ps(a, b, c);
}
PQRST_INLINE Lanes<double, 4> fma(Lanes<double, 4> a, Lanes<double, 4> b, Lanes<double, 4> c) {
  return _mm256_fmadd_pd(a, b, c);
}
PQRST_INLINE Lanes<float, 8> fma(Lanes<float, 8> a, Lanes<float, 8> b, Lanes<float, 8> c) {
  return _mm256_fmadd_ps(a, b, c);
}
#if PQRST_REGISTER_BYTES == 64
PQRST_INLINE Lanes<double, 8> fma(Lanes<double, 8> a, Lanes<double, 8> b, Lanes<double, 8> c) {
  return _mm512_fmadd_pd(a, b, c);
}
PQRST_INLINE Lanes<float, 16> fma(Lanes<float, 16> a, Lanes<float, 16> b, Lanes<float, 16> c) {
  return _mm512_fmadd_ps(a, b, c);
}
#endif
#elif PQRST_FMA == PQRST_FMA_NEON
PQRST_INLINE Lanes<double, 2> fma(Lanes<double, 2> a, Lanes<double, 2> b, Lanes<double, 2> c) {
  return (Lanes<double, 2>)vfmaq_f64((float64x2_t)c, (float64x2_t)a, (float64x2_t)b);
}
PQRST_INLINE Lanes<float, 4> fma(Lanes<float, 4> a, Lanes<float, 4> b, Lanes<float, 4> c) {
  return (Lanes<float, 4>)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
}
#else
PQRST_INLINE Lanes<double, 2> fma(Lanes<double, 2> a, Lanes<double, 2> b, Lanes<double, 2> c) {
  return Lanes<double, 2>{fma(a[0], b[0], c[0]), fma(a[1], b[1], c[1])};
}
PQRST_INLINE Lanes<float, 4> fma(Lanes<float, 4> a, Lanes<float, 4> b, Lanes<float, 4> c) {
  return Lanes<float, 4>{fma(a[0], b[0], c[0]), fma(a[1], b[1], c[1]), fma(a[2], b[2], c[2]), fma(a[3], b[3], c[3])};
}
#endif

// The smaller and the larger of each lane. Which zero is the smaller, and what a NaN does, is up to the level.
#if PQRST_FMA == PQRST_FMA_X86
PQRST_INLINE Lanes<float, 8> smaller(Lanes<float, 8> a, Lanes<float, 8> b) {
  return _mm256_min_ps(a, b);
}
PQRST_INLINE Lanes<float, 8> larger(Lanes<float, 8> a, Lanes<float, 8> b) {
  return _mm256_max_ps(a, b);
}
PQRST_INLINE Lanes<double, 4> smaller(Lanes<double, 4> a, Lanes<double, 4> b) {
  return _mm256_min_pd(a, b);
}
PQRST_INLINE Lanes<double, 4> larger(Lanes<double, 4> a, Lanes<double, 4> b) {
  return _mm256_max_pd(a, b);
}
#else
template <class V>
PQRST_INLINE V smaller(V a, V b) {
  return a < b ? a : b;
}
template <class V>
PQRST_INLINE V larger(V a, V b) {
  return a > b ? a : b;
}
#endif

// Rows become columns. The steps are those that one instruction does within 128 bits, then across.
template <class T>
PQRST_INLINE void transpose(Lanes<T, 2> (&r)[2]) {
  const Lanes<T, 2> a = r[0], b = r[1];
  r[0] = PQRST_SHUFFLE(T, a, b, 0, 2);
  r[1] = PQRST_SHUFFLE(T, a, b, 1, 3);
}

template <class T>
PQRST_INLINE void transpose(Lanes<T, 4> (&r)[4]) {
  Lanes<T, 4> s[4];
  for (int i = 0; i < 4; i += 2) {
    if constexpr (sizeof(T) == 4) {
      s[i / 2] = PQRST_SHUFFLE(T, r[i], r[i + 1], 0, 4, 1, 5);
      s[i / 2 + 2] = PQRST_SHUFFLE(T, r[i], r[i + 1], 2, 6, 3, 7);
    } else {
      s[i / 2] = PQRST_SHUFFLE(T, r[i], r[i + 1], 0, 4, 2, 6);
      s[i / 2 + 2] = PQRST_SHUFFLE(T, r[i], r[i + 1], 1, 5, 3, 7);
    }
  }
  const int second = sizeof(T) == 4 ? 1 : 2, third = 3 - second;
  r[0] = PQRST_SHUFFLE(T, s[0], s[1], 0, 1, 4, 5);
  r[second] = PQRST_SHUFFLE(T, s[0], s[1], 2, 3, 6, 7);
  r[third] = PQRST_SHUFFLE(T, s[2], s[3], 0, 1, 4, 5);
  r[3] = PQRST_SHUFFLE(T, s[2], s[3], 2, 3, 6, 7);
}

#if PQRST_REGISTER_BYTES >= 32
template <class T>
PQRST_INLINE void transpose(Lanes<T, 8> (&r)[8]) {
  Lanes<T, 8> s[8];
  if constexpr (sizeof(T) == 4) {
    for (int i = 0; i < 8; i += 2) {
      s[i] = PQRST_SHUFFLE(T, r[i], r[i + 1], 0, 8, 1, 9, 4, 12, 5, 13);
      s[i + 1] = PQRST_SHUFFLE(T, r[i], r[i + 1], 2, 10, 3, 11, 6, 14, 7, 15);
    }
    for (int i = 0; i < 8; i += 4)
      for (int k = 0; k < 2; ++k) {
        r[i + 2 * k] = PQRST_SHUFFLE(T, s[i + k], s[i + k + 2], 0, 1, 8, 9, 4, 5, 12, 13);
        r[i + 2 * k + 1] = PQRST_SHUFFLE(T, s[i + k], s[i + k + 2], 2, 3, 10, 11, 6, 7, 14, 15);
      }
  } else {
    for (int i = 0; i < 8; i += 2) {
      s[i] = PQRST_SHUFFLE(T, r[i], r[i + 1], 0, 8, 2, 10, 4, 12, 6, 14);
      s[i + 1] = PQRST_SHUFFLE(T, r[i], r[i + 1], 1, 9, 3, 11, 5, 13, 7, 15);
    }
    for (int i = 0; i < 8; i += 4)
      for (int k = 0; k < 2; ++k) {
        r[i + k] = PQRST_SHUFFLE(T, s[i + k], s[i + k + 2], 0, 1, 8, 9, 4, 5, 12, 13);
        r[i + k + 2] = PQRST_SHUFFLE(T, s[i + k], s[i + k + 2], 2, 3, 10, 11, 6, 7, 14, 15);
      }
  }
  for (int i = 0; i < 4; ++i) {
    s[i] = PQRST_SHUFFLE(T, r[i], r[i + 4], 0, 1, 2, 3, 8, 9, 10, 11);
    s[i + 4] = PQRST_SHUFFLE(T, r[i], r[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
  }
  for (int i = 0; i < 8; ++i) r[i] = s[i];
}
#endif
