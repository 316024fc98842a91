#pragma once

#include <cstdint>
#include <vector>

#include "array.hpp"

namespace pqrst {

namespace detail {

// The recent part of an endless series: indices are absolute and may be negative, what lies before `first` is gone.
class Track {
 public:
  explicit Track(std::int64_t first = 0) : first_(first) {}
  void push(double value) { values_.push_back(value); }
  std::int64_t end() const { return first_ + static_cast<std::int64_t>(values_.size()); }
  std::int64_t begin() const { return first_; }
  const double* at(std::int64_t i) const { return values_.data() + (i - first_); }
  double operator[](std::int64_t i) const { return *at(i); }
  // Forget what lies before `i`. Moves the rest only when it is the smaller half: constant work per sample.
  void forget_before(std::int64_t i) {
    const std::int64_t n = i - first_;
    if (n <= 4096 || n < end() - i) return;
    values_.erase(values_.begin(), values_.begin() + n);
    first_ = i;
  }

 private:
  std::vector<double> values_;
  std::int64_t first_;
};

}  // namespace detail

class RPeakDetector {
 public:
  RPeakDetector(double fs, std::ptrdiff_t n_leads);
  template <class T>
  std::vector<std::int64_t> push(View<const T> chunk);
  std::vector<std::int64_t> finish();
  double look_ahead_s() const;
  std::ptrdiff_t n_leads() const { return static_cast<std::ptrdiff_t>(leads_.size()); }
  double fs() const { return fs_; }

  struct Candidate {
    std::int64_t k = 0;
    double height = 0, left = 0, right = 0, left_max = 0, right_max = 0, floor = 0, reward = 0;
    double score = 0;
    std::int64_t previous = -1;
    bool chosen_path = true;
  };
  std::vector<Candidate> log;  // dev

 private:
  struct Lead {
    detail::Track raw, low, rough, envelope;
    bool seen = false, in_gap = false;
    double held = 0, shift = 0;
    std::int64_t n_valid = 0;
    std::vector<double> block_max, block_median;
    std::vector<double> gain;
    double polarity = 0;
  };
  void advance(bool last);
  void filter(Lead& lead, std::int64_t until);
  void close_block(std::int64_t b, std::int64_t n);
  void set_gains(std::int64_t b, std::int64_t n_blocks);
  void fuse(std::int64_t b, std::int64_t n_blocks, std::int64_t end);
  void find_candidates(std::int64_t until, std::int64_t end);
  void add(Candidate c);
  void settle(std::int64_t now, std::int64_t before);
  double pair_cost(double dt_s, double h_i, double h_j) const;
  std::int64_t refine(const Candidate& c);

  double fs_, fa_;
  std::int64_t step_, block_, half_low_, half_band_, half_smooth_, half_level_;
  std::vector<double> low_taps_, even_taps_, odd_taps_, smooth_taps_;
  std::vector<Lead> leads_;
  detail::Track fused_;
  std::int64_t n_samples_ = 0, n_blocks_ = 0, n_gains_ = 0, next_candidate_ = 0;
  std::int64_t first_node_ = 0;
  std::vector<Candidate> nodes_;
  std::int64_t last_settled_ = -1;
  std::vector<std::int64_t> beats_;
  bool finished_ = false;
};

template <class T>
std::vector<std::int64_t> rpeaks(View<const T> x, double fs) {
  RPeakDetector detector(fs, x.rows);
  std::vector<std::int64_t> beats = detector.push(x);
  const std::vector<std::int64_t> rest = detector.finish();
  beats.insert(beats.end(), rest.begin(), rest.end());
  return beats;
}

}  // namespace pqrst
