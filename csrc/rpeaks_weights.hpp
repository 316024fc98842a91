#pragma once

#include <array>

namespace pqrst::weights {
constexpr std::array<std::array<double, 25>, 1> hidden = {};
constexpr std::array<double, 1> hidden_bias = {};
constexpr std::array<double, 1> output = {};
constexpr double bias = 0;
}  // namespace pqrst::weights
