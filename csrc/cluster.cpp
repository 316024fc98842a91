#include "cluster.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

namespace pqrst {
namespace {

constexpr std::ptrdiff_t kLanes = 8;         // sums side by side, in an order that is the same on every machine
constexpr std::ptrdiff_t kRemembered = 100;  // rows over which the first pass averages a group

float dot(const float* a, const float* b, std::ptrdiff_t n) {
  float sums[kLanes] = {};
  std::ptrdiff_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (std::ptrdiff_t lane = 0; lane < kLanes; ++lane) sums[lane] += a[i + lane] * b[i + lane];
  for (; i < n; ++i) sums[0] += a[i] * b[i];
  return std::accumulate(sums, sums + kLanes, 0.0F);
}

// To length 1; false where there is no length.
bool normalise(float* x, std::ptrdiff_t n) {
  const float length = std::sqrt(dot(x, x, n));
  if (!(length > 0) || std::isinf(length)) return false;
  for (std::ptrdiff_t i = 0; i < n; ++i) x[i] /= length;
  return true;
}

// The row of `means` that is nearest to x, and how near; -1 where there is none.
std::pair<std::ptrdiff_t, float> nearest(const Array<float>& means, std::ptrdiff_t n_means, const float* x) {
  std::ptrdiff_t best = -1;
  float most = -2;
  for (std::ptrdiff_t mean = 0; mean < n_means; ++mean)
    if (const float near = dot(means.row(mean), x, means.cols); near > most) {
      most = near;
      best = mean;
    }
  return {best, most};
}

// The first pass: means of length 1, in the first rows of what is returned.
Array<float> found_groups(const Array<float>& rows, const std::vector<char>& usable, double joins,
                          std::ptrdiff_t& n_groups) {
  Array<float> sums(kMostGroups, rows.cols), means(kMostGroups, rows.cols);
  std::vector<std::ptrdiff_t> sizes;
  for (std::ptrdiff_t row = 0; row < rows.rows; ++row) {
    if (!usable[static_cast<std::size_t>(row)]) continue;
    const float* x = rows.row(row);
    const auto n = static_cast<std::ptrdiff_t>(sizes.size());
    const auto [group, near] = nearest(means, n, x);
    if (n == kMostGroups || (n > 0 && static_cast<double>(near) >= joins)) {
      auto& size = sizes[static_cast<std::size_t>(group)];
      size = std::min(size + 1, kRemembered);
      float* sum = sums.row(group);
      for (std::ptrdiff_t i = 0; i < rows.cols; ++i) sum[i] += (x[i] - sum[i]) / static_cast<float>(size);
      std::copy_n(sum, rows.cols, means.row(group));
      normalise(means.row(group), rows.cols);
    } else {
      std::copy_n(x, rows.cols, sums.row(n));
      std::copy_n(x, rows.cols, means.row(n));
      sizes.push_back(1);
    }
  }
  n_groups = static_cast<std::ptrdiff_t>(sizes.size());
  return means;
}

}  // namespace

std::vector<std::int32_t> cluster_shapes(View<const float> shapes, double joins, double merges) {
  Array<float> rows(shapes.rows, shapes.cols);
  std::vector<char> usable(static_cast<std::size_t>(shapes.rows));
  for (std::ptrdiff_t row = 0; row < shapes.rows; ++row) {
    std::copy_n(shapes.row(row), shapes.cols, rows.row(row));
    usable[static_cast<std::size_t>(row)] = normalise(rows.row(row), rows.cols);
  }
  std::ptrdiff_t n_groups = 0;
  Array<float> means = found_groups(rows, usable, joins, n_groups);

  std::vector<std::int32_t> labels(usable.size(), -1);
  std::vector<std::ptrdiff_t> sizes(static_cast<std::size_t>(n_groups));
  Array<float> sums(n_groups, rows.cols);
  std::fill(sums.values.begin(), sums.values.end(), 0.0F);
  for (std::ptrdiff_t row = 0; row < rows.rows; ++row) {
    if (!usable[static_cast<std::size_t>(row)]) continue;
    const std::ptrdiff_t group = nearest(means, n_groups, rows.row(row)).first;
    labels[static_cast<std::size_t>(row)] = static_cast<std::int32_t>(group);
    ++sizes[static_cast<std::size_t>(group)];
    for (std::ptrdiff_t i = 0; i < rows.cols; ++i) sums.row(group)[i] += rows.row(row)[i];
  }

  std::vector<std::ptrdiff_t> order(sizes.size());
  std::iota(order.begin(), order.end(), 0);
  const auto by_size = [&](auto& size_of) {
    return [&](auto a, auto b) { return size_of[static_cast<std::size_t>(a)] > size_of[static_cast<std::size_t>(b)]; };
  };
  std::stable_sort(order.begin(), order.end(), by_size(sizes));
  Array<float> kept(n_groups, rows.cols);  // means of the groups that stay
  std::vector<std::ptrdiff_t> stays_as(sizes.size(), -1), kept_sizes;
  for (const std::ptrdiff_t group : order) {
    if (!normalise(sums.row(group), rows.cols)) continue;  // nobody is left in it
    const auto n_kept = static_cast<std::ptrdiff_t>(kept_sizes.size());
    auto [place, near] = nearest(kept, n_kept, sums.row(group));
    if (n_kept == 0 || static_cast<double>(near) < merges) {
      place = n_kept;
      std::copy_n(sums.row(group), rows.cols, kept.row(place));
      kept_sizes.push_back(0);
    }
    stays_as[static_cast<std::size_t>(group)] = place;
    kept_sizes[static_cast<std::size_t>(place)] += sizes[static_cast<std::size_t>(group)];
  }

  std::vector<std::int32_t> places(kept_sizes.size()), rank(kept_sizes.size());
  std::iota(places.begin(), places.end(), 0);
  std::stable_sort(places.begin(), places.end(), by_size(kept_sizes));
  for (std::size_t i = 0; i < places.size(); ++i)
    rank[static_cast<std::size_t>(places[i])] = static_cast<std::int32_t>(i);
  for (auto& label : labels)
    if (label >= 0) label = rank[static_cast<std::size_t>(stays_as[static_cast<std::size_t>(label)])];
  return labels;
}

}  // namespace pqrst
