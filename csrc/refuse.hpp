// How an argument is refused: what was given, what is possible. Becomes ValueError.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdio>
#include <limits>
#include <stdexcept>
#include <string>

namespace pqrst {

inline std::string number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.15g", value);
  return text;
}

// refuse("high_hz", 60, "must be below fs / 2 = 50") throws "high_hz 60: must be below fs / 2 = 50".
[[noreturn]] inline void refuse(const std::string& argument, double value, const std::string& limit) {
  throw std::invalid_argument(argument + " " + number(value) + ": " + limit);
}

inline void check_rate(const std::string& argument, double fs) {
  if (!(fs > 0) || std::isinf(fs)) refuse(argument, fs, "must be a finite rate in Hz, above 0");
}

// a * b as a size; `what` is named if no array can be that large.
inline std::ptrdiff_t checked_product(const std::string& what, std::ptrdiff_t a, std::ptrdiff_t b) {
  if (a != 0 && b > std::numeric_limits<std::ptrdiff_t>::max() / a)
    throw std::invalid_argument(what + ": " + std::to_string(a) + " x " + std::to_string(b) +
                                " is more than fits an array");
  return a * b;
}

}  // namespace pqrst
