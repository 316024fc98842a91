// Polyphase resampling with a Kaiser-windowed sinc, equal to scipy.signal.resample_poly with its defaults.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numeric>
#include <string>
#include <vector>

#include "array.hpp"
#include "filter.hpp"

namespace pqrst {

// Output rate : input rate, without common factor.
struct Ratio {
  std::int64_t up = 1, down = 1;
};

namespace detail {

// A sampling rate as an exact fraction; 499.348 Hz is 124837 / 250.
inline Ratio rational_rate(double fs, const char* name) {
  check_rate(fs, name);
  constexpr std::int64_t largest_denominator = 10000;
  for (std::int64_t denominator = 1; denominator <= largest_denominator; ++denominator) {
    const double numerator = std::round(fs * static_cast<double>(denominator));
    if (numerator >= 1 && numerator < 1e12 && numerator / static_cast<double>(denominator) == fs)
      return {static_cast<std::int64_t>(numerator), denominator};
  }
  throw std::invalid_argument(std::string(name) + " " + number_text(fs) + ": is no fraction with a denominator up to 10000");
}

// Modified Bessel function of the first kind, order 0, by its power series.
inline double bessel_i0(double x) {
  double sum = 1, term = 1;
  for (int k = 1; term > sum * 1e-18; ++k) {
    term *= (x / (2 * k)) * (x / (2 * k));
    sum += term;
  }
  return sum;
}

}  // namespace detail

inline Ratio rate_ratio(double fs_in, double fs_out) {
  const Ratio in = detail::rational_rate(fs_in, "fs_in"), out = detail::rational_rate(fs_out, "fs_out");
  // out / in, cancelling crosswise first so that nothing overflows that need not
  const std::int64_t g = std::gcd(out.up, in.up), h = std::gcd(out.down, in.down);
  const std::int64_t up1 = out.up / g, up2 = in.down / h, down1 = in.up / g, down2 = out.down / h;
  constexpr std::int64_t largest = 1000000;  // taps are 20 times as many
  if (up1 > largest / up2 || down1 > largest / down2)
    throw std::invalid_argument("fs_out / fs_in " + number_text(fs_out) + " / " + number_text(fs_in) +
                                ": is no ratio of numbers up to 1000000");
  return {up1 * up2, down1 * down2};
}

// ceil(n * up / down)
inline std::ptrdiff_t resampled_length(std::ptrdiff_t n, std::int64_t up, std::int64_t down) {
  if (n > (std::numeric_limits<std::int64_t>::max() - down) / up)
    throw std::invalid_argument("x: " + std::to_string(n) + " samples times " + std::to_string(up) + " overflow");
  return static_cast<std::ptrdiff_t>((n * up + down - 1) / down);
}

// Equal to up * scipy.signal.firwin(20 * r + 1, 1 / r, window=("kaiser", 5.0)), r = max(up, down).
inline std::vector<double> resample_taps(Ratio ratio) {
  constexpr double pi = 3.14159265358979323846, beta = 5;
  const std::int64_t rate = std::max(ratio.up, ratio.down), half = 10 * rate;
  const double cutoff = 1 / static_cast<double>(rate), norm = detail::bessel_i0(beta);
  std::vector<double> taps(static_cast<std::size_t>(2 * half + 1));
  double sum = 0;
  for (std::int64_t i = -half; i <= half; ++i) {
    const double t = cutoff * static_cast<double>(i), r = static_cast<double>(i) / static_cast<double>(half);
    const double sinc = i == 0 ? 1 : std::sin(pi * t) / (pi * t);
    const double tap = cutoff * sinc * detail::bessel_i0(beta * std::sqrt(1 - r * r)) / norm;
    taps[static_cast<std::size_t>(i + half)] = tap;
    sum += tap;
  }
  for (double& tap : taps) tap = tap / sum * static_cast<double>(ratio.up);
  return taps;
}

class Resampler {
 public:
  explicit Resampler(Ratio ratio) : ratio_(ratio), taps_(resample_taps(ratio)) {}

  // x (L, n) -> out (L, resampled_length(n)); beyond its ends the signal is 0. Computes in T.
  template <class T>
  void apply(View<const T> x, View<T> out) const {
    if (ratio_.up == ratio_.down) {
      std::copy(x.data, x.data + x.rows * x.cols, out.data);
      return;
    }
    const std::vector<T> taps(taps_.begin(), taps_.end());
    const auto half = (static_cast<std::int64_t>(taps.size()) - 1) / 2;
    for (std::ptrdiff_t lead = 0; lead < x.rows; ++lead)
      for (std::ptrdiff_t m = 0; m < out.cols; ++m) {
        const std::int64_t at = m * ratio_.down;  // in steps of the upsampled signal, where x[k] stands at k * up
        const std::int64_t first = std::max<std::int64_t>(0, (at - half + ratio_.up - 1) / ratio_.up);
        const std::int64_t last = std::min<std::int64_t>(x.cols - 1, (at + half) / ratio_.up);
        T sum = 0;
        for (std::int64_t k = first; k <= last; ++k)
          sum += x.row(lead)[k] * taps[static_cast<std::size_t>(half + at - k * ratio_.up)];
        out.row(lead)[m] = sum;
      }
  }

 private:
  Ratio ratio_;
  std::vector<double> taps_;
};

}  // namespace pqrst
