// What the binding files share: arguments taken from NumPy, indices given to it. Only bind*.cpp know Python.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <pybind11/stl/filesystem.h>
#include <pybind11/typing.h>

#include <cstdint>
#include <string>
#include <vector>

#include "array.hpp"

namespace py = pybind11;
using namespace pybind11::literals;

namespace pqrst {

void bind_reading(py::module_& m);
void bind_kernels(py::module_& m);
void bind_rpeaks(py::module_& m);
void bind_prepare(py::module_& m);

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

// A masked array holds values that are not meant: NumPy would hand them over without a word.
inline void refuse_masked(const char* argument, const py::handle& x, const char* instead) {
  if (py::hasattr(x, "mask") && py::hasattr(x, "filled"))
    throw py::type_error(std::string(argument) + ": is a masked array; " + instead);
}
constexpr const char* fill_with_nan = "mark invalid samples with NaN: x.filled(nan)";

// x as C-contiguous float32 or float64, handed to `kernel`; integers widen to float64, everything else is a TypeError.
// By hand and not by overloads: those would take int16 for float32, True for 1.0 and None for NaN.
template <class Kernel>
py::array with_numbers(const py::object& x, Kernel kernel) {
  refuse_masked("x", x, fill_with_nan);
  const py::array given(x);
  const char kind = given.dtype().kind();
  const py::ssize_t size = given.dtype().itemsize();
  if (kind == 'f' && size == 4) return kernel(In<float>(given));
  if ((kind == 'f' && size == 8) || kind == 'i' || kind == 'u') return kernel(In<double>(given));
  throw py::type_error("x: dtype " + py::str(given.dtype()).cast<std::string>() +
                       ", expected float32, float64 or integers");
}

// Whole numbers of this shape ("(N,)"), as int64.
inline In<std::int64_t> integers_of(const char* argument, const py::object& numbers, const std::string& shape,
                                    py::ssize_t rank) {
  refuse_masked(argument, numbers, "leave out what is masked: x.compressed()");
  const py::array given(numbers);
  if (given.ndim() != rank)
    throw std::invalid_argument(std::string(argument) + ": expected shape " + shape + ", got " +
                                std::to_string(given.ndim()) + " dimensions");
  if (given.size() == 0) return In<std::int64_t>(std::vector<py::ssize_t>(given.shape(), given.shape() + rank));
  const char kind = given.dtype().kind();  // of an empty list: float64
  if (kind != 'i' && !(kind == 'u' && given.dtype().itemsize() < 8))
    throw py::type_error(std::string(argument) + ": dtype " + py::str(given.dtype()).cast<std::string>() +
                         ", expected int64");
  return In<std::int64_t>(given);
}

inline In<std::int64_t> centers_of(const py::object& centers) {
  return integers_of("centers", centers, "(N,)", 1);
}

inline py::array_t<std::int64_t> indices(const std::vector<std::int64_t>& values) {
  return py::array_t<std::int64_t>(static_cast<py::ssize_t>(values.size()), values.data());
}

}  // namespace pqrst
