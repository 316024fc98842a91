#include "rpeaks.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>
#include <utility>

#include "functions.hpp"
#include "kernels.hpp"
#include "rpeaks_weights.hpp"
#include "scale.hpp"

namespace pqrst {
namespace {

// ---- Envelopes
constexpr double kAnalysisHz = 120;  // lowest rate of the analysis: over twice any frequency it looks at

struct BandHz {
  double low_hz, high_hz, half_s, half_smooth_s;
};
// The first finds beats: below it T waves, wander and breathing (the short filter is soft: half at 7, little at 4),
// above it muscle and mains; it reaches one period of its lower edge to either side, and the smoothing joins the lobes
// of one wide QRS and keeps beats 200 ms apart distinct. The others only describe what it finds: noise, T waves, wide
// beats.
constexpr BandHz kBands[] = {{7, 25, 0.2, 0.0375}, {22, 45, 0.1, 0.025}, {2, 6, 0.25, 0.075}, {4, 12, 0.2, 0.05}};
constexpr double kSlopeS = 0.01;  // brings the slope near 1 for a typical QRS

// ---- Level of a lead: the typical height of its QRS
constexpr double kBlockS = 1.0;         // two neighbours hold a QRS down to 30 bpm, and most pairs down to 25
constexpr double kHalfLevel = 5;        // blocks to either side: short enough to follow a change of gain
constexpr double kLevelQuantile = 0.4;  // robust: half of the windows may hold a burst, a few no beat
constexpr double kLevelDrop = 0.05;     // a lead that fell below this part of its level is off, not small ...
constexpr double kLevelMemoryS = 30;    // ... for about this long
// A level is remembered once it lasted, as a loose contact does not, and showed beats: a contact that comes and goes
// stays below this clearness, an ECG above.
constexpr std::int64_t kLastingBlocks = 15;
constexpr double kLeastClear = 0.3;
constexpr double kRail = 30;         // times a level: no ECG, if other leads show one ...
constexpr double kLeastLeft = 0.01;  // ... that is not almost nothing but noise
constexpr double kLeastPart = 1e-3;  // of the signal's range: a QRS below is lost in what else a converter had to take
constexpr double kNoiseRatio = 3.0;  // noise alone has a block maximum of about 3 times its median
constexpr double kLeastWeight = 1e-3;  // of a lead that shows nothing: alone, it still counts

// ---- Gaps
constexpr double kStillS = 0.2;  // one value for longer is a saturated or an open lead; no clipped wave lasts so long

// ---- Candidates
constexpr double kLeastHeight = 0.06;  // of a typical QRS
constexpr double kSeparationS = 0.08;  // one QRS makes one candidate
constexpr double kAroundS = 1.0;       // what lies so near to either side describes a candidate
constexpr double kFloor = 0.05;        // of a typical QRS: what counts as quiet
constexpr double kMostFeature = 4;     // logarithms beyond say no more
constexpr double kBeforehand = 0.7;    // log-odds: makes missed and false beats about as many

// ---- What each of several leads has to say
constexpr double kNearS = 0.09;         // a wide QRS may peak this far apart in two leads
constexpr double kMarginBeforeS = 8.0;  // a lead is judged by how it told beats from others this long before ...
constexpr double kMarginAfterS = 2.0;   // ... and after: some ten beats
// P waves that no beat follows, tall in one lead
constexpr double kClearLogOdds = 2;  // of the beats in the lead that tells them best; and then against the P wave
constexpr double kLeastQrs = 0.25;   // of a typical QRS: lower in that lead
constexpr double kAnotherP = 0.5;    // of its height: what stands ahead of the next beat
constexpr double kShortestPrS = 0.1, kLongestPrS = 0.4;
constexpr double kNextS = 2;          // that beat comes within this time
constexpr int kLeastPs = 3;           // with others as long before as a lead is judged by ...
constexpr double kPsAfterS = 4;       // ... and so long after, which settling waits for
constexpr double kMostLogOdds = 6.0;  // surer than one in 400 is sure

// ---- A very fast rhythm: each beat has neighbours where others have none, so its look alone speaks against it. Waves
// that are not beats are not as high as a QRS, not all alike, or not so regular.
constexpr double kFastestS = 0.18;    // 330 bpm, with the rounding of the analysis rate
constexpr double kSlowestS = 0.27;    // from here on the network knows beats
constexpr double kSteadyS = 0.035;    // largest difference of successive intervals
constexpr double kAlike = 0.25;       // largest mean difference of features, so of logarithms
constexpr double kLeastSteady = 0.5;  // of a typical QRS
constexpr int kTrain = 8;             // so many peaks in a row are a rhythm
constexpr double kSteadyReward = 2;   // log-odds, at least

// ---- Sequence
constexpr double kRefractoryS = 0.2;  // the ventricle does not answer sooner
constexpr double kEarlyS = 0.7;       // a beat sooner after the last is rarer ...
constexpr double kEarlyCost = 0.5;    // ... linearly, this much at the refractory time
constexpr double kGapS = 1.0;         // a longer gap is rarer, linearly ...
constexpr double kGapCost = 0.8;      // ... per second ...
constexpr double kMostGapCost = 2.5;  // ... up to a pause or a lead that fell off
constexpr double kSettleS = 5.15;     // paths that end now agree on what lies this far back

// ---- Position
constexpr double kReachS = 0.08;         // the R peak lies within a wide QRS's half of the envelope's
constexpr double kHalfRefineS = 0.01;    // light smoothing: noise moves the extremum less, the R peak not
constexpr double kPolarityMemory = 0.1;  // weight of the newest beat in the lead's polarity
constexpr double kPolarityWeight = 0.5;  // a beat follows it unless its own waves clearly say otherwise

constexpr std::int64_t kSome = 33;  // values of which a quantile is taken: one in 8 ms to 60 ms of what it stands for
constexpr double kLargest = 1e100;  // beyond: a gap, as infinity is; squares stay finite

// Symmetric window of 2 half + 1 taps, not zero at its ends.
double hann(std::int64_t i, std::int64_t half) {
  return 0.5 + 0.5 * cos_pi(static_cast<double>(i) / static_cast<double>(half + 1));
}

std::vector<double> smoother(std::int64_t half) {
  std::vector<double> taps;
  double sum = 0;
  for (std::int64_t i = -half; i <= half; ++i) sum += taps.emplace_back(hann(i, half));
  for (double& tap : taps) tap /= sum;
  return taps;
}

void correlate(const double* x, const std::vector<double>& taps, std::int64_t n, double* out) {
  kernels().correlate(x, taps.data(), static_cast<std::ptrdiff_t>(taps.size()), n, out);
}

double largest(const double* x, std::int64_t n) {
  return detail::extent(x, n).high;
}

// The ideal band-pass and its Hilbert transform, windowed; the even one's response at 0 Hz taken away. In cycles per
// sample; from the middle outwards, half + 1 taps.
void design_band(double from, double to, std::int64_t half, std::vector<double>& even, std::vector<double>& odd) {
  const double low = 2 * from, high = 2 * to;  // times pi, a sample
  double sum = 0, sum_window = 0;
  for (std::int64_t i = 0; i <= half; ++i) {
    const double t = static_cast<double>(i), w = hann(i, half);
    even.push_back(i == 0 ? high - low : w * (sin_pi(high * t) - sin_pi(low * t)) / (pi * t));
    odd.push_back(i == 0 ? 0 : w * (cos_pi(low * t) - cos_pi(high * t)) / (pi * t));
    sum += (i == 0 ? 1 : 2) * even.back();
    sum_window += (i == 0 ? 1 : 2) * w;
  }
  for (std::int64_t i = 0; i <= half; ++i) even[static_cast<std::size_t>(i)] -= hann(i, half) * sum / sum_window;
}

// A few values, none negative.
template <class T>
struct Few {
  std::array<T, most_ranked> values{};
  std::ptrdiff_t n = 0;
  void push(T value) { values[static_cast<std::size_t>(n++)] = value; }
};

// The value below which `part` of the values lie; 0 of none.
template <class T>
double quantile(const Few<T>& of, double part) {
  if (of.n == 0) return 0;
  const int rank = static_cast<int>(std::lround(part * static_cast<double>(of.n - 1)));
  if constexpr (std::is_same_v<T, float>)
    return kernels().ranked_float(of.values.data(), of.n, rank);
  else
    return kernels().ranked_double(of.values.data(), of.n, rank);
}

// Some of n values, evenly from the first to the last; in float, as twice as many are compared at once.
Few<float> some_of(const double* x, std::int64_t n) {
  Few<float> some;
  for (std::int64_t i = 0; i < kSome; ++i) some.push(static_cast<float>(x[i * (n - 1) / (kSome - 1)]));
  return some;
}

double log_odds_of(const RPeakDetector::Features& features, const RPeakWeights& w) {
  std::array<double, RPeakWeights::n_units> units = w.hidden_bias;
  for (std::size_t i = 0; i < features.size(); ++i)
    for (std::size_t unit = 0; unit < units.size(); ++unit) units[unit] += w.hidden[i][unit] * features[i];
  double sum = w.bias;
  for (std::size_t unit = 0; unit < units.size(); ++unit) sum += w.output[unit] * std::max(0.0, units[unit]);
  return sum;
}

// The distance between the means of what a lead said of beats and of others; with one more of each of which it cannot
// say.
struct Margin {
  double said[2] = {}, n[2] = {1, 1};  // of others, of beats
  void add(double log_odds, bool is_beat) { said[is_beat] += log_odds, n[is_beat] += 1; }
  double value() const { return std::max(0.0, said[1] / n[1] - said[0] / n[0]); }
};

// What it costs to go `gap_s` without a beat.
double gap_cost(double gap_s) {
  return std::clamp(kGapCost * (gap_s - kGapS), 0.0, kMostGapCost);
}

}  // namespace

RPeakDetector::RPeakDetector(double fs, std::ptrdiff_t n_leads) : weights(fitted), fs_(fs) {
  if (!(fs >= 50 && fs <= 10000))  // also not a number
    throw std::invalid_argument("fs " + std::to_string(fs) + ": R peaks need 50 to 10000 Hz; resample first");
  if (n_leads < 1 || n_leads > 1024)
    throw std::invalid_argument("n_leads " + std::to_string(n_leads) + ": must be 1 to 1024");
  step_ = std::max<std::int64_t>(1, static_cast<std::int64_t>(fs / kAnalysisHz));
  analysis_fs_ = fs / static_cast<double>(step_);
  const auto samples = [this](double seconds) { return std::llround(seconds * analysis_fs_); };
  block_ = samples(kBlockS);
  around_ = samples(kAroundS);
  near_ = samples(kNearS);
  for (std::int64_t i = 0; i < block_; ++i)  // -0.5..0.5
    from_middle_.push_back((static_cast<double>(i) + 0.5) / static_cast<double>(block_) - 0.5);
  still_ = std::llround(kStillS * fs);
  separation_ = samples(kSeparationS);
  look_ahead_ = samples(kSettleS);

  half_low_ = step_ > 1 ? 2 * step_ : 0;  // the first zero at half the analysis rate
  low_taps_ = smoother(half_low_);
  refine_taps_ = smoother(std::llround(kHalfRefineS * fs));
  reach_ = 0;
  for (std::size_t b = 0; b < n_bands; ++b) {
    const BandHz& hz = kBands[b];
    const double highest = 0.45 * analysis_fs_;
    bands_[b] = {{}, {}, smoother(samples(hz.half_smooth_s)), samples(hz.half_s), samples(hz.half_smooth_s)};
    design_band(std::min(hz.low_hz, highest / 2) / analysis_fs_, std::min(hz.high_hz, highest) / analysis_fs_,
                bands_[b].half, bands_[b].even, bands_[b].odd);
    reach_ = std::max(reach_, bands_[b].half + bands_[b].half_smooth);
  }

  // Ahead of the first sample lies its repetition, which after the removal of the offset is zero.
  leads_.resize(static_cast<std::size_t>(n_leads));
  for (Lead& lead : leads_) {
    lead.signal = detail::Track(half_low_);
    lead.low = detail::Track(reach_);
    lead.clear_level = detail::Track(kLastingBlocks);
    for (std::size_t b = 0; b < n_bands; ++b) lead.rough[b] = detail::Track(bands_[b].half_smooth);
    for (detail::Track& trace : lead.traces) trace = detail::Track(around_ + near_);
    lead.on_rail = detail::Track(around_);
  }
  for (detail::Track& trace : fused_) trace = detail::Track(around_);
}

double RPeakDetector::look_ahead_s() const {
  // a beat may just miss one settling, and is settled with the next block, when that block's levels are known
  const std::int64_t blocks = 3 + static_cast<std::int64_t>(kHalfLevel);
  const std::int64_t n = blocks * block_ + look_ahead_ + around_ + near_ + reach_;
  return static_cast<double>(n * step_ + half_low_ + still_ + std::llround(kReachS * fs_)) / fs_;
}

// Takes the next of n samples all at once if no gap lies among them nor can begin: they are numbers, and too few for
// the lead to be still. Returns how many.
template <class T>
std::int64_t RPeakDetector::take_plain(Lead& lead, const T* x, std::int64_t n, double* signal) const {
  n = std::min(n, still_ - 1 - lead.n_still);
  if (lead.in_gap || n <= 0) return 0;
  const Extent range = detail::extent(x, n);
  if (!(range.finite && range.high < kLargest && range.low > -kLargest)) return 0;
  for (std::int64_t i = 0; i < n; ++i) signal[i] = static_cast<double>(x[i]) - lead.shift;
  std::int64_t first = n - 1;  // of those that repeat one value up to the end
  while (first > 0 && x[first - 1] == x[n - 1]) --first;
  const bool goes_on = first == 0 && static_cast<double>(x[0]) == lead.last;
  lead.n_still = goes_on ? lead.n_still + n : n - first;
  if (!goes_on) lead.before_still = first > 0 ? signal[first - 1] : lead.held;
  lead.last = static_cast<double>(x[n - 1]);
  lead.held = signal[n - 1];
  return n;
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
      const T* x = chunk.row(l) + begin;
      double* signal = lead.signal.grow(end - begin);
      for (std::int64_t i = 0; i < end - begin;) {
        if (const std::int64_t n = take_plain(lead, x + i, end - begin - i, signal + i); n > 0) {
          i += n;
          continue;
        }
        for (const std::int64_t some = std::min(i + still_, end - begin); i < some; ++i) {
          const double value = static_cast<double>(x[i]);
          lead.n_still = value == lead.last ? lead.n_still + 1 : 1;
          lead.last = value;
          if (lead.n_still == 1) lead.before_still = lead.held;
          if (std::abs(value) < kLargest && lead.n_still < still_) {
            // After a gap the signal goes on from where it stopped: no step, so no false beat.
            if (lead.in_gap) lead.shift = value - lead.held;
            lead.held = value - lead.shift;
            lead.in_gap = false;
          } else {
            if (lead.n_still == still_) {  // only now known to be a gap; no filter has seen it yet
              lead.held = lead.before_still;
              for (std::int64_t j = 1; j < still_; ++j) lead.signal.set(n_samples_ + i - j, lead.held);
            }
            lead.in_gap = true;
          }
          signal[i] = lead.held;
        }
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
  for (;;) {
    const std::int64_t begin = n_blocks_ * block_, end = std::min(begin + block_, n_analysis);
    const std::int64_t last_needed = (begin + block_ - 1 + reach_) * step_ + half_low_;
    const bool closing = last && begin + block_ >= n_analysis;
    if (!last && last_needed + still_ > n_samples_) return;
    for (Lead& lead : leads_) {
      filter(lead, end, last ? n_analysis : std::numeric_limits<std::int64_t>::max());
      summarise(lead, begin, end);
    }
    ++n_blocks_;
    while (n_gains_ < n_blocks_ - (closing ? 0 : half_level)) set_gains(n_gains_++);
    while (n_fused_ < n_gains_ - (closing ? 0 : 1)) fuse(n_fused_++, n_analysis);
    const std::int64_t now = fused_[0].end();
    if (closing) {  // nothing follows
      const std::int64_t n = around_ + near_;
      for (detail::Track& trace : fused_) std::fill_n(trace.grow(n), n, 0.0);
      for (Lead& lead : leads_) {
        for (detail::Track& trace : lead.traces) std::fill_n(trace.grow(n), n, 0.0);
        std::fill_n(lead.on_rail.grow(n), n, 0.0);
      }
    }
    find_candidates(fused_[0].end() - around_ - near_);
    weigh();
    settle(now, closing ? now : now - look_ahead_);
    if (closing) return;
    forget();
  }
}

// Extends the lead's envelopes to `end`. Beyond its first and last sample the signal is its mirror image: repeating one
// sample, wherever in a cycle of hum it lies, would be a step.
void RPeakDetector::filter(Lead& lead, std::int64_t end, std::int64_t n_analysis) {
  const bool first = lead.low.end() == 0;
  const std::int64_t low_end = end + reach_, low_inside = std::min(low_end, n_analysis);
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
    for (std::int64_t k = 1; k <= reach_; ++k) lead.low.set(-k, lead.low[k]);

  for (std::size_t b = 0; b < n_bands; ++b) {
    const Band& band = bands_[b];
    detail::Track& rough = lead.rough[b];
    const std::int64_t begin = rough.end(), n = end + band.half_smooth - begin;
    double* magnitude = rough.grow(n);
    kernels().magnitude(lead.low.at(begin), band.even.data(), band.odd.data(), band.half, n, magnitude);
    detail::Track& envelope = lead.traces[b];
    const std::int64_t from = envelope.end();
    correlate(rough.at(from - band.half_smooth), band.smooth, end - from, envelope.grow(end - from));
  }
  detail::Track& slope = lead.traces[n_bands];
  const double scale = kSlopeS * analysis_fs_ / 2;
  const double* low = lead.low.at(slope.end());
  const std::int64_t n = end - slope.end();
  double* steep = slope.grow(n);
  for (std::int64_t k = 0; k < n; ++k) steep[k] = std::abs(low[k + 1] - low[k - 1]) * scale;
}

void RPeakDetector::summarise(Lead& lead, std::int64_t begin, std::int64_t end) {
  const double* envelope = lead.traces[0].at(begin);
  lead.block_max.push(largest(envelope, end - begin));
  const Extent range = detail::extent(lead.signal.at(begin * step_), (end - begin) * step_);
  lead.block_range.push(range.high - range.low);
  lead.block_median.push(quantile(some_of(envelope, end - begin), 0.5));
}

// A typical QRS gets height 1 in each lead, and in the sum, as the shares add up to 1.
void RPeakDetector::set_gains(std::int64_t block) {
  const std::int64_t half = static_cast<std::int64_t>(kHalfLevel);
  const std::int64_t first = std::max<std::int64_t>(0, block - half), end = std::min(n_blocks_, block + half + 1);
  double sum = 0;
  for (Lead& lead : leads_) {
    Few<double> maxima, medians, ranges;
    for (std::int64_t b = first; b < end; ++b) {
      const double most = std::max(lead.block_max[b], lead.block_max[std::min(end - 1, b + 1)]);
      if (most <= 0 || lead.block_range[b] <= 0) continue;  // flat, or a gap
      maxima.push(most);
      medians.push(lead.block_median[b]);
      ranges.push(lead.block_range[b]);
    }
    double level = quantile(maxima, kLevelQuantile);
    if (level < kLeastPart * quantile(ranges, kLevelQuantile)) level = 0;
    const auto clearness = [&] {
      return level > 0 ? std::max(0.0, 1 - kNoiseRatio * quantile(medians, 0.5) / level) : 0;
    };
    lead.clear_level.push(clearness() > kLeastClear ? level : 0);
    const double* clear_levels = lead.clear_level.at(block + 1);
    const double lasting = *std::min_element(clear_levels - kLastingBlocks, clear_levels);
    lead.long_level = std::max(lasting, lead.long_level * (1 - kBlockS / kLevelMemoryS));
    level = std::max(level, kLevelDrop * lead.long_level);
    double weight = 0;
    if (level > 0) {
      weight = kLeastWeight;
      const double clear = clearness();
      const bool on_rail = lead.long_level > 0 && level > kRail * lead.long_level;
      if (!on_rail) weight += clear * clear * clear;  // the clearer lead is preferred sharply
      sum += weight;
    }
    lead.gain.push(level > 0 ? 1 / level : 0);
    lead.share.push(weight);
  }
  if (sum > 0)
    for (Lead& lead : leads_) lead.share.set(block, lead.share[block] / sum);
}

// The sum of the leads over one block; gains change linearly from the middle of a block to the next one's.
void RPeakDetector::fuse(std::int64_t block, std::int64_t end) {
  const std::int64_t begin = block * block_, n = std::min(end, begin + block_) - begin;
  for (detail::Track& trace : fused_) std::fill_n(trace.grow(n), n, 0.0);
  const std::int64_t before = std::max<std::int64_t>(0, block - 1), after = std::min(n_gains_ - 1, block + 1);
  const auto along = [&](const detail::Track& track, std::vector<double>& values) {
    values.resize(static_cast<std::size_t>(n));
    const double here = track[block], to_before = track[before] - here, to_after = track[after] - here;
    for (std::size_t i = 0; i < values.size(); ++i)
      values[i] = here + std::abs(from_middle_[i]) * (from_middle_[i] < 0 ? to_before : to_after);
  };
  lost_.assign(static_cast<std::size_t>(n), 0);
  bool any_on_rail = false;
  for (Lead& lead : leads_) {
    const detail::Track& envelope = lead.traces[0];
    double* on_rail = lead.on_rail.grow(n);
    std::fill_n(on_rail, n, 0.0);
    // a step shows in the envelope as far away as the filter reaches
    const std::int64_t last = envelope.end() - 1, ahead = std::min(begin + reach_, last);
    const double most_gain = std::max({lead.gain[before], lead.gain[block], lead.gain[after]});
    const double most = most_gain * largest(envelope.at(ahead), std::min(n, last + 1 - ahead));
    if (most <= kRail && lead.rail_end <= begin) continue;
    any_on_rail = true;
    along(lead.gain, gains_);
    along(lead.share, shares_);
    for (std::int64_t i = 0; i < n; ++i) {
      if (envelope[std::min(begin + i + reach_, last)] * gains_[static_cast<std::size_t>(i)] > kRail)
        lead.rail_end = begin + i + 2 * reach_;
      on_rail[i] = begin + i < lead.rail_end;
      if (on_rail[i] > 0) lost_[static_cast<std::size_t>(i)] += shares_[static_cast<std::size_t>(i)];
    }
  }
  for (Lead& lead : leads_) {
    along(lead.gain, gains_);
    along(lead.share, shares_);
    for (std::int64_t i = 0; i < n && any_on_rail; ++i) {
      const double left = 1 - lost_[static_cast<std::size_t>(i)];  // with the leads that are not on a rail
      double& share = shares_[static_cast<std::size_t>(i)];
      if (left > kLeastLeft) share = lead.on_rail[begin + i] > 0 ? 0 : share / left;
    }
    const double *gains = gains_.data(), *shares = shares_.data();
    for (std::size_t t = 0; t <= n_bands; ++t) {
      double* trace = lead.traces[t].at(begin);
      double* sum = fused_[t].at(begin);
      for (std::int64_t i = 0; i < n; ++i) {
        trace[i] *= gains[i];
        sum[i] += shares[i] * trace[i];
      }
    }
  }
}

void RPeakDetector::find_candidates(std::int64_t end) {
  const detail::Track& envelope = fused_[0];
  for (; next_ < end; ++next_) {
    const double height = envelope[next_];
    if (height < kLeastHeight) continue;
    if (envelope[next_ - 1] >= height || envelope[next_ + 1] > height) continue;  // on a slope, as most

    bool peak = true;  // the first of equals
    for (std::int64_t i = next_ - separation_; i < next_ && peak; ++i) peak = envelope[i] < height;
    for (std::int64_t i = next_ + 1; i <= next_ + separation_ && peak; ++i) peak = envelope[i] <= height;
    if (peak) candidates_.push_back(describe(next_));
  }
}

// Logarithms of what is around the candidate over its height, so that the unit of the signal falls out.
RPeakDetector::Features RPeakDetector::features(const Traces& traces, std::int64_t k) const {
  const double height = traces[0][k];
  const auto at = [&](double seconds) { return std::llround(seconds * analysis_fs_); };
  const auto ratio = [&](double value, double floor) { return (value + floor) / (height + kFloor); };
  // over [k + from, k + to)
  const auto most = [&](std::size_t trace, double from, double to) {
    return largest(traces[trace].at(k + at(from)), at(to) - at(from));
  };
  // the value below which a part of those within reach lie
  const auto part = [&](std::size_t trace, double reach_s, double of_them) {
    return quantile(some_of(traces[trace].at(k - at(reach_s)), 2 * at(reach_s) + 1), of_them);
  };
  const double* envelope = traces[0].at(k);
  const double one = 1 / analysis_fs_;  // both ends of a window count
  enum { qrs, high, low, middle, slope };
  Features f = {
      height,
      // waves before and after it
      ratio(most(qrs, -0.7, -0.5), kFloor),
      ratio(most(qrs, -0.5, -0.38), kFloor),
      ratio(most(qrs, -0.38, -0.28), kFloor),
      ratio(most(qrs, -0.28, -0.2), kFloor),
      ratio(most(qrs, -0.2, -0.13), kFloor),
      ratio(most(qrs, 0.13, 0.2), kFloor),
      ratio(most(qrs, 0.2, 0.28), kFloor),
      ratio(most(qrs, 0.28, 0.38), kFloor),
      ratio(most(qrs, 0.38, 0.5), kFloor),
      ratio(most(qrs, 0.5, 0.7), kFloor),
      // its own shape: how deep the envelope falls beside it, and how soon
      ratio(*std::min_element(envelope + at(-0.12), envelope), kFloor),
      ratio(*std::min_element(envelope, envelope + at(0.12)), kFloor),
      ratio(envelope[at(-0.05)], kFloor),
      ratio(envelope[at(0.05)], kFloor),
      // the surroundings
      ratio(part(qrs, 1, 0.5), kFloor),
      ratio(most(qrs, -1, 1), kFloor),
      ratio(part(qrs, 0.35, 0.25), kFloor),
      // other bands
      ratio(most(high, -0.05, 0.05 + one), 0.02),
      ratio(part(high, 0.4, 0.5), 0.02),
      ratio(most(low, -0.08, 0.08 + one), kFloor),
      ratio(most(middle, -0.06, 0.06 + one), kFloor),
      ratio(most(slope, -0.06, 0.06 + one), 0.02),
      ratio(most(slope, 0.13, 0.36), 0.02),
      ratio(part(low, 0.6, 0.5), kFloor),
  };
  for (double& value : f) value = std::clamp(natural_log(value), -kMostFeature, kMostFeature);
  return f;
}

RPeakDetector::Candidate RPeakDetector::describe(std::int64_t k) const {
  Candidate c;
  c.k = k;
  c.time_s = static_cast<double>(k) / analysis_fs_;
  std::vector<Features> looks{features(fused_, k)};
  c.look = looks[0];
  c.log_odds = log_odds_of(looks[0], weights);
  double most = 0;
  const auto samples = [&](double seconds) { return std::llround(seconds * analysis_fs_); };
  for (std::size_t l = 0; l < leads_.size() && leads_.size() > 1; ++l) {
    const double* x = leads_[l].traces[0].at(k);
    const std::int64_t peak = k + (std::max_element(x - near_, x + near_ + 1) - x);
    looks.push_back(features(leads_[l].traces, peak));
    c.of_leads.push_back(std::clamp(log_odds_of(looks.back(), weights), -kMostLogOdds, kMostLogOdds));
    const double* x_peak = leads_[l].traces[0].at(peak);
    c.height.push_back(*x_peak);
    c.ahead.push_back(*std::max_element(x_peak - samples(kLongestPrS), x_peak - samples(kShortestPrS)));
    const double* on_rail = leads_[l].on_rail.at(k);
    c.on_rail.push_back(*std::max_element(on_rail - around_, on_rail + around_) > 0);
    const double part = leads_[l].share[k / block_] * x[0];
    if (part > most && !c.on_rail.back()) most = part, c.lead = l;
  }
  if (seen) seen->push_back({c.time_s, natural_log(fused_[0][k]), std::move(looks)});
  return c;
}

// The reward of the open candidates: the mean of what the leads say, each weighted by the square of its margin, the
// distance between what it said lately of those that look like beats in the sum and of the others.
void RPeakDetector::weigh() {
  for (std::size_t i = first_open_; i < candidates_.size(); ++i) {
    Candidate& c = candidates_[i];
    c.reward = kBeforehand + c.log_odds;
    double sum = 0, sum_weights = 0, largest_margin = 0;
    for (std::size_t l = 0; l < c.of_leads.size(); ++l) {
      Margin in_sum, in_lead;
      for (const Candidate& other : candidates_) {
        const double dt = other.time_s - c.time_s;
        if (dt < -kMarginBeforeS || dt > kMarginAfterS || other.on_rail[l]) continue;
        in_sum.add(other.of_leads[l], other.log_odds > 0);
        in_lead.add(other.of_leads[l], other.of_leads[l] > 0);
      }
      if (c.on_rail[l]) continue;
      if (in_lead.value() > largest_margin) largest_margin = in_lead.value(), c.best = l;
      const double weight = kLeastWeight + in_sum.value() * in_sum.value();
      sum += weight * c.of_leads[l];
      sum_weights += weight;
    }
    if (sum_weights > 0) c.reward = kBeforehand + sum / sum_weights;
    c.steady = in_train(i);
    if (c.steady) c.reward = std::max(c.reward, kSteadyReward);
  }
  for (std::size_t i = first_open_; i < candidates_.size(); ++i) {
    Candidate& c = candidates_[i];
    if (!like_blocked_p(i, c.best)) continue;
    int n = 0;
    for (std::size_t j = 0; j < candidates_.size(); ++j) {
      const double dt = candidates_[j].time_s - c.time_s;
      n += dt >= -kMarginBeforeS && dt <= kPsAfterS && like_blocked_p(j, c.best);
    }
    if (n >= kLeastPs) c.reward = std::min(c.reward, -kClearLogOdds);
  }
}

// Whether the best lead hardly shows the candidate, another takes it for a beat, and there a wave about as high stands
// ahead of the next beat: a P wave that the ventricles did not answer. A ventricular beat is higher than P waves are.
bool RPeakDetector::like_blocked_p(std::size_t i, std::size_t best) const {
  const Candidate& c = candidates_[i];
  if (c.of_leads.empty() || c.of_leads[best] > 0 || c.height[best] > kLeastQrs) return false;
  const auto tallest = std::max_element(c.of_leads.begin(), c.of_leads.end());
  if (*tallest <= 0) return false;
  const auto other = static_cast<std::size_t>(tallest - c.of_leads.begin());
  for (std::size_t j = i + 1; j < candidates_.size() && candidates_[j].time_s - c.time_s < kNextS; ++j)
    if (candidates_[j].of_leads[best] >= kClearLogOdds)
      return candidates_[j].ahead[other] >= kAnotherP * c.height[other];
  return false;
}

// Whether enough candidates around this one follow each other like the beats of a very fast rhythm.
bool RPeakDetector::in_train(std::size_t i) const {
  const auto interval = [&](std::size_t j) { return candidates_[j + 1].time_s - candidates_[j].time_s; };
  const auto follows = [&](std::size_t j) {  // j + 1 after j
    const Candidate &a = candidates_[j], &b = candidates_[j + 1];
    const double dt = interval(j);
    if (dt < kFastestS || dt > kSlowestS || std::min(a.look[0], b.look[0]) < natural_log(kLeastSteady)) return false;
    double difference = 0;
    for (std::size_t f = 0; f < a.look.size(); ++f) difference += std::abs(a.look[f] - b.look[f]);
    return difference <= kAlike * static_cast<double>(a.look.size());
  };
  const auto steady = [&](std::size_t j) { return std::abs(interval(j + 1) - interval(j)) <= kSteadyS; };
  std::size_t first = i, last = i;
  while (first > 0 && follows(first - 1) && (first == i || steady(first - 1))) --first;
  while (last + 1 < candidates_.size() && follows(last) && (last == first || steady(last - 1))) ++last;
  return last - first + 1 >= kTrain;
}

// Finds the best sequence of open candidates after the last beat; what it says before `before` is final.
void RPeakDetector::settle(std::int64_t now, std::int64_t before) {
  const Candidate* open = candidates_.data() + first_open_;
  const std::size_t n = candidates_.size() - first_open_;
  if (n == 0) return;
  constexpr std::size_t kNone = static_cast<std::size_t>(-1);
  std::vector<double> score(n);
  std::vector<std::size_t> previous(n, kNone);
  const auto too_soon = [](const Candidate& a, const Candidate& b) {
    return b.time_s - a.time_s < (a.steady && b.steady ? kFastestS : kRefractoryS);
  };
  const auto step_cost = [](const Candidate& a, const Candidate& b) {
    const double dt = b.time_s - a.time_s;
    double cost = gap_cost(dt);
    if (dt < kEarlyS) cost += kEarlyCost * (kEarlyS - dt) / (kEarlyS - kRefractoryS);
    return cost;
  };
  const double never = -std::numeric_limits<double>::infinity();
  const auto first_score = [&](const Candidate& c) {
    if (!any_beat_) return c.reward - gap_cost(c.time_s);
    return too_soon(last_beat_, c) ? never : c.reward - step_cost(last_beat_, c);
  };
  const double now_s = static_cast<double>(now) / analysis_fs_;
  double best = -gap_cost(now_s - (any_beat_ ? last_beat_.time_s : 0));
  std::size_t last = kNone;
  for (std::size_t j = 0; j < n; ++j) {
    score[j] = first_score(open[j]);
    for (std::size_t i = 0; i < j; ++i) {
      if (too_soon(open[i], open[j])) continue;
      const double s = score[i] + open[j].reward - step_cost(open[i], open[j]);
      if (s > score[j]) score[j] = s, previous[j] = i;
    }
    const double s = score[j] - gap_cost(now_s - open[j].time_s);
    if (s > best) best = s, last = j;
  }
  std::vector<std::size_t> path;
  for (std::size_t j = last; j != kNone; j = previous[j])
    if (open[j].k < before) path.push_back(j);
  std::reverse(path.begin(), path.end());
  for (std::size_t j : path) {
    beats_.push_back(refine(open[j]));
    last_beat_ = open[j];
    any_beat_ = true;
  }
  while (first_open_ < candidates_.size() && candidates_[first_open_].k < before) ++first_open_;
}

// The extremum of the lightly smoothed signal near the candidate, in the polarity of the lead's beats so far unless
// this beat's own is clear. Alike for both signs of the signal.
std::int64_t RPeakDetector::refine(const Candidate& candidate) {
  Lead& lead = leads_[candidate.lead];
  const std::int64_t centre = std::min(candidate.k * step_, n_samples_ - 1);
  const std::int64_t reach = std::llround(kReachS * fs_), half = static_cast<std::int64_t>(refine_taps_.size() / 2);
  const std::int64_t first = centre - 2 * reach - half, n = 4 * reach + 2 * half + 1;
  std::vector<double> x(static_cast<std::size_t>(n)), smooth(static_cast<std::size_t>(2 * reach + 1));
  for (std::int64_t i = 0; i < n; ++i)
    x[static_cast<std::size_t>(i)] = lead.signal[std::clamp<std::int64_t>(first + i, 0, n_samples_ - 1)];
  double baseline = 0;
  for (const double value : x) baseline += value;
  baseline /= static_cast<double>(n);
  kernels().dots(x.data() + reach, refine_taps_.data(), 2 * half + 1, 2 * reach + 1, smooth.data());

  double high = -std::numeric_limits<double>::infinity(), low = -high;
  std::int64_t at_high = centre, at_low = centre;
  for (std::int64_t i = -reach; i <= reach; ++i) {
    if (centre + i < 0 || centre + i >= n_samples_) continue;
    const double far = static_cast<double>(i) / static_cast<double>(reach + 1);
    const double z = (smooth[static_cast<std::size_t>(i + reach)] - baseline) * (1 - 0.5 * far * far);
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
  const std::int64_t first = first_open_ < candidates_.size() ? candidates_[first_open_].k : next_;
  const std::int64_t half = static_cast<std::int64_t>(kHalfLevel);
  for (Lead& lead : leads_) {
    lead.signal.forget_before(std::min((first - reach) * step_, lead.low.end() * step_ - half_low_));
    lead.low.forget_before(lead.traces[0].end() - 2 * reach_ - 2);  // for the mirror image
    for (std::size_t b = 0; b < n_bands; ++b) lead.rough[b].forget_before(lead.traces[b].end() - bands_[b].half_smooth);
    for (detail::Track& trace : lead.traces) trace.forget_before(std::min(next_ - around_ - near_, n_fused_ * block_));
    lead.on_rail.forget_before(next_ - around_);
    for (detail::Track* track : {&lead.gain, &lead.share}) track->forget_before(std::min(next_ / block_, n_fused_ - 1));
    lead.block_max.forget_before(n_gains_ - half);
    lead.block_median.forget_before(n_gains_ - half);
    lead.block_range.forget_before(n_gains_ - half);
    lead.clear_level.forget_before(n_gains_ - kLastingBlocks);
  }
  for (detail::Track& trace : fused_) trace.forget_before(next_ - around_);
  const double begin_s = static_cast<double>(first) / analysis_fs_ - kMarginBeforeS;
  const auto is_needed = [&](const Candidate& c) { return c.time_s >= begin_s; };
  const auto kept = std::find_if(candidates_.begin(), candidates_.end(), is_needed);
  first_open_ -= static_cast<std::size_t>(kept - candidates_.begin());
  candidates_.erase(candidates_.begin(), kept);
}

}  // namespace pqrst
