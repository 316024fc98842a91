// Scaling of each row to a common size: z-score (mean 0, standard deviation 1) and min-max (0..1).
//
// float64 inside, rounded once. A row whose smallest value is its largest becomes zeros; a row with a NaN or an
// infinity becomes NaN, whole, and no other row changes.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <limits>

#include "array.hpp"

namespace pqrst {

namespace detail {

struct Range {
  double low, high;
  double unit;  // a power of two that brings the row to about 1: exact, and no square of it over- or underflows
  bool finite;

  double size() const { return high * unit - low * unit; }
};

template <class T>
Range range_of(const T* x, std::ptrdiff_t n) {
  double low = x[0], high = x[0], outside = 0;
  for (std::ptrdiff_t i = 0; i < n; ++i) {
    const double value = x[i];
    low = std::min(low, value);
    high = std::max(high, value);
    outside += value - value;  // 0, or NaN for a NaN or an infinity
  }
  const double largest = std::max(std::abs(low), std::abs(high));
  const double unit =
      outside == 0 && largest > 0 ? std::ldexp(1.0, -std::clamp(std::ilogb(largest), -1022, 1022)) : 1.0;
  return {low, high, unit, outside == 0};
}

constexpr std::ptrdiff_t n_lanes = 8;

// Eight sums, lane i over samples i, i + 8, ..., joined in pairs: the same bits at every vector width.
template <class Term>
double sum_of(std::ptrdiff_t n, Term term) {
  std::array<double, n_lanes> lane{};
  std::ptrdiff_t i = 0;
  for (; i + n_lanes <= n; i += n_lanes)
    for (std::ptrdiff_t j = 0; j < n_lanes; ++j) lane[static_cast<std::size_t>(j)] += term(i + j);
  for (std::ptrdiff_t j = 0; i + j < n; ++j) lane[static_cast<std::size_t>(j)] += term(i + j);
  return ((lane[0] + lane[1]) + (lane[2] + lane[3])) + ((lane[4] + lane[5]) + (lane[6] + lane[7]));
}

// Zeros or NaN where there is nothing to scale; true if that was all.
template <class T>
bool is_special(const Range& range, T* out, std::ptrdiff_t n) {
  if (range.finite && range.low < range.high) return false;
  std::fill(out, out + n, range.finite ? T(0) : std::numeric_limits<T>::quiet_NaN());
  return true;
}

}  // namespace detail

// (x - mean) / std per row, std over all samples (ddof 0). out may be x itself.
template <class T>
void zscore(View<const T> x, View<T> out) {
  const std::ptrdiff_t n = x.cols;
  const double count = static_cast<double>(n);
  for (std::ptrdiff_t row = 0; row < x.rows; ++row) {
    const T* in = x.row(row);
    T* result = out.row(row);
    const detail::Range range = detail::range_of(in, n);
    if (detail::is_special(range, result, n)) continue;
    const auto value = [&](std::ptrdiff_t i) { return static_cast<double>(in[i]) * range.unit; };
    const double mean = detail::sum_of(n, value) / count;
    // the mean is rounded: what is left of it counts where a row varies little about a large mean
    const double rest = detail::sum_of(n, [&](std::ptrdiff_t i) { return value(i) - mean; }) / count;
    const double variance = detail::sum_of(n,
                                           [&](std::ptrdiff_t i) {
                                             const double d = value(i) - mean - rest;
                                             return d * d;
                                           }) /
                            count;
    const double deviation = std::sqrt(variance);
    for (std::ptrdiff_t i = 0; i < n; ++i) result[i] = static_cast<T>((value(i) - mean - rest) / deviation);
  }
}

// (x - min) / (max - min) per row, 0..1. out may be x itself.
template <class T>
void minmax(View<const T> x, View<T> out) {
  for (std::ptrdiff_t row = 0; row < x.rows; ++row) {
    const T* in = x.row(row);
    T* result = out.row(row);
    const detail::Range range = detail::range_of(in, x.cols);
    if (detail::is_special(range, result, x.cols)) continue;
    const double low = range.low * range.unit, size = range.size();
    for (std::ptrdiff_t i = 0; i < x.cols; ++i)
      result[i] = static_cast<T>((static_cast<double>(in[i]) * range.unit - low) / size);
  }
}

}  // namespace pqrst
