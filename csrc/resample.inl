// Polyphase resampling at one SIMD level, a lead at a time.
//
// Outputs come in periods of `out_period`, for which the input moves on by `in_period`. The input is turned so that
// samples one period apart lie side by side; then one tap serves a vector of periods, and a load of samples serves
// `n_rows` outputs of the period. That is a matrix product, (out_period x taps) with (taps x periods), whose left side
// is a band with zeros in known places: columns of zeros are left out. Each output is one chain of fused multiply-adds,
// from its first input sample to its last.

template <class T>
constexpr int turned_at_once = native<T> < 8 ? native<T> : 8;  // no period is shorter

// A square of turned_at_once x turned_at_once values, rows to columns.
template <class T>
PQRST_INLINE void turn(const T* from, std::ptrdiff_t from_stride, T* to, std::ptrdiff_t to_stride) {
  constexpr int k = turned_at_once<T>;
  Lanes<T, k> square[k];
  for (int i = 0; i < k; ++i) square[i] = load<Lanes<T, k>>(from + i * from_stride);
  transpose<T>(square);
  for (int i = 0; i < k; ++i) store(to + i * to_stride, square[i]);
}

// A line of periods, one after another -> (period, stride): row i holds sample i of every period. Whole squares: there
// is room beyond the last period, and within a period the last square overlaps.
template <class T>
PQRST_INLINE void split_periods(const T* line, std::ptrdiff_t n_periods, std::ptrdiff_t period, T* rows,
                                std::ptrdiff_t stride) {
  constexpr int k = turned_at_once<T>;
  for (std::ptrdiff_t q = 0; q < n_periods; q += k)
    for (std::ptrdiff_t next = 0; next < period; next += k) {
      const std::ptrdiff_t i = next < period - k ? next : period - k;
      turn(line + q * period + i, period, rows + i * stride + q, stride);
    }
}

// The other way.
template <class T>
PQRST_INLINE void join_periods(const T* rows, std::ptrdiff_t stride, std::ptrdiff_t n_periods, std::ptrdiff_t period,
                               T* line) {
  constexpr int k = turned_at_once<T>;
  for (std::ptrdiff_t q = 0; q < n_periods; q += k)
    for (std::ptrdiff_t next = 0; next < period; next += k) {
      const std::ptrdiff_t i = next < period - k ? next : period - k;
      turn(rows + i * stride + q, stride, line + q * period + i, period);
    }
}

// The outputs of one block of rows for n_vectors * native lanes periods.
template <int n_rows, int n_vectors, class T>
PQRST_INLINE void multiply(const std::ptrdiff_t* columns, const T* taps, std::ptrdiff_t n_columns, const T* x, T* y,
                           std::ptrdiff_t y_stride) {
  constexpr int n_lanes = native<T>;
  using V = Lanes<T, n_lanes>;
  V sum[n_rows][n_vectors] = {};
  for (std::ptrdiff_t c = 0; c < n_columns; ++c, taps += n_rows) {
    V value[n_vectors];
    for (int v = 0; v < n_vectors; ++v) value[v] = load<V>(x + columns[c] + v * n_lanes);
    for (int r = 0; r < n_rows; ++r) {
      const V tap = all<T, n_lanes>(taps[r]);
      for (int v = 0; v < n_vectors; ++v) sum[r][v] = fma(tap, value[v], sum[r][v]);
    }
  }
  for (int r = 0; r < n_rows; ++r)
    for (int v = 0; v < n_vectors; ++v) store(y + r * y_stride + v * n_lanes, sum[r][v]);
}

template <int n_rows, class T>
void multiply_all(const Polyphase<T>& p, const T* x, T* y, std::ptrdiff_t n_periods) {
  constexpr int n_lanes = native<T>, n_vectors = PQRST_REGISTERS == 32 ? 4 : 2;  // sums that fit the registers
  for (std::ptrdiff_t b = 0; b < p.n_blocks; ++b) {
    const PolyphaseBlock& block = p.blocks[b];
    const std::ptrdiff_t* columns = p.columns + block.first;
    const T* taps = p.taps + block.first * n_rows;
    T* rows = y + block.row * p.y_stride;
    std::ptrdiff_t q = 0;
    for (; q + n_vectors * n_lanes <= n_periods; q += n_vectors * n_lanes)
      multiply<n_rows, n_vectors>(columns, taps, block.n_columns, x + q, rows + q, p.y_stride);
    for (; q < n_periods; q += n_lanes)  // the last one may run beyond, there is room for it
      multiply<n_rows, 1>(columns, taps, block.n_columns, x + q, rows + q, p.y_stride);
  }
}

// x (n,) -> out (n_out,). T computes, Sample is what the array holds.
template <class T, class Sample>
void resample(const Polyphase<T>& p, const Sample* x, std::ptrdiff_t n, Sample* out, std::ptrdiff_t n_out, T* scratch) {
  T* const turned = scratch;
  T* const y = turned + p.in_period * p.x_stride;
  T* const line = y + p.out_period * p.y_stride;  // a stretch of input or output, as it lies in the array
  for (std::ptrdiff_t first = 0; first * p.out_period < n_out; first += p.chunk) {
    const std::ptrdiff_t left = (n_out + p.out_period - 1) / p.out_period - first;
    const std::ptrdiff_t n_periods = left < p.chunk ? left : p.chunk;
    const std::ptrdiff_t n_line = (n_periods + p.reach) * p.in_period;
    const std::ptrdiff_t start = (first - p.before) * p.in_period;  // zeros outside the signal
    const std::ptrdiff_t inside = start < 0 ? (-start < n_line ? -start : n_line) : 0;
    const std::ptrdiff_t beyond = n - start < n_line ? (n - start > inside ? n - start : inside) : n_line;
    for (std::ptrdiff_t i = 0; i < inside; ++i) line[i] = 0;
    for (std::ptrdiff_t i = inside; i < beyond; ++i) line[i] = static_cast<T>(x[start + i]);
    for (std::ptrdiff_t i = beyond; i < n_line; ++i) line[i] = 0;
    split_periods(line, n_periods + p.reach, p.in_period, turned, p.x_stride);
    switch (p.n_rows) {
      case 4:
        multiply_all<4>(p, turned, y, n_periods);
        break;
      case 5:
        multiply_all<5>(p, turned, y, n_periods);
        break;
      default:
        multiply_all<6>(p, turned, y, n_periods);
    }
    join_periods(y, p.y_stride, n_periods, p.out_period, line);
    const std::ptrdiff_t begin = first * p.out_period, rest = n_out - begin;
    const std::ptrdiff_t n_here = n_periods * p.out_period < rest ? n_periods * p.out_period : rest;
    for (std::ptrdiff_t i = 0; i < n_here; ++i) out[begin + i] = static_cast<Sample>(line[i]);
  }
}
