// Resampling by a rational ratio, equal to scipy.signal.resample_poly with its defaults: up samples in, down samples
// out, low-pass at the lower Nyquist frequency with a Kaiser-windowed sinc, no delay, zeros beyond both ends.
#pragma once

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <numeric>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "array.hpp"
#include "functions.hpp"
#include "kernels.hpp"
#include "refuse.hpp"

namespace pqrst {

// ------------------------------------------------------------------------------------------------- rates

struct Ratio {
  std::int64_t up, down;  // both at least 1, no common factor
};

constexpr std::int64_t max_denominator = 10000, max_denominator_near = 1000;
constexpr double max_rate = 1e12;             // Hz; times max_denominator it still fits an int64
constexpr std::int64_t max_factor = 1 << 20;  // largest up or down: 21 million taps, 160 MiB

// The simplest fraction from which `n` samples at this rate drift by less than half of one; {0, 0} if there is none.
inline Ratio near_fraction(double fs, std::ptrdiff_t n) {
  for (std::int64_t denominator = 1; denominator <= max_denominator_near; ++denominator) {
    const double numerator = std::round(fs * static_cast<double>(denominator));
    if (numerator >= 1 &&
        std::abs(numerator / static_cast<double>(denominator) / fs - 1) * static_cast<double>(n) < 0.5)
      return {static_cast<std::int64_t>(numerator), denominator};
  }
  return {0, 0};
}

// A rate as the fraction with the smallest denominator that rounds to this very double: 499.348 is 124837 / 250. One
// that has none, as 249.99999999999997 out of a division, is the fraction near enough for `n` samples.
inline Ratio as_fraction(const std::string& argument, double fs,
                         std::ptrdiff_t n = std::numeric_limits<std::ptrdiff_t>::max()) {
  check_rate(argument, fs);
  if (fs > max_rate) refuse(argument, fs, "must be at most " + number(max_rate) + " Hz");
  for (std::int64_t denominator = 1; denominator <= max_denominator; ++denominator) {
    const double numerator = std::round(fs * static_cast<double>(denominator));
    if (numerator >= 1 && numerator / static_cast<double>(denominator) == fs)
      return {static_cast<std::int64_t>(numerator), denominator};
  }
  if (const Ratio near = near_fraction(fs, n); near.up > 0) return near;
  refuse(argument, fs, "is no fraction with a denominator up to " + std::to_string(max_denominator) + "; round it");
}

// out / in, reduced.
inline Ratio rate_ratio(Ratio in, Ratio out) {
  const std::int64_t rates = std::gcd(in.up, out.up), parts = std::gcd(in.down, out.down);
  Ratio ratio{};
  if (__builtin_mul_overflow(out.up / rates, in.down / parts, &ratio.up) ||
      __builtin_mul_overflow(in.up / rates, out.down / parts, &ratio.down))
    throw std::invalid_argument("fs_in, fs_out: their ratio needs numbers above 2^63; round the rates");
  const std::int64_t common = std::gcd(ratio.up, ratio.down);
  return {ratio.up / common, ratio.down / common};
}

// For `n` samples at fs_in. Where the exact ratio needs numbers too large for a filter, as from 250.0001 Hz, the
// fraction near enough to fs_in is taken.
inline Ratio rate_ratio(double fs_in, double fs_out, std::ptrdiff_t n) {
  check_rate("fs_in", fs_in);
  check_rate("fs_out", fs_out);
  if (fs_in == fs_out) return {1, 1};
  const Ratio out = as_fraction("fs_out", fs_out), ratio = rate_ratio(as_fraction("fs_in", fs_in, n), out);
  const Ratio near = std::max(ratio.up, ratio.down) > max_factor ? near_fraction(fs_in, n) : Ratio{0, 0};
  return near.up > 0 ? rate_ratio(near, out) : ratio;
}

inline std::int64_t floor_div(std::int64_t a, std::int64_t b) {
  return a / b - (a % b != 0 && (a < 0) != (b < 0));
}

// ceil(n * up / down)
inline std::ptrdiff_t resampled_length(std::ptrdiff_t n, std::int64_t up, std::int64_t down) {
  std::ptrdiff_t whole = 0, rest = 0;
  if (__builtin_mul_overflow(n / down, up, &whole) || __builtin_mul_overflow(n % down, up, &rest) ||
      __builtin_add_overflow(whole, rest / down + (rest % down != 0), &whole))
    throw std::invalid_argument("x: " + std::to_string(n) + " samples x " + std::to_string(up) + " / " +
                                std::to_string(down) + " is more than fits an array");
  return whole;
}

// ------------------------------------------------------------------------------------------------ design

// Modified Bessel function of the first kind, order 0, for |x| of some units: sum of ((x / 2)^k / k!)^2, all terms
// positive.
inline double bessel_i0(double x) {
  const double quarter = x * x / 4;
  double term = 1, sum = 1;
  for (int k = 1; term > sum * 1e-17; ++k) {
    term *= quarter / (static_cast<double>(k) * k);
    sum += term;
  }
  return sum;
}

// The 2 * 10 * max(up, down) + 1 taps of scipy.signal.firwin(.., 1 / max(up, down), window=("kaiser", 5.0)), times up:
// ten zero crossings of the sinc on each side, a window down to 1 / I0(5) = 0.037, gain 1 at 0 Hz.
inline std::vector<double> resampling_taps(Ratio ratio) {
  const std::int64_t factor = std::max(ratio.up, ratio.down);
  const auto text = [](std::int64_t n) { return std::to_string(n); };
  if (ratio.up < 1 || ratio.down < 1)
    throw std::invalid_argument("ratio " + text(ratio.up) + " / " + text(ratio.down) + ": both must be at least 1");
  if (factor > max_factor)
    throw std::invalid_argument("fs_in, fs_out: their ratio is " + text(ratio.up) + " / " + text(ratio.down) +
                                ", both numbers must be at most " + text(max_factor) + "; round the rates");
  const std::int64_t half = 10 * factor;
  std::vector<double> taps(static_cast<std::size_t>(2 * half + 1));
  const double edge = 1 / bessel_i0(5.0);
  double sum = 0;
  for (std::int64_t i = half; i >= 1; --i) {  // from the small taps to the large
    const double sine = sin_pi(static_cast<double>(i % (2 * factor)) / static_cast<double>(factor));
    const double place = static_cast<double>(i) / static_cast<double>(half);  // 0..1, from the middle to the end
    const double window = bessel_i0(5.0 * std::sqrt((1 - place) * (1 + place))) * edge;
    const double tap = sine / (pi * static_cast<double>(i)) * window;
    taps[static_cast<std::size_t>(half + i)] = taps[static_cast<std::size_t>(half - i)] = tap;
    sum += 2 * tap;
  }
  taps[static_cast<std::size_t>(half)] = 1 / static_cast<double>(factor);
  sum += taps[static_cast<std::size_t>(half)];
  for (double& tap : taps) tap = tap / sum * static_cast<double>(ratio.up);
  return taps;
}

// ------------------------------------------------------------------------------------------- application

constexpr std::int64_t longest_period = 4096;  // beyond, outputs are computed one by one

// One ratio, designed once and used for any number of signals. Sample is what the arrays hold; sums are in the same
// type, but in float64 where a float32 array needs a filter so long that its rounding errors would show.
template <class Sample>
class Resampler {
public:
  explicit Resampler(Ratio wanted) : ratio_(wanted) {
    if (is_copy()) return;
    taps_ = resampling_taps(ratio_);
    if (std::max(ratio_.up, ratio_.down) > longest_period)
      return;
    else if (std::is_same_v<Sample, float> && 20 * ratio_.down <= longest_sum * ratio_.up)
      narrow_.design(*this);
    else
      wide_.design(*this);
  }

  bool is_copy() const { return ratio_.up == ratio_.down; }
  std::ptrdiff_t output_length(std::ptrdiff_t n) const { return resampled_length(n, ratio_.up, ratio_.down); }

  // x (n,) -> out (output_length(n),), another array than x. NaN and infinity spread as far as the taps of a few
  // neighbouring outputs.
  void apply(const Sample* x, std::ptrdiff_t n, Sample* out, Scratch& scratch) const {
    if (is_copy())
      std::copy(x, x + n, out);
    else if (!narrow_.blocks.empty())
      narrow_.apply(x, n, out, output_length(n), scratch);
    else if (!wide_.blocks.empty())
      wide_.apply(x, n, out, output_length(n), scratch);
    else
      one_by_one(x, n, out);
  }

  void apply(View<const Sample> x, View<Sample> out) const {
    Scratch scratch;
    for (std::ptrdiff_t lead = 0; lead < x.rows; ++lead) apply(x.row(lead), x.cols, out.row(lead), scratch);
  }

private:
  static constexpr std::int64_t longest_sum = 128;  // taps

  // Output m sits at input m * down / up: the input at or before it, and how far beyond that it is, in 1 / up.
  struct Place {
    std::int64_t at, beyond;
    std::int64_t first, last;  // the inputs under its taps
  };
  Place place(std::int64_t m) const {
    const std::int64_t half = (static_cast<std::int64_t>(taps_.size()) - 1) / 2;
    const std::int64_t at = m / ratio_.up * ratio_.down + m % ratio_.up * ratio_.down / ratio_.up;
    const std::int64_t beyond = m % ratio_.up * ratio_.down % ratio_.up;
    return {at, beyond, at - (half - beyond) / ratio_.up, at + (half + beyond) / ratio_.up};
  }
  double tap(const Place& p, std::int64_t input) const {
    const std::int64_t half = (static_cast<std::int64_t>(taps_.size()) - 1) / 2;
    return taps_[static_cast<std::size_t>(half + p.beyond - (input - p.at) * ratio_.up)];
  }

  // What the kernel works with, for sums in T.
  template <class T>
  struct Plan {
    std::vector<PolyphaseBlock> blocks;
    std::vector<std::ptrdiff_t> columns;
    std::vector<T> taps;
    Polyphase<T> layout{};

    void design(const Resampler& r) {
      const std::int64_t periods = (7 + std::min(r.ratio_.up, r.ratio_.down)) / std::min(r.ratio_.up, r.ratio_.down);
      const std::int64_t in = r.ratio_.down * periods, out = r.ratio_.up * periods;
      layout.in_period = in;
      layout.out_period = out;
      layout.before = -floor_div(r.place(0).first, in);
      layout.reach = layout.before + floor_div(r.place(out - 1).last, in);
      layout.chunk = std::max<std::ptrdiff_t>(64, 8192 / std::max(in, out));
      constexpr std::ptrdiff_t overrun = 64;  // vectors and squares go beyond the last period
      layout.x_stride = layout.chunk + layout.reach + overrun;
      layout.y_stride = layout.chunk + overrun;
      const std::int64_t n_blocks = (out + 5) / 6;
      layout.n_rows = static_cast<int>((out + n_blocks - 1) / n_blocks);
      for (std::int64_t b = 0; b < n_blocks; ++b) {
        const std::int64_t row = std::min<std::int64_t>(b * layout.n_rows, out - layout.n_rows);
        PolyphaseBlock block{row, static_cast<std::ptrdiff_t>(columns.size()), 0};
        for (std::int64_t i = r.place(row).first; i <= r.place(row + layout.n_rows - 1).last; ++i) {
          std::vector<T> column;
          for (std::int64_t m = row; m < row + layout.n_rows; ++m) {
            const Place p = r.place(m);
            column.push_back(i < p.first || i > p.last ? T(0) : static_cast<T>(r.tap(p, i)));
          }
          if (std::all_of(column.begin(), column.end(), [](T t) { return t == 0; })) continue;
          const std::int64_t period = floor_div(i, in);
          columns.push_back((i - period * in) * layout.x_stride + period + layout.before);
          taps.insert(taps.end(), column.begin(), column.end());
          ++block.n_columns;
        }
        blocks.push_back(block);
      }
    }

    void apply(const Sample* x, std::ptrdiff_t n, Sample* out, std::ptrdiff_t n_out, Scratch& scratch) const {
      Polyphase<T> p = layout;
      p.n_blocks = static_cast<std::ptrdiff_t>(blocks.size());
      p.blocks = blocks.data();
      p.columns = columns.data();
      p.taps = taps.data();
      const std::ptrdiff_t n_line = std::max(p.in_period, p.out_period) * (p.chunk + p.reach + 8);
      const std::ptrdiff_t n_values = p.in_period * p.x_stride + p.out_period * p.y_stride + n_line;
      const std::size_t n_doubles = static_cast<std::size_t>(n_values) * sizeof(T) / sizeof(double) + 1;
      T* const room = reinterpret_cast<T*>(scratch.get(n_doubles));
      if constexpr (std::is_same_v<T, float>)
        kernels().resample_float(p, x, n, out, n_out, room);
      else if constexpr (std::is_same_v<Sample, float>)
        kernels().resample_float_long(p, x, n, out, n_out, room);
      else
        kernels().resample_double(p, x, n, out, n_out, room);
    }
  };

  // Ratios of large numbers have more phases than most signals have samples.
  void one_by_one(const Sample* x, std::ptrdiff_t n, Sample* out) const {
    for (std::int64_t m = 0; m < output_length(n); ++m) {
      const Place p = place(m);
      double sum = 0;
      for (std::int64_t i = std::max<std::int64_t>(p.first, 0); i <= std::min<std::int64_t>(p.last, n - 1); ++i)
        sum = std::fma(tap(p, i), static_cast<double>(x[i]), sum);
      out[m] = static_cast<Sample>(sum);
    }
  }

  Ratio ratio_;
  std::vector<double> taps_;
  Plan<Sample> narrow_;  // of float32 arrays
  Plan<double> wide_;
};

// Resamplers that are kept for the life of the process, the last one first. Nothing is ever removed and no lock is
// taken: a process that forks while another thread is here must not leave a lock behind that nobody opens.
template <class Sample>
struct Kept {
  Ratio ratio;
  std::shared_ptr<const Resampler<Sample>> resampler;
  const Kept* next;
  int n_before;
};
template <class Sample>
inline std::atomic<const Kept<Sample>*> kept{nullptr};

// The resampler of a ratio, designed once and kept; very large ones are not, nor those beyond the first 64.
template <class Sample>
std::shared_ptr<const Resampler<Sample>> resampler_for(Ratio ratio) {
  constexpr int most_kept = 64;
  const Kept<Sample>* head = kept<Sample>.load(std::memory_order_acquire);
  for (const auto* each = head; each; each = each->next)
    if (each->ratio.up == ratio.up && each->ratio.down == ratio.down) return each->resampler;
  const auto designed = std::make_shared<const Resampler<Sample>>(ratio);
  const int n = head ? head->n_before + 1 : 0;
  if (std::max(ratio.up, ratio.down) > longest_period || n >= most_kept) return designed;
  auto mine = std::make_unique<Kept<Sample>>(Kept<Sample>{ratio, designed, head, n});
  // where another thread was faster this one is not kept, and designed again when it is next asked for
  if (kept<Sample>.compare_exchange_strong(head, mine.get(), std::memory_order_acq_rel)) mine.release();
  return designed;
}

}  // namespace pqrst
