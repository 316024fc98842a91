// Resampling by a rational ratio, equal to scipy.signal.resample_poly with its defaults: up samples in, down samples
// out, low-pass at the lower Nyquist frequency with a Kaiser-windowed sinc, no delay, zeros beyond both ends.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <string>
#include <vector>

#include "array.hpp"
#include "refuse.hpp"

namespace pqrst {

// ------------------------------------------------------------------------------------------------- rates

struct Ratio {
  std::int64_t up, down;  // both at least 1, no common factor
};

constexpr std::int64_t max_denominator = 10000;
constexpr double max_rate = 1e12;             // Hz; times max_denominator it still fits an int64
constexpr std::int64_t max_factor = 1 << 20;  // largest up or down: 21 million taps, 160 MiB

// A rate as the fraction with the smallest denominator that rounds to this very double: 499.348 is 124837 / 250.
inline Ratio exact_rate(const std::string& argument, double fs) {
  check_rate(argument, fs);
  if (fs > max_rate) refuse(argument, fs, "must be at most " + number(max_rate) + " Hz");
  for (std::int64_t denominator = 1; denominator <= max_denominator; ++denominator) {
    const double numerator = std::round(fs * static_cast<double>(denominator));
    if (numerator >= 1 && numerator / static_cast<double>(denominator) == fs)
      return {static_cast<std::int64_t>(numerator), denominator};
  }
  refuse(argument, fs, "is no fraction with a denominator up to " + std::to_string(max_denominator) + "; round it");
}

// out / in, reduced.
inline Ratio rate_ratio(Ratio in, Ratio out) {
  const std::int64_t rates = std::gcd(in.up, out.up), parts = std::gcd(in.down, out.down);
  Ratio ratio{};
  if (__builtin_mul_overflow(out.up / rates, in.down / parts, &ratio.up) ||
      __builtin_mul_overflow(in.up / rates, out.down / parts, &ratio.down))
    throw std::invalid_argument("fs_in, fs_out: their ratio needs numbers above 2^63; round the rates");
  const std::int64_t common = std::gcd(ratio.up, ratio.down);
  return {ratio.up / common, ratio.down / common};
}

inline Ratio rate_ratio(double fs_in, double fs_out) {
  check_rate("fs_in", fs_in);
  check_rate("fs_out", fs_out);
  if (fs_in == fs_out) return {1, 1};
  return rate_ratio(exact_rate("fs_in", fs_in), exact_rate("fs_out", fs_out));
}

// ceil(n * up / down)
inline std::ptrdiff_t resampled_length(std::ptrdiff_t n, std::int64_t up, std::int64_t down) {
  std::ptrdiff_t whole = 0, rest = 0;
  if (__builtin_mul_overflow(n / down, up, &whole) || __builtin_mul_overflow(n % down, up, &rest) ||
      __builtin_add_overflow(whole, rest / down + (rest % down != 0), &whole))
    throw std::invalid_argument("x: " + std::to_string(n) + " samples x " + std::to_string(up) + " / " +
                                std::to_string(down) + " is more than fits an array");
  return whole;
}

// ------------------------------------------------------------------------------------------------ design

// Modified Bessel function of the first kind, order 0, for |x| of some units: sum of ((x / 2)^k / k!)^2, all terms
// positive.
inline double bessel_i0(double x) {
  const double quarter = x * x / 4;
  double term = 1, sum = 1;
  for (int k = 1; term > sum * 1e-17; ++k) {
    term *= quarter / (static_cast<double>(k) * k);
    sum += term;
  }
  return sum;
}

// The 2 * 10 * max(up, down) + 1 taps of scipy.signal.firwin(.., 1 / max(up, down), window=("kaiser", 5.0)), times up:
// ten zero crossings of the sinc on each side, a window down to 1 / I0(5) = 0.037, gain 1 at 0 Hz.
inline std::vector<double> resampling_taps(Ratio ratio) {
  const std::int64_t factor = std::max(ratio.up, ratio.down);
  const auto text = [](std::int64_t n) { return std::to_string(n); };
  if (ratio.up < 1 || ratio.down < 1)
    throw std::invalid_argument("ratio " + text(ratio.up) + " / " + text(ratio.down) + ": both must be at least 1");
  if (factor > max_factor)
    throw std::invalid_argument("fs_in, fs_out: their ratio is " + text(ratio.up) + " / " + text(ratio.down) +
                                ", both numbers must be at most " + text(max_factor) + "; round the rates");
  constexpr double pi = 3.141592653589793238462643383279502884;
  const std::int64_t half = 10 * factor;
  std::vector<double> taps(static_cast<std::size_t>(2 * half + 1));
  const double edge = 1 / bessel_i0(5.0);
  double sum = 0;
  for (std::int64_t i = half; i >= 1; --i) {     // from the small taps to the large
    const std::int64_t turn = i % (2 * factor);  // sin(pi i / factor), exactly 0 at its zeros
    const double sine =
        turn % factor == 0 ? 0.0 : std::sin(pi * static_cast<double>(turn) / static_cast<double>(factor));
    const double place = static_cast<double>(i) / static_cast<double>(half);  // 0..1, from the middle to the end
    const double window = bessel_i0(5.0 * std::sqrt((1 - place) * (1 + place))) * edge;
    const double tap = sine / (pi * static_cast<double>(i)) * window;
    taps[static_cast<std::size_t>(half + i)] = taps[static_cast<std::size_t>(half - i)] = tap;
    sum += 2 * tap;
  }
  taps[static_cast<std::size_t>(half)] = 1 / static_cast<double>(factor);
  sum += taps[static_cast<std::size_t>(half)];
  for (double& tap : taps) tap = tap / sum * static_cast<double>(ratio.up);
  return taps;
}

// ------------------------------------------------------------------------------------------- application

namespace detail {

// Four sums in fixed order: the same bits at every vector width, and a quarter of the rounding errors of one long sum
// (1000 Hz to 100 Hz in float32, 201 taps: 4.8e-7 -> 1.8e-7).
template <class T>
T dot(const T* x, const T* y, std::ptrdiff_t n) {
  T lane[4] = {0, 0, 0, 0};
  std::ptrdiff_t i = 0;
  for (; i + 4 <= n; i += 4)
    for (std::ptrdiff_t j = 0; j < 4; ++j) lane[j] += x[i + j] * y[i + j];
  for (std::ptrdiff_t j = 0; i + j < n; ++j) lane[j] += x[i + j] * y[i + j];
  return (lane[0] + lane[1]) + (lane[2] + lane[3]);
}

}  // namespace detail

// The taps of one ratio, sorted by phase: output m sits at input m * down / up, and all outputs with the same remainder
// use the same taps. Designed once, used for any number of signals. Computes in T, float32 taps rounded from float64.
template <class T>
struct Resampler {
  struct Phase {
    std::ptrdiff_t first;          // where its taps start
    std::ptrdiff_t before, after;  // samples used before and after input floor(m * down / up)
  };
  Ratio ratio;
  std::vector<Phase> phases;  // up of them; none where nothing is to be done
  std::vector<T> taps;

  explicit Resampler(Ratio wanted) : ratio(wanted) {
    if (ratio.up == 1 && ratio.down == 1) return;
    const std::vector<double> all = resampling_taps(ratio);
    const std::int64_t half = (static_cast<std::int64_t>(all.size()) - 1) / 2;
    taps.reserve(all.size());
    phases.reserve(static_cast<std::size_t>(ratio.up));
    for (std::int64_t phase = 0; phase < ratio.up; ++phase) {
      const std::int64_t before = (half - phase) / ratio.up, after = (half + phase) / ratio.up;
      phases.push_back({static_cast<std::ptrdiff_t>(taps.size()), before, after});
      for (std::int64_t d = -before; d <= after; ++d)
        taps.push_back(static_cast<T>(all[static_cast<std::size_t>(half + phase - d * ratio.up)]));
    }
  }

  std::ptrdiff_t output_length(std::ptrdiff_t n) const { return resampled_length(n, ratio.up, ratio.down); }

  // x (L, T) -> out (L, output_length(T)), another array than x. An output's bits depend on its own samples only.
  void apply(View<const T> x, View<T> out) const {
    for (std::ptrdiff_t lead = 0; lead < x.rows; ++lead) {
      const T* in = x.row(lead);
      T* result = out.row(lead);
      if (phases.empty()) {
        std::copy(in, in + x.cols, result);
        continue;
      }
      std::ptrdiff_t at = 0;       // floor(m * down / up), below T
      std::int64_t remainder = 0;  // m * down - at * up
      for (std::ptrdiff_t m = 0; m < out.cols; ++m) {
        const Phase& phase = phases[static_cast<std::size_t>(remainder)];
        const T* tap = taps.data() + phase.first + phase.before;
        const std::ptrdiff_t begin = -std::min(phase.before, at), end = std::min(phase.after, x.cols - 1 - at) + 1;
        result[m] = detail::dot(tap + begin, in + at + begin, end - begin);
        remainder += ratio.down;
        at += remainder / ratio.up;
        remainder %= ratio.up;
      }
    }
  }
};

template <class T>
void resample(View<const T> x, Ratio ratio, View<T> out) {
  Resampler<T>(ratio).apply(x, out);
}

}  // namespace pqrst
