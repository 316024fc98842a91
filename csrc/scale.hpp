// Scaling of each row to a common size: z-score (mean 0, standard deviation 1) and min-max (0..1).
//
// float64 inside, rounded once. A row whose smallest value is its largest becomes zeros; a row with a NaN or an
// infinity becomes NaN, whole, and no other row changes.
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

constexpr Scaling unchanged{1, 0, 0, 1, false};

// How to take n values to mean 0 and standard deviation 1 (ddof 0), or from 0 to 1; they are finite and differ.
template <class T>
Scaling zscore_of(const T* x, std::ptrdiff_t n, const Extent& extent) {
  const double unit = detail::unit_of(extent), count = static_cast<double>(n);
  const double mean = (unit == 1 ? extent.sum : detail::moments(x, n, unit, 0).sum) / count;
  // the mean is rounded: what is left of it counts where a row varies little about a large mean
  const Moments about = detail::moments(x, n, unit, mean);
  const double rest = about.sum / count;
  return {unit, mean, rest, 1 / std::sqrt(about.squares / count - rest * rest), false};
}
inline Scaling minmax_of(const Extent& extent) {
  const double unit = detail::unit_of(extent);
  return {unit, extent.low * unit, 0, extent.high * unit - extent.low * unit, true};
}

namespace detail {

template <class T, class Method>
void scale_rows(View<const T> x, View<T> out, Method method) {
  for (std::ptrdiff_t row = 0; row < x.rows; ++row) {
    const Extent e = extent(x.row(row), x.cols);
    if (!e.finite)
      std::fill_n(out.row(row), x.cols, std::numeric_limits<T>::quiet_NaN());
    else if (e.low == e.high)
      std::fill_n(out.row(row), x.cols, T(0));
    else
      scale(x.row(row), x.cols, method(x.row(row), x.cols, e), out.row(row));
  }
}

}  // namespace detail

// (x - mean) / std per row. out may be x itself.
template <class T>
void zscore(View<const T> x, View<T> out) {
  detail::scale_rows(x, out, zscore_of<T>);
}

// (x - min) / (max - min) per row. out may be x itself.
template <class T>
void minmax(View<const T> x, View<T> out) {
  detail::scale_rows(x, out, [](const T*, std::ptrdiff_t, const Extent& e) { return minmax_of(e); });
}

}  // namespace pqrst
