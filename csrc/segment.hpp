// Windows of equal length around given samples (beats around their R peaks).
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>

#include "array.hpp"

namespace pqrst {

// out (n, leads, length): window i holds samples centers[i] - before .. centers[i] - before + length - 1. Beyond the
// signal its edge sample is repeated: a step there would look like a wave.
template <class T>
void segment(View<const T> x, const std::int64_t* centers, std::ptrdiff_t n, std::ptrdiff_t length,
             std::ptrdiff_t before, T* out) {
  const auto text = [](std::int64_t value) { return std::to_string(value); };
  if (length < 1) throw std::invalid_argument("length " + text(length) + ": must be at least 1");
  if (before < 0 || before > length)
    throw std::invalid_argument("before " + text(before) + ": must be from 0 to length = " + text(length));
  for (std::ptrdiff_t i = 0; i < n; ++i)  // written so that nothing overflows, whatever the length
    if (centers[i] < -length || centers[i] - length >= x.cols)
      throw std::invalid_argument("centers[" + text(i) + "] " + text(centers[i]) + ": more than one window (length " +
                                  text(length) + ") outside the signal, 0 .. " + text(x.cols - 1));
  for (std::ptrdiff_t i = 0; i < n; ++i) {
    const std::ptrdiff_t start = centers[i] - before;
    const std::ptrdiff_t begin = std::clamp<std::ptrdiff_t>(-start, 0, length);        // first inside the signal
    const std::ptrdiff_t end = std::clamp<std::ptrdiff_t>(x.cols - start, 0, length);  // first beyond it
    for (std::ptrdiff_t lead = 0; lead < x.rows; ++lead, out += length) {
      const T* in = x.row(lead);
      std::fill(out, out + begin, in[0]);
      if (begin < end) std::copy(in + start + begin, in + start + end, out + begin);
      std::fill(out + end, out + length, in[x.cols - 1]);
    }
  }
}

}  // namespace pqrst
