#include "header.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <string_view>

#include "files.hpp"

namespace pqrst {
namespace {

bool is_blank(char c) {
  return c == ' ' || c == '\t' || c == '\v' || c == '\f';
}

template <class Drop>
std::string_view trim(std::string_view s, Drop drop) {
  while (!s.empty() && drop(s.front())) s.remove_prefix(1);
  while (!s.empty() && drop(s.back())) s.remove_suffix(1);
  return s;
}

// Takes the next field off `rest`; "" when there is none.
std::string_view next_field(std::string_view& rest) {
  rest = trim(rest, is_blank);
  const auto field =
      rest.substr(0, static_cast<std::size_t>(std::find_if(rest.begin(), rest.end(), is_blank) - rest.begin()));
  rest.remove_prefix(field.size());
  return field;
}

// One line of the header, and how it complains.
struct Line {
  const std::string& path;
  std::size_t number;
  std::string_view text;

  [[noreturn]] void fail(const std::string& message) const {
    fail_format(path + ", line " + std::to_string(number) + ": " + message);
  }

  [[noreturn]] void fail_field(const char* what, std::string_view field, const char* expected) const {
    fail(std::string(what) + " '" + std::string(field) + "': expected " + expected);
  }
};

// Whole numbers; `16.0` passes, as some writers put it.
bool to_integer(std::string_view field, std::int64_t& value) {
  if (!field.empty() && field.front() == '+') field.remove_prefix(1);
  const auto [end, error] = std::from_chars(field.data(), field.data() + field.size(), value);
  if (error != std::errc()) return false;
  const std::string_view rest(end, static_cast<std::size_t>(field.data() + field.size() - end));
  return rest.empty() || (rest.front() == '.' && rest.find_first_not_of('0', 1) == std::string_view::npos);
}

std::int64_t integer(const Line& line, const char* what, std::string_view field,
                     std::int64_t lowest = std::numeric_limits<std::int64_t>::min()) {
  std::int64_t value = 0;
  if (!to_integer(field, value)) line.fail_field(what, field, "a whole number");
  if (value < lowest)
    line.fail(std::string(what) + " " + std::to_string(value) + ": must be at least " + std::to_string(lowest));
  return value;
}

// record name[/segments] signals [fs[/counter[(base)]] [samples [time [date]]]]
void parse_record_line(const Line& line, Header& header, std::ptrdiff_t& n_segments) {
  std::string_view rest = line.text;
  std::string_view name = next_field(rest);
  // `E00001.mat` with its extension and other names outside the specification are taken as they are
  const auto slash = name.rfind('/');
  if (slash != std::string_view::npos) {
    header.multi_segment = true;
    n_segments = integer(line, "number of segments", name.substr(slash + 1), 1);
    name = name.substr(0, slash);
  }
  // the library's names of leads repeat it for every signal: at most what a file could be called
  if (name.size() > 255) line.fail("record name of " + std::to_string(name.size()) + " bytes: must be at most 255");
  header.name = std::string(name);

  header.n_leads = integer(line, "number of signals", next_field(rest), 0);
  const std::string_view rates = next_field(rest);
  if (rates.empty()) return;
  const std::string_view fs = rates.substr(0, rates.find('/'));
  if (!to_double(fs, header.fs)) line.fail_field("fs", fs, "a number in Hz");
  if (!(header.fs > 0) || !std::isfinite(header.fs)) line.fail_field("fs", fs, "a finite number above 0 Hz");
  header.has_fs = true;
  if (fs.size() < rates.size()) {  // the counter is only about tape positions: checked, not used
    const std::string_view counter = rates.substr(fs.size() + 1);
    const auto open = counter.find('(');
    double ticks = 0, base = 0;
    bool good = to_double(counter.substr(0, open), ticks);
    if (open != std::string_view::npos)
      good = good && counter.back() == ')' && to_double(counter.substr(open + 1, counter.size() - open - 2), base);
    if (!good) line.fail_field("counter frequency", counter, "a number, and a base value in parentheses or none");
  }

  const std::string_view before = rest;
  const std::string_view samples = next_field(rest);
  if (samples.find_first_of(":/") != std::string_view::npos) {  // a time or date where the number is left out
    rest = before;
  } else if (!samples.empty()) {
    header.n_samples = integer(line, "number of samples", samples, 0);
  }
  header.start_time = std::string(trim(rest, is_blank));
}

// format[xN][:skew][+offset]
void parse_format(const Line& line, std::string_view field, SignalLine& signal) {
  const auto modifiers = field.find_first_of("x:+", 1);
  const std::int64_t format = integer(line, "format", field.substr(0, modifiers), 0);
  if (format > 9999) line.fail_field("format", field, "a storage format such as 16 or 212");
  signal.format = static_cast<int>(format);
  bool seen_frame = false, seen_skew = false, seen_offset = false;
  std::string_view rest = modifiers == std::string_view::npos ? std::string_view() : field.substr(modifiers);
  while (!rest.empty()) {
    const char kind = rest.front();
    const auto end = rest.find_first_of("x:+", 1);
    const std::string_view value = rest.substr(1, end == std::string_view::npos ? end : end - 1);
    bool& seen = kind == 'x' ? seen_frame : kind == ':' ? seen_skew : seen_offset;
    if (seen) line.fail_field("format", field, "each of xN, :skew, +offset once");
    seen = true;
    if (kind == 'x') signal.samps_per_frame = integer(line, "samples per frame", value, 1);
    if (kind == ':') signal.skew = integer(line, "skew", value, 0);
    if (kind == '+') signal.byte_offset = integer(line, "byte offset", value, 0);
    rest = end == std::string_view::npos ? std::string_view() : rest.substr(end);
  }
}

// gain[(baseline)][/units]; true when the baseline is given
bool parse_gain(const Line& line, std::string_view field, SignalLine& signal) {
  constexpr const char* kExpected = "gain(baseline)/units, for example 200(1024)/mV";
  const std::string_view gain = field.substr(0, field.find_first_of("(/"));
  std::string_view rest = field.substr(gain.size());
  double value = 0;
  if (!gain.empty() && (!to_double(gain, value) || !std::isfinite(value)))
    line.fail_field("ADC gain", field, kExpected);
  signal.calibrated = value != 0;
  if (signal.calibrated) signal.adc_gain = value;

  bool has_baseline = false;
  if (!rest.empty() && rest.front() == '(') {
    const auto close = rest.find(')');
    if (close == std::string_view::npos) line.fail_field("ADC gain", field, kExpected);
    signal.baseline = static_cast<double>(integer(line, "baseline", rest.substr(1, close - 1)));
    has_baseline = true;
    rest = rest.substr(close + 1);
  }
  if (!rest.empty() && rest.front() != '/') line.fail_field("ADC gain", field, kExpected);
  if (rest.size() > 1) signal.units = std::string(rest.substr(1));
  return has_baseline;
}

// file format gain resolution zero initial checksum block description; all from the gain on may be missing
SignalLine parse_signal_line(const Line& line, const Header& header) {
  SignalLine signal;
  std::string_view rest = line.text;
  signal.file = std::string(next_field(rest));
  const std::string_view format = next_field(rest);
  if (format.empty()) line.fail("format is missing: expected a file name and a format");
  parse_format(line, format, signal);

  const std::string_view gain = next_field(rest);
  const bool has_baseline = !gain.empty() && parse_gain(line, gain, signal);
  const std::string_view resolution = next_field(rest);
  if (!resolution.empty()) integer(line, "ADC resolution", resolution);
  const std::string_view zero = next_field(rest);
  const std::int64_t adc_zero = zero.empty() ? 0 : integer(line, "ADC zero", zero);
  if (!has_baseline) signal.baseline = static_cast<double>(adc_zero);
  const std::string_view initial = next_field(rest);
  signal.initial_value = initial.empty() ? adc_zero : integer(line, "initial value", initial);
  const std::string_view checksum = next_field(rest);
  if (!checksum.empty()) signal.checksum = integer(line, "checksum", checksum);
  const std::string_view block = next_field(rest);
  if (!block.empty()) integer(line, "block size", block);
  signal.lead = std::string(trim(rest, is_blank));
  if (signal.lead.empty()) {
    signal.has_description = false;
    signal.lead = "record " + header.name + ", signal " + std::to_string(header.signals.size());
  }

  const double factor = factor_to_mv(signal.units);
  if (factor != 0) {
    signal.to_mv = factor;
    signal.units = "mV";
  }
  return signal;
}

SegmentLine parse_segment_line(const Line& line) {
  std::string_view rest = line.text;
  SegmentLine segment;
  segment.name = std::string(next_field(rest));
  segment.n_samples = integer(line, "length of the segment", next_field(rest), 0);
  return segment;
}

}  // namespace

double factor_to_mv(const std::string& units) {
  std::string plain;
  for (std::size_t i = 0; i < units.size(); ++i) {
    // U+00B5 and U+03BC, the two characters that look like a micro sign
    if (units.compare(i, 2, "\xC2\xB5") == 0 || units.compare(i, 2, "\xCE\xBC") == 0) {
      plain += 'u';
      ++i;
    } else {
      plain += units[i] >= 'A' && units[i] <= 'Z' ? static_cast<char>(units[i] - 'A' + 'a') : units[i];
    }
  }
  if (plain == "mv") return 1;
  if (plain == "v") return 1e3;
  if (plain == "uv") return 1e-3;
  if (plain == "nv") return 1e-6;
  return 0;
}

bool is_header_path(const std::string& path) {
  constexpr std::string_view suffix = ".hea";
  if (path.size() <= suffix.size()) return false;
  return std::equal(
      suffix.begin(), suffix.end(), path.end() - static_cast<std::ptrdiff_t>(suffix.size()),
      [](char wanted, char c) { return c == wanted || (c >= 'A' && c <= 'Z' && c - 'A' + 'a' == wanted); });
}

std::string header_path(const std::string& path) {
  return is_header_path(path) ? path : path + ".hea";
}

Header parse_header(const std::string& path, const std::string& missing) {
  Header header;
  header.path = path;
  const File file(path, missing.empty() ? path + ": no such header file" : missing);
  constexpr std::ptrdiff_t most = std::ptrdiff_t(1) << 24;  // the headers of months in a million segments fit
  if (file.size() > most)
    fail_format(path + ": has " + std::to_string(file.size()) + " bytes, more than any header (16 MiB)");
  header.n_bytes = file.size();
  std::string bytes(static_cast<std::size_t>(file.size()), '\0');
  file.read(0, file.size(), bytes.data());
  const std::string text = to_utf8(std::move(bytes));
  std::string_view rest = text;
  if (rest.substr(0, 3) == "\xEF\xBB\xBF") rest.remove_prefix(3);  // byte order mark

  bool has_record_line = false;
  std::ptrdiff_t n_segments = 0;
  for (std::size_t number = 1; !rest.empty(); ++number) {
    const auto is_end = [](char c) { return c == '\r' || c == '\n'; };
    const auto end = static_cast<std::size_t>(std::find_if(rest.begin(), rest.end(), is_end) - rest.begin());
    const Line line{path, number, trim(rest.substr(0, end), is_blank)};
    const bool cr_lf = rest.substr(end, 2) == "\r\n";
    rest.remove_prefix(std::min(rest.size(), end + (cr_lf ? 2 : 1)));
    if (line.text.empty()) continue;
    if (line.text.front() == '#') {
      header.comments.emplace_back(trim(line.text, [](char c) { return is_blank(c) || c == '#'; }));
    } else if (!has_record_line) {
      parse_record_line(line, header, n_segments);
      has_record_line = true;
    } else if (header.multi_segment) {
      if (static_cast<std::ptrdiff_t>(header.segments.size()) < n_segments)
        header.segments.push_back(parse_segment_line(line));
    } else if (static_cast<std::ptrdiff_t>(header.signals.size()) < header.n_leads) {
      header.signals.push_back(parse_signal_line(line, header));
    }
  }
  // counted after the lines are read: a number in the header never allocates anything
  if (!has_record_line) fail_format(path + ": has no record line, expected name, number of signals, fs, samples");
  const auto n_lines =
      static_cast<std::ptrdiff_t>(header.multi_segment ? header.segments.size() : header.signals.size());
  const std::ptrdiff_t expected = header.multi_segment ? n_segments : header.n_leads;
  if (n_lines < expected)
    fail_format(path + ": has " + std::to_string(n_lines) + (header.multi_segment ? " segment" : " signal") +
                " lines, expected " + std::to_string(expected));
  return header;
}

}  // namespace pqrst
