// The module: checks arguments, releases the GIL, calls the kernels. Holds no arithmetic.
#include "bindings.hpp"

#include "kernels.hpp"

namespace pqrst {

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
