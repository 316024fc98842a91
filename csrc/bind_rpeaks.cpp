// Binds the R-peak detector.
#include "bindings.hpp"

#include <mutex>
#include <type_traits>

#include "rpeaks.hpp"

namespace pqrst {
namespace {

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

}  // namespace

void bind_rpeaks(py::module_& m) {
  const char* rpeaks_doc = R"(Find the R peak of every beat.

The beats are the best sequence of peaks of the 7-25 Hz envelope, by dynamic programming over the log-odds of each peak
and costs for early beats and gaps. The log-odds come from 25 ratios of what is around a peak to its height, in four
frequency bands, by a small fitted network (benchmarks/fit_rpeaks.py). Of several leads, the peaks are those of the sum,
each lead normalised by its own level and weighted by how clearly it shows beats; the log-odds are the mean of what the
network says of each lead, weighted by how well that told beats from other waves from 8 s before to 2 s after. Exactly
`RPeakDetector(fs, n_leads)` fed in one push and finished.

A lead far above what its ECG can be is left out while the other leads show one; alone, it may show false beats, but hides
none before or after it. Tall P waves that no beat follows (AV block) are rejected if another lead hardly shows them.
Beats are at least 200 ms apart. Only eight or more in a row that look alike, at a steady rate, may come faster, up to
310 bpm; a fast rhythm whose intervals vary by more than 3 % loses beats above 260 bpm.

Parameters
----------
x : (T,) or (L, T) float32 or float64 (integers as float64), any unit
    Values that are not finite, and one value for 200 ms or longer, are a gap in their lead: they do not hurt the other
    leads, nor what follows.
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

}  // namespace pqrst
