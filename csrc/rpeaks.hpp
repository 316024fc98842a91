// R peaks of any ECG, streaming: the best sequence of envelope peaks, settled a fixed time after they were heard.
//
//   push ─► bridge ─► low-pass ─► band-passes ─► normalise ─► sum of ─► candidates ─► log-odds, ─► best     ─► R peak
//           gaps      decimate    |z|, smooth    by level     leads                   per lead     sequence
//           └───────────────── per lead ────────────────┘
//
// Sources of the ideas: the QRS band and the rule that a T wave is flatter than the QRS before it, Pan & Tompkins, IEEE
// Trans Biomed Eng 32 (1985); the envelope as the magnitude of a quadrature pair, as in Hilbert-transform detectors
// (Benitez et al., Comput Biol Med 31 (2001)); beats as the best path through candidates instead of thresholds,
// dynamic programming as in Viterbi's decoder and in Ellis' beat tracker, J New Music Res 36 (2007).
//
// Every decision depends on the position in the recording alone, taken once a second of signal; how the signal is cut
// into chunks changes nothing. Work per second of signal is bounded, and so is memory.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

#include "array.hpp"

namespace pqrst {

namespace detail {

// The recent part of an endless series. Indices are absolute and may be negative; what is forgotten is gone.
class Track {
public:
  explicit Track(std::int64_t n_before = 0)
      : values_(static_cast<std::size_t>(n_before)), first_(-n_before), kept_(-n_before) {}
  std::int64_t end() const { return end_; }
  const double* at(std::int64_t i) const { return values_.data() + (i - first_); }
  double* at(std::int64_t i) { return values_.data() + (i - first_); }
  double operator[](std::int64_t i) const { return *at(i); }
  void push(double value) { *grow(1) = value; }
  double* grow(std::int64_t n) {  // n more, to be written
    if (end_ + n - first_ > static_cast<std::int64_t>(values_.size())) make_room(n);
    end_ += n;
    return at(end_ - n);
  }
  void set(std::int64_t i, double value) { *at(i) = value; }
  void forget_before(std::int64_t i) { kept_ = std::max(kept_, i); }

private:
  // Moves what is kept to the front, where it is the smaller part: constant work per sample.
  void make_room(std::int64_t n) {
    if (kept_ > first_) std::copy(at(kept_), at(end_), values_.data());
    first_ = kept_;
    const std::int64_t needed = 2 * (end_ + n - first_);
    if (needed > static_cast<std::int64_t>(values_.size())) values_.resize(static_cast<std::size_t>(2 * needed));
  }

  std::vector<double> values_;
  std::int64_t first_, kept_;
  std::int64_t end_ = 0;
};

}  // namespace detail

// From what a possible beat looks like to the log-odds of its being one: one layer of hidden units. Those in use stand
// in rpeaks_weights.hpp, fitted by benchmarks/fit_rpeaks.py.
struct RPeakWeights {
  static constexpr std::size_t n_features = 25, n_units = 32;
  std::array<std::array<double, n_units>, n_features> hidden;
  std::array<double, n_units> hidden_bias, output;
  double bias;
};

class RPeakDetector {
public:
  static constexpr std::size_t n_bands = 4;
  using Features = std::array<double, RPeakWeights::n_features>;

  // A possible beat, for those who fit weights.
  struct Seen {
    double time_s, log_height;
    std::vector<Features> features;  // in the sum of the leads and, of several, in each
  };
  std::vector<Seen>* seen = nullptr;  // where all are noted, if anywhere
  RPeakWeights weights;

  RPeakDetector(double fs, std::ptrdiff_t n_leads);

  // The next samples of every lead, (n_leads, any number); returns the beats settled by them, as sample indices from
  // the first sample ever pushed, ascending over all calls. Not finite: a gap in that lead, without effect on others.
  std::vector<std::int64_t> push(View<const float> chunk) { return push_any(chunk); }
  std::vector<std::int64_t> push(View<const double> chunk) { return push_any(chunk); }

  // The beats still open at the end of the recording. Nothing can be pushed afterwards.
  std::vector<std::int64_t> finish();

  // A beat is returned at the latest when this much signal after it has been pushed.
  double look_ahead_s() const;
  double fs() const { return fs_; }
  std::ptrdiff_t n_leads() const { return static_cast<std::ptrdiff_t>(leads_.size()); }

private:
  // A band-pass and its Hilbert transform, and the window that smooths their magnitude; samples of the analysis.
  struct Band {
    std::vector<double> even, odd, smooth;
    std::int64_t half, half_smooth;
  };

  using Traces = std::array<detail::Track, n_bands + 1>;  // the envelope in each band; last the slope

  struct Lead {
    detail::Track signal;                      // at fs: offset removed, gaps bridged
    detail::Track low;                         // from here on at the analysis rate: low-passed
    std::array<detail::Track, n_bands> rough;  // magnitude of the band-passed signal
    Traces traces;                             // the same, smoothed; where the leads are summed, over the lead's level
    detail::Track block_max, block_median;     // of the first envelope, one number a block
    detail::Track block_range;                 // of the signal: its highest less its lowest value
    detail::Track gain, share;                 // one over the level; weight in the sum; one number a block
    detail::Track clear_level;                 // the level where the lead shows beats, else 0; one number a block
    detail::Track on_rail;                     // 1 where the lead is far above what an ECG can be, else 0
    std::int64_t rail_end = 0;                 // at the analysis rate
    double held = 0, shift = 0;
    bool in_gap = true;
    double last = 0, before_still = 0;  // the latest sample; what was held ahead of its first repetition ...
    std::int64_t n_still = 0;           // ... how often it came in a row
    double long_level = 0;
    double polarity = 0;  // -1..1, of the beats so far
  };

  // A peak of the first envelope of the sum.
  struct Candidate {
    std::int64_t k = 0;  // place, at the analysis rate
    double time_s = 0;
    double log_odds = 0;                // of being a beat, by its look in the sum
    std::vector<double> of_leads;       // by its look in each of several leads
    std::vector<char> on_rail;          // whether each of them is, or just was or soon will be
    std::vector<double> height, ahead;  // in each of several leads: the envelope, and its highest ahead of the QRS
    std::size_t best = 0;               // the lead that tells beats from others best
    Features look{};                    // in the sum
    bool steady = false;                // one of a very fast rhythm
    double reward = 0;                  // what the sequence gains by it
    std::size_t lead = 0;               // that shows it best
  };

  template <class T>
  std::vector<std::int64_t> push_any(View<const T> chunk);
  template <class T>
  std::int64_t take_plain(Lead& lead, const T* x, std::int64_t n, double* signal) const;
  void advance(bool last);
  void filter(Lead& lead, std::int64_t end, std::int64_t n_analysis);
  void summarise(Lead& lead, std::int64_t begin, std::int64_t end);
  void set_gains(std::int64_t block);
  void fuse(std::int64_t block, std::int64_t end);
  void find_candidates(std::int64_t end);
  Candidate describe(std::int64_t k) const;
  Features features(const Traces& traces, std::int64_t k) const;
  void weigh();
  bool in_train(std::size_t i) const;
  bool like_blocked_p(std::size_t i, std::size_t best) const;
  void settle(std::int64_t now, std::int64_t before);
  std::int64_t refine(const Candidate& candidate);
  void forget();

  double fs_, analysis_fs_;
  std::int64_t step_;  // input samples per analysis sample
  std::int64_t block_, half_low_, still_, reach_, around_, near_, separation_, look_ahead_;
  std::vector<double> low_taps_, refine_taps_, from_middle_;
  std::array<Band, n_bands> bands_;
  std::vector<Lead> leads_;
  Traces fused_;
  std::vector<double> fine_, gains_, shares_, lost_;  // room to work in
  std::int64_t n_samples_ = 0, n_blocks_ = 0, n_gains_ = 0, n_fused_ = 0, next_ = 0;
  std::vector<Candidate> candidates_;  // the latest
  std::size_t first_open_ = 0;         // of them, from here on: not settled yet
  Candidate last_beat_;
  bool any_beat_ = false, finished_ = false;
  std::vector<std::int64_t> beats_;  // settled, not returned yet
};

// The whole of x through a new detector, in one push, and finished.
template <class T>
std::vector<std::int64_t> all_beats(RPeakDetector& detector, View<const T> x) {
  std::vector<std::int64_t> beats = detector.push(x);
  const std::vector<std::int64_t> rest = detector.finish();
  beats.insert(beats.end(), rest.begin(), rest.end());
  return beats;
}

template <class T>
std::vector<std::int64_t> rpeaks(View<const T> x, double fs) {
  RPeakDetector detector(fs, x.rows);
  return all_beats(detector, x);
}

}  // namespace pqrst
