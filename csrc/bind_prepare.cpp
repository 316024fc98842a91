// Binds the whole chain.
#include "bindings.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <memory>
#include <optional>

#include "leads.hpp"
#include "prepare.hpp"
#include "record.hpp"

namespace pqrst {
namespace {

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
  r.kind = choice<Recipe::Kind>("window.kind", value_of<std::string>(window, "kind", "window."),
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
  refuse_masked("out", out, "give it a plain one: out.data");
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

}  // namespace

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
records : a path or Record, or a list of them; symbolic links are followed, as `read` does without strict
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

Slots choose in order, each the first of its accepted names that is left; a lead fills one slot only. Names compare as
`lead_name` gives them. A lead with its sign turned, as `-aVR`, fills a slot that no other fills; `prepare` turns it
back and says so.)");
  m.def("lead_name", &plain_name, "name"_a,
        R"(Return a lead's name as all spellings of it compare.

Without regard to case, to what only says that it is a lead, or to a unit or remark in brackets: `ECG I`, `ecg_i`,
`Lead I (Einthoven)`, `MDC_ECG_LEAD_I`, `I (mV)` and `DI` are `i`; `-aVR` is `-avr`.)");
}

}  // namespace pqrst
