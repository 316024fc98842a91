// Windows around centres.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>

#include "array.hpp"

namespace pqrst {

// x (L, T) -> out (n, L, length): samples centre - before, ..., beyond the ends the edge sample again.
template <class T>
void segment(View<const T> x, const std::int64_t* centers, std::ptrdiff_t n, std::ptrdiff_t length, std::ptrdiff_t before,
             T* out) {
  for (std::ptrdiff_t i = 0; i < n; ++i)
    if (centers[i] < -length || centers[i] >= x.cols + length)
      throw std::invalid_argument("centers: " + std::to_string(centers[i]) + " is more than a window of " +
                                  std::to_string(length) + " outside the signal of " + std::to_string(x.cols) + " samples");
  for (std::ptrdiff_t i = 0; i < n; ++i)
    for (std::ptrdiff_t lead = 0; lead < x.rows; ++lead) {
      const std::int64_t start = centers[i] - before;
      for (std::ptrdiff_t t = 0; t < length; ++t)
        *out++ = x.row(lead)[std::clamp<std::int64_t>(start + t, 0, x.cols - 1)];
    }
}

}  // namespace pqrst
