// Each row to mean 0 and deviation 1, or to 0..1. A constant row gives zeros; NaN stays in its row.
#pragma once

#include <cmath>
#include <cstddef>

#include "array.hpp"

namespace pqrst {

namespace detail {

template <class T>
struct Range {
  double low, high;
  bool finite;
};

template <class T>
Range<T> range_of(const T* x, std::ptrdiff_t n) {
  Range<T> r{static_cast<double>(x[0]), static_cast<double>(x[0]), true};
  for (std::ptrdiff_t i = 0; i < n; ++i) {
    const double value = x[i];
    r.finite = r.finite && std::isfinite(value);
    if (value < r.low) r.low = value;
    if (value > r.high) r.high = value;
  }
  return r;
}

}  // namespace detail

// Population deviation, as NumPy's default. out may be x.
template <class T>
void zscore(View<const T> x, View<T> out) {
  for (std::ptrdiff_t row = 0; row < x.rows; ++row) {
    const T* from = x.row(row);
    T* to = out.row(row);
    const auto range = detail::range_of(from, x.cols);
    const bool constant = range.finite && range.low == range.high;
    double sum = 0, squares = 0;
    for (std::ptrdiff_t i = 0; i < x.cols; ++i) sum += static_cast<double>(from[i]);
    const double mean = sum / static_cast<double>(x.cols);
    for (std::ptrdiff_t i = 0; i < x.cols; ++i) {
      const double d = static_cast<double>(from[i]) - mean;
      squares += d * d;
    }
    const double deviation = std::sqrt(squares / static_cast<double>(x.cols));
    for (std::ptrdiff_t i = 0; i < x.cols; ++i)
      to[i] = constant ? T{0} : static_cast<T>((static_cast<double>(from[i]) - mean) / deviation);
  }
}

template <class T>
void minmax(View<const T> x, View<T> out) {
  for (std::ptrdiff_t row = 0; row < x.rows; ++row) {
    const T* from = x.row(row);
    T* to = out.row(row);
    const auto range = detail::range_of(from, x.cols);
    const bool constant = range.finite && range.low == range.high;
    for (std::ptrdiff_t i = 0; i < x.cols; ++i)
      to[i] = constant ? T{0}
              : range.finite ? static_cast<T>((static_cast<double>(from[i]) - range.low) / (range.high - range.low))
                             : static_cast<T>(NAN);
  }
}

}  // namespace pqrst
