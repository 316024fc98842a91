#include "files.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <filesystem>
#include <locale>
#include <sstream>
#include <system_error>

namespace pqrst {
namespace {

// Length of the UTF-8 sequence at `i`, 0 if there is none (overlong forms and surrogates are none).
std::size_t utf8_length(const std::string& s, std::size_t i) {
  const auto byte = [&](std::size_t k) { return k < s.size() ? static_cast<unsigned char>(s[k]) : 0u; };
  const auto follows = [&](std::size_t k) { return (byte(k) & 0xC0u) == 0x80u; };
  const unsigned a = byte(i), b = byte(i + 1);
  if (a < 0x80) return 1;
  if (a >= 0xC2 && a <= 0xDF) return follows(i + 1) ? 2 : 0;
  if (a >= 0xE0 && a <= 0xEF) {
    if ((a == 0xE0 && b < 0xA0) || (a == 0xED && b >= 0xA0)) return 0;
    return follows(i + 1) && follows(i + 2) ? 3 : 0;
  }
  if (a >= 0xF0 && a <= 0xF4) {
    if ((a == 0xF0 && b < 0x90) || (a == 0xF4 && b >= 0x90)) return 0;
    return follows(i + 1) && follows(i + 2) && follows(i + 3) ? 4 : 0;
  }
  return 0;
}

// What a message may hold: names out of files can have any bytes.
std::string one_line(const std::string& message) {
  std::string text = to_utf8(message);
  for (char& c : text)
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) c = '?';
  return text;
}

// What the system says about a file that cannot be opened or looked at.
[[noreturn]] void fail_system(const std::string& path, const std::string& missing) {
  const int error = errno;
  if (error == ENOENT || error == ENOTDIR || error == ENAMETOOLONG) fail_missing(missing);
  fail_format(path + ": cannot be read (" + std::generic_category().message(error) + ")");
}

// A pipe or a device would block, or never end.
std::ptrdiff_t regular_size(const std::string& path, const struct stat& status) {
  if (!S_ISREG(status.st_mode)) fail_format(path + ": not a regular file");
  return static_cast<std::ptrdiff_t>(status.st_size);
}

}  // namespace

bool to_double(std::string_view field, double& value) {
  if (!field.empty() && field.front() == '+') field.remove_prefix(1);
#if defined(__cpp_lib_to_chars)
  const auto [end, error] = std::from_chars(field.data(), field.data() + field.size(), value);
  return error == std::errc() && end == field.data() + field.size();
#else
  std::istringstream stream{std::string(field)};
  stream.imbue(std::locale::classic());
  return bool(stream >> value) && stream.peek() == std::istringstream::traits_type::eof();
#endif
}

void fail_format(const std::string& message) {
  throw FormatError(one_line(message));
}

void fail_missing(const std::string& message) {
  throw FileMissing(one_line(message));
}

std::string to_utf8(std::string bytes) {
  if (std::all_of(bytes.begin(), bytes.end(), [](char c) { return static_cast<unsigned char>(c) < 0x80; }))
    return bytes;
  std::string text;
  text.reserve(bytes.size());
  for (std::size_t i = 0; i < bytes.size();) {
    const std::size_t length = utf8_length(bytes, i);
    if (length > 0) {
      text.append(bytes, i, length);
      i += length;
    } else {
      const auto byte = static_cast<unsigned char>(bytes[i++]);
      text.push_back(static_cast<char>(0xC0 | (byte >> 6)));
      text.push_back(static_cast<char>(0x80 | (byte & 0x3F)));
    }
  }
  return text;
}

File::File(const std::string& path, const std::string& missing)
    : path_(path), descriptor_{::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)} {
  struct stat status;
  if (descriptor_.number < 0 || ::fstat(descriptor_.number, &status) != 0) fail_system(path, missing);
  size_ = regular_size(path, status);
}

File::Descriptor::~Descriptor() {
  if (number >= 0) ::close(number);
}

void File::read(std::ptrdiff_t offset, std::ptrdiff_t count, void* bytes) const {
  std::ptrdiff_t done = 0;
  while (done < count) {
    const ::ssize_t n = ::pread(descriptor_.number, static_cast<char*>(bytes) + done,
                                static_cast<std::size_t>(count - done), static_cast<::off_t>(offset + done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail_format(path_ + ": cannot be read (" + std::generic_category().message(errno) + ")");
    if (n == 0)  // it has become shorter
      fail_format(path_ + ": " + std::to_string(done) + " bytes could be read at byte " + std::to_string(offset) +
                  ", expected " + std::to_string(count));
    done += n;
  }
}

std::ptrdiff_t file_size(const std::string& path, const std::string& missing) {
  struct stat status;
  if (::stat(path.c_str(), &status) != 0) fail_system(path, missing);
  return regular_size(path, status);
}

std::vector<std::uint8_t> read_file(const std::string& path, const std::string& missing) {
  const File file(path, missing);
  std::vector<std::uint8_t> bytes(static_cast<std::size_t>(file.size()));
  file.read(0, file.size(), bytes.data());
  return bytes;
}

std::string beside(const std::string& header, const std::string& name) {
  const std::filesystem::path relative(name);
  bool outside = name.empty() || relative.is_absolute() || relative.has_root_path() ||
                 name.find('\\') != std::string::npos || name.find('\0') != std::string::npos;
  for (const auto& part : relative) outside = outside || part == "..";
  if (outside)
    fail_format(header + ": file name '" + name + "' refused: expected a name inside the record's own folder");
  return (std::filesystem::path(header).parent_path() / relative).lexically_normal().string();
}

void refuse_link_out(const std::string& header, const std::string& path) {
  std::error_code error;
  const std::filesystem::path parent = std::filesystem::path(header).parent_path();
  const auto folder = std::filesystem::canonical(parent.empty() ? "." : parent, error);
  const auto target = std::filesystem::canonical(path, error);
  if (error) return;  // opening it will say why
  if (std::mismatch(folder.begin(), folder.end(), target.begin(), target.end()).first != folder.end())
    fail_format(path + ": is a link out of the record's folder, to " + target.string() + "; refused with strict");
}

}  // namespace pqrst
