// The innermost loops, compiled once per SIMD level and chosen when the extension is loaded. All levels give the same
// bits: lanes never meet but in one fixed order, and multiply-add is fused everywhere or nowhere.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>

#include "half.hpp"

namespace pqrst {

// Uninitialised numbers on a cache line of their own, for one thread; grows, and is kept from record to record.
class Scratch {
public:
  double* get(std::size_t n) {
    if (n > size_) {
      values_.reset(static_cast<double*>(::operator new(n * sizeof(double), alignment)));
      size_ = n;
    }
    return values_.get();
  }

private:
  static constexpr std::align_val_t alignment{64};
  struct Free {
    void operator()(double* values) const { ::operator delete(values, alignment); }
  };
  std::unique_ptr<double, Free> values_;
  std::size_t size_ = 0;
};

// ------------------------------------------------------------------------------------------------ filter

// Sections with the poles of 1 + a1/z + a2/z^2 and one gain in front. A band-pass has its zeros at 1 and -1, see
// filter.inl; a notch is one section with 1 + middle/z + 1/z^2.
struct Cascade {
  int n_sections;
  bool is_notch;
  double a1[8], a2[8];
  double middle;
  double gain;   // of one pass
  double level;  // what each section puts out, before the gain, when 1 has gone in forever
  std::ptrdiff_t padding;
};

constexpr int n_delays_of(int n_sections) {
  return 3 * n_sections + 1;
}
constexpr std::ptrdiff_t chunk_values = 96 * 1024;  // frames x lanes kept at a time: stays in the second cache

// --------------------------------------------------------------------------------------------- resampler

// n_rows outputs of a period that share their columns: samples in the turned input, and one tap for each output.
struct PolyphaseBlock {
  std::ptrdiff_t row, first, n_columns;
};

template <class T>
struct Polyphase {
  std::ptrdiff_t in_period, out_period;  // samples; at least 8
  std::ptrdiff_t before, reach;  // periods of input that precede, and that are needed beyond, those of the output
  std::ptrdiff_t chunk;          // periods at a time
  std::ptrdiff_t x_stride, y_stride;
  int n_rows;  // 4, 5 or 6
  std::ptrdiff_t n_blocks;
  const PolyphaseBlock* blocks;
  const std::ptrdiff_t* columns;
  const T* taps;
};

// ----------------------------------------------------------------------------------------------- scaling

struct Extent {
  double low, high;  // where all are finite
  bool finite;
};

struct Moments {
  double sum, squares;
};

// (x * unit - center) * factor + shift, or with `divide` the quotient by it. The unit is a power of two.
struct Scaling {
  double unit, center, factor, shift;
  bool divide;
};

// ------------------------------------------------------------------------------------- signal file codes

// (code - baseline) / gain * to_mv in float64, rounded once to float32; NaN for the invalid code.
struct Calibration {
  double baseline, gain, to_mv;
  bool in_float;  // the same comes out of float32: whole numbers up to 2^24, see signals.cpp
  bool has_invalid;
  std::int32_t invalid;
};

constexpr std::size_t turn_ahead = 3;  // samples behind the frames that may be looked at, whatever they are

// --------------------------------------------------------------------------------------------- correlate

using Correlate = void(const double* x, const double* taps, std::ptrdiff_t n_taps, std::ptrdiff_t n, double* out);
using Magnitude = void(const double* x, const double* even, const double* odd, std::ptrdiff_t half, std::ptrdiff_t n,
                       double* out);

// Sorted, the one of n values that has `rank` below it. None is negative; zeros stand behind them, most_ranked in all.
constexpr std::ptrdiff_t most_ranked = 48;
template <class T>
using Ranked = T(const T* x, std::ptrdiff_t n, int rank);

// ---------------------------------------------------------------------------------------------- augment

// What the random words of a row are keyed by, and the last word of their counters.
struct RandomKey {
  std::uint32_t words[5];  // seed, epoch and row; the fifth is the parity of the others
  std::uint32_t row;       // its upper half
};

inline RandomKey random_key(std::uint32_t a, std::uint32_t b, std::uint32_t c, std::uint32_t d, std::uint32_t row) {
  return {{a, b, c, d, 0x1BD11BDA ^ a ^ b ^ c ^ d}, row};
}

// -------------------------------------------------------------------------------------------- the table

template <class In, class Out>
using FilterLeads = void(const Cascade&, const In* const* x, Out* const* out, std::ptrdiff_t n_leads, std::ptrdiff_t n,
                         double* scratch);
template <class T, class Sample>
using ResampleLead = void(const Polyphase<T>&, const Sample* x, std::ptrdiff_t n, Sample* out, std::ptrdiff_t n_out,
                          T* scratch);
template <class T>
using ExtentOf = void(const T* x, std::ptrdiff_t n, Extent*);
template <class T>
using MomentsOf = void(const T* x, std::ptrdiff_t n, double unit, double center, Moments*);
template <class T, class Out>
using ScaleRow = void(const T* x, std::ptrdiff_t n, const Scaling*, Out* out);

using TurnFrames = void(const std::int32_t* frames, std::ptrdiff_t n, std::ptrdiff_t stride, std::int32_t* rows);
using SumCodes = std::uint32_t(const std::int32_t* codes, std::ptrdiff_t n);
using ConvertCodes = void(const Calibration&, const std::int32_t* codes, std::ptrdiff_t n, float* out);

using RandomWords = void(const RandomKey*, const std::uint32_t* counter, std::uint32_t* words);
using AddNoise = void(const RandomKey*, std::uint32_t lead, float amount, float* x, std::ptrdiff_t n);
using AddWave = void(float amplitude, float turns_per_sample, float phase, float* x, std::ptrdiff_t n);
using Widen = void(const Half* x, std::ptrdiff_t n, float* out);

struct Kernels {
  const char* level;
  FilterLeads<float, float>* filter_float;
  FilterLeads<float, double>* filter_widening;
  FilterLeads<double, double>* filter_double;
  ResampleLead<float, float>* resample_float;
  ResampleLead<double, float>* resample_float_long;  // long filters: float32 arrays, float64 sums
  ResampleLead<double, double>* resample_double;
  ExtentOf<float>* extent_float;
  ExtentOf<double>* extent_double;
  MomentsOf<float>* moments_float;
  MomentsOf<double>* moments_double;
  ScaleRow<float, float>* scale_float;
  ScaleRow<double, double>* scale_double;
  ScaleRow<double, float>* scale_narrowing;
  ScaleRow<double, Half>* scale_half;
  TurnFrames* turn_frames;
  SumCodes* sum_codes;
  ConvertCodes* convert_codes;
  Correlate* correlate;
  Correlate* dots;
  Magnitude* magnitude;
  Ranked<float>* ranked_float;
  Ranked<double>* ranked_double;
  RandomWords* random_words;
  AddNoise* add_noise;
  AddWave* add_wave;
  Widen* widen;
};

// Those of the best level that this machine has, or of the one that the variable PQRST_SIMD names. Throws
// std::invalid_argument where that is no level, or not one of this machine.
const Kernels& kernels();

}  // namespace pqrst
