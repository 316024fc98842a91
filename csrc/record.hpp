// WFDB records: header and signal files together, single- or multi-segment, as float32 in mV.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "array.hpp"
#include "header.hpp"

namespace pqrst {

struct Record {
  std::string name;     // path or name, for messages
  Array<float> signal;  // (leads, samples), mV for voltages; invalid samples NaN
  double fs = 0;        // Hz, samples per second and lead
  std::vector<std::string> leads, units;
  std::vector<char> calibrated;  // per lead
  std::ptrdiff_t n_samples = 0;  // of the whole record, also when a part was read
  std::vector<std::string> comments;
  std::string start_time;             // as in the header, "" if absent
  std::vector<std::string> warnings;  // wrong checksums, files that are cut off, values beyond float32
};

// What is read of leads with several samples per frame.
enum class Frames {
  full,  // all samples
  mean,  // one per frame
  fit,   // all samples if the leads to be read share one rate, else one per frame, with a warning
};

struct ReadOptions {
  std::vector<std::string> leads;  // empty: all; else these, in this order
  Frames frames = Frames::fit;
  std::ptrdiff_t start = 0, stop = -1;
  bool strict = false;     // a wrong checksum is an error, not a warning; links lead to no other folder
  bool truncated = false;  // a signal file that is cut off is read as far as it goes, with a warning; not in segments
  // Most values (leads x samples) that no signal file stores: null signals, gaps, files read twice. All others are
  // bounded by the size of the files. 2^28 values are 1 GiB.
  std::ptrdiff_t max_samples = std::ptrdiff_t(1) << 28;
};

// Everything that the headers say; rate and length are those of all leads, read as Frames::fit has it.
struct RecordInfo {
  std::string name;
  double fs = 0;
  std::ptrdiff_t n_samples = -1;  // -1: neither the header nor a signal file tells
  std::vector<std::ptrdiff_t> samps_per_frame;
  std::vector<std::string> leads, units;
  std::vector<char> calibrated;
  std::vector<double> gains;       // ADC units per unit
  std::vector<int> formats;        // ascending, each once
  std::vector<std::string> files;  // with the signals, relative to the header's folder, each once
  std::ptrdiff_t n_bytes = -1;     // of the header and these files; -1: one is missing
  std::vector<std::string> comments;
  std::string start_time;
};

Record read_record(const std::string& path, const ReadOptions& options = {});
// The same of a header that is at hand, into the memory of another record's signal; what `record` is after an exception
// is not defined. `path`: as given, for messages.
void read_record(const std::string& path, Header header, const ReadOptions& options, Record& record);
RecordInfo read_header(const std::string& path);

// What tells how many rows a record gives, without the rest of what its headers say.
struct RecordLength {
  double fs, frame_fs;
  std::ptrdiff_t n_samples;  // -1: neither the header nor a signal file tells
};
RecordLength read_length(Header header);

// A record out of memory: voltages are converted to mV as read_record does. T is float or double. Throws
// std::invalid_argument.
template <class T>
Record make_record(View<const T> signal, double fs, std::vector<std::string> leads, std::vector<std::string> units,
                   std::string name, std::vector<std::string> warnings);

}  // namespace pqrst
