// Scaling of each row to a common size: z-score (mean 0, standard deviation 1) and min-max (0..1).
//
// float64 inside, rounded once.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>

#include "array.hpp"
#include "kernels.hpp"

namespace pqrst {

namespace detail {

inline Extent extent(const float* x, std::ptrdiff_t n) {
  Extent result{};
  kernels().extent_float(x, n, &result);
  return result;
}
inline Extent extent(const double* x, std::ptrdiff_t n) {
  Extent result{};
  kernels().extent_double(x, n, &result);
  return result;
}

inline Moments moments(const float* x, std::ptrdiff_t n, double unit, double center) {
  Moments result{};
  kernels().moments_float(x, n, unit, center, &result);
  return result;
}
inline Moments moments(const double* x, std::ptrdiff_t n, double unit, double center) {
  Moments result{};
  kernels().moments_double(x, n, unit, center, &result);
  return result;
}

inline void scale(const float* x, std::ptrdiff_t n, const Scaling& s, float* out) {
  kernels().scale_float(x, n, &s, out);
}
inline void scale(const double* x, std::ptrdiff_t n, const Scaling& s, double* out) {
  kernels().scale_double(x, n, &s, out);
}
inline void scale(const double* x, std::ptrdiff_t n, const Scaling& s, float* out) {
  kernels().scale_narrowing(x, n, &s, out);
}
inline void scale(const double* x, std::ptrdiff_t n, const Scaling& s, Half* out) {
  kernels().scale_half(x, n, &s, out);
}

// A power of two that brings the row to about 1, where its squares would otherwise over- or underflow.
inline double unit_of(const Extent& e) {
  const double largest = std::max(std::abs(e.low), std::abs(e.high));
  if (largest > 1e-100 && largest < 1e100) return 1;
  return std::ldexp(1.0, -std::clamp(std::ilogb(largest), -1022, 1022));
}

}  // namespace detail

constexpr Scaling unchanged{1, 0, 1, -0.0, false};
constexpr Scaling to_zeros{0, 0, 0, 0, false};
constexpr Scaling to_nan{1, 0, std::numeric_limits<double>::quiet_NaN(), 0, false};

// How to take n values from 0 to 1.
template <class T>
Scaling minmax_of(const T* x, std::ptrdiff_t n) {
  const Extent extent = detail::extent(x, n);
  if (!extent.finite) return to_nan;
  if (extent.low == extent.high) return to_zeros;
  const double unit = detail::unit_of(extent);
  return {unit, extent.low * unit, extent.high * unit - extent.low * unit, 0, true};
}

// How to take n values to mean 0 and standard deviation 1 (ddof 0).
template <class T>
Scaling zscore_of(const T* x, std::ptrdiff_t n) {
  const double count = static_cast<double>(n);
  double unit = 1, center = static_cast<double>(x[0]);
  Moments about = detail::moments(x, n, unit, center);
  if (!(about.squares > 1e-200 && about.squares < 1e200)) {  // also where something is not finite
    const Extent extent = detail::extent(x, n);
    if (!extent.finite) return to_nan;
    if (extent.low == extent.high) return to_zeros;
    unit = detail::unit_of(extent);
    center *= unit;
    about = detail::moments(x, n, unit, center);
  }
  double rest = about.sum / count, variance = about.squares / count - rest * rest;
  if (!(rest * rest <= 100 * variance)) {  // the difference lost digits: begin again at the mean, as far as it is known
    center += rest;
    about = detail::moments(x, n, unit, center);
    rest = about.sum / count;
    variance = about.squares / count - rest * rest;
  }
  const double factor = 1 / std::sqrt(variance);
  return {unit, center, factor, -rest * factor, false};
}

// (x - mean) / std per row; a constant one gives zeros, one with a NaN or an infinity NaN. out may be x itself.
template <class T>
void zscore(View<const T> x, View<T> out) {
  for (std::ptrdiff_t row = 0; row < x.rows; ++row)
    detail::scale(x.row(row), x.cols, zscore_of(x.row(row), x.cols), out.row(row));
}

// (x - min) / (max - min) per row, likewise.
template <class T>
void minmax(View<const T> x, View<T> out) {
  for (std::ptrdiff_t row = 0; row < x.rows; ++row)
    detail::scale(x.row(row), x.cols, minmax_of(x.row(row), x.cols), out.row(row));
}

}  // namespace pqrst
