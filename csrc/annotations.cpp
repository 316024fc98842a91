#include "annotations.hpp"

#include <array>
#include <cmath>
#include <map>
#include <string_view>

#include "files.hpp"
#include "header.hpp"
#include "record.hpp"

namespace pqrst {
namespace {

// Each word has a code in its upper six bits and a number in its lower ten.
enum Code { kNotQrs = 0, kNote = 22, kSkip = 59, kNum = 60, kSub = 61, kChn = 62, kAux = 63 };

// wfdb/ecgcodes.h: the mnemonic of each code; 15 and 17 are free.
constexpr std::array<const char*, 42> kSymbols = {
    " ", "N",  "L", "R", "a", "V", "F", "J", "A", "S", "E", "j", "/", "Q", "~", nullptr, "|", nullptr, "s", "T", "*",
    "D", "\"", "=", "p", "B", "^", "t", "+", "u", "?", "!", "[", "]", "e", "n", "@",     "x", "f",     "(", ")", "r"};

// Signed and unsigned bytes, as the fields of the WFDB library's annotations are.
int signed_byte(unsigned word) {
  return static_cast<int>((word & 0xFF) ^ 0x80) - 0x80;
}
int unsigned_byte(unsigned word) {
  return static_cast<int>(word & 0xFF);
}

class Reader {
public:
  Reader(std::string path, std::vector<std::uint8_t> bytes) : path_(std::move(path)), bytes_(std::move(bytes)) {}

  std::size_t position() const { return position_; }
  bool at_end() const { return position_ == bytes_.size(); }

  // A 16-bit word, low byte first.
  unsigned word(const char* what) {
    need(2, what);
    const unsigned value = bytes_[position_] | static_cast<unsigned>(bytes_[position_ + 1]) << 8;
    position_ += 2;
    return value;
  }

  unsigned peek() const {
    return position_ + 2 <= bytes_.size() ? bytes_[position_] | static_cast<unsigned>(bytes_[position_ + 1]) << 8 : 0;
  }

  // Of odd length: one more byte follows, to keep the words even.
  std::string text(std::size_t length) {
    need(length + (length & 1), "auxiliary text");
    std::string value(bytes_.begin() + static_cast<std::ptrdiff_t>(position_),
                      bytes_.begin() + static_cast<std::ptrdiff_t>(position_ + length));
    position_ += length + (length & 1);
    while (!value.empty() && value.back() == '\0') value.pop_back();  // padding within the length
    return to_utf8(value);
  }

  [[noreturn]] void fail(std::size_t at, const std::string& message) const {
    fail_format(path_ + ", byte " + std::to_string(at) + ": " + message);
  }

private:
  void need(std::size_t n, const char* what) const {
    if (bytes_.size() - position_ < n)
      fail(position_, std::string(what) + " is cut off, expected " + std::to_string(n) + " bytes, found " +
                          std::to_string(bytes_.size() - position_));
  }

  std::string path_;
  std::vector<std::uint8_t> bytes_;
  std::size_t position_ = 0;
};

// What the notes at the beginning say about the file itself.
struct Definitions {
  double fs = 0;
  bool in_table = false;
  std::map<int, std::string> symbols;

  // True when the note is one of them, and no annotation of the recording.
  bool take(const std::string& note) {
    constexpr std::string_view kResolution = "## time resolution: ";
    if (note.rfind("##", 0) == 0) {
      double value = 0;
      if (note.rfind(kResolution, 0) == 0 && to_double(std::string_view(note).substr(kResolution.size()), value) &&
          value > 0 && std::isfinite(value))
        fs = value;
      if (note == "## annotation type definitions") in_table = true;
      if (note == "## end of definitions") in_table = false;
      return true;
    }
    if (!in_table) return false;
    // code symbol description
    const std::size_t space = note.find(' ');
    if (space == std::string::npos || space == 0 || space > 2) return true;
    int code = 0;
    for (std::size_t i = 0; i < space; ++i) {
      if (note[i] < '0' || note[i] > '9') return true;
      code = 10 * code + (note[i] - '0');
    }
    const std::string symbol = note.substr(space + 1, note.find(' ', space + 1) - space - 1);
    if (!symbol.empty()) symbols[code] = symbol;
    return true;
  }
};

std::string symbol_of(unsigned code, const Definitions& definitions) {
  const auto custom = definitions.symbols.find(static_cast<int>(code));
  if (custom != definitions.symbols.end()) return custom->second;
  if (code < kSymbols.size() && kSymbols[code]) return kSymbols[code];
  return "[" + std::to_string(code) + "]";  // as the WFDB library prints a code without a mnemonic
}

// From ticks of `from` Hz to samples of `to` Hz.
void convert(std::vector<std::int64_t>& positions, double from, double to, const std::string& file) {
  if (from == to) return;
  for (std::int64_t& position : positions) {
    const double converted = std::floor(static_cast<double>(position) * to / from + 0.5);
    if (!(std::abs(converted) < 9e18))
      fail_format(file + ": has an annotation at tick " + std::to_string(position) + ", later than any sample");
    position = static_cast<std::int64_t>(converted);
  }
}

// AHA format has 16 bytes per annotation: a null byte, then an AHA code. The WFDB library tells the two apart so.
bool looks_like_aha(const std::vector<std::uint8_t>& bytes) {
  return bytes.size() >= 16 && bytes.size() % 16 == 0 && bytes[0] == 0 && bytes[1] != 0 &&
         std::string("NVFEPQOUR").find(static_cast<char>(bytes[1])) != std::string::npos;
}

}  // namespace

Annotations read_annotations(const std::string& path, const std::string& extension, double fs) {
  const std::string file = (is_header_path(path) ? path.substr(0, path.size() - 4) : path) + "." + extension;
  std::vector<std::uint8_t> bytes = read_file(file, file + ": no such annotation file");
  if (looks_like_aha(bytes)) fail_format(file + ": is in AHA format, expected MIT format");

  Annotations result;
  Definitions definitions;
  Reader reader(file, std::move(bytes));
  std::uint64_t sample = 0;  // wraps around instead of overflowing
  int chan = 0, num = 0;
  bool at_beginning = true;  // notes about the file stand before all annotations
  const auto skip = [&] {
    const unsigned high = reader.word("a skip"), low = reader.word("a skip");
    sample += static_cast<std::uint64_t>(static_cast<std::int64_t>(static_cast<std::int32_t>(high << 16 | low)));
  };
  while (!reader.at_end()) {  // without an end mark, the end of the file is the end
    const std::size_t at = reader.position();
    const unsigned word = reader.word("an annotation"), code = word >> 10;
    if (word == 0) break;
    if (code == kSkip) {
      skip();
      continue;
    }
    if (code > kSkip) reader.fail(at, "a field (code " + std::to_string(code) + ") without an annotation before it");
    sample += word & 0x3FF;
    int subtype = 0;
    std::string aux;
    const auto position = static_cast<std::int64_t>(sample);
    for (unsigned next; !reader.at_end() && (next = reader.peek() >> 10) >= kSkip;) {
      const unsigned field = reader.word("a field");
      if (next == kSkip) skip();  // of the annotation behind it
      if (next == kNum) num = signed_byte(field);
      if (next == kSub) subtype = signed_byte(field);
      if (next == kChn) chan = unsigned_byte(field);
      if (next == kAux) aux = reader.text(field & 0xFF);
    }
    if (code == kNotQrs) continue;  // a place holder
    const bool may_define = at_beginning && position == 0 && code == kNote && subtype == 0;
    if (may_define && definitions.take(aux)) continue;
    at_beginning = at_beginning && position == 0;
    result.sample.push_back(position);
    result.symbol.push_back(symbol_of(code, definitions));
    result.subtype.push_back(subtype);
    result.chan.push_back(chan);
    result.num.push_back(num);
    result.aux.push_back(std::move(aux));
  }
  result.fs = definitions.fs;
  try {
    const RecordLength record = read_length(parse_header(header_path(path)));
    convert(result.sample, result.fs > 0 ? result.fs : record.frame_fs, fs > 0 ? fs : record.fs, file);
  } catch (const FileMissing&) {  // nothing tells what the ticks are
    if (result.fs > 0 && fs > 0) convert(result.sample, result.fs, fs, file);
  }
  return result;
}

}  // namespace pqrst
