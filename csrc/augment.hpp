// Random changes of rows, the same for a row in any batch, process and order: its numbers come from a generator without
// a state, keyed by seed, epoch and row.
#pragma once

#include <cstddef>
#include <cstdint>

#include "half.hpp"
#include "kernels.hpp"

namespace pqrst {

// Amounts as config.Augmentation has them, in units of the row or as chances; 0 leaves it as it is.
struct Augmentation {
  double fs;  // Hz, of the rows
  double noise, gain, wander, shift_s, polarity, lead_dropout, lead_subset, time_mask_s;
  std::uint64_t seed;
  std::uint32_t epoch;
};

// Throws std::invalid_argument that names what is wrong.
void check(const Augmentation& augmentation);

// One row (n_leads, length) as float32 into `out`, its samples [first, last) changed.
void augment(const Augmentation& augmentation, std::uint64_t row, const float* x, std::ptrdiff_t n_leads,
             std::ptrdiff_t length, std::ptrdiff_t first, std::ptrdiff_t last, float* out);
void augment(const Augmentation& augmentation, std::uint64_t row, const Half* x, std::ptrdiff_t n_leads,
             std::ptrdiff_t length, std::ptrdiff_t first, std::ptrdiff_t last, float* out);

}  // namespace pqrst
