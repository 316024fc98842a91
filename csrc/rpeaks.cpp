#include "rpeaks.hpp"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <limits>
#include <utility>

namespace pqrst {
namespace {
constexpr double kPi = 3.14159265358979323846;

double tune(const char* name, double value) {
  const char* s = std::getenv(name);
  return s ? std::atof(s) : value;
}
struct P {
  double min_rate = tune("MIN_RATE", 125), low_hz = tune("LOW", 5), high_hz = tune("HIGH", 22);
  double half_band = tune("HALF_BAND", 0.2), smooth = tune("SMOOTH", 0.05);
  double block = tune("BLOCK", 1.0), half_level = tune("HALF_LEVEL", 5), quantile = tune("Q", 0.6);
  double inner = tune("INNER", 0.13), outer = tune("OUTER", 0.32);
  double min_h = tune("MIN_H", 0.08), separation = tune("SEP", 0.08);
  double refractory = tune("REFR", 0.2), look = tune("LOOK", 6);
  double w0 = tune("W0", 1.2), wh = tune("WH", 1), wi = tune("WI", 1), cap = tune("CAP", 0.5);
  double early = tune("EARLY", 0.5), early_s = tune("EARLY_S", 0.4), t_cost = tune("TC", 1), t_s = tune("TS", 0.45);
  double gap = tune("GAP", 1), gap_s = tune("GAP_S", 1.2), gap_max = tune("GAP_MAX", 2);
  double wpow = tune("WPOW", 2), wref = tune("WREF", 3);
  double ref = tune("REFINE", 0.08);
} p;

double dot(const double* a, const double* b, std::int64_t n) {
  double s[4] = {0, 0, 0, 0};
  std::int64_t i = 0;
  for (; i + 4 <= n; i += 4)
    for (int j = 0; j < 4; ++j) s[j] += a[i + j] * b[i + j];
  for (; i < n; ++i) s[0] += a[i] * b[i];
  return (s[0] + s[1]) + (s[2] + s[3]);
}
std::vector<double> hann(std::int64_t half) {
  std::vector<double> w;
  double sum = 0;
  for (std::int64_t i = -half; i <= half; ++i) {
    w.push_back(0.5 + 0.5 * std::cos(kPi * i / (half + 1.0)));
    sum += w.back();
  }
  for (double& v : w) v /= sum;
  return w;
}
double quantile(std::vector<double> v, double q) {
  if (v.empty()) return 0;
  const auto i = static_cast<std::ptrdiff_t>(q * static_cast<double>(v.size() - 1) + 0.5);
  std::nth_element(v.begin(), v.begin() + i, v.end());
  return v[static_cast<std::size_t>(i)];
}
}  // namespace

RPeakDetector::RPeakDetector(double fs, std::ptrdiff_t n_leads) : fs_(fs) {
  p = P();
  step_ = std::max<std::int64_t>(1, static_cast<std::int64_t>(fs / p.min_rate));
  fa_ = fs / step_;
  block_ = std::llround(p.block * fa_);
  half_low_ = step_ > 1 ? 2 * step_ : 0;
  low_taps_ = hann(half_low_);
  half_band_ = std::llround(p.half_band * fa_);
  double sum = 0, wsum = 0;
  std::vector<double> win;
  for (std::int64_t i = -half_band_; i <= half_band_; ++i) {
    const double t = i / fa_, w = 0.5 + 0.5 * std::cos(kPi * i / (half_band_ + 1.0));
    const double a = 2 * kPi * p.low_hz, b = 2 * kPi * p.high_hz;
    even_taps_.push_back(i == 0 ? (b - a) / kPi / fa_ : w * (std::sin(b * t) - std::sin(a * t)) / (kPi * t) / fa_);
    odd_taps_.push_back(i == 0 ? 0 : w * (std::cos(a * t) - std::cos(b * t)) / (kPi * t) / fa_);
    win.push_back(w);
    sum += even_taps_.back();
    wsum += w;
  }
  for (std::size_t i = 0; i < win.size(); ++i) even_taps_[i] -= sum * win[i] / wsum;
  half_smooth_ = std::llround(p.smooth * fa_);
  smooth_taps_ = hann(half_smooth_);
  half_level_ = std::llround(p.half_level / p.block);
  leads_.resize(static_cast<std::size_t>(n_leads));
  for (Lead& lead : leads_) {
    lead.raw = detail::Track(-half_low_ - step_);
    for (std::int64_t i = 0; i < half_low_ + step_; ++i) lead.raw.push(0);
    lead.low = detail::Track(-half_band_);
    for (std::int64_t i = 0; i < half_band_; ++i) lead.low.push(0);
    lead.rough = detail::Track(-half_smooth_);
    for (std::int64_t i = 0; i < half_smooth_; ++i) lead.rough.push(0);
  }
}

double RPeakDetector::look_ahead_s() const { return p.look + p.half_level + 2; }

template <class T>
std::vector<std::int64_t> RPeakDetector::push(View<const T> chunk) {
  if (finished_) throw std::invalid_argument("push: finished");
  for (std::ptrdiff_t l = 0; l < chunk.rows; ++l) {
    Lead& lead = leads_[static_cast<std::size_t>(l)];
    const T* x = chunk.row(l);
    for (std::ptrdiff_t i = 0; i < chunk.cols; ++i) {
      const double v = static_cast<double>(x[i]);
      if (std::abs(v) < 1e100) {
        if (!lead.seen || lead.in_gap) lead.shift = v - lead.held;
        lead.seen = true;
        lead.in_gap = false;
        lead.held = v - lead.shift;
      } else {
        lead.in_gap = true;
      }
      lead.raw.push(lead.held);
    }
  }
  n_samples_ += chunk.cols;
  advance(false);
  return std::exchange(beats_, {});
}
template std::vector<std::int64_t> RPeakDetector::push(View<const float>);
template std::vector<std::int64_t> RPeakDetector::push(View<const double>);

std::vector<std::int64_t> RPeakDetector::finish() {
  if (finished_) return {};
  finished_ = true;
  for (Lead& lead : leads_)
    for (std::int64_t i = 0; i < half_low_ + (half_band_ + half_smooth_ + 1) * step_; ++i) lead.raw.push(lead.held);
  advance(true);
  return std::exchange(beats_, {});
}

void RPeakDetector::filter(Lead& lead, std::int64_t until) {
  const auto n_low = 2 * half_low_ + 1, n_band = 2 * half_band_ + 1, n_smooth = 2 * half_smooth_ + 1;
  for (std::int64_t k = lead.low.end(); k < until + half_band_ + half_smooth_; ++k)
    lead.low.push(half_low_ ? dot(lead.raw.at(k * step_ - half_low_), low_taps_.data(), n_low) : lead.raw[k * step_]);
  for (std::int64_t k = lead.rough.end(); k < until + half_smooth_; ++k) {
    const double* x = lead.low.at(k - half_band_);
    const double e = dot(x, even_taps_.data(), n_band), o = dot(x, odd_taps_.data(), n_band);
    lead.rough.push(std::sqrt(e * e + o * o));
  }
  for (std::int64_t k = lead.envelope.end(); k < until; ++k)
    lead.envelope.push(dot(lead.rough.at(k - half_smooth_), smooth_taps_.data(), n_smooth));
  lead.low.forget_before(until - half_band_);
  lead.rough.forget_before(until - half_smooth_);
}

void RPeakDetector::advance(bool last) {
  const std::int64_t n_low = (leads_[0].raw.end() - half_low_ - 1) / step_ + 1;  // low-passed samples within reach
  const std::int64_t n_all = (n_samples_ + step_ - 1) / step_;
  for (;;) {
    std::int64_t end = (n_blocks_ + 1) * block_;
    const bool partial = last && end >= n_all;
    if (partial) end = n_all;
    if (!partial && end + half_band_ + half_smooth_ > n_low) break;
    for (Lead& lead : leads_) {
      filter(lead, end);
      std::vector<double> v(lead.envelope.at(n_blocks_ * block_), lead.envelope.at(n_blocks_ * block_) + (end - n_blocks_ * block_));
      lead.block_max.push_back(v.empty() ? 0 : *std::max_element(v.begin(), v.end()));
      lead.block_median.push_back(quantile(v, 0.5));
    }
    ++n_blocks_;
    const std::int64_t ready = n_blocks_ - half_level_;
    if (ready >= 1) set_gains(ready - 1, n_blocks_);
    if (ready >= 2) {
      fuse(ready - 2, ready, n_all);
      find_candidates((ready - 1) * block_ - std::llround(p.outer * fa_), n_all);
      settle((ready - 1) * block_, (ready - 1) * block_ - std::llround(p.look * fa_));
    }
    if (partial) {
      for (std::int64_t b = std::max<std::int64_t>(0, ready); b < n_blocks_; ++b) set_gains(b, n_blocks_);
      for (std::int64_t b = std::max<std::int64_t>(0, ready - 1); b < n_blocks_; ++b) fuse(b, n_blocks_, n_all);
      for (std::int64_t i = 0; i < std::llround(p.outer * fa_) + 1; ++i) fused_.push(0);
      find_candidates(n_all, n_all);
      settle(n_all, n_all);
      break;
    }
    const std::int64_t keep = (ready - 3) * block_ - std::llround(p.look * fa_) - block_;
    for (Lead& lead : leads_) {
      lead.raw.forget_before(keep * step_);
      lead.envelope.forget_before(keep);
    }
    fused_.forget_before(keep);
  }
}

void RPeakDetector::set_gains(std::int64_t b, std::int64_t n_blocks) {
  const std::int64_t first = std::max<std::int64_t>(0, b - half_level_), end = std::min(n_blocks, b + half_level_ + 1);
  double total = 0;
  for (Lead& lead : leads_) {
    std::vector<double> v(lead.block_max.begin() + first, lead.block_max.begin() + end);
    std::vector<double> m(lead.block_median.begin() + first, lead.block_median.begin() + end);
    v.erase(std::remove(v.begin(), v.end(), 0.0), v.end());
    const double level = quantile(v, p.quantile), floor = quantile(m, 0.5);
    double w = 0;
    if (level > 0) {
      w = 1 - std::min(1.0, p.wref * floor / level);
      w = std::pow(w, p.wpow) + 1e-3;
      total += w;
      w /= level;
    }
    lead.gain.push_back(w);
  }
  for (Lead& lead : leads_) lead.gain.back() = total > 0 ? lead.gain.back() / total : 0;
}

void RPeakDetector::fuse(std::int64_t b, std::int64_t n_blocks, std::int64_t end) {
  end = std::min(end, (b + 1) * block_);
  for (std::int64_t k = b * block_; k < end; ++k) {
    const double x = (k - b * block_ + 0.5) / block_ - 0.5;  // -0.5..0.5 from the block's centre
    const std::int64_t other = std::clamp<std::int64_t>(x < 0 ? b - 1 : b + 1, 0, n_blocks - 1);
    double sum = 0;
    for (const Lead& lead : leads_) {
      const double g = lead.gain[b] + std::abs(x) * (lead.gain[other] - lead.gain[b]);
      sum += g * lead.envelope[k];
    }
    fused_.push(sum);
  }
}

void RPeakDetector::find_candidates(std::int64_t until, std::int64_t end) {
  const std::int64_t sep = std::llround(p.separation * fa_), inner = std::llround(p.inner * fa_),
                     outer = std::llround(p.outer * fa_), wide = std::llround(1.0 * fa_);
  for (; next_candidate_ < until; ++next_candidate_) {
    const std::int64_t k = next_candidate_;
    const double h = fused_[k];
    if (h < p.min_h) continue;
    const double* f = fused_.at(0 > fused_.begin() ? 0 : fused_.begin());
    (void)f;
    bool peak = true;
    for (std::int64_t i = std::max<std::int64_t>(0, k - sep); i < k && peak; ++i) peak = fused_[i] < h;
    for (std::int64_t i = k + 1; i <= std::min(end - 1, k + sep) && peak; ++i) peak = fused_[i] <= h;
    if (!peak) continue;
    Candidate c;
    c.k = k;
    c.height = h;
    int n = 0;
    for (std::int64_t i = std::max<std::int64_t>(0, k - outer); i <= k - inner; ++i, ++n) {
      c.left += fused_[i];
      c.left_max = std::max(c.left_max, fused_[i]);
    }
    c.left /= std::max(n, 1);
    n = 0;
    for (std::int64_t i = k + inner; i <= std::min(end - 1, k + outer); ++i, ++n) {
      c.right += fused_[i];
      c.right_max = std::max(c.right_max, fused_[i]);
    }
    c.right /= std::max(n, 1);
    std::vector<double> around;
    for (std::int64_t i = std::max<std::int64_t>(0, k - wide); i < std::min(fused_.end(), k + outer); i += 4) around.push_back(fused_[i]);
    c.floor = quantile(around, 0.5);
    const double side = 0.5 * (c.left + c.right);
    c.reward = p.w0 + p.wh * std::min(p.cap, std::log(h)) + p.wi * (std::log(h / (side + c.floor)) - 1);
    add(c);
  }
}

double RPeakDetector::pair_cost(double dt, double h_i, double h_j) const {
  double cost = 0;
  if (dt < p.early_s) cost += p.early * (p.early_s - dt) / (p.early_s - p.refractory);
  if (dt < p.t_s && h_j < h_i) cost += p.t_cost * std::log(h_i / h_j);
  if (dt > p.gap_s) cost += std::min(p.gap_max, p.gap * std::log(dt / p.gap_s));
  return cost;
}

void RPeakDetector::add(Candidate c) {
  const double t = c.k / fa_;
  // the path may begin here
  c.score = last_settled_ < 0 ? c.reward - (t > p.gap_s ? pair_cost(t, 1, 1) : 0) : -1e300;
  c.previous = -1;
  for (std::size_t i = 0; i < nodes_.size(); ++i) {
    const double dt = t - nodes_[i].k / fa_;
    if (dt < p.refractory) break;
    const double s = nodes_[i].score + c.reward - pair_cost(dt, nodes_[i].height, c.height);
    if (s > c.score) {
      c.score = s;
      c.previous = first_node_ + static_cast<std::int64_t>(i);
    }
  }
  nodes_.push_back(c);
  if (std::getenv("DUMP")) log.push_back(c);
}

void RPeakDetector::settle(std::int64_t now, std::int64_t before) {
  if (nodes_.empty()) return;
  double best = last_settled_ < 0 ? -pair_cost(now / fa_, 1, 1) : -1e299;
  std::int64_t end = -1;
  for (std::size_t i = 0; i < nodes_.size(); ++i) {
    const double dt = (now - nodes_[i].k) / fa_, s = nodes_[i].score - (dt > p.gap_s ? pair_cost(dt, 1, 1) : 0);
    if (s > best) best = s, end = first_node_ + static_cast<std::int64_t>(i);
  }
  std::vector<std::int64_t> path;
  for (std::int64_t i = end; i > last_settled_ && i >= 0; i = nodes_[static_cast<std::size_t>(i - first_node_)].previous)
    if (nodes_[static_cast<std::size_t>(i - first_node_)].k < before) path.push_back(i);
  if (path.empty()) return;
  std::reverse(path.begin(), path.end());
  for (std::int64_t i : path) beats_.push_back(refine(nodes_[static_cast<std::size_t>(i - first_node_)]));
  last_settled_ = path.back();
  nodes_.erase(nodes_.begin(), nodes_.begin() + (last_settled_ - first_node_));
  first_node_ = last_settled_;
  for (std::size_t i = 1; i < nodes_.size(); ++i) {
    Candidate& c = nodes_[i];
    const bool ok = c.previous >= first_node_ && nodes_[static_cast<std::size_t>(c.previous - first_node_)].score > -1e299;
    if (!ok) c.score = -1e300;
  }
}

std::int64_t RPeakDetector::refine(const Candidate& c) {
  std::size_t best = 0;
  double most = -1;
  const std::size_t b = static_cast<std::size_t>(c.k / block_);
  for (std::size_t l = 0; l < leads_.size(); ++l) {
    const double v = leads_[l].gain[b] * leads_[l].envelope[c.k];
    if (v > most) most = v, best = l;
  }
  Lead& lead = leads_[best];
  const std::int64_t centre = c.k * step_, r = std::llround(p.ref * fs_), half = std::llround(0.01 * fs_);
  const std::int64_t first = std::max<std::int64_t>(0, centre - r), end = std::min(n_samples_, centre + r + 1);
  const std::vector<double> w = hann(half);
  const std::int64_t b0 = std::max<std::int64_t>(0, centre - 2 * r), b1 = std::min(n_samples_, centre + 2 * r + 1);
  double mean = 0;
  for (std::int64_t i = b0; i < b1; ++i) mean += lead.raw[i];
  mean /= (b1 - b0);
  double high = -1e300, low = 1e300;
  std::int64_t at_high = centre, at_low = centre;
  for (std::int64_t i = first; i < end; ++i) {
    double z = 0;
    for (std::int64_t j = -half; j <= half; ++j)
      z += w[static_cast<std::size_t>(j + half)] * lead.raw[std::clamp<std::int64_t>(i + j, 0, n_samples_ - 1)];
    const double away = 1 - 0.5 * std::pow((i - centre) / (r + 1.0), 2);
    z = (z - mean) * away;
    if (z > high) high = z, at_high = i;
    if (z < low) low = z, at_low = i;
  }
  const double sum = high - low;
  const double d = sum > 0 ? (high + low) / sum : 0;  // -1..1
  const bool up = d + 0.5 * lead.polarity > 0;
  lead.polarity += 0.1 * (d - lead.polarity);
  return up ? at_high : at_low;
}

}  // namespace pqrst
