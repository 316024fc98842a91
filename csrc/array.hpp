// What every kernel shares: borrowed arrays and the errors that cross into Python. Knows no Python.
#pragma once

#include <cstddef>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <vector>

namespace pqrst {

// A damaged or unsupported file: names the file and the line or byte. Becomes pqrst.FormatError (a ValueError).
struct FormatError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Becomes FileNotFoundError.
struct FileMissing : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Borrowed, row-major, contiguous (rows = leads, cols = samples); passed by value.
template <class T>
struct View {
  T* data;
  std::ptrdiff_t rows, cols;
  T* row(std::ptrdiff_t i) const { return data + i * cols; }
};

// Leaves numbers uninitialised where std::allocator makes them 0: for what is written in full anyway.
template <class T>
struct Uninitialized : std::allocator<T> {
  template <class U>
  struct rebind {
    using other = Uninitialized<U>;
  };
  template <class U>
  void construct(U* at) {
    ::new (static_cast<void*>(at)) U;
  }
};

template <class T>
using Buffer = std::vector<T, Uninitialized<T>>;

// Owned, row-major; its values are not initialised.
template <class T>
struct Array {
  Buffer<T> values;
  std::ptrdiff_t rows = 0, cols = 0;

  Array() = default;
  Array(std::ptrdiff_t n_rows, std::ptrdiff_t n_cols)
      : values(static_cast<std::size_t>(n_rows) * static_cast<std::size_t>(n_cols)), rows(n_rows), cols(n_cols) {}
  // Keeps the memory where it is large enough, but no value.
  void resize(std::ptrdiff_t n_rows, std::ptrdiff_t n_cols) {
    values.clear();  // or they would be copied
    values.resize(static_cast<std::size_t>(n_rows) * static_cast<std::size_t>(n_cols));
    rows = n_rows;
    cols = n_cols;
  }
  T* row(std::ptrdiff_t i) { return values.data() + i * cols; }
  const T* row(std::ptrdiff_t i) const { return values.data() + i * cols; }
  View<T> view() { return {values.data(), rows, cols}; }
  View<const T> view() const { return {values.data(), rows, cols}; }
};

}  // namespace pqrst
