// Binds records, headers and annotations.
#include "bindings.hpp"

#include <cmath>
#include <filesystem>
#include <memory>
#include <optional>
#include <type_traits>

#include "annotations.hpp"
#include "record.hpp"

namespace pqrst {
namespace {

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
                                           std::optional<std::vector<std::string>> units, std::string name,
                                           std::vector<std::string> warnings, std::vector<std::string> comments,
                                           std::string start_time) {
  refuse_masked("signal", signal, fill_with_nan);
  if (signal.ndim() != 2)
    throw std::invalid_argument("signal: expected shape (L, T), got " + std::to_string(signal.ndim()) + " dimensions");
  if (units && units->empty()) throw std::invalid_argument("units: is empty, expected one per lead");
  const auto make = [&](const auto& values) {
    using T = typename std::decay_t<decltype(values)>::value_type;
    const View<const T> view{values.data(), values.shape(0), values.shape(1)};
    const py::gil_scoped_release release;
    auto record = std::make_shared<Record>(make_record(view, fs, std::move(leads),
                                                       units ? std::move(*units) : std::vector<std::string>(),
                                                       std::move(name), std::move(warnings)));
    record->comments = std::move(comments);
    record->start_time = std::move(start_time);
    return record;
  };
  if (py::isinstance<py::array_t<float>>(signal)) return make(In<float>(signal));
  if (py::isinstance<py::array_t<double>>(signal)) return make(In<double>(signal));
  throw std::invalid_argument("signal: expected float32 or float64, got " + std::string(py::str(signal.dtype())));
}

std::shared_ptr<Record> read(const std::filesystem::path& path, std::optional<std::vector<std::string>> leads,
                             std::ptrdiff_t start, std::optional<std::ptrdiff_t> stop, bool strict,
                             std::ptrdiff_t max_samples, bool truncated, const std::optional<std::string>& frames) {
  ReadOptions options;
  if (frames) {
    if (*frames != "full" && *frames != "mean")
      throw std::invalid_argument("frames " + *frames + ": expected full, mean or None");
    options.frames = *frames == "full" ? Frames::full : Frames::mean;
  }
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

}  // namespace

void bind_reading(py::module_& m) {
  py::class_<Record, std::shared_ptr<Record>>(m, "Record", R"(One recording.

Made by `read`, or out of an array: ``Record(signal, fs, leads)``.

Parameters
----------
signal : (L, T) float32 or float64, in `units`; copied, NaN where invalid
fs : float, Hz
leads : L names
units : L units, "mV" if None; V, uV and nV are converted to mV
name : str, for messages
warnings : list of str, what is doubtful about the recording; a lead with finite values that float32 cannot hold adds a
    line, and these are NaN
comments : list of str
start_time : str

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
warnings : list of str, one for each lead whose checksum is wrong or whose values float32 cannot hold, for each file
    that is truncated, and for leads of which only the mean of each frame was read
name : str

Raises
------
ValueError
    A dtype other than float32 or float64, a rank other than 2, no leads, no samples, fs <= 0 or not finite, or a
    number of names or units other than L.
)")
      .def(py::init(&record_from_arrays), "signal"_a, "fs"_a, "leads"_a, "units"_a = py::none(), "name"_a = "",
           "warnings"_a = std::vector<std::string>(), "comments"_a = std::vector<std::string>(), "start_time"_a = "")
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
fs : float, Hz, samples per second and lead, as `read` gives all leads by default
n_samples : int at that rate, or None where neither the header nor a signal file tells
samps_per_frame : list of L int
leads : tuple of L names
units : tuple of L units: "mV" for voltages, otherwise the header's own
calibrated : tuple of L bool, False where the header gives no gain
gains : list of L float, ADC units per unit, as `units` has it
formats : list of int, the storage formats, ascending
files : list of str, the files with the signals, relative to the header's folder
n_bytes : int, size of the header and of these files, or None where one of them is missing
comments : list of str, the header's comment lines without "#"
start_time : str, time and date as the header has them, "" if absent
name : str
)")
      .def_readonly("fs", &RecordInfo::fs)
      .def_property_readonly(
          "n_samples",
          [](const RecordInfo& info) { return info.n_samples < 0 ? std::nullopt : std::optional(info.n_samples); })
      .def_readonly("samps_per_frame", &RecordInfo::samps_per_frame)
      .def_property_readonly("leads", [](const RecordInfo& info) { return names_tuple(info.leads); })
      .def_property_readonly("units", [](const RecordInfo& info) { return names_tuple(info.units); })
      .def_property_readonly("calibrated", [](const RecordInfo& info) { return bool_tuple(info.calibrated); })
      .def_readonly("gains", &RecordInfo::gains)
      .def_readonly("formats", &RecordInfo::formats)
      .def_readonly("files", &RecordInfo::files)
      .def_property_readonly(
          "n_bytes",
          [](const RecordInfo& info) { return info.n_bytes < 0 ? std::nullopt : std::optional(info.n_bytes); })
      .def_readonly("comments", &RecordInfo::comments)
      .def_readonly("start_time", &RecordInfo::start_time)
      .def_readonly("name", &RecordInfo::name)
      .def("__repr__",
           [](const RecordInfo& info) { return describe("Header", info.name, info.leads, info.fs, info.n_samples); });

  py::class_<Annotations>(m, "Annotations", R"(The N annotations of one file, in its order; made by `read_annotations`.

Attributes
----------
sample : (N,) int64, position in samples of the record
symbol : list of N str, the WFDB mnemonic ("N", "V", "+", ...); "[42]" for a code that has none
subtype, chan, num : (N,) int32
aux : list of N str, "" where there is none
fs : float or None, Hz, the time resolution that the file itself notes, from which positions have been converted; None
    if it notes none: then they counted the record's frames
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
        "frames"_a = py::none(),
        R"(Read a WFDB record.

Formats 8, 16, 24, 32, 61, 80, 160, 212, 310 and 311, and MATLAB v4 files as WFDB publishes them; several files, several
samples per frame, skew, byte offset, and segments. Signals of format
0 are null signals: nothing is stored, all their samples are NaN, as are gaps between segments. A missing fs is 250 Hz,
a missing gain 200 ADC units per unit, a missing unit mV, a missing length that of the shortest signal file.

Parameters
----------
path : str or os.PathLike, of the header, with or without ".hea"
leads : names in the order wanted, all if None
start, stop : int, samples [start, stop) of the record; to the end if stop is None
strict : bool, what would be a line in `Record.warnings` is an error: a wrong checksum, values that float32 cannot hold.
    So is a symbolic link from a file of the record out of the folder of its header. Otherwise links are followed:
    datalad and git-annex keep the content of files elsewhere. Checksums cover all that is stored and are compared when
    the whole record is read; where all of them are 0 they are absent.
max_samples : int, the most values (leads x samples) that may come from no file: null signals, gaps, repeated segments
truncated : bool, a signal file shorter than its header says is no error but a line in `Record.warnings`, and the record
    as long as the samples that are there; its checksums are not compared. Not with strict, and not within segments.
frames : of leads with several samples per frame "full" gives all samples, fs being that many times the frame rate;
    "mean" one per frame, in whole ADC units cut towards zero, as the WFDB library does. None is "full" where all leads
    to be read share one rate, else "mean" with a line in `Record.warnings`.

Returns
-------
Record

Raises
------
FileNotFoundError
    The header, a signal file or a segment that is needed is not there.
FormatError
    A damaged or truncated file, a format that is not read (FLAC among them), no leads, no samples, a file name that
    leaves the record's folder, a header of more than 16 MiB. It is a ValueError, and names file and line or byte.
ValueError
    A lead that the record does not have, start and stop that are no range within it, or frames="full" for leads of
    several rates.
)");

  m.def(
      "is_voltage", [](const std::string& unit) { return factor_to_mv(unit) != 0; }, "unit"_a,
      "Tell whether a unit is one that `Record` converts to mV: V, mV, uV or nV, in any case.");

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
      [](const std::filesystem::path& path, const std::string& extension, std::optional<double> fs) {
        if (fs && !(*fs > 0 && std::isfinite(*fs)))
          throw std::invalid_argument("fs " + std::to_string(*fs) + ": expected a finite number above 0 Hz");
        return read_annotations(path.string(), extension, fs.value_or(0));
      },
      py::call_guard<py::gil_scoped_release>(), "path"_a, "extension"_a, "fs"_a = py::none(),
      R"(Read a WFDB annotation file in MIT format.

Positions become samples of the record: they are converted from the time resolution that the file notes, or from frames
where it notes none, half a sample rounded up. Without a header beside the file they stay as they are, unless fs is
given and the file notes its resolution. Notes at the beginning that define the time resolution or symbols are applied
and left out, place holders (code 0) left out. A file that is a symbolic link is followed wherever it leads.

Parameters
----------
path : str or os.PathLike, of the record, with or without ".hea"
extension : str, the annotator, such as "atr"
fs : float, Hz, the rate of the samples; of those that `read` gives of all leads if None

Returns
-------
Annotations

Raises
------
FileNotFoundError
    There is no such file.
FormatError
    A word or text that is cut off, a field before the first annotation (names file and byte), or a damaged header.
)");
}

}  // namespace pqrst
