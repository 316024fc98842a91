// Groups the beats of a record by the shape of their QRS, without labels.
#pragma once

#include <cstdint>
#include <vector>

#include "array.hpp"

namespace pqrst {

// One label per row of `shapes`, 0 for the group of most rows; -1 for a row of zeros or with values that are not
// finite.
//
// Shapes are alike by their correlation (the cosine of their angle). First, one pass in order: a row joins the nearest
// group if that is as near as `joins`, or founds one, up to kMostGroups (leader clustering, Hartigan 1975). Then every
// row takes the nearest mean, and means as near as `merges` become one, larger groups first. Linear in the rows.
std::vector<std::int32_t> cluster_shapes(View<const float> shapes, double joins, double merges);

constexpr std::ptrdiff_t kMostGroups = 64;

}  // namespace pqrst
