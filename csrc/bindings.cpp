// The only file that knows Python: checks arguments, releases the GIL, calls the kernels. Holds no arithmetic.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "array.hpp"
#include "rpeaks.hpp"

namespace py = pybind11;
using namespace pybind11::literals;

namespace pqrst {
namespace {

// No forcecast: strided input is copied, integers widen, but nothing is narrowed in silence.
template <class T>
using In = py::array_t<T, py::array::c_style>;

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

void bind_reading(py::module_& m) {
  (void)m;
}

// ---------------------------------------------------------------------------------------------- kernels

void bind_kernels(py::module_& m) {
  (void)m;
}

// ---------------------------------------------------------------------------------------------- R peaks

void bind_rpeaks(py::module_& m) {
  m.def("rpeaks", [](In<float> x, double fs) { auto v = rpeaks(signal_view(x), fs); return py::array_t<std::int64_t>(v.size(), v.data()); });
  m.def("rpeaks", [](In<double> x, double fs) { auto v = rpeaks(signal_view(x), fs); return py::array_t<std::int64_t>(v.size(), v.data()); });
  m.def("dump", [](In<double> x, double fs) { RPeakDetector d(fs, signal_view(x).rows); auto v = d.push(signal_view(x)); auto u = d.finish(); v.insert(v.end(), u.begin(), u.end());
    py::array_t<double> out({d.log.size(), std::size_t(7)}); double* o = out.mutable_data();
    for (auto& c : d.log) { *o++ = c.k; *o++ = c.height; *o++ = c.left; *o++ = c.right; *o++ = c.left_max; *o++ = c.right_max; *o++ = c.floor; }
    return py::make_tuple(py::array_t<std::int64_t>(v.size(), v.data()), out); });
}

// ---------------------------------------------------------------------------------------------- the chain

void bind_prepare(py::module_& m) {
  (void)m;
}

}  // namespace

PYBIND11_MODULE(pqrst, m) {
  m.doc() = "The signal chain of the ECG toolkit: WFDB reading, filters, resampling, R peaks, rows.";
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
