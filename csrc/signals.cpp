#include "signals.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "files.hpp"
#include "formats.hpp"
#include "kernels.hpp"

namespace pqrst {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr std::ptrdiff_t kReadSamples = 32768;   // at a time: few calls of the system
constexpr std::ptrdiff_t kDecodeSamples = 4096;  // at a time: 16 KiB, stays in the fastest cache

void check_format(const Header& header, const SignalLine& signal) {
  if (signal.format == 0 || is_stored_format(signal.format)) return;
  const std::string what = header.path + ": lead " + signal.lead + " has format " + std::to_string(signal.format);
  if (is_flac_format(signal.format))
    fail_format(what + " (FLAC), which is not decoded here; expected " + kReadableFormats);
  fail_format(what + ", which is unknown; expected " + kReadableFormats);
}

std::string missing_file(const Group& group, const Header& header) {
  return group.path + ": no such file (signals of " + header.path + ")";
}

Calibration calibration_of(const SignalLine& line) {
  Calibration c{line.baseline, line.adc_gain, line.to_mv, false, false, 0};
  c.has_invalid = is_invalid_code(line.format, c.invalid);
  // A quotient of two float32 comes out the same in float32 as by way of float64, which has more than twice the digits
  // and two (Figueroa 1995), as long as it is no subnormal. Whole numbers up to 2^24 are float32; the invalid code is
  // the lowest one.
  constexpr double exact = 1 << 24;
  const double gain = std::abs(c.gain);
  c.in_float = c.to_mv == 1 && c.has_invalid && std::abs(c.baseline) - c.invalid <= exact && gain > 1 / exact &&
               gain < exact && static_cast<float>(gain) == gain;
  return c;
}

// A signal while its file is decoded.
struct Lead {
  const SignalLine* line;
  Calibration calibration;
  std::ptrdiff_t row;
  std::ptrdiff_t place;  // first sample within the frame
  std::ptrdiff_t skew;   // frames
  std::uint32_t level;   // format 8: the running value, with the wrap-around of 32-bit integers
  std::uint32_t sum;     // of all codes, for the checksum
  bool repeated;         // asked for twice: the lead before this one is the same signal
};

// header(5) counts skew in samples of the signal; the WFDB library rounds it to frames, and so does this.
std::ptrdiff_t skew_in_frames(const SignalLine& signal, std::ptrdiff_t n_frames) {
  const std::ptrdiff_t spf = signal.samps_per_frame;
  const std::ptrdiff_t frames = signal.skew / spf + (signal.skew % spf >= spf - signal.skew % spf ? 1 : 0);
  return std::min(frames, n_frames);
}

void integrate_differences(Lead& lead, std::int32_t* codes, std::ptrdiff_t n) {
  const std::ptrdiff_t spf = lead.line->samps_per_frame;
  std::uint32_t level = lead.level;
  for (std::ptrdiff_t i = 0; i < n; ++i)
    for (std::ptrdiff_t k = 0; k < spf; ++k) {
      level += static_cast<std::uint32_t>(codes[k * n + i]);
      codes[k * n + i] = static_cast<std::int32_t>(level);
    }
  lead.level = level;
}

// `n` frames of several codes: their mean in whole ADC units, cut towards zero, as WFDB readers return it, in the first
// row. A frame with an invalid sample is invalid; the mean of others never is the invalid code, which is the lowest.
void average_frames(const Lead& lead, std::int32_t* codes, std::ptrdiff_t n) {
  const Calibration& c = lead.calibration;
  const std::ptrdiff_t spf = lead.line->samps_per_frame;
  for (std::ptrdiff_t i = 0; i < n; ++i) {
    std::int64_t sum = 0;
    bool valid = true;
    for (std::ptrdiff_t k = 0; k < spf; ++k) {
      const std::int32_t code = codes[k * n + i];
      valid = valid && !(c.has_invalid && code == c.invalid);
      sum += code;
    }
    codes[i] = valid ? static_cast<std::int32_t>(sum / spf) : c.invalid;
  }
}

// Whether a value can be beyond float32: of 32-bit codes, with a gain far below any that is real.
bool may_overflow(const Calibration& c) {
  const double largest = (std::abs(c.baseline) + 2147483648.0) / std::abs(c.gain) * c.to_mv;
  return !(largest < std::numeric_limits<float>::max());
}

// `n` values of a lead: those that are infinite become NaN, with a sentence that says so.
void drop_infinite(const Header& header, const Lead& lead, float* x, std::ptrdiff_t n,
                   std::vector<std::string>& warnings) {
  const auto infinite = [](float value) { return std::isinf(value); };
  const std::ptrdiff_t lost = std::count_if(x, x + n, infinite);
  if (lost == 0) return;
  std::replace_if(x, x + n, infinite, kNaN);
  warnings.push_back(to_utf8(beyond_float(header.path, lead.line->lead, lost)));
}

// What is said of a file with fewer samples than the header has.
std::string too_short(const Header& header, const Group& group, std::ptrdiff_t size) {
  std::ptrdiff_t samples = 0, bytes = -1;
  if (!__builtin_mul_overflow(header.n_samples, group.samps_per_frame, &samples))
    bytes = bytes_for(group.format, samples);
  if (bytes < 0 || __builtin_add_overflow(bytes, group.byte_offset, &bytes)) bytes = -1;
  return group.path + ": has " + std::to_string(size) + " bytes, expected " +
         (bytes < 0 ? "more than any file holds" : std::to_string(bytes)) + " for " + std::to_string(header.n_samples) +
         " x " + std::to_string(group.samps_per_frame) + " samples of format " + std::to_string(group.format) + " in " +
         header.path;
}

}  // namespace

std::string beyond_float(const std::string& name, const std::string& lead, std::ptrdiff_t n) {
  return name + ": lead " + lead + " has " + std::to_string(n) + " values that float32 cannot hold; they are NaN";
}

Layout lay_out(const Header& header) {
  Layout layout;
  std::set<std::string> seen;
  for (std::size_t s = 0; s < header.signals.size(); ++s) {
    const SignalLine& signal = header.signals[s];
    check_format(header, signal);
    const bool same_file = s > 0 && signal.format != 0 && header.signals[s - 1].format != 0 &&
                           header.signals[s - 1].file == signal.file;  // the same name: looked into once
    if (!same_file) {
      const std::string path = signal.format == 0 ? std::string() : beside(header.path, signal.file);
      if (layout.groups.empty() || path.empty() || layout.groups.back().path != path) {
        // else one file could stand for any amount of samples
        if (!path.empty() && !seen.insert(path).second)
          fail_format(header.path + ": " + signal.file + " is given twice, expected its signals next to each other");
        layout.groups.push_back({path, signal.format, signal.byte_offset, 0});
      }
    }
    Group& group = layout.groups.back();
    if (group.format != signal.format || group.byte_offset != signal.byte_offset)
      fail_format(header.path + ": lead " + signal.lead +
                  " differs in format or byte offset from the lead before it in " + signal.file);
    layout.group.push_back(layout.groups.size() - 1);
    layout.place.push_back(group.samps_per_frame);
    if (__builtin_add_overflow(group.samps_per_frame, signal.samps_per_frame, &group.samps_per_frame))
      fail_format(header.path + ": more samples per frame than any file holds");
  }
  return layout;
}

std::ptrdiff_t check_length(const Header& header, const Layout& layout, const std::vector<SignalRow>& rows,
                            std::vector<std::string>* truncated) {
  const bool known = header.n_samples > 0;
  std::vector<char> needed(layout.groups.size(), known ? 0 : 1);
  for (const SignalRow& row : rows) needed[layout.group[row.signal]] = 1;

  std::ptrdiff_t n_frames = header.n_samples;
  for (std::size_t g = 0; g < layout.groups.size(); ++g) {
    const Group& group = layout.groups[g];
    if (group.path.empty() || !needed[g]) continue;
    const std::ptrdiff_t size = file_size(group.path, missing_file(group, header));
    const std::ptrdiff_t stored = samples_in(group.format, std::max<std::ptrdiff_t>(0, size - group.byte_offset));
    const std::ptrdiff_t frames = stored / group.samps_per_frame;
    if (known && frames >= header.n_samples) continue;
    if (known) {
      const std::string shortage = too_short(header, group, size);
      if (!truncated || frames == 0) fail_format(shortage);
      truncated->push_back(to_utf8(shortage + "; " + std::to_string(frames) + " are read"));
    }
    if (frames == 0) fail_format(group.path + ": has no samples, " + header.path + " leaves their number to this file");
    n_frames = n_frames == 0 ? frames : std::min(n_frames, frames);
  }
  if (n_frames == 0) fail_format(header.path + ": has no samples");
  return n_frames;
}

std::ptrdiff_t stored_signals(const Layout& layout, const std::vector<SignalRow>& rows,
                              std::set<std::string>& counted) {
  std::ptrdiff_t stored = 0;
  for (std::size_t i = 0; i < rows.size();) {
    const std::size_t g = layout.group[rows[i].signal];
    std::ptrdiff_t n = 0;
    for (; i < rows.size() && layout.group[rows[i].signal] == g; ++i)
      n += i == 0 || rows[i - 1].signal != rows[i].signal;
    if (!layout.groups[g].path.empty() && counted.insert(layout.groups[g].path).second) stored += n;
  }
  return stored;
}

bool has_checksums(const Header& header) {
  return header.n_samples > 0 && std::any_of(header.signals.begin(), header.signals.end(),
                                             [](auto& signal) { return signal.checksum.value_or(0) != 0; });
}

void read_signals(const Header& header, const Layout& layout, const std::vector<SignalRow>& rows,
                  std::ptrdiff_t n_frames, std::ptrdiff_t from, std::ptrdiff_t to, std::ptrdiff_t per_frame,
                  View<float> out, std::ptrdiff_t column, bool verify, std::vector<std::string>& warnings) {
  const Kernels& kernel = kernels();
  Buffer<std::uint8_t> bytes;
  Buffer<std::int32_t> frames, samples, in_time;
  const auto at = [&](const Lead& lead, std::ptrdiff_t frame) {  // of the stretch that is read
    return out.row(lead.row) + (column + frame) * per_frame;
  };
  const std::ptrdiff_t n_out = (to - from) * per_frame;
  std::vector<Lead> leads;
  for (std::size_t i = 0; i < rows.size();) {
    const std::size_t g = layout.group[rows[i].signal];
    const Group& group = layout.groups[g];
    leads.clear();
    std::ptrdiff_t most_skew = 0;
    for (; i < rows.size() && layout.group[rows[i].signal] == g; ++i) {
      const SignalLine& line = header.signals[rows[i].signal];
      const std::ptrdiff_t skew = skew_in_frames(line, n_frames);
      most_skew = std::max(most_skew, skew);
      leads.push_back({&line, calibration_of(line), rows[i].row, layout.place[rows[i].signal], skew,
                       static_cast<std::uint32_t>(line.initial_value), 0,
                       !leads.empty() && leads.back().line == &line});
    }
    if (group.path.empty()) {  // a null signal: no samples are stored, all are invalid
      for (const Lead& lead : leads) std::fill_n(at(lead, 0), n_out, kNaN);
      continue;
    }

    // differences add up from the first sample on
    const std::ptrdiff_t stride = group.samps_per_frame;
    const std::ptrdiff_t first = group.format == 8 ? 0 : from;
    const std::ptrdiff_t last = std::min(n_frames, to + most_skew);
    const std::ptrdiff_t block = block_samples(group.format);
    const auto byte_of = [&](std::ptrdiff_t sample) { return sample / block * block_bytes(group.format); };
    const File file(group.path, missing_file(group, header));
    // memory for a stretch of bytes, and for the samples of a shorter stretch
    const std::ptrdiff_t step = std::max<std::ptrdiff_t>(1, kDecodeSamples / stride / 4 * 4);
    const std::ptrdiff_t most = std::min(step, last - first) * stride;
    const std::ptrdiff_t most_read = std::min(std::max(kReadSamples, most), (last - first) * stride);
    bytes.resize(static_cast<std::size_t>(bytes_for(group.format, most_read + block)) + kDecodeAhead);
    frames.resize(static_cast<std::size_t>(most) + turn_ahead);
    samples.resize(static_cast<std::size_t>(most));
    std::ptrdiff_t begin = 0, end = 0;  // of the bytes that are in memory
    for (std::ptrdiff_t frame = first; frame < last; frame += step) {
      const std::ptrdiff_t n = std::min(step, last - frame), sample = frame * stride;
      if (bytes_for(group.format, sample + n * stride) > end) {
        begin = byte_of(sample);
        end = bytes_for(group.format, std::min(sample + most_read, last * stride));
        file.read(group.byte_offset + begin, end - begin, bytes.data());
      }
      const bool turned = stride == 1;  // a frame of one sample is a row already
      decode(group.format, bytes.data() + (byte_of(sample) - begin), sample % block, n * stride,
             turned ? samples.data() : frames.data());
      if (!turned) kernel.turn_frames(frames.data(), n, stride, samples.data());
      for (Lead& lead : leads) {
        std::int32_t* codes = samples.data() + lead.place * n;
        const std::ptrdiff_t spf = lead.line->samps_per_frame;
        if (!lead.repeated) {
          if (group.format == 8) integrate_differences(lead, codes, n);
          if (verify) lead.sum += kernel.sum_codes(codes, spf * n);
          if (spf > 1 && per_frame == 1) average_frames(lead, codes, n);
        }
        if (per_frame > 1) {
          in_time.resize(static_cast<std::size_t>(n * spf));
          for (std::ptrdiff_t k = 0; k < spf; ++k)
            for (std::ptrdiff_t i = 0; i < n; ++i) in_time[static_cast<std::size_t>(i * spf + k)] = codes[k * n + i];
          codes = in_time.data();
        }
        // stored frame f is frame f - skew of the record
        const std::ptrdiff_t low = std::max<std::ptrdiff_t>(0, from + lead.skew - frame);
        const std::ptrdiff_t high = std::min(n, to + lead.skew - frame);
        if (low < high)
          kernel.convert_codes(lead.calibration, codes + low * per_frame, (high - low) * per_frame,
                               at(lead, frame + low - lead.skew - from));
      }
    }

    for (const Lead& lead : leads) {  // samples that the skew moves in from behind the end
      const std::ptrdiff_t end = std::clamp(n_frames - lead.skew, from, to);
      std::fill_n(at(lead, end - from), (to - end) * per_frame, kNaN);
      if (may_overflow(lead.calibration)) drop_infinite(header, lead, at(lead, 0), n_out, warnings);
      if (verify && lead.line->checksum && !lead.repeated) {
        const auto expected = static_cast<std::int16_t>(*lead.line->checksum & 0xFFFF);
        const auto actual = static_cast<std::int16_t>(lead.sum & 0xFFFF);
        if (actual != expected)
          warnings.push_back(to_utf8(group.path + ": lead " + lead.line->lead + " has checksum " +
                                     std::to_string(actual) + ", expected " + std::to_string(expected) + " as in " +
                                     header.path));
      }
    }
  }
}

}  // namespace pqrst
