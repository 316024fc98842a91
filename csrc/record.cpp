#include "record.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <memory>
#include <numeric>
#include <set>

#include "files.hpp"
#include "header.hpp"
#include "signals.hpp"

namespace pqrst {
namespace {

std::string quoted(const std::vector<std::string>& names) {
  std::string text;
  for (const auto& name : names) text += (text.empty() ? "" : ", ") + name;
  return "[" + text + "]";
}

// The leads of a record, whatever its kind: what they are called, and how they are measured.
struct Leads {
  std::vector<std::string> names, units;
  std::vector<char> calibrated, described;
  std::vector<double> gains;
  std::vector<std::ptrdiff_t> samps_per_frame;  // 0 for a null signal, which has no rate
};

// `layout`: the header describes the segments that follow, and all of its signals are null signals.
Leads leads_of(const Header& header, bool layout = false) {
  Leads leads;
  for (const auto& signal : header.signals) {
    leads.names.push_back(signal.lead);
    leads.units.push_back(signal.units);
    leads.calibrated.push_back(signal.calibrated);
    leads.gains.push_back(signal.adc_gain / signal.to_mv);
    leads.described.push_back(signal.has_description);
    leads.samps_per_frame.push_back(signal.format == 0 && !layout ? 0 : signal.samps_per_frame);
  }
  return leads;
}

// A record as a row of segments. A single-segment record is one segment.
class Source {
public:
  explicit Source(Header header) : header_(std::move(header)) {
    if (!header_.multi_segment) {
      leads_ = leads_of(header_);
      return;
    }
    auto& segments = header_.segments;
    variable_ = segments.front().n_samples == 0 && segments.front().name != "~";
    const auto first = std::find_if(segments.begin(), segments.end(), [](auto& s) { return s.name != "~"; });
    if (first == segments.end()) fail_format(header_.path + ": has only gaps, expected one segment with signals");
    const Header& model = segment_header(first->name);
    leads_ = leads_of(model, variable_);
    if (header_.n_leads != static_cast<std::ptrdiff_t>(leads_.names.size()))
      fail_format(header_.path + ": says " + std::to_string(header_.n_leads) + " signals, " + model.path + " has " +
                  std::to_string(leads_.names.size()));
    std::ptrdiff_t total = 0;
    for (const auto& segment : segments)
      if (__builtin_add_overflow(total, segment.n_samples, &total))
        fail_format(header_.path + ": the segments are longer than any file");
    if (header_.n_samples != 0 && header_.n_samples != total)
      fail_format(header_.path + ": says " + std::to_string(header_.n_samples) + " samples, its segments have " +
                  std::to_string(total));
    header_.n_samples = total;
  }

  const Header& header() const { return header_; }
  const Leads& leads() const { return leads_; }
  bool variable_layout() const { return variable_; }

  // Headers are parsed once, however often a segment is repeated and however its path is written.
  const Header& segment_header(const std::string& name) {
    const std::string path = header_path(beside(header_.path, name));
    auto& slot = headers_[path];
    if (!slot) {
      slot = std::make_unique<Header>(parse_header(path, path + ": no such file (segment of " + header_.path + ")"));
      if (slot->multi_segment) fail_format(path + ": is a segment of " + header_.path + " and has segments itself");
      if (slot->has_fs && slot->fs != header_.fs && header_.has_fs)
        fail_format(path + ": has another fs than " + header_.path + ", expected the same in all segments");
    }
    return *slot;
  }

private:
  Header header_;
  Leads leads_;
  bool variable_ = false;
  std::map<std::string, std::unique_ptr<Header>> headers_;  // by path
};

// One header's signals matched to the rows of the result.
struct Segment {
  const Header* header = nullptr;
  Layout layout;
  std::vector<SignalRow> rows;
  std::ptrdiff_t n_samples = 0;
  bool verified = false;
};

// How many samples per frame all of these leads have; 0 if they differ.
std::ptrdiff_t common_rate(const Leads& leads, const std::vector<std::size_t>& wanted) {
  std::ptrdiff_t common = 0;
  for (const std::size_t lead : wanted) {
    const std::ptrdiff_t here = leads.samps_per_frame[lead];
    if (here != 0 && common != 0 && here != common) return 0;
    if (here != 0) common = here;
  }
  return common == 0 ? 1 : common;
}

std::vector<std::size_t> all_of(const Leads& leads) {
  std::vector<std::size_t> all(leads.names.size());
  std::iota(all.begin(), all.end(), std::size_t{0});
  return all;
}

// Samples per frame of the result: those of the leads, or 1 for their mean, which may need a warning.
std::ptrdiff_t rate_of_result(const Source& source, const std::vector<std::size_t>& wanted, Frames frames,
                              std::vector<std::string>& warnings) {
  if (frames == Frames::mean) return 1;
  const std::ptrdiff_t common = common_rate(source.leads(), wanted);
  if (common != 0) return common;
  std::string averaged;
  for (const std::size_t lead : wanted)
    if (const std::ptrdiff_t n = source.leads().samps_per_frame[lead]; n > 1)
      averaged += (averaged.empty() ? "" : ", ") + source.leads().names[lead] + " (" + std::to_string(n) + ")";
  const std::string what = source.header().path + ": the leads differ in samples per frame: " + averaged;
  if (frames == Frames::full) throw std::invalid_argument(to_utf8(what + "; read those of one rate alone"));
  warnings.push_back(to_utf8(what + " are averaged to the frame rate; leads of one rate alone are read in full"));
  return 1;
}

// `wanted`: for each row of the result, which of the record's leads it is; `per_frame`: samples of the result.
Segment match(const Source& source, const Header& header, const std::vector<std::size_t>& wanted,
              std::ptrdiff_t per_frame, std::vector<std::string>* truncated) {
  const Leads& leads = source.leads();
  Segment segment;
  segment.header = &header;
  const bool fixed = source.header().multi_segment && !source.variable_layout();
  if (fixed && header.signals.size() != leads.names.size())
    fail_format(header.path + ": has " + std::to_string(header.signals.size()) + " signals, expected " +
                std::to_string(leads.names.size()) + " as in the first segment of " + source.header().path);
  std::map<std::string, std::size_t> by_name;  // the first of that name
  for (std::size_t s = 0; s < header.signals.size(); ++s) by_name.emplace(header.signals[s].lead, s);
  for (std::size_t row = 0; row < wanted.size(); ++row) {
    const std::size_t lead = wanted[row];
    std::size_t s = lead;
    if (source.variable_layout()) {  // leads come and go
      const auto found = by_name.find(leads.names[lead]);
      if (found == by_name.end()) continue;
      s = found->second;
    }
    const SignalLine& signal = header.signals[s];
    if (fixed && signal.has_description && leads.described[lead] && signal.lead != leads.names[lead])
      fail_format(header.path + ": lead " + std::to_string(s) + " is " + signal.lead + ", expected " +
                  leads.names[lead] + " as in the first segment of " + source.header().path);
    if (signal.format != 0 && signal.units != leads.units[lead])
      fail_format(header.path + ": lead " + signal.lead + " is in " + signal.units + ", expected " + leads.units[lead] +
                  " as in the first segment of " + source.header().path);
    if (per_frame > 1 && signal.format != 0 && signal.samps_per_frame != per_frame)
      fail_format(header.path + ": lead " + signal.lead + " has " + std::to_string(signal.samps_per_frame) +
                  " samples per frame, expected " + std::to_string(per_frame) + " as in the first segment of " +
                  source.header().path + "; frames='mean' reads one per frame");
    segment.rows.push_back({s, static_cast<std::ptrdiff_t>(row)});
  }
  std::stable_sort(segment.rows.begin(), segment.rows.end(), [](auto& a, auto& b) { return a.signal < b.signal; });
  segment.layout = lay_out(header);
  segment.n_samples = check_length(header, segment.layout, segment.rows, truncated);
  return segment;
}

std::vector<std::size_t> find_leads(const Source& source, const std::vector<std::string>& requested) {
  const auto& names = source.leads().names;
  if (requested.empty()) return all_of(source.leads());
  std::vector<std::size_t> wanted;
  for (const auto& lead : requested) {
    const auto found = std::find(names.begin(), names.end(), lead);
    if (found == names.end())
      throw std::invalid_argument(to_utf8("leads: " + lead + " is not in " + source.header().path + "; requested " +
                                          quoted(requested) + ", the record has " + quoted(names)));
    wanted.push_back(static_cast<std::size_t>(found - names.begin()));
  }
  return wanted;
}

// A stretch of the result: a segment's frames [from, to), or a gap.
struct Piece {
  Segment* segment;
  std::ptrdiff_t from, to, column;
};

// Frames of a record; -1 where neither the header nor a signal file tells.
std::ptrdiff_t length_of(const Header& header) {
  if (header.multi_segment || header.n_samples != 0) return header.n_samples;
  try {
    return check_length(header, lay_out(header), {});
  } catch (const FileMissing&) {
  } catch (const FormatError&) {
  }
  return -1;
}

// Rate and length of all leads, read as Frames::fit has it.
RecordLength length_of(const Source& source) {
  const std::ptrdiff_t per_frame = std::max<std::ptrdiff_t>(1, common_rate(source.leads(), all_of(source.leads())));
  const Header& header = source.header();
  std::ptrdiff_t n_samples = length_of(header);
  if (n_samples > 0 && __builtin_mul_overflow(n_samples, per_frame, &n_samples)) n_samples = -1;
  return {header.fs * static_cast<double>(per_frame), header.fs, n_samples};
}

// Of a header and the files that it names; -1 where one is missing.
std::ptrdiff_t bytes_of(const Header& header, const std::vector<std::string>& files) {
  std::ptrdiff_t n_bytes = header.n_bytes;
  try {
    for (const auto& name : files) n_bytes += file_size(beside(header.path, name), name);
  } catch (const FileMissing&) {
    return -1;
  } catch (const FormatError&) {  // what reading it will say
    return -1;
  }
  return n_bytes;
}

// `n` columns from `from` on.
Array<float> columns(const Array<float>& signal, std::ptrdiff_t from, std::ptrdiff_t n) {
  Array<float> part(signal.rows, n);
  for (std::ptrdiff_t row = 0; row < signal.rows; ++row) std::copy_n(signal.row(row) + from, n, part.row(row));
  return part;
}

}  // namespace

Record read_record(const std::string& path, const ReadOptions& options) {
  Record record;
  read_record(path, parse_header(header_path(path)), options, record);
  return record;
}

void read_record(const std::string& path, Header parsed, const ReadOptions& options, Record& record) {
  Array<float> memory = std::move(record.signal);
  record = Record();
  Source source(std::move(parsed));
  const Header& header = source.header();
  const Leads& leads = source.leads();
  if (leads.names.empty()) fail_format(header.path + ": has no leads");
  const std::vector<std::size_t> wanted = find_leads(source, options.leads);
  const auto n_rows = static_cast<std::ptrdiff_t>(wanted.size());

  std::vector<std::string> averaged;
  const std::ptrdiff_t per_frame = rate_of_result(source, wanted, options.frames, averaged);
  // the length of a segment is part of the record's own
  const bool truncated = options.truncated && !options.strict && !header.multi_segment;
  std::map<const Header*, Segment> segments;
  const auto segment_of = [&](const Header& h) {
    auto found = segments.find(&h);
    if (found == segments.end()) {
      found = segments.emplace(&h, match(source, h, wanted, per_frame, truncated ? &record.warnings : nullptr)).first;
      if (options.strict) {
        if (&h != &header) refuse_link_out(header.path, h.path);
        for (const Group& group : found->second.layout.groups)
          if (!group.path.empty()) refuse_link_out(header.path, group.path);
      }
    }
    return &found->second;
  };
  const std::ptrdiff_t n_frames = header.multi_segment ? header.n_samples : segment_of(header)->n_samples;
  if (n_frames == 0) fail_format(header.path + ": has no samples");
  std::ptrdiff_t n_samples = 0;
  if (__builtin_mul_overflow(n_frames, per_frame, &n_samples)) fail_format(header.path + ": is longer than any file");

  const std::ptrdiff_t start = options.start, stop = options.stop == -1 ? n_samples : options.stop;
  if (start < 0 || start >= n_samples || stop <= start || stop > n_samples)
    throw std::invalid_argument(to_utf8("start " + std::to_string(start) + ", stop " + std::to_string(stop) +
                                        ": expected 0 <= start < stop <= " + std::to_string(n_samples) +
                                        ", the length of " + header.path));

  const std::ptrdiff_t first = start / per_frame, last = (stop - 1) / per_frame + 1;  // frames

  // What is to be read, and how much of it no file stores: both before anything is allocated.
  std::vector<Piece> pieces;
  std::set<std::string> counted;
  std::ptrdiff_t n_unstored = 0;
  const auto add_piece = [&](Segment* segment, std::ptrdiff_t from, std::ptrdiff_t to, std::ptrdiff_t column) {
    std::ptrdiff_t stored = segment ? stored_signals(segment->layout, segment->rows, counted) : 0;
    std::ptrdiff_t values = 0;
    if (__builtin_mul_overflow(n_rows - std::min(stored, n_rows), (to - from) * per_frame, &values) ||
        __builtin_add_overflow(n_unstored, values, &n_unstored) || n_unstored > options.max_samples)
      fail_format(header.path + ": has more than " + std::to_string(options.max_samples) +
                  " values that no signal file stores (null signals, gaps); read fewer leads or a shorter range");
    pieces.push_back({segment, from, to, column});
  };
  if (!header.multi_segment) add_piece(segment_of(header), first, last, 0);
  std::ptrdiff_t position = 0;
  for (const SegmentLine& line : header.segments) {
    const std::ptrdiff_t from = std::max(first, position), to = std::min(last, position + line.n_samples);
    if (from < to) {
      Segment* segment = line.name == "~" ? nullptr : segment_of(source.segment_header(line.name));
      if (segment && segment->n_samples != line.n_samples)
        fail_format(header.path + ": segment " + line.name + " has " + std::to_string(line.n_samples) + " samples, " +
                    segment->header->path + " has " + std::to_string(segment->n_samples));
      add_piece(segment, from - position, to - position, from - first);
    }
    position += line.n_samples;
  }
  std::ptrdiff_t n_values = 0;
  if (__builtin_mul_overflow(n_rows, (last - first) * per_frame, &n_values))
    fail_format(header.path + ": is longer than any file");

  record.name = to_utf8(path);
  record.fs = header.fs * static_cast<double>(per_frame);
  record.n_samples = n_samples;
  record.comments = header.comments;
  record.start_time = header.start_time;
  for (const std::size_t lead : wanted) {
    record.leads.push_back(leads.names[lead]);
    record.units.push_back(leads.units[lead]);
    record.calibrated.push_back(leads.calibrated[lead]);
  }
  record.signal = std::move(memory);
  record.signal.resize(n_rows, (last - first) * per_frame);

  const bool whole = start == 0 && stop == n_samples && record.warnings.empty();
  const float nan = std::numeric_limits<float>::quiet_NaN();
  std::vector<char> filled(static_cast<std::size_t>(n_rows));
  for (const Piece& piece : pieces) {
    std::fill(filled.begin(), filled.end(), 0);
    if (piece.segment) {
      Segment& segment = *piece.segment;
      for (const SignalRow& row : segment.rows) {
        filled[static_cast<std::size_t>(row.row)] = 1;
        auto& calibrated = record.calibrated[static_cast<std::size_t>(row.row)];
        const SignalLine& line = segment.header->signals[row.signal];
        calibrated = calibrated && (line.calibrated || line.format == 0);
      }
      const bool verify = whole && !segment.verified && has_checksums(*segment.header);
      read_signals(*segment.header, segment.layout, segment.rows, segment.n_samples, piece.from, piece.to, per_frame,
                   record.signal.view(), piece.column, verify, record.warnings);
      segment.verified = true;
    }
    for (std::ptrdiff_t row = 0; row < n_rows; ++row)
      if (!filled[static_cast<std::size_t>(row)])
        std::fill_n(record.signal.row(row) + piece.column * per_frame, (piece.to - piece.from) * per_frame, nan);
  }
  if (record.signal.cols != stop - start)
    record.signal = columns(record.signal, start - first * per_frame, stop - start);
  record.warnings.insert(record.warnings.end(), averaged.begin(), averaged.end());
  if (options.strict && !record.warnings.empty()) fail_format(record.warnings.front());
}

RecordInfo read_header(const std::string& path) {
  Source source(parse_header(header_path(path)));
  const Header& header = source.header();
  RecordInfo info;
  info.name = to_utf8(path);
  const RecordLength length = length_of(source);
  info.fs = length.fs;
  info.samps_per_frame = source.leads().samps_per_frame;
  std::replace(info.samps_per_frame.begin(), info.samps_per_frame.end(), std::ptrdiff_t{0}, std::ptrdiff_t{1});
  info.leads = source.leads().names;
  info.units = source.leads().units;
  info.calibrated = source.leads().calibrated;
  info.gains = source.leads().gains;
  info.comments = header.comments;
  info.start_time = header.start_time;
  info.n_samples = length.n_samples;

  std::set<int> formats;
  std::set<std::string> files;
  const auto note = [&](const Header& part) {
    for (const auto& signal : part.signals) {
      formats.insert(signal.format);
      if (signal.file != "~") files.insert(to_utf8(signal.file));
    }
  };
  note(header);
  std::set<std::string> seen{"~"};
  for (std::size_t i = source.variable_layout() ? 1 : 0; i < header.segments.size(); ++i) {
    if (!seen.insert(header.segments[i].name).second) continue;
    try {
      note(source.segment_header(header.segments[i].name));
    } catch (const FileMissing&) {  // long recordings are often downloaded in part
    }
  }
  info.formats.assign(formats.begin(), formats.end());
  info.files.assign(files.begin(), files.end());
  info.n_bytes = bytes_of(header, info.files);
  return info;
}

RecordLength read_length(Header header) {
  return length_of(Source(std::move(header)));
}

template <class T>
Record make_record(View<const T> signal, double fs, std::vector<std::string> leads, std::vector<std::string> units,
                   std::string name, std::vector<std::string> warnings) {
  if (signal.rows == 0) throw std::invalid_argument("signal: has no leads");
  if (signal.cols == 0) throw std::invalid_argument("signal: has no samples");
  if (!(fs > 0) || !std::isfinite(fs))
    throw std::invalid_argument("fs " + std::to_string(fs) + ": expected a finite number above 0 Hz");
  const auto n_leads = static_cast<std::size_t>(signal.rows);
  if (leads.size() != n_leads)
    throw std::invalid_argument("leads: " + std::to_string(leads.size()) + " names " + quoted(leads) + ", signal has " +
                                std::to_string(n_leads) + " rows");
  if (units.empty()) units.assign(n_leads, "mV");
  if (units.size() != n_leads)
    throw std::invalid_argument("units: " + std::to_string(units.size()) + " names, signal has " +
                                std::to_string(n_leads) + " rows");
  Record record;
  record.warnings = std::move(warnings);
  record.signal.resize(signal.rows, signal.cols);
  for (std::size_t lead = 0; lead < n_leads; ++lead) {
    double factor = factor_to_mv(units[lead]);
    if (factor == 0)
      factor = 1;
    else
      units[lead] = "mV";
    const T* const in = signal.row(static_cast<std::ptrdiff_t>(lead));
    float* const out = record.signal.row(static_cast<std::ptrdiff_t>(lead));
    std::ptrdiff_t lost = 0;
    for (std::ptrdiff_t t = 0; t < signal.cols; ++t) {
      out[t] = static_cast<float>(static_cast<double>(in[t]) * factor);
      lost += !std::isfinite(out[t]) && std::isfinite(in[t]);
    }
    if (lost > 0) {
      std::replace_if(out, out + signal.cols, [](float x) { return std::isinf(x); }, std::nanf(""));
      record.warnings.push_back(beyond_float(name, leads[lead], lost));
    }
  }
  record.name = std::move(name);
  record.n_samples = signal.cols;
  record.fs = fs;
  record.leads = std::move(leads);
  record.units = std::move(units);
  record.calibrated.assign(n_leads, 1);
  return record;
}

template Record make_record(View<const float>, double, std::vector<std::string>, std::vector<std::string>, std::string,
                            std::vector<std::string>);
template Record make_record(View<const double>, double, std::vector<std::string>, std::vector<std::string>, std::string,
                            std::vector<std::string>);

}  // namespace pqrst
