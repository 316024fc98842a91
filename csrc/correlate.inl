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
