// Finite impulse responses at one SIMD level: neighbouring outputs side by side, each one chain of fused multiply-adds.

template <int n_vectors>
PQRST_INLINE void correlate_here(const double* x, const double* taps, std::ptrdiff_t n_taps, double* out) {
  constexpr int n_lanes = native<double>;
  using V = Lanes<double, n_lanes>;
  V sum[n_vectors] = {};
  for (std::ptrdiff_t j = 0; j < n_taps; ++j) {
    const V tap = all<double, n_lanes>(taps[j]);
    for (int v = 0; v < n_vectors; ++v) sum[v] = fma(tap, load<V>(x + j + v * n_lanes), sum[v]);
  }
  for (int v = 0; v < n_vectors; ++v) store(out + v * n_lanes, sum[v]);
}

// out[i] = sum of taps[j] * x[i + j], for i below n.
void correlate(const double* x, const double* taps, std::ptrdiff_t n_taps, std::ptrdiff_t n, double* out) {
  constexpr int n_lanes = native<double>, n_vectors = 8;  // enough chains to wait for none
  std::ptrdiff_t i = 0;
  for (; i + n_vectors * n_lanes <= n; i += n_vectors * n_lanes)
    correlate_here<n_vectors>(x + i, taps, n_taps, out + i);
  for (; i + n_lanes <= n; i += n_lanes) correlate_here<1>(x + i, taps, n_taps, out + i);
  for (; i < n; ++i) {
    double sum = 0;
    for (std::ptrdiff_t j = 0; j < n_taps; ++j) sum = fma(taps[j], x[i + j], sum);
    out[i] = sum;
  }
}

// The same, each as eight sums in fixed order: of few outputs, at least n_lanes, none waits long for its additions.
void dots(const double* x, const double* taps, std::ptrdiff_t n_taps, std::ptrdiff_t n, double* out) {
  constexpr int n_lanes = native<double>;
  using V = Lanes<double, n_lanes>;
  for (std::ptrdiff_t next = 0; next < n; next += n_lanes) {
    const std::ptrdiff_t i = next + n_lanes <= n ? next : n - n_lanes;  // the last ones once more
    V sum[8] = {};
    std::ptrdiff_t j = 0;
    for (; j + 8 <= n_taps; j += 8)
      for (int k = 0; k < 8; ++k) sum[k] += load<V>(x + i + j + k) * taps[j + k];
    for (; j < n_taps; ++j) sum[0] += load<V>(x + i + j) * taps[j];
    store(out + i, ((sum[0] + sum[1]) + (sum[2] + sum[3])) + ((sum[4] + sum[5]) + (sum[6] + sum[7])));
  }
}

// The same as correlate for a pair of filters, one symmetric and one antisymmetric, given from their middle outwards
// (half + 1 taps; the middle of the second is 0): x[j] and x[-j] are loaded once for both. Where x is the middle of
// output 0.
template <int n_vectors>
PQRST_INLINE void magnitude_here(const double* x, const double* even, const double* odd, std::ptrdiff_t half,
                                 double* out) {
  constexpr int n_lanes = native<double>;
  using V = Lanes<double, n_lanes>;
  V e[n_vectors], o[n_vectors] = {};
  for (int v = 0; v < n_vectors; ++v) e[v] = load<V>(x + v * n_lanes) * even[0];
  for (std::ptrdiff_t j = 1; j <= half; ++j) {
    const V even_tap = all<double, n_lanes>(even[j]), odd_tap = all<double, n_lanes>(odd[j]);
    for (int v = 0; v < n_vectors; ++v) {
      const V after = in_register(load<V>(x + v * n_lanes + j));
      const V before = in_register(load<V>(x + v * n_lanes - j));
      e[v] = fma(even_tap, after + before, e[v]);
      o[v] = fma(odd_tap, after - before, o[v]);
    }
  }
  for (int v = 0; v < n_vectors; ++v) {
    const V square = fma(e[v], e[v], o[v] * o[v]);
    for (int i = 0; i < n_lanes; ++i) out[v * n_lanes + i] = __builtin_sqrt(square[i]);
  }
}

// The length of the vector that both make: out[i], i below n.
void magnitude(const double* x, const double* even, const double* odd, std::ptrdiff_t half, std::ptrdiff_t n,
               double* out) {
  constexpr int n_lanes = native<double>, n_vectors = 4;
  std::ptrdiff_t i = 0;
  constexpr std::ptrdiff_t together = n_vectors * n_lanes;
  for (; i + together <= n; i += together) magnitude_here<n_vectors>(x + i, even, odd, half, out + i);
  if (i > 0 && i < n) {  // once more over the last ones, the same comes out
    magnitude_here<n_vectors>(x + n - together, even, odd, half, out + n - together);
    return;
  }
  for (; i < n; ++i) {
    double e = x[i] * even[0], o = 0;
    for (std::ptrdiff_t j = 1; j <= half; ++j) {
      e = fma(even[j], x[i + j] + x[i - j], e);
      o = fma(odd[j], x[i + j] - x[i - j], o);
    }
    out[i] = __builtin_sqrt(fma(e, e, o * o));
  }
}

// Each value is compared with all, many side by side: of so few, the fastest way.
template <class T>
T ranked(const T* x, std::ptrdiff_t n, int rank) {
  constexpr int n_lanes = native<T>, n_vectors = 3;
  static_assert(most_ranked % (n_lanes * n_vectors) == 0);
  using V = Lanes<T, n_lanes>;
  using Counts = decltype(V{} < V{});
  V found = {};
  for (std::ptrdiff_t i = 0; i < n; i += n_lanes * n_vectors) {
    V value[n_vectors];
    Counts n_less[n_vectors] = {};  // a zero behind the values has none below, and changes nothing
    for (int v = 0; v < n_vectors; ++v) value[v] = load<V>(x + i + v * n_lanes);
    for (std::ptrdiff_t j = 0; j < n; ++j) {
      const V other = all<T, n_lanes>(x[j]);
      for (int v = 0; v < n_vectors; ++v) n_less[v] -= other < value[v];
    }
    for (int v = 0; v < n_vectors; ++v) found = ((n_less[v] <= rank) & (value[v] > found)) ? value[v] : found;
  }
  for (int k = 1; k < n_lanes; ++k)
    if (found[k] > found[0]) found[0] = found[k];
  return found[0];
}
