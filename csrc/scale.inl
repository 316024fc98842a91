// Statistics and scaling of one row at one SIMD level. Sums have 16 terms side by side and are joined in one order, so
// the width of a register does not show in them.

constexpr int n_terms = 16;

// 32 bytes at most: conversions between float32 and float64 are what takes the time, and no faster in wider registers.
template <class T>
constexpr int lanes_here = (register_bytes < 32 ? register_bytes : 32) / static_cast<int>(sizeof(T));

// n_terms doubles in as many registers as they take.
struct Terms {
  static constexpr int n_lanes = lanes_here<double>;
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

template <class T>
void extent(const T* x, std::ptrdiff_t n, Extent* result) {
  constexpr int n_lanes = lanes_here<T>;
  Lanes<T, n_lanes> low = all<T, n_lanes>(x[0]), high = low, outside = {};  // 0, or NaN for a NaN or an infinity
  std::ptrdiff_t i = 0;
  for (; i + n_lanes <= n; i += n_lanes) {
    const auto value = load<Lanes<T, n_lanes>>(x + i);
    low = smaller(value, low);
    high = larger(value, high);
    outside += value - value;
  }
  for (int k = 0; k < n_lanes; ++k) {
    if (low[k] < low[0]) low[0] = low[k];
    if (high[k] > high[0]) high[0] = high[k];
    if (k > 0) outside[0] += outside[k];
  }
  for (; i < n; ++i) {
    if (x[i] < low[0]) low[0] = x[i];
    if (x[i] > high[0]) high[0] = x[i];
    outside[0] += x[i] - x[i];
  }
  *result = {low[0] + 0.0, high[0] + 0.0, outside[0] == 0};  // + 0.0: of two zeros the positive one, whichever it was
}

// Sums of x * unit - center and of its square.
template <class T>
void moments(const T* x, std::ptrdiff_t n, double unit, double center, Moments* result) {
  Terms sum, squares;
  const Terms::V units = all<double, Terms::n_lanes>(unit), less = all<double, Terms::n_lanes>(-center);
  std::ptrdiff_t i = 0;
  for (; i + n_terms <= n; i += n_terms) {
    const Terms value = load_terms(x + i);
    for (int p = 0; p < n_terms / Terms::n_lanes; ++p) {
      const Terms::V d = fma(value.part[p], units, less);
      sum.part[p] += d;
      squares.part[p] = fma(d, d, squares.part[p]);
    }
  }
  double rest_sum = 0, rest_squares = 0;
  for (; i < n; ++i) {
    const double d = fma(static_cast<double>(x[i]), unit, -center);
    rest_sum += d;
    rest_squares = fma(d, d, rest_squares);
  }
  *result = {sum.sum() + rest_sum, squares.sum() + rest_squares};
}

PQRST_INLINE void put(float* to, Lanes<double, lanes_here<double>> value) {
  store(to, convert<float, lanes_here<double>, double>(value));
}
PQRST_INLINE void put(double* to, Lanes<double, lanes_here<double>> value) {
  store(to, value);
}
PQRST_INLINE void put(Half* to, Lanes<double, lanes_here<double>> value) {  // over float32, as the chain's rule has it
  const auto single = convert<float, lanes_here<double>, double>(value);
#if PQRST_FMA == PQRST_FMA_X86
  const __m128i halves = _mm_cvtps_ph((__m128)single, _MM_FROUND_TO_NEAREST_INT);
  __builtin_memcpy(to, &halves, 8);
#else
  for (int i = 0; i < lanes_here<double>; ++i) to[i] = {to_half(single[i])};
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

template <bool divide, class T, class Out>
PQRST_INLINE void scale_all(const T* x, std::ptrdiff_t n, const Scaling& s, Out* out) {
  constexpr int n_lanes = lanes_here<double>;
  using V = Lanes<double, n_lanes>;
  const V unit = all<double, n_lanes>(s.unit), less = all<double, n_lanes>(-s.center);
  const V factor = all<double, n_lanes>(s.factor), shift = all<double, n_lanes>(s.shift);
  std::ptrdiff_t i = 0;
  for (; i + n_lanes <= n; i += n_lanes) {
    const V d = fma(convert<double, n_lanes, T>(load<Lanes<T, n_lanes>>(x + i)), unit, less);
    put(out + i, divide ? d / factor : fma(d, factor, shift));
  }
  for (; i < n; ++i) {
    const double d = fma(static_cast<double>(x[i]), unit[0], less[0]);
    put_one(out + i, divide ? d / factor[0] : fma(d, factor[0], shift[0]));
  }
}

template <class T, class Out>
void scale(const T* x, std::ptrdiff_t n, const Scaling* s, Out* out) {
  if (s->divide)
    scale_all<true>(x, n, *s, out);
  else
    scale_all<false>(x, n, *s, out);
}
