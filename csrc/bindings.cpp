// The only file that knows Python: checks arguments, releases the GIL, calls the kernels. Holds no arithmetic.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <pybind11/stl/filesystem.h>
#include <pybind11/typing.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>
#include <type_traits>

#include "annotations.hpp"
#include "array.hpp"
#include "filter.hpp"
#include "kernels.hpp"
#include "prepare.hpp"
#include "record.hpp"
#include "refuse.hpp"
#include "resample.hpp"
#include "rpeaks.hpp"
#include "scale.hpp"
#include "segment.hpp"

namespace py = pybind11;
using namespace pybind11::literals;

namespace pqrst {
namespace {

// No forcecast: strided and unaligned input is copied, integers widen, but nothing is narrowed in silence.
template <class T>
using In = py::array_t<T, py::array::c_style | py::detail::npy_api::NPY_ARRAY_ALIGNED_>;

// (T,) is one lead, (L, T) several.
template <class T>
View<const T> signal_view(const In<T>& x) {
  if (x.ndim() != 1 && x.ndim() != 2)
    throw std::invalid_argument("x: expected shape (T,) or (L, T), got " + std::to_string(x.ndim()) + " dimensions");
  const std::ptrdiff_t rows = x.ndim() == 2 ? x.shape(0) : 1;
  const std::ptrdiff_t cols = x.shape(x.ndim() - 1);
  if (rows == 0) throw std::invalid_argument("x: has no leads");
  if (cols == 0) throw std::invalid_argument("x: has no samples");
  return {x.data(), rows, cols};
}

// A new array of the same rank as x with `cols` samples per lead.
template <class T>
py::array_t<T> result_like(const In<T>& x, std::ptrdiff_t cols) {
  if (x.ndim() == 1) return py::array_t<T>(cols);
  return py::array_t<T>({x.shape(0), static_cast<py::ssize_t>(cols)});
}

template <class T>
View<T> mutable_view(py::array_t<T>& x) {
  return {x.mutable_data(), x.ndim() == 2 ? x.shape(0) : 1, x.shape(x.ndim() - 1)};
}

// ---------------------------------------------------------------------------------------------- reading

using Names = py::typing::Tuple<py::str, py::ellipsis>;
using Flags = py::typing::Tuple<py::bool_, py::ellipsis>;

Names names_tuple(const std::vector<std::string>& names) {
  py::tuple tuple(names.size());
  for (std::size_t i = 0; i < names.size(); ++i) tuple[i] = names[i];
  return tuple;
}

Flags bool_tuple(const std::vector<char>& flags) {
  py::tuple tuple(flags.size());
  for (std::size_t i = 0; i < flags.size(); ++i) tuple[i] = py::bool_(flags[i] != 0);
  return tuple;
}

// Shares the memory of `owner`, which the array keeps alive.
template <class T>
py::array_t<T> borrowed_array(const std::vector<T>& values, py::handle owner) {
  return py::array_t<T>(static_cast<py::ssize_t>(values.size()), values.data(), owner);
}

std::shared_ptr<Record> record_from_arrays(const py::array& signal, double fs, std::vector<std::string> leads,
                                           std::optional<std::vector<std::string>> units, std::string name) {
  const bool is_float = py::isinstance<py::array_t<float>>(signal) || py::isinstance<py::array_t<double>>(signal);
  if (!is_float)
    throw std::invalid_argument("signal: expected float32 or float64, got " + std::string(py::str(signal.dtype())));
  if (signal.ndim() != 2)
    throw std::invalid_argument("signal: expected shape (L, T), got " + std::to_string(signal.ndim()) + " dimensions");
  const auto values = py::array_t<float, py::array::c_style | py::array::forcecast>::ensure(signal);
  if (!values) throw py::error_already_set();
  if (units && units->empty()) throw std::invalid_argument("units: is empty, expected one per lead");
  Array<float> copy(values.shape(0), values.shape(1));
  std::copy_n(values.data(), copy.values.size(), copy.values.begin());
  py::gil_scoped_release release;
  return std::make_shared<Record>(
      make_record(std::move(copy), fs, std::move(leads), units ? std::move(*units) : std::vector<std::string>(), name));
}

std::shared_ptr<Record> read(const std::filesystem::path& path, std::optional<std::vector<std::string>> leads,
                             std::ptrdiff_t start, std::optional<std::ptrdiff_t> stop, bool strict,
                             std::ptrdiff_t max_samples, bool truncated) {
  ReadOptions options;
  if (leads) {
    if (leads->empty()) throw std::invalid_argument("leads: is empty, expected names or None for all");
    options.leads = std::move(*leads);
  }
  if (stop && *stop < 0)
    throw std::invalid_argument("stop " + std::to_string(*stop) + ": expected None or an index above start");
  options.start = start;
  options.stop = stop.value_or(-1);
  options.strict = strict;
  options.max_samples = max_samples;
  options.truncated = truncated;
  return std::make_shared<Record>(read_record(path.string(), options));
}

std::string describe(const char* kind, const std::string& name, const std::vector<std::string>& leads, double fs,
                     std::ptrdiff_t n_samples) {
  return "<pqrst." + std::string(kind) + " " + name + ": " + std::to_string(leads.size()) + " leads, " +
         (n_samples < 0 ? "unknown" : std::to_string(n_samples)) + " samples, " + std::string(py::str(py::float_(fs))) +
         " Hz>";
}

void bind_reading(py::module_& m) {
  py::class_<Record, std::shared_ptr<Record>>(m, "Record", R"(One recording.

Made by `read`, or out of an array: ``Record(signal, fs, leads, units=None, name="")``.

Parameters
----------
signal : (L, T) float32 or float64, in `units`; copied, NaN where invalid
fs : float, Hz
leads : L names
units : L units, "mV" if None; V, uV and nV are converted to mV
name : str, for messages

Attributes
----------
signal : (L, T) float32, mV for voltages; NaN where invalid. The array shares the record's memory.
fs : float, Hz, samples per second and lead
leads : tuple of L names
units : tuple of L units: "mV" for voltages, otherwise the header's own, unconverted
calibrated : tuple of L bool, False where the header gives no gain and 200 ADC units per unit were assumed
n_samples : int, length of the whole record, also when a part of it was read; of a truncated one what is there
comments : list of str, the header's comment lines without "#"
start_time : str, time and date as the header has them, "" if absent
warnings : list of str, one for each lead whose checksum is wrong and each file that is truncated
name : str

Raises
------
ValueError
    A dtype other than float32 or float64, a rank other than 2, no leads, no samples, fs <= 0 or not finite, or a
    number of names or units other than L.
)")
      .def(py::init(&record_from_arrays), "signal"_a, "fs"_a, "leads"_a, "units"_a = py::none(), "name"_a = "")
      .def_property_readonly("signal",
                             [](py::object self) {
                               auto& record = self.cast<Record&>();
                               return py::array_t<float>({record.signal.rows, record.signal.cols},
                                                         record.signal.values.data(), self);
                             })
      .def_readonly("fs", &Record::fs)
      .def_property_readonly("leads", [](const Record& r) { return names_tuple(r.leads); })
      .def_property_readonly("units", [](const Record& r) { return names_tuple(r.units); })
      .def_property_readonly("calibrated", [](const Record& r) { return bool_tuple(r.calibrated); })
      .def_readonly("n_samples", &Record::n_samples)
      .def_readonly("comments", &Record::comments)
      .def_readonly("start_time", &Record::start_time)
      .def_readonly("warnings", &Record::warnings)
      .def_readonly("name", &Record::name)
      .def("__repr__", [](const Record& r) { return describe("Record", r.name, r.leads, r.fs, r.signal.cols); });

  py::class_<RecordInfo>(m, "Header", R"(What the header of a recording says; made by `header`.

Attributes
----------
fs : float, Hz, samples per second and lead
n_samples : int, or None where neither the header nor a signal file tells
leads : tuple of L names
units : tuple of L units: "mV" for voltages, otherwise the header's own
calibrated : tuple of L bool, False where the header gives no gain
gains : list of L float, ADC units per unit, as `units` has it
formats : list of int, the storage formats, ascending
files : list of str, the files with the signals, relative to the header's folder
comments : list of str, the header's comment lines without "#"
start_time : str, time and date as the header has them, "" if absent
name : str
)")
      .def_readonly("fs", &RecordInfo::fs)
      .def_property_readonly(
          "n_samples",
          [](const RecordInfo& info) { return info.n_samples < 0 ? std::nullopt : std::optional(info.n_samples); })
      .def_property_readonly("leads", [](const RecordInfo& info) { return names_tuple(info.leads); })
      .def_property_readonly("units", [](const RecordInfo& info) { return names_tuple(info.units); })
      .def_property_readonly("calibrated", [](const RecordInfo& info) { return bool_tuple(info.calibrated); })
      .def_readonly("gains", &RecordInfo::gains)
      .def_readonly("formats", &RecordInfo::formats)
      .def_readonly("files", &RecordInfo::files)
      .def_readonly("comments", &RecordInfo::comments)
      .def_readonly("start_time", &RecordInfo::start_time)
      .def_readonly("name", &RecordInfo::name)
      .def("__repr__",
           [](const RecordInfo& info) { return describe("Header", info.name, info.leads, info.fs, info.n_samples); });

  py::class_<Annotations>(m, "Annotations", R"(The N annotations of one file, in its order; made by `read_annotations`.

Attributes
----------
sample : (N,) int64, position in ticks of 1 / fs from the start of the record
symbol : list of N str, the WFDB mnemonic ("N", "V", "+", ...); "[42]" for a code that has none
subtype, chan, num : (N,) int32
aux : list of N str, "" where there is none
fs : float or None, Hz, the time resolution that the file itself notes; None if it notes none: then the record's
)")
      .def_property_readonly("sample",
                             [](py::object self) { return borrowed_array(self.cast<Annotations&>().sample, self); })
      .def_readonly("symbol", &Annotations::symbol)
      .def_property_readonly("subtype",
                             [](py::object self) { return borrowed_array(self.cast<Annotations&>().subtype, self); })
      .def_property_readonly("chan",
                             [](py::object self) { return borrowed_array(self.cast<Annotations&>().chan, self); })
      .def_property_readonly("num", [](py::object self) { return borrowed_array(self.cast<Annotations&>().num, self); })
      .def_readonly("aux", &Annotations::aux)
      .def_property_readonly("fs", [](const Annotations& a) { return a.fs > 0 ? std::optional(a.fs) : std::nullopt; })
      .def("__len__", [](const Annotations& a) { return a.sample.size(); });

  m.def("read", &read, py::call_guard<py::gil_scoped_release>(), "path"_a, "leads"_a = py::none(), "start"_a = 0,
        "stop"_a = py::none(), "strict"_a = false, "max_samples"_a = ReadOptions().max_samples, "truncated"_a = false,
        R"(Read a WFDB record.

Formats 8, 16, 24, 32, 61, 80, 160, 212, 310 and 311, and MATLAB v4 files as WFDB publishes them; several files, several
samples per frame (their mean, in whole ADC units cut towards zero), skew, byte offset, and segments. Signals of format
0 are null signals: nothing is stored, all their samples are NaN, as are gaps between segments. A missing fs is 250 Hz,
a missing gain 200 ADC units per unit, a missing unit mV, a missing length that of the shortest signal file.

Parameters
----------
path : str or os.PathLike, of the header, with or without ".hea"
leads : names in the order wanted, all if None
start, stop : int, samples [start, stop) of the record; to the end if stop is None
strict : bool, a wrong checksum is an error instead of a line in `Record.warnings`. Checksums cover all that is stored
    and are compared when the whole record is read; where all of them are 0 they are absent.
max_samples : int, the most values (leads x samples) that may come from no file: null signals, gaps, repeated segments
truncated : bool, a signal file shorter than its header says is no error but a line in `Record.warnings`, and the record
    as long as the samples that are there; its checksums are not compared. Not with strict, and not within segments.

Returns
-------
Record

Raises
------
FileNotFoundError
    The header, a signal file or a segment that is needed is not there.
FormatError
    A damaged or truncated file, a format that is not read (FLAC among them), no leads, no samples, a file name that
    leaves the record's folder. It is a ValueError, and names file and line or byte.
ValueError
    A lead that the record does not have, or start and stop that are no range within it.
)");

  m.def(
      "header", [](const std::filesystem::path& path) { return read_header(path.string()); },
      py::call_guard<py::gil_scoped_release>(), "path"_a, R"(Read the header of a WFDB record, and no signal.

Parameters
----------
path : str or os.PathLike, of the header, with or without ".hea"

Returns
-------
Header

Raises
------
FileNotFoundError
    The header, or the one that describes the segments, is not there.
FormatError
    A damaged header. Formats that `read` refuses are listed in `formats`, not refused.
)");

  m.def(
      "read_annotations",
      [](const std::filesystem::path& path, const std::string& extension) {
        return read_annotations(path.string(), extension);
      },
      py::call_guard<py::gil_scoped_release>(), "path"_a, "extension"_a, R"(Read a WFDB annotation file in MIT format.

Positions are not rescaled: a file that notes a time resolution of its own says so in `Annotations.fs`. Notes at the
beginning that define the time resolution or symbols are applied and left out, place holders (code 0) left out.

Parameters
----------
path : str or os.PathLike, of the record, with or without ".hea"
extension : str, the annotator, such as "atr"

Returns
-------
Annotations

Raises
------
FileNotFoundError
    There is no such file.
FormatError
    A word or text that is cut off, or a field before the first annotation; names file and byte.
)");
}

// ---------------------------------------------------------------------------------------------- kernels

// x as C-contiguous float32 or float64, handed to `kernel`; integers widen to float64, everything else is a TypeError.
// By hand and not by overloads: those would take int16 for float32, True for 1.0 and None for NaN.
template <class Kernel>
py::array with_numbers(const py::object& x, Kernel kernel) {
  if (py::hasattr(x, "mask") && py::hasattr(x, "filled"))
    throw py::type_error("x: is a masked array; mark invalid samples with NaN: x.filled(nan)");
  const py::array given(x);
  const char kind = given.dtype().kind();
  const py::ssize_t size = given.dtype().itemsize();
  if (kind == 'f' && size == 4) return kernel(In<float>(given));
  if ((kind == 'f' && size == 8) || kind == 'i' || kind == 'u') return kernel(In<double>(given));
  throw py::type_error("x: dtype " + py::str(given.dtype()).cast<std::string>() +
                       ", expected float32, float64 or integers");
}

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

// int and Fraction know themselves exactly; a float is the simplest fraction that rounds to it.
Ratio exact_rate_of(const char* argument, const py::object& fs) {
  const double value = rate_as_float(argument, fs);
  if (!py::hasattr(fs, "numerator") || !py::hasattr(fs, "denominator")) return exact_rate(argument, value);
  check_rate(argument, value);
  try {
    return {fs.attr("numerator").cast<std::int64_t>(), fs.attr("denominator").cast<std::int64_t>()};
  } catch (const py::cast_error&) {
    refuse(argument, value, "numerator and denominator must be below 2^63");
  }
}

Ratio ratio_of(const py::object& fs_in, const py::object& fs_out) {
  const double in = rate_as_float("fs_in", fs_in), out = rate_as_float("fs_out", fs_out);
  if (fs_in.equal(fs_out)) return rate_ratio(in, out);  // no fraction needed for a copy
  return rate_ratio(exact_rate_of("fs_in", fs_in), exact_rate_of("fs_out", fs_out));
}

py::array_t<std::int64_t> centers_of(const py::object& centers) {
  const py::array given(centers);
  if (given.ndim() != 1)
    throw std::invalid_argument("centers: expected shape (N,), got " + std::to_string(given.ndim()) + " dimensions");
  if (given.size() == 0) return py::array_t<std::int64_t>(0);  // [] is float64 to NumPy
  const char kind = given.dtype().kind();
  if (kind != 'i' && !(kind == 'u' && given.dtype().itemsize() < 8))
    throw py::type_error("centers: dtype " + py::str(given.dtype()).cast<std::string>() + ", expected int64");
  return In<std::int64_t>(given);
}

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
        const Ratio ratio = ratio_of(fs_in, fs_out);
        return with_numbers(x, [&](const auto& in) -> py::array {
          using T = typename std::decay_t<decltype(in)>::value_type;
          const View<const T> view = signal_view(in);
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
    denominator up to 10000 (15.5, 499.348); the reduced ratio must not need numbers above 2^20

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

// ---------------------------------------------------------------------------------------------- R peaks

py::array_t<std::int64_t> indices(const std::vector<std::int64_t>& values) {
  return py::array_t<std::int64_t>(static_cast<py::ssize_t>(values.size()), values.data());
}

py::array_t<std::int64_t> find_rpeaks(const py::object& x, double fs) {
  return with_numbers(x, [&](const auto& in) -> py::array {
    const auto view = signal_view(in);
    std::vector<std::int64_t> found;
    {
      const py::gil_scoped_release release;
      found = rpeaks(view, fs);
    }
    return indices(found);
  });
}

// One detector per stream: the lock keeps two Python threads out of the same one while the GIL is released.
struct LockedDetector {
  LockedDetector(double fs, std::ptrdiff_t n_leads) : detector(fs, n_leads) {}
  py::array_t<std::int64_t> push(const py::object& x) {
    return with_numbers(x, [&](const auto& in) -> py::array {
      using T = typename std::decay_t<decltype(in)>::value_type;
      const bool empty = in.size() == 0 && (in.ndim() == 1 || (in.ndim() == 2 && in.shape(0) == detector.n_leads()));
      const View<const T> view = empty ? View<const T>{in.data(), detector.n_leads(), 0} : signal_view(in);
      std::vector<std::int64_t> found;
      {
        const py::gil_scoped_release release;
        const std::lock_guard<std::mutex> lock(mutex);
        found = detector.push(view);
      }
      return indices(found);
    });
  }
  py::array_t<std::int64_t> finish() {
    std::vector<std::int64_t> found;
    {
      py::gil_scoped_release release;
      const std::lock_guard<std::mutex> lock(mutex);
      found = detector.finish();
    }
    return indices(found);
  }
  RPeakDetector detector;
  std::mutex mutex;
};

void bind_rpeaks(py::module_& m) {
  const char* rpeaks_doc = R"(Find the R peak of every beat.

The beats are the best sequence of peaks of the 7-25 Hz envelope, by dynamic programming over the log-odds of each peak
and costs for early beats and gaps. The log-odds come from 25 ratios of what is around a peak to its height, in four
frequency bands, by a small fitted network (benchmarks/fit_rpeaks.py). Of several leads, the peaks are those of the sum,
each lead normalised by its own level and weighted by how clearly it shows beats; the log-odds are the mean of what the
network says of each lead, weighted by how well that told beats from other waves from 8 s before to 2 s after. Exactly
`RPeakDetector(fs, n_leads)` fed in one push and finished.

Parameters
----------
x : (T,) or (L, T) float32 or float64 (integers as float64), any unit
    Values that are not finite are a gap in their lead and do not hurt the other leads, nor what follows.
fs : float, Hz, 50 to 10000

Returns
-------
(N,) int64, ascending sample indices; empty if no lead shows a beat.

Raises
------
ValueError
    fs outside its range, a rank other than 1 or 2, no leads or no samples.
TypeError
    x is not numeric (bool, complex, text, None, ...) or float16.

Notes
-----
Ideas: the QRS band and the flatter T wave, Pan & Tompkins (1985); the envelope of a quadrature pair, Benitez et al.
(2001); beats as the best path, Ellis (2007).)";
  m.def("rpeaks", &find_rpeaks, "x"_a, "fs"_a, rpeaks_doc);

  const char* push_doc = R"(Take the next samples and return the beats that they settle.

Parameters
----------
x : (T,) for one lead, or (n_leads, T), float32 or float64 (integers as float64), any unit; T may be 0

Returns
-------
(N,) int64, sample indices counted from the first sample pushed, ascending over all calls.

Raises
------
ValueError
    Another number of leads, or a detector that is finished.
TypeError
    x is not numeric (bool, complex, text, None, ...) or float16.)";
  m.def(
      "_rpeak_candidates",
      [](const In<double>& x, double fs) {
        const View<const double> view = signal_view(x);
        RPeakDetector detector(fs, view.rows);
        std::vector<RPeakDetector::Seen> seen;
        {
          const py::gil_scoped_release release;
          detector.seen = &seen;
          all_beats(detector, view);
        }
        const auto n = static_cast<py::ssize_t>(seen.size());
        const py::ssize_t n_views = view.rows == 1 ? 1 : view.rows + 1;
        constexpr auto n_features = static_cast<py::ssize_t>(std::tuple_size_v<RPeakDetector::Features>);
        py::array_t<double> time_s(n), log_height(n), features({n, n_views, n_features});
        for (py::ssize_t i = 0; i < n; ++i) {
          const RPeakDetector::Seen& one = seen[static_cast<std::size_t>(i)];
          time_s.mutable_at(i) = one.time_s;
          log_height.mutable_at(i) = one.log_height;
          for (py::ssize_t v = 0; v < n_views; ++v) {
            const RPeakDetector::Features& values = one.features[static_cast<std::size_t>(v)];
            std::copy(values.begin(), values.end(), features.mutable_data(i, v, 0));
          }
        }
        return py::make_tuple(time_s, log_height, features);
      },
      "x"_a, "fs"_a,
      "Every possible beat that rpeaks weighs: time (s), log height, features (N, views, F), in the sum of the leads "
      "and, of "
      "several, in each. To fit its weights.");
  m.def(
      "_rpeaks_with",
      [](const In<double>& x, double fs, const In<double>& hidden, const In<double>& hidden_bias,
         const In<double>& output, double bias) {
        const View<const double> view = signal_view(x);
        RPeakDetector detector(fs, view.rows);
        RPeakWeights& w = detector.weights;
        if (static_cast<std::size_t>(hidden.size()) != w.n_units * w.n_features ||
            static_cast<std::size_t>(hidden_bias.size()) != w.n_units ||
            static_cast<std::size_t>(output.size()) != w.n_units)
          throw std::invalid_argument("hidden (features, units), hidden_bias, output (units,): other sizes expected");
        std::copy_n(hidden.data(), hidden.size(), w.hidden[0].data());
        std::copy_n(hidden_bias.data(), w.n_units, w.hidden_bias.begin());
        std::copy_n(output.data(), w.n_units, w.output.begin());
        w.bias = bias;
        std::vector<std::int64_t> found;
        {
          const py::gil_scoped_release release;
          found = all_beats(detector, view);
        }
        return indices(found);
      },
      "x"_a, "fs"_a, "hidden"_a, "hidden_bias"_a, "output"_a, "bias"_a,
      "rpeaks with other weights, to cross-fit them.");
  py::class_<LockedDetector>(m, "RPeakDetector", R"(Find R peaks in a stream, in chunks of any length.

The beats are the same however the signal is cut, and the same as `rpeaks` finds in the whole.

Parameters
----------
fs : float, Hz, 50 to 10000
n_leads : int, 1 to 1024)")
      .def(py::init<double, std::ptrdiff_t>(), "fs"_a, "n_leads"_a = 1)
      .def("push", &LockedDetector::push, "x"_a, push_doc)
      .def("finish", &LockedDetector::finish,
           R"(Return the beats still open at the end, (N,) int64; nothing can be pushed afterwards.)")
      .def_property_readonly(
          "look_ahead_s", [](const LockedDetector& d) { return d.detector.look_ahead_s(); },
          "Seconds of signal after a beat by which it has been returned, at the latest.")
      .def_property_readonly(
          "fs", [](const LockedDetector& d) { return d.detector.fs(); }, "Sampling rate in Hz.")
      .def_property_readonly(
          "n_leads", [](const LockedDetector& d) { return d.detector.n_leads(); }, "Leads per push.");
}

// ---------------------------------------------------------------------------------------------- the chain

template <class T>
T value_of(const py::dict& tree, const char* key, const char* path) {
  if (!tree.contains(key)) throw std::invalid_argument("recipe: " + std::string(path) + key + " is missing");
  try {
    return tree[key].cast<T>();
  } catch (const py::cast_error&) {
    throw std::invalid_argument("recipe: " + std::string(path) + key +
                                " has the wrong type: " + py::repr(tree[key]).cast<std::string>());
  }
}

std::ptrdiff_t samples_of(double seconds, double fs) {
  const double n = seconds * fs;
  if (!(n >= 0 && n < 1e12))
    throw std::invalid_argument("recipe: window of " + std::to_string(seconds) + " s is out of range");
  return std::llround(n);
}

template <class Enum>
Enum choice(const std::string& key, const std::string& word, const std::vector<std::pair<const char*, Enum>>& choices) {
  for (const auto& [name, value] : choices)
    if (word == name) return value;
  throw std::invalid_argument("recipe: " + key + " " + word + " is not known");
}

using RecipeTree = py::typing::Dict<py::str, py::object>;

Recipe recipe_of(const py::dict& tree) {
  if (value_of<int>(tree, "version", "") != 1)
    throw std::invalid_argument("recipe: version " + py::str(tree["version"]).cast<std::string>() +
                                " is not known; this pqrst applies version 1");
  Recipe r;
  r.fs = value_of<double>(tree, "fs", "");
  r.half = choice<bool>("dtype", value_of<std::string>(tree, "dtype", ""), {{"float16", true}, {"float32", false}});
  r.leads = value_of<std::vector<std::vector<std::string>>>(tree, "leads", "");
  r.missing_is_error =
      choice<bool>("missing", value_of<std::string>(tree, "missing", ""), {{"error", true}, {"zeros", false}});
  const auto gaps = value_of<py::dict>(tree, "gaps", "");
  r.max_gap_s = value_of<double>(gaps, "max_s", "gaps.");
  r.max_gap_fraction = value_of<double>(gaps, "max_fraction", "gaps.");
  if (const auto band = value_of<std::optional<py::dict>>(tree, "bandpass", ""))
    r.bandpass =
        Recipe::Bandpass{value_of<double>(*band, "low_hz", "bandpass."),
                         value_of<double>(*band, "high_hz", "bandpass."), value_of<int>(*band, "order", "bandpass.")};
  r.notch_hz = value_of<std::optional<double>>(tree, "notch_hz", "");
  const auto window = value_of<py::dict>(tree, "window", "");
  r.kind = choice<Recipe::Kind>(
      "window.kind", value_of<std::string>(window, "kind", "window."),
      {{"record", Recipe::Kind::record},
       {"whole", Recipe::Kind::whole},
       {"window", Recipe::Kind::window},
       {"beat", Recipe::Kind::beat}});
  const auto samples = value_of<std::optional<std::ptrdiff_t>>(window, "samples", "window.");
  const auto length_s = value_of<std::optional<double>>(window, "length_s", "window.");
  if (samples.has_value() == length_s.has_value())
    throw std::invalid_argument("recipe: window needs either samples or length_s");
  r.length = samples ? *samples : samples_of(*length_s, r.fs);
  r.overlap = samples_of(value_of<double>(window, "overlap_s", "window."), r.fs);
  const auto before_s = value_of<std::optional<double>>(window, "before_s", "window.");
  r.before = before_s ? samples_of(*before_s, r.fs) : r.length / 2;
  const auto scale = value_of<py::dict>(tree, "scale", "");
  r.scale = choice<Recipe::Scale>(
      "scale.kind", value_of<std::string>(scale, "kind", "scale."),
      {{"none", Recipe::Scale::none}, {"zscore", Recipe::Scale::zscore}, {"minmax", Recipe::Scale::minmax}});
  r.over = choice<Recipe::Over>(
      "scale.over", value_of<std::string>(scale, "over", "scale."),
      {{"lead", Recipe::Over::lead}, {"record", Recipe::Over::record}, {"dataset", Recipe::Over::dataset}});
  r.center = value_of<std::vector<double>>(scale, "center", "scale.");
  r.spread = value_of<std::vector<double>>(scale, "spread", "scale.");
  check(r);
  return r;
}

struct PyPrepared {
  py::array rows;
  py::array_t<std::int64_t> record, index, start, valid;
  py::array_t<std::uint8_t> lead_mask;
  std::vector<std::tuple<std::ptrdiff_t, std::string, std::string>> errors, warnings;
};

// Takes a Record, a path, or a list of them. The tuple keeps the items while their `__fspath__` runs, which may do
// anything to the list.
std::vector<Input> inputs_of(const py::object& records) {
  const bool many = py::isinstance<py::list>(records) || py::isinstance<py::tuple>(records);
  const py::tuple items = many ? py::tuple(records) : py::make_tuple(records);
  std::vector<Input> inputs;
  for (const py::handle item : items) {
    Input input;
    if (py::isinstance<Record>(item)) {
      input.record = item.cast<std::shared_ptr<Record>>();
    } else {
      try {
        input.path = item.cast<std::filesystem::path>().string();
      } catch (const py::cast_error&) {
        throw py::type_error("records: expected a path or a Record, or a list of them, got " +
                             py::str(py::type::of(item).attr("__name__")).cast<std::string>());
      }
    }
    inputs.push_back(std::move(input));
  }
  return inputs;
}

// (n, L, length) of the recipe's dtype: new, or the first rows of `out`.
py::array rows_array(py::ssize_t n, const Recipe& recipe, const py::object& out) {
  const auto n_slots = static_cast<py::ssize_t>(recipe.leads.size()), length = static_cast<py::ssize_t>(recipe.length);
  const py::dtype dtype(recipe.half ? "float16" : "float32");
  if (out.is_none()) return py::array(dtype, {n, n_slots, length});
  const auto array = py::cast<py::array>(out);
  if (!array.dtype().equal(dtype) || array.ndim() != 3 || array.shape(1) != n_slots || array.shape(2) != length ||
      !(array.flags() & py::array::c_style) || !(array.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_) ||
      !array.writeable())
    throw std::invalid_argument("out: expected a writable, aligned, C-ordered array (rows, " + std::to_string(n_slots) +
                                ", " + std::to_string(length) + ") of " +
                                std::string(recipe.half ? "float16" : "float32"));
  if (array.shape(0) < n)
    throw std::invalid_argument("out: has room for " + std::to_string(array.shape(0)) + " rows, needs " +
                                std::to_string(n));
  return array[py::slice(0, n, 1)].cast<py::array>();
}

PyPrepared gathered(const std::vector<Rows>& all, const py::array& rows, py::ssize_t n_slots) {
  py::ssize_t n = 0;
  for (const Rows& r : all) n += static_cast<py::ssize_t>(r.index.size());
  PyPrepared result;
  result.rows = n == rows.shape(0) ? rows : rows[py::slice(0, n, 1)].cast<py::array>();
  result.record = py::array_t<std::int64_t>(n);
  result.index = py::array_t<std::int64_t>(n);
  result.start = py::array_t<std::int64_t>(n);
  result.valid = py::array_t<std::int64_t>({n, py::ssize_t{2}});
  result.lead_mask = py::array_t<std::uint8_t>({n, n_slots});
  auto* record = result.record.mutable_data();
  auto* index = result.index.mutable_data();
  auto* start = result.start.mutable_data();
  auto* valid = result.valid.mutable_data();
  auto* mask = result.lead_mask.mutable_data();
  for (std::size_t i = 0; i < all.size(); ++i) {
    const Rows& r = all[i];
    record = std::fill_n(record, r.index.size(), static_cast<std::int64_t>(i));
    index = std::copy(r.index.begin(), r.index.end(), index);
    start = std::copy(r.start.begin(), r.start.end(), start);
    valid = std::copy(r.valid.begin(), r.valid.end(), valid);
    mask = std::copy(r.lead_mask.begin(), r.lead_mask.end(), mask);
    for (const Problem& p : r.errors) result.errors.emplace_back(p.record, p.stage, p.reason);
    for (const Problem& p : r.warnings) result.warnings.emplace_back(p.record, p.stage, p.reason);
  }
  return result;
}

void bind_prepare(py::module_& m) {
  py::class_<PyPrepared>(m, "Prepared", R"(Rows of one or many records, as `prepare` gives them.

Attributes
----------
rows : (N, L, T) float16 or float32, in the order of the records
record : (N,) int64, index of the row's record
index : (N,) int64, place of the row's centre, or window, within the record
start : (N,) int64, at the record's own rate: the row's first sample, for a beat its centre
valid : (N, 2) int64, [first, last) sample of the row that lies inside the record; the rest is 0
lead_mask : (N, L) uint8, 1 where a lead of the record fills the slot
errors : list of (record, stage, reason), what is not in `rows`
warnings : list of (record, stage, reason), what is, with something to say about it
)")
      .def_readonly("rows", &PyPrepared::rows)
      .def_readonly("record", &PyPrepared::record)
      .def_readonly("index", &PyPrepared::index)
      .def_readonly("start", &PyPrepared::start)
      .def_readonly("valid", &PyPrepared::valid)
      .def_readonly("lead_mask", &PyPrepared::lead_mask)
      .def_readonly("errors", &PyPrepared::errors)
      .def_readonly("warnings", &PyPrepared::warnings);

  m.def(
      "prepare",
      [](const py::object& records, const RecipeTree& recipe_tree, const py::object& centers, const py::object& out,
         int n_threads, bool skip_errors) {
        const Recipe recipe = recipe_of(recipe_tree);
        const std::vector<Input> inputs = inputs_of(records);
        std::vector<std::vector<std::int64_t>> r_peaks;
        if (!centers.is_none()) {
          if (!py::isinstance<py::list>(centers) && !py::isinstance<py::tuple>(centers))
            throw py::type_error("centers: expected a list with one array of shape (N,) per record");
          for (const py::handle each : py::tuple(centers)) {
            const auto array = centers_of(py::reinterpret_borrow<py::object>(each));
            r_peaks.emplace_back(array.data(), array.data() + array.size());
          }
        }
        if (n_threads < 1)
          throw std::invalid_argument("n_threads " + std::to_string(n_threads) + ": must be at least 1");
        py::array rows;
        const auto room_for = [&](std::ptrdiff_t n) {
          const py::gil_scoped_acquire acquire;
          rows = rows_array(n, recipe, out);
          return static_cast<std::byte*>(rows.mutable_data());
        };
        std::vector<Rows> all;
        {
          const py::gil_scoped_release release;
          all = prepare(inputs, recipe, r_peaks, n_threads, skip_errors, room_for);
        }
        return gathered(all, rows, static_cast<py::ssize_t>(recipe.leads.size()));
      },
      "records"_a, "recipe"_a, "centers"_a = py::none(), "out"_a = py::none(), "n_threads"_a = 1,
      "skip_errors"_a = false,
      R"(The whole chain: records to rows.

Read (mV) -> slots by name -> bridge gaps -> band-pass, notch at the record's own rate -> resample -> cut -> scale over
the row's valid samples -> padding to 0 -> cast. In float64, rounded once to float32 and from there to float16. Equals
the public kernels composed on float64 arrays. Never gives NaN. A lead that does not change within a row is zeros there.
Limb leads that contradict each other (swapped, inverted, of another gain) and amplitudes that no ECG has are warnings.

Parameters
----------
records : a path or Record, or a list of them
recipe : dict, the tree of recipe.Recipe
centers : for beat rows, one (N,) int64 array of sample indices per record, at its own rate
out : (>= N, L, T) array of the recipe's dtype to write to, N the sum of `n_rows`; `rows` is then a view of its beginning
n_threads : int, records at work at a time; the result does not depend on it
skip_errors : bool, list a record that fails in `errors` instead of raising

Returns
-------
Prepared

Raises
------
TypeError
    records that are no path, Record or list of them; centers that are no list of integer arrays.
ValueError
    A recipe with a missing or wrong key; a record without the leads that the slots accept, in units other than
    voltage, too short for the filter, or with centres more than a window outside.
FormatError, FileNotFoundError
    A record that cannot be read.
)");

  m.def(
      "n_rows",
      [](const RecipeTree& recipe, std::ptrdiff_t n_samples, double fs, std::ptrdiff_t n_centers) {
        return n_rows(recipe_of(recipe), n_samples, fs, n_centers);
      },
      "recipe"_a, "n_samples"_a, "fs"_a, "n_centers"_a = 0,
      "Number of rows that a record of n_samples at fs Hz with n_centers beats gives, before any is dropped.");
  m.def(
      "row_samples", [](const RecipeTree& recipe) { return recipe_of(recipe).length; }, "recipe"_a,
      "Length of a row in samples at the recipe's rate.");
  m.def(
      "row_before", [](const RecipeTree& recipe) { return recipe_of(recipe).before; }, "recipe"_a,
      "Samples of a beat's row ahead of its centre, at the recipe's rate.");
  m.def(
      "row_starts",
      [](const RecipeTree& recipe, std::ptrdiff_t n_samples, double fs) {
        return indices(row_starts(recipe_of(recipe), n_samples, fs));
      },
      "recipe"_a, "n_samples"_a, "fs"_a,
      R"(Where the rows of a record begin: the only rule by which windows are cut, for signals and labels alike.

Parameters
----------
recipe : dict, the tree of recipe.Recipe, with rows that are records or windows
n_samples : int, of the record
fs : float, rate of the record, Hz

Returns
-------
(N,) int64, the first sample of each row at the record's own rate, before any row is dropped; N is `n_rows`. A row has
`row_samples` at the recipe's rate, that is row_samples * fs / recipe.fs at the record's.

Raises
------
ValueError
    Rows that are beats: their centres say where they lie.
)");
  m.def("match_leads", &match_leads, "slots"_a, "leads"_a,
        R"(For each slot the index of the lead that fills it, or -1.

Slots choose in order, each the first of its accepted names that is left; a lead fills one slot only. Names compare
without regard to case, or to what only says that it is a lead: `ECG I`, `ecg_i` and `Lead I` are `I`.)");
}

}  // namespace

PYBIND11_MODULE(pqrst, m) {
  m.doc() = "The signal chain of the ECG toolkit: WFDB reading, filters, resampling, R peaks, rows.";
  try {
    kernels();
  } catch (const std::invalid_argument& e) {
    throw py::import_error(e.what());
  }
  m.def(
      "simd", [] { return kernels().level; },
      R"(The instructions that the kernels use: "avx512", "avx2", "neon" or "baseline".

The best that the machine has, or the one that the environment variable PQRST_SIMD names when the extension is loaded
(an ImportError where machine or build have no such level). All give the same bits. "baseline" computes its fused
multiply-adds in the C library: exact, and slow where the processor has none, as before 2013.)");
  py::register_exception<FormatError>(m, "FormatError", PyExc_ValueError);
  py::register_exception_translator([](std::exception_ptr p) {
    try {
      if (p) std::rethrow_exception(p);
    } catch (const FileMissing& e) {
      PyErr_SetString(PyExc_FileNotFoundError, e.what());
    }
  });
  bind_reading(m);
  bind_kernels(m);
  bind_rpeaks(m);
  bind_prepare(m);
}

}  // namespace pqrst
