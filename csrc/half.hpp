// float32 -> IEEE 754 binary16, round to nearest even.
#pragma once

#include <cstdint>
#include <cstring>

namespace pqrst {

// A binary16 number in an array.
struct Half {
  std::uint16_t bits;
};

inline std::uint16_t to_half(float value) {
  std::uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  const auto sign = static_cast<std::uint16_t>((bits >> 16) & 0x8000u);
  bits &= 0x7fffffffu;
  if (bits > 0x7f800000u) return static_cast<std::uint16_t>(sign | 0x7e00u);   // NaN
  if (bits >= 0x477ff000u) return static_cast<std::uint16_t>(sign | 0x7c00u);  // rounds to infinity
  if (bits < 0x33000001u) return sign;                                         // rounds to zero
  if (bits < 0x38800000u) {                                                    // subnormal: align to 2^-24
    const unsigned shift = 126u - (bits >> 23);
    const std::uint32_t mantissa = (bits & 0x7fffffu) | 0x800000u;
    const std::uint32_t kept = mantissa >> shift;
    const std::uint32_t rest = mantissa & ((1u << shift) - 1u), tie = 1u << (shift - 1u);
    return static_cast<std::uint16_t>(sign | (kept + (rest > tie || (rest == tie && (kept & 1u)))));
  }
  const std::uint32_t rounded = bits + 0xfffu + ((bits >> 13) & 1u);
  return static_cast<std::uint16_t>(sign | ((rounded - 0x38000000u) >> 13));
}

}  // namespace pqrst
