#include "rpeaks.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "kernels.hpp"

namespace pqrst {
namespace {

// ---- Envelope
constexpr double kAnalysisHz = 125;  // lowest rate of the analysis: over twice any frequency it looks at
constexpr double kLowHz = 7;    // below: T waves, wander, breathing (the short filter is soft: half at 7, little at 4)
constexpr double kHighHz = 25;  // above: muscle and mains
constexpr double kHalfBandS = 0.2;       // the filter reaches one period of its lower edge to either side
constexpr double kHalfSmoothS = 0.0375;  // joins the lobes of one wide QRS, keeps beats 200 ms apart distinct

// ---- Level of a lead: the typical height of its QRS
constexpr double kBlockS = 1.0;         // two neighbours hold a QRS down to 30 bpm, and most pairs down to 25
constexpr double kHalfLevel = 5;        // blocks to either side: short enough to follow a change of gain
constexpr double kLevelQuantile = 0.4;  // robust: half of the windows may hold a burst, a few no beat
constexpr double kLevelDrop = 0.05;     // a lead that fell below this part of its level is off, not small ...
constexpr double kLevelMemoryS = 30;    // ... for about this long
constexpr double kNoiseRatio = 3.0;     // noise alone has a block maximum of about 3 times its median
constexpr double kWeightPower = 3.0;    // how sharply the clearer lead is preferred
constexpr double kLeastWeight = 1e-3;   // of a lead that shows nothing: alone, it still counts

// ---- Candidates and their rewards (log-odds: natural logarithms of ratios, weighted)
constexpr double kLeastHeight = 0.08;     // of a typical QRS
constexpr double kSeparationS = 0.08;     // one QRS makes one candidate
constexpr double kInnerS = 0.13;          // isolation is judged from beyond half a wide QRS ...
constexpr double kOuterS = 0.28;          // ... to short of the peak of most T waves
constexpr double kFloor = 0.075;          // of a typical QRS: what counts as quiet
constexpr double kMostIsolated = 2.0;     // log ratio beyond which isolation says no more
constexpr double kReward = 1.6;           // a typical QRS among quiet is worth a few times the cost of being early
constexpr double kRewardHeight = 1.0;     // fitted with the next by logistic regression, then rounded
constexpr double kRewardIsolation = 2.5;  // what matters most

// ---- Sequence
constexpr double kRefractoryS = 0.2;  // the ventricle does not answer sooner
constexpr double kEarlyS = 0.7;       // a beat sooner after the last is rarer ...
constexpr double kEarlyCost = 0.5;    // ... linearly, this much at the refractory time
constexpr double kTWaveS = 0.42;      // a peak so soon and lower is rather the T wave ...
constexpr double kTWaveCost = 1.0;    // ... by this times the log ratio of heights
constexpr double kGapS = 1.0;         // a longer gap is rarer, linearly ...
constexpr double kGapCost = 0.8;      // ... per second ...
constexpr double kMostGapCost = 2.5;  // ... up to a pause or a lead that fell off
constexpr double kSettleS = 6;        // paths that end now agree on what lies this far back

// ---- Position
constexpr double kReachS = 0.08;         // the R peak lies within a wide QRS's half of the envelope's
constexpr double kHalfRefineS = 0.01;    // light smoothing: noise moves the extremum less, the R peak not
constexpr double kPolarityMemory = 0.1;  // weight of the newest beat in the lead's polarity
constexpr double kPolarityWeight = 0.5;  // a beat follows it unless its own waves clearly say otherwise

constexpr double kLargest = 1e100;  // beyond: a gap, as infinity is; squares stay finite
constexpr double kPi = 3.14159265358979323846;

// Symmetric window of 2 half + 1 taps, not zero at its ends.
double hann(std::int64_t i, std::int64_t half) {
  return 0.5 + 0.5 * std::cos(kPi * static_cast<double>(i) / static_cast<double>(half + 1));
}

std::vector<double> smoother(std::int64_t half) {
  std::vector<double> taps;
  double sum = 0;
  for (std::int64_t i = -half; i <= half; ++i) sum += taps.emplace_back(hann(i, half));
  for (double& tap : taps) tap /= sum;
  return taps;
}

// Eight sums in fixed order: a plain loop waits for each addition.
double dot(const double* a, const std::vector<double>& b) {
  const std::size_t n = b.size();
  double sum[8] = {};
  std::size_t i = 0;
  for (; i + 8 <= n; i += 8)
    for (std::size_t j = 0; j < 8; ++j) sum[j] += a[i + j] * b[i + j];
  for (; i < n; ++i) sum[0] += a[i] * b[i];
  return ((sum[0] + sum[1]) + (sum[2] + sum[3])) + ((sum[4] + sum[5]) + (sum[6] + sum[7]));
}

void correlate(const double* x, const std::vector<double>& taps, std::int64_t n, double* out) {
  kernels().correlate(x, taps.data(), static_cast<std::ptrdiff_t>(taps.size()), n, out);
}

// The value below which `part` of the values lie; 0 of none.
double quantile(std::vector<double> values, double part) {
  if (values.empty()) return 0;
  const auto middle = values.begin() + std::llround(part * static_cast<double>(values.size() - 1));
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

// What it costs to go `gap_s` without a beat.
double gap_cost(double gap_s) {
  return std::clamp(kGapCost * (gap_s - kGapS), 0.0, kMostGapCost);
}

}  // namespace

RPeakDetector::RPeakDetector(double fs, std::ptrdiff_t n_leads) : fs_(fs) {
  if (!(fs >= 50 && fs <= 10000))  // also not a number
    throw std::invalid_argument("fs " + std::to_string(fs) + ": R peaks need 50 to 10000 Hz; resample first");
  if (n_leads < 1 || n_leads > 1024)
    throw std::invalid_argument("n_leads " + std::to_string(n_leads) + ": must be 1 to 1024");
  step_ = std::max<std::int64_t>(1, static_cast<std::int64_t>(fs / kAnalysisHz));
  analysis_fs_ = fs / static_cast<double>(step_);
  const auto samples = [this](double seconds) { return std::llround(seconds * analysis_fs_); };
  block_ = samples(kBlockS);
  inner_ = samples(kInnerS);
  outer_ = samples(kOuterS);
  separation_ = samples(kSeparationS);
  look_ahead_ = samples(kSettleS);

  half_low_ = step_ > 1 ? 2 * step_ : 0;  // the first zero at half the analysis rate
  low_taps_ = smoother(half_low_);
  half_smooth_ = samples(kHalfSmoothS);
  smooth_taps_ = smoother(half_smooth_);
  refine_taps_ = smoother(std::llround(kHalfRefineS * fs));

  // The ideal band-pass and its Hilbert transform, windowed; the even one's response at 0 Hz taken away.
  half_band_ = samples(kHalfBandS);
  const double low = 2 * kPi * kLowHz / analysis_fs_, high = 2 * kPi * kHighHz / analysis_fs_;
  double sum = 0, sum_window = 0;
  for (std::int64_t i = -half_band_; i <= half_band_; ++i) {
    const double t = static_cast<double>(i), w = hann(i, half_band_);
    sum +=
        even_taps_.emplace_back(i == 0 ? (high - low) / kPi : w * (std::sin(high * t) - std::sin(low * t)) / (kPi * t));
    odd_taps_.push_back(i == 0 ? 0 : w * (std::cos(low * t) - std::cos(high * t)) / (kPi * t));
    sum_window += w;
  }
  for (std::int64_t i = -half_band_; i <= half_band_; ++i)
    even_taps_[static_cast<std::size_t>(i + half_band_)] -= hann(i, half_band_) * sum / sum_window;

  // Ahead of the first sample lies its repetition, which after the removal of the offset is zero.
  leads_.resize(static_cast<std::size_t>(n_leads));
  for (Lead& lead : leads_) {
    lead.signal = detail::Track(half_low_);
    lead.low = detail::Track(half_band_);
    lead.rough = detail::Track(half_smooth_);
  }
}

double RPeakDetector::look_ahead_s() const {
  // a beat may just miss one settling, and is settled with the next block, when that block's levels are known
  const std::int64_t blocks = 3 + static_cast<std::int64_t>(kHalfLevel);
  const std::int64_t n = blocks * block_ + look_ahead_ + half_band_ + half_smooth_;
  return static_cast<double>(n * step_ + half_low_ + std::llround(kReachS * fs_)) / fs_;
}

template <class T>
std::vector<std::int64_t> RPeakDetector::push_any(View<const T> chunk) {
  if (finished_) throw std::invalid_argument("push: the detector is finished; make a new one");
  if (chunk.rows != n_leads())
    throw std::invalid_argument("x: has " + std::to_string(chunk.rows) + " leads, the detector " +
                                std::to_string(n_leads()));
  const std::int64_t slice = block_ * step_;  // a long chunk is never copied as a whole
  for (std::int64_t begin = 0; begin < chunk.cols; begin += slice) {
    const std::int64_t end = std::min<std::int64_t>(chunk.cols, begin + slice);
    for (std::ptrdiff_t l = 0; l < chunk.rows; ++l) {
      Lead& lead = leads_[static_cast<std::size_t>(l)];
      const T* x = chunk.row(l);
      for (std::int64_t i = begin; i < end; ++i) {
        const double value = static_cast<double>(x[i]);
        if (std::abs(value) < kLargest) {
          // After a gap the signal goes on from where it stopped: no step, so no false beat.
          if (lead.in_gap) lead.shift = value - lead.held;
          lead.held = value - lead.shift;
          lead.in_gap = false;
        } else {
          lead.in_gap = true;
        }
        lead.signal.push(lead.held);
      }
    }
    n_samples_ += end - begin;
    advance(false);
  }
  return std::exchange(beats_, {});
}
template std::vector<std::int64_t> RPeakDetector::push_any(View<const float>);
template std::vector<std::int64_t> RPeakDetector::push_any(View<const double>);

std::vector<std::int64_t> RPeakDetector::finish() {
  if (finished_ || n_samples_ == 0) return finished_ = true, std::vector<std::int64_t>{};
  finished_ = true;
  for (Lead& lead : leads_)  // the last sample repeated, as far as the low-pass reaches
    for (std::int64_t i = 0; i < half_low_ + step_; ++i) lead.signal.push(lead.held);
  advance(true);
  return std::exchange(beats_, {});
}

// Takes every block that is complete, with what the filters need after it; with `last`, the rest as well.
void RPeakDetector::advance(bool last) {
  const std::int64_t half_level = static_cast<std::int64_t>(kHalfLevel);
  const std::int64_t n_analysis = (n_samples_ + step_ - 1) / step_;
  for (bool more = true; more;) {
    const std::int64_t begin = n_blocks_ * block_, end = std::min(begin + block_, n_analysis);
    const std::int64_t last_needed = (begin + block_ - 1 + half_band_ + half_smooth_) * step_ + half_low_;
    const bool closing = last && begin + block_ >= n_analysis;
    if (!last && last_needed >= n_samples_) break;
    for (Lead& lead : leads_) {
      filter(lead, end, last ? n_analysis : std::numeric_limits<std::int64_t>::max());
      summarise(lead, begin, end);
    }
    ++n_blocks_;
    while (n_gains_ < n_blocks_ - (closing ? 0 : half_level)) set_gains(n_gains_++);
    while (n_fused_ < n_gains_ - (closing ? 0 : 1)) fuse(n_fused_++, n_analysis);
    const std::int64_t now = fused_.end();
    if (closing)
      for (std::int64_t i = 0; i < outer_; ++i) fused_.push(0);
    find_candidates(fused_.end() - outer_);
    settle(now, closing ? now : now - look_ahead_);
    forget();
    more = !closing;
  }
}

// Extends the lead's envelope to `end`. Beyond its first and last sample the signal is its mirror image: repeating one
// sample, wherever in a cycle of hum it lies, would be a step.
void RPeakDetector::filter(Lead& lead, std::int64_t end, std::int64_t n_analysis) {
  const bool first = lead.low.end() == 0;
  const std::int64_t low_end = end + half_band_ + half_smooth_, low_inside = std::min(low_end, n_analysis);
  if (const std::int64_t n = low_inside - lead.low.end(); n > 0) {
    const double* x = lead.signal.at(lead.low.end() * step_ - half_low_);
    const std::int64_t n_fine = (n - 1) * step_ + 1;
    fine_.resize(static_cast<std::size_t>(n_fine));
    correlate(x, low_taps_, n_fine, fine_.data());
    double* low = lead.low.grow(n);
    for (std::int64_t k = 0; k < n; ++k) low[k] = fine_[static_cast<std::size_t>(k * step_)];
  }
  for (std::int64_t k = lead.low.end(); k < low_end; ++k)
    lead.low.push(lead.low[std::max<std::int64_t>(0, 2 * n_analysis - 2 - k)]);
  if (first)
    for (std::int64_t k = 1; k <= half_band_; ++k) lead.low.set(-k, lead.low[k]);

  if (const std::int64_t n = end + half_smooth_ - lead.rough.end(); n > 0) {
    fine_.resize(static_cast<std::size_t>(n));
    const double* low = lead.low.at(lead.rough.end() - half_band_);
    double* rough = lead.rough.grow(n);
    correlate(low, even_taps_, n, rough);
    correlate(low, odd_taps_, n, fine_.data());
    for (std::int64_t k = 0; k < n; ++k) {
      const double odd = fine_[static_cast<std::size_t>(k)];
      rough[k] = std::sqrt(rough[k] * rough[k] + odd * odd);
    }
  }
  if (const std::int64_t n = end - lead.envelope.end(); n > 0) {
    const double* rough = lead.rough.at(lead.envelope.end() - half_smooth_);
    correlate(rough, smooth_taps_, n, lead.envelope.grow(n));
  }
}

void RPeakDetector::summarise(Lead& lead, std::int64_t begin, std::int64_t end) {
  std::vector<double> values(lead.envelope.at(begin), lead.envelope.at(begin) + (end - begin));
  lead.block_max.push(*std::max_element(values.begin(), values.end()));
  lead.block_median.push(quantile(std::move(values), 0.5));
}

// What a lead's envelope is multiplied with in the sum: its weight over its level. The weights sum to 1, so a typical
// QRS has height 1 in the sum, whatever the leads.
void RPeakDetector::set_gains(std::int64_t block) {
  const std::int64_t half = static_cast<std::int64_t>(kHalfLevel);
  const std::int64_t first = std::max<std::int64_t>(0, block - half), end = std::min(n_blocks_, block + half + 1);
  std::vector<double> gains, maxima, medians;
  double sum = 0;
  for (Lead& lead : leads_) {
    maxima.clear();
    medians.clear();
    for (std::int64_t b = first; b < end; ++b) {
      const double most = std::max(lead.block_max[b], lead.block_max[std::min(end - 1, b + 1)]);
      if (most <= 0) continue;  // flat, or a gap
      maxima.push_back(most);
      medians.push_back(lead.block_median[b]);
    }
    double level = quantile(maxima, kLevelQuantile);
    lead.long_level = std::max(level, lead.long_level * (1 - kBlockS / kLevelMemoryS));
    level = std::max(level, kLevelDrop * lead.long_level);
    double weight = 0;
    if (level > 0) {
      const double clear = std::max(0.0, 1 - kNoiseRatio * quantile(medians, 0.5) / level);
      weight = kLeastWeight + std::pow(clear, kWeightPower);
      sum += weight;
    }
    gains.push_back(weight > 0 ? weight / level : 0);
  }
  for (std::size_t l = 0; l < leads_.size(); ++l) leads_[l].gain.push(sum > 0 ? gains[l] / sum : 0);
}

// The sum of the leads over one block; gains change linearly from the middle of a block to the next one's.
void RPeakDetector::fuse(std::int64_t block, std::int64_t end) {
  const std::int64_t begin = block * block_;
  end = std::min(end, begin + block_);
  std::vector<double> sum(static_cast<std::size_t>(end - begin));
  for (const Lead& lead : leads_) {
    const double here = lead.gain[block];
    const double before = lead.gain[std::max<std::int64_t>(0, block - 1)];
    const double after = lead.gain[std::min(n_gains_ - 1, block + 1)];
    const double* envelope = lead.envelope.at(begin);
    for (std::size_t i = 0; i < sum.size(); ++i) {
      const double x = (static_cast<double>(i) + 0.5) / static_cast<double>(block_) - 0.5;  // -0.5..0.5
      const double gain = x < 0 ? here - x * (before - here) : here + x * (after - here);
      sum[i] += gain * envelope[i];
    }
  }
  for (double value : sum) fused_.push(value);
}

void RPeakDetector::find_candidates(std::int64_t end) {
  for (; next_ < end; ++next_) {
    const double height = fused_[next_];
    if (height < kLeastHeight) continue;
    bool peak = true;  // the first of equals
    for (std::int64_t i = std::max<std::int64_t>(0, next_ - separation_); i < next_ && peak; ++i)
      peak = fused_[i] < height;
    for (std::int64_t i = next_ + 1; i <= next_ + separation_ && peak; ++i) peak = fused_[i] <= height;
    if (peak) open_.push_back(describe(next_));
  }
}

RPeakDetector::Candidate RPeakDetector::describe(std::int64_t k) const {
  double around = 0;
  for (std::int64_t i = std::max<std::int64_t>(0, k - outer_); i <= k - inner_; ++i)
    around = std::max(around, fused_[i]);
  for (std::int64_t i = k + inner_; i < k + outer_; ++i) around = std::max(around, fused_[i]);

  Candidate c;
  c.k = k;
  c.time_s = static_cast<double>(k) / analysis_fs_;
  c.log_height = std::log(fused_[k]);
  const double isolation = std::log(fused_[k] / (around + kFloor));
  c.reward = kReward + kRewardHeight * std::min(0.0, c.log_height) +
             kRewardIsolation * std::clamp(isolation, -kMostIsolated, kMostIsolated);
  double most = 0;
  for (std::size_t l = 0; l < leads_.size(); ++l) {
    const double part = leads_[l].gain[k / block_] * leads_[l].envelope[k];
    if (part > most) most = part, c.lead = l;
  }
  return c;
}

// Finds the best sequence of open candidates after the last beat; what it says before `before` is final.
void RPeakDetector::settle(std::int64_t now, std::int64_t before) {
  if (open_.empty()) return;
  const std::size_t n = open_.size();
  constexpr std::size_t kNone = static_cast<std::size_t>(-1);
  std::vector<double> score(n);
  std::vector<std::size_t> previous(n, kNone);
  const auto step_cost = [](const Candidate& a, const Candidate& b) {
    const double dt = b.time_s - a.time_s;
    double cost = gap_cost(dt);
    if (dt < kEarlyS) cost += kEarlyCost * (kEarlyS - dt) / (kEarlyS - kRefractoryS);
    if (dt < kTWaveS) cost += kTWaveCost * std::max(0.0, a.log_height - b.log_height);
    return cost;
  };
  const double never = -std::numeric_limits<double>::infinity();
  const auto first_score = [&](const Candidate& c) {
    if (!any_beat_) return c.reward - gap_cost(c.time_s);
    return c.time_s - last_beat_.time_s < kRefractoryS ? never : c.reward - step_cost(last_beat_, c);
  };
  const double now_s = static_cast<double>(now) / analysis_fs_;
  double best = -gap_cost(now_s - (any_beat_ ? last_beat_.time_s : 0));
  std::size_t last = kNone;
  for (std::size_t j = 0; j < n; ++j) {
    score[j] = first_score(open_[j]);
    for (std::size_t i = 0; i < j; ++i) {
      if (open_[j].time_s - open_[i].time_s < kRefractoryS) break;
      const double s = score[i] + open_[j].reward - step_cost(open_[i], open_[j]);
      if (s > score[j]) score[j] = s, previous[j] = i;
    }
    const double s = score[j] - gap_cost(now_s - open_[j].time_s);
    if (s > best) best = s, last = j;
  }
  std::vector<std::size_t> path;
  for (std::size_t j = last; j != kNone; j = previous[j])
    if (open_[j].k < before) path.push_back(j);
  std::reverse(path.begin(), path.end());
  for (std::size_t j : path) {
    beats_.push_back(refine(open_[j]));
    last_beat_ = open_[j];
    any_beat_ = true;
  }
  const auto is_open = [&](const Candidate& c) { return c.k >= before; };
  open_.erase(open_.begin(), std::find_if(open_.begin(), open_.end(), is_open));
}

// The extremum of the lightly smoothed signal near the candidate, in the polarity of the lead's beats so far unless
// this beat's own is clear. Alike for both signs of the signal.
std::int64_t RPeakDetector::refine(const Candidate& candidate) {
  Lead& lead = leads_[candidate.lead];
  const std::int64_t centre = std::min(candidate.k * step_, n_samples_ - 1);
  const std::int64_t reach = std::llround(kReachS * fs_), half = static_cast<std::int64_t>(refine_taps_.size() / 2);
  const auto value = [&](std::int64_t i) { return lead.signal[std::clamp<std::int64_t>(i, 0, n_samples_ - 1)]; };
  std::vector<double> x;
  double baseline = 0;
  for (std::int64_t i = centre - 2 * reach - half; i <= centre + 2 * reach + half; ++i)
    baseline += x.emplace_back(value(i));
  baseline /= static_cast<double>(x.size());

  double high = -std::numeric_limits<double>::infinity(), low = -high;
  std::int64_t at_high = centre, at_low = centre;
  for (std::int64_t i = -reach; i <= reach; ++i) {
    if (centre + i < 0 || centre + i >= n_samples_) continue;
    const double far = static_cast<double>(i) / static_cast<double>(reach + 1);
    const double z = (dot(x.data() + (i + 2 * reach), refine_taps_) - baseline) * (1 - 0.5 * far * far);
    if (z > high) high = z, at_high = centre + i;
    if (z < low) low = z, at_low = centre + i;
  }
  const double polarity = high > low ? (high + low) / (high - low) : 0;
  const bool up = polarity + kPolarityWeight * lead.polarity >= 0;
  lead.polarity += kPolarityMemory * (polarity - lead.polarity);
  return up ? at_high : at_low;
}

void RPeakDetector::forget() {
  const std::int64_t reach = 3 * std::llround(kReachS * analysis_fs_) + 3;  // of refine, with its smoothing
  const std::int64_t first = open_.empty() ? next_ : std::min(next_, open_.front().k);
  const std::int64_t half = static_cast<std::int64_t>(kHalfLevel);
  for (Lead& lead : leads_) {
    lead.signal.forget_before(std::min((first - reach) * step_, lead.low.end() * step_ - half_low_));
    lead.low.forget_before(lead.rough.end() - half_band_ - 2 * half_smooth_ - 2);  // for the mirror image
    lead.rough.forget_before(lead.envelope.end() - half_smooth_);
    lead.envelope.forget_before(std::min(next_, n_fused_ * block_));
    lead.gain.forget_before(std::min(next_ / block_, n_fused_ - 1));
    lead.block_max.forget_before(n_gains_ - half);
    lead.block_median.forget_before(n_gains_ - half);
  }
  fused_.forget_before(next_ - outer_ - 1);
}

}  // namespace pqrst
