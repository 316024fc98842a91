// Binds filters, resampling, segmentation and scaling.
#include "bindings.hpp"

#include <array>
#include <limits>
#include <type_traits>

#include "augment.hpp"
#include "cluster.hpp"
#include "filter.hpp"
#include "kernels.hpp"
#include "refuse.hpp"
#include "resample.hpp"
#include "scale.hpp"
#include "segment.hpp"

namespace pqrst {
namespace {

// A kernel from (L, T) to (L, T), run without the GIL.
template <class Kernel>
py::array same_shape(const py::object& x, Kernel kernel) {
  return with_numbers(x, [&](const auto& in) -> py::array {
    const auto view = signal_view(in);
    auto out = result_like(in, view.cols);
    const auto result = mutable_view(out);
    {
      const py::gil_scoped_release release;
      kernel(view, result);
    }
    return out;
  });
}

// A kernel over the last axis of any rank, run without the GIL.
template <class Kernel>
py::array each_row(const py::object& x, Kernel kernel) {
  return with_numbers(x, [&](const auto& in) -> py::array {
    using T = typename std::decay_t<decltype(in)>::value_type;
    const py::ssize_t rank = in.ndim();
    if (rank == 0) throw std::invalid_argument("x: is a single number, expected at least one axis");
    const py::ssize_t cols = in.shape(rank - 1);
    if (cols == 0) throw std::invalid_argument("x: has no samples");
    if (rank >= 2 && in.shape(rank - 2) == 0) throw std::invalid_argument("x: has no leads");
    py::array_t<T> out(std::vector<py::ssize_t>(in.shape(), in.shape() + rank));
    const View<const T> view{in.data(), in.size() / cols, cols};
    const View<T> result{out.mutable_data(), view.rows, cols};
    {
      const py::gil_scoped_release release;
      kernel(view, result);
    }
    return out;
  });
}

double rate_as_float(const char* argument, const py::object& fs) {
  try {
    return fs.cast<double>();
  } catch (const py::cast_error&) {
    throw py::type_error(std::string(argument) + ": expected a rate in Hz as int, float or Fraction, got " +
                         py::repr(fs).cast<std::string>());
  }
}

// int and Fraction know themselves exactly; a float is taken as `as_fraction` has it, for n samples.
Ratio fraction_of(const char* argument, const py::object& fs,
                  std::ptrdiff_t n = std::numeric_limits<std::ptrdiff_t>::max()) {
  const double value = rate_as_float(argument, fs);
  if (!py::hasattr(fs, "numerator") || !py::hasattr(fs, "denominator")) return as_fraction(argument, value, n);
  check_rate(argument, value);
  try {
    return {fs.attr("numerator").cast<std::int64_t>(), fs.attr("denominator").cast<std::int64_t>()};
  } catch (const py::cast_error&) {
    refuse(argument, value, "numerator and denominator must be below 2^63");
  }
}

Ratio ratio_of(const py::object& fs_in, const py::object& fs_out, std::ptrdiff_t n) {
  const double in = rate_as_float("fs_in", fs_in), out = rate_as_float("fs_out", fs_out);
  if (fs_in.equal(fs_out)) return rate_ratio(in, out, n);  // no fraction needed for a copy
  return rate_ratio(fraction_of("fs_in", fs_in, n), fraction_of("fs_out", fs_out));
}

py::array augmented(const py::array& x, const In<std::int64_t>& rows, const In<std::int64_t>& valid,
                    const Augmentation& augmentation) {
  check(augmentation);
  refuse_masked("x", x, fill_with_nan);
  if (x.ndim() != 3)
    throw std::invalid_argument("x: expected shape (B, L, T), got " + std::to_string(x.ndim()) + " dimensions");
  const py::ssize_t n = x.shape(0), n_leads = x.shape(1), length = x.shape(2);
  if (rows.size() != n) throw std::invalid_argument("rows: expected shape (B,), one number per row");
  if (valid.shape(0) != n || valid.shape(1) != 2)
    throw std::invalid_argument("valid: expected shape (B, 2), a range per row");
  for (py::ssize_t i = 0; i < n; ++i) {
    const std::int64_t first = valid.at(i, 0), last = valid.at(i, 1);
    if (first < 0 || first >= last || last > length)
      throw std::invalid_argument("valid: row " + std::to_string(i) + " has [" + std::to_string(first) + ", " +
                                  std::to_string(last) + "), expected a range within its " + std::to_string(length) +
                                  " samples");
    if (rows.at(i) < 0) throw std::invalid_argument("rows: " + std::to_string(rows.at(i)) + " is negative");
  }
  const char kind = x.dtype().kind();
  const py::ssize_t size = x.dtype().itemsize();
  if (kind != 'f' || (size != 2 && size != 4))
    throw py::type_error("x: dtype " + py::str(x.dtype()).cast<std::string>() + ", expected float16 or float32");
  const py::object native = x.attr("astype")(x.dtype().attr("newbyteorder")("="), "copy"_a = false);
  const auto in = py::array::ensure(native, py::array::c_style | py::detail::npy_api::NPY_ARRAY_ALIGNED_);
  if (!in) throw py::error_already_set();
  py::array_t<float> out({n, n_leads, length});
  float* const to = out.mutable_data();
  const void* const from = in.data();
  {
    const py::gil_scoped_release release;
    for (py::ssize_t i = 0; i < n; ++i) {
      const std::ptrdiff_t place = i * n_leads * length;
      const auto change = [&](const auto* row) {
        augment(augmentation, static_cast<std::uint64_t>(rows.data()[i]), row + place, n_leads, length,
                valid.data()[2 * i], valid.data()[2 * i + 1], to + place);
      };
      size == 2 ? change(static_cast<const Half*>(from)) : change(static_cast<const float*>(from));
    }
  }
  return out;
}

}  // namespace

void bind_kernels(py::module_& m) {
  m.def(
      "bandpass",
      [](const py::object& x, double fs, double low_hz, double high_hz, int order) {
        return same_shape(x, [=](auto in, auto out) { bandpass(in, fs, low_hz, high_hz, order, out); });
      },
      "x"_a, "fs"_a, "low_hz"_a, "high_hz"_a, "order"_a = 3,
      R"(Zero-phase Butterworth band-pass, equal to scipy.signal.sosfiltfilt with its defaults.

Parameters
----------
x : (T,) or (L, T) float32 or float64 (integers as float64), any unit; T above 3 * (2 * order + 1)
fs : float, sampling rate in Hz
low_hz, high_hz : float, band edges (-6 dB after both passes), 0 < low_hz < high_hz < fs / 2
order : int, 1 to 8

Returns
-------
Shape, dtype and unit of x. Computed in float64, rounded once; NaN or infinity stays in its lead.
float64 lies within 1e-11 x max|x| of SciPy where low_hz >= fs / 2000. Below, coefficients rounded to float64 are another
filter, and SciPy's start is off: measured at 0.05 Hz and 1000 Hz, this is 1e-10 and SciPy 1e-9 from the exact filter.

Raises
------
ValueError
    A setting outside its range, a signal that is not longer than the padding, another rank, no leads, no samples.
TypeError
    x is not numeric (bool, complex, text, None, ...) or float16.)");

  m.def(
      "notch",
      [](const py::object& x, double fs, double notch_hz, double quality) {
        return same_shape(x, [=](auto in, auto out) { notch(in, fs, notch_hz, quality, out); });
      },
      "x"_a, "fs"_a, "notch_hz"_a, "quality"_a = 30.0,
      R"(Zero-phase notch against mains hum, equal to scipy.signal.iirnotch and filtfilt.

Parameters
----------
x : (T,) or (L, T) float32 or float64 (integers as float64), any unit; T at least 10
fs : float, sampling rate in Hz
notch_hz : float, the frequency removed, 0 < notch_hz < fs / 2
quality : float, notch_hz over the width of the notch (-3 dB, one pass), above notch_hz / (fs / 2)

Returns
-------
Shape, dtype and unit of x. Computed in float64, rounded once; NaN or infinity stays in its lead.

Raises
------
ValueError
    A setting outside its range, fewer than 10 samples, another rank, no leads, no samples.
TypeError
    x is not numeric (bool, complex, text, None, ...) or float16.)");

  m.def(
      "resample",
      [](const py::object& x, const py::object& fs_in, const py::object& fs_out) {
        return with_numbers(x, [&](const auto& in) -> py::array {
          using T = typename std::decay_t<decltype(in)>::value_type;
          const View<const T> view = signal_view(in);
          const Ratio ratio = ratio_of(fs_in, fs_out, view.cols);
          const std::ptrdiff_t length = resampled_length(view.cols, ratio.up, ratio.down);
          checked_product("x resampled", checked_product("x resampled", view.rows, length), sizeof(T));
          const auto resampler = [&] {
            py::gil_scoped_release release;
            return resampler_for<T>(ratio);
          }();
          auto out = result_like(in, length);
          const View<T> result = mutable_view(out);
          {
            const py::gil_scoped_release release;
            resampler->apply(view, result);
          }
          return out;
        });
      },
      "x"_a, "fs_in"_a, "fs_out"_a,
      R"(Resample, equal to scipy.signal.resample_poly with its defaults (Kaiser-windowed sinc, no delay, zeros outside).

Parameters
----------
x : (T,) or (L, T) float32 or float64 (integers as float64), any unit
fs_in, fs_out : int, float or fractions.Fraction, rates of x and of the result in Hz; a float must be a fraction with a
    denominator up to 10000 (15.5, 499.348), fs_in else so near to one up to 1000 that the drift over x is below half a
    sample (249.99999999999997); the reduced ratio must not need numbers above 2^20

Returns
-------
(..., ceil(T * fs_out / fs_in)), dtype and unit of x, computed in this dtype; equal rates give a copy. NaN or infinity
stays in its lead, and reaches 10 samples of the lower rate and up to 5 outputs beside them.

Raises
------
ValueError
    A rate that is not finite, not above 0 or no small fraction; a result too large; another rank, no leads, no samples.
TypeError
    x is not numeric (bool, complex, text, None, ...) or float16.)");

  m.def(
      "segment",
      [](const py::object& x, const py::object& centers, std::int64_t length, std::optional<std::int64_t> before) {
        const auto middles = centers_of(centers);
        return with_numbers(x, [&](const auto& in) -> py::array {
          using T = typename std::decay_t<decltype(in)>::value_type;
          if (in.ndim() != 2)
            throw std::invalid_argument("x: expected shape (L, T), got " + std::to_string(in.ndim()) + " dimensions");
          const View<const T> view = signal_view(in);
          if (length < 1) throw std::invalid_argument("length " + std::to_string(length) + ": must be at least 1");
          const std::ptrdiff_t n = middles.size();
          const std::ptrdiff_t row = checked_product("segment: leads x length", view.rows, length);
          checked_product("segment: bytes",
                          checked_product("segment: centers x row", std::max<std::ptrdiff_t>(n, 1), row), sizeof(T));
          py::array_t<T> out({n, view.rows, static_cast<std::ptrdiff_t>(length)});
          T* result = out.mutable_data();
          const std::int64_t* middle = middles.data();
          {
            const py::gil_scoped_release release;
            segment(view, middle, n, length, before.value_or(length / 2), result);
          }
          return out;
        });
      },
      "x"_a, "centers"_a, "length"_a, "before"_a = py::none(),
      R"(Cut a window around each centre.

Parameters
----------
x : (L, T) float32 or float64 (integers as float64), any unit
centers : (N,) int64, sample indices
length : int, samples per window, at least 1
before : int, samples ahead of the centre, 0 to length; length // 2 if None

Returns
-------
(N, L, length), dtype and unit of x; a window that leaves the signal repeats the edge sample.

Raises
------
ValueError
    length < 1, a rank other than 2, no leads, no samples, or a centre more than one window outside the signal.
TypeError
    x is not numeric (bool, complex, text, None, ...) or float16; centers are not integers.)");

  m.def(
      "zscore", [](const py::object& x) { return each_row(x, [](auto in, auto out) { zscore(in, out); }); }, "x"_a,
      R"(Scale each row (last axis) to mean 0 and standard deviation 1 over its samples (ddof 0).

Parameters
----------
x : (..., T) float32 or float64 (integers as float64), any unit, rank at least 1

Returns
-------
Shape and dtype of x, no unit. Computed in float64, rounded once. A constant row gives zeros; a row with a NaN or an
infinity becomes NaN, others are untouched.

Raises
------
ValueError
    A single number, no samples, no leads.
TypeError
    x is not numeric (bool, complex, text, None, ...) or float16.)");

  m.def(
      "minmax", [](const py::object& x) { return each_row(x, [](auto in, auto out) { minmax(in, out); }); }, "x"_a,
      R"(Scale each row (last axis) from its smallest and largest sample to 0 and 1.

Parameters
----------
x : (..., T) float32 or float64 (integers as float64), any unit, rank at least 1

Returns
-------
Shape and dtype of x, no unit, 0..1. Computed in float64, rounded once. A constant row gives zeros; a row with a NaN or
an infinity becomes NaN, others are untouched.

Raises
------
ValueError
    A single number, no samples, no leads.
TypeError
    x is not numeric (bool, complex, text, None, ...) or float16.)");

  m.def(
      "augment",
      [](const py::array& x, const py::object& rows, const py::object& valid, double fs, std::uint64_t seed,
         std::uint32_t epoch, double noise, double gain, double wander, double shift_s, double polarity,
         double lead_dropout, double lead_subset, double time_mask_s) {
        return augmented(
            x, integers_of("rows", rows, "(B,)", 1), integers_of("valid", valid, "(B, 2)", 2),
            {fs, noise, gain, wander, shift_s, polarity, lead_dropout, lead_subset, time_mask_s, seed, epoch});
      },
      "x"_a, "rows"_a, "valid"_a, "fs"_a, "seed"_a = 0, "epoch"_a = 0, py::kw_only(), "noise"_a = 0.0, "gain"_a = 0.0,
      "wander"_a = 0.0, "shift_s"_a = 0.0, "polarity"_a = 0.0, "lead_dropout"_a = 0.0, "lead_subset"_a = 0.0,
      "time_mask_s"_a = 0.0,
      R"(Change rows at random: shift them in time, scale or turn them, add a slow wave, add noise, hide leads and a stretch.

Each row's numbers depend on seed, epoch and its own number alone, not on what else is in the batch, the process or the
SIMD level: Threefry 4x32-20 (Salmon et al. 2011) with these as its key, normal numbers after Box and Muller (1958).
A lead that is zeros throughout is missing or flat, and stays zeros.

Parameters
----------
x : (B, L, T) float16 or float32, rows in any unit
rows : (B,) int64, number of each row in its dataset, 0 or more
valid : (B, 2) int64, [first, last) sample of each row that is changed; the rest is padding
fs : float, rate of the rows, Hz
seed, epoch : int, 0 or more
noise : float, standard deviation of white noise, in units of the row
gain : float, below 1; a row is multiplied by a factor between 1 - gain and 1 + gain
wander : float, largest amplitude of a sine between 0.05 and 0.5 Hz, one for each lead, in units of the row
shift_s : float, largest shift in time either way, s, in whole samples; the ends repeat
polarity : float, 0 to 1, chance that a row is turned upside down
lead_dropout : float, below 1, chance of each lead to become zero; where it hits all that have a signal, all stay
lead_subset : float, 0 to 1, chance that a row keeps a random number of its leads with a signal, 1 to all, and which ones
    at random; the others become zero, and lead_dropout leaves the row alone
time_mask_s : float, longest stretch that becomes zero in all leads of a row, s

Returns
-------
(B, L, T) float32, a new array

Raises
------
ValueError
    Shapes that do not fit, a valid range outside the row, a negative row, or an amount that is out of range.
TypeError
    x is neither float16 nor float32; rows or valid are no integers; seed or epoch is negative.)");

  m.def(
      "cluster_shapes",
      [](const In<float>& x, double joins, double merges) {
        if (x.ndim() != 2)
          throw std::invalid_argument("x: expected shape (N, D), got " + std::to_string(x.ndim()) + " dimensions");
        std::vector<std::int32_t> labels;
        {
          const py::gil_scoped_release release;
          labels = cluster_shapes({x.data(), x.shape(0), x.shape(1)}, joins, merges);
        }
        return py::array_t<std::int32_t>(static_cast<py::ssize_t>(labels.size()), labels.data());
      },
      "x"_a, "joins"_a, "merges"_a,
      R"(Group shapes that are alike, in one pass (leader clustering, Hartigan 1975), then merge groups that are.

Parameters
----------
x : (N, D) float32, one shape per row, any unit
joins : float, the least correlation (cosine of the angle) with the mean of a group at which a shape joins it
merges : float, the correlation of means from which two groups become one

Returns
-------
(N,) int32, 0 for the largest group; -1 for a row that is all zeros or has values that are not finite. At most 64 groups.

Raises
------
ValueError
    x is not of two dimensions.
TypeError
    x is not float32.)");

  m.def(
      "_random_words",
      [](const std::array<std::uint32_t, 4>& key, const std::array<std::uint32_t, 4>& counter) {
        const RandomKey random = random_key(key[0], key[1], key[2], key[3], 0);
        std::array<std::uint32_t, 4> words;
        kernels().random_words(&random, counter.data(), words.data());
        return words;
      },
      "key"_a, "counter"_a, "Threefry 4x32-20, for comparison with its published values.");

  // The designs, for comparison with SciPy's.
  m.def(
      "_bandpass_design",
      [](int order, double low_hz, double high_hz, double fs) {
        const Cascade c = butterworth_bandpass(order, low_hz, high_hz, fs);
        std::vector<std::array<double, 2>> poles;
        for (int k = 0; k < c.n_sections; ++k) poles.push_back({c.a1[k], c.a2[k]});
        return py::make_tuple(poles, c.gain, c.padding);
      },
      "order"_a, "low_hz"_a, "high_hz"_a, "fs"_a,
      "(a1, a2) of each second-order section, the gain of all, padding in samples.");
  m.def(
      "_resampling_taps",
      [](std::int64_t up, std::int64_t down) {
        const std::vector<double> taps = resampling_taps({up, down});
        return py::array_t<double>(static_cast<py::ssize_t>(taps.size()), taps.data());
      },
      "up"_a, "down"_a, "The low-pass of resample, times up: (2 * 10 * max(up, down) + 1,) float64.");
}

}  // namespace pqrst
