#include "targets.hpp"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <optional>
#include <stdexcept>
#include <vector>

#include "annotations.hpp"
#include "files.hpp"
#include "record.hpp"

// The allocator interface of AddressSanitizer; GCC brings no header for it.
extern "C" int __sanitizer_install_malloc_and_free_hooks(void (*on_malloc)(const volatile void*, std::size_t),
                                                         void (*on_free)(const volatile void*));
extern "C" std::size_t __sanitizer_get_allocated_size(const volatile void* pointer);

namespace pqrst::fuzz {
namespace {

// Values that no file stores: few, so that what is allocated has to come from the size of the input.
constexpr std::ptrdiff_t kMaxSamples = 1 << 14;

// A line of four bytes is a signal with names and units of its own, in the header and in the record.
constexpr std::ptrdiff_t kBytesPerByte = 512, kBytesAlways = 1 << 18;

void require(bool holds, const std::string& what) {
  if (holds) return;
  std::cerr << "finding: " << what << std::endl;
  std::abort();
}

// Bytes allocated, now and at most since the last reset.
std::ptrdiff_t live = 0, peak = 0;

void count_allocations() {
  __sanitizer_install_malloc_and_free_hooks(
      [](const volatile void*, std::size_t size) {
        live += static_cast<std::ptrdiff_t>(size);
        peak = std::max(peak, live);
      },
      [](const volatile void* pointer) {
        if (pointer) live -= static_cast<std::ptrdiff_t>(__sanitizer_get_allocated_size(pointer));
      });
}

// A private folder, in memory where there is such a place; removed with all that is in it.
class Folder {
public:
  Folder() {
    const std::filesystem::path memory = "/dev/shm";
    const auto parent = std::filesystem::is_directory(memory) ? memory : std::filesystem::temp_directory_path();
    path_ = (parent / "pqrst-fuzz-XXXXXX").string();
    require(mkdtemp(path_.data()) != nullptr, "no temporary folder in " + parent.string());
  }
  ~Folder() { std::filesystem::remove_all(path_); }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;

  std::string file(const std::string& name) const { return path_ + "/" + name; }

  void write(const std::string& name, const std::string& content) const {
    std::ofstream(file(name), std::ios::binary | std::ios::trunc) << content;
  }

private:
  std::string path_;
};

const Folder& folder() {
  static const Folder instance;
  return instance;
}

void require_text(const std::string& text) {
  require(to_utf8(text) == text, "text that is not UTF-8");
}

void require_text(const std::vector<std::string>& texts) {
  for (const auto& text : texts) require_text(text);
}

// What `call` returns; nothing where it refuses the input as documented. Every other exception ends the program.
template <class Call>
auto attempt(const std::string& input, const Call& call) -> std::optional<decltype(call())> {
  const auto refused = [](const std::exception& error) {
    require(*error.what() != '\0', "an error without a message");
    require_text(std::string(error.what()));
    return std::nullopt;
  };
  const std::ptrdiff_t before = peak = live;
  const auto check_memory = [&] {
    const auto most = kBytesAlways + kBytesPerByte * static_cast<std::ptrdiff_t>(input.size());
    require(peak - before <= most,
            std::to_string(peak - before) + " bytes allocated for an input of " + std::to_string(input.size()));
  };
  try {
    auto result = call();
    check_memory();
    return result;
  } catch (const FormatError& error) {
    check_memory();
    return refused(error);
  } catch (const FileMissing& error) {
    check_memory();
    return refused(error);
  } catch (const std::invalid_argument& error) {
    check_memory();
    return refused(error);
  }
}

// Row `row` of `part` has the values of row `whole_row` of `whole` from `start` on, NaN for NaN.
bool same_values(const Record& part, std::ptrdiff_t row, const Record& whole, std::ptrdiff_t whole_row,
                 std::ptrdiff_t start) {
  const float* values = part.signal.row(row);
  return std::equal(values, values + part.signal.cols, whole.signal.row(whole_row) + start,
                    [](float a, float b) { return a == b || (std::isnan(a) && std::isnan(b)); });
}

void records(const std::string& input) {
  std::array<std::string, 4> parts;
  std::size_t begin = 0;
  for (auto& part : parts) {
    if (begin > input.size()) break;
    const std::size_t end = &part == &parts.back() ? std::string::npos : input.find(kSeparator, begin);
    part = input.substr(begin, end == std::string::npos ? end : end - begin);
    begin = end == std::string::npos ? input.size() + 1 : end + 1;
  }
  folder().write("r.hea", parts[0]);
  folder().write("s.hea", parts[1]);
  folder().write("t.hea", parts[2]);
  folder().write("a.dat", parts[3]);
  folder().write("b.dat", parts[3].substr(parts[3].size() / 2));

  const std::string path = folder().file("r");
  ReadOptions options;
  options.max_samples = kMaxSamples;
  const auto info = attempt(input, [&] { return read_header(path); });
  const auto whole = attempt(input, [&] { return read_record(path, options); });
  if (info) {
    require_text(info->leads);
    require_text(info->units);
    require_text(info->files);
    require_text(info->comments);
    require_text(info->start_time);
  }
  if (!whole) return;
  require_text(whole->warnings);
  const auto n_leads = static_cast<std::size_t>(whole->signal.rows);
  const std::ptrdiff_t n = whole->signal.cols;
  require(whole->leads.size() == n_leads && whole->units.size() == n_leads && whole->calibrated.size() == n_leads,
          "as many leads as rows");
  require(whole->n_samples == n, "all samples");
  require(!info || (info->n_samples == n && info->leads == whole->leads && info->units == whole->units),
          "the header says the same as the record");

  for (const auto& [start, stop] : {std::pair{n / 3, n - n / 4}, {n - 1, n}, {n / 2, n / 2 + 1}}) {
    options.start = start;
    options.stop = stop;
    const auto part = attempt(input, [&] { return read_record(path, options); });
    require(part && part->signal.cols == stop - start, "a part can be read where all of it can");
    for (std::ptrdiff_t row = 0; row < part->signal.rows; ++row)
      require(same_values(*part, row, *whole, row, start), "a part has the values of the whole");
  }
  options.start = 0;
  options.stop = -1;

  options.frames = Frames::mean;  // else leads of one rate alone are read at that rate
  const auto means = attempt(input, [&] { return read_record(path, options); });
  require(means.has_value(), "frames can be averaged where the record can be read");
  options.leads = {whole->leads.back(), whole->leads.front(), whole->leads.back()};
  const auto selected = attempt(input, [&] { return read_record(path, options); });
  for (std::size_t i = 0; selected && i < options.leads.size(); ++i) {  // of leads with one name, the first is meant
    const auto found = std::find(means->leads.begin(), means->leads.end(), options.leads[i]) - means->leads.begin();
    require(selected->signal.cols == means->signal.cols &&
                same_values(*selected, static_cast<std::ptrdiff_t>(i), *means, found, 0),
            "a lead by its name");
  }
  options.leads.clear();
  options.frames = Frames::fit;

  options.strict = true;
  const auto strict = attempt(input, [&] { return read_record(path, options); });
  require(strict.has_value() == whole->warnings.empty(), "strict refuses what is warned of, and nothing else");
}

void annotations(const std::string& input) {
  folder().write("r.atr", input);
  const auto found = attempt(input, [] { return read_annotations(folder().file("r"), "atr"); });
  if (!found) return;
  const std::size_t n = found->sample.size();
  require(found->symbol.size() == n && found->subtype.size() == n && found->chan.size() == n &&
              found->num.size() == n && found->aux.size() == n,
          "columns of one length");
  require(std::isfinite(found->fs) && found->fs >= 0, "fs");
  require_text(found->symbol);
  require_text(found->aux);
}

}  // namespace

Target target_named(const std::string& name) {
  require(name == "records" || name == "annotations", "no target is called '" + name + "'");
  static const bool counting = (count_allocations(), true);
  static_cast<void>(counting);
  return name == "records" ? records : annotations;
}

}  // namespace pqrst::fuzz
