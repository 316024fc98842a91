// Files and text: sizes, byte ranges, names that stay inside a folder, bytes that become UTF-8.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "array.hpp"

namespace pqrst {

// Messages quote names out of files: they are made one line of valid UTF-8 before they leave.
[[noreturn]] void fail_format(const std::string& message);
[[noreturn]] void fail_missing(const std::string& message);

// Bytes that are not UTF-8 are taken as Latin-1: old headers write the micro sign and names that way.
std::string to_utf8(std::string bytes);

// Decimal floating point in the C locale, whatever the process has set; false unless all of it is a number.
bool to_double(std::string_view field, double& value);

// A regular file, open for reading. `missing` is the message when there is none.
class File {
public:
  File(const std::string& path, const std::string& missing);

  std::ptrdiff_t size() const { return size_; }  // bytes, when it was opened

  // Exactly `count` bytes from `offset`; the caller has compared both with the size.
  void read(std::ptrdiff_t offset, std::ptrdiff_t count, void* bytes) const;

private:
  struct Descriptor {
    int number;
    ~Descriptor();
  };
  std::string path_;
  const Descriptor descriptor_;
  std::ptrdiff_t size_ = 0;
};

// Size in bytes of a regular file, which is not opened.
std::ptrdiff_t file_size(const std::string& path, const std::string& missing);

// All of a regular file.
std::vector<std::uint8_t> read_file(const std::string& path, const std::string& missing);

// The path of `name` beside `header`. Names come out of files that anyone may have written: absolute paths and `..`
// are refused. A symbolic link is followed wherever it leads, unless `refuse_link_out` has looked at it.
std::string beside(const std::string& header, const std::string& name);

// FormatError if `path`, which lies in the folder of `header`, is a link to a file outside of it.
void refuse_link_out(const std::string& header, const std::string& path);

}  // namespace pqrst
