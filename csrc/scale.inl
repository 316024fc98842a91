// Statistics and scaling of one row at one SIMD level. Sums have 16 terms side by side and are joined in one order, so
// the width of a register does not show in them.

constexpr int n_terms = 16;

// n_terms doubles in as many registers as they take.
struct Terms {
  static constexpr int n_lanes = native<double>;
  using V = Lanes<double, n_lanes>;
  V part[n_terms / n_lanes] = {};

  PQRST_INLINE double sum() const {
    double t[n_terms];
    __builtin_memcpy(t, part, sizeof t);
    for (int width = n_terms / 2; width > 0; width /= 2)
      for (int i = 0; i < width; ++i) t[i] += t[i + width];
    return t[0];
  }
};

template <class T>
PQRST_INLINE Terms load_terms(const T* x) {
  Terms terms;
  for (int p = 0; p < n_terms / Terms::n_lanes; ++p)
    terms.part[p] = convert<double, Terms::n_lanes, T>(load<Lanes<T, Terms::n_lanes>>(x + p * Terms::n_lanes));
  return terms;
}

// The last terms of a row, where there are fewer than n_terms: what is missing is `filler`.
template <class T>
PQRST_INLINE Terms load_rest(const T* x, std::ptrdiff_t n, T filler) {
  T rest[n_terms];
  for (int i = 0; i < n_terms; ++i) rest[i] = i < n ? x[i] : filler;
  return load_terms(rest);
}

struct RunningExtent {
  Terms low, high, sum, outside;

  // `counted` is `value`, but 0 where there is none.
  PQRST_INLINE void add(const Terms& value, const Terms& counted) {
    for (int p = 0; p < n_terms / Terms::n_lanes; ++p) {
      low.part[p] = value.part[p] < low.part[p] ? value.part[p] : low.part[p];
      high.part[p] = value.part[p] > high.part[p] ? value.part[p] : high.part[p];
      sum.part[p] += counted.part[p];
      outside.part[p] += value.part[p] - value.part[p];  // 0, or NaN for a NaN or an infinity
    }
  }
};

template <class T>
void extent(const T* x, std::ptrdiff_t n, Extent* result) {
  RunningExtent e;
  e.low = e.high = load_rest(x, 0, x[0]);
  std::ptrdiff_t i = 0;
  for (; i + n_terms <= n; i += n_terms) {
    const Terms value = load_terms(x + i);
    e.add(value, value);
  }
  if (i < n) e.add(load_rest(x + i, n - i, x[0]), load_rest(x + i, n - i, T(0)));
  double low[n_terms], high[n_terms];
  __builtin_memcpy(low, e.low.part, sizeof low);
  __builtin_memcpy(high, e.high.part, sizeof high);
  *result = {low[0], high[0], e.sum.sum(), e.outside.sum() == 0};
  for (int k = 1; k < n_terms; ++k) {
    if (low[k] < result->low) result->low = low[k];
    if (high[k] > result->high) result->high = high[k];
  }
}

// Sums of x * unit - center and of its square.
template <class T>
void moments(const T* x, std::ptrdiff_t n, double unit, double center, Moments* result) {
  Terms sum, squares;
  std::ptrdiff_t i = 0;
  for (; i + n_terms <= n; i += n_terms) {
    const Terms value = load_terms(x + i);
    for (int p = 0; p < n_terms / Terms::n_lanes; ++p) {
      const Terms::V d = value.part[p] * unit - center;
      sum.part[p] += d;
      squares.part[p] = fma(d, d, squares.part[p]);
    }
  }
  double rest_sum = 0, rest_squares = 0;
  for (; i < n; ++i) {
    const double d = static_cast<double>(x[i]) * unit - center;
    rest_sum += d;
    rest_squares = fma(d, d, rest_squares);
  }
  *result = {sum.sum() + rest_sum, squares.sum() + rest_squares};
}

PQRST_INLINE void put(float* to, Lanes<double, native<double>> value) {
  store(to, convert<float, native<double>, double>(value));
}
PQRST_INLINE void put(double* to, Lanes<double, native<double>> value) {
  store(to, value);
}
PQRST_INLINE void put(Half* to, Lanes<double, native<double>> value) {  // over float32, as the chain's rule has it
  const auto single = convert<float, native<double>, double>(value);
#if PQRST_FMA == PQRST_FMA_X86 && PQRST_REGISTER_BYTES == 64
  store(to, _mm256_cvtps_ph((__m256)single, _MM_FROUND_TO_NEAREST_INT));
#elif PQRST_FMA == PQRST_FMA_X86
  const __m128i halves = _mm_cvtps_ph((__m128)single, _MM_FROUND_TO_NEAREST_INT);
  __builtin_memcpy(to, &halves, 8);
#else
  for (int i = 0; i < native<double>; ++i) to[i] = {to_half(single[i])};
#endif
}
PQRST_INLINE void put_one(float* to, double value) {
  *to = static_cast<float>(value);
}
PQRST_INLINE void put_one(double* to, double value) {
  *to = value;
}
PQRST_INLINE void put_one(Half* to, double value) {
  *to = {to_half(static_cast<float>(value))};
}

// (x * unit - center - rest) * factor, or with `divide` the quotient by it.
template <bool divide, class T, class Out>
PQRST_INLINE void scale_all(const T* x, std::ptrdiff_t n, const Scaling& s, Out* out) {
  constexpr int n_lanes = native<double>;
  std::ptrdiff_t i = 0;
  for (; i + n_lanes <= n; i += n_lanes) {
    const auto value = convert<double, n_lanes, T>(load<Lanes<T, n_lanes>>(x + i)) * s.unit - s.center - s.rest;
    put(out + i, divide ? value / s.factor : value * s.factor);
  }
  for (; i < n; ++i) {
    const double value = static_cast<double>(x[i]) * s.unit - s.center - s.rest;
    put_one(out + i, divide ? value / s.factor : value * s.factor);
  }
}

template <class T, class Out>
void scale(const T* x, std::ptrdiff_t n, const Scaling* s, Out* out) {
  if (s->divide)
    scale_all<true>(x, n, *s, out);
  else
    scale_all<false>(x, n, *s, out);
}
