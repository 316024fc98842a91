// Sine, cosine, logarithm and complex square root out of the operations that every machine rounds alike: sums,
// products, quotients and square roots. C libraries differ in the last bit of theirs, glibc even from processor to
// processor, and a filter designed with them would too. Good to 2 units in the last place, which a test holds.
#pragma once

#include <cmath>
#include <complex>
#include <limits>

namespace pqrst {

constexpr double pi = 3.141592653589793238462643383279502884;

namespace detail {

// The first ten terms of Taylor's series, in nested form: cos(y) for `odd` 0, sin(y) / y for `odd` 1. What is left out
// is below 1e-17 for |y| <= pi / 4.
inline double taylor(double y, int odd) {
  double sum = 1;
  for (int k = 18 + odd; k > odd; k -= 2) sum = 1 - y * y / (k * (k - 1)) * sum;
  return sum;
}

}  // namespace detail

// sin(pi x), exactly 0 and +-1 where it should be.
inline double sin_pi(double x) {
  double turn = x - 2 * std::round(x / 2);                         // -1..1, without rounding
  if (std::abs(turn) > 0.5) turn = std::copysign(1, turn) - turn;  // -0.5..0.5, as well
  if (std::abs(turn) <= 0.25) return pi * turn * detail::taylor(pi * turn, 1);
  return std::copysign(detail::taylor(pi * (0.5 - std::abs(turn)), 0), turn);
}

// cos(pi x)
inline double cos_pi(double x) {
  return sin_pi(0.5 - std::abs(x - 2 * std::round(x / 2)));
}

// The natural logarithm of x >= 0.
inline double natural_log(double x) {
  if (x == 0) return -std::numeric_limits<double>::infinity();
  int exponent = 0;
  double part = std::frexp(x, &exponent);  // 0.5..1
  if (part < 0.7071067811865476) part *= 2, --exponent;
  // log(part) = 2 (s + s^3 / 3 + s^5 / 5 + ...); what is left out is below 1e-18
  const double s = (part - 1) / (part + 1);  // -0.172..0.172
  double sum = 0;
  for (int k = 21; k > 1; k -= 2) sum = s * s * (1.0 / k + sum);
  constexpr double log_2 = 0.693147180559945309417232121458176568;
  return exponent * log_2 + 2 * (s + s * sum);
}

// The root in the right half plane. For |z|^2 that neither overflows nor vanishes.
inline std::complex<double> square_root(std::complex<double> z) {
  const double size = std::sqrt(z.real() * z.real() + z.imag() * z.imag());
  const double larger = std::sqrt((std::abs(z.real()) + size) / 2);
  const double smaller = std::abs(z.imag()) / (2 * larger);
  return z.real() >= 0 ? std::complex<double>(larger, std::copysign(smaller, z.imag()))
                       : std::complex<double>(smaller, std::copysign(larger, z.imag()));
}

}  // namespace pqrst
